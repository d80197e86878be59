"""Closes of bars: the equity of all lanes, and what a tally counts of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backtest.account import Terms, pick_margin
from backtest.account.records import CASH, EQUITY, PEAK, RESERVE, SCALE, UNIT
from backtest.engine import is_over_cap
from backtest.measures import (
    finish_sample,
    fold_product,
    invert,
    is_deeper,
    needs_folding,
    raise_ratio,
)
from backtest.measures import tally as y
from backtest.sweep.lanes import rows as r
from backtest.sweep.lanes.prices import write_near_moves
from backtest.sweep.lanes.rows import LANES, Lanes, cell, lowest, spot
from backtest.venue import compute_liquidation_value, find_maintenance

if TYPE_CHECKING:
    from backtest.base import FloatArray


def close_lanes(terms: Terms, lanes: Lanes, log_returns: FloatArray, n: int, t: int) -> None:
    if n == 1:
        if terms.rules.brackets.are_isolated[0]:
            is_deeper = close_one(lanes, True)
        else:
            is_deeper = close_one(lanes, None)
    else:
        is_deeper = close_several(terms, lanes, n)
    if is_deeper:
        deepen(lanes)
    if lanes.is_full:
        expose_lanes(terms, lanes, log_returns, n, t)


def close_several(terms: Terms, lanes: Lanes, n: int) -> bool:
    account, found = lanes.account, False
    for lane in range(LANES):
        account[cell(EQUITY, lane)] = account[cell(CASH, lane)]
    for i in range(n):
        if lanes.prices[r.IS_LISTED, i] != 0.0:
            add_close(lanes, terms.rules.brackets.are_isolated[i] != 0, i)
    for lane in range(LANES):
        found |= count_close(account, account[cell(EQUITY, lane)], lane)
    return found


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


def close_one(lanes: Lanes, is_isolated: bool | None) -> bool:
    account, position, close, found = lanes.account, lanes.position, lanes.prices[r.CLOSE, 0], False
    for lane in range(LANES):
        quantity, cash = position[spot(0, r.QUANTITY, lane)], account[cell(CASH, lane)]
        backing = quantity * close
        if is_isolated is not None:
            profit = quantity * (close - position[spot(0, r.ENTRY, lane)])
            backing = position[spot(0, r.MARGIN, lane)] + profit
        equity = cash + backing
        account[cell(EQUITY, lane)] = equity
        found |= count_close(account, equity, lane)
    return found


def count_close(account: FloatArray, equity: float, lane: int) -> bool:
    peak = account[cell(PEAK, lane)]
    unit = account[cell(SCALE, lane)] * (equity + account[cell(RESERVE, lane)])
    account[cell(UNIT, lane)] = unit
    account[cell(r.EQUITY_SUM, lane)] += equity
    peak = unit if unit > peak else peak
    account[cell(PEAK, lane)] = peak
    return bool(unit < peak * account[cell(r.KEEP, lane)])


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
    if n > 1:
        has_folds, near, peaks = expose_several(terms, lanes, log_returns, n, t)
    elif terms.rules.brackets.are_isolated[0]:
        has_folds, near, peaks = expose_one(terms, lanes, log_returns[t, 0], True)
    else:
        has_folds, near, peaks = expose_one(terms, lanes, log_returns[t, 0], None)
    if terms.max_gross_leverage < math.inf:
        count_over_cap(lanes, terms.max_gross_leverage)
    if has_folds:
        fold_lanes(lanes)
    if near != 0:
        count_near(terms, lanes, n, near)
    if peaks != 0:
        raise_peaks(terms, lanes, n, peaks)


def expose_one(
    terms: Terms, lanes: Lanes, move: float, is_isolated: bool | None
) -> tuple[bool, int, int]:
    write_near_moves(terms, lanes, 0)
    account, position, prices = lanes.account, lanes.position, lanes.prices
    close, unit, rate = prices[r.CLOSE, 0], abs(prices[r.CLOSE, 0]), prices[r.RATE, 0]
    fall, rise = prices[r.FALL, 0], -prices[r.RISE, 0]
    before = 0.0 if math.isnan(move) else prices[r.BEFORE, 0]
    drift, change = abs(before) * move, close - before
    if math.isnan(move):
        drift, change = 0.0, 0.0
    has_folds, near, peaks = False, 0, 0
    for lane in range(LANES):
        quantity, equity = position[spot(0, r.QUANTITY, lane)], account[cell(EQUITY, lane)]
        pool = equity
        if is_isolated is not None:
            profit = quantity * (close - position[spot(0, r.ENTRY, lane)])
            pool = position[spot(0, r.MARGIN, lane)] + profit
        gross, scale = abs(quantity) * unit, quantity * account[cell(r.INVERSE, lane)]
        has_folds |= count_lane(account, equity, gross, scale * drift, 1.0 + scale * change, lane)
        needed, is_held = gross * rate, quantity != 0.0
        peak_needed, peak_backing = (
            account[cell(r.PEAK_NEEDED, lane)],
            account[cell(r.PEAK_BACKING, lane)],
        )
        is_near = pool - needed <= max(quantity * fall, quantity * rise)
        near |= (is_near & is_held) << lane
        peaks |= ((needed * peak_backing > peak_needed * pool) & is_held) << lane
        account[cell(r.GROSS, lane)] = gross
        account[cell(r.POOL, lane)] = equity if is_isolated is None else equity - pool
    return has_folds, near, peaks


def count_lane(
    account: FloatArray, equity: float, gross: float, drift: float, grown: float, lane: int
) -> bool:
    inverse = invert(equity)
    leverage, highest = gross * inverse, account[cell(r.PEAK_LEVERAGE, lane)]
    account[cell(r.INVERSE, lane)] = inverse
    account[cell(r.LEVERAGE, lane)] += leverage
    account[cell(r.PEAK_LEVERAGE, lane)] = leverage if leverage > highest else highest
    product, is_grown = account[cell(r.DECAY_PRODUCT, lane)], grown > 0.0
    product = product * grown if is_grown else product
    account[cell(r.DECAY_HELD, lane)] += drift if is_grown else 0.0
    account[cell(r.DECAY_PRODUCT, lane)] = product
    return needs_folding(product)


def expose_several(
    terms: Terms, lanes: Lanes, log_returns: FloatArray, n: int, t: int
) -> tuple[bool, int, int]:
    account, has_folds, near, peaks = lanes.account, False, 0, 0
    for lane in range(LANES):
        account[cell(r.POOL, lane)] = account[cell(EQUITY, lane)]
        account[cell(r.GROSS, lane)] = 0.0
        account[cell(r.NEEDED, lane)] = 0.0
        account[cell(r.MOVED, lane)] = 0.0
        account[cell(r.DRIFT, lane)] = 0.0
        account[cell(r.GROWN, lane)] = 1.0
    for i in range(n):
        if lanes.prices[r.IS_LISTED, i] == 0.0:
            continue
        write_near_moves(terms, lanes, i)
        if terms.rules.brackets.are_isolated[i]:
            some, more = expose_isolated(lanes, i)
            near, peaks = near | some, peaks | more
        else:
            expose_cross(lanes, i)
        if not math.isnan(log_returns[t, i]):
            drift_lanes(lanes, log_returns[t, i], i)
    for lane in range(LANES):
        equity, gross = account[cell(EQUITY, lane)], account[cell(r.GROSS, lane)]
        drift, grown = account[cell(r.DRIFT, lane)], account[cell(r.GROWN, lane)]
        has_folds |= count_lane(account, equity, gross, drift, grown, lane)
        pool, needed = account[cell(r.POOL, lane)], account[cell(r.NEEDED, lane)]
        peak_needed, peak_backing = (
            account[cell(r.PEAK_NEEDED, lane)],
            account[cell(r.PEAK_BACKING, lane)],
        )
        is_near = (pool - needed <= account[cell(r.MOVED, lane)]) & (needed != 0.0)
        near |= is_near << lane
        peaks |= (needed * peak_backing > peak_needed * pool) << lane
    return has_folds, near, peaks


def expose_cross(lanes: Lanes, i: int) -> None:
    account, position, prices = lanes.account, lanes.position, lanes.prices
    unit, rate = abs(prices[r.CLOSE, i]), prices[r.RATE, i]
    fall, rise = prices[r.FALL, i], -prices[r.RISE, i]
    for lane in range(LANES):
        quantity, found = position[spot(i, r.QUANTITY, lane)], account[cell(r.MOVED, lane)]
        notional, moved = abs(quantity) * unit, max(quantity * fall, quantity * rise)
        account[cell(r.GROSS, lane)] += notional
        account[cell(r.NEEDED, lane)] += notional * rate
        account[cell(r.MOVED, lane)] = max(moved, found)


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


def count_over_cap(lanes: Lanes, cap: float) -> None:
    account = lanes.account
    for lane in range(LANES):
        leverage = account[cell(r.GROSS, lane)] * account[cell(r.INVERSE, lane)]
        account[cell(r.OVER_CAP, lane)] += 1.0 if is_over_cap(leverage, cap) else 0.0


def fold_lanes(lanes: Lanes) -> None:
    account = lanes.account
    for lane in range(LANES):
        log, product = account[cell(r.DECAY_LOG, lane)], account[cell(r.DECAY_PRODUCT, lane)]
        log, product = fold_product(log, product)
        account[cell(r.DECAY_LOG, lane)], account[cell(r.DECAY_PRODUCT, lane)] = log, product


def raise_peaks(terms: Terms, lanes: Lanes, n: int, found: int) -> None:
    account = lanes.account
    while found != 0:
        lane = lowest(found)
        found &= found - 1
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
    """Count the lanes with a position whose liquidation price is near the close.

    That of a position that stands alone stays until it trades or pays, and is kept.
    """
    account, brackets, near = lanes.account, terms.rules.brackets, 0
    for i in range(n):
        is_alone = n == 1 or brackets.are_isolated[i] != 0
        missing = found & ~lanes.is_known[0, i] if is_alone else found
        while missing != 0:
            lane = lowest(missing)
            missing &= missing - 1
            lanes.position[spot(i, r.FAILURE, lane)] = find_failure(terms, lanes, n, i, lane)
        lanes.is_known[0, i] |= found if is_alone else 0
        near |= find_near(lanes, i)
    near &= found
    for lane in range(LANES):
        account[cell(r.NEAR, lane)] += 1.0 * ((near >> lane) & 1)


def find_near(lanes: Lanes, i: int) -> int:
    position, near = lanes.position, 0
    low, high = lanes.prices[r.NEAR_LOW, i], lanes.prices[r.NEAR_HIGH, i]
    for lane in range(LANES):
        value = position[spot(i, r.FAILURE, lane)]
        near |= ((low <= value) & (value <= high)) << lane
    return near


def find_failure(terms: Terms, lanes: Lanes, n: int, i: int, lane: int) -> float:
    """Return the u at which a position of a lane is liquidated, others fixed; NaN if none."""
    position, brackets = lanes.position, terms.rules.brackets
    quantity, close = position[spot(i, r.QUANTITY, lane)], lanes.prices[r.CLOSE, i]
    entry = position[spot(i, r.ENTRY, lane)]
    if quantity == 0.0:
        return math.nan
    if brackets.are_isolated[i]:
        base = position[spot(i, r.MARGIN, lane)] - quantity * entry
    else:
        own = find_maintenance(brackets, i, abs(quantity) * abs(close))
        excess = lanes.account[cell(r.POOL, lane)] - compute_lane_needed(terms, lanes, n, lane)
        base = excess + own - quantity * close
    x = brackets.multipliers[i]
    return float(compute_liquidation_value(pick_margin(terms, i), quantity, entry, base, x))


# ----------------------------------------------------------------------------- the end of a sample


def end_samples(lanes: Lanes, free: float) -> None:
    account, tally = lanes.account, lanes.tally
    for lane in range(LANES):
        for row in range(y.SAMPLE_UNIT, y.DISUTILITY + 1):
            tally[row] = account[cell(r.TALLY + row, lane)]
        tally[y.SAMPLE_FREE] = free
        finish_sample(tally, account[cell(UNIT, lane)])
        for row in range(y.SAMPLE_UNIT, y.DISUTILITY + 1):
            account[cell(r.TALLY + row, lane)] = tally[row]


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
