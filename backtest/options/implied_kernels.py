"""Implied volatility and Black-Scholes, in scalar functions that also compile.

Black-Scholes is Black-76 on the forward ``S exp((r - q) T)``.

The price of the option out of the money, normalized as in :mod:`backtest.core.black_kernels`, is
inverted from a guess by Householder steps of third order. A step solves for ``ln b`` below the
inflection point ``s = sqrt(2|x|)``, where b may be as small as 1e-300; for b above it; and for the
logarithm of the distance to the upper bound where b is close to it. Bisection replaces a step that
leaves the bracket.
"""

from __future__ import annotations

import math

from backtest.core import FloatArray
from backtest.core import black_kernels as black
from backtest.core.elementary import ROOT_TWO_PI
from backtest.core.kernels import kernel

EPSILON = 2.0**-52
MIN_CERTAIN = 1e-3
"""Largest part of a volatility that four rounding errors of the price may move it by."""
LAST_STEP = 5e-4
"""Size of a step, in units of s or 1, after which the error, of fourth order in it, is nothing."""
MOST_STEPS = 60
"""Most steps of a search, those of bisection included."""
NEAR_BOUND = 0.9
"""Share of the upper bound from which its distance is solved for: there the price is flat in s."""


def scalar_growth(years: float, rate: float, dividend: float) -> float:
    """Return the forward over the spot price; NaN if the carry is out of range."""
    carry = (rate - dividend) * years
    return math.exp(carry) if abs(carry) <= black.MAX_CARRY else math.nan


def scalar_bs(
    sign: float,
    spot: float,
    strike: float,
    years: float,
    volatility: float,
    rate: float,
    dividend: float,
) -> float:
    """Return the Black-Scholes price, in cash per unit of the underlying."""
    forward = spot * scalar_growth(years, rate, dividend)
    return black.scalar_price(sign, forward, strike, years, volatility, rate, False)


def scalar_implied(
    sign: float,
    price: float,
    forward: float,
    strike: float,
    years: float,
    rate: float,
    is_coin: bool,
) -> float:
    """Return the implied volatility per sqrt(year), NaN where no single one gives the price.

    ``sign`` is 1 for a call and -1 for a put. ``price`` is in coins of the underlying if the option
    ``is_coin``, in cash otherwise.
    """
    if not (black.is_possible(forward, strike, years, price, rate) and years > 0.0):
        return math.nan

    # Between the two bounds, the price rises with the volatility.
    in_cash = price * forward if is_coin else price
    undiscounted = in_cash * math.exp(rate * years)
    intrinsic = max(0.0, sign * (forward - strike))
    largest = forward if sign > 0.0 else strike
    if not intrinsic < undiscounted < largest:
        return math.nan

    # What is above the intrinsic value is the price of the option out of the money. In units of
    # sqrt(F K) it depends on two numbers: x, and the deviation s = volatility sqrt(years).
    x = -abs(black.log_ratio(forward, strike))
    unit = math.sqrt(forward) * math.sqrt(strike)
    normalized = (undiscounted - intrinsic) / unit
    if not 0.0 < normalized < math.exp(0.5 * x):
        return math.nan
    deviation = solve_deviation(x, normalized)

    # Four rounding errors of the price, divided by the slope, say how uncertain the deviation is.
    # Deep in the money that may be most of it: the answer would be noise.
    slope = black.price_and_slope(x, deviation)[1]
    rounding = 4.0 * EPSILON * undiscounted / unit
    if not rounding <= MIN_CERTAIN * deviation * slope:
        return math.nan
    return deviation / math.sqrt(years)


def solve_deviation(x: float, price: float) -> float:
    """Return s with normalized_price(x, s) = price, for x <= 0 and 0 < price < exp(x / 2).

    The price rises with s, from 0 to exp(x / 2). So each price seen on the way narrows the bracket
    from ``low`` to ``high`` in which s lies, and bisection is at hand for a step that leaves it.
    """
    bound = math.exp(0.5 * x)
    s = guess_deviation(x, price)

    # Below the inflection point of the price, s = sqrt(-2 x), its logarithm is solved for.
    is_low = s * s < -2.0 * x
    low = 0.0
    high = math.inf
    for _ in range(MOST_STEPS):
        b, slope = black.price_and_slope(x, s)
        if b == price:
            break
        if b < price:
            low = s
        else:
            high = s

        step = find_step(x, s, b, slope, price, bound, is_low)
        s += step
        if abs(step) <= LAST_STEP * min(s, 1.0):
            break

        # A step that leaves the bracket, or is NaN, is replaced: by twice the lower end as long as
        # there is no upper one, else by the middle.
        if not low < s < high:
            has_upper = high < math.inf
            s = 0.5 * (low + high) if has_upper else 2.0 * low
    return s


