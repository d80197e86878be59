"""Exponential, logarithm, power and the normal distribution, in scalar functions.

They compile to vector instructions. Sources: the reductions of arguments are those of Sun's fdlibm
(1993); the polynomials are minimax (Remez), computed with 60 digits. :class:`Number` is the number
of formulas in plain Python.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

HAS_COMPILED_VERSIONS = True
"""Compiled code has other functions for those of this module, of the same names."""

LN_2_HIGH, LN_2_LOW = 0.6931471804855391, 7.440617110012397e-11
"""ln 2 in two parts; the first has 32 bits, so its product with an exponent is exact."""
PER_LN_2 = 1.4426950408889634
SHIFT = 6755399441055744.0
"""1.5 * 2^52: a sum with it is a whole number, in the low bits of its mantissa.

So ``(x + SHIFT) - SHIFT`` is x rounded, and the bits of ``x + SHIFT`` less those of SHIFT are that
whole number as an integer: two ways to round that, unlike ``int``, compile to vectors."""
SHIFT_BITS = 4843621399236968448
ONE_BITS = 4607182418800017408
"""The bits of SHIFT and of 1.0."""
INFINITY_BITS = 9218868437227405312
ROOT_HALF_BITS = 4604544271217802189
"""The bits of the root of 1/2; mantissas are taken from there to twice as much."""
HIGH_BITS = -134217728
"""Mask of the upper 26 bits of a mantissa: products of two such numbers are exact."""
SIGN_BIT = -9223372036854775808
"""The integer whose only bit is the sign of a float."""
MIN_NORMAL = 2.2250738585072014e-308
TWO_54 = 18014398509481984.0
TWO_52 = 4503599627370496.0
TWO_53 = 9007199254740992.0
"""2^53: floats from here to 2^54 are the even whole numbers, so a sum with it rounds to even."""
UNDERFLOW, OVERFLOW = -1082.0, 1039.0
"""Exponents of 2 at which a power of it is zero, and infinite."""
MAX_FACTOR = 7.378697629483821e19
"""2^66: to this power, every number but 1 is infinite or zero."""


def bits_of(x: float) -> int:
    """Return the 64 bits of a float as an integer."""
    return int(np.float64(x).view(np.int64))


def float_of(bits: int) -> float:
    """Return the float that has the 64 bits of an integer."""
    return float(np.int64(bits).view(np.float64))


def exp(x: float) -> float:
    """Return e^x as 2^k e^r: k is x / ln 2 rounded to a whole number, and r = x - k ln 2."""
    x = float(x)
    # Cut to where the result is 0 or infinite anyway. In this order of min and max NaN becomes a
    # limit, and the last line gives NaN back.
    near = min(OVERFLOW * LN_2_HIGH, max(UNDERFLOW * LN_2_HIGH, x))
    # Adding SHIFT rounds to a whole number, and subtracting it gives that number back.
    shifted = near * PER_LN_2 + SHIFT
    k = shifted - SHIFT
    value = exp_of_sum(shifted, near - k * LN_2_HIGH, -k * LN_2_LOW)
    return value if x == x else x  # noqa: PLR0124 - NaN


def exp_of_sum(shifted: float, first: float, second: float) -> float:
    """Return e to the power of first + second, times 2^k.

    ``shifted`` is k + SHIFT, whose low bits are the whole number k. The sum is at most half of
    ln 2; ``second`` is the part that ``first`` loses. The power of 2 is two factors, since one
    alone may be out of range where the product is not. Only additions, products and shifts of bits,
    so that compiled code does many numbers at once.

    The coefficients are those of the Taylor series, 1 / n!, moved in their last digits so that the
    largest error of the polynomial is smallest (minimax). The order of sums is part of the result.
    """
    # e^r = 1 + r + r^2 (1/2 + r/6 + r^2/24 ...). The polynomial in three parts, of r^0 to r^3, from
    # r^4 and from r^8 on, which do not wait for each other.
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

    # 2^k. The bits of a float are its mantissa and, from bit 52 on, its exponent: n << 52 added to
    # the bits of 1.0 makes 2^n. The bits of k + SHIFT less those of SHIFT are k.
    exponent = bits_of(shifted) - SHIFT_BITS
    half = exponent >> 1
    half_power = float_of((half << 52) + ONE_BITS)
    other_power = float_of(((exponent - half) << 52) + ONE_BITS)
    return value * half_power * other_power


def split_float(x: float) -> tuple[float, float]:
    """Return m in [0.707, 1.414] and the whole number k, as a float, of x = m 2^k, for x > 0.

    The bits of a float, read as an integer, are its mantissa and, from bit 52 on, its exponent. So
    subtracting k << 52 from them divides the float by 2^k.
    """
    # Floats below MIN_NORMAL store no exponent, so they are multiplied by 2^54 first.
    is_small = x < MIN_NORMAL
    bits = bits_of(x * TWO_54 if is_small else x)

    # k is such that x / 2^k lies between the root of 1/2 and twice that.
    k = (bits - ROOT_HALF_BITS) >> 52
    # The bits of SHIFT plus a whole number k are the float SHIFT + k: so k becomes a float.
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
    """Return the natural logarithm of x; -inf of 0, NaN of a negative number.

    With x = m 2^k and f = m - 1 it is k ln 2 + ln(1 + f), as in fdlibm: ln(1 + f) is
    f - f^2 / 2 + s (f^2 / 2 + series) with s = f / (2 + f).
    """
    x = float(x)
    m, k = split_float(x)
    f = m - 1.0
    s = f / (m + 1.0)
    half = 0.5 * f * f

    # The small parts are summed first, so that rounding is that of the largest alone.
    rest = s * (half + log_series(s * s)) + k * LN_2_LOW
    value = k * LN_2_HIGH - ((half - rest) - f)

    # Chosen, not branched, so that the loop over many numbers stays a vector.
    value = x if x == math.inf else value
    value = -math.inf if x == 0.0 else value
    return value if x >= 0.0 else math.nan


def upper_bits(x: float) -> float:
    """Return x cut to the upper half of its mantissa: the product of two such numbers is exact."""
    return float_of(bits_of(x) & HIGH_BITS)


def log_in_two(x: float) -> tuple[float, float]:
    """Return ln(x) for x > 0 as a sum of two floats: the value, and what its rounding lost.

    A power multiplies the logarithm by its exponent, and its error too, so one float is not enough:
    the sum of both is right to a relative 2^-58. With x = m 2^k and s = (m - 1) / (m + 1)::

        ln(x) = k ln 2 + 2 artanh(s) = k ln 2 + 2 s + s * series(s^2)

    The two large terms, k ln 2 and 2 s, are each kept as a high and a low part. The low parts are
    found from the rounded results of earlier lines. So do not reorder operations or brackets here.
    """
    m, k = split_float(x)
    f = m - 1.0
    d = m + 1.0
    inverse = 1.0 / d
    s = f * inverse

    # s = s_high + s_low. s_high are the upper bits of s, and s_low is what they leave of the
    # quotient f / d: (f - s_high d) / d. To compute that without rounding, d is split too, as
    # d_high + d_low; products of two upper halves are exact. d_low is found from m, so that it also
    # has what rounding took from m + 1.
    s_high = upper_bits(s)
    d_high = upper_bits(d)
    d_low = m - (d_high - 1.0)
    s_low = ((f - s_high * d_high) - s_high * d_low) * inverse

    # The sum of the two high parts. ``value - far`` is the part of ``near`` that the sum kept, so
    # ``lost`` is what its rounding dropped, with the low part of k ln 2.
    far = k * LN_2_HIGH
    near = 2.0 * s_high
    value = far + near
    lost = (near - (value - far)) + k * LN_2_LOW
    return value, (lost + 2.0 * s_low) + s * log_series(s * s)


def power(x: float, y: float) -> float:
    """Return x to the power of y, as ``math.pow`` does; NaN where that raises or is complex.

    x to the power of 0, 1/2, 1, 3/2, 2 and 3 is what multiplications and the square root give. At
    all other whole and half powers up to 4, a result that is a float is exact. The power is
    computed of the size of x; then come its sign, and the cases that have none, each choice over
    the ones before: the last, an exponent of 0 or a base of 1, wins over NaN.
    """
    x = float(x)
    y = float(y)
    if y == 1.0:  # the usual power: a single run skips the rest, lanes choose
        return x
    value = short_power(abs(x), y, general_power(abs(x), y))

    # How far y is from the nearest even number: 0 if y is even, 1 if odd, between if not whole.
    # The sum with 2^53 rounds to an even number; every y from there on is even itself.
    size = min(TWO_53, abs(y))
    nearest_even = (size + TWO_53) - TWO_53
    from_even = abs(size - nearest_even)
    is_odd = from_even == 1.0
    is_whole = is_odd | (from_even == 0.0)

    # The power of a size so far. To an odd y it takes the sign of x, also of -0; a negative number
    # to a y that is not whole is complex, except -inf, of which pow has the size alone.
    # Chosen, not branched, so that the loop over many numbers stays a vector.
    with_sign = float_of(bits_of(value) ^ (bits_of(x) & SIGN_BIT))
    value = with_sign if is_odd else value
    is_complex = (-math.inf < x) & (x < 0.0) & (not is_whole)
    value = math.nan if is_complex else value
    return 1.0 if (y == 0.0) | (x == 1.0) else value


def general_power(size: float, y: float) -> float:
    """Return size to the power of y, as e^(y ln(size)), for a size of at least 0.

    Logarithm and product are in two parts, high and low: an error of the exponent, times its size,
    is one of the result. With y ln(size) = k ln 2 + r, it is 2^k e^r, as in :func:`exp`. All cases
    are computed and then chosen, without a branch, so that a loop over many numbers stays a vector.
    """
    # To a y beyond MAX_FACTOR every number but 1 is 0 or infinite: y is cut there, as a larger one
    # would leave no bits for the low part.
    log_high, log_low = log_in_two(size)
    factor = MAX_FACTOR if y > MAX_FACTOR else y
    factor = -MAX_FACTOR if factor < -MAX_FACTOR else factor

    # The result is 2^k times a number near 1: k is the exponent of 2, rounded by SHIFT.
    exponent = (log_high + log_low) * (factor * PER_LN_2)
    shifted = min(OVERFLOW, max(UNDERFLOW, exponent)) + SHIFT
    k = shifted - SHIFT

    # The product y ln(size), less k ln 2, in two parts. That of the upper halves is exact, as each
    # has at most 26 bits; all other products are small, and their rounding is of no weight.
    factor_upper = upper_bits(factor)
    log_upper = upper_bits(log_high)
    product = factor_upper * log_upper
    product_low = (factor - factor_upper) * log_upper + factor * ((log_high - log_upper) + log_low)
    value = exp_of_sum(shifted, product - k * LN_2_HIGH, product_low - k * LN_2_LOW)

    # Beyond the range of floats, the sign of the exponent says which end.
    value = value if exponent < OVERFLOW else exponent * math.inf
    value = 0.0 if exponent <= UNDERFLOW else value

    # 0 and infinity have no logarithm: they stay, or change places where y is negative. The bits of
    # 0 are 0, so INFINITY_BITS less the bits of the one are those of the other.
    at_end = size if y > 0.0 else float_of(INFINITY_BITS - bits_of(size))
    at_end = at_end if y == y else y  # noqa: PLR0124 - NaN
    return value if (size > 0.0) & (size < math.inf) else at_end


def short_power(size: float, y: float, otherwise: float) -> float:
    """Return size^y for y = 1/2, 3/2, 2 and 3, computed by products and a root; else ``otherwise``.

    Chosen, not branched, so that a loop over many numbers stays a vector.
    """
    square = size * size
    root = math.sqrt(size)
    value = root if y == 0.5 else otherwise
    value = size * root if y == 1.5 else value
    value = square if y == 2.0 else value
    return square * size if y == 3.0 else value


ROOT_TWO_PI = math.sqrt(2.0 * math.pi)
MILLS = (
    (1.1568486282918946, -0.0661776007789934, -0.004201290310663574, -2.48054584472145e-05,
     3.2197131609042185e-07, 1.0082895646260188e-08, 6.288377855498677e-11),
    (-0.2294875382521129, 0.061505045841013566, 1.953073289303005e-05, 2.271112294988288e-05,
     4.968188503341836e-07, 1.4010248782442869e-08, 1.7327578943235103e-10),
    (0.07778159886873554, -0.038026592187762366, 0.00045704381820007954, -1.7723438185601556e-07,
     -6.738323465177047e-08, -1.0846925288860795e-09, 0.0),
    (0.025072179301611947, 0.0163482312692141, -0.0001343747460125513, -3.280567012895583e-06,
     -8.232321223515427e-08, -2.039456977423449e-09, 0.0),
)  # fmt: skip
"""Coefficients of (1 + z) R(z) as a polynomial in y = (z - 5) / (z + 5), R being Mills' ratio.

