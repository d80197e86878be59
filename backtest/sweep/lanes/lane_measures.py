"""Measures of a block at a close: sums over all lanes, and measures that rarely change."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from backtest.account import (
    Balances,
    InstrumentRules,
    Quote,
    Watch,
    as_index,
    compute_backing,
    compute_equity,
    compute_requirement,
    follow_equity,
    follow_prices,
    has_rate_bound,
    mark_to_market,
)
from backtest.measures import (
    Sample,
    add_decay,
    find_near,
    finish_sample,
    fold_product,
    invert,
    is_deeper,
    is_near,
    needs_folding,
    update_drawdown,
    update_peaks,
)
from backtest.sweep.lanes.lane_rows import (
    HOLD,
    LANES,
    LIVE,
    Kind,
    LaneBar,
    cell,
    compute_unit,
    read_balances,
    read_exposure,
    read_own_instrument,
    read_watch,
    write_watch,
)
from backtest.sweep.lanes.quick_looks import SLACK, find_reach, may_be_near, raise_bound
from backtest.venue import has_one_rate

from backtest.sweep.lanes.lane_rows import (  # isort: skip
    BOUND, DECAY_HELD, DECAY_LOG, DECAY_PRODUCT, DISUTILITY, DOWNSIDE, EQUITY, EQUITY_SUM,
    EXCESS_MEAN, EXCESS_SQUARES, HELD, INVERSE, LEVERAGE_SUM, LOW, LOW_PEAK, MEAN, NEAR, PEAK,
    PEAK_BACKING, PEAK_LEVERAGE, PEAK_NEEDED, PRICE_PNL, SAMPLE_UNIT, SAMPLES, SQUARES, STEP_LEFT,
    UNIT, LAST_LIQUIDATION, LAST_STOP, SEEN_PEAK, SEEN_SINCE, SEEN_SINCE_STOP, TARGET,
)  # fmt: skip

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray


class RareMeasures(NamedTuple):
    has_marks: bool
    has_exposure: bool
    has_near: bool
    is_over: bool


def count_close(
    bar: LaneBar, block: FloatArray, move: float, rate: float, has_rare: bool | None
) -> RareMeasures:
    rules, kind, quote = bar.rules.instrument, bar.kind, bar.quote
    has_marks, has_exposure, has_near, is_over = False, False, False, False
    lower, upper = find_near(rules, quote)
    reach = find_reach(rate, quote.mark_close, lower, upper)
    bound = block[cell(BOUND, 0)]
    for i in range(LANES):
        balances = read_balances(rules, block, bar.value, i)
        equity = compute_equity(rules, balances, quote.mark_close)
        block[cell(EQUITY_SUM, i)] += equity
        unit = compute_unit(kind, block, i, equity)
        peak = block[cell(PEAK, i)]
        has_marks |= unit > peak
        has_marks |= is_deeper(peak, block[cell(LOW, i)], block[cell(LOW_PEAK, i)], unit)
        if kind.is_full is not None:
            own = read_own_instrument(rules, kind, block, i)
            pnl = mark_to_market(balances, quote.mark_close)[1]
            if rules.fills_early is not None:
                valued, first = mark_to_market(balances, quote.fill)
                pnl = first + mark_to_market(valued, quote.mark_close)[1]
            if has_rare is not None:
                pnl = 0.0 if block[cell(STEP_LEFT, i)] != HOLD else pnl
            block[cell(PRICE_PNL, i)] += pnl
            has_exposure |= count_exposure(own, quote, block, i, balances, equity, move, rate)
            has_near |= may_be_near(own, balances, quote, reach)
        if not has_one_rate(rules.margin):
            is_over |= not abs(balances.positions[0].quantity) * abs(quote.mark_close) <= bound
    return RareMeasures(
        has_marks=has_marks,
        has_exposure=has_exposure | is_over,
        has_near=has_near | is_over,
        is_over=is_over,
    )


def count_exposure(
    rules: InstrumentRules,
    quote: Quote,
    block: FloatArray,
    i: int,
    balances: Balances,
    equity: float,
    move: float,
    rate: float,
) -> bool:
    position = balances.positions[0]
    held, product = block[cell(DECAY_HELD, i)], block[cell(DECAY_PRODUCT, i)]
    base = block[cell(INVERSE, i)]
    quantity = position.quantity
    if rules.fills_late is not None:
        quantity = block[cell(HELD, i)]
        block[cell(HELD, i)] = position.quantity
    held, product = add_decay(held, product, quantity, base, position.value, quote, move)
    block[cell(DECAY_HELD, i)] = held
    block[cell(DECAY_PRODUCT, i)] = product
    inverse = invert(equity)
    block[cell(INVERSE, i)] = inverse
    notional = abs(position.quantity) * abs(quote.mark_close)
    leverage = notional * inverse
    block[cell(LEVERAGE_SUM, i)] += leverage
    backing = compute_backing(rules, balances, quote.mark_close)
    needed = rate * SLACK * notional
    if not has_rate_bound(rules):
        needed = compute_requirement(rules, position, quote.mark_close, quote.multiplier)
    is_closer = needed * block[cell(PEAK_BACKING, i)] > block[cell(PEAK_NEEDED, i)] * backing
    return bool(is_closer | (leverage > block[cell(PEAK_LEVERAGE, i)]))


def follow_lanes(bar: LaneBar, block: FloatArray) -> None:
    rules, quote = bar.rules.instrument, bar.quote
    for i in range(LANES):
        own = read_own_instrument(rules, bar.kind, block, i)
        balances = read_balances(rules, block, bar.value, i)
        position = balances.positions[0]
        before = read_watch(rules, block, i)
        equity = compute_equity(rules, balances, quote.mark_close)
        after = follow_prices(before, position, quote)
        if rules.fills_late is not None:
            is_traded = block[cell(STEP_LEFT, i)] != HOLD  # its prices came before the trade
            after = Watch(before.best if is_traded else after.best, after.highest)
        after = follow_equity(own, after, position.quantity, equity)
        is_done = block[cell(STEP_LEFT, i)] == LIVE
        best = before.best if is_done else after.best
        highest = before.highest if is_done else after.highest
        write_watch(rules, block, i, Watch(best, highest))


def count_rare(bar: LaneBar, block: FloatArray, found: RareMeasures) -> None:
    if found.has_marks:
        mark_lanes(bar, block)
    if bar.kind.is_full is not None:
        if found.has_exposure:
            mark_exposure(bar, block)
        if found.has_near:
            count_near(bar, block)
    if found.is_over:
        raise_bound(bar.quote, block)


def count_near(bar: LaneBar, block: FloatArray) -> None:
    rules, quote = bar.rules.instrument, bar.quote
    for i in range(LANES):
        own = read_own_instrument(rules, bar.kind, block, i)
        balances = read_balances(rules, block, quote.mark_close, i)
        block[cell(NEAR, i)] += 1.0 if is_near(own, balances, quote) else 0.0


def mark_lanes(bar: LaneBar, block: FloatArray) -> None:
    rules, value = bar.rules.instrument, bar.quote.mark_close
    for i in range(LANES):
        equity = compute_equity(rules, read_balances(rules, block, value, i), value)
        unit = compute_unit(bar.kind, block, i, equity)
        peak, low, low_peak = update_drawdown(
            block[cell(PEAK, i)], block[cell(LOW, i)], block[cell(LOW_PEAK, i)], unit
        )
        block[cell(PEAK, i)] = peak
        block[cell(LOW, i)] = low
        block[cell(LOW_PEAK, i)] = low_peak


def mark_exposure(bar: LaneBar, block: FloatArray) -> None:
    rules, quote = bar.rules.instrument, bar.quote
    for i in range(LANES):
        balances = read_balances(rules, block, quote.mark_close, i)
        own = read_own_instrument(rules, bar.kind, block, i)
        exposure, inverse = read_exposure(block, i), block[cell(INVERSE, i)]
        leverage, needed, backing = update_peaks(own, exposure, balances, inverse, quote)
        block[cell(PEAK_LEVERAGE, i)] = leverage
        block[cell(PEAK_NEEDED, i)] = needed
        block[cell(PEAK_BACKING, i)] = backing


def hold_lanes(block: FloatArray) -> None:
    for i in range(LANES):
        block[cell(TARGET, i)] = math.nan


def count_seen(bar: LaneBar, rows: IntArray, block: FloatArray, k: int) -> None:
    rules, value = bar.rules.instrument, bar.quote.mark_close
    for i in range(LANES):
        equity = compute_equity(rules, read_balances(rules, block, value, i), value)
        unit = compute_unit(bar.kind, block, i, equity)
        block[cell(SEEN_PEAK, i)] = max(block[cell(SEEN_PEAK, i)], unit)
        block[cell(SEEN_SINCE, i)] = count_bars_since(rows, block[cell(LAST_LIQUIDATION, i)], k)
        block[cell(SEEN_SINCE_STOP, i)] = count_bars_since(rows, block[cell(LAST_STOP, i)], k)


def count_bars_since(rows: IntArray, last: float, k: int) -> float:
    if last < 0.0:
        return math.inf
    row = rows[as_index(int(last))]
    return float(k - (row if row >= 0 else -row - 1))


def take_samples(bar: LaneBar, block: FloatArray, free: float, returns: FloatArray, k: int) -> None:
    rules, value = bar.rules.instrument, bar.quote.mark_close
    for i in range(LANES):
        equity = compute_equity(rules, read_balances(rules, block, value, i), value)
        unit = compute_unit(bar.kind, block, i, equity)
        sample = Sample(
            sample_unit=block[cell(SAMPLE_UNIT, i)],
            sample_free=free,
            samples=block[cell(SAMPLES, i)],
            mean=block[cell(MEAN, i)],
            squares=block[cell(SQUARES, i)],
            excess_mean=block[cell(EXCESS_MEAN, i)],
            excess_squares=block[cell(EXCESS_SQUARES, i)],
            downside=block[cell(DOWNSIDE, i)],
            disutility=block[cell(DISUTILITY, i)],
        )
        after, change = finish_sample(sample, unit)
        block[cell(SAMPLE_UNIT, i)] = after.sample_unit
        block[cell(SAMPLES, i)] = after.samples
        block[cell(MEAN, i)] = after.mean
        block[cell(SQUARES, i)] = after.squares
        block[cell(EXCESS_MEAN, i)] = after.excess_mean
        block[cell(EXCESS_SQUARES, i)] = after.excess_squares
        block[cell(DOWNSIDE, i)] = after.downside
        if bar.kind.is_full is not None:
            block[cell(DISUTILITY, i)] = after.disutility
        if k < len(returns):
            returns[k, i] = change


def fold_products(block: FloatArray) -> None:
    n_wide = 0
    for i in range(LANES):
        n_wide += 1 if needs_folding(block[cell(DECAY_PRODUCT, i)]) else 0
    if n_wide > 0:
        for i in range(LANES):
            log, product = fold_product(block[cell(DECAY_LOG, i)], block[cell(DECAY_PRODUCT, i)])
            block[cell(DECAY_LOG, i)] = log
            block[cell(DECAY_PRODUCT, i)] = product


def write_equity(rules: InstrumentRules, kind: Kind, block: FloatArray, value: float) -> None:
    for i in range(LANES):
        equity = compute_equity(rules, read_balances(rules, block, value, i), value)
        block[cell(UNIT, i)] = compute_unit(kind, block, i, equity)
        block[cell(EQUITY, i)] = equity
