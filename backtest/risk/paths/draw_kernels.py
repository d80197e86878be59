"""Random numbers by counter, and the extremes of a Brownian motion inside a bar.

The hash is the output function of SplitMix64 on an arithmetic sequence. Source: Steele, Lea and
Flood (2014), Fast Splittable Pseudorandom Number Generators, OOPSLA 49(10).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from backtest.base import FloatArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FIRST = np.uint64(0xBF58476D1CE4E5B9)
SECOND = np.uint64(0x94D049BB133111EB)
PLACES = np.uint64(1024)
ONE = np.uint64(1)
S27, S30, S31, S11 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(11)
UNIT = 2.0**-53
SPREAD = np.uint64(0xD1B54A32D192ED03)
PICK_PLACE, CHI_PLACE = 60, 10
"""Places of the words that pick a key, and of those of a chi-square number."""


def draw_uniform(key: np.uint64, bar: int, place: int) -> float:
    word = key + GOLDEN * (np.uint64(bar) * PLACES + np.uint64(place) + ONE)
    word = (word ^ (word >> S30)) * FIRST
    word = (word ^ (word >> S27)) * SECOND
    word = word ^ (word >> S31)
    return (np.int64(word >> S11) + 0.5) * UNIT


def find_normal(u: float) -> float:
    """Return the quantile of the standard normal distribution, to a relative 1e-15.

    Source: Wichura (1988), Algorithm AS 241, Applied Statistics 37(3), PPND16.
    """
    q = u - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        above = (
            ((((((2.5090809287301226727e3 * r + 3.3430575583588128105e4) * r
            + 6.7265770927008700853e4) * r + 4.5921953931549871457e4) * r
            + 1.3731693765509461125e4) * r + 1.9715909503065514427e3) * r
            + 1.3314166789178437745e2) * r + 3.3871328727963666080e0
        )  # fmt: skip
        below = (
            ((((((5.2264952788528545610e3 * r + 2.8729085735721942674e4) * r
            + 3.9307895800092710610e4) * r + 2.1213794301586595867e4) * r
            + 5.3941960214247511077e3) * r + 6.8718700749205790830e2) * r
            + 4.2313330701600911252e1) * r + 1.0
        )  # fmt: skip
        return q * above / below
    r = math.sqrt(-math.log(u if q < 0.0 else 1.0 - u))
    if r <= 5.0:
        r -= 1.6
        above = (
            ((((((7.74545014278341407640e-4 * r + 2.27238449892691845833e-2) * r
            + 2.41780725177450611770e-1) * r + 1.27045825245236838258e0) * r
            + 3.64784832476320460504e0) * r + 5.76949722146069140550e0) * r
            + 4.63033784615654529590e0) * r + 1.42343711074968357734e0
        )  # fmt: skip
        below = (
            ((((((1.05075007164441684324e-9 * r + 5.47593808499534494600e-4) * r
            + 1.51986665636164571966e-2) * r + 1.48103976427480074590e-1) * r
            + 6.89767334985100004550e-1) * r + 1.67638483018380384940e0) * r
            + 2.05319162663775882187e0) * r + 1.0
        )  # fmt: skip
    else:
        r -= 5.0
        above = (
            ((((((2.01033439929228813265e-7 * r + 2.71155556874348757815e-5) * r
            + 1.24266094738807843860e-3) * r + 2.65321895265761230930e-2) * r
            + 2.96560571828504891230e-1) * r + 1.78482653991729133580e0) * r
            + 5.46378491116411436990e0) * r + 6.65790464350110377720e0
        )  # fmt: skip
        below = (
            ((((((2.04426310338993978564e-15 * r + 1.42151175831644588870e-7) * r
            + 1.84631831751005468180e-5) * r + 7.86869131145613259100e-4) * r
            + 1.48753612908506148525e-2) * r + 1.36929880922735805310e-1) * r
            + 5.99832206555887937690e-1) * r + 1.0
        )  # fmt: skip
    return -above / below if q < 0.0 else above / below


def draw_normal(key: np.uint64, bar: int, place: int, is_mirrored: bool) -> float:
    z = find_normal(draw_uniform(key, bar, place))
    return -z if is_mirrored else z


def draw_student(key: np.uint64, bar: int, place: int, degrees: float, is_mirrored: bool) -> float:
    """Return a number of Student's t with unit variance; of two words, at place and place + 1.

    Source: Bailey (1994), Polar Generation of Random Variates with the t-Distribution, Mathematics
    of Computation 62. ``degrees`` is over 2.
    """
    spread = math.exp(-2.0 / degrees * math.log(draw_uniform(key, bar, place))) - 1.0
    angle = 2.0 * math.pi * draw_uniform(key, bar, place + 1)
    t = math.sqrt((degrees - 2.0) * spread) * math.cos(angle)
    return -t if is_mirrored else t


def own_key(key: np.uint64, loads: FloatArray) -> np.uint64:
    return key + SPREAD * np.uint64(int(loads[0]))


def pick_key(key: np.uint64, bar: int, loads: FloatArray) -> np.uint64:
    if len(loads) == 2 or draw_uniform(key, bar, PICK_PLACE) < loads[1]:
        return key
    return own_key(key, loads)


def draw_joint(key: np.uint64, bar: int, place: int, is_mirrored: bool, loads: FloatArray) -> float:
    if len(loads) == 2:
        return draw_normal(key, bar, place, is_mirrored)
    total = 0.0
    for j in range(1, len(loads)):
        if loads[j] != 0.0:
            own = key + SPREAD * np.uint64(j - 1)
            total += loads[j] * draw_normal(own, bar, place, is_mirrored)
    return total


def draw_chi_square(key: np.uint64, bar: int, degrees: float) -> float:
    """Return a chi-square number with over 2 degrees of freedom, by rejection.

    Source: Marsaglia and Tsang (2000), A Simple Method for Generating Gamma Variables, ACM
    Transactions on Mathematical Software 26(3).
    """
    d = 0.5 * degrees - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    v = 1.0
    for i in range(10):
        x = draw_normal(key, bar, CHI_PLACE + 2 * i, False)
        root = 1.0 + c * x
        if root > 0.0:
            v = root * root * root
            u = draw_uniform(key, bar, CHI_PLACE + 2 * i + 1)
            if math.log(u) < 0.5 * x * x + d - d * v + d * math.log(v):
                break
    return 2.0 * d * v


def draw_joint_student(
    key: np.uint64, bar: int, degrees: float, is_mirrored: bool, loads: FloatArray
) -> float:
    if len(loads) == 2:
        return draw_student(key, bar, 0, degrees, is_mirrored)
    z = draw_joint(key, bar, 0, is_mirrored, loads)
    return z * math.sqrt((degrees - 2.0) / draw_chi_square(key, bar, degrees))


def draw_poisson(u: float, mean: float) -> int:
    count, term = 0, math.exp(-mean)
    total = term
    while u > total and count < 1000:
        count += 1
        term *= mean / count
        total += term
    return count


def grow(x: float) -> float:
    """Return exp(x); by its series, to 1e-16, for the small moves of a bar, which is faster."""
    if abs(x) > 0.0625:
        return math.exp(x)
    even = x * x
    low = (1.0 + x) + even * (0.5 + x * (1.0 / 6.0))
    middle = (1.0 / 24.0 + x * (1.0 / 120.0)) + even * (1.0 / 720.0 + x * (1.0 / 5040.0))
    high = 1.0 / 40320.0 + x * (1.0 / 362880.0)
    fourth = even * even
    return low + fourth * (middle + fourth * high)


def find_top(x: float, variance: float, u: float) -> float:
    """Return the highest point of a Brownian bridge from 0 to x, by its quantile.

    P(M >= m) = exp(-2 m (m - x) / v) for m >= max(0, x).
    """
    return 0.5 * (x + math.sqrt(x * x - 2.0 * variance * math.log(u)))


def draw_extremes(
    key: np.uint64, bar: int, place: int, x: float, variance: float, steps: int, is_mirrored: bool
) -> tuple[float, float]:
    if steps == 1:
        up, down = draw_uniform(key, bar, place), draw_uniform(key, bar, place + 1)
        if is_mirrored:
            up, down = down, up
        return find_top(x, variance, up), -find_top(-x, variance, down)
    mean = 0.0
    for i in range(steps):
        mean += draw_normal(key, bar, place + 3 * i, is_mirrored)
    mean /= steps
    share, at, high, low = variance / steps, 0.0, 0.0, 0.0
    deviation = math.sqrt(share)
    for i in range(steps):
        j = place + 3 * i
        move = x / steps + deviation * (draw_normal(key, bar, j, is_mirrored) - mean)
        up, down = draw_uniform(key, bar, j + 1), draw_uniform(key, bar, j + 2)
        if is_mirrored:
            up, down = down, up
        high = max(high, at + find_top(move, share, up))
        low = min(low, at - find_top(-move, share, down))
        at += move
    return high, low
