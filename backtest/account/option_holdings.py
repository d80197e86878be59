"""What of the options an account holds, and whether it matters between open and close."""

from __future__ import annotations

from backtest.account.portfolio_records import AccountState, Terms
from backtest.venue.option_kernels import NONE


def holds_options(state: AccountState) -> bool:
    for quantity in state.options.positions.quantities:  # noqa: SIM110 - numba takes no any()
        if quantity != 0.0:
            return True
    return False


def count_options(state: AccountState) -> int:
    found = 0
    for quantity in state.options.positions.quantities:
        if quantity != 0.0:
            found += 1
    return found


def has_short_option(state: AccountState) -> bool:
    found = False
    for k in range(len(state.options.targets)):
        found = found or state.options.positions.quantities[k] < 0.0
    return bool(found)


def is_walking(terms: Terms, state: AccountState) -> bool:
    rules, found = terms.options.rules, False
    sees_longs = rules.counted != NONE or rules.rates.loan_rate > 0.0 or terms.equity_stop > 0.0
    for k in range(len(state.options.targets)):
        held = state.options.positions.quantities[k]
        found = found or held < 0.0 or (held > 0.0 and sees_longs)
    return bool(found)
