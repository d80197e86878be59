"""Closes of bars: the equity of all lanes, and what a tally counts of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.account import Terms
from backtest.account.money import CASH, EQUITY, PEAK, RESERVE, SCALE, UNIT
from backtest.core.kernels import inlined
from backtest.engine import is_over_cap
from backtest.margin import find_maintenance
from backtest.results import finish_sample, invert, is_deeper, raise_ratio
from backtest.results import tally as y
from backtest.sweep.lanes import rows as r
from backtest.sweep.lanes.rows import LANES, Lanes, cell, lowest, spot

if TYPE_CHECKING:
    from backtest.core import FloatArray
    from backtest.margin.portfolio_kernels import BracketTables


def close_lanes(terms: Terms, lanes: Lanes, n: int) -> None:
    """Value all lanes at the closes of the bar, and count falls, leverage and margins of them."""
    if n > 1:
        has_fallen = close_several(lanes, terms.rules.brackets.are_isolated[0] != 0, n)
    elif terms.rules.brackets.are_isolated[0]:
        has_fallen = close_one(lanes, True)
    else:
        has_fallen = close_one(lanes, False)
    account = lanes.account
    for lane in range(LANES if has_fallen else 0):
        peak, unit = account[cell(PEAK, lane)], account[cell(UNIT, lane)]
        low, low_peak = account[cell(r.LOW, lane)], account[cell(r.LOW_PEAK, lane)]
        is_low = is_deeper(peak, low, low_peak, unit)
        low, low_peak = unit if is_low else low, peak if is_low else low_peak
        account[cell(r.LOW, lane)], account[cell(r.LOW_PEAK, lane)] = low, low_peak
        account[cell(r.KEEP, lane)] = low / low_peak
    if lanes.is_full:
        expose_lanes(terms, lanes, n)


def close_several(lanes: Lanes, is_isolated: bool, n: int) -> bool:
    account, found = lanes.account, False
    for lane in range(LANES):
        account[cell(EQUITY, lane)] = 0.0 if is_isolated else account[cell(CASH, lane)]
    for i in range(n):
        if lanes.prices[r.IS_LISTED, i] != 0.0:
            add_close(lanes, is_isolated, i)
    for lane in range(LANES):
        if is_isolated:
            account[cell(EQUITY, lane)] = account[cell(CASH, lane)] + account[cell(EQUITY, lane)]
        found |= count_close(account, account[cell(EQUITY, lane)], lane)
    return found


def add_close(lanes: Lanes, is_isolated: bool, i: int) -> None:
    account, position, close = lanes.account, lanes.position, lanes.prices[r.CLOSE, i]
    if is_isolated:
        for lane in range(LANES):
            profit = position[spot(i, r.QUANTITY, lane)] * (
                close - position[spot(i, r.ENTRY, lane)]
            )
            before = account[cell(EQUITY, lane)] + position[spot(i, r.MARGIN, lane)]
            account[cell(EQUITY, lane)] = before + profit
        return
    for lane in range(LANES):
        account[cell(EQUITY, lane)] += position[spot(i, r.QUANTITY, lane)] * close


@inlined
def find_backing(position: FloatArray, close: float, i: int, lane: int) -> float:
    """Return what a position that stands alone is worth at its close."""
    profit = position[spot(i, r.QUANTITY, lane)] * (close - position[spot(i, r.ENTRY, lane)])
    return float(position[spot(i, r.MARGIN, lane)] + profit)


@inlined
def close_one(lanes: Lanes, is_isolated: bool) -> bool:
    account, position, close, found = lanes.account, lanes.position, lanes.prices[r.CLOSE, 0], False
    for lane in range(LANES):
        quantity, cash = position[spot(0, r.QUANTITY, lane)], account[cell(CASH, lane)]
        backing = quantity * close
        if is_isolated:
            backing = find_backing(position, close, 0, lane)
        equity = cash + backing
        account[cell(EQUITY, lane)] = equity
        found |= count_close(account, equity, lane)
    return found


@inlined
def count_close(account: FloatArray, equity: float, lane: int) -> bool:
    peak = account[cell(PEAK, lane)]
    unit = account[cell(SCALE, lane)] * (equity + account[cell(RESERVE, lane)])
    account[cell(UNIT, lane)] = unit
    account[cell(r.EQUITY_SUM, lane)] += equity
    peak = unit if unit > peak else peak
    account[cell(PEAK, lane)] = peak
    return bool(unit < peak * account[cell(r.KEEP, lane)])


def expose_lanes(terms: Terms, lanes: Lanes, n: int) -> None:
    account, cap, peaks, is_first = lanes.account, terms.max_gross_leverage, 0, True
    is_isolated = bool(terms.rules.brackets.are_isolated[0])
    for i in range(n):
        if lanes.prices[r.IS_LISTED, i] != 0.0:
            if is_isolated:
                expose_isolated(lanes, is_first, i)
            else:
                expose_position(lanes, is_first, i)
                add_initial(terms.rules.brackets, lanes, is_first, i)
            is_first = False
    for lane in range(LANES if is_first else 0):  # none is listed
        account[cell(r.GROSS, lane)] = 0.0
        account[cell(r.NEEDED, lane)] = 0.0
        account[cell(r.INITIAL, lane)] = 0.0
        account[cell(r.POOL, lane)] = 1.0
    for lane in range(LANES):
        equity = account[cell(EQUITY, lane)]
        gross, needed = account[cell(r.GROSS, lane)], account[cell(r.NEEDED, lane)]
        pool = account[cell(r.POOL, lane)] if is_isolated else equity
        leverage, highest = gross * invert(equity), account[cell(r.PEAK_LEVERAGE, lane)]
        initial = account[cell(r.INITIAL, lane)]
        account[cell(r.INITIAL_SUM, lane)] += initial
        account[cell(r.INITIAL_SHARE, lane)] += initial * invert(equity)
        account[cell(r.LEVERAGE, lane)] += leverage
        account[cell(r.PEAK_LEVERAGE, lane)] = leverage if leverage > highest else highest
        account[cell(r.OVER_CAP, lane)] += 1.0 if is_over_cap(leverage, cap) else 0.0
        account[cell(r.POOL, lane)] = pool
        peak_needed = account[cell(r.PEAK_NEEDED, lane)]
        peaks |= (needed * account[cell(r.PEAK_BACKING, lane)] > peak_needed * pool) << lane
    if peaks != 0:
        raise_peaks(terms, lanes, n, peaks)


def expose_position(lanes: Lanes, is_first: bool, i: int) -> None:
    account, position = lanes.account, lanes.position
    unit, rate = abs(lanes.prices[r.CLOSE, i]), lanes.prices[r.RATE, i]
    for lane in range(LANES):
        notional = abs(position[spot(i, r.QUANTITY, lane)]) * unit
        gross, needed = account[cell(r.GROSS, lane)], account[cell(r.NEEDED, lane)]
        account[cell(r.GROSS, lane)] = notional + (0.0 if is_first else gross)
        account[cell(r.NEEDED, lane)] = notional * rate + (0.0 if is_first else needed)


def add_initial(tables: BracketTables, lanes: Lanes, is_first: bool, i: int) -> None:
    """Write the sum of the initial margin of cross positions so far."""
    account, position, unit = lanes.account, lanes.position, abs(lanes.prices[r.CLOSE, i])
    x, k = tables.initial_multipliers[i], 1
    most, leverage = lanes.most[i] * unit, tables.leverages[i, 0] / x
    has_setting = tables.settings[i] > 0.0
    leverage = min(tables.settings[i], leverage) if has_setting else leverage
    for lane in range(LANES):
        account[cell(r.WANTED, lane)] = leverage
    while not has_setting and k < tables.counts[i] and most > tables.caps[i, k - 1]:
        cap, leverage = tables.caps[i, k - 1], tables.leverages[i, k] / x
        for lane in range(LANES):
            is_over = abs(position[spot(i, r.QUANTITY, lane)]) * unit > cap
            account[cell(r.WANTED, lane)] = leverage if is_over else account[cell(r.WANTED, lane)]
        k += 1
    for lane in range(LANES):
        notional = abs(position[spot(i, r.QUANTITY, lane)]) * unit
        before = 0.0 if is_first else account[cell(r.INITIAL, lane)]
        account[cell(r.INITIAL, lane)] = before + notional / account[cell(r.WANTED, lane)]


def expose_isolated(lanes: Lanes, is_first: bool, i: int) -> None:
    """Keep the position whose bound of the margin needed is the largest share of its backing."""
    account, position = lanes.account, lanes.position
    close, rate = lanes.prices[r.CLOSE, i], lanes.prices[r.RATE, i]
    for lane in range(LANES):
        notional = abs(position[spot(i, r.QUANTITY, lane)]) * abs(close)
        needed, backing = notional * rate, find_backing(position, close, i, lane)
        gross = 0.0 if is_first else account[cell(r.GROSS, lane)]
        worst = 0.0 if is_first else account[cell(r.NEEDED, lane)]
        pool = 1.0 if is_first else account[cell(r.POOL, lane)]
        is_worse = needed * pool > worst * backing
        initial = 0.0 if is_first else account[cell(r.INITIAL, lane)]
        account[cell(r.INITIAL, lane)] = initial + position[spot(i, r.MARGIN, lane)]
        account[cell(r.GROSS, lane)] = gross + notional
        account[cell(r.NEEDED, lane)] = needed if is_worse else worst
        account[cell(r.POOL, lane)] = backing if is_worse else pool


def raise_peaks(terms: Terms, lanes: Lanes, n: int, found: int) -> None:
    """Write what the pool needed at most, or the isolated position nearest, of the lanes found."""
    account, position, brackets = lanes.account, lanes.position, terms.rules.brackets
    while found != 0:
        lane = lowest(found)
        found &= found - 1
        total, worst, pool = 0.0, 0.0, 1.0
        for i in range(n):
            quantity, close = position[spot(i, r.QUANTITY, lane)], lanes.prices[r.CLOSE, i]
            if quantity != 0.0:
                margin = find_maintenance(brackets, i, abs(quantity) * abs(close))
                own = find_backing(position, close, i, lane)
                total += margin
                worst, pool = raise_ratio(worst, pool, margin, own, True)
        if not brackets.are_isolated[0]:
            worst, pool = total, account[cell(EQUITY, lane)]
        needed, backing = raise_ratio(
            account[cell(r.PEAK_NEEDED, lane)],
            account[cell(r.PEAK_BACKING, lane)],
            worst,
            pool,
            account[cell(r.GROSS, lane)] > 0.0,
        )
        account[cell(r.PEAK_NEEDED, lane)] = needed
        account[cell(r.PEAK_BACKING, lane)] = backing


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
    """Write the unit values at the end of a sample, and bound quantities anew."""
    k = lanes.cursor[r.SAMPLE]
    if k < len(lanes.units):
        for lane in range(LANES):
            lanes.units[k, lane] = lanes.account[cell(UNIT, lane)]
    lanes.cursor[r.SAMPLE] = k + 1
    for i in range(len(lanes.signal)):
        most = 0.0
        for lane in range(LANES):
            most = max(most, abs(lanes.position[spot(i, r.QUANTITY, lane)]))
        lanes.most[i] = 1.1 * most
    lanes.cursor[r.IS_BOUND] = 0
