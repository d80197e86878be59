"""The accounting of one bar, step by step: the only place where money moves.

Each step takes the rules, the books and the quote of the bar and returns new books with what it
moved. All functions are plain scalar arithmetic on named tuples, so that they run as ordinary
Python and compile with numba to the same bits, one account at a time or many side by side. What
every fill and every bar goes through works out both sides of a choice and takes one: of many
accounts each may choose otherwise, and a branch would be a mask for all that stands in it.

Prices appear as values ``u(P)`` of one contract in the settlement currency: ``size P`` for linear
contracts, ``-size / P`` for inverse ones. A position of ``q`` contracts earns ``q (u1 - u0)``.
Quantities are signed; costs are positive and subtracted.

The order of a bar (the engine calls the steps in it):

1. :func:`apply_flow`, :func:`top_up`
2. :func:`pay_funding` for events at the open
3. :func:`charge_interest`
4. :func:`find_gap`, then :func:`liquidate` or :func:`stop_out`
5. :func:`choose_quantity` and :func:`fill`, the decision of the last close (or
   :func:`reduce_to_ratio`)
6. :func:`pay_funding` for events inside the bar
7. :func:`find_trigger`, then :func:`liquidate` or :func:`stop_out`
8. :func:`close_bar`
"""

from __future__ import annotations

import math
from typing import NamedTuple

from backtest.base.units import TOLERANCE
from backtest.venue.margin import (
    MarginRules,
    compute_bracket,
    compute_initial,
    compute_largest_notional,
    compute_liquidation_value,
    compute_maintenance,
    compute_rate,
    compute_setting,
)

CLOSE, TAKEOVER, PARTIAL = 0, 1, 2
NOTHING, LIQUIDATION, STOP = 0, 1, 2
LARGEST_WORSENING = 0.99


class Rules(NamedTuple):
    """The rules of venue and account as plain numbers.

    The first eight fields are True, or None where the configuration does without: numba takes the
    two as different types and leaves out the code that is not needed. ``has_rounding``: there are
    lots, a least notional or a limit of participation; ``keeps_entry``: somebody wants to know the
    average entry; ``marks_entry``: the requirement may be of the entry price, as ``margin`` says.
    ``fee`` is the rate of an ordinary trade (taker and maker blended), ``stop_loss`` a fraction of
    the entry price, ``step`` 0 for "down to the floor of the bracket", ``participation`` infinite
    for none, ``ruin_at`` a share of the capital paid in.
    """

    is_inverse: bool | None
    is_isolated: bool | None
    has_stop: bool | None
    has_impact: bool | None
    has_interest: bool | None
    has_rounding: bool | None
    keeps_entry: bool | None
    marks_entry: bool | None
    margin: MarginRules
    lot: float
    min_notional: float
    fee: float
    taker: float
    slippage: float
    impact: float
    participation: float
    liquidation_mode: int
    liquidation_fee: float
    liquidation_slippage: float
    step: float
    full_below: float
    is_funded_by_wallet: bool
    is_loan: bool
    min_leverage: float
    max_leverage: float
    band: float
    stop_loss: float
    top_up_to: float
    ruin_at: float


class Books(NamedTuple):
    """What the account owns.

    ``cash`` (the wallet, in isolated margin), signed ``quantity`` in contracts, average ``entry``
    in u (0 when flat), posted ``margin`` (isolated only), and the ``value`` in u at which the
    position was last marked.
    """

    cash: float
    quantity: float
    entry: float
    margin: float
    value: float


class Quote(NamedTuple):
    """One bar as values u: last open, low, high; mark open, low, high, close; and what goes along.

    ``multiplier`` is x_t; ``volume`` (contracts), ``sigma`` (daily) and ``adv`` (notional per day)
    are those known at the close before.
    """

    open: float
    low: float
    high: float
    mark_open: float
    mark_low: float
    mark_high: float
    mark_close: float
    multiplier: float
    volume: float
    sigma: float
    adv: float


class Trade(NamedTuple):
    """A change of position: new books, price pnl up to it, and its costs (``value``: u filled)."""

    books: Books
    price_pnl: float
    fee: float
    slippage: float
    impact: float
    quantity: float
    value: float


class Liquidation(NamedTuple):
    """What a liquidation did; ``quantity`` is the signed change, ``traded`` its notional."""

    books: Books
    price_pnl: float
    loss: float
    bad_debt: float
    quantity: float
    traded: float


