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
"""Largest exponent that is taken: its exponential is a number."""
LEAST_FACTOR = 0.5
MOST_FACTOR = 2.0
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
    one. ``state`` (2, k) are the weighted sum of squares and the sum of weights: zeros, or those of
    bars before, which a call leaves there after its last bar.
    """
    weighted = state[0]
    weight = state[1]
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
    parameters: FloatArray,
    needed: IntArray,
    scale: FloatArray,
    out: FloatArray,
) -> None:
    """Write the factor that corrects a volatility target by its own error to ``out`` (n_bars, k).

    ``returns`` (n_bars, k), or (n_bars, 1) of all, are those of the market, ``sigma`` (n_bars, k)
    the volatility that is forecast, ``scale`` (n_bars,) the bars per year. ``parameters`` (4, k)
    are target, power, gain and decay; ``needed`` (k,) bars count before the factor moves.
    A bar counts if a leverage was decided at the close before: where sigma was known and not 0.
    """
    n, k = out.shape
    has_own = returns.shape[1] > 1
    for j in range(k):
        target = parameters[0, j]
        power = parameters[1, j]
        gain = parameters[2, j]
        decay = parameters[3, j]
        factor = 1.0
        leverage = math.nan
        weighted = 0.0
        weight = 0.0
        known = 0

        for t in range(n):
            held_return = leverage * (returns[t, j] if has_own else returns[t, 0])
            if math.isfinite(held_return):
                weighted = decay * weighted + held_return * held_return
                weight = decay * weight + 1.0
                known += 1

                # Before a half-life of bars the volatility that came is too uncertain to learn of.
                if known >= needed[j] and gain > 0.0:
                    realized = math.sqrt(weighted * (1.0 / weight) * scale[t])
                    factor *= 1.0 + gain * (1.0 - realized / target)
                    factor = min(max(factor, LEAST_FACTOR), MOST_FACTOR)

            leverage = math.nan
            if sigma[t, j] > 0.0:
                leverage = raise_to_power(target / (sigma[t, j] / factor), power)
            out[t, j] = factor


@kernel
def filter_variance(
    squares: FloatArray,
    parameters: FloatArray,
    backcast: float,
    start: int,
    out: FloatArray,
) -> None:
    """Write h_{t+1} = omega + alpha e_t^2 + beta h_t to ``out[t]``, from bar ``start`` >= 1 on.

    ``squares`` (n_bars,) holds e_t^2, the first does not count. ``parameters`` (3,) are omega,
    alpha and beta. ``backcast`` stands in for the square and the variance before the first.
    """
    omega = parameters[0]
    alpha = parameters[1]
    beta = parameters[2]

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
    largest: FloatArray,
    tail: FloatArray,
) -> None:
    """Write quantiles and means of the largest of the last known losses to ``tail`` (2, n_bars).

    ``losses`` (n_bars,) that are NaN do not count. ``top`` is the rank of the quantile from the
    largest loss, at least 1; a fraction interpolates between two losses. ``size`` is the number of
    losses in the mean; the last one counts by a fraction. ``recent`` and ``largest`` (window,) are
    scratch space: the losses by time, and in falling order. NaN until the window is full.
    """
    window = len(largest)
    known = 0
    for t in range(len(losses)):
        if losses[t] == losses[t]:  # it is no NaN
            # The new loss goes where the oldest one was, or behind the others.
            slot = known % window
            place = known
            if known >= window:
                place = window - np.searchsorted(largest[::-1], recent[slot], side="right")
            move_in(largest, place, losses[t])
            recent[slot] = losses[t]
            known += 1

        tail[0, t] = math.nan
        tail[1, t] = math.nan
        if known >= window:
            read_tail(largest, top, size, t, tail)


def read_tail(largest: FloatArray, top: float, size: float, t: int, tail: FloatArray) -> None:
    """Write the quantile and the mean of the largest losses to column t of ``tail`` (2, n_bars).

    ``largest`` fall; ``top`` and ``size`` are those of :func:`tail_lane`.
    """
    n_whole = int(top)
    total = 0.0
    for i in range(n_whole):
        total += largest[i]

    # A fraction of a rank counts the loss after it, or the last one, by that fraction.
    last = largest[n_whole - 1]
    following = largest[n_whole]
    more = (size - n_whole) * (following if size > n_whole else last)
    tail[0, t] = last + (top - n_whole) * (following - last)
    tail[1, t] = (total + more) / size


def move_in(falling: FloatArray, place: int, value: float) -> None:
    """Put a value into falling numbers, in place of the one at ``place``.

    Those between the two places move by one, so that the numbers still fall.
    """
    while place > 0 and falling[place - 1] < value:
        falling[place] = falling[place - 1]
        place -= 1
    while place + 1 < len(falling) and falling[place + 1] > value:
        falling[place] = falling[place + 1]
        place += 1
    falling[place] = value


NOW = 0
AHEAD = 1
"""Rows of what is remembered of a regime: the probability of stress, at this bar and the next."""
CALM_VARIANCE = 2
STRESS_VARIANCE = 3
TIME_IF_CALM = 4
TIME_IF_STRESS = 5
"""Weighted share of bars in stress, on paths that lead to calm and to stress now."""
CALM_IF_CALM = 6
CALM_IF_STRESS = 7
"""Weighted squares of the bars in calm, on the same paths."""
STRESS_IF_CALM = 8
STRESS_IF_STRESS = 9
"""Weighted squares of the bars in stress."""


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
    and stress, after a bar. ``state`` (10, k) is space for what is remembered, by the rows above.
    ``filtered`` (n_bars, k) is NaN until as many returns as ``needed`` (k,) count.
    """
    n, k = filtered.shape
    if n > START:
        start_learning(squares, leave, state)
    for t in range(START + 1, n):
        # Early returns were assigned by guesses, so later ones weigh more at first.
        early = min(2.0 / t, 1.0 / START)
        for j in range(k):
            learn_bar(squares[t], max(early, forget[j]), leave, state, j)
            filtered[t, j] = state[NOW, j]

    for j in range(k):
        filtered[: min(needed[j], n), j] = math.nan


