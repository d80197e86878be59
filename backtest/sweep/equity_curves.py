"""The equity of some sets over time, thinned, as a page shows it beside a constant leverage.

A *curve* begins with 1 and follows the returns that a set had by sampling period. The columns of a
table of curves are the labels of sets as text; lines that are no set have a name.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from backtest import core, engine
from backtest.results.ranking import thin_order
from backtest.results.result import Lack
from backtest.sweep.set_evaluator import Evaluator
from backtest.sweep.sets import Sets, SetValues, take_sets

MOST_CURVES = 200
"""Sets that have a curve: a page shows one of them at a time."""
MOST_VALUES = 40_000
"""Values of all curves together, which keeps them under 300 kB in a page."""
MOST_TIMES = 600
"""Times of a curve: more than the pixels that a chart beside a map has."""


def sample_returns(
    evaluator: Evaluator,
    sets: Sets,
    rows: core.IntArray,
) -> core.FloatArray:
    """Return the sampled returns of some sets, of shape (n_samples, n_rows), by running them."""
    chosen = take_sets(sets, rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they were given when the sets were run first
        measured = evaluator.evaluate(chosen, returns=True)
    return measured.returns


def find_sample_times(
    whole: Any,
    sampling: str,
    first: int,
    stop: int,
) -> core.IntArray:
    """Return the start of an account and the closes that end its sampling periods, in ns."""
    market = whole.prefix(stop)
    is_end = engine.mark_samples(market, sampling)[first:] != 0.0
    opens = market.time[first:]
    closes = opens[is_end] + market.interval
    return np.append(market.time[first], closes)


def lay_out_curves(
    times: core.IntArray,
    returns: Mapping[str, core.FloatArray],
) -> pd.DataFrame | None:
    """Return curves by name at thinned times; None if there is none over these times.

    ``returns`` (n_times - 1,) are by sampling period; those of a set that failed are NaN.
    """
    curves = {}
    for name, values in returns.items():
        # Returns of another span, or of a set that failed, have no curve over these times.
        if len(values) != len(times) - 1 or np.isnan(values).any():
            continue
        curves[name] = np.append(1.0, np.cumprod(1.0 + values))
    if not curves:
        return None

    shown = thin_times(len(times), n_curves=len(curves))
    index = core.utc_index(times[shown]).rename("time")
    thinned = {name: curve[shown] for name, curve in curves.items()}
    return pd.DataFrame(thinned, index=index)


def thin_times(n_times: int, *, n_curves: int) -> core.IntArray:
    """Return evenly spaced times, the first and the last among them, that a page has room for."""
    most = min(MOST_TIMES, max(MOST_VALUES // n_curves, 2))
    even = np.linspace(0, n_times - 1, most)
    places = even.round().astype(np.int64)
    return np.unique(places)  # of few times some come twice


def hold_constant(evaluator: Evaluator, values: SetValues) -> dict[str, core.FloatArray]:
    """Return the returns of constant leverage at the volatility of a set, under its name.

    Returns are those of the sampling periods. Empty where no constant has that volatility.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the sweep has warned of what its runs warn of
        result = evaluator.replay(values)
    constant = result._constant
    if isinstance(constant, Lack):
        return {}

    # The value of a unit of the account at the ends of periods; it begins at 1.
    ends_period = result.ends_sample != 0.0
    unit = np.append(1.0, constant.unit[ends_period])
    with np.errstate(divide="ignore", invalid="ignore"):
        returns = unit[1:] / unit[:-1] - 1.0

    # A ruined account stays at 0: 0 / 0 is a period in which nothing is left, as if all were lost.
    returns = np.nan_to_num(returns, nan=-1.0)
    return {f"constant {constant.leverage:z.2f}x": returns}


def trace_sets(
    evaluator: Evaluator,
    sets: Sets,
    labels: Sequence[Any],
    order: core.IntArray,
    sampled: Mapping[Any, core.FloatArray],
) -> pd.DataFrame | None:
    """Return the curves of the chosen sets, and of constant leverage at the risk of the best.

    ``order`` are places of the sets from the best to the worst, ``labels`` their names by place,
    and ``sampled`` returns that are known already, by label. None of accounts of several markets,
    which have no common equity.
    """
    if evaluator.is_pooled:
        return None

    # Some of the sets, from the best to the worst.
    rows = thin_order(order, MOST_CURVES)
    shown = [labels[row] for row in rows.tolist()]
    if not sampled:
        table = sample_returns(evaluator, sets, rows)
        sampled = dict(zip(shown, table.T, strict=True))
    returns = {str(label): sampled[label] for label in shown if label in sampled}

    best = take_sets(sets, int(order[0]))
    returns |= hold_constant(evaluator, best)

    markets = evaluator.markets
    times = find_sample_times(
        markets,
        sampling=evaluator.varied.test.sampling,
        first=evaluator.first,
        stop=markets.n_bars,
    )
    return lay_out_curves(times, returns)
