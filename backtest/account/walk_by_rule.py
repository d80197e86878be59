"""The walk of a position through a bar by the rules of a single position."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.account import Watch
from backtest.account.contagion import blame
from backtest.account.exits import (
    DRAW,
    LIQUIDATION,
    NOTHING,
)
from backtest.account.ledger import new_ledger
from backtest.account.liquidation import find_trigger
from backtest.account.portfolio_balance import (
    close_account_books,
    open_books,
)
from backtest.account.portfolio_gap import (
    drop_after_equity_stop,
)
from backtest.account.portfolio_ledger import LIQUIDATIONS, as_log, enter, stamp
from backtest.account.portfolio_payments import drop_after_liquidation
from backtest.account.portfolio_records import (
    HIGHEST,
    IS_OVER,
    POOL_FAILED,
    SINCE_POOL,
    AccountState,
    BookLog,
    MarketBar,
    Scratch,
    Terms,
    is_isolated,
    pick_instrument,
    pick_quote,
    share,
)
from backtest.account.steps import act_at_extreme

if TYPE_CHECKING:
    from backtest.base.units import FloatArray


def walk_by_rule(
    terms: Terms,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    ledger: FloatArray,
    log: BookLog,
    t: int,
    i: int,
) -> None:
    """Take one position through the extremes with the rules of a single position."""
    rules, quote = share(pick_instrument(terms, i)), pick_quote(quotes, i)
    watch, before = Watch(state.best[i], state.wallet[HIGHEST]), open_books(terms, state, i)
    kind, at = find_trigger(rules, before, quote, watch)
    if kind == NOTHING:
        return
    if kind == LIQUIDATION and not is_isolated(terms, i):
        state.held.values[i] = at
        blame(terms, state, scratch, ledger, log, t)
    row, after, found, last = log.written[0], before, new_ledger(), kind
    while kind != NOTHING:
        after, found = act_at_extreme(rules, after, found, quote, kind, at, as_log(log), t)
        last, kind = kind, NOTHING
        if after.positions[0].quantity != 0.0:
            kind, at = find_trigger(rules, after, quote, watch)
    stamp(log, row, i)
    close_account_books(terms, state, i, before, after)
    enter(ledger, i, found)
    is_margin_added = found.liquidations + found.stops + found.take_profits == 0  # and no more
    state.is_pending[i] *= 1 if is_margin_added else 0
    if found.stops > 0:
        state.since_stop[i] = -1.0
    if last == DRAW:
        drop_after_equity_stop(state)
    if found.liquidations > 0:
        end_by_rule(terms, state, ledger, i, found.liquidations)


def end_by_rule(terms: Terms, state: AccountState, ledger: FloatArray, i: int, count: int) -> None:
    """Do what follows a liquidation of a position alone."""
    if is_isolated(terms, i):
        drop_after_liquidation(terms, state, i)
        return
    last = ledger.shape[1] - 1
    ledger[LIQUIDATIONS, i] -= count
    ledger[LIQUIDATIONS, last] += count
    state.wallet[POOL_FAILED] = 1.0
    state.wallet[SINCE_POOL] = -1.0
    if terms.is_halting:
        state.wallet[IS_OVER] = 1.0
    for j in range(len(state.margin)):
        if not is_isolated(terms, j):
            state.is_pending[j] = 0
            state.since[j] = -1.0
