"""Kernels of recursions over the bars, for many parameter values at once.

Compiled by :mod:`backtest._compile.kernels`. Rows of ``out`` are bars, columns are
values of a parameter.
"""

from __future__ import annotations

import math

import numpy as np

from backtest.core import FloatArray, IntArray
from backtest.core.elementary import power as raise_to_power
from backtest.core.kernels import kernel

START = 20
"""Returns whose mean square starts the learning of regimes."""
WARM = 100
"""Least returns before the first output of learned regimes."""
MIN_RATIO = 2.0
"""Least variance of stress, relative to that of calm."""
MIN_VARIANCE = 1e-20
"""Least variance of one bar's return: below it the price does not move."""
MAX_EXPONENT = 700.0
LEAST_FACTOR, MOST_FACTOR = 0.5, 2.0
"""Bounds of the factor of feedback: half and twice the leverage without it."""


@kernel
def ewma_lanes(
    squares: FloatArray,
    decay: FloatArray,
    needed: IntArray,
    scale: FloatArray,
    state: FloatArray,
    out: FloatArray,
) -> None:
    """Write exponentially weighted means times ``scale`` (n_bars,) to ``out`` (n_bars, k).

    NaN until as many squares as ``needed`` (k,), at least 1. ``squares`` (n_bars, k), or
    (n_bars, 1) of all, are averaged. ``decay`` (k,) is the weight of a bar relative to the next
    one. ``state`` (2, k) is scratch space, of zeros.
    """
    weighted, weight = state[0], state[1]
    n, k = out.shape
    has_own = squares.shape[1] > 1
    for t in range(n):
        first = squares[t, 0]
        for j in range(k):
            square = squares[t, j] if has_own else first
            weighted[j] = decay[j] * weighted[j] + square
            weight[j] = decay[j] * weight[j] + 1.0
            out[t, j] = weighted[j] * (1.0 / weight[j]) * scale[t]
    for j in range(k):
        out[: min(needed[j] - 1, n), j] = math.nan


@kernel
def feedback_lanes(
    returns: FloatArray,
    sigma: FloatArray,
    target: FloatArray,
    power: FloatArray,
    gain: FloatArray,
    decay: FloatArray,
    needed: IntArray,
    scale: FloatArray,
    out: FloatArray,
) -> None:
    """Write the factor that corrects a volatility target by its own error to ``out`` (n_bars, k).

    ``returns`` (n_bars, k), or (n_bars, 1) of all, are those of the market, ``sigma`` (n_bars, k)
    the volatility that is forecast, ``scale`` (n_bars,) the bars per year; the others are by lane.
    A bar counts if a leverage was decided at the close before: where sigma was known and not 0.
    """
    n, k = out.shape
    has_own = returns.shape[1] > 1
    for j in range(k):
        factor = 1.0
        leverage = math.nan
        weighted = 0.0
        weight = 0.0
        known = 0
        for t in range(n):
            held_return = leverage * (returns[t, j] if has_own else returns[t, 0])
            if math.isfinite(held_return):
                weighted = decay[j] * weighted + held_return * held_return
                weight = decay[j] * weight + 1.0
                known += 1

                # Before a half-life of bars the volatility that came is too uncertain to learn of.
                if known >= needed[j] and gain[j] > 0.0:
                    realized = math.sqrt(weighted * (1.0 / weight) * scale[t])
                    factor *= 1.0 + gain[j] * (1.0 - realized / target[j])
                    factor = min(max(factor, LEAST_FACTOR), MOST_FACTOR)

            leverage = math.nan
            if sigma[t, j] > 0.0:
                leverage = raise_to_power(target[j] / (sigma[t, j] / factor), power[j])
            out[t, j] = factor


@kernel
def filter_variance(
    squares: FloatArray, parameters: FloatArray, backcast: float, start: int, out: FloatArray
) -> None:
    """Write h_{t+1} = omega + alpha e_t^2 + beta h_t to ``out[t]``, from bar ``start`` >= 1 on.

    ``squares`` (n_bars,) holds e_t^2, the first does not count. ``parameters`` (3,) are omega,
    alpha and beta. ``backcast`` stands in for the square and the variance before the first.
    """
    omega, alpha, beta = parameters[0], parameters[1], parameters[2]
    variance = omega + alpha * backcast + beta * backcast
    for t in range(1, len(out)):
        variance = omega + alpha * squares[t] + beta * variance
        if t >= start:
            out[t] = variance


