"""Bars in which lanes trade: first what each would hold and need, then the fills."""

from __future__ import annotations

import math
from typing import NamedTuple

from backtest.account import (
    InstrumentRules,
    Position,
    Quote,
    Terms,
    compute_square_root_impact,
    compute_target,
    fill,
    follow_prices,
    follow_trade,
    is_exiting,
    is_outside,
    make_balances,
    pick_margin,
    split_margin,
)
from backtest.account.account_records import Watch
from backtest.account.orders import LARGEST_WORSENING, round_quantity
from backtest.account.portfolio_records import CASH, FLAGS, RESERVE
from backtest.sweep.lanes import rows as r
from backtest.sweep.lanes.lane_rules import (
    LOT,
    MAX_LEVERAGE,
    MIN_NOTIONAL,
    FillKind,
    Table,
    quote_open,
    read_rules,
)
from backtest.sweep.lanes.prices import bound_moves, bound_rates
from backtest.sweep.lanes.rows import LANES, SLACK, Lanes, cell, spot, term
from backtest.venue import compute_best_leverage, compute_setting

CAUTION = 1e-9
"""Share of limits that lanes leave for rounding."""
GROWTH = 1.5
"""Ratio of the bound of quantities to the largest one that exceeded the last bound."""

ROUNDING, STOP_DISTANCE, PROFIT_DISTANCE, TRAIL_DISTANCE = (
    FLAGS.index(name)
    for name in ("has_rounding", "is_stop_distance", "is_profit_distance", "is_trail_distance")
)


class LaneOrder(NamedTuple):
    wanted: float
    reach: float
    held: float
    size: float
    added: float
    is_asking: bool
    is_adding: bool


def plan_trades(terms: Terms, lanes: Lanes, n: int) -> tuple[bool, int]:
    """Write what each lane wants to hold; return whether any trades, and rare lanes as bits."""
    while True:
        is_trading, is_over, rare = plan_once(terms, lanes, n)
        if not is_over:
            return is_trading, rare
        for i in range(n):
            bound_rates(terms, lanes, i)
            bound_moves(lanes, i)


def plan_once(terms: Terms, lanes: Lanes, n: int) -> tuple[bool, bool, int]:
    account, rare = lanes.account, find_capped(terms, lanes, n)
    for lane in range(LANES):
        account[cell(r.LOST, lane)] = 0.0
        account[cell(r.LOST_OF_ALL, lane)] = 0.0
        account[cell(r.COSTS, lane)] = 0.0
        account[cell(r.INITIAL, lane)] = 0.0
        account[cell(r.TAKEN, lane)] = 0.0
        account[cell(r.IS_ADDING, lane)] = 0.0
    is_trading, is_over = False, False
    for i in range(n):
        if lanes.prices[r.IS_LISTED, i] == 0.0:
            continue
        if lanes.is_asking[i] == 0:
            add_held(lanes, terms.rules.brackets.are_isolated[i] != 0, i)
            continue
        some, more, found = plan_by_kind(terms, lanes, i)
        is_trading, is_over, rare = is_trading or some, is_over or more, rare | found
    if lanes.has_isolated:
        write_balance(terms, lanes, n)
    return is_trading, is_over, rare | find_unfit(lanes)


def plan_by_kind(terms: Terms, lanes: Lanes, i: int) -> tuple[bool, bool, int]:
    kind, tables = lanes.kinds[i], terms.rules.brackets
    table = Table(1.0, tables.settings[i], tables.leverages[i, 0])
    if kind == r.PLAIN:
        return plan(lanes, FillKind(None, None, None, None, None, None, None), table, i)
    if kind == r.LOTS:
        return plan(lanes, FillKind(True, None, None, None, None, None, None), table, i)
    if kind == r.LINEAR:
        return plan(lanes, FillKind(True, True, None, None, None, None, None), table, i)
    if kind == r.INVERTED:
        return plan(lanes, FillKind(True, True, True, None, None, None, None), table, i)
    if kind == r.ISOLATED:
        return plan(lanes, FillKind(True, True, None, True, None, None, None), table, i)
    return plan(lanes, FillKind(True, True, True, True, None, None, None), table, i)


