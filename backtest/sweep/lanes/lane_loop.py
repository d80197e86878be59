"""The bar loop of a sweep, over a block of 64 accounts side by side (lanes)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backtest.account import Feed, Plan, Quote, as_index, is_flow_due, is_funding_due, quote_bar
from backtest.engine import count_days, find_seen
from backtest.engine.bar_loop import BROKEN, DONE, NEGATIVE
from backtest.measures import grow_free
from backtest.sweep.lanes.lane_measures import (
    count_close,
    count_rare,
    count_seen,
    fold_products,
    follow_lanes,
    hold_lanes,
    take_samples,
    write_equity,
)
from backtest.sweep.lanes.lane_rows import (
    AT_ONCE,
    HOLD,
    LANES,
    LATER,
    STEP_LEFT,
    BlockArrays,
    Cursor,
    LaneBar,
    Setup,
    all_lanes,
    cell,
    copy_own_columns,
    no_lanes,
)
from backtest.sweep.lanes.lane_trades import (
    charge_lanes,
    find_charges,
    is_charging,
    pass_lanes,
    trade_and_charge,
)
from backtest.sweep.lanes.quick_looks import RateBound, find_rare, find_rate_bound, raise_bound

if TYPE_CHECKING:
    from backtest.base import FloatArray

RAISED = 4
"""Reason to stop, besides those of a single run: the policy raised an exception."""


def count_due(feed: Feed, event: int, t: int) -> int:
    n = 0
    while is_funding_due(feed, event + n, t):
        n += 1
    return n


def is_ordinary(plan: Plan, feed: Feed, at: Cursor, n_due: int, t: int) -> bool:
    if t == 0 or plan.margin_call is not None or is_flow_due(feed, at.flow, t):
        return False
    return n_due == 0 or (n_due == 1 and feed.funding_is_open[at.event] == 1)


def skip_flows(feed: Feed, flow: int, t: int) -> int:
    while is_flow_due(feed, flow, t):
        flow += 1
    return flow


def pass_bar(setup: Setup, arrays: BlockArrays, live: Any, quote: Quote, at: Cursor, t: int) -> int:
    rules, block = setup.rules, arrays.block
    bar = LaneBar(rules, setup.kind, quote, at.value, at.signal)
    n_due = count_due(setup.feed, at.event, t)
    move = setup.clock.log_return[as_index(t)]
    most = find_rate_bound(rules.instrument, block, quote, at.value)
    fault, is_rare = -1, True
    if is_ordinary(setup.plan, setup.feed, at, n_due, t):
        fault, is_rare = pass_ordinary(setup, bar, block, live, at, n_due, most, t)
    else:
        fault = call_live(setup, block, live, at, False, False, t)
    if is_rare:
        found = count_close(bar, block, move, most.rate, True)
        if rules.instrument.has_exits is not None:
            follow_lanes(bar, block)
        for i in range(LANES):
            block[cell(STEP_LEFT, i)] = HOLD
    else:
        found = count_close(bar, block, move, most.rate, None)
        if rules.instrument.has_exits is not None:
            follow_lanes(bar, block)
    count_rare(bar, block, found)
    return fault


def pass_ordinary(
    setup: Setup,
    bar: LaneBar,
    block: FloatArray,
    live: Any,
    at: Cursor,
    n_due: int,
    most: RateBound,
    t: int,
) -> tuple[int, bool]:
    fault, rules = -1, bar.rules
    charges = find_charges(rules.instrument, setup.feed, bar.quote, at.event, t)
    is_carrying = n_due > 0 or is_charging(rules, charges)
    if rules.instrument.fills_early is not None and is_carrying:
        if trade_and_charge(bar, charges, block, most, n_due > 0):
            fault = call_live(setup, block, live, at, False, True, t)
        return fault, True
    if is_carrying:
        charge_lanes(bar, charges, block, n_due > 0)
    rare = all_lanes()
    if not (is_carrying or at.later > 0):
        rare = find_rare(bar, block, most.rate)
    is_rare = rare != no_lanes()
    if is_rare and pass_lanes(bar, block, most, is_carrying, rare):
        fault = call_live(setup, block, live, at, is_carrying, True, t)
    return fault, is_rare


def count_later(block: FloatArray) -> int:
    n = 0
    for i in range(LANES):
        n += 1 if block[cell(LATER, i)] != 0.0 else 0
    return n


def call_live(
    setup: Setup,
    block: FloatArray,
    live: Any,
    at: Cursor,
    is_carrying: bool,
    is_ordinary: bool,
    t: int,
) -> int:
    fault: int = live(
        setup.full,
        setup.whole,
        setup.plan,
        setup.feed,
        setup.log,
        block,
        at,
        is_carrying,
        is_ordinary,
        t,
    )
    return fault


def close_bar_of_block(
    setup: Setup, arrays: BlockArrays, quote: Quote, at: Cursor, t: int
) -> Cursor:
    feed, clock, block = setup.feed, setup.clock, arrays.block
    if setup.kind.is_full is not None:
        fold_products(block)
    n_due = count_due(feed, at.event, t)
    last_funding = feed.funding_rate[at.event + n_due - 1] if n_due > 0 else at.last_funding
    free, sample = grow_free(at.free, clock.risk_free[as_index(t)]), at.sample
    if clock.ends_sample[as_index(t)] != 0.0:
        bar = LaneBar(setup.rules, setup.kind, quote, at.value, at.signal)
        take_samples(bar, block, free, arrays.returns, sample)
        raise_bound(quote, block)
        free, sample = 0.0, sample + 1
    return Cursor(
        event=at.event + n_due,
        flow=skip_flows(feed, at.flow, t),
        last_funding=last_funding,
        value=quote.mark_close,
        signal=feed.signal[min(t, len(feed.signal) - 1)],
        free=free,
        sample=sample,
        later=count_later(block) if setup.kind.has_flows is not None else at.later,
    )


def decide_lanes(
    setup: Setup, arrays: BlockArrays, decide: Any, quote: Quote, at: Cursor, t: int, k: int
) -> int:
    seen, flags = setup.seen, arrays.flags
    flags[0], flags[1] = -1, 1
    j = as_index(t)
    decide(
        arrays.block,
        arrays.brackets,
        arrays.shared,
        arrays.own,
        flags,
        seen.time[j],
        seen.open[j],
        seen.high[j],
        seen.low[j],
        seen.close[j],
        seen.mark[j],
        seen.volume[j],
        at.last_funding,
        count_days(seen, t),
        quote.mark_close,
        quote.multiplier,
        quote.initial,
        t,
        k,
    )
    if flags[1] != 0:
        return RAISED
    return NEGATIVE if flags[0] >= 0 else DONE


def advance_block(
    setup: Setup, arrays: BlockArrays, live: Any, decide: Any, at: Cursor, start: int, stop: int
) -> tuple[Cursor, int, int]:
    begun = find_seen(setup.seen, start)
    begun = begun if begun >= 0 else -begun - 1
    for t in range(start, stop):
        quote = quote_bar(setup.rules.instrument, setup.feed, t)
        fault = pass_bar(setup, arrays, live, quote, at, t)
        if fault >= 0:
            arrays.flags[0] = fault
            return at, t, BROKEN
        at = close_bar_of_block(setup, arrays, quote, at, t)
        seen = find_seen(setup.seen, t)
        if seen < 0:
            hold_lanes(arrays.block)
            continue
        if len(setup.seen.rows) > 1:
            bar = LaneBar(setup.rules, setup.kind, quote, at.value, at.signal)
            count_seen(bar, setup.seen.rows, arrays.block, seen)
        k = seen
        if len(arrays.places) > 0:
            k = (seen - begun) % AT_ONCE
            if k == 0:
                copy_own_columns(arrays, seen)
        why = decide_lanes(setup, arrays, decide, quote, at, seen, k)
        if why != DONE:
            return at, t, why
    write_equity(setup.rules.instrument, setup.kind, arrays.block, at.value)
    return at, stop, DONE
