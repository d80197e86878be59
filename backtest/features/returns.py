"""Returns by bar, and how many bars make a year: what the estimators are made of."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from backtest.market import Market
from backtest.units import DAY, YEAR_DAYS, FloatArray

OneOrMany: TypeAlias = float | FloatArray
"""A parameter of an estimator: one value, or an array of shape (k,) of them."""

SESSIONS = 252.0
"""Sessions a year, in a market that closes."""


def log_returns(market: Market) -> FloatArray:
    """Return ln(C_t / C_{t-1}) of the last prices at closes, of shape (n_bars,).

    The first is NaN.
    """
    logs = np.log(market.close)
    returns = np.empty_like(logs)
    returns[:1] = np.nan
    np.subtract(logs[1:], logs[:-1], out=returns[1:])
    return returns


def long_returns(market: Market) -> FloatArray:
    """Return what a long position of 1x earned over each bar, net of funding.

    Returns
    -------
    FloatArray of shape (n_bars,)
        ``C_t / C_{t-1} - 1 - f_t``, simple, with f_t the sum of the rates settled after the close
        of bar t-1 and before that of bar t. The first is NaN.

    Notes
    -----
    A perpetual future or a hedged dollar position needs no cash: this is an excess return. Funding
    is taken as a fraction of the notional at the last close.
    """
    returns = np.full(market.n_bars, np.nan)
    returns[1:] = market.close[1:] / market.close[:-1] - 1.0 - settled_funding(market)[1:]
    return returns


def traded_returns(market: Market) -> FloatArray:
    """Return what the position that is traded earned over each bar at 1x, net of funding.

    The signal decided at the close before, in [-1, 1], times :func:`long_returns`: a short position
    earns what a long one loses. Of shape (n_bars,); the first is NaN.
    """
    returns = long_returns(market)
    returns[1:] *= market.signal[:-1]
    return returns


def settled_funding(market: Market) -> FloatArray:
    """Return the sum of the funding rates known at each close and not at the one before.

    Of shape (n_bars,), as a fraction of the notional; positive: longs pay. A settlement belongs to
    the first bar that closes after its stamp.
    """
    bar = np.searchsorted(market.time + market.interval, market.funding_time, side="right")
    sums = np.bincount(bar, weights=market.funding_rate, minlength=market.n_bars)
    return sums.astype(np.float64, copy=False)


def bars_per_year(market: Market) -> float | FloatArray:
    """Return the number of bars in a year, by which variances are annualised.

    365 days over the length of a bar. In a market with sessions, 252 a year: with bars shorter
    than a day, 252 times the mean number of bars in the UTC days that have passed, of shape
    (n_bars,) and NaN during the first.

    Examples
    --------
    >>> bars_per_year(Market.sample(bars=24))
    8760.0
    """
    per_year = YEAR_DAYS * DAY / market.interval
    if not market.sessions:
        return per_year
    if market.interval >= DAY:
        return min(SESSIONS, per_year)
    starts = np.diff(market.time // DAY, prepend=market.time[0] // DAY) != 0
    passed = np.cumsum(starts)
    first = np.maximum.accumulate(np.where(starts, np.arange(market.n_bars), 0))
    counts = np.full(market.n_bars, np.nan)
    np.divide(SESSIONS * first, passed, out=counts, where=passed > 0)
    return counts
