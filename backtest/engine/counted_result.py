"""An account that settles in a coin, counted in the currency of a market at its marks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from backtest.base import DataError, FloatArray, ParameterError, find_coin, format_time, utc_index
from backtest.engine.result_tables import is_inverse
from backtest.engine.run_record import RunRecord
from backtest.market import Market
from backtest.measures import Samples, compound_growth, ratio, sampled_returns
from backtest.measures.measure_table import measure_returns


class CountedResult(NamedTuple):
    """``equity`` and ``drawdown`` by bar, returns per sampling period, and their measures."""

    bars: pd.DataFrame
    returns: pd.Series
    metrics: Mapping[str, float]


def count_in(run: RunRecord, market: Market) -> CountedResult:
    coin, ends, closes = (
        find_coin(market.instrument),
        market.time + market.interval,
        run.span.closes,
    )
    settled = {each.contract.settles for each in run.list_venues() if is_inverse(each)}
    if not settled:
        raise ParameterError("counted_in needs an account in coins, got no inverse contract")
    if coin and (others := ", ".join(map(str, sorted(settled - {coin, None}, key=str)))):
        raise ParameterError(f"market must price the coin of the account, {others}, got {coin!r}")
    rows = np.searchsorted(ends, closes, side="right") - 1
    missing = closes[(rows < 0) | (ends[rows] != closes)]
    if len(missing):
        first = format_time(int(missing[0]))
        raise DataError(f"market must have a mark at each close of the run, got none at {first}")
    before = int(np.searchsorted(ends, run.time[0], side="right")) - 1
    start = before if run.manifest.get("resumed_from") is not None and before >= 0 else rows[0]
    return count_at(run, market.mark_close[rows], float(market.mark_close[start]))


def count_at(run: RunRecord, marks: FloatArray, first_mark: float) -> CountedResult:
    """Count an account at marks of shape (n_bars,), ``first_mark`` that of its start."""
    unit, first = run.of_account("unit") * marks, run.tally.first_unit * first_mark
    equity = run.of_account("equity") * marks
    fall = 1.0 - unit / np.maximum.accumulate(np.maximum(unit, first))
    returns = sampled_returns(unit, run.ends_sample, first)
    held = sampled_returns(marks, run.ends_sample, first_mark)
    n, periods, deepest = len(returns), run.span.periods, float(fall.max())
    growth = float(unit[-1]) / first
    rate = -1.0 if run.tally.ruin >= 0 else compound_growth(growth, run.span.years)
    mean = float(returns.mean()) if n > 0 else math.nan
    deviation = float(returns.std(ddof=1)) if n > 1 else math.nan
    downside = math.sqrt(np.square(np.minimum(returns, 0.0)).sum() / max(n, 1))
    measures = {
        "total_return": growth - 1.0,
        "cagr": rate,
        "volatility": deviation * math.sqrt(periods),
        "sharpe": ratio(mean, deviation, periods),
        "sortino": ratio(mean, downside, periods),
        "max_drawdown": deepest,
        "calmar": rate / deepest if deepest > 0.0 else math.nan,
        **measure_returns(Samples(returns, np.zeros(n), held), periods),
        "final_equity": float(equity[-1]),
    }
    bars = pd.DataFrame({"equity": equity, "drawdown": fall}, index=utc_index(run.time))
    return CountedResult(bars, pd.Series(returns, run.returns.index, name="return"), measures)
