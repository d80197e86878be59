"""What policies see of the accounts of lanes of several positions.

A policy that reads anything else of its account, such as a liquidation price, is asked in the loop
of a single run.
"""

from __future__ import annotations

from backtest.account.portfolio_records import CASH, EQUITY, PEAK, RESERVE, SINCE_POOL, UNIT, Terms
from backtest.engine.bar_loop import DAY_NS
from backtest.policy.view import AccountView
from backtest.sweep.books.book_lane_rows import (
    CLOSE,
    ENTRY,
    IS_LISTED,
    LAST_HIT,
    LAST_STOP,
    QUANTITY,
    BookSheets,
    Seats,
    spot,
)
from backtest.sweep.lanes.lane_rows import cell

SHOWN = frozenset({
    "equity", "peak_equity", "drawdown", "leverage", "position", "wallet", "reserve",
    "bars_since_liquidation", "bars_since_stop", "days", "gross_leverage", "net_leverage",
})  # fmt: skip
"""The fields of the account that policies of lanes may read."""
(
    SEEN_EQUITY, SEEN_PEAK, SEEN_DRAWDOWN, SEEN_LEVERAGE, SEEN_POSITION, SEEN_WALLET, SEEN_RESERVE,
    SINCE_LIQUIDATION, SINCE_STOP, SEEN_DAYS, SEEN_GROSS, SEEN_NET,
) = (
    AccountView._fields.index(name)
    for name in (
        "equity", "peak_equity", "drawdown", "leverage", "position", "wallet", "reserve",
        "bars_since_liquidation", "bars_since_stop", "days", "gross_leverage", "net_leverage",
    )
)  # fmt: skip


def show_accounts(terms: Terms, seats: Seats, sheets: BookSheets, time: int) -> None:
    """Write what all policies see of the accounts of lanes at the close of a bar."""
    account, sheet, count = sheets.account, seats.sheet, len(sheets.left_at)
    days = (time + seats.interval - seats.start) / DAY_NS
    for lane in range(count):
        equity, unit = account[cell(EQUITY, lane)], account[cell(UNIT, lane)]
        peak = account[cell(PEAK, lane)]
        sheet[cell(SEEN_EQUITY, lane)] = equity
        sheet[cell(SEEN_PEAK, lane)] = equity * (peak / unit)
        sheet[cell(SEEN_DRAWDOWN, lane)] = 1.0 - unit / peak
        sheet[cell(SEEN_WALLET, lane)] = account[cell(CASH, lane)]
        sheet[cell(SEEN_RESERVE, lane)] = account[cell(RESERVE, lane)]
        sheet[cell(SEEN_DAYS, lane)] = days
        sheet[cell(SEEN_GROSS, lane)] = 0.0
        sheet[cell(SEEN_NET, lane)] = 0.0
    for i in range(len(sheets.signal)):
        if sheets.prices[IS_LISTED, i] != 0.0:
            add_position(terms, seats, sheets, i)
    for lane in range(count):
        equity = account[cell(EQUITY, lane)]
        gross, net = sheet[cell(SEEN_GROSS, lane)], sheet[cell(SEEN_NET, lane)]
        sheet[cell(SEEN_GROSS, lane)] = gross / equity if equity > 0.0 else 0.0
        sheet[cell(SEEN_NET, lane)] = net / equity if equity > 0.0 else 0.0


def add_position(terms: Terms, seats: Seats, sheets: BookSheets, i: int) -> None:
    """Add the positions of lanes in one instrument to what all policies see."""
    position, sheet, count = sheets.position, seats.sheet, len(sheets.left_at)
    unit, is_crossed = abs(sheets.prices[CLOSE, i]), not terms.rules.brackets.are_isolated[i]
    for lane in range(count):
        quantity = position[spot(i, QUANTITY, lane)]
        if is_crossed:
            sheet[cell(SEEN_WALLET, lane)] += quantity * position[spot(i, ENTRY, lane)]
        sheet[cell(SEEN_GROSS, lane)] += abs(quantity) * unit
        sheet[cell(SEEN_NET, lane)] += quantity * unit


def show_positions(terms: Terms, seats: Seats, sheets: BookSheets, i: int, t: int) -> None:
    """Write what the policies of one instrument see of its positions at the close of bar t."""
    position, sheet, count = sheets.position, seats.sheet, len(sheets.left_at)
    account, unit = sheets.account, abs(sheets.prices[CLOSE, i])
    for lane in range(count):
        quantity, equity = position[spot(i, QUANTITY, lane)], account[cell(EQUITY, lane)]
        is_shown = (quantity != 0.0) & (equity > 0.0)
        sheet[cell(SEEN_LEVERAGE, lane)] = quantity * unit / equity if is_shown else 0.0
        sheet[cell(SEEN_POSITION, lane)] = quantity
        sheet[cell(SINCE_STOP, lane)] = t - position[spot(i, LAST_STOP, lane)]
    if terms.rules.brackets.are_isolated[i]:
        for lane in range(count):
            sheet[cell(SINCE_LIQUIDATION, lane)] = t - position[spot(i, LAST_HIT, lane)]
    else:
        for lane in range(count):
            sheet[cell(SINCE_LIQUIDATION, lane)] = account[cell(SINCE_POOL, lane)]