# ------------------------------------------------------------------------------- what is owned


def compute_value_of(rules: Rules, price: float) -> float:
    """Return u(P)."""
    if rules.is_inverse is not None:
        return -rules.margin.size / price
    return rules.margin.size * price


def compute_backing(rules: Rules, books: Books, value: float) -> float:
    """Return what backs the position at u: the equity (cross), or margin and profit (isolated)."""
    if rules.is_isolated is not None:
        return books.margin + books.quantity * (value - books.entry)
    return books.cash + books.quantity * value


def compute_equity(rules: Rules, books: Books, value: float) -> float:
    """Return the equity of the account with the position valued at u."""
    if rules.is_isolated is not None:
        return books.cash + (books.margin + books.quantity * (value - books.entry))
    return books.cash + books.quantity * value


def is_valued_at_entry(rules: Rules) -> bool:
    """Tell whether the requirement is of the entry price."""
    return rules.marks_entry is not None and rules.margin.is_valued_at_entry


def compute_requirement(rules: Rules, books: Books, value: float, multiplier: float) -> float:
    """Return the maintenance margin of the position at u."""
    unit = abs(books.entry) if is_valued_at_entry(rules) else abs(value)
    return compute_maintenance(rules.margin, abs(books.quantity) * unit, multiplier)


def is_failing(rules: Rules, books: Books, value: float, multiplier: float) -> bool:
    """Tell whether the requirement fails at u; a flat account has none."""
    needed = compute_requirement(rules, books, value, multiplier)
    is_short = compute_backing(rules, books, value) <= needed * (1.0 + TOLERANCE)
    return is_short & (books.quantity != 0.0)


def compute_ratio(rules: Rules, books: Books, value: float, multiplier: float) -> float:
    """Return the margin ratio at u: 0 when flat, infinite when nothing is left behind it."""
    if books.quantity == 0.0:
        return 0.0
    backing = compute_backing(rules, books, value)
    needed = compute_requirement(rules, books, value, multiplier)
    return needed / backing if backing > 0.0 else math.inf


def compute_root(rules: Rules, books: Books, multiplier: float) -> float:
    """Return the u at which the position is liquidated; NaN where none does."""
    base = books.cash
    if rules.is_isolated is not None:
        base = books.margin - books.quantity * books.entry
    return compute_liquidation_value(rules.margin, books.quantity, books.entry, base, multiplier)


def worsen(rules: Rules, value: float, side: float, rate: float) -> float:
    """Return u of the price moved by a fraction: up for side 1 (a buyer), down for -1."""
    up, down = 1.0 + rate, 1.0 - rate
    if rules.is_inverse is not None:
        # 2 / 2x is 1 / x to the last bit; two divisions that look alike would be made one, done
        # anew for every account, where these two are done once for all
        up, down = 1.0 / up, 2.0 / (2.0 * down)
    return value * (up if side > 0.0 else down)


def compute_distance(rules: Rules, start: float, end: float) -> float:
    """Return the relative distance between the prices of two values, from the first."""
    if rules.is_inverse is not None:
        return abs(start / end - 1.0)
    return abs(end / start - 1.0)


# ------------------------------------------------------------------------------- step 1: flows


def apply_flow(rules: Rules, books: Books, quote: Quote, amount: float) -> tuple[Books, float]:
    """Deposit, or withdraw at most what initial margin leaves free; return what moved."""
    moved = amount
    if amount < 0.0:
        unit = abs(quote.mark_open)
        notional = abs(books.quantity) * unit
        free = compute_equity(rules, books, quote.mark_open)
        if notional > 0.0:
            free -= compute_initial(rules.margin, notional, quote.multiplier)
        if rules.is_isolated is not None:
            free = min(free, books.cash)
        moved = -min(-amount, max(free, 0.0))
    cash = books.cash + moved
    return Books(cash, books.quantity, books.entry, books.margin, books.value), moved


