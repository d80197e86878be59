"""Delete saved results: those that were chosen, unless they have changed since."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from backtest.base.atomic_files import LOCK, held_folder
from backtest.base.errors import DataError
from backtest.base.result_folders import LEFTOVERS, MANIFEST, PRUNED
from backtest.store.card import Stamp
from backtest.store.deletable_folders import describe_removal, find_reason_to_keep
from backtest.store.entry import StoreEntry
from backtest.store.kinds import name_kind
from backtest.store.list_filters import Filter, sort_entries
from backtest.store.listing import QUIET, list_results, try_stamp
from backtest.tune.study_folder import STUDY

KNOWN_BY = (MANIFEST, STUDY)
"""The files that say what a folder is."""


class Deletion(NamedTuple):
    """A folder to be deleted, as it was when it was chosen."""

    entry: StoreEntry
    stamp: Stamp


class KeptFolder(NamedTuple):
    """A folder that was meant and is not the store's to delete: why, and how to remove it."""

    name: str
    why: str
    by_hand: str


class Deletions(NamedTuple):
    """What would be deleted, the newest first, and what was meant and stays."""

    to_delete: list[Deletion]
    kept: list[KeptFolder]


def choose_deletions(
    folder: Path,
    wanted: Filter,
    *,
    keep: int = 0,
    with_unfinished: bool = False,
    with_damaged: bool = False,
) -> Deletions:
    """Return what would be deleted, and what is meant and is not the store's to delete.

    Parameters
    ----------
    folder : Path
        The store.
    wanted : Filter
        Which results are meant.
    keep : int
        So many of them stay, the newest.
    with_unfinished : bool
        Also studies that could be resumed.
    with_damaged : bool
        Also every result that cannot be read, and what killed writers left. Only what carries a
        readable manifest, or the description of a study, with its id is the store's; see
        :func:`backtest.store.deletable_folders.find_reason_to_keep`.
    """
    stamped = {name: try_stamp(folder / name) for name in names_of(folder)}
    entries = [each for each in list_results(folder, use_index=False) if not each.is_busy]
    meant = sort_entries(each for each in entries if wanted.matches(each))
    chosen = [each for each in meant[keep:] if each.is_finished or with_unfinished]
    if with_damaged:
        chosen += [each for each in entries if each.trouble]
    reasons = {each.name: find_reason_to_keep(folder / each.name) for each in chosen}
    return Deletions(
        [Deletion(each, stamped.get(each.name, ())) for each in chosen if not reasons[each.name]],
        [
            KeptFolder(name, why, describe_removal(folder / name))
            for name, why in reasons.items()
            if why
        ],
    )


def names_of(folder: Path) -> list[str]:
    """Return the folders of a store."""
    return [each.name for each in folder.glob("*") if each.is_dir()]


def delete(folder: Path, to_delete: Sequence[Deletion]) -> tuple[list[str], list[str]]:
    """Delete folders; return the names of those deleted, and of those that changed meanwhile.

    A folder is moved away at once before its files are deleted, so that none is ever found half.
    """
    deleted: list[str] = []
    left: list[str] = []
    for each in to_delete:
        target = folder / each.entry.name
        try:
            is_gone = is_unchanged(target, each.stamp) and delete_folder(target, each.stamp)
        except OSError as error:
            raise DataError(
                f"a result must be deletable: {error.strerror or error}",
                where=str(target),
                cure="make the folder writable",
            ) from error
        (deleted if is_gone else left).append(each.entry.name)
    return deleted, left


def is_unchanged(target: Path, stamp: Stamp) -> bool:
    """Return whether a folder is as it was; an empty one may be a draft that has just begun."""
    try:
        is_old = time.time_ns() - target.lstat().st_mtime_ns > QUIET
    except OSError:
        return False
    return try_stamp(target) == stamp and (bool(stamp) or is_old)


def delete_folder(target: Path, stamp: Stamp) -> bool:
    """Delete one folder: out of its place at once, then the files it was chosen with.

    Returns False where another folder took the name in the last moment, or a file was added: that
    is put back. What tells that it is a result goes last, so that the next one clears what a killed
    process leaves.
    """
    if target.is_symlink():
        target.unlink()
        return True
    with held_folder(target.parent, PRUNED) as grave:
        moved = grave / target.name
        target.rename(moved)
        is_gone = try_stamp(moved) == stamp and not find_reason_to_keep_moved(moved, target)
        if is_gone:
            delete_files(moved, stamp)
        with suppress(OSError):  # what came meanwhile stays where it is, and is named by a list
            if not is_gone:
                moved.rename(target)
    return is_gone


def find_reason_to_keep_moved(moved: Path, target: Path) -> str:
    """Return why a folder that was moved away is not the store's; leftovers are judged before."""
    return "" if target.name.startswith(LEFTOVERS) else find_reason_to_keep(moved)


def delete_files(folder: Path, stamp: Stamp) -> None:
    """Delete the files of a stamp, that by which a result is known last; then the folders."""
    names = sorted((name for name, *_ in stamp), key=lambda name: (name in KNOWN_BY, name))
    for name in (each for each in names if not each.endswith("/")):
        (folder / name).unlink(missing_ok=True)
    (folder / LOCK).unlink(missing_ok=True)
    for name in sorted((each for each in names if each.endswith("/")), reverse=True):
        with suppress(OSError):  # something was put there in this moment: it stays
            (folder / name).rmdir()
    with suppress(OSError):
        folder.rmdir()


def count_kinds(entries: Sequence[StoreEntry]) -> str:
    """Return how many of each kind there are, as text.

    Examples
    --------
    >>> count_kinds([StoreEntry("a", "run"), StoreEntry("b", "run"), StoreEntry("c", "study")])
    '2 runs, 1 study'
    """
    counts = Counter(each.kind for each in entries)
    return ", ".join(f"{n:,} {name_kind(kind, n)}" for kind, n in counts.items()) or "none"
