"""Atomic writes: a file or folder appears complete or not at all; locks between processes."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from backtest.core.code_names import filelock, pa, pd, pq
from backtest.core.errors import DataError, describe_fault

DRAFT_FILE = ".new-"
LOCK = "lock"
REPLACED = "replaced"
MAX_TRIES = 100


def write_file(path: Path, content: bytes) -> None:
    with replace_file(path) as draft:
        draft.write_bytes(content)


@contextmanager
def writing(path: Path, what: str) -> Iterator[None]:
    """Raise DataError for what the system says of a file that cannot be written."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot write the {what}: {describe_fault(error)}") from error


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Give the path of a draft, which replaces a file once the block has written it.

    It does so by one rename: others see the old file or the new one, never a part. The new file has
    the mode of the old one. If the block raises, the old file stays.
    """
    draft = path.with_name(f"{DRAFT_FILE}{uuid.uuid4().hex}")
    try:
        yield draft
        with suppress(FileNotFoundError):
            shutil.copymode(path, draft)

        # The content is on the disk before the name is, and the name before anything later.
        sync_to_disk(draft)
        draft.replace(path)
        sync_to_disk(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def sync_to_disk(path: Path) -> None:
    """Wait until a file or folder is on the disk; Windows cannot sync folders."""
    if os.name == "nt" and path.is_dir():
        return
    flags = os.O_RDONLY
    if os.name == "nt":
        flags = os.O_RDWR
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Give a new folder, held by a lock, which is deleted at the end with all that is in it.

    Other processes see by the lock that it is in use. What cannot be deleted is left.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with held_folder(parent, prefix) as folder:
        try:
            yield folder
        finally:
            with suppress(OSError):
                for path in folder.iterdir():
                    shutil.rmtree(path, ignore_errors=True)  # not the lock: it is a file


@contextmanager
def held_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Give a new folder with a lock in it, which is held; at the end it is deleted if empty.

    ``prefix`` begins its name. On a file system without locks none is held.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        with ExitStack() as stack:
            with suppress(OSError, LockHeldError):  # a file system without locks: not held
                stack.enter_context(hold_lock_file(folder / LOCK))
            yield folder

    finally:
        with suppress(OSError):  # not empty: it stays
            (folder / LOCK).unlink(missing_ok=True)
            folder.rmdir()


def replace_folder(draft: Path, target: Path) -> None:
    """Put a draft in the place of a folder, by renames; both lie on one file system.

    Files that others have added to that folder are copied into the draft first, but for those whose
    names the draft has itself. The old folder is moved beside the draft. Another process may move
    or write the folder between any two steps, so they are tried again, MAX_TRIES times at most.
    """
    own_names = {path.name for path in draft.iterdir()}
    for path in (*draft.rglob("*"), draft):
        sync_to_disk(path)

    older = draft.with_name(REPLACED)
    for _ in range(MAX_TRIES):
        try:
            if target.is_dir():
                copy_added(target, draft, own_names)
            draft.rename(target)
            break
        except OSError as error:
            # The folder was moved while it was copied: once more. The draft must still be there.
            if was_moved(error) and draft.is_dir():
                continue
            is_in_the_way = error.errno in (errno.ENOTEMPTY, errno.EEXIST)
            if not is_in_the_way:
                raise

        # A folder with files is not replaced by a rename: it is moved out of the way.
        shutil.rmtree(older, ignore_errors=True)
        with suppress(FileNotFoundError):  # another process was faster
            target.rename(older)
    else:
        raise OSError(errno.EBUSY, "another process keeps replacing the folder")
    sync_to_disk(target.parent)


def copy_added(source: Path, draft: Path, own_names: set[str]) -> None:
    """Copy what a folder holds into a draft, but what has one of some names."""

    def list_ignored(folder: str, _names: list[str]) -> Iterable[str]:
        if folder == str(source):
            return own_names
        return ()

    shutil.copytree(source, draft, symlinks=True, dirs_exist_ok=True, ignore=list_ignored)


def was_moved(error: OSError) -> bool:
    """Return whether another process moved a folder while it was copied."""
    faults: Any = [(error,)]
    if isinstance(error, shutil.Error):  # of several files, each with its own
        faults = error.args[0]
    return all(f"[Errno {errno.ENOENT}]" in str(fault[-1]) for fault in faults)


@contextmanager
def drafted_folder(target: Path, prefix: str) -> Iterator[Path]:
    """Give an empty folder that replaces ``target`` once all is written into it."""
    with temporary_folder(target.parent, prefix) as temporary:
        draft = temporary / target.name
        draft.mkdir()
        yield draft
        replace_folder(draft, target)


def keep_tables(
    folder: Path, make: Callable[[], dict[str, pd.DataFrame]]
) -> dict[str, pd.DataFrame]:
    """Return the tables in a folder of a cache, by name: the files of Parquet in it.

    Without the folder, or if it cannot be read, ``make`` makes the tables, and they are written
    into it. Where it cannot be written, they are only returned.
    """
    if folder.is_dir():
        with suppress(OSError, pa.ArrowException):
            return {path.stem: pq.read_table(path).to_pandas() for path in folder.iterdir()}

    made = make()
    with suppress(OSError), drafted_folder(folder, ".making-") as draft:
        for name, table in made.items():
            pq.write_table(pa.Table.from_pandas(table), draft / f"{name}.parquet")
    return made


PATIENCE = 1.0
"""Seconds to retry: :func:`is_lock_held` in another process has the lock for an instant."""


class LockHeldError(Exception):
    def __init__(self, holder: str) -> None:
        super().__init__(f"process {holder} holds the lock")
        self.holder = holder


@contextmanager
def hold_lock_file(path: Path) -> Iterator[None]:
    """Hold a lock, which names this process; raise LockHeldError if another process has it."""
    lock = filelock.FileLock(path, timeout=PATIENCE, poll_interval=0.002)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire()
    except filelock.Timeout:
        holder = ""
        with suppress(OSError, ValueError), path.open(encoding="ascii") as file:
            holder = file.read(20).strip()
        raise LockHeldError(holder or "?") from None

    try:
        path.write_text(f"{os.getpid()}\n", encoding="ascii")
        yield
    finally:
        lock.release()


def is_lock_held(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return False
    try:
        return not filelock.lock_descriptor(handle, blocking=False)
    except OSError:
        return False
    finally:
        os.close(handle)
