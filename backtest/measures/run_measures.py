"""Measures of a run by name (docs/metrics.md), computed from its tally."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.base import FloatArray, IntArray
from backtest.base.units import DAY
from backtest.measures.path_measures import PathSums, Samples, measure_path
from backtest.measures.performance import LEAST_DEVIATION, find_growth_rate
from backtest.measures.stored_tally import flatten_tally
from backtest.measures.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backtest.base import BoolArray
    from backtest.measures.run_span import RunSpan

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
    "skewness",
    "kurtosis",
    "omega",
    "tail_ratio",
    "ulcer_index",
    "time_to_recovery",
    "sharpe_error",
    "probabilistic_sharpe",
    "alpha",
    "alpha_error",
    "beta",
    "beta_error",
    "certainty_equivalent",
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
    "gross_over_cap",
    "peak_gross_leverage",
    "peak_margin_ratio",
    "mean_margin_used",
    "peak_margin_used",
    "leverage_decay",
    "volatility_drag",
    "carry_decay",
    "carry_per_turn",
    "flows",
    "top_ups",
    "final_equity",
)


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
)
OPTION_COSTS = ("options_cost_annual", "options_spread_annual")


def measure_run(
    tally: Tally, span: RunSpan, unit: float, equity: float, samples: Samples, sums: PathSums
) -> dict[str, float]:
    """Return all measures of one account by name.

    ``unit`` and ``equity`` are values at the end. Money is in the settlement currency, times in
    days, the rest fractions (0.25 is 25 %).
    """
    many = {name: np.array([value]) for name, value in flatten_tally(tally).items()}
    measured = measure_accounts(many, span, np.array([unit]), np.array([equity]))
    known = {name: float(values[0]) for name, values in measured.items()}
    known |= measure_path(tally, span, samples, sums)
    return {name: known[name] for name in METRICS}


def measure_accounts(
    tally: Mapping[str, Any], span: RunSpan, unit: FloatArray, equity: FloatArray
) -> dict[str, FloatArray]:
    """Return the measures of many accounts, each array of shape (n_accounts,)."""
    years = span.years
    with np.errstate(all="ignore"):
        measured = measure_core(tally, span, unit, equity, years)
        if "near" in tally:
            measured |= measure_rest(tally, span, years, measured["ruined"] != 0.0)
    return measured


def measure_core(
    tally: Mapping[str, Any], span: RunSpan, unit: FloatArray, equity: FloatArray, years: float
) -> dict[str, FloatArray]:
    growth = unit / tally["first_unit"]
    is_ruined = tally["ruin"] >= 0
    cagr = np.array([find_growth_rate(each, years) for each in growth.tolist()])
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
    return measured | {name: as_floats(tally[name]) for name in COSTS}


def find_cost_rates(tally: Tally, span: RunSpan) -> dict[str, float]:
    """Return costs per year as fractions of mean equity, by name; NaN if there never was any."""
    mean = tally.equity / tally.bars
    scale = mean if mean > 0.0 else math.nan
    names = (*COSTS, "liquidation_loss")
    return {name: getattr(tally.money, name) / scale / span.years for name in names}


def measure_rest(
    tally: Mapping[str, Any], span: RunSpan, years: float, is_ruined: BoolArray
) -> dict[str, FloatArray]:
    n = tally["samples"]
    downside = np.sqrt(tally["downside"] / np.where(n > 0, n, np.nan))
    logs = np.array([math.log(each) for each in tally["decay_product"].tolist()])
    drag = (tally["decay_held"] - (tally["decay_log"] + logs)) / years
    drag = np.where(is_ruined, np.nan, drag)
    carry = np.where(is_ruined, np.nan, tally["carry"] / years)
    leverage = tally["leverage"] / tally["bars"]
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
        "mean_leverage": leverage,
        "peak_leverage": as_floats(tally["peak_leverage"]),
        "gross_over_cap": tally["over_cap"] / tally["bars"],
        "peak_gross_leverage": as_floats(tally["peak_leverage"]),
        "peak_margin_ratio": peak_ratio,
        "leverage_decay": drag + carry,
        "volatility_drag": drag,
        "carry_decay": carry,
        "carry_per_turn": carry / np.where(leverage > 0.0, leverage, np.nan),
        "certainty_equivalent": find_equivalents(tally["disutility"] / n, span.periods),
        "flows": tally["flows"] + tally["top_up"],
        "top_ups": as_floats(tally["top_up"]),
    }


def find_equivalents(disutility: FloatArray, periods: float) -> FloatArray:
    """Return the certainty equivalents per year of mean (1 + r)^-2; NaN without returns.

    See :func:`backtest.measures.return_shape.certainty_equivalent`.
    """
    growth = [math.sqrt(1.0 / each) if each != 0.0 else math.inf for each in disutility.tolist()]
    rates = [find_growth_rate(each, 1.0 / periods) for each in growth]
    return np.where(np.isnan(disutility), np.nan, rates)


def as_floats(values: object) -> FloatArray:
    return np.array(values, dtype=np.float64)


def annualize_ratios(mean: FloatArray, deviation: FloatArray, periods: float) -> FloatArray:
    """Return mean over deviation, annualized; NaN if the deviation is below 1e-12."""
    known = np.where(deviation >= LEAST_DEVIATION, deviation, np.nan)
    return mean / known * math.sqrt(periods)


def days_since(span: RunSpan, bar: IntArray) -> FloatArray:
    row = np.maximum(bar - span.first, 0).astype(np.int64)
    days = (span.closes[row] - span.start) / DAY
    return np.where(bar >= 0, days, np.nan)
