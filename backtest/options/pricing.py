"""Prices, Greeks and implied volatilities of European options: Black-76 and Black-Scholes.

All functions take scalars or arrays that broadcast, and give the same bits in Python and in
compiled policies. Values are per unit of the underlying. Cash settlement gives them in the quote
currency, coin settlement in coins of the underlying (the cash value over the forward).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
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
PRICES = ("forward", "spot", "strike")
RANGES = dict.fromkeys(RATES, core.Real()) | dict.fromkeys(PRICES, POSITIVE)
"""What numbers may be; all others are at least 0."""


class Formula(NamedTuple):
    """A function of one contract, and the kernel that evaluates it for many.

    ``width`` is the number of values per contract; 0 if it is a float and no tuple.
    """

    scalar: Callable[..., Any]
    kernel: str
    width: int = 0


class Terms(NamedTuple):
    """The arguments of a formula in its order, all floats or all arrays of one shape.

    The first is the sign of the option: 1 for a call, -1 for a put.
    """

    numbers: tuple[Any, ...]
    is_coin: bool = False


def read_terms(
    kind: Kind,
    numbers: Mapping[str, Number],
    settlement: object = "cash",
) -> Terms:
    """Return checked arguments, broadcast to one shape; raise ParameterError for a bad one.

    The terms are the sign of the kind, 1 for a call, and then ``numbers`` in their order: arrays if
    any argument is one, floats otherwise.
    """
    arrays = {}
    for name, value in numbers.items():
        allowed = RANGES.get(name, NOT_NEGATIVE)
        arrays[name] = check_each(name, value, allowed)
    kinds = np.asarray(kind)
    for word in sorted({*map(str, kinds.ravel().tolist())}):
        core.Choice(*SIGNS).check("kind", word)
    is_coin = core.Choice("cash", "coin").check("settlement", settlement) == "coin"

    signs = np.where(kinds == "call", 1.0, -1.0)
    terms = broadcast(signs, *arrays.values())

    # A rate is bounded together with the years.
    by_name = dict(zip(arrays, terms[1:], strict=True))
    for name in RATES:
        if name in by_name:
            check_carry(name, by_name[name], by_name["years"])

    if terms[0].shape:
        return Terms(terms, is_coin)
    return Terms(tuple(map(float, terms)), is_coin)


def check_carry(name: str, rate: FloatArray, years: FloatArray) -> None:
    """Require that the exponential of a rate times years is a number, and warn of high rates."""
    with np.errstate(over="ignore"):
        is_bad = np.abs(rate * years) > MAX_CARRY
    if is_bad.any():
        raise ParameterError(
            f"{name} times years must be at most {MAX_CARRY:g} in size, got a {name} of "
            f"{float(rate[is_bad].flat[0]):g} over {float(years[is_bad].flat[0]):g} years; "
            "rates are fractions per year: 0.05 is 5 %"
        )
    core.warn_of_high_rate(name, float(np.max(rate, initial=0.0)))


def evaluate(formula: Formula, terms: Terms) -> Any:
    """Return the value of a formula, NaN where a term is: a float, an array, or a tuple of them."""
    if np.ndim(terms.numbers[0]):
        return evaluate_arrays(formula, terms)
    if not any(map(math.isnan, terms.numbers)):
        return formula.scalar(*terms.numbers, terms.is_coin)
    if formula.width:
        return (math.nan,) * formula.width
    return math.nan


def evaluate_arrays(formula: Formula, terms: Terms) -> Any:
    """Return the values of a formula: an array of the shape of the terms, or a tuple of them.

    A formula with a ``width`` has as many values of each contract, others have one.
    """
    shape = terms.numbers[0].shape
    rows = np.stack([np.ravel(number) for number in terms.numbers])
    n_contracts = rows.shape[1]
    values = np.full(n_contracts, math.nan)
    if formula.width:
        values = np.full((n_contracts, formula.width), math.nan)

    # The kernel knows no NaN, so it is asked for the other contracts alone. It writes the value of
    # each column of its first argument into a row of its last.
    is_known = ~np.isnan(rows.sum(axis=0))
    if is_known.any():
        known_rows = np.ascontiguousarray(rows[:, is_known])
        n_known = known_rows.shape[1]
        known_values = np.empty((n_known, *values.shape[1:]))
        kernels = _compile.compile_module(implied_kernels)
        write_values = getattr(kernels, formula.kernel)
        write_values(known_rows, terms.is_coin, known_values)
        values[is_known] = known_values

    if formula.width:
        return tuple(column.reshape(shape) for column in values.T)
    return values.reshape(shape)


def broadcast(*arrays: FloatArray) -> tuple[FloatArray, ...]:
    """Return arrays of one shape, or raise ParameterError if shapes do not fit."""
    try:
        return tuple(np.broadcast_arrays(*arrays))
    except ValueError as error:
        shapes = ", ".join(str(array.shape) for array in arrays if array.shape)
        raise ParameterError(f"arguments must have shapes that broadcast, got {shapes}") from error


def name_numbers(
    forward: Number,
    strike: Number,
    years: Number,
    volatility: Number,
    rate: Number,
) -> dict[str, Number]:
    """Return the numbers of Black-76 by name, in the order of its scalar functions."""
    return {
        "forward": forward,
        "strike": strike,
        "years": years,
        "volatility": volatility,
        "rate": rate,
    }


PRICE = Formula(core.scalar_price, "fill_prices")
GREEKS = Formula(core.scalar_greeks, "fill_greeks", width=len(Greeks._fields))
IMPLIED = Formula(implied_kernels.scalar_implied, "fill_volatilities")
UNCERTAIN = "vega is too small: the rounding of the price moves the volatility by over a thousandth"


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
    numbers = name_numbers(forward, strike, years, volatility, rate)
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
    numbers = name_numbers(forward, strike, years, volatility, rate)
    terms = read_terms(kind, numbers, settlement)
    values = Greeks(*evaluate(GREEKS, terms))
    if in_money:
        at_forward = np.asarray(terms.numbers[1])
        return scale_greeks(values, at_forward, quantity=quantity, size=size, spot=spot)

    position = {"quantity": quantity, "size": size, "spot": spot}
    for name, value in position.items():
        if value is not None:
            raise ParameterError(
                f"{name} needs in_money=True, got {name}={repr_given(value)} without it"
            )
    return values


def scale_greeks(
    per_unit: Greeks,
    at_forward: FloatArray,
    *,
    quantity: Number | None,
    size: Number | None,
    spot: Number | None,
) -> Greeks:
    """Return the Greeks of a position in money, in the units that :func:`greeks` states.

    ``at_forward`` are the forwards. A ``quantity`` or ``size`` of None stands for 1, a ``spot`` of
    None for the forward.
    """
    if quantity is None:
        quantity = 1.0
    if size is None:
        size = 1.0
    if spot is None:
        spot = at_forward
    contracts = check_each("quantity", quantity, core.Real())
    sizes = check_each("size", size, core.Real())
    spots = check_each("spot", spot, POSITIVE)

    # Greeks have the shape of the forwards, and one quantity may hold for all of them.
    contracts, sizes, spots, _ = broadcast(contracts, sizes, spots, at_forward)
    units = contracts * sizes
    in_money = []
    for value, (power, divisor) in zip(per_unit, SCALES, strict=True):
        scale = units * spots**power / divisor
        in_money.append(value * scale)
    return make_greeks(in_money)


def make_greeks(values: Iterable[Any]) -> Greeks:
    """Return Greeks of which single numbers are floats, not arrays without a shape."""
    return Greeks(*(value if np.ndim(value) else float(value) for value in values))


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
    sign, paid, f, k, t, r = (np.asarray(number) for number in terms.numbers)

    # The price in cash at expiry, and the two bounds that it must lie between.
    undiscounted = paid * np.exp(r * t)
    if terms.is_coin:
        undiscounted = undiscounted * f
    intrinsic = np.maximum(0.0, sign * (f - k))
    largest = np.where(sign > 0.0, f, k)

    # The first test that holds says why; where none does, the price is rounded too much.
    tests = {
        "a number is missing": np.isnan(undiscounted + k),
        "no time to expiry": ~(t > 0.0),
        "at or above the largest value: no volatility gives it": undiscounted >= largest,
        "at the intrinsic value: every small volatility gives it": undiscounted == intrinsic,
        "below the intrinsic value": undiscounted < intrinsic,
    }
    reasons = np.select([*tests.values()], [*tests], UNCERTAIN)
    is_missing = np.isnan(evaluate(IMPLIED, terms))
    texts = np.where(is_missing, reasons, "")
    return texts if texts.shape else str(texts)


def name_spot_numbers(
    spot: Number,
    strike: Number,
    years: Number,
    volatility: Number,
    rate: Number,
    dividend: Number,
) -> dict[str, Number]:
    """Return the numbers of Black-Scholes by name, in the order of :func:`move_spot`."""
    return {
        "spot": spot,
        "strike": strike,
        "years": years,
        "volatility": volatility,
        "rate": rate,
        "dividend": dividend,
    }


def move_spot(terms: Terms) -> tuple[Terms, Any]:
    """Return the terms with the forward in place of the spot price, and forward over spot.

    Terms of one contract are floats, and so is the second value; otherwise both are arrays.
    """
    sign, spot, strike, years, volatility, rate, dividend = terms.numbers

    # Contract by contract, by the function that compiled policies call: so the bits are the same.
    flat = [np.ravel(number).tolist() for number in (years, rate, dividend)]
    growths = []
    for years_of_one, rate_of_one, dividend_of_one in zip(*flat, strict=True):
        growths.append(implied_kernels.scalar_growth(years_of_one, rate_of_one, dividend_of_one))

    growth: Any = growths[0]
    shape = np.shape(rate)
    if shape:
        growth = np.reshape(growths, shape)
    return Terms((sign, spot * growth, strike, years, volatility, rate)), growth


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
    numbers = name_spot_numbers(spot, strike, years, volatility, rate, dividend)
    terms, _ = move_spot(read_terms(kind, numbers))
    return evaluate(PRICE, terms)


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

    Notes
    -----
    With F = S exp((r - q) T), a derivative by S is the one by F times ``growth``, dF/dS: once for
    delta and vanna, twice for gamma. Derivatives by the volatility alone are the same.
    """
    numbers = name_spot_numbers(spot, strike, years, volatility, rate, dividend)
    spot_terms = read_terms(kind, numbers)
    _, _, _, term, sigma, r, q = spot_terms.numbers  # years, volatility, rate and dividend

    terms, growth = move_spot(spot_terms)
    _, forward, *_ = terms.numbers
    by_forward = Greeks(*evaluate(GREEKS, terms))

    # The forward moves with time and with the rate, so theta and rho have a second part:
    # dF/dT = (r - q) F, and dF/dr = T F.
    has_time = np.asarray(sigma * np.sqrt(term) > 0.0)
    drift = np.where(has_time, by_forward.delta * (r - q) * forward, 0.0)
    rho = by_forward.rho + by_forward.delta * forward * term
    by_spot = by_forward._replace(
        delta=by_forward.delta * growth,
        gamma=by_forward.gamma * growth * growth,
        theta=by_forward.theta - drift,
        rho=np.where(has_time, rho, by_forward.rho),
        vanna=by_forward.vanna * growth,
    )
    return make_greeks(by_spot)
