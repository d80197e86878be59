"""Forecasts of the next bars: volatility by a fixed rule, reach, and the chance of liquidation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from backtest.core import FloatArray, IntArray, checked, parse_duration
from backtest.core.units import DAY, MINUTE, YEAR_DAYS
from backtest.indicators import averages, lanes
from backtest.indicators.estimators import volatility
from backtest.indicators.lanes import OneOrMany
from backtest.margin import find_touch_factor, touch_probability
from backtest.market import SESSIONS, Market, bars_per_year, count_bars_per_year


@checked
def forecast_reach(
    market: Market,
    probability: OneOrMany,
    horizon: OneOrMany,
    estimator: str | Sequence[str] = "ewma",
    half_life: OneOrMany = 72.0,
    degrees_of_freedom: OneOrMany = math.inf,
) -> FloatArray:
    """Return the distance that the price reaches with a given probability in the next bars.

    The logarithm of a price ratio, in either direction, (n_bars,) or (n_bars, k); NaN until the
    volatility is known, after ceil(half_life) bars, at least 2, or the first fit of a model.
    ``probability``: in [0, 1]. ``horizon``: bars, over 0. ``estimator`` and ``half_life``: as in
    :func:`backtest.indicators.volatility`. ``degrees_of_freedom``: of Student's t, over 2;
    infinite for the normal distribution.

    Notes
    -----
    :func:`touch_distance` of the volatility forecast at each close, without drift.
    """
    lanes.check_lanes("probability", probability, low=0.0, high=1.0)
    lanes.check_lanes(
        "horizon",
        horizon,
        low=0.0,
        high=lanes.MAX_BARS,
        open_low=True,
    )
    chances, bars, degrees = lanes.broadcast(probability, horizon, degrees_of_freedom)
    touch_factor = find_touch_factor(chances, degrees)
    factor = touch_factor * np.sqrt(bars)

    # From per year to per bar, whose number a year may differ by bar.
    forecast = volatility(market, estimator, half_life)
    sigma = forecast.reshape(market.n_bars, -1)
    per_year = np.reshape(bars_per_year(market), (-1, 1))
    per_bar = sigma / np.sqrt(per_year)
    with np.errstate(invalid="ignore"):
        columns = np.ascontiguousarray(per_bar * factor)
    return lanes.shape_as(
        columns,
        probability,
        horizon,
        degrees_of_freedom,
        estimator,
        half_life,
    )


HALF_LIFE = "3d"
DEGREES = 4.0
"""Degrees of freedom of Student's t for a day. On hourly Bitcoin prices of 2020 and 2021, with
half-lives of 1, 2, 3, 5, 10 and 20 days, forecasts had a better log score with 4 than with 3, 5, 6,
8 or infinitely many; with 4, half-lives of 3 and 5 days score alike, 2 and 10 days less by no more
than 1.3 standard errors."""


CALM_POWER = 0.65
"""The power of today's volatility where it is under the year's, which has the rest. On calm days of
2021 to 2023 (BTC, ETH, LTC) .050 was forecast, .035 with today's alone, and .055 came."""
YEAR_WINDOW = 365
"""Days of the year's volatility, that of the close included."""
WEIGHTED = 0
WEIGHT = 1
LAST_CLOSE = 2
BARS_PER_YEAR = 3
OF_YEAR = slice(4, None)
"""Places in a trail: what the volatility of the half-life remembers, and then the year's."""
NOTHING_SEEN = np.concatenate([[0.0, 0.0, np.nan, np.nan, np.nan, 0.0], np.zeros(2 * YEAR_WINDOW)])
"""Before the first bar: sums of weighted squares and weights, last close, bars per year, the first
open and the last day (days since 1970), then sums of squares and counts of the year's days."""


def forecast_volatility(
    trail: FloatArray,
    time: IntArray,
    close: FloatArray,
    interval: int,
    *,
    is_session: bool,
) -> tuple[FloatArray, FloatArray]:
    """Return the volatility known at each close, (n_bars,), and the trail after the last.

    s of :func:`backtest.indicators.ewma_volatility` with a half-life of :data:`HALF_LIFE`: per
    sqrt(year), NaN until a half-life of returns is known. Where the volatility y of the last 365
    days is higher, s^.65 y^.35: calm does not last. Without a year of data, s. ``trail`` is what
    the bars before left, as :data:`NOTHING_SEEN`; its bars per year stand in until the first
    session of these is over.
    """
    if not len(close):
        return np.empty(0), trail

    half_life = max(parse_duration(HALF_LIFE) / interval, 1.0)
    decay = 0.5 ** (1.0 / half_life)
    closes = np.append(trail[LAST_CLOSE], close)
    returns = np.diff(np.log(closes))
    squares = np.nan_to_num(returns) ** 2
    is_known = (~np.isnan(returns)).astype(np.float64)

    # The sums go on from those of the trail, which stand before the first bar.
    all_squares = np.append(trail[WEIGHTED], squares)
    all_known = np.append(trail[WEIGHT], is_known)
    weighted = averages.sum_weighted(all_squares, decay)[1:]
    weight = averages.sum_weighted(all_known, decay)[1:]

    # Before the first session is over, the bars per year are those of the trail.
    bars_a_year = count_bars_per_year(time, interval, is_session)
    counted = np.broadcast_to(bars_a_year, len(close))
    per_year = np.where(np.isnan(counted), trail[BARS_PER_YEAR], counted)

    # The weights of as many returns as are needed exceed this, those of one less do not.
    needed = int(lanes.count_needed(half_life)[0])
    least = (1.0 - decay ** (needed - 0.5)) / (1.0 - decay)
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(weighted * (1.0 / weight) * per_year)
    sigma = np.where(weight > least, root, np.nan)

    # Calm does not last: below the year's, the forecast is between the two.
    mean, year_trail = average_year(trail[OF_YEAR], time, interval, squares, is_known)
    with np.errstate(invalid="ignore"):
        of_year = np.sqrt(mean * per_year)
        raised = sigma**CALM_POWER * of_year ** (1.0 - CALM_POWER)
        sigma = np.where(of_year > sigma, raised, sigma)
    new_trail = [
        weighted[-1],
        weight[-1],
        close[-1],
        per_year[-1],
    ]
    return sigma, np.concatenate([new_trail, year_trail])