def plan(lanes: Lanes, kind: FillKind, table: Table, i: int) -> tuple[bool, bool, int]:
    account, position, numbers = lanes.account, lanes.position, lanes.numbers
    quote, signal, limit = quote_open(lanes.prices, i), lanes.signal[i], lanes.prices[r.LIMIT, i]
    unit, reach_of_one = abs(quote.fill), lanes.prices[r.REACH, i]
    rate, most = lanes.prices[r.INITIAL_RATE, i], lanes.most[i] * unit
    is_trading, is_over, rare, largest = False, False, 0, 0.0
    for lane in range(LANES):
        rules = read_rules(numbers, kind, table, i, lane)
        equity = account[cell(r.WORTH, lane)]
        quantity = position[spot(i, r.QUANTITY, lane)]
        target = position[spot(i, r.TARGET, lane)]
        order = size_lane(rules, quote, equity, quantity, target, signal, limit)
        after = round_quantity(rules, quantity, quote, order.wanted)
        reached = max(order.size if order.is_adding else 0.0, abs(after) * unit)
        cost = bound_cost(rules, quote, order) * max(
            abs(order.size - order.held) if order.is_adding else 0.0, abs(after - quantity) * unit
        )
        lost, is_rare = abs(after) * reach_of_one, order.is_asking & (order.reach == math.inf)
        account[cell(r.LOST_OF_ALL, lane)] += lost
        account[cell(r.COSTS, lane)] += cost
        if kind.is_isolated is None:
            account[cell(r.LOST, lane)] += lost
            account[cell(r.INITIAL, lane)] += reached * rate
        else:
            own = Position(
                quantity, position[spot(i, r.ENTRY, lane)], position[spot(i, r.MARGIN, lane)], 0.0
            )
            done = fill(rules, make_balances(math.inf, own), quote, order.wanted, rules.fee)
            held = done.balances.positions[0]
            backing = held.margin + held.quantity * (quote.fill - held.entry)
            posted = 1.0 / compute_setting(rules.margin, quote.initial)
            taken = SLACK * (1.0 + rules.slippage) * (posted + rules.fee) * order.added + cost
            account[cell(r.TAKEN, lane)] += taken if order.is_adding else 0.0
            needed = order.size * rate + cost
            is_cut = (order.reach > limit * (1.0 - CAUTION)) | (needed > equity * (1.0 - CAUTION))
            is_rare |= order.is_adding & (is_cut | (order.held < 0.0))
            is_rare |= (not lost < backing) & (held.quantity != 0.0)
        is_adding = account[cell(r.IS_ADDING, lane)]
        account[cell(r.IS_ADDING, lane)] = 1.0 if order.is_adding else is_adding
        position[spot(i, r.WANT, lane)] = order.wanted
        is_trading |= after != quantity
        is_over |= reached > most
        rare |= is_rare << lane
    if is_over:
        for lane in range(LANES):
            want = abs(position[spot(i, r.WANT, lane)])
            largest = max(largest, want) if want < math.inf else largest
        lanes.most[i] = max(lanes.most[i], GROWTH * largest)
        is_over = largest > 0.0
    return is_trading, is_over, rare


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


def round_as_isolated(side: float, unit: float, quantity: float, reach: float) -> float:
    """Return the notional as the limits of an isolated order leave it, to the last bit."""
    kept = max(side * quantity, 0.0)
    wanted = side * (kept + (reach * (1.0 / unit) - kept))
    return side * wanted * unit


