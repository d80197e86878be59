"""How near the prices of a bar come to the liquidation prices of several positions."""

from __future__ import annotations

import math

from backtest.account import (
    AccountState,
    MarketBar,
    MarketFeed,
    Scratch,
    Terms,
    aim_at_leg,
    choose_turns,
    compute_excess,
    is_moved_by,
    is_walking,
    open_options,
    price_options,
    set_quotes,
    value_at,
)
from backtest.base import FloatArray
from backtest.engine import find_failure_value


def measure(
    terms: Terms, feed: MarketFeed, state: AccountState, quotes: MarketBar, scratch: Scratch, t: int
) -> float:
    """Return how near the marks of bar t come to the liquidation prices of what is carried in.

    At each waypoint of the bar (:mod:`backtest.account.price_walk`), all marks are those of the
    waypoint, and the distance of a position is that of its mark from the price at which it would be
    liquidated there, the others frozen; a fraction of the mark, infinite if no price liquidates.
    With options it is that of the nearer price on either side. The account is only valued.
    """
    set_quotes(terms, feed, quotes, t)
    open_options(terms, feed, state, quotes, t)
    least = math.inf
    choose_turns(terms, state, quotes, scratch)
    for leg in range(3):
        aim_at_leg(quotes, scratch, leg)
        values, prices = scratch.mark_end.copy(), scratch.price_end.copy()
        value_all_at(terms, state, values, prices)
        excess = compute_excess(terms, state)
        for i in range(len(state.margin)):
            if is_moved_by(terms, state, i):
                value_all_at(terms, state, values, prices)
                root = find_failure_value(terms, state, quotes, scratch, i, excess)
                gap = (values[i] - root) / abs(values[i])
                gap = gap if state.held.quantities[i] > 0.0 else -gap
                if is_walking(terms, state):
                    gap = abs(gap) if excess > 0.0 else 0.0
                least = min(least, max(gap, 0.0)) if not math.isnan(gap) else least
    return least


def value_all_at(terms: Terms, state: AccountState, values: FloatArray, prices: FloatArray) -> None:
    value_at(state, values, prices)
    price_options(terms, state, values)
