"""Write the bars of an account with several positions into a record of zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from backtest.account import AccountBar, AccountState, EventLog, total
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

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray
    from backtest.engine.record import AccountFields


class Lanes(NamedTuple):
    """Lives of one account on bars that lie end to end; none in a run.

    ``places`` of shape (lanes, 5) has the first bar of each lane, the first one lived, one past the
    last, and the numbers of its first settlement and flow. ``lives`` of shape (5, bars) are wealth,
    liquidations, bad debt, margin calls and whether the account is ruined. Each life begins with
    ``begun``: the numbers of the account and of the memory of its policies.
    """

    places: IntArray
    lives: FloatArray
    begun: FloatArray


class RunTape(NamedTuple):
    """What a run writes; ``pool`` are requirement and backing of the pool at the last close."""

    log: EventLog
    record: Any
    cursor: IntArray
    before: FloatArray
    is_on: IntArray
    units: FloatArray
    pool: FloatArray
    lanes: Lanes


def record_portfolio(bar: AccountBar, tape: RunTape, is_fast: bool, t: int) -> None:
    """Write one bar; in one that ``is_fast`` prices moved, and nothing else happened."""
    state, ledger = bar.state, bar.ledger
    account, wallet = tape.record.account, state.wallet
    account.equity[t] = wallet[EQUITY]
    write(account.cash, wallet[CASH], t)
    write(account.reserve, wallet[RESERVE], t)
    account.unit[t] = wallet[UNIT]
    account.overlay[t] = wallet[OVERLAY]
    write_total(account.price_pnl, ledger, PRICE_PNL, t)
    if not is_fast:
        record_money(account, ledger, t)
    for i in range(len(state.margin)):
        record_position(tape, state, ledger, is_fast, i, t)
    for k in range(len(state.options.targets)):
        record_option(tape, state, k, t)


def record_money(account: AccountFields, ledger: FloatArray, t: int) -> None:
    write_total(account.fees, ledger, FEES, t)
    write_total(account.slippage, ledger, SLIPPAGE, t)
    write_total(account.impact, ledger, IMPACT, t)
    write_total(account.funding, ledger, FUNDING, t)
    write_total(account.interest, ledger, INTEREST, t)
    write_total(account.liquidation_loss, ledger, LOSS, t)
    write(account.flows, total(ledger, FLOWS) + total(ledger, TOP_UP), t)
    write_total(account.top_up, ledger, TOP_UP, t)
    write_total(account.bad_debt, ledger, BAD_DEBT, t)
    write_total(account.collateral_pnl, ledger, COLLATERAL_PNL, t)
    write_total(account.conversion, ledger, CONVERSION, t)


def write_total(column: FloatArray, ledger: FloatArray, term: int, t: int) -> None:
    write(column, total(ledger, term), t)


def write(column: FloatArray, value: float, t: int) -> None:
    """Write what is not 0: new memory that stays untouched costs nothing."""
    if value != 0.0:
        column[t] = value


def write_of(column: FloatArray, value: float, t: int, i: int) -> None:
    if value != 0.0:
        column[t, i] = value


def record_position(
    tape: RunTape, state: AccountState, ledger: FloatArray, is_fast: bool, i: int, t: int
) -> None:
    held = tape.record.positions
    write_of(held.quantity, state.held.quantities[i], t, i)
    write_of(held.entry, state.held.entries[i], t, i)
    write_of(held.margin, state.margin[i], t, i)
    write_of(held.target, state.leverage[i], t, i)
    is_alone = len(state.margin) == 1 and len(state.options.targets) == 0
    if not is_alone:  # whose money is the account's, but bad debt: see new_record
        write_of(held.price_pnl, ledger[PRICE_PNL, i], t, i)
    if is_fast:
        return
    write_of(held.bad_debt, ledger[BAD_DEBT, i], t, i)
    if is_alone:
        return
    write_of(held.fees, ledger[FEES, i], t, i)
    write_of(held.slippage, ledger[SLIPPAGE, i], t, i)
    write_of(held.impact, ledger[IMPACT, i], t, i)
    write_of(held.funding, ledger[FUNDING, i], t, i)
    write_of(held.liquidation_loss, ledger[LOSS, i], t, i)


def record_option(tape: RunTape, state: AccountState, k: int, t: int) -> None:
    own, options = state.options, tape.record.options
    options.quantity[t, k], options.value[t, k] = own.positions.quantities[k], own.priced[k]
    options.price_pnl[t, k], options.fees[t, k] = own.profits[k], own.fees[k]
    options.slippage[t, k], options.liquidation_loss[t, k] = own.slippage[k], own.losses[k]
