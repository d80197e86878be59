"""What acts at the open of a bar, and whether its extremes can make anything act."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backtest.account.account_records import Watch
from backtest.account.equity_stop import CAUTION, compute_last_equity, is_drawdown_near, is_drawn
from backtest.account.exits import DRAW, NOTHING, PROFIT, STOP, find_exit
from backtest.account.ledger import new_ledger
from backtest.account.option_orders import stop_options
from backtest.account.portfolio_balance import (
    enter_step,
    has_only_position,
    is_pool_short,
    pick_balances,
    value_at,
)
from backtest.account.portfolio_ledger import as_log
from backtest.account.portfolio_liquidation import liquidate_pool
from backtest.account.portfolio_payments import liquidate_isolated
from backtest.account.portfolio_records import (
    CASH,
    HIGHEST,
    AccountBar,
    AccountState,
    MarketBar,
    Terms,
    has_exits,
    has_stops,
    is_held,
    is_isolated,
    is_spot,
    pick_instrument,
    pick_position,
    pick_quote,
    share,
)
from backtest.account.position import compute_stop, find_adverse, is_stopped
from backtest.account.steps import close_by_stop
from backtest.venue import compute_value_at_rate, find_maintenance

if TYPE_CHECKING:
    from backtest.base import FloatArray

# --------------------------------------------------------------------------- step 4: the open


def check_gap(bar: AccountBar, t: int) -> None:
    terms, state, quotes = bar.terms, bar.state, bar.quotes
    had_only_position = terms.equity_stop > 0.0 and has_only_position(terms, state)
    is_any_hit = liquidate_at_gap(bar, t)
    highest = math.nan
    if terms.equity_stop > 0.0 and had_only_position:
        highest = state.wallet[HIGHEST]
    elif terms.equity_stop > 0.0 and is_drawn(terms, state, quotes.open, quotes.asset_mark_open):
        close_account(bar, t, quotes.open, quotes.asset_mark_open)
    for i in range(len(state.margin)):
        is_waiting = is_any_hit and bar.scratch.kind[i] == 1
        if (
            is_held(state, i)
            and quotes.is_listed[i] == 1
            and has_stops(terms, i)
            and not is_waiting
        ):
            kind = find_stop(terms, state, quotes, i, quotes.open[i], quotes.open[i], highest)[0]
            if kind != NOTHING:
                stop_position(bar, t, i, kind, quotes.open[i])


def liquidate_at_gap(bar: AccountBar, t: int) -> bool:
    terms, state, quotes = bar.terms, bar.state, bar.quotes
    value_at(state, quotes.mark_open, quotes.asset_mark_open)
    is_pool_hit = is_pool_short(terms, state)
    if is_pool_hit:
        liquidate_pool(bar, t, has_only_position(terms, state))
    found = is_pool_hit
    for i in range(len(state.margin)):
        is_hit = is_pool_hit
        if is_isolated(terms, i):
            is_hit = False
            if is_held(state, i) and quotes.is_listed[i] == 1:
                is_hit = liquidate_isolated(bar, t, i)
        bar.scratch.kind[i] = 1 if is_hit else 0
        found = found or is_hit
    return found


def find_stop(
    terms: Terms,
    state: AccountState,
    quotes: MarketBar,
    i: int,
    low: float,
    high: float,
    highest: float,
) -> tuple[int, float]:
    rules, quote, position = (
        share(pick_instrument(terms, i)),
        pick_quote(quotes, i),
        pick_position(state, i),
    )
    if rules.has_exits is not None:
        balances = pick_balances(terms, state, i)
        return find_exit(rules, balances, quote, Watch(state.best[i], highest), low, high)
    if rules.has_stop is not None and is_stopped(
        rules, position, find_adverse(position, low, high)
    ):
        return STOP, compute_stop(rules, position)
    return NOTHING, math.nan


def stop_position(bar: AccountBar, t: int, i: int, kind: int, value: float) -> None:
    terms, state, log = bar.terms, bar.state, bar.log
    rules, quote = share(pick_instrument(terms, i)), pick_quote(bar.quotes, i)
    before, row = pick_balances(terms, state, i), log.written[0]
    after, found = close_by_stop(rules, before, new_ledger(), quote, value, kind, as_log(log), t)
    enter_step(bar, i, row, before, after, found)
    state.is_pending[i] = 0
    if kind != PROFIT:
        state.since_stop[i] = -1.0
    if kind == DRAW:
        drop_after_equity_stop(state)


def drop_after_equity_stop(state: AccountState) -> None:
    for i in range(len(state.margin)):
        state.is_pending[i] = 0
        state.since_stop[i] = -1.0
    for k in range(len(state.options.targets)):
        state.options.targets[k] = math.nan


def close_account(bar: AccountBar, t: int, values: FloatArray, prices: FloatArray) -> None:
    state = bar.state
    for i in range(len(state.margin)):
        if is_held(state, i):
            stop_position(bar, t, i, DRAW, values[i])
    stop_options(bar, t)
    state.wallet[HIGHEST] = compute_last_equity(bar.terms, state, values, prices)


# ------------------------------------------------------------------------- can anything act?


def is_quiet(terms: Terms, state: AccountState, quotes: MarketBar) -> bool:
    """Return whether no price of the bar can make anything act; False where it is not certain.

    D = M - level R under brackets is a sum of concave functions of one price each. So it is least
    at an extreme of each, whichever way the prices move.
    """
    if terms.equity_stop > 0.0 and is_drawdown_near(terms, state, quotes):
        return False
    least, gross = state.wallet[CASH], 0.0
    has_pool = False
    for i in range(len(state.margin)):
        if not is_held(state, i):
            continue
        if is_isolated(terms, i):
            if is_isolated_near(terms, state, quotes, i):
                return False
        else:
            has_pool = True
            least += find_least(terms, state, quotes, i)
            gross += abs(state.held.quantities[i] * quotes.mark_open[i])
        if has_stops(terms, i) and is_stop_near(terms, state, quotes, i):
            return False
    if not has_pool:
        return True
    if terms.rules.has_scenarios:
        return False
    for c in range(len(state.held.amounts)):
        amount, tables = state.held.amounts[c], terms.rules.collateral
        at_low = compute_value_at_rate(tables, c, amount * quotes.asset_mark_low[c])
        at_high = compute_value_at_rate(tables, c, amount * quotes.asset_mark_high[c])
        least += min(at_low, at_high)
    return bool(least > CAUTION * gross)


def is_any_near(terms: Terms, state: AccountState, quotes: MarketBar) -> bool:
    for i in range(len(state.margin)):
        if is_held(state, i):
            if is_isolated(terms, i) and is_isolated_near(terms, state, quotes, i):
                return True
            if has_stops(terms, i) and is_stop_near(terms, state, quotes, i):
                return True
    return False


def find_least(terms: Terms, state: AccountState, quotes: MarketBar, i: int) -> float:
    tables, held, level = terms.rules.brackets, state.held.quantities[i], terms.rules.level
    low, high = held * quotes.mark_low[i], held * quotes.mark_high[i]
    of_low, of_high = abs(low), abs(high)
    if is_spot(terms, i) and held > 0.0:
        return float((1.0 - terms.rules.spot.haircuts[i]) * low)
    if tables.are_valued_at_entry[i]:
        of_low = of_high = abs(held * state.held.entries[i])
    at_low = low - level * find_maintenance(tables, i, of_low)
    at_high = high - level * find_maintenance(tables, i, of_high)
    return float(min(at_low, at_high))


def is_isolated_near(terms: Terms, state: AccountState, quotes: MarketBar, i: int) -> bool:
    tables, held, entry = terms.rules.brackets, state.held.quantities[i], state.held.entries[i]
    low, high = held * quotes.mark_low[i], held * quotes.mark_high[i]
    of_low, of_high = abs(low), abs(high)
    caution = CAUTION * max(of_low, of_high)
    if tables.are_valued_at_entry[i]:
        of_low = of_high = abs(held * entry)
    posted = state.margin[i] - held * entry
    at_low = posted + low - find_maintenance(tables, i, of_low)
    at_high = posted + high - find_maintenance(tables, i, of_high)
    return not min(at_low, at_high) > caution


def is_stop_near(terms: Terms, state: AccountState, quotes: MarketBar, i: int) -> bool:
    low, high = quotes.low[i], quotes.high[i]
    if has_exits(terms, i):
        return find_stop(terms, state, quotes, i, low, high, math.nan)[0] != NOTHING
    position = pick_position(state, i)
    return is_stopped(pick_instrument(terms, i), position, find_adverse(position, low, high))
