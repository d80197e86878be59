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

GROWTH = 1.1
"""Ratio of the bound of quantities to the largest one at the end of a sample."""


# Loops over lanes have no branch on what differs between lanes, so that the compiler computes them
# side by side: both cases are computed, and a conditional expression chooses.


def close_lanes(terms: Terms, lanes: Lanes, n: int) -> None:
    """Value all lanes at the closes of the bar, and count falls, leverage and margins of them."""
    is_isolated = bool(terms.rules.brackets.are_isolated[0])
    if n > 1:
        has_fallen = close_several(lanes, is_isolated, n)
    elif is_isolated:
        has_fallen = close_one(lanes, True)
    else:
        has_fallen = close_one(lanes, False)

    if has_fallen:
        follow_lows(lanes)
    if lanes.is_full:
        expose_lanes(terms, lanes, n)


def follow_lows(lanes: Lanes) -> None:
    """Write the lowest unit under a peak, where a lane has fallen deeper than before."""
    account = lanes.account
    for lane in range(LANES):
        peak = account[cell(WALLET.peak, lane)]
        unit = account[cell(WALLET.unit, lane)]
        low = account[cell(r.TALLY.low, lane)]
        low_peak = account[cell(r.TALLY.low_peak, lane)]

        # The deepest fall so far is kept as a pair: the unit, and the peak before it.
        is_low = is_deeper(peak, low, low_peak, unit)
        low = unit if is_low else low
        low_peak = peak if is_low else low_peak
        account[cell(r.TALLY.low, lane)] = low
        account[cell(r.TALLY.low_peak, lane)] = low_peak
        account[cell(r.OWN.keep, lane)] = low / low_peak


def close_several(lanes: Lanes, is_isolated: bool, n: int) -> bool:
    """Value lanes of several positions; return whether any fell under its lowest share of a peak.

    Isolated positions are summed before the cash, as a run does: equal to the last bit.
    """
    account = lanes.account
    for lane in range(LANES):
        cash = account[cell(WALLET.cash, lane)]
        account[cell(WALLET.equity, lane)] = 0.0 if is_isolated else cash
    for i in range(n):
        if lanes.prices[r.PRICE.is_listed, i] != 0.0:
            add_close(lanes, is_isolated, i)

    has_fallen = False
    for lane in range(LANES):
        if is_isolated:
            worth = account[cell(WALLET.equity, lane)]
            account[cell(WALLET.equity, lane)] = account[cell(WALLET.cash, lane)] + worth
        has_fallen |= count_close(account, account[cell(WALLET.equity, lane)], lane)
    return has_fallen


def add_close(lanes: Lanes, is_isolated: bool, i: int) -> None:
    """Add what a position is worth at its close to the equity of all lanes."""
    account = lanes.account
    position = lanes.position
    close = lanes.prices[r.PRICE.close, i]
    if is_isolated:
        for lane in range(LANES):
            entry = position[spot(i, r.HELD.entry, lane)]
            profit = position[spot(i, r.HELD.quantity, lane)] * (close - entry)

            before = account[cell(WALLET.equity, lane)] + position[spot(i, r.HELD.margin, lane)]
            account[cell(WALLET.equity, lane)] = before + profit
        return

    for lane in range(LANES):
        account[cell(WALLET.equity, lane)] += position[spot(i, r.HELD.quantity, lane)] * close


@inlined
def find_backing(position: FloatArray, close: float, i: int, lane: int) -> float:
    """Return what a position that stands alone is worth at its close."""
    entry = position[spot(i, r.HELD.entry, lane)]
    profit = position[spot(i, r.HELD.quantity, lane)] * (close - entry)
    return float(position[spot(i, r.HELD.margin, lane)] + profit)


@inlined
def close_one(lanes: Lanes, is_isolated: bool) -> bool:
    """Value lanes of one position; return the same as :func:`close_several`."""
    account = lanes.account
    position = lanes.position
    close = lanes.prices[r.PRICE.close, 0]
    has_fallen = False
    for lane in range(LANES):
        backing = position[spot(0, r.HELD.quantity, lane)] * close
        if is_isolated:
            backing = find_backing(position, close, 0, lane)
        equity = account[cell(WALLET.cash, lane)] + backing

        account[cell(WALLET.equity, lane)] = equity
        has_fallen |= count_close(account, equity, lane)
    return has_fallen


@inlined
def count_close(account: FloatArray, equity: float, lane: int) -> bool:
    """Write unit and peak of a lane; return whether it fell deeper than before."""
    unit = account[cell(WALLET.scale, lane)] * (equity + account[cell(WALLET.reserve, lane)])
    account[cell(WALLET.unit, lane)] = unit
    account[cell(r.TALLY.equity, lane)] += equity

    peak = account[cell(WALLET.peak, lane)]
    peak = unit if unit > peak else peak
    account[cell(WALLET.peak, lane)] = peak
    return bool(unit < peak * account[cell(r.OWN.keep, lane)])


# Leverage and margin.


