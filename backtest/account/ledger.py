"""The money of a bar term by term, and the log of what happened: where steps are written down.

Scalar arithmetic on named tuples, as in :mod:`backtest.account.steps`; nothing here moves money.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from backtest.account.steps import Liquidation, Trade

if TYPE_CHECKING:
    from backtest.base.units import FloatArray, IntArray

(
    FILL, FUNDING, INTEREST, FLOW, TOP_UP, REFUSED, STOPPED, LIQUIDATED, BAD_DEBT, CALLED, RUINED,
) = range(11)  # fmt: skip
"""Kinds of entries in the log."""


class Ledger(NamedTuple):
    """The money of one bar, term by term, and what happened; costs positive.

    ``flows`` came from outside, ``top_up`` from the reserve.
    """

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


class Log(NamedTuple):
    """Where a run writes what happened: entries of shape (capacity, 8), and how many so far.

    The columns are bar, kind, value u, quantity, amount, fee, slippage, impact. ``is_on`` is
    None where nothing is recorded. ``written[0]`` passes the capacity when the log was too small.
    """

    is_on: bool | None
    entries: FloatArray
    written: IntArray


def write(
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
    """Add one entry to the log; past its capacity only count."""
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


def new_ledger() -> Ledger:
    """Return a ledger without entries."""
    return Ledger(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0)


def enter_trade(ledger: Ledger, done: Trade, stops: int) -> Ledger:
    """Add a trade to the ledger."""
    return Ledger(
        ledger.price_pnl + done.price_pnl,
        ledger.fees + done.fee,
        ledger.slippage + done.slippage,
        ledger.impact + done.impact,
        ledger.funding,
        ledger.interest,
        ledger.liquidation_loss,
        ledger.flows,
        ledger.bad_debt,
        ledger.top_up,
        ledger.traded + abs(done.quantity) * abs(done.value),
        ledger.liquidations,
        ledger.stops + stops,
        ledger.calls,
    )


def enter_liquidation(ledger: Ledger, done: Liquidation) -> Ledger:
    """Add a liquidation to the ledger."""
    return Ledger(
        ledger.price_pnl + done.price_pnl,
        ledger.fees,
        ledger.slippage,
        ledger.impact,
        ledger.funding,
        ledger.interest,
        ledger.liquidation_loss + done.loss,
        ledger.flows,
        ledger.bad_debt + done.bad_debt,
        ledger.top_up,
        ledger.traded + done.traded,
        ledger.liquidations + 1,
        ledger.stops,
        ledger.calls,
    )


def enter_carry(ledger: Ledger, funding: float, interest: float) -> Ledger:
    """Add funding and interest to the ledger."""
    return Ledger(
        ledger.price_pnl,
        ledger.fees,
        ledger.slippage,
        ledger.impact,
        ledger.funding + funding,
        ledger.interest + interest,
        ledger.liquidation_loss,
        ledger.flows,
        ledger.bad_debt,
        ledger.top_up,
        ledger.traded,
        ledger.liquidations,
        ledger.stops,
        ledger.calls,
    )


def enter_flow(ledger: Ledger, flow: float, top_up: float) -> Ledger:
    """Add a deposit or withdrawal, and a top-up, to the ledger."""
    return Ledger(
        ledger.price_pnl,
        ledger.fees,
        ledger.slippage,
        ledger.impact,
        ledger.funding,
        ledger.interest,
        ledger.liquidation_loss,
        ledger.flows + flow,
        ledger.bad_debt,
        ledger.top_up + top_up,
        ledger.traded,
        ledger.liquidations,
        ledger.stops,
        ledger.calls,
    )


def enter_ruin(ledger: Ledger, bad_debt: float, traded: float) -> Ledger:
    """Add the closing of a ruined account's position to the ledger: it costs nothing."""
    return Ledger(
        ledger.price_pnl,
        ledger.fees,
        ledger.slippage,
        ledger.impact,
        ledger.funding,
        ledger.interest,
        ledger.liquidation_loss,
        ledger.flows,
        ledger.bad_debt + bad_debt,
        ledger.top_up,
        ledger.traded + traded,
        ledger.liquidations,
        ledger.stops,
        ledger.calls,
    )


def enter_close(ledger: Ledger, pnl: float, bad_debt: float, calls: int) -> Ledger:
    """Add what the close found to the ledger."""
    return Ledger(
        ledger.price_pnl + pnl,
        ledger.fees,
        ledger.slippage,
        ledger.impact,
        ledger.funding,
        ledger.interest,
        ledger.liquidation_loss,
        ledger.flows,
        ledger.bad_debt + bad_debt,
        ledger.top_up,
        ledger.traded,
        ledger.liquidations,
        ledger.stops,
        ledger.calls + calls,
    )


def compute_earned(ledger: Ledger) -> float:
    """Return what the account has earned in the bar, costs taken off: negative is a loss."""
    costs = ledger.fees + ledger.slippage + ledger.impact + ledger.funding + ledger.interest
    return ledger.price_pnl + ledger.bad_debt - costs - ledger.liquidation_loss


def log_trade(log: Log, t: int, kind: int, done: Trade) -> None:
    """Log a fill or a stop, unless nothing was traded."""
    if done.quantity != 0.0:
        write(
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
    """Log a liquidation at its price, its loss and its bad debt."""
    notional = abs(done.quantity) * abs(value)
    write(log, t, LIQUIDATED, value, done.quantity, notional, done.loss)
    if done.bad_debt != 0.0:
        write(log, t, BAD_DEBT, value, 0.0, done.bad_debt)
