"""What lanes of several positions do at the opens: funding, and the fills of their decisions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backtest.account import (
    InstrumentRules,
    Position,
    Quote,
    Terms,
    Trade,
    compute_target,
    fill,
    is_outside,
    make_balances,
)
from backtest.account.portfolio_records import CASH
from backtest.sweep.lanes.lane_rows import cell
from backtest.sweep.portfolios import portfolio_lane_rows as field
from backtest.sweep.portfolios.portfolio_lane_collateral import add_pledged_at_opens
from backtest.sweep.portfolios.portfolio_lane_isolated import (
    add_backing_at,
    bound_isolated,
    bound_wallet,
    move_lane_margin,
    move_wallet,
    round_as_isolated,
    write_balance,
)
from backtest.sweep.portfolios.portfolio_lane_rows import LaneArrays, mark_fallback, spot
from backtest.sweep.portfolios.portfolio_lane_rules import (
    CAUTION,
    NO_COSTS,
    Costs,
    FillKind,
    LaneOrder,
    bound_cost,
    quote_open,
    read_rules,
)

if TYPE_CHECKING:
    from backtest.base import FloatArray

GROWTH = 1.5
"""Ratio of the bound of quantities to the largest one that exceeded the last bound."""


# -------------------------------------------------------------------------------------- fills


def is_any_asking(lanes: LaneArrays, i: int) -> bool:
    count = len(lanes.left_at)
    account, position = lanes.account, lanes.position
    quote, signal = quote_open(lanes.prices, i), lanes.signal[i]
    scale = (1.0 if signal > 0.0 else -1.0) * abs(quote.fill)
    kind = FillKind(None, None, None, None)
    found = False
    for lane in range(count):
        rules = read_rules(NO_COSTS, position, kind, i, lane)
        equity = account[cell(field.WORTH, lane)]
        target = position[spot(i, field.TARGET, lane)]
        reach = compute_target(rules, quote, equity, target, signal)
        held = position[spot(i, field.QUANTITY, lane)] * scale
        found |= is_outside(rules, equity, reach, held)
    return found


def find_capped(terms: Terms, lanes: LaneArrays) -> None:
    count, most = len(lanes.left_at), terms.max_gross_leverage * (1.0 - CAUTION)
    account = lanes.account
    if most == math.inf:
        return
    for lane in range(count):
        account[cell(field.WANTED, lane)] = 0.0
    for i in range(len(lanes.signal)):
        if lanes.prices[field.IS_LISTED, i] != 0.0:
            add_wanted(lanes, i)
    for lane in range(count):
        is_capped = account[cell(field.WANTED, lane)] > most * account[cell(field.WORTH, lane)]
        mark_fallback(account, is_capped, lane)


def add_wanted(lanes: LaneArrays, i: int) -> None:
    count = len(lanes.left_at)
    account, position = lanes.account, lanes.position
    quote, signal = quote_open(lanes.prices, i), lanes.signal[i]
    kind, is_open = FillKind(None, None, None, None), lanes.is_pending[i] == 1
    for lane in range(count):
        rules = read_rules(NO_COSTS, position, kind, i, lane)
        equity = account[cell(field.WORTH, lane)]
        held = abs(position[spot(i, field.QUANTITY, lane)]) * abs(quote.fill)
        reach = compute_target(rules, quote, equity, position[spot(i, field.TARGET, lane)], signal)
        account[cell(field.WANTED, lane)] += reach if is_open & (reach > held) else held


def fill_lanes(costs: Costs, lanes: LaneArrays, kind: FillKind, i: int) -> bool:
    count = len(lanes.left_at)
    account, position, prices = lanes.account, lanes.position, lanes.prices
    quote, signal, before = quote_open(prices, i), lanes.signal[i], prices[field.BEFORE, i]
    close, limit, most = (
        prices[field.CLOSE, i],
        prices[field.LIMIT, i],
        lanes.reach[i] * abs(quote.fill),
    )
    rate = prices[field.INITIAL_RATE, i]
    is_over = False
    for lane in range(count):
        rules = read_rules(costs, position, kind, i, lane)
        equity = account[cell(field.WORTH, lane)]
        quantity, target = (
            position[spot(i, field.QUANTITY, lane)],
            position[spot(i, field.TARGET, lane)],
        )
        order = size_lane(rules, quote, equity, quantity, target, signal, limit)
        margin, cash = 0.0, 0.0
        if kind.is_isolated is not None:  # the wallet is tested apart
            margin, cash = position[spot(i, field.NEXT_MARGIN, lane)], math.inf
        own = Position(quantity, position[spot(i, field.ENTRY, lane)], margin, before)
        done = fill(rules, make_balances(cash, own), quote, order.wanted, rules.fee)
        if kind.is_isolated is None:
            bound_pool(account, rules, quote, order, done, lane)
        else:
            returned = move_lane_margin(position, rules, quote, own, done, i, lane)
            bound_isolated(account, rules, quote, order, equity, limit, rate, lane)
            bound_wallet(account, order, done, returned, lane)
        is_fallback = order.is_asking & (order.reach == math.inf)
        mark_fallback(account, is_fallback, lane)
        reached = write_fill(position, rules, quote, order, done, close, i, lane)
        is_over |= reached > most
    return is_over


def size_lane(
    rules: InstrumentRules,
    quote: Quote,
    equity: float,
    quantity: float,
    target: float,
    signal: float,
    limit: float,
) -> LaneOrder:
    unit, side = abs(quote.fill), 1.0 if signal > 0.0 else -1.0
    held = quantity * (side * unit)
    reach = compute_target(rules, quote, equity, target, signal)
    is_asking = is_outside(rules, equity, reach, held) & (equity > 0.0)
    kept = max(held, 0.0)
    is_adding = is_asking & (reach > kept)
    allowed = limit
    if rules.is_isolated is not None:
        allowed = round_as_isolated(side, unit, quantity, reach)
    added = max(min(reach, allowed) - kept, 0.0)
    size = kept + added if is_adding else reach
    is_kept = is_adding & (size <= held) & (held > 0.0)
    wanted = side * size * (1.0 / unit) + 0.0
    wanted = wanted if is_asking & (not is_kept) else quantity
    return LaneOrder(wanted, reach, held, size, added, is_asking, is_adding)


def bound_pool(
    account: FloatArray,
    rules: InstrumentRules,
    quote: Quote,
    order: LaneOrder,
    done: Trade,
    lane: int,
) -> None:
    _, cost = bound_cost(rules, quote, order)
    cost *= abs(order.size - order.held) if order.is_adding else 0.0
    paid = done.slippage + done.fee
    if rules.has_impact is not None:
        paid += done.impact
    account[cell(field.COSTS, lane)] += max(cost, paid)
    account[cell(field.IS_ADDING, lane)] = (
        1.0 if order.is_adding else account[cell(field.IS_ADDING, lane)]
    )


def write_fill(
    position: FloatArray,
    rules: InstrumentRules,
    quote: Quote,
    order: LaneOrder,
    done: Trade,
    close: float,
    i: int,
    lane: int,
) -> float:
    after = done.balances.positions[0]
    size = abs(after.quantity) * abs(quote.fill)
    reached = max(order.size if order.is_adding else 0.0, size)
    position[spot(i, field.SIZE, lane)] = reached
    position[spot(i, field.NEXT_QUANTITY, lane)] = after.quantity
    position[spot(i, field.NEXT_ENTRY, lane)] = after.entry
    position[spot(i, field.IS_INCREASE, lane)] = 1.0 if order.is_adding else 0.0
    position[spot(i, field.FLOW, lane)] = done.quantity * done.value
    position[spot(i, field.FEE, lane)] = done.fee
    position[spot(i, field.SLIPPAGE, lane)] = done.slippage
    if rules.has_impact is not None:
        position[spot(i, field.IMPACT, lane)] = done.impact
    position[spot(i, field.TRADED, lane)] = abs(done.quantity) * abs(done.value)
    marked = position[spot(i, field.MARKED, lane)]
    position[spot(i, field.NEXT_MARKED, lane)] = after.value if done.quantity != 0.0 else marked
    pnl = after.quantity * (close - after.value)
    position[spot(i, field.PROFIT, lane)] = (0.0 + done.price_pnl) + pnl
    return reached


def raise_reach(lanes: LaneArrays, i: int) -> None:
    count = len(lanes.left_at)
    position, unit, most = lanes.position, abs(lanes.prices[field.OPEN, i]), 0.0
    for lane in range(count):
        size = position[spot(i, field.SIZE, lane)]
        most = max(most, size) if size < math.inf else most
    lanes.reach[i] = max(lanes.reach[i], GROWTH * (most / unit))


def move_cash(lanes: LaneArrays, is_increase: bool, i: int) -> None:
    count = len(lanes.left_at)
    account, position = lanes.account, lanes.position
    wanted = 1.0 if is_increase else 0.0
    for lane in range(count):
        is_mine = position[spot(i, field.IS_INCREASE, lane)] == wanted
        flow = position[spot(i, field.FLOW, lane)] if is_mine else 0.0
        fee = position[spot(i, field.FEE, lane)] if is_mine else 0.0
        account[cell(field.NEXT_CASH, lane)] = (account[cell(field.NEXT_CASH, lane)] - flow) - fee


def move_all_cash(terms: Terms, lanes: LaneArrays, n: int) -> None:
    for k in range(2):
        if k == 1 and lanes.has_isolated:
            write_balance(terms, lanes, True, 0)
            find_cut(lanes)
        for i in range(n):
            if lanes.is_traded[i] == 0:
                continue
            if terms.rules.brackets.are_isolated[i]:
                write_balance(terms, lanes, k == 1, i)
                move_wallet(lanes, k == 1, i)
            else:
                move_cash(lanes, k == 1, i)


def find_cut(lanes: LaneArrays) -> None:
    count = len(lanes.left_at)
    account = lanes.account
    for lane in range(count):
        taken, costs = account[cell(field.TAKEN, lane)], account[cell(field.COSTS, lane)]
        left = account[cell(field.BALANCE, lane)] * (1.0 - CAUTION) - costs
        is_cut = (taken > left) & (taken > 0.0)
        mark_fallback(account, is_cut, lane)


def begin_lanes(lanes: LaneArrays, n: int, has_funding: bool) -> None:
    count = len(lanes.left_at)
    account, position = lanes.account, lanes.position
    for lane in range(count):
        account[cell(field.NEXT_CASH, lane)] = account[cell(CASH, lane)]
        account[cell(field.IS_FALLBACK, lane)] = 0.0
        account[cell(field.IS_ADDING, lane)] = 0.0
        account[cell(field.COSTS, lane)] = 0.0
        account[cell(field.TAKEN, lane)] = 0.0
    for i in range(n):
        lanes.is_traded[i] = 0
        if lanes.has_isolated:
            for lane in range(count):
                position[spot(i, field.NEXT_MARGIN, lane)] = position[spot(i, field.MARGIN, lane)]
        if has_funding:
            for lane in range(count):
                position[spot(i, field.FUNDED, lane)] = 0.0


def value_opens(terms: Terms, lanes: LaneArrays, n: int) -> None:
    count = len(lanes.left_at)
    account, position, prices = lanes.account, lanes.position, lanes.prices
    for lane in range(count):
        account[cell(field.WORTH, lane)] = account[cell(field.NEXT_CASH, lane)]
        account[cell(field.BACKED, lane)] = 0.0
    for i in range(n):
        if prices[field.IS_LISTED, i] == 0.0:
            continue
        value = prices[field.OPEN, i]
        if terms.rules.brackets.are_isolated[i]:
            add_backing_at(lanes, value, i)
            continue
        for lane in range(count):
            account[cell(field.WORTH, lane)] += position[spot(i, field.QUANTITY, lane)] * value
    for lane in range(count):
        worth = account[cell(field.WORTH, lane)]
        account[cell(field.POOL_WORTH, lane)] = worth
        account[cell(field.WORTH, lane)] = worth + account[cell(field.BACKED, lane)]
    if len(lanes.assets) > 0:
        add_pledged_at_opens(lanes)
