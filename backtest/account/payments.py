"""Flows, funding and interest, and the end of an account that is ruined."""

from __future__ import annotations

import math

from backtest.account import records as r
from backtest.account.account_records import Position
from backtest.account.balance import (
    compute_account_equity,
    compute_balance,
    compute_initial_needed,
    compute_pool,
    count_cross,
    count_open,
    enter_step,
    has_collateral,
    has_one_position,
    pick_balances,
    put_balances,
    sell_collateral,
    value_at,
)
from backtest.account.ledger import BAD_DEBT as DEBT
from backtest.account.ledger import FLOW, REFUSED, RUINED, log_liquidation
from backtest.account.ledger import FUNDING as FUNDED
from backtest.account.ledger import INTEREST as CHARGED
from backtest.account.liquidation import add_from_wallet, can_add, liquidate
from backtest.account.options import expire_options, name_option, trade_option
from backtest.account.orders import find_limit
from backtest.account.position import (
    NOTHING_LEFT,
    add_margin,
    compute_free_of_one,
    compute_value_of,
    is_failing,
    pay_funding,
    pay_in,
)
from backtest.account.records import (
    AccountBar,
    AccountState,
    MarketBar,
    MarketFeed,
    Terms,
    as_log,
    enter_liquidation,
    is_held,
    is_isolated,
    is_spot,
    note,
    pick_instrument,
    pick_position,
    pick_quote,
    put_position,
    share,
)
from backtest.base.units import TOLERANCE
from backtest.venue import compute_best_leverage

# --------------------------------------------------------------------------- step 1: flows


def take_flows(bar: AccountBar, t: int) -> None:
    terms, feed, state = bar.terms, bar.feed, bar.state
    quotes, ledger, log = bar.quotes, bar.ledger, bar.log
    last = ledger.shape[1] - 1
    flow = state.cursor[r.FLOW_NEXT]
    while flow < len(feed.flow_bar) and feed.flow_bar[flow] == t:
        amount = feed.flow_amount[flow]
        value_at(state, quotes.mark_open, quotes.asset_mark_open)
        wealth = compute_account_equity(terms, state) + state.wallet[r.RESERVE]
        moved = amount
        if amount < 0.0:
            moved = -min(-amount, compute_withdrawable(bar))
        state.wallet[r.CASH] += moved
        state.wallet[r.PAID_IN] = pay_in(state.wallet[r.PAID_IN], wealth, moved)
        ledger[r.FLOWS, last] += moved
        if moved != 0.0:
            note(log, t, -1, FLOW, 1.0, 0.0, moved)
        if moved != amount:
            note(log, t, -1, REFUSED, 1.0, 0.0, moved - amount)
        flow += 1
    state.cursor[r.FLOW_NEXT] = flow


def compute_withdrawable(bar: AccountBar) -> float:
    terms, state = bar.terms, bar.state
    if has_one_position(terms, state):
        rules = share(pick_instrument(terms, 0))
        return compute_free_of_one(rules, pick_balances(terms, state, 0), pick_quote(bar.quotes, 0))
    return compute_free(terms, state)


def compute_free(terms: Terms, state: AccountState) -> float:
    free = compute_pool(terms, state)
    for i in range(len(state.margin)):
        if is_held(state, i) and not is_isolated(terms, i):
            rules = share(pick_instrument(terms, i))
            if rules.has_profit_share is not None:
                profit = state.held.values[i] - state.held.entries[i]
                profit *= state.held.quantities[i]
                free -= (1.0 - rules.profit_share) * max(profit, 0.0)
    free -= compute_initial_needed(terms, state)
    limit = terms.negative_limit if has_collateral(state) else 0.0
    return max(min(free, compute_balance(terms, state) + limit), 0.0)


def convert_collateral(bar: AccountBar, t: int) -> None:
    state, quotes = bar.state, bar.quotes
    if state.wallet[r.IS_CONVERTING] == 0.0:
        return
    state.wallet[r.IS_CONVERTING] = 0.0
    value_at(state, quotes.open, quotes.asset_open)
    missing = -compute_balance(bar.terms, state)
    if missing > 0.0:
        sell_collateral(bar, t, missing)


# ------------------------------------------------------------------- steps 2 and 6: funding


def is_funding_due(feed: MarketFeed, state: AccountState, t: int, is_open: int) -> bool:
    event = state.cursor[r.FUNDING_NEXT]
    if event >= len(feed.funding_bar) or feed.funding_bar[event] != t:
        return False
    return bool(feed.funding_is_open[event] == is_open)


