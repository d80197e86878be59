"""The time stop: a position that was held for long enough is closed at the open."""

from __future__ import annotations

import math

from backtest.account.fills import stop_out
from backtest.account.ledger import TIME_STOPPED
from backtest.account.portfolio_balance import enter_fill, pick_balances
from backtest.account.portfolio_records import (
    AccountBar,
    AccountState,
    Terms,
    is_held,
    pick_instrument,
    pick_quote,
    share,
)


def stop_by_time(bar: AccountBar, t: int, time: float) -> None:
    terms, state, quotes = bar.terms, bar.state, bar.quotes
    if not terms.has_time_stop:
        return
    for i in range(len(state.margin)):
        is_due = terms.max_holding[i] > 0.0 and time - state.opened[i] >= terms.max_holding[i]
        if is_due and is_held(state, i) and quotes.is_listed[i] == 1:
            rules, quote = share(pick_instrument(terms, i)), pick_quote(quotes, i)
            before = pick_balances(terms, state, i)
            done = stop_out(rules, before, quotes.open[i], quote)
            enter_fill(bar, t, i, TIME_STOPPED, before, done, 1)
            state.is_pending[i] = 0
            state.since_stop[i] = -1.0


def stamp_openings(terms: Terms, state: AccountState, time: float) -> None:
    if not terms.has_time_stop:
        return
    for i in range(len(state.margin)):
        if not is_held(state, i):
            state.opened[i] = math.nan
        elif math.isnan(state.opened[i]):
            state.opened[i] = time
