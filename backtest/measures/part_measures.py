"""Measures of a part of a run: some of its sampling periods, put one after another."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest.base import BoolArray, FloatArray, IntArray
from backtest.measures.path_measures import (
    AccountPath,
    Samples,
    measure_returns,
    measure_sums,
    sum_path,
)
from backtest.measures.performance import compound_growth, max_drawdown, ratio
from backtest.measures.return_shape import certainty_equivalent
from backtest.measures.run_measures import COSTS, METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping

WHOLE_ONLY = (
    "drawdown_days", "recovered", "time_to_recovery", "ruin_time", "time_to_first_liquidation",
    "final_equity", "liquidated_after_call", "time_to_liquidation_after_call",
)  # fmt: skip
PART_METRICS = tuple(name for name in METRICS if name not in WHOLE_ONLY)
MONEY = ("price_pnl", *COSTS, "liquidation_loss", "bad_debt", "flows")
COUNTS = ("liquidations", "stops", "take_profits", "margin_calls", "calls_met", "calls_failed")


class RunBars(NamedTuple):
    """What the measures of parts need of a run, arrays by bar of shape (n_bars,)."""

    samples: Samples
    path: AccountPath
    growth: FloatArray
    years: FloatArray
    series: Mapping[str, FloatArray]
    counts: Mapping[str, FloatArray]
    margin_ratio: FloatArray
    gross: FloatArray
    drag: FloatArray
    carry: FloatArray
    sample: IntArray


def measure_part(run: RunBars, samples: BoolArray, periods: float) -> dict[str, float]:
    """Return the measures of :data:`PART_METRICS` of some sampling periods of a run.

    Parameters
    ----------
    run : RunBars
        The run.
    samples : bool array of shape (n_samples,)
        The sampling periods; their bars count as if they followed one another.
    periods : float
        Sampling periods per year.
    """
    part = take_part(run, samples)
    years = float(np.sum(part.years))
    money = {name: float(np.sum(part.series[name])) for name in MONEY}
    counts = {name: float(np.sum(part.counts[name])) for name in COUNTS}
    ruined = float(np.any(part.counts["ruined"] > 0.0))
    known = {
        **measure_growth(part, years, periods, ruined),
        **money,
        "top_ups": float(np.sum(part.series["top_up"])),
        **counts,
        "ruined": ruined,
        **measure_rates(part, money, years),
        **measure_leverage(part, years, ruined),
    }
    known |= measure_returns(part.samples, periods)
    known |= measure_sums(sum_path([part.path], 1.0), years, known)
    return {name: known[name] for name in PART_METRICS}


def take_part(run: RunBars, samples: BoolArray) -> RunBars:
    rows = samples[run.sample]
    growth = run.growth[rows]
    path = AccountPath(*(each[rows] for each in run.path))
    return RunBars(
        samples=Samples(*(each[samples] for each in run.samples)),
        path=path._replace(unit=np.asarray(np.cumprod(growth), dtype=np.float64)),
        growth=growth,
        years=run.years[rows],
        series={name: values[rows] for name, values in run.series.items()},
        counts={name: values[rows] for name, values in run.counts.items()},
        margin_ratio=run.margin_ratio[rows],
        gross=run.gross[rows],
        drag=run.drag[rows],
        carry=run.carry[rows],
        sample=run.sample[rows],
    )


def measure_growth(part: RunBars, years: float, periods: float, ruined: float) -> dict[str, float]:
    returns, free = part.samples.returns, part.samples.risk_free
    excess, has_spread = returns - free, len(returns) > 1
    unit = np.concatenate(([1.0], part.path.unit))
    cagr = -1.0 if ruined else compound_growth(float(unit[-1]), years)
    downside = float(np.sqrt(np.mean(np.minimum(excess, 0.0) ** 2)))
    mean = float(np.mean(excess))
    drawdown = max_drawdown(unit)
    return {
        "total_return": float(unit[-1]) - 1.0,
        "cagr": cagr,
        "volatility": spread_of(returns) * math.sqrt(periods),
        "sharpe": ratio(mean, spread_of(excess), periods) if has_spread else math.nan,
        "sortino": ratio(mean, downside, periods),
        "max_drawdown": drawdown,
        "calmar": cagr / drawdown if drawdown > 0.0 else math.nan,
        "certainty_equivalent": certainty_equivalent(returns, periods),
    }


def spread_of(returns: FloatArray) -> float:
    return float(np.std(returns, ddof=1)) if len(returns) > 1 else math.nan


def measure_rates(part: RunBars, money: Mapping[str, float], years: float) -> dict[str, float]:
    """Return turnover and costs per year, as fractions of mean equity."""
    mean = float(np.mean(part.path.equity))
    scale = mean * years if mean > 0.0 else math.nan
    rates = {f"{name}_annual": money[name] / scale for name in COSTS}
    return rates | {"turnover": float(np.sum(part.counts["traded"])) / scale}


def measure_leverage(part: RunBars, years: float, ruined: float) -> dict[str, float]:
    mean, peak = float(np.mean(part.gross)), float(np.max(part.gross))
    drag = math.nan if ruined else float(np.sum(part.drag)) / years
    carry = math.nan if ruined else float(np.sum(part.carry)) / years
    return {
        "near_liquidation_share": float(np.mean(part.counts["near"])),
        "mean_leverage": mean,
        "peak_leverage": peak,
        "gross_over_cap": float(np.mean(part.counts["over_cap"])),
        "peak_gross_leverage": peak,
        "peak_margin_ratio": float(np.max(part.margin_ratio)),
        "leverage_decay": drag + carry,
        "volatility_drag": drag,
        "carry_decay": carry,
        "carry_per_turn": carry / mean if mean > 0.0 else math.nan,
    }