def bound_cost(rules: InstrumentRules, quote: Quote, order: LaneOrder) -> float:
    worsening = rules.slippage
    if rules.has_impact is not None:
        notional = abs(order.reach - order.held) if order.reach < math.inf else 0.0
        worsening += compute_square_root_impact(rules.impact, quote, notional)
        worsening = min(worsening, LARGEST_WORSENING)
    ratio = 1.0 + worsening
    if rules.is_inverse is not None:
        ratio = 1.0 / (1.0 - worsening)
    return (worsening * ratio + rules.fee * ratio) * SLACK


def add_held(lanes: Lanes, is_isolated: bool, i: int) -> None:
    account, position, prices = lanes.account, lanes.position, lanes.prices
    reach, rate = prices[r.REACH, i], prices[r.INITIAL_RATE, i] * prices[r.AT_OPEN, i]
    for lane in range(LANES):
        size = abs(position[spot(i, r.QUANTITY, lane)])
        account[cell(r.LOST_OF_ALL, lane)] += size * reach
        if not is_isolated:
            account[cell(r.LOST, lane)] += size * reach
            account[cell(r.INITIAL, lane)] += size * rate


def find_capped(terms: Terms, lanes: Lanes, n: int) -> int:
    account, rare = lanes.account, 0
    most = terms.max_gross_leverage * (1.0 - CAUTION)
    if most == math.inf:
        return 0
    for lane in range(LANES):
        account[cell(r.WANTED, lane)] = 0.0
    for i in range(n):
        if lanes.prices[r.IS_LISTED, i] != 0.0:
            add_wanted(lanes, i)
    for lane in range(LANES):
        is_rare = account[cell(r.WANTED, lane)] > most * account[cell(r.WORTH, lane)]
        rare |= is_rare << lane
    return rare


def add_wanted(lanes: Lanes, i: int) -> None:
    account, position, numbers = lanes.account, lanes.position, lanes.numbers
    quote, signal, is_open = quote_open(lanes.prices, i), lanes.signal[i], lanes.is_pending[i] == 1
    kind, table = FillKind(None, None, None, None, None, None, None), Table(1.0, 1.0, 1.0)
    for lane in range(LANES):
        rules = read_rules(numbers, kind, table, i, lane)
        held = abs(position[spot(i, r.QUANTITY, lane)]) * abs(quote.fill)
        equity, target = account[cell(r.WORTH, lane)], position[spot(i, r.TARGET, lane)]
        reach = compute_target(rules, quote, equity, target, signal)
        account[cell(r.WANTED, lane)] += reach if is_open & (reach > held) else held


def write_balance(terms: Terms, lanes: Lanes, n: int) -> None:
    account, position = lanes.account, lanes.position
    for lane in range(LANES):
        account[cell(r.BALANCE, lane)] = account[cell(CASH, lane)]
    for i in range(n):
        if terms.rules.brackets.are_isolated[i] == 0:
            for lane in range(LANES):
                entered = position[spot(i, r.QUANTITY, lane)] * position[spot(i, r.ENTRY, lane)]
                account[cell(r.BALANCE, lane)] += entered


def find_unfit(lanes: Lanes) -> int:
    """Return lanes that may lack margin for what they add, or fail with what they then hold."""
    account, rare = lanes.account, 0
    has_isolated, is_crossed = lanes.has_isolated, lanes.is_crossed
    for lane in range(LANES):
        pool, costs = account[cell(r.POOL, lane)], account[cell(r.COSTS, lane)]
        taken = account[cell(r.TAKEN, lane)]
        is_safe = (account[cell(r.LOST, lane)] + costs <= pool) | (not is_crossed)
        left = account[cell(r.WORTH, lane)] - account[cell(r.LINE, lane)]
        is_safe &= account[cell(r.LOST_OF_ALL, lane)] + costs < left
        free = pool - costs - account[cell(r.INITIAL, lane)] - taken
        is_enough = free > CAUTION * abs(pool)
        is_safe &= is_enough | (account[cell(r.IS_ADDING, lane)] == 0.0) | (not is_crossed)
        if has_isolated:
            is_safe &= taken + costs <= account[cell(r.BALANCE, lane)] * (1.0 - CAUTION)
        rare |= (not is_safe) << lane
    return rare


