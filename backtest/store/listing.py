"""List a store by reading its folders, with an index of what was read before.

Reading a folder takes a tenth of a millisecond, so entries are cached in ``.index.json`` beside
the folders. A cached entry is used only while names, sizes, times and inodes of all files of its
folder are unchanged. The index may be deleted at any time.
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

from backtest.base import DataError, find_version, write_file
from backtest.base.saved_result import KINDS
from backtest.store import entry as reading
from backtest.store import kind_fields, unchanged_run
from backtest.store.entry import StoreEntry, read_entry, take_stamp
from backtest.store.find import find_folder, list_folders
from backtest.store.kinds import LEFTOVER
from backtest.store.unchanged_run import Stamp

INDEX = ".index.json"
QUIET = 2_000_000_000
"""Nanoseconds without a change before an entry is cached: file time stamps are coarse."""
MOST_READS = 10
"""How often a folder is read that another process replaces meanwhile."""


class CachedEntry(NamedTuple):
    """A cached entry; ``mark`` changes whenever a file of its folder does."""

    mark: str
    entry: StoreEntry
    is_stable: bool


def list_results(store: Path, *, use_index: bool = True) -> list[StoreEntry]:
    """Return an entry for every folder of a store, by name, also for damaged ones.

    A store that does not exist is empty. ``use_index`` only makes the list faster.
    """
    known = read_index(store) if use_index else {}
    notes = read_notes(store, known)
    settled = {name: note for name, note in notes.items() if note.is_stable}
    if use_index and settled != known:
        write_index(store, settled)
    return [note.entry for note in notes.values()]


class ServedList:
    """The list of a store for a server: cached in memory, newest first, without leftovers."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self._notes: dict[str, CachedEntry] = {}
        self._lock = threading.Lock()

    def read(self) -> dict[str, CachedEntry]:
        """Return the current entries by name; a folder is read again only if it has changed."""
        if not self.store.is_dir():
            raise DataError(
                "the folder of results does not exist",
                where=str(self.store),
                cure="give the folder with --results",
            )
        with self._lock:
            self._notes = read_notes(self.store, self._notes, is_served=True)
            notes = [each for each in self._notes.values() if each.entry.kind != LEFTOVER]
        notes.sort(key=lambda each: (-each.entry.saved, each.entry.name))
        return {each.entry.name: each for each in notes}


def read_notes(
    store: Path, known: Mapping[str, CachedEntry], *, is_served: bool = False
) -> dict[str, CachedEntry]:
    """Return the entries of a store by name; those in ``known`` are reused while unchanged."""
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
            note = CachedEntry(mark, entry, is_stable(entry, stamp, now))
        notes[name] = note
    return notes


def try_stamp(folder: Path) -> Stamp:
    """Return the stamp of a folder; empty if it is gone or cannot be listed."""
    try:
        return take_stamp(folder)
    except OSError:
        return ()


def read_stable_entry(folder: Path, stamp: Stamp = (), *, is_served: bool = False) -> StoreEntry:
    """Return the entry of a folder; damage counts if it is read twice, as writers replace it."""
    entry = read_entry(folder, stamp, is_served=is_served)
    for _ in range(MOST_READS):
        if not entry.trouble or entry.kind == LEFTOVER:
            break
        before, entry = entry, read_entry(folder, is_served=is_served)
        if entry == before:
            break
    return entry


def is_stable(entry: StoreEntry, stamp: Stamp, now: int) -> bool:
    """Return whether an entry may be cached: it is finished and did not change just now."""
    newest = max((max(changed, written) for _, _, written, changed, _ in stamp), default=now)
    return entry.is_finished and entry.kind != LEFTOVER and now - newest > QUIET


def hash_stamp(stamp: Stamp) -> str:
    """Return a short hash of a stamp."""
    return hashlib.sha256(repr(stamp).encode()).hexdigest()[:32]


# ------------------------------------------------------------------------------------- the index


@functools.cache
def describe_reader() -> str:
    """Return the version and a hash of the sources that an index must have been written by."""
    sources = b"".join(
        Path(each).read_bytes()
        for each in (
            *(str(module.__file__) for module in (reading, kind_fields, unchanged_run)),
            *sorted({kind.source for kind in KINDS.values()}),
        )
    )
    return f"{find_version('leverage-backtest')} {hashlib.sha256(sources).hexdigest()[:16]}"


def read_index(store: Path) -> dict[str, CachedEntry]:
    """Return the entries of the index; empty if it is damaged or of another version."""
    try:
        head, _, body = (store / INDEX).read_text(encoding="utf-8").partition("\n")
        if head != build_index_head(body):
            return {}
        notes: dict[str, Any] = json.loads(body)
    except (OSError, ValueError):
        return {}
    return {
        name: CachedEntry(mark, StoreEntry(**data), True) for name, (mark, data) in notes.items()
    }


def write_index(store: Path, notes: Mapping[str, CachedEntry]) -> None:
    """Write the index for the next list, if the store can be written."""
    body = json.dumps({name: [each.mark, each.entry.to_dict()] for name, each in notes.items()})
    with contextlib.suppress(OSError):  # a read-only store is listed without an index
        write_file(store / INDEX, f"{build_index_head(body)}\n{body}".encode())


def build_index_head(body: str) -> str:
    """Return the first line of the index: the version that wrote it, and a hash of its body."""
    return f"{describe_reader()} {hashlib.sha256(body.encode()).hexdigest()}"


# ------------------------------------------------------------------------------------- one result


def read_usable(name: str, folder: Path) -> tuple[Path, StoreEntry]:
    """Find a result by name, and return its folder and entry; raise if it is damaged."""
    place = find_folder(name, folder)
    entry = read_stable_entry(place)
    if entry.trouble:
        raise DataError(
            f"cannot read the result: {entry.trouble}",
            where=str(place),
            cure=f"backtest results verify {place.name} shows more; run it again, or restore it",
        )
    return place, entry
