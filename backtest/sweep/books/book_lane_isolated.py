"""Isolated positions in lanes of several positions: what backs them, and when they may fail."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backtest.account import InstrumentRules, Position, Quote
from backtest.account.account_records import Trade
from backtest.account.fills import split_margin
from backtest.sweep.books.book_lane_rows import (
    BACKED,
    BEFORE,
    CLOSE,
    ENTRY,
    FEE,
    FUNDED,
    IS_INCREASE,
    IS_ODD,
    MARGIN,
    NEXT_CASH,
    NEXT_ENTRY,
    NEXT_MARGIN,
    NEXT_QUANTITY,
    POSTED,
    PROFIT,
    QUANTITY,
    RETURNED,
    SLIPPAGE,
    TAKEN,
    TRADED,
    BookSheets,
    spot,
    widen,
)
from backtest.sweep.books.book_lane_rules import CAUTION, LaneOrder, bound_cost
from backtest.sweep.lanes.lane_rows import cell
from backtest.sweep.lanes.quick_looks import SLACK
from backtest.venue.contract_value import compute_payment
from backtest.venue.requirement import compute_setting

if TYPE_CHECKING:
    from backtest.base.units import FloatArray


from backtest.measures.tally import (
    FARTHEST,
)
from backtest.sweep.books.book_lane_rows import (
    DRIFT,
    GAIN,
    GROSS,
    GROWN,
    INVERSE,
    IS_NEARING,
    IS_PEAKING,
    MOVE,
    NEXT_EQUITY,
    PAID_FEES,
    PAID_SLIPPAGE,
    PEAK_BACKING,
    PEAK_NEEDED,
    POOL,
    RATE,
    TURNED,
)


def pay_isolated(sheets: BookSheets, row: int, value: float, rate: float, i: int) -> None:
    """Pay one funding event from isolated margins; lanes that may fail after it are odd."""
    count = len(sheets.left_at)
    account, position = sheets.account, sheets.position
    low, high = widen(sheets.prices, i)
    entries = NEXT_ENTRY if row == NEXT_QUANTITY else ENTRY
    for lane in range(count):
        quantity = position[spot(i, row, lane)]
        paid = compute_payment(quantity, value, rate)
        margin = position[spot(i, NEXT_MARGIN, lane)] + (-paid)
        margin = margin if quantity != 0.0 else position[spot(i, NEXT_MARGIN, lane)]
        position[spot(i, NEXT_MARGIN, lane)] = margin
        position[spot(i, FUNDED, lane)] += paid
        least = margin - quantity * position[spot(i, entries, lane)]
        least += min(quantity * low, quantity * high)
        is_short = (not least > 0.0) & (quantity != 0.0)
        account[cell(IS_ODD, lane)] = 1.0 if is_short else account[cell(IS_ODD, lane)]


def bound_isolated(
    account: FloatArray,
    rules: InstrumentRules,
    quote: Quote,
    order: LaneOrder,
    equity: float,
    limit: float,
    rate: float,
    lane: int,
) -> None:
    """Add a bound of what an isolated order takes from the balance; one that is cut is odd.

    ``limit`` is its largest notional, ``rate`` bounds its initial margin.
    """
    ratio, cost = bound_cost(rules, quote, order)
    taken = ratio * (1.0 / compute_setting(rules.margin, quote.initial)) + ratio * rules.fee
    account[cell(TAKEN, lane)] += taken * order.added if order.is_adding else 0.0
    needed = order.size * rate + cost * abs(order.size - order.held)
    is_cut = (order.reach > limit * (1.0 - CAUTION)) | (needed > equity * (1.0 - CAUTION))
    is_odd = order.is_adding & (is_cut | (order.held < 0.0))
    account[cell(IS_ODD, lane)] = 1.0 if is_odd else account[cell(IS_ODD, lane)]


def move_lane_margin(
    position: FloatArray,
    rules: InstrumentRules,
    quote: Quote,
    own: Position,
    done: Trade,
    i: int,
    lane: int,
) -> None:
    """Write what an isolated fill of one lane returns to the wallet, and the margin after it."""
    after = done.books.positions[0]
    returned, posted, _ = split_margin(rules, own, after.quantity, done.value, quote.initial)
    position[spot(i, RETURNED, lane)] = returned
    position[spot(i, POSTED, lane)] = posted
    position[spot(i, NEXT_MARGIN, lane)] = after.margin


def round_as_isolated(side: float, unit: float, quantity: float, reach: float) -> float:
    """Return a target notional as :func:`backtest.account.orders.size_order` sizes it."""
    kept = max(side * quantity, 0.0)
    wanted = side * (kept + (reach * (1.0 / unit) - kept))
    return side * wanted * unit


def move_wallet(sheets: BookSheets, is_increase: bool, i: int) -> None:
    """Move margins between isolated positions and the cash of lanes; one that is empty is odd."""
    count = len(sheets.left_at)
    account, position = sheets.account, sheets.position
    wanted = 1.0 if is_increase else 0.0
    for lane in range(count):
        is_mine = position[spot(i, IS_INCREASE, lane)] == wanted
        cash = account[cell(NEXT_CASH, lane)]
        moved = (cash + position[spot(i, RETURNED, lane)]) - position[spot(i, POSTED, lane)]
        moved = cash + ((moved - position[spot(i, FEE, lane)]) - cash)
        moved = moved if is_mine else cash
        account[cell(NEXT_CASH, lane)] = moved
        account[cell(IS_ODD, lane)] = 1.0 if moved < 0.0 else account[cell(IS_ODD, lane)]


def add_backing_at(sheets: BookSheets, value: float, i: int) -> None:
    """Add the backing of an isolated position at u to the sums of lanes."""
    count = len(sheets.left_at)
    account, position = sheets.account, sheets.position
    for lane in range(count):
        quantity, entry = position[spot(i, QUANTITY, lane)], position[spot(i, ENTRY, lane)]
        account[cell(BACKED, lane)] += position[spot(i, NEXT_MARGIN, lane)]
        account[cell(BACKED, lane)] += quantity * (value - entry)


def find_least_of_isolated(sheets: BookSheets, i: int) -> None:
    """Mark lanes odd whose isolated position may fail at some price of the bar, before fills."""
    count = len(sheets.left_at)
    account, position = sheets.account, sheets.position
    low, high = widen(sheets.prices, i)
    for lane in range(count):
        quantity, entry = position[spot(i, QUANTITY, lane)], position[spot(i, ENTRY, lane)]
        least = position[spot(i, NEXT_MARGIN, lane)] - quantity * entry
        least += min(quantity * low, quantity * high)
        is_short = (not least > 0.0) & (quantity != 0.0)
        account[cell(IS_ODD, lane)] = 1.0 if is_short else account[cell(IS_ODD, lane)]


def add_isolated(sheets: BookSheets, i: int) -> None:
    """Add an isolated position to the sums of lanes; one that may fail in the bar makes them odd.

    Also mark lanes near liquidation, and at a new peak of the margin ratio.
    """
    count, is_traded = len(sheets.left_at), sheets.is_traded[i] != 0
    account, position, prices = sheets.account, sheets.position, sheets.prices
    quantities = NEXT_QUANTITY if is_traded else QUANTITY
    entries = NEXT_ENTRY if is_traded else ENTRY
    before, close, rate = prices[BEFORE, i], prices[CLOSE, i], prices[RATE, i]
    low, high = widen(prices, i)
    unit, rise, move, far = abs(close), close - before, prices[MOVE, i], 2.0 * (FARTHEST - 1.0)
    for lane in range(count):
        quantity, entry = position[spot(i, quantities, lane)], position[spot(i, entries, lane)]
        margin, notional = position[spot(i, NEXT_MARGIN, lane)], abs(quantity) * unit
        profit, is_held = quantity * (close - entry), quantity != 0.0
        account[cell(BACKED, lane)] += margin
        account[cell(BACKED, lane)] += profit
        account[cell(GROSS, lane)] += notional
        least = (margin - quantity * entry) + min(quantity * low, quantity * high)
        is_short = (not least > 0.0) & is_held
        account[cell(IS_ODD, lane)] = 1.0 if is_short else account[cell(IS_ODD, lane)]
        backing, needed = margin + profit, notional * rate * SLACK
        is_near = (not backing - needed > far * SLACK * notional) & is_held
        account[cell(IS_NEARING, lane)] = 1.0 if is_near else account[cell(IS_NEARING, lane)]
        is_peak = needed * account[cell(PEAK_BACKING, lane)] > (
            account[cell(PEAK_NEEDED, lane)] * backing
        )
        is_peak &= is_held
        account[cell(IS_PEAKING, lane)] = 1.0 if is_peak else account[cell(IS_PEAKING, lane)]
        gain = position[spot(i, PROFIT, lane)] if is_traded else quantity * rise
        account[cell(GAIN, lane)] += gain
    if not math.isnan(move):
        for lane in range(count):
            scale = position[spot(i, quantities, lane)] * account[cell(INVERSE, lane)]
            account[cell(DRIFT, lane)] += scale * (abs(before) * move)
            account[cell(GROWN, lane)] += scale * rise
    if is_traded:
        for lane in range(count):
            account[cell(PAID_FEES, lane)] += position[spot(i, FEE, lane)]
            account[cell(PAID_SLIPPAGE, lane)] += position[spot(i, SLIPPAGE, lane)]
            account[cell(TURNED, lane)] += position[spot(i, TRADED, lane)]


def add_backed(sheets: BookSheets) -> None:
    """Add what backs isolated positions to the equity of lanes, and keep the rest apart."""
    count = len(sheets.left_at)
    account = sheets.account
    for lane in range(count):
        account[cell(POOL, lane)] = account[cell(NEXT_EQUITY, lane)]
        account[cell(NEXT_EQUITY, lane)] += account[cell(BACKED, lane)]


def write_margin(sheets: BookSheets, i: int) -> None:
    """Write the isolated margins of lanes in one instrument, except fallback lanes."""
    count = len(sheets.left_at)
    account, position = sheets.account, sheets.position
    for lane in range(count):
        is_odd = account[cell(IS_ODD, lane)] != 0.0
        margin, after = position[spot(i, MARGIN, lane)], position[spot(i, NEXT_MARGIN, lane)]
        position[spot(i, MARGIN, lane)] = margin if is_odd else after
