"""Forecast of the next day's variance from realised variances of the last day, week, and month."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from backtest.base import (
    DataError,
    FloatArray,
    IntArray,
    Whole,
    checked,
    format_duration,
)
from backtest.base.units import DAY, YEAR_DAYS
from backtest.features.returns import SESSIONS, log_returns
from backtest.market import Market

FIRST = 100
"""Days in the first fit."""
WITHOUT_PAUSE = (1, 7, 30)
"""Days in a day, a week, and a month of a market that never closes."""
WITH_SESSIONS = (1, 5, 22)
"""Sessions in a day, a week, and a month."""

MOST_KEPT = 64
"""Forecasts of different days that are kept: ten years take 30 KB."""


class DailyVariance(NamedTuple):
    """Realised variances of whole days, of shape (n_days,), and when they are known.

    ``known``, of shape (n_bars,), is the number of days that are over at each bar's close.
    """

    variance: FloatArray
    known: IntArray


@checked
def har_volatility(market: Market, *, first: int = FIRST, refit: int = 1) -> FloatArray:
    """Return the volatility that the heterogeneous autoregression forecasts for the next day.

    Parameters
    ----------
    market : Market
        Its closes; bars shorter than a day.
    first : int
        Days in the first fit, at least 10.
    refit : int
        Days from one fit to the next, at least 1.

    Returns
    -------
    FloatArray of shape (n_bars,)
        Per sqrt(year), from the end of a day until the end of the next; NaN until the first fit.

    Raises
    ------
    DataError
        If the bars are not shorter than a day.
    ParameterError
        If ``first`` or ``refit`` is out of range.

    Notes
    -----
    sigma^2 = D (b_0 + b_d RV_d + b_w RV_w + b_m RV_m): RV_d the sum of the squared log returns of a
    UTC day, RV_w and RV_m its means over the last 7 and 30 days (5 and 22 in a market with
    sessions), D the days in a year (365, or 252); b by least squares on all days up to the last fit
    that were followed by another. The move from the previous close counts toward the day. The first
    day does not count, since it may have begun before the market. Least squares may give negative
    forecasts, so a forecast is clipped to the range of past realised variances. Bollerslev, Patton
    and Quaedvlieg (2016), Exploiting the Errors, J. Econometrics 192(1), use their mean instead,
    which would be too low when it matters most. Source: Corsi (2009), A Simple Approximate
    Long-Memory Model of Realized Volatility, J. Financial Econometrics 7(2).
    """
    first, refit = Whole(10).check("first", first), Whole(1).check("refit", refit)
    if market.interval >= DAY:
        raise DataError(
            "har_volatility needs bars shorter than a day, got bars of "
            f"{format_duration(market.interval)}"
        )
    days = find_daily_variance(market)
    lengths = WITH_SESSIONS if market.sessions else WITHOUT_PAUSE
    forecasts = _forecast_once(days.variance.tobytes(), lengths, first, refit)
    found = np.append(np.nan, forecasts)[days.known]
    return np.sqrt(found * (SESSIONS if market.sessions else YEAR_DAYS))


def find_daily_variance(market: Market) -> DailyVariance:
    day = market.time // DAY
    number = np.cumsum(np.diff(day, prepend=day[0]) != 0)
    is_over = (market.time + market.interval) // DAY > day
    squares = log_returns(market) ** 2
    squares[0] = 0.0
    sums = np.bincount(number, weights=squares).astype(np.float64, copy=False)
    n_days = int(number[-1] + is_over[-1])
    return DailyVariance(sums[1:n_days], np.maximum(number - 1 + is_over, 0))


@functools.lru_cache(maxsize=MOST_KEPT)
def _forecast_once(days: bytes, lengths: tuple[int, ...], first: int, refit: int) -> FloatArray:
    return forecast_har(np.frombuffer(days), lengths, first, refit)


def forecast_har(
    variance: FloatArray, lengths: tuple[int, ...], first: int, refit: int
) -> FloatArray:
    """Return the forecast at the end of each day for the next, of shape (n_days,)."""
    forecasts = np.full(len(variance), np.nan)
    month = max(lengths)
    inputs = find_components(variance, lengths)
    n_fits = len(inputs) - first  # the last day's inputs have nothing to explain yet
    if n_fits <= 0:
        return forecasts
    fits = fit_expanding(inputs[:-1], variance[month:], first)
    fits = fits[np.arange(n_fits) // refit * refit]
    found = np.zeros(n_fits)
    for each in range(inputs.shape[1]):
        found += fits[:, each] * inputs[first:, each]
    low, high = np.minimum.accumulate(variance), np.maximum.accumulate(variance)
    start = month - 1 + first
    forecasts[start:] = np.minimum(np.maximum(found, low[start:]), high[start:])
    return forecasts


def find_components(variance: FloatArray, lengths: tuple[int, ...]) -> FloatArray:
    """Return 1 and the means over the last days, from the first whole month on.

    Shape (n_days - month + 1, 1 + n_lengths). Each window is summed anew: a running sum would carry
    the rounding errors of all days before.
    """
    n = len(variance) - max(lengths) + 1
    if n <= 0:
        return np.ones((0, 1 + len(lengths)))
    columns = [np.ones(n)]
    for length in lengths:
        total = np.zeros(n)
        for back in range(length):
            total += variance[max(lengths) - 1 - back :][:n]
        columns.append(total / length)
    return np.column_stack(columns)


def fit_expanding(inputs: FloatArray, outputs: FloatArray, first: int) -> FloatArray:
    """Return the least squares coefficients of the ``first`` rows, of one row more, ... of all.

    Of shape (n - first + 1, k) for ``inputs`` (n, k) and ``outputs`` (n,).
    """
    scale = np.append(1.0, np.full(inputs.shape[1] - 1, inputs[0, 1] or 1.0))
    scaled = inputs / scale
    squares = np.cumsum(scaled[:, :, np.newaxis] * scaled[:, np.newaxis, :], axis=0)[first - 1 :]
    products = np.cumsum(scaled * outputs[:, np.newaxis], axis=0)[first - 1 :]
    inverses = np.linalg.pinv(squares, rcond=1e-12, hermitian=True)
    fits = np.zeros_like(products)
    for each in range(scaled.shape[1]):
        fits += inverses[:, :, each] * products[:, each, np.newaxis]
    return np.asarray(fits / scale)
