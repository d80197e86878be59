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
import time
from pathlib import Path
from typing import Any

from backtest.base.atomic_files import write_file
from backtest.base.errors import DataError
from backtest.engine.manifest import find_version
from backtest.store import card
from backtest.store import entry as reading
from backtest.store.card import Stamp
from backtest.store.entry import Entry, read_entry, take_stamp
from backtest.store.find import find_folder, list_folders

INDEX = ".index.json"
QUIET = 2_000_000_000
"""Nanoseconds a folder must have been left alone, to be noted: clocks of disks are coarse."""


def list_results(folder: Path, *, use_index: bool = True) -> list[Entry]:
    """Return an entry for every folder of a store, by name; one that is damaged says why.

    Parameters
    ----------
    folder : Path
        The store; one that does not exist holds nothing.
    use_index : bool
        Whether notes of an earlier list may be used; they change nothing but the time it takes.
    """
    names = list_folders(folder)
    known = read_index(folder) if use_index else {}
    notes: dict[str, Any] = {}
    entries, is_news = [], False
    now = time.time_ns()
    for name in names:
        place = folder / name
        stamp = try_stamp(place)
        note = known.get(name)
        mark = hash_stamp(stamp)
        if note is not None and note[0] == mark:
            entries.append(Entry(**note[1]))
            notes[name] = note
            continue
        entry = read_steadily(place, stamp)
        if entry.trouble and not place.is_dir():
            continue  # deleted meanwhile
        entries.append(entry)
        if is_settled(entry, stamp, now):
            notes[name] = [mark, entry.to_dict()]
            is_news = True
    if use_index and (is_news or len(notes) < len(known)):
        write_index(folder, notes)
    return entries


def try_stamp(folder: Path) -> Stamp:
    """Return the stamp of a folder; none where it is gone or cannot be listed."""
    try:
        return take_stamp(folder)
    except OSError:
        return ()


def read_steadily(folder: Path, stamp: Stamp = ()) -> Entry:
    """Return the entry of a folder; one that was replaced while it was read is read again."""
    entry, before = read_entry(folder, stamp), stamp
    for _ in range(3):
        now = try_stamp(folder) if entry.trouble else before
        if now == before:
            break
        entry, before = read_entry(folder, now), now
    return entry


def is_settled(entry: Entry, stamp: Stamp, now: int) -> bool:
    """Tell whether what was read of a folder may be noted: nobody has touched it just now."""
    newest = max((max(changed, written) for _, _, written, changed, _ in stamp), default=now)
    return entry.is_finished and entry.kind != reading.LEFTOVER and now - newest > QUIET


def hash_stamp(stamp: Stamp) -> str:
    """Return a stamp in a few letters."""
    return hashlib.sha256(repr(stamp).encode()).hexdigest()[:32]


# ------------------------------------------------------------------------------------- the notes


@functools.cache
def find_edition() -> str:
    """Return what notes must have been made by: this version, these sources."""
    sources = b"".join(Path(str(each.__file__)).read_bytes() for each in (reading, card))
    return f"{find_version('leverage-backtest')} {hashlib.sha256(sources).hexdigest()[:16]}"


def read_index(folder: Path) -> dict[str, Any]:
    """Return the notes of an earlier list; none where they are damaged or of another version."""
    try:
        head, _, body = (folder / INDEX).read_text(encoding="utf-8").partition("\n")
        if head != hash_body(body):
            return {}
        notes: dict[str, Any] = json.loads(body)
    except (OSError, ValueError):
        return {}
    return notes


def write_index(folder: Path, notes: dict[str, Any]) -> None:
    """Write notes for the next list, where the store can be written; only Python reads them."""
    body = json.dumps(notes)
    with contextlib.suppress(OSError):  # a store that is read-only is listed without
        write_file(folder / INDEX, f"{hash_body(body)}\n{body}".encode())


def hash_body(body: str) -> str:
    """Return the first line of the notes: what they were made by, and their hash."""
    return f"{find_edition()} {hashlib.sha256(body.encode()).hexdigest()}"


# ------------------------------------------------------------------------------------- one result


def read_whole(name: str, folder: Path) -> tuple[Path, Entry]:
    """Return a result that can be used: its folder and what it is.

    Raises
    ------
    DataError
        If it cannot be read, saying why.
    """
    place = find_folder(name, folder)
    entry = read_steadily(place)
    if entry.trouble:
        raise DataError(
            f"a result must be readable: {entry.trouble}",
            where=str(place),
            cure=f"backtest results verify {place.name} says more; run it again, or restore it",
        )
    return place, entry