def top_up(rules: Rules, books: Books, quote: Quote, reserve: float) -> tuple[Books, float]:
    """Move from the reserve what brings the margin ratio to ``top_up_to``; return how much."""
    if books.quantity == 0.0:
        return books, 0.0
    needed = compute_requirement(rules, books, quote.mark_open, quote.multiplier)
    missing = needed / rules.top_up_to - compute_backing(rules, books, quote.mark_open)
    moved = min(max(missing, 0.0), reserve)
    cash, margin = books.cash + moved, books.margin
    if rules.is_isolated is not None:
        cash, margin = books.cash, books.margin + moved
    return Books(cash, books.quantity, books.entry, margin, books.value), moved


# --------------------------------------------------------------------- steps 2, 3, 6: carrying


def pay_funding(rules: Rules, books: Books, value: float, rate: float) -> tuple[Books, float]:
    """Settle one funding event at u: the position pays ``q |u| rate``."""
    paid = books.quantity * (abs(value) * rate)
    if rules.is_isolated is None:
        cash = books.cash - paid
        return Books(cash, books.quantity, books.entry, books.margin, books.value), paid
    if rules.is_funded_by_wallet:
        return charge(rules, books, paid), paid
    margin = books.margin - paid
    return Books(books.cash, books.quantity, books.entry, margin, books.value), paid


def charge(rules: Rules, books: Books, amount: float) -> Books:
    """Take a cost from the cash; in isolated margin from the margin once the wallet is empty."""
    cash, margin = books.cash - amount, books.margin
    if rules.is_isolated is not None:
        is_empty = (cash < 0.0) & (books.quantity != 0.0)
        missing = cash if is_empty else 0.0
        cash, margin = 0.0 if is_empty else cash, margin + missing
    return Books(cash, books.quantity, books.entry, margin, books.value)


def charge_interest(
    rules: Rules,
    books: Books,
    quote: Quote,
    years: float,
    borrow_rate: float,
    cash_rate: float,
    short_rate: float,
) -> tuple[Books, float]:
    """Charge the simple interest since the previous open; a negative amount is earned."""
    if rules.is_loan:
        balance = books.cash
        if rules.is_isolated is not None:
            balance += books.margin - books.quantity * books.entry
    elif rules.is_isolated is not None:
        balance = books.cash + books.margin
    else:
        balance = books.cash + books.quantity * books.entry
    rate = cash_rate if balance > 0.0 else borrow_rate
    interest = -balance * rate * years
    if rules.is_loan and books.quantity < 0.0:
        interest += abs(books.quantity * quote.mark_open) * short_rate * years
    return charge(rules, books, interest), interest


# ----------------------------------------------------------------------- steps 4, 7: triggers


def compute_stop(rules: Rules, books: Books) -> float:
    """Return u of the stop price, a fraction of the entry price away on the losing side."""
    side = 1.0 if books.quantity > 0.0 else -1.0
    return worsen(rules, books.entry, -side, rules.stop_loss)


def is_stopped(rules: Rules, books: Books, value: float) -> bool:
    """Tell whether u is at or through the stop; a stop-loss of 0 is none."""
    stop = compute_stop(rules, books)
    side = 1.0 if books.quantity > 0.0 else -1.0
    is_through = side * (value - stop) <= TOLERANCE * abs(stop)
    return is_through & (books.quantity != 0.0) & (rules.stop_loss > 0.0)


def find_gap(rules: Rules, books: Books, quote: Quote) -> int:
    """Tell what the open does to the position carried in, before the trader can act."""
    if is_failing(rules, books, quote.mark_open, quote.multiplier):
        return LIQUIDATION
    if rules.has_stop is not None and is_stopped(rules, books, quote.open):
        return STOP
    return NOTHING


def is_triggered(rules: Rules, books: Books, quote: Quote) -> bool:
    """Tell whether the adverse extreme triggers anything."""
    is_long = books.quantity > 0.0
    extreme = quote.mark_low if is_long else quote.mark_high
    is_caught = is_failing(rules, books, extreme, quote.multiplier)
    if rules.has_stop is not None:
        is_caught |= is_stopped(rules, books, quote.low if is_long else quote.high)
    return is_caught


def find_trigger(rules: Rules, books: Books, quote: Quote) -> tuple[int, float]:
    """Return what the adverse extreme triggers and at which u, the nearer first."""
    is_long = books.quantity > 0.0
    kind, at = NOTHING, 0.0
    extreme = quote.mark_low if is_long else quote.mark_high
    if is_failing(rules, books, extreme, quote.multiplier):
        kind, at = LIQUIDATION, find_liquidation(rules, books, quote, extreme)
    if rules.has_stop is not None:
        last = quote.low if is_long else quote.high
        if is_stopped(rules, books, last):
            stop = compute_stop(rules, books)
            stop = min(stop, quote.open) if is_long else max(stop, quote.open)
            if kind == NOTHING or not is_nearer(rules, quote, at, stop):
                kind, at = STOP, stop
    return kind, at


