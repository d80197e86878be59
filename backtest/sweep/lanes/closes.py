"""Closes of bars: the equity of all lanes, and what a tally counts of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from backtest.account import Terms, pick_margin
from backtest.account.portfolio_records import CASH, EQUITY, PEAK, RESERVE, SCALE, SINCE_POOL, UNIT
from backtest.engine import is_near_failure, is_over_cap
from backtest.measures import (
    finish_sample,
    fold_product,
    invert,
    is_deeper,
    needs_folding,
    raise_ratio,
)
from backtest.sweep.lanes import rows as r
from backtest.sweep.lanes.prices import write_near_moves
from backtest.sweep.lanes.rows import LANES, Lanes, cell, read_sample, spot, write_sample
from backtest.venue import compute_liquidation_value, find_maintenance

if TYPE_CHECKING:
    from backtest.base import FloatArray


class ClosesOfBar(NamedTuple):
    mark_close: FloatArray


def close_lanes(terms: Terms, lanes: Lanes, log_returns: FloatArray, n: int, t: int) -> None:
    account = lanes.account
    for lane in range(LANES):
        account[cell(EQUITY, lane)] = account[cell(CASH, lane)]
    for i in range(n):
        if lanes.prices[r.IS_LISTED, i] != 0.0:
            add_close(lanes, terms.rules.brackets.are_isolated[i] != 0, i)
    if lanes.is_full:
        expose_lanes(terms, lanes, log_returns, n, t)
    if count_close(lanes):
        deepen(lanes)


def add_close(lanes: Lanes, is_isolated: bool, i: int) -> None:
    account, position, close = lanes.account, lanes.position, lanes.prices[r.CLOSE, i]
    if is_isolated:
        for lane in range(LANES):
            profit = close - position[spot(i, r.ENTRY, lane)]
            backing = position[spot(i, r.QUANTITY, lane)] * profit
            account[cell(EQUITY, lane)] += position[spot(i, r.MARGIN, lane)] + backing
        return
    for lane in range(LANES):
        account[cell(EQUITY, lane)] += position[spot(i, r.QUANTITY, lane)] * close


def count_close(lanes: Lanes) -> bool:
    account, found = lanes.account, False
    for lane in range(LANES):
        equity, peak = account[cell(EQUITY, lane)], account[cell(PEAK, lane)]
        unit = account[cell(SCALE, lane)] * (equity + account[cell(RESERVE, lane)])
        account[cell(UNIT, lane)] = unit
        account[cell(r.EQUITY_SUM, lane)] += equity
        account[cell(SINCE_POOL, lane)] += 1.0
        account[cell(r.INVERSE, lane)] = invert(equity)
        peak = unit if unit > peak else peak
        account[cell(PEAK, lane)] = peak
        found |= unit < peak * account[cell(r.KEEP, lane)]
    return found


def deepen(lanes: Lanes) -> None:
    account = lanes.account
    for lane in range(LANES):
        peak, unit = account[cell(PEAK, lane)], account[cell(UNIT, lane)]
        low, low_peak = account[cell(r.LOW, lane)], account[cell(r.LOW_PEAK, lane)]
        is_low = is_deeper(peak, low, low_peak, unit)
        low, low_peak = unit if is_low else low, peak if is_low else low_peak
        account[cell(r.LOW, lane)], account[cell(r.LOW_PEAK, lane)] = low, low_peak
        account[cell(r.KEEP, lane)] = low / low_peak


# --------------------------------------------------------------------------- what is exposed


def expose_lanes(terms: Terms, lanes: Lanes, log_returns: FloatArray, n: int, t: int) -> None:
    account = lanes.account
    for lane in range(LANES):
        equity = account[cell(EQUITY, lane)]
        account[cell(r.POOL, lane)] = equity
        account[cell(r.GROSS, lane)] = 0.0
        account[cell(r.NEEDED, lane)] = 0.0
        account[cell(r.AT_LEAST, lane)] = 0.0
        account[cell(r.MOVED, lane)] = 0.0
        account[cell(r.MOVED_AT_LEAST, lane)] = 0.0
        account[cell(r.DRIFT, lane)] = 0.0
        account[cell(r.GROWN, lane)] = 1.0
    near, peaks = 0, 0
    for i in range(n):
        if lanes.prices[r.IS_LISTED, i] == 0.0:
            continue
        write_near_moves(terms, lanes, i)
        if terms.rules.brackets.are_isolated[i]:
            some, more = expose_isolated(lanes, i)
            near, peaks = near | some, peaks | more
        else:
            expose_cross(lanes, i)
        move = log_returns[t, i]
        if not math.isnan(move):
            drift_lanes(lanes, move, i)
    near, more = count_exposure(lanes, terms.max_gross_leverage, near)
    peaks |= more
    if near != 0:
        count_near(terms, lanes, n, near)
    if peaks != 0:
        raise_peaks(terms, lanes, n, peaks)


def expose_cross(lanes: Lanes, i: int) -> None:
    account, position, prices = lanes.account, lanes.position, lanes.prices
    unit, rate, least = abs(prices[r.CLOSE, i]), prices[r.RATE, i], prices[r.LEAST_RATE, i]
    fall, rise = prices[r.FALL, i], -prices[r.RISE, i]
    fallen, risen = prices[r.FALLEN, i], -prices[r.RISEN, i]
    for lane in range(LANES):
        quantity = position[spot(i, r.QUANTITY, lane)]
        notional = abs(quantity) * unit
        account[cell(r.GROSS, lane)] += notional
        account[cell(r.NEEDED, lane)] += notional * rate
        account[cell(r.AT_LEAST, lane)] += notional * least
        moved, found = max(quantity * fall, quantity * rise), account[cell(r.MOVED, lane)]
        account[cell(r.MOVED, lane)] = max(moved, found)
        moved, found = (
            max(quantity * fallen, quantity * risen),
            account[cell(r.MOVED_AT_LEAST, lane)],
        )
        account[cell(r.MOVED_AT_LEAST, lane)] = max(moved, found)


def expose_isolated(lanes: Lanes, i: int) -> tuple[int, int]:
    account, position, prices, near, peaks = lanes.account, lanes.position, lanes.prices, 0, 0
    close, unit, rate = prices[r.CLOSE, i], abs(prices[r.CLOSE, i]), prices[r.RATE, i]
    fall, rise = prices[r.FALL, i], -prices[r.RISE, i]
    for lane in range(LANES):
        quantity = position[spot(i, r.QUANTITY, lane)]
        profit = quantity * (close - position[spot(i, r.ENTRY, lane)])
        backing, needed = position[spot(i, r.MARGIN, lane)] + profit, abs(quantity) * unit * rate
        account[cell(r.GROSS, lane)] += abs(quantity) * unit
        account[cell(r.POOL, lane)] -= backing
        is_held = quantity != 0.0
        is_near = backing - needed <= max(quantity * fall, quantity * rise)
        peak_needed = account[cell(r.PEAK_NEEDED, lane)]
        is_peak = needed * account[cell(r.PEAK_BACKING, lane)] > peak_needed * backing
        near |= (is_near & is_held) << lane
        peaks |= (is_peak & is_held) << lane
    return near, peaks


def drift_lanes(lanes: Lanes, move: float, i: int) -> None:
    account, position, before = lanes.account, lanes.position, lanes.prices[r.BEFORE, i]
    drift, rise = abs(before) * move, lanes.prices[r.CLOSE, i] - before
    for lane in range(LANES):
        scale = position[spot(i, r.QUANTITY, lane)] * account[cell(r.INVERSE, lane)]
        account[cell(r.DRIFT, lane)] += scale * drift
        account[cell(r.GROWN, lane)] += scale * rise


def count_exposure(lanes: Lanes, cap: float, near: int) -> tuple[int, int]:
    """Count what is certain; return the lanes that need a closer look at what is near or highest.

    ``near`` are those that need one already.
    """
    account, peaks, has_folds, has_cap = lanes.account, 0, False, cap < math.inf
    for lane in range(LANES):
        gross, pool = account[cell(r.GROSS, lane)], account[cell(r.POOL, lane)]
        leverage = gross * invert(account[cell(EQUITY, lane)])
        highest = account[cell(r.PEAK_LEVERAGE, lane)]
        account[cell(r.LEVERAGE, lane)] += leverage
        account[cell(r.PEAK_LEVERAGE, lane)] = leverage if leverage > highest else highest
        grown, product = account[cell(r.GROWN, lane)], account[cell(r.DECAY_PRODUCT, lane)]
        is_grown = grown > 0.0
        product = product * grown if is_grown else product
        account[cell(r.DECAY_HELD, lane)] += account[cell(r.DRIFT, lane)] if is_grown else 0.0
        account[cell(r.DECAY_PRODUCT, lane)] = product
        has_folds |= needs_folding(product)
        needed, least = account[cell(r.NEEDED, lane)], account[cell(r.AT_LEAST, lane)]
        peak_needed = account[cell(r.PEAK_NEEDED, lane)]
        is_peak = needed * account[cell(r.PEAK_BACKING, lane)] > peak_needed * pool
        is_near = (pool - needed <= account[cell(r.MOVED, lane)]) & (needed != 0.0)
        is_sure = (pool - least <= account[cell(r.MOVED_AT_LEAST, lane)]) & is_near
        is_sure &= (near >> lane) & 1 == 0
        account[cell(r.NEAR, lane)] += 1.0 if is_sure else 0.0
        near |= (is_near & (not is_sure)) << lane
        peaks |= is_peak << lane
        account[cell(r.OVER_CAP, lane)] += 1.0 if has_cap & is_over_cap(leverage, cap) else 0.0
    if has_folds:
        fold_lanes(lanes)
    return near, peaks


def fold_lanes(lanes: Lanes) -> None:
    account = lanes.account
    for lane in range(LANES):
        log, product = account[cell(r.DECAY_LOG, lane)], account[cell(r.DECAY_PRODUCT, lane)]
        log, product = fold_product(log, product)
        account[cell(r.DECAY_LOG, lane)], account[cell(r.DECAY_PRODUCT, lane)] = log, product


def raise_peaks(terms: Terms, lanes: Lanes, n: int, found: int) -> None:
    account = lanes.account
    for lane in range(LANES):
        if (found >> lane) & 1 == 1:
            needed, backing = find_worst_ratio(terms, lanes, n, lane)
            needed, backing = raise_ratio(
                account[cell(r.PEAK_NEEDED, lane)],
                account[cell(r.PEAK_BACKING, lane)],
                needed,
                backing,
                account[cell(r.GROSS, lane)] > 0.0,
            )
            account[cell(r.PEAK_NEEDED, lane)] = needed
            account[cell(r.PEAK_BACKING, lane)] = backing


def find_worst_ratio(terms: Terms, lanes: Lanes, n: int, lane: int) -> tuple[float, float]:
    pool, is_crossed = compute_lane_needed(terms, lanes, n, lane), False
    brackets, position = terms.rules.brackets, lanes.position
    for i in range(n):
        is_held = position[spot(i, r.QUANTITY, lane)] != 0.0
        is_crossed = is_crossed or (is_held and not brackets.are_isolated[i])
    needed, backing = raise_ratio(0.0, 1.0, pool, lanes.account[cell(r.POOL, lane)], is_crossed)
    for i in range(n):
        quantity, close = position[spot(i, r.QUANTITY, lane)], lanes.prices[r.CLOSE, i]
        if brackets.are_isolated[i] and quantity != 0.0:
            own = find_maintenance(brackets, i, abs(quantity) * abs(close))
            profit = quantity * (close - position[spot(i, r.ENTRY, lane)])
            backed = position[spot(i, r.MARGIN, lane)] + profit
            needed, backing = raise_ratio(needed, backing, own, backed, True)
    return needed, backing


def compute_lane_needed(terms: Terms, lanes: Lanes, n: int, lane: int) -> float:
    total = 0.0
    for i in range(n):
        quantity = lanes.position[spot(i, r.QUANTITY, lane)]
        if quantity != 0.0 and not terms.rules.brackets.are_isolated[i]:
            notional = abs(quantity) * abs(lanes.prices[r.CLOSE, i])
            total += find_maintenance(terms.rules.brackets, i, notional)
    return total


def count_near(terms: Terms, lanes: Lanes, n: int, found: int) -> None:
    account = lanes.account
    for lane in range(LANES):
        if (found >> lane) & 1 == 1:
            account[cell(r.NEAR, lane)] += 1.0 if is_lane_near(terms, lanes, n, lane) else 0.0


def is_lane_near(terms: Terms, lanes: Lanes, n: int, lane: int) -> bool:
    position, is_near = lanes.position, False
    closes = ClosesOfBar(lanes.prices[r.CLOSE])
    pool = lanes.account[cell(r.POOL, lane)]
    excess = pool - compute_lane_needed(terms, lanes, n, lane)
    for i in range(n):
        quantity, close = position[spot(i, r.QUANTITY, lane)], lanes.prices[r.CLOSE, i]
        if quantity == 0.0:
            continue
        entry = position[spot(i, r.ENTRY, lane)]
        own = find_maintenance(terms.rules.brackets, i, abs(quantity) * abs(close))
        base = excess + own - quantity * close
        if terms.rules.brackets.are_isolated[i]:
            base = position[spot(i, r.MARGIN, lane)] - quantity * entry
        margin, x = pick_margin(terms, i), terms.rules.brackets.multipliers[i]
        value = compute_liquidation_value(margin, quantity, entry, base, x)
        is_near = is_near or is_near_failure(closes, i, value)  # type: ignore[arg-type]
    return is_near


# ----------------------------------------------------------------------------- the end of a sample


def end_samples(lanes: Lanes, free: float) -> None:
    account = lanes.account
    for lane in range(LANES):
        sample, _ = finish_sample(read_sample(account, free, lane), account[cell(UNIT, lane)])
        write_sample(account, sample, lane)


def keep_units(lanes: Lanes) -> None:
    k = lanes.cursor[r.SAMPLE]
    if k < len(lanes.units):
        for lane in range(LANES):
            lanes.units[k, lane] = lanes.account[cell(UNIT, lane)]
    lanes.cursor[r.SAMPLE] = k + 1


def tighten(lanes: Lanes) -> None:
    for i in range(len(lanes.signal)):
        most = 0.0
        for lane in range(LANES):
            most = max(most, abs(lanes.position[spot(i, r.QUANTITY, lane)]))
        lanes.most[i] = 1.1 * most
    lanes.cursor[r.IS_BOUND] = 0
