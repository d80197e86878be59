"""Delete chosen results, unless they have changed since they were chosen."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from backtest.base import DataError, held_folder
from backtest.base.atomic_files import LOCK, REPLACED
from backtest.base.result_folders import DRAFT, LEFTOVERS, MANIFEST, OLDER, PRUNED
from backtest.store.deletable_folders import describe_removal, find_reason_to_keep
from backtest.store.entry import StoreEntry
from backtest.store.kinds import name_kind
from backtest.store.list_filters import Filter, sort_entries
from backtest.store.listing import QUIET, list_results, try_stamp
from backtest.store.unchanged_run import Stamp
from backtest.tune import STUDY

KNOWN_BY = (MANIFEST, STUDY)
"""The files that identify a result; they are deleted last."""


class Deletion(NamedTuple):
    """A folder to delete, with its stamp when it was chosen."""

    entry: StoreEntry
    stamp: Stamp


class KeptFolder(NamedTuple):
    """A chosen folder that must not be deleted: the reason, and the command to remove it."""

    name: str
    why: str
    by_hand: str


class Deletions(NamedTuple):
    """The folders to delete, newest first, and those that must be kept."""

    to_delete: list[Deletion]
    kept: list[KeptFolder]


def choose_deletions(
    folder: Path,
    wanted: Filter | None,
    *,
    keep: int = 0,
    with_unfinished: bool = False,
    with_damaged: bool = False,
) -> Deletions:
    """Choose the folders of a store to delete, without deleting them.

    They are the ``wanted`` results except the ``keep`` newest. Studies and validations that could
    be resumed are chosen only ``with_unfinished``, damaged and replaced results only
    ``with_damaged``. With None for ``wanted``, these alone are chosen. What a killed process left
    half written or half deleted always is.
    """
    stamped = {each.name: try_stamp(each) for each in folder.glob("*") if each.is_dir()}
    entries = [each for each in list_results(folder, use_index=False) if not each.is_busy]
    matches = Filter().matches if wanted is None else wanted.matches
    meant = sort_entries(
        each for each in entries if matches(each) and not (wanted is None and each.is_finished)
    )
    chosen = [each for each in meant[keep:] if each.is_finished or with_unfinished]
    troubled = [each for each in entries if each.trouble]
    chosen += [each for each in troubled if with_damaged or is_remains(folder / each.name)]
    reasons = {each.name: find_reason_to_keep(folder / each.name) for each in chosen}
    return Deletions(
        [Deletion(each, stamped.get(each.name, ())) for each in chosen if not reasons[each.name]],
        [
            KeptFolder(name, why, describe_removal(folder / name))
            for name, why in reasons.items()
            if why and os.path.lexists(folder / name)  # another process may have deleted it
        ],
    )


def delete_chosen(folder: Path, to_delete: Sequence[Deletion]) -> tuple[list[str], list[str]]:
    """Delete folders; return the names of those deleted, and of those that have changed.

    A folder is renamed before its files are deleted, so that no reader finds half of it.
    """
    deleted: list[str] = []
    left: list[str] = []
    for each in to_delete:
        target = folder / each.entry.name
        try:
            is_gone = is_unchanged(target, each.stamp) and delete_folder(target, each.stamp)
        except OSError as error:
            raise DataError(
                f"cannot delete the result: {error.strerror or error}",
                where=str(target),
                cure="make the folder writable",
            ) from error
        (deleted if is_gone else left).append(each.entry.name)
    return deleted, left


def is_unchanged(target: Path, stamp: Stamp) -> bool:
    """Return whether a folder is unchanged; a new empty one may be a draft that just began."""
    try:
        is_old = time.time_ns() - target.lstat().st_mtime_ns > QUIET
    except OSError:
        return False
    return try_stamp(target) == stamp and (bool(stamp) or is_old)


def delete_folder(target: Path, stamp: Stamp) -> bool:
    """Rename a folder, then delete the files of its stamp; return whether it was deleted.

    If it was replaced or changed in the last moment, it is put back. The files that identify it
    are deleted last, so that the next deletion clears what a killed process leaves.
    """
    if target.is_symlink():
        target.unlink(missing_ok=True)
        return True
    with held_folder(target.parent, PRUNED) as grave:
        moved = grave / target.name
        try:
            target.rename(moved)
        except FileNotFoundError:  # another process has moved or deleted it
            return False
        is_leftover = target.name.startswith(LEFTOVERS)  # checked before it was renamed
        is_same = try_stamp(moved) == stamp
        is_gone = is_same and (is_leftover or not find_reason_to_keep(moved))
        if is_gone:
            delete_files(moved, stamp)
        if not is_gone:
            put_back(moved, target)
    return is_gone


def is_remains(folder: Path) -> bool:
    """Return whether a folder holds only what a killed process was writing or deleting."""
    return folder.name.startswith((DRAFT, PRUNED)) and not (folder / REPLACED).exists()


def put_back(moved: Path, target: Path) -> None:
    """Return a folder to its place; if that is taken, it stays as a leftover of a replacement."""
    try:
        moved.rename(target)
    except OSError:
        kept = moved.parent.name.removeprefix(PRUNED)
        moved.parent.rename(target.with_name(f"{OLDER}{kept}"))


def delete_files(folder: Path, stamp: Stamp) -> None:
    """Delete the files of a stamp, those that identify it last; then the folders."""
    names = sorted((name for name, *_ in stamp), key=lambda name: (name in KNOWN_BY, name))
    for name in (each for each in names if not each.endswith("/")):
        (folder / name).unlink(missing_ok=True)
    (folder / LOCK).unlink(missing_ok=True)
    for name in sorted((each for each in names if each.endswith("/")), reverse=True):
        with suppress(OSError):  # a file was added in this moment: it stays
            (folder / name).rmdir()
    with suppress(OSError):
        folder.rmdir()


def count_kinds(entries: Sequence[StoreEntry]) -> str:
    """Return the number of entries of each kind, as text.

    Examples
    --------
    >>> count_kinds([StoreEntry("a", "run"), StoreEntry("b", "run"), StoreEntry("c", "study")])
    '2 runs, 1 study'
    """
    counts = Counter(each.kind for each in entries)
    return ", ".join(f"{n:,} {name_kind(kind, n)}" for kind, n in counts.items()) or "none"
