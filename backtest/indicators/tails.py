"""Value at risk and expected shortfall of 1x over the next bars.

Losses are positive, as a fraction of the notional, net of funding, for the side held at each close:
long, or short if ``market.signal`` is negative. The horizon is in bars. No model forecasts the mean
of the next returns: over hours its estimate is noise compared with a tail.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from backtest._compile import compile_module
from backtest.core import Choice, FloatArray, ParameterError, checked
from backtest.indicators import kernels, lanes
from backtest.indicators import returns as r
from backtest.indicators.averages import ewma_deviation
from backtest.indicators.lanes import OneOrMany
from backtest.market import Market

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
    lanes.check_lanes(
        "level",
        level,
        low=0.5,
        high=1.0,
        open_low=True,
        open_high=True,
    )
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
        half_lives_used = half_lives[is_filtered]
        scales[:, is_filtered] = ewma_deviation(returns, half_lives_used, 1.0)

    # Lanes of the same parameters are found once. A half-life is part of what a lane is: its
    # ``scale`` comes from it.
    value = np.empty_like(scales)
    shortfall = np.empty_like(scales)
    tails: dict[tuple[object, ...], Tail] = {}
    parameters = (names, levels, horizons, windows, half_lives)
    rows = zip(*map(np.ndarray.tolist, parameters), strict=True)
    for j, lane in enumerate(rows):
        if lane not in tails:
            name, confidence, bars, n_losses, _ = lane
            tails[lane] = find_tail(
                market,
                name,
                level=confidence,
                horizon=bars,
                window=n_losses,
                scale=scales[:, j],
            )
        value[:, j] = tails[lane].value_at_risk
        shortfall[:, j] = tails[lane].expected_shortfall

    arguments = (model, level, horizon, window, half_life)
    return Tail(
        lanes.shape_as(value, *arguments),
        lanes.shape_as(shortfall, *arguments),
    )


def find_tail(
    market: Market,
    model: str,
    level: float,
    horizon: float,
    window: float,
    scale: FloatArray,
) -> Tail:
    """Return the tail of one lane; ``scale`` (n_bars,) is the deviation by bar of the filtered one.

    Losses are of single bars where too few of the horizon would lie beyond the level, else of all
    bars of the horizon together.
    """
    Choice(*TAIL_MODELS).check("model", model)

    # Losses over ``bars`` bars; those of single bars are scaled to the horizon below.
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
    tail = 1.0 - level
    top = round((window + 1.0) * tail, 9)
    if top < 1.0:
        least = math.ceil(round(1.0 / tail - 1.0, 9))
        raise ParameterError(
            f"window must hold at least {least} losses for the level {level:g}, got {int(window)}"
        )

    # Each bar has the tail of the side that is held at its close.
    n_losses = int(window)
    size = n_losses * tail
    is_short_side = market.signal < 0.0
    tails = np.full((2, market.n_bars), np.nan)
    sides = ((-1.0, ~is_short_side), (1.0, is_short_side))
    for sign, rows in sides:
        if n_losses <= market.n_bars and rows.any():
            of_side = roll_tail(sign * earned, top, size, n_losses)
            tails[:, rows] = of_side[:, rows]
    return Tail(tails[0] * scale, tails[1] * scale)


def divide_by_forecast(
    earned: FloatArray,
    scale: FloatArray,
    bars: int,
) -> FloatArray:
    """Return what was earned over the deviation forecast before it; NaN after a forecast of 0."""
    forecast = scale[:-bars]
    scaled = np.full_like(earned, np.nan)
    np.divide(earned[bars:], forecast, out=scaled[bars:], where=forecast > 0.0)
    return scaled


def roll_tail(
    losses: FloatArray,
    top: float,
    size: float,
    window: int,
) -> FloatArray:
    """Return quantile and mean of the largest of the last ``window`` losses by bar, (2, n_bars).

    ``top`` is the rank of the quantile from the largest, and ``size`` the losses in the mean. NaN
    until the window is full; losses that are NaN do not count.
    """
    tail = np.empty((2, len(losses)))
    largest = np.full(window, -np.inf)
    scratch = np.empty(window)
    compile_module(kernels).tail_lane(losses, top, size, scratch, largest, tail)
    return tail


def find_spread(earned: FloatArray, window: int, horizon: float) -> FloatArray:
    """Return the deviation of the sum of ``horizon`` returns over that of one, (n_bars,).

    Returns follow one another with a correlation rho, estimated over the ``window`` before.
    """
    # rho of each bar, 0 where nothing was earned in the window.
    known = np.nan_to_num(earned)
    one_before = np.concatenate([[0.0], known[:-1]])
    products = sum_window(known * one_before, window)
    squares = sum_window(known * known, window)
    rho = np.zeros(len(known))
    np.divide(products, squares, out=rho, where=squares > 0.0)
    rho = np.clip(rho, -MAX_CORRELATION, MAX_CORRELATION)

    # The variance of the sum is h + 2 sum_k (h - k) rho^k, k from 1 to h - 1, in closed form.
    first_terms = horizon * (1.0 + rho) / (1.0 - rho)
    last_terms = 2.0 * rho * (1.0 - rho**horizon) / (1.0 - rho) ** 2
    variance = first_terms - last_terms
    return np.asarray(np.sqrt(variance))


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
    funding = funding_paid[horizon:] - funding_paid[:-horizon]
    returns[horizon:] = price_return - funding
    return returns
