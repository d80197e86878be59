"""Measures that need the path of an account, not only its tally."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest.base import FloatArray
from backtest.base.units import DAY
from backtest.measures.market_fit import fit_market
from backtest.measures.performance import expected_shortfall, value_at_risk
from backtest.measures.return_shape import (
    kurtosis,
    omega,
    probability_of_skill,
    sharpe_error,
    skewness,
    tail_ratio,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from backtest.measures.run_span import RunSpan
    from backtest.measures.tally import Drawdown, Tally

OF_RETURNS = (
    "var_95", "es_95", "var_99", "es_99", "skewness", "kurtosis", "omega", "tail_ratio",
    "sharpe_error", "probabilistic_sharpe", "alpha", "beta", "alpha_error", "beta_error",
)  # fmt: skip

PATH = (
    "drawdown_days", "recovered", "time_to_recovery", "ulcer_index", *OF_RETURNS,
    "mean_margin_used", "peak_margin_used",
)  # fmt: skip
DATES = ("drawdown_peak", "drawdown_trough", "drawdown_recovery")


class Samples(NamedTuple):
    """Simple returns per sampling period, each of shape (n_samples,)."""

    returns: FloatArray
    risk_free: FloatArray
    market: FloatArray


class AccountPath(NamedTuple):
    """Unit values and margin used at closes, or at some of them, of shape (n_bars,)."""

    unit: FloatArray
    used: FloatArray


class PathSums(NamedTuple):
    n: int
    peak: float
    falls: float
    used: float
    most_used: float


def sum_path(pieces: Iterable[AccountPath], first_peak: float) -> PathSums:
    sums = PathSums(n=0, peak=first_peak, falls=0.0, used=0.0, most_used=0.0)
    for piece in pieces:
        sums = add_piece(sums, piece)
    return sums


def add_piece(sums: PathSums, piece: AccountPath) -> PathSums:
    peak, top = np.array([sums.peak]), float(np.max(piece.unit))
    if top > sums.peak:  # else no new peak, which is faster
        peak = np.maximum.accumulate(np.maximum(piece.unit, sums.peak))
    fall = 1.0 - piece.unit / peak
    return PathSums(
        n=sums.n + len(fall),
        peak=max(sums.peak, top),
        falls=sums.falls + float(np.sum(fall * fall)),
        used=sums.used + float(np.sum(piece.used)),
        most_used=max(sums.most_used, float(np.max(piece.used))),
    )


def measure_path(tally: Tally, span: RunSpan, samples: Samples, sums: PathSums) -> dict[str, float]:
    fall = tally.drawdown
    is_over = fall.low == fall.low_peak or fall.recovered >= 0
    return {
        "drawdown_days": drawdown_days(fall, span),
        "recovered": float(is_over),
        "time_to_recovery": recovery_days(fall, span),
        **measure_returns(samples, span.periods),
        "ulcer_index": math.sqrt(sums.falls / sums.n),
        "mean_margin_used": sums.used / sums.n,
        "peak_margin_used": sums.most_used,
    }


def measure_returns(samples: Samples, periods: float) -> dict[str, float]:
    returns, excess = samples.returns, samples.returns - samples.risk_free
    measured = {
        f"{name}_{level}": measure(returns, level / 100)
        for level in (95, 99)
        for name, measure in (("var", value_at_risk), ("es", expected_shortfall))
    }
    return measured | {
        "skewness": skewness(returns),
        "kurtosis": kurtosis(returns),
        "omega": omega(excess),
        "tail_ratio": tail_ratio(returns),
        "sharpe_error": sharpe_error(excess, periods),
        "probabilistic_sharpe": probability_of_skill(excess),
        **fit_market(excess, samples.market - samples.risk_free, periods)._asdict(),
    }


# ------------------------------------------------------------------------------------- drawdowns


def drawdown_days(fall: Drawdown, span: RunSpan) -> float:
    if fall.low == fall.low_peak:
        return 0.0
    is_over = fall.recovered >= 0
    end = span.time_of(fall.recovered) if is_over else int(span.closes[-1])
    return (end - span.time_of(fall.drawdown_peak)) / DAY


def recovery_days(fall: Drawdown, span: RunSpan) -> float:
    if fall.low == fall.low_peak:
        return 0.0
    if fall.recovered < 0:
        return math.nan
    return (span.time_of(fall.recovered) - span.time_of(fall.drawdown_trough)) / DAY


def drawdown_dates(fall: Drawdown, span: RunSpan) -> dict[str, float]:
    """Return the peak, trough, and recovery of the deepest drawdown, in UTC nanoseconds."""
    if fall.low == fall.low_peak:
        return dict.fromkeys(DATES, math.nan)
    over = span.name_of(fall.recovered) if fall.recovered >= 0 else math.nan
    times = (span.name_of(fall.drawdown_peak), span.name_of(fall.drawdown_trough), over)
    return dict(zip(DATES, map(float, times), strict=True))
