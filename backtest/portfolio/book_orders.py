"""From decisions to fills: targets of all instruments, their own limits, one common factor.

Step 5 of a bar. Targets are computed from the equity at the last opens before anything fills.
Reductions fill first. Each increase is then cut to its own limits, all by the limit of gross
leverage, and all by the initial margin of the whole book, each by one factor. Notionals are on the
side of the order: what is held on the other side is negative.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backtest.account import Quote
from backtest.account.fills import fill
from backtest.account.ledger import FILL, enter_trade, log_trade, new_ledger
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
from backtest.account.position import compute_profit, worsen
from backtest.portfolio.book_balance import (
    close_account_books,
    open_books,
    value_at,
)
from backtest.portfolio.book_fit import compute_all_uncounted, compute_lone_rate, fit_increases
from backtest.portfolio.book_ledger import as_log, enter, stamp
from backtest.portfolio.book_records import (
    CASH,
    INCREASE,
    IS_OVER,
    IS_RUINED,
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
from backtest.venue.book_requirement import compute_book_backing
from backtest.venue.requirement import compute_largest_notional, compute_setting

if TYPE_CHECKING:
    from backtest.base.units import FloatArray


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
    value_at(book, scene.open, scene.asset_open)
    for i in range(len(book.margin)):
        room.kind[i] = aim(terms, book, scene, room, equity, i)
    for i in range(len(book.margin)):
        if room.kind[i] == REDUCE:
            wanted = room.side[i] * room.reach[i] * (1.0 / abs(scene.open[i]))
            trade_to(terms, book, scene, ledger, log, t, i, wanted + 0.0)
    if has_increase(room):
        cut_increases(terms, book, scene, room, equity)
        cut_to_gross(terms, book, scene, room, equity)
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


def is_deciding(book: Book, scene: Scene, i: int) -> bool:
    """Return whether a decision, or a halt, may trade an instrument in this bar."""
    is_waiting = book.is_pending[i] == 1 and book.purse[IS_RUINED] == 0.0
    return bool(is_waiting and scene.is_listed[i] == 1)


def is_ending(book: Book, i: int) -> bool:
    """Return whether a halt closes the instrument, whatever was decided."""
    return bool(book.is_halted[i] == 1 or book.purse[IS_OVER] != 0.0)


def aim(terms: Terms, book: Book, scene: Scene, room: Room, equity: float, i: int) -> int:
    """Write the target of one instrument, and return what it does to the position."""
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
    if not is_outside(pick_instrument(terms, i), equity, reach, held):
        return LEFT
    return INCREASE if reach > max(held, 0.0) else REDUCE


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
            if is_isolated(terms, i):
                price_margin(terms, book, scene, room, i)


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


def price_margin(terms: Terms, book: Book, scene: Scene, room: Room, i: int) -> None:
    """Write what a whole isolated increase takes from the balance, and what its flip returns.

    ``taken`` is per unit of notional added; ``returned`` is net of the fee of closing.
    """
    rules, quote = share(pick_instrument(terms, i)), pick_quote(scene, i)
    filled = worsen(rules, quote.fill, room.side[i], room.saved[i])
    ratio = abs(filled) / abs(quote.fill)
    posted = 1.0 / compute_setting(rules.margin, quote.initial)
    room.taken[i] = ratio * (posted + rules.fee)
    room.returned[i] = -room.fee[i]
    if room.before[i] < 0.0:
        position = pick_position(book, i)
        fee = rules.fee * abs(position.quantity) * abs(filled)
        room.returned[i] += position.margin + compute_profit(position, filled) - fee


def cut_to_gross(terms: Terms, book: Book, scene: Scene, room: Room, equity: float) -> None:
    """Scale all increases by one factor to the limit of gross leverage."""
    if terms.max_gross_leverage == math.inf:
        return
    fixed, added = 0.0, 0.0
    for i in range(len(book.margin)):
        if room.kind[i] == INCREASE:
            fixed += room.kept[i]
            added += room.added[i]
        elif is_held(book, i):
            fixed += abs(book.held.quantities[i]) * abs(scene.open[i])
    most = terms.max_gross_leverage * equity
    if fixed + added > most:
        factor = max(most - fixed, 0.0) / added if added > 0.0 else 0.0
        for i in range(len(book.margin)):
            room.added[i] *= factor


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
            wanted = room.side[i] * size * (1.0 / abs(scene.open[i]))
            if not (size <= room.before[i] and room.before[i] > 0.0):
                trade_to(terms, book, scene, ledger, log, t, i, wanted + 0.0)


def trade_to(
    terms: Terms,
    book: Book,
    scene: Scene,
    ledger: FloatArray,
    log: BookLog,
    t: int,
    i: int,
    wanted: float,
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
    if done.quantity != 0.0:
        book.factor[i] = book.purse[OVERLAY]
    follow_best(book, i, before.positions[0].quantity)


def follow_best(book: Book, i: int, held: float) -> None:
    """Begin the best price of a new or flipped position at its entry."""
    if held * book.held.quantities[i] <= 0.0:
        book.best[i] = book.held.entries[i]
