"""Variances of bars by their ranges: Parkinson, Garman and Klass, Yang and Zhang."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

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


def measure_range_ratio(market: Market, name: str, half_lives: core.FloatArray) -> core.FloatArray:
    """Return the realized volatility over that of a range so far, (n_bars, k).

    Of at most the last 365 days; NaN until a half-life of bars is known, 1 where no range moved.
    """
    if name not in RANGE_ESTIMATORS:
        raise core.ParameterError(
            f"calibrate is of ranges, {', '.join(RANGE_ESTIMATORS)}, and must be left out for "
            f"{name!r}"
        )
    returns = r.log_returns(market)
    squares = np.atleast_2d(returns.T).T ** 2
    columns = []
    for half_life in half_lives.tolist():
        variance = np.atleast_2d(find_range_variance(market, name, half_life).T).T
        known = np.where(np.isnan(squares), np.nan, variance)
        realized, ranged = (
            pd.DataFrame(each, core.utc_index(market.time))
            .rolling(YEAR, min_periods=max(math.ceil(half_life), 2))
            .mean()
            .to_numpy()
            for each in (squares, known)
        )
        still = np.where(np.isnan(ranged), np.nan, 1.0)
        columns.append(np.sqrt(np.divide(realized, ranged, out=still, where=ranged > 0.0)))
    return np.concatenate(columns, axis=1)


def find_range_variance(market: Market, name: str, half_life: float) -> core.FloatArray:
    """Return the variance of each bar by its range; in markets of sessions all are Yang-Zhang's."""
    if name == "yang-zhang" or market.sessions:
        decay = float(lanes.find_decay(half_life)[0])
        return mix_yang_zhang(find_yang_zhang_parts(market), decay)
    return parkinson_variance(market) if name == "parkinson" else garman_klass_variance(market)


def parkinson_variance(market: Market) -> core.FloatArray:
    return np.asarray(np.log(market.high / market.low) ** 2 / (4.0 * math.log(2.0)))


def garman_klass_variance(market: Market) -> core.FloatArray:
    width, move = np.log(market.high / market.low), np.log(market.close / market.open)
    return np.asarray(0.5 * width**2 - (2.0 * math.log(2.0) - 1.0) * move**2)


YangZhangParts: TypeAlias = tuple[core.FloatArray, core.FloatArray, core.FloatArray]
"""Squares of the gap before a bar and of its move, and the variance inside it, of one shape."""


def find_yang_zhang_parts(market: Market) -> YangZhangParts:
    gap = np.log(market.open / np.concatenate([market.open[:1], market.close[:-1]]))
    up, down, move = (np.log(x / market.open) for x in (market.high, market.low, market.close))
    return gap**2, move**2, up * (up - move) + down * (down - move)


def mix_yang_zhang(parts: YangZhangParts, decay: float) -> core.FloatArray:
    gap, move, inside = parts
    k = 0.34 * decay / (1.34 * decay + 1.0)
    return np.asarray(gap + k * move + (1.0 - k) * inside)


def yang_zhang_volatility(market: Market, half_lives: core.FloatArray) -> core.FloatArray:
    parts, decay = find_yang_zhang_parts(market), lanes.find_decay(half_lives)
    bars = np.atleast_1d(half_lives)
    scale = np.array(np.broadcast_to(bars_per_year(market), market.n_bars))
    columns = np.empty((market.n_bars, len(decay)))
    for j, w in enumerate(decay):
        variance = mix_yang_zhang(parts, float(w))
        columns[:, j] = weighted_root(variance, bars[j : j + 1], scale)[:, 0]
    return columns


def _average(variance: Callable[[Market], core.FloatArray]) -> Estimator:
    def estimate(market: Market, half_lives: core.FloatArray) -> core.FloatArray:
        if market.sessions:
            return yang_zhang_volatility(market, half_lives)
        scale = np.array(np.broadcast_to(bars_per_year(market), market.n_bars))
        return weighted_root(variance(market), half_lives, scale)

    return estimate
