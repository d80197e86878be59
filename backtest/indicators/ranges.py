"""Variances of bars by their ranges: Parkinson, Garman and Klass, Yang and Zhang."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from backtest import core
from backtest.core.code_names import pd
from backtest.indicators import lanes
from backtest.indicators import returns as r
from backtest.indicators.averages import weighted_root
from backtest.market import Market, bars_per_year

RANGE_ESTIMATORS = ("parkinson", "garman-klass", "yang-zhang")
Estimator: TypeAlias = Callable[[Market, core.FloatArray], core.FloatArray]

YEAR = "365D"
"""The most that ranges are calibrated on."""


def measure_range_ratio(
    market: Market,
    name: str,
    half_lives: core.FloatArray,
) -> core.FloatArray:
    """Return the realized volatility over that of a range so far, (n_bars, k).

    Of at most the last 365 days; NaN until a half-life of bars is known, 1 where no range moved.
    """
    if name not in RANGE_ESTIMATORS:
        raise core.ParameterError(
            f"calibrate is of ranges, {', '.join(RANGE_ESTIMATORS)}, and must be left out for "
            f"{name!r}"
        )

    # Arrays by bar have a column for each path.
    returns = r.log_returns(market)
    squares = np.atleast_2d(returns.T).T ** 2
    has_none = np.isnan(squares)
    columns = []
    for half_life in half_lives.tolist():
        range_variance = find_range_variance(market, name, half_life)
        variance = np.atleast_2d(range_variance.T).T
        needed = int(lanes.count_needed(half_life)[0])
        realized = average_year(market, squares, needed)

        # Both means are of the bars that have a return.
        with_return = np.where(has_none, np.nan, variance)
        ranged = average_year(market, with_return, needed)

        # Where no range moved, there is nothing to scale.
        ratio = np.where(np.isnan(ranged), np.nan, 1.0)
        np.divide(realized, ranged, out=ratio, where=ranged > 0.0)
        columns.append(np.sqrt(ratio))
    return np.concatenate(columns, axis=1)


def average_year(
    market: Market,
    columns: core.FloatArray,
    needed: int,
) -> core.FloatArray:
    """Return means of the last 365 days of columns (n_bars, k), NaN with fewer than ``needed``."""
    frame = pd.DataFrame(columns, core.utc_index(market.time))
    year = frame.rolling(YEAR, min_periods=needed)
    means: core.FloatArray = year.mean().to_numpy()
    return means


def find_range_variance(
    market: Market,
    name: str,
    half_life: float,
) -> core.FloatArray:
    """Return the variance of each bar by its range; in markets of sessions all are Yang-Zhang's."""
    if name == "yang-zhang" or market.sessions:
        decay = float(lanes.find_decay(half_life)[0])
        parts = find_yang_zhang_parts(market)
        return mix_yang_zhang(parts, decay)
    if name == "parkinson":
        return parkinson_variance(market)
    return garman_klass_variance(market)


def parkinson_variance(market: Market) -> core.FloatArray:
    """Return ln(H / L)^2 / (4 ln 2) of each bar."""
    width = np.log(market.high / market.low)
    factor = 4.0 * math.log(2.0)
    return np.asarray(width**2 / factor)


def garman_klass_variance(market: Market) -> core.FloatArray:
    """Return 1/2 ln(H / L)^2 - (2 ln 2 - 1) ln(C / O)^2 of each bar."""
    width = np.log(market.high / market.low)
    move = np.log(market.close / market.open)
    weight_of_move = 2.0 * math.log(2.0) - 1.0
    return np.asarray(0.5 * width**2 - weight_of_move * move**2)


class YangZhangParts(NamedTuple):
    """Squares of the gap before a bar and of its move, and the variance inside it, of one shape."""

    gap: core.FloatArray
    move: core.FloatArray
    inside: core.FloatArray


def find_yang_zhang_parts(market: Market) -> YangZhangParts:
    """Return the three variances of each bar; the gap before the first is 0."""
    close_before = np.concatenate([market.open[:1], market.close[:-1]])
    gap = np.log(market.open / close_before)
    up = np.log(market.high / market.open)
    down = np.log(market.low / market.open)
    move = np.log(market.close / market.open)
    inside = up * (up - move) + down * (down - move)
    return YangZhangParts(gap=gap**2, move=move**2, inside=inside)


def mix_yang_zhang(parts: YangZhangParts, decay: float) -> core.FloatArray:
    """Return gap + k move + (1 - k) inside, with k of :func:`backtest.indicators.volatility`."""
    k = 0.34 * decay / (1.34 * decay + 1.0)
    mixed = parts.gap + k * parts.move + (1.0 - k) * parts.inside
    return np.asarray(mixed)


def yang_zhang_volatility(
    market: Market,
    half_lives: core.FloatArray,
) -> core.FloatArray:
    """Return the weighted volatility by ranges and gaps, (n_bars, k)."""
    parts = find_yang_zhang_parts(market)
    n_bars = market.n_bars
    scale = np.array(np.broadcast_to(bars_per_year(market), n_bars))
    half_lives = np.atleast_1d(half_lives)
    decays = lanes.find_decay(half_lives).tolist()

    columns = np.empty((n_bars, len(half_lives)))
    for j, decay in enumerate(decays):
        variance = mix_yang_zhang(parts, decay)
        half_life = half_lives[j : j + 1]
        columns[:, j] = weighted_root(variance, half_life, scale)[:, 0]
    return columns


def average_ranges(variance: Callable[[Market], core.FloatArray]) -> Estimator:
    """Return the estimator that averages a variance by bar; in sessions all are Yang-Zhang's."""

    def estimate(market: Market, half_lives: core.FloatArray) -> core.FloatArray:
        if market.sessions:
            return yang_zhang_volatility(market, half_lives)
        per_year = bars_per_year(market)
        scale = np.array(np.broadcast_to(per_year, market.n_bars))
        return weighted_root(variance(market), half_lives, scale)

    return estimate
