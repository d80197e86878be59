"""Folders of results: written whole or not at all, with a manifest that knows every file's hash."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from backtest.base.bounded_reads import parse_json, read_small
from backtest.base.errors import DataError
from backtest.base.json_values import to_plain

MANIFEST = "manifest.json"
DRAFT, OLDER = ".saving-", ".older-"
"""How the names of folders begin that are being written, or replaced."""
AT_CWD, EXCHANGE = -100, 2
"""Of Linux's renameat2."""
MOST_TRIES = 100
LONGEST_LOOK = 10.0
"""Seconds that :func:`take_hold` waits for processes that only look."""


def publish(folder: Path, name: str, write: Callable[[Path], None], *, what: str) -> Path:
    """Make a folder of its own inside ``folder``; it appears whole or not at all.

    Parameters
    ----------
    folder : Path
        Where it is to stand; made where it does not exist.
    name : str
        Of the new folder; an older one of this name is replaced.
    write : callable
        Writes the files into the folder it is given.
    what : str
        What is saved, for messages.

    Raises
    ------
    DataError
        If the folder cannot be written.
    """
    target = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=folder))
        names: frozenset[str] = frozenset()
        try:
            with held(draft):
                write(draft)
                names = frozenset(each.name for each in draft.iterdir())
                draft.chmod(0o755)
                _sync(draft)
                _put(draft, target, names)
                _sync_names(folder)
        finally:
            _discard(draft, target, names)
    except OSError as error:
        raise DataError(
            f"a {what} must be writable to its folder: {error.strerror or error}",
            where=str(target),
            cure="choose another folder, or free some space",
        ) from error
    return target


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder that is being written: the system lets it go when the writer dies."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: it counts as not held
            take_hold(handle)
        yield
    finally:
        os.close(handle)


def take_hold(handle: int) -> None:
    """Lock an open file or folder for this process alone, until it is closed.

    Whoever only looks (:func:`is_held`) shares the lock for a moment, which refuses nobody: that
    moment is waited for.

    Raises
    ------
    BlockingIOError
        If another process holds it.
    OSError
        If the file system has no locks.
    """
    until = time.monotonic() + LONGEST_LOOK
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not _is_shared(handle) or time.monotonic() > until:
                raise
            time.sleep(0.001)
        else:
            return


def _is_shared(handle: int) -> bool:
    """Tell whether nobody holds a locked file for himself: others only look at it, or did."""
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(handle, fcntl.LOCK_UN)
    return True


def is_held(path: Path) -> bool:
    """Tell whether a living process holds a folder, or a file; a process about to is not hindered.

    See :func:`take_hold`.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def _sync(folder: Path) -> None:
    """Bring the files of a folder to the disk, and their names."""
    for path in folder.rglob("*"):
        _sync_names(path)
    _sync_names(folder)


def _sync_names(path: Path) -> None:
    """Bring one file, or the names in one folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _discard(older: Path, target: Path, names: frozenset[str]) -> None:
    """Delete a draft, or what a new folder has replaced; what else lay in it goes to the new one.

    Parameters
    ----------
    older, target : Path
        The folder to delete, and the one that stands in its place.
    names : frozenset of str
        Of the files of the new one. None: the draft was not finished, and is ours as a whole.
    """
    if not names:
        shutil.rmtree(older, ignore_errors=True)
        return
    with contextlib.suppress(OSError):  # gone already, or it stays and a list names it
        for each in list(older.iterdir()):
            if each.name not in names:
                each.rename(target / each.name)
        shutil.rmtree(older, ignore_errors=True)


def _put(draft: Path, target: Path, names: frozenset[str]) -> None:
    """Move a finished folder to its place; an older one of the same name goes where it was.

    Both change places at once where the system can do that, so that a writer killed here, or
    another one at the same moment, leaves a whole folder under the name.
    """
    for _ in range(MOST_TRIES):
        try:
            draft.rename(target)  # there is none, or an empty one
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return
        if _exchange(draft, target):
            return
        older = Path(tempfile.mkdtemp(prefix=OLDER, dir=target.parent))
        with contextlib.suppress(FileNotFoundError):  # another writer was faster
            target.rename(older / target.name)
        with contextlib.suppress(OSError):  # another writer was faster: once more
            draft.rename(target)
        _discard(older / target.name, target, names)
        with contextlib.suppress(OSError):
            older.rmdir()
        if not draft.exists():
            return
    raise OSError(errno.EBUSY, "others write it again and again")


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders at once; return False where the system cannot, or one is gone."""
    import ctypes  # noqa: PLC0415 - only where a folder is replaced

    swap = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if swap is None:
        return False
    done: int = swap(AT_CWD, os.fsencode(one), AT_CWD, os.fsencode(other), EXCHANGE)
    return done == 0


def name_folder(title: str, identity: str) -> str:
    """Return the name of a folder from a title and an id.

    Examples
    --------
    >>> name_folder("VolTarget", "0a1b")
    'voltarget-0a1b'
    """
    return f"{re.sub(r'[^a-z0-9]+', '-', title.lower()).strip('-')}-{identity}"


def seal(folder: Path, manifest: Mapping[str, Any], files: Sequence[str], format_: int) -> None:
    """Write the manifest beside the files it names, with their hashes."""
    hashes = {name: hash_file(folder / name) for name in files}
    write_json({"format": format_, **manifest, "files": hashes}, folder / MANIFEST)


def read_manifest(
    folder: Path, files: Sequence[str], format_: int, *, what: str, cure: str
) -> dict[str, Any]:
    """Return the manifest of a folder whose files are as they were saved.

    Raises
    ------
    DataError
        If there is none, its format is another, or a file is missing or changed.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(
            f"a {what} must hold {MANIFEST}, there is none", where=str(folder), cure=cure
        )
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != format_:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise DataError(
            f"the format of a {what} must be {format_}, was {found!r}",
            where=str(path),
            cure="load it with the version that saved it",
        )
    for name in files:
        expected = manifest.get("files", {}).get(name)
        found = hash_file(folder / name) if (folder / name).is_file() else "missing"
        if found != expected:
            raise DataError(
                f"{name} must be as it was saved, was "
                + ("missing" if found == "missing" else "changed or truncated"),
                where=str(folder / name),
                cure="run the experiment again, or restore the file",
            )
    return manifest


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that stands there whole or not at all."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as file:
        draft = Path(file.name)
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            draft.chmod(0o644)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write a table without its index."""
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), path, compression="zstd")


def write_json(data: Mapping[str, Any], path: Path) -> None:
    """Write data as JSON for reading."""
    text = json.dumps(to_plain(data), indent=1, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Return the data of a file.

    Raises
    ------
    DataError
        If it is no JSON, is larger than 32 MiB, or cannot be read.
    """
    try:
        return parse_json(read_small(path), path)
    except OSError as error:
        raise DataError(
            f"{path.name} must be readable: {error.strerror or error}",
            where=str(path),
            cure="run the experiment again, or restore the file",
        ) from error


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a plain file, of whatever size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