Row k holds those of y^k, y^(k + 4), ...: four short sums instead of one long one. Chebyshev
interpolation of degree 25, computed with 50 digits and written as powers."""


def mills_ratio(z: float) -> float:
    """Return (1 - Phi(z)) / phi(z) for z >= 0: the upper tail of the normal law over its density.

    By the polynomial whose coefficients :data:`MILLS` has, in powers of y = (z - 5) / (z + 5): four
    sums by Horner's rule in y^4, which compiled code computes side by side.
    """
    y = (z - 5.0) / (z + 5.0)
    square = y * y
    fourth = square * square

    # The sums of the terms of y^0, y^4, ...; of y^1, y^5, ...; and so on, over their first power.
    sum_0 = 0.0
    sum_1 = 0.0
    sum_2 = 0.0
    sum_3 = 0.0
    for k in range(6, -1, -1):
        sum_0 = sum_0 * fourth + MILLS[0][k]
        sum_1 = sum_1 * fourth + MILLS[1][k]
        sum_2 = sum_2 * fourth + MILLS[2][k]
        sum_3 = sum_3 * fourth + MILLS[3][k]
    return ((sum_0 + sum_1 * y) + square * (sum_2 + sum_3 * y)) / (1.0 + z)


def normal_density(z: float) -> float:
    """Return the density of the standard normal distribution, e^(-z^2 / 2) / sqrt(2 pi).

    Rounding z^2 to one float would cost accuracy: for a large z the exponential turns it into an
    error of z^2 / 2 units in the last place. So z^2 is kept as the sum of two floats, and the
    exponential is computed of both.
    """
    z = float(z)
    # z^2 = high^2 + low. ``high`` has the upper half of the bits of z, so its square is exact.
    # Beyond 40 the density is less than the least float, so larger sizes are as good as 40.
    size = min(40.0, abs(z))
    high = upper_bits(size)
    low = (size - high) * (size + high)

    # e^(-z^2 / 2) = 2^k e^r: k is the whole number next to -high^2 / 2 / ln 2, and r, the rest, is
    # the sum of ``first`` and ``second``. Adding SHIFT rounds to a whole number, and subtracting it
    # gives that number back. k ln 2 is taken off in two parts, as one float has too few digits of
    # ln 2.
    half_square = 0.5 * high * high
    shifted = SHIFT - half_square * PER_LN_2
    k = shifted - SHIFT
    first = -half_square - k * LN_2_HIGH
    second = -0.5 * low - k * LN_2_LOW
    value = exp_of_sum(shifted, first, second) / ROOT_TWO_PI
    return value if z == z else z  # noqa: PLR0124 - NaN


def normal_cdf(z: float) -> float:
    """Return the distribution function of the standard normal distribution."""
    z = float(z)
    tail = mills_ratio(min(40.0, abs(z))) * normal_density(z)
    return tail if z < 0.0 else 1.0 - tail


WHOLE = (int, np.integer)
NUMBER = (float, np.floating, *WHOLE)
SHORT = (0.5, 1.5, 2.0, 3.0)
"""The powers that :func:`short_power` has."""


def meet_numpy(rule: Callable[[Any, Any], Any]) -> Any:
    """Return a rule of floats as a method that also knows the whole numbers of NumPy."""

    def method(self: Number, other: Any) -> Any:
        answer = rule(self, other)
        if answer is NotImplemented and isinstance(other, np.number | np.bool_):
            return rule(self, other.item())
        return answer

    return method


def keep_class(rule: Callable[[Any, Any], Any]) -> Any:
    """Return a method of two numbers whose result, if it is one, stays in :class:`Number`."""
    compute = meet_numpy(rule)

    def method(self: Number, other: Any) -> Any:
        answer = compute(self, other)
        if answer is NotImplemented:
            return NotImplemented
        return Number(answer)

    return method


def keep_division(rule: Callable[[Any, Any], Any], by_zero: np.ufunc, *, is_reflected: bool) -> Any:
    """Return a method that divides, such as ``__truediv__``; by zero it divides as NumPy does.

    Python refuses a division by zero, and compiled code gives an infinity or NaN: so does
    ``by_zero``. The method is called with a Number and what stands on the other side of the sign;
    ``is_reflected``: the Number is on the right, so it divides the other one.
    """

    def method(self: Number, other: Any) -> Any:
        """Return the quotient of a Number and another number; NotImplemented if it is no number.

        A division by zero is infinite or NaN, as in compiled code, where Python would raise.
        """
        if isinstance(other, np.number | np.bool_):
            other = other.item()  # whole numbers of NumPy, which floats do not know
        divisor = self if is_reflected else other
        is_zero = not divisor
        if not is_zero:
            answer = rule(self, other)
            if answer is NotImplemented:
                return NotImplemented
            return Number(answer)

        if not isinstance(other, NUMBER):
            return NotImplemented
        dividend = other if is_reflected else self
        with np.errstate(all="ignore"):
            return Number(by_zero(float(dividend), float(divisor)))

    return method


class Number(float):
    """A float of a formula in plain Python: its arithmetic is that of compiled code (IEEE 754).

    Comparisons are bools, which add up as whole numbers do. What Python's floats raise or make
    complex is a number: x / 0 is infinite or NaN, a negative root NaN, an overflow infinite.
    """

    __slots__ = ()
    __array_priority__ = -1.0  # before NumPy's scalars, whose comparisons add up to 1; after arrays

    __eq__ = meet_numpy(float.__eq__)
    __ne__ = meet_numpy(float.__ne__)
    __lt__ = meet_numpy(float.__lt__)
    __le__ = meet_numpy(float.__le__)
    __gt__ = meet_numpy(float.__gt__)
    __ge__ = meet_numpy(float.__ge__)
    __hash__ = float.__hash__
    __add__ = keep_class(float.__add__)
    __radd__ = keep_class(float.__radd__)
    __sub__ = keep_class(float.__sub__)
    __rsub__ = keep_class(float.__rsub__)
    __mul__ = keep_class(float.__mul__)
    __rmul__ = keep_class(float.__rmul__)
    __truediv__ = keep_division(float.__truediv__, np.true_divide, is_reflected=False)
    __rtruediv__ = keep_division(float.__rtruediv__, np.true_divide, is_reflected=True)
    __floordiv__ = keep_division(float.__floordiv__, np.true_divide, is_reflected=False)
    __rfloordiv__ = keep_division(float.__rfloordiv__, np.true_divide, is_reflected=True)
    __mod__ = keep_division(float.__mod__, np.fmod, is_reflected=False)
    __rmod__ = keep_division(float.__rmod__, np.fmod, is_reflected=True)

    def __pow__(self, other: Any, modulus: None = None) -> Any:
        if not isinstance(other, NUMBER) or modulus is not None:
            return NotImplemented
        return raise_to(self, other)

    def __rpow__(self, other: Any, modulus: None = None) -> Any:
        if not isinstance(other, NUMBER) or modulus is not None:
            return NotImplemented
        return raise_to(other, self)

    def __neg__(self) -> Number:
        return Number(float.__neg__(self))

    def __pos__(self) -> Number:
        return self

    def __abs__(self) -> Number:
        return Number(float.__abs__(self))

    def __round__(self, digits: Any = None) -> Any:
        if digits is None:
            return float.__round__(self)
        return round_to(self, digits)


def raise_to(x: Any, y: Any) -> Any:
    """Return x to the power of y: a number of formulas, or what Python has for all others."""
    is_scalar = isinstance(x, NUMBER) and isinstance(y, NUMBER)
    if not is_scalar or (isinstance(x, WHOLE) and isinstance(y, WHOLE)):
        return x**y
    if x > 0.0 and y in SHORT:  # the same bits, without the logarithm
        return Number(short_power(float(x), float(y), 1.0))
    return Number(power(float(x), float(y)))


def natural_exp(x: Any) -> Any:
    if isinstance(x, NUMBER):
        return Number(exp(float(x)))
    return np.exp(x)


def natural_log(x: Any) -> Any:
    if isinstance(x, NUMBER):
        return Number(log(float(x)))
    return np.log(x)


def square_root(x: Any) -> Any:
    if not isinstance(x, NUMBER):
        return np.sqrt(x)
    if x >= 0.0:
        return Number(math.sqrt(x))
    with np.errstate(all="ignore"):
        return Number(np.sqrt(float(x)))


def larger(x: float, y: float) -> float:
    """Return the larger number, NaN if one is; of two zeros the first."""
    x = float(x)
    y = float(y)
    return x if (x >= y) | (x != x) else y  # noqa: PLR0124 - NaN


def smaller(x: float, y: float) -> float:
    """Return the smaller number, NaN if one is; of two zeros the first."""
    x = float(x)
    y = float(y)
    return x if (x <= y) | (x != x) else y  # noqa: PLR0124 - NaN


def sign(x: float) -> float:
    """Return 1, -1, 0 of both zeros, or NaN."""
    x = float(x)
    one = 1.0 if x > 0.0 else -1.0
    value = 0.0 if x == 0.0 else one
    return value if x == x else x  # noqa: PLR0124 - NaN


def pick(condition: float, x: float, y: float) -> float:
    """Return x where a condition holds, else y."""
    return float(x) if condition else float(y)


def bound(x: float, low: float, high: float) -> float:
    """Return x within two bounds, NaN if one of the three is."""
    return smaller(larger(x, low), high)


def choose_by(condition: Any, x: Any, y: Any) -> Any:
    kinds = (bool, np.bool_, *NUMBER)
    if all(isinstance(part, kinds) for part in (condition, x, y)):
        return Number(pick(condition, x, y))
    return np.where(condition, x, y)


def keep_within(x: Any, low: Any, high: Any) -> Any:
    if all(isinstance(part, NUMBER) for part in (x, low, high)):
        return Number(bound(x, low, high))
    return np.clip(x, low, high)


def choose_larger(x: Any, y: Any) -> Any:
    if isinstance(x, NUMBER) and isinstance(y, NUMBER):
        return Number(larger(float(x), float(y)))
    return np.maximum(x, y)


def choose_smaller(x: Any, y: Any) -> Any:
    if isinstance(x, NUMBER) and isinstance(y, NUMBER):
        return Number(smaller(float(x), float(y)))
    return np.minimum(x, y)


def find_sign(x: Any) -> Any:
    if isinstance(x, NUMBER):
        return Number(sign(float(x)))
    return np.sign(x)


POWERS_OF_TEN = tuple(10.0**k for k in range(23))
"""Those that are floats."""


def round_scaled(x: float, digits: int) -> float:
    """Return x rounded to some digits after the point, as NumPy does; before it if negative.

    The digits are moved before the point, x * 10^digits is rounded to a whole number, a half to the
    even one, and the digits are moved back.
    """
    x = float(x)
    scale = POWERS_OF_TEN[min(abs(digits), 22)]
    scaled = x * scale if digits >= 0 else x / scale

    # From 2^52 on floats have no digits after the point. Infinity and NaN stay what they are.
    size = abs(scaled)
    if not size < TWO_52:
        return x

    # Floats from 2^52 on are whole numbers. So adding 2^52 rounds to a whole number, a half to the
    # even one, and subtracting it leaves that number. The sign comes last: -0 would lose it.
    size = (size + TWO_52) - TWO_52
    whole = math.copysign(size, x)
    return whole / scale if digits >= 0 else whole * scale


def round_to(x: Any, digits: Any) -> Any:
    if isinstance(x, (float, np.floating)) and isinstance(digits, WHOLE):
        return Number(round_scaled(float(x), int(digits)))
    return round(x, digits)


REPLACEMENTS: dict[Any, tuple[Callable[..., Any], int]] = {
    math.exp: (natural_exp, 1),
    np.exp: (natural_exp, 1),
    math.log: (natural_log, 1),
    np.log: (natural_log, 1),
    math.pow: (raise_to, 2),
    np.power: (raise_to, 2),
    pow: (raise_to, 2),
    round: (round_to, 2),
    np.maximum: (choose_larger, 2),
    np.minimum: (choose_smaller, 2),
    np.sign: (find_sign, 1),
    np.where: (choose_by, 3),
    np.clip: (keep_within, 3),
    exp: (natural_exp, 1),
    log: (natural_log, 1),
    power: (raise_to, 2),
}
"""What formulas call in place of a function, plain and compiled, and with how many arguments."""
IN_PLAIN = {**REPLACEMENTS, math.sqrt: (square_root, 1), np.sqrt: (square_root, 1)}
"""What they call in plain Python; the root of compiled code has the same bits."""
