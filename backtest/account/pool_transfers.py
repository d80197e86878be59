"""Transfers between the pools of an account that settles in several currencies: step 1 of a bar."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.account.currency_pools import NEED, OWN_CASH, SPARE, leave_pool, show_pool
from backtest.account.portfolio_balance import compute_pool, value_at
from backtest.account.portfolio_ledger import (
    CONVERSION,
    MOVED_IN,
    MOVED_OUT,
    TRANSFERRED,
    note,
)
from backtest.account.portfolio_payments import compute_free
from backtest.account.portfolio_records import AccountBar
from backtest.base.units import TOLERANCE
from backtest.venue import compute_portfolio_initial

if TYPE_CHECKING:
    from backtest.base import FloatArray


def cover_pools(bar: AccountBar, t: int, rates: FloatArray) -> None:
    for pool in range(bar.terms.n_pools):
        own = bar.state.pools[pool]
        show_pool(bar, pool, rates[pool])
        value_at(bar.state, bar.quotes.mark_open, bar.quotes.asset_mark_open)
        needed = compute_portfolio_initial(bar.terms.rules, bar.state.held)
        missing = needed - compute_pool(bar.terms, bar.state)
        own[NEED] = missing if missing > TOLERANCE * needed else 0.0
        own[SPARE] = compute_free(bar.terms, bar.state)
        leave_pool(bar, pool, rates[pool])
    for pool in range(bar.terms.n_pools):
        for giver in range(bar.terms.n_pools):
            if giver != pool and bar.state.pools[pool, NEED] > 0.0:
                transfer(bar, t, rates, giver, pool)


def transfer(bar: AccountBar, t: int, rates: FloatArray, giver: int, pool: int) -> None:
    state, scratch, log = bar.state, bar.scratch, bar.log
    source, target, kept = state.pools[giver], state.pools[pool], 1.0 - bar.terms.transfer_cost
    wanted = target[NEED] * rates[pool] / kept
    moved = min(wanted, source[SPARE] * rates[giver])
    if not moved > 0.0:
        return
    given, gross = moved / rates[giver], moved / rates[pool]
    received = gross * kept
    source[OWN_CASH] -= given
    target[OWN_CASH] += received
    source[SPARE] -= given
    target[NEED] = 0.0 if moved == wanted else target[NEED] - received
    scratch.own_ledger[TRANSFERRED, giver] -= given
    scratch.own_ledger[TRANSFERRED, pool] += gross
    scratch.own_ledger[CONVERSION, pool] += gross - received
    note(log, t, -1 - giver, MOVED_OUT, 1.0, 0.0, given)
    note(log, t, -1 - pool, MOVED_IN, 1.0, 0.0, received)
