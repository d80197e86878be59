"""Mean return of a position over the last bars, with its standard error."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backtest.base import FloatArray, checked
from backtest.features.close_volatility import read_windows
from backtest.features.lane_parameters import shape_as
from backtest.features.returns import OneOrMany, bars_per_year, traded_returns
from backtest.features.rolling_lanes import rolling_deviation
from backtest.market import Market


class Drift(NamedTuple):
    """Mean return by bar and its standard error, both per year.

    Arrays of shape (n_bars,), or (n_bars, k) for k windows; NaN until the window is full.
    """

    mean: FloatArray
    error: FloatArray


@checked
def rolling_drift(market: Market, window: OneOrMany) -> Drift:
    """Return the mean return of the traded position, at 1x and net of funding, with its error.

    Parameters
    ----------
    market : Market
        Its closes, funding and signal.
    window : int, or array of shape (k,)
        Returns, at least 2.

    Returns
    -------
    Drift
        Annualized. NaN until ``window`` returns are known.

    Notes
    -----
    With T = window, A the bars per year, and mean and std (ddof 1) of the last T simple returns of
    :func:`traded_returns`: mean ``A mean``, error ``A std / sqrt(T)``, for independent returns.
    Only a longer window in years reduces the error, not more bars within it. Source: Merton (1980),
    On Estimating the Expected Return on the Market, J. Financial Economics 8(4).
    """
    windows = read_windows(window)
    returns = traded_returns(market)
    means = np.column_stack([rolling_mean(returns, int(bars)) for bars in windows])
    # an unknown return would spoil the running sums; the means show where it was
    deviations = rolling_deviation(np.nan_to_num(returns), windows, 1.0)
    years = np.reshape(bars_per_year(market), (-1, 1))
    errors = np.where(np.isnan(means), np.nan, years * deviations / np.sqrt(windows))
    return Drift(shape_as(years * means, window), shape_as(errors, window))


def rolling_mean(values: FloatArray, window: int) -> FloatArray:
    known = ~np.isnan(values)
    totals = np.cumsum(np.where(known, values, 0.0))
    counts = np.cumsum(known)
    means = np.full_like(values, np.nan)
    if len(values) <= window:
        return means
    is_full = counts[window:] - counts[:-window] == window
    np.divide(totals[window:] - totals[:-window], window, out=means[window:], where=is_full)
    return means
