"""One position: its value, its requirement, what backs it, where it exits, and what it pays.

Lanes of a sweep call many of these rules for a group of accounts at once. Such a rule has no branch
on what differs between accounts: it computes both sides, and chooses by a conditional expression.
Branches on flags of :class:`.InstrumentRules` are free, as lanes compile each kind of its own.

====================  ============================================================================
word                  what it is, and its unit
====================  ============================================================================
value                 value(P) of one contract, section 1: money a contract, negative if inverse
entry                 average contract value at which the position was opened
marked                contract value up to which its profit is booked
best                  best contract value since the entry, which a trailing stop follows
backing               what stands behind a position: its margin and profit, or all cash
stop                  contract value at which an exit acts: loss, trail, profit or equity
====================  ============================================================================

Numbers such as 4.3 are sections of ``docs/accounting.md``.
"""

from __future__ import annotations

import math
from typing import Any

from backtest.account.events import Event
from backtest.account.records import Balances, InstrumentRules, Position, Quote
from backtest.core.kernels import inlined
from backtest.core.units import TOLERANCE, Contracts, Price, Rate, Value
from backtest.margin import compute_liquidation_value, compute_maintenance, compute_payment


def compute_value_of(rules: InstrumentRules, price: Price) -> float:
    """Return the contract value of one contract at a price (accounting 1)."""
    if rules.margin.is_inverse:
        return -rules.margin.size / price
    return rules.margin.size * price


@inlined
def worsen(rules: InstrumentRules, value: Value, side: float, rate: Rate) -> float:
    """Return the contract value of the price moved by a fraction: up for side 1, down for -1.

    A buyer has side 1, so a positive rate makes each side's price worse.
    """
    up = 1.0 + rate
    down = 1.0 - rate
    if rules.margin.is_inverse:
        # 2 / 2x equals 1 / x to the last bit. The compiler would merge two divisions of the same
        # form into one per account; in this form both are computed once for all accounts.
        up = 1.0 / up
        down = 2.0 / (2.0 * down)
    return value * (up if side > 0.0 else down)


def mark_position(position: Position, value: Value) -> tuple[Position, float]:
    """Return the position marked at a contract value, and its profit since the last mark."""
    pnl = position.quantity * (value - position.marked)
    return Position(position.quantity, position.entry, position.margin, value), pnl


def compute_profit(position: Position, value: Value) -> float:
    """Return the unrealized profit at a contract value: q (u - entry)."""
    return position.quantity * (value - position.entry)


def add_margin(position: Position, amount: float) -> Position:
    """Return the position with an amount of money more as posted margin."""
    return Position(position.quantity, position.entry, position.margin + amount, position.marked)


def compute_requirement(
    rules: InstrumentRules, position: Position, value: Value, multiplier: float
) -> float:
    """Return the maintenance margin at a contract value, or at the entry (`maintenance_at`)."""
    valued_at = position.entry if rules.margin.is_valued_at_entry else value
    notional = abs(position.quantity) * abs(valued_at)
    return compute_maintenance(rules.margin, notional, multiplier)


@inlined
def find_side(position: Position) -> float:
    """Return 1 for a long position, -1 for a short one or none."""
    return 1.0 if position.quantity > 0.0 else -1.0


@inlined
def compute_stop(rules: InstrumentRules, position: Position) -> float:
    """Return the contract value of the stop-loss, a fraction of the entry on the losing side."""
    return worsen(rules, position.entry, -find_side(position), rules.stop_loss)


@inlined
def is_stopped(rules: InstrumentRules, position: Position, value: Value) -> bool:
    """Return whether a position is held and the contract value reached its stop-loss."""
    stop = compute_stop(rules, position)
    is_reached = find_side(position) * (value - stop) <= TOLERANCE * abs(stop)
    return is_reached & (position.quantity != 0.0) & (rules.stop_loss > 0.0)


def compute_entry(position: Position, quantity: Contracts, filled: Value) -> float:
    """Return the average entry, a contract value, after a trade to a quantity (accounting 1).

    A reduction keeps the entry, an increase averages it, what opens or flips starts a new one.
    """
    # Free of branches, as lanes call it: the last case that holds decides.
    added = abs(quantity) - abs(position.quantity)
    size = abs(quantity) if quantity != 0.0 else 1.0
    average = (position.entry * abs(position.quantity) + filled * added) / size
    entry = position.entry if added <= 0.0 else average
    entry = filled if position.quantity * quantity <= 0.0 else entry
    return 0.0 if quantity == 0.0 else entry


@inlined
def find_adverse(position: Position, low: Value, high: Value) -> float:
    """Return the extreme contract value that is worse for the position: the low of a long one."""
    return low if position.quantity > 0.0 else high


def compute_equity(rules: InstrumentRules, balances: Balances, value: Value) -> float:
    """Return what cash and position are worth at a contract value."""
    backing = compute_backing(rules, balances, value)
    if rules.margin.is_isolated:
        return balances.cash + backing
    return backing


