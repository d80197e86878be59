"""What a contract is worth, what a position of it requires by brackets, and what liquidates it.

The value ``u(P)`` of a contract is ``size P`` (linear) or ``-size / P`` (inverse) in the settlement
currency. Both rise with the price, so that one formula of margin and profit works for both.

Brackets ``k`` have a floor ``f_k``, a cap ``C_k``, a maintenance rate ``r_k`` and a largest
leverage ``X_k``. The maintenance margin ``MM(N) = max_k (r_k N - c_k)`` with ``c_0 = 0`` and
``c_k = c_{k-1} + f_k (r_k - r_{k-1})`` is continuous and convex in the notional ``N``. A
multiplier ``x`` scales the rates (capped at 1; the amounts follow) and divides the leverages. The
functions of maintenance margin take the maintenance multiplier, those of initial margin the
initial one. Maintenance margin and the liquidation value are also those of arrays of shape (n,).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from backtest.core.kernels import cold, inlined
from backtest.core.units import TOLERANCE
from backtest.venue.venue import Venue, find_newest

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


@inlined
def choose(condition: Any, yes: float, no: float) -> float:
    """Return one of two numbers, or of arrays; compiled code, which has numbers, replaces this."""
    if isinstance(condition, np.ndarray):
        return np.where(condition, yes, no)  # type: ignore[return-value] # arrays for arrays
    return yes if condition else no


def compute_price(size: float, is_inverse: bool, value: float) -> float:
    """Return the price at which one contract is worth ``value``; NaN if there is none."""
    known = choose(value != 0.0, value, math.nan)
    return -size / known if is_inverse else known / size


def compute_rate(rules: MarginRules, k: int, multiplier: float) -> float:
    rate = multiplier * rules.rates[k] + rules.close_fee
    return choose(rate < 1.0, rate, 1.0)


def compute_maintenance(rules: MarginRules, notional: float, multiplier: float) -> float:
    rate = compute_rate(rules, 0, multiplier)
    amount, last = 0.0, rate
    for k in range(1, len(rules.floors)):
        after, is_over = compute_rate(rules, k, multiplier), notional > rules.floors[k]
        amount = choose(is_over, amount + rules.floors[k] * (after - last), amount)
        rate = choose(is_over, after, rate)
        last = after
    return rate * notional - amount


def compute_setting(rules: MarginRules, multiplier: float) -> float:
    return min(rules.setting, rules.leverages[0] / multiplier)


def compute_best_leverage(rules: MarginRules, multiplier: float) -> float:
    most = rules.leverages[0] / multiplier
    return rules.setting if 0.0 < rules.setting < most else most


def compute_largest_notional(
    rules: MarginRules, equity: float, held: float, cost: float, multiplier: float, enough: float
) -> float:
    """Return the largest notional that some equity allows, or one of at least ``enough``."""
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
        if best >= enough:
            break
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
    """Return the contracts, at most ``size``, whose maintenance the backing left covers."""
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


@cold
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
