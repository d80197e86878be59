"""Closes of bars: the equity of all lanes, and what a tally counts of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.account import Terms
from backtest.account.records import CASH, EQUITY, PEAK, RESERVE, SCALE, UNIT
from backtest.engine import is_over_cap
from backtest.margin import find_maintenance
from backtest.results import finish_sample, invert, is_deeper, raise_ratio
from backtest.results import tally as y
from backtest.sweep.lanes import rows as r
from backtest.sweep.lanes.rows import LANES, Lanes, cell, lowest, spot

if TYPE_CHECKING:
    from backtest.core import FloatArray


def close_lanes(terms: Terms, lanes: Lanes, n: int) -> None:
    if n == 1:
        if terms.rules.brackets.are_isolated[0]:
            is_deeper = close_one(lanes, True)
        else:
            is_deeper = close_one(lanes, False)
    else:
        is_deeper = close_several(lanes, n)
    if is_deeper:
        deepen(lanes)
    if lanes.is_full:
        expose_lanes(terms, lanes, n)


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


def close_one(lanes: Lanes, is_isolated: bool) -> bool:
    account, position, close, found = lanes.account, lanes.position, lanes.prices[r.CLOSE, 0], False
    for lane in range(LANES):
        quantity, cash = position[spot(0, r.QUANTITY, lane)], account[cell(CASH, lane)]
        backing = quantity * close
        if is_isolated:
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


def expose_lanes(terms: Terms, lanes: Lanes, n: int) -> None:
    account, cap, peaks, is_first = lanes.account, terms.max_gross_leverage, 0, True
    for i in range(n):
        if lanes.prices[r.IS_LISTED, i] != 0.0:
            expose_position(lanes, is_first, i)
            is_first = False
    for lane in range(LANES if is_first else 0):  # none is listed
        account[cell(r.GROSS, lane)] = 0.0
        account[cell(r.NEEDED, lane)] = 0.0
    is_isolated = bool(terms.rules.brackets.are_isolated[0])
    if is_isolated:
        write_backing(lanes, 0)
    for lane in range(LANES):
        equity = account[cell(EQUITY, lane)]
        gross, needed = account[cell(r.GROSS, lane)], account[cell(r.NEEDED, lane)]
        pool = account[cell(r.POOL, lane)] if is_isolated else equity
        leverage, highest = gross * invert(equity), account[cell(r.PEAK_LEVERAGE, lane)]
        account[cell(r.LEVERAGE, lane)] += leverage
        account[cell(r.PEAK_LEVERAGE, lane)] = leverage if leverage > highest else highest
        account[cell(r.OVER_CAP, lane)] += 1.0 if is_over_cap(leverage, cap) else 0.0
        account[cell(r.POOL, lane)] = pool
        peak_needed = account[cell(r.PEAK_NEEDED, lane)]
        peaks |= (needed * account[cell(r.PEAK_BACKING, lane)] > peak_needed * pool) << lane
    if peaks != 0:
        raise_peaks(terms, lanes, n, peaks)


def write_backing(lanes: Lanes, i: int) -> None:
    account, position, close = lanes.account, lanes.position, lanes.prices[r.CLOSE, i]
    for lane in range(LANES):
        profit = close - position[spot(i, r.ENTRY, lane)]
        backing = position[spot(i, r.QUANTITY, lane)] * profit
        account[cell(r.POOL, lane)] = position[spot(i, r.MARGIN, lane)] + backing


def expose_position(lanes: Lanes, is_first: bool, i: int) -> None:
    account, position = lanes.account, lanes.position
    unit, rate = abs(lanes.prices[r.CLOSE, i]), lanes.prices[r.RATE, i]
    for lane in range(LANES):
        notional = abs(position[spot(i, r.QUANTITY, lane)]) * unit
        gross, needed = account[cell(r.GROSS, lane)], account[cell(r.NEEDED, lane)]
        account[cell(r.GROSS, lane)] = notional + (0.0 if is_first else gross)
        account[cell(r.NEEDED, lane)] = notional * rate + (0.0 if is_first else needed)


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
