"""What a fund charges its investors: a management fee by time, a performance fee on new highs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.account.portfolio_balance import (
    compute_account_equity,
    count_cross,
    has_collateral,
    value_at,
)
from backtest.account.portfolio_ledger import TOP_UP, note, total
from backtest.account.portfolio_payments import take_from_isolated
from backtest.account.portfolio_records import (
    CASH,
    EQUITY,
    IS_RUINED,
    RESERVE,
    UNIT,
    AccountBar,
    AccountState,
    EventLog,
)
from backtest.account.terms import MANAGED, MANAGEMENT_FEE, PERFORMANCE_FEE, PERFORMED

if TYPE_CHECKING:
    from backtest.base import FloatArray


def charge_fund_fees(bar: AccountBar, t: int) -> None:
    terms, feed, state = bar.terms, bar.feed, bar.state
    quotes, ledger, log = bar.quotes, bar.ledger, bar.log
    wealth = state.wallet[EQUITY] + state.wallet[RESERVE] + total(ledger, TOP_UP)
    if state.wallet[IS_RUINED] != 0.0 or not wealth > 0.0:
        return
    value_at(state, quotes.mark_open, quotes.asset_mark_open)
    left = max(compute_account_equity(terms, state), 0.0)
    years = feed.years[min(t, len(feed.years) - 1)]
    managed = min(terms.management_fee * years * wealth, left)
    pay_fund(state, ledger, log, t, MANAGEMENT_FEE, MANAGED, managed)
    if feed.is_fee_date[min(t, len(feed.is_fee_date) - 1)] == 1:
        over = wealth * (1.0 - state.fund[0] / state.wallet[UNIT]) - managed
        performed = min(terms.performance_fee * max(over, 0.0), left - managed)
        pay_fund(state, ledger, log, t, PERFORMANCE_FEE, PERFORMED, performed)
        after = state.wallet[UNIT] * (1.0 - (managed + performed) / wealth)
        state.fund[0] = max(state.fund[0], after)
    if state.wallet[CASH] < 0.0 and count_cross(terms, state) == 0 and not has_collateral(state):
        take_from_isolated(terms, state)


def pay_fund(
    state: AccountState,
    ledger: FloatArray,
    log: EventLog,
    t: int,
    term: int,
    kind: int,
    amount: float,
) -> None:
    if amount != 0.0:
        state.wallet[CASH] -= amount
        ledger[term, ledger.shape[1] - 1] += amount
        note(log, t, -1, kind, 1.0, 0.0, amount)