def compute_backing(rules: InstrumentRules, balances: Balances, value: Value) -> float:
    """Return what backs the position at a contract value: its margin and profit, or all cash."""
    position = balances.position
    if rules.margin.is_isolated:
        return position.margin + compute_profit(position, value)
    return balances.cash + position.quantity * value


@inlined
def compute_uncounted(rules: InstrumentRules, position: Position, value: Value) -> float:
    """Return the part of the profit at a contract value that backs no order (4.3): money.

    It is what the account's `profit_counts` leaves out of a profit that is not realized.
    """
    if not rules.has_profit_share:
        return 0.0
    profit = compute_profit(position, value)
    return (1.0 - rules.profit_share) * max(profit, 0.0)


def is_failing(rules: InstrumentRules, balances: Balances, value: Value, multiplier: float) -> bool:
    """Return whether the requirement fails at a contract value, or just holds (accounting 5)."""
    position = balances.position
    needed = compute_requirement(rules, position, value, multiplier)
    is_short = compute_backing(rules, balances, value) <= needed * (1.0 + TOLERANCE)
    return is_short & (position.quantity != 0.0)


def compute_root(rules: InstrumentRules, balances: Balances, multiplier: float) -> float:
    """Return the contract value at which the requirement just fails, NaN if there is none."""
    position = balances.position
    # What backs the position at a value of 0: all cash, or its margin less what it cost.
    base = balances.cash
    if rules.margin.is_isolated:
        base = position.margin - position.quantity * position.entry
    return compute_liquidation_value(
        rules.margin, position.quantity, position.entry, base, multiplier
    )


def charge(rules: InstrumentRules, balances: Balances, amount: float) -> Balances:
    """Return the balances after an amount of money was charged: a fee, or funding (accounting 3).

    The cash pays. Beside a cross position it may become negative, which is a loan. Beside an
    isolated position it may not: what it lacks is taken from the margin of the position. Of the fee
    of an increase the wallet owes it nevertheless: ``post_in_full`` of :mod:`.fills` says why.
    """
    cash = balances.cash - amount
    if not rules.margin.is_isolated:
        return Balances(cash, balances.position)

    # ``missing`` is negative: what the cash lacks. Sweeps call this with 64 accounts side by side,
    # so nothing branches on what differs between them.
    is_empty = (cash < 0.0) & (balances.position.quantity != 0.0)
    missing = cash if is_empty else 0.0
    left = 0.0 if is_empty else cash
    return Balances(left, add_margin(balances.position, missing))


NOTHING = 0
STOP, TRAIL, DRAW = int(Event.STOPPED), int(Event.TRAILED), int(Event.EQUITY_STOPPED)
TIME, PROFIT = int(Event.TIME_STOPPED), int(Event.TOOK_PROFIT)
"""Kinds of stops: their events. Those of the losses of a day and a week follow ``DRAW``."""

USED_UP = 1e-9
"""Relative distance to the equity stop within which a flat account starts a new peak."""


def move_value(
    rules: InstrumentRules, value: Value, side: float, distance: Price, is_distance: bool
) -> float:
    """Return the contract value of the price at a distance, up (side 1) or down (-1); NaN for none.

    ``distance`` is a fraction of the price, or a distance in price if ``is_distance``. There is no
    such price, NaN, where the distance is not over 0 or is unknown, and where the price would fall
    by all of itself or more. Then numbers that stand in for a value or rate of 0 keep it from being
    divided by; what comes of them is not used.
    """
    # A distance in price becomes a fraction of the price that the contract value has.
    rate = distance
    if is_distance:
        divisor = abs(value) if value != 0.0 else 1.0
        price = divisor / rules.margin.size
        if rules.margin.is_inverse:
            price = rules.margin.size / divisor
        rate = distance / price

    # Free of branches, as lanes of a sweep call it: each chooses between two values.
    has_price = (rate > 0.0) & ((side > 0.0) | (rate < 1.0))
    stand_in = 0.5
    rate = rate if has_price else stand_in
    moved = worsen(rules, value, side, rate)
    return moved if has_price else math.nan


def compute_loss_stop(rules: InstrumentRules, position: Position, quote: Quote) -> float:
    """Return the contract value of the stop-loss, NaN without one."""
    distance = rules.stop_loss * quote.stop_scale
    side = -find_side(position)
    return move_value(rules, position.entry, side, distance, rules.is_stop_distance)


def compute_trail(rules: InstrumentRules, position: Position, quote: Quote, best: Value) -> float:
    """Return the contract value of the trailing stop, from the best one so far; NaN without one."""
    distance = rules.trailing_stop * quote.trail_scale
    side = -find_side(position)
    return move_value(rules, best, side, distance, rules.is_trail_distance)


