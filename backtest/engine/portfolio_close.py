"""What a close looks like: gross notional, backing, requirement, and where each position fails."""

from __future__ import annotations

import math

from backtest.account import Books
from backtest.account.books import compute_root
from backtest.account.portfolio_balance import compute_pool, count_cross
from backtest.account.portfolio_calls import compute_pot_backing, compute_pot_needed
from backtest.account.portfolio_records import (
    CASH,
    AccountState,
    MarketBar,
    Scratch,
    Terms,
    is_held,
    is_isolated,
    is_spot,
    pick_instrument,
    pick_margin,
    pick_position,
    share,
)
from backtest.base.units import TOLERANCE
from backtest.engine.portfolio_tally import BookClose
from backtest.measures.tally import FARTHEST, NEAR, raise_ratio
from backtest.venue.book_failure import Waypoint
from backtest.venue.book_price import find_failure_ratio
from backtest.venue.book_requirement import compute_own_maintenance, find_own_maintenance
from backtest.venue.liquidation_price import compute_liquidation_value


def look_at_close(
    terms: Terms, state: AccountState, quotes: MarketBar, scratch: Scratch, has_prices: bool
) -> BookClose:
    """Return what a close looks like, and write where each position fails, the others frozen.

    The state is valued at the mark closes. Without ``has_prices``, positions that are certainly not
    near failure are passed over.
    """
    gross, needed, backing = 0.0, 0.0, 1.0
    has_pool = count_cross(terms, state) > 0
    if has_pool:
        needed = compute_pot_needed(terms, state, quotes, len(state.margin))
        backing = compute_pool(terms, state)
    worst_needed, worst_backing = raise_ratio(0.0, 1.0, needed, backing, has_pool)
    is_near = False
    for i in range(len(state.margin)):
        scratch.failure[i] = math.nan
        if is_held(state, i):
            notional = abs(state.held.quantities[i]) * abs(quotes.mark_close[i])
            gross += notional
            if is_isolated(terms, i):
                worst_needed, worst_backing = raise_ratio(
                    worst_needed,
                    worst_backing,
                    compute_pot_needed(terms, state, quotes, i),
                    compute_pot_backing(terms, state, i),
                    True,
                )
            if has_prices or not is_far(terms, state, i, notional, backing - needed):
                scratch.failure[i] = find_failure_value(
                    terms, state, quotes, scratch, i, backing - needed
                )
                is_near = is_near or is_near_failure(quotes, i, scratch.failure[i])
    return BookClose(
        gross=gross,
        backing=backing,
        needed=needed,
        worst_backing=worst_backing,
        worst_needed=worst_needed,
        is_near=is_near,
    )


def is_far(terms: Terms, state: AccountState, i: int, notional: float, excess: float) -> bool:
    """Return whether a position is certainly not near failure; ``excess`` is D of the pool.

    A move by a share of its notional costs that, and adds at most as much times the level to the
    requirement. Near is within a tenth of the price.
    """
    level = terms.rules.level
    if is_isolated(terms, i):
        level = 1.0
        profit = state.held.quantities[i] * (state.held.values[i] - state.held.entries[i])
        excess = state.margin[i] + profit - find_own_maintenance(terms.rules, state.held, i)
    return excess > (FARTHEST - 1.0) * (1.0 + level) * notional


def is_near_failure(quotes: MarketBar, i: int, value: float) -> bool:
    """Return whether the mark close is within a tenth of the price at which a position fails."""
    close = quotes.mark_close[i]
    ratio = value / close if close > 0.0 else close / value
    if math.isnan(ratio):
        return False
    return bool(1.0 / (1.0 + NEAR) - TOLERANCE <= ratio <= 1.0 / (1.0 - NEAR) + TOLERANCE)


def find_failure_value(
    terms: Terms, state: AccountState, quotes: MarketBar, scratch: Scratch, i: int, excess: float
) -> float:
    """Return the price of one instrument at which its margin pool fails, others fixed; NaN if none.

    ``excess`` is D = M - level R of the pool now.
    """
    if is_isolated(terms, i):
        books = Books(0.0, (pick_position(state, i),))
        return compute_root(share(pick_instrument(terms, i)), books, quotes.multiplier[i])
    held, value = state.held, state.held.values[i]
    if not terms.rules.has_scenarios and terms.rules.level == 1.0:
        margin = pick_margin(terms, i)
        own = compute_own_maintenance(terms.rules, held, i)
        quantity, x = held.quantities[i], quotes.multiplier[i]
        if is_spot(terms, i) and quantity > 0.0:
            quantity *= 1.0 - terms.rules.spot.haircuts[i]
        base = excess + own - quantity * value
        return compute_liquidation_value(margin, quantity, held.entries[i], base, x)
    for j in range(len(state.margin)):
        scratch.mark[j] = held.values[j]
    for c in range(len(held.prices)):
        scratch.price[c] = held.prices[c]
    start, end = (
        Waypoint(scratch.mark, scratch.price),
        Waypoint(scratch.mark_end, scratch.price_end),
    )
    cash = state.wallet[CASH]
    ratio = find_failure_ratio(terms.rules, held, cash, i, start, end, scratch.shares)
    return float(value / ratio if terms.rules.brackets.are_inverse[i] else value * ratio)
