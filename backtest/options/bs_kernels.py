"""Black-Scholes by Black-76 on the forward ``S exp((r - q) T)``, for compiled policies."""

from __future__ import annotations

import math

from backtest.base import scalar_greeks, scalar_price
from backtest.base.black_kernels import MOST_CARRY
from backtest.options.implied_kernels import scalar_implied

__all__ = ["scalar_bs", "scalar_greeks", "scalar_implied", "scalar_price"]
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
