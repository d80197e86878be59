"""The equity stop of an account with several positions: all of them close together.

It acts where the equity, with every position at its last price and the collateral at its mark, is a
fraction under its highest at a close. A lone position, without collateral, has it by the rule of a
single one (:mod:`backtest.account.exits`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.account.exits import USED_UP
from backtest.account.portfolio_balance import count_open
from backtest.account.portfolio_records import (
    CASH,
    HIGHEST,
    Book,
    Room,
    Scene,
    Terms,
    is_held,
    is_isolated,
)
from backtest.base.units import TOLERANCE

if TYPE_CHECKING:
    from backtest.base.units import FloatArray

CAUTION = 1e-9
"""Share of the gross notional that a quiet bar must leave: more than rounding."""


def compute_last_equity(terms: Terms, book: Book, values: FloatArray, prices: FloatArray) -> float:
    """Return the equity with the positions at some values u, and the collateral at some prices."""
    equity = book.purse[CASH]
    for i in range(len(book.margin)):
        if is_held(book, i):
            moved = values[i] - book.held.entries[i] if is_isolated(terms, i) else values[i]
            equity += book.held.quantities[i] * moved + book.margin[i]
    for c in range(len(book.held.amounts)):
        equity += book.held.amounts[c] * prices[c]
    return float(equity)


def compute_stop_level(terms: Terms, book: Book) -> float:
    """Return the equity at or under which the stop acts."""
    return float((1.0 - terms.equity_stop) * book.purse[HIGHEST])


def is_drawn(terms: Terms, book: Book, values: FloatArray, prices: FloatArray) -> bool:
    """Return whether the equity stop acts at some values; never without a position."""
    level = compute_stop_level(terms, book) * (1.0 + TOLERANCE)
    return count_open(book) > 0 and compute_last_equity(terms, book, values, prices) <= level


def find_stop_on_segment(terms: Terms, book: Book, room: Room) -> float:
    """Return the place at which the equity stop acts on the segment; over 1 if it does not."""
    if terms.equity_stop == 0.0:
        return 2.0
    if is_drawn(terms, book, room.last, room.price):
        return 0.0
    if not is_drawn(terms, book, room.last_end, room.price_end):
        return 2.0
    start = compute_last_equity(terms, book, room.last, room.price)
    end = compute_last_equity(terms, book, room.last_end, room.price_end)
    place = (start - compute_stop_level(terms, book)) / (start - end)
    return float(min(max(place, 0.0), 1.0))


def is_drawdown_near(terms: Terms, book: Book, scene: Scene) -> bool:
    """Return whether the prices of the bar may bring the equity to the stop, or nearly."""
    least, gross = book.purse[CASH], abs(book.purse[HIGHEST])
    for i in range(len(book.margin)):
        if is_held(book, i):
            held = book.held.quantities[i]
            low, high = held * scene.low[i], held * scene.high[i]
            ends = min(held * scene.open[i], held * scene.close[i])
            least += min(low, high, ends) + book.margin[i]
            gross += max(abs(low), abs(high))
            if is_isolated(terms, i):
                least -= held * book.held.entries[i]
    for c in range(len(book.held.amounts)):
        low, high = scene.asset_mark_low[c], scene.asset_mark_high[c]
        ends = min(scene.asset_mark_open[c], scene.asset_mark_close[c])
        least += min(book.held.amounts[c] * min(low, ends), book.held.amounts[c] * high)
    return not least > compute_stop_level(terms, book) + CAUTION * gross


def rescale_highest(book: Book, moved: float, equity: float) -> None:
    """Move the highest equity in proportion to flows and top-ups; ``equity`` is that before."""
    if moved != 0.0 and equity > 0.0:
        book.purse[HIGHEST] = max(book.purse[HIGHEST] * ((equity + moved) / equity), 0.0)


def follow_highest(terms: Terms, book: Book, equity: float) -> None:
    """Update the highest equity at a close; a flat account at or under the stop starts anew."""
    if terms.equity_stop == 0.0:
        return
    level = compute_stop_level(terms, book) * (1.0 + USED_UP)
    is_anew = count_open(book) == 0 and equity <= level
    book.purse[HIGHEST] = equity if is_anew else max(book.purse[HIGHEST], equity)
