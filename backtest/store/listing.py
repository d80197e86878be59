"""The list of a store, made of the folders themselves.

Reading a folder takes a tenth of a millisecond, so what was read is noted in ``.index.json``
beside the folders. A note is used only while the names, sizes, times and places on the disk of all
files of its folder are those it was made of; it may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from backtest.base.atomic_files import write_file
from backtest.base.errors import DataError
from backtest.engine.manifest import find_version
from backtest.store import card
from backtest.store import entry as reading
from backtest.store.card import Stamp
from backtest.store.entry import StoreEntry, read_entry, take_stamp
from backtest.store.find import find_folder, list_folders
from backtest.store.kinds import LEFTOVER

INDEX = ".index.json"
QUIET = 2_000_000_000
"""Nanoseconds a folder must have been left alone, to be noted: clocks of disks are coarse."""


class Note(NamedTuple):
    """What was read of a folder; ``mark`` changes whenever a file of it does."""

    mark: str
    entry: StoreEntry
    is_stable: bool


def list_results(store: Path, *, use_index: bool = True) -> list[StoreEntry]:
    """Return an entry for every folder of a store, by name; one that is damaged says why.

    Parameters
    ----------
    store : Path
        The folder of results; one that does not exist holds nothing.
    use_index : bool
        Whether notes of an earlier list may be used; they change nothing but the time it takes.
    """
    known = read_index(store) if use_index else {}
    notes = read_notes(store, known)
    settled = {name: note for name, note in notes.items() if note.is_stable}
    if use_index and settled != known:
        write_index(store, settled)
    return [note.entry for note in notes.values()]


class ServedList:
    """The list of a store for a server: in memory, the newest first, without unfinished writes.

    Parameters
    ----------
    store : Path
        The folder of results.
    """

    def __init__(self, store: Path) -> None:
        self.store = store
        self._notes: dict[str, Note] = {}
        self._lock = threading.Lock()

    def read(self) -> dict[str, Note]:
        """Return what lies in the store now; a folder is read again only if it has changed."""
        if not self.store.is_dir():
            raise DataError(
                "a store must be a folder that can be read, there is none",
                where=str(self.store),
                cure="give the folder with --results",
            )
        with self._lock:
            self._notes = read_notes(self.store, self._notes, is_served=True)
            notes = [each for each in self._notes.values() if each.entry.kind != LEFTOVER]
        notes.sort(key=lambda each: (-each.entry.saved, each.entry.name))
        return {each.entry.name: each for each in notes}


def read_notes(
    store: Path, known: Mapping[str, Note], *, is_served: bool = False
) -> dict[str, Note]:
    """Return what lies in a store, by name: as it is known, or read again after a change.

    Parameters
    ----------
    store : Path
        The folder of results.
    known : mapping of str to Note
        What was read before.
    is_served : bool
        As in :func:`read_entry`.
    """
    notes = {}
    now = time.time_ns()
    for name in list_folders(store):
        folder = store / name
        stamp = () if is_served and folder.is_symlink() else try_stamp(folder)
        mark = hash_stamp(stamp)
        note = known.get(name)
        if note is None or note.mark != mark:
            entry = read_stable_entry(folder, stamp, is_served=is_served)
            if entry.trouble and not folder.is_dir():
                continue  # deleted meanwhile
            note = Note(mark, entry, is_stable(entry, stamp, now))
        notes[name] = note
    return notes


def try_stamp(folder: Path) -> Stamp:
    """Return the stamp of a folder; none where it is gone or cannot be listed."""
    try:
        return take_stamp(folder)
    except OSError:
        return ()


def read_stable_entry(folder: Path, stamp: Stamp = (), *, is_served: bool = False) -> StoreEntry:
    """Return the entry of a folder; one that was replaced while it was read is read again."""
    entry, before = read_entry(folder, stamp, is_served=is_served), stamp
    for _ in range(3):
        now = try_stamp(folder) if entry.trouble else before
        if now == before:
            break
        entry, before = read_entry(folder, now, is_served=is_served), now
    return entry


def is_stable(entry: StoreEntry, stamp: Stamp, now: int) -> bool:
    """Return whether what was read of a folder may be noted: nobody has touched it just now."""
    newest = max((max(changed, written) for _, _, written, changed, _ in stamp), default=now)
    return entry.is_finished and entry.kind != LEFTOVER and now - newest > QUIET


def hash_stamp(stamp: Stamp) -> str:
    """Return a stamp in a few letters."""
    return hashlib.sha256(repr(stamp).encode()).hexdigest()[:32]


# ------------------------------------------------------------------------------------- the notes


@functools.cache
def describe_reader() -> str:
    """Return what notes must have been made by: this version, these sources."""
    sources = b"".join(Path(str(each.__file__)).read_bytes() for each in (reading, card))
    return f"{find_version('leverage-backtest')} {hashlib.sha256(sources).hexdigest()[:16]}"


def read_index(store: Path) -> dict[str, Note]:
    """Return the notes of an earlier list; none where they are damaged or of another version."""
    try:
        head, _, body = (store / INDEX).read_text(encoding="utf-8").partition("\n")
        if head != build_index_head(body):
            return {}
        notes: dict[str, Any] = json.loads(body)
    except (OSError, ValueError):
        return {}
    return {name: Note(mark, StoreEntry(**data), True) for name, (mark, data) in notes.items()}


def write_index(store: Path, notes: Mapping[str, Note]) -> None:
    """Write notes for the next list, where the store can be written; only Python reads them."""
    body = json.dumps({name: [each.mark, each.entry.to_dict()] for name, each in notes.items()})
    with contextlib.suppress(OSError):  # a store that is read-only is listed without
        write_file(store / INDEX, f"{build_index_head(body)}\n{body}".encode())


def build_index_head(body: str) -> str:
    """Return the first line of the notes: what they were made by, and their hash."""
    return f"{describe_reader()} {hashlib.sha256(body.encode()).hexdigest()}"


# ------------------------------------------------------------------------------------- one result


def read_usable(name: str, folder: Path) -> tuple[Path, StoreEntry]:
    """Return a result that can be used: its folder and what it is."""
    place = find_folder(name, folder)
    entry = read_stable_entry(place)
    if entry.trouble:
        raise DataError(
            f"a result must be readable: {entry.trouble}",
            where=str(place),
            cure=f"backtest results verify {place.name} says more; run it again, or restore it",
        )
    return place, entry
