"""Atomic writes: a file or folder appears complete or not at all, even after a crash."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from backtest.base.file_lock import LockHeldError, hold_lock_file

DRAFT_FILE = ".new-"
"""Prefix of the name of a file that is still being written."""
LOCK = "lock"
"""Name of the lock file in a folder, held by the process that works on the folder."""
REPLACED = "replaced"
MOST_TRIES = 100
AT_CWD, EXCHANGE = -100, 2
"""Arguments of the Linux system call renameat2."""


# ------------------------------------------------------------------------------------------- files


def write_file(path: Path, content: bytes) -> None:
    """Write a file atomically: it replaces the older one once all of it is on the disk."""
    with replace_file(path) as draft:
        draft.write_bytes(content)


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield the path of a draft, which replaces the file when the block ends.

    After an error the older file stays, and the draft is deleted. A replaced file keeps its
    permissions; a new one gets the default ones (umask).
    """
    draft = path.with_name(f"{DRAFT_FILE}{uuid.uuid4().hex}")
    try:
        yield draft
        with suppress(FileNotFoundError):
            shutil.copymode(path, draft)
        move_file(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def move_file(draft: Path, path: Path) -> None:
    """Flush a finished file to the disk and move it to its final path."""
    sync_to_disk(draft)
    draft.replace(path)
    sync_to_disk(path.parent)


def sync_to_disk(path: Path) -> None:
    """Flush a file or a folder's entries to the disk; Windows cannot flush folders."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ----------------------------------------------------------------------------------------- folders


@contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Create a locked folder, and delete it with its content when the block ends."""
    parent.mkdir(parents=True, exist_ok=True)
    with held_folder(parent, prefix) as folder:
        try:
            yield folder
        finally:
            with suppress(OSError):
                for each in folder.iterdir():
                    shutil.rmtree(each, ignore_errors=True)  # not the lock: it is a file


@contextmanager
def held_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Create a folder with a lock file held by this process; delete it at the end if empty."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        with ExitStack() as stack:
            with suppress(
                OSError, LockHeldError
            ):  # a file system without locks: the folder counts as not held
                stack.enter_context(hold_lock_file(folder / LOCK))
            yield folder
    finally:
        with suppress(OSError):  # not empty: it stays
            (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()


def replace_folder(draft: Path, target: Path, spare: str) -> None:
    """Move a finished draft, made in a :func:`temporary_folder`, to its target, replacing a folder.

    Files that somebody added to the older folder are moved into the new one; if that fails, the
    older folder is kept under a name that begins with ``spare``. Where the system supports it, the
    two folders are exchanged atomically, so that the target is complete at all times.
    """
    names = frozenset(each.name for each in draft.iterdir())
    for path in (*draft.rglob("*"), draft):
        sync_to_disk(path)
    for _ in range(MOST_TRIES):
        if move_folder(draft, target):
            break
        if exchange_folders(draft, target):
            keep_added_files(draft, target, names, spare)
            break
        older = draft.with_name(REPLACED)
        with suppress(FileNotFoundError):  # another process was faster
            target.rename(older)
        is_done = move_folder(draft, target)
        keep_added_files(older, target, names, spare)
        if is_done:
            break
    else:
        raise OSError(errno.EBUSY, "another process keeps replacing the folder")
    sync_to_disk(target.parent)


def move_folder(draft: Path, target: Path) -> bool:
    """Move a folder to a path that is free or an empty folder; return whether it was."""
    try:
        draft.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def exchange_folders(one: Path, other: Path) -> bool:
    """Exchange two folders atomically; return False if the system cannot, or one is gone."""
    if not sys.platform.startswith("linux"):
        return False
    import ctypes  # noqa: PLC0415 - only where a folder is replaced

    swap = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if swap is None:
        return False
    done: int = swap(AT_CWD, os.fsencode(one), AT_CWD, os.fsencode(other), EXCHANGE)
    return done == 0


def keep_added_files(older: Path, target: Path, names: frozenset[str], spare: str) -> None:
    """Move files other than those named from a replaced folder to the new one; delete the rest."""
    if not older.is_dir():
        return
    try:
        for each in list(older.iterdir()):
            if each.name not in names:
                each.rename(target / each.name)
    except OSError:  # the older folder stays, and the list of results shows it
        kept = Path(tempfile.mkdtemp(prefix=spare, dir=target.parent))
        older.rename(kept / target.name)
    shutil.rmtree(older, ignore_errors=True)
