"""From decisions to fills: targets of all instruments, their own limits, one common factor.

Step 5 of a bar. Targets are computed from the equity at the last opens before anything fills, and
scaled by one factor to the cap of gross leverage. Reductions fill first. Each increase is then cut
to its own limits, the isolated ones together to the balance, and all to the initial margin of the
whole book, each by one factor. Notionals are on the side of the order: what is held on the other
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
    Book,
    BookLog,
    Room,
    Scene,
    Terms,
    is_held,
    is_isolated,
    pick_instrument,
    pick_margin,
    pick_position,
    pick_quote,
    share,
)
from backtest.account.position import compute_profit, worsen
from backtest.base.units import TOLERANCE
from backtest.venue.book_requirement import compute_book_backing
from backtest.venue.requirement import compute_largest_notional, compute_setting

if TYPE_CHECKING:
    from backtest.base.units import FloatArray

BAND_SLACK = 0.1
"""Share of the cap by which bands may carry gross leverage over it."""


def fill_decisions(
    terms: Terms,
    book: Book,
    scene: Scene,
    room: Room,
    equity: float,
    ledger: FloatArray,
    log: BookLog,
    t: int,
) -> None:
    """Fill the decisions of the last close at the last opens.

    ``equity`` is that of the targets: at the last opens, before anything fills.
    """
    value_at(book, scene.fill, scene.asset_fill)
    choose_orders(terms, book, scene, room, equity)
    for i in range(len(book.margin)):
        if room.kind[i] == REDUCE:
            wanted = room.side[i] * room.reach[i] * (1.0 / abs(scene.fill[i]))
            trade_to(terms, book, scene, ledger, log, t, i, wanted + 0.0, False)
    if has_increase(room):
        cut_increases(terms, book, scene, room, equity)
        cut_to_balance(terms, book, scene, room)
        factor = fit_increases(terms, book, scene, room)
        fill_increases(terms, book, scene, room, ledger, log, t, factor)
    for i in range(len(book.margin)):
        book.is_pending[i] = 0


def has_increase(room: Room) -> bool:
    """Return whether any order adds to a position."""
    found = False
    for i in range(len(room.kind)):
        found = found or room.kind[i] == INCREASE
    return found


def choose_orders(terms: Terms, book: Book, scene: Scene, room: Room, equity: float) -> None:
    """Write the targets of all instruments, and what each decision does to its position."""
    has_cap = terms.max_gross_leverage < math.inf
    for i in range(len(book.margin)):
        room.kind[i] = aim(terms, book, scene, room, equity, i)
    if has_cap:
        scale_targets(terms, book, scene, room, equity)
    for i in range(len(book.margin)):
        if room.kind[i] == KEPT:
            rules = pick_instrument(terms, i)
            if is_outside(rules, equity, room.reach[i], room.before[i]):
                room.kind[i] = tell_order(room, i)
    if has_cap:
        narrow_bands(terms, book, scene, room, equity)


def tell_order(room: Room, i: int) -> int:
    """Return whether trading to the target is an increase or a pure reduction."""
    return INCREASE if room.reach[i] > max(room.before[i], 0.0) else REDUCE


def scale_targets(terms: Terms, book: Book, scene: Scene, room: Room, equity: float) -> None:
    """Scale all targets by one factor to the cap of gross leverage.

    Instruments without a target of their own count with what they hold.
    """
    most = terms.max_gross_leverage * equity
    wanted, rest = 0.0, 0.0
    for i in range(len(book.margin)):
        if room.kind[i] == KEPT:
            room.reach[i] = most if room.reach[i] == math.inf else room.reach[i]
            wanted += room.reach[i]
        elif is_held(book, i):
            rest += compute_notional(book, scene, i)
    if wanted > 0.0 and wanted + rest > most:
        factor = max(most - rest, 0.0) / wanted
        for i in range(len(book.margin)):
            room.reach[i] *= factor


def narrow_bands(terms: Terms, book: Book, scene: Scene, room: Room, equity: float) -> None:
    """Let no band keep a position over its target where gross leverage would pass the cap by far.

    That is by more than :data:`BAND_SLACK` of it.
    """
    total = 0.0
    for i in range(len(book.margin)):
        if room.kind[i] == REDUCE or room.kind[i] == INCREASE:
            total += room.reach[i]
        elif is_held(book, i):
            total += compute_notional(book, scene, i)
    if total > (1.0 + BAND_SLACK) * terms.max_gross_leverage * equity * (1.0 + TOLERANCE):
        for i in range(len(book.margin)):
            if room.kind[i] == KEPT and abs(room.before[i]) > room.reach[i]:
                room.kind[i] = tell_order(room, i)


def compute_notional(book: Book, scene: Scene, i: int) -> float:
    """Return the notional of a position at the last open."""
    return float(abs(book.held.quantities[i]) * abs(scene.fill[i]))


def is_deciding(book: Book, scene: Scene, i: int) -> bool:
    """Return whether a decision, or a halt, may trade an instrument in this bar."""
    is_waiting = book.is_pending[i] == 1 and book.purse[IS_RUINED] == 0.0
    return bool(is_waiting and scene.is_listed[i] == 1)


def is_ending(book: Book, i: int) -> bool:
    """Return whether a halt closes the instrument, whatever was decided."""
    return bool(book.is_halted[i] == 1 or book.purse[IS_OVER] != 0.0)


def aim(terms: Terms, book: Book, scene: Scene, room: Room, equity: float, i: int) -> int:
    """Write the target of one instrument; return ``KEPT`` if it has one, before bands are tested.

    Without one it is left as it is, or closed by a halt.
    """
    room.reach[i], room.added[i], room.kept[i] = 0.0, 0.0, 0.0
    if not is_deciding(book, scene, i):
        return LEFT
    if is_ending(book, i):
        return REDUCE if is_held(book, i) else LEFT
    is_asking, side, held, reach = measure_target(terms, book, scene, equity, i)
    if not is_asking:
        return LEFT
    room.side[i], room.before[i] = side, held
    if reach == math.inf:
        quote, scale = pick_quote(scene, i), abs(book.signal[i])
        reach = compute_everything(terms, book, room, quote, equity, scale, i)
    room.reach[i] = reach
    return KEPT


def measure_target(
    terms: Terms, book: Book, scene: Scene, equity: float, i: int
) -> tuple[bool, float, float, float]:
    """Return whether a decision asks for a trade, its side, and on that side what is held.

    Last the target notional: infinite means as much as the margin allows.
    """
    rules, quote = pick_instrument(terms, i), pick_quote(scene, i)
    leverage, signal, overlay = book.leverage[i], book.signal[i], book.purse[OVERLAY]
    is_unchanged = (math.isnan(leverage) or math.isnan(overlay)) and signal != 0.0
    if is_unchanged or not can_order(rules, quote, equity):
        return False, 1.0, 0.0, 0.0
    side = 1.0 if signal > 0.0 else -1.0
    held = book.held.quantities[i] * (side * abs(quote.fill))
    reach = compute_target(rules, quote, equity, leverage, signal)
    reach = reach * overlay if overlay > 0.0 else 0.0  # not infinite times 0
    return True, side, held, reach


def compute_everything(
    terms: Terms, book: Book, room: Room, quote: Quote, equity: float, scale: float, i: int
) -> float:
    """Return the notional of an infinite target: what the whole M allows in this instrument alone.

    In isolated margin the equity stands for M. A position over the limit is kept.
    """
    rules, held = share(pick_instrument(terms, i)), room.before[i]
    if is_isolated(terms, i):
        free = compute_counted(rules, open_books(terms, book, i), quote, equity, held)
        return compute_most(rules, quote, free, scale, held)
    free = compute_book_backing(terms.rules, book.held, book.purse[CASH])
    free -= compute_all_uncounted(terms, book, room, -1 if held > 0.0 else i)
    if not terms.rules.has_scenarios:
        return compute_most(rules, quote, free, scale, held)
    most = compute_largest_notional(rules.margin, math.inf, 0.0, 0.0, quote.initial)
    rate = compute_lone_rate(terms, book, room, i)
    if rate > 0.0:
        most = min(most, max(free, 0.0) / rate)
    return held if scale == 1.0 and held > most else scale * most


def cut_increases(terms: Terms, book: Book, scene: Scene, room: Room, equity: float) -> None:
    """Cut each increase to its own limits, never into a reduction, and compute what it costs."""
    for i in range(len(book.margin)):
        if room.kind[i] == INCREASE:
            price_order(terms, scene, room, i)
            kept = max(room.before[i], 0.0)
            limit = find_own_limit(terms, book, scene, room, equity, i)
            room.kept[i] = kept
            room.added[i] = max(min(room.reach[i], limit) - kept, 0.0)
            if room.added[i] == 0.0 and room.before[i] >= 0.0:
                room.fee[i] = 0.0  # nothing is left of it, and nothing needs room for its fee


def price_order(terms: Terms, scene: Scene, room: Room, i: int) -> None:
    """Write the cost per unit of notional of an order, with the impact of its wanted size."""
    rules, quote, side = pick_instrument(terms, i), pick_quote(scene, i), room.side[i]
    worsening = rules.slippage
    if rules.has_impact is not None:
        added = max(room.reach[i] - room.before[i], 0.0)
        worsening += compute_impact(share(rules), quote, added)
    worsening = min(worsening, LARGEST_WORSENING)
    if rules.rounds_price is not None:
        worsening = round_worsening(share(rules), quote.fill, side, worsening)
    room.cost[i] = compute_cost(rules, side, worsening)
    room.fee[i] = compute_order_fee(rules, quote)
    room.saved[i] = worsening


def find_own_limit(
    terms: Terms, book: Book, scene: Scene, room: Room, equity: float, i: int
) -> float:
    """Return the largest notional of one increase by its own limits, whatever the others do."""
    if not is_isolated(terms, i):
        margin = pick_margin(terms, i)
        return compute_largest_notional(margin, math.inf, 0.0, 0.0, scene.initial[i])
    rules, quote, side = share(pick_instrument(terms, i)), pick_quote(scene, i), room.side[i]
    books = open_books(terms, book, i)
    wanted = size_order(rules, books, quote, equity, side, room.reach[i])
    return float(side * wanted * abs(quote.fill))


def price_balance(terms: Terms, book: Book, scene: Scene, room: Room, i: int) -> None:
    """Write what an increase takes from the balance, and what the flip of an isolated one returns.

    ``taken`` is per unit of notional: margin and fee of an isolated order, the fee of a cross one.
    ``returned`` is net of the fee of closing.
    """
    rules, quote = share(pick_instrument(terms, i)), pick_quote(scene, i)
    filled = worsen(rules, quote.fill, room.side[i], room.saved[i])
    ratio = abs(filled) / abs(quote.fill)
    if not is_isolated(terms, i):
        room.taken[i] = ratio * rules.fee
        return
    posted = 1.0 / compute_setting(rules.margin, quote.initial)
    room.taken[i] = ratio * (posted + rules.fee)
    room.returned[i] = -room.fee[i]
    if room.before[i] < 0.0:
        position = pick_position(book, i)
        fee = rules.fee * abs(position.quantity) * abs(filled)
        room.returned[i] += position.margin + compute_profit(position, filled) - fee
    elif room.added[i] == 0.0:
        room.returned[i] = 0.0


def cut_to_balance(terms: Terms, book: Book, scene: Scene, room: Room) -> None:
    """Scale the isolated increases by one factor to what the fees of the cross ones leave of B.

    What isolated flips return is free for all of them; one that its own limits cut to 0 takes
    nothing.
    """
    if not has_isolated_increase(terms, room):
        return
    fees, taken, returned = 0.0, 0.0, 0.0
    for i in range(len(book.margin)):
        if room.kind[i] == INCREASE:
            price_balance(terms, book, scene, room, i)
            if is_isolated(terms, i):
                is_cut = room.added[i] == 0.0
                taken += room.taken[i] * room.added[i]
                returned += max(room.returned[i], 0.0) if is_cut else room.returned[i]
            else:
                traded = room.kept[i] + room.added[i] - room.before[i]
                fees += room.taken[i] * traded + (room.fee[i] if traded > 0.0 else 0.0)
    most = max(max(compute_balance(terms, book) - fees, 0.0) + returned, 0.0)
    if taken > most:
        for i in range(len(book.margin)):
            if room.kind[i] == INCREASE and is_isolated(terms, i):
                room.added[i] *= most / taken


def has_isolated_increase(terms: Terms, room: Room) -> bool:
    """Return whether any isolated order adds to a position."""
    found = False
    for i in range(len(room.kind)):
        found = found or (room.kind[i] == INCREASE and is_isolated(terms, i))
    return bool(found)


def fill_increases(
    terms: Terms,
    book: Book,
    scene: Scene,
    room: Room,
    ledger: FloatArray,
    log: BookLog,
    t: int,
    factor: float,
) -> None:
    """Fill all increases, each scaled by the common factor."""
    for i in range(len(book.margin)):
        if room.kind[i] == INCREASE:
            size = room.kept[i] + factor * room.added[i]
            wanted = room.side[i] * size * (1.0 / abs(scene.fill[i]))
            if not (size <= room.before[i] and room.before[i] > 0.0):
                trade_to(terms, book, scene, ledger, log, t, i, wanted + 0.0, True)
    lift_balance(terms, book, room)


def lift_balance(terms: Terms, book: Book, room: Room) -> None:
    """Take what is missing after the fills from the margin of isolated increases, the last first.

    Only without cross positions and collateral, which back a negative balance. It is what impact at
    the final size costs more than at the wanted one.
    """
    if not book.purse[CASH] < 0.0 or count_cross(terms, book) > 0 or has_collateral(book):
        return
    n = len(book.margin)
    for k in range(n):
        i = n - 1 - k
        if room.kind[i] == INCREASE and is_isolated(terms, i) and is_held(book, i):
            moved = min(max(book.margin[i], 0.0), max(-book.purse[CASH], 0.0))
            book.margin[i] -= moved
            book.purse[CASH] += moved


def trade_to(
    terms: Terms,
    book: Book,
    scene: Scene,
    ledger: FloatArray,
    log: BookLog,
    t: int,
    i: int,
    wanted: float,
    is_increase: bool,
) -> None:
    """Trade one instrument to a quantity at the last open, as far as lots and volume allow."""
    if wanted == book.held.quantities[i]:
        return
    rules, quote = share(pick_instrument(terms, i)), pick_quote(scene, i)
    before = open_books(terms, book, i)
    done = fill(rules, before, quote, wanted, rules.fee)
    row = log.written[0]
    log_trade(as_log(log), t, FILL, done)
    stamp(log, row, i)
    enter(ledger, i, enter_trade(new_ledger(), done, 0))
    close_account_books(terms, book, i, before, done.books)
    if is_increase and is_isolated(terms, i):
        post_in_full(terms, book, scene, before, done, i)
    if done.quantity != 0.0:
        book.factor[i] = book.purse[OVERLAY]
    follow_best(book, i, before.positions[0].quantity)


def post_in_full(
    terms: Terms, book: Book, scene: Scene, before: Books, done: Trade, i: int
) -> None:
    """Take from the balance what a fill took from the margin of an isolated position."""
    rules, quote = share(pick_instrument(terms, i)), pick_quote(scene, i)
    held = book.held.quantities[i]
    _, margin = move_margin(rules, before, held, done.value, quote.initial)
    book.purse[CASH] -= margin - book.margin[i]
    book.margin[i] = margin


def follow_best(book: Book, i: int, held: float) -> None:
    """Begin the best price of a new or flipped position at its entry."""
    if held * book.held.quantities[i] <= 0.0:
        book.best[i] = book.held.entries[i]
