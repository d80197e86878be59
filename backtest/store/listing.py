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
import os
import time
from pathlib import Path
from typing import Any

from backtest.base.atomic_files import write_file
from backtest.base.errors import DataError
from backtest.base.result_folders import DRAFT, OLDER
from backtest.engine.manifest import find_version
from backtest.report.write import find_folder
from backtest.store import card
from backtest.store import entry as reading
from backtest.store.card import Stamp
from backtest.store.entry import PRUNED, Entry, read_entry, take_stamp
from backtest.tune.holdout import LOOKS

INDEX = ".index.json"
QUIET = 2_000_000_000
"""Nanoseconds a folder must have been left alone, to be noted: clocks of disks are coarse."""
LEFTOVERS = (DRAFT, OLDER, PRUNED)


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


def list_folders(folder: Path) -> list[str]:
    """Return the names of the folders of a store: results, and what writers left.

    The record of looks at holdouts is no result.
    """
    try:
        with os.scandir(folder) as found:
            names = {each.name for each in found if each.is_dir()} - {LOOKS}
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(
            f"the folder of results must be readable: {error.strerror or error}",
            where=str(folder),
            cure="give another folder with --results",
        ) from error
    return sorted(name for name in names if name[0] != "." or name.startswith(LEFTOVERS))


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


def find_result(name: str, folder: Path) -> Path:
    """Return the folder of one result by its name or id, or how either begins.

    A damaged one is found by its whole name, or by the id in it.

    Raises
    ------
    DataError, ParameterError
        If there is none, or a beginning fits several.
    """
    inside = [each for each in list_folders(folder) if each == name]
    if inside and Path(name).name == name:
        return folder / name
    try:
        return find_folder(name, folder)
    except DataError:
        fits = [each for each in list_folders(folder) if name and fits_damaged(each, name)]
        if len(fits) == 1:
            return folder / fits[0]
        raise


def fits_damaged(folder: str, name: str) -> bool:
    """Tell whether a name is how that of a folder begins, or its id."""
    return folder.startswith(name) or (len(name) > 3 and folder.rpartition("-")[2].startswith(name))


def read_whole(name: str, folder: Path) -> tuple[Path, Entry]:
    """Return a result that can be used: its folder and what it is.

    Raises
    ------
    DataError
        If it cannot be read, saying why.
    """
    place = find_result(name, folder)
    entry = read_steadily(place)
    if entry.trouble:
        raise DataError(
            f"a result must be readable: {entry.trouble}",
            where=str(place),
            cure=f"backtest results verify {place.name} says more; run it again, or restore it",
        )
    return place, entry
