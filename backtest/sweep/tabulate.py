"""Evaluate parameter sets and build the table of a sweep."""

from __future__ import annotations

import numpy as np
import pandas as pd

from backtest.base import IntArray, PolicyError, warn_caller
from backtest.engine import Progress
from backtest.measures import read_aversion
from backtest.measures.measure_table import METRICS, OPTION_COSTS
from backtest.measures.run_facts import DATES
from backtest.sweep.set_evaluator import OF_PATH, Evaluator, Rows
from backtest.sweep.sets.sets import Sets, take_sets

ERROR = "error"
SCORE, VIOLATION, STAGE = "score", "violation", "stage"
ROBUST, PLATEAU = "robust_score", "plateau"
TAKEN = frozenset(
    {*METRICS, *OPTION_COSTS, *DATES, ERROR, SCORE, VIOLATION, STAGE, ROBUST, PLATEAU}
)


def build_table(
    evaluator: Evaluator, sets: Sets, *, full: bool, progress: Progress | None
) -> pd.DataFrame:
    places, codes = find_different(sets)
    different = take_sets(sets, places)
    rows = evaluator.evaluate(different, progress=progress)
    check_rows(evaluator, different, rows)
    if full:
        rows = add_path(evaluator, different, rows, progress)
    columns = {name_column(name): column for name, column in sets.items()}
    table = convert_dates(pd.DataFrame({**columns, **take_sets(rows.metrics, codes)}))
    if any(rows.errors):
        table[ERROR] = np.array(rows.errors, dtype=object)[codes]
    done = rows.done[codes]
    warn_of_losses(rows, codes)
    return order_columns(table[done], tuple(columns))


def find_different(sets: Sets) -> tuple[IntArray, IntArray]:
    frame = pd.DataFrame(dict(sets))
    groups = frame.groupby(list(frame.columns), sort=False, dropna=False)
    codes = groups.ngroup().to_numpy().astype(np.int64)
    places = np.unique(codes, return_index=True)[1]
    return places.astype(np.int64), codes


def check_rows(evaluator: Evaluator, sets: Sets, rows: Rows) -> None:
    if not rows.done.any():
        raise KeyboardInterrupt
    first = int(np.argmax(rows.done))
    errors = np.array(rows.errors, dtype=object)
    if all(errors[rows.done]):
        evaluator.replay(take_sets(sets, first))
        raise PolicyError(f"every set failed, the first with: {errors[first]}")


def add_path(evaluator: Evaluator, sets: Sets, rows: Rows, progress: Progress | None) -> Rows:
    if not rows.done.all():
        warn_caller("interrupted before the measures of the path: they are NaN")
        nothing = {name: np.full(len(rows.done), np.nan) for name in OF_PATH}
        return rows._replace(metrics={**rows.metrics, **nothing})
    wanted = np.flatnonzero(np.array(rows.errors) == "")
    found = evaluator.evaluate_path(take_sets(sets, wanted), progress=progress)
    metrics, done = dict(rows.metrics), rows.done.copy()
    for name, values in found.metrics.items():
        metrics[name] = np.full(len(done), np.nan)
        metrics[name][wanted] = values
    done[wanted] = found.done
    return rows._replace(metrics=metrics, done=done)


def warn_of_losses(rows: Rows, codes: IntArray) -> None:
    errors, n = np.array(rows.errors, dtype=object)[codes], len(codes)
    failed = np.flatnonzero(errors != "")
    if len(failed):
        text = f"{len(failed):,} of {n:,} sets failed, the first (row {failed[0]}) with: "
        warn_caller(text + errors[failed[0]])
    left = int((~rows.done[codes]).sum())
    if left:
        warn_caller(f"interrupted: {left:,} of {n:,} sets were not done")


def order_columns(table: pd.DataFrame, parameters: tuple[str, ...]) -> pd.DataFrame:
    names = [*parameters, *(name for name in (*METRICS, *OPTION_COSTS, *DATES) if name in table)]
    others = [name for name in map(str, table) if name not in names]
    names += [name for name in others if is_measure(name.partition(" ")[0])]
    return table[names + [ERROR] * (ERROR in table)]


def is_measure(name: str) -> bool:
    return name in METRICS or read_aversion(name) is not None


def convert_dates(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with times in place of UTC nanoseconds, NaT in place of NaN."""
    times = {
        name: pd.to_datetime(table[name], utc=True).dt.as_unit("ns")
        for name in DATES
        if name in table
    }
    return table.assign(**times)


def name_column(name: str) -> str:
    return f"policy.{name}" if name in TAKEN else name


def name_parameter(column: str) -> str:
    return column.removeprefix("policy.")
