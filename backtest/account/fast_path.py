"""Fast path of the bar: prices move, and nothing else can happen."""

from __future__ import annotations

import math

from backtest.account.order_cuts import count_decisions
from backtest.account.orders import is_outside
from backtest.account.portfolio_balance import compute_account_equity, value_at
from backtest.account.portfolio_gap import is_quiet
from backtest.account.portfolio_ledger import PRICE_PNL, clear_ledger
from backtest.account.portfolio_orders import (
    choose_orders,
    is_deciding,
    is_ending,
    measure_target,
)
from backtest.account.portfolio_records import (
    AT_OPEN,
    CASH,
    EQUITY,
    FLAGS,
    FLOW_NEXT,
    FUNDING_NEXT,
    INCREASE,
    IS_RUINED,
    KEPT,
    LEFT,
    PAID_IN,
    PEAK,
    POOL_FAILED,
    REDUCE,
    RESERVE,
    SCALE,
    SINCE_POOL,
    UNIT,
    AccountBar,
    AccountState,
    MarketFeed,
    Scratch,
    Terms,
    is_held,
    is_isolated,
    pick_instrument,
)
from backtest.account.ruin import NOTHING_LEFT
from backtest.account.steps import has_wealth
from backtest.base.units import TOLERANCE
from backtest.venue import compute_value

HAS_ORDER_FEE, HAS_EXITS = FLAGS.index("has_order_fee"), FLAGS.index("has_exits")


def may_use_fast_path(terms: Terms, feed: MarketFeed, state: AccountState) -> bool:
    found = not terms.has_interest and terms.margin_call == 0.0 and terms.fill == AT_OPEN
    found = found and len(state.held.amounts) == 0 and not terms.has_time_stop
    found = found and len(state.options.targets) == 0
    found = found and len(feed.multiplier) == 1 and len(feed.initial) == 1
    found = found and len(feed.costs) == 1
    for i in range(len(state.margin)):
        found = found and terms.flags[HAS_ORDER_FEE, i] == 0 and terms.flags[HAS_EXITS, i] == 0
    return bool(found)


def take_fast_path(bar: AccountBar, t: int, is_clear: bool) -> bool:
    terms, state, quotes = bar.terms, bar.state, bar.quotes
    if is_event_due(bar.feed, state, t):
        return False
    set_opens(bar, t)
    value_at(state, quotes.open, quotes.asset_open)
    opened = compute_account_equity(terms, state)
    if is_any_trading(bar, opened):
        return False
    if not set_rest(bar, t) or not is_quiet(terms, state, quotes):
        return False
    value_at(state, quotes.mark_close, quotes.asset_mark_close)
    equity = compute_account_equity(terms, state)
    if not is_sound(terms, state, equity):
        return False
    if not is_clear:
        clear_ledger(bar.ledger)
    close_fast_bar(bar, equity)
    if len(bar.scratch.cuts) > 0:
        count_decisions(bar, t, opened)
    return True


def is_event_due(feed: MarketFeed, state: AccountState, t: int) -> bool:
    for i in range(len(state.margin)):
        if feed.span[i, 0] == t:
            return True
    flow, event = state.cursor[FLOW_NEXT], state.cursor[FUNDING_NEXT]
    is_flow = flow < len(feed.flow_bar) and feed.flow_bar[flow] == t
    return bool(is_flow or (event < len(feed.funding_bar) and feed.funding_bar[event] == t))


def set_opens(bar: AccountBar, t: int) -> None:
    feed, quotes = bar.feed, bar.quotes
    brackets = bar.terms.rules.brackets
    for i in range(len(bar.state.margin)):
        is_listed = feed.span[i, 0] <= t < feed.span[i, 1]
        quotes.is_listed[i] = 1 if is_listed else 0
        if is_listed:
            size, is_inverse = brackets.sizes[i], brackets.are_inverse[i]
            quotes.open[i] = compute_value(size, is_inverse, feed.open[t, i])
            quotes.fill[i] = quotes.open[i]
            quotes.limit[i] = feed.limit[min(t, len(feed.limit) - 1), i]


