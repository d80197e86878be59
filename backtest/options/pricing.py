"""Prices, Greeks and implied volatilities of European options: Black-76 and Black-Scholes.

All functions take scalars or arrays that broadcast, and give the same bits in Python and in
compiled policies. Values are per unit of the underlying. Cash settlement gives them in the quote
currency, coin settlement in coins of the underlying (the cash value over the forward).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from backtest import _compile, core
from backtest.core import FloatArray, Greeks, ParameterError, repr_given
from backtest.core.black_kernels import MAX_CARRY, SCALES
from backtest.core.fields import NOT_NEGATIVE, POSITIVE
from backtest.margin.functions import check_each
from backtest.options import implied_kernels

HAS_COMPILED_VERSIONS = True
"""Compiled code has other functions for those of this module, of the same names."""

Number = float | FloatArray
Kind = str | npt.NDArray[np.str_]
Settlement = Literal["cash", "coin"]

SIGNS = {"call": 1.0, "put": -1.0}
RATES = ("rate", "dividend")
RANGES = dict.fromkeys(RATES, core.Real()) | dict.fromkeys(("forward", "spot", "strike"), POSITIVE)
"""What numbers may be; all others are at least 0."""


class Formula(NamedTuple):
    scalar: Callable[..., Any]
    kernel: str
    width: int = 0


class Terms(NamedTuple):
    numbers: tuple[Any, ...]
    is_coin: bool = False


def read_terms(kind: Kind, numbers: Mapping[str, Number], settlement: object = "cash") -> Terms:
    arrays = {
        name: check_each(name, value, RANGES.get(name, NOT_NEGATIVE))
        for name, value in numbers.items()
    }
    kinds = np.asarray(kind)
    for each in sorted({*map(str, kinds.ravel().tolist())}):
        core.Choice(*SIGNS).check("kind", each)
    found = broadcast(np.where(kinds == "call", 1.0, -1.0), *arrays.values())
    named = dict(zip(arrays, found[1:], strict=True))
    for name in [each for each in RATES if each in named]:
        rate, years = named[name], named["years"]
        with np.errstate(over="ignore"):
            bad = np.abs(rate * years) > MAX_CARRY
        if bad.any():
            raise ParameterError(
                f"{name} times years must be at most {MAX_CARRY:g} in size, got a {name} of "
                f"{float(rate[bad].flat[0]):g} over {float(years[bad].flat[0]):g} years; "
                "rates are fractions per year: 0.05 is 5 %"
            )
        core.warn_of_high_rate(name, float(np.max(rate, initial=0.0)))
    is_coin = core.Choice("cash", "coin").check("settlement", settlement) == "coin"
    return Terms(found if found[0].shape else tuple(map(float, found)), is_coin)


def evaluate(formula: Formula, terms: Terms) -> Any:
    first, width = terms.numbers[0], formula.width
    if not np.ndim(first):
        if any(math.isnan(number) for number in terms.numbers):
            return (math.nan,) * width if width else math.nan
        return formula.scalar(*terms.numbers, terms.is_coin)
    rows = np.stack([np.ravel(each) for each in terms.numbers])
    is_known = ~np.isnan(rows.sum(axis=0))
    out = np.full((rows.shape[1], width) if width else rows.shape[1], math.nan)
    if is_known.any():
        chosen = np.ascontiguousarray(rows[:, is_known])
        found = np.empty((chosen.shape[1], *out.shape[1:]))
        compiled = _compile.compile_module(implied_kernels)
        getattr(compiled, formula.kernel)(chosen, terms.is_coin, found)
        out[is_known] = found
    if not width:
        return out.reshape(first.shape)
    return tuple(out[:, k].reshape(first.shape) for k in range(width))


def broadcast(*arrays: FloatArray) -> tuple[FloatArray, ...]:
    try:
        return tuple(np.broadcast_arrays(*arrays))
    except ValueError as error:
        shapes = ", ".join(str(each.shape) for each in arrays if each.shape)
        raise ParameterError(f"arguments must have shapes that broadcast, got {shapes}") from error


PRICE = Formula(core.scalar_price, "fill_prices")
GREEKS = Formula(core.scalar_greeks, "fill_greeks", width=len(Greeks._fields))
IMPLIED = Formula(implied_kernels.scalar_implied, "fill_volatilities")
UNCERTAIN = "vega is too small: the rounding of the price moves the volatility by over a thousandth"
REASONS = (
    "a number is missing",
    "no time to expiry",
    "at or above the largest value: no volatility gives it",
    "at the intrinsic value: every small volatility gives it",
    "below the intrinsic value",
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

    Raises ParameterError if a number is out of range, an infinite one included, or shapes do not
    fit.

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

    Notes
    -----
    Relative error under 1e-11 down to 1e-300. Source: Black (1976).

    Examples
    --------
    >>> round(price("call", 100.0, 100.0, 0.5, 0.2, rate=0.02), 6)
    5.581107
    """
    numbers = {"forward": forward, "strike": strike, "years": years, "volatility": volatility}
    return evaluate(PRICE, read_terms(kind, numbers | {"rate": rate}, settlement))


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

    Raises ParameterError as :func:`price`.

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
    """
    numbers = {"forward": forward, "strike": strike, "years": years, "volatility": volatility}
    terms = read_terms(kind, numbers | {"rate": rate}, settlement)
    found = Greeks(*evaluate(GREEKS, terms))
    position = {"quantity": quantity, "size": size, "spot": spot}
    if not in_money:
        for name, value in position.items():
            if value is not None:
                raise ParameterError(
                    f"{name} needs in_money=True, got {name}={repr_given(value)} without it"
                )
        return found
    at_forward = np.asarray(terms.numbers[1])
    held = [
        check_each(x, 1.0 if position[x] is None else position[x], core.Real())
        for x in ("quantity", "size")
    ]
    held.append(check_each("spot", at_forward if spot is None else spot, POSITIVE))
    contracts, size_, place, _ = broadcast(*held, at_forward)
    amount = contracts * size_
    scaled = [
        value * (amount * place**power / per)
        for value, (power, per) in zip(found, SCALES, strict=True)
    ]
    return Greeks(*(each if np.ndim(each) else float(each) for each in scaled))


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

    Raises ParameterError as :func:`price`.

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
    sign, paid, f, k, t, r = (np.asarray(each) for each in terms.numbers)
    undiscounted = paid * np.exp(r * t) * (f if terms.is_coin else 1.0)
    intrinsic, most = np.maximum(0.0, sign * (f - k)), np.where(sign > 0.0, f, k)
    is_missing = np.isnan(undiscounted + k)
    tests = [
        is_missing, ~(t > 0.0), undiscounted >= most, undiscounted == intrinsic,
        undiscounted < intrinsic,
    ]  # fmt: skip
    reasons = np.select(tests, REASONS, UNCERTAIN)
    texts = np.where(np.isnan(evaluate(IMPLIED, terms)), reasons, "")
    return texts if texts.shape else str(texts)


def move_spot(terms: Terms) -> tuple[Terms, Any]:
    """Return the terms with the forward in place of the spot price, and forward over spot."""
    *numbers, rate, dividend = terms.numbers
    carries = [np.ravel(each).tolist() for each in (numbers[3], rate, dividend)]
    growths = [implied_kernels.scalar_growth(*row) for row in zip(*carries, strict=True)]
    shape = np.shape(rate)
    growth: Any = np.reshape(growths, shape) if shape else growths[0]
    numbers[1] = numbers[1] * growth
    return Terms((*numbers, rate)), growth


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
    return evaluate(PRICE, move_spot(read_terms(kind, numbers))[0])


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
    given = read_terms(kind, numbers)
    terms, growth = move_spot(given)
    found = Greeks(*evaluate(GREEKS, terms))
    _, forward, _, term, deviation, r = terms.numbers
    has_time = np.asarray(deviation * np.sqrt(term) > 0.0)
    drift = np.where(has_time, found.delta * (r - given.numbers[-1]) * forward, 0.0)
    values = found._replace(
        delta=found.delta * growth,
        gamma=found.gamma * growth * growth,
        theta=found.theta - drift,
        rho=np.where(has_time, found.rho + found.delta * forward * term, found.rho),
        vanna=found.vanna * growth,
    )
    return Greeks(*(each if np.ndim(each) else float(each) for each in values))
