"""Normal distribution, in scalar functions that compile to vector instructions."""

from __future__ import annotations

import math

from backtest.base.elementary import (
    LN_2_HIGH,
    LN_2_LOW,
    PER_LN_2,
    SHIFT,
    exp_of_sum,
    upper_bits,
)

ROOT_TWO_PI = math.sqrt(2.0 * math.pi)
MILLS = (
    (
        1.1568486282918946,
        -0.0661776007789934,
        -0.004201290310663574,
        -2.48054584472145e-05,
        3.2197131609042185e-07,
        1.0082895646260188e-08,
        6.288377855498677e-11,
    ),
    (
        -0.2294875382521129,
        0.061505045841013566,
        1.953073289303005e-05,
        2.271112294988288e-05,
        4.968188503341836e-07,
        1.4010248782442869e-08,
        1.7327578943235103e-10,
    ),
    (
        0.07778159886873554,
        -0.038026592187762366,
        0.00045704381820007954,
        -1.7723438185601556e-07,
        -6.738323465177047e-08,
        -1.0846925288860795e-09,
        0.0,
    ),
    (
        0.025072179301611947,
        0.0163482312692141,
        -0.0001343747460125513,
        -3.280567012895583e-06,
        -8.232321223515427e-08,
        -2.039456977423449e-09,
        0.0,
    ),
)
"""Coefficients of (1 + z) R(z) as a polynomial in y = (z - 5) / (z + 5), R being Mills' ratio.

Row k holds those of y^k, y^(k + 4), ...: four short sums instead of one long one. Chebyshev
interpolation of degree 25, computed with 50 digits and written as powers."""


def mills_ratio(z: float) -> float:
    """Return (1 - Phi(z)) / phi(z) for z >= 0: the upper tail over the density."""
    y = (z - 5.0) / (z + 5.0)
    square = y * y
    fourth = square * square
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    for k in range(6, -1, -1):
        a = a * fourth + MILLS[0][k]
        b = b * fourth + MILLS[1][k]
        c = c * fourth + MILLS[2][k]
        d = d * fourth + MILLS[3][k]
    return ((a + b * y) + square * (c + d * y)) / (1.0 + z)


def normal_density(z: float) -> float:
    """Return the density of the standard normal distribution.

    z is split so that its square loses nothing: exp of a rounded square would be wrong by half of
    ``z**2`` units in the last place.
    """
    z = float(z)
    size = min(40.0, abs(z))
    high = upper_bits(size)
    low = (size - high) * (size + high)
    square = 0.5 * high * high
    shifted = SHIFT - square * PER_LN_2
    k = shifted - SHIFT
    value = exp_of_sum(shifted, -square - k * LN_2_HIGH, -0.5 * low - k * LN_2_LOW) / ROOT_TWO_PI
    return value if z == z else z  # noqa: PLR0124 - NaN


def normal_cdf(z: float) -> float:
    """Return the distribution function of the standard normal distribution."""
    z = float(z)
    tail = mills_ratio(min(40.0, abs(z))) * normal_density(z)
    return tail if z < 0.0 else 1.0 - tail
