"""Money that moves without a trade: deposits, withdrawals, conversions, funding and interest.

Steps 1, 2, 3 and 6 of a bar.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backtest.account.ledger import (
    FLOW,
    REFUSED,
    new_ledger,
)
from backtest.account.ledger import (
    FUNDING as FUNDED,
)
from backtest.account.ledger import (
    INTEREST as CHARGED,
)
from backtest.account.payments import pay_funding
from backtest.account.portfolio_balance import (
    close_account_books,
    compute_account_equity,
    compute_balance,
    count_cross,
    has_collateral,
    open_books,
    sell_collateral,
    value_at,
)
from backtest.account.portfolio_ledger import FLOWS, FUNDING, INTEREST, as_log, enter, note, stamp
from backtest.account.portfolio_records import (
    CASH,
    FLOW_NEXT,
    FUNDING_NEXT,
    IS_CONVERTING,
    PAID_IN,
    RESERVE,
    Book,
    BookFeed,
    BookLog,
    Scene,
    Terms,
    is_held,
    is_isolated,
    pick_instrument,
    pick_position,
    pick_quote,
    put_position,
    share,
)
from backtest.account.position import add_margin, compute_value_of
from backtest.account.ruin import pay_in
from backtest.account.steps import liquidate_if_failing
from backtest.venue.book_requirement import compute_book_backing, compute_book_initial

if TYPE_CHECKING:
    from backtest.base.units import FloatArray


# --------------------------------------------------------------------------- step 1: flows


def take_book_flows(
    terms: Terms, feed: BookFeed, book: Book, scene: Scene, ledger: FloatArray, log: BookLog, t: int
) -> None:
    """Apply the deposits and withdrawals of bar t, at its mark opens."""
    last = ledger.shape[1] - 1
    flow = book.cursor[FLOW_NEXT]
    while flow < len(feed.flow_bar) and feed.flow_bar[flow] == t:
        amount = feed.flow_amount[flow]
        value_at(book, scene.mark_open, scene.asset_mark_open)
        wealth = compute_account_equity(terms, book) + book.purse[RESERVE]
        moved = amount
        if amount < 0.0:
            moved = -min(-amount, compute_free(terms, book))
        book.purse[CASH] += moved
        book.purse[PAID_IN] = pay_in(book.purse[PAID_IN], wealth, moved)
        ledger[FLOWS, last] += moved
        if moved != 0.0:
            note(log, t, -1, FLOW, 1.0, 0.0, moved)
        if moved != amount:
            note(log, t, -1, REFUSED, 1.0, 0.0, moved - amount)
        flow += 1
    book.cursor[FLOW_NEXT] = flow


def compute_free(terms: Terms, book: Book) -> float:
    """Return what may be withdrawn at the values being tested.

    At most what leaves M at the initial margin of the cross positions and the balance at its limit.
    """
    free = compute_book_backing(terms.rules, book.held, book.purse[CASH])
    for i in range(len(book.margin)):
        if is_held(book, i) and not is_isolated(terms, i):
            rules = share(pick_instrument(terms, i))
            if rules.has_profit_share is not None:
                profit = book.held.values[i] - book.held.entries[i]
                profit *= book.held.quantities[i]
                free -= (1.0 - rules.profit_share) * max(profit, 0.0)
    free -= compute_book_initial(terms.rules, book.held)
    limit = terms.negative_limit if has_collateral(book) else 0.0
    return max(min(free, compute_balance(terms, book) + limit), 0.0)


def convert_collateral(
    terms: Terms, book: Book, scene: Scene, ledger: FloatArray, log: BookLog, t: int
) -> None:
    """Bring a balance that was under its limit at the last close to 0 by selling collateral."""
    if book.purse[IS_CONVERTING] == 0.0:
        return
    book.purse[IS_CONVERTING] = 0.0
    value_at(book, scene.open, scene.asset_open)
    missing = -compute_balance(terms, book)
    if missing > 0.0:
        sell_collateral(terms, book, missing, ledger, log, t)


# ------------------------------------------------------------------- steps 2 and 6: funding


def is_book_funding_due(feed: BookFeed, book: Book, t: int, is_open: int) -> bool:
    """Return whether the next funding event belongs to bar t, and to its open or its inside."""
    event = book.cursor[FUNDING_NEXT]
    if event >= len(feed.funding_bar) or feed.funding_bar[event] != t:
        return False
    return bool(feed.funding_is_open[event] == is_open)


def pay_book_funding(
    terms: Terms,
    feed: BookFeed,
    book: Book,
    scene: Scene,
    ledger: FloatArray,
    log: BookLog,
    t: int,
    is_open: int,
) -> None:
    """Pay the bar's next events of one kind, by stamp.

    An isolated position that fails its requirement after a payment is liquidated at once.
    """
    while is_book_funding_due(feed, book, t, is_open):
        event = book.cursor[FUNDING_NEXT]
        book.cursor[FUNDING_NEXT] = event + 1
        i = feed.funding_instrument[event]
        rate = feed.funding_rate[event]
        book.last_funding[i] = rate
        if is_held(book, i):
            rules = share(pick_instrument(terms, i))
            value = scene.mark_open[i]
            if not math.isnan(feed.funding_price[event]):
                value = compute_value_of(rules, feed.funding_price[event])
            before = open_books(terms, book, i)
            after, paid = pay_funding(rules, before, value, rate)
            close_account_books(terms, book, i, before, after)
            ledger[FUNDING, i] += paid
            note(log, t, i, FUNDED, value, after.positions[0].quantity, paid)
            if is_isolated(terms, i):
                liquidate_isolated(terms, book, scene, ledger, log, t, i)


def liquidate_isolated(
    terms: Terms, book: Book, scene: Scene, ledger: FloatArray, log: BookLog, t: int, i: int
) -> bool:
    """Liquidate an isolated position at the mark open if it fails there; return whether it did.

    It drops the decision of its instrument, and halts it if liquidations halt.
    """
    rules, quote = share(pick_instrument(terms, i)), pick_quote(scene, i)
    before = open_books(terms, book, i)
    row = log.written[0]
    after, found = liquidate_if_failing(rules, before, new_ledger(), quote, as_log(log), t)
    stamp(log, row, i)
    close_account_books(terms, book, i, before, after)
    enter(ledger, i, found)
    if found.liquidations == 0:
        return False
    drop_after_liquidation(terms, book, i)
    return True


def drop_after_liquidation(terms: Terms, book: Book, i: int) -> None:
    """Drop the decision of an instrument whose isolated position was liquidated."""
    book.is_pending[i] = 0
    book.since[i] = -1.0
    if terms.is_halting:
        book.is_halted[i] = 1


# ------------------------------------------------------------------------- step 3: interest


def charge_book_interest(  # noqa: C901 - the bases of all kinds
    terms: Terms, feed: BookFeed, book: Book, scene: Scene, ledger: FloatArray, log: BookLog, t: int
) -> None:
    """Charge the simple interest since the previous open, on the sum of the bases."""
    before = max(t - 1, 0)
    years = feed.years[min(t, len(feed.years) - 1)]
    borrow = feed.borrow_rate[min(before, len(feed.borrow_rate) - 1)]
    cash = feed.cash_rate[min(before, len(feed.cash_rate) - 1)]
    short = feed.short_rate[min(before, len(feed.short_rate) - 1)]
    base, lent = book.purse[CASH], 0.0
    for i in range(len(book.margin)):
        if is_isolated(terms, i):
            base += book.margin[i]
        if is_held(book, i):
            position = pick_position(book, i)
            value = position.quantity * position.entry
            if terms.is_loan:
                base -= value if is_isolated(terms, i) else 0.0
                if position.quantity < 0.0:
                    lent += abs(position.quantity * scene.mark_open[i])
            elif not is_isolated(terms, i):
                base += value
    interest = -base * (cash if base > 0.0 else borrow) * years
    if terms.is_loan and lent > 0.0:
        interest += lent * short * years
    if interest != 0.0:
        book.purse[CASH] -= interest
        ledger[INTEREST, ledger.shape[1] - 1] += interest
        note(log, t, -1, CHARGED, 1.0, 0.0, interest)
    if book.purse[CASH] < 0.0 and count_cross(terms, book) == 0 and not has_collateral(book):
        take_from_isolated(terms, book)


def take_from_isolated(terms: Terms, book: Book) -> None:
    """Pay what is missing in an empty wallet from the isolated margins, in the order given."""
    for i in range(len(book.margin)):
        if is_isolated(terms, i) and is_held(book, i) and book.purse[CASH] < 0.0:
            taken = min(max(book.margin[i], 0.0), -book.purse[CASH])
            put_position(book, i, add_margin(pick_position(book, i), -taken))
            book.purse[CASH] += taken