def learn_bar(square: float, step: float, leave: FloatArray, state: FloatArray, j: int) -> None:
    """Write what lane j remembers after a bar, by one step of online EM.

    ``square`` is the squared return of the bar, ``step`` the weight of what is new. The step first
    says how probable stress is now, then carries the sums of both states to this bar, and last
    reads new variances from them.
    """
    before = state[NOW, j]
    expected = state[AHEAD, j]
    odds = compute_stress_odds(square, expected, state[CALM_VARIANCE, j], state[STRESS_VARIANCE, j])
    now = odds / (odds + (1.0 - expected))

    # Given what is now: was it stress before?
    leave_stress = leave[1, j]
    before_if_calm = before * leave_stress / (1.0 - expected)
    before_if_stress = before * (1.0 - leave_stress) / expected
    carry_sums(state, j, before_if_calm, before_if_stress, 1.0 - step)

    # This bar counts for the state that it is in.
    state[TIME_IF_STRESS, j] += step
    state[CALM_IF_CALM, j] += step * square
    state[STRESS_IF_STRESS, j] += step * square

    write_variances(state, j, now)
    state[NOW, j] = now
    state[AHEAD, j] = now * (1.0 - leave_stress) + (1.0 - now) * leave[0, j]


def compute_stress_odds(
    square: float,
    expected: float,
    calm_variance: float,
    stress_variance: float,
) -> float:
    """Return the weight of stress after a return was seen, beside 1 - ``expected`` of calm.

    By Bayes' rule: the probability ``expected`` before the bar, times how much likelier normal
    returns of the variance of stress have this square than those of calm.
    """
    inverse = 1.0 / stress_variance
    exponent = 0.5 * square * (1.0 / calm_variance - inverse)
    scale = math.sqrt(calm_variance * inverse)
    return expected * scale * math.exp(min(exponent, MAX_EXPONENT))


def carry_sums(
    state: FloatArray,
    j: int,
    before_if_calm: float,
    before_if_stress: float,
    keep: float,
) -> None:
    """Write the sums of the bars before, on the paths that lead to calm and to stress now.

    Each sum has two rows, of paths to calm and to stress. A path to the state that is now came from
    either one: from stress with the probability ``before_if_calm``, or ``before_if_stress``. The
    past counts by ``keep``.
    """
    for row in (TIME_IF_CALM, CALM_IF_CALM, STRESS_IF_CALM):
        from_calm = state[row, j]
        from_stress = state[row + 1, j]
        state[row, j] = keep * average_states(from_calm, from_stress, before_if_calm)
        state[row + 1, j] = keep * average_states(from_calm, from_stress, before_if_stress)


def write_variances(state: FloatArray, j: int, now: float) -> None:
    """Write the variances of both states, by the sums and the probability of stress ``now``."""
    share = average_states(state[TIME_IF_CALM, j], state[TIME_IF_STRESS, j], now)
    calm_squares = average_states(state[CALM_IF_CALM, j], state[CALM_IF_STRESS, j], now)
    stress_squares = average_states(state[STRESS_IF_CALM, j], state[STRESS_IF_STRESS, j], now)

    calm_variance, stress_variance = split_variances(calm_squares, stress_squares, share)
    state[CALM_VARIANCE, j] = calm_variance
    state[STRESS_VARIANCE, j] = stress_variance


def start_learning(squares: FloatArray, leave: FloatArray, state: FloatArray) -> None:
    """Write what is remembered after the first START returns into ``state``, by lane.

    The variances of calm and of stress begin at half and at four times the mean square of these
    returns, and the probability of stress at its share of time in the long run.
    """
    total = 0.0
    for t in range(1, START + 1):
        total += squares[t]
    low, high = split_variances(0.25 * total / START, 2.0 * total / START, 0.5)

    for j in range(state.shape[1]):
        share = leave[0, j] / (leave[0, j] + leave[1, j])
        state[NOW, j] = share
        state[AHEAD, j] = share
        state[CALM_VARIANCE, j] = low
        state[STRESS_VARIANCE, j] = high

        # As if all bars before had been in the state that is now.
        state[TIME_IF_CALM, j] = 0.0
        state[TIME_IF_STRESS, j] = 1.0
        state[CALM_IF_CALM, j] = low
        state[CALM_IF_STRESS, j] = 0.0
        state[STRESS_IF_CALM, j] = 0.0
        state[STRESS_IF_STRESS, j] = high


def split_variances(
    calm_squares: float,
    stress_squares: float,
    share: float,
) -> tuple[float, float]:
    """Return the variances of calm and of stress, at least MIN_RATIO apart.

    ``share`` is that of stress in time. Nearer variances become one, split by the ratio.
    """
    calm = max(calm_squares / (1.0 - share), MIN_VARIANCE)
    stress = stress_squares / share
    if stress < MIN_RATIO * calm:
        mixed = (calm_squares + stress_squares) / (1.0 + (MIN_RATIO - 1.0) * share)
        calm = max(mixed, MIN_VARIANCE)
        stress = MIN_RATIO * calm
    return calm, stress


def average_states(calm: float, stress: float, probability: float) -> float:
    """Return a mean of two values, by the probability of stress."""
    return (1.0 - probability) * calm + probability * stress
