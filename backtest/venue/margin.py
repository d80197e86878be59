"""Maintenance margin, initial margin and liquidation price of one position: pure functions.

Brackets ``k`` have a floor ``f_k``, a cap ``C_k``, a maintenance rate ``r_k`` and a largest
leverage ``X_k``. The maintenance margin ``MM(N) = max_k (r_k N - c_k)`` with ``c_0 = 0`` and
``c_k = c_{k-1} + f_k (r_k - r_{k-1})`` is continuous and convex in the notional ``N``. A
multiplier ``x`` scales the rates (capped at 1; the amounts follow) and divides the leverages.

One contract is worth ``u(P) = size P`` (linear) or ``-size / P`` (inverse) in the settlement
currency. ``u`` rises with the price in both, so one formula serves both: a position of ``q``
contracts backed by ``b + q u`` is liquidated at the nearest root of ``b + q u = MM(|q u|)``.

The functions whose names begin with ``compute_`` work on scalars and plain records: they are what
the engine compiles. The public ones below them take a venue, scalars or arrays, and also serve
inside compiled policies, with ``account.venue`` as the venue.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.base.errors import ParameterError
from backtest.base.ranges import check_range
from backtest.base.units import TOLERANCE, FloatArray

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from backtest.venue.venue import Venue

    Number = float | FloatArray


LEVELS = ("floors", "caps", "rates", "amounts", "leverages")


class MarginRules(NamedTuple):
    """The margin rules of a venue as plain numbers; a policy sees them as ``account.venue``.

    ``floors``, ``caps``, ``rates``, ``amounts`` and ``leverages`` have one entry per bracket;
    notionals and amounts in the settlement currency. ``close_fee`` is added to every rate where
    the venue counts the fee of closing (else 0), ``taker`` is the taker fee rate, ``size`` the
    contract size, ``setting`` the leverage set at the venue (0: the best for every order).
    """

    floors: Sequence[float]
    caps: Sequence[float]
    rates: Sequence[float]
    amounts: Sequence[float]
    leverages: Sequence[float]
    close_fee: float
    taker: float
    size: float
    setting: float
    is_inverse: bool
    is_isolated: bool
    is_valued_at_entry: bool
    multiplier: float


def compute_value(rules: MarginRules, price: float) -> float:
    """Return u(P), the value of one contract in the settlement currency."""
    return -rules.size / price if rules.is_inverse else rules.size * price


def compute_price(rules: MarginRules, value: float) -> float:
    """Return the price at which one contract is worth ``value``; NaN where there is none."""
    if value == 0.0:
        return math.nan
    return -rules.size / value if rules.is_inverse else value / rules.size


def compute_rate(rules: MarginRules, k: int, multiplier: float) -> float:
    """Return the maintenance rate of bracket k under a multiplier, fee of closing included."""
    return min(1.0, multiplier * rules.rates[k] + rules.close_fee)


def compute_maintenance(rules: MarginRules, notional: float, multiplier: float) -> float:
    """Return MM(N): walk up to the bracket that holds the notional, summing its amount."""
    rate = compute_rate(rules, 0, multiplier)
    amount = 0.0
    for k in range(1, len(rules.floors)):
        if notional > rules.floors[k]:
            rate = compute_rate(rules, k, multiplier)
            amount += rules.floors[k] * (rate - compute_rate(rules, k - 1, multiplier))
    return rate * notional - amount


def compute_highest_rate(rules: MarginRules, notional: float, multiplier: float) -> float:
    """Return the highest rate of the brackets up to a notional: MM(N) is at most that times N."""
    highest = compute_rate(rules, 0, multiplier)
    found = highest
    for k in range(1, len(rules.floors)):
        highest = max(highest, compute_rate(rules, k, multiplier))
        if notional > rules.floors[k]:
            found = highest
    return found


def compute_bracket(rules: MarginRules, notional: float) -> int:
    """Return the index of the bracket that holds the notional: floor < N <= cap."""
    found = 0
    for k in range(1, len(rules.floors)):
        if notional <= rules.floors[k]:
            break
        found = k
    return found


def compute_liquidation_value(
    rules: MarginRules, quantity: float, entry: float, base: float, multiplier: float
) -> float:
    """Return the u at which ``base + q u = MM``; NaN where no price liquidates.

    ``base`` is what backs the position less its value: the cash in cross margin, the posted
    margin less ``q entry`` in isolated margin; ``entry`` is in u.
    """
    if quantity == 0.0:
        return math.nan
    size = abs(quantity)
    side = 1.0 if quantity > 0.0 else -1.0
    sign = -1.0 if rules.is_inverse else 1.0
    if rules.is_valued_at_entry:
        needed = compute_maintenance(rules, size * abs(entry), multiplier)
        root = side * (needed - base) / size
        return root if root * sign > 0.0 else math.nan
    best = math.nan
    amount = 0.0
    last = 0.0
    for k in range(len(rules.floors)):
        rate = compute_rate(rules, k, multiplier)
        if k > 0:
            amount += rules.floors[k] * (rate - last)
        last = rate
        slope = size * (1.0 - side * sign * rate)
        if slope > 0.0:
            root = -side * (base + amount) / slope
            if root * sign > 0.0 and not side * root <= side * best:
                best = root
    return best


def compute_setting(rules: MarginRules, multiplier: float) -> float:
    """Return the leverage set at the venue, as far as the first bracket still allows it."""
    return min(rules.setting, rules.leverages[0] / multiplier)


def compute_largest_notional(
    rules: MarginRules, equity: float, held: float, cost: float, multiplier: float
) -> float:
    """Return the largest notional an order may reach, after its own cost.

    ``held`` is the notional already held on the order's side (negative on the other side), and
    ``cost`` what a unit of traded notional costs: ``N <= X (E - cost (N - held))``.
    """
    if rules.setting > 0.0:
        setting, most = compute_setting(rules, multiplier), 0.0
        for k in range(len(rules.caps)):
            is_allowed = rules.leverages[k] / multiplier >= setting * (1.0 - TOLERANCE)
            most = max(most, rules.caps[k] if is_allowed else 0.0)
        return min(most, compute_after_cost(setting, equity, held, cost))
    best = 0.0
    for k in range(len(rules.caps)):
        leverage, cap = rules.leverages[k] / multiplier, rules.caps[k]
        best = max(best, min(cap, compute_after_cost(leverage, equity, held, cost)))
    return best


def compute_after_cost(leverage: float, equity: float, held: float, cost: float) -> float:
    """Return the largest N with ``N <= leverage (equity - cost (N - held))``, at least 0.

    As a sum of two products, so that the factors, which are the same for all accounts, are worked
    out once for many of them.
    """
    slope = 1.0 + cost * leverage
    if leverage == math.inf:
        of_equity, of_held = (1.0 / cost, 1.0) if cost > 0.0 else (math.inf, 0.0)
    elif slope > 0.0:
        of_equity, of_held = leverage / slope, cost * (leverage / slope)
    else:
        of_equity, of_held = math.inf, 0.0
    return max(0.0, of_equity * equity + of_held * held)


def compute_initial(rules: MarginRules, notional: float, multiplier: float) -> float:
    """Return the least equity that allows the notional to be held by a new order."""
    if rules.setting > 0.0:
        return notional / compute_setting(rules, multiplier)
    for k in range(len(rules.caps)):
        if notional <= rules.caps[k]:
            return notional * multiplier / rules.leverages[k]
    return notional * multiplier / rules.leverages[len(rules.leverages) - 1]


def read_rules(venue: Venue, setting: float = 0.0, is_isolated: bool = False) -> MarginRules:
    """Return a venue's margin rules as plain numbers, for an account's margin mode."""
    return MarginRules(
        tuple(bracket.floor for bracket in venue.brackets),
        tuple(bracket.cap for bracket in venue.brackets),
        tuple(bracket.maintenance_rate for bracket in venue.brackets),
        tuple(float(bracket.amount or 0.0) for bracket in venue.brackets),
        tuple(bracket.max_leverage for bracket in venue.brackets),
        venue.fees.taker if venue.includes_close_fee else 0.0,
        venue.fees.taker,
        venue.contract.size,
        setting,
        venue.contract.kind == "inverse",
        is_isolated,
        venue.maintenance_at == "entry",
        1.0,
    )


def scalar_maintenance(rules: MarginRules, notional: float, multiplier: float) -> float:
    """Return the maintenance margin of one notional."""
    return compute_maintenance(rules, abs(notional), multiplier)


def scalar_largest_notional(rules: MarginRules, equity: float, leverage: float) -> float:
    """Return the largest notional of one equity, at a leverage setting or the best of all."""
    if not leverage < math.inf:
        best = 0.0
        for k in range(len(rules.caps)):
            best = max(best, min(rules.caps[k], equity * rules.leverages[k] / rules.multiplier))
        return best
    cap = 0.0
    for k in range(len(rules.caps)):
        if rules.leverages[k] / rules.multiplier >= leverage * (1.0 - TOLERANCE):
            cap = rules.caps[k]
    return max(0.0, min(cap, equity * leverage))


def scalar_survivable_notional(rules: MarginRules, equity: float, ratio: float) -> float:
    """Return the largest notional that one move of the price does not liquidate."""
    if equity <= 0.0:
        return 0.0
    move = 1.0 / ratio if rules.is_inverse else ratio
    lost, backing = abs(1.0 - move), equity
    if rules.is_isolated:
        setting = compute_setting(rules, rules.multiplier)
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
    rules: MarginRules, quantity: float, entry: float, collateral: float, multiplier: float
) -> float:
    """Return the liquidation price of one position; NaN where no price liquidates."""
    if quantity == 0.0:
        return math.nan
    value = compute_value(rules, entry)
    base = collateral - quantity * value
    root = compute_liquidation_value(rules, quantity, value, base, multiplier)
    if not math.isnan(root):
        return compute_price(rules, root)
    needed = compute_maintenance(rules, abs(quantity * value), multiplier)
    return entry if collateral <= needed * (1.0 + TOLERANCE) else math.nan


def scalar_bankruptcy_price(
    rules: MarginRules, quantity: float, entry: float, collateral: float
) -> float:
    """Return the price at which one position has used up its collateral; NaN where none does."""
    if quantity == 0.0:
        return math.nan
    value = compute_value(rules, entry) - collateral / quantity
    price = compute_price(rules, value)
    return price if price > 0.0 else math.nan


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
        x_t of dynamic margin. Default: 1 for a venue, whose own ``margin_multiplier`` belongs to
        times; this bar's for ``account.venue``.

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
    >>> maintenance(Venue.preset("binance-usdm", "BTCUSDT"), 550_000)
    2700.0
    """
    where = "bt.margin.maintenance"
    return _broadcast(scalar_maintenance, venue, where, notional, _read(multiplier, venue, where))


