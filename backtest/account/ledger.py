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


EMPTY = Ledger(
    price_pnl=0.0,
    fees=0.0,
    slippage=0.0,
    impact=0.0,
    funding=0.0,
    interest=0.0,
    liquidation_loss=0.0,
    flows=0.0,
    bad_debt=0.0,
    top_up=0.0,
    traded=0.0,
    liquidations=0,
    stops=0,
    calls=0,
    calls_met=0,
    calls_failed=0,
    liquidated_calls=0,
    call_days=0.0,
    take_profits=0,
    ambiguous_bars=0,
    both_reached=0,
)


def new_ledger() -> Ledger:
    return EMPTY


def add_entry(  # noqa: PLR0913, PLR0917 - one argument for each term
    ledger: Ledger,
    price_pnl: float = 0.0,
    fees: float = 0.0,
    slippage: float = 0.0,
    impact: float = 0.0,
    funding: float = 0.0,
    interest: float = 0.0,
    liquidation_loss: float = 0.0,
    flows: float = 0.0,
    bad_debt: float = 0.0,
    top_up: float = 0.0,
    traded: float = 0.0,
    liquidations: int = 0,
    stops: int = 0,
    calls: int = 0,
    calls_met: int = 0,
    calls_failed: int = 0,
    liquidated_calls: int = 0,
    call_days: float = 0.0,
    take_profits: int = 0,
) -> Ledger:
    return Ledger(
        price_pnl=ledger.price_pnl + price_pnl,
        fees=ledger.fees + fees,
        slippage=ledger.slippage + slippage,
        impact=ledger.impact + impact,
        funding=ledger.funding + funding,
        interest=ledger.interest + interest,
        liquidation_loss=ledger.liquidation_loss + liquidation_loss,
        flows=ledger.flows + flows,
        bad_debt=ledger.bad_debt + bad_debt,
        top_up=ledger.top_up + top_up,
        traded=ledger.traded + traded,
        liquidations=ledger.liquidations + liquidations,
        stops=ledger.stops + stops,
        calls=ledger.calls + calls,
        calls_met=ledger.calls_met + calls_met,
        calls_failed=ledger.calls_failed + calls_failed,
        liquidated_calls=ledger.liquidated_calls + liquidated_calls,
        call_days=ledger.call_days + call_days,
        take_profits=ledger.take_profits + take_profits,
        ambiguous_bars=ledger.ambiguous_bars,
        both_reached=ledger.both_reached,
    )


def enter_trade(ledger: Ledger, done: Trade, stops: int, take_profits: int = 0) -> Ledger:
    return Ledger(
        price_pnl=ledger.price_pnl + done.price_pnl,
        fees=ledger.fees + done.fee,
        slippage=ledger.slippage + done.slippage,
        impact=ledger.impact + done.impact,
        funding=ledger.funding,
        interest=ledger.interest,
        liquidation_loss=ledger.liquidation_loss,
        flows=ledger.flows,
        bad_debt=ledger.bad_debt,
        top_up=ledger.top_up,
        traded=ledger.traded + abs(done.quantity) * abs(done.value),
        liquidations=ledger.liquidations,
        stops=ledger.stops + stops,
        calls=ledger.calls,
        calls_met=ledger.calls_met,
        calls_failed=ledger.calls_failed,
        liquidated_calls=ledger.liquidated_calls,
        call_days=ledger.call_days,
        take_profits=ledger.take_profits + take_profits,
        ambiguous_bars=ledger.ambiguous_bars,
        both_reached=ledger.both_reached,
    )


def enter_liquidation(ledger: Ledger, done: Liquidation) -> Ledger:
    return add_entry(
        ledger,
        price_pnl=done.price_pnl,
        liquidation_loss=done.loss,
        bad_debt=done.bad_debt,
        traded=done.traded,
        liquidations=1,
    )


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
