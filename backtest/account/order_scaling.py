"""The common factor of the increases of a bar: the largest that the initial margin allows."""

from __future__ import annotations

import math

from backtest.account.option_holdings import holds_options, is_walking
from backtest.account.option_orders import end_trial, is_adding_options, try_options
from backtest.account.portfolio_balance import (
    compute_counted,
    compute_initial_needed,
    value_at,
)
from backtest.account.portfolio_records import (
    CASH,
    INCREASE,
    RESTING,
    AccountBar,
    AccountState,
    MarketBar,
    Scratch,
    Terms,
    is_held,
    is_isolated,
    pick_instrument,
    pick_margin,
    pick_position,
    share,
)
from backtest.account.position import compute_profit
from backtest.venue import (
    compute_full_backing,
    compute_haircuts,
    compute_initial,
    compute_largest_notional,
    compute_portfolio_initial,
)

MOST_TRIALS = 200
"""Trials of a factor; each halves what is left of the interval, or better."""
NARROW = 1e-16
"""Width of the interval, relative to 1, at which the search ends."""
GOLDEN = 0.3819660112501051
"""The smaller part of the golden section."""


def fit_increases(bar: AccountBar) -> float:
    terms, state, quotes, scratch = bar.terms, bar.state, bar.quotes, bar.scratch
    values = quotes.open if terms.fill == RESTING else quotes.fill
    value_at(state, values, quotes.asset_fill)
    free = compute_full_backing(terms.rules, state.held, state.wallet[CASH])
    free -= compute_all_uncounted(terms, state, scratch, -2)
    count, only = count_increases(scratch)
    fixed = 0.0
    if not is_joint(terms, state):
        fixed = sum_other_initial(bar)
        if count == 1 and not is_isolated(terms, only):
            return fit_single(terms, quotes, scratch, free - fixed, only)
    if compute_room(bar, free, fixed, 1.0) >= 0.0:
        return 1.0
    low, high = 0.0, 1.0
    if not compute_room(bar, free, fixed, 0.0) >= 0.0:
        low = find_passing(bar, free, fixed)
        if math.isnan(low):
            return 0.0
    return narrow(bar, free, fixed, low, high)


def is_joint(terms: Terms, state: AccountState) -> bool:
    return terms.rules.has_scenarios or is_walking(terms, state) or is_adding_options(state)


def count_increases(scratch: Scratch) -> tuple[int, int]:
    count, only = 0, 0
    for i in range(len(scratch.kind)):
        if scratch.kind[i] == INCREASE:
            count, only = count + 1, i
    return count, only


def compute_all_uncounted(
    terms: Terms, state: AccountState, scratch: Scratch, turned: int
) -> float:
    found = 0.0
    for i in range(len(state.margin)):
        if is_held(state, i) and not is_isolated(terms, i):
            rules = share(pick_instrument(terms, i))
            is_flip = scratch.kind[i] == INCREASE and scratch.before[i] < 0.0 and turned == -2
            if rules.has_profit_share is not None and not is_flip and i != turned:
                profit = compute_profit(pick_position(state, i), state.held.values[i])
                found += (1.0 - rules.profit_share) * max(profit, 0.0)
    return found


def sum_other_initial(bar: AccountBar) -> float:
    terms, state, quotes = bar.terms, bar.state, bar.quotes
    found = 0.0
    for i in range(len(state.margin)):
        if is_held(state, i) and not is_isolated(terms, i) and bar.scratch.kind[i] != INCREASE:
            notional = abs(state.held.quantities[i]) * abs(quotes.fill[i])
            found += compute_initial(pick_margin(terms, i), notional, quotes.initial[i])
    return found


def fit_single(terms: Terms, quotes: MarketBar, scratch: Scratch, free: float, i: int) -> float:
    limit = compute_largest_notional(
        pick_margin(terms, i),
        free - scratch.fee[i],
        scratch.before[i],
        scratch.cost[i],
        quotes.initial[i],
    )
    whole = scratch.kept[i] + scratch.added[i]
    if limit >= whole or scratch.added[i] == 0.0:
        return 1.0
    return float(max(limit - scratch.kept[i], 0.0) / scratch.added[i])


