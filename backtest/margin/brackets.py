"""What a contract is worth, what a position of it requires by brackets, and what liquidates it.

The value ``u(P)`` of a contract is ``size P`` (linear) or ``-size / P`` (inverse) in the settlement
currency. Both rise with the price, so that one formula of margin and profit works for both.

Brackets ``k`` have a floor ``f_k``, a cap ``C_k``, a maintenance rate ``r_k`` and a largest
leverage ``X_k``. The maintenance margin ``MM(N) = max_k (r_k N - c_k)`` with ``c_0 = 0`` and
``c_k = c_{k-1} + f_k (r_k - r_{k-1})`` is continuous and convex in the notional ``N``. A
multiplier ``x`` scales the rates (capped at 1; the amounts follow) and divides the leverages. The
functions of maintenance margin take the maintenance multiplier, those of initial margin the
initial one. Maintenance margin and the liquidation value are also those of arrays of shape (n,).

Words of this room:

- *value*: u, what one contract is worth in the settlement currency; *price*: what the market quotes
- *notional*: contracts times the value, without sign; *exposure*: the same with the sign
- *rate*, *amount*: of a bracket: the maintenance margin is ``rate * notional - amount``
- *setting*: the leverage set at the venue, 0 if the venue gives each order the best
- *pool*: the cross positions of an account, with the collateral that they share
- *backing*: what stands behind the pool: cash, profits, and collateral at its rates
- *requirement*: what the rule asks of the pool: its maintenance margin, or its initial margin
- *level*: the pool fails where the backing is at most ``level`` times the requirement
- *move*, *row*: a relative change of the price, and a scenario with its move, weight and shock
- *loss*: of a group or product in a row; positive if money is lost
- *haircut*: the share of a long spot leg that backs nothing
- *sound*, *failing*: two places of a search between which the pool fails
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from backtest.core.kernels import cold, inlined
from backtest.core.units import TOLERANCE
from backtest.venue.trade_costs import find_newest
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
    """Return the margin rules of a venue as plain numbers, for one instrument of an account.

    ``setting`` is the leverage set at the venue, 0 for the best of each order. Multipliers are 1:
    bars write those of their time.
    """
    taker = find_newest(venue.fees.taker)
    close_fee = 0.0
    if venue.includes_close_fee:
        close_fee = taker

    return MarginRules(
        floors=tuple(bracket.floor for bracket in venue.brackets),
        caps=tuple(bracket.cap for bracket in venue.brackets),
        rates=tuple(bracket.maintenance_rate for bracket in venue.brackets),
        amounts=tuple(float(bracket.amount or 0.0) for bracket in venue.brackets),
        leverages=tuple(bracket.max_leverage for bracket in venue.brackets),
        close_fee=close_fee,
        taker=taker,
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
    if is_inverse:
        return -size / known
    return known / size


def compute_rate(rules: MarginRules, k: int, multiplier: float) -> float:
    """Return the maintenance rate of bracket k under a multiplier, at most 1."""
    rate = multiplier * rules.rates[k] + rules.close_fee
    return choose(rate < 1.0, rate, 1.0)


def compute_maintenance(rules: MarginRules, notional: float, multiplier: float) -> float:
    """Return the maintenance margin of a notional: rate * notional - amount, money.

    Rate and amount are those of the bracket of the margin table in which the notional lies.
    ``multiplier`` scales the rates of all brackets. The amounts follow from the rates: at the floor
    of a bracket the margin equals that of the bracket below. An array of notionals gives an array.
    """
    rate = compute_rate(rules, 0, multiplier)
    last_rate = rate
    amount = 0.0

    # The loop has no ``break``, as the notionals of an array may lie in different brackets.
    for k in range(1, len(rules.floors)):
        next_rate = compute_rate(rules, k, multiplier)
        is_over = notional > rules.floors[k]
        amount = choose(is_over, amount + rules.floors[k] * (next_rate - last_rate), amount)
        rate = choose(is_over, next_rate, rate)
        last_rate = next_rate
    return rate * notional - amount


def compute_setting(rules: MarginRules, multiplier: float) -> float:
    """Return the leverage set at the venue, at most what its first bracket allows."""
    return min(rules.setting, rules.leverages[0] / multiplier)


def compute_best_leverage(rules: MarginRules, multiplier: float) -> float:
    """Return the largest leverage of any order: the setting, or that of the first bracket."""
    largest = rules.leverages[0] / multiplier
    if 0.0 < rules.setting < largest:
        return rules.setting
    return largest


def compute_largest_notional(
    rules: MarginRules, equity: float, held: float, cost: float, multiplier: float, enough: float
) -> float:
    """Return the largest notional whose initial margin some equity covers, after costs: money.

    ``held`` is the notional before the order, negative if the order closes it first; ``cost`` what
    one more unit of notional costs, a fraction. ``multiplier`` divides the leverages of the
    brackets. The search ends early at a notional of at least ``enough``, all that the order asks
    for: then the answer may be less than the largest.
    """
    if rules.setting > 0.0:
        setting = compute_setting(rules, multiplier)
        cap = compute_cap(rules, setting, multiplier)
        return min(cap, compute_after_cost(setting, equity, held, cost))

    # The venue gives each order the bracket that allows it most.
    largest = 0.0
    for k in range(len(rules.caps)):
        leverage = rules.leverages[k] / multiplier
        after_cost = compute_after_cost(leverage, equity, held, cost)
        largest = max(largest, min(rules.caps[k], after_cost))
        # No order asks for more, so the other brackets are not needed.
        if largest >= enough:
            break
    return largest


def compute_cap(rules: MarginRules, setting: float, multiplier: float) -> float:
    """Return the largest notional that the venue allows at a leverage; 0 if it allows none."""
    largest = 0.0
    for k in range(len(rules.caps)):
        # A setting that equals the leverage of a bracket is allowed, give or take rounding.
        if rules.leverages[k] / multiplier >= setting * (1.0 - TOLERANCE):
            largest = max(largest, rules.caps[k])
    return largest


def compute_after_cost(leverage: float, equity: float, held: float, cost: float) -> float:
    """Return the notional N that the equity carries at a leverage, less the cost of getting there.

    An order from ``held`` to N costs ``cost`` per unit of notional, so N solves::

        N = leverage (equity - cost (N - held))
        N (1 + cost leverage) = leverage equity + cost leverage held

    It is a sum, N = per_equity equity + per_held held. A negative cost is a rebate. Where it is so
    large that each unit frees more equity than it needs, N is infinite.
    """
    slope = 1.0 + cost * leverage
    per_equity = math.inf
    per_held = 0.0
    if leverage == math.inf:
        # No margin is needed: the equity is all spent on the cost, equity = cost (N - held).
        if cost > 0.0:
            per_equity = 1.0 / cost
            per_held = 1.0
    elif slope > 0.0:
        per_equity = leverage / slope
        per_held = cost * (leverage / slope)

    # An account whose equity does not pay the cost carries nothing, and not less.
    return max(0.0, per_equity * equity + per_held * held)


def compute_initial(rules: MarginRules, notional: float, multiplier: float) -> float:
    """Return the initial margin of a notional: by the setting, or by its bracket."""
    if rules.setting > 0.0:
        return notional / compute_setting(rules, multiplier)
    leverage = rules.leverages[0]
    for k in range(1, len(rules.caps)):
        leverage = choose(notional > rules.caps[k - 1], rules.leverages[k], leverage)
    return notional * multiplier / leverage


def compute_step_floor(rules: MarginRules, notional: float) -> float:
    """Return the floor of the bracket in which a notional lies; one on a floor is below it."""
    floor = 0.0
    for k in range(1, len(rules.floors)):
        if notional <= rules.floors[k]:
            break
        floor = rules.floors[k]
    return floor


def compute_affordable(
    rules: MarginRules, size: float, value: float, cost: float, spared: float, multiplier: float
) -> float:
    """Return how many contracts of a position may stay so that its maintenance margin is covered.

    At most ``size``, the contracts held. ``value`` is the notional of one contract, money. What
    covers the margin of q contracts that stay is ``spared + cost * q``, money: ``spared`` would be
    left if all contracts were closed, and each contract that stays saves the ``cost`` of its close.

    In bracket k the margin is rate_k value q - amount_k. That is covered up to
    q = (amount_k + spared) / (rate_k value - cost), and the smallest such q of all brackets counts.
    """
    allowed = size
    amount = 0.0
    last_rate = 0.0
    for k in range(len(rules.floors)):
        rate = compute_rate(rules, k, multiplier)
        if k > 0:
            amount += rules.floors[k] * (rate - last_rate)
        last_rate = rate

        # Rates rise with the bracket, so the margin of a notional is the largest of the formulas of
        # all brackets, and each formula must be covered. Where a contract more saves at least what
        # it needs, there is no limit.
        needed = rate * value - cost
        if needed > 0.0:
            allowed = min(allowed, (amount + spared) / needed)
    return allowed


@cold
def compute_liquidation_value(
    rules: MarginRules, quantity: float, entry: float, base: float, multiplier: float
) -> float:
    """Return the contract value v at which a position is liquidated; NaN if no price does that.

    There its backing equals its maintenance margin. With size = ``abs(quantity)`` that is in
    bracket k of the margin table::

        base + quantity v = rate_k size |v| - amount_k

    ``base`` is the backing at a value of 0. The side s is 1 for a long position and -1 for a short
    one; the sign g of contract values is 1, or -1 for inverse contracts. So |v| = g v, and::

        v = -s (base + amount_k) / (size (1 - s g rate_k))

    Each bracket gives such a root. The answer is the one that prices meet first: the highest for a
    long position, the lowest for a short one.

    Arguments of the position may be arrays of accounts, so nothing branches on them:
    ``choose(condition, a, b)`` is a where the condition holds, else b. A divisor that would be 0 is
    replaced by 1, and the quotient is not used.
    """
    size = abs(quantity)
    side = choose(quantity > 0.0, 1.0, -1.0)
    sign = -1.0 if rules.is_inverse else 1.0

    # Some venues compute the margin from the entry price. It does not change with v then, so there
    # is one root: base + quantity v = needed.
    if rules.is_valued_at_entry:
        needed = compute_maintenance(rules, size * abs(entry), multiplier)
        root = side * (needed - base) / choose(size > 0.0, size, 1.0)
        return choose((size > 0.0) & (root * sign > 0.0), root, math.nan)

    first_met = math.nan
    highest = -math.inf
    amount = 0.0
    last_rate = 0.0
    for k in range(len(rules.floors)):
        # The amount of a bracket makes its margin at the floor equal to that of the bracket below.
        rate = compute_rate(rules, k, multiplier)
        if k > 0:
            amount += rules.floors[k] * (rate - last_rate)
        last_rate = rate

        # A bracket without a positive slope has no root. A root of the wrong sign is no price.
        slope = size * (1.0 - side * sign * rate)
        root = -side * (base + amount) / choose(slope > 0.0, slope, 1.0)
        is_nearer = (slope > 0.0) & (root * sign > 0.0) & (side * root > highest)
        first_met = choose(is_nearer, root, first_met)
        highest = choose(is_nearer, side * root, highest)
    return first_met
