"""The bar of an account that settles in several currencies.

The steps are those of :mod:`backtest.account.portfolio_bar`, each for one pool after the other.
Pools meet in four places: transfers between them, the equity from which all targets are computed,
the cap of gross leverage, and the close, where the account may be ruined. Money of the bar comes to
the currency of the account at the rates of its open; what the rates themselves change is
``fx_pnl``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.account.currency_close import close_pools
from backtest.account.currency_fills import fill_pools
from backtest.account.currency_pools import (
    FILL_RATE,
    OWN_FAILED,
    OWN_RATE,
    compute_own_equity,
    leave_pool,
    show_pool,
)
from backtest.account.fund_fees import charge_fund_fees
from backtest.account.pool_transfers import cover_pools
from backtest.account.portfolio_balance import (
    value_at,
)
from backtest.account.portfolio_bar import (
    follow_bests,
    set_quotes,
    simulate_portfolio_bar,
)
from backtest.account.portfolio_calls import answer_calls
from backtest.account.portfolio_gap import check_gap
from backtest.account.portfolio_ledger import (
    FLOWS,
    clear_ledger,
)
from backtest.account.portfolio_payments import (
    charge_portfolio_interest,
    convert_collateral,
    pay_portfolio_funding,
    take_portfolio_flows,
)
from backtest.account.portfolio_records import (
    AT_OPEN,
    EARLY,
    ELSEWHERE,
    EQUITY,
    FUNDING_NEXT,
    LATE,
    RESERVE,
    RESTING,
    SCALE,
    UNIT,
    AccountState,
    EventLog,
    MarketBar,
    MarketFeed,
    Scratch,
    Terms,
)
from backtest.account.price_walk import walk
from backtest.account.steps import has_wealth
from backtest.account.time_stop import stamp_openings, stop_by_time

if TYPE_CHECKING:
    from backtest.base import FloatArray


def live_any_bar(
    terms: Terms,
    feed: MarketFeed,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    ledger: FloatArray,
    log: EventLog,
    t: int,
) -> None:
    """Run an account of one pool or several through bar t, up to its close."""
    if terms.n_pools > 1:
        live_currency_bar(terms, feed, state, quotes, scratch, ledger, log, t)
    else:
        simulate_portfolio_bar(terms, feed, state, quotes, scratch, ledger, log, t)


def live_currency_bar(
    terms: Terms,
    feed: MarketFeed,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    ledger: FloatArray,
    log: EventLog,
    t: int,
) -> None:
    """Run all pools through bar t, up to its close; the policies decide afterwards."""
    set_quotes(terms, feed, quotes, t)
    clear_ledger(ledger)
    clear_ledger(scratch.own_ledger)
    wealth, rates = state.wallet[EQUITY] + state.wallet[RESERVE], feed.rate_open[t]
    for pool in range(terms.n_pools):
        state.pools[pool, OWN_FAILED] = 0.0
    if terms.fill == EARLY and t > 0:
        keep_fill_rates(state)
        fill_pools(terms, state, quotes, scratch, ledger, log, t)  # 0
    begin_pools(terms, feed, state, quotes, scratch, ledger, log, t, rates)  # 1
    flows = scratch.own_ledger[FLOWS, 0]
    if flows != 0.0 and has_wealth(wealth, flows):
        state.wallet[SCALE] = state.wallet[UNIT] / (wealth + flows)
    open_pools(terms, feed, state, quotes, scratch, ledger, log, t, rates)  # 2 to 4
    if terms.fill == RESTING:
        keep_fill_rates(state)
    live_pools(terms, feed, state, quotes, scratch, ledger, log, t, rates)  # 5 to 7
    if terms.fill == LATE:
        set_fill_rates(state, feed.rate_close[t])
        fill_pools(terms, state, quotes, scratch, ledger, log, t)
    close_pools(terms, feed, state, quotes, scratch, ledger, log, t, wealth)  # 8


def set_fill_rates(state: AccountState, rates: FloatArray) -> None:
    """Write the rates at which the equity of the targets is added up."""
    for pool in range(len(state.pools)):
        state.pools[pool, FILL_RATE] = rates[pool]


def keep_fill_rates(state: AccountState) -> None:
    """Add up the equity of the targets at the rates of the last close."""
    for pool in range(len(state.pools)):
        state.pools[pool, FILL_RATE] = state.pools[pool, OWN_RATE]


def sum_elsewhere(terms: Terms, state: AccountState, pool: int, column: int) -> float:
    """Return the equity in other pools in the currency of one, at the rates of a column."""
    found = 0.0
    for other in range(terms.n_pools):
        if other != pool:
            found += compute_own_equity(terms, state, other) * state.pools[other, column]
    return float(found / state.pools[pool, column])


def begin_pools(
    terms: Terms,
    feed: MarketFeed,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    ledger: FloatArray,
    log: EventLog,
    t: int,
    rates: FloatArray,
) -> None:
    """Do step 1: flows of the first pool, conversions, transfers, top-ups."""
    value_at(state, quotes.mark_open, quotes.asset_mark_open)
    set_fill_rates(state, rates)
    elsewhere = sum_elsewhere(terms, state, 0, FILL_RATE)
    for pool in range(terms.n_pools):
        show_pool(terms, state, quotes, scratch, ledger, log, pool, rates[pool])
        if pool == 0:
            state.wallet[ELSEWHERE] = elsewhere
            take_portfolio_flows(terms, feed, state, quotes, ledger, log, t)
        convert_collateral(terms, state, quotes, ledger, log, t)
        leave_pool(terms, state, quotes, scratch, ledger, log, pool, rates[pool])
    if terms.has_transfers:
        cover_pools(terms, state, quotes, scratch, ledger, log, t, rates)
    for pool in range(terms.n_pools):
        show_pool(terms, state, quotes, scratch, ledger, log, pool, rates[pool])
        answer_calls(terms, state, quotes, ledger, log, t)
        leave_pool(terms, state, quotes, scratch, ledger, log, pool, rates[pool])


def open_pools(
    terms: Terms,
    feed: MarketFeed,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    ledger: FloatArray,
    log: EventLog,
    t: int,
    rates: FloatArray,
) -> None:
    """Do steps 2 to 4: funding at the open, interest, fees of a fund, the gap check."""
    first = state.cursor[FUNDING_NEXT]
    for pool in range(terms.n_pools):
        show_pool(terms, state, quotes, scratch, ledger, log, pool, rates[pool])
        state.cursor[FUNDING_NEXT] = first  # all pools look at all events, and pay their own
        pay_portfolio_funding(terms, feed, state, quotes, ledger, log, t, 1)
        if terms.has_interest and t > 0:
            charge_portfolio_interest(terms, feed, state, quotes, ledger, log, t)
        if terms.has_fund_fees and t > 0 and pool == 0:
            charge_fund_fees(terms, feed, state, quotes, ledger, log, t)
        check_gap(terms, state, quotes, scratch, ledger, log, t)
        stop_by_time(terms, state, quotes, ledger, log, t, 1.0 * feed.time[t])
        leave_pool(terms, state, quotes, scratch, ledger, log, pool, rates[pool])


def live_pools(
    terms: Terms,
    feed: MarketFeed,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    ledger: FloatArray,
    log: EventLog,
    t: int,
    rates: FloatArray,
) -> None:
    """Do steps 5 to 7: the fills at the open, funding inside the bar, the walk."""
    first, time = state.cursor[FUNDING_NEXT], 1.0 * feed.time[t]
    if terms.fill in (AT_OPEN, RESTING) and t > 0:
        fill_pools(terms, state, quotes, scratch, ledger, log, t)
    for pool in range(terms.n_pools):
        show_pool(terms, state, quotes, scratch, ledger, log, pool, rates[pool])
        stamp_openings(terms, state, time)
        state.cursor[FUNDING_NEXT] = first
        pay_portfolio_funding(terms, feed, state, quotes, ledger, log, t, 0)
        walk(terms, state, quotes, scratch, ledger, log, t)
        if terms.fill == RESTING:
            stamp_openings(terms, state, time)
        follow_bests(terms, state, quotes, scratch)
        leave_pool(terms, state, quotes, scratch, ledger, log, pool, rates[pool])
