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
    AccountBar,
    AccountState,
    Terms,
)
from backtest.account.price_walk import walk
from backtest.account.steps import has_wealth
from backtest.account.time_stop import stamp_openings, stop_by_time

if TYPE_CHECKING:
    from backtest.base import FloatArray


def live_any_bar(bar: AccountBar, t: int) -> None:
    if bar.terms.n_pools > 1:
        live_currency_bar(bar, t)
    else:
        simulate_portfolio_bar(bar, t)


def live_currency_bar(bar: AccountBar, t: int) -> None:
    set_quotes(bar.terms, bar.feed, bar.quotes, t)
    clear_ledger(bar.ledger)
    clear_ledger(bar.scratch.own_ledger)
    wealth, rates = bar.state.wallet[EQUITY] + bar.state.wallet[RESERVE], bar.feed.rate_open[t]
    for pool in range(bar.terms.n_pools):
        bar.state.pools[pool, OWN_FAILED] = 0.0
    if bar.terms.fill == EARLY and t > 0:
        keep_fill_rates(bar.state)
        fill_pools(bar, t)  # 0
    begin_pools(bar, t, rates)  # 1
    flows = bar.scratch.own_ledger[FLOWS, 0]
    if flows != 0.0 and has_wealth(wealth, flows):
        bar.state.wallet[SCALE] = bar.state.wallet[UNIT] / (wealth + flows)
    open_pools(bar, t, rates)  # 2 to 4
    if bar.terms.fill == RESTING:
        keep_fill_rates(bar.state)
    live_pools(bar, t, rates)  # 5 to 7
    if bar.terms.fill == LATE:
        set_fill_rates(bar.state, bar.feed.rate_close[t])
        fill_pools(bar, t)
    close_pools(bar, t, wealth)  # 8


def set_fill_rates(state: AccountState, rates: FloatArray) -> None:
    for pool in range(len(state.pools)):
        state.pools[pool, FILL_RATE] = rates[pool]


def keep_fill_rates(state: AccountState) -> None:
    for pool in range(len(state.pools)):
        state.pools[pool, FILL_RATE] = state.pools[pool, OWN_RATE]


def sum_elsewhere(terms: Terms, state: AccountState, pool: int, column: int) -> float:
    """Return the equity in other pools in the currency of one, at the rates of a column."""
    found = 0.0
    for other in range(terms.n_pools):
        if other != pool:
            found += compute_own_equity(terms, state, other) * state.pools[other, column]
    return float(found / state.pools[pool, column])


def begin_pools(bar: AccountBar, t: int, rates: FloatArray) -> None:
    value_at(bar.state, bar.quotes.mark_open, bar.quotes.asset_mark_open)
    set_fill_rates(bar.state, rates)
    elsewhere = sum_elsewhere(bar.terms, bar.state, 0, FILL_RATE)
    for pool in range(bar.terms.n_pools):
        show_pool(bar, pool, rates[pool])
        if pool == 0:
            bar.state.wallet[ELSEWHERE] = elsewhere
            take_portfolio_flows(bar, t)
        convert_collateral(bar, t)
        leave_pool(bar, pool, rates[pool])
    if bar.terms.has_transfers:
        cover_pools(bar, t, rates)
    for pool in range(bar.terms.n_pools):
        show_pool(bar, pool, rates[pool])
        answer_calls(bar, t)
        leave_pool(bar, pool, rates[pool])


def open_pools(bar: AccountBar, t: int, rates: FloatArray) -> None:
    first = bar.state.cursor[FUNDING_NEXT]
    for pool in range(bar.terms.n_pools):
        show_pool(bar, pool, rates[pool])
        bar.state.cursor[FUNDING_NEXT] = first  # all pools look at all events, and pay their own
        pay_portfolio_funding(bar, t, 1)
        if bar.terms.has_interest and t > 0:
            charge_portfolio_interest(bar, t)
        check_gap(bar, t)
        stop_by_time(bar, t, 1.0 * bar.feed.time[t])
        leave_pool(bar, pool, rates[pool])


def live_pools(bar: AccountBar, t: int, rates: FloatArray) -> None:
    first, time = bar.state.cursor[FUNDING_NEXT], 1.0 * bar.feed.time[t]
    if bar.terms.fill in (AT_OPEN, RESTING) and t > 0:
        fill_pools(bar, t)
    for pool in range(bar.terms.n_pools):
        show_pool(bar, pool, rates[pool])
        stamp_openings(bar.terms, bar.state, time)
        bar.state.cursor[FUNDING_NEXT] = first
        pay_portfolio_funding(bar, t, 0)
        walk(bar, t)
        if bar.terms.fill == RESTING:
            stamp_openings(bar.terms, bar.state, time)
        follow_bests(bar)
        leave_pool(bar, pool, rates[pool])
