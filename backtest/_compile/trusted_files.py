"""Whether a folder or a file holds machine code of ours: who owns it, and who may write to it."""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from backtest.core.errors import warn_caller

FOLDER = getattr(os, "O_DIRECTORY", 0)
OWN_PLACE = getattr(os, "O_NOFOLLOW", 0)
AT_ONCE = getattr(os, "O_NONBLOCK", 0)
"""Flags of ``os.open``: only a folder, not through a link, and without waiting for a writer."""


class UntrustedError(OSError):
    """Says in a sentence why code is not loaded from a place, and the cure."""


def check_owner(status: os.stat_result, path: Path) -> None:
    """Raise if a file or folder belongs to another user than root, or others may write to it.

    Members of a group other than the user's own are others. On Windows nothing is checked.
    """
    if not hasattr(os, "getuid"):
        return
    if status.st_uid not in (os.getuid(), 0):
        raise UntrustedError(f"{path} belongs to another user (chown {os.getuid()} {path})")

    others_may_write = stat.S_IWOTH
    if status.st_gid != os.getgid():
        others_may_write |= stat.S_IWGRP
    if status.st_mode & others_may_write:
        raise UntrustedError(f"others may write to {path} (chmod go-w {path})")


def check_folder(path: Path, *, follows_links: bool) -> None:
    """Raise if others may write to a folder, or it is a link where none is followed."""
    if not follows_links and path.is_symlink():
        raise UntrustedError(f"{path} is a link (rm {path})")
    check_owner(path.stat(follow_symlinks=follows_links), path)


def read_own_file(path: Path) -> bytes:
    """Return the content of a file in the cache; raise UntrustedError if others could change it.

    The cache, the folder in it and the file are opened one inside the other, and the owner of each
    is checked after it was opened. So nobody can put another file there between check and use.
    Where the system cannot open files inside an open folder, nothing is checked.
    """
    folder = path.parent
    cache = folder.parent
    if os.open not in os.supports_dir_fd:
        return path.read_bytes()
    with (
        opened(cache, FOLDER) as cache_handle,
        opened(folder, FOLDER | OWN_PLACE, inside=cache_handle) as folder_handle,
        opened(path, OWN_PLACE | AT_ONCE, inside=folder_handle) as handle,
    ):
        # A pipe without a writer would be read for ever.
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise UntrustedError(f"{path} is no file (rm -r {path})")
        with os.fdopen(os.dup(handle), "rb") as file:
            return file.read()


@contextlib.contextmanager
def opened(path: Path, flags: int, *, inside: int | None = None) -> Iterator[int]:
    """Open a file or folder for reading, inside a ``with`` block; yield its descriptor.

    Raises UntrustedError if others own it or may write to it. With ``inside``, the descriptor of an
    open folder, the last part of ``path`` is looked up in that very folder, so that nobody can
    replace the folder between two checks.
    """
    name = str(path)
    if inside is not None:
        name = path.name

    handle = os.open(name, os.O_RDONLY | flags, dir_fd=inside)
    try:
        check_owner(os.fstat(handle), path)
        yield handle
    finally:
        os.close(handle)


@functools.cache
def warn_once(fault: str) -> None:
    """Warn once in a process, with the reason why code is compiled in memory."""
    warn_caller(f"compiled code in the cache is not used; code is compiled in memory: {fault}")
