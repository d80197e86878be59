"""Measures that need the path of an account, not only its tally."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest.base.units import DAY, FloatArray
from backtest.measures.break_even import break_even_drift, break_even_leverage
from backtest.measures.margin_use import idle_cash, return_on_margin
from backtest.measures.market_fit import fit_market
from backtest.measures.performance import expected_shortfall, value_at_risk
from backtest.measures.return_shape import (
    kurtosis,
    omega,
    probability_of_skill,
    sharpe_error,
    skewness,
    tail_ratio,
    ulcer_index,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backtest.measures.run_span import RunSpan
    from backtest.measures.tally import Drawdown, Tally

OF_RETURNS = (
    "var_95", "es_95", "var_99", "es_99", "skewness", "kurtosis", "omega", "tail_ratio",
    "sharpe_error", "probabilistic_sharpe", "alpha", "beta", "alpha_error", "beta_error",
)  # fmt: skip
"""Measures of sampled returns alone."""

PATH = (
    "drawdown_days", "recovered", "time_to_recovery", "ulcer_index", *OF_RETURNS,
    "break_even_drift", "break_even_leverage",
    "mean_margin_used", "peak_margin_used", "return_on_margin", "idle_cash",
)  # fmt: skip
"""Measures that need the path of an account, not only its tally."""
DATES = ("drawdown_peak", "drawdown_trough", "drawdown_recovery")
"""Dates of the deepest drawdown, which sweeps add to :data:`PATH`."""


class Samples(NamedTuple):
    """Simple returns per sampling period, each of shape (n_samples,).

    Those of the account, the risk-free ones, and those of the market at 1x.
    """

    returns: FloatArray
    risk_free: FloatArray
    market: FloatArray


class AccountPath(NamedTuple):
    """The path of an account, arrays by bar of shape (n_bars,) but for ``samples``.

    ``unit`` is the unit value at closes and ``first_peak`` the highest one before. ``equity`` is
    that at closes, ``gains`` the profit after costs, ``initial``, ``available`` and ``used`` the
    initial margin, the money for new orders and the margin used, ``leverage`` the signed leverage
    at closes. ``moves`` are the simple returns of the market at 1x, NaN where unknown.
    """

    samples: Samples
    unit: FloatArray
    first_peak: float
    equity: FloatArray
    gains: FloatArray
    initial: FloatArray
    available: FloatArray
    used: FloatArray
    leverage: FloatArray
    moves: FloatArray


def measure_path(
    tally: Tally, span: RunSpan, path: AccountPath, known: Mapping[str, float]
) -> dict[str, float]:
    """Return the measures of :data:`PATH` of a run; ``known`` are those of its tally."""
    fall = tally.drawdown
    is_over = fall.low == fall.low_peak or fall.recovered >= 0
    growth = known["total_return"] + 1.0
    return {
        "drawdown_days": drawdown_days(fall, span),
        "recovered": float(is_over),
        "time_to_recovery": recovery_days(fall, span),
        "ulcer_index": ulcer_index(path.unit, path.first_peak),
        **measure_returns(path.samples, span.periods),
        **measure_break_even(path, span.years, growth, known),
        **measure_margin(path, span.years),
    }


def measure_returns(samples: Samples, periods: float) -> dict[str, float]:
    """Return the measures of sampled returns by name."""
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


def measure_break_even(
    path: AccountPath, years: float, growth: float, known: Mapping[str, float]
) -> dict[str, float]:
    """Return the measures of break-even by name; ``growth`` is the factor of the unit value."""
    moves = path.moves[path.moves > -1.0]
    leverage = float(np.mean(path.leverage))
    rate = math.log(growth) / years if growth > 0.0 and not known["ruined"] else math.nan
    return {
        "break_even_drift": break_even_drift(moves, years, rate, leverage),
        "break_even_leverage": break_even_leverage(moves, years, known["carry_per_turn"], leverage),
    }


def measure_margin(path: AccountPath, years: float) -> dict[str, float]:
    """Return the measures of the use of capital by name."""
    return {
        "mean_margin_used": float(np.mean(path.used)),
        "peak_margin_used": float(np.max(path.used)),
        "return_on_margin": return_on_margin(path.gains, path.initial, years),
        "idle_cash": idle_cash(path.available, path.equity),
    }


# ------------------------------------------------------------------------------------- drawdowns


def drawdown_days(fall: Drawdown, span: RunSpan) -> float:
    """Return the days from the peak of the deepest drawdown to its recovery, or to the end."""
    if fall.low == fall.low_peak:
        return 0.0
    is_over = fall.recovered >= 0
    end = span.time_of(fall.recovered) if is_over else int(span.closes[-1])
    return (end - span.time_of(fall.drawdown_peak)) / DAY


def recovery_days(fall: Drawdown, span: RunSpan) -> float:
    """Return the days from the trough of the deepest drawdown to its recovery; NaN if none.

    0 without a drawdown.
    """
    if fall.low == fall.low_peak:
        return 0.0
    if fall.recovered < 0:
        return math.nan
    return (span.time_of(fall.recovered) - span.time_of(fall.drawdown_trough)) / DAY


def drawdown_dates(fall: Drawdown, span: RunSpan) -> dict[str, float]:
    """Return the peak, trough, and recovery of the deepest drawdown, in UTC nanoseconds.

    NaN without a drawdown, or if it was not over by the end. Whole seconds are exact in a double.
    """
    if fall.low == fall.low_peak:
        return dict.fromkeys(DATES, math.nan)
    over = span.time_of(fall.recovered) if fall.recovered >= 0 else math.nan
    times = (span.time_of(fall.drawdown_peak), span.time_of(fall.drawdown_trough), over)
    return dict(zip(DATES, map(float, times), strict=True))