def find_poor(terms: Terms, lanes: Lanes, n: int) -> int:
    """Return lanes that hold nothing and may be unable to buy the smallest position."""
    account, rare = lanes.account, 0
    for lane in range(LANES):
        account[cell(r.WANTED, lane)] = math.inf
    for i in range(n):
        if lanes.prices[r.IS_LISTED, i] != 0.0:
            bound_smallest(terms, lanes, i)
    for lane in range(LANES):
        left = account[cell(r.WORTH, lane)] - account[cell(r.COSTS, lane)]
        is_poor = left + account[cell(RESERVE, lane)] < account[cell(r.WANTED, lane)]
        rare |= (is_poor & (account[cell(r.LOST_OF_ALL, lane)] == 0.0)) << lane
    return rare


def bound_smallest(terms: Terms, lanes: Lanes, i: int) -> None:
    account, numbers = lanes.account, lanes.numbers
    price, has_lots = lanes.prices[r.WIDEST, i], terms.flags[ROUNDING, i] != 0
    best = compute_best_leverage(pick_margin(terms, i), lanes.prices[r.INITIAL_X, i])
    for lane in range(LANES):
        least = max(numbers[term(i, MIN_NOTIONAL, lane)], numbers[term(i, LOT, lane)] * price)
        most = min(best, numbers[term(i, MAX_LEVERAGE, lane)])
        bound = least / most * (1.0 + 1e-6) if has_lots else 0.0
        account[cell(r.WANTED, lane)] = min(account[cell(r.WANTED, lane)], bound)


# ----------------------------------------------------------------------------------- the fills


def fill_trades(terms: Terms, lanes: Lanes, n: int) -> None:
    account = lanes.account
    for lane in range(LANES):
        account[cell(r.PAID, lane)] = 0.0
    for i in range(n):
        if lanes.is_asking[i] != 0:
            fill_by_kind(terms, lanes, i)
    for lane in range(LANES):
        account[cell(r.OF_FEES, lane)] += account[cell(r.PAID, lane)]


def fill_by_kind(terms: Terms, lanes: Lanes, i: int) -> None:
    kind, tables = lanes.kinds[i], terms.rules.brackets
    table = Table(1.0, tables.settings[i], tables.leverages[i, 0])
    if kind == r.PLAIN:
        fill_lanes(lanes, FillKind(None, None, None, None, None, None, None), table, i)
    elif kind == r.LOTS:
        fill_lanes(lanes, FillKind(True, None, None, None, None, None, None), table, i)
    elif kind == r.LINEAR:
        fill_lanes(lanes, FillKind(True, True, None, None, None, None, None), table, i)
    elif kind == r.INVERTED:
        fill_lanes(lanes, FillKind(True, True, True, None, None, None, None), table, i)
    elif kind == r.ISOLATED:
        fill_lanes(lanes, FillKind(True, True, None, True, None, None, None), table, i)
    else:
        fill_lanes(lanes, FillKind(True, True, True, True, None, None, None), table, i)


