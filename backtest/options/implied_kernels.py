"""Implied volatility, in scalar functions that also compile.

The price of the option out of the money, normalized as in :mod:`backtest.options.black_kernels`, is
inverted by Householder steps of third order: on ``ln b`` below the inflection point
``s = sqrt(2|x|)``, where b may be as small as 1e-300; on b above it; on the logarithm of the
distance to the upper bound where b is close to it. Bisection replaces a step that leaves the
bracket.
"""

from __future__ import annotations

import math

from backtest.base.normal import ROOT_TWO_PI
from backtest.base.units import FloatArray
from backtest.options.black_kernels import is_possible, log_ratio, normalized_price

KERNELS = ("fill_volatilities",)
PLAIN_SECONDS = {"fill_volatilities": 6e-5}
BELOW, AT_INTRINSIC, AT_BOUND, NO_TIME, FOUND = 1, 2, 3, 4, 0
"""Why a price has no implied volatility; see :data:`backtest.options.pricing.REASONS`."""


def check_price(
    sign: float,
    price: float,
    forward: float,
    strike: float,
    years: float,
    rate: float,
    is_coin: bool,
) -> int:
    """Return why a price has no implied volatility, or FOUND."""
    if not years > 0.0:
        return NO_TIME
    undiscounted = (price * forward if is_coin else price) * math.exp(rate * years)
    intrinsic = max(0.0, sign * (forward - strike))
    largest = forward if sign > 0.0 else strike
    if undiscounted >= largest:
        return AT_BOUND
    if undiscounted == intrinsic:
        return AT_INTRINSIC
    return FOUND if undiscounted > intrinsic else BELOW


def scalar_implied(
    sign: float,
    price: float,
    forward: float,
    strike: float,
    years: float,
    rate: float,
    is_coin: bool,
) -> float:
    """Return the volatility at which Black-76 gives a price; NaN where there is none."""
    if not is_possible(forward, strike, years, price, rate):
        return math.nan
    if check_price(sign, price, forward, strike, years, rate, is_coin) != FOUND:
        return math.nan
    intrinsic = max(0.0, sign * (forward - strike))
    value = (price * forward if is_coin else price) * math.exp(rate * years) - intrinsic
    x = -abs(log_ratio(forward, strike))
    scaled = value / (math.sqrt(forward) * math.sqrt(strike))
    if not 0.0 < scaled < math.exp(0.5 * x):
        return math.nan
    return solve_deviation(x, scaled) / math.sqrt(years)


def solve_deviation(x: float, price: float) -> float:
    """Return s with normalized_price(x, s) = price, for x <= 0 and 0 < price < exp(x / 2)."""
    center = math.sqrt(-2.0 * x)
    at_center = normalized_price(x, center)
    bound = math.exp(0.5 * x)
    is_low = price < at_center
    if is_low:
        low, high = 0.0, center
        s = guess_low(x, price, center)
    else:
        low, high = center, math.inf
        s = guess_high(x, price, center, at_center, bound)
    for _ in range(40):
        b = normalized_price(x, s)
        if b == price:
            break
        if b < price:
            low = s
        else:
            high = s
        step = find_step(x, s, b, price, bound, is_low)
        if abs(step) <= 1e-5 * s:  # the error of a step of fourth order is then below rounding
            s += step
            break
        s += step
        if not low < s < high:
            s = 2.0 * low if high == math.inf else 0.5 * (low + high)
    return s


def find_step(x: float, s: float, b: float, price: float, bound: float, is_low: bool) -> float:
    """Return the Householder step of third order from s towards the price."""
    q, t = x / s, 0.5 * s
    slope = math.exp(-0.5 * (q * q + t * t)) / ROOT_TWO_PI
    if not (slope > 0.0 and b > 0.0):
        return math.nan
    bend = q * q / s - 0.25 * s  # b'' / b'
    twist = bend * bend - 3.0 * q * q / (s * s) - 0.25  # b''' / b'
    if is_low:  # f = ln b - ln price
        g = slope / b
        newton = math.log(price / b) / g
        second = bend - g
        third = twist - 3.0 * g * bend + 2.0 * g * g
    elif price > 0.9 * bound:  # f = ln(bound - price) - ln(bound - b)
        left = bound - b
        if not left > 0.0:
            return math.nan
        g = slope / left
        newton = math.log(left / (bound - price)) / g
        second = bend + g
        third = twist + 3.0 * g * bend + 2.0 * g * g
    else:
        newton = (price - b) / slope
        second, third = bend, twist
    top = 1.0 + 0.5 * newton * second
    bottom = 1.0 + newton * (second + newton * third / 6.0)
    if not (top > 0.0 and bottom > 0.0):
        return newton
    return newton * top / bottom


def guess_low(x: float, price: float, center: float) -> float:
    """Return a first s under the inflection point.

    From ln b ~ -x^2/(2 s^2) - s^2/8 + ln(s^3 / (x^2 sqrt(2 pi))), solved by repeated substitution.
    """
    s = center
    base = -math.log(price) - math.log(x * x * ROOT_TWO_PI)
    for _ in range(3):
        level = base + 3.0 * math.log(s) - 0.125 * s * s
        if not level > 0.0:
            return 0.7 * center
        s = min(-x / math.sqrt(2.0 * level), center)
    return s


def guess_high(x: float, price: float, center: float, at_center: float, bound: float) -> float:
    """Return a first s above the inflection point.

    b is concave there: its tangent at the point gives too small an s. At the money the exact answer
    is -2 z with Phi(z) = (1 - b) / 2, z by formula 26.2.23 of Abramowitz and Stegun (1964).
    """
    tangent = center + (price - at_center) * ROOT_TWO_PI / math.exp(0.5 * x)
    share = 0.5 * (bound - price) / (bound - at_center)
    if not share > 0.0:
        return tangent
    r = math.sqrt(-2.0 * math.log(share))
    z = r - (2.515517 + r * (0.802853 + r * 0.010328)) / (
        1.0 + r * (1.432788 + r * (0.189269 + r * 0.001308))
    )
    return max(tangent, math.sqrt(center * center + 4.0 * z * z))


def fill_volatilities(
    signs: FloatArray,
    prices: FloatArray,
    forwards: FloatArray,
    strikes: FloatArray,
    years: FloatArray,
    rates: FloatArray,
    is_coin: bool,
    out: FloatArray,
) -> None:
    """Write the implied volatility of each price to ``out``; all arrays have shape (n,)."""
    for i in range(len(out)):
        out[i] = scalar_implied(
            signs[i], prices[i], forwards[i], strikes[i], years[i], rates[i], is_coin
        )
