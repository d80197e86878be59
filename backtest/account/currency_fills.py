"""Fills of an account that settles in several currencies: steps 0, 5 and 8 of a bar.

Targets come from the equity of all pools, and orders are cut by their own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backtest.account.currency_pools import (
    FILL_RATE,
    NOW,
    ORDERED,
    OWN_EQUITY,
    REST,
    WANTED,
    compute_own_equity,
    leave_pool,
    show_pool,
)
from backtest.account.gross_cap import sum_orders, sum_targets
from backtest.account.portfolio_balance import (
    value_at,
)
from backtest.account.portfolio_bar import (
    fill_early,
    fill_late,
    fill_pending,
)
from backtest.account.portfolio_orders import aim, choose_within_bands
from backtest.account.portfolio_records import (
    EARLY,
    ELSEWHERE,
    EQUITY,
    LATE,
    RESTING,
    AccountState,
    EventLog,
    MarketBar,
    Scratch,
    Terms,
)

if TYPE_CHECKING:
    from backtest.base import FloatArray


# ---------------------------------------------------------------------------------- the fills


def fill_pools(
    terms: Terms,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    ledger: FloatArray,
    log: EventLog,
    t: int,
) -> None:
    """Fill at closes: steps 0 and 8."""
    prepare_fills(terms, state, quotes, scratch, ledger, log)
    for pool in range(terms.n_pools):
        fill_pool(terms, state, quotes, scratch, ledger, log, t, pool)


def prepare_fills(
    terms: Terms,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    ledger: FloatArray,
    log: EventLog,
) -> None:
    """Write the equity in other pools, and under a cap of gross leverage their notionals.

    Limit orders have the equity of their decision's close.
    """
    value_at(state, quotes.fill, quotes.asset_fill)
    for pool in range(terms.n_pools):
        own = state.pools[pool]
        own[NOW] = own[OWN_EQUITY]
        if terms.fill != RESTING:
            own[NOW] = compute_own_equity(terms, state, pool)
        own[WANTED], own[REST], own[ORDERED] = 0.0, 0.0, 0.0
    if terms.max_gross_leverage < math.inf:
        for k in range(2 * terms.n_pools):
            pool, is_ordering = k % terms.n_pools, k >= terms.n_pools
            measure_targets(terms, state, quotes, scratch, ledger, log, pool, is_ordering)


def begin_fill(
    terms: Terms,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    ledger: FloatArray,
    log: EventLog,
    pool: int,
) -> None:
    """Show a pool with what the others have: their equity, targets and orders."""
    rate, moneys = state.pools[pool, FILL_RATE], (NOW, WANTED, REST, ORDERED)
    show_pool(terms, state, quotes, scratch, ledger, log, pool, rate)
    state.wallet[ELSEWHERE] = 0.0
    for other in range(terms.n_pools):
        if other != pool:
            scale = state.pools[other, FILL_RATE] / rate
            state.wallet[ELSEWHERE] += state.pools[other, NOW] * scale
            for k in range(3):
                scratch.elsewhere[k] += state.pools[other, moneys[k + 1]] * scale


def end_fill(
    terms: Terms,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    ledger: FloatArray,
    log: EventLog,
    pool: int,
) -> None:
    """Show all pools again."""
    scratch.elsewhere[:] = 0.0
    rate = state.pools[pool, FILL_RATE]
    leave_pool(terms, state, quotes, scratch, ledger, log, pool, rate)


def measure_targets(
    terms: Terms,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    ledger: FloatArray,
    log: EventLog,
    pool: int,
    is_ordering: bool,
) -> None:
    """Write the sums of a pool that the cap of gross leverage needs, in its currency.

    Its targets and what it holds without one; once all pools have these, what it orders.
    """
    begin_fill(terms, state, quotes, scratch, ledger, log, pool)
    own, wanted, rest = state.pools[pool], scratch.elsewhere[0], scratch.elsewhere[1]
    value_at(state, quotes.fill, quotes.asset_fill)
    equity = state.wallet[EQUITY] if terms.fill == RESTING else own[NOW] + state.wallet[ELSEWHERE]
    if terms.fill == RESTING:
        set_fills(quotes, quotes.decided)
    if is_ordering:
        choose_within_bands(terms, state, quotes, scratch, equity)
        own[ORDERED] = sum_orders(state, quotes, scratch) - scratch.elsewhere[2]
    else:
        for i in range(len(state.margin)):
            scratch.kind[i] = aim(terms, state, quotes, scratch, equity, i)
        most = terms.max_gross_leverage * equity
        own[WANTED], own[REST] = sum_targets(state, quotes, scratch, most)
        own[WANTED] -= wanted
        own[REST] -= rest
    if terms.fill == RESTING:
        set_fills(quotes, quotes.open)
    end_fill(terms, state, quotes, scratch, ledger, log, pool)


def set_fills(quotes: MarketBar, values: FloatArray) -> None:
    """Write the values at which orders fill."""
    for i in range(len(values)):
        quotes.fill[i] = values[i]


def fill_pool(
    terms: Terms,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    ledger: FloatArray,
    log: EventLog,
    t: int,
    pool: int,
) -> None:
    """Fill the decisions of one pool, from the equity of all."""
    begin_fill(terms, state, quotes, scratch, ledger, log, pool)
    if terms.fill == EARLY:
        fill_early(terms, state, quotes, scratch, ledger, log, t)
    elif terms.fill == LATE:
        fill_late(terms, state, quotes, scratch, ledger, log, t)
    else:
        fill_pending(terms, state, quotes, scratch, ledger, log, t)
    end_fill(terms, state, quotes, scratch, ledger, log, pool)
