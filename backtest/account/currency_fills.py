"""Fills of an account that settles in several currencies: steps 0, 5 and 8 of a bar."""

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
    AccountBar,
    MarketBar,
)

if TYPE_CHECKING:
    from backtest.base import FloatArray


# ---------------------------------------------------------------------------------- the fills


def fill_pools(bar: AccountBar, t: int) -> None:
    prepare_fills(bar)
    for pool in range(bar.terms.n_pools):
        fill_pool(bar, t, pool)


def prepare_fills(bar: AccountBar) -> None:
    value_at(bar.state, bar.quotes.fill, bar.quotes.asset_fill)
    for pool in range(bar.terms.n_pools):
        own = bar.state.pools[pool]
        own[NOW] = own[OWN_EQUITY]
        if bar.terms.fill != RESTING:
            own[NOW] = compute_own_equity(bar.terms, bar.state, pool)
        own[WANTED], own[REST], own[ORDERED] = 0.0, 0.0, 0.0
    if bar.terms.max_gross_leverage < math.inf:
        for k in range(2 * bar.terms.n_pools):
            pool, is_ordering = k % bar.terms.n_pools, k >= bar.terms.n_pools
            measure_targets(bar, pool, is_ordering)


def begin_fill(bar: AccountBar, pool: int) -> None:
    rate, moneys = bar.state.pools[pool, FILL_RATE], (NOW, WANTED, REST, ORDERED)
    show_pool(bar, pool, rate)
    bar.state.wallet[ELSEWHERE] = 0.0
    for other in range(bar.terms.n_pools):
        if other != pool:
            scale = bar.state.pools[other, FILL_RATE] / rate
            bar.state.wallet[ELSEWHERE] += bar.state.pools[other, NOW] * scale
            for k in range(3):
                bar.scratch.elsewhere[k] += bar.state.pools[other, moneys[k + 1]] * scale


def end_fill(bar: AccountBar, pool: int) -> None:
    bar.scratch.elsewhere[:] = 0.0
    rate = bar.state.pools[pool, FILL_RATE]
    leave_pool(bar, pool, rate)


def measure_targets(bar: AccountBar, pool: int, is_ordering: bool) -> None:
    """Write the sums of a pool that the cap of gross leverage needs, in its currency."""
    begin_fill(bar, pool)
    own, wanted, rest = bar.state.pools[pool], bar.scratch.elsewhere[0], bar.scratch.elsewhere[1]
    value_at(bar.state, bar.quotes.fill, bar.quotes.asset_fill)
    equity = (
        bar.state.wallet[EQUITY]
        if bar.terms.fill == RESTING
        else own[NOW] + bar.state.wallet[ELSEWHERE]
    )
    if bar.terms.fill == RESTING:
        set_fills(bar.quotes, bar.quotes.decided)
    if is_ordering:
        choose_within_bands(bar, equity)
        own[ORDERED] = sum_orders(bar.state, bar.quotes, bar.scratch) - bar.scratch.elsewhere[2]
    else:
        for i in range(len(bar.state.margin)):
            bar.scratch.kind[i] = aim(bar, equity, i)
        most = bar.terms.max_gross_leverage * equity
        own[WANTED], own[REST] = sum_targets(bar.state, bar.quotes, bar.scratch, most)
        own[WANTED] -= wanted
        own[REST] -= rest
    if bar.terms.fill == RESTING:
        set_fills(bar.quotes, bar.quotes.open)
    end_fill(bar, pool)


def set_fills(quotes: MarketBar, values: FloatArray) -> None:
    for i in range(len(values)):
        quotes.fill[i] = values[i]


def fill_pool(bar: AccountBar, t: int, pool: int) -> None:
    begin_fill(bar, pool)
    if bar.terms.fill == EARLY:
        fill_early(bar, t)
    elif bar.terms.fill == LATE:
        fill_late(bar, t)
    else:
        fill_pending(bar, t)
    end_fill(bar, pool)
