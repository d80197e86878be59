"""Trends over the last bars, and the true range."""

from __future__ import annotations

import numpy as np

from backtest.core import FloatArray, IntArray, checked
from backtest.core.code_names import pd
from backtest.indicators import lanes, returns
from backtest.indicators.estimators import ewma_volatility
from backtest.indicators.lanes import OneOrMany
from backtest.market import Market, bars_per_year


def find_moves(market: Market, lookbacks: IntArray) -> FloatArray:
    """Return ln(C_t / C_{t-n}) less the funding settled since, (n_bars, k); NaN until known."""
    funding = np.cumsum(returns.settled_funding(market))
    path = np.log(market.close) - funding
    shape = (len(path), len(lookbacks))
    moves = np.full(shape, np.nan)
    for j, bars in enumerate(lookbacks.tolist()):
        moves[bars:, j] = path[bars:] - path[:-bars]
    return moves


def average_wilder(values: FloatArray, window: int) -> FloatArray:
    """Return the mean of the first ``window`` known values, smoothed by 1/window since.

    ``values`` of shape (n_bars,) begin with any number of NaN. Source: Wilder (1978), New Concepts
    in Technical Trading Systems.
    """
    series = pd.Series(values)
    means = series.rolling(window).mean()

    # A series that is unknown, then the mean of the first window, then the values after it: its
    # recursive average begins with that mean.
    is_after_first = means.shift(1).notna()
    begun = series.where(is_after_first, means)
    smoothed = begun.ewm(alpha=1.0 / window, adjust=False).mean()
    return smoothed.to_numpy(copy=True)


@checked
def true_range(market: Market) -> FloatArray:
    """Return the true range of each bar, in units of the price, of shape (n_bars,).

    max(H_t, C_{t-1}) - min(L_t, C_{t-1}); H - L in the first bar. Source: Wilder (1978).
    """
    close_before = np.append(market.low[:1], market.close[:-1])
    highest = np.maximum(market.high, close_before)
    lowest = np.minimum(market.low, close_before)
    return highest - lowest


@checked
def atr(market: Market, window: OneOrMany = 14) -> FloatArray:
    """Return Wilder's average true range, in units of the price; NaN until ``window`` bars.

    ``window``: bars, at least 1. The mean of the first n true ranges, then (ATR (n - 1) + TR) / n.
    ``Account(stop_loss="2*atr")`` takes it from a column, ``market.with_columns(atr=...)``.
    Source: Wilder (1978), New Concepts in Technical Trading Systems.

    Examples
    --------
    >>> market = Market.sample(bars=48)
    >>> values = atr(market, 24)
    >>> bool(np.isnan(values[22])), bool(values[23] > 0.0)
    (True, True)
    """
    lanes.check_bars("window", window)
    ranges = true_range(market)
    windows = np.atleast_1d(window).astype(np.int64).tolist()
    columns = [average_wilder(ranges, bars) for bars in windows]
    averages = np.stack(columns, axis=1)
    return lanes.shape_as(averages, window)


@checked
def trend_sign(market: Market, lookback: OneOrMany) -> FloatArray:
    """Return the direction of the last bars: 1 up, -1 down, 0 if the return is 0.

    The log return of a long position, net of funding. ``lookback``: bars, at least 1. NaN until
    ``lookback`` returns are known.

    Notes
    -----
    sign of ln(C_t / C_{t-n}) - sum f, n = lookback and f the funding rates settled after the close
    of bar t-n and before that of bar t. Where log prices have drift m per year and
    volatility sigma, it is that of the drift with probability Phi(|m| sqrt(T) / sigma), T the
    lookback in years. Source: Moskowitz, Ooi and Pedersen (2012), Time Series Momentum.
    """
    lanes.check_bars("lookback", lookback)
    lookbacks = np.atleast_1d(lookback).astype(np.int64)
    moves = find_moves(market, lookbacks)
    return lanes.shape_as(np.sign(moves), lookback)


@checked
def trend_strength(
    market: Market,
    lookback: OneOrMany,
    half_life: OneOrMany,
    full: OneOrMany = 1.0,
) -> FloatArray:
    """Return the move of the last bars in standard deviations, as a strength from -1 to 1.

    ``lookback``: bars, at least 1. ``half_life``: half-life of the volatility in bars, over 0.
    ``full``: standard deviations at which the strength is 1, over 0. NaN until
    ``lookback`` returns are known, and ceil(half_life), at least 2.

    Notes
    -----
    clip(z / full, -1, 1) with z = R / (sigma sqrt(n / A)): R the excess return over n = lookback
    bars, sigma the exponentially weighted volatility per sqrt(year), A the bars per year. A random
    walk without drift has z of mean 0 and deviation 1 for every lookback. A constant price has
    strength 0. Source: Baltas and Kosowski (2020), Demystifying Time-Series Momentum
    Strategies, in Market Momentum: Theory and Practice, Wiley, whose trend signal is a t-statistic
    clipped at 1 in place of the sign.
    """
    lanes.check_lanes("full", full, low=0.0, open_low=True)
    lanes.check_bars("lookback", lookback)
    bars, half_lives, fulls = lanes.broadcast(lookback, half_life, full)
    moves = find_moves(market, bars.astype(np.int64))

    # The move at which the strength is 1, (n_bars, n_lanes): full times sigma sqrt(n / A).
    bars_a_year = np.reshape(bars_per_year(market), (-1, 1))
    sqrt_years_per_bar = np.sqrt(1.0 / bars_a_year)
    sigma = ewma_volatility(market, half_lives)
    full_moves = np.sqrt(bars) * fulls
    full_move = sigma * sqrt_years_per_bar * full_moves

    # No move has strength 0, even over a volatility of 0; but NaN until the volatility is known.
    no_strength = 0.0 * full_move
    with np.errstate(divide="ignore", invalid="ignore"):
        strength = np.where(moves != 0.0, moves / full_move, no_strength)
    clipped = np.clip(strength, -1.0, 1.0)
    return lanes.shape_as(clipped, lookback, half_life, full)