def find_step(
    x: float,
    s: float,
    b: float,
    slope: float,
    price: float,
    bound: float,
    is_low: bool,
) -> float:
    """Return a Householder step of third order for s, which is added to it; NaN where b is flat.

    ``b`` is the normalized price at s, ``slope`` its derivative b', ``price`` the one wanted and
    ``bound`` the limit of b for large s. The step finds the root of a function f of b, which is
    chosen so that f is nearly straight in s. It needs three numbers of f: ``newton`` is -f/f',
    ``second`` is f''/f', and ``third`` is f'''/f'. Source: Jaeckel (2017), Let's Be Rational,
    Wilmott 2015(75), for the three functions and the step.
    """
    if not (slope > 0.0 and b > 0.0):
        return math.nan

    # From b' = exp(-(x/s)^2 / 2 - s^2 / 8) / sqrt(2 pi), by differentiation.
    q = x / s
    second_of_b = q * q / s - 0.25 * s  # b'' / b'
    third_of_b = second_of_b * second_of_b - 3.0 * q * q / (s * s) - 0.25  # b''' / b'

    if is_low:
        # f = ln b - ln price, as b may be as small as 1e-300. With g = b' / b:
        # f''/f' = b''/b' - g, and f'''/f' = b'''/b' - 3 g b''/b' + 2 g^2.
        g = slope / b
        newton = math.log(price / b) / g
        second = second_of_b - g
        third = third_of_b - 3.0 * g * second_of_b + 2.0 * g * g
    elif price > NEAR_BOUND * bound:
        # f = ln(bound - price) - ln(bound - b), as b is flat near its bound. With
        # g = b' / (bound - b), the signs of g are the other way round.
        distance = bound - b
        if not distance > 0.0:
            return math.nan
        g = slope / distance
        newton = math.log(distance / (bound - price)) / g
        second = second_of_b + g
        third = third_of_b + 3.0 * g * second_of_b + 2.0 * g * g
    else:
        # f = b - price.
        newton = (price - b) / slope
        second = second_of_b
        third = third_of_b

    # Householder's formula. Far from the root its two corrections of Newton's step may change the
    # sign of the step; Newton's own step points to the root.
    top = 1.0 + 0.5 * newton * second
    bottom = 1.0 + newton * (second + newton * third / 6.0)
    if not (top > 0.0 and bottom > 0.0):
        return newton
    return newton * top / bottom


def guess_deviation(x: float, price: float) -> float:
    """Return a first guess of s for a normalized price; within a thousandth where s is small.

    The steps that follow correct it, so its errors cost a step and no digits. It is the s of the
    normal (Bachelier) model, price = s phi(x/s) + x Phi(x/s), moved by the first difference between
    that model and this one. The decimals are coefficients of rational functions that were fitted to
    the solution of that equation by least squares.
    """
    # One number decides the solution: y, 0 at the money and large far out of it.
    y = -x / (price * ROOT_TWO_PI)
    if y < 5.0:
        # At the money s is price sqrt(2 pi); the fit is the ratio to that.
        top = 1.0 + y * (2.71290617 + y * (1.5911244 + y * 0.13528099))
        bottom = 1.0 + y * (1.46056391 + y * 0.24630523)
        s = price * ROOT_TWO_PI * top / bottom
    else:
        # Far out of the money -x/s grows like sqrt(2 ln y); the fit is s over -x, by that root.
        root = math.sqrt(2.0 * math.log(y))
        top = -x * (1.0 + root * (-0.06068225 + root * 0.17122895))
        bottom = 0.49542897 + root * (0.19081231 + root * (-0.11370882 + root * 0.17194886))
        s = top / bottom

    # The relative shift of s between the models: about s^2 / 24 at the money, less far out of it.
    q = -x / s
    z = 0.25 * s * s / (3.0 + q * (1.8 + q))
    shift = (0.125 * s * s - z / (1.0 - 0.5 * z)) / (1.0 + q * (1.2533 + q))
    return s * (1.0 + shift * (1.0 + 3.0 * shift))


@kernel
def fill_volatilities(terms: FloatArray, is_coin: bool, out: FloatArray) -> None:
    """Write the implied volatility of each option to ``out`` (n,).

    The rows of ``terms`` (6, n) are sign, price, forward, strike, years and rate.
    """
    for i in range(len(out)):
        out[i] = scalar_implied(
            terms[0, i],
            terms[1, i],
            terms[2, i],
            terms[3, i],
            terms[4, i],
            terms[5, i],
            is_coin,
        )


@kernel
def fill_prices(terms: FloatArray, is_coin: bool, out: FloatArray) -> None:
    """Write the price of each option to ``out`` (n,).

    The rows of ``terms`` (6, n) are sign, forward, strike, years, volatility and rate.
    """
    for i in range(len(out)):
        out[i] = black.scalar_price(
            terms[0, i],
            terms[1, i],
            terms[2, i],
            terms[3, i],
            terms[4, i],
            terms[5, i],
            is_coin,
        )


@kernel
def fill_greeks(terms: FloatArray, is_coin: bool, out: FloatArray) -> None:
    """Write the Greeks of each option to a row of ``out`` (n, 7), in the order of ``Greeks``.

    The rows of ``terms`` (6, n) are sign, forward, strike, years, volatility and rate.
    """
    for i in range(len(out)):
        values = black.scalar_greeks(
            terms[0, i],
            terms[1, i],
            terms[2, i],
            terms[3, i],
            terms[4, i],
            terms[5, i],
            is_coin,
        )
        for k in range(7):
            out[i, k] = values[k]
