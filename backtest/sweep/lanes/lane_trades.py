"""The steps of lanes in an ordinary bar: pay funding and interest, and fill their decisions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from backtest.account import (
    Balances,
    Feed,
    InstrumentRules,
    Quote,
    Rules,
    Trade,
    Watch,
    can_order,
    charge_interest,
    compute_equity,
    compute_target,
    fill,
    find_adverse,
    find_funding_value,
    follow_prices,
    follow_trade,
    is_asking,
    is_exiting,
    is_funding_due,
    is_stopped,
    is_triggered,
    mark_to_market,
    pay_funding,
    size_order,
)
from backtest.sweep.lanes.lane_rows import (
    HOLD,
    LANES,
    LIVE,
    RUN,
    TRADE,
    Kind,
    LaneBar,
    cell,
    has_run,
    read_balances,
    read_own_instrument,
    read_own_rules,
    read_watch,
    write_balances,
    write_watch,
)
from backtest.sweep.lanes.quick_looks import RateBound, may_be_poor, may_break

from backtest.sweep.lanes.lane_rows import (  # isort: skip
    CARRY, CARRY_BEFORE, CASH, CASH_BEFORE, FEES, FUNDING, FUNDING_BEFORE, IMPACT, INTEREST,
    INTEREST_BEFORE, INVERSE, LATER, LINE, MARGIN, MARGIN_BEFORE, PRICE_PNL, SLIPPAGE, STEP_LEFT,
    TARGET, TRADED,
)  # fmt: skip

if TYPE_CHECKING:
    from backtest.base import FloatArray


class Charges(NamedTuple):
    funding_value: float
    funding_rate: float
    years: float
    borrow_rate: float
    cash_rate: float
    short_rate: float


# --------------------------------------------------------------------------- funding, interest


def find_charges(rules: InstrumentRules, feed: Feed, quote: Quote, event: int, t: int) -> Charges:
    value, rate = quote.mark_open, 0.0
    if is_funding_due(feed, event, t):
        value, rate = find_funding_value(rules, feed, quote, event), feed.funding_rate[event]
    last = max(t - 1, 0)
    return Charges(
        funding_value=value,
        funding_rate=rate,
        years=feed.years[min(t, len(feed.years) - 1)],
        borrow_rate=feed.borrow_rate[min(last, len(feed.borrow_rate) - 1)],
        cash_rate=feed.cash_rate[min(last, len(feed.cash_rate) - 1)],
        short_rate=feed.short_rate[min(last, len(feed.short_rate) - 1)],
    )


def is_charging(rules: Rules, charges: Charges) -> bool:
    if rules.account.has_interest is None:
        return False
    return charges.borrow_rate != 0.0 or charges.cash_rate != 0.0 or charges.short_rate != 0.0


def charge_lanes(bar: LaneBar, charges: Charges, block: FloatArray, is_paying: bool) -> None:
    rules, is_isolated = bar.rules.instrument, bar.rules.instrument.is_isolated
    for i in range(LANES):
        own = read_own_rules(bar.rules, bar.kind, block, i)
        balances = read_balances(rules, block, bar.value, i)
        block[cell(CASH_BEFORE, i)] = balances.cash
        block[cell(FUNDING_BEFORE, i)] = block[cell(FUNDING, i)]
        if bar.kind.is_full is not None:
            block[cell(CARRY_BEFORE, i)] = block[cell(CARRY, i)]
        if is_isolated is not None:
            block[cell(MARGIN_BEFORE, i)] = balances.positions[0].margin
        if is_paying:
            balances, paid = pay_funding(
                own.instrument, balances, charges.funding_value, charges.funding_rate
            )
            block[cell(FUNDING, i)] += paid
            add_lane_carry(bar.kind, block, i, paid)
        if bar.rules.account.has_interest is not None:
            block[cell(INTEREST_BEFORE, i)] = block[cell(INTEREST, i)]
            balances, interest = charge_interest(
                own,
                balances,
                bar.quote,
                charges.years,
                charges.borrow_rate,
                charges.cash_rate,
                charges.short_rate,
            )
            block[cell(INTEREST, i)] += interest
            add_lane_carry(bar.kind, block, i, interest)
        block[cell(CASH, i)] = balances.cash
        if is_isolated is not None:
            block[cell(MARGIN, i)] = balances.positions[0].margin


def add_lane_carry(kind: Kind, block: FloatArray, i: int, paid: float) -> None:
    if kind.is_full is not None:
        block[cell(CARRY, i)] += paid * block[cell(INVERSE, i)]


# ------------------------------------------------------------------------- the step of each lane


def pass_lanes(
    bar: LaneBar, block: FloatArray, most: RateBound, is_carrying: bool, rare: int
) -> bool:
    has_odd = False
    for first in range(0, LANES, RUN):
        if has_run(rare, first):
            is_trading, is_odd = sort_run(bar, block, is_carrying, first)
            has_odd |= is_odd
            if is_trading:
                has_odd |= trade_run(bar, block, most, first)
    return has_odd


def sort_run(bar: LaneBar, block: FloatArray, is_carrying: bool, first: int) -> tuple[bool, bool]:
    is_trading, has_odd = False, False
    for i in range(first, first + RUN):
        step = sort_lane(bar, block, is_carrying, i)
        is_trading |= step == TRADE
        has_odd |= step == LIVE
    return is_trading, has_odd


def sort_lane(bar: LaneBar, block: FloatArray, is_carrying: bool, i: int) -> float:
    rules, quote = bar.rules.instrument, bar.quote
    own = read_own_instrument(rules, bar.kind, block, i)
    balances = read_balances(rules, block, bar.value, i)
    is_alive = can_order(own, quote, compute_equity(rules, balances, quote.fill))
    is_moving = is_alive & is_asking(own, balances, quote, block[cell(TARGET, i)], bar.signal)
    watch = read_watch(rules, block, i)
    is_odd = is_triggered(own, balances, quote, watch) | (block[cell(LATER, i)] != 0.0)
    left = compute_equity(rules, balances, quote.mark_close)
    is_odd |= not left > block[cell(LINE, i)]
    if bar.rules.account.has_interest is not None:
        is_odd |= is_carrying & may_be_poor(own, balances, quote, left)
    step = TRADE if is_moving else (LIVE if is_odd else HOLD)
    block[cell(STEP_LEFT, i)] = step
    return step


# ------------------------------------------------------------------------------------- trades


def trade_run(bar: LaneBar, block: FloatArray, most: RateBound, first: int) -> bool:
    has_odd = False
    for i in range(first, first + RUN):
        has_odd |= trade_lane(bar, block, most, i)
    return has_odd


def trade_lane(bar: LaneBar, block: FloatArray, most: RateBound, i: int) -> bool:
    rules, quote = bar.rules.instrument, bar.quote
    own = read_own_instrument(rules, bar.kind, block, i)
    balances, valued = value_balances(bar, block, i)
    is_mine = block[cell(STEP_LEFT, i)] == TRADE
    target, line = block[cell(TARGET, i)], block[cell(LINE, i)]
    watch = read_watch(rules, block, i)
    done, is_special = try_trade(own, quote, balances, watch, target, bar.signal, most, line)
    is_odd = is_mine & (is_special | (block[cell(LATER, i)] != 0.0))
    if is_odd:
        block[cell(STEP_LEFT, i)] = LIVE
    if is_mine & (not is_odd):
        write_balances(rules, block, i, done.balances)
        if rules.has_exits is not None:
            if rules.fills_late is not None:
                watch = follow_prices(watch, balances.positions[0], quote)
            watch = follow_trade(watch, balances.positions[0], done.balances.positions[0])
            write_watch(rules, block, i, watch)
        count_trade(rules, block, i, done)
        add_lane_carry(bar.kind, block, i, done.fee)
        if bar.kind.is_full is not None:
            pnl = mark_to_market(done.balances, quote.mark_close)[1]
            block[cell(PRICE_PNL, i)] += (valued + done.price_pnl) + pnl
    return bool(is_odd)


def value_balances(bar: LaneBar, block: FloatArray, i: int) -> tuple[Balances, float]:
    rules = bar.rules.instrument
    balances, pnl = read_balances(rules, block, bar.value, i), 0.0
    if rules.fills_early is not None:
        balances, pnl = mark_to_market(balances, bar.quote.fill)
    return balances, pnl


def try_trade(
    rules: InstrumentRules,
    quote: Quote,
    balances: Balances,
    watch: Watch,
    leverage: float,
    signal: float,
    most: RateBound,
    line: float,
) -> tuple[Trade, bool]:
    equity = compute_equity(rules, balances, quote.fill)
    reach = compute_target(rules, quote, equity, leverage, signal)
    is_odd = reach == math.inf
    if rules.fills_early is None:
        is_odd |= may_break(rules, balances, quote, most)
        is_odd |= may_exit_before(rules, balances, quote, watch)
    side = 1.0 if signal > 0.0 else -1.0
    wanted = size_order(rules, balances, quote, equity, side, reach)
    done = fill(rules, balances, quote, wanted, rules.fee)
    if rules.fills_late is None:
        after = follow_trade(watch, balances.positions[0], done.balances.positions[0])
        is_odd |= may_break(rules, done.balances, quote, most)
        is_odd |= may_exit(rules, done.balances, quote, after, quote.low, quote.high)
    left = compute_equity(rules, done.balances, quote.mark_close)
    is_odd |= (not left > line) | may_be_poor(rules, done.balances, quote, left)
    return done, is_odd


def may_exit_before(rules: InstrumentRules, balances: Balances, quote: Quote, watch: Watch) -> bool:
    if rules.fills_late is not None:
        return may_exit(rules, balances, quote, watch, quote.low, quote.high)
    return may_exit(rules, balances, quote, watch, quote.open, quote.open)


def may_exit(
    rules: InstrumentRules, balances: Balances, quote: Quote, watch: Watch, low: float, high: float
) -> bool:
    if rules.has_exits is not None:
        return is_exiting(rules, balances, quote, watch, low, high)
    if rules.has_stop is not None:
        position = balances.positions[0]
        return is_stopped(rules, position, find_adverse(position, low, high))
    return False


# -------------------------------------------------------------- fills at the close before the bar


def trade_and_charge(
    bar: LaneBar, charges: Charges, block: FloatArray, most: RateBound, is_paying: bool
) -> bool:
    has_odd = False
    for i in range(LANES):
        has_odd |= trade_and_charge_lane(bar, charges, block, most, is_paying, i)
    return has_odd


def trade_and_charge_lane(
    bar: LaneBar, charges: Charges, block: FloatArray, most: RateBound, is_paying: bool, i: int
) -> bool:
    rules, quote = bar.rules.instrument, bar.quote
    own = read_own_rules(bar.rules, bar.kind, block, i)
    balances, valued = value_balances(bar, block, i)
    watch = read_watch(rules, block, i)
    done, is_odd = try_early(own.instrument, quote, balances, block[cell(TARGET, i)], bar.signal)
    after, paid, interest = done.balances, 0.0, 0.0
    if is_paying:
        after, paid = pay_funding(
            own.instrument, after, charges.funding_value, charges.funding_rate
        )
    if bar.rules.account.has_interest is not None:
        after, interest = charge_interest(
            own,
            after,
            quote,
            charges.years,
            charges.borrow_rate,
            charges.cash_rate,
            charges.short_rate,
        )
    watch = follow_trade(watch, balances.positions[0], after.positions[0])
    is_odd |= may_break(own.instrument, after, quote, most) | (block[cell(LATER, i)] != 0.0)
    is_odd |= may_exit(own.instrument, after, quote, watch, quote.low, quote.high)
    left = compute_equity(rules, after, quote.mark_close)
    is_odd |= (not left > block[cell(LINE, i)]) | may_be_poor(own.instrument, after, quote, left)
    block[cell(STEP_LEFT, i)] = LIVE if is_odd else TRADE
    if not is_odd:
        write_balances(rules, block, i, after)
        write_watch(rules, block, i, watch)
        count_trade(rules, block, i, done)
        block[cell(FUNDING, i)] += paid
        if bar.rules.account.has_interest is not None:
            block[cell(INTEREST, i)] += interest
        add_lane_carry(bar.kind, block, i, paid)
        add_lane_carry(bar.kind, block, i, interest)
        add_lane_carry(bar.kind, block, i, done.fee)
        if bar.kind.is_full is not None:
            pnl = mark_to_market(after, quote.mark_close)[1]
            block[cell(PRICE_PNL, i)] += (valued + done.price_pnl) + pnl
    return bool(is_odd)


def try_early(
    rules: InstrumentRules, quote: Quote, balances: Balances, leverage: float, signal: float
) -> tuple[Trade, bool]:
    equity = compute_equity(rules, balances, quote.fill)
    is_moving = can_order(rules, quote, equity)
    is_moving &= is_asking(rules, balances, quote, leverage, signal)
    reach = compute_target(rules, quote, equity, leverage, signal)
    side = 1.0 if signal > 0.0 else -1.0
    wanted = size_order(rules, balances, quote, equity, side, reach)
    wanted = wanted if is_moving else balances.positions[0].quantity
    return fill(rules, balances, quote, wanted, rules.fee), is_moving & (reach == math.inf)


def count_trade(rules: InstrumentRules, block: FloatArray, i: int, done: Trade) -> None:
    block[cell(FEES, i)] += done.fee
    block[cell(SLIPPAGE, i)] += done.slippage
    if rules.has_impact is not None:
        block[cell(IMPACT, i)] += done.impact
    block[cell(TRADED, i)] += abs(done.quantity) * abs(done.value)