def largest_notional(
    venue: Venue | MarginRules, equity: Number, leverage: Number = math.inf
) -> Any:
    """Return the largest notional that initial margin allows, before costs.

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
    _check_positive("leverage", leverage, "bt.margin.largest_notional")
    return _broadcast(
        scalar_largest_notional, venue, "bt.margin.largest_notional", equity, leverage
    )


def liquidation_price(
    venue: Venue | MarginRules,
    quantity: Number,
    entry: Number,
    collateral: Number,
    multiplier: Number | None = None,
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
        x_t of dynamic margin, as in :func:`maintenance`.

    Returns
    -------
    float or array
        The price at which the requirement is just met, beyond the entry where it already fails
        there; NaN where no price liquidates; the entry where it fails at every price.

    Raises
    ------
    ParameterError
        If an entry or a multiplier is not positive.
    """
    where = "bt.margin.liquidation_price"
    _check_positive("entry", entry, where)
    x = _read(multiplier, venue, where)
    return _broadcast(scalar_liquidation_price, venue, where, quantity, entry, collateral, x)


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
    where = "bt.margin.survivable_notional"
    _check_positive("ratio", ratio, where, is_nan_allowed=True)
    return _broadcast(scalar_survivable_notional, venue, where, equity, ratio)


def bankruptcy_price(
    venue: Venue | MarginRules, quantity: Number, entry: Number, collateral: Number
) -> Any:
    """Return the price at which the position has lost all that backs it.

    Parameters and errors are those of :func:`liquidation_price`; NaN where no price does.
    """
    where = "bt.margin.bankruptcy_price"
    _check_positive("entry", entry, where)
    return _broadcast(scalar_bankruptcy_price, venue, where, quantity, entry, collateral)


