"""Delete saved results: what was chosen, what was agreed to, and nothing that changed meanwhile."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from backtest.errors import DataError
from backtest.folders import held
from backtest.shelf.card import Stamp
from backtest.shelf.choose import Wanted, sort_entries
from backtest.shelf.entry import LEFTOVER, PRUNED, Entry, is_foreign
from backtest.shelf.listing import QUIET, list_results, try_stamp


class Doomed(NamedTuple):
    """A folder to be deleted, as it was when it was chosen."""

    entry: Entry
    stamp: Stamp


def choose_doomed(
    folder: Path,
    wanted: Wanted,
    *,
    keep: int = 0,
    with_unfinished: bool = False,
    with_damaged: bool = False,
) -> list[Doomed]:
    """Return what would be deleted, the newest first.

    Parameters
    ----------
    folder : Path
        The store.
    wanted : Wanted
        Which results are meant.
    keep : int
        So many of them stay, the newest.
    with_unfinished : bool
        Also studies that could be resumed.
    with_damaged : bool
        Also every result that cannot be read, and what killed writers left. A folder that holds no
        file of a result is not the store's, and stays.
    """
    stamped = {name: try_stamp(folder / name) for name in names_of(folder)}
    entries = [each for each in list_results(folder, use_index=False) if not each.is_busy]
    meant = sort_entries(each for each in entries if wanted.fits(each))
    chosen = [each for each in meant[keep:] if each.is_finished or with_unfinished]
    if with_damaged:
        unread = [each for each in entries if each.trouble]
        chosen += [each for each in unread if not is_foreign(folder / each.name)]
    return [Doomed(each, stamped.get(each.name, ())) for each in chosen]


def names_of(folder: Path) -> list[str]:
    """Return the folders of a store."""
    return [each.name for each in folder.glob("*") if each.is_dir()]


def delete(folder: Path, doomed: Sequence[Doomed]) -> tuple[list[str], list[str]]:
    """Delete folders; return the names of those deleted, and of those that changed meanwhile.

    A folder is moved away at once before its files are deleted, so that none is ever found half.

    Raises
    ------
    DataError
        If the store cannot be written.
    """
    deleted, left = [], []
    for each in doomed:
        target = folder / each.entry.name
        if not is_as_chosen(target, each.stamp):
            left.append(each.entry.name)
            continue
        try:
            remove(target)
        except OSError as error:
            raise DataError(
                f"a result must be deletable: {error.strerror or error}",
                where=str(target),
                cure="make the folder writable",
            ) from error
        deleted.append(each.entry.name)
    return deleted, left


def is_as_chosen(target: Path, stamp: Stamp) -> bool:
    """Tell whether a folder is still as it was; an empty one may be a draft that has just begun."""
    try:
        is_old = time.time_ns() - target.lstat().st_mtime_ns > QUIET
    except OSError:
        return False
    return try_stamp(target) == stamp and (bool(stamp) or is_old)


def remove(target: Path) -> None:
    """Delete one folder: out of its place at once, then file by file."""
    if target.is_symlink():
        target.unlink()
        return
    grave = Path(tempfile.mkdtemp(prefix=PRUNED, dir=target.parent))
    with held(grave):
        target.rename(grave / target.name)
        shutil.rmtree(grave)


def count_kinds(entries: Sequence[Entry]) -> str:
    """Return how many of each kind there are, in words.

    Examples
    --------
    >>> count_kinds([Entry("a", "run"), Entry("b", "run"), Entry("c", "study")])
    '2 runs, 1 study'
    """
    many = {"study": "studies", LEFTOVER: "leftovers", "unknown": "unknown"}
    counts: dict[str, int] = {}
    for each in entries:
        counts[each.kind] = counts.get(each.kind, 0) + 1
    words = [
        f"{n:,} {kind if n == 1 else many.get(kind, kind + 's')}" for kind, n in counts.items()
    ]
    return ", ".join(words) or "none"
