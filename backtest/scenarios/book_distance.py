"""How near the prices of a bar come to the liquidation prices of several positions."""

from __future__ import annotations

import math

from backtest.account.portfolio_balance import compute_excess, value_at
from backtest.account.portfolio_bar import set_quotes
from backtest.account.portfolio_records import (
    WORST,
    AccountState,
    BookFeed,
    MarketBar,
    Scratch,
    Terms,
    is_held,
)
from backtest.account.price_walk import aim_at_leg, aim_at_worst
from backtest.engine.portfolio_close import find_failure_value


def measure_book_distance(
    terms: Terms, feed: BookFeed, book: AccountState, scene: MarketBar, room: Scratch, t: int
) -> float:
    """Return how near the marks of bar t come to the liquidation prices of what is carried in.

    At each waypoint of the bar (:mod:`backtest.account.price_walk`), all marks are those of the
    waypoint, and the distance of a position is that of its mark from the price at which it would be
    liquidated there, the others frozen; a fraction of the mark, infinite if no price liquidates.
    The book is only valued.
    """
    set_quotes(terms, feed, scene, t)
    least = math.inf
    for leg in range(3):
        if terms.intrabar == WORST and leg < 2:
            aim_at_worst(terms, book, scene, room)
        else:
            aim_at_leg(terms, scene, room, leg)
        values, prices = room.mark_end.copy(), room.price_end.copy()
        value_at(book, values, prices)
        excess = compute_excess(terms, book)
        for i in range(len(book.margin)):
            if is_held(book, i):
                value_at(book, values, prices)
                root = find_failure_value(terms, book, scene, room, i, excess)
                gap = (values[i] - root) / abs(values[i])
                gap = gap if book.held.quantities[i] > 0.0 else -gap
                least = min(least, max(gap, 0.0)) if not math.isnan(gap) else least
    return least
