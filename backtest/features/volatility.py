"""Volatility of last prices, forecast from closed bars; annualised, causal bit for bit.

Variances add up over time: an annual volatility is the one of a bar times the root of the bars per
year (:func:`backtest.features.returns.bars_per_year`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from backtest.features.returns import OneOrMany, bars_per_year, each, log_returns
from backtest.market import Market
from backtest.params import check_number, check_range
from backtest.units import FloatArray


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
    squares = pd.Series(log_returns(market) ** 2, copy=False)
    scale = bars_per_year(market)

    def compute(bars: float) -> FloatArray:
        check_range("half_life", bars, where="ewma_volatility", low=0.0, open_low=True)
        variance = squares.ewm(halflife=bars, min_periods=2).mean().to_numpy()
        return np.sqrt(variance * scale)

    return each(compute, half_life)


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
    returns = pd.Series(log_returns(market), copy=False)
    scale = np.sqrt(bars_per_year(market))

    def compute(bars: float) -> FloatArray:
        n = check_window(bars, where="close_to_close_volatility")
        return np.asarray(returns.rolling(n).std().to_numpy() * scale)

    return each(compute, window)


def check_window(window: float, *, where: str) -> int:
    """Return a window as a whole number of returns, at least 2.

    Raises
    ------
    ParameterError
        If it is not one.
    """
    check_range("window", window, where=where, low=2.0)
    return int(check_number("window", window, where=where, whole=True))