def settle_funding(bar: AccountBar, t: int, is_open: int) -> None:
    terms, feed, state = bar.terms, bar.feed, bar.state
    while is_funding_due(feed, state, t, is_open):
        event = state.cursor[r.FUNDING_NEXT]
        state.cursor[r.FUNDING_NEXT] = event + 1
        if is_open == 0:
            expire_options(bar, t, 1, feed.funding_time[event])
        i = feed.funding_instrument[event]
        rate = feed.funding_rate[event]
        state.last_funding[i] = rate
        if is_held(state, i):
            rules = share(pick_instrument(terms, i))
            value = bar.quotes.mark_open[i]
            if not math.isnan(feed.funding_price[event]):
                value = compute_value_of(rules, feed.funding_price[event])
            before = pick_balances(terms, state, i)
            after, paid = pay_funding(rules, before, value, rate)
            put_balances(terms, state, i, before, after)
            bar.ledger[r.FUNDING, i] += paid
            note(bar.log, t, i, FUNDED, value, after.positions[0].quantity, paid)
            if is_isolated(terms, i):
                liquidate_isolated(bar, t, i)


def liquidate_isolated(bar: AccountBar, t: int, i: int) -> bool:
    terms, state, log = bar.terms, bar.state, bar.log
    rules, quote = share(pick_instrument(terms, i)), pick_quote(bar.quotes, i)
    before, row, opened = pick_balances(terms, state, i), log.written[0], quote.mark_open
    after, is_failed = before, is_failing(rules, before, opened, quote.multiplier)
    if is_failed and can_add(rules, before):
        after = add_from_wallet(rules, before, opened, quote, as_log(log), t)
        is_failed = is_failing(rules, after, opened, quote.multiplier)
    if is_failed:
        done = liquidate(rules, after, opened, quote)
        log_liquidation(as_log(log), t, opened, done)
        enter_liquidation(bar.ledger, i, done)
        after = done.balances
    enter_step(bar, i, row, before, after)
    if is_failed:
        drop_after_liquidation(terms, state, i)
    return is_failed


def drop_after_liquidation(terms: Terms, state: AccountState, i: int) -> None:
    state.is_pending[i] = 0
    state.since[i] = -1.0
    if terms.is_halting:
        state.is_halted[i] = 1


def drop_after_pool_failure(terms: Terms, state: AccountState) -> None:
    state.wallet[r.POOL_FAILED] = 1.0
    state.wallet[r.SINCE_POOL] = -1.0
    if terms.is_halting:
        state.wallet[r.IS_OVER] = 1.0
    for i in range(len(state.margin)):
        if not is_isolated(terms, i):
            state.is_pending[i] = 0
            state.since[i] = -1.0
    for k in range(len(state.options.targets)):
        state.options.targets[k] = math.nan


# ------------------------------------------------------------------------- step 3: interest


def charge_interest(bar: AccountBar, t: int) -> None:
    terms, feed, state, ledger = bar.terms, bar.feed, bar.state, bar.ledger
    before = max(t - 1, 0)
    years = feed.years[min(t, len(feed.years) - 1)]
    borrow = feed.borrow_rate[min(before, len(feed.borrow_rate) - 1)]
    cash = feed.cash_rate[min(before, len(feed.cash_rate) - 1)]
    short = feed.short_rate[min(before, len(feed.short_rate) - 1)]
    base, lent = state.wallet[r.CASH], 0.0
    for i in range(len(state.margin)):
        if is_isolated(terms, i):
            base += state.margin[i]
        if is_held(state, i):
            position = pick_position(state, i)
            value = position.quantity * position.entry
            if terms.is_loan:
                base -= value if is_isolated(terms, i) else 0.0
                if position.quantity < 0.0:
                    lent += abs(position.quantity * bar.quotes.mark_open[i])
            elif not is_isolated(terms, i) and not is_spot(terms, i):
                base += value
    interest = -base * (cash if base > 0.0 else borrow) * years
    if terms.is_loan and lent > 0.0:
        interest += lent * short * years
    if interest != 0.0:
        state.wallet[r.CASH] -= interest
        ledger[r.INTEREST, ledger.shape[1] - 1] += interest
        note(bar.log, t, -1, CHARGED, 1.0, 0.0, interest)
    if terms.rules.spot.has_any:
        charge_coins(bar, t, years)
    if state.wallet[r.CASH] < 0.0 and count_cross(terms, state) == 0 and not has_collateral(state):
        take_from_isolated(terms, state)