def find_liquidation(rules: Rules, books: Books, quote: Quote, extreme: float) -> float:
    """Return u of the liquidation: the root on the way to the extreme, or the mark open."""
    if is_failing(rules, books, quote.mark_open, quote.multiplier):
        return quote.mark_open
    root = compute_root(rules, books, quote.multiplier)
    if math.isnan(root):
        return extreme
    low, high = min(quote.mark_open, extreme), max(quote.mark_open, extreme)
    return min(max(root, low), high)


def is_nearer(rules: Rules, quote: Quote, liquidation: float, stop: float) -> bool:
    """Tell whether the liquidation acts before the stop; a tie goes to the liquidation."""
    to_stop = compute_distance(rules, quote.open, stop)
    return compute_distance(rules, quote.mark_open, liquidation) <= to_stop * (1.0 + TOLERANCE)


def stop_out(rules: Rules, books: Books, value: float, multiplier: float) -> Trade:
    """Close at the stop's u, worsened by slippage, as taker."""
    return trade(rules, books, value, 0.0, rules.slippage, 0.0, rules.taker, multiplier)


# ------------------------------------------------------------------------------- step 5: fills


def fill(rules: Rules, books: Books, quote: Quote, wanted: float, fee: float) -> Trade:
    """Trade to the wanted quantity at the open, as far as volume, lots and minimum allow."""
    quantity = round_quantity(rules, books, quote, wanted)
    impact = 0.0
    if rules.has_impact is not None:
        impact = compute_impact(rules, quote, abs(quantity - books.quantity) * abs(quote.open))
    return trade(rules, books, quote.open, quantity, rules.slippage, impact, fee, quote.multiplier)


def choose_quantity(
    rules: Rules, books: Books, quote: Quote, leverage: float, signal: float
) -> float:
    """Return the contracts a decision asks for, after clip, band and initial margin."""
    equity = compute_equity(rules, books, quote.open)
    if not equity > 0.0 or (math.isnan(leverage) and signal != 0.0):
        return books.quantity
    side = 1.0 if signal > 0.0 else -1.0
    held = books.quantity * (side * abs(quote.open))
    reach = compute_target(rules, equity, leverage, signal)
    if reach == math.inf:
        reach = compute_most(rules, quote, equity, abs(signal), held)
    if not is_outside(rules, equity, reach, held):
        return books.quantity
    return size_order(rules, books, quote, equity, side, reach)


def is_asking(rules: Rules, books: Books, quote: Quote, leverage: float, signal: float) -> bool:
    """Tell whether a decision may ask for a trade; False only where it asks for none.

    What initial margin allows is left out: an infinite leverage always asks.
    """
    equity = compute_equity(rules, books, quote.open)
    side = 1.0 if signal > 0.0 else -1.0
    held = books.quantity * (side * abs(quote.open))
    reach = compute_target(rules, equity, leverage, signal)
    return is_outside(rules, equity, reach, held)


def is_outside(rules: Rules, equity: float, reach: float, held: float) -> bool:
    """Tell whether a target lies outside the band around what is held; NaN never does.

    The band does not keep a position from being closed.
    """
    width = rules.band * equity * (1.0 + TOLERANCE)
    width = 0.0 if reach == 0.0 else width
    return abs(reach - held) > width


def compute_target(rules: Rules, equity: float, leverage: float, signal: float) -> float:
    """Return the target notional, infinite where as much is asked for as the limits allow."""
    level = rules.min_leverage if leverage < rules.min_leverage else leverage
    level = rules.max_leverage if level > rules.max_leverage else level  # NaN stays NaN
    reach = abs(signal) * level * equity
    return 0.0 if signal == 0.0 else reach


def compute_most(rules: Rules, quote: Quote, equity: float, scale: float, held: float) -> float:
    """Return the target notional of an infinite leverage: what initial margin allows.

    A position that is already over the limit is kept: only maintenance reduces it by force.
    """
    most = compute_largest_notional(rules.margin, equity, 0.0, 0.0, quote.multiplier)
    return held if scale == 1.0 and held > most else scale * most


