"""Volatility of closing prices, annualized, from closed bars only.

Variances add up over time. So the annual volatility is that of one bar times the root of the number
of bars per year (:func:`backtest.features.returns.bars_per_year`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import numpy as np

from backtest.base import FloatArray, IntArray, check_range, checked
from backtest.features.continued_columns import add_continuation
from backtest.features.lane_parameters import check_bars, list_lanes, shape_as
from backtest.features.returns import OneOrMany, bars_per_year, log_returns
from backtest.features.rolling_lanes import ewma_deviation, ewma_on_paths, rolling_deviation
from backtest.market import Market


@checked
def ewma_volatility(market: Market, half_life: OneOrMany) -> FloatArray:
    """Return the exponentially weighted volatility of close-to-close log returns.

    Parameters
    ----------
    market : Market
        Only its closes count.
    half_life : float, or FloatArray of shape (k,)
        Bars after which a return weighs half as much, over 0.

    Returns
    -------
    FloatArray of shape (n_bars,), or (n_bars, k)
        Per sqrt(year); NaN until two returns are known.

    Notes
    -----
    sigma_t^2 = A sum_i w^i r_{t-i}^2 / sum_i w^i with w = 2^(-1/half_life), r the log returns up
    to bar t, A the bars per year. The mean is taken as 0. Source: J.P. Morgan/Reuters (1996),
    RiskMetrics Technical Document, section 5.2; the weights are divided by their sum, so that the
    first returns do not count for more.
    """
    decay = find_decay(read_half_lives(half_life))
    returns, scale = log_returns(market), bars_per_year(market)
    columns = ewma_deviation(returns, decay, scale)
    if len(decay) == 1:
        add_continuation(market, columns, functools.partial(ewma_on_paths, returns, decay, scale))
    return shape_as(columns, half_life)


@checked
def close_to_close_volatility(market: Market, window: OneOrMany) -> FloatArray:
    """Return the sample standard deviation of the last ``window`` log returns.

    Parameters
    ----------
    market : Market
        Only its closes count.
    window : int, or array of shape (k,)
        Returns, at least 2.

    Returns
    -------
    FloatArray of shape (n_bars,), or (n_bars, k)
        Per sqrt(year); NaN until ``window`` returns are known.

    Notes
    -----
    sigma_t^2 = A sum_i (r_{t-i} - mean)^2 / (window - 1), A the bars per year. Source: Hull,
    Options, Futures, and Other Derivatives, "Estimating volatility from historical data".
    """
    windows = read_windows(window)
    columns = rolling_deviation(log_returns(market), windows, np.sqrt(bars_per_year(market)))
    return shape_as(columns, window)


def find_decay(half_lives: Iterable[float]) -> FloatArray:
    """Return the weight of a bar relative to the next one, 2^(-1 / half_life), shape (k,)."""
    return np.array([0.5 ** (1.0 / float(bars)) for bars in half_lives])


def read_half_lives(half_life: OneOrMany) -> list[float]:
    return [
        check_range("half_life", bars, low=0.0, open_low=True) for bars in list_lanes(half_life)
    ]


def read_windows(window: OneOrMany) -> IntArray:
    check_bars("window", window, low=2.0)
    return np.atleast_1d(window).astype(np.int64)
