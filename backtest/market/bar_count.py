"""The number of bars in a year, by which variances are annualized."""

from __future__ import annotations

import numpy as np

from backtest.base import FloatArray, IntArray, checked
from backtest.base.units import DAY, YEAR_DAYS
from backtest.market.market import Market

SESSIONS = 252.0
"""Sessions per year, in a market with sessions."""


@checked
def bars_per_year(market: Market) -> float | FloatArray:
    """Return the number of bars in a year, by which variances are annualized.

    365 days over the length of a bar. In a market with sessions, 252 a year: with bars shorter
    than a day, 252 times the mean number of bars in the UTC days that have passed, of shape
    (n_bars,) and NaN during the first. Bars longer than a day count by calendar time
    (:func:`count_by_calendar`), of shape (n_bars,): 52.14 weeks, about 12 months.

    Examples
    --------
    >>> bars_per_year(Market.sample(bars=24))
    8760.0
    """
    if not market.sessions:
        return YEAR_DAYS * DAY / market.interval
    if market.interval > DAY:
        return count_by_calendar(market.time, market.interval)
    if market.interval == DAY:
        return SESSIONS
    starts = np.diff(market.time // DAY, prepend=market.time[0] // DAY) != 0
    passed = np.cumsum(starts)
    first = np.maximum.accumulate(np.where(starts, np.arange(market.n_bars), 0))
    counts = np.full(market.n_bars, np.nan)
    np.divide(SESSIONS * first, passed, out=counts, where=passed > 0)
    return counts


def count_by_calendar(time: IntArray, interval: int) -> FloatArray:
    """Return the number of bars in a year of 365 days, by their mean distance up to each bar.

    For bars longer than a day in a market with sessions. ``time`` holds their opens, UTC ns.
    ``interval`` is their smallest distance, used for the first bar: 28 days for months, 6 days for
    weeks that begin on a Tuesday after a holiday.
    """
    days = time // DAY - time[0] // DAY
    counts = np.full(len(time), YEAR_DAYS * DAY / interval)
    np.divide(YEAR_DAYS * np.arange(len(time)), days, out=counts, where=days > 0)
    return counts
