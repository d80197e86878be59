"""The bar of an account with several positions: its steps, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.account.account_records import Watch
from backtest.account.equity_stop import follow_highest, rescale_highest
from backtest.account.exits import follow_prices
from backtest.account.fills import trade
from backtest.account.option_marks import (
    ENDLESS,
    book_profits,
    close_options,
    expire_options,
    open_options,
)
from backtest.account.order_cuts import count_decisions
from backtest.account.portfolio_balance import (
    compute_account_equity,
    enter_fill,
    is_under_limit,
    mark_collateral,
    mark_to_ledger,
    pick_balances,
    value_at,
)
from backtest.account.portfolio_calls import answer_calls, close_calls, force_reductions
from backtest.account.portfolio_gap import check_gap
from backtest.account.portfolio_ledger import (
    CALLS_FAILED,
    CALLS_MET,
    COLLATERAL_PNL,
    CONVERSION,
    DELISTED,
    FLOWS,
    TOP_UP,
    clear_ledger,
    earn,
    total,
)
from backtest.account.portfolio_margin import change_settings
from backtest.account.portfolio_orders import fill_decisions
from backtest.account.portfolio_payments import (
    charge_portfolio_interest,
    convert_collateral,
    pay_portfolio_funding,
    take_portfolio_flows,
)
from backtest.account.portfolio_records import (
    ASSETS_SO_FAR,
    AT_OPEN,
    CONVERTED_SO_FAR,
    EARLY,
    EQUITY,
    IS_CONVERTING,
    IS_RUINED,
    LATE,
    PEAK,
    POOL_FAILED,
    RESERVE,
    RESTING,
    SCALE,
    SINCE_POOL,
    UNIT,
    AccountBar,
    AccountState,
    MarketBar,
    MarketFeed,
    Terms,
    has_exits,
    is_held,
    pick_instrument,
    pick_position,
    pick_quote,
    share,
    write_costs,
)
from backtest.account.portfolio_ruin import end_portfolio, is_portfolio_ruined, settle_debt
from backtest.account.price_walk import walk
from backtest.account.resting_orders import place_orders
from backtest.account.steps import has_wealth
from backtest.account.time_stop import stamp_openings, stop_by_time
from backtest.venue import compute_value

if TYPE_CHECKING:
    from backtest.base import FloatArray


def simulate_portfolio_bar(bar: AccountBar, t: int) -> None:
    terms, feed, state, quotes, ledger = bar.terms, bar.feed, bar.state, bar.quotes, bar.ledger
    set_quotes(terms, feed, quotes, t)
    clear_ledger(ledger)
    before, wealth = state.wallet[EQUITY], state.wallet[EQUITY] + state.wallet[RESERVE]
    state.wallet[POOL_FAILED] = 0.0
    if terms.fill == EARLY and t > 0:
        fill_early(bar, t)  # 0
    open_options(terms, feed, state, quotes, t)
    book_profits(state, ledger)
    take_portfolio_flows(bar, t)  # 1
    convert_collateral(bar, t)
    answer_calls(bar, t)
    rescale_unit(state, ledger, before)
    if terms.equity_stop > 0.0:
        rescale_highest(state, total(ledger, FLOWS) + total(ledger, TOP_UP), before)
    pay_portfolio_funding(bar, t, 1)  # 2
    expire_options(bar, t, 0, ENDLESS)
    if terms.has_interest and t > 0:
        charge_portfolio_interest(bar, t)  # 3
    check_gap(bar, t)  # 4
    stop_by_time(bar, t, 1.0 * feed.time[t])
    if terms.fill in (AT_OPEN, RESTING) and t > 0:
        fill_pending(bar, t)  # 5
    stamp_openings(terms, state, 1.0 * feed.time[t])
    pay_portfolio_funding(bar, t, 0)  # 6
    expire_options(bar, t, 1, ENDLESS)
    walk(bar, t)  # 7
    if terms.fill == RESTING:
        stamp_openings(terms, state, 1.0 * feed.time[t])
        if len(bar.scratch.cuts) > 0 and t > 0 and state.wallet[IS_RUINED] == 0.0:
            count_decisions(bar, t, before)
    follow_bests(bar)
    if terms.fill == LATE:
        fill_late(bar, t)
    close_portfolio_bar(bar, t, wealth)  # 8


def set_quotes(terms: Terms, feed: MarketFeed, quotes: MarketBar, t: int) -> None:
    last, brackets = max(t - 1, 0), terms.rules.brackets
    for i in range(len(quotes.open)):
        is_listed = feed.span[i, 0] <= t < feed.span[i, 1]
        quotes.is_listed[i] = 1 if is_listed else 0
        quotes.is_last[i] = 1 if feed.ends[i] == 1 and t == feed.span[i, 1] - 1 else 0
        if not is_listed:
            continue
        size, is_inverse = brackets.sizes[i], brackets.are_inverse[i]
        quotes.open[i] = compute_value(size, is_inverse, feed.open[t, i])
        quotes.low[i] = compute_value(size, is_inverse, feed.low[t, i])
        quotes.high[i] = compute_value(size, is_inverse, feed.high[t, i])
        quotes.close[i] = compute_value(size, is_inverse, feed.close[t, i])
        quotes.mark_open[i] = compute_value(size, is_inverse, feed.mark_open[t, i])
        quotes.mark_low[i] = compute_value(size, is_inverse, feed.mark_low[t, i])
        quotes.mark_high[i] = compute_value(size, is_inverse, feed.mark_high[t, i])
        quotes.mark_close[i] = compute_value(size, is_inverse, feed.mark_close[t, i])
        quotes.volume[i] = feed.volume[last, i]
        quotes.multiplier[i] = feed.multiplier[min(t, len(feed.multiplier) - 1), i]
        quotes.initial[i] = feed.initial[min(t, len(feed.initial) - 1), i]
        quotes.sigma[i] = feed.sigma[min(t, len(feed.sigma) - 1), i]
        quotes.adv[i] = feed.adv[min(t, len(feed.adv) - 1), i]
        quotes.limit[i] = feed.limit[min(t, len(feed.limit) - 1), i]
        quotes.order_fee[i] = feed.order_fee[min(t, len(feed.order_fee) - 1), i]
        quotes.stop_scale[i] = feed.stop_scale[min(t, len(feed.stop_scale) - 1), i]
        quotes.profit_scale[i] = feed.profit_scale[min(t, len(feed.profit_scale) - 1), i]
        quotes.trail_scale[i] = feed.trail_scale[min(t, len(feed.trail_scale) - 1), i]
        if len(feed.costs) > 1:
            write_costs(terms, feed.costs[t], i)
        brackets.multipliers[i] = quotes.multiplier[i]
        brackets.initial_multipliers[i] = quotes.initial[i]
        quotes.fill[i] = quotes.open[i]
    for c in range(len(quotes.asset_open)):
        quotes.asset_open[c] = feed.asset_open[c, t]
        quotes.asset_low[c] = feed.asset_low[c, t]
        quotes.asset_high[c] = feed.asset_high[c, t]
        quotes.asset_close[c] = feed.asset_close[c, t]
        quotes.asset_mark_open[c] = feed.asset_mark_open[c, t]
        quotes.asset_mark_low[c] = feed.asset_mark_low[c, t]
        quotes.asset_mark_high[c] = feed.asset_mark_high[c, t]
        quotes.asset_mark_close[c] = feed.asset_mark_close[c, t]
        quotes.asset_fill[c] = quotes.asset_open[c]
    if terms.fill == RESTING:
        set_decision_prices(terms, feed, quotes, t)
    elif terms.fill != AT_OPEN:
        set_fill_prices(terms, feed, quotes, t)


def set_fill_prices(terms: Terms, feed: MarketFeed, quotes: MarketBar, t: int) -> None:
    at = t if terms.fill == LATE else max(t - 1, 0)
    brackets = terms.rules.brackets
    for i in range(len(quotes.open)):
        if feed.span[i, 0] <= at < feed.span[i, 1]:
            size, is_inverse = brackets.sizes[i], brackets.are_inverse[i]
            quotes.fill[i] = compute_value(size, is_inverse, feed.close[at, i])
    for c in range(len(quotes.asset_open)):
        quotes.asset_fill[c] = feed.asset_close[c, at]


def set_decision_prices(terms: Terms, feed: MarketFeed, quotes: MarketBar, t: int) -> None:
    last, brackets = max(t - 1, 0), terms.rules.brackets
    for i in range(len(quotes.open)):
        quotes.decided[i] = quotes.open[i]
        if feed.span[i, 0] <= last < feed.span[i, 1]:
            size, is_inverse = brackets.sizes[i], brackets.are_inverse[i]
            quotes.decided[i] = compute_value(size, is_inverse, feed.close[last, i])


def rescale_unit(state: AccountState, ledger: FloatArray, equity: float) -> None:
    flows = total(ledger, FLOWS)
    wealth = equity + state.wallet[RESERVE] + total(ledger, TOP_UP)
    if flows != 0.0 and has_wealth(wealth, flows):
        state.wallet[SCALE] = state.wallet[UNIT] / (wealth + flows)


# ---------------------------------------------------------------------- steps 0 and 5: the fills


def fill_pending(bar: AccountBar, t: int) -> None:
    terms, state, quotes = bar.terms, bar.state, bar.quotes
    if state.wallet[IS_RUINED] == 0.0:
        value_at(state, quotes.fill, quotes.asset_fill)
        equity = compute_account_equity(terms, state)
        change_settings(bar, t)
        force_reductions(bar, t)
        if terms.fill == RESTING:
            known = state.wallet[EQUITY] if equity > 0.0 else 0.0
            place_orders(bar, t, known)
        else:
            fill_decisions(bar, t, equity)


def fill_early(bar: AccountBar, t: int) -> None:
    state, ledger = bar.state, bar.ledger
    for i in range(len(state.margin)):
        if is_held(state, i):
            mark_to_ledger(state, i, bar.quotes.fill[i], ledger)
    fill_pending(bar, t)
    for pool in range(len(state.is_called)):
        if ledger[CALLS_MET, pool] + ledger[CALLS_FAILED, pool] > 0.0:
            state.is_call_open[pool] = 0
            state.is_called[pool] = 0


def fill_late(bar: AccountBar, t: int) -> None:
    state = bar.state
    for i in range(len(state.margin)):
        bar.scratch.carried[i] = state.held.quantities[i]
        if bar.quotes.is_last[i] == 1:
            state.is_pending[i] = 0
    if t > 0:
        fill_pending(bar, t)


def follow_bests(bar: AccountBar) -> None:
    terms, state, quotes = bar.terms, bar.state, bar.quotes
    for i in range(len(state.margin)):
        is_fresh = terms.fill == RESTING and bar.scratch.fresh[i] == 1.0
        if not is_held(state, i):
            state.best[i] = 0.0
        elif is_fresh:
            continue
        elif quotes.is_listed[i] == 1 and has_exits(terms, i):
            watch = Watch(state.best[i], 0.0)
            state.best[i] = follow_prices(
                watch, pick_position(state, i), pick_quote(quotes, i)
            ).best


# -------------------------------------------------------------------------------- step 8: close


def close_portfolio_bar(bar: AccountBar, t: int, wealth: float) -> None:
    terms, state, ledger = bar.terms, bar.state, bar.ledger
    close_options(bar, t)
    mark_closes(bar, t)
    equity = compute_account_equity(terms, state)
    is_lost = state.wallet[IS_RUINED] == 0.0 and earn(ledger) < 0.0
    if is_lost:
        is_lost = is_portfolio_ruined(terms, state, bar.quotes, equity)
    if is_lost:
        end_portfolio(bar, t)
        equity = compute_account_equity(terms, state)
    close_calls(bar, t, is_lost)
    state.wallet[IS_CONVERTING] = 1.0 if is_under_limit(terms, state, equity) else 0.0
    state.wallet[EQUITY] = equity
    follow_highest(terms, state, equity)
    count_bars(state)
    count_assets(state, ledger)
    is_growing = has_wealth(wealth, total(ledger, FLOWS)) and state.wallet[IS_RUINED] == 0.0
    if is_growing:
        state.wallet[UNIT] = state.wallet[SCALE] * (equity + state.wallet[RESERVE])
    state.wallet[PEAK] = max(state.wallet[UNIT], state.wallet[PEAK])
    if is_lost:
        state.wallet[IS_RUINED] = 1.0


def mark_closes(bar: AccountBar, t: int) -> None:
    state, quotes, ledger = bar.state, bar.quotes, bar.ledger
    for i in range(len(state.margin)):
        if is_held(state, i):
            mark_to_ledger(state, i, quotes.mark_close[i], ledger)
            if quotes.is_last[i] == 1:
                delist(bar, t, i)
    book_profits(state, ledger)
    mark_collateral(state, quotes.asset_mark_close, ledger)
    value_at(state, quotes.mark_close, quotes.asset_mark_close)
    settle_debt(bar, t)


def count_bars(state: AccountState) -> None:
    state.wallet[SINCE_POOL] += 1.0
    for i in range(len(state.margin)):
        state.since[i] += 1.0
        state.since_stop[i] += 1.0


def count_assets(state: AccountState, ledger: FloatArray) -> None:
    if len(state.priced) > 0:
        state.wallet[ASSETS_SO_FAR] += total(ledger, COLLATERAL_PNL)
        state.wallet[CONVERTED_SO_FAR] += total(ledger, CONVERSION)


def delist(bar: AccountBar, t: int, i: int) -> None:
    rules, quote = share(pick_instrument(bar.terms, i)), pick_quote(bar.quotes, i)
    before = pick_balances(bar.terms, bar.state, i)
    done = trade(rules, before, bar.quotes.mark_close[i], 0.0, 0.0, 0.0, rules.taker, quote, False)
    enter_fill(bar, t, i, DELISTED, before, done, 0)