def expose_lanes(terms: Terms, lanes: Lanes, n: int) -> None:
    """Count leverage, initial margin and the peak of the margin needed at the closes of the bar.

    Margin rates are bounds, so a lane whose share of margin needed may be a new peak is measured
    exactly after that (:func:`raise_peaks`).
    """
    account = lanes.account
    is_isolated = bool(terms.rules.brackets.are_isolated[0])
    is_first = True
    for i in range(n):
        if lanes.prices[r.PRICE.is_listed, i] == 0.0:
            continue
        if is_isolated:
            expose_isolated(lanes, is_first, i)
        else:
            expose_position(lanes, is_first, i)
            add_initial(terms.rules.brackets, lanes, is_first, i)
        is_first = False
    if is_first:
        expose_nothing(lanes)

    peaks = 0
    for lane in range(LANES):
        pool = account[cell(WALLET.equity, lane)]
        if is_isolated:
            pool = account[cell(r.WORK.pool, lane)]
        account[cell(r.WORK.pool, lane)] = pool
        count_exposure(account, terms.max_gross_leverage, lane)

        # Ratios are compared by products: nothing may back a lane.
        needed = account[cell(r.WORK.needed, lane)]
        peak_needed = account[cell(r.TALLY.peak_needed, lane)]
        peaks |= (needed * account[cell(r.TALLY.peak_backing, lane)] > peak_needed * pool) << lane
    if peaks != 0:
        raise_peaks(terms, lanes, n, peaks)


def expose_nothing(lanes: Lanes) -> None:
    """Write the sums of a bar in which no instrument is listed."""
    for lane in range(LANES):
        lanes.account[cell(r.WORK.gross, lane)] = 0.0
        lanes.account[cell(r.WORK.needed, lane)] = 0.0
        lanes.account[cell(r.WORK.initial, lane)] = 0.0
        lanes.account[cell(r.WORK.pool, lane)] = 1.0


@inlined
def count_exposure(account: FloatArray, cap: float, lane: int) -> None:
    """Add leverage and initial margin of a lane to its tally."""
    equity = account[cell(WALLET.equity, lane)]
    initial = account[cell(r.WORK.initial, lane)]
    account[cell(r.TALLY.initial, lane)] += initial
    account[cell(r.TALLY.initial_share, lane)] += initial * invert(equity)

    leverage = account[cell(r.WORK.gross, lane)] * invert(equity)
    highest = account[cell(r.TALLY.peak_leverage, lane)]
    account[cell(r.TALLY.leverage, lane)] += leverage
    account[cell(r.TALLY.peak_leverage, lane)] = leverage if leverage > highest else highest
    account[cell(r.TALLY.over_cap, lane)] += 1.0 if is_over_cap(leverage, cap) else 0.0


def expose_position(lanes: Lanes, is_first: bool, i: int) -> None:
    """Add a cross position to the sums of all lanes: gross notional, and margin needed, a bound.

    With ``is_first`` the sums begin with it.
    """
    account = lanes.account
    contract_notional = abs(lanes.prices[r.PRICE.close, i])
    rate = lanes.prices[r.PRICE.rate, i]

    for lane in range(LANES):
        notional = abs(lanes.position[spot(i, r.HELD.quantity, lane)]) * contract_notional
        gross = 0.0 if is_first else account[cell(r.WORK.gross, lane)]
        needed = 0.0 if is_first else account[cell(r.WORK.needed, lane)]
        account[cell(r.WORK.gross, lane)] = notional + gross
        account[cell(r.WORK.needed, lane)] = notional * rate + needed


def add_initial(tables: BracketTables, lanes: Lanes, is_first: bool, i: int) -> None:
    """Add the initial margin of a cross position to the sum of each lane.

    It is the notional / the leverage of its bracket, or the venue leverage that is set. The row
    ``wanted`` holds the leverage of each lane meanwhile: bracket by bracket, lanes whose notional
    is over its floor take its leverage.
    """
    account = lanes.account
    position = lanes.position
    contract_notional = abs(lanes.prices[r.PRICE.close, i])
    multiplier = tables.initial_multipliers[i]
    has_setting = tables.settings[i] > 0.0
    leverage = tables.leverages[i, 0] / multiplier
    if has_setting:
        leverage = min(tables.settings[i], leverage)
    for lane in range(LANES):
        account[cell(r.WORK.wanted, lane)] = leverage

    # No lane is over the bound, so brackets above it are not asked.
    most = lanes.most[i] * contract_notional
    k = 1
    while not has_setting and k < tables.counts[i] and most > tables.caps[i, k - 1]:
        cap = tables.caps[i, k - 1]
        leverage = tables.leverages[i, k] / multiplier
        for lane in range(LANES):
            is_over = abs(position[spot(i, r.HELD.quantity, lane)]) * contract_notional > cap
            allowed = account[cell(r.WORK.wanted, lane)]
            account[cell(r.WORK.wanted, lane)] = leverage if is_over else allowed
        k += 1

    for lane in range(LANES):
        notional = abs(position[spot(i, r.HELD.quantity, lane)]) * contract_notional
        before = 0.0 if is_first else account[cell(r.WORK.initial, lane)]
        initial = notional / account[cell(r.WORK.wanted, lane)]
        account[cell(r.WORK.initial, lane)] = before + initial


