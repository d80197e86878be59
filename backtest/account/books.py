"""Functions on the books: equity, margin ratio, costs, bad debt, and mark to market."""

from __future__ import annotations

import math

from backtest.account.account_records import Books, InstrumentRules, Position
from backtest.account.position import compute_profit, compute_requirement, mark_position
from backtest.base.units import TOLERANCE
from backtest.venue.liquidation_price import compute_liquidation_value


def compute_equity(rules: InstrumentRules, books: Books, value: float) -> float:
    """Return the equity of the account with the position valued at u."""
    position = books.positions[0]
    if rules.is_isolated is not None:
        return books.cash + (position.margin + compute_profit(position, value))
    return books.cash + position.quantity * value


def compute_backing(rules: InstrumentRules, books: Books, value: float) -> float:
    """Return what backs the position at u: the equity (cross), or margin and profit (isolated)."""
    position = books.positions[0]
    if rules.is_isolated is not None:
        return position.margin + compute_profit(position, value)
    return books.cash + position.quantity * value


def compute_uncounted(rules: InstrumentRules, books: Books, value: float) -> float:
    """Return the part of an unrealized profit at u that backs no order and no withdrawal."""
    if rules.has_profit_share is None:
        return 0.0
    profit = compute_profit(books.positions[0], value)
    return (1.0 - rules.profit_share) * max(profit, 0.0)


def compute_base(rules: InstrumentRules, books: Books) -> float:
    """Return the backing without the position's value: the backing is this plus ``q u``."""
    position = books.positions[0]
    if rules.is_isolated is not None:
        return position.margin - position.quantity * position.entry
    return books.cash


def is_failing(rules: InstrumentRules, books: Books, value: float, multiplier: float) -> bool:
    """Return whether the maintenance requirement fails at u; a flat account has none."""
    position = books.positions[0]
    needed = compute_requirement(rules, position, value, multiplier)
    is_short = compute_backing(rules, books, value) <= needed * (1.0 + TOLERANCE)
    return is_short & (position.quantity != 0.0)


def compute_ratio(rules: InstrumentRules, books: Books, value: float, multiplier: float) -> float:
    """Return the margin ratio at u: 0 when flat, infinite when nothing backs the position."""
    position = books.positions[0]
    if position.quantity == 0.0:
        return 0.0
    backing = compute_backing(rules, books, value)
    needed = compute_requirement(rules, position, value, multiplier)
    return needed / backing if backing > 0.0 else math.inf


def compute_root(rules: InstrumentRules, books: Books, multiplier: float) -> float:
    """Return the u at which the position is liquidated; NaN if there is none."""
    position = books.positions[0]
    base = compute_base(rules, books)
    return compute_liquidation_value(
        rules.margin, position.quantity, position.entry, base, multiplier
    )


def make_books(cash: float, position: Position) -> Books:
    """Return the books of an account with one position."""
    return Books(cash, (position,))


def close_books(cash: float, margin: float, value: float) -> Books:
    """Return the books of a flat account, last marked at u; ``margin`` may still be posted."""
    return Books(cash, (Position(0.0, 0.0, margin, value),))


def charge(rules: InstrumentRules, books: Books, amount: float) -> Books:
    """Take a cost from the cash; in isolated margin from the margin once the wallet is empty."""
    position = books.positions[0]
    cash, margin = books.cash - amount, position.margin
    if rules.is_isolated is not None:
        is_empty = (cash < 0.0) & (position.quantity != 0.0)
        missing = cash if is_empty else 0.0
        cash, margin = 0.0 if is_empty else cash, margin + missing
    return make_books(cash, Position(position.quantity, position.entry, margin, position.value))


def book_shortfall(rules: InstrumentRules, books: Books) -> tuple[Books, float]:
    """Move a flat account's margin to the wallet, and book a shortfall as bad debt.

    An account with a position is not changed.
    """
    position = books.positions[0]
    if position.quantity != 0.0:
        return books, 0.0
    cash, bad_debt = books.cash, 0.0
    if rules.is_isolated is not None:
        if position.margin < 0.0:
            bad_debt = -position.margin
        else:
            cash += position.margin
    if cash < 0.0:
        bad_debt -= cash
        cash = 0.0
    return close_books(cash, 0.0, position.value), bad_debt


def mark_to_market(books: Books, value: float) -> tuple[Books, float]:
    """Value the position at u; return the price pnl since it was last valued."""
    marked, pnl = mark_position(books.positions[0], value)
    return make_books(books.cash, marked), pnl


def close_bar(rules: InstrumentRules, books: Books, value: float) -> tuple[Books, float, float]:
    """Mark to market at the mark close; return the price pnl and any bad debt of a flat account."""
    marked, pnl = mark_to_market(books, value)
    if marked.positions[0].quantity != 0.0:
        return marked, pnl, 0.0
    settled, bad_debt = book_shortfall(rules, marked)
    return settled, pnl, bad_debt
