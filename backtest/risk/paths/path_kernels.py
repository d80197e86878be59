"""Kernels that write the bars of paths, one for each family of models.

Paths lie end to end in flat arrays: path p has the bars ``p * width`` to ``(p + 1) * width - 1``.
Its first bar is the last bar of history, which is already there; the kernels write the others.
Words are drawn by ``keys[p]``. ``mirrored`` is 1 for a path whose normal numbers are the opposite
of those of its key. ``loads`` join the draws of several instruments, see
:func:`backtest.risk.paths.draw_kernels.draw_joint`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from backtest.risk.paths.draw_kernels import (
    draw_extremes,
    draw_joint,
    draw_joint_student,
    draw_normal,
    draw_poisson,
    draw_uniform,
    grow,
    own_key,
    pick_key,
)

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray

KERNELS = ("walk_jumps", "walk_garch", "lay_marks", "walk_funding")

MOST_JUMPS = 40
FUNDING = np.uint64(0x8CB92BA72F3D8DD7)
MOST_MOVE = 0.9
"""The largest simple return of a bar in GARCH, in either direction."""
COMMON_PLACE = 61
"""Place of the word that says whether the jumps of a bar are common to all instruments."""


def write_prices(
    prices: FloatArray, i: int, last: float, x: float, high: float, low: float
) -> float:
    close: float = last * grow(x)
    prices[0, i] = last
    prices[1, i] = max(last * grow(high), last, close)
    prices[2, i] = min(last * grow(low), last, close)
    prices[3, i] = close
    return close


def cross_jumps(
    key: np.uint64,
    own: np.uint64,
    jump: np.uint64,
    t: int,
    terms: FloatArray,
    count: int,
    steps: int,
    is_mirrored: bool,
    loads: FloatArray,
) -> tuple[float, float, float]:
    at, high, low, rest = 0.0, 0.0, 0.0, 1.0
    for i in range(count + 1):
        place = 64 + 22 * i
        span = rest
        if i < count:
            left = count - i
            span = rest * (1.0 - math.exp(math.log(draw_uniform(jump, t, place)) / left))
        rest -= span
        variance = terms[1] * span
        move = terms[0] * span
        move += math.sqrt(variance) * draw_joint(key, t, place + 1, is_mirrored, loads)
        up, down = draw_extremes(own, t, place + 4, move, variance, steps, is_mirrored)
        high, low = max(high, at + up), min(low, at + down)
        at += move
        if i < count:
            at += terms[4] + terms[5] * draw_normal(jump, t, place + 3, False)
            high, low = max(high, at), min(low, at)
    return at, high, low


def walk_jumps(
    prices: FloatArray,
    keys: IntArray,
    mirrored: IntArray,
    width: int,
    steps: int,
    terms: FloatArray,
    loads: FloatArray,
) -> None:
    """Write paths of a Brownian motion with jumps.

    ``terms`` are, per bar: mean and variance of the continuous part, the expected number of jumps,
    the probability that those of a bar are common to all instruments, and mean and standard
    deviation of a jump.
    """
    mean, variance, jumps = terms[0], terms[1], terms[2]
    deviation = math.sqrt(variance)
    for p in range(len(mirrored)):
        is_mirrored = mirrored[p] != 0
        last = prices[3, p * width]
        for t in range(1, width):
            key = keys[p]
            own = pick_key(key, t, loads)
            jump, count = own_key(key, loads), 0
            if jumps > 0.0:
                if len(loads) > 2 and draw_uniform(key, t, COMMON_PLACE) < terms[3]:
                    jump = key
                count = min(draw_poisson(draw_uniform(jump, t, 1), jumps), MOST_JUMPS)
            if count == 0:
                x = mean + deviation * draw_joint(key, t, 0, is_mirrored, loads)
                high, low = draw_extremes(own, t, 32, x, variance, steps, is_mirrored)
            else:
                x, high, low = cross_jumps(
                    key, own, jump, t, terms, count, steps, is_mirrored, loads
                )
            last = write_prices(prices, p * width + t, last, x, high, low)


def walk_garch(
    prices: FloatArray,
    keys: IntArray,
    mirrored: IntArray,
    width: int,
    steps: int,
    terms: FloatArray,
    loads: FloatArray,
) -> None:
    """Write paths of a GARCH or GJR model with normal or Student's t innovations.

    ``terms``, per bar: growth, variance now, omega, alpha, gamma, beta, the degrees of freedom,
    infinite for the normal distribution, and the largest variance. Innovations are simple returns,
    cut at :data:`MOST_MOVE` on both sides: the exponential of Student's t has no mean.
    """
    growth, now, omega, alpha, gamma, beta, degrees = (
        terms[0], terms[1], terms[2], terms[3], terms[4], terms[5], terms[6],
    )  # fmt: skip
    for p in range(len(mirrored)):
        is_mirrored = mirrored[p] != 0
        last, variance = prices[3, p * width], now
        for t in range(1, width):
            key = keys[p]
            if math.isinf(degrees):
                z = draw_joint(key, t, 0, is_mirrored, loads)
            else:
                z = draw_joint_student(key, t, degrees, is_mirrored, loads)
            surprise = math.sqrt(variance) * z
            x = growth + math.log1p(min(max(surprise, -MOST_MOVE), MOST_MOVE))
            own = pick_key(key, t, loads)
            high, low = draw_extremes(own, t, 32, x, variance, steps, is_mirrored)
            last = write_prices(prices, p * width + t, last, x, high, low)
            weight = alpha + (gamma if surprise < 0.0 else 0.0)
            variance = min(omega + weight * surprise * surprise + beta * variance, terms[7])


def lay_marks(
    prices: FloatArray,
    marks: FloatArray,
    keys: IntArray,
    mirrored: IntArray,
    width: int,
    terms: FloatArray,
    loads: FloatArray,
) -> None:
    now, mean, keep, spread = terms[0], terms[1], terms[2], terms[3]
    for p in range(len(mirrored)):
        is_mirrored = mirrored[p] != 0
        before = now
        for t in range(1, width):
            z = draw_normal(pick_key(keys[p], t, loads), t, 8, is_mirrored)
            after = mean + keep * (before - mean) + spread * z
            i = p * width + t
            middle = grow(0.5 * (before + after))
            first, final = prices[0, i] * grow(before), prices[3, i] * grow(after)
            marks[0, i] = first
            marks[1, i] = max(prices[1, i] * middle, first, final)
            marks[2, i] = min(prices[2, i] * middle, first, final)
            marks[3, i] = final
            before = after


def walk_funding(
    rates: FloatArray,
    keys: IntArray,
    mirrored: IntArray,
    bars: IntArray,
    residuals: FloatArray,
    terms: FloatArray,
    loads: FloatArray,
) -> None:
    """Write the funding rates of paths: an autoregression on the last rate and three means.

    ``rates`` (n_paths, n_lags + n_stamps) hold the last settlements of history, then the residual
    of each settlement to come, which its rate replaces. NaN draws a residual from ``residuals``,
    which are sorted; a mirrored path takes the opposite one. ``bars`` (n_stamps,) are those of the
    settlements. ``terms``: the constant, four weights, the settlements in each of the four means
    (the last one is n_lags), and the largest rate.
    """
    n_lags, count, cap = int(terms[8]), len(residuals), terms[9]
    n_last, n_day, n_week = int(terms[5]), int(terms[6]), int(terms[7])
    for p in range(len(mirrored)):
        last, day, week, month = 0.0, 0.0, 0.0, 0.0
        for k in range(n_lags):
            last += rates[p, k] if k >= n_lags - n_last else 0.0
            day += rates[p, k] if k >= n_lags - n_day else 0.0
            week += rates[p, k] if k >= n_lags - n_week else 0.0
            month += rates[p, k]
        for j in range(len(bars)):
            k = n_lags + j
            shock = rates[p, k]
            if math.isnan(shock):
                u = draw_uniform(pick_key(keys[p], bars[j], loads) + FUNDING, j, 0)
                if mirrored[p] != 0:
                    u = 1.0 - u
                shock = residuals[min(int(u * count), count - 1)] if count > 0 else 0.0
            rate = terms[0] + terms[1] * last / n_last + terms[2] * day / n_day
            rate += terms[3] * week / n_week + terms[4] * month / n_lags + shock
            rate = min(max(rate, -cap), cap)
            rates[p, k] = rate
            last += rate - rates[p, k - n_last]
            day += rate - rates[p, k - n_day]
            week += rate - rates[p, k - n_week]
            month += rate - rates[p, k - n_lags]
