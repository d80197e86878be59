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


class YearTrail(NamedTuple):
    """What the volatility of a year remembers of the bars before.

    ``first_open`` and ``last_day`` are in days since 1970, the first NaN before the first bar.
    ``square_sums`` and ``counts``, of shape (YEAR_WINDOW,), have the sum of squared returns and the
    number of returns of each day, up to the last day as far as it went.
    """

    first_open: float
    last_day: int
    square_sums: FloatArray
    counts: FloatArray


class Trail(NamedTuple):
    """What the forecast of volatility remembers of the bars before.

    ``square_sum`` and ``weight_sum`` are the sums of weighted squared returns and of their weights.
    """

    square_sum: float
    weight_sum: float
    last_close: float
    bars_per_year: float
    year: YearTrail


def write_trail(trail: Trail) -> FloatArray:
    """Return a trail as one array, in the order of its fields: runs store it so."""
    year = trail.year
    numbers = [
        trail.square_sum,
        trail.weight_sum,
        trail.last_close,
        trail.bars_per_year,
        year.first_open,
        float(year.last_day),
    ]
    return np.concatenate([numbers, year.square_sums, year.counts])


def read_trail(array: FloatArray) -> Trail:
    """Return the trail that :func:`write_trail` wrote as an array."""
    numbers = array[: -2 * YEAR_WINDOW].tolist()
    square_sum, weight_sum, last_close, bars_per_year, first_open, last_day = numbers
    year = YearTrail(
        first_open=first_open,
        last_day=int(last_day),
        square_sums=array[-2 * YEAR_WINDOW : -YEAR_WINDOW],
        counts=array[-YEAR_WINDOW:],
    )
    return Trail(square_sum, weight_sum, last_close, bars_per_year, year)


NOTHING_SEEN = write_trail(
    Trail(
        square_sum=0.0,
        weight_sum=0.0,
        last_close=np.nan,
        bars_per_year=np.nan,
        year=YearTrail(
            first_open=np.nan,
            last_day=0,
            square_sums=np.zeros(YEAR_WINDOW),
            counts=np.zeros(YEAR_WINDOW),
        ),
    )
)
"""The trail before the first bar, as an array."""


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

    before = read_trail(trail)
    half_life = max(parse_duration(HALF_LIFE) / interval, 1.0)
    decay = 0.5 ** (1.0 / half_life)
    closes = np.append(before.last_close, close)
    returns = np.diff(np.log(closes))
    squares = np.nan_to_num(returns) ** 2
    is_known = (~np.isnan(returns)).astype(np.float64)

    # The sums go on from those of the trail, which stand before the first bar.
    all_squares = np.append(before.square_sum, squares)
    all_known = np.append(before.weight_sum, is_known)
    square_sums = averages.sum_weighted(all_squares, decay)[1:]
    weight_sums = averages.sum_weighted(all_known, decay)[1:]

    # Before the first session is over, the bars per year are those of the trail.
    bars_a_year = count_bars_per_year(time, interval, is_session)
    counted = np.broadcast_to(bars_a_year, len(close))
    per_year = np.where(np.isnan(counted), before.bars_per_year, counted)

    # The weights of as many returns as are needed, 1 + decay + decay^2 + ..., exceed this, those of
    # one less do not.
    needed = int(lanes.count_needed(half_life)[0])
    least_weight = (1.0 - decay ** (needed - 0.5)) / (1.0 - decay)
    with np.errstate(divide="ignore", invalid="ignore"):
        deviation = np.sqrt(square_sums * (1.0 / weight_sums) * per_year)
    sigma = np.where(weight_sums > least_weight, deviation, np.nan)

    # Calm does not last: below the year's, the forecast is between the two.
    mean_square, year = average_year(before.year, time, interval, squares, is_known)
    with np.errstate(invalid="ignore"):
        sigma_of_year = np.sqrt(mean_square * per_year)
        raised = sigma**CALM_POWER * sigma_of_year ** (1.0 - CALM_POWER)
        sigma = np.where(sigma_of_year > sigma, raised, sigma)

    after = Trail(
        square_sum=square_sums[-1],
        weight_sum=weight_sums[-1],
        last_close=close[-1],
        bars_per_year=per_year[-1],
        year=year,
    )
    return sigma, write_trail(after)


