"""Value at risk and expected shortfall of 1x over the next bars, likely reach, and liquidation.

Losses are positive, as a fraction of the notional, net of funding, for the side held at each close:
long, or short if ``market.signal`` is negative. The horizon is in bars. No model forecasts the mean
of the next returns: over hours its estimate is noise compared with a tail.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from backtest._compile import compile_module
from backtest.core import Choice, FloatArray, IntArray, ParameterError, checked, parse_duration
from backtest.core.units import DAY, MINUTE, YEAR_DAYS
from backtest.indicators import averages, kernels, lanes
from backtest.indicators import returns as r
from backtest.indicators.averages import ewma_deviation
from backtest.indicators.estimators import volatility
from backtest.indicators.lanes import OneOrMany
from backtest.margin import find_touch_factor, touch_probability
from backtest.market import SESSIONS, Market, bars_per_year, count_bars_per_year

TAIL_MODELS = ("historical", "filtered-historical")
MIN_TAIL = 10.0
"""Independent losses beyond the level below which those of single bars are scaled to the horizon:
losses of 168 hours at 99 % from 13 of them were exceeded three times as often as forecast."""
MAX_CORRELATION = 0.9
"""Largest autocorrelation, in size, that a sum of bars is scaled with."""


class Tail(NamedTuple):
    """Possible losses of 1x, as fractions of the notional; negative if even the tail gains.

    Arrays of shape (n_bars,), or (n_bars, k) for k values of a parameter; NaN until warm.
    """

    value_at_risk: FloatArray
    expected_shortfall: FloatArray


@checked
def tail_losses(
    market: Market,
    model: str | Sequence[str],
    *,
    level: OneOrMany,
    horizon: OneOrMany = 1,
    window: OneOrMany = 2160,
    half_life: OneOrMany = 72.0,
) -> Tail:
    """Return the tail that a model forecasts at each close.

    ``market``: its closes, funding and signal. ``model``: ``"historical"`` or
    ``"filtered-historical"``. ``level``: confidence, over 0.5 and below 1. ``horizon``: bars ahead,
    at least 1. ``window``: losses that count, at least 1 / (1 - level) - 1: fewer have no such
    quantile. ``half_life``: bars after which a return weighs half as much in the volatility, of the
    filtered model. NaN until ``window`` losses are known; of the filtered model those count that
    came after its first forecast, at ceil(half_life) returns, at least 2.

    Notes
    -----
    With h the horizon and sigma^2 the exponentially weighted mean of squares of the returns by bar:

    *Historical*: losses over h bars, one ending at each close. They overlap, so a window contains
    about window / h independent ones. Where fewer than 10 of these lie beyond the level, ``(1 -
    level) window / h < 10``, losses of single bars are scaled by the deviation of their sum,
    ``sqrt(h + 2 sum_k (h - k) rho^k)``, k from 1 to h - 1, rho their first autocorrelation in the
    window, within 0.9. So are those of the filtered model. VaR is the loss of
    rank (n + 1) (1 - level) from the largest of n, with linear interpolation (numpy's ``weibull``):
    of exchangeable losses the next one exceeds it with probability 1 - level, exactly at whole
    ranks. ES is the mean of the n (1 - level) largest losses; the last one counts by the
    remaining fraction. Sources: Hyndman and Fan (1996), Sample Quantiles in Statistical Packages,
    American Statistician 50(4), definition 6; Acerbi and Tasche (2002), On the Coherence of
    Expected Shortfall, J. Banking and Finance 26(7), definition 2.6.

    *Filtered-historical*: the same of losses over h bars divided by the volatility forecast before
    them, sigma sqrt(h), times the current one. Losses after a forecast of 0 do not count. Sources:
    Hull and White (1998), Incorporating Volatility Updating into the Historical Simulation Method
    for Value-at-Risk, J. Risk 1(1); Barone-Adesi, Giannopoulos and Vosper (1999), VaR without
    Correlations for Portfolios of Derivative Securities, J. Futures Markets 19(5).
    """
    lanes.check_lanes("level", level, low=0.5, high=1.0, open_low=True, open_high=True)
    lanes.check_bars("horizon", horizon)
    lanes.check_bars("window", window, low=2.0)
    lanes.check_lanes("half_life", half_life, low=0.0, open_low=True)
    names, levels, horizons, windows, half_lives = np.broadcast_arrays(
        np.atleast_1d(np.asarray(model, dtype=object)),
        *lanes.broadcast(level, horizon, window, half_life),
    )

    # The filtered model needs the volatility forecast at each close.
    is_filtered = names != "historical"
    scales = np.empty((market.n_bars, len(names)))
    if is_filtered.any():
        returns = r.long_returns(market)
        scales[:, is_filtered] = ewma_deviation(returns, half_lives[is_filtered], 1.0)

    # Lanes of the same parameters are found once.
    value = np.empty((market.n_bars, len(names)))
    shortfall = np.empty((market.n_bars, len(names)))
    tails: dict[tuple[object, ...], Tail] = {}
    parameters = (names, levels, horizons, windows, half_lives)
    rows = zip(*map(np.ndarray.tolist, parameters), strict=True)
    for j, lane in enumerate(rows):
        if lane not in tails:
            tails[lane] = find_tail(market, *lane[:4], scale=scales[:, j])
        value[:, j] = tails[lane].value_at_risk
        shortfall[:, j] = tails[lane].expected_shortfall

    arguments = (model, level, horizon, window, half_life)
    return Tail(lanes.shape_as(value, *arguments), lanes.shape_as(shortfall, *arguments))


def find_tail(
    market: Market, model: str, level: float, horizon: float, window: float, scale: FloatArray
) -> Tail:
    """Return the tail of one lane; ``scale`` (n_bars,) is the deviation by bar of the filtered one.

    Losses are of single bars where too few of the horizon would lie beyond the level, else of all
    bars of the horizon together.
    """
    Choice(*TAIL_MODELS).check("model", model)
    is_scaled = (1.0 - level) * window < MIN_TAIL * horizon
    bars = 1 if is_scaled else int(horizon)
    earned = held_returns(market, bars)
    if model == "historical":
        scale = np.ones(market.n_bars)
    else:
        scale = scale * math.sqrt(bars)
        earned = divide_by_forecast(earned, scale, bars)
    if is_scaled:
        scale = scale * find_spread(earned, int(window), horizon)

    # Rounded, as (n + 1) (1 - level) of a whole rank may come to a little less.
    top = round((window + 1.0) * (1.0 - level), 9)
    if top < 1.0:
        least = math.ceil(round(1.0 / (1.0 - level) - 1.0, 9))
        raise ParameterError(
            f"window must hold at least {least} losses for the level {level:g}, got {int(window)}"
        )

    # Each bar has the tail of the side that is held at its close.
    n_losses = int(window)
    size = n_losses * (1.0 - level)
    is_short_side = market.signal < 0.0
    tails = np.full((2, market.n_bars), np.nan)
    for sign, rows in ((-1.0, ~is_short_side), (1.0, is_short_side)):
        if n_losses <= market.n_bars and rows.any():
            tails[:, rows] = roll_tail(sign * earned, top, size, n_losses)[:, rows]
    return Tail(tails[0] * scale, tails[1] * scale)


def divide_by_forecast(earned: FloatArray, scale: FloatArray, bars: int) -> FloatArray:
    """Return what was earned over the deviation forecast before it; NaN after a forecast of 0."""
    forecast = scale[:-bars]
    scaled = np.full_like(earned, np.nan)
    np.divide(earned[bars:], forecast, out=scaled[bars:], where=forecast > 0.0)
    return scaled


def roll_tail(losses: FloatArray, top: float, size: float, window: int) -> FloatArray:
    """Return quantile and mean of the largest losses by bar, (2, n_bars)."""
    tail = np.empty((2, len(losses)))
    largest = np.full(window, -np.inf)
    compile_module(kernels).tail_lane(losses, top, size, np.empty(window), largest, tail)
    return tail


def find_spread(earned: FloatArray, window: int, horizon: float) -> FloatArray:
    """Return the deviation of a sum of bars over that of one, by the last returns, (n_bars,)."""
    known = np.nan_to_num(earned)
    before = np.concatenate([[0.0], known[:-1]])
    products = sum_window(known * before, window)
    squares = sum_window(known * known, window)
    rho = np.divide(products, squares, out=np.zeros(len(known)), where=squares > 0.0)
    rho = np.clip(rho, -MAX_CORRELATION, MAX_CORRELATION)

    # h + 2 sum_k (h - k) rho^k, summed in closed form.
    first_terms = horizon * (1.0 + rho) / (1.0 - rho)
    last_terms = 2.0 * rho * (1.0 - rho**horizon) / (1.0 - rho) ** 2
    return np.asarray(np.sqrt(first_terms - last_terms))


def sum_window(values: FloatArray, window: int) -> FloatArray:
    """Return the sums of the last values, of all so far in the first ``window`` bars."""
    sums = np.cumsum(values)
    sums[window:] -= sums[:-window].copy()
    return sums


def held_returns(market: Market, horizon: int) -> FloatArray:
    """Return the return of a long position of 1x over the last bars, net of funding.

    ``C_t / C_{t-h} - 1 - F``, F the sum of the funding rates settled in between, as a fraction of
    the notional at the start. Shape (n_bars,); NaN in the first h bars.
    """
    close = market.close
    funding_paid = np.cumsum(r.settled_funding(market))
    price_return = close[horizon:] / close[:-horizon] - 1.0
    returns = np.full(market.n_bars, np.nan)
    returns[horizon:] = price_return - (funding_paid[horizon:] - funding_paid[:-horizon])
    return returns


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
    lanes.check_lanes("horizon", horizon, low=0.0, high=lanes.MAX_BARS, open_low=True)
    chances, bars, degrees = lanes.broadcast(probability, horizon, degrees_of_freedom)
    factor = find_touch_factor(chances, degrees) * np.sqrt(bars)

    sigma = volatility(market, estimator, half_life).reshape(market.n_bars, -1)
    per_bar = sigma / np.sqrt(np.reshape(bars_per_year(market), (-1, 1)))
    with np.errstate(invalid="ignore"):
        columns = np.ascontiguousarray(per_bar * factor)
    return lanes.shape_as(columns, probability, horizon, degrees_of_freedom, estimator, half_life)


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
    trail: FloatArray, time: IntArray, close: FloatArray, interval: int, *, is_session: bool
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
    returns = np.diff(np.log(np.append(trail[LAST_CLOSE], close)))
    squares = np.nan_to_num(returns) ** 2
    is_known = (~np.isnan(returns)).astype(np.float64)

    # The sums go on from those of the trail, which stand before the first bar.
    weighted = averages.sum_weighted(np.append(trail[WEIGHTED], squares), decay)[1:]
    weight = averages.sum_weighted(np.append(trail[WEIGHT], is_known), decay)[1:]
    counted = np.broadcast_to(count_bars_per_year(time, interval, is_session), len(close))
    per_year = np.where(np.isnan(counted), trail[BARS_PER_YEAR], counted)

    # The weights of as many returns as are needed exceed this, those of one less do not.
    needed = int(lanes.count_needed(half_life)[0])
    least = (1.0 - decay ** (needed - 0.5)) / (1.0 - decay)
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma = np.where(weight > least, np.sqrt(weighted * (1.0 / weight) * per_year), np.nan)

    # Calm does not last: below the year's, the forecast is between the two.
    mean, year_trail = average_year(trail[OF_YEAR], time, interval, squares, is_known)
    with np.errstate(invalid="ignore"):
        of_year = np.sqrt(mean * per_year)
        raised = sigma**CALM_POWER * of_year ** (1.0 - CALM_POWER)
        sigma = np.where(of_year > sigma, raised, sigma)
    new_trail = [weighted[-1], weight[-1], close[-1], per_year[-1]]
    return sigma, np.concatenate([new_trail, year_trail])


def average_year(
    trail: FloatArray, time: IntArray, interval: int, squares: FloatArray, is_known: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the mean square of the last 365 days at each close, (n_bars,), and the trail after.

    Days are those of UTC, the day of the close as far as it went; NaN under a year of data.
    ``trail`` is that part of :data:`NOTHING_SEEN`. A history in two parts gives the same bits.
    """
    days = time // DAY
    first = time[0] / DAY if math.isnan(trail[0]) else trail[0]
    n_days = int(days[-1] - days[0]) + YEAR_WINDOW
    sums = np.zeros(n_days)
    counts = np.zeros(n_days)
    first_day = int(days[0]) - YEAR_WINDOW + 1

    # The days that the trail remembers, as far as they are in the window of the first bar.
    places = int(trail[1]) - YEAR_WINDOW + 1 + np.arange(YEAR_WINDOW) - first_day
    is_recent = places >= 0
    sums[places[is_recent]] = trail[2:][:YEAR_WINDOW][is_recent]
    counts[places[is_recent]] = trail[2 + YEAR_WINDOW :][is_recent]

    mean = np.empty(len(time))
    starts = np.flatnonzero(np.diff(days, prepend=days[0] - 1)).tolist()
    for start, stop in pairwise([*starts, len(time)]):
        # Within a day sums grow bar by bar, from what the trail has of the day.
        place = int(days[start]) - first_day
        bars = slice(start, stop)
        day_sums = np.cumsum(np.append(sums[place], squares[bars]))[1:]
        day_counts = np.cumsum(np.append(counts[place], is_known[bars]))[1:]
        sums[place] = day_sums[-1]
        counts[place] = day_counts[-1]

        days_before = slice(place - YEAR_WINDOW + 1, place)
        total = day_sums + np.sum(sums[days_before])
        count = day_counts + np.sum(counts[days_before])
        mean[bars] = total / np.maximum(count, 1.0)

    is_year = (time + interval) / DAY - first >= YEAR_WINDOW - MINUTE / DAY
    year_trail = [[first, float(days[-1])], sums[-YEAR_WINDOW:], counts[-YEAR_WINDOW:]]
    return np.where(is_year, mean, np.nan), np.concatenate(year_trail)


def find_day(interval: int, *, is_session: bool) -> float:
    """Return the years of a day, or of a session where the bars are no longer than one."""
    per_year = SESSIONS if is_session and interval <= DAY else YEAR_DAYS
    return 1.0 / per_year


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
    rows = np.flatnonzero((position != 0.0) & ~np.isnan(liquidation_price))
    side = np.sign(position[rows])
    away = np.maximum(side * np.log(mark[rows] / liquidation_price[rows]), 0.0)
    chance[rows] = touch_probability(-side * away, sigma[rows], years, degrees_of_freedom=DEGREES)
    return chance
