"""Write the bars of an account with several positions into a record of zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from backtest.account import (
    AccountBar,
    AccountState,
    EventLog,
    Scratch,
    Terms,
    compute_balance,
    compute_initial_needed,
    compute_pool,
    is_isolated,
    total,
)
from backtest.account.portfolio_ledger import (
    BAD_DEBT,
    COLLATERAL_PNL,
    CONVERSION,
    FEES,
    FLOWS,
    FUNDING,
    IMPACT,
    INTEREST,
    LOSS,
    PRICE_PNL,
    SLIPPAGE,
    TOP_UP,
)
from backtest.account.portfolio_records import CASH, EQUITY, OVERLAY, RESERVE, UNIT
from backtest.venue import compute_collateral_value, compute_full_value

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray
    from backtest.engine.portfolio_tally import CloseFacts


class RunTape(NamedTuple):
    log: EventLog
    record: Any
    cursor: IntArray
    before: FloatArray
    is_on: IntArray
    units: FloatArray


def record_portfolio(bar: AccountBar, tape: RunTape, close: CloseFacts, t: int) -> None:
    state, ledger = bar.state, bar.ledger
    account, wallet = tape.record.account, state.wallet
    account.equity[t], account.cash[t] = wallet[EQUITY], wallet[CASH]
    account.reserve[t], account.unit[t] = wallet[RESERVE], wallet[UNIT]
    account.overlay[t] = wallet[OVERLAY]
    write_total(account.price_pnl, ledger, PRICE_PNL, t)
    write_total(account.fees, ledger, FEES, t)
    write_total(account.slippage, ledger, SLIPPAGE, t)
    write_total(account.impact, ledger, IMPACT, t)
    write_total(account.funding, ledger, FUNDING, t)
    write_total(account.interest, ledger, INTEREST, t)
    write_total(account.liquidation_loss, ledger, LOSS, t)
    account.flows[t] = total(ledger, FLOWS) + total(ledger, TOP_UP)
    write_total(account.top_up, ledger, TOP_UP, t)
    write_total(account.bad_debt, ledger, BAD_DEBT, t)
    write_total(account.collateral_pnl, ledger, COLLATERAL_PNL, t)
    write_total(account.conversion, ledger, CONVERSION, t)
    for i in range(len(state.margin)):
        record_position(tape, state, ledger, i, t)
    for k in range(len(state.options.targets)):
        record_option(tape, state, k, t)
    record_close(tape, bar.terms, state, bar.scratch, close, t)


def write_total(column: FloatArray, ledger: FloatArray, term: int, t: int) -> None:
    value = total(ledger, term)
    if value != 0.0:
        column[t] = value


def record_position(tape: RunTape, state: AccountState, ledger: FloatArray, i: int, t: int) -> None:
    held = tape.record.positions
    held.quantity[t, i], held.entry[t, i] = state.held.quantities[i], state.held.entries[i]
    held.margin[t, i], held.target[t, i] = state.margin[i], state.leverage[i]
    held.price_pnl[t, i], held.fees[t, i] = ledger[PRICE_PNL, i], ledger[FEES, i]
    held.slippage[t, i], held.impact[t, i] = ledger[SLIPPAGE, i], ledger[IMPACT, i]
    held.funding[t, i], held.liquidation_loss[t, i] = ledger[FUNDING, i], ledger[LOSS, i]
    held.bad_debt[t, i] = ledger[BAD_DEBT, i]


def record_option(tape: RunTape, state: AccountState, k: int, t: int) -> None:
    own, options = state.options, tape.record.options
    options.quantity[t, k], options.value[t, k] = own.positions.quantities[k], own.priced[k]
    options.price_pnl[t, k], options.fees[t, k] = own.profits[k], own.fees[k]
    options.slippage[t, k], options.liquidation_loss[t, k] = own.slippage[k], own.losses[k]


def record_close(
    tape: RunTape, terms: Terms, state: AccountState, scratch: Scratch, close: CloseFacts, t: int
) -> None:
    closes = tape.record.closes
    closes.requirement[t] = close.needed
    closes.balance[t] = compute_balance(terms, state)
    closes.backing[t] = compute_pool(terms, state)
    closes.collateral[t] = compute_full_value(state.held)
    closes.collateral_at_rate[t] = compute_collateral_value(terms.rules.collateral, state.held)
    closes.initial[t] = compute_all_initial(terms, state)
    for i in range(len(state.margin)):
        closes.share[t, i], closes.failure[t, i] = state.shares[i], scratch.failure[i]


def compute_all_initial(terms: Terms, state: AccountState) -> float:
    found = compute_initial_needed(terms, state)
    for i in range(len(state.margin)):
        if is_isolated(terms, i):
            found += state.margin[i]
    return found