def expose_isolated(lanes: Lanes, is_first: bool, i: int) -> None:
    """Add an isolated position to the sums of all lanes: gross notional and margin posted.

    Of each lane the worst position so far is kept: the one whose margin needed (a bound) is the
    largest share of its backing. Shares are compared by products, as a backing may be 0.
    """
    account = lanes.account
    position = lanes.position
    close = lanes.prices[r.PRICE.close, i]
    rate = lanes.prices[r.PRICE.rate, i]
    for lane in range(LANES):
        gross = 0.0 if is_first else account[cell(r.WORK.gross, lane)]
        initial = 0.0 if is_first else account[cell(r.WORK.initial, lane)]
        notional = abs(position[spot(i, r.HELD.quantity, lane)]) * abs(close)
        account[cell(r.WORK.initial, lane)] = initial + position[spot(i, r.HELD.margin, lane)]
        account[cell(r.WORK.gross, lane)] = gross + notional

        worst = 0.0 if is_first else account[cell(r.WORK.needed, lane)]
        pool = 1.0 if is_first else account[cell(r.WORK.pool, lane)]
        needed = notional * rate
        backing = find_backing(position, close, i, lane)
        is_worse = needed * pool > worst * backing
        account[cell(r.WORK.needed, lane)] = needed if is_worse else worst
        account[cell(r.WORK.pool, lane)] = backing if is_worse else pool


def raise_peaks(terms: Terms, lanes: Lanes, n: int, peaks: int) -> None:
    """Measure the margin needed of some lanes, as bits, and write it where it is a new peak.

    Of the pool, or of the isolated position whose margin needed is the largest share of its
    backing. A peak is a pair, needed and backing: their ratio is compared.
    """
    account = lanes.account
    while peaks != 0:
        lane = lowest(peaks)
        peaks &= peaks - 1
        needed_now, pool = measure_needed(terms, lanes, n, lane)

        needed, backing = raise_ratio(
            account[cell(r.TALLY.peak_needed, lane)],
            account[cell(r.TALLY.peak_backing, lane)],
            needed_now,
            pool,
            account[cell(r.WORK.gross, lane)] > 0.0,
        )
        account[cell(r.TALLY.peak_needed, lane)] = needed
        account[cell(r.TALLY.peak_backing, lane)] = backing


def measure_needed(terms: Terms, lanes: Lanes, n: int, lane: int) -> tuple[float, float]:
    """Return the maintenance margin that a lane needs, and what backs it: money, no bounds.

    Of its pool of cross positions; of isolated ones, those of the position whose margin needed is
    the largest share of its backing.
    """
    position = lanes.position
    brackets = terms.rules.brackets
    total = 0.0
    worst = 0.0
    pool = 1.0
    for i in range(n):
        quantity = position[spot(i, r.HELD.quantity, lane)]
        if quantity != 0.0:
            close = lanes.prices[r.PRICE.close, i]
            needed = find_maintenance(brackets, i, abs(quantity) * abs(close))
            backing = find_backing(position, close, i, lane)

            total += needed
            worst, pool = raise_ratio(worst, pool, needed, backing, True)

    if brackets.are_isolated[0]:
        return worst, pool
    return total, lanes.account[cell(WALLET.equity, lane)]


# Samples.


def end_samples(lanes: Lanes, free: float) -> None:
    """End a sample (such as a day) in all lanes, one after another, by the tally of a run.

    The rows of a lane are written into that tally, and back. ``free`` is the risk-free return of
    the sample.
    """
    account = lanes.account
    tally = view_numbers(lanes.tally)
    for lane in range(LANES):
        for row in range(r.TALLY.sample_unit, r.TALLY.disutility + 1):
            tally[row - r.FIRST_OF_TALLY] = account[cell(row, lane)]

        lanes.tally.sample_free = free
        finish_sample(lanes.tally, account[cell(WALLET.unit, lane)])
        for row in range(r.TALLY.sample_unit, r.TALLY.disutility + 1):
            account[cell(row, lane)] = tally[row - r.FIRST_OF_TALLY]


def keep_units(lanes: Lanes) -> None:
    """Write the unit values of all lanes at the end of a sample, and bound quantities anew.

    The bound of an instrument is the largest quantity that any lane holds, and GROWTH more.
    """
    k = lanes.cursor[r.CURSOR.sample]
    if k < len(lanes.units):
        for lane in range(LANES):
            lanes.units[k, lane] = lanes.account[cell(WALLET.unit, lane)]
    lanes.cursor[r.CURSOR.sample] = k + 1

    for i in range(len(lanes.signal)):
        most = 0.0
        for lane in range(LANES):
            most = max(most, abs(lanes.position[spot(i, r.HELD.quantity, lane)]))
        lanes.most[i] = GROWTH * most
    lanes.cursor[r.CURSOR.is_bound] = 0