def compute_target_price(rules: InstrumentRules, position: Position, quote: Quote) -> float:
    """Return the contract value of the take-profit, NaN without one."""
    distance = rules.take_profit * quote.profit_scale
    side = find_side(position)
    return move_value(rules, position.entry, side, distance, rules.is_profit_distance)


def is_through(side: float, value: Value, stop: Value) -> bool:
    """Return whether a contract value reached a stop on its way against side, equality included."""
    return side * (value - stop) <= TOLERANCE * abs(stop)


def find_nearest_stop(
    rules: InstrumentRules, balances: Balances, quote: Quote, best: Value, level: float
) -> tuple[int, float]:
    """Return the kind of the stop that prices meet first, and its contract value.

    STOP (a loss since the entry), TRAIL (a loss since ``best``, the best contract value since the
    entry) or DRAW (the equity falls to ``level``, NaN for none); NOTHING and NaN if there is none.
    Of equal ones the first of these.
    """
    position = balances.position
    side = find_side(position)
    kind = NOTHING
    nearest = math.nan
    loss_stop = compute_loss_stop(rules, position, quote)
    if not math.isnan(loss_stop):
        kind = STOP
        nearest = loss_stop

    trail = compute_trail(rules, position, quote, best)
    if is_nearer(side, trail, nearest):
        kind = TRAIL
        nearest = trail

    # The equity is linear in the contract value u: level = equity at 0 + quantity * u.
    quantity = position.quantity if position.quantity != 0.0 else math.nan
    equity_stop = (level - compute_equity(rules, balances, 0.0)) / quantity
    if is_nearer(side, equity_stop, nearest):
        kind = DRAW
        nearest = equity_stop
    return kind, nearest


def is_nearer(side: float, stop: Value, nearest: Value) -> bool:
    """Return whether prices that move against a side (1 long, -1 short) meet a stop first.

    A stop that is NaN is none, and is never met. Where ``nearest`` is NaN there is no other yet.
    """
    if math.isnan(stop):
        return False
    return bool(math.isnan(nearest) or side * (nearest - stop) < 0.0)


def follow_prices(best: Value, position: Position, quote: Quote) -> float:
    """Return the best contract value since the entry after a bar; 0 if nothing is held."""
    # The best extreme is the adverse one of the opposite side. Free of branches, as lanes call it.
    extreme = find_adverse(position, quote.high, quote.low)
    is_better = (extreme - best) * find_side(position) > 0.0
    best = extreme if is_better else best
    return best if position.quantity != 0.0 else 0.0


@inlined
def move(start: float, end: float, place: float) -> float:
    """Return the value at a part of a segment; at 1 it is the end to the last bit."""
    return end if place == 1.0 else start + place * (end - start)


def place_stop(side: float, start: Value, end: Value, stop: Value) -> tuple[float, float]:
    """Return at which part of a segment of contract values a stop acts, and where it fills.

    The caller knows that the segment reaches it. ``side`` is that of the position for a stop that
    limits a loss, the opposite one for a take-profit.
    """
    # Crossed already: it fills where prices stand, not at its own price.
    if is_through(side, start, stop):
        return 0.0, start
    # Within the tolerance of a segment without length.
    if end == start:
        return 1.0, end
    return min(max((stop - start) / (end - start), 0.0), 1.0), stop


def pay_funding(
    rules: InstrumentRules, balances: Balances, value: Value, rate: Rate
) -> tuple[Balances, float]:
    """Return the balances after a funding payment at a contract value, and the money paid (3).

    ``rate`` is that of the settlement, per notional; what is paid is negative where the position
    receives. Cash pays for a cross position. For an isolated one its margin pays, or at venues that
    say so (``is_funded_by_wallet``) the cash, and its margin once that is empty.
    """
    position = balances.position
    paid = compute_payment(position.quantity, value, rate)
    if not rules.margin.is_isolated:
        return Balances(balances.cash - paid, position), paid
    if rules.is_funded_by_wallet:
        return charge(rules, balances, paid), paid
    return Balances(balances.cash, add_margin(position, -paid)), paid


NOTHING_LEFT = 1e-9
"""Equity up to this share of the capital paid in counts as nothing."""

CAUTION = 4e-12
"""Share of the capital paid in that :func:`find_line` adds as a margin for rounding."""


def find_line(ruin_at: Any, reserve: Any, paid_in: Any) -> Any:
    """Return the equity at which an account is ruined, an upper bound with its rounding.

    Of numbers, or of arrays: it chooses the larger of two lines by products.
    """
    nothing_left = NOTHING_LEFT * paid_in
    line = ruin_at * paid_in - reserve
    larger = nothing_left * (line <= nothing_left) + line * (line > nothing_left)
    return larger + CAUTION * paid_in


def has_wealth(wealth: float, flows: float) -> bool:
    """Return whether anything but rounding is left of the wealth after flows."""
    return wealth + flows > TOLERANCE * abs(flows)
