"""Results of many sets: the rows that an evaluator fills, in parts or one by one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from backtest.base import BoolArray, FloatArray, IntArray, warn_caller
from backtest.engine import Progress, Result
from backtest.engine.run_warnings import OF_EACH_RUN
from backtest.measures import certainty_equivalent, drawdown_dates
from backtest.measures.measure_table import OPTION_COSTS
from backtest.sweep.sets.sets import Sets, count_sets, take_sets

NO_OPTIONS = dict.fromkeys(OPTION_COSTS, 0.0)


class Rows(NamedTuple):
    """Results of sets, in their order.

    ``metrics`` are arrays of shape (n_sets,) by name, NaN for a set that failed or was not done.
    ``returns`` of shape (n_samples, n_sets) are the sampled simple returns; None unless requested.
    ``errors`` says why a set failed, empty if it did not. ``done`` is False for sets that did not
    run because of Ctrl-C.
    """

    metrics: dict[str, FloatArray]
    returns: FloatArray | None
    errors: list[str]
    done: BoolArray


def start_rows(sets: Sets, names: tuple[str, ...]) -> Rows:
    n = count_sets(sets)
    metrics = {name: np.full(n, np.nan) for name in names}
    return Rows(metrics, None, [""] * n, np.zeros(n, dtype=np.bool_))


def put_rows(rows: Rows, places: IntArray, part: Rows, sampled: dict[int, FloatArray]) -> None:
    for name, column in rows.metrics.items():
        column[places] = part.metrics[name]
    for k, place in enumerate(places.tolist()):
        rows.errors[place] = part.errors[k]
        if part.returns is not None and part.done[k] and not part.errors[k]:
            sampled[place] = part.returns[:, k]
    rows.done[places] = part.done


def run_one_by_one(
    replay: Callable[[Mapping[str, object]], Result],
    sets: Sets,
    names: tuple[str, ...],
    returns: bool,
    progress: Progress | None,
) -> Rows:
    rows = start_rows(sets, names)
    metrics, n = rows.metrics, len(rows.done)
    sampled: dict[int, FloatArray] = {}
    with warnings.catch_warnings(record=True) as caught:
        for category in OF_EACH_RUN:
            warnings.simplefilter("ignore", category)
        try:
            for k in range(n):
                try:
                    result = replay(take_sets(sets, k))
                    dates = drawdown_dates(result.tally.drawdown, result.span)
                    measured = {**NO_OPTIONS, **dates, **result.metrics}
                    for name in names:
                        metrics[name][k] = measured[name]
                    sampled[k] = result.returns.to_numpy() if returns else np.empty(0)
                except Exception as error:  # a policy may raise anything
                    rows.errors[k] = describe_error(error)
                rows.done[k] = True
                if progress is not None:
                    progress(k + 1, n)
        except KeyboardInterrupt:
            for column in metrics.values():
                column[~rows.done] = np.nan
    repeat_once(caught)
    return rows._replace(returns=stack_returns(sampled, rows)) if returns else rows


def stack_returns(sampled: Mapping[int, FloatArray], rows: Rows) -> FloatArray:
    length = max((len(values) for values in sampled.values()), default=0)
    table = np.full((length, len(rows.done)), np.nan)
    for k, values in sampled.items():
        table[:, k] = values
    return table


def describe_error(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def repeat_once(caught: list[warnings.WarningMessage]) -> None:
    for text, kind in dict.fromkeys((str(each.message), each.category) for each in caught):
        warn_caller(text, kind)


def add_equivalents(rows: Rows, names: Sequence[str], periods: float) -> None:
    sampled: Any = rows.returns
    for name in names:
        aversion, found = float(name.rpartition("_")[2]), np.full(len(rows.done), np.nan)
        for k in np.flatnonzero(rows.done & np.array([not each for each in rows.errors])):
            found[k] = certainty_equivalent(sampled[:, k], periods, aversion)
        rows.metrics[name] = found
