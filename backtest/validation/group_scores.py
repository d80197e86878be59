"""Measures of several fresh accounts taken together: sums, moments, maxima."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from backtest.base import FloatArray
from backtest.measures import annualize_ratios
from backtest.measures.measure_table import COSTS

SUMS = (
    "price_pnl", *COSTS, "liquidations", "liquidation_loss", "bad_debt", "stops", "take_profits",
    "margin_calls", "calls_met", "calls_failed", "liquidated_after_call", "flows", "top_ups",
)  # fmt: skip
MAXIMA = ("max_drawdown", "ruined", "peak_leverage", "peak_margin_ratio")
MEANS = ("turnover", "mean_leverage", "near_liquidation_share", "gross_over_cap")
OF_RETURNS = ("total_return", "cagr", "volatility", "sharpe", "sortino")
KNOWN = frozenset({*SUMS, *MAXIMA, *MEANS, *OF_RETURNS, "calmar"})
LEAST_SHARE = 1e-13
"""A variance below this share of the mean square is a rounding error of a constant."""


class Moments(NamedTuple):
    """Sums over sampled returns r and excess returns e, arrays of shape (n,), and their time."""

    n: FloatArray
    years: FloatArray
    growth: FloatArray
    total: FloatArray
    squares: FloatArray
    excess: FloatArray
    excess_squares: FloatArray
    downside: FloatArray


def sum_moments(returns: FloatArray, free: FloatArray, years: float) -> Moments:
    """Compute the moments of returns of shape (n_samples, n) and risk-free ones (n_samples,)."""
    excess = returns - free[:, None]
    with np.errstate(divide="ignore"):
        growth = np.sum(np.log1p(returns), axis=0)
    n = returns.shape[1]
    return Moments(
        n=np.full(n, float(len(returns))),
        years=np.full(n, years),
        growth=growth,
        total=np.sum(returns, axis=0),
        squares=np.sum(returns**2, axis=0),
        excess=np.sum(excess, axis=0),
        excess_squares=np.sum(excess**2, axis=0),
        downside=np.sum(np.minimum(excess, 0.0) ** 2, axis=0),
    )


class GroupPart(NamedTuple):
    """What sets did in one group: moments of their returns, and their measures, of shape (n,)."""

    moments: Moments
    metrics: Mapping[str, FloatArray]

    def take(self, rows: np.ndarray) -> GroupPart:
        moments = Moments(*(each[rows] for each in self.moments))
        return GroupPart(moments, {name: each[rows] for name, each in self.metrics.items()})

    def leave_out_ruined(self, alive: FloatArray) -> GroupPart:
        is_alive = alive > 0.0
        moments = Moments(*(np.where(is_alive, each, 0.0) for each in self.moments))
        metrics = {name: np.where(is_alive, each, 0.0) for name, each in self.metrics.items()}
        return GroupPart(moments, metrics)


def combine_parts(parts: Sequence[GroupPart], periods: float) -> dict[str, FloatArray]:
    """Return the measures of sets over several groups, by name, of shape (n,).

    ``periods`` is the number of samples per year. A set ruined in any group is ruined.
    """
    whole = Moments(
        *(np.sum(each, axis=0) for each in zip(*(part.moments for part in parts), strict=True))
    )
    metrics = combine_metrics(parts)
    ruined = metrics["ruined"] != 0.0
    with np.errstate(all="ignore"):
        rate = np.expm1(np.minimum(whole.growth / whole.years, 700.0))
    cagr: FloatArray = np.where(ruined | ~(whole.growth > -np.inf), -1.0, rate)
    drawdown = metrics["max_drawdown"]
    with np.errstate(all="ignore"):
        return {
            **metrics,
            "total_return": np.expm1(whole.growth),
            "cagr": cagr,
            "volatility": find_deviation(whole.squares, whole.total, whole.n) * math.sqrt(periods),
            "sharpe": annualize_ratios(
                whole.excess / whole.n,
                find_deviation(whole.excess_squares, whole.excess, whole.n),
                periods,
            ),
            "sortino": annualize_ratios(
                whole.excess / whole.n, np.sqrt(whole.downside / whole.n), periods
            ),
            "calmar": np.where(drawdown > 0.0, cagr / drawdown, np.nan),
        }


def combine_metrics(parts: Sequence[GroupPart]) -> dict[str, FloatArray]:
    found: dict[str, FloatArray] = {}
    for name in parts[0].metrics:
        rows = np.stack([part.metrics[name] for part in parts])
        if name in SUMS:
            found[name] = np.sum(rows, axis=0)
        elif name in MAXIMA:
            found[name] = np.max(rows, axis=0)
        elif name in MEANS:
            years = np.stack([part.moments.years for part in parts])
            with np.errstate(all="ignore"):
                found[name] = np.sum(rows * years, axis=0) / np.sum(years, axis=0)
    return found


def find_deviation(squares: FloatArray, total: FloatArray, n: FloatArray) -> FloatArray:
    spread = squares - total * total / np.maximum(n, 1.0)
    spread = np.where(spread > LEAST_SHARE * squares, spread, 0.0)
    deviation: FloatArray = np.sqrt(spread / np.where(n > 1.0, n - 1.0, np.nan))
    return deviation