def average_year(
    trail: FloatArray,
    time: IntArray,
    interval: int,
    squares: FloatArray,
    is_known: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Return the mean square of the last 365 days at each close, (n_bars,), and the trail after.

    Days are those of UTC, the day of the close as far as it went; NaN under a year of data.
    ``trail`` is that part of :data:`NOTHING_SEEN`. A history in two parts gives the same bits.
    """
    days = time // DAY
    first = trail[0]
    if math.isnan(first):
        first = time[0] / DAY
    n_days = int(days[-1] - days[0]) + YEAR_WINDOW
    sums = np.zeros(n_days)
    counts = np.zeros(n_days)
    first_day = int(days[0]) - YEAR_WINDOW + 1

    # The days that the trail remembers, as far as they are in the window of the first bar.
    first_of_trail = int(trail[1]) - YEAR_WINDOW + 1
    places = first_of_trail + np.arange(YEAR_WINDOW) - first_day
    is_recent = places >= 0
    recent_places = places[is_recent]
    sums[recent_places] = trail[2:][:YEAR_WINDOW][is_recent]
    counts[recent_places] = trail[2 + YEAR_WINDOW :][is_recent]

    # Within a day sums grow bar by bar, from what the trail has of the day.
    is_first = np.diff(days, prepend=days[0] - 1)
    starts = np.flatnonzero(is_first)
    bars_of_days = find_bars(starts, len(time))
    places = days[starts] - first_day
    day_sums = sum_within_days(squares, bars_of_days, sums, places)
    day_counts = sum_within_days(is_known, bars_of_days, counts, places)

    # Sums of the days before, each in the order of its days.
    begins = (places - YEAR_WINDOW + 1)[bars_of_days.row]
    sums_before = sliding_window_view(sums, YEAR_WINDOW - 1).sum(axis=1)
    counts_before = sliding_window_view(counts, YEAR_WINDOW - 1).sum(axis=1)
    total = day_sums + sums_before[begins]
    count = day_counts + counts_before[begins]
    mean = total / np.maximum(count, 1.0)

    days_of_data = (time + interval) / DAY - first
    is_year = days_of_data >= YEAR_WINDOW - MINUTE / DAY
    mean_of_year = np.where(is_year, mean, np.nan)

    ends = np.array([first, float(days[-1])])
    year_trail = (ends, sums[-YEAR_WINDOW:], counts[-YEAR_WINDOW:])
    return mean_of_year, np.concatenate(year_trail)


class BarsOfDays(NamedTuple):
    """Where each bar lies in a table with a row a day: its row, and its place in the row."""

    row: IntArray
    place: IntArray


def find_bars(starts: IntArray, n: int) -> BarsOfDays:
    """Return where n bars lie, given the first bar of each day."""
    bars_by_day = np.diff(starts, append=n)
    row = np.repeat(np.arange(len(starts)), bars_by_day)
    return BarsOfDays(row, place=np.arange(n) - starts[row])


def sum_within_days(
    values: FloatArray,
    bars: BarsOfDays,
    sums: FloatArray,
    places: IntArray,
) -> FloatArray:
    """Return the sums of each day up to each bar, and write those of whole days into ``sums``.

    A day begins with the value of ``sums`` at its place.
    """
    most_bars = int(bars.place.max()) + 1
    table = np.zeros((len(places), most_bars + 1))
    table[:, 0] = sums[places]
    table[bars.row, bars.place + 1] = values
    grown = np.cumsum(table, axis=1)
    sums[places] = grown[:, -1]
    of_bars: FloatArray = grown[bars.row, bars.place + 1]
    return of_bars


def find_day(interval: int, *, is_session: bool) -> float:
    """Return the years of a day, or of a session where the bars are no longer than one."""
    if is_session and interval <= DAY:
        return 1.0 / SESSIONS
    return 1.0 / YEAR_DAYS


def forecast_liquidation(
    position: FloatArray,
    mark: FloatArray,
    liquidation_price: FloatArray,
    sigma: FloatArray,
    years: float,
) -> FloatArray:
    """Return the probability that the mark touches the liquidation price within a horizon.

    All arrays have shape (n_bars,) and hold values at closes; ``sigma`` is per sqrt(year). The
    result is 0 without a position or if no price liquidates, 1 if the requirement fails at the
    close, and NaN if a position is held and the volatility is unknown.
    """
    chance = np.zeros(len(position))
    may_liquidate = (position != 0.0) & ~np.isnan(liquidation_price)
    rows = np.flatnonzero(may_liquidate)
    side = np.sign(position[rows])
    move = np.log(mark[rows] / liquidation_price[rows])
    away = np.maximum(side * move, 0.0)
    chance[rows] = touch_probability(
        -side * away,
        sigma[rows],
        years,
        degrees_of_freedom=DEGREES,
    )
    return chance
