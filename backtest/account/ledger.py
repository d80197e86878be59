"""Events of the ledger, and the money of one position by cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from backtest.account.account_records import Liquidation, Trade

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray


(
    FILL, FUNDING, INTEREST, FLOW, TOP_UP, REFUSED, STOPPED, LIQUIDATED, BAD_DEBT, CALLED, RUINED,
    CALL_MET, CALL_PARTLY_MET, CALL_FAILED, MARGIN_ADDED, TRAILED, EQUITY_STOPPED, TOOK_PROFIT,
) = range(18)  # fmt: skip

TIME_STOPPED = 32
"""A kind that only accounts of the general loop have."""

STOP_KINDS = (STOPPED, TRAILED, EQUITY_STOPPED, TOOK_PROFIT, TIME_STOPPED)


class Ledger(NamedTuple):
    """The money of a run by cause; the first rows of the ledger of a bar are in this order."""

    price_pnl: float
    fees: float
    slippage: float
    impact: float
    funding: float
    interest: float
    liquidation_loss: float
    flows: float
    bad_debt: float
    top_up: float
    traded: float
    liquidations: int
    stops: int
    calls: int
    calls_met: int
    calls_failed: int
    liquidated_calls: int
    call_days: float
    take_profits: int
    ambiguous_bars: int
    both_reached: int


class Log(NamedTuple):
    """The event log of a run: entries of shape (capacity, 8), and their number so far."""

    is_on: bool | None
    entries: FloatArray
    written: IntArray


def write_event(
    log: Log,
    t: int,
    kind: int,
    value: float,
    quantity: float,
    amount: float,
    fee: float = 0.0,
    slippage: float = 0.0,
    impact: float = 0.0,
) -> None:
    if log.is_on is not None:
        row = log.written[0]
        log.written[0] = row + 1
        if row < len(log.entries):
            log.entries[row, 0] = t
            log.entries[row, 1] = kind
            log.entries[row, 2] = value
            log.entries[row, 3] = quantity
            log.entries[row, 4] = amount
            log.entries[row, 5] = fee
            log.entries[row, 6] = slippage
            log.entries[row, 7] = impact


def log_trade(log: Log, t: int, kind: int, done: Trade) -> None:
    if done.quantity != 0.0:
        write_event(
            log,
            t,
            kind,
            done.value,
            done.quantity,
            abs(done.quantity) * abs(done.value),
            done.fee,
            done.slippage,
            done.impact,
        )


def log_liquidation(log: Log, t: int, value: float, done: Liquidation) -> None:
    notional = abs(done.quantity) * abs(value)
    write_event(log, t, LIQUIDATED, value, done.quantity, notional, done.loss)
    if done.bad_debt != 0.0:
        write_event(log, t, BAD_DEBT, value, 0.0, done.bad_debt)
