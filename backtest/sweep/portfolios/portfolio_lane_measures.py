"""Measures of lanes of several positions that rarely change at a close, and the ends of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from backtest.account import Terms, pick_margin
from backtest.account.portfolio_records import PEAK, UNIT
from backtest.engine import is_near_failure, is_over_cap
from backtest.measures import finish_sample, fold_product, raise_ratio, update_drawdown
from backtest.measures.tally import FARTHEST
from backtest.sweep.lanes.lane_rows import cell
from backtest.sweep.portfolios import portfolio_lane_rows as field
from backtest.sweep.portfolios.portfolio_lane_rows import (
    LaneArrays,
    read_sample,
    spot,
    write_sample,
)
from backtest.venue import compute_liquidation_value, find_maintenance

if TYPE_CHECKING:
    from backtest.base import FloatArray


class Closes(NamedTuple):
    mark_close: FloatArray


def mark_lanes(lanes: LaneArrays) -> None:
    count = len(lanes.left_at)
    account = lanes.account
    for lane in range(count):
        is_fallback = account[cell(field.IS_FALLBACK, lane)] != 0.0
        peak, low = account[cell(PEAK, lane)], account[cell(field.LOW, lane)]
        low_peak = account[cell(field.LOW_PEAK, lane)]
        after = update_drawdown(peak, low, low_peak, account[cell(UNIT, lane)])
        account[cell(PEAK, lane)] = peak if is_fallback else after[0]
        account[cell(field.LOW, lane)] = low if is_fallback else after[1]
        account[cell(field.LOW_PEAK, lane)] = low_peak if is_fallback else after[2]


def mark_exposure(terms: Terms, lanes: LaneArrays, n: int) -> None:
    count = len(lanes.left_at)
    account = lanes.account
    for lane in range(count):
        if account[cell(field.IS_PEAKING, lane)] == 0.0:
            continue
        needed, backing = find_worst_ratio(terms, lanes, n, lane)
        needed, backing = raise_ratio(
            account[cell(field.PEAK_NEEDED, lane)],
            account[cell(field.PEAK_BACKING, lane)],
            needed,
            backing,
            account[cell(field.GROSS, lane)] > 0.0,
        )
        account[cell(field.PEAK_NEEDED, lane)] = needed
        account[cell(field.PEAK_BACKING, lane)] = backing


def find_worst_ratio(terms: Terms, lanes: LaneArrays, n: int, lane: int) -> tuple[float, float]:
    pool, is_crossed = compute_needed(terms, lanes, n, lane), False
    brackets, position = terms.rules.brackets, lanes.position
    for i in range(n):
        is_held = position[spot(i, field.QUANTITY, lane)] != 0.0
        is_crossed = is_crossed or (is_held and not brackets.are_isolated[i])
    needed, backing = raise_ratio(0.0, 1.0, pool, lanes.account[cell(field.POOL, lane)], is_crossed)
    for i in range(n):
        quantity, close = position[spot(i, field.QUANTITY, lane)], lanes.prices[field.CLOSE, i]
        if brackets.are_isolated[i] and quantity != 0.0:
            own = find_maintenance(brackets, i, abs(quantity) * abs(close))
            profit = quantity * (close - position[spot(i, field.ENTRY, lane)])
            backed = position[spot(i, field.MARGIN, lane)] + profit
            needed, backing = raise_ratio(needed, backing, own, backed, True)
    return needed, backing


def count_over_cap(lanes: LaneArrays, cap: float) -> None:
    count = len(lanes.left_at)
    account = lanes.account
    for lane in range(count):
        leverage = account[cell(field.GROSS, lane)] * account[cell(field.INVERSE, lane)]
        is_over = is_over_cap(leverage, cap) & (account[cell(field.IS_FALLBACK, lane)] == 0.0)
        account[cell(field.OVER_CAP, lane)] += 1.0 if is_over else 0.0


def count_near(terms: Terms, lanes: LaneArrays, n: int) -> None:
    account, position, count = lanes.account, lanes.position, len(lanes.left_at)
    closes = Closes(lanes.prices[field.CLOSE])
    for lane in range(count):
        if account[cell(field.IS_NEARING, lane)] == 0.0:
            continue
        excess = account[cell(field.POOL, lane)] - compute_needed(terms, lanes, n, lane)
        is_near = False
        for i in range(n):
            quantity, close = position[spot(i, field.QUANTITY, lane)], lanes.prices[field.CLOSE, i]
            notional, is_isolated = abs(quantity) * abs(close), terms.rules.brackets.are_isolated[i]
            is_far = excess > (FARTHEST - 1.0) * 2.0 * notional and not is_isolated
            if quantity == 0.0 or is_far:
                continue
            own = find_maintenance(terms.rules.brackets, i, notional)
            base = excess + own - quantity * close
            if is_isolated:
                base = (
                    position[spot(i, field.MARGIN, lane)]
                    - quantity * position[spot(i, field.ENTRY, lane)]
                )
            margin, x = pick_margin(terms, i), terms.rules.brackets.multipliers[i]
            entry = position[spot(i, field.ENTRY, lane)]
            value = compute_liquidation_value(margin, quantity, entry, base, x)
            is_near = is_near or is_near_failure(closes, i, value)  # type: ignore[arg-type]
        account[cell(field.NEAR, lane)] += 1.0 if is_near else 0.0


def compute_needed(terms: Terms, lanes: LaneArrays, n: int, lane: int) -> float:
    total = 0.0
    for i in range(n):
        quantity = lanes.position[spot(i, field.QUANTITY, lane)]
        if quantity != 0.0 and not terms.rules.brackets.are_isolated[i]:
            notional = abs(quantity) * abs(lanes.prices[field.CLOSE, i])
            total += find_maintenance(terms.rules.brackets, i, notional)
    return terms.rules.level * total


def fold_lanes(lanes: LaneArrays) -> None:
    count = len(lanes.left_at)
    account = lanes.account
    for lane in range(count):
        log, product = fold_product(
            account[cell(field.DECAY_LOG, lane)], account[cell(field.DECAY_PRODUCT, lane)]
        )
        account[cell(field.DECAY_LOG, lane)] = log
        account[cell(field.DECAY_PRODUCT, lane)] = product


def end_sample(lanes: LaneArrays, free: float) -> None:
    count = len(lanes.left_at)
    account, k = lanes.account, lanes.cursor[2]
    for lane in range(count):
        if account[cell(field.IS_FALLBACK, lane)] == 0.0:
            sample, _ = finish_sample(read_sample(account, free, lane), account[cell(UNIT, lane)])
            write_sample(account, sample, lane)
        if k < len(lanes.units):
            lanes.units[k, lane] = account[cell(UNIT, lane)]
    lanes.cursor[2] = k + 1
