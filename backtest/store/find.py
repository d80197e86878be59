"""Find a saved result by its name or id, and load a result of any kind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

from backtest.base import DataError, ParameterError, SavedResult, did_you_mean
from backtest.base.result_folders import LEFTOVERS, MANIFEST
from backtest.base.saved_result import KINDS
from backtest.engine import Result
from backtest.store.begun_validations import is_begun
from backtest.store.kinds import STUDY_KIND, open_folder
from backtest.tune import STUDY, Study
from backtest.tune.holdout import LOOKS
from backtest.tune.tried_sets import TRIED
from backtest.validation.progress_folder import UNFINISHED

SHORTEST = 4
"""The least number of letters that may abbreviate an id."""
MOST_NAMED = 5
LISTED = (*LEFTOVERS, UNFINISHED)
"""Prefixes of hidden folders that are listed."""

Saved: TypeAlias = Result | Study | SavedResult


def load_saved(folder: Path) -> Saved:
    """Load the result in a folder, of any kind."""
    if is_begun(folder):
        raise DataError(
            "a validation must be finished to be loaded, this one is unfinished",
            where=str(folder),
            cure="give its command again with --resume, or its call with resume=True",
        )
    kind, _ = open_folder(folder)
    if kind == STUDY_KIND:
        return Study.load(folder)
    found: Saved = KINDS[kind].load(folder)
    return found


def list_folders(store: Path) -> list[str]:
    """Return the names of a store's folders: also of damaged and unfinished results, and leftovers.

    The records of looks at holdouts and of tried sets are left out.
    """
    try:
        with os.scandir(store) as found:
            names = {each.name for each in found if each.is_dir()} - {LOOKS, TRIED}
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(
            f"cannot read the folder of results: {error.strerror or error}",
            where=str(store),
            cure="give another folder with --results",
        ) from error
    return sorted(name for name in names if name[0] != "." or name.startswith(LISTED))


def find_folder(name: str, store: Path) -> Path:
    """Return the folder of a saved result, which may be damaged.

    ``name`` is a folder's name in the store, its id, a prefix of either, or the folder itself. A
    prefix matches damaged results only if it matches no other.
    """
    folders = list_folders(store)
    if name in folders:
        return store / name
    if name and is_result(Path(name)):
        return Path(name)
    known = [each for each in folders if is_result(store / each)]
    fits = [each for each in known if has_prefix(each, name)]
    fits = fits or [each for each in folders if has_prefix(each, name)]
    if len(fits) == 1:
        return store / fits[0]
    if fits:
        shown = ", ".join(fits[:MOST_NAMED]) + (", ..." if len(fits) > MOST_NAMED else "")
        raise ParameterError(
            f"a name must match one result, {name!r:.60} matches {len(fits)}: {shown}",
            where=str(store),
            cure="use a longer prefix of the name or id",
        )
    raise DataError(
        f"no saved result is called {name!r:.60}" + did_you_mean(name, known),
        where=str(store),
        cure="give the folder that `backtest run` printed, or its name or id in --results, or the "
        f"first letters of either ({SHORTEST} or more of an id)",
    )


def is_result(folder: Path) -> bool:
    """Return whether a folder holds a saved result and is not a writer's draft."""
    is_there = (folder / MANIFEST).is_file() or (folder / STUDY).is_file()
    return is_there and not folder.name.startswith(".")


def has_prefix(folder: str, name: str) -> bool:
    """Return whether a folder's name or id begins with ``name``.

    Examples
    --------
    >>> has_prefix("voltarget-0a1b2c3d", "0a1b"), has_prefix("voltarget-0a1b2c3d", "volt")
    (True, True)
    """
    is_id = len(name) >= SHORTEST and folder.rpartition("-")[2].startswith(name)
    return is_id or (len(name) > 0 and folder.startswith(name))
