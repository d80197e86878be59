"""Exponential, logarithm and power, in scalar functions that compile to vector instructions.

Sources: the reductions of arguments are those of Sun's fdlibm (1993); the polynomials are minimax
(Remez), computed with 60 digits.
"""

from __future__ import annotations

import math

import numpy as np

LN_2_HIGH, LN_2_LOW = 0.6931471804855391, 7.440617110012397e-11
"""ln 2 in two parts; the first has 32 bits, so its product with an exponent is exact."""
PER_LN_2 = 1.4426950408889634
SHIFT = 6755399441055744.0
"""1.5 * 2^52: a sum with it is a whole number, in the low bits of its mantissa."""
SHIFT_BITS = 4843621399236968448
ONE_BITS = 4607182418800017408
"""The bits of SHIFT and of 1.0."""
INFINITY_BITS = 9218868437227405312
ROOT_HALF_BITS = 4604544271217802189
"""The bits of the root of 1/2; mantissas are taken from there to twice as much."""
HIGH_BITS = -134217728
"""Mask of the upper 26 bits of a mantissa: products of two such numbers are exact."""
SIGN_BIT = -9223372036854775808
SMALLEST_NORMAL = 2.2250738585072014e-308
TWO_54 = 18014398509481984.0
TWO_53 = 9007199254740992.0
UNDERFLOW, OVERFLOW = -1082.0, 1039.0
"""Exponents of 2 at which a power of it is zero, and infinite."""
LARGEST_FACTOR = 7.378697629483821e19
"""2^66: to this power, every number but 1 is infinite or zero."""


def bits_of(x: float) -> int:
    return int(np.float64(x).view(np.int64))


def float_of(bits: int) -> float:
    return float(np.int64(bits).view(np.float64))


def exp(x: float) -> float:
    """Return e to the power of x."""
    x = float(x)
    near = min(OVERFLOW * LN_2_HIGH, max(UNDERFLOW * LN_2_HIGH, x))  # in this order NaN is a limit
    shifted = near * PER_LN_2 + SHIFT
    k = shifted - SHIFT
    value = exp_of_sum(shifted, near - k * LN_2_HIGH, -k * LN_2_LOW)
    return value if x == x else x  # noqa: PLR0124 - NaN


def exp_of_sum(shifted: float, first: float, second: float) -> float:
    r = first + second
    r2 = r * r
    r4 = r2 * r2
    start = (0.5000000000000012 + 0.166666666666667 * r) + r2 * (
        0.041666666666515445 + 0.008333333333307092 * r
    )
    middle = (0.001388888894701036 + 0.00019841269917606098 * r) + r2 * (
        2.48014899473767e-05 + 2.755721612284035e-06 * r
    )
    end = 2.763127868147186e-07 + 2.511791108328988e-08 * r
    series = (start + r4 * middle) + (r4 * r4) * end
    value = 1.0 + (first + (second + r2 * series))
    whole = bits_of(shifted) - SHIFT_BITS
    half = whole >> 1
    one, other = (half << 52) + ONE_BITS, ((whole - half) << 52) + ONE_BITS
    return value * float_of(one) * float_of(other)


def split_float(x: float) -> tuple[float, float]:
    """Return the mantissa m, in [0.707, 1.414], and the exponent k of x = m 2^k, for x > 0."""
    is_small = x < SMALLEST_NORMAL
    bits = bits_of(x * TWO_54 if is_small else x)
    k = (bits - ROOT_HALF_BITS) >> 52
    exponent = float_of(k + SHIFT_BITS) - SHIFT
    exponent = exponent - 54.0 if is_small else exponent
    return float_of(bits - (k << 52)), exponent


def log_series(z: float) -> float:
    """Return (2 artanh(s) - 2 s) / s for z = s^2, s being (m - 1) / (m + 1)."""
    z2 = z * z
    start = (0.6666666666666734 + 0.39999999999414293 * z) + z2 * (
        0.28571428742478916 + 0.22222198563178341 * z
    )
    end = (0.18183564881529293 + 0.15314035427741873 * z) + z2 * 0.1479611005034336
    return z * start + (z * (z2 * z2)) * end


