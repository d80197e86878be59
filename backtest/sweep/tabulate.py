"""From sets of parameters to the table of a sweep."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd

from backtest.base.errors import PolicyError
from backtest.base.units import IntArray
from backtest.engine.loop_driver import Progress
from backtest.measures.run_measures import DATES, METRICS
from backtest.sweep.evaluator import OF_PATH, Evaluator, Rows
from backtest.sweep.sets.sets import Sets

ERROR = "error"
"""The column that says why a set failed; there is none where no set did."""
SCORE, VIOLATION, STAGE = "score", "violation", "stage"
ROBUST, PLATEAU = "robust_score", "plateau"
"""Further columns of the trials of a study."""
TAKEN = frozenset({*METRICS, *DATES, ERROR, SCORE, VIOLATION, STAGE, ROBUST, PLATEAU})
"""Names that no column of a parameter has."""


def tabulate(
    evaluator: Evaluator, sets: Sets, *, full: bool, progress: Progress | None
) -> pd.DataFrame:
    """Return the table of all sets that were done; equal sets are run once.

    Raises
    ------
    BacktestError
        If every set failed: why the first did.
    """
    places, codes = find_different(sets)
    different = {name: column[places] for name, column in sets.items()}
    rows = evaluator.evaluate(different, progress=progress)
    check_rows(evaluator, different, rows)
    if full:
        is_whole = rows.done.all()
        rows = add_path(evaluator, different, rows, progress) if is_whole else lack_path(rows)
    columns = {label(name): column for name, column in sets.items()}
    measured = {name: values[codes] for name, values in rows.metrics.items()}
    table = put_dates(pd.DataFrame({**columns, **measured}))
    if any(rows.errors):
        table[ERROR] = np.array(rows.errors, dtype=object)[codes]
    done = rows.done[codes]
    warn_of_losses(rows, codes)
    return order_columns(table[done], tuple(columns))


def find_different(sets: Sets) -> tuple[IntArray, IntArray]:
    """Return the places of the first of each different set, and for every set which it is."""
    frame = pd.DataFrame(dict(sets))
    groups = frame.groupby(list(frame.columns), sort=False, dropna=False)
    codes = groups.ngroup().to_numpy().astype(np.int64)
    places = np.unique(codes, return_index=True)[1]
    return places.astype(np.int64), codes


def check_rows(evaluator: Evaluator, sets: Sets, rows: Rows) -> None:
    """Raise what went wrong where nothing went right.

    Raises
    ------
    KeyboardInterrupt
        If Ctrl-C came before any set was done.
    BacktestError
        If all sets failed.
    """
    if not rows.done.any():
        raise KeyboardInterrupt
    first = int(np.argmax(rows.done))
    errors = np.array(rows.errors, dtype=object)
    if all(errors[rows.done]):
        evaluator.replay(take(sets, first))
        raise PolicyError(
            f"every set failed, the first with: {errors[first]}",
            where="bt.sweep",
            cure="run that set alone with bt.run to see more",
        )


def add_path(evaluator: Evaluator, sets: Sets, rows: Rows, progress: Progress | None) -> Rows:
    """Return rows with the measures that need the path, by running the sets one by one."""
    wanted = np.flatnonzero(rows.done & (np.array(rows.errors) == ""))
    some = {name: column[wanted] for name, column in sets.items()}
    found = evaluator.evaluate_path(some, progress=progress)
    metrics = dict(rows.metrics)
    for name, values in found.metrics.items():
        metrics[name] = np.full(len(rows.done), np.nan)
        metrics[name][wanted] = values
    done = rows.done.copy()
    done[wanted] = found.done
    return rows._replace(metrics=metrics, done=done)


def lack_path(rows: Rows) -> Rows:
    """Return rows without the measures that need the path: Ctrl-C came before them."""
    warnings.warn("interrupted before the measures of the path: they are NaN", stacklevel=4)
    nothing = {name: np.full(len(rows.done), np.nan) for name in OF_PATH}
    return rows._replace(metrics={**rows.metrics, **nothing})


def warn_of_losses(rows: Rows, codes: IntArray) -> None:
    """Say how many sets failed, and how many Ctrl-C left out."""
    errors, n = np.array(rows.errors, dtype=object)[codes], len(codes)
    failed = np.flatnonzero(errors != "")
    if len(failed):
        text = f"{len(failed):,} of {n:,} sets failed, the first (row {failed[0]}) with: "
        warnings.warn(text + errors[failed[0]], stacklevel=5)
    left = int((~rows.done[codes]).sum())
    if left:
        warnings.warn(f"interrupted: {left:,} of {n:,} sets were not done", stacklevel=5)


def order_columns(table: pd.DataFrame, parameters: tuple[str, ...]) -> pd.DataFrame:
    """Return a table with its parameters first, then measures, dates and errors in their order."""
    names = [*parameters, *(name for name in (*METRICS, *DATES) if name in table)]
    return table[names + [ERROR] * (ERROR in table)]


def put_dates(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with times in place of UTC nanoseconds, NaT in place of NaN."""
    times = {
        name: pd.to_datetime(table[name], utc=True).dt.as_unit("ns") for name in find_dates(table)
    }
    return table.assign(**times)


def find_dates(table: pd.DataFrame) -> list[str]:
    """Return the columns that hold dates."""
    return [name for name in DATES if name in table]


def label(name: str) -> str:
    """Return the column of a parameter: its name, unless a measure or another column has that.

    Examples
    --------
    >>> label("target"), label("volatility"), label("score")
    ('target', 'policy.volatility', 'policy.score')
    """
    return f"policy.{name}" if name in TAKEN else name


def unlabel(column: str) -> str:
    """Return the parameter of a column."""
    return column.removeprefix("policy.")


def take(sets: Sets, place: int) -> dict[str, Any]:
    """Return one set by name."""
    return {name: column[place] for name, column in sets.items()}