def fill_lanes(lanes: Lanes, kind: FillKind, table: Table, i: int) -> None:
    account, position, numbers = lanes.account, lanes.position, lanes.numbers
    quote = quote_open(lanes.prices, i)
    for lane in range(LANES):
        rules = read_rules(numbers, kind, table, i, lane)
        quantity, entry = position[spot(i, r.QUANTITY, lane)], position[spot(i, r.ENTRY, lane)]
        margin, cash = 0.0, account[cell(CASH, lane)]
        if kind.is_isolated is not None:
            margin, cash = position[spot(i, r.MARGIN, lane)], math.inf
        own = Position(quantity, entry, margin, 0.0)
        done = fill(
            rules, make_balances(cash, own), quote, position[spot(i, r.WANT, lane)], rules.fee
        )
        after = done.balances.positions[0]
        if kind.is_isolated is None:
            account[cell(CASH, lane)] = done.balances.cash
        else:
            returned, posted, _ = split_margin(
                rules, own, after.quantity, done.value, quote.initial
            )
            moved = (returned - posted) - done.fee
            account[cell(CASH, lane)] += moved if done.quantity != 0.0 else 0.0
            position[spot(i, r.MARGIN, lane)] = after.margin
        account[cell(r.PAID, lane)] += done.fee
        account[cell(r.OF_SLIPPAGE, lane)] += done.slippage
        if kind.has_impact is not None:
            account[cell(r.OF_IMPACT, lane)] += done.impact
        account[cell(r.OF_TRADED, lane)] += abs(done.quantity) * abs(done.value)
        is_new = quantity * after.quantity <= 0.0
        best = position[spot(i, r.BEST, lane)]
        position[spot(i, r.BEST, lane)] = after.entry if is_new else best
        position[spot(i, r.QUANTITY, lane)] = after.quantity
        position[spot(i, r.ENTRY, lane)] = after.entry


# ----------------------------------------------------------------------------------- the stops


def choose_exit_kind(terms: Terms, i: int) -> FillKind:
    return FillKind(
        has_rounding=True,
        has_impact=True,
        is_inverse=True if terms.rules.brackets.are_inverse[i] else None,
        is_isolated=None,
        is_stop_distance=True if terms.flags[STOP_DISTANCE, i] else None,
        is_profit_distance=True if terms.flags[PROFIT_DISTANCE, i] else None,
        is_trail_distance=True if terms.flags[TRAIL_DISTANCE, i] else None,
    )


def find_exits(terms: Terms, lanes: Lanes, n: int, is_planned: bool) -> int:
    """Return lanes whose stops this bar may reach with what they hold, or with what they want."""
    rare = 0
    for i in range(n):
        if lanes.prices[r.IS_LISTED, i] != 0.0 and (not is_planned or lanes.is_asking[i] == 1):
            rare |= find_exits_of(terms, lanes, is_planned, i)
    return rare


def find_exits_of(terms: Terms, lanes: Lanes, is_planned: bool, i: int) -> int:
    position, numbers, prices, rare = lanes.position, lanes.numbers, lanes.prices, 0
    quote, kind = quote_open(prices, i), choose_exit_kind(terms, i)
    table = Table(terms.rules.brackets.sizes[i], 1.0, 1.0)
    low = min(prices[r.OPEN, i], prices[r.LAST_LOW, i])
    high = max(prices[r.OPEN, i], prices[r.LAST_HIGH, i])
    for lane in range(LANES):
        rules = read_rules(numbers, kind, table, i, lane)
        own = Position(
            position[spot(i, r.QUANTITY, lane)], position[spot(i, r.ENTRY, lane)], 0.0, 0.0
        )
        watch = Watch(position[spot(i, r.BEST, lane)], 0.0)
        if is_planned:
            want = position[spot(i, r.WANT, lane)]
            done = fill(rules, make_balances(0.0, own), quote, want, rules.fee)
            after = done.balances.positions[0]
            watch = follow_trade(watch, own, after)
            own = after
        is_out = is_exiting(rules, make_balances(0.0, own), quote, watch, low, high)
        rare |= is_out << lane
    return rare


def follow_bests(lanes: Lanes, n: int) -> None:
    position = lanes.position
    for i in range(n):
        if lanes.prices[r.IS_LISTED, i] == 0.0:
            continue
        quote = quote_open(lanes.prices, i)
        for lane in range(LANES):
            own = Position(
                position[spot(i, r.QUANTITY, lane)], position[spot(i, r.ENTRY, lane)], 0.0, 0.0
            )
            watch = Watch(position[spot(i, r.BEST, lane)], 0.0)
            position[spot(i, r.BEST, lane)] = follow_prices(watch, own, quote).best
