"""Maintenance margin, initial margin and liquidation price of one position.

The public functions take a venue, and scalars or arrays; inside compiled policies they take
``account.venue``. Each one broadcasts the scalar function of the same name, which also compiles.
:func:`requirement`, :func:`initial` and :func:`collateral_value` are of a portfolio of positions
(:mod:`backtest.venue.cross_margin`).
The formulas and symbols are explained in :mod:`backtest.venue.requirement`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.base import FloatArray, ParameterError, check_range, repr_plain
from backtest.base.units import TOLERANCE
from backtest.venue.contract_value import compute_price, compute_value
from backtest.venue.cross_margin import (
    collateral_value,
    initial,
    option_value,
    requirement,
    strategy_deposit,
)
from backtest.venue.liquidation_price import compute_liquidation_value
from backtest.venue.requirement import (
    MarginRules,
    compute_maintenance,
    compute_rate,
    compute_setting,
    read_rules,
)
from backtest.venue.requirement_rule import scenario_grid

if TYPE_CHECKING:
    from collections.abc import Callable

    from backtest.venue.venue import Venue

    Number = float | FloatArray


__all__ = [
    "bankruptcy_price",
    "collateral_value",
    "initial",
    "largest_notional",
    "liquidation_price",
    "maintenance",
    "option_value",
    "requirement",
    "scenario_grid",
    "strategy_deposit",
    "survivable_notional",
]


def scalar_maintenance(rules: MarginRules, notional: float, multiplier: float) -> float:
    return compute_maintenance(rules, abs(notional), multiplier)


def scalar_largest_notional(rules: MarginRules, equity: float, leverage: float) -> float:
    if not leverage < math.inf:
        best = 0.0
        for k in range(len(rules.caps)):
            most = equity * rules.leverages[k] / rules.initial_multiplier
            best = max(best, min(rules.caps[k], most))
        return best
    cap = 0.0
    for k in range(len(rules.caps)):
        if rules.leverages[k] / rules.initial_multiplier >= leverage * (1.0 - TOLERANCE):
            cap = rules.caps[k]
    return max(0.0, min(cap, equity * leverage))


def scalar_survivable_notional(rules: MarginRules, equity: float, ratio: float) -> float:
    if equity <= 0.0:
        return 0.0
    move = 1.0 / ratio if rules.is_inverse else ratio
    lost, backing = abs(1.0 - move), equity
    if rules.is_isolated:
        setting = compute_setting(rules, rules.initial_multiplier)
        lost, backing = lost - 1.0 / setting, 0.0
    tested = 1.0 if rules.is_valued_at_entry else move
    rate = compute_rate(rules, 0, rules.multiplier)
    amount = 0.0
    for k in range(1, len(rules.floors)):
        if rules.floors[k] * (lost + rate * tested) > (backing + amount) * tested:
            break
        after = compute_rate(rules, k, rules.multiplier)
        amount += rules.floors[k] * (after - rate)
        rate = after
    slope = lost + rate * tested
    notional = math.inf if slope <= 0.0 else (backing + amount) / slope
    return min(notional, equity * setting) if rules.is_isolated else notional


def scalar_liquidation_price(
    rules: MarginRules,
    quantity: float,
    entry: float,
    collateral: float,
    multiplier: float,
    other_backing: float,
    other_maintenance: float,
) -> float:
    if quantity == 0.0:
        return math.nan
    value = compute_value(rules.size, rules.is_inverse, entry)
    backing = collateral + (other_backing - other_maintenance)
    base = backing - quantity * value
    root = compute_liquidation_value(rules, quantity, value, base, multiplier)
    if not math.isnan(root):
        return compute_price(rules.size, rules.is_inverse, root)
    needed = compute_maintenance(rules, abs(quantity * value), multiplier)
    return entry if backing <= needed * (1.0 + TOLERANCE) else math.nan


def scalar_bankruptcy_price(
    rules: MarginRules, quantity: float, entry: float, collateral: float
) -> float:
    if quantity == 0.0:
        return math.nan
    value = compute_value(rules.size, rules.is_inverse, entry) - collateral / quantity
    price = compute_price(rules.size, rules.is_inverse, value)
    return price if price > 0.0 else math.nan


OF_PRICES = (scalar_survivable_notional, scalar_liquidation_price, scalar_bankruptcy_price)
"""What a spot leg has only together with its account."""


def maintenance(
    venue: Venue | MarginRules, notional: Number, multiplier: Number | None = None
) -> Any:
    """Return the maintenance margin MM(N).

    Parameters
    ----------
    venue : Venue
        The rules; inside a policy ``account.venue``.
    notional : float or array
        In the settlement currency; the sign is ignored.
    multiplier : float or array, optional
        The multiplier of maintenance margin. Default: 1 for a venue, whose own multipliers belong
        to times; this bar's for ``account.venue``.

    Returns
    -------
    float or array
        In the settlement currency, of the broadcast shape.

    Raises
    ------
    ParameterError
        If the multiplier is not positive.

    Examples
    --------
    >>> from backtest import Venue
    >>> maintenance(Venue.preset("binance-usdm", "BTCUSDT@2024-10-24"), 550_000)
    2700.0
    """
    return _broadcast(scalar_maintenance, venue, notional, _read(multiplier, venue))


def largest_notional(
    venue: Venue | MarginRules, equity: Number, leverage: Number = math.inf
) -> Any:
    """Return the largest notional that initial margin allows, before costs.

    It is under the multiplier of initial margin: this bar's for ``account.venue``, 1 for a venue.

    Parameters
    ----------
    venue : Venue
        The rules; inside a policy ``account.venue``.
    equity : float or array
        In the settlement currency.
    leverage : float or array
        The leverage set at the venue: the largest cap whose bracket still allows it, and at most
        ``equity leverage``. Infinite (default): the best setting for the order,
        ``max_k min(C_k, equity X_k)``.

    Returns
    -------
    float or array
        In the settlement currency; 0 where no bracket allows the leverage.

    Raises
    ------
    ParameterError
        If the leverage is not positive.
    """
    _check_positive("leverage", leverage)
    return _broadcast(scalar_largest_notional, venue, equity, leverage)


def liquidation_price(
    venue: Venue | MarginRules,
    quantity: Number,
    entry: Number,
    collateral: Number,
    multiplier: Number | None = None,
    other_backing: Number = 0.0,
    other_maintenance: Number = 0.0,
) -> Any:
    """Return the price at which the collateral and the profit equal the maintenance margin.

    Parameters
    ----------
    venue : Venue
        The rules; inside a policy ``account.venue``.
    quantity : float or array
        Signed contracts.
    entry : float or array
        Average entry price.
    collateral : float or array
        What backs the position, in the settlement currency: the posted margin, or the wallet
        balance in cross margin.
    multiplier : float or array, optional
        The multiplier of maintenance margin, as in :func:`maintenance`.
    other_backing, other_maintenance : float or array
        Of the other cross positions on the same collateral, at prices that stay where they are:
        their unrealized profit with collateral at its rates, and their maintenance margin.

    Returns
    -------
    float or array
        The price at which the requirement is just met, beyond the entry where it already fails
        there; NaN where no price liquidates; the entry where it fails at every price.

    Raises
    ------
    ParameterError
        If an entry or a multiplier is not positive.

    Examples
    --------
    >>> from backtest import Venue
    >>> venue = Venue.simple(taker=0.0005, slippage=0.0, maintenance_rate=0.004, max_leverage=100,
    ...                      liquidation_fee=0.0)
    >>> round(liquidation_price(venue, 1.0, 100.0, 5.0, other_maintenance=4.0), 4)
    99.3976
    """
    _check_positive("entry", entry)
    x = _read(multiplier, venue)
    others = (other_backing, other_maintenance)
    return _broadcast(scalar_liquidation_price, venue, quantity, entry, collateral, x, *others)


def survivable_notional(venue: Venue | MarginRules, equity: Number, ratio: Number) -> Any:
    """Return the largest notional that a move of the price does not liquidate.

    Parameters
    ----------
    venue : Venue
        The rules; inside a policy ``account.venue``, which also says what backs a position.
    equity : float or array
        In the settlement currency. In cross margin all of it backs the position; in isolated
        margin (inside a policy) the margin that is posted for it, a fixed share of the notional,
        however much equity there is.
    ratio : float or array
        The price after the move over that before: under 1 for a long, over 1 for a short.

    Returns
    -------
    float or array
        In the settlement currency, at the price before the move; NaN where the ratio is. In cross
        margin not limited by initial margin. In isolated margin at most the equity times the
        leverage set at the venue, and 0 where that setting alone brings the liquidation price
        nearer than the move.

    Raises
    ------
    ParameterError
        If a ratio is not positive.

    Notes
    -----
    The inverse of :func:`liquidation_price`, for a position opened before the move. With u the
    value of a contract after it over that before, the largest N with ``N |1 - u| + MM(u N) <=
    equity``: the left side is convex, and straight within a bracket.

    Examples
    --------
    >>> from backtest import Venue
    >>> venue = Venue.preset("binance-usdm", "BTCUSDT")
    >>> notional = survivable_notional(venue, 10_000, 0.9)
    >>> round(liquidation_price(venue, notional / 100.0, 100.0, 10_000), 9)
    90.0
    """
    _check_positive("ratio", ratio, is_nan_allowed=True)
    return _broadcast(scalar_survivable_notional, venue, equity, ratio)


def bankruptcy_price(
    venue: Venue | MarginRules, quantity: Number, entry: Number, collateral: Number
) -> Any:
    """Return the price at which the position has lost all that backs it.

    Parameters and errors are those of :func:`liquidation_price`; NaN where no price does.
    """
    _check_positive("entry", entry)
    return _broadcast(scalar_bankruptcy_price, venue, quantity, entry, collateral)


def _read(multiplier: Number | None, venue: Venue | MarginRules) -> Number:
    if multiplier is None:
        return venue.multiplier if isinstance(venue, MarginRules) else 1.0
    _check_positive("multiplier", multiplier)
    return multiplier


def _broadcast(function: Callable[..., float], venue: Venue | MarginRules, *numbers: Number) -> Any:
    if not isinstance(venue, MarginRules) and not hasattr(venue, "brackets"):
        raise ParameterError(f"venue must be a Venue, got {repr_plain(venue)}")
    rules = venue if isinstance(venue, MarginRules) else read_rules(venue)
    if not isinstance(venue, MarginRules) and venue.contract.is_spot and function in OF_PRICES:
        raise ParameterError(
            "contract.kind must be margined, as the price that fails a spot leg is one of its "
            "whole account, got 'spot'; bt.calculate_book takes the account"
        )
    try:
        arrays = [np.asarray(number, dtype=np.float64) for number in numbers]
        flat = np.broadcast_arrays(*arrays)
    except (TypeError, ValueError, OverflowError) as error:
        problem = f"arguments must be numbers, or arrays of shapes that fit: {error}"
        raise ParameterError(problem) from error
    rows = zip(*(array.ravel().tolist() for array in flat), strict=True)
    values = np.array([function(rules, *row) for row in rows], dtype=np.float64)
    return float(values[0]) if not flat[0].shape else values.reshape(flat[0].shape)


def _check_positive(name: str, values: Number, *, is_nan_allowed: bool = False) -> None:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ParameterError(f"{name} must be numbers: {error}") from error
    array = array[~np.isnan(array)] if is_nan_allowed else array
    smallest = float(np.min(array)) if array.size else 1.0
    check_range(name, smallest, low=0.0, open_low=True)
