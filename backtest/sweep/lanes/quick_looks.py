"""Quick checks of every lane at every bar. They may find too many lanes, never too few."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from backtest.account import (
    Balances,
    InstrumentRules,
    Quote,
    Watch,
    compute_backing,
    compute_equity,
    find_adverse,
    has_rate_bound,
    is_asking,
    is_exiting,
    is_failing,
    is_poor,
    is_stopped,
    is_triggered,
)
from backtest.measures import is_near
from backtest.measures.tally import FARTHEST
from backtest.sweep.lanes.lane_rows import (
    BOUND,
    LANES,
    LINE,
    QUANTITY,
    TARGET,
    LaneBar,
    cell,
    lane_bit,
    no_lanes,
    read_balances,
    read_own_instrument,
    read_watch,
)
from backtest.venue import compute_highest_rate, has_one_rate

if TYPE_CHECKING:
    from backtest.base import FloatArray

SLACK = 1.0 + 1e-9
"""Factor that allows for rounding, and for the tolerance of a requirement."""

ROOM = 1.1
"""Ratio of the bound of notionals to the largest notional."""

KEPT = 0.9
"""Least ratio of the next bound of notionals to the last one, as notionals may grow again."""

TINY = 1e-300
"""Least margin rate. With it, a position without any backing is always found."""


def find_rare(bar: LaneBar, block: FloatArray, rate: float) -> int:
    rules, quote = bar.rules.instrument, bar.quote
    reach = find_reach(rate, quote.open, quote.mark_low, quote.mark_high)
    found = no_lanes()
    if bar.signal == 0.0:
        for i in range(LANES):
            own = read_own_instrument(rules, bar.kind, block, i)
            balances = read_balances(rules, block, bar.value, i)
            watch = read_watch(rules, block, i)
            is_rare = is_endangered(own, balances, quote, watch, reach, block[cell(LINE, i)])
            found |= lane_bit(i, is_rare | (balances.positions[0].quantity != 0.0))
        return found
    for i in range(LANES):
        own = read_own_instrument(rules, bar.kind, block, i)
        balances = read_balances(rules, block, bar.value, i)
        is_rare = is_asking(own, balances, quote, block[cell(TARGET, i)], bar.signal)
        watch = read_watch(rules, block, i)
        is_rare |= is_endangered(own, balances, quote, watch, reach, block[cell(LINE, i)])
        found |= lane_bit(i, is_rare)
    return found


class Reach(NamedTuple):
    start: float
    loss: float


def find_reach(rate: float, start: float, low: float, high: float) -> Reach:
    widest = max(abs(low), abs(high))
    loss = max(start - low, high - start) + 1e-13 * max(abs(start), widest)
    return Reach(start, loss + rate * SLACK * widest)


class RateBound(NamedTuple):
    notional: float
    rate: float


def find_rate_bound(
    rules: InstrumentRules, block: FloatArray, quote: Quote, value: float
) -> RateBound:
    growth = FARTHEST
    if value != 0.0:
        growth = max(growth, max(abs(quote.mark_low), abs(quote.mark_high)) / abs(value))
    bound = block[cell(BOUND, 0)] * growth * SLACK
    return RateBound(bound, max(compute_highest_rate(rules.margin, bound, quote.multiplier), TINY))


def is_endangered(
    rules: InstrumentRules,
    balances: Balances,
    quote: Quote,
    watch: Watch,
    reach: Reach,
    line: float,
) -> bool:
    position = balances.positions[0]
    lost = abs(position.quantity) * reach.loss
    is_near_root = lost > compute_equity(rules, balances, reach.start) - line
    if not has_rate_bound(rules):
        return is_near_root | is_triggered(rules, balances, quote, watch)
    if rules.is_isolated is not None:
        is_near_root |= may_fail(rules, balances, reach)
    if rules.has_exits is not None:
        is_near_root |= is_exiting(rules, balances, quote, watch, quote.low, quote.high)
    elif rules.has_stop is not None:
        is_near_root |= is_stopped(rules, position, find_adverse(position, quote.low, quote.high))
    return is_near_root


def may_fail(rules: InstrumentRules, balances: Balances, reach: Reach) -> bool:
    quantity = balances.positions[0].quantity
    return abs(quantity) * reach.loss > compute_backing(rules, balances, reach.start)


def may_break(rules: InstrumentRules, balances: Balances, quote: Quote, most: RateBound) -> bool:
    lowest, highest = min(quote.mark_open, quote.mark_low), max(quote.mark_open, quote.mark_high)
    extreme = find_adverse(balances.positions[0], lowest, highest)
    if not has_rate_bound(rules):
        return is_failing(rules, balances, extreme, quote.multiplier)
    notional = abs(balances.positions[0].quantity) * abs(extreme)
    backing = compute_backing(rules, balances, extreme)
    is_short = bool(backing < notional * (most.rate * SLACK))
    if not has_one_rate(rules.margin):
        is_short |= not notional <= most.notional
    return is_short


def may_be_near(rules: InstrumentRules, balances: Balances, quote: Quote, reach: Reach) -> bool:
    if not has_rate_bound(rules):
        return is_near(rules, balances, quote)
    return may_fail(rules, balances, reach)


def may_be_poor(rules: InstrumentRules, balances: Balances, quote: Quote, equity: float) -> bool:
    return is_poor(rules, quote, equity, SLACK) & (balances.positions[0].quantity == 0.0)


def raise_bound(quote: Quote, block: FloatArray) -> None:
    most = 0.0
    for i in range(LANES):
        most = max(most, abs(block[cell(QUANTITY, i)]) * abs(quote.mark_close))
    block[cell(BOUND, 0)] = max(ROOM * most, KEPT * block[cell(BOUND, 0)])
