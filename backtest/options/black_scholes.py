"""Black-Scholes prices of European options on a spot price with a dividend yield."""

from __future__ import annotations

from typing import Any

from backtest.base import Greeks
from backtest.options import bs_kernels
from backtest.options.bs_kernels import scalar_bs, scalar_bs_greeks, scalar_bs_implied
from backtest.options.option_terms import Formula, Kind, Number, evaluate, read_terms

BS = Formula(scalar_bs, bs_kernels, "fill_bs")
BS_GREEKS = Formula(scalar_bs_greeks, bs_kernels, "fill_bs_greeks", width=len(Greeks._fields))
BS_IMPLIED = Formula(scalar_bs_implied, bs_kernels, "fill_bs_volatilities")


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
    numbers = {"spot": spot, "strike": strike, "years": years, "volatility": volatility}
    numbers |= {"rate": rate, "dividend": dividend}
    return evaluate(BS, read_terms(kind, numbers))


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
    numbers = {"spot": spot, "strike": strike, "years": years, "volatility": volatility}
    numbers |= {"rate": rate, "dividend": dividend}
    return Greeks(*evaluate(BS_GREEKS, read_terms(kind, numbers)))


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
    numbers = {"price": price, "spot": spot, "strike": strike, "years": years}
    numbers |= {"rate": rate, "dividend": dividend}
    return evaluate(BS_IMPLIED, read_terms(kind, numbers))
