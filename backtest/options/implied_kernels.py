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
    """Return the implied volatility per sqrt(year), NaN where no single one gives the price."""
    if not (black.is_possible(forward, strike, years, price, rate) and years > 0.0):
        return math.nan

    undiscounted = (price * forward if is_coin else price) * math.exp(rate * years)
    intrinsic = max(0.0, sign * (forward - strike))
    largest = forward if sign > 0.0 else strike
    if not intrinsic < undiscounted < largest:
        return math.nan

    # The price of the option out of the money, normalized.
    x = -abs(black.log_ratio(forward, strike))
    unit = math.sqrt(forward) * math.sqrt(strike)
    scaled = (undiscounted - intrinsic) / unit
    if not 0.0 < scaled < math.exp(0.5 * x):
        return math.nan

    # No answer where what the price was rounded by moves the volatility.
    s = solve_deviation(x, scaled)
    slope = black.price_and_slope(x, s)[1]
    if not 4.0 * EPSILON * undiscounted / unit <= MIN_CERTAIN * s * slope:
        return math.nan
    return s / math.sqrt(years)


def solve_deviation(x: float, price: float) -> float:
    """Return s with normalized_price(x, s) = price, for x <= 0 and 0 < price < exp(x / 2)."""
    bound = math.exp(0.5 * x)
    s = guess_deviation(x, price)
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
        # A step that leaves the bracket is replaced; a NaN is one, too.
        if not low < s < high:
            s = 2.0 * low if high == math.inf else 0.5 * (low + high)
    return s


def find_step(
    x: float, s: float, b: float, slope: float, price: float, bound: float, is_low: bool
) -> float:
    """Return a Householder step of third order from s, whose price is b; NaN where b is flat.

    With ``f`` the function that is solved, ``newton`` is -f/f', ``second`` f''/f' and ``third``
    f'''/f'.
    """
    if not (slope > 0.0 and b > 0.0):
        return math.nan

    q = x / s
    bend = q * q / s - 0.25 * s  # b'' / b'
    twist = bend * bend - 3.0 * q * q / (s * s) - 0.25  # b""" / b'

    if is_low:  # f = ln b - ln price
        g = slope / b
        newton = math.log(price / b) / g
        second = bend - g
        third = twist - 3.0 * g * bend + 2.0 * g * g
    elif price > NEAR_BOUND * bound:  # f = ln(bound - price) - ln(bound - b)
        left = bound - b
        if not left > 0.0:
            return math.nan
        g = slope / left
        newton = math.log(left / (bound - price)) / g
        second = bend + g
        third = twist + 3.0 * g * bend + 2.0 * g * g
    else:  # f = b - price
        newton = (price - b) / slope
        second = bend
        third = twist

    # Far from the solution the two corrections may turn the step around.
    top = 1.0 + 0.5 * newton * second
    bottom = 1.0 + newton * (second + newton * third / 6.0)
    if not (top > 0.0 and bottom > 0.0):
        return newton
    return newton * top / bottom


def guess_deviation(x: float, price: float) -> float:
    """Return a first s, for small s within a thousandth.

    That of the normal model, by two rational functions fitted by least squares, moved by the first
    difference between the models.
    """
    y = -x / (price * ROOT_TWO_PI)  # 1 / B
    if y < 5.0:
        top = 1.0 + y * (2.71290617 + y * (1.5911244 + y * 0.13528099))
        bottom = 1.0 + y * (1.46056391 + y * 0.24630523)
        s = price * ROOT_TWO_PI * top / bottom
    else:
        e = math.sqrt(2.0 * math.log(y))
        top = -x * (1.0 + e * (-0.06068225 + e * 0.17122895))
        bottom = 0.49542897 + e * (0.19081231 + e * (-0.11370882 + e * 0.17194886))
        s = top / bottom

    # The first difference between the normal model and this one.
    q = -x / s
    z = 0.25 * s * s / (3.0 + q * (1.8 + q))
    shift = (0.125 * s * s - z / (1.0 - 0.5 * z)) / (1.0 + q * (1.2533 + q))
    return s * (1.0 + shift * (1.0 + 3.0 * shift))


@kernel
def fill_volatilities(terms: FloatArray, is_coin: bool, out: FloatArray) -> None:
    """Write the implied volatility of each option to ``out`` (n,); ``terms`` is (6, n)."""
    for i in range(len(out)):
        out[i] = scalar_implied(
            terms[0, i], terms[1, i], terms[2, i], terms[3, i], terms[4, i], terms[5, i], is_coin
        )


@kernel
def fill_prices(terms: FloatArray, is_coin: bool, out: FloatArray) -> None:
    """Write the price of each option to ``out`` (n,); ``terms`` is (6, n)."""
    for i in range(len(out)):
        out[i] = black.scalar_price(
            terms[0, i], terms[1, i], terms[2, i], terms[3, i], terms[4, i], terms[5, i], is_coin
        )


@kernel
def fill_greeks(terms: FloatArray, is_coin: bool, out: FloatArray) -> None:
    """Write the Greeks of each option to a row of ``out`` (n, 7), in the order of the record."""
    for i in range(len(out)):
        values = black.scalar_greeks(
            terms[0, i], terms[1, i], terms[2, i], terms[3, i], terms[4, i], terms[5, i], is_coin
        )
        for k in range(7):
            out[i, k] = values[k]
