"""Measures of a run by name (docs/metrics.md), computed from its tally."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.base.units import DAY, YEAR_DAYS, FloatArray, IntArray
from backtest.measures.performance import (
    LEAST_DEVIATION,
    compound_growth,
    expected_shortfall,
    value_at_risk,
)
from backtest.measures.tally import Drawdown, Tally, flatten_tally

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backtest.base.units import BoolArray

COSTS = ("fees", "slippage", "impact", "funding", "interest")

METRICS = (
    "total_return",
    "cagr",
    "volatility",
    "sharpe",
    "sortino",
    "max_drawdown",
    "drawdown_days",
    "recovered",
    "calmar",
    "var_95",
    "es_95",
    "var_99",
    "es_99",
    "turnover",
    "price_pnl",
    *COSTS,
    "liquidations",
    "liquidation_loss",
    "bad_debt",
    "ruined",
    "ruin_time",
    "time_to_first_liquidation",
    "near_liquidation_share",
    "stops",
    "take_profits",
    "margin_calls",
    "calls_met",
    "calls_failed",
    "liquidated_after_call",
    "time_to_liquidation_after_call",
    "mean_leverage",
    "peak_leverage",
    "peak_margin_ratio",
    "leverage_decay",
    "flows",
    "top_ups",
    "final_equity",
    *(f"{name}_annual" for name in COSTS),
)
"""All measures of a run, in their order."""


class RunSpan(NamedTuple):
    """Time that a run covers: its start and the closes of its bars in ns, and samples per year.

    ``first`` is the number of its first bar in the tally.
    """

    start: int
    closes: IntArray
    first: int
    periods: float

    def time_of(self, bar: int) -> int:
        """Return the close of a bar in ns; the start for the bar before the first."""
        row = bar - self.first
        return self.start if row < 0 else int(self.closes[row])


CORE = (
    "total_return",
    "cagr",
    "volatility",
    "sharpe",
    "max_drawdown",
    "calmar",
    "turnover",
    *COSTS,
    "liquidations",
    "ruined",
    "ruin_time",
    "final_equity",
    *(f"{name}_annual" for name in COSTS),
)
"""Measures of a sweep with ``metrics="core"``."""

PATH = ("drawdown_days", "recovered", "var_95", "es_95", "var_99", "es_99")
"""Measures that need the path of an account, not only its tally."""
DATES = ("drawdown_peak", "drawdown_trough", "drawdown_recovery")
"""Dates of the deepest drawdown, which sweeps add to :data:`PATH`."""


def measure_run(
    tally: Tally, span: RunSpan, unit: float, equity: float, returns: FloatArray
) -> dict[str, float]:
    """Return all measures of one account by name.

    ``unit`` and ``equity`` are values at the end. ``returns`` are sampled simple returns, for the
    tail measures. Money is in the settlement currency, times in days, the rest fractions (0.25 is
    25 %); ``*_annual`` is a cost per year as a fraction of mean equity.
    """
    many = {name: np.array([value]) for name, value in flatten_tally(tally).items()}
    measured = measure_accounts(many, span, np.array([unit]), np.array([equity]))
    known = {name: float(values[0]) for name, values in measured.items()}
    known |= measure_path(tally, span, returns)
    return {name: known[name] for name in METRICS}


def measure_path(tally: Tally, span: RunSpan, returns: FloatArray) -> dict[str, float]:
    """Return the measures that need the path: the tails and the length of the drawdown."""
    fall = tally.drawdown
    is_over = fall.low == fall.low_peak or fall.recovered >= 0
    measured = {"drawdown_days": drawdown_days(fall, span), "recovered": float(is_over)}
    for level in (95, 99):
        measured[f"var_{level}"] = value_at_risk(returns, level / 100)
        measured[f"es_{level}"] = expected_shortfall(returns, level / 100)
    return measured


def measure_accounts(
    tally: Mapping[str, Any], span: RunSpan, unit: FloatArray, equity: FloatArray
) -> dict[str, FloatArray]:
    """Return the measures of many accounts, each array of shape (n_accounts,).

    ``tally`` maps the fields of a :class:`Tally` to arrays; with the core's fields only, the result
    has the core's measures. ``unit`` and ``equity`` are values at the end. Logarithms and
    exponentials are taken one by one, so that an account has the same bits alone and among others.
    """
    years = (int(span.closes[-1]) - span.start) / (YEAR_DAYS * DAY)
    with np.errstate(all="ignore"):
        measured = measure_core(tally, span, unit, equity, years)
        if "near" in tally:
            measured |= measure_rest(tally, span, years, measured["ruined"] != 0.0)
    return measured


def measure_core(
    tally: Mapping[str, Any], span: RunSpan, unit: FloatArray, equity: FloatArray, years: float
) -> dict[str, FloatArray]:
    """Return the measures of the core."""
    growth = unit / tally["first_unit"]
    is_ruined = tally["ruin"] >= 0
    cagr = np.array([compound_growth(each, years) for each in growth.tolist()])
    cagr[is_ruined] = -1.0
    n = tally["samples"]
    few = np.where(n > 1, n - 1.0, np.nan)
    drawdown = 1.0 - tally["low"] / tally["low_peak"]
    mean_equity = tally["equity"] / tally["bars"]
    scale = np.where(mean_equity > 0.0, mean_equity, np.nan)
    measured = {
        "total_return": growth - 1.0,
        "cagr": cagr,
        "volatility": np.sqrt(tally["squares"] / few) * math.sqrt(span.periods),
        "sharpe": annualize_ratios(
            tally["excess_mean"], np.sqrt(tally["excess_squares"] / few), span.periods
        ),
        "max_drawdown": drawdown,
        "calmar": np.where(drawdown > 0.0, cagr / drawdown, np.nan),
        "turnover": tally["traded"] / scale / years,
        "liquidations": as_floats(tally["liquidations"]),
        "ruined": as_floats(is_ruined),
        "ruin_time": days_since(span, tally["ruin"]),
        "final_equity": as_floats(equity),
    }
    measured |= {name: as_floats(tally[name]) for name in COSTS}
    return measured | {f"{name}_annual": tally[name] / scale / years for name in COSTS}


def measure_rest(
    tally: Mapping[str, Any], span: RunSpan, years: float, is_ruined: BoolArray
) -> dict[str, FloatArray]:
    """Return the accumulated measures outside the core."""
    n = tally["samples"]
    downside = np.sqrt(tally["downside"] / np.where(n > 0, n, np.nan))
    logs = np.array([math.log(each) for each in tally["decay_product"].tolist()])
    decay = tally["decay_held"] - (tally["decay_log"] + logs)
    backing = tally["peak_backing"]
    peak_ratio = np.where(backing > 0.0, tally["peak_needed"] / backing, np.inf)
    return {
        "sortino": annualize_ratios(tally["excess_mean"], downside, span.periods),
        "price_pnl": as_floats(tally["price_pnl"]),
        "liquidation_loss": as_floats(tally["liquidation_loss"]),
        "bad_debt": as_floats(tally["bad_debt"]),
        "time_to_first_liquidation": days_since(span, tally["first_liquidation"]),
        "near_liquidation_share": tally["near"] / tally["bars"],
        "stops": as_floats(tally["stops"]),
        "take_profits": as_floats(tally["take_profits"]),
        "margin_calls": as_floats(tally["calls"]),
        "calls_met": as_floats(tally["calls_met"]),
        "calls_failed": as_floats(tally["calls_failed"]),
        "liquidated_after_call": as_floats(tally["liquidated_calls"]),
        "time_to_liquidation_after_call": as_floats(tally["call_days"])
        / as_floats(tally["liquidated_calls"]),
        "mean_leverage": tally["leverage"] / tally["bars"],
        "peak_leverage": as_floats(tally["peak_leverage"]),
        "peak_margin_ratio": peak_ratio,
        "leverage_decay": np.where(is_ruined, np.nan, decay / years),
        "flows": tally["flows"] + tally["top_up"],
        "top_ups": as_floats(tally["top_up"]),
    }


def as_floats(values: object) -> FloatArray:
    """Return a copy as float64."""
    return np.array(values, dtype=np.float64)


def annualize_ratios(mean: FloatArray, deviation: FloatArray, periods: float) -> FloatArray:
    """Return mean over deviation, annualized; NaN if the deviation is below 1e-12."""
    known = np.where(deviation >= LEAST_DEVIATION, deviation, np.nan)
    return mean / known * math.sqrt(periods)


def days_since(span: RunSpan, bar: IntArray) -> FloatArray:
    """Return the days from the start to the close of each bar; NaN for -1 (never)."""
    row = np.maximum(bar - span.first, 0).astype(np.int64)
    days = (span.closes[row] - span.start) / DAY
    return np.where(bar >= 0, days, np.nan)


def drawdown_days(fall: Drawdown, span: RunSpan) -> float:
    """Return the days from the peak of the deepest drawdown to its recovery, or to the end."""
    if fall.low == fall.low_peak:
        return 0.0
    is_over = fall.recovered >= 0
    end = span.time_of(fall.recovered) if is_over else int(span.closes[-1])
    return (end - span.time_of(fall.drawdown_peak)) / DAY


def drawdown_dates(fall: Drawdown, span: RunSpan) -> dict[str, float]:
    """Return the peak, trough, and recovery of the deepest drawdown, in UTC nanoseconds.

    NaN without a drawdown, or if it was not over by the end. Whole seconds are exact in a double.
    """
    if fall.low == fall.low_peak:
        return dict.fromkeys(DATES, math.nan)
    over = span.time_of(fall.recovered) if fall.recovered >= 0 else math.nan
    times = (span.time_of(fall.drawdown_peak), span.time_of(fall.drawdown_trough), over)
    return dict(zip(DATES, map(float, times), strict=True))
