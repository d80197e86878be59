"""What a contract is worth, what a position of it requires by brackets, and what liquidates it.

The value ``u(P)`` of a contract is ``size P`` (linear) or ``-size / P`` (inverse) in the settlement
currency. Both rise with the price, so that one formula of margin and profit works for both.

Brackets ``k`` have a floor ``f_k``, a cap ``C_k``, a maintenance rate ``r_k`` and a largest
leverage ``X_k``. The maintenance margin ``MM(N) = max_k (r_k N - c_k)`` with ``c_0 = 0`` and
``c_k = c_{k-1} + f_k (r_k - r_{k-1})`` is continuous and convex in the notional ``N``. A
multiplier ``x`` scales the rates (capped at 1; the amounts follow) and divides the leverages. The
functions of maintenance margin take the maintenance multiplier, those of initial margin the
initial one.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.base.units import TOLERANCE
from backtest.venue.venue import find_newest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backtest.base import FloatArray
    from backtest.venue.venue import Venue

LEVELS = ("floors", "caps", "rates", "amounts", "leverages")


class MarginRules(NamedTuple):
    """The margin rules of a venue as plain numbers; a policy sees them as ``account.venue``.

    ``floors``, ``caps``, ``rates``, ``amounts`` and ``leverages`` have one entry per bracket.
    Notionals and amounts are in the settlement currency. ``close_fee`` is added to every rate if
    the venue includes the fee of closing (else 0). ``taker`` is the taker fee rate, ``size`` the
    contract size, and ``setting`` the leverage set at the venue (0: the best for every order).
    ``multiplier`` is this bar's for maintenance margin, ``initial_multiplier`` that for orders.
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
    initial_multiplier: float


def read_rules(venue: Venue, setting: float = 0.0, is_isolated: bool = False) -> MarginRules:
    return MarginRules(
        floors=tuple(bracket.floor for bracket in venue.brackets),
        caps=tuple(bracket.cap for bracket in venue.brackets),
        rates=tuple(bracket.maintenance_rate for bracket in venue.brackets),
        amounts=tuple(float(bracket.amount or 0.0) for bracket in venue.brackets),
        leverages=tuple(bracket.max_leverage for bracket in venue.brackets),
        close_fee=find_newest(venue.fees.taker) if venue.includes_close_fee else 0.0,
        taker=find_newest(venue.fees.taker),
        size=venue.contract.size,
        setting=setting,
        is_inverse=venue.contract.kind == "inverse",
        is_isolated=is_isolated,
        is_valued_at_entry=venue.maintenance_at == "entry",
        multiplier=1.0,
        initial_multiplier=1.0,
    )


# --------------------------------------------------------------------- the value of a contract


def choose(condition: bool, yes: float, no: float) -> float:
    return yes if condition else no


def compute_value(size: float, is_inverse: bool, price: float) -> float:
    """Return u(P), the value of one contract in the settlement currency."""
    return -size / price if is_inverse else size * price


def compute_price(size: float, is_inverse: bool, value: float) -> float:
    """Return the price at which one contract is worth ``value``; NaN if there is none."""
    known = choose(value != 0.0, value, math.nan)
    return -size / known if is_inverse else known / size


def compute_prices(size: float, is_inverse: bool, value: FloatArray) -> FloatArray:
    """Return what :func:`compute_price` does, for an array."""
    known = np.where(value != 0.0, value, math.nan)
    return np.asarray(-size / known if is_inverse else known / size)


def compute_payment(quantity: float, value: float, rate: float) -> float:
    """Return the payment of a position at a funding event: ``q |u| r``, negative if received."""
    return quantity * (abs(value) * rate)


# -------------------------------------------------------------------------- maintenance margin


def compute_rate(rules: MarginRules, k: int, multiplier: float) -> float:
    return min(1.0, multiplier * rules.rates[k] + rules.close_fee)


def count_brackets(rules: MarginRules, notional: float) -> int:
    return bisect_left(rules.floors, notional)


def compute_maintenance(rules: MarginRules, notional: float, multiplier: float) -> float:
    rate = compute_rate(rules, 0, multiplier)
    amount = 0.0
    for k in range(1, count_brackets(rules, notional)):
        if notional > rules.floors[k]:
            after = compute_rate(rules, k, multiplier)
            amount += rules.floors[k] * (after - compute_rate(rules, k - 1, multiplier))
            rate = after
    return rate * notional - amount


def compute_maintenances(rules: MarginRules, notional: FloatArray, multiplier: Any) -> FloatArray:
    """Return what :func:`compute_maintenance` does, for arrays of notionals and multipliers."""
    rates = [np.minimum(1.0, multiplier * each + rules.close_fee) for each in rules.rates]
    rate, amount = rates[0], np.zeros(np.shape(notional))
    for k in range(1, len(rates)):
        is_over = notional > rules.floors[k]
        amount = amount + np.where(is_over, rules.floors[k] * (rates[k] - rates[k - 1]), 0.0)
        rate = np.where(is_over, rates[k], rate)
    return np.asarray(rate * notional - amount)


