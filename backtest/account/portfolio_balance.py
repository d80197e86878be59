"""Balance, backing and equity of an account with several positions, and moving money in it.

``w`` is the cash after paying for cross positions, ``B = w + sum q u(entry)`` the settlement
balance, ``M = w + sum q u + collateral at its rate`` what backs the cross positions, and ``E`` the
equity: ``M`` with the collateral in full, and the backing of isolated positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.account import Books
from backtest.account.portfolio_ledger import COLLATERAL_PNL, CONVERSION, CONVERTED, PRICE_PNL, note
from backtest.account.portfolio_records import (
    CASH,
    Book,
    BookLog,
    Terms,
    is_held,
    is_isolated,
    pick_position,
    put_position,
)
from backtest.account.position import mark_position
from backtest.base.units import TOLERANCE
from backtest.venue.book_requirement import (
    compute_book_backing,
    compute_book_requirement,
)
from backtest.venue.book_requirement import is_pool_failing as is_short
from backtest.venue.collateral_value import compute_full_value

if TYPE_CHECKING:
    from backtest.base.units import FloatArray


def value_at(book: Book, values: FloatArray, prices: FloatArray) -> None:
    """Value the positions that are open, and the collateral, at some prices."""
    for i in range(len(values)):
        book.held.values[i] = values[i]
    for c in range(len(prices)):
        book.held.prices[c] = prices[c]


def count_cross(terms: Terms, book: Book) -> int:
    """Return the number of open cross positions."""
    found = 0
    for i in range(len(book.margin)):
        if is_held(book, i) and not is_isolated(terms, i):
            found += 1
    return found


def count_open(book: Book) -> int:
    """Return the number of open positions."""
    found = 0
    for i in range(len(book.margin)):
        if is_held(book, i):
            found += 1
    return found


def has_collateral(book: Book) -> bool:
    """Return whether any collateral is held, or owed."""
    found = False
    for c in range(len(book.held.amounts)):
        found = found or book.held.amounts[c] != 0.0
    return bool(found)


def has_collateral_to_sell(book: Book) -> bool:
    """Return whether any collateral is left to sell."""
    found = False
    for c in range(len(book.held.amounts)):
        found = found or book.held.amounts[c] > 0.0
    return bool(found)


def compute_balance(terms: Terms, book: Book) -> float:
    """Return B, the settlement balance: realized money without unrealized profit."""
    balance = book.purse[CASH]
    for i in range(len(book.margin)):
        if is_held(book, i) and not is_isolated(terms, i):
            balance += book.held.quantities[i] * book.held.entries[i]
    return float(balance)


def compute_isolated(terms: Terms, book: Book) -> float:
    """Return the backing of all isolated positions at the values being tested."""
    backing = 0.0
    for i in range(len(book.margin)):
        if is_isolated(terms, i):
            backing += book.margin[i]
            if is_held(book, i):
                profit = book.held.values[i] - book.held.entries[i]
                backing += book.held.quantities[i] * profit
    return backing


def compute_pool(terms: Terms, book: Book) -> float:
    """Return M at the values being tested."""
    return compute_book_backing(terms.rules, book.held, book.purse[CASH])


def compute_account_equity(terms: Terms, book: Book) -> float:
    """Return E at the values being tested."""
    equity = book.purse[CASH]
    for i in range(len(book.margin)):
        if is_held(book, i) and not is_isolated(terms, i):
            equity += book.held.quantities[i] * book.held.values[i]
    equity += compute_full_value(book.held)
    return float(equity + compute_isolated(terms, book))


def compute_excess(terms: Terms, book: Book) -> float:
    """Return D = M - level R at the values being tested."""
    needed = terms.rules.level * compute_book_requirement(terms.rules, book.held)
    return compute_pool(terms, book) - needed


def is_pool_short(terms: Terms, book: Book) -> bool:
    """Return whether the cross positions fail at the values being tested."""
    if count_cross(terms, book) == 0:
        return False
    return is_short(terms.rules, book.held, book.purse[CASH])


# ------------------------------------------------------------------- the books of one position


def open_books(terms: Terms, book: Book, i: int) -> Books:
    """Return the books of one position: its cash is w (cross), or the wallet (isolated).

    The wallet of an isolated position is the balance B, empty where B is negative.
    """
    if is_isolated(terms, i):
        return Books(max(compute_balance(terms, book), 0.0), (pick_position(book, i),))
    return Books(book.purse[CASH], (pick_position(book, i),))


def close_account_books(terms: Terms, book: Book, i: int, before: Books, after: Books) -> None:
    """Write the books of one position after a step."""
    if is_isolated(terms, i):
        book.purse[CASH] += after.cash - before.cash
    else:
        book.purse[CASH] = after.cash
    put_position(book, i, after.positions[0])


def mark_book(book: Book, i: int, value: float, ledger: FloatArray) -> None:
    """Value a position at u; its profit since it was last valued goes to the ledger."""
    marked, pnl = mark_position(pick_position(book, i), value)
    put_position(book, i, marked)
    ledger[PRICE_PNL, i] += pnl


# ------------------------------------------------------------------------------ the collateral


def mark_collateral(book: Book, prices: FloatArray, ledger: FloatArray) -> None:
    """Value the collateral at some prices; the change goes to the ledger."""
    last = ledger.shape[1] - 1
    for c in range(len(prices)):
        if book.held.amounts[c] != 0.0:
            pnl = book.held.amounts[c] * (prices[c] - book.priced[c])
            ledger[COLLATERAL_PNL, last] += pnl
        book.priced[c] = prices[c]


def compute_proceeds(terms: Terms, book: Book) -> float:
    """Return what a sale of all collateral would bring, at the prices being tested."""
    found = 0.0
    for c in range(len(book.held.amounts)):
        if book.held.amounts[c] > 0.0:
            kept = 1.0 - terms.rules.collateral.slippages[c]
            found += book.held.amounts[c] * book.held.prices[c] * kept
    return found


def sell_collateral(
    terms: Terms, book: Book, missing: float, ledger: FloatArray, log: BookLog, t: int
) -> None:
    """Sell collateral at the prices being tested until the sales bring what is missing.

    In the order given, or all in proportion to their value. The worsening is ``conversion``.
    """
    share = 1.0
    if terms.conversion_is_pro_rata:
        most = compute_proceeds(terms, book)
        share = min(missing / most, 1.0) if most > 0.0 else 0.0
    for c in range(len(book.held.amounts)):
        amount, price = book.held.amounts[c], book.held.prices[c]
        if not (missing > 0.0 and amount > 0.0):
            continue
        kept = price * (1.0 - terms.rules.collateral.slippages[c])
        most = amount * kept
        sold = amount * share
        if not terms.conversion_is_pro_rata:
            sold = amount
            if most > missing * (1.0 + TOLERANCE):
                sold = missing / kept
            missing -= sold * kept
        last = ledger.shape[1] - 1
        ledger[COLLATERAL_PNL, last] += sold * (price - book.priced[c])
        ledger[CONVERSION, last] += sold * (price - kept)
        book.held.amounts[c] = amount - sold
        book.purse[CASH] += sold * kept
        note(
            log, t, len(book.margin) + c, CONVERTED, kept, -sold, sold * kept, sold * (price - kept)
        )
