"""Shared by the models of :mod:`backtest.features.tails`: parameters, losses, rolling tails."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from backtest.base import FloatArray, ParameterError, check_range, compile_module
from backtest.features import tail_kernels
from backtest.features.lane_parameters import broadcast, check_bars, check_lanes, list_lanes
from backtest.features.returns import OneOrMany, settled_funding
from backtest.market import Market


class TailParameters(NamedTuple):
    """Parameters of a tail, lane by lane: arrays of shape (k,)."""

    level: FloatArray
    horizon: FloatArray
    window: FloatArray
    half_life: FloatArray


def read_tail_parameters(
    level: OneOrMany, horizon: OneOrMany, *, window: OneOrMany = 2, half_life: OneOrMany = 1.0
) -> TailParameters:
    for each in list_lanes(level):
        check_range("level", each, low=0.5, high=1.0, open_low=True, open_high=True)
    check_bars("horizon", horizon)
    check_bars("window", window, low=2.0)
    check_lanes("half_life", half_life, low=0.0, open_low=True)
    return TailParameters(*broadcast(level, horizon, window, half_life))


def check_windows(lanes: TailParameters) -> None:
    short = np.flatnonzero(find_quantile_place(lanes) < 1.0)
    if len(short):
        window, level = int(lanes.window[short[0]]), float(lanes.level[short[0]])
        least = int(np.ceil(np.round(1.0 / (1.0 - level) - 1.0, 9)))
        raise ParameterError(
            f"window must hold at least {least} losses for the level {level:g}, got {window}"
        )


def find_quantile_place(lanes: TailParameters) -> FloatArray:
    return np.round((lanes.window + 1.0) * (1.0 - lanes.level), 9)


def find_normal(level: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return normal quantiles z, and the means beyond them, phi(z) / (1 - level), of shape (k,)."""
    normal = NormalDist()
    z = np.array([normal.inv_cdf(each) for each in level.tolist()])
    density = np.array([normal.pdf(each) for each in z.tolist()])
    return z, density / (1.0 - level)


def find_side(market: Market) -> FloatArray:
    return np.where(market.signal < 0.0, -1.0, 1.0)


def held_returns(market: Market, horizon: int) -> FloatArray:
    """Return the return of a long position of 1x over the last bars, net of funding.

    ``C_t / C_{t-h} - 1 - F``, F the sum of the funding rates settled in between, as a fraction of
    the notional at the start. Shape (n_bars,); NaN in the first h bars.
    """
    returns = np.full(market.n_bars, np.nan)
    paid = np.cumsum(settled_funding(market))
    close = market.close
    returns[horizon:] = (
        close[horizon:] / close[:-horizon] - 1.0 - (paid[horizon:] - paid[:-horizon])
    )
    return returns


def scale_to_forecast(earned: FloatArray, sigma: FloatArray, horizon: int) -> FloatArray:
    scaled = np.full_like(earned, np.nan)
    forecast = sigma[:-horizon]
    known = forecast > 0.0
    np.divide(earned[horizon:], forecast, out=scaled[horizon:], where=known)
    return scaled


def roll_tails(
    samples: Sequence[FloatArray], lanes: TailParameters, side: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the quantiles and tail means of the last losses, of shape (n_bars, k) each.

    ``samples`` holds the returns of a long position for each lane, arrays of shape (n_bars,); NaN
    does not count. ``side`` (n_bars,) is 1 for losses of a long position, -1 for those of a short
    one.
    """
    found = np.empty((2, len(samples), len(side)))
    signs = [sign for sign in (-1.0, 1.0) if (side == sign).any()]
    sizes = lanes.window * (1.0 - lanes.level)
    for j, (sample, top, size) in enumerate(
        zip(samples, find_quantile_place(lanes), sizes, strict=True)
    ):
        for sign in signs:
            tail = roll_tail(-sign * sample, int(lanes.window[j]), float(top), float(size))
            found[:, j] = tail if len(signs) == 1 else np.where(side == sign, tail, found[:, j])
    value, shortfall = np.ascontiguousarray(found.transpose(0, 2, 1))
    return value, shortfall


def roll_tail(losses: FloatArray, window: int, top: float, size: float) -> FloatArray:
    """Return one quantile and tail mean by ``tail_kernels.tail_lane``, of shape (2, n_bars)."""
    if window > len(losses):
        return np.full((2, len(losses)), np.nan)
    tail = np.empty((2, len(losses)))
    order, place = np.arange(window), np.arange(window)
    held = np.full(window, -np.inf)
    compile_module(tail_kernels).tail_lane(losses, top, size, order, place, held, tail[0], tail[1])
    return tail
