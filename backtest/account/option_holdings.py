"""What of the options an account holds, and whether it matters between open and close."""

from __future__ import annotations

from backtest.account.portfolio_records import AccountState, Terms
from backtest.venue.option_records import NONE


def holds_options(state: AccountState) -> bool:
    """Return whether any option is held."""
    for quantity in state.options.positions.quantities:  # noqa: SIM110 - numba takes no any()
        if quantity != 0.0:
            return True
    return False


def count_options(state: AccountState) -> int:
    """Return the number of options that are held."""
    found = 0
    for quantity in state.options.positions.quantities:
        if quantity != 0.0:
            found += 1
    return found


def has_short_option(state: AccountState) -> bool:
    """Return whether any option is sold."""
    found = False
    for k in range(len(state.options.targets)):
        found = found or state.options.positions.quantities[k] < 0.0
    return bool(found)


def is_walking(terms: Terms, state: AccountState) -> bool:
    """Return whether options that are held take part in the walk.

    Longs do not where none of their value backs the account, unless an equity stop sees it.
    """
    rules, found = terms.options.rules, False
    sees_longs = rules.counted != NONE or rules.rates.loan_rate > 0.0 or terms.equity_stop > 0.0
    for k in range(len(state.options.targets)):
        held = state.options.positions.quantities[k]
        found = found or held < 0.0 or (held > 0.0 and sees_longs)
    return bool(found)
