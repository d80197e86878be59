"""The bar of an account with several positions: its steps, in order.

As :mod:`backtest.account.bar`, for all instruments at each step, in the order in which they were
given. The book changes in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.account import Position
from backtest.account.account_records import Watch
from backtest.account.contagion import book_falls
from backtest.account.equity_stop import follow_highest, rescale_highest
from backtest.account.exits import follow_prices
from backtest.account.fills import trade
from backtest.account.ledger import BAD_DEBT as DEBT
from backtest.account.ledger import RUINED, enter_trade, log_trade, new_ledger
from backtest.account.orders import find_limit
from backtest.account.portfolio_balance import (
    close_account_books,
    compute_account_equity,
    compute_balance,
    count_cross,
    count_open,
    has_collateral,
    mark_book,
    mark_collateral,
    open_books,
    value_at,
)
from backtest.account.portfolio_calls import answer_calls, close_calls, force_reductions
from backtest.account.portfolio_gap import check_gap
from backtest.account.portfolio_ledger import (
    BAD_DEBT,
    CALLS_FAILED,
    CALLS_MET,
    DELISTED,
    FLOWS,
    TOP_UP,
    TRADED,
    as_log,
    clear_ledger,
    earn,
    enter,
    note,
    stamp,
    total,
)
from backtest.account.portfolio_orders import fill_decisions
from backtest.account.portfolio_payments import (
    charge_book_interest,
    convert_collateral,
    pay_book_funding,
    take_book_flows,
)
from backtest.account.portfolio_records import (
    AT_OPEN,
    CASH,
    EARLY,
    EQUITY,
    IS_CONVERTING,
    IS_RUINED,
    LATE,
    PAID_IN,
    PEAK,
    POOL_FAILED,
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
    has_exits,
    is_held,
    is_isolated,
    pick_instrument,
    pick_position,
    pick_quote,
    put_position,
    share,
)
from backtest.account.price_walk import walk
from backtest.account.ruin import NOTHING_LEFT
from backtest.account.steps import has_wealth
from backtest.base.units import TOLERANCE
from backtest.venue.contract_value import compute_value
from backtest.venue.requirement import compute_best_leverage

if TYPE_CHECKING:
    from backtest.base.units import FloatArray


def live_book_bar(
    terms: Terms,
    feed: BookFeed,
    book: Book,
    scene: Scene,
    room: Room,
    ledger: FloatArray,
    log: BookLog,
    t: int,
) -> None:
    """Run the account through bar t, up to its close; the policies decide afterwards."""
    set_scene(terms, feed, scene, t)
    clear_ledger(ledger)
    before, wealth = book.purse[EQUITY], book.purse[EQUITY] + book.purse[RESERVE]
    book.purse[POOL_FAILED] = 0.0
    if terms.fill == EARLY and t > 0:
        fill_early(terms, book, scene, room, ledger, log, t)  # 0
    take_book_flows(terms, feed, book, scene, ledger, log, t)  # 1
    convert_collateral(terms, book, scene, ledger, log, t)
    answer_calls(terms, book, scene, ledger, log, t)
    rescale_unit(book, ledger, before)
    if terms.equity_stop > 0.0:
        rescale_highest(book, total(ledger, FLOWS) + total(ledger, TOP_UP), before)
    pay_book_funding(terms, feed, book, scene, ledger, log, t, 1)  # 2
    if terms.has_interest and t > 0:
        charge_book_interest(terms, feed, book, scene, ledger, log, t)  # 3
    check_gap(terms, book, scene, room, ledger, log, t)  # 4
    if terms.fill == AT_OPEN and t > 0:
        fill_pending(terms, book, scene, room, ledger, log, t)  # 5
    pay_book_funding(terms, feed, book, scene, ledger, log, t, 0)  # 6
    walk(terms, book, scene, room, ledger, log, t)  # 7
    follow_bests(terms, book, scene)
    if terms.fill == LATE:
        fill_late(terms, book, scene, room, ledger, log, t)
    close_book(terms, feed, book, scene, room, ledger, log, t, wealth)  # 8


def set_scene(terms: Terms, feed: BookFeed, scene: Scene, t: int) -> None:
    """Write the bar into the scene; volume, sigma and ADV are those of the close before."""
    last, brackets = max(t - 1, 0), terms.rules.brackets
    for i in range(len(scene.open)):
        is_listed = feed.span[i, 0] <= t < feed.span[i, 1]
        scene.is_listed[i] = 1 if is_listed else 0
        scene.is_last[i] = 1 if feed.ends[i] == 1 and t == feed.span[i, 1] - 1 else 0
        if not is_listed:
            continue
        size, is_inverse = brackets.sizes[i], brackets.are_inverse[i]
        scene.open[i] = compute_value(size, is_inverse, feed.open[t, i])
        scene.low[i] = compute_value(size, is_inverse, feed.low[t, i])
        scene.high[i] = compute_value(size, is_inverse, feed.high[t, i])
        scene.close[i] = compute_value(size, is_inverse, feed.close[t, i])
        scene.mark_open[i] = compute_value(size, is_inverse, feed.mark_open[t, i])
        scene.mark_low[i] = compute_value(size, is_inverse, feed.mark_low[t, i])
        scene.mark_high[i] = compute_value(size, is_inverse, feed.mark_high[t, i])
        scene.mark_close[i] = compute_value(size, is_inverse, feed.mark_close[t, i])
        scene.volume[i] = feed.volume[last, i]
        scene.multiplier[i] = feed.multiplier[min(t, len(feed.multiplier) - 1), i]
        scene.initial[i] = feed.initial[min(t, len(feed.initial) - 1), i]
        scene.sigma[i] = feed.sigma[min(t, len(feed.sigma) - 1), i]
        scene.adv[i] = feed.adv[min(t, len(feed.adv) - 1), i]
        scene.limit[i] = feed.limit[min(t, len(feed.limit) - 1), i]
        scene.order_fee[i] = feed.order_fee[min(t, len(feed.order_fee) - 1), i]
        scene.stop_scale[i] = feed.stop_scale[min(t, len(feed.stop_scale) - 1), i]
        scene.profit_scale[i] = feed.profit_scale[min(t, len(feed.profit_scale) - 1), i]
        scene.trail_scale[i] = feed.trail_scale[min(t, len(feed.trail_scale) - 1), i]
        brackets.multipliers[i] = scene.multiplier[i]
        brackets.initial_multipliers[i] = scene.initial[i]
        scene.fill[i] = scene.open[i]
    for c in range(len(scene.asset_open)):
        scene.asset_open[c] = feed.asset_open[c, t]
        scene.asset_low[c] = feed.asset_low[c, t]
        scene.asset_high[c] = feed.asset_high[c, t]
        scene.asset_close[c] = feed.asset_close[c, t]
        scene.asset_mark_open[c] = feed.asset_mark_open[c, t]
        scene.asset_mark_low[c] = feed.asset_mark_low[c, t]
        scene.asset_mark_high[c] = feed.asset_mark_high[c, t]
        scene.asset_mark_close[c] = feed.asset_mark_close[c, t]
        scene.asset_fill[c] = scene.asset_open[c]
    if terms.fill != AT_OPEN:
        set_fill_prices(terms, feed, scene, t)


def set_fill_prices(terms: Terms, feed: BookFeed, scene: Scene, t: int) -> None:
    """Write the closes at which decisions fill: of bar t, or those at which they were taken."""
    at = t if terms.fill == LATE else max(t - 1, 0)
    brackets = terms.rules.brackets
    for i in range(len(scene.open)):
        if feed.span[i, 0] <= at < feed.span[i, 1]:
            size, is_inverse = brackets.sizes[i], brackets.are_inverse[i]
            scene.fill[i] = compute_value(size, is_inverse, feed.close[at, i])
    for c in range(len(scene.asset_open)):
        scene.asset_fill[c] = feed.asset_close[c, at]


def rescale_unit(book: Book, ledger: FloatArray, equity: float) -> None:
    """Change the scale such that flows leave the unit value unchanged."""
    flows = total(ledger, FLOWS)
    wealth = equity + book.purse[RESERVE] + total(ledger, TOP_UP)
    if flows != 0.0 and has_wealth(wealth, flows):
        book.purse[SCALE] = book.purse[UNIT] / (wealth + flows)


# ---------------------------------------------------------------------- steps 0 and 5: the fills


def fill_pending(
    terms: Terms, book: Book, scene: Scene, room: Room, ledger: FloatArray, log: BookLog, t: int
) -> None:
    """Fill what was decided at the last close, or what a broker or a halt forces."""
    if book.purse[IS_RUINED] == 0.0:
        value_at(book, scene.fill, scene.asset_fill)
        equity = compute_account_equity(terms, book)
        force_reductions(terms, book, scene, room, ledger, log, t)
        fill_decisions(terms, book, scene, room, equity, ledger, log, t)


def fill_early(
    terms: Terms, book: Book, scene: Scene, room: Room, ledger: FloatArray, log: BookLog, t: int
) -> None:
    """Value the positions at the last closes before the bar, and fill the decisions there."""
    for i in range(len(book.margin)):
        if is_held(book, i):
            mark_book(book, i, scene.fill[i], ledger)
    fill_pending(terms, book, scene, room, ledger, log, t)
    for pot in range(len(book.is_called)):
        if ledger[CALLS_MET, pot] + ledger[CALLS_FAILED, pot] > 0.0:
            book.is_call_open[pot] = 0
            book.is_called[pot] = 0


def fill_late(
    terms: Terms, book: Book, scene: Scene, room: Room, ledger: FloatArray, log: BookLog, t: int
) -> None:
    """Fill the decisions at the last closes of the bar, but for what is delisted there."""
    for i in range(len(book.margin)):
        room.carried[i] = book.held.quantities[i]
        if scene.is_last[i] == 1:
            book.is_pending[i] = 0
    if t > 0:
        fill_pending(terms, book, scene, room, ledger, log, t)


def follow_bests(terms: Terms, book: Book, scene: Scene) -> None:
    """Update the best price of each position with the prices of the whole bar."""
    for i in range(len(book.margin)):
        if not is_held(book, i):
            book.best[i] = 0.0
        elif scene.is_listed[i] == 1 and has_exits(terms, i):
            watch = Watch(book.best[i], 0.0)
            book.best[i] = follow_prices(watch, pick_position(book, i), pick_quote(scene, i)).best


# -------------------------------------------------------------------------------- step 8: close


def close_book(
    terms: Terms,
    feed: BookFeed,
    book: Book,
    scene: Scene,
    room: Room,
    ledger: FloatArray,
    log: BookLog,
    t: int,
    wealth: float,
) -> None:
    """Mark everything at the mark closes, and test for delisting, bad debt, ruin and calls."""
    for i in range(len(book.margin)):
        if is_held(book, i):
            mark_book(book, i, scene.mark_close[i], ledger)
            if scene.is_last[i] == 1:
                delist(terms, book, scene, ledger, log, t, i)
    mark_collateral(book, scene.asset_mark_close, ledger)
    value_at(book, scene.mark_close, scene.asset_mark_close)
    settle_debt(terms, book, ledger, log, t)
    equity = compute_account_equity(terms, book)
    is_lost = book.purse[IS_RUINED] == 0.0 and earn(ledger) < 0.0
    if is_lost:
        is_lost = is_book_ruined(terms, book, scene, equity)
    if is_lost:
        end_book(terms, book, scene, ledger, log, t)
        equity = compute_account_equity(terms, book)
    close_calls(terms, feed, book, scene, ledger, log, t, is_lost)
    limit = terms.negative_limit * (1.0 - TOLERANCE) + TOLERANCE * max(equity, 0.0)
    under = compute_balance(terms, book) < -limit  # beyond the rounding of a balance of 0
    book.purse[IS_CONVERTING] = 1.0 if has_collateral(book) and under else 0.0
    book.purse[EQUITY] = equity
    follow_highest(terms, book, equity)
    count_bars(book)
    is_growing = has_wealth(wealth, total(ledger, FLOWS)) and book.purse[IS_RUINED] == 0.0
    if is_growing:
        book.purse[UNIT] = book.purse[SCALE] * (equity + book.purse[RESERVE])
    is_high = book.purse[UNIT] >= book.purse[PEAK]
    book.purse[PEAK] = max(book.purse[UNIT], book.purse[PEAK])
    if is_lost:
        book.purse[IS_RUINED] = 1.0
    book_falls(terms, book, room, ledger, log, is_high)


def count_bars(book: Book) -> None:
    """Count the bars since the last liquidations and stops; one in this bar makes 0."""
    book.purse[SINCE_POOL] += 1.0
    for i in range(len(book.margin)):
        book.since[i] += 1.0
        book.since_stop[i] += 1.0


def delist(
    terms: Terms, book: Book, scene: Scene, ledger: FloatArray, log: BookLog, t: int, i: int
) -> None:
    """Close a position at the mark close of its last bar, with the taker fee."""
    rules, quote = share(pick_instrument(terms, i)), pick_quote(scene, i)
    before, row = open_books(terms, book, i), log.written[0]
    done = trade(rules, before, scene.mark_close[i], 0.0, 0.0, 0.0, rules.taker, quote, False)
    log_trade(as_log(log), t, DELISTED, done)
    stamp(log, row, i)
    enter(ledger, i, enter_trade(new_ledger(), done, 0))
    close_account_books(terms, book, i, before, done.books)


def settle_debt(terms: Terms, book: Book, ledger: FloatArray, log: BookLog, t: int) -> None:
    """Book as bad debt cash under 0 without cross positions and collateral, or equity under 0."""
    debt = 0.0
    if count_cross(terms, book) == 0 and not has_collateral(book) and book.purse[CASH] < 0.0:
        debt = -book.purse[CASH]
        book.purse[CASH] = 0.0
    equity = compute_account_equity(terms, book)
    if equity < 0.0:
        debt -= equity
        book.purse[CASH] -= equity
    if debt != 0.0:
        ledger[BAD_DEBT, ledger.shape[1] - 1] += debt
        note(log, t, -1, DEBT, 1.0, 0.0, debt)


def is_book_ruined(terms: Terms, book: Book, scene: Scene, equity: float) -> bool:
    """Return whether a close after a bar with a loss ruins the account."""
    wealth, paid_in = equity + book.purse[RESERVE], book.purse[PAID_IN]
    is_under = wealth <= terms.ruin_at * paid_in * (1.0 + TOLERANCE)
    is_under = is_under or equity <= NOTHING_LEFT * paid_in * (1.0 + TOLERANCE)
    if is_under or count_open(book) > 0:
        return bool(is_under)
    return is_book_poor(terms, scene, wealth)


def is_book_poor(terms: Terms, scene: Scene, wealth: float) -> bool:
    """Return whether wealth at the largest leverage is below the smallest order anywhere."""
    found = False
    for i in range(len(scene.open)):
        if scene.is_listed[i] == 1:
            rules, quote = share(pick_instrument(terms, i)), pick_quote(scene, i)
            most = compute_best_leverage(rules.margin, quote.initial)
            limit = find_limit(rules, quote)
            most = limit if limit < most else most
            least = max(rules.min_notional, rules.lot * abs(quote.mark_close))
            is_ban = rules.has_limits is not None and not limit > 0.0
            if rules.has_rounding is None or is_ban:
                return False
            if not wealth * most < least * (1.0 - TOLERANCE):
                return False
            found = True
    return found


def end_book(
    terms: Terms, book: Book, scene: Scene, ledger: FloatArray, log: BookLog, t: int
) -> None:
    """Close the positions of a ruined account at the mark closes, without costs, and log its ruin.

    The ruin of an account without positions is an event of the account.
    """
    if count_open(book) == 0:
        note(log, t, -1, RUINED, 1.0, 0.0, 0.0)
    for i in range(len(book.margin)):
        if is_held(book, i):
            value, held = scene.mark_close[i], book.held.quantities[i]
            note(log, t, i, RUINED, value, 0.0 - held, abs(held) * abs(value))
            ledger[TRADED, i] += abs(held) * abs(value)
            if is_isolated(terms, i):
                profit = held * (value - book.held.entries[i])
                book.purse[CASH] += book.margin[i] + profit
            else:
                book.purse[CASH] += held * value
            put_position(book, i, Position(0.0, 0.0, 0.0, value))
    if count_open(book) == 0 and not has_collateral(book) and book.purse[CASH] < 0.0:
        debt = -book.purse[CASH]
        book.purse[CASH] = 0.0
        ledger[BAD_DEBT, ledger.shape[1] - 1] += debt
        note(log, t, -1, DEBT, 1.0, 0.0, debt)
