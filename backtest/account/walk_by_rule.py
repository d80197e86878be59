"""The walk of a position through a bar by the rules of a single position."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.account.account_records import Watch
from backtest.account.contagion import log_causes
from backtest.account.exits import (
    DRAW,
    LIQUIDATION,
    NOTHING,
)
from backtest.account.ledger import new_ledger
from backtest.account.liquidation import find_trigger
from backtest.account.option_holdings import holds_options
from backtest.account.portfolio_balance import (
    enter_step,
    pick_balances,
    value_at,
)
from backtest.account.portfolio_gap import (
    drop_after_equity_stop,
)
from backtest.account.portfolio_ledger import LIQUIDATIONS, as_log
from backtest.account.portfolio_liquidation import liquidate_pool
from backtest.account.portfolio_payments import drop_after_liquidation, drop_after_pool_failure
from backtest.account.portfolio_records import (
    HIGHEST,
    AccountBar,
    AccountState,
    Terms,
    is_held,
    is_isolated,
    pick_instrument,
    pick_quote,
    share,
)
from backtest.account.steps import act_at_extreme

if TYPE_CHECKING:
    from backtest.base import FloatArray


def walk_by_rule(bar: AccountBar, t: int, i: int) -> None:
    terms, state, log = bar.terms, bar.state, bar.log
    rules, quote = share(pick_instrument(terms, i)), pick_quote(bar.quotes, i)
    watch = Watch(state.best[i], state.wallet[HIGHEST])
    kind, at = find_own_trigger(bar, t, i)
    before = pick_balances(terms, state, i)
    if kind == NOTHING:
        return
    if kind == LIQUIDATION and not is_isolated(terms, i):
        state.held.values[i] = at
        log_causes(bar, t)
    row, after, found, last = log.written[0], before, new_ledger(), kind
    while kind != NOTHING:
        after, found = act_at_extreme(rules, after, found, quote, kind, at, as_log(log), t)
        last, kind = kind, NOTHING
        if after.positions[0].quantity != 0.0:
            kind, at = find_trigger(rules, after, quote, watch)
    enter_step(bar, i, row, before, after, found)
    is_margin_added = found.liquidations + found.stops + found.take_profits == 0  # and no more
    state.is_pending[i] *= 1 if is_margin_added else 0
    if found.stops > 0:
        state.since_stop[i] = -1.0
    if last == DRAW:
        drop_after_equity_stop(state)
    if found.liquidations > 0:
        end_by_rule(terms, state, bar.ledger, i, found.liquidations)


def find_own_trigger(bar: AccountBar, t: int, i: int) -> tuple[int, float]:
    terms, state, quotes = bar.terms, bar.state, bar.quotes
    rules, quote = share(pick_instrument(terms, i)), pick_quote(quotes, i)
    watch = Watch(state.best[i], state.wallet[HIGHEST])
    kind, at = find_trigger(rules, pick_balances(terms, state, i), quote, watch)
    while kind == LIQUIDATION and not is_isolated(terms, i) and holds_options(state):
        value_at(state, quotes.mark_open, quotes.asset_mark_open)
        state.held.values[i] = at
        liquidate_pool(bar, t, False)
        if not is_held(state, i):
            return NOTHING, at
        kind, at = find_trigger(rules, pick_balances(terms, state, i), quote, watch)
    return kind, at


def end_by_rule(terms: Terms, state: AccountState, ledger: FloatArray, i: int, count: int) -> None:
    if is_isolated(terms, i):
        drop_after_liquidation(terms, state, i)
        return
    last = ledger.shape[1] - 1
    ledger[LIQUIDATIONS, i] -= count
    ledger[LIQUIDATIONS, last] += count
    drop_after_pool_failure(terms, state)
