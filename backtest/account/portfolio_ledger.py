"""The ledger of a bar by instrument, and the log of its events. No money moves here.

The ledger is an array of shape (terms, n + 1): a column for each instrument, and last what belongs
to the account as a whole. The sum of a row is the account's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.account.ledger import Ledger, Log, write_event

if TYPE_CHECKING:
    from backtest.account.portfolio_records import EventLog
    from backtest.base import FloatArray

(
    PRICE_PNL, FEES, SLIPPAGE, IMPACT, FUNDING, INTEREST, LOSS, FLOWS, BAD_DEBT, TOP_UP, TRADED,
    LIQUIDATIONS, STOPS, CALLS, CALLS_MET, CALLS_FAILED, LIQUIDATED_CALLS, CALL_DAYS, TAKE_PROFITS,
    COLLATERAL_PNL, CONVERSION, AMBIGUOUS, BOTH_REACHED,
) = range(23)  # fmt: skip
N_TERMS = 23

DELISTED, CONVERTED = 18, 19
MARGIN_RETURNED, MARGIN_REFUSED = 30, 31
RESTED = 40
EXPIRED, UNQUOTED = 43, 44
"""Kinds of entries in the log, after those of one position."""

WIDTH = 9
"""Columns of the log."""


def note(
    log: EventLog,
    t: int,
    i: int,
    kind: int,
    value: float,
    quantity: float,
    amount: float,
    fee: float = 0.0,
    slippage: float = 0.0,
    impact: float = 0.0,
) -> None:
    row = log.written[0]
    write_event(as_log(log), t, kind, value, quantity, amount, fee, slippage, impact)
    stamp(log, row, i)


def as_log(log: EventLog) -> Log:
    return Log(log.is_on, log.entries, log.written)


def stamp(log: EventLog, since: int, i: int) -> None:
    if log.is_on is not None:
        for row in range(since, min(log.written[0], len(log.entries))):
            log.entries[row, WIDTH - 1] = i


def clear_ledger(ledger: FloatArray) -> None:
    ledger[:, :] = 0.0


def enter(ledger: FloatArray, i: int, found: Ledger) -> None:
    ledger[PRICE_PNL, i] += found.price_pnl
    ledger[FEES, i] += found.fees
    ledger[SLIPPAGE, i] += found.slippage
    ledger[IMPACT, i] += found.impact
    ledger[FUNDING, i] += found.funding
    ledger[INTEREST, i] += found.interest
    ledger[LOSS, i] += found.liquidation_loss
    ledger[BAD_DEBT, i] += found.bad_debt
    ledger[TRADED, i] += found.traded
    ledger[LIQUIDATIONS, i] += found.liquidations
    ledger[STOPS, i] += found.stops
    ledger[TAKE_PROFITS, i] += found.take_profits


def total(ledger: FloatArray, term: int) -> float:
    found = 0.0
    for i in range(ledger.shape[1]):
        found += ledger[term, i]
    return found


def sum_ledger(ledger: FloatArray) -> Ledger:
    return Ledger(
        price_pnl=total(ledger, PRICE_PNL) + total(ledger, COLLATERAL_PNL),
        fees=total(ledger, FEES),
        slippage=total(ledger, SLIPPAGE) + total(ledger, CONVERSION),
        impact=total(ledger, IMPACT),
        funding=total(ledger, FUNDING),
        interest=total(ledger, INTEREST),
        liquidation_loss=total(ledger, LOSS),
        flows=total(ledger, FLOWS),
        bad_debt=total(ledger, BAD_DEBT),
        top_up=total(ledger, TOP_UP),
        traded=total(ledger, TRADED),
        liquidations=int(total(ledger, LIQUIDATIONS)),
        stops=int(total(ledger, STOPS)),
        calls=int(total(ledger, CALLS)),
        calls_met=int(total(ledger, CALLS_MET)),
        calls_failed=int(total(ledger, CALLS_FAILED)),
        liquidated_calls=int(total(ledger, LIQUIDATED_CALLS)),
        call_days=total(ledger, CALL_DAYS),
        take_profits=int(total(ledger, TAKE_PROFITS)),
        ambiguous_bars=int(total(ledger, AMBIGUOUS)),
        both_reached=int(total(ledger, BOTH_REACHED)),
    )


def sum_fast_ledger(ledger: FloatArray) -> Ledger:
    profit, zero = total(ledger, PRICE_PNL), 0.0
    return Ledger(
        price_pnl=profit,
        fees=zero,
        slippage=zero,
        impact=zero,
        funding=zero,
        interest=zero,
        liquidation_loss=zero,
        flows=zero,
        bad_debt=zero,
        top_up=zero,
        traded=zero,
        liquidations=0,
        stops=0,
        calls=0,
        calls_met=0,
        calls_failed=0,
        liquidated_calls=0,
        call_days=zero,
        take_profits=0,
        ambiguous_bars=0,
        both_reached=0,
    )


def earn(ledger: FloatArray) -> float:
    found = 0.0
    for i in range(ledger.shape[1]):
        found += ledger[PRICE_PNL, i] + ledger[COLLATERAL_PNL, i] + ledger[BAD_DEBT, i]
        found -= ledger[FEES, i] + ledger[SLIPPAGE, i] + ledger[IMPACT, i] + ledger[FUNDING, i]
        found -= ledger[INTEREST, i] + ledger[LOSS, i] + ledger[CONVERSION, i]
    return found


def sum_ledger_terms(ledger: FloatArray) -> float:
    gains = total(ledger, PRICE_PNL) + total(ledger, COLLATERAL_PNL) + total(ledger, FLOWS)
    gains += total(ledger, TOP_UP) + total(ledger, BAD_DEBT)
    costs = total(ledger, FEES) + total(ledger, SLIPPAGE) + total(ledger, IMPACT)
    costs += total(ledger, FUNDING) + total(ledger, INTEREST) + total(ledger, LOSS)
    return gains - costs - total(ledger, CONVERSION)