def charge_coins(bar: AccountBar, t: int, years: float) -> None:
    feed, state, quotes, log = bar.feed, bar.state, bar.quotes, bar.log
    for i in range(len(state.margin)):
        if is_spot(bar.terms, i) and state.held.quantities[i] < 0.0:
            rate = feed.coin_rate[min(max(t - 1, 0), len(feed.coin_rate) - 1), i]
            interest = abs(state.held.quantities[i] * quotes.mark_open[i]) * rate * years
            if interest != 0.0:
                state.wallet[r.CASH] -= interest
                bar.ledger[r.INTEREST, i] += interest
                note(log, t, i, CHARGED, quotes.mark_open[i], state.held.quantities[i], interest)


def take_from_isolated(terms: Terms, state: AccountState) -> None:
    for i in range(len(state.margin)):
        if is_isolated(terms, i) and is_held(state, i) and state.wallet[r.CASH] < 0.0:
            taken = -state.wallet[r.CASH]
            if not has_one_position(terms, state):
                taken = min(max(state.margin[i], 0.0), taken)
            put_position(state, i, add_margin(pick_position(state, i), -taken))
            state.wallet[r.CASH] += taken


# -------------------------------------------------------------------------- the end of the account


def settle_debt(bar: AccountBar, t: int) -> None:
    terms, state, ledger = bar.terms, bar.state, bar.ledger
    debt = 0.0
    if count_cross(terms, state) == 0 and not has_collateral(state) and state.wallet[r.CASH] < 0.0:
        debt = -state.wallet[r.CASH]
        state.wallet[r.CASH] = 0.0
    equity = compute_account_equity(terms, state)
    if equity < 0.0:
        debt -= equity
        state.wallet[r.CASH] -= equity
    if debt != 0.0:
        ledger[r.BAD_DEBT, ledger.shape[1] - 1] += debt
        note(bar.log, t, -1, DEBT, 1.0, 0.0, debt)


def is_account_ruined(terms: Terms, state: AccountState, quotes: MarketBar, equity: float) -> bool:
    wealth, paid_in = equity + state.wallet[r.RESERVE], state.wallet[r.PAID_IN]
    is_under = wealth <= terms.ruin_at * paid_in * (1.0 + TOLERANCE)
    is_under = is_under or equity <= NOTHING_LEFT * paid_in * (1.0 + TOLERANCE)
    if is_under or count_open(state) > 0:
        return bool(is_under)
    return is_poor(terms, quotes, wealth)


def is_poor(terms: Terms, quotes: MarketBar, wealth: float) -> bool:
    found = False
    for i in range(len(quotes.open)):
        if quotes.is_listed[i] == 1:
            rules, quote = share(pick_instrument(terms, i)), pick_quote(quotes, i)
            most = compute_best_leverage(rules.margin, quote.initial)
            limit = find_limit(rules, quote)
            most = limit if limit < most else most
            least = max(rules.min_notional, rules.lot * abs(quote.mark_close))
            is_ban = rules.has_limits is not None and not limit > 0.0
            if rules.has_rounding is None or is_ban:
                return False
            if not wealth * most < least * (1.0 - TOLERANCE):
                return False
            found = True
    return found


def end_account(bar: AccountBar, t: int) -> None:
    state, ledger, log = bar.state, bar.ledger, bar.log
    if count_open(state) == 0:
        note(log, t, -1, RUINED, 1.0, 0.0, 0.0)
    for i in range(len(state.margin)):
        if is_held(state, i):
            value, held = bar.quotes.mark_close[i], state.held.quantities[i]
            note(log, t, i, RUINED, value, 0.0 - held, abs(held) * abs(value))
            ledger[r.TRADED, i] += abs(held) * abs(value)
            if is_isolated(bar.terms, i):
                profit = held * (value - state.held.entries[i])
                state.wallet[r.CASH] += state.margin[i] + profit
            else:
                state.wallet[r.CASH] += held * value
            put_position(state, i, Position(0.0, 0.0, 0.0, value))
    for k in range(len(state.options.targets)):
        held, mark = state.options.positions.quantities[k], state.options.positions.marks[k]
        if held != 0.0:
            trade_option(state, ledger, k, 0.0, mark)
            note(log, t, name_option(state, k), RUINED, mark, 0.0 - held, abs(held) * mark)
    if count_open(state) == 0 and not has_collateral(state) and state.wallet[r.CASH] < 0.0:
        debt = -state.wallet[r.CASH]
        state.wallet[r.CASH] = 0.0
        ledger[r.BAD_DEBT, ledger.shape[1] - 1] += debt
        note(log, t, -1, DEBT, 1.0, 0.0, debt)