@kernel
def tail_lane(
    losses: FloatArray,
    top: float,
    size: float,
    recent: FloatArray,
    held: FloatArray,
    tail: FloatArray,
) -> None:
    """Write quantiles and means of the largest of the last known losses to ``tail`` (2, n_bars).

    ``losses`` (n_bars,) that are NaN do not count. ``top`` is the rank of the quantile from the
    largest loss, at least 1; a fraction interpolates between two losses. ``size`` is the number of
    losses in the mean; the last one counts by a fraction. ``recent`` and ``held`` (window,) are
    scratch space: the losses by time, and in falling order. NaN until the window is full.
    """
    window, m, known = len(held), int(top), 0
    for t in range(len(losses)):
        if losses[t] == losses[t]:
            slot = known % window
            if known >= window:  # the oldest one leaves
                last = window - np.searchsorted(held[::-1], recent[slot], side="right")
            else:
                last = known
            move_in(held, last, losses[t])
            recent[slot] = losses[t]
            known += 1
        tail[0, t], tail[1, t] = math.nan, math.nan
        if known >= window:
            total = 0.0
            for i in range(m):
                total += held[i]
            least, following = held[m - 1], held[m]
            more = (size - m) * (following if size > m else least)
            tail[0, t] = least + (top - m) * (following - least)
            tail[1, t] = (total + more) / size


def move_in(held: FloatArray, place: int, value: float) -> None:
    """Put a value into falling numbers, in place of one."""
    while place > 0 and held[place - 1] < value:
        held[place] = held[place - 1]
        place -= 1
    while place + 1 < len(held) and held[place + 1] > value:
        held[place] = held[place + 1]
        place += 1
    held[place] = value


@kernel
def learn_lanes(
    squares: FloatArray,
    forget: FloatArray,
    leave: FloatArray,
    needed: IntArray,
    state: FloatArray,
    filtered: FloatArray,
) -> None:
    """Write filtered probabilities of stress, with variances learned bar by bar.

    ``squares`` (n_bars,) are squared returns; the first does not count. ``forget`` (k,) is the
    weight of a new bar, once there are many. ``leave`` (2, k) is the probability of leaving calm,
    and stress, after a bar. ``state`` (10, k) is what is remembered: probabilities of stress now
    and ahead, both variances, and what is learned of time and squares in both states. ``filtered``
    (n_bars, k) is NaN until as many returns as ``needed`` (k,) count.
    """
    n, k = filtered.shape
    if n > START:
        start_learning(squares, leave, state)
    for t in range(START + 1, n):
        square, early = squares[t], min(2.0 / t, 1.0 / START)
        for j in range(k):
            step = max(early, forget[j])
            now, ahead, low, high = state[0, j], state[1, j], state[2, j], state[3, j]
            from_0 = now * leave[1, j] / (1.0 - ahead)  # stress before, if this bar is calm
            from_1 = now * (1.0 - leave[1, j]) / ahead  # or, if it is stress
            inverse = 1.0 / high
            exponent = 0.5 * square * (1.0 / low - inverse)
            odds = ahead * math.sqrt(low * inverse) * math.exp(min(exponent, MAX_EXPONENT))
            now = odds / (odds + (1.0 - ahead))  # by Bayes' rule
            time_0, time_1 = propagate(state[4, j], state[5, j], from_0, from_1, 1.0 - step)
            low_0, low_1 = propagate(state[6, j], state[7, j], from_0, from_1, 1.0 - step)
            high_0, high_1 = propagate(state[8, j], state[9, j], from_0, from_1, 1.0 - step)
            time_1, low_0, high_1 = time_1 + step, low_0 + step * square, high_1 + step * square
            share = average_states(time_0, time_1, now)
            low, high = split_variances(
                average_states(low_0, low_1, now), average_states(high_0, high_1, now), share
            )
            state[0, j] = now
            state[1, j] = now * (1.0 - leave[1, j]) + (1.0 - now) * leave[0, j]
            state[2, j], state[3, j] = low, high
            state[4, j], state[5, j] = time_0, time_1
            state[6, j], state[7, j] = low_0, low_1
            state[8, j], state[9, j] = high_0, high_1
            filtered[t, j] = now
    for j in range(k):
        filtered[: min(needed[j], n), j] = math.nan


def start_learning(squares: FloatArray, leave: FloatArray, state: FloatArray) -> None:
    total = 0.0
    for t in range(1, START + 1):
        total += squares[t]
    low, high = split_variances(0.25 * total / START, 2.0 * total / START, 0.5)
    for j in range(state.shape[1]):
        share = leave[0, j] / (leave[0, j] + leave[1, j])
        state[0, j], state[1, j], state[2, j], state[3, j] = share, share, low, high
        state[4, j], state[5, j] = 0.0, 1.0
        state[6, j], state[7, j] = low, 0.0
        state[8, j], state[9, j] = 0.0, high


def propagate(
    calm: float, stress: float, from_0: float, from_1: float, keep: float
) -> tuple[float, float]:
    return keep * average_states(calm, stress, from_0), keep * average_states(calm, stress, from_1)


def split_variances(low: float, high: float, share: float) -> tuple[float, float]:
    calm = max(low / (1.0 - share), MIN_VARIANCE)
    stress = high / share
    if stress < MIN_RATIO * calm:
        calm = max((low + high) / (1.0 + (MIN_RATIO - 1.0) * share), MIN_VARIANCE)
        stress = MIN_RATIO * calm
    return calm, stress


def average_states(calm: float, stress: float, probability: float) -> float:
    return (1.0 - probability) * calm + probability * stress
