"""Black-Scholes prices, Greeks and implied volatilities in scalar functions that also compile.

Black-76 on the forward ``S exp((r - q) T)``, with derivatives by the spot price.
"""

from __future__ import annotations

import math

from backtest.base import FloatArray, Greeks, scalar_greeks, scalar_price
from backtest.base.black_kernels import MOST_CARRY
from backtest.options.implied_kernels import scalar_implied

KERNELS = ("fill_bs", "fill_bs_greeks", "fill_bs_volatilities")
PLAIN_SECONDS = {"fill_bs": 1e-5, "fill_bs_greeks": 2e-5, "fill_bs_volatilities": 6e-5}


def scalar_growth(years: float, rate: float, dividend: float) -> float:
    carry = (rate - dividend) * years
    return math.exp(carry) if abs(carry) <= MOST_CARRY else math.nan


def scalar_bs(
    sign: float,
    spot: float,
    strike: float,
    years: float,
    volatility: float,
    rate: float,
    dividend: float,
) -> float:
    forward = spot * scalar_growth(years, rate, dividend)
    return scalar_price(sign, forward, strike, years, volatility, rate, False)


def scalar_bs_greeks(
    sign: float,
    spot: float,
    strike: float,
    years: float,
    volatility: float,
    rate: float,
    dividend: float,
) -> Greeks:
    growth = scalar_growth(years, rate, dividend)
    forward = spot * growth
    found = scalar_greeks(sign, forward, strike, years, volatility, rate, False)
    has_time = volatility * math.sqrt(years) > 0.0
    drift = found.delta * (rate - dividend) * forward if has_time else 0.0
    return Greeks(
        delta=found.delta * growth,
        gamma=found.gamma * growth * growth,
        vega=found.vega,
        theta=found.theta - drift,
        rho=found.rho + found.delta * forward * years if has_time else found.rho,
        vanna=found.vanna * growth,
        volga=found.volga,
    )


def scalar_bs_implied(
    sign: float,
    price: float,
    spot: float,
    strike: float,
    years: float,
    rate: float,
    dividend: float,
) -> float:
    forward = spot * scalar_growth(years, rate, dividend)
    return scalar_implied(sign, price, forward, strike, years, rate, False)


def fill_bs(terms: FloatArray, out: FloatArray) -> None:
    for i in range(len(out)):
        out[i] = scalar_bs(
            terms[0, i], terms[1, i], terms[2, i], terms[3, i], terms[4, i], terms[5, i],
            terms[6, i],
        )  # fmt: skip


def fill_bs_greeks(terms: FloatArray, out: FloatArray) -> None:
    """Write the Greeks of each option to a row of ``out`` (n, 7), in the order of the record."""
    for i in range(len(out)):
        found = scalar_bs_greeks(
            terms[0, i], terms[1, i], terms[2, i], terms[3, i], terms[4, i], terms[5, i],
            terms[6, i],
        )  # fmt: skip
        for k in range(7):
            out[i, k] = found[k]


def fill_bs_volatilities(terms: FloatArray, out: FloatArray) -> None:
    for i in range(len(out)):
        out[i] = scalar_bs_implied(
            terms[0, i], terms[1, i], terms[2, i], terms[3, i], terms[4, i], terms[5, i],
            terms[6, i],
        )  # fmt: skip