def log(x: float) -> float:
    """Return the natural logarithm of x; -inf of 0, NaN of a negative number."""
    x = float(x)
    m, k = split_float(x)
    f = m - 1.0
    s = f / (m + 1.0)
    half = 0.5 * f * f
    rest = s * (half + log_series(s * s)) + k * LN_2_LOW
    value = k * LN_2_HIGH - ((half - rest) - f)
    value = x if x == math.inf else value
    value = -math.inf if x == 0.0 else value
    return value if x >= 0.0 else math.nan


def upper_bits(x: float) -> float:
    return float_of(bits_of(x) & HIGH_BITS)


def log_in_two(x: float) -> tuple[float, float]:
    """Return the logarithm of x > 0 as the sum of a float and one of at most 1 % of it.

    s = (m - 1) / (m + 1) is followed to 78 bits, so the sum is right to a relative 2^-58.
    """
    m, k = split_float(x)
    f, d = m - 1.0, m + 1.0
    inverse = 1.0 / d
    s = f * inverse
    s_high, d_high = upper_bits(s), upper_bits(d)
    d_low = m - (d_high - 1.0)
    s_low = ((f - s_high * d_high) - s_high * d_low) * inverse
    far, near = k * LN_2_HIGH, 2.0 * s_high
    value = far + near
    lost = (near - (value - far)) + k * LN_2_LOW
    return value, (lost + 2.0 * s_low) + s * log_series(s * s)


def power(x: float, y: float) -> float:
    """Return x to the power of y, as ``math.pow`` does; NaN where that raises or is complex.

    x to the power of 0, 1/2, 1, 3/2, 2 and 3 is what multiplications and the square root give. At
    all other whole and half powers up to 4, a result that is a float is exact.
    """
    x, y = float(x), float(y)
    if y == 1.0:  # the usual power: a single run skips the rest, lanes choose
        return x
    value = short_power(abs(x), y, general_power(abs(x), y))
    near = min(TWO_53, abs(y))
    beyond = abs(near - ((near + TWO_53) - TWO_53))
    is_odd = beyond == 1.0
    is_complex = (-math.inf < x) & (x < 0.0) & (beyond != 0.0) & (not is_odd)
    value = float_of(bits_of(value) ^ (bits_of(x) & SIGN_BIT)) if is_odd else value
    value = math.nan if is_complex else value
    return 1.0 if (y == 0.0) | (x == 1.0) else value


def general_power(size: float, y: float) -> float:
    high, low = log_in_two(size)
    factor = LARGEST_FACTOR if y > LARGEST_FACTOR else y
    factor = -LARGEST_FACTOR if factor < -LARGEST_FACTOR else factor
    exponent = (high + low) * (factor * PER_LN_2)
    shifted = min(OVERFLOW, max(UNDERFLOW, exponent)) + SHIFT
    k = shifted - SHIFT
    factor_high, high_high = upper_bits(factor), upper_bits(high)
    rest = (factor - factor_high) * high_high + factor * ((high - high_high) + low)
    value = exp_of_sum(shifted, factor_high * high_high - k * LN_2_HIGH, rest - k * LN_2_LOW)
    value = value if exponent < OVERFLOW else exponent * math.inf
    value = 0.0 if exponent <= UNDERFLOW else value
    edge = size if y > 0.0 else float_of(INFINITY_BITS - bits_of(size))  # 0 and inf change places
    edge = edge if y == y else y  # noqa: PLR0124 - NaN
    return value if (size > 0.0) & (size < math.inf) else edge


def short_power(size: float, y: float, otherwise: float) -> float:
    """Return the power for y = 1/2, 3/2, 2 and 3."""
    square, root = size * size, math.sqrt(size)
    value = root if y == 0.5 else otherwise
    value = size * root if y == 1.5 else value
    value = square if y == 2.0 else value
    return square * size if y == 3.0 else value
