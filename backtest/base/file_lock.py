"""A lock between processes: a file that one process holds until it closes it or dies."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PATIENCE = 1.0
"""Seconds to retry: :func:`is_lock_held` in another process takes the lock for an instant."""
MOST_TRIES = 100


class LockHeldError(Exception):
    """Another process holds the lock; ``holder`` is its process id, or ``"?"`` if unknown."""

    def __init__(self, holder: str) -> None:
        super().__init__(f"process {holder} holds the lock")
        self.holder = holder


@contextmanager
def hold_lock_file(path: Path) -> Iterator[None]:
    """Hold a lock file, created with its folder if missing; it contains the id of this process.

    The file is not deleted. The system releases the lock of a process that dies.

    Raises
    ------
    LockHeldError
        If another process holds it.
    OSError
        If the file cannot be written, or the file system has no locks.
    """
    handle = open_locked(path)
    try:
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)


def open_locked(path: Path) -> int:
    """Open and lock a file; see :func:`hold_lock_file`."""
    for _ in range(MOST_TRIES):
        with suppress(FileNotFoundError):  # the previous holder has just deleted the folder
            make_folder(path.parent)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            if is_locked_there(handle, path):
                return handle
    raise FileNotFoundError(errno.ENOENT, "its folder is deleted again and again", str(path))


def make_folder(folder: Path) -> None:
    """Create a folder unless it exists; FileNotFoundError if it is deleted at the same time."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        folder.lstat()
        raise


def is_locked_there(handle: int, path: Path) -> bool:
    """Lock an open file, and close it if the file at the path is now another one."""
    is_ours = False
    try:
        if not lock_handle(handle):
            raise LockHeldError(read_holder(handle))
        is_ours = is_file_at(handle, path)
    finally:
        if not is_ours:
            os.close(handle)
    return is_ours


def lock_handle(handle: int, patience: float | None = None) -> bool:
    """Lock an open file for this process until it is closed; False if another process holds it."""
    from filelock import lock_descriptor  # noqa: PLC0415 - imported only where used

    until = time.monotonic() + (PATIENCE if patience is None else patience)
    while not lock_descriptor(handle, blocking=False):
        if time.monotonic() >= until:
            return False
        time.sleep(0.001)
    return True


def is_file_at(handle: int, path: Path) -> bool:
    """Return whether an open file is still the one at the path; a holder may have deleted it."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def read_holder(handle: int) -> str:
    """Return the process id in a lock file, or ``"?"`` if there is none."""
    with suppress(OSError, ValueError):
        os.lseek(handle, 0, os.SEEK_SET)
        return os.read(handle, 20).decode("ascii").strip() or "?"
    return "?"


def is_lock_held(path: Path) -> bool:
    """Return whether a process holds a lock file; others can still lock it: see PATIENCE."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return False
    try:
        return not lock_handle(handle, patience=0.05)
    except OSError:
        return False
    finally:
        os.close(handle)
