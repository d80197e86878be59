"""Dynamic margin: rules for the multiplier of a venue's margin requirement.

Venues with risk-based margin raise it if prices move more, if open interest nears a cap, or at
stated times. Each function returns a Series by UTC time for ``Venue(margin_multiplier=...)``,
``initial_multiplier`` or ``maintenance_multiplier``, with one value per bar from its open on. A
rule uses values known at the close of a bar from the next open on, so no bar decides its own
margin. ``maintenance_multiplier`` scales maintenance rates, ``initial_multiplier`` divides the
allowed leverages, ``margin_multiplier`` does both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from backtest import base
from backtest.base import DataError, FloatArray, ParameterError, TimeLike, check_range, checked
from backtest.base.units import HOUR
from backtest.market import Market, bars_per_year

if TYPE_CHECKING:
    Multiplier: TypeAlias = pd.Series[float]
else:
    Multiplier = pd.Series

MOST = 100.0
"""Largest multiplier: with it a venue with 100x requires the whole notional."""


@checked
def by_volatility(
    market: Market, *, calm: float, half_life: float = 72.0, least: float = 1.0, most: float = 5.0
) -> Multiplier:
    """Return the multiplier that rises with realised volatility.

    Raises ParameterError if a number is out of its range.

    Parameters
    ----------
    market : Market
        The bars.
    calm : float
        The volatility, per sqrt(year), at which the multiplier is 1.
    half_life : float
        Half-life of the exponentially weighted volatility, in bars.
    least, most : float
        Bounds of the multiplier. It is ``least`` until the volatility is known.

    Notes
    -----
    x_t = clamp(sigma_{t-1} / calm, least, most), sigma the volatility up to the close of the bar
    before. So the margin is a multiple of sigma, as with risk-based margin, within the bounds.
    """
    check_range("calm", calm, low=0.0, open_low=True)
    low = _check_multiplier("least", least)
    check_range("most", most, low=low, high=MOST)
    check_range("half_life", half_life, low=0.0, open_low=True)
    moves = pd.Series(np.diff(np.log(market.close), prepend=np.nan))
    mean = (moves**2).ewm(halflife=half_life, min_periods=2).mean().to_numpy()
    ratio = np.sqrt(mean * bars_per_year(market)) / calm
    known = np.clip(np.where(np.isnan(ratio), least, ratio), least, most)
    return pd.Series(np.concatenate([[least], known[:-1]]), index=market.times)


@checked
def read_open_interest(market: Market, column: str) -> FloatArray:
    """Return a column of open notionals, of shape (n_bars,); none may be negative or NaN."""
    interest = read_column(market, column)
    bad = np.flatnonzero(~(interest >= 0.0))
    if bad.size:
        raise DataError(
            f"{column} must be at least 0, got {float(interest[bad[0]])!r} at "
            f"{base.format_time(int(market.time[bad[0]]))} UTC, {bad.size} of {market.n_bars} bars"
        )
    return interest


@checked
def effective_initial(
    initial: float, open_interest: float | FloatArray, lower: float, upper: float
) -> Any:
    """Return the initial margin fraction at an open interest.

    Raises ParameterError if the fraction or the caps are out of range.

    Parameters
    ----------
    initial : float
        The fraction under the lower cap, over 0 and at most 1.
    open_interest, lower, upper : float or array, float, float
        Open notional and its caps, in one currency.

    Returns
    -------
    float or array

    Notes
    -----
    min(b + max((OI - lower) / (upper - lower) (1 - b), 0), 1). Source: dYdX Chain documentation,
    Margin.

    Examples
    --------
    >>> round(effective_initial(0.05, 35e6, 20e6, 50e6), 12)
    0.525
    """
    check_range("initial", initial, low=0.0, open_low=True, high=1.0)
    check_range("lower", lower, low=0.0)
    check_range("upper", upper, low=lower, open_low=True)
    scale = (np.asarray(open_interest, dtype=np.float64) - lower) / (upper - lower)
    found = np.minimum(initial + np.maximum(scale * (1.0 - initial), 0.0), 1.0)
    return float(found) if np.ndim(found) == 0 else found


@checked
def by_calendar(
    market: Market,
    *,
    weekdays: Mapping[int, float] | None = None,
    hours: Mapping[int, float] | None = None,
    spans: Sequence[tuple[TimeLike, TimeLike, float]] = (),
) -> Multiplier:
    """Return the multiplier of stated times: the largest that applies to a bar, else 1.

    Raises ParameterError if a day, an hour or a multiplier is out of range, a span ends before it
    starts, or no time is given.

    Parameters
    ----------
    market : Market
        The bars; the open of a bar decides for the bar.
    weekdays : Mapping, optional
        Multiplier by day of the week in UTC, Monday 0: ``{5: 1.5, 6: 1.5}`` for weekends.
    hours : Mapping, optional
        Multiplier by hour of the day in UTC, 0 to 23.
    spans : sequence of (start, end, multiplier)
        Spans of time in UTC, the end excluded: ``[("2024-04-19", "2024-04-21", 2.0)]``.
    """
    if not (weekdays or hours or len(spans)):
        raise ParameterError(
            "a calendar must have weekdays, hours or spans, got none; weekdays={5: 1.5, 6: 1.5}, "
            "for example"
        )
    found = np.zeros(market.n_bars)
    hour = market.time // HOUR
    for name, given, now, most in (("weekdays", weekdays, (hour // 24 + 3) % 7, 6),
                                   ("hours", hours, hour % 24, 23)):  # fmt: skip
        for key, value in (given or {}).items():
            check_range(name, key, low=0, high=most)
            raised = np.maximum(found, _check_multiplier(name, value))
            found = np.where(now == key, raised, found)
    for start, end, value in spans:
        begin, until = (base.to_nanoseconds(time, "spans") for time in (start, end))
        if not begin < until:
            raise ParameterError(
                f"spans must be (start, end, multiplier), the end after the start, got {start} to "
                f"{end}"
            )
        inside = (market.time >= begin) & (market.time < until)
        found = np.where(inside, np.maximum(found, _check_multiplier("spans", value)), found)
    return pd.Series(np.where(found > 0.0, found, 1.0), index=market.times)


@checked
def largest(*multipliers: Multiplier) -> Multiplier:
    """Return the largest of several multipliers at every time.

    Raises ParameterError if there are none, or they do not begin at the same time.
    """
    starts = {series.index[0] for series in multipliers if len(series)}
    if len(starts) != 1:
        raise ParameterError(
            "multipliers must be of one market, begin at "
            + (", ".join(str(start) for start in sorted(starts)) or "none: there are none")
        )
    found: Multiplier = pd.concat(multipliers, axis=1).ffill().max(axis=1)
    return found


def _check_multiplier(name: str, value: float) -> float:
    return check_range(f"the multiplier of {name}", value, low=0.0, open_low=True, high=MOST)


def read_column(market: Market, column: str) -> FloatArray:
    """Return a column of the market, which must have one of that name."""
    if column not in market.columns:
        raise DataError(
            f"market must have a column {column!r}, has {', '.join(market.columns) or 'none'}"
            + base.did_you_mean(column, market.columns)
        )
    return market.columns[column]
