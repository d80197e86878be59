"""Realised volatility of bars, from finer bars of the same instrument."""

from __future__ import annotations

import numpy as np

from backtest.base import (
    BoolArray,
    DataError,
    FloatArray,
    IntArray,
    checked,
    format_duration,
    format_percent,
    format_time,
)
from backtest.features.returns import bars_per_year, log_returns
from backtest.market import Market

OFF = 0.5
"""Mean distance of closes, relative to the move of a bar, above which the prices differ."""
ENOUGH = 10
"""Fewest closes to compare."""


@checked
def realised_volatility(market: Market, finer: Market) -> FloatArray:
    """Return the realised volatility of each bar, from finer bars.

    Parameters
    ----------
    market : Market
        The bars.
    finer : Market
        The same prices in shorter bars, such as 5 minutes for hours or days. It may begin earlier
        and end later.

    Returns
    -------
    FloatArray of shape (n_bars,)
        Per sqrt(year), known at the bar's close. NaN if finer bars do not cover the bar, or the bar
        before it, whose close is the first price.

    Raises
    ------
    DataError
        If the finer bars are not finer, cross from one bar into the next, have other prices, or do
        not overlap the market.

    Notes
    -----
    sigma_t^2 = A sum_i r_i^2 over the finer bars that close after the close of bar t-1 and up to
    that of bar t, r_i = ln(c_i / c_{i-1}) of their closes, A the bars per year. So a night, a
    weekend, or any other gap before a bar counts toward it, and the moves add up to that of the
    closes. In a market that never closes, a bar is covered if all of its finer bars exist. In a
    market with sessions, half as many as in the fullest earlier bar suffice. Very short bars
    mistake the bounce between bid and ask for volatility; 5 minutes are the usual choice. Source:
    Andersen, Bollerslev, Diebold and Labys (2003), Modeling and Forecasting Realized Volatility,
    Econometrica 71(2).

    Attach it to the market for a policy, ``market.with_columns(realised_volatility=...)``: then
    ``volatility(market, "realised", half_life)`` averages it.
    """
    _check_lengths(market, finer)
    ends = market.time + market.interval
    bar = np.searchsorted(ends, finer.time + finer.interval)  # the first that closes no earlier
    inside = (finer.time + finer.interval > market.start) & (bar < market.n_bars)
    _check_places(market, finer, bar, inside)
    bar, squares = bar[inside], log_returns(finer)[inside] ** 2
    is_covered = find_covered(market, finer.interval, bar)
    _check_prices(market, finer.close[inside], bar, is_covered)
    sums = np.bincount(bar, weights=squares, minlength=market.n_bars)
    is_known = is_covered & np.append(True, is_covered[:-1])  # the first finer bar's return is NaN
    return np.where(is_known, np.sqrt(sums * bars_per_year(market)), np.nan)


def find_covered(market: Market, length: int, bar: IntArray) -> BoolArray:
    """Return which bars finer bars cover, of shape (n_bars,).

    ``bar`` is the row of the bar to which each finer bar, of ``length`` ns, belongs.
    """
    counts = np.bincount(bar, minlength=market.n_bars)
    if market.sessions:
        fullest = np.maximum.accumulate(counts)
        return np.asarray((counts > 0) & (2 * counts >= fullest))
    return np.asarray(counts == market.interval // length)


def _check_lengths(market: Market, finer: Market) -> None:
    if finer.interval >= market.interval or market.interval % finer.interval:
        raise DataError(
            "finer bars must be a whole part of the market's bars of "
            f"{format_duration(market.interval)}, got {format_duration(finer.interval)}; "
            "finer.resample('5m'), for example"
        )


def _check_places(market: Market, finer: Market, bar: IntArray, inside: BoolArray) -> None:
    if not inside.any():
        raise DataError(
            f"finer bars must lie in the market, {format_time(market.start)} to "
            f"{format_time(market.end)} UTC, are from {format_time(finer.start)} to "
            f"{format_time(finer.end)}"
        )
    before = np.append(market.start, market.time + market.interval)[bar]
    wrong = np.flatnonzero(inside & (finer.time < before))
    if wrong.size:
        raise DataError(
            f"finer bars must not reach from one bar into the next, {wrong.size} of "
            f"{finer.n_bars} do, first at {format_time(int(finer.time[wrong[0]]))} UTC"
        )


def _check_prices(market: Market, close: FloatArray, bar: IntArray, is_covered: BoolArray) -> None:
    last = np.flatnonzero(np.append(bar[1:] != bar[:-1], True) & is_covered[bar])
    off = np.abs(np.log(close[last] / market.close[bar[last]]))
    moves = np.abs(log_returns(market)[1:])
    if off.size >= ENOUGH and off.mean() > OFF * moves.mean():
        raise DataError(
            "finer bars must close at the market's closes, are off by "
            f"{format_percent(off.mean())} on average where a bar moves by "
            f"{format_percent(moves.mean())}; check the instrument and the time zone of both"
        )
