"""What sets did in groups of time, as sums from which the measures over several groups follow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from backtest import core, engine
from backtest.account.money import COSTS
from backtest.core import as_of
from backtest.core.units import DAY, YEAR_DAYS
from backtest.results import annualize_ratios
from backtest.search.compare import compound_free
from backtest.search.problem import SearchProblem
from backtest.search.validation import Groups
from backtest.venue import Venue

LEAST_SHARE = 1e-13
"""A variance below this share of the mean square is a rounding error of a constant."""
SUMS = (
    "price_pnl",
    *COSTS,
    "liquidations",
    "liquidation_loss",
    "bad_debt",
    "stops",
    "take_profits",
    "margin_calls",
    "calls_met",
    "calls_failed",
    "liquidated_after_call",
    "flows",
    "top_ups",
    "fills",
)
MAXIMA = ("max_drawdown", "ruined", "peak_leverage", "peak_margin_ratio")
MEANS = ("turnover", "mean_leverage", "gross_over_cap", "mean_margin_use")
OF_RETURNS = ("total_return", "cagr", "volatility", "sharpe", "sortino")
KNOWN = frozenset({*SUMS, *MAXIMA, *MEANS, *OF_RETURNS, "calmar"})
"""Measures of consecutive fresh accounts that follow from those of each."""
FIRST = (
    "sharpe",
    "cagr",
    "total_return",
    "volatility",
    "max_drawdown",
    "ruined",
)
"""The first columns of a table of paths."""


class GroupRuns(NamedTuple):
    """All sets in one group: measures of shape (n_sets,) and returns (n_samples, n_sets).

    ``decided`` are the shares of its bars on which they decided.
    """

    metrics: dict[str, core.FloatArray]
    returns: core.FloatArray
    failed: core.BoolArray
    decided: core.FloatArray


TIME = ("n", "years")
MOMENTS = (
    *TIME,
    "growth",
    "total",
    "squares",
    "excess",
    "excess_squares",
    "downside",
)
"""Numbers of samples and years, and sums over sampled returns r and excess returns e: of
log(1 + r), r, r^2, e, e^2 and min(e, 0)^2."""
GroupPart: TypeAlias = Mapping[str, core.FloatArray]
"""What sets did in one group: moments of their returns and their measures, of shape (n,)."""


def sum_moments(
    returns: core.FloatArray,
    free: core.FloatArray,
    years: float,
) -> dict[str, core.FloatArray]:
    """Compute the moments of returns of shape (n_samples, n) and risk-free ones (n_samples,)."""
    excess = returns - free[:, None]
    each_set = np.ones(returns.shape[1])
    with np.errstate(divide="ignore"):
        growth = np.log1p(returns)
    return {
        "n": len(returns) * each_set,
        "years": years * each_set,
        "growth": np.sum(growth, axis=0),
        "total": np.sum(returns, axis=0),
        "squares": np.sum(returns**2, axis=0),
        "excess": np.sum(excess, axis=0),
        "excess_squares": np.sum(excess**2, axis=0),
        "downside": np.sum(np.minimum(excess, 0.0) ** 2, axis=0),
    }


def build_parts(
    problem: SearchProblem,
    groups: Groups,
    runs: Sequence[GroupRuns],
    skipped: int,
) -> list[GroupPart]:
    """Return what sets did in each group, without its first ``skipped`` samples."""
    venue: Any = problem.varied.venue
    if not isinstance(venue, Venue):
        venue = next(iter(venue.values()))

    parts: list[GroupPart] = []
    for group, run in enumerate(runs):
        first, stop = groups.span(group)
        market = problem.market.prefix(stop)

        # Cash earned by bar, compounded over each sampling period.
        rates = as_of(venue.cash_rate, market.time, "Venue.cash_rate")
        bar_years = engine.measure_years(market, venue, first, int(market.time[first]))
        free_by_bar = engine.earn_cash(rates, bar_years, market.n_bars)[first:]
        ends = engine.mark_samples(market, problem.test.sampling)[first:]
        free = compound_free(free_by_bar, ends)[skipped:]

        # The years of the group, less those of the samples that are skipped.
        end = int(market.time[stop - 1]) + market.interval
        span = end - int(market.time[first])
        years = span / (YEAR_DAYS * DAY) * len(free) / len(run.returns)
        metrics = {name: values for name, values in run.metrics.items() if name in KNOWN}
        moments = sum_moments(run.returns[skipped:], free, years)
        parts.append({**metrics, **moments})
    return parts


def combine_parts(parts: Sequence[GroupPart], periods: float) -> dict[str, core.FloatArray]:
    """Return the measures of sets over groups, (n,) each, of ``periods`` samples a year."""
    with np.errstate(all="ignore"):
        sums = add_parts(parts)
        moments = {name: sums.pop(name) for name in MOMENTS}
        n = moments["n"]
        growth = moments["growth"]
        is_ruined = sums["ruined"] != 0.0
        rate = np.expm1(np.minimum(growth / moments["years"], 700.0))
        cagr = np.where(is_ruined | ~(growth > -np.inf), -1.0, rate)

        mean = moments["excess"] / n
        deviation = find_deviation(moments["squares"], moments["total"], n)
        excess_deviation = find_deviation(moments["excess_squares"], moments["excess"], n)
        downside = np.sqrt(moments["downside"] / n)
        drawdown = sums["max_drawdown"]
        return {
            **sums,
            "total_return": np.expm1(growth),
            "cagr": cagr,
            "volatility": deviation * math.sqrt(periods),
            "sharpe": annualize_ratios(mean, excess_deviation, periods),
            "sortino": annualize_ratios(mean, downside, periods),
            "calmar": np.where(drawdown > 0.0, cagr / drawdown, np.nan),
        }


def add_parts(parts: Sequence[GroupPart]) -> dict[str, core.FloatArray]:
    """Return the moments and measures of consecutive groups that add up, each in its way.

    Others, which :func:`combine_parts` computes from the moments, are left out.
    """
    years = np.stack([part["years"] for part in parts])
    combined: dict[str, core.FloatArray] = {}
    for name in parts[0]:
        rows = np.stack([part[name] for part in parts])

        if name in MOMENTS or name in SUMS:
            combined[name] = np.sum(rows, axis=0)
        elif name in MAXIMA:
            combined[name] = np.max(rows, axis=0)
        elif name in MEANS:
            combined[name] = np.sum(rows * years, axis=0) / np.sum(years, axis=0)
    return combined


def find_deviation(
    squares: core.FloatArray,
    total: core.FloatArray,
    n: core.FloatArray,
) -> core.FloatArray:
    """Return the standard deviation of n values from their sum and that of their squares."""
    spread = squares - total * total / np.maximum(n, 1.0)
    spread = np.where(spread > LEAST_SHARE * squares, spread, 0.0)  # less is rounding
    freedom = np.where(n > 1.0, n - 1.0, np.nan)
    return np.sqrt(spread / freedom)


class StitchedPaths(NamedTuple):
    """The measures of paths, and their unit values after each sample, (n_paths, n_samples)."""

    table: pd.DataFrame
    curves: core.FloatArray


def stitch_paths(
    rows: core.IntArray,
    parts: Sequence[GroupPart],
    runs: Sequence[GroupRuns],
    periods: float,
) -> StitchedPaths:
    """Return paths through groups, whose sets are ``rows`` (n_paths, n_groups)."""
    is_alive = np.ones(len(rows), dtype=np.bool_)
    path_parts: list[GroupPart] = []
    returns = []
    for group_rows, part, run in zip(rows.T, parts, runs, strict=True):
        # A path trades in a group if it has a set there (-1 is none) and was not ruined before.
        is_trading = is_alive & (group_rows >= 0)
        chosen = np.maximum(group_rows, 0)
        values = {}
        for name, column in part.items():
            values[name] = column[chosen]
            if name not in TIME:  # who does not trade earns and costs nothing
                values[name] = np.where(is_trading, values[name], 0.0)

        path_parts.append(values)
        returns.append(run.returns[:, chosen] * is_trading)
        is_alive = is_alive & (values["ruined"] == 0.0)

    # A drawdown may reach across groups, which the accounts of each do not see.
    growth = 1.0 + np.concatenate(returns)
    curves: core.FloatArray = np.cumprod(growth, axis=0).T.astype(np.float64)
    peaks = np.maximum.accumulate(np.maximum(curves, 1.0), axis=1)
    falls = np.max(1.0 - curves / peaks, axis=1)
    metrics = combine_parts(path_parts, periods)
    drawdown = np.maximum(metrics["max_drawdown"], falls)
    metrics["max_drawdown"] = drawdown
    with np.errstate(all="ignore"):
        metrics["calmar"] = np.where(drawdown > 0.0, metrics["cagr"] / drawdown, np.nan)

    first_names = [name for name in FIRST if name in metrics]
    names = dict.fromkeys([*first_names, *metrics])
    table = pd.DataFrame({name: metrics[name] for name in names})
    return StitchedPaths(table.rename_axis("path"), curves)
