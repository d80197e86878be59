"""An account that settles in a coin, counted in another currency."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest import core
from backtest.core.code_names import pd
from backtest.market import Market, find_coin
from backtest.results.measure_table import Measures, Samples, measure_returns
from backtest.results.performance import annualize_ratios, compound_growth, sampled_returns
from backtest.results.run_record import RunRecord, measure_spread

if TYPE_CHECKING:
    from backtest.core import FloatArray


class CountedResult(NamedTuple):
    """``equity`` and ``drawdown`` by bar, returns per sampling period, and their measures."""

    bars: pd.DataFrame
    returns: pd.Series
    metrics: Mapping[str, float]


class CoinMarks(NamedTuple):
    """The price of the coin: at each close of a run, of shape (n_bars,), and at its start."""

    closes: FloatArray
    start: float


def count_in(run: RunRecord, market: Market) -> CountedResult:
    """Return a run in the currency of a market that prices its coin."""
    check_coin(run, market)
    marks = find_coin_marks(run, market)
    equity = run.of_account("equity") * marks.closes
    unit = run.of_account("unit") * marks.closes
    first_unit = run.tally.first_unit * marks.start
    peak = np.maximum.accumulate(np.maximum(unit, first_unit))
    drawdown = 1.0 - unit / peak

    # The market beside it is the coin, held.
    returns = sampled_returns(unit, run.ends_sample, first_unit)
    held = sampled_returns(marks.closes, run.ends_sample, marks.start)
    samples = Samples(returns=returns, risk_free=np.zeros(len(returns)), market=held)
    growth = float(unit[-1]) / first_unit
    metrics = measure_counted(
        run,
        samples,
        growth=growth,
        drawdown=float(drawdown.max()),
    )
    metrics["final_equity"] = float(equity[-1])
    columns = {"equity": equity, "drawdown": drawdown}
    return CountedResult(
        bars=pd.DataFrame(columns, index=core.utc_index(run.time)),
        returns=pd.Series(returns, run.returns.index, name="return"),
        metrics=Measures(metrics),
    )


def check_coin(run: RunRecord, market: Market) -> None:
    """Raise ParameterError unless a market prices the only coin in which a run settles.

    A market whose instrument names no known coin is taken at its word.
    """
    contracts = [venue.contract for venue in run.list_venues()]
    coins = {contract.settles for contract in contracts if contract.kind == "inverse"}
    if not coins:
        raise core.ParameterError("counted_in needs an account in coins, got no inverse contract")

    coin = find_coin(market.instrument)
    unpriced = coins - {coin, None}
    others = ", ".join(sorted(map(str, unpriced)))
    if coin and others:
        raise core.ParameterError(
            f"market must price the coin of the account, {others}, got {coin!r}"
        )


def find_coin_marks(run: RunRecord, market: Market) -> CoinMarks:
    """Return the marks of a market at the closes of a run; raise DataError if one is missing."""
    closes = run.span.closes
    ends = market.time + market.interval
    rows = np.searchsorted(ends, closes, side="right") - 1
    is_missing = (rows < 0) | (ends[rows] != closes)
    missing = closes[is_missing]
    if len(missing):
        first = core.format_time(int(missing[0]))
        raise core.DataError(
            f"market must have a mark at each close of the run, got none at {first}"
        )

    # An account starts at the mark of its first close, a resumed one at that before.
    start = rows[0]
    before = int(np.searchsorted(ends, run.time[0], side="right")) - 1
    if run.manifest.get("resumed_from") is not None and before >= 0:
        start = before
    return CoinMarks(closes=market.mark_close[rows], start=float(market.mark_close[start]))


def measure_counted(
    run: RunRecord,
    samples: Samples,
    *,
    growth: float,
    drawdown: float,
) -> dict[str, float]:
    """Return the measures of a counted account, in the order of pages."""
    returns = samples.returns
    n = len(returns)
    periods = run.span.periods
    cagr = -1.0
    if run.tally.ruin < 0:
        cagr = compound_growth(growth, run.span.years)

    mean = float(returns.mean()) if n > 0 else math.nan
    losses = np.minimum(returns, 0.0)
    downside = math.sqrt(np.square(losses).sum() / max(n, 1))
    calmar = math.nan
    if drawdown > 0.0:
        calmar = cagr / drawdown
    return {
        "total_return": growth - 1.0,
        "cagr": cagr,
        **measure_spread(returns, 0.0, periods),
        "sortino": float(annualize_ratios(mean, downside, periods)),
        "max_drawdown": drawdown,
        "calmar": calmar,
        **measure_returns(samples, periods),
    }