def _read(multiplier: Number | None, venue: Venue | MarginRules, where: str) -> Number:
    if multiplier is None:
        return venue.multiplier if isinstance(venue, MarginRules) else 1.0
    _check_positive("multiplier", multiplier, where)
    return multiplier


def _broadcast(
    function: Callable[..., float], venue: Venue | MarginRules, where: str, *numbers: Number
) -> Any:
    if not isinstance(venue, MarginRules) and not hasattr(venue, "brackets"):
        raise ParameterError(
            f"venue must be a Venue, was {venue!r}", where=where, cure="pass bt.Venue(...)"
        )
    rules = venue if isinstance(venue, MarginRules) else read_rules(venue)
    try:
        arrays = [np.asarray(number, dtype=np.float64) for number in numbers]
        flat = np.broadcast_arrays(*arrays)
    except (TypeError, ValueError) as error:
        raise ParameterError(
            f"arguments must be numbers, or arrays of shapes that fit: {error}",
            where=where,
            cure="give scalars, or arrays of one shape",
        ) from error
    rows = zip(*(array.ravel().tolist() for array in flat), strict=True)
    values = np.array([function(rules, *row) for row in rows], dtype=np.float64)
    return float(values[0]) if not flat[0].shape else values.reshape(flat[0].shape)


def _check_positive(name: str, values: Number, where: str, *, is_nan_allowed: bool = False) -> None:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ParameterError(
            f"{name} must be numbers: {error}", where=where, cure=f"give {name} as numbers"
        ) from error
    array = array[~np.isnan(array)] if is_nan_allowed else array
    smallest = float(np.min(array)) if array.size else 1.0
    check_range(name, smallest, where=where, low=0.0, open_low=True)
