"""From decisions to fills: targets of all instruments, their own limits, one common factor.

Step 5 of a bar. Targets are computed from the equity at the last opens before anything fills, and
scaled by one factor to the cap of gross leverage. Reductions fill first. Each increase is then cut
to its own limits, the isolated ones together to the balance, and all to the initial margin of the
whole state, each by one factor. Notionals are on the side of the order: what is held on the other
side is negative.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backtest.account import Books, Quote
from backtest.account.account_records import Trade
from backtest.account.fills import fill, move_margin
from backtest.account.ledger import FILL, enter_trade, log_trade, new_ledger
from backtest.account.order_scaling import compute_all_uncounted, compute_lone_rate, fit_increases
from backtest.account.orders import (
    LARGEST_WORSENING,
    can_order,
    compute_cost,
    compute_counted,
    compute_impact,
    compute_most,
    compute_order_fee,
    compute_target,
    is_outside,
    round_worsening,
    size_order,
)
from backtest.account.portfolio_balance import (
    close_account_books,
    compute_balance,
    count_cross,
    has_collateral,
    open_books,
    value_at,
)
from backtest.account.portfolio_ledger import as_log, enter, stamp
from backtest.account.portfolio_records import (
    CASH,
    INCREASE,
    IS_OVER,
    IS_RUINED,
    KEPT,
    LEFT,
    OVERLAY,
    REDUCE,
    AccountState,
    BookLog,
    MarketBar,
    Scratch,
    Terms,
    is_held,
    is_isolated,
    is_spot,
    pick_instrument,
    pick_margin,
    pick_position,
    pick_quote,
    share,
)
from backtest.account.position import compute_profit, worsen
from backtest.base.units import TOLERANCE
from backtest.venue.book_requirement import compute_book_backing, compute_haircut
from backtest.venue.requirement import compute_largest_notional, compute_setting

if TYPE_CHECKING:
    from backtest.base.units import FloatArray

BAND_SLACK = 0.1
"""Share of the cap by which bands may carry gross leverage over it."""


def fill_decisions(
    terms: Terms,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    equity: float,
    ledger: FloatArray,
    log: BookLog,
    t: int,
) -> None:
    """Fill the decisions of the last close at the last opens.

    ``equity`` is that of the targets: at the last opens, before anything fills.
    """
    value_at(state, quotes.fill, quotes.asset_fill)
    choose_orders(terms, state, quotes, scratch, equity)
    for i in range(len(state.margin)):
        if scratch.kind[i] == REDUCE:
            wanted = scratch.side[i] * scratch.reach[i] * (1.0 / abs(quotes.fill[i]))
            trade_to(terms, state, quotes, ledger, log, t, i, wanted + 0.0, False)
    if has_increase(scratch):
        cut_increases(terms, state, quotes, scratch, equity)
        cut_to_balance(terms, state, quotes, scratch)
        factor = fit_increases(terms, state, quotes, scratch)
        fill_increases(terms, state, quotes, scratch, ledger, log, t, factor)
    for i in range(len(state.margin)):
        state.is_pending[i] = 0


def has_increase(scratch: Scratch) -> bool:
    """Return whether any order adds to a position."""
    found = False
    for i in range(len(scratch.kind)):
        found = found or scratch.kind[i] == INCREASE
    return found


def choose_orders(
    terms: Terms, state: AccountState, quotes: MarketBar, scratch: Scratch, equity: float
) -> None:
    """Write the targets of all instruments, and what each decision does to its position."""
    has_cap = terms.max_gross_leverage < math.inf
    for i in range(len(state.margin)):
        scratch.kind[i] = aim(terms, state, quotes, scratch, equity, i)
    if has_cap:
        scale_targets(terms, state, quotes, scratch, equity)
    for i in range(len(state.margin)):
        if scratch.kind[i] == KEPT:
            rules = pick_instrument(terms, i)
            if is_outside(rules, equity, scratch.reach[i], scratch.before[i]):
                scratch.kind[i] = tell_order(scratch, i)
    if has_cap:
        narrow_bands(terms, state, quotes, scratch, equity)


def tell_order(scratch: Scratch, i: int) -> int:
    """Return whether trading to the target is an increase or a pure reduction."""
    return INCREASE if scratch.reach[i] > max(scratch.before[i], 0.0) else REDUCE


def scale_targets(
    terms: Terms, state: AccountState, quotes: MarketBar, scratch: Scratch, equity: float
) -> None:
    """Scale all targets by one factor to the cap of gross leverage.

    Instruments without a target of their own count with what they hold.
    """
    most = terms.max_gross_leverage * equity
    wanted, rest = 0.0, 0.0
    for i in range(len(state.margin)):
        if scratch.kind[i] == KEPT:
            scratch.reach[i] = most if scratch.reach[i] == math.inf else scratch.reach[i]
            wanted += scratch.reach[i]
        elif is_held(state, i):
            rest += compute_notional(state, quotes, i)
    if wanted > 0.0 and wanted + rest > most:
        factor = max(most - rest, 0.0) / wanted
        for i in range(len(state.margin)):
            scratch.reach[i] *= factor


def narrow_bands(
    terms: Terms, state: AccountState, quotes: MarketBar, scratch: Scratch, equity: float
) -> None:
    """Let no band keep a position over its target where gross leverage would pass the cap by far.

    That is by more than :data:`BAND_SLACK` of it.
    """
    total = 0.0
    for i in range(len(state.margin)):
        if scratch.kind[i] == REDUCE or scratch.kind[i] == INCREASE:
            total += scratch.reach[i]
        elif is_held(state, i):
            total += compute_notional(state, quotes, i)
    if total > (1.0 + BAND_SLACK) * terms.max_gross_leverage * equity * (1.0 + TOLERANCE):
        for i in range(len(state.margin)):
            if scratch.kind[i] == KEPT and abs(scratch.before[i]) > scratch.reach[i]:
                scratch.kind[i] = tell_order(scratch, i)


def compute_notional(state: AccountState, quotes: MarketBar, i: int) -> float:
    """Return the notional of a position at the last open."""
    return float(abs(state.held.quantities[i]) * abs(quotes.fill[i]))


def is_deciding(state: AccountState, quotes: MarketBar, i: int) -> bool:
    """Return whether a decision, or a halt, may trade an instrument in this bar."""
    is_waiting = state.is_pending[i] == 1 and state.wallet[IS_RUINED] == 0.0
    return bool(is_waiting and quotes.is_listed[i] == 1)


def is_ending(state: AccountState, i: int) -> bool:
    """Return whether a halt closes the instrument, whatever was decided."""
    return bool(state.is_halted[i] == 1 or state.wallet[IS_OVER] != 0.0)


def aim(
    terms: Terms, state: AccountState, quotes: MarketBar, scratch: Scratch, equity: float, i: int
) -> int:
    """Write the target of one instrument; return ``KEPT`` if it has one, before bands are tested.

    Without one it is left as it is, or closed by a halt.
    """
    scratch.reach[i], scratch.added[i], scratch.kept[i] = 0.0, 0.0, 0.0
    if not is_deciding(state, quotes, i):
        return LEFT
    if is_ending(state, i):
        return REDUCE if is_held(state, i) else LEFT
    is_asking, side, held, reach = measure_target(terms, state, quotes, equity, i)
    if not is_asking:
        return LEFT
    scratch.side[i], scratch.before[i] = side, held
    if reach == math.inf:
        quote, scale = pick_quote(quotes, i), abs(state.signal[i])
        reach = compute_everything(terms, state, scratch, quote, equity, scale, i)
    scratch.reach[i] = reach
    return KEPT


def measure_target(
    terms: Terms, state: AccountState, quotes: MarketBar, equity: float, i: int
) -> tuple[bool, float, float, float]:
    """Return whether a decision asks for a trade, its side, and on that side what is held.

    Last the target notional: infinite means as much as the margin allows.
    """
    rules, quote = pick_instrument(terms, i), pick_quote(quotes, i)
    leverage, signal, overlay = state.leverage[i], state.signal[i], state.wallet[OVERLAY]
    is_unchanged = (math.isnan(leverage) or math.isnan(overlay)) and signal != 0.0
    if is_unchanged or not can_order(rules, quote, equity):
        return False, 1.0, 0.0, 0.0
    side = 1.0 if signal > 0.0 else -1.0
    held = state.held.quantities[i] * (side * abs(quote.fill))
    reach = compute_target(rules, quote, equity, leverage, signal)
    reach = reach * overlay if overlay > 0.0 else 0.0  # not infinite times 0
    return True, side, held, reach


def compute_everything(
    terms: Terms,
    state: AccountState,
    scratch: Scratch,
    quote: Quote,
    equity: float,
    scale: float,
    i: int,
) -> float:
    """Return the notional of an infinite target: what the whole M allows in this instrument alone.

    In isolated margin the equity stands for M. A position over the limit is kept.
    """
    rules, held = share(pick_instrument(terms, i)), scratch.before[i]
    if is_isolated(terms, i):
        free = compute_counted(rules, open_books(terms, state, i), quote, equity, held)
        return compute_most(rules, quote, free, scale, held)
    free = compute_book_backing(terms.rules, state.held, state.wallet[CASH])
    free += compute_haircut(terms.rules, state.held, i)
    free -= compute_all_uncounted(terms, state, scratch, -1 if held > 0.0 else i)
    if not terms.rules.has_scenarios:
        return compute_most(rules, quote, free, scale, held)
    most = compute_largest_notional(rules.margin, math.inf, 0.0, 0.0, quote.initial)
    rate = compute_lone_rate(terms, state, scratch, i)
    if rate > 0.0:
        most = min(most, max(free, 0.0) / rate)
    return held if scale == 1.0 and held > most else scale * most


def cut_increases(
    terms: Terms, state: AccountState, quotes: MarketBar, scratch: Scratch, equity: float
) -> None:
    """Cut each increase to its own limits, never into a reduction, and compute what it costs."""
    for i in range(len(state.margin)):
        if scratch.kind[i] == INCREASE:
            price_order(terms, quotes, scratch, i)
            kept = max(scratch.before[i], 0.0)
            limit = find_own_limit(terms, state, quotes, scratch, equity, i)
            scratch.kept[i] = kept
            scratch.added[i] = max(min(scratch.reach[i], limit) - kept, 0.0)
            if scratch.added[i] == 0.0 and scratch.before[i] >= 0.0:
                scratch.fee[i] = 0.0  # nothing is left of it, and nothing needs room for its fee


def price_order(terms: Terms, quotes: MarketBar, scratch: Scratch, i: int) -> None:
    """Write the cost per unit of notional of an order, with the impact of its wanted size."""
    rules, quote, side = pick_instrument(terms, i), pick_quote(quotes, i), scratch.side[i]
    worsening = rules.slippage
    if rules.has_impact is not None:
        added = max(scratch.reach[i] - scratch.before[i], 0.0)
        worsening += compute_impact(share(rules), quote, added)
    worsening = min(worsening, LARGEST_WORSENING)
    if rules.rounds_price is not None:
        worsening = round_worsening(share(rules), quote.fill, side, worsening)
    scratch.cost[i], scratch.rate[i] = compute_cost(rules, side, worsening), rules.fee
    scratch.fee[i] = compute_order_fee(rules, quote)
    scratch.saved[i] = worsening


def find_own_limit(
    terms: Terms, state: AccountState, quotes: MarketBar, scratch: Scratch, equity: float, i: int
) -> float:
    """Return the largest notional of one increase by its own limits, whatever the others do."""
    if not is_isolated(terms, i):
        margin = pick_margin(terms, i)
        return compute_largest_notional(margin, math.inf, 0.0, 0.0, quotes.initial[i])
    rules, quote, side = share(pick_instrument(terms, i)), pick_quote(quotes, i), scratch.side[i]
    books = open_books(terms, state, i)
    wanted = size_order(rules, books, quote, equity, side, scratch.reach[i])
    return float(side * wanted * abs(quote.fill))


def price_balance(
    terms: Terms, state: AccountState, quotes: MarketBar, scratch: Scratch, i: int
) -> None:
    """Write what an increase takes from the balance, and what the flip of an isolated one returns.

    ``taken`` is per unit of notional: margin and fee of an isolated order, the fee of a cross one,
    and the price of what is bought at spot.
    ``returned`` is net of the fee of closing.
    """
    rules, quote = share(pick_instrument(terms, i)), pick_quote(quotes, i)
    filled = worsen(rules, quote.fill, scratch.side[i], scratch.saved[i])
    ratio = abs(filled) / abs(quote.fill)
    if not is_isolated(terms, i):
        scratch.taken[i] = ratio * scratch.rate[i]
        if is_spot(terms, i) and scratch.side[i] > 0.0:
            scratch.taken[i] += ratio
        return
    posted = 1.0 / compute_setting(rules.margin, quote.initial)
    scratch.taken[i] = ratio * (posted + scratch.rate[i])
    scratch.returned[i] = -scratch.fee[i]
    if scratch.before[i] < 0.0:
        position = pick_position(state, i)
        fee = scratch.rate[i] * abs(position.quantity) * abs(filled)
        scratch.returned[i] += position.margin + compute_profit(position, filled) - fee
    elif scratch.added[i] == 0.0:
        scratch.returned[i] = 0.0


def cut_to_balance(terms: Terms, state: AccountState, quotes: MarketBar, scratch: Scratch) -> None:
    """Scale the isolated increases by one factor to what the fees of the cross ones leave of B.

    What isolated flips return is free for all of them; one that its own limits cut to 0 takes
    nothing.
    """
    if not has_isolated_increase(terms, scratch):
        return
    fees, taken, returned = 0.0, 0.0, 0.0
    for i in range(len(state.margin)):
        if scratch.kind[i] == INCREASE:
            price_balance(terms, state, quotes, scratch, i)
            if is_isolated(terms, i):
                is_cut = scratch.added[i] == 0.0
                taken += scratch.taken[i] * scratch.added[i]
                returned += max(scratch.returned[i], 0.0) if is_cut else scratch.returned[i]
            else:
                traded = scratch.kept[i] + scratch.added[i] - scratch.before[i]
                fees += scratch.taken[i] * traded + (scratch.fee[i] if traded > 0.0 else 0.0)
    most = max(max(compute_balance(terms, state) - fees, 0.0) + returned, 0.0)
    if taken > most:
        for i in range(len(state.margin)):
            if scratch.kind[i] == INCREASE and is_isolated(terms, i):
                scratch.added[i] *= most / taken


def has_isolated_increase(terms: Terms, scratch: Scratch) -> bool:
    """Return whether any isolated order adds to a position."""
    found = False
    for i in range(len(scratch.kind)):
        found = found or (scratch.kind[i] == INCREASE and is_isolated(terms, i))
    return bool(found)


def fill_increases(
    terms: Terms,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    ledger: FloatArray,
    log: BookLog,
    t: int,
    factor: float,
) -> None:
    """Fill all increases, each scaled by the common factor."""
    for i in range(len(state.margin)):
        if scratch.kind[i] == INCREASE:
            size = scratch.kept[i] + factor * scratch.added[i]
            wanted = scratch.side[i] * size * (1.0 / abs(quotes.fill[i]))
            if not (size <= scratch.before[i] and scratch.before[i] > 0.0):
                trade_to(terms, state, quotes, ledger, log, t, i, wanted + 0.0, True)
    lift_balance(terms, state, scratch)


def lift_balance(terms: Terms, state: AccountState, scratch: Scratch) -> None:
    """Take what is missing after the fills from the margin of isolated increases, the last first.

    Only without cross positions and collateral, which back a negative balance. It is what impact at
    the final size costs more than at the wanted one.
    """
    if not state.wallet[CASH] < 0.0 or count_cross(terms, state) > 0 or has_collateral(state):
        return
    n = len(state.margin)
    for k in range(n):
        i = n - 1 - k
        if scratch.kind[i] == INCREASE and is_isolated(terms, i) and is_held(state, i):
            moved = min(max(state.margin[i], 0.0), max(-state.wallet[CASH], 0.0))
            state.margin[i] -= moved
            state.wallet[CASH] += moved


def trade_to(
    terms: Terms,
    state: AccountState,
    quotes: MarketBar,
    ledger: FloatArray,
    log: BookLog,
    t: int,
    i: int,
    wanted: float,
    is_increase: bool,
) -> None:
    """Trade one instrument to a quantity at the last open, as far as lots and volume allow."""
    if wanted == state.held.quantities[i]:
        return
    rules, quote = share(pick_instrument(terms, i)), pick_quote(quotes, i)
    before = open_books(terms, state, i)
    done = fill(rules, before, quote, wanted, rules.fee)
    row = log.written[0]
    log_trade(as_log(log), t, FILL, done)
    stamp(log, row, i)
    enter(ledger, i, enter_trade(new_ledger(), done, 0))
    close_account_books(terms, state, i, before, done.books)
    if is_increase and is_isolated(terms, i):
        post_in_full(terms, state, quotes, before, done, i)
    if done.quantity != 0.0:
        state.factor[i] = state.wallet[OVERLAY]
    follow_best(state, i, before.positions[0].quantity)


def post_in_full(
    terms: Terms, state: AccountState, quotes: MarketBar, before: Books, done: Trade, i: int
) -> None:
    """Take from the balance what a fill took from the margin of an isolated position."""
    rules, quote = share(pick_instrument(terms, i)), pick_quote(quotes, i)
    held = state.held.quantities[i]
    _, margin = move_margin(rules, before, held, done.value, quote.initial)
    state.wallet[CASH] -= margin - state.margin[i]
    state.margin[i] = margin


def follow_best(state: AccountState, i: int, held: float) -> None:
    """Begin the best price of a new or flipped position at its entry."""
    if held * state.held.quantities[i] <= 0.0:
        state.best[i] = state.held.entries[i]
        state.opened[i] = math.nan
