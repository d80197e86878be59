"""Atomic writes: a file or folder appears complete or not at all; locks between processes."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

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


PATIENCE = 1.0
"""Seconds to retry: :func:`is_lock_held` in another process takes the lock for an instant."""
MOST_LOCK_TRIES = 100


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
    for _ in range(MOST_LOCK_TRIES):
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
