"""Balance, backing and equity of an account with several positions, and moving money in it.

``w`` is the cash after paying for cross positions, ``B = w + sum q u(entry)`` over all but spot
legs the settlement balance, ``M = w + sum q u + collateral at its rate`` less the haircuts of long
spot legs what backs the cross positions, and ``E`` the equity: ``M`` with collateral and spot legs
in full, and the backing of isolated positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.account import Books
from backtest.account.portfolio_ledger import COLLATERAL_PNL, CONVERSION, CONVERTED, PRICE_PNL, note
from backtest.account.portfolio_records import (
    CASH,
    AccountState,
    BookLog,
    Terms,
    is_held,
    is_isolated,
    is_spot,
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


def value_at(state: AccountState, values: FloatArray, prices: FloatArray) -> None:
    """Value the positions that are open, and the collateral, at some prices."""
    for i in range(len(values)):
        state.held.values[i] = values[i]
    for c in range(len(prices)):
        state.held.prices[c] = prices[c]


def count_cross(terms: Terms, state: AccountState) -> int:
    """Return the number of open cross positions."""
    found = 0
    for i in range(len(state.margin)):
        if is_held(state, i) and not is_isolated(terms, i):
            found += 1
    return found


def count_open(state: AccountState) -> int:
    """Return the number of open positions."""
    found = 0
    for i in range(len(state.margin)):
        if is_held(state, i):
            found += 1
    return found


def has_collateral(state: AccountState) -> bool:
    """Return whether any collateral is held, or owed."""
    found = False
    for c in range(len(state.held.amounts)):
        found = found or state.held.amounts[c] != 0.0
    return bool(found)


def has_collateral_to_sell(state: AccountState) -> bool:
    """Return whether any collateral is left to sell."""
    found = False
    for c in range(len(state.held.amounts)):
        found = found or state.held.amounts[c] > 0.0
    return bool(found)


def compute_balance(terms: Terms, state: AccountState) -> float:
    """Return B, the settlement balance: realized money without unrealized profit."""
    balance = state.wallet[CASH]
    for i in range(len(state.margin)):
        if is_held(state, i) and not is_isolated(terms, i) and not is_spot(terms, i):
            balance += state.held.quantities[i] * state.held.entries[i]
    return float(balance)


def compute_isolated(terms: Terms, state: AccountState) -> float:
    """Return the backing of all isolated positions at the values being tested."""
    backing = 0.0
    for i in range(len(state.margin)):
        if is_isolated(terms, i):
            backing += state.margin[i]
            if is_held(state, i):
                profit = state.held.values[i] - state.held.entries[i]
                backing += state.held.quantities[i] * profit
    return backing


def compute_pool(terms: Terms, state: AccountState) -> float:
    """Return M at the values being tested."""
    return compute_book_backing(terms.rules, state.held, state.wallet[CASH])


def compute_account_equity(terms: Terms, state: AccountState) -> float:
    """Return E at the values being tested."""
    equity = state.wallet[CASH]
    for i in range(len(state.margin)):
        if is_held(state, i) and not is_isolated(terms, i):
            equity += state.held.quantities[i] * state.held.values[i]
    equity += compute_full_value(state.held)
    return float(equity + compute_isolated(terms, state))


def compute_excess(terms: Terms, state: AccountState) -> float:
    """Return D = M - level R at the values being tested."""
    needed = terms.rules.level * compute_book_requirement(terms.rules, state.held)
    return compute_pool(terms, state) - needed


def is_pool_short(terms: Terms, state: AccountState) -> bool:
    """Return whether the cross positions fail at the values being tested."""
    if count_cross(terms, state) == 0:
        return False
    return is_short(terms.rules, state.held, state.wallet[CASH])


# ------------------------------------------------------------------- the books of one position


def open_books(terms: Terms, state: AccountState, i: int) -> Books:
    """Return the books of one position: its cash is w (cross), or the wallet (isolated).

    The wallet of an isolated position is the balance B, empty where B is negative.
    """
    if is_isolated(terms, i):
        return Books(max(compute_balance(terms, state), 0.0), (pick_position(state, i),))
    return Books(state.wallet[CASH], (pick_position(state, i),))


def close_account_books(
    terms: Terms, state: AccountState, i: int, before: Books, after: Books
) -> None:
    """Write the books of one position after a step."""
    if is_isolated(terms, i):
        state.wallet[CASH] += after.cash - before.cash
    else:
        state.wallet[CASH] = after.cash
    put_position(state, i, after.positions[0])


def mark_book(state: AccountState, i: int, value: float, ledger: FloatArray) -> None:
    """Value a position at u; its profit since it was last valued goes to the ledger."""
    marked, pnl = mark_position(pick_position(state, i), value)
    put_position(state, i, marked)
    ledger[PRICE_PNL, i] += pnl


# ------------------------------------------------------------------------------ the collateral


def mark_collateral(state: AccountState, prices: FloatArray, ledger: FloatArray) -> None:
    """Value the collateral at some prices; the change goes to the ledger."""
    last = ledger.shape[1] - 1
    for c in range(len(prices)):
        if state.held.amounts[c] != 0.0:
            pnl = state.held.amounts[c] * (prices[c] - state.priced[c])
            ledger[COLLATERAL_PNL, last] += pnl
        state.priced[c] = prices[c]


def compute_proceeds(terms: Terms, state: AccountState) -> float:
    """Return what a sale of all collateral would bring, at the prices being tested."""
    found = 0.0
    for c in range(len(state.held.amounts)):
        if state.held.amounts[c] > 0.0:
            kept = 1.0 - terms.rules.collateral.slippages[c]
            found += state.held.amounts[c] * state.held.prices[c] * kept
    return found


def sell_collateral(
    terms: Terms, state: AccountState, missing: float, ledger: FloatArray, log: BookLog, t: int
) -> None:
    """Sell collateral at the prices being tested until the sales bring what is missing.

    In the order given, or all in proportion to their value. The worsening is ``conversion``.
    """
    share = 1.0
    if terms.conversion_is_pro_rata:
        most = compute_proceeds(terms, state)
        share = min(missing / most, 1.0) if most > 0.0 else 0.0
    for c in range(len(state.held.amounts)):
        amount, price = state.held.amounts[c], state.held.prices[c]
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
        ledger[COLLATERAL_PNL, last] += sold * (price - state.priced[c])
        ledger[CONVERSION, last] += sold * (price - kept)
        state.held.amounts[c] = amount - sold
        state.wallet[CASH] += sold * kept
        note(
            log,
            t,
            len(state.margin) + c,
            CONVERTED,
            kept,
            -sold,
            sold * kept,
            sold * (price - kept),
        )
