"""Time-series momentum: the move of a market over the last bars, and how significant it is."""

from __future__ import annotations

import numpy as np

from backtest.base import FloatArray, IntArray, checked, compile_module
from backtest.features import trend_kernels
from backtest.features.close_volatility import ewma_volatility
from backtest.features.lane_parameters import broadcast, check_bars, check_lanes, shape_as
from backtest.features.returns import OneOrMany, bars_per_year, settled_funding
from backtest.market import Market


@checked
def excess_momentum(market: Market, lookback: OneOrMany) -> FloatArray:
    """Return the log return of a long position over the last bars, net of funding.

    Parameters
    ----------
    market : Market
        Its closes and funding.
    lookback : int, or array of shape (k,)
        Bars, at least 1.

    Returns
    -------
    FloatArray of shape (n_bars,), or (n_bars, k)
        NaN until ``lookback`` returns are known.

    Notes
    -----
    ln(C_t / C_{t-n}) - sum f, n = lookback and f the funding rates settled after the close of bar
    t-n and before that of bar t. Source: Moskowitz, Ooi and Pedersen (2012), Time Series Momentum,
    J. Financial Economics 104(2): the excess return over the lookback.
    """
    lookbacks = read_lookbacks(lookback)
    out = np.empty((market.n_bars, len(lookbacks)))
    compile_module(trend_kernels).momentum_lanes(find_path(market), lookbacks, out)
    return shape_as(out, lookback)


@checked
def trend_sign(market: Market, lookback: OneOrMany) -> FloatArray:
    """Return the direction of the last bars: 1 up, -1 down, 0 if the return is 0.

    Parameters, shape, and NaN are those of :func:`excess_momentum`.

    Notes
    -----
    sign of the excess return over the lookback. Where log prices have drift m per year and
    volatility sigma, it is that of the drift with probability Phi(|m| sqrt(T) / sigma), T the
    lookback in years. Source: Moskowitz, Ooi and Pedersen (2012), Time Series Momentum.
    """
    signs: FloatArray = np.sign(excess_momentum(market, lookback))
    return signs


@checked
def trend_strength(
    market: Market, lookback: OneOrMany, half_life: OneOrMany, full: OneOrMany = 1.0
) -> FloatArray:
    """Return the move of the last bars in standard deviations, as a strength from -1 to 1.

    Parameters
    ----------
    market : Market
        Its closes and funding.
    lookback : int, or array of shape (k,)
        Bars, at least 1.
    half_life : float, or FloatArray of shape (k,)
        Half-life of the volatility in bars, over 0.
    full : float, or FloatArray of shape (k,)
        Standard deviations at which the strength is 1, over 0.

    Returns
    -------
    FloatArray of shape (n_bars,), or (n_bars, k)
        NaN until ``lookback`` returns, and two, are known.

    Notes
    -----
    clip(z / full, -1, 1) with z = R / (sigma sqrt(n / A)): R the excess return over n = lookback
    bars, sigma the exponentially weighted volatility per sqrt(year), A the bars per year. A random
    walk without drift has z of mean 0 and deviation 1 for every lookback. A constant price has
    strength 0. Source: Baltas and Kosowski (2020), Demystifying Time-Series Momentum
    Strategies, in Market Momentum: Theory and Practice, Wiley, whose trend signal is a t-statistic
    clipped at 1 in place of the sign.
    """
    check_lanes("full", full, low=0.0, open_low=True)
    check_lanes("half_life", half_life, low=0.0, open_low=True)
    given = (lookback, half_life, full)
    bars, half_lives, fulls = broadcast(*given)
    lookbacks = read_lookbacks(bars)
    root = np.sqrt(1.0 / np.asarray(bars_per_year(market)))
    strength = ewma_volatility(market, half_lives)
    compile_module(trend_kernels).strength_lanes(
        find_path(market),
        lookbacks,
        np.array(np.broadcast_to(root, market.n_bars)),
        np.sqrt(bars) * fulls,
        strength,
    )
    return shape_as(strength, *given)


def read_lookbacks(lookback: OneOrMany) -> IntArray:
    """Return lookbacks as whole numbers of bars, checked to be at least 1, of shape (k,)."""
    check_bars("lookback", lookback)
    return broadcast(lookback)[0].astype(np.int64)


def find_path(market: Market) -> FloatArray:
    """Return the log prices at closes less all funding settled before, of shape (n_bars,)."""
    return np.log(market.close) - np.cumsum(settled_funding(market))
