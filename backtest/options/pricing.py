"""Prices, Greeks and implied volatilities of European options: Black-76 and Black-Scholes.

All functions take scalars or arrays that broadcast, and give the same bits in Python and in
compiled policies. Values are per unit of the underlying. Cash settlement gives them in the quote
currency, coin settlement in coins of the underlying (the cash value over the forward).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from backtest.base.errors import ParameterError, did_you_mean
from backtest.base.json_values import repr_given
from backtest.base.kernels import compile_module
from backtest.base.units import FloatArray
from backtest.options import black_kernels, implied_kernels
from backtest.options.black_kernels import MOST_CARRY, Greeks, scalar_greeks, scalar_price
from backtest.options.implied_kernels import check_price, scalar_implied

Number = float | FloatArray
Kind = str | npt.NDArray[np.str_]
Settlement = Literal["cash", "coin"]

SIGNS = {"call": 1.0, "put": -1.0}
REASONS = (
    "",
    "below the intrinsic value",
    "at the intrinsic value: every small volatility gives it",
    "at or above the largest value: no volatility gives it",
    "no time to expiry",
)
"""Why a price has no implied volatility; the first where it has one."""


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
    where = "bt.options.price"
    given = read_options(where, kind, forward, strike, years, rate, settlement, volatility)
    return evaluate(scalar_price, black_kernels, "fill_prices", given)


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
    quantity: Number = 1.0,
    size: Number = 1.0,
    spot: Number | None = None,
) -> Greeks:
    """Return the Greeks of the Black-76 price.

    Parameters
    ----------
    kind, forward, strike, years, volatility, rate, settlement
        As in :func:`price`.
    in_money : bool
        Whether they are in money for a position, instead of per unit of the underlying.
    quantity, size : float or array
        Signed contracts and units of the underlying per contract; for ``in_money`` only.
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
    where = "bt.options.greeks"
    given = read_options(where, kind, forward, strike, years, rate, settlement, volatility)
    found = Greeks(*evaluate(scalar_greeks, black_kernels, "fill_greeks", given, len(SCALES)))
    if not in_money:
        return found
    place = np.asarray(given[1]) if spot is None else read_numbers("spot", spot, where)
    check_positive("spot", place, where)
    numbers = (read_numbers("quantity", quantity, where), read_numbers("size", size, where))
    place, held, each_size, _ = broadcast(where, place, *numbers, np.asarray(given[1]))
    amount = held * each_size
    scaled = [
        value * (amount * place**power / per)
        for value, (power, per) in zip(found, SCALES, strict=True)
    ]
    return Greeks(*(each if np.ndim(each) else float(each) for each in scaled))


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
        value, at or above the largest value (the forward for a call, the strike for a put), or at
        expiry. :func:`volatility_reason` says which.

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
    where = "bt.options.implied_volatility"
    given = read_prices(where, kind, price, forward, strike, years, rate, settlement)
    return evaluate(scalar_implied, implied_kernels, "fill_volatilities", given)


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
    where = "bt.options.volatility_reason"
    given = read_prices(where, kind, price, forward, strike, years, rate, settlement)
    rows = zip(*(np.ravel(each).tolist() for each in given[:-1]), strict=True)
    texts = np.array([explain_row(*row, given[-1]) for row in rows])
    return texts.reshape(np.shape(given[0])) if np.ndim(given[0]) else str(texts[0])


def explain_row(*row: Any) -> str:
    """Return why one price has no implied volatility."""
    if any(math.isnan(number) for number in row):
        return "a number is missing"
    return REASONS[check_price(*row)]


def read_options(
    where: str,
    kind: Kind,
    forward: Number,
    strike: Number,
    years: Number,
    rate: Number,
    settlement: Settlement,
    volatility: Number,
) -> tuple[Any, ...]:
    """Return the arguments of :func:`scalar_price`, checked and broadcast."""
    inputs = read_inputs(where, kind, forward, strike, years, rate, volatility=volatility)
    signs, forwards, strikes, times, rates, volatilities = inputs
    return signs, forwards, strikes, times, volatilities, rates, is_coin(settlement, where)


def read_prices(
    where: str,
    kind: Kind,
    price: Number,
    forward: Number,
    strike: Number,
    years: Number,
    rate: Number,
    settlement: Settlement,
) -> tuple[Any, ...]:
    """Return the arguments of :func:`scalar_implied`, checked and broadcast."""
    inputs = read_inputs(where, kind, forward, strike, years, rate, price=price)
    signs, forwards, strikes, times, rates, prices = inputs
    return signs, prices, forwards, strikes, times, rates, is_coin(settlement, where)


