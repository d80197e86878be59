"""Isolated positions in lanes of several positions: what backs them, and when they may fail."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backtest.account import InstrumentRules, Position, Quote, Terms, Trade, split_margin
from backtest.measures.tally import FARTHEST
from backtest.sweep.lanes.lane_rows import cell
from backtest.sweep.lanes.quick_looks import SLACK
from backtest.sweep.portfolios import portfolio_lane_rows as field
from backtest.sweep.portfolios.portfolio_lane_rows import LaneArrays, mark_fallback, spot, widen
from backtest.sweep.portfolios.portfolio_lane_rules import CAUTION, LaneOrder, bound_cost
from backtest.venue import compute_payment, compute_setting

if TYPE_CHECKING:
    from backtest.base import FloatArray


def pay_isolated(lanes: LaneArrays, row: int, value: float, rate: float, i: int) -> None:
    count = len(lanes.left_at)
    account, position = lanes.account, lanes.position
    low, high = widen(lanes.prices, i)
    entries = field.NEXT_ENTRY if row == field.NEXT_QUANTITY else field.ENTRY
    for lane in range(count):
        quantity = position[spot(i, row, lane)]
        paid = compute_payment(quantity, value, rate)
        margin = position[spot(i, field.NEXT_MARGIN, lane)] + (-paid)
        margin = margin if quantity != 0.0 else position[spot(i, field.NEXT_MARGIN, lane)]
        position[spot(i, field.NEXT_MARGIN, lane)] = margin
        position[spot(i, field.FUNDED, lane)] += paid
        least = margin - quantity * position[spot(i, entries, lane)]
        least += min(quantity * low, quantity * high)
        is_short = (not least > 0.0) & (quantity != 0.0)
        mark_fallback(account, is_short, lane)


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
    ratio, cost = bound_cost(rules, quote, order)
    taken = ratio * (1.0 / compute_setting(rules.margin, quote.initial)) + ratio * rules.fee
    account[cell(field.TAKEN, lane)] += taken * order.added if order.is_adding else 0.0
    needed = order.size * rate + cost * abs(order.size - order.held)
    is_cut = (order.reach > limit * (1.0 - CAUTION)) | (needed > equity * (1.0 - CAUTION))
    is_fallback = order.is_adding & (is_cut | (order.held < 0.0))
    mark_fallback(account, is_fallback, lane)


def bound_wallet(
    account: FloatArray, order: LaneOrder, done: Trade, returned: float, lane: int
) -> None:
    lost = done.fee - min(returned, 0.0)
    account[cell(field.COSTS, lane)] += 0.0 if order.is_adding else lost
    account[cell(field.IS_ADDING, lane)] = (
        1.0 if order.is_adding else account[cell(field.IS_ADDING, lane)]
    )


def move_lane_margin(
    position: FloatArray,
    rules: InstrumentRules,
    quote: Quote,
    own: Position,
    done: Trade,
    i: int,
    lane: int,
) -> float:
    after = done.balances.positions[0]
    returned, posted, _ = split_margin(rules, own, after.quantity, done.value, quote.initial)
    position[spot(i, field.RETURNED, lane)] = returned
    position[spot(i, field.POSTED, lane)] = posted
    position[spot(i, field.NEXT_MARGIN, lane)] = after.margin
    return returned


def round_as_isolated(side: float, unit: float, quantity: float, reach: float) -> float:
    kept = max(side * quantity, 0.0)
    wanted = side * (kept + (reach * (1.0 / unit) - kept))
    return side * wanted * unit


def write_balance(terms: Terms, lanes: LaneArrays, is_increase: bool, i: int) -> None:
    count = len(lanes.left_at)
    account = lanes.account
    for lane in range(count):
        account[cell(field.BALANCE, lane)] = account[cell(field.NEXT_CASH, lane)]
    for j in range(len(lanes.signal) if lanes.is_crossed else 0):
        if not terms.rules.brackets.are_isolated[j]:
            add_entered(lanes, is_increase, j < i, j)


def add_entered(lanes: LaneArrays, is_increase: bool, is_past: bool, j: int) -> None:
    count, is_traded = len(lanes.left_at), lanes.is_traded[j] != 0
    account, position = lanes.account, lanes.position
    for lane in range(count):
        is_reduced = (position[spot(j, field.IS_INCREASE, lane)] == 0.0) & (is_increase | is_past)
        is_filled = is_traded & (is_reduced | (is_increase & is_past))
        quantity, entry = (
            position[spot(j, field.QUANTITY, lane)],
            position[spot(j, field.ENTRY, lane)],
        )
        after, filled = (
            position[spot(j, field.NEXT_QUANTITY, lane)],
            position[spot(j, field.NEXT_ENTRY, lane)],
        )
        entered = after * filled if is_filled else quantity * entry
        account[cell(field.BALANCE, lane)] += entered


def move_wallet(lanes: LaneArrays, is_increase: bool, i: int) -> None:
    count = len(lanes.left_at)
    account, position = lanes.account, lanes.position
    wanted = 1.0 if is_increase else 0.0
    for lane in range(count):
        is_mine = position[spot(i, field.IS_INCREASE, lane)] == wanted
        cash, balance = account[cell(field.NEXT_CASH, lane)], account[cell(field.BALANCE, lane)]
        left = (balance + position[spot(i, field.RETURNED, lane)]) - position[
            spot(i, field.POSTED, lane)
        ]
        left -= position[spot(i, field.FEE, lane)]
        is_trading = is_mine & (position[spot(i, field.TRADED, lane)] != 0.0)
        is_empty = is_trading & ((left < 0.0) | (balance < 0.0))
        account[cell(field.NEXT_CASH, lane)] = cash + (left - balance) if is_mine else cash
        mark_fallback(account, is_empty, lane)


def add_backing_at(lanes: LaneArrays, value: float, i: int) -> None:
    count = len(lanes.left_at)
    account, position = lanes.account, lanes.position
    for lane in range(count):
        quantity, entry = (
            position[spot(i, field.QUANTITY, lane)],
            position[spot(i, field.ENTRY, lane)],
        )
        account[cell(field.BACKED, lane)] += position[spot(i, field.NEXT_MARGIN, lane)]
        account[cell(field.BACKED, lane)] += quantity * (value - entry)


def find_least_of_isolated(lanes: LaneArrays, i: int) -> None:
    count = len(lanes.left_at)
    account, position = lanes.account, lanes.position
    low, high = widen(lanes.prices, i)
    for lane in range(count):
        quantity, entry = (
            position[spot(i, field.QUANTITY, lane)],
            position[spot(i, field.ENTRY, lane)],
        )
        least = position[spot(i, field.NEXT_MARGIN, lane)] - quantity * entry
        least += min(quantity * low, quantity * high)
        is_short = (not least > 0.0) & (quantity != 0.0)
        mark_fallback(account, is_short, lane)


def add_isolated(lanes: LaneArrays, i: int) -> None:
    count, is_traded = len(lanes.left_at), lanes.is_traded[i] != 0
    account, position, prices = lanes.account, lanes.position, lanes.prices
    quantities = field.NEXT_QUANTITY if is_traded else field.QUANTITY
    entries = field.NEXT_ENTRY if is_traded else field.ENTRY
    before, close, rate = prices[field.BEFORE, i], prices[field.CLOSE, i], prices[field.RATE, i]
    low, high = widen(prices, i)
    unit, rise, move, far = (
        abs(close),
        close - before,
        prices[field.MOVE, i],
        2.0 * (FARTHEST - 1.0),
    )
    for lane in range(count):
        quantity, entry = position[spot(i, quantities, lane)], position[spot(i, entries, lane)]
        margin, notional = position[spot(i, field.NEXT_MARGIN, lane)], abs(quantity) * unit
        profit, is_held = quantity * (close - entry), quantity != 0.0
        account[cell(field.BACKED, lane)] += margin
        account[cell(field.BACKED, lane)] += profit
        account[cell(field.GROSS, lane)] += notional
        least = (margin - quantity * entry) + min(quantity * low, quantity * high)
        is_short = (not least > 0.0) & is_held
        mark_fallback(account, is_short, lane)
        backing, needed = margin + profit, notional * rate * SLACK
        is_near = (not backing - needed > far * SLACK * notional) & is_held
        account[cell(field.IS_NEARING, lane)] = (
            1.0 if is_near else account[cell(field.IS_NEARING, lane)]
        )
        is_peak = needed * account[cell(field.PEAK_BACKING, lane)] > (
            account[cell(field.PEAK_NEEDED, lane)] * backing
        )
        is_peak &= is_held
        account[cell(field.IS_PEAKING, lane)] = (
            1.0 if is_peak else account[cell(field.IS_PEAKING, lane)]
        )
        gain = position[spot(i, field.PROFIT, lane)] if is_traded else quantity * rise
        account[cell(field.GAIN, lane)] += gain
    if not math.isnan(move):
        for lane in range(count):
            scale = position[spot(i, quantities, lane)] * account[cell(field.INVERSE, lane)]
            account[cell(field.DRIFT, lane)] += scale * (abs(before) * move)
            account[cell(field.GROWN, lane)] += scale * rise
    if is_traded:
        for lane in range(count):
            account[cell(field.PAID_FEES, lane)] += position[spot(i, field.FEE, lane)]
            account[cell(field.PAID_SLIPPAGE, lane)] += position[spot(i, field.SLIPPAGE, lane)]
            account[cell(field.TURNED, lane)] += position[spot(i, field.TRADED, lane)]


def add_backed(lanes: LaneArrays) -> None:
    count = len(lanes.left_at)
    account = lanes.account
    for lane in range(count):
        account[cell(field.POOL, lane)] = account[cell(field.NEXT_EQUITY, lane)]
        account[cell(field.NEXT_EQUITY, lane)] += account[cell(field.BACKED, lane)]


def write_margin(lanes: LaneArrays, i: int) -> None:
    count = len(lanes.left_at)
    account, position = lanes.account, lanes.position
    for lane in range(count):
        is_fallback = account[cell(field.IS_FALLBACK, lane)] != 0.0
        margin, after = (
            position[spot(i, field.MARGIN, lane)],
            position[spot(i, field.NEXT_MARGIN, lane)],
        )
        position[spot(i, field.MARGIN, lane)] = margin if is_fallback else after
