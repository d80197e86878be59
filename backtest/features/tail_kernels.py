"""Kernels for tail estimators: rolling quantiles and higher moments, for many values at once."""

from __future__ import annotations

import math

from backtest.base import FloatArray, IntArray
from backtest.features.rolling_kernels import BLOCK, exact_sum, transpose_tile, window_moments

KERNELS = ("tail_lane", "add_up_powers", "cornish_fisher_lanes")
LARGEST_SKEW = 6.0 * (math.sqrt(2.0) - 1.0)


def tail_lane(
    losses: FloatArray,
    top: float,
    size: float,
    order: IntArray,
    place: IntArray,
    held: FloatArray,
    value: FloatArray,
    shortfall: FloatArray,
) -> None:
    """Write quantiles and tail means of the last known losses to ``value`` and ``shortfall``.

    ``losses`` (n_bars,) that are NaN do not count. ``top`` is the rank of the quantile from the
    largest loss, at least 1; a fraction interpolates between two losses. ``size`` is the number of
    losses in the mean; the last one counts by a fraction. ``order`` and ``place`` (window,) hold
    the numbers from 0 on, ``held`` (window,) minus infinity; all three are used up. Results are NaN
    until as many losses are known as the window holds.
    """
    window, m = len(held), int(top)
    total, low = 0.0, 0.0
    known = 0
    for t in range(len(losses)):
        if losses[t] == losses[t]:
            entered, left = replace_loss(order, place, held, m, known % window, losses[t])
            known += 1
            total, lost = exact_sum(total, entered)
            low += lost
            if left > -math.inf:
                total, lost = exact_sum(total, -left)
                low += lost
        value[t], shortfall[t] = math.nan, math.nan
        if known >= window:
            least, following = held[order[0]], held[order[m]]
            more = (size - m) * (following if size > m else least)
            value[t] = least + (top - m) * (following - least)
            shortfall[t] = (total + low + more) / size


def replace_loss(
    order: IntArray, place: IntArray, held: FloatArray, m: int, slot: int, loss: float
) -> tuple[float, float]:
    before, at = held[slot], place[slot]
    held[slot] = loss
    was_tail = at < m
    root = m if was_tail else 0
    other = order[root]
    is_crossing = loss < held[other] if was_tail else loss > held[other]
    if is_crossing:
        order[at], place[other] = other, at
        order[root], place[slot] = slot, root
        sift_slot(order, place, held, m, root)
    sift_slot(order, place, held, m, at)
    if was_tail:
        return (held[other], before) if is_crossing else (loss, before)
    return (loss, held[other]) if is_crossing else (0.0, -math.inf)