def read_inputs(
    where: str,
    kind: Kind,
    forward: Number,
    strike: Number,
    years: Number,
    rate: Number,
    **last: Number,
) -> tuple[Any, ...]:
    """Return sign, forward, strike, years, rate and a last number, checked and broadcast."""
    ((name, value),) = last.items()
    numbers = {"forward": forward, "strike": strike, "years": years, "rate": rate, name: value}
    arrays = {key: read_numbers(key, each, where) for key, each in numbers.items()}
    for key in ("forward", "strike"):
        check_positive(key, arrays[key], where)
    for key in ("years", name):
        check_positive(key, arrays[key], where, is_zero_allowed=True)
    found = broadcast(where, read_signs(kind, where), *arrays.values())
    if (np.abs(arrays["rate"]) * np.max(arrays["years"], initial=0.0) > MOST_CARRY).any():
        raise ParameterError(
            f"rate times years must be at most {MOST_CARRY:g} in size, got a rate of {rate!r:.40}",
            where=where,
            cure="write rates as fractions per year: 0.05 is 5 %",
        )
    return tuple(found) if found[0].shape else tuple(float(each) for each in found)


def broadcast(where: str, *arrays: FloatArray) -> tuple[FloatArray, ...]:
    """Return arrays of one shape; raise a ParameterError if theirs do not fit."""
    try:
        return tuple(np.broadcast_arrays(*arrays))
    except ValueError as error:
        shapes = ", ".join(str(each.shape) for each in arrays if each.shape)
        raise ParameterError(
            f"arguments must have shapes that broadcast, got {shapes}",
            where=where,
            cure="give scalars, or arrays of one shape",
        ) from error


def read_signs(kind: Kind, where: str) -> FloatArray:
    """Return 1 for calls and -1 for puts."""
    kinds = np.asarray(kind)
    names = sorted(map(str, set(kinds.ravel().tolist())))
    wrong = [each for each in names if each not in SIGNS]
    if wrong:
        raise ParameterError(
            f"kind must be 'call' or 'put', got {repr_given(wrong[0])}"
            f"{did_you_mean(wrong[0], SIGNS)}",
            where=where,
            cure="write 'call' or 'put', or give an array of them",
        )
    return np.where(kinds == "call", 1.0, -1.0)


def read_numbers(name: str, value: object, where: str) -> FloatArray:
    """Return numbers as an array of floats; NaN is allowed, infinite ones are not."""
    try:
        given = np.asarray(value)
        array = None if given.dtype.kind in "USc" or value is None else given.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        array = None
    if array is None:
        raise ParameterError(
            f"{name} must be numbers, got {repr_given(value)}",
            where=where,
            cure=f"give {name} as a number or an array of numbers",
        )
    if np.isinf(array).any():
        raise ParameterError(
            f"{name} must be finite, got {float(array[np.isinf(array)].flat[0])}",
            where=where,
            cure="leave such rows out, or mark them with NaN",
        )
    return array


def check_positive(
    name: str, array: FloatArray, where: str, *, is_zero_allowed: bool = False
) -> None:
    """Raise an error if a number is negative, or 0 where that is not allowed."""
    with np.errstate(invalid="ignore"):
        bad = array < 0.0 if is_zero_allowed else array <= 0.0
    if bad.any():
        rule = "at least 0" if is_zero_allowed else "positive"
        count = f" in {int(bad.sum())} of {array.size} places" if array.size > 1 else ""
        raise ParameterError(
            f"{name} must be {rule}, got {float(array[bad].flat[0]):g}{count}",
            where=where,
            cure="leave such rows out, or mark them with NaN",
        )


def is_coin(settlement: object, where: str) -> bool:
    """Return whether values are in coins rather than in the quote currency."""
    if settlement not in ("cash", "coin"):
        raise ParameterError(
            f"settlement must be 'cash' or 'coin', got {repr_given(settlement)}"
            f"{did_you_mean(settlement, ('cash', 'coin'))}",
            where=where,
            cure="write 'coin' for premiums in coins of the underlying, else 'cash'",
        )
    return settlement == "coin"


def evaluate(
    scalar: Callable[..., Any], kernels: Any, name: str, given: tuple[Any, ...], width: int = 0
) -> Any:
    """Return a scalar function of floats, or its kernel over arrays, ``width`` values each.

    The last of ``given`` is no array: whether settlement is in coins.
    """
    if not np.ndim(given[0]):
        if any(math.isnan(number) for number in given):
            return (math.nan,) * width if width else math.nan
        return scalar(*given)
    shape, n = given[0].shape, given[0].size
    flat = [np.ascontiguousarray(each, dtype=np.float64).ravel() for each in given[:-1]]
    is_known = ~np.isnan(np.sum(flat, axis=0))
    out = np.full((n, width) if width else n, math.nan)
    chosen = [each[is_known] for each in flat]
    found = np.empty((len(chosen[0]), width) if width else len(chosen[0]))
    if len(found):
        getattr(compile_module(kernels), name)(*chosen, given[-1], found)
    out[is_known] = found
    if not width:
        return out.reshape(shape)
    return tuple(out[:, k].reshape(shape) for k in range(width))
