"""Fast path of the bar: prices move, and nothing else can happen.

A bar is calm if nothing is traded at its open, no flow, settlement or call is due, and no price of
it can liquidate or stop anything. Then its steps only value the positions at the close. They are
done here in one go, with the bits of :func:`backtest.account.portfolio_bar.live_book_bar`, which
takes many times as long.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backtest.account.contagion import book_falls
from backtest.account.orders import is_outside
from backtest.account.portfolio_balance import compute_account_equity, value_at
from backtest.account.portfolio_gap import is_quiet
from backtest.account.portfolio_ledger import PRICE_PNL, clear_ledger
from backtest.account.portfolio_orders import (
    choose_orders,
    is_deciding,
    is_ending,
    measure_target,
)
from backtest.account.portfolio_records import (
    AT_OPEN,
    CASH,
    EQUITY,
    FLAGS,
    FLOW_NEXT,
    FUNDING_NEXT,
    INCREASE,
    IS_RUINED,
    PAID_IN,
    PEAK,
    POOL_FAILED,
    REDUCE,
    RESERVE,
    SCALE,
    SINCE_POOL,
    UNIT,
    Book,
    BookFeed,
    BookLog,
    Room,
    Scene,
    Terms,
    is_held,
    is_isolated,
    pick_instrument,
)
from backtest.account.ruin import NOTHING_LEFT
from backtest.account.steps import has_wealth
from backtest.base.units import TOLERANCE
from backtest.venue.contract_value import compute_value

if TYPE_CHECKING:
    from backtest.base.units import FloatArray

HAS_ORDER_FEE, HAS_EXITS = FLAGS.index("has_order_fee"), FLAGS.index("has_exits")


def may_be_calm(terms: Terms, feed: BookFeed, book: Book) -> bool:
    """Return whether an account can take the fast path at all.

    Not with interest, calls, collateral, fixed fees, moving stops, fills at closes or margin
    multipliers that change: each makes bars that only the whole rules describe.
    """
    found = not terms.has_interest and terms.margin_call == 0.0 and terms.fill == AT_OPEN
    found = found and len(book.held.amounts) == 0
    found = found and len(feed.multiplier) == 1 and len(feed.initial) == 1
    for i in range(len(book.margin)):
        found = found and terms.flags[HAS_ORDER_FEE, i] == 0 and terms.flags[HAS_EXITS, i] == 0
    return bool(found)


def live_calm_bar(
    terms: Terms,
    feed: BookFeed,
    book: Book,
    scene: Scene,
    room: Room,
    ledger: FloatArray,
    log: BookLog,
    t: int,
    is_clear: bool,
) -> bool:
    """Update the account for bar t if the fast path applies; return whether it does.

    ``is_clear``: the ledger has entries of a calm bar alone. If the bar is not calm, nothing has
    changed but values that every bar writes anew.
    """
    if is_event_due(feed, book, t):
        return False
    set_opens(terms, feed, book, scene, t)
    if is_any_trading(terms, book, scene, room):
        return False
    if not set_rest(terms, feed, book, scene, t) or not is_quiet(terms, book, scene):
        return False
    value_at(book, scene.mark_close, scene.asset_mark_close)
    equity = compute_account_equity(terms, book)
    if not is_sound(terms, book, equity):
        return False
    if not is_clear:
        clear_ledger(ledger)
    close_calm_bar(terms, book, scene, room, ledger, log, equity)
    return True


def is_event_due(feed: BookFeed, book: Book, t: int) -> bool:
    """Return whether a flow, a settlement or the listing of an instrument belongs to bar t.

    In the first bar of an instrument the whole scene is written.
    """
    for i in range(len(book.margin)):
        if feed.span[i, 0] == t:
            return True
    flow, event = book.cursor[FLOW_NEXT], book.cursor[FUNDING_NEXT]
    is_flow = flow < len(feed.flow_bar) and feed.flow_bar[flow] == t
    return bool(is_flow or (event < len(feed.funding_bar) and feed.funding_bar[event] == t))


def set_opens(terms: Terms, feed: BookFeed, book: Book, scene: Scene, t: int) -> None:
    """Write what decides whether anything trades at the opens."""
    brackets = terms.rules.brackets
    for i in range(len(book.margin)):
        is_listed = feed.span[i, 0] <= t < feed.span[i, 1]
        scene.is_listed[i] = 1 if is_listed else 0
        if is_listed:
            size, is_inverse = brackets.sizes[i], brackets.are_inverse[i]
            scene.open[i] = compute_value(size, is_inverse, feed.open[t, i])
            scene.fill[i] = scene.open[i]
            scene.limit[i] = feed.limit[min(t, len(feed.limit) - 1), i]


def set_rest(terms: Terms, feed: BookFeed, book: Book, scene: Scene, t: int) -> bool:
    """Write the remaining prices of the bar; False if a position is delisted in it.

    Also False if an open is beyond the extremes of its bar.
    """
    brackets = terms.rules.brackets
    for i in range(len(book.margin)):
        if scene.is_listed[i] == 0:
            continue
        size, is_inverse = brackets.sizes[i], brackets.are_inverse[i]
        scene.mark_close[i] = compute_value(size, is_inverse, feed.mark_close[t, i])
        if not is_held(book, i):
            continue
        if feed.ends[i] == 1 and t == feed.span[i, 1] - 1:
            return False
        scene.low[i] = compute_value(size, is_inverse, feed.low[t, i])
        scene.high[i] = compute_value(size, is_inverse, feed.high[t, i])
        scene.mark_open[i] = compute_value(size, is_inverse, feed.mark_open[t, i])
        scene.mark_low[i] = compute_value(size, is_inverse, feed.mark_low[t, i])
        scene.mark_high[i] = compute_value(size, is_inverse, feed.mark_high[t, i])
        is_inside = scene.low[i] <= scene.open[i] <= scene.high[i]
        if not (is_inside and scene.mark_low[i] <= scene.mark_open[i] <= scene.mark_high[i]):
            return False
    return True


def is_any_trading(terms: Terms, book: Book, scene: Scene, room: Room) -> bool:
    """Return whether any decision of the last close may trade at the opens."""
    value_at(book, scene.open, scene.asset_open)
    equity = compute_account_equity(terms, book)
    if terms.max_gross_leverage < math.inf:
        choose_orders(terms, book, scene, room, equity)
        return has_order(room)
    found = False
    for i in range(len(book.margin)):
        found = found or is_trading(terms, book, scene, equity, i)
    return bool(found)


def has_order(room: Room) -> bool:
    """Return whether any decision trades."""
    found = False
    for i in range(len(room.kind)):
        found = found or room.kind[i] == REDUCE or room.kind[i] == INCREASE
    return bool(found)


def is_trading(terms: Terms, book: Book, scene: Scene, equity: float, i: int) -> bool:
    """Return whether the decision of the last close may trade an instrument at this open."""
    if not is_deciding(book, scene, i):
        return False
    if is_ending(book, i):
        return is_held(book, i)
    is_asking, _, held, reach = measure_target(terms, book, scene, equity, i)
    if not is_asking:
        return False
    return reach == math.inf or is_outside(pick_instrument(terms, i), equity, reach, held)


def is_sound(terms: Terms, book: Book, equity: float) -> bool:
    """Return whether an account is neither indebted nor ruined at a close of this equity."""
    count, crossed = 0, 0
    for i in range(len(book.margin)):
        if is_held(book, i):
            count += 1
            crossed += 0 if is_isolated(terms, i) else 1
    if equity < 0.0 or (crossed == 0 and book.purse[CASH] < 0.0):
        return False
    if count == 0 or book.purse[IS_RUINED] != 0.0:
        return True
    wealth, paid_in = equity + book.purse[RESERVE], book.purse[PAID_IN]
    is_under = wealth <= terms.ruin_at * paid_in * (1.0 + TOLERANCE)
    return not (is_under or equity <= NOTHING_LEFT * paid_in * (1.0 + TOLERANCE))


def close_calm_bar(
    terms: Terms,
    book: Book,
    scene: Scene,
    room: Room,
    ledger: FloatArray,
    log: BookLog,
    equity: float,
) -> None:
    """Mark positions at the mark closes of the bar."""
    purse = book.purse
    for i in range(len(book.margin)):
        profit = 0.0
        if is_held(book, i):
            profit += book.held.quantities[i] * (scene.mark_close[i] - book.marked[i])
            book.marked[i] = scene.mark_close[i]
        ledger[PRICE_PNL, i] = profit
        book.since[i] += 1.0
        book.since_stop[i] += 1.0
    wealth = purse[EQUITY] + purse[RESERVE]
    purse[POOL_FAILED] = 0.0
    purse[SINCE_POOL] += 1.0
    purse[EQUITY] = equity
    if has_wealth(wealth, 0.0) and purse[IS_RUINED] == 0.0:
        purse[UNIT] = purse[SCALE] * (equity + purse[RESERVE])
    is_high = purse[UNIT] >= purse[PEAK]
    purse[PEAK] = max(purse[UNIT], purse[PEAK])
    book_falls(terms, book, room, ledger, log, is_high)