def compute_room(bar: AccountBar, free: float, fixed: float, factor: float) -> float:
    terms, state, scratch = bar.terms, bar.state, bar.scratch
    costs, taken, needed = 0.0, 0.0, fixed
    is_whole = is_joint(terms, state)
    for i in range(len(state.margin)):
        if scratch.kind[i] == INCREASE:
            size = scratch.kept[i] + factor * scratch.added[i]
            if is_isolated(terms, i):
                taken += factor * scratch.added[i] * scratch.taken[i] - scratch.returned[i]
                continue
            costs += scratch.cost[i] * (size - scratch.before[i]) + scratch.fee[i]
            if not is_whole and size > 0.0:
                needed += compute_initial(pick_margin(terms, i), size, bar.quotes.initial[i])
    if is_whole:
        needed = try_initial(bar, factor)
    return free - costs - taken - needed


def try_initial(bar: AccountBar, factor: float) -> float:
    terms, state, scratch = bar.terms, bar.state, bar.scratch
    for i in range(len(state.margin)):
        scratch.start[i] = state.held.quantities[i]
        if scratch.kind[i] == INCREASE:
            size = scratch.kept[i] + factor * scratch.added[i]
            state.held.quantities[i] = scratch.side[i] * size / abs(bar.quotes.fill[i])
    outlay = try_options(terms, state, factor)
    needed = compute_initial_needed(terms, state) + outlay
    needed += compute_haircuts(terms.rules, state.held)
    if holds_options(state):
        needed -= compute_counted(terms, state)
    for i in range(len(state.margin)):
        state.held.quantities[i] = scratch.start[i]
    end_trial(state)
    return needed


def find_passing(bar: AccountBar, free: float, fixed: float) -> float:
    low, high = 0.0, 1.0
    left, right = GOLDEN, 1.0 - GOLDEN
    of_left = compute_room(bar, free, fixed, left)
    of_right = compute_room(bar, free, fixed, right)
    for _ in range(80):
        if of_left >= 0.0 or of_right >= 0.0:
            return right if of_right >= 0.0 else left
        if of_left < of_right:
            low, left, of_left = left, right, of_right
            right = high - GOLDEN * (high - low)
            of_right = compute_room(bar, free, fixed, right)
        else:
            high, right, of_right = right, left, of_left
            left = low + GOLDEN * (high - low)
            of_left = compute_room(bar, free, fixed, left)
    return math.nan


def narrow(bar: AccountBar, free: float, fixed: float, low: float, high: float) -> float:
    of_low = compute_room(bar, free, fixed, low)
    of_high = compute_room(bar, free, fixed, high)
    for trial in range(MOST_TRIALS):
        if not high - low > NARROW:
            break
        middle = low + 0.5 * (high - low)
        if trial % 2 == 0 and of_low > of_high:
            middle = low + (high - low) * (of_low / (of_low - of_high))
        if not low < middle < high:
            middle = low + 0.5 * (high - low)
        if not low < middle < high:
            break
        of_middle = compute_room(bar, free, fixed, middle)
        if of_middle >= 0.0:
            low, of_low = middle, of_middle
        else:
            high, of_high = middle, of_middle
    return low


# ---------------------------------------------------------------------- an instrument alone


def compute_rate_of_one(terms: Terms, state: AccountState, scratch: Scratch, i: int) -> float:
    hide_others(state, scratch, i, scratch.side[i] / abs(state.held.values[i]))
    rate = compute_portfolio_initial(terms.rules, state.held)
    rate += compute_haircuts(terms.rules, state.held)
    show_others(state, scratch)
    return rate


def hide_others(state: AccountState, scratch: Scratch, i: int, quantity: float) -> None:
    for j in range(len(state.margin)):
        scratch.hidden[j] = state.held.quantities[j]
        state.held.quantities[j] = quantity if j == i else 0.0
    for c in range(len(state.held.amounts)):
        scratch.kept_assets[c] = state.held.amounts[c]
        state.held.amounts[c] = 0.0


def show_others(state: AccountState, scratch: Scratch) -> None:
    for j in range(len(state.margin)):
        state.held.quantities[j] = scratch.hidden[j]
    for c in range(len(state.held.amounts)):
        state.held.amounts[c] = scratch.kept_assets[c]