def sift_slot(order: IntArray, place: IntArray, held: FloatArray, m: int, at: int) -> None:
    base, stop, sign = (0, m, 1.0) if at < m else (m, len(order), -1.0)
    slot = order[at]
    key = sign * held[slot]
    i = at - base
    while i > 0 and key < sign * held[order[base + (i - 1) // 2]]:
        set_slot(order, place, base + i, order[base + (i - 1) // 2])
        i = (i - 1) // 2
    while 2 * i + 1 < stop - base:
        child = base + 2 * i + 1
        if child + 1 < stop and sign * held[order[child + 1]] < sign * held[order[child]]:
            child += 1
        if not sign * held[order[child]] < key:
            break
        set_slot(order, place, base + i, order[child])
        i = child - base
    set_slot(order, place, base + i, slot)


def set_slot(order: IntArray, place: IntArray, at: int, slot: int) -> None:
    order[at], place[slot] = slot, at


def add_up_powers(returns: FloatArray, powers: FloatArray) -> None:
    """Write running sums of third and fourth powers, each with its error.

    ``powers`` has shape (4, n_bars). The first of the ``returns`` (n_bars,) does not count.
    """
    third, third_low, fourth, fourth_low = 0.0, 0.0, 0.0, 0.0
    powers[:, :1] = 0.0
    for t in range(1, len(returns)):
        square = returns[t] * returns[t]
        third, lost = exact_sum(third, square * returns[t])
        third_low += lost
        fourth, lost = exact_sum(fourth, square * square)
        fourth_low += lost
        powers[0, t], powers[1, t] = third, third_low
        powers[2, t], powers[3, t] = fourth, fourth_low


def cornish_fisher_lanes(
    sums: FloatArray,
    powers: FloatArray,
    windows: IntArray,
    horizons: FloatArray,
    quantiles: FloatArray,
    weights: FloatArray,
    side: FloatArray,
    tiles: FloatArray,
    value: FloatArray,
    shortfall: FloatArray,
) -> None:
    """Write value at risk and expected shortfall of the Cornish-Fisher expansion.

    ``value`` and ``shortfall`` (n_bars, k) are NaN until a window is full. ``sums`` comes from
    :func:`backtest.features.rolling_kernels.add_up`, ``powers`` from :func:`add_up_powers`.
    ``windows`` and ``horizons`` (k,) are in bars. ``quantiles`` and ``weights`` (k,) are the normal
    quantile z of each level, and its density there over 1 - level. ``side`` (n_bars,) is 1 for a
    long position and -1 for a short one. ``tiles`` (2, k, BLOCK) is scratch space.
    """
    n, k = value.shape
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        for j in range(k):
            mean, variance = tiles[0, j], tiles[1, j]
            window_moments(sums, windows[j], start, stop, mean, variance)
            for i in range(max(windows[j] - start, 0), stop - start):
                t, root = start + i, math.sqrt(horizons[j])
                square, skew, kurtosis = window_shape(
                    sums, powers, windows[j], t, mean[i], variance[i]
                )
                s, g = clip_moments(-side[t] * skew / root, kurtosis / horizons[j])
                scale = math.sqrt(square) * root
                z = quantiles[j]
                mean[i] = scale * expand_quantile(z, s, g)
                variance[i] = scale * weights[j] * expand_shortfall(z, s, g)
        transpose_tile(tiles[0], value, start, stop)
        transpose_tile(tiles[1], shortfall, start, stop)


def window_shape(
    sums: FloatArray, powers: FloatArray, window: int, t: int, mean: float, variance: float
) -> tuple[float, float, float]:
    n = float(window)
    second = variance * (n - 1.0) / n
    if not second > 0.0:
        return second, 0.0, 0.0
    q2 = window_sum(sums[2], sums[3], t, window) / n
    q3 = window_sum(powers[0], powers[1], t, window) / n
    q4 = window_sum(powers[2], powers[3], t, window) / n
    square = mean * mean
    third = q3 - 3.0 * mean * q2 + 2.0 * mean * square
    fourth = q4 - 4.0 * mean * q3 + 6.0 * square * q2 - 3.0 * square * square
    return second, third / (second * math.sqrt(second)), fourth / (second * second) - 3.0


def window_sum(sums: FloatArray, lows: FloatArray, t: int, window: int) -> float:
    total, lost = exact_sum(sums[t], -sums[t - window])
    whole: float = total + (lost + (lows[t] - lows[t - window]))
    return whole


def clip_moments(skew: float, kurtosis: float) -> tuple[float, float]:
    """Return the nearest skewness and excess kurtosis for which the expansion is monotone.

    4 (1 + 11 u - v) <= kurtosis <= 4 (1 + 11 u + v), u = (S / 6)^2, v = sqrt(u^2 - 6 u + 1).
    Source: Maillard (2018), A User's Guide to the Cornish Fisher Expansion, section 3.
    """
    s = min(max(skew, -LARGEST_SKEW), LARGEST_SKEW)
    u = s * s / 36.0
    middle, spread = 4.0 + 44.0 * u, 4.0 * math.sqrt(max(u * u - 6.0 * u + 1.0, 0.0))
    return s, min(max(kurtosis, middle - spread), middle + spread)


def expand_quantile(z: float, skew: float, kurtosis: float) -> float:
    square = z * z
    return (
        z
        + (square - 1.0) * skew / 6.0
        + (square - 3.0) * z * kurtosis / 24.0
        - (2.0 * square - 5.0) * z * skew * skew / 36.0
    )


def expand_shortfall(z: float, skew: float, kurtosis: float) -> float:
    """Return the mean of the expansion beyond z, relative to that of the normal distribution.

    From int_z^inf He_n(x) phi(x) dx = He_{n-1}(z) phi(z), and x = He_1, x^2 - 1 = He_2,
    x^3 - 3x = He_3, 2x^3 - 5x = 2 He_3 + He_1.
    """
    square = z * z
    return (
        1.0
        + z * skew / 6.0
        + (square - 1.0) * kurtosis / 24.0
        - (2.0 * square - 1.0) * skew * skew / 36.0
    )
