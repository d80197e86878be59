"""What a close looks like: gross notional, backing, requirement, and where each position fails.

The loop looks at each close for its policies and its tally. What else follows from the account at
its closes is computed from its record afterwards, when it is asked for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backtest.account import (
    AccountBar,
    AccountState,
    Balances,
    MarketBar,
    Scratch,
    Terms,
    close_options,
    compute_balance,
    compute_initial_needed,
    compute_pool,
    compute_pool_backing,
    compute_pool_needed,
    compute_root,
    count_cross,
    find_value_with_options,
    is_far_with_options,
    is_held,
    is_isolated,
    is_moved_by,
    is_spot,
    is_walking,
    measure_shares,
    pick_instrument,
    pick_margin,
    pick_position,
    share,
)
from backtest.account.portfolio_records import CASH
from backtest.base.units import TOLERANCE
from backtest.engine.portfolio_tally import CloseFacts
from backtest.measures import raise_ratio
from backtest.measures.tally import FARTHEST, NEAR
from backtest.venue import (
    Waypoint,
    compute_collateral_value,
    compute_full_value,
    compute_liquidation_value,
    compute_own_maintenance,
    compute_price,
    compute_value,
    find_failure_ratio,
    find_own_maintenance,
)

if TYPE_CHECKING:
    from backtest.engine.record import Closes, HeldAtCloses


def look_at_close(bar: AccountBar, has_prices: bool) -> CloseFacts:
    terms, state, quotes, scratch = bar.terms, bar.state, bar.quotes, bar.scratch
    gross, needed, backing = 0.0, 0.0, 1.0
    has_pool = count_cross(terms, state) > 0
    if has_pool:
        needed = compute_pool_needed(terms, state, quotes, len(state.margin))
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
                    compute_pool_needed(terms, state, quotes, i),
                    compute_pool_backing(terms, state, i),
                    True,
                )
        if is_any_near(terms, state, scratch, i, backing - needed, has_prices):
            scratch.failure[i] = find_failure_value(
                terms, state, quotes, scratch, i, backing - needed
            )
            is_near = is_near or is_near_failure(quotes, i, scratch.failure[i])
    return CloseFacts(
        gross=gross,
        backing=backing,
        needed=needed,
        worst_backing=worst_backing,
        worst_needed=worst_needed,
        is_near=is_near,
    )


def measure_gross(bar: AccountBar) -> CloseFacts:
    state, gross = bar.state, 0.0
    for i in range(len(state.margin)):
        if is_held(state, i):
            gross += abs(state.held.quantities[i]) * abs(bar.quotes.mark_close[i])
    return CloseFacts(
        gross=gross, backing=1.0, needed=0.0, worst_backing=1.0, worst_needed=0.0, is_near=False
    )


def is_any_near(
    terms: Terms,
    state: AccountState,
    scratch: Scratch,
    i: int,
    excess: float,
    has_prices: bool,
) -> bool:
    if is_walking(terms, state) and not is_isolated(terms, i):
        if not is_moved_by(terms, state, i):
            return False
        return has_prices or not is_far_with_options(terms, state, scratch, i, excess)
    if not is_held(state, i):
        return False
    notional = abs(state.held.quantities[i]) * abs(state.held.values[i])
    return has_prices or not is_far(terms, state, i, notional, excess)


def is_far(terms: Terms, state: AccountState, i: int, notional: float, excess: float) -> bool:
    level = terms.rules.level
    if is_isolated(terms, i):
        level = 1.0
        profit = state.held.quantities[i] * (state.held.values[i] - state.held.entries[i])
        excess = state.margin[i] + profit - find_own_maintenance(terms.rules, state.held, i)
    return excess > (FARTHEST - 1.0) * (1.0 + level) * notional


def is_near_failure(quotes: MarketBar, i: int, value: float) -> bool:
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
        balances = Balances(0.0, (pick_position(state, i),))
        return compute_root(share(pick_instrument(terms, i)), balances, quotes.multiplier[i])
    if is_walking(terms, state):
        return find_nearer_value(terms, state, scratch, i, excess)
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


def find_nearer_value(
    terms: Terms, state: AccountState, scratch: Scratch, i: int, excess: float
) -> float:
    value = state.held.values[i]
    left = excess - TOLERANCE * abs(compute_pool(terms, state) - excess)
    down = find_value_with_options(terms, state, scratch, i, False, left)
    up = find_value_with_options(terms, state, scratch, i, True, left)
    size, is_inverse = terms.rules.brackets.sizes[i], terms.rules.brackets.are_inverse[i]
    price = compute_price(size, is_inverse, value)
    of_down = price - compute_price(size, is_inverse, down)
    of_up = compute_price(size, is_inverse, up) - price
    return down if math.isnan(up) or of_down < of_up else up


# ------------------------------------------------------------------------- closes of the record


def fill_closes(
    bar: AccountBar, held: HeldAtCloses, closes: Closes, first: int, is_whole: bool
) -> None:
    """Write what follows from what an account holds at closes, that of bar ``first`` and later.

    Only backing and initial margin unless ``is_whole``.
    """
    bar = share(
        AccountBar(
            terms=share(bar.terms), feed=share(bar.feed), state=share(bar.state),
            quotes=share(bar.quotes), scratch=share(bar.scratch), ledger=bar.ledger,
            log=share(bar.log),
        )
    )  # fmt: skip
    terms, state = bar.terms, bar.state
    for row in range(len(held.cash)):
        set_close(bar, held, row, first + row)
        closes.backing[row] = compute_pool(terms, state)
        closes.initial[row] = compute_all_initial(terms, state)
        if is_whole:
            fill_close(bar, closes, row)


def fill_close(bar: AccountBar, closes: Closes, row: int) -> None:
    terms, state, scratch = bar.terms, bar.state, bar.scratch
    closes.balance[row] = compute_balance(terms, state)
    closes.collateral[row] = compute_full_value(state.held)
    at_rate = compute_collateral_value(terms.rules.collateral, state.held)
    closes.collateral_at_rate[row] = at_rate
    needed = measure_shares(terms, state, scratch)
    closes.distance[row] = closes.backing[row] - terms.rules.level * needed
    n = len(state.margin)
    for i in range(n):
        closes.share[row, i] = scratch.shares[i]
    for c in range(len(state.held.amounts)):
        closes.collateral_share[row] += scratch.shares[n + c]
    closes.requirement[row] = look_at_close(bar, True).needed
    for i in range(n):
        closes.failure[row, i] = scratch.failure[i]


def set_close(bar: AccountBar, held: HeldAtCloses, row: int, t: int) -> None:
    terms, feed, state, quotes = bar.terms, bar.feed, bar.state, bar.quotes
    brackets = terms.rules.brackets
    state.wallet[CASH] = held.cash[row]
    for i in range(len(state.margin)):
        if feed.span[i, 0] <= t < feed.span[i, 1]:
            size, is_inverse = brackets.sizes[i], brackets.are_inverse[i]
            quotes.mark_close[i] = compute_value(size, is_inverse, feed.mark_close[t, i])
            quotes.multiplier[i] = feed.multiplier[min(t, len(feed.multiplier) - 1), i]
            brackets.multipliers[i] = quotes.multiplier[i]
            initial = feed.initial[min(t, len(feed.initial) - 1), i]
            brackets.initial_multipliers[i] = initial
        state.held.values[i] = quotes.mark_close[i]
        state.held.quantities[i] = held.quantity[row, i]
        state.held.entries[i] = held.entry[row, i]
        state.margin[i] = held.margin[row, i]
    for c in range(len(state.held.amounts)):
        state.held.amounts[c] = held.amounts[row, c]
        state.held.prices[c] = feed.asset_mark_close[c, t]
    for k in range(len(state.options.targets)):
        state.options.positions.quantities[k] = held.options[row, k]
    close_options(bar, t)


def compute_all_initial(terms: Terms, state: AccountState) -> float:
    found = compute_initial_needed(terms, state)
    for i in range(len(state.margin)):
        if is_isolated(terms, i):
            found += state.margin[i]
    return found