def size_order(
    rules: Rules, books: Books, quote: Quote, equity: float, side: float, reach: float
) -> float:
    """Return the contracts that reach a target notional; what adds is shrunk to initial margin."""
    unit = abs(quote.open)
    held = books.quantity * (side * unit)
    worsening = rules.slippage
    if rules.has_impact is not None:
        worsening += compute_impact(rules, quote, max(reach - held, 0.0))
    worsening = min(worsening, LARGEST_WORSENING)
    cost = worsening + rules.fee * (1.0 + side * worsening)
    if rules.is_inverse is not None:
        cost = (worsening + rules.fee) / (1.0 + side * worsening)
    limit = compute_largest_notional(rules.margin, equity, held, cost, quote.multiplier)
    size = min(reach, limit) * (1.0 / unit)
    if rules.is_isolated is not None:
        filled = worsen(rules, quote.open, side, worsening)
        kept = max(side * books.quantity, 0.0)
        room = compute_room(rules, books, filled, side, quote.multiplier)
        size = kept + min(size - kept, max(room, 0.0))
    added = books.quantity if limit <= held else side * size
    wanted = side * reach * (1.0 / unit) if reach <= held else added
    return 0.0 if reach == 0.0 else wanted


def compute_room(
    rules: Rules, books: Books, filled: float, side: float, multiplier: float
) -> float:
    """Return the contracts whose margin and fee the wallet can pay, after what is closed."""
    unit = abs(filled)
    closed = books.cash + compute_backing(rules, books, filled)
    closed -= rules.fee * abs(books.quantity) * unit
    wallet = closed if side * books.quantity < 0.0 else books.cash
    posted = 1.0 / compute_setting(rules.margin, multiplier)
    return wallet * (1.0 / (unit * (posted + rules.fee)))


def compute_impact(rules: Rules, quote: Quote, notional: float) -> float:
    """Return the square-root impact ``Y sigma sqrt(|dN| / ADV)``; 0 where it is unknown."""
    if not (quote.adv > 0.0 and quote.sigma > 0.0):
        return 0.0
    return rules.impact * quote.sigma * math.sqrt(notional / quote.adv)


def round_quantity(rules: Rules, books: Books, quote: Quote, wanted: float) -> float:
    """Return the wanted quantity within participation, in whole lots, over the minimum.

    The position is a whole number of lots; where volume limits the trade, the change is.
    """
    held = books.quantity
    change = abs(wanted - held)
    if rules.has_rounding is None:
        return held if wanted != 0.0 and change <= TOLERANCE * abs(held) else wanted + 0.0
    most, part = math.inf, math.inf
    if rules.participation < math.inf:
        most = rules.participation * quote.volume
        part = truncate(rules, most)
    limited = held + (part if wanted > held else -part)
    limited = 0.0 if abs(limited) < 1e-6 * rules.lot else limited
    whole = truncate(rules, abs(wanted))
    is_adding = (wanted * held > 0.0) & (abs(wanted) >= abs(held))
    rounded = math.copysign(whole, wanted) + 0.0  # no -0
    # less than a lot to add to an odd position is none
    rounded = held if is_adding & (whole < abs(held)) else rounded
    is_same = change == 0.0
    wanted = limited if change > most else rounded
    change = abs(wanted - held)
    is_dust = change <= max(1e-6 * rules.lot, TOLERANCE * abs(held))
    is_small = change * abs(quote.open) < rules.min_notional * (1.0 - TOLERANCE)
    return held if is_same | ((wanted != 0.0) & (is_dust | is_small)) else wanted


def truncate(rules: Rules, size: float) -> float:
    """Return a size in whole lots, with a tolerance of 1e-6 lots."""
    return floor(size * (1.0 / rules.lot) + 1e-6) * rules.lot if rules.lot > 0.0 else size


def floor(size: float) -> float:
    """Return the whole number below; compiled, one instruction and no integer on the way."""
    return float(math.floor(size)) if math.isfinite(size) else size