def average_year(
    before: YearTrail,
    time: IntArray,
    interval: int,
    squares: FloatArray,
    is_known: FloatArray,
) -> tuple[FloatArray, YearTrail]:
    """Return the mean square of the last 365 days at each close, (n_bars,), and the trail after.

    The days are those of UTC, and the last one counts as far as it went; NaN under a year of data.
    ``squares`` are those of returns, and ``is_known`` is 1 where there is one, else 0. Returns are
    summed by day first, so that a history in two parts gives the same bits.
    """
    # Sums by day, from the first day in the window of the first bar to the last day.
    days = time // DAY
    last_day = int(days[-1])
    first_day = int(days[0]) - YEAR_WINDOW + 1
    n_days = last_day - first_day + 1
    n_forgotten = max(first_day - (before.last_day - YEAR_WINDOW + 1), 0)
    square_sums = carry_days(before.square_sums, n_forgotten, n_days)
    counts = carry_days(before.counts, n_forgotten, n_days)

    # The day of a bar up to the bar. This also completes the sums by day.
    bars = tabulate_bars(days - first_day)
    squares_of_day = add_bars(square_sums, squares, bars)
    count_of_day = add_bars(counts, is_known, bars)

    # The 364 days before the day of a bar: window 0 is that of the first bar.
    squares_before = sliding_window_view(square_sums, YEAR_WINDOW - 1).sum(axis=1)
    counts_before = sliding_window_view(counts, YEAR_WINDOW - 1).sum(axis=1)
    window = days - days[0]
    total = squares_of_day + squares_before[window]
    count = count_of_day + counts_before[window]
    mean = total / np.maximum(count, 1.0)

    first_open = before.first_open
    if math.isnan(first_open):
        first_open = time[0] / DAY
    days_of_data = (time + interval) / DAY - first_open
    is_year = days_of_data >= YEAR_WINDOW - MINUTE / DAY  # days as fractions are not exact
    after = YearTrail(
        first_open=first_open,
        last_day=last_day,
        square_sums=square_sums[-YEAR_WINDOW:],
        counts=counts[-YEAR_WINDOW:],
    )
    return np.where(is_year, mean, np.nan), after


def carry_days(sums: FloatArray, n_forgotten: int, n_days: int) -> FloatArray:
    """Return sums of ``n_days`` days: those of a trail without its first, then 0 for new days."""
    remembered = sums[n_forgotten:]
    carried = np.zeros(n_days)
    carried[: len(remembered)] = remembered
    return carried


class BarsByDay(NamedTuple):
    """Places of bars in a table with a row for each day that has bars.

    ``row`` and ``column`` (n_bars,) are those of each bar, ``day`` (n_rows,) the number of each
    row's day.
    """

    day: IntArray
    row: IntArray
    column: IntArray


def tabulate_bars(day: IntArray) -> BarsByDay:
    """Return the places of bars, given the number of each bar's day, which never falls."""
    is_first_of_day = np.diff(day, prepend=-1) != 0
    starts = np.flatnonzero(is_first_of_day)
    bars_by_day = np.diff(starts, append=len(day))
    row = np.repeat(np.arange(len(starts)), bars_by_day)
    return BarsByDay(day=day[starts], row=row, column=np.arange(len(day)) - starts[row])


def add_bars(
    sums: FloatArray,
    values: FloatArray,
    bars: BarsByDay,
) -> FloatArray:
    """Add the values of bars to the sums of their days; return the sum of its day up to each bar.

    Writes ``sums`` (n_days,), which may have a part of the first day.
    """
    # A row for each day: what it has already, and then its bars. Short days end with zeros.
    most_bars = int(bars.column.max()) + 1
    table = np.zeros((len(bars.day), most_bars + 1))
    column = bars.column + 1
    table[:, 0] = sums[bars.day]
    table[bars.row, column] = values

    up_to_column = np.cumsum(table, axis=1)
    sums[bars.day] = up_to_column[:, -1]
    up_to_bars: FloatArray = up_to_column[bars.row, column]
    return up_to_bars


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
    """Return the probability that the mark touches the liquidation price within some years.

    All arrays have shape (n_bars,) and hold values at closes; ``sigma`` is per sqrt(year). The
    result is 0 without a position or if no price liquidates, 1 if the requirement fails at the
    close, and NaN if a position is held and the volatility is unknown.
    """
    chance = np.zeros(len(position))
    may_liquidate = (position != 0.0) & ~np.isnan(liquidation_price)
    rows = np.flatnonzero(may_liquidate)
    side = np.sign(position[rows])
    move = np.log(mark[rows] / liquidation_price[rows])

    # How far the price is on the safe side: 0 beyond the liquidation price, where it is certain.
    away = np.maximum(side * move, 0.0)
    chance[rows] = touch_probability(
        -side * away,
        sigma[rows],
        years,
        degrees_of_freedom=DEGREES,
    )
    return chance
