"""Limit orders: placed at the open, resting for one bar, fill where the walk trades through."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backtest.account.balances import compute_backing
from backtest.account.fills import move_margin, trade
from backtest.account.ledger import FILL
from backtest.account.order_cuts import LIMITED, REACHED, plan_order
from backtest.account.order_scaling import fit_increases
from backtest.account.orders import (
    compute_counted,
    compute_order_fee,
    round_price,
    round_quantity,
)
from backtest.account.portfolio_balance import enter_fill, pick_balances, value_at
from backtest.account.portfolio_ledger import RESTED, note
from backtest.account.portfolio_orders import (
    choose_orders,
    cut_to_balance,
    find_margin_limit,
    follow_best,
    has_increase,
    is_ending,
    lift_balance,
    post_in_full,
    size_increase,
    trade_to,
)
from backtest.account.portfolio_records import (
    INCREASE,
    IS_RUINED,
    OVERLAY,
    REDUCE,
    UNPLACED,
    AccountBar,
    AccountState,
    MarketBar,
    Scratch,
    Terms,
    is_held,
    is_isolated,
    pick_instrument,
    pick_margin,
    pick_quote,
    share,
)
from backtest.account.position import worsen
from backtest.venue import compute_largest_notional, compute_price, compute_setting, compute_value

if TYPE_CHECKING:
    from backtest.account.account_records import InstrumentRules

TICK_SLACK = 1e-6
"""Ticks by which a price may miss the one that fills an order: the rounding of floats."""
ROUNDING = 1e-9
"""Share of its notional by which the wallet may miss what an order needs."""


# ------------------------------------------------------------------------------ step 5: placing


def place_orders(bar: AccountBar, t: int, equity: float) -> None:
    terms, state, quotes, scratch = bar.terms, bar.state, bar.quotes, bar.scratch
    n = len(state.margin)
    value_at(state, quotes.open, quotes.asset_open)
    for i in range(n):
        quotes.fill[i] = quotes.decided[i]
        scratch.wanted[i], scratch.fresh[i] = math.nan, 0.0
    choose_orders(bar, equity)
    for i in range(n):
        quotes.fill[i] = quotes.open[i]
        trade_at_market(bar, t, i)
    for i in range(n):
        if scratch.kind[i] == INCREASE:
            aim_increase(bar, equity, i)
    factor = 1.0
    if has_increase(scratch):
        cut_to_balance(bar)
        factor = fit_increases(bar)
        rest_increases(bar, t, factor)
    for i in range(n):
        if scratch.kind[i] == REDUCE and is_held(state, i) and not goes_to_market(terms, state, i):
            rest_reduction(bar, t, i)
        plan_order(bar, factor, i)
        quotes.fill[i] = quotes.open[i]
        state.is_pending[i] = 0 if math.isnan(scratch.wanted[i]) else 1


def goes_to_market(terms: Terms, state: AccountState, i: int) -> bool:
    return not terms.rests_closing or is_ending(state, i)


def trade_at_market(bar: AccountBar, t: int, i: int) -> None:
    scratch = bar.scratch
    if not goes_to_market(bar.terms, bar.state, i):
        return
    if scratch.kind[i] == REDUCE:
        wanted = scratch.side[i] * scratch.reach[i] * (1.0 / abs(bar.quotes.decided[i]))
        trade_to(bar, t, i, wanted + 0.0, False)
    elif scratch.kind[i] == INCREASE and scratch.before[i] < 0.0:
        trade_to(bar, t, i, 0.0, False)


def set_limit(terms: Terms, quotes: MarketBar, scratch: Scratch, i: int, side: float) -> None:
    rules = share(pick_instrument(terms, i))
    value = worsen(rules, quotes.decided[i], -side, terms.offsets[i])
    if rules.rounds_price is not None:
        value = round_price(rules, value, side)
    quotes.fill[i] = value
    scratch.through[i] = find_through(terms, rules, value, side, i)


def find_through(terms: Terms, rules: InstrumentRules, value: float, side: float, i: int) -> float:
    brackets = terms.rules.brackets
    size, is_inverse = brackets.sizes[i], brackets.are_inverse[i]
    price = compute_price(size, is_inverse, value) - side * rules.tick * (1.0 - TICK_SLACK)
    return compute_value(size, is_inverse, price) if price > 0.0 else math.nan


def aim_increase(bar: AccountBar, equity: float, i: int) -> None:
    terms, quotes, scratch = bar.terms, bar.quotes, bar.scratch
    side = scratch.side[i]
    set_limit(terms, quotes, scratch, i, side)
    scratch.before[i] = bar.state.held.quantities[i] * (side * abs(quotes.fill[i]))
    kept = max(scratch.before[i], 0.0)
    scratch.steps[i, LIMITED] = scratch.reach[i]
    is_left = scratch.before[i] < 0.0 and not terms.rests_closing
    if is_left or math.isnan(scratch.through[i]) or not scratch.reach[i] > kept:
        scratch.kind[i] = UNPLACED
        quotes.fill[i] = quotes.open[i]
        return
    price_resting(terms, quotes, scratch, i)
    most = find_resting_limit(bar, equity, i)
    scratch.kept[i] = kept
    scratch.added[i] = max(min(scratch.reach[i], most) - kept, 0.0)
    scratch.steps[i, LIMITED] = find_margin_limit(bar, equity, i, most)
    if scratch.added[i] == 0.0 and scratch.before[i] >= 0.0:
        scratch.kind[i], scratch.fee[i] = (
            UNPLACED,
            0.0,
        )  # held, and valued at the open as the others
        quotes.fill[i] = quotes.open[i]


def price_resting(terms: Terms, quotes: MarketBar, scratch: Scratch, i: int) -> None:
    rules, quote, value = pick_instrument(terms, i), pick_quote(quotes, i), quotes.fill[i]
    lost = max(scratch.side[i] * (value - quotes.open[i]), 0.0) / abs(value)
    scratch.rate[i] = max(terms.makers[i], 0.0)
    scratch.cost[i] = scratch.rate[i] + lost
    scratch.fee[i] = compute_order_fee(rules, quote)
    scratch.saved[i] = 0.0


def find_resting_limit(bar: AccountBar, equity: float, i: int) -> float:
    terms, quotes, scratch = bar.terms, bar.quotes, bar.scratch
    if not is_isolated(terms, i):
        margin = pick_margin(terms, i)
        return compute_largest_notional(margin, math.inf, 0.0, 0.0, quotes.initial[i])
    rules, quote = share(pick_instrument(terms, i)), pick_quote(quotes, i)
    balances, before, rate = pick_balances(terms, bar.state, i), scratch.before[i], scratch.rate[i]
    free = compute_counted(rules, balances, quote, equity, before) - scratch.fee[i]
    most = compute_largest_notional(rules.margin, free, before, rate, quote.initial)
    wallet = balances.cash - scratch.fee[i]
    if before < 0.0:
        wallet += compute_backing(rules, balances, quote.fill) + rate * before
    room = max(wallet / (1.0 / compute_setting(rules.margin, quote.initial) + rate), 0.0)
    kept = max(before, 0.0)
    return float(kept + min(most - kept, room))


def rest_increases(bar: AccountBar, t: int, factor: float) -> None:
    for i in range(len(bar.state.margin)):
        if bar.scratch.kind[i] == INCREASE:
            wanted = size_increase(bar.state, bar.quotes, bar.scratch, i, factor)
            rest(bar, t, i, wanted)


def rest_reduction(bar: AccountBar, t: int, i: int) -> None:
    quotes, scratch = bar.quotes, bar.scratch
    held = bar.state.held.quantities[i]
    set_limit(bar.terms, quotes, scratch, i, -1.0 if held > 0.0 else 1.0)
    wanted = scratch.side[i] * scratch.reach[i] * (1.0 / abs(quotes.fill[i])) + 0.0
    if abs(wanted) < abs(held) and not math.isnan(scratch.through[i]):
        rest(bar, t, i, wanted)


def rest(bar: AccountBar, t: int, i: int, wanted: float) -> None:
    quotes, scratch = bar.quotes, bar.scratch
    rules, held = share(pick_instrument(bar.terms, i)), bar.state.held.quantities[i]
    quantity = round_quantity(rules, held, pick_quote(quotes, i), wanted)
    if quantity != held:
        scratch.wanted[i], scratch.limit[i] = quantity, quotes.fill[i]
        change = quantity - held
        note(bar.log, t, i, RESTED, quotes.fill[i], change, abs(change) * abs(quotes.fill[i]))


# ---------------------------------------------------------------------- step 7: inside the bar


def is_resting(state: AccountState, scratch: Scratch, i: int) -> bool:
    is_waiting = state.is_pending[i] == 1 and state.wallet[IS_RUINED] == 0.0
    return bool(is_waiting and not math.isnan(scratch.wanted[i]))


def is_any_reached(state: AccountState, quotes: MarketBar, scratch: Scratch) -> bool:
    found = False
    for i in range(len(state.margin)):
        if is_resting(state, scratch, i):
            is_buy = scratch.wanted[i] > state.held.quantities[i]
            through = scratch.through[i]
            found = found or (
                min(quotes.low[i], quotes.open[i]) <= through
                if is_buy
                else max(quotes.high[i], quotes.open[i]) >= through
            )
    return bool(found)


def find_fill_place(state: AccountState, scratch: Scratch, i: int) -> float:
    if not is_resting(state, scratch, i):
        return 2.0
    side = 1.0 if scratch.wanted[i] > state.held.quantities[i] else -1.0
    start, end, through = scratch.last[i], scratch.last_end[i], scratch.through[i]
    if side * (start - through) <= 0.0:
        return 0.0
    if not side * (end - through) <= 0.0:
        return 2.0
    return float(min(max((through - start) / (end - start), 0.0), 1.0))


def fill_resting(bar: AccountBar, t: int, i: int) -> None:
    terms, state, quotes, scratch = bar.terms, bar.state, bar.quotes, bar.scratch
    rules, quote = share(pick_instrument(terms, i)), pick_quote(quotes, i)
    before = pick_balances(terms, state, i)
    held, wanted, limit = before.positions[0].quantity, scratch.wanted[i], scratch.limit[i]
    done = trade(rules, before, limit, wanted, 0.0, 0.0, terms.makers[i], quote, False)
    state.is_pending[i] = 0
    if scratch.kind[i] == INCREASE and is_isolated(terms, i):
        wallet, _ = move_margin(rules, before, wanted, limit, quote.initial)
        if wallet - done.fee < -ROUNDING * abs(wanted * limit):
            return
    enter_fill(bar, t, i, FILL, before, done, 0)
    scratch.steps[i, REACHED] = scratch.side[i] * wanted
    if scratch.kind[i] == INCREASE and is_isolated(terms, i):
        post_in_full(terms, state, quotes, before, done, i)
    state.factor[i] = state.wallet[OVERLAY]
    follow_best(state, i, held)
    if held * wanted <= 0.0:
        scratch.fresh[i] = 1.0
    elif abs(wanted) > abs(held) and scratch.fresh[i] == 0.0:
        scratch.fresh[i] = 2.0
    lift_balance(terms, state, scratch)


def follow_fresh(state: AccountState, scratch: Scratch) -> None:
    for i in range(len(state.margin)):
        if scratch.fresh[i] == 1.0 and is_held(state, i):
            is_long = state.held.quantities[i] > 0.0
            best, now = state.best[i], scratch.last[i]
            state.best[i] = max(best, now) if is_long else min(best, now)
