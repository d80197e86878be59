"""Sharpe ratio of a position over the last bars, with its standard error."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backtest.base import FloatArray, check_broadcast, checked
from backtest.features.close_volatility import read_windows
from backtest.features.lane_parameters import shape_as
from backtest.features.returns import OneOrMany, bars_per_year, traded_returns
from backtest.features.rolling_lanes import rolling_ratio
from backtest.market import Market


class Sharpe(NamedTuple):
    """Sharpe ratio by bar and its standard error, both per sqrt(year).

    Arrays of shape (n_bars,), or (n_bars, k) for k windows; NaN until the window is full.
    """

    ratio: FloatArray
    error: FloatArray


@checked
def rolling_sharpe(market: Market, window: OneOrMany) -> Sharpe:
    """Return the Sharpe ratio of the traded position, at 1x, over the last bars, with its error.

    Parameters
    ----------
    market : Market
        Its closes, funding and signal: returns are those of the side held, net of funding.
    window : int, or array of shape (k,)
        Returns, at least 2.

    Returns
    -------
    Sharpe
        Annualized. NaN until ``window`` returns are known, and while the price is constant.

    Notes
    -----
    With T = window, A the bars per year and S = mean / std (ddof 1) of the last T returns: ratio
    ``sqrt(A) S``, error ``sqrt(A (1 + S^2 / 2) / T)``, for returns that are independent and
    identically distributed. Source: Lo (2002), The Statistics of Sharpe Ratios, Financial Analysts
    Journal 58(4), eq. 9.
    """
    windows = read_windows(window)
    returns = traded_returns(market)
    unknown = np.isnan(returns)
    root = np.sqrt(bars_per_year(market))
    ratio, error = rolling_ratio(np.where(unknown, 0.0, returns), windows, root)
    last = np.maximum.accumulate(np.where(unknown, np.arange(market.n_bars), 0))
    is_full = np.arange(market.n_bars)[:, None] - last[:, None] >= windows
    ratio, error = np.where(is_full, ratio, np.nan), np.where(is_full, error, np.nan)
    return Sharpe(shape_as(ratio, window), shape_as(error, window))


@checked
def sharpe_error(ratio: OneOrMany, n: OneOrMany) -> FloatArray:
    """Return the standard error of a Sharpe ratio of n independent returns, per return.

    Notes
    -----
    sqrt((1 + S^2 / 2) / n). Source: Lo (2002), eq. 9.

    Examples
    --------
    >>> round(float(sharpe_error(1.0, 60)), 3)
    0.158
    """
    check_broadcast(ratio=ratio, n=n)
    return np.asarray(np.sqrt((1.0 + 0.5 * np.square(ratio)) / n))
