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
        is_deeper = close_several(lanes, n)
    if is_deeper:
        deepen(lanes)
    if lanes.is_full:
        expose_lanes(terms, lanes, log_returns, n, t)


def close_several(lanes: Lanes, n: int) -> bool:
    account, found = lanes.account, False
    for lane in range(LANES):
        account[cell(EQUITY, lane)] = account[cell(CASH, lane)]
    for i in range(n):
        if lanes.prices[r.IS_LISTED, i] != 0.0:
            add_close(lanes, i)
    for lane in range(LANES):
        found |= count_close(account, account[cell(EQUITY, lane)], lane)
    return found


def add_close(lanes: Lanes, i: int) -> None:
    account, position, close = lanes.account, lanes.position, lanes.prices[r.CLOSE, i]
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
    account, has_folds, near, peaks = lanes.account, False, 0, 0
    for lane in range(LANES):
        account[cell(r.POOL, lane)] = account[cell(EQUITY, lane)]
        account[cell(r.GROSS, lane)] = 0.0
        account[cell(r.NEEDED, lane)] = 0.0
        account[cell(r.MOVED, lane)] = 0.0
        account[cell(r.DRIFT, lane)] = 0.0
        account[cell(r.GROWN, lane)] = 1.0
    for i in range(n):
        if lanes.prices[r.IS_LISTED, i] != 0.0:
            write_near_moves(terms, lanes, i)
            expose_position(lanes, i)
            if terms.rules.brackets.are_isolated[i]:
                write_backing(lanes, i)
            if not math.isnan(log_returns[t, i]):
                drift_lanes(lanes, log_returns[t, i], i)
    for lane in range(LANES):
        has_folds |= count_lane(account, lane)
        pool, needed = account[cell(r.POOL, lane)], account[cell(r.NEEDED, lane)]
        peak_needed = account[cell(r.PEAK_NEEDED, lane)]
        is_near = (pool - needed <= account[cell(r.MOVED, lane)]) & (needed != 0.0)
        near |= is_near << lane
        peaks |= (needed * account[cell(r.PEAK_BACKING, lane)] > peak_needed * pool) << lane
    if terms.max_gross_leverage < math.inf:
        count_over_cap(lanes, terms.max_gross_leverage)
    if has_folds:
        fold_lanes(lanes)
    if near != 0:
        count_near(terms, lanes, n, near)
    if peaks != 0:
        raise_peaks(terms, lanes, n, peaks)


def count_lane(account: FloatArray, lane: int) -> bool:
    inverse = invert(account[cell(EQUITY, lane)])
    leverage = account[cell(r.GROSS, lane)] * inverse
    highest, grown = account[cell(r.PEAK_LEVERAGE, lane)], account[cell(r.GROWN, lane)]
    account[cell(r.INVERSE, lane)] = inverse
    account[cell(r.LEVERAGE, lane)] += leverage
    account[cell(r.PEAK_LEVERAGE, lane)] = leverage if leverage > highest else highest
    product, is_grown = account[cell(r.DECAY_PRODUCT, lane)], grown > 0.0
    product = product * grown if is_grown else product
    account[cell(r.DECAY_HELD, lane)] += account[cell(r.DRIFT, lane)] if is_grown else 0.0
    account[cell(r.DECAY_PRODUCT, lane)] = product
    return needs_folding(product)


def write_backing(lanes: Lanes, i: int) -> None:
    """Write what backs a position that stands alone."""
    account, position, close = lanes.account, lanes.position, lanes.prices[r.CLOSE, i]
    for lane in range(LANES):
        profit = close - position[spot(i, r.ENTRY, lane)]
        backing = position[spot(i, r.QUANTITY, lane)] * profit
        account[cell(r.POOL, lane)] = position[spot(i, r.MARGIN, lane)] + backing


def expose_position(lanes: Lanes, i: int) -> None:
    account, position, prices = lanes.account, lanes.position, lanes.prices
    unit, rate = abs(prices[r.CLOSE, i]), prices[r.RATE, i]
    fall, rise = prices[r.FALL, i], -prices[r.RISE, i]
    for lane in range(LANES):
        quantity, found = position[spot(i, r.QUANTITY, lane)], account[cell(r.MOVED, lane)]
        notional, moved = abs(quantity) * unit, max(quantity * fall, quantity * rise)
        account[cell(r.GROSS, lane)] += notional
        account[cell(r.NEEDED, lane)] += notional * rate
        account[cell(r.MOVED, lane)] = max(moved, found)


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
        needed, backing = raise_ratio(
            account[cell(r.PEAK_NEEDED, lane)],
            account[cell(r.PEAK_BACKING, lane)],
            find_needed(terms, lanes, n, lane),
            account[cell(r.POOL, lane)],
            account[cell(r.GROSS, lane)] > 0.0,
        )
        account[cell(r.PEAK_NEEDED, lane)] = needed
        account[cell(r.PEAK_BACKING, lane)] = backing


def find_needed(terms: Terms, lanes: Lanes, n: int, lane: int) -> float:
    total = 0.0
    for i in range(n):
        quantity = lanes.position[spot(i, r.QUANTITY, lane)]
        if quantity != 0.0:
            notional = abs(quantity) * abs(lanes.prices[r.CLOSE, i])
            total += find_maintenance(terms.rules.brackets, i, notional)
    return total


def count_near(terms: Terms, lanes: Lanes, n: int, found: int) -> None:
    """Count the lanes with a position whose liquidation price is near the close.

    That of a single instrument stays until it trades or pays, and is kept.
    """
    account, near = lanes.account, 0
    for i in range(n):
        missing = found & ~lanes.is_known[0, i] if n == 1 else found
        while missing != 0:
            lane = lowest(missing)
            missing &= missing - 1
            lanes.position[spot(i, r.FAILURE, lane)] = find_failure(terms, lanes, n, i, lane)
        lanes.is_known[0, i] |= found if n == 1 else 0
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
        excess = lanes.account[cell(EQUITY, lane)] - find_needed(terms, lanes, n, lane)
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
