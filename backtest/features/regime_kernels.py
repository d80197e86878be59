"""Kernels for two hidden regimes, calm and stress, for many parameter values at once."""

from __future__ import annotations

import math

from backtest.base import FloatArray

KERNELS = ("filter_lanes", "learn_lanes")
START = 20
"""Returns whose mean square starts the learning."""
WARM = 100
"""Returns before the first output."""
LEAST_RATIO = 2.0
"""Least variance of stress, relative to that of calm."""
LEAST_VARIANCE = 1e-20
"""Least variance of one bar's return: below it the price does not move."""
LARGEST_EXPONENT = 700.0
SLOTS = 10
"""Numbers that a lane remembers while it learns."""


def filter_lanes(
    returns: FloatArray,
    years: FloatArray,
    calm: FloatArray,
    stress: FloatArray,
    leave: FloatArray,
    ahead: FloatArray,
    filtered: FloatArray,
) -> None:
    """Write filtered probabilities of stress, given known parameters, to ``filtered`` (n_bars, k).

    ``returns`` (n_bars,) are log returns; the first does not count. ``years`` (n_bars,) is the
    length of a bar in years; while it is NaN (not known yet), so is the probability. ``calm`` and
    ``stress`` (2, k) are the drift and variance of each state per year. ``leave`` (2, k) is the
    probability of leaving calm, and stress, after a bar. ``ahead`` (k,) is the probability of
    stress at the first bar; it is used up.
    """
    n, k = filtered.shape
    filtered[:1] = math.nan
    for t in range(1, n):
        if not years[t] > 0.0:
            filtered[t] = math.nan
            continue
        for j in range(k):
            low, high = calm[1, j] * years[t], stress[1, j] * years[t]
            from_calm = returns[t] - calm[0, j] * years[t]
            from_stress = returns[t] - stress[0, j] * years[t]
            exponent = 0.5 * (from_calm * from_calm / low - from_stress * from_stress / high)
            now = update_stress(ahead[j], math.sqrt(low / high), exponent)
            ahead[j] = predict_stress(now, leave[0, j], leave[1, j])
            filtered[t, j] = now


def learn_lanes(
    squares: FloatArray,
    forget: FloatArray,
    leave: FloatArray,
    state: FloatArray,
    filtered: FloatArray,
    calm: FloatArray,
    stress: FloatArray,
) -> None:
    """Write filtered probabilities of stress, with variances learned bar by bar.

    ``squares`` (n_bars,) are squared returns; the first does not count. ``forget`` (k,) is the
    weight of a new bar, once there are many. ``leave`` (2, k) is the probability of leaving calm,
    and stress, after a bar. ``filtered`` (n_bars, k) is NaN until ``WARM`` returns count. ``calm``
    and ``stress``, of shape (n_bars, k), or (0, k) if they are not wanted, receive both variances.
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
            now = update_stress(
                ahead, math.sqrt(low * inverse), 0.5 * square * (1.0 / low - inverse)
            )
            time_0, time_1 = propagate(state[4, j], state[5, j], from_0, from_1, 1.0 - step)
            low_0, low_1 = propagate(state[6, j], state[7, j], from_0, from_1, 1.0 - step)
            high_0, high_1 = propagate(state[8, j], state[9, j], from_0, from_1, 1.0 - step)
            time_1, low_0, high_1 = time_1 + step, low_0 + step * square, high_1 + step * square
            share = average_states(time_0, time_1, now)
            low, high = split_variances(
                average_states(low_0, low_1, now), average_states(high_0, high_1, now), share
            )
            state[0, j], state[1, j] = now, predict_stress(now, leave[0, j], leave[1, j])
            state[2, j], state[3, j] = low, high
            state[4, j], state[5, j] = time_0, time_1
            state[6, j], state[7, j] = low_0, low_1
            state[8, j], state[9, j] = high_0, high_1
            filtered[t, j] = now
        if len(calm) > 0:
            for j in range(k):
                calm[t, j], stress[t, j] = state[2, j], state[3, j]
    first = min(WARM, n)
    filtered[:first], calm[:first], stress[:first] = math.nan, math.nan, math.nan


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
    calm = max(low / (1.0 - share), LEAST_VARIANCE)
    stress = high / share
    if stress < LEAST_RATIO * calm:
        calm = max((low + high) / (1.0 + (LEAST_RATIO - 1.0) * share), LEAST_VARIANCE)
        stress = LEAST_RATIO * calm
    return calm, stress


def update_stress(ahead: float, root: float, exponent: float) -> float:
    """Return the probability of stress after a return, by Bayes' rule.

    The likelihood of stress over that of calm is ``root exp(exponent)``.
    """
    odds = ahead * root * math.exp(min(exponent, LARGEST_EXPONENT))
    return odds / (odds + (1.0 - ahead))


def predict_stress(now: float, leave_calm: float, leave_stress: float) -> float:
    return now * (1.0 - leave_stress) + (1.0 - now) * leave_calm


def average_states(calm: float, stress: float, probability: float) -> float:
    return (1.0 - probability) * calm + probability * stress