def trade(
    rules: Rules,
    books: Books,
    value: float,
    quantity: float,
    slippage: float,
    impact: float,
    fee_rate: float,
    multiplier: float,
) -> Trade:
    """Change the position to ``quantity`` at u, worsened by slippage and impact, with a fee."""
    change = quantity - books.quantity
    marked = value if change != 0.0 else books.value
    pnl = books.quantity * (marked - books.value)
    side = 1.0 if change > 0.0 else -1.0
    worsening = min(slippage + impact, LARGEST_WORSENING)
    filled = worsen(rules, value, side, worsening)
    cost = change * (filled - value)
    impacted = cost * (impact / worsening) if impact > 0.0 else 0.0
    fee = fee_rate * abs(change) * abs(filled)
    entry = compute_entry(rules, books, quantity, filled)
    if rules.is_isolated is not None:
        cash, margin = move_margin(rules, books, quantity, filled, multiplier)
    else:
        cash, margin = books.cash - change * filled, 0.0
    after = charge(rules, Books(cash, quantity, entry, margin, marked), fee)
    return Trade(after, pnl, fee, cost - impacted, impacted, change, filled)


def compute_entry(rules: Rules, books: Books, quantity: float, filled: float) -> float:
    """Return the average entry in u: a reduction keeps it, a flip starts it anew."""
    if rules.keeps_entry is None:
        return 0.0
    added = abs(quantity) - abs(books.quantity)
    size = abs(quantity) if quantity != 0.0 else 1.0
    average = (books.entry * abs(books.quantity) + filled * added) / size
    kept = books.entry if added <= 0.0 else average
    entry = filled if books.quantity * quantity <= 0.0 else kept
    return 0.0 if quantity == 0.0 else entry


def move_margin(
    rules: Rules, books: Books, quantity: float, filled: float, multiplier: float
) -> tuple[float, float]:
    """Return wallet and margin after an isolated trade: what closes returns, what opens posts."""
    held = books.quantity
    cash, margin = books.cash, books.margin
    kept = min(abs(quantity), abs(held)) if held * quantity > 0.0 else 0.0
    share = 1.0 - kept / (abs(held) if held != 0.0 else 1.0)
    returned = share * (margin + held * (filled - books.entry))
    left = margin * (1.0 - share) if kept > 0.0 else 0.0
    is_closing = abs(held) > kept
    cash += returned if is_closing else 0.0
    posted = (abs(quantity) - kept) * abs(filled)
    posted *= 1.0 / compute_setting(rules.margin, multiplier)
    return cash - posted, (left if is_closing else margin) + posted


def reduce_to_ratio(rules: Rules, books: Books, quote: Quote, ratio: float) -> Trade:
    """Reduce the position at the open until its margin ratio, after costs, is ``ratio``.

    In isolated margin what is freed stays in the margin.
    """
    unit = abs(quote.open)
    backing = compute_backing(rules, books, quote.open)
    side = 1.0 if books.quantity > 0.0 else -1.0
    worsening = rules.slippage
    cost = worsening + rules.fee * (1.0 - side * worsening)
    if rules.is_inverse is not None:
        cost = (worsening + rules.fee) / (1.0 - side * worsening)
    valued = abs(books.entry) if is_valued_at_entry(rules) else unit
    allowed = abs(books.quantity)
    spared = backing - cost * allowed * unit
    amount, last = 0.0, 0.0
    for k in range(len(rules.margin.floors)):
        rate = compute_rate(rules.margin, k, quote.multiplier)
        if k > 0:
            amount += rules.margin.floors[k] * (rate - last)
        last = rate
        slope = rate * valued - ratio * cost * unit
        if slope > 0.0:
            allowed = min(allowed, (amount + ratio * spared) / slope)
    wanted = side * max(allowed, 0.0)
    done = fill(rules, books, quote, wanted, rules.fee)
    if rules.is_isolated is None or done.books.quantity == 0.0:
        return done
    freed = done.books.cash - books.cash
    held = done.books
    kept = Books(books.cash, held.quantity, held.entry, held.margin + freed, held.value)
    return Trade(
        kept, done.price_pnl, done.fee, done.slippage, done.impact, done.quantity, done.value
    )


# ----------------------------------------------------------------------- steps 4, 7: liquidation


