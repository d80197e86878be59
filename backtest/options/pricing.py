"""Prices, Greeks and implied volatilities of European options: Black-76 and Black-Scholes.

All functions take scalars or arrays that broadcast, and give the same bits in Python and in
compiled policies. Values are per unit of the underlying. Cash settlement gives them in the quote
currency, coin settlement in coins of the underlying (the cash value over the forward).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from backtest.base import (
    Greeks,
    ParameterError,
    black_kernels,
    repr_given,
    scalar_greeks,
    scalar_price,
)
from backtest.options import implied_kernels
from backtest.options.implied_kernels import check_price, scalar_implied
from backtest.options.option_terms import (
    Formula,
    Kind,
    Number,
    Settlement,
    broadcast,
    check_positive,
    evaluate,
    read_numbers,
    read_terms,
)

PRICE = Formula(scalar_price, black_kernels, "fill_prices")
GREEKS = Formula(scalar_greeks, black_kernels, "fill_greeks", width=len(Greeks._fields))
IMPLIED = Formula(scalar_implied, implied_kernels, "fill_volatilities")
REASONS = (
    "",
    "below the intrinsic value",
    "at the intrinsic value: every small volatility gives it",
    "at or above the largest value: no volatility gives it",
    "no time to expiry",
    "vega is too small: the rounding of the price moves the volatility by over a thousandth",
)


def price(
    kind: Kind,
    forward: Number,
    strike: Number,
    years: Number,
    volatility: Number,
    rate: Number = 0.0,
    settlement: Settlement = "cash",
) -> Any:
    """Return the Black-76 price of a European option on a forward.

    Parameters
    ----------
    kind : "call", "put", or an array of them
        In compiled policies a literal.
    forward, strike : float or array
        Forward price at expiry and strike, positive, in the quote currency.
    years : float or array
        Time to expiry in years of 365 days; 0 gives the payoff.
    volatility : float or array
        Per sqrt(year), at least 0.
    rate : float or array
        Continuous discount rate per year.
    settlement : "cash" or "coin"
        "coin" gives the price in coins: the cash price over the forward.

    Returns
    -------
    float or array
        Per unit of the underlying, of the broadcast shape; NaN where a number is NaN.

    Raises
    ------
    ParameterError
        If a number is out of range, an infinite one included, or shapes do not fit.

    Notes
    -----
    Relative error under 1e-11 down to 1e-300. Source: Black (1976).

    Examples
    --------
    >>> round(price("call", 100.0, 100.0, 0.5, 0.2, rate=0.02), 6)
    5.581107
    """
    numbers = {"forward": forward, "strike": strike, "years": years, "volatility": volatility}
    numbers["rate"] = rate
    return evaluate(PRICE, read_terms(kind, numbers, settlement))


def greeks(
    kind: Kind,
    forward: Number,
    strike: Number,
    years: Number,
    volatility: Number,
    rate: Number = 0.0,
    settlement: Settlement = "cash",
    *,
    in_money: bool = False,
    quantity: Number | None = None,
    size: Number | None = None,
    spot: Number | None = None,
) -> Greeks:
    """Return the Greeks of the Black-76 price.

    Parameters
    ----------
    kind, forward, strike, years, volatility, rate, settlement
        As in :func:`price`.
    in_money : bool
        Whether they are in money for a position, instead of per unit of the underlying.
    quantity, size : float or array, optional
        Signed contracts, and units of the underlying per contract; for ``in_money`` only.
        Default: 1.
    spot : float or array, optional
        Price of the underlying; for ``in_money`` only. Default: the forward.

    Returns
    -------
    Greeks
        Named tuple of floats or arrays.

        ====== ===================================== ==========================================
        field  per unit of the underlying            ``in_money``, times quantity and size
        ====== ===================================== ==========================================
        delta  dV/dF                                 delta S
        gamma  d2V/dF2                               gamma S^2 / 100: change of delta per 1 %
        vega   dV/dsigma, per 1.00 of volatility     vega / 100, per point
        theta  dV/dt per year, negative for a long   theta / 365, per day
        rho    dV/dr per 1.00, at a fixed forward    rho / 100, per point
        vanna  d2V/dF dsigma                         vanna S / 100
        volga  d2V/dsigma2                           volga / 10,000
        ====== ===================================== ==========================================

        V is discounted. With coin settlement the same derivatives of V / F: delta
        ``(dV/dF - V/F) / F``. At expiry or without volatility delta is 0, 1/2 (at the money) or 1,
        discounted and signed, and all others are 0.

    Raises
    ------
    ParameterError
        As :func:`price`.
    """
    numbers = {"forward": forward, "strike": strike, "years": years, "volatility": volatility}
    numbers["rate"] = rate
    terms = read_terms(kind, numbers, settlement)
    found = Greeks(*evaluate(GREEKS, terms))
    position = {"quantity": quantity, "size": size, "spot": spot}
    if not in_money:
        refuse_position(position)
        return found
    defaults = {"quantity": 1.0, "size": 1.0, "spot": np.asarray(terms.numbers[1])}
    held = {
        name: read_numbers(name, defaults[name] if value is None else value)
        for name, value in position.items()
    }
    check_positive("spot", held["spot"])
    contracts, size_, place, _ = broadcast(*held.values(), np.asarray(terms.numbers[1]))
    amount = contracts * size_
    scaled = [
        value * (amount * place**power / per)
        for value, (power, per) in zip(found, SCALES, strict=True)
    ]
    return Greeks(*(each if np.ndim(each) else float(each) for each in scaled))


def refuse_position(position: dict[str, Any]) -> None:
    for name, value in position.items():
        if value is not None:
            raise ParameterError(
                f"{name} needs in_money=True, got {name}={repr_given(value)} without it"
            )


SCALES = (
    (1, 1.0), (2, 100.0), (0, 100.0), (0, 365.0), (0, 100.0), (1, 100.0), (0, 10_000.0),
)  # fmt: skip
"""Power of the spot price and divisor of each Greek in money."""


def implied_volatility(
    kind: Kind,
    price: Number,
    forward: Number,
    strike: Number,
    years: Number,
    rate: Number = 0.0,
    settlement: Settlement = "cash",
) -> Any:
    """Return the volatility at which :func:`price` gives a price.

    Parameters
    ----------
    price : float or array
        Per unit of the underlying, in the currency of settlement.
    kind, forward, strike, years, rate, settlement
        As in :func:`price`.

    Returns
    -------
    float or array
        Per sqrt(year). NaN where no single volatility gives the price: below or at the intrinsic
        value, at or above the largest value (the forward for a call, the strike for a put), at
        expiry, or where vega is so small that four rounding errors of the price move the volatility
        by over a thousandth of it. :func:`volatility_reason` says which.

    Raises
    ------
    ParameterError
        As :func:`price`.

    Notes
    -----
    The error is at most 1e-12 plus four rounding errors of the price over vega. Householder steps
    of third order on the normalized price; see Jäckel (2015), Let's be rational.

    Examples
    --------
    >>> round(implied_volatility("put", 5.581106724604812, 100.0, 100.0, 0.5, rate=0.02), 12)
    0.2
    """
    numbers = {"price": price, "forward": forward, "strike": strike, "years": years, "rate": rate}
    return evaluate(IMPLIED, read_terms(kind, numbers, settlement))


def volatility_reason(
    kind: Kind,
    price: Number,
    forward: Number,
    strike: Number,
    years: Number,
    rate: Number = 0.0,
    settlement: Settlement = "cash",
) -> Any:
    """Return why :func:`implied_volatility` is NaN, as text; empty where it is a number.

    Parameters and errors are those of :func:`implied_volatility`.

    Examples
    --------
    >>> volatility_reason("call", 9.0, 100.0, 90.0, 1.0)
    'below the intrinsic value'
    """
    numbers = {"price": price, "forward": forward, "strike": strike, "years": years, "rate": rate}
    terms = read_terms(kind, numbers, settlement)
    rows = zip(*(np.ravel(each).tolist() for each in terms.numbers), strict=True)
    texts = np.array([explain_row(*row, *terms.flags) for row in rows])
    shape = np.shape(terms.numbers[0])
    return texts.reshape(shape) if shape else str(texts[0])


def explain_row(*row: Any) -> str:
    if any(math.isnan(number) for number in row):
        return "a number is missing"
    return REASONS[check_price(*row)]
