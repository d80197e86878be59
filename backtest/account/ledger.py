"""Kinds of events in the log, and the money of a run by cause."""

from __future__ import annotations

from typing import NamedTuple

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