def liquidate(rules: Rules, books: Books, value: float, multiplier: float) -> Liquidation:
    """Liquidate at u in the venue's mode, until the requirement holds there again."""
    pnl = books.quantity * (value - books.value)
    now = Books(books.cash, books.quantity, books.entry, books.margin, value)
    loss, traded = 0.0, 0.0
    if rules.liquidation_mode == TAKEOVER:
        traded = abs(now.quantity) * abs(value)
        now, loss = forfeit(rules, now, value)
    while now.quantity != 0.0:
        closed = choose_reduction(rules, now, value, abs(books.quantity))
        now, cost, notional = close_part(rules, now, value, closed)
        loss += cost
        traded += notional
        if now.quantity != 0.0 and not is_failing(rules, now, value, multiplier):
            break
    now, bad_debt = settle(rules, now)
    return Liquidation(now, pnl, loss, bad_debt, now.quantity - books.quantity, traded)


def forfeit(rules: Rules, books: Books, value: float) -> tuple[Books, float]:
    """Give up the position and all that backs it; what it was worth is the loss.

    A negative backing stays in the books as a shortfall, for :func:`settle` to book.
    """
    backing = compute_backing(rules, books, value)
    left = min(backing, 0.0)
    if rules.is_isolated is not None:
        return Books(books.cash, 0.0, 0.0, left, value), backing - left
    return Books(left, 0.0, 0.0, 0.0, value), backing - left


def choose_reduction(rules: Rules, books: Books, value: float, initial: float) -> float:
    """Return the signed contracts the next liquidation step closes."""
    held = books.quantity
    notional = abs(held) * abs(value)
    is_whole = (
        rules.liquidation_mode != PARTIAL
        or notional <= rules.full_below * (1.0 + TOLERANCE)
        or abs(held) <= 1e-9 * initial
        or compute_backing(rules, books, value) <= TOLERANCE * notional
    )
    if is_whole:
        return held
    if rules.step > 0.0:
        return held * rules.step
    bracket = compute_bracket(rules.margin, notional * (1.0 - 1e-9))
    if bracket == 0:
        return held
    side = 1.0 if held > 0.0 else -1.0
    return held - side * rules.margin.floors[bracket] / abs(value)


def close_part(
    rules: Rules, books: Books, value: float, closed: float
) -> tuple[Books, float, float]:
    """Close some contracts at u worsened, then take the fee, at most what is left."""
    side = 1.0 if closed > 0.0 else -1.0
    filled = worsen(rules, value, -side, rules.liquidation_slippage)
    quantity = books.quantity - closed
    entry = books.entry if quantity != 0.0 else 0.0
    cash, margin = books.cash, books.margin
    if rules.is_isolated is not None:
        margin += closed * (filled - books.entry)
    else:
        cash += closed * filled
    after = Books(cash, quantity, entry, margin, value)
    notional = abs(closed) * abs(filled)
    left = max(compute_backing(rules, after, value), 0.0)
    asked = rules.liquidation_fee * notional
    fee = left if asked * (1.0 + TOLERANCE) >= left else asked
    if rules.is_isolated is not None:
        margin -= fee
    else:
        cash -= fee
    loss = closed * (value - filled) + fee
    return Books(cash, quantity, entry, margin, value), loss, notional


def settle(rules: Rules, books: Books) -> tuple[Books, float]:
    """Settle a flat account: margin returns to the wallet, a shortfall becomes bad debt."""
    if books.quantity != 0.0:
        return books, 0.0
    cash, bad_debt = books.cash, 0.0
    if rules.is_isolated is not None:
        if books.margin < 0.0:
            bad_debt = -books.margin
        else:
            cash += books.margin
    if cash < 0.0:
        bad_debt -= cash
        cash = 0.0
    return Books(cash, 0.0, 0.0, 0.0, books.value), bad_debt


# ------------------------------------------------------------------------------- step 8: close


def close_bar(rules: Rules, books: Books, quote: Quote) -> tuple[Books, float, float]:
    """Mark to market at the mark close; return the price pnl and any bad debt of a flat account."""
    marked, pnl = mark_to_market(books, quote)
    if marked.quantity != 0.0:
        return marked, pnl, 0.0
    settled, bad_debt = settle(rules, marked)
    return settled, pnl, bad_debt


def mark_to_market(books: Books, quote: Quote) -> tuple[Books, float]:
    """Value the position at the mark close; return the price pnl since it was last valued."""
    pnl = books.quantity * (quote.mark_close - books.value)
    marked = Books(books.cash, books.quantity, books.entry, books.margin, quote.mark_close)
    return marked, pnl
