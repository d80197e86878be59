"""The close of a bar of an account that settles in several currencies."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backtest.account.contagion import record_falls
from backtest.account.currency_pools import (
    NOW,
    OWN_CASH,
    OWN_EQUITY,
    OWN_FX,
    OWN_MOVED,
    OWN_OPEN,
    OWN_RATE,
    OWN_SINCE,
    compute_own_equity,
    fold_ledger,
    leave_pool,
    show_pool,
)
from backtest.account.ledger import RUINED
from backtest.account.portfolio_balance import (
    count_open,
    is_below,
)
from backtest.account.portfolio_bar import (
    count_assets,
    count_bars,
    mark_closes,
)
from backtest.account.portfolio_calls import close_calls
from backtest.account.portfolio_ledger import (
    FLOWS,
    FX_PNL,
    TRANSFERRED,
    earn,
    note,
)
from backtest.account.portfolio_records import (
    CASH,
    EQUITY,
    IS_CONVERTING,
    IS_RUINED,
    PAID_IN,
    PEAK,
    RESERVE,
    SCALE,
    SINCE_POOL,
    UNIT,
    AccountBar,
    AccountState,
    Scratch,
    Terms,
)
from backtest.account.portfolio_ruin import end_portfolio, is_portfolio_poor
from backtest.account.ruin import NOTHING_LEFT
from backtest.account.steps import has_wealth
from backtest.base.units import TOLERANCE

if TYPE_CHECKING:
    from backtest.base import FloatArray


# -------------------------------------------------------------------------------- step 8: close


def close_pools(bar: AccountBar, t: int, wealth: float) -> None:
    opens, rates, earned = bar.feed.rate_open[t], bar.feed.rate_close[t], 0.0
    for pool in range(bar.terms.n_pools):
        show_pool(bar, pool, rates[pool])
        mark_closes(bar, t)
        earned += earn(bar.ledger) * opens[pool]
        leave_pool(bar, pool, rates[pool])
    equity, gained = value_pools(bar.terms, bar.state, opens, rates)
    is_lost = bar.state.wallet[IS_RUINED] == 0.0 and earned + gained < 0.0
    if is_lost:
        is_lost = are_pools_ruined(bar, equity, rates)
    if is_lost:
        end_pools(bar, t, rates)
        equity, gained = value_pools(bar.terms, bar.state, opens, rates)
    for pool in range(bar.terms.n_pools):
        show_pool(bar, pool, rates[pool])
        close_calls(bar, t, is_lost)
        limit = bar.terms.negative_limit / rates[pool]
        is_under = is_below(bar.terms, bar.state, limit, bar.state.pools[pool, NOW])
        bar.state.wallet[IS_CONVERTING] = 1.0 if is_under else 0.0
        leave_pool(bar, pool, rates[pool])
    is_high = close_totals(bar.terms, bar.state, bar.scratch, rates, equity, wealth, is_lost)
    for pool in range(bar.terms.n_pools):
        show_pool(bar, pool, rates[pool])
        record_falls(bar, is_high)
        leave_pool(bar, pool, rates[pool])
    fold_ledger(bar, opens)
    bar.ledger[FX_PNL, bar.ledger.shape[1] - 1] = gained
    count_assets(bar.state, bar.ledger)


def value_pools(
    terms: Terms, state: AccountState, opens: FloatArray, rates: FloatArray
) -> tuple[float, float]:
    equity, gained = 0.0, 0.0
    for pool in range(terms.n_pools):
        own, now = state.pools[pool], compute_own_equity(terms, state, pool)
        own[NOW], own[OWN_OPEN] = now, opens[pool]
        equity += now * rates[pool]
        own[OWN_FX] = own[OWN_EQUITY] * (opens[pool] - own[OWN_RATE])
        own[OWN_FX] += now * (rates[pool] - opens[pool])
        gained += own[OWN_FX]
    return float(equity), float(gained)


def are_pools_ruined(bar: AccountBar, equity: float, rates: FloatArray) -> bool:
    wealth, paid_in = equity + bar.state.wallet[RESERVE], bar.state.wallet[PAID_IN]
    is_under = wealth <= bar.terms.ruin_at * paid_in * (1.0 + TOLERANCE)
    is_under = is_under or equity <= NOTHING_LEFT * paid_in * (1.0 + TOLERANCE)
    if is_under or count_open(bar.state) > 0:
        return bool(is_under)
    count, poor = 0, 0
    for pool in range(bar.terms.n_pools):
        show_pool(bar, pool, rates[pool])
        own = bar.state.pools[pool, NOW] + bar.state.wallet[RESERVE]
        has_any = False
        for i in range(len(bar.quotes.is_listed)):
            has_any = has_any or bar.quotes.is_listed[i] == 1
        if has_any:
            count += 1
            poor += 1 if is_portfolio_poor(bar.terms, bar.quotes, own) else 0
        leave_pool(bar, pool, rates[pool])
    return count > 0 and poor == count


def end_pools(bar: AccountBar, t: int, rates: FloatArray) -> None:
    if count_open(bar.state) == 0:
        note(bar.log, t, -1, RUINED, 1.0, 0.0, 0.0)
        return
    for pool in range(bar.terms.n_pools):
        show_pool(bar, pool, rates[pool])
        if count_open(bar.state) > 0:
            end_portfolio(bar, t)
        leave_pool(bar, pool, rates[pool])


def close_totals(
    terms: Terms,
    state: AccountState,
    scratch: Scratch,
    rates: FloatArray,
    equity: float,
    wealth: float,
    is_lost: bool,
) -> bool:
    wallet = state.wallet
    wallet[EQUITY], wallet[CASH] = equity, 0.0
    count_bars(state)
    wallet[SINCE_POOL] = math.inf
    for pool in range(terms.n_pools):
        own = state.pools[pool]
        own[OWN_SINCE] += 1.0
        own[OWN_EQUITY], own[OWN_RATE] = own[NOW], rates[pool]
        own[OWN_MOVED] = scratch.own_ledger[TRANSFERRED, pool]
        wallet[CASH] += own[OWN_CASH] * rates[pool]
        wallet[SINCE_POOL] = min(wallet[SINCE_POOL], own[OWN_SINCE])
    if has_wealth(wealth, scratch.own_ledger[FLOWS, 0]) and wallet[IS_RUINED] == 0.0:
        wallet[UNIT] = wallet[SCALE] * (equity + wallet[RESERVE])
    is_high = wallet[UNIT] >= wallet[PEAK]
    wallet[PEAK] = max(wallet[UNIT], wallet[PEAK])
    if is_lost:
        wallet[IS_RUINED] = 1.0
    return bool(is_high)
