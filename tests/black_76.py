"""Black-76 once more, in the standard library's floats: it shares nothing with the package."""

import math

ROOT_2 = math.sqrt(2.0)
ROOT_2_PI = math.sqrt(2.0 * math.pi)


def normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / ROOT_2)


def find_d1(forward: float, strike: float, years: float, volatility: float) -> float:
    """d1, infinite where nothing is left to happen."""
    s = volatility * math.sqrt(years)
    if s == 0.0:
        return math.copysign(math.inf, forward - strike) if forward != strike else 0.0
    return math.log(forward / strike) / s + 0.5 * s


def price(
    sign: float, forward: float, strike: float, years: float, volatility: float, rate: float = 0.0
) -> float:
    """What an option on one unit is worth in quote currency; ``sign`` is -1 for a put.

    Intrinsic value and the price of the option out of the money: no digits cancel.
    """
    s = volatility * math.sqrt(years)
    value = max(0.0, sign * (forward - strike))
    if s > 0.0:
        side = 1.0 if forward <= strike else -1.0
        d1 = find_d1(forward, strike, years, volatility)
        value += side * (forward * normal_cdf(side * d1) - strike * normal_cdf(side * (d1 - s)))
    return math.exp(-rate * years) * value


def delta(sign: float, forward: float, strike: float, years: float, volatility: float) -> float:
    """N(d1), of a put less 1."""
    return sign * normal_cdf(sign * find_d1(forward, strike, years, volatility))


def vega(forward: float, strike: float, years: float, volatility: float, rate: float) -> float:
    """The change of the price per 1.00 of volatility."""
    d1 = find_d1(forward, strike, years, volatility)
    density = math.exp(-0.5 * d1 * d1) / ROOT_2_PI
    return math.exp(-rate * years) * forward * math.sqrt(years) * density
