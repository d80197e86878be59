"""What the loop of several positions shows and records of the pools of an account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backtest.account import (
    AccountBar,
    AccountState,
    MarketFeed,
    Terms,
    compute_balance,
    compute_initial_needed,
    compute_pool,
    is_isolated,
    leave_pool,
    show_pool,
)
from backtest.account.currency_pools import (
    OWN_BACKING,
    OWN_BALANCE,
    OWN_CASH,
    OWN_EQUITY,
    OWN_FX,
    OWN_INITIAL,
    OWN_MOVED,
    OWN_NEEDED,
    OWN_OPEN,
    OWN_RATE,
)
from backtest.engine.portfolio_close import look_at_close
from backtest.engine.portfolio_tally import CloseFacts
from backtest.measures import raise_ratio
from backtest.venue import compute_value_at_rate

if TYPE_CHECKING:
    from backtest.base import FloatArray


def look_at_account(bar: AccountBar, t: int, has_prices: bool) -> CloseFacts:
    """Return what a close looks like; of several pools, the one nearest to failure.

    Money is in the currency of the account.
    """
    terms, state = bar.terms, bar.state
    if terms.n_pools == 1:
        return look_at_close(bar, has_prices)
    gross, needed, backing, is_near = 0.0, 0.0, 1.0, False
    worst_needed, worst_backing = 0.0, 1.0
    for pool in range(terms.n_pools):
        rate, own = bar.feed.rate_close[t, pool], state.pools[pool]
        show_pool(bar, pool, rate)
        close = look_at_close(bar, has_prices)
        own[OWN_BALANCE] = compute_balance(terms, state)
        own[OWN_BACKING] = compute_pool(terms, state)
        own[OWN_NEEDED] = close.needed
        own[OWN_INITIAL] = compute_initial_needed(terms, state)
        leave_pool(bar, pool, rate)
        gross += close.gross * rate
        is_near = is_near or close.is_near
        needed, backing = raise_ratio(
            needed, backing, close.needed * rate, close.backing * rate, close.needed > 0.0
        )
        worst_needed, worst_backing = raise_ratio(
            worst_needed,
            worst_backing,
            close.worst_needed * rate,
            close.worst_backing * rate,
            close.worst_needed > 0.0,
        )
    return CloseFacts(
        gross=gross,
        backing=backing,
        needed=needed,
        worst_backing=worst_backing,
        worst_needed=worst_needed,
        is_near=is_near,
    )


def compute_all_initial(terms: Terms, state: AccountState) -> float:
    found = compute_initial_needed(terms, state)
    for i in range(len(state.margin)):
        if is_isolated(terms, i):
            found += state.margin[i]
    return found


def count_held(
    terms: Terms, feed: MarketFeed, held: FloatArray, counted: FloatArray, t: int
) -> FloatArray:
    if terms.n_pools == 1:
        return held
    for i in range(len(held)):
        counted[i] = held[i] * feed.rate_open[t, terms.pools[i]]
    return counted


def find_rate(terms: Terms, state: AccountState, i: int) -> float:
    """Return the price of the currency of an instrument at the last close."""
    return float(state.pools[terms.pools[i], OWN_RATE]) if terms.n_pools > 1 else 1.0


def sum_balance(terms: Terms, state: AccountState) -> float:
    """Return the settlement balance; of several pools, their sum in the currency of the account."""
    if terms.n_pools == 1:
        return compute_balance(terms, state)
    found = 0.0
    for pool in range(terms.n_pools):
        found += state.pools[pool, OWN_BALANCE] * state.pools[pool, OWN_RATE]
    return float(found)


def sum_backing(state: AccountState) -> float:
    """Return what backs positions in all pools, in the currency of the account."""
    found = 0.0
    for pool in range(len(state.pools)):
        found += state.pools[pool, OWN_BACKING] * state.pools[pool, OWN_RATE]
    return float(found)


def record_pools(tape: Any, terms: Terms, state: AccountState, close: CloseFacts, t: int) -> None:
    """Write the pools of bar t, each in its currency, and their sums in that of the account."""
    closes, pools, n = tape.record.closes, tape.record.pools, len(state.margin)
    closes.backing[t] = close.backing if close.needed > 0.0 else sum_backing(state)
    for c in range(len(state.held.amounts)):
        rate = state.pools[terms.pools[n + c], OWN_RATE]
        value = state.held.amounts[c] * state.held.prices[c]
        closes.collateral[t] += value * rate
        counted = compute_value_at_rate(terms.rules.collateral, c, value)
        closes.collateral_at_rate[t] += counted * rate
    for pool in range(terms.n_pools):
        own = state.pools[pool]
        closes.balance[t] += own[OWN_BALANCE] * own[OWN_RATE]
        closes.initial[t] += own[OWN_INITIAL] * own[OWN_RATE]
        pools.equity[t, pool], pools.cash[t, pool] = own[OWN_EQUITY], own[OWN_CASH]
        pools.balance[t, pool], pools.backing[t, pool] = own[OWN_BALANCE], own[OWN_BACKING]
        pools.requirement[t, pool], pools.initial[t, pool] = own[OWN_NEEDED], own[OWN_INITIAL]
        pools.transferred[t, pool], pools.rate[t, pool] = own[OWN_MOVED], own[OWN_RATE]
        pools.fx_pnl[t, pool] = own[OWN_FX]
    for i in range(n):
        if is_isolated(terms, i):
            closes.initial[t] += state.margin[i] * find_rate(terms, state, i)
        pools.position_rate[t, i] = find_rate(terms, state, i)
        pools.position_open[t, i] = state.pools[terms.pools[i], OWN_OPEN]
