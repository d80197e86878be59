"""Black-Scholes prices of European options on a spot price with a dividend yield.

Black-76 on the forward ``S exp((r - q) T)``; see :mod:`backtest.options.pricing`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backtest.options.black_kernels import MOST_CARRY, Greeks
from backtest.options.pricing import (
    Kind,
    Number,
    broadcast,
    check_positive,
    greeks,
    implied_volatility,
    price,
    read_numbers,
)


def bs(
    kind: Kind,
    spot: Number,
    strike: Number,
    years: Number,
    volatility: Number,
    rate: Number = 0.0,
    dividend: Number = 0.0,
) -> Any:
    """Return the Black-Scholes price of a European option with a dividend yield.

    Parameters and errors are those of :func:`price`, with the spot price in place of the forward
    and ``dividend``, a continuous yield per year. Source: Merton (1973).

    Examples
    --------
    >>> round(bs("put", 110.0, 100.0, 0.1, 0.15, rate=0.1, dividend=0.1), 4)
    0.0408
    """
    where = "bt.options.bs"
    forward, _ = carry(where, spot, years, rate, dividend)
    return price(kind, forward, strike, years, volatility, rate)


def bs_greeks(
    kind: Kind,
    spot: Number,
    strike: Number,
    years: Number,
    volatility: Number,
    rate: Number = 0.0,
    dividend: Number = 0.0,
) -> Greeks:
    """Return the Greeks of :func:`bs`: derivatives by the spot price, and rho at a fixed spot.

    Units are those of :func:`greeks` per unit of the underlying; parameters those of :func:`bs`.
    """
    where = "bt.options.bs_greeks"
    forward, growth = carry(where, spot, years, rate, dividend)
    found = greeks(kind, forward, strike, years, volatility, rate)
    drift = np.asarray(rate, dtype=np.float64) - np.asarray(dividend, dtype=np.float64)
    has_time = np.asarray(volatility) * np.sqrt(np.asarray(years)) != 0.0
    parts = Greeks(
        delta=found.delta * growth,
        gamma=found.gamma * growth**2,
        vega=found.vega,
        theta=np.where(has_time, found.theta - found.delta * drift * forward, 0.0),
        rho=np.where(has_time, found.rho + found.delta * forward * years, 0.0),
        vanna=found.vanna * growth,
        volga=found.volga,
    )
    return Greeks(*(np.asarray(each)[()] if np.ndim(each) else float(each) for each in parts))


def bs_implied_volatility(
    kind: Kind,
    price: Number,
    spot: Number,
    strike: Number,
    years: Number,
    rate: Number = 0.0,
    dividend: Number = 0.0,
) -> Any:
    """Return the volatility at which :func:`bs` gives a price; see :func:`implied_volatility`."""
    forward, _ = carry("bt.options.bs_implied_volatility", spot, years, rate, dividend)
    return implied_volatility(kind, price, forward, strike, years, rate)


def carry(
    where: str, spot: Number, years: Number, rate: Number, dividend: Number
) -> tuple[Any, Any]:
    """Return the forward of a spot price with a dividend yield, and its growth from the spot."""
    numbers = {"spot": spot, "years": years, "rate": rate, "dividend": dividend}
    spots, times, rates, yields = (read_numbers(k, v, where) for k, v in numbers.items())
    check_positive("spot", spots, where)
    spots, times, rates, yields = broadcast(where, spots, times, rates, yields)
    growth = np.exp(np.clip((rates - yields) * times, -MOST_CARRY, MOST_CARRY))
    return spots * growth, growth
