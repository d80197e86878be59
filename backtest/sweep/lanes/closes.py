"""Closes of bars: the equity of all lanes, and what a tally counts of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.account import Terms
from backtest.account.money import WALLET
from backtest.core.kernels import inlined
from backtest.core.structs import view_numbers
from backtest.engine import is_over_cap
from backtest.margin import find_maintenance
from backtest.results import finish_sample, invert, is_deeper, raise_ratio
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
        peak, unit = account[cell(WALLET.peak, lane)], account[cell(WALLET.unit, lane)]
        low, low_peak = account[cell(r.TALLY.low, lane)], account[cell(r.TALLY.low_peak, lane)]
        is_low = is_deeper(peak, low, low_peak, unit)
        low, low_peak = unit if is_low else low, peak if is_low else low_peak
        account[cell(r.TALLY.low, lane)], account[cell(r.TALLY.low_peak, lane)] = low, low_peak
        account[cell(r.OWN.keep, lane)] = low / low_peak
    if lanes.is_full:
        expose_lanes(terms, lanes, n)


def close_several(lanes: Lanes, is_isolated: bool, n: int) -> bool:
    account, found = lanes.account, False
    for lane in range(LANES):
        account[cell(WALLET.equity, lane)] = (
            0.0 if is_isolated else account[cell(WALLET.cash, lane)]
        )
    for i in range(n):
        if lanes.prices[r.PRICE.is_listed, i] != 0.0:
            add_close(lanes, is_isolated, i)
    for lane in range(LANES):
        if is_isolated:
            account[cell(WALLET.equity, lane)] = (
                account[cell(WALLET.cash, lane)] + account[cell(WALLET.equity, lane)]
            )
        found |= count_close(account, account[cell(WALLET.equity, lane)], lane)
    return found


def add_close(lanes: Lanes, is_isolated: bool, i: int) -> None:
    account, position, close = lanes.account, lanes.position, lanes.prices[r.PRICE.close, i]
    if is_isolated:
        for lane in range(LANES):
            profit = position[spot(i, r.HELD.quantity, lane)] * (
                close - position[spot(i, r.HELD.entry, lane)]
            )
            before = account[cell(WALLET.equity, lane)] + position[spot(i, r.HELD.margin, lane)]
            account[cell(WALLET.equity, lane)] = before + profit
        return
    for lane in range(LANES):
        account[cell(WALLET.equity, lane)] += position[spot(i, r.HELD.quantity, lane)] * close


@inlined
def find_backing(position: FloatArray, close: float, i: int, lane: int) -> float:
    """Return what a position that stands alone is worth at its close."""
    profit = position[spot(i, r.HELD.quantity, lane)] * (
        close - position[spot(i, r.HELD.entry, lane)]
    )
    return float(position[spot(i, r.HELD.margin, lane)] + profit)


@inlined
def close_one(lanes: Lanes, is_isolated: bool) -> bool:
    account, position, close, found = (
        lanes.account,
        lanes.position,
        lanes.prices[r.PRICE.close, 0],
        False,
    )
    for lane in range(LANES):
        quantity, cash = position[spot(0, r.HELD.quantity, lane)], account[cell(WALLET.cash, lane)]
        backing = quantity * close
        if is_isolated:
            backing = find_backing(position, close, 0, lane)
        equity = cash + backing
        account[cell(WALLET.equity, lane)] = equity
        found |= count_close(account, equity, lane)
    return found


@inlined
def count_close(account: FloatArray, equity: float, lane: int) -> bool:
    peak = account[cell(WALLET.peak, lane)]
    unit = account[cell(WALLET.scale, lane)] * (equity + account[cell(WALLET.reserve, lane)])
    account[cell(WALLET.unit, lane)] = unit
    account[cell(r.TALLY.equity, lane)] += equity
    peak = unit if unit > peak else peak
    account[cell(WALLET.peak, lane)] = peak
    return bool(unit < peak * account[cell(r.OWN.keep, lane)])


def expose_lanes(terms: Terms, lanes: Lanes, n: int) -> None:
    account, cap, peaks, is_first = lanes.account, terms.max_gross_leverage, 0, True
    is_isolated = bool(terms.rules.brackets.are_isolated[0])
    for i in range(n):
        if lanes.prices[r.PRICE.is_listed, i] != 0.0:
            if is_isolated:
                expose_isolated(lanes, is_first, i)
            else:
                expose_position(lanes, is_first, i)
                add_initial(terms.rules.brackets, lanes, is_first, i)
            is_first = False
    for lane in range(LANES if is_first else 0):  # none is listed
        account[cell(r.WORK.gross, lane)] = 0.0
        account[cell(r.WORK.needed, lane)] = 0.0
        account[cell(r.WORK.initial, lane)] = 0.0
        account[cell(r.WORK.pool, lane)] = 1.0
    for lane in range(LANES):
        equity = account[cell(WALLET.equity, lane)]
        gross, needed = account[cell(r.WORK.gross, lane)], account[cell(r.WORK.needed, lane)]
        pool = account[cell(r.WORK.pool, lane)] if is_isolated else equity
        leverage, highest = gross * invert(equity), account[cell(r.TALLY.peak_leverage, lane)]
        initial = account[cell(r.WORK.initial, lane)]
        account[cell(r.TALLY.initial, lane)] += initial
        account[cell(r.TALLY.initial_share, lane)] += initial * invert(equity)
        account[cell(r.TALLY.leverage, lane)] += leverage
        account[cell(r.TALLY.peak_leverage, lane)] = leverage if leverage > highest else highest
        account[cell(r.TALLY.over_cap, lane)] += 1.0 if is_over_cap(leverage, cap) else 0.0
        account[cell(r.WORK.pool, lane)] = pool
        peak_needed = account[cell(r.TALLY.peak_needed, lane)]
        peaks |= (needed * account[cell(r.TALLY.peak_backing, lane)] > peak_needed * pool) << lane
    if peaks != 0:
        raise_peaks(terms, lanes, n, peaks)


def expose_position(lanes: Lanes, is_first: bool, i: int) -> None:
    account, position = lanes.account, lanes.position
    unit, rate = abs(lanes.prices[r.PRICE.close, i]), lanes.prices[r.PRICE.rate, i]
    for lane in range(LANES):
        notional = abs(position[spot(i, r.HELD.quantity, lane)]) * unit
        gross, needed = account[cell(r.WORK.gross, lane)], account[cell(r.WORK.needed, lane)]
        account[cell(r.WORK.gross, lane)] = notional + (0.0 if is_first else gross)
        account[cell(r.WORK.needed, lane)] = notional * rate + (0.0 if is_first else needed)


def add_initial(tables: BracketTables, lanes: Lanes, is_first: bool, i: int) -> None:
    """Write the sum of the initial margin of cross positions so far."""
    account, position, unit = lanes.account, lanes.position, abs(lanes.prices[r.PRICE.close, i])
    x, k = tables.initial_multipliers[i], 1
    most, leverage = lanes.most[i] * unit, tables.leverages[i, 0] / x
    has_setting = tables.settings[i] > 0.0
    leverage = min(tables.settings[i], leverage) if has_setting else leverage
    for lane in range(LANES):
        account[cell(r.WORK.wanted, lane)] = leverage
    while not has_setting and k < tables.counts[i] and most > tables.caps[i, k - 1]:
        cap, leverage = tables.caps[i, k - 1], tables.leverages[i, k] / x
        for lane in range(LANES):
            is_over = abs(position[spot(i, r.HELD.quantity, lane)]) * unit > cap
            account[cell(r.WORK.wanted, lane)] = (
                leverage if is_over else account[cell(r.WORK.wanted, lane)]
            )
        k += 1
    for lane in range(LANES):
        notional = abs(position[spot(i, r.HELD.quantity, lane)]) * unit
        before = 0.0 if is_first else account[cell(r.WORK.initial, lane)]
        account[cell(r.WORK.initial, lane)] = before + notional / account[cell(r.WORK.wanted, lane)]


def expose_isolated(lanes: Lanes, is_first: bool, i: int) -> None:
    """Keep the position whose bound of the margin needed is the largest share of its backing."""
    account, position = lanes.account, lanes.position
    close, rate = lanes.prices[r.PRICE.close, i], lanes.prices[r.PRICE.rate, i]
    for lane in range(LANES):
        notional = abs(position[spot(i, r.HELD.quantity, lane)]) * abs(close)
        needed, backing = notional * rate, find_backing(position, close, i, lane)
        gross = 0.0 if is_first else account[cell(r.WORK.gross, lane)]
        worst = 0.0 if is_first else account[cell(r.WORK.needed, lane)]
        pool = 1.0 if is_first else account[cell(r.WORK.pool, lane)]
        is_worse = needed * pool > worst * backing
        initial = 0.0 if is_first else account[cell(r.WORK.initial, lane)]
        account[cell(r.WORK.initial, lane)] = initial + position[spot(i, r.HELD.margin, lane)]
        account[cell(r.WORK.gross, lane)] = gross + notional
        account[cell(r.WORK.needed, lane)] = needed if is_worse else worst
        account[cell(r.WORK.pool, lane)] = backing if is_worse else pool


def raise_peaks(terms: Terms, lanes: Lanes, n: int, found: int) -> None:
    """Write what the pool needed at most, or the isolated position nearest, of the lanes found."""
    account, position, brackets = lanes.account, lanes.position, terms.rules.brackets
    while found != 0:
        lane = lowest(found)
        found &= found - 1
        total, worst, pool = 0.0, 0.0, 1.0
        for i in range(n):
            quantity, close = (
                position[spot(i, r.HELD.quantity, lane)],
                lanes.prices[r.PRICE.close, i],
            )
            if quantity != 0.0:
                margin = find_maintenance(brackets, i, abs(quantity) * abs(close))
                own = find_backing(position, close, i, lane)
                total += margin
                worst, pool = raise_ratio(worst, pool, margin, own, True)
        if not brackets.are_isolated[0]:
            worst, pool = total, account[cell(WALLET.equity, lane)]
        needed, backing = raise_ratio(
            account[cell(r.TALLY.peak_needed, lane)],
            account[cell(r.TALLY.peak_backing, lane)],
            worst,
            pool,
            account[cell(r.WORK.gross, lane)] > 0.0,
        )
        account[cell(r.TALLY.peak_needed, lane)] = needed
        account[cell(r.TALLY.peak_backing, lane)] = backing


def end_samples(lanes: Lanes, free: float) -> None:
    account, tally = lanes.account, view_numbers(lanes.tally)
    for lane in range(LANES):
        for row in range(r.TALLY.sample_unit, r.TALLY.disutility + 1):
            tally[row - r.FIRST_OF_TALLY] = account[cell(row, lane)]
        lanes.tally.sample_free = free
        finish_sample(lanes.tally, account[cell(WALLET.unit, lane)])
        for row in range(r.TALLY.sample_unit, r.TALLY.disutility + 1):
            account[cell(row, lane)] = tally[row - r.FIRST_OF_TALLY]


def keep_units(lanes: Lanes) -> None:
    """Write the unit values at the end of a sample, and bound quantities anew."""
    k = lanes.cursor[r.CURSOR.sample]
    if k < len(lanes.units):
        for lane in range(LANES):
            lanes.units[k, lane] = lanes.account[cell(WALLET.unit, lane)]
    lanes.cursor[r.CURSOR.sample] = k + 1
    for i in range(len(lanes.signal)):
        most = 0.0
        for lane in range(LANES):
            most = max(most, abs(lanes.position[spot(i, r.HELD.quantity, lane)]))
        lanes.most[i] = 1.1 * most
    lanes.cursor[r.CURSOR.is_bound] = 0
