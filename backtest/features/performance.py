"""How well a position has done lately, and how little that says."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from backtest.features.returns import OneOrMany, bars_per_year, each, long_returns
from backtest.features.volatility import check_window
from backtest.market import Market
from backtest.units import FloatArray

LEAST_DEVIATION = 1e-12
"""A standard deviation of one bar's returns under this is taken for none: the ratio is NaN."""


class Sharpe(NamedTuple):
    """A Sharpe ratio by bar and its standard error, both per sqrt(year).

    Arrays of shape (n_bars,), or (n_bars, k) for k windows; NaN until the window is full.
    """

    ratio: FloatArray
    error: FloatArray


def rolling_sharpe(market: Market, window: OneOrMany) -> Sharpe:
    """Return the Sharpe ratio of a long position of 1x over the last bars, with its error.

    Parameters
    ----------
    market : Market
        Its closes and funding: returns are net of the funding a long position paid.
    window : int, or array of shape (k,)
        Returns, at least 2.

    Returns
    -------
    Sharpe
        Annualised. NaN until ``window`` returns are known, and while the price stands still.

    Notes
    -----
    With T = window, A the bars per year and S = mean / std (ddof 1) of the last T returns: ratio
    ``sqrt(A) S``, error ``sqrt(A (1 + S^2 / 2) / T)``, for returns that are independent and
    identically distributed. Source: Lo (2002), The Statistics of Sharpe Ratios, Financial Analysts
    Journal 58(4), eq. 9.
    """
    ratio = each(lambda bars: sharpe_per_bar(market, bars), window)
    years = np.asarray(bars_per_year(market))
    if ratio.ndim == 2 and years.ndim == 1:
        years = years[:, None]
    error = sharpe_error(ratio, np.asarray(window))
    return Sharpe(np.sqrt(years) * ratio, np.sqrt(years) * error)


def sharpe_per_bar(market: Market, window: float) -> FloatArray:
    """Return mean over standard deviation of the last ``window`` returns, not annualised."""
    n = check_window(window, where="rolling_sharpe")
    rolling = pd.Series(long_returns(market), copy=False).rolling(n)
    deviation = rolling.std().to_numpy()
    known = np.where(deviation >= LEAST_DEVIATION, deviation, np.nan)
    return np.asarray(rolling.mean().to_numpy() / known)


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
    return np.asarray(np.sqrt((1.0 + 0.5 * np.square(ratio)) / n))