def set_rest(bar: AccountBar, t: int) -> bool:
    feed, state, quotes = bar.feed, bar.state, bar.quotes
    brackets = bar.terms.rules.brackets
    for i in range(len(state.margin)):
        if quotes.is_listed[i] == 0:
            continue
        size, is_inverse = brackets.sizes[i], brackets.are_inverse[i]
        quotes.mark_close[i] = compute_value(size, is_inverse, feed.mark_close[t, i])
        if not is_held(state, i):
            continue
        if feed.ends[i] == 1 and t == feed.span[i, 1] - 1:
            return False
        quotes.low[i] = compute_value(size, is_inverse, feed.low[t, i])
        quotes.high[i] = compute_value(size, is_inverse, feed.high[t, i])
        quotes.mark_open[i] = compute_value(size, is_inverse, feed.mark_open[t, i])
        quotes.mark_low[i] = compute_value(size, is_inverse, feed.mark_low[t, i])
        quotes.mark_high[i] = compute_value(size, is_inverse, feed.mark_high[t, i])
        is_inside = quotes.low[i] <= quotes.open[i] <= quotes.high[i]
        if not (is_inside and quotes.mark_low[i] <= quotes.mark_open[i] <= quotes.mark_high[i]):
            return False
    return True


def is_any_trading(bar: AccountBar, equity: float) -> bool:
    terms, state = bar.terms, bar.state
    if terms.max_gross_leverage < math.inf:
        choose_orders(bar, equity)
        return has_order(bar.scratch)
    found = False
    for i in range(len(state.margin)):
        found = found or is_trading(bar, equity, i)
    return bool(found)


def has_order(scratch: Scratch) -> bool:
    found = False
    for i in range(len(scratch.kind)):
        found = found or scratch.kind[i] == REDUCE or scratch.kind[i] == INCREASE
    return bool(found)


def is_trading(bar: AccountBar, equity: float, i: int) -> bool:
    terms, state, quotes, scratch = bar.terms, bar.state, bar.quotes, bar.scratch
    scratch.kind[i] = LEFT
    if not is_deciding(state, quotes, i):
        return False
    if is_ending(state, i):
        return is_held(state, i)
    is_asking, _, held, reach = measure_target(terms, state, quotes, equity, i)
    if not is_asking:
        return False
    scratch.kind[i], scratch.before[i], scratch.reach[i] = KEPT, held, reach
    return reach == math.inf or is_outside(pick_instrument(terms, i), equity, reach, held)


def is_sound(terms: Terms, state: AccountState, equity: float) -> bool:
    count, crossed = 0, 0
    for i in range(len(state.margin)):
        if is_held(state, i):
            count += 1
            crossed += 0 if is_isolated(terms, i) else 1
    if equity < 0.0 or (crossed == 0 and state.wallet[CASH] < 0.0):
        return False
    if count == 0 or state.wallet[IS_RUINED] != 0.0:
        return True
    wealth, paid_in = equity + state.wallet[RESERVE], state.wallet[PAID_IN]
    is_under = wealth <= terms.ruin_at * paid_in * (1.0 + TOLERANCE)
    return not (is_under or equity <= NOTHING_LEFT * paid_in * (1.0 + TOLERANCE))


def close_fast_bar(bar: AccountBar, equity: float) -> None:
    state, quotes = bar.state, bar.quotes
    wallet = state.wallet
    for i in range(len(state.margin)):
        profit = 0.0
        if is_held(state, i):
            profit += state.held.quantities[i] * (quotes.mark_close[i] - state.marked[i])
            state.marked[i] = quotes.mark_close[i]
        bar.ledger[PRICE_PNL, i] = profit
        state.since[i] += 1.0
        state.since_stop[i] += 1.0
    wealth = wallet[EQUITY] + wallet[RESERVE]
    wallet[POOL_FAILED] = 0.0
    wallet[SINCE_POOL] += 1.0
    wallet[EQUITY] = equity
    if has_wealth(wealth, 0.0) and wallet[IS_RUINED] == 0.0:
        wallet[UNIT] = wallet[SCALE] * (equity + wallet[RESERVE])
    wallet[PEAK] = max(wallet[UNIT], wallet[PEAK])
