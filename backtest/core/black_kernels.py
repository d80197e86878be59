"""Black-76 prices and Greeks of European options, in scalar functions that also compile.

With ``x = -|ln(F/K)|``, ``s = sigma sqrt(T)``, ``h = x / s`` and ``t = s / 2``, the option that is
out of the money is worth ``sqrt(F K) b`` before discounting, with
``b = exp(x/2) Phi(h + t) - exp(-x/2) Phi(h - t)``. Both terms are almost equal in the wings and
for small s. So b is computed as a difference of Mills' ratios times one exponential, or as a Taylor
series of that difference in t, and keeps its relative accuracy down to the smallest numbers. The
option in the money adds the intrinsic value (put-call parity).

Sources: Black (1976), The pricing of commodity contracts; Jäckel (2015), Let's be rational, for the
normalized form.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from backtest.core.elementary import ROOT_TWO_PI, mills_ratio, normal_cdf, normal_density

MAX_CARRY = 700.0
"""Largest rate times years: its exponential must fit into a float."""
SERIES_LIMIT = 0.12
"""Half deviations below which the difference is a series in t."""


class Greeks(NamedTuple):
    """Derivatives of an option's value, as :func:`backtest.options.greeks` defines them.

    Floats, or arrays of one shape.
    """

    delta: Any
    gamma: Any
    vega: Any
    theta: Any
    rho: Any
    vanna: Any
    volga: Any


SCALES = (
    (1, 1.0), (2, 100.0), (0, 100.0), (0, 365.0), (0, 100.0), (1, 100.0), (0, 10_000.0),
)  # fmt: skip
"""Power of the spot price and divisor of each Greek in money."""


def is_possible(
    forward: float, strike: float, years: float, volatility: float, rate: float
) -> bool:
    """Return whether an option has a price: NaN in any argument has none."""
    has_prices = forward > 0.0 and strike > 0.0
    return has_prices and abs(rate * years) <= MAX_CARRY and years >= 0.0 and volatility >= 0.0


def log_ratio(forward: float, strike: float) -> float:
    """Return ln(forward / strike), to full accuracy also where the two are almost equal."""
    ratio = forward / strike
    if 0.5 < ratio < 2.0:
        return math.log1p((forward - strike) / strike)
    return math.log(forward) - math.log(strike)


def normalized_price(x: float, s: float) -> float:
    """Return the normalized price of x <= 0 and a deviation s; 0 without one."""
    if s > 0.0:
        price, _ = price_and_slope(x, s)
        return price
    return 0.0


def price_and_slope(x: float, s: float) -> tuple[float, float]:
    """Return the normalized price b of x <= 0 and a deviation s > 0, and its derivative by s.

    With x = -abs(ln(forward / strike)) and s = volatility sqrt(years), b is the time value over
    sqrt(forward strike). With q = -x / s and t = s / 2 it is (Black 1976)

        b = exp(x / 2) Phi(t - q) - exp(-x / 2) Phi(-t - q)

    The derivative by s is the density phi(q) exp(-t^2 / 2). By Phi(-z) = phi(z) R(z), with Mills'
    ratio R, each term is that derivative times a ratio: b = slope (R(q - t) - R(q + t)). This keeps
    its digits far out of the money, where Phi has none.
    """
    q = -x / s
    t = 0.5 * s
    slope = math.exp(-0.5 * (q * q + t * t)) / ROOT_TWO_PI

    # For a small t the two ratios are almost equal: their difference is a series.
    if t < SERIES_LIMIT:
        # A slope of 0 is one that underflows, and so does the price.
        if not slope > 0.0:
            return 0.0, slope
        return slope * mills_difference(q, t), slope

    # Near the money t - q is over 0, and R(q - t) is of a long tail. With Phi(z) = 1 - Phi(-z) the
    # first term is exp(x / 2) less that of the other tail, R(t - q).
    if t >= q:
        both_tails = mills_ratio(q + t) + mills_ratio(t - q)
        return math.exp(0.5 * x) - slope * both_tails, slope
    difference = mills_ratio(q - t) - mills_ratio(q + t)
    return slope * difference, slope


def mills_difference(q: float, t: float) -> float:
    """Return R(q - t) - R(q + t) for small t, R being Mills' ratio: a Taylor series at q.

    With h = -q and Y(h) = R(-h) it is Y(h + t) - Y(h - t): even terms cancel, and odd ones, Y's
    derivative n times t^n / n!, count twice. As Y' = 1 + h Y, the derivatives follow one from two:
    Y(n+1) = h Y(n) + n Y(n-1).
    """
    h = -q
    even = mills_ratio(q)  # the derivative 0, then 2, 4, ...
    odd = 1.0 + h * even  # the derivative 1, then 3, 5, ...

    # Seven odd terms, up to t ** 13 / 13!: for t under SERIES_LIMIT the next is under rounding.
    t_power = t  # t^n / n!
    total = t * odd
    for k in range(1, 7):
        n = 2.0 * k  # the even derivative of this pair; the odd one is the next
        even = h * odd + (n - 1.0) * even
        odd = h * even + n * odd
        t_power *= t * t / (n * (n + 1.0))
        total += t_power * odd
    return 2.0 * total


def scalar_price(
    sign: float,
    forward: float,
    strike: float,
    years: float,
    volatility: float,
    rate: float,
    is_coin: bool,
) -> float:
    """Return the value of a call (``sign`` 1) or put (-1), in cash or in coins of the forward.

    Black (1976): the discounted intrinsic value, and the time value, which is the same for calls
    and puts. NaN if an argument is out of range or NaN.
    """
    if not is_possible(forward, strike, years, volatility, rate):
        return math.nan

    intrinsic = max(0.0, sign * (forward - strike))
    time_value = 0.0
    deviation = volatility * math.sqrt(years)
    if deviation > 0.0:
        x = -abs(log_ratio(forward, strike))
        time_value = math.sqrt(forward) * math.sqrt(strike) * normalized_price(x, deviation)

    cash = math.exp(-rate * years) * (intrinsic + time_value)
    return cash / forward if is_coin else cash


def scalar_greeks(
    sign: float,
    forward: float,
    strike: float,
    years: float,
    volatility: float,
    rate: float,
    is_coin: bool,
) -> Greeks:
    """Return the Greeks of a call (``sign`` 1) or put (-1), in cash or in coins of the forward.

    All are derivatives of :func:`scalar_price`: delta and gamma by the forward, vega and volga by
    the volatility, theta by time as it passes, rho by the rate, vanna by forward and volatility.
    NaN if an argument is out of range or NaN.
    """
    if not is_possible(forward, strike, years, volatility, rate):
        nan = math.nan
        return Greeks(nan, nan, nan, nan, nan, nan, nan)

    value = scalar_price(sign, forward, strike, years, volatility, rate, is_coin=False)
    discount = math.exp(-rate * years)
    deviation = volatility * math.sqrt(years)
    has_deviation = deviation > 0.0
    if has_deviation:
        d1 = log_ratio(forward, strike) / deviation + 0.5 * deviation
        d2 = d1 - deviation
        density = discount * normal_density(d1)
        vega = forward * density * math.sqrt(years)
        in_cash = Greeks(
            delta=discount * sign * normal_cdf(sign * d1),
            gamma=density / (forward * deviation),
            vega=vega,
            theta=rate * value - 0.5 * forward * density * volatility / math.sqrt(years),
            rho=-years * value,
            vanna=-density * d2 / volatility,
            volga=vega * d1 * d2 / volatility,
        )
    else:
        # The payoff is known: its delta is a step, and nothing else moves.
        step = find_step(sign * (forward - strike))
        in_cash = Greeks(discount * sign * step, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)

    if not is_coin:
        return in_cash

    # In coins: the derivatives of the value over the forward.
    delta = (in_cash.delta - value / forward) / forward
    return Greeks(
        delta=delta,
        gamma=(in_cash.gamma - 2.0 * delta) / forward if has_deviation else 0.0,
        vega=in_cash.vega / forward,
        theta=in_cash.theta / forward,
        rho=in_cash.rho / forward,
        vanna=(in_cash.vanna - in_cash.vega / forward) / forward,
        volga=in_cash.volga / forward,
    )


def find_step(payoff: float) -> float:
    """Return the slope of a payoff by its sign: 1 in the money, 0 out of it, a half between."""
    if payoff == 0.0:
        return 0.5
    return 1.0 if payoff > 0.0 else 0.0
