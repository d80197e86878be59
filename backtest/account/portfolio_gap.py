"""What acts at the open of a bar, and whether its extremes can make anything act."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backtest.account import Watch
from backtest.account.equity_stop import CAUTION, compute_last_equity, is_drawdown_near, is_drawn
from backtest.account.exits import DRAW, NOTHING, PROFIT, STOP, find_exit
from backtest.account.ledger import new_ledger
from backtest.account.portfolio_balance import (
    close_account_books,
    is_pool_short,
    open_books,
    value_at,
)
from backtest.account.portfolio_ledger import as_log, enter, stamp
from backtest.account.portfolio_liquidation import is_lone, liquidate_pool
from backtest.account.portfolio_payments import liquidate_isolated
from backtest.account.portfolio_records import (
    CASH,
    HIGHEST,
    Book,
    BookLog,
    Room,
    Scene,
    Terms,
    has_exits,
    has_stops,
    is_held,
    is_isolated,
    pick_instrument,
    pick_position,
    pick_quote,
    share,
)
from backtest.account.position import compute_stop, find_adverse, is_stopped
from backtest.account.steps import close_by_stop
from backtest.venue.book_requirement import find_maintenance
from backtest.venue.collateral_value import compute_value_at_rate

if TYPE_CHECKING:
    from backtest.base.units import FloatArray

# --------------------------------------------------------------------------- step 4: the open


def check_gap(
    terms: Terms, book: Book, scene: Scene, room: Room, ledger: FloatArray, log: BookLog, t: int
) -> None:
    """Liquidate what fails at the mark opens; otherwise stops act at the last opens.

    A lone position has an equity stop by the rule of a single one.
    """
    was_lone = terms.equity_stop > 0.0 and is_lone(book)
    is_any_hit = liquidate_at_gap(terms, book, scene, room, ledger, log, t)
    highest = math.nan
    if terms.equity_stop > 0.0 and was_lone:
        highest = book.purse[HIGHEST]
    elif terms.equity_stop > 0.0 and is_drawn(terms, book, scene.open, scene.asset_mark_open):
        close_account(terms, book, scene, ledger, log, t, scene.open, scene.asset_mark_open)
    for i in range(len(book.margin)):
        is_waiting = is_any_hit and room.kind[i] == 1
        if is_held(book, i) and scene.is_listed[i] == 1 and has_stops(terms, i) and not is_waiting:
            kind = find_stop(terms, book, scene, i, scene.open[i], scene.open[i], highest)[0]
            if kind != NOTHING:
                stop_position(terms, book, scene, ledger, log, t, i, kind, scene.open[i])


def liquidate_at_gap(
    terms: Terms, book: Book, scene: Scene, room: Room, ledger: FloatArray, log: BookLog, t: int
) -> bool:
    """Liquidate what fails at the mark opens; return whether anything did.

    ``room.kind`` is 1 where it did: the stops there wait.
    """
    value_at(book, scene.mark_open, scene.asset_mark_open)
    is_pool_hit = is_pool_short(terms, book)
    if is_pool_hit:
        liquidate_pool(terms, book, scene, room, ledger, log, t, is_lone(book))
    found = is_pool_hit
    for i in range(len(book.margin)):
        is_hit = is_pool_hit
        if is_isolated(terms, i):
            is_hit = False
            if is_held(book, i) and scene.is_listed[i] == 1:
                is_hit = liquidate_isolated(terms, book, scene, ledger, log, t, i)
        room.kind[i] = 1 if is_hit else 0
        found = found or is_hit
    return found


def find_stop(
    terms: Terms, book: Book, scene: Scene, i: int, low: float, high: float, highest: float
) -> tuple[int, float]:
    """Return the stop of one position that prices from ``low`` to ``high`` reach, and its u.

    ``highest`` is the equity that the stop of a lone position compares with; NaN of all others.
    """
    rules, quote, position = (
        share(pick_instrument(terms, i)),
        pick_quote(scene, i),
        pick_position(book, i),
    )
    if rules.has_exits is not None:
        books = open_books(terms, book, i)
        return find_exit(rules, books, quote, Watch(book.best[i], highest), low, high)
    if rules.has_stop is not None and is_stopped(
        rules, position, find_adverse(position, low, high)
    ):
        return STOP, compute_stop(rules, position)
    return NOTHING, math.nan


def stop_position(
    terms: Terms,
    book: Book,
    scene: Scene,
    ledger: FloatArray,
    log: BookLog,
    t: int,
    i: int,
    kind: int,
    value: float,
) -> None:
    """Close a position by a stop at u; it drops the decision of its instrument."""
    rules, quote = share(pick_instrument(terms, i)), pick_quote(scene, i)
    before, row = open_books(terms, book, i), log.written[0]
    after, found = close_by_stop(rules, before, new_ledger(), quote, value, kind, as_log(log), t)
    stamp(log, row, i)
    close_account_books(terms, book, i, before, after)
    enter(ledger, i, found)
    book.is_pending[i] = 0
    if kind != PROFIT:
        book.since_stop[i] = -1.0
    if kind == DRAW:
        drop_after_equity_stop(book)


def drop_after_equity_stop(book: Book) -> None:
    """Drop the decisions of all instruments after an equity stop, which counts for all of them."""
    for i in range(len(book.margin)):
        book.is_pending[i] = 0
        book.since_stop[i] = -1.0


def close_account(
    terms: Terms,
    book: Book,
    scene: Scene,
    ledger: FloatArray,
    log: BookLog,
    t: int,
    values: FloatArray,
    prices: FloatArray,
) -> None:
    """Close all positions by the equity stop; the highest equity starts anew at what is left."""
    for i in range(len(book.margin)):
        if is_held(book, i):
            stop_position(terms, book, scene, ledger, log, t, i, DRAW, values[i])
    book.purse[HIGHEST] = compute_last_equity(terms, book, values, prices)


# ------------------------------------------------------------------------- can anything act?


def is_quiet(terms: Terms, book: Book, scene: Scene) -> bool:  # noqa: C901 - all that may act
    """Return whether no price of the bar can make anything act; False where it is not certain.

    D = M - level R under brackets is a sum of concave functions of one price each. So it is least
    at an extreme of each, whichever way the prices move.
    """
    if terms.equity_stop > 0.0 and is_drawdown_near(terms, book, scene):
        return False
    least, gross = book.purse[CASH], 0.0
    has_pool = False
    for i in range(len(book.margin)):
        if not is_held(book, i):
            continue
        if is_isolated(terms, i):
            if is_isolated_near(terms, book, scene, i):
                return False
        else:
            has_pool = True
            least += find_least(terms, book, scene, i)
            gross += abs(book.held.quantities[i] * scene.mark_open[i])
        if has_stops(terms, i) and is_stop_near(terms, book, scene, i):
            return False
    if not has_pool:
        return True
    if terms.rules.has_scenarios:
        return False
    for c in range(len(book.held.amounts)):
        amount, tables = book.held.amounts[c], terms.rules.collateral
        at_low = compute_value_at_rate(tables, c, amount * scene.asset_mark_low[c])
        at_high = compute_value_at_rate(tables, c, amount * scene.asset_mark_high[c])
        least += min(at_low, at_high)
    return bool(least > CAUTION * gross)


def find_least(terms: Terms, book: Book, scene: Scene, i: int) -> float:
    """Return the least of a position's value less level times its requirement in the bar."""
    tables, held, level = terms.rules.brackets, book.held.quantities[i], terms.rules.level
    low, high = held * scene.mark_low[i], held * scene.mark_high[i]
    of_low, of_high = abs(low), abs(high)
    if tables.are_valued_at_entry[i]:
        of_low = of_high = abs(held * book.held.entries[i])
    at_low = low - level * find_maintenance(tables, i, of_low)
    at_high = high - level * find_maintenance(tables, i, of_high)
    return float(min(at_low, at_high))


def is_isolated_near(terms: Terms, book: Book, scene: Scene, i: int) -> bool:
    """Return whether an isolated position fails at an extreme of the bar, or nearly."""
    tables, held, entry = terms.rules.brackets, book.held.quantities[i], book.held.entries[i]
    low, high = held * scene.mark_low[i], held * scene.mark_high[i]
    of_low, of_high = abs(low), abs(high)
    caution = CAUTION * max(of_low, of_high)
    if tables.are_valued_at_entry[i]:
        of_low = of_high = abs(held * entry)
    posted = book.margin[i] - held * entry
    at_low = posted + low - find_maintenance(tables, i, of_low)
    at_high = posted + high - find_maintenance(tables, i, of_high)
    return not min(at_low, at_high) > caution


def is_stop_near(terms: Terms, book: Book, scene: Scene, i: int) -> bool:
    """Return whether a stop of a position acts in the bar."""
    low, high = scene.low[i], scene.high[i]
    if has_exits(terms, i):
        return find_stop(terms, book, scene, i, low, high, math.nan)[0] != NOTHING
    position = pick_position(book, i)
    return is_stopped(pick_instrument(terms, i), position, find_adverse(position, low, high))