# ------------------------------------------------------------------------------ initial margin


def compute_setting(rules: MarginRules, multiplier: float) -> float:
    return min(rules.setting, rules.leverages[0] / multiplier)


def compute_best_leverage(rules: MarginRules, multiplier: float) -> float:
    most = rules.leverages[0] / multiplier
    return rules.setting if 0.0 < rules.setting < most else most


def compute_largest_notional(
    rules: MarginRules, equity: float, held: float, cost: float, multiplier: float
) -> float:
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
    slope = 1.0 + cost * leverage
    if leverage == math.inf:
        of_equity, of_held = (1.0 / cost, 1.0) if cost > 0.0 else (math.inf, 0.0)
    elif slope > 0.0:
        of_equity, of_held = leverage / slope, cost * (leverage / slope)
    else:
        of_equity, of_held = math.inf, 0.0
    return max(0.0, of_equity * equity + of_held * held)


def compute_initial(rules: MarginRules, notional: float, multiplier: float) -> float:
    if rules.setting > 0.0:
        return notional / compute_setting(rules, multiplier)
    leverage = rules.leverages[0]
    for k in range(1, len(rules.caps)):
        leverage = choose(notional > rules.caps[k - 1], rules.leverages[k], leverage)
    return notional * multiplier / leverage


# ------------------------------------------------------------------------------------ reductions


def compute_step_floor(rules: MarginRules, notional: float) -> float:
    floor = 0.0
    for k in range(1, len(rules.floors)):
        if notional <= rules.floors[k]:
            break
        floor = rules.floors[k]
    return floor


def compute_affordable(
    rules: MarginRules, size: float, value: float, cost: float, spared: float, multiplier: float
) -> float:
    allowed = size
    amount, last = 0.0, 0.0
    for k in range(len(rules.floors)):
        rate = compute_rate(rules, k, multiplier)
        if k > 0:
            amount += rules.floors[k] * (rate - last)
        last = rate
        slope = rate * value - cost
        if slope > 0.0:
            allowed = min(allowed, (amount + spared) / slope)
    return allowed


# ------------------------------------------------------------------------------ liquidation


def compute_liquidation_value(
    rules: MarginRules, quantity: float, entry: float, base: float, multiplier: float
) -> float:
    """Return the u at which ``base + q u = MM``; NaN if no price liquidates."""
    size = abs(quantity)
    side = choose(quantity > 0.0, 1.0, -1.0)
    sign = -1.0 if rules.is_inverse else 1.0
    if rules.is_valued_at_entry:
        needed = compute_maintenance(rules, size * abs(entry), multiplier)
        root = side * (needed - base) / choose(size > 0.0, size, 1.0)
        return choose((size > 0.0) & (root * sign > 0.0), root, math.nan)
    best, highest = math.nan, -math.inf
    amount, last = 0.0, 0.0
    for k in range(len(rules.floors)):
        rate = compute_rate(rules, k, multiplier)
        if k > 0:
            amount += rules.floors[k] * (rate - last)
        last = rate
        slope = size * (1.0 - side * sign * rate)
        root = -side * (base + amount) / choose(slope > 0.0, slope, 1.0)
        is_nearer = (slope > 0.0) & (root * sign > 0.0) & (side * root > highest)
        best = choose(is_nearer, root, best)
        highest = choose(is_nearer, side * root, highest)
    return best


def compute_liquidation_values(
    rules: MarginRules, quantity: FloatArray, entry: FloatArray, base: FloatArray, multiplier: Any
) -> FloatArray:
    """Return what :func:`compute_liquidation_value` does, for arrays."""
    size, side = np.abs(quantity), np.where(quantity > 0.0, 1.0, -1.0)
    sign = -1.0 if rules.is_inverse else 1.0
    if rules.is_valued_at_entry:
        needed = compute_maintenances(rules, size * np.abs(entry), multiplier)
        root = side * (needed - base) / np.where(size > 0.0, size, 1.0)
        return np.where((size > 0.0) & (root * sign > 0.0), root, math.nan)
    best, highest = np.full(np.shape(quantity), math.nan), np.full(np.shape(quantity), -math.inf)
    amount, last = 0.0, 0.0
    for k in range(len(rules.floors)):
        rate = np.minimum(1.0, multiplier * rules.rates[k] + rules.close_fee)
        if k > 0:
            amount = amount + rules.floors[k] * (rate - last)
        last = rate
        slope = size * (1.0 - side * sign * rate)
        root = -side * (base + amount) / np.where(slope > 0.0, slope, 1.0)
        is_nearer = (slope > 0.0) & (root * sign > 0.0) & (side * root > highest)
        best, highest = np.where(is_nearer, root, best), np.where(is_nearer, side * root, highest)
    return best
