"""Black-Scholes by Black-76 on the forward ``S exp((r - q) T)``, for compiled policies."""

from __future__ import annotations

import math

from backtest.base import Greeks, scalar_greeks, scalar_price
from backtest.base.black_kernels import MOST_CARRY
from backtest.options.implied_kernels import scalar_implied

KERNELS = ()


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
