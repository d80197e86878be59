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
from backtest.sweep.lanes.rows import (
    CURSOR,
    FIRST_OF_TALLY,
    HELD,
    LANES,
    OWN,
    PRICE,
    TALLY,
    WORK,
    LaneBits,
    Lanes,
    cell,
    drop_first,
    held_cell,
    is_listed,
    pick_first,
    select,
    sum_before,
)

if TYPE_CHECKING:
    from backtest.core import FloatArray
    from backtest.margin.portfolio_kernels import BracketTables

GROWTH = 1.1
"""Ratio of ``largest_quantity``, a bound, to the largest quantity held at the end of a sample."""


# Loops over lanes have no branch on what differs between lanes, so that the compiler computes them
# side by side: both cases are computed, and ``select`` chooses.


def close_lanes(terms: Terms, lanes: Lanes, n_instruments: int) -> None:
    """Value all lanes (accounts) at the close of the bar, and count the close in their tallies.

    Writes equity, unit value and peak, and counts falls; with ``is_full`` also leverage and
    margins, which only some measures need. All orders and payments of the bar must be done. Lanes
    that are simulated alone in the bar are valued too, and written over when they come back.
    """
    is_isolated = bool(terms.rules.brackets.are_isolated[0])
    # One position has code of its own, for each margin mode: the flag is a constant in it.
    if n_instruments > 1:
        has_fallen = close_several(lanes, is_isolated, n_instruments)
    elif is_isolated:
        has_fallen = close_one(lanes, is_isolated=True)
    else:
        has_fallen = close_one(lanes, is_isolated=False)

    if has_fallen:
        follow_lows(lanes)
    if lanes.is_full:
        count_exposure(terms, lanes, n_instruments)


def follow_lows(lanes: Lanes) -> None:
    """Update the deepest drawdown of each lane (account) after a close at which one fell deeper.

    A drawdown is a pair: the unit value at its bottom (``low``) and the peak before it
    (``low_peak``). Their ratio is also written, as ``lowest_share``, with which :func:`count_close`
    compares the next closes. Unit value and peak of this close must be written before.
    """
    account = lanes.account
    for lane in range(LANES):
        peak = account[cell(WALLET.peak, lane)]
        unit = account[cell(WALLET.unit, lane)]
        low = account[cell(TALLY.low, lane)]
        low_peak = account[cell(TALLY.low_peak, lane)]

        is_low = is_deeper(peak, low, low_peak, unit)
        low = select(is_low, unit, low)
        low_peak = select(is_low, peak, low_peak)

        account[cell(TALLY.low, lane)] = low
        account[cell(TALLY.low_peak, lane)] = low_peak
        account[cell(OWN.lowest_share, lane)] = low / low_peak


def close_several(lanes: Lanes, is_isolated: bool, n_instruments: int) -> bool:
    """Write the equity of lanes (accounts) of several positions at the close, and count the close.

    Returns whether any lane fell deeper than ever before. The row ``equity`` is summed position by
    position. Of cross positions it begins with the cash; of isolated ones the cash is added last. A
    run adds in the same orders, so both have the same bits.
    """
    account = lanes.account
    for lane in range(LANES):
        cash = account[cell(WALLET.cash, lane)]
        account[cell(WALLET.equity, lane)] = select(is_isolated, 0.0, cash)

    for i in range(n_instruments):
        if not is_listed(lanes, i):
            continue
        if is_isolated:
            add_isolated_close(lanes, i)
        else:
            add_cross_close(lanes, i)

    has_fallen = False
    for lane in range(LANES):
        equity = account[cell(WALLET.equity, lane)]
        if is_isolated:
            equity = account[cell(WALLET.cash, lane)] + equity
            account[cell(WALLET.equity, lane)] = equity
        has_fallen |= count_close(account, equity, lane)
    return has_fallen


def add_cross_close(lanes: Lanes, i: int) -> None:
    """Add the value of a cross position at its close to the row ``equity`` of all lanes.

    The cash has paid for its contracts, so it adds their whole value.
    """
    account = lanes.account
    close = lanes.prices[PRICE.close, i]
    for lane in range(LANES):
        quantity = lanes.position[held_cell(i, HELD.quantity, lane)]
        account[cell(WALLET.equity, lane)] += quantity * close


def add_isolated_close(lanes: Lanes, i: int) -> None:
    """Add what isolated position i is worth at the close to the row ``equity`` of each lane.

    It is margin and profit, which are added one after another: as a run does, for the same bits.
    """
    account = lanes.account
    position = lanes.position
    close = lanes.prices[PRICE.close, i]
    for lane in range(LANES):
        quantity = position[held_cell(i, HELD.quantity, lane)]
        profit = quantity * (close - position[held_cell(i, HELD.entry, lane)])
        margin = position[held_cell(i, HELD.margin, lane)]

        equity = account[cell(WALLET.equity, lane)]
        account[cell(WALLET.equity, lane)] = equity + margin + profit


@inlined
def find_backing(position: FloatArray, close: float, i: int, lane: int) -> float:
    """Return margin and profit of an isolated position at its close."""
    quantity = position[held_cell(i, HELD.quantity, lane)]
    profit = quantity * (close - position[held_cell(i, HELD.entry, lane)])
    return float(position[held_cell(i, HELD.margin, lane)] + profit)


@inlined
def close_one(lanes: Lanes, is_isolated: bool) -> bool:
    """Write the equity of lanes (accounts) of one position at the close, and count the close.

    Returns whether any lane fell deeper than ever before. A cross position was paid from the cash,
    so the equity is cash and contracts at the close. An isolated one adds its margin and its
    profit.
    """
    account = lanes.account
    position = lanes.position
    close = lanes.prices[PRICE.close, 0]
    has_fallen = False
    for lane in range(LANES):
        backing = position[held_cell(0, HELD.quantity, lane)] * close
        if is_isolated:
            backing = find_backing(position, close, 0, lane)

        equity = account[cell(WALLET.cash, lane)] + backing
        account[cell(WALLET.equity, lane)] = equity
        has_fallen |= count_close(account, equity, lane)
    return has_fallen


@inlined
def count_close(account: FloatArray, equity: float, lane: int) -> bool:
    """Write the unit value of a lane at a close, and its peak; return whether it is a new low.

    The unit value is scale * (equity + reserve): the growth of the account whatever is paid in or
    out. A new low is a smaller share of the peak before it than ever before; the caller then
    updates the deepest drawdown (:func:`follow_lows`). ``equity`` is that of the close: money.
    """
    scale = account[cell(WALLET.scale, lane)]
    wealth = equity + account[cell(WALLET.reserve, lane)]
    unit = scale * wealth
    account[cell(WALLET.unit, lane)] = unit
    account[cell(TALLY.equity, lane)] += equity

    peak_before = account[cell(WALLET.peak, lane)]
    peak = select(unit > peak_before, unit, peak_before)
    account[cell(WALLET.peak, lane)] = peak

    lowest_share = account[cell(OWN.lowest_share, lane)]
    return bool(unit < peak * lowest_share)


# Leverage and margin.


def count_exposure(terms: Terms, lanes: Lanes, n_instruments: int) -> None:
    """Count leverage, initial margin and the peak of maintenance margin of all lanes at a close.

    Positions are first summed into rows of each account: ``gross`` notional, ``initial`` margin,
    and the maintenance margin ``needed`` with the ``backing`` behind it. The sums are then counted
    lane by lane. The row ``equity`` must be that of this close.

    The margin ``needed`` comes from rates that are bounds. So it only finds the lanes whose share
    may be a new peak, and these few are measured exactly (:func:`raise_peaks`).
    """
    account = lanes.account
    is_isolated = bool(terms.rules.brackets.are_isolated[0])
    is_first = True
    for i in range(n_instruments):
        if not is_listed(lanes, i):
            continue
        if is_isolated:
            add_isolated_exposure(lanes, is_first, i)
        else:
            add_cross_exposure(lanes, is_first, i)
            add_initial(terms.rules.brackets, lanes, is_first, i)
        is_first = False
    if is_first:
        write_no_exposure(lanes)

    # A pool is backed by the equity; of isolated positions the worst one counts, by its backing.
    lanes_at_peak = 0
    for lane in range(LANES):
        backing = account[cell(WALLET.equity, lane)]
        if is_isolated:
            backing = account[cell(WORK.backing, lane)]
        count_leverage(account, terms.max_gross_leverage, lane)
        lanes_at_peak |= may_be_peak(account, backing, lane) << lane
    if lanes_at_peak != 0:
        raise_peaks(terms, lanes, n_instruments, lanes_at_peak)


@inlined
def may_be_peak(account: FloatArray, backing: float, lane: int) -> bool:
    """Return whether a lane's margin may be a larger share of its backing than ever before.

    The margin is the row ``needed``, a bound. Shares are compared by products, as a backing may be
    0.
    """
    needed = account[cell(WORK.needed, lane)]
    peak_needed = account[cell(TALLY.peak_needed, lane)]
    peak_backing = account[cell(TALLY.peak_backing, lane)]
    return bool(needed * peak_backing > peak_needed * backing)


def write_no_exposure(lanes: Lanes) -> None:
    """Write the sums of a bar in which no instrument is listed."""
    account = lanes.account
    for lane in range(LANES):
        account[cell(WORK.gross, lane)] = 0.0
        account[cell(WORK.needed, lane)] = 0.0
        account[cell(WORK.initial, lane)] = 0.0
        account[cell(WORK.backing, lane)] = 1.0  # nothing is needed: any backing gives a share of 0


@inlined
def count_leverage(account: FloatArray, cap: float, lane: int) -> None:
    """Add the initial margin and the gross leverage of a lane at a close to its tally.

    They come from the rows ``initial`` and ``gross``: money. The tally has the sums, from which
    means are made, the highest leverage, and how many closes were over ``cap``, the cap of gross
    leverage.
    """
    # 0 for an account without equity: leverage and share of the equity are 0 there.
    inverse_equity = invert(account[cell(WALLET.equity, lane)])
    initial = account[cell(WORK.initial, lane)]
    leverage = account[cell(WORK.gross, lane)] * inverse_equity

    account[cell(TALLY.initial, lane)] += initial
    account[cell(TALLY.initial_share, lane)] += initial * inverse_equity
    account[cell(TALLY.leverage, lane)] += leverage
    is_over = is_over_cap(leverage, cap)
    account[cell(TALLY.over_cap, lane)] += select(is_over, 1.0, 0.0)

    peak_before = account[cell(TALLY.peak_leverage, lane)]
    peak = select(leverage > peak_before, leverage, peak_before)
    account[cell(TALLY.peak_leverage, lane)] = peak


def add_cross_exposure(lanes: Lanes, is_first: bool, i: int) -> None:
    """Add cross position i at the close to two sums of each lane (account): money.

    They are the rows ``gross``, notional without sign, and ``needed``, a bound of the maintenance
    margin. The first position begins the sums (``is_first``): what an earlier bar left is dropped.
    """
    account = lanes.account
    contract_notional = abs(lanes.prices[PRICE.close, i])
    rate = lanes.prices[PRICE.maintenance_rate, i]

    for lane in range(LANES):
        quantity = lanes.position[held_cell(i, HELD.quantity, lane)]
        notional = abs(quantity) * contract_notional
        gross = sum_before(account, WORK.gross, is_first, lane)
        needed = sum_before(account, WORK.needed, is_first, lane)

        account[cell(WORK.gross, lane)] = notional + gross
        account[cell(WORK.needed, lane)] = notional * rate + needed


def add_initial(tables: BracketTables, lanes: Lanes, is_first: bool, i: int) -> None:
    """Add the initial margin of cross position i to the row ``initial`` of each lane: money.

    It is the notional over a leverage: the one that the bracket of its notional allows, or the
    venue leverage, if one is set. ``is_first``: the position begins the sum of a bar.

    Brackets are tried one after another, each in all lanes: a lane whose notional is over the floor
    of a bracket takes its leverage, in the row ``bracket_leverage``. So there is no branch by lane.
    """
    account = lanes.account
    contract_notional = abs(lanes.prices[PRICE.close, i])
    multiplier = tables.initial_multipliers[i]

    # All lanes begin with the first bracket. A venue leverage that is set (0: none) holds in all
    # brackets, so then no other is tried.
    has_setting = tables.settings[i] > 0.0
    leverage = tables.leverages[i, 0] / multiplier
    if has_setting:
        leverage = min(tables.settings[i], leverage)
    for lane in range(LANES):
        account[cell(WORK.bracket_leverage, lane)] = leverage

    # No lane holds more than ``largest_quantity``, so brackets above its notional are not tried. A
    # bracket begins at the cap of the one before.
    largest_notional = lanes.largest_quantity[i] * contract_notional
    k = 1
    while not has_setting and k < tables.counts[i] and largest_notional > tables.caps[i, k - 1]:
        floor = tables.caps[i, k - 1]
        leverage = tables.leverages[i, k] / multiplier
        for lane in range(LANES):
            notional = abs(lanes.position[held_cell(i, HELD.quantity, lane)]) * contract_notional
            is_over = notional > floor
            leverage_before = account[cell(WORK.bracket_leverage, lane)]
            leverage_of_lane = select(is_over, leverage, leverage_before)
            account[cell(WORK.bracket_leverage, lane)] = leverage_of_lane
        k += 1

    for lane in range(LANES):
        notional = abs(lanes.position[held_cell(i, HELD.quantity, lane)]) * contract_notional
        initial_before = sum_before(account, WORK.initial, is_first, lane)
        initial = notional / account[cell(WORK.bracket_leverage, lane)]
        account[cell(WORK.initial, lane)] = initial_before + initial


def add_isolated_exposure(lanes: Lanes, is_first: bool, i: int) -> None:
    """Add isolated position i at the close to the sums of each lane, and keep the worst position.

    The sums are ``gross``, of notional, and ``initial``, of posted margin: money. The first
    position begins them (``is_first``): what an earlier bar left is dropped.

    The worst position is the one whose maintenance margin, a bound, is the largest share of its
    backing. That pair is written as the rows ``needed`` and ``backing``.
    """
    account = lanes.account
    position = lanes.position
    close = lanes.prices[PRICE.close, i]
    rate = lanes.prices[PRICE.maintenance_rate, i]

    for lane in range(LANES):
        notional = abs(position[held_cell(i, HELD.quantity, lane)]) * abs(close)
        gross_before = sum_before(account, WORK.gross, is_first, lane)
        account[cell(WORK.gross, lane)] = gross_before + notional

        posted = position[held_cell(i, HELD.margin, lane)]
        posted_before = sum_before(account, WORK.initial, is_first, lane)
        account[cell(WORK.initial, lane)] = posted_before + posted

        # Before the first position nothing is needed, whatever backs it.
        worst_needed = sum_before(account, WORK.needed, is_first, lane)
        worst_backing = select(is_first, 1.0, account[cell(WORK.backing, lane)])

        # needed / backing > worst_needed / worst_backing, by products, as a backing may be 0.
        needed = notional * rate
        backing = find_backing(position, close, i, lane)
        is_worse = needed * worst_backing > worst_needed * backing
        account[cell(WORK.needed, lane)] = select(is_worse, needed, worst_needed)
        account[cell(WORK.backing, lane)] = select(is_worse, backing, worst_backing)


def raise_peaks(terms: Terms, lanes: Lanes, n_instruments: int, lanes_at_peak: LaneBits) -> None:
    """Measure exactly what margin some lanes need at the close, and write it if it is a new peak.

    ``lanes_at_peak`` are these lanes, as bits. A peak is the pair of maintenance margin and backing
    whose ratio is the highest so far, the rows ``peak_needed`` and ``peak_backing`` of the tally.
    The margin is that of the pool or, of isolated positions, of the one with the highest ratio.
    """
    account = lanes.account
    while lanes_at_peak != 0:
        lane = pick_first(lanes_at_peak)
        lanes_at_peak = drop_first(lanes_at_peak)
        needed, backing = measure_needed(terms, lanes, n_instruments, lane)

        peak_needed, peak_backing = raise_ratio(
            account[cell(TALLY.peak_needed, lane)],
            account[cell(TALLY.peak_backing, lane)],
            needed,
            backing,
            is_held=account[cell(WORK.gross, lane)] > 0.0,
        )
        account[cell(TALLY.peak_needed, lane)] = peak_needed
        account[cell(TALLY.peak_backing, lane)] = peak_backing


def measure_needed(
    terms: Terms, lanes: Lanes, n_instruments: int, lane: int
) -> tuple[float, float]:
    """Return the maintenance margin that a lane needs at the close, and what backs it: money.

    Cross positions share a pool: it is the margin of all, backed by the equity. Of isolated
    positions it is that of the one whose margin is the largest share of its own backing. It is
    exact, unlike the row ``needed`` of a lane, which is a bound.
    """
    position = lanes.position
    brackets = terms.rules.brackets
    needed_of_all = 0.0
    # Before the first position nothing is needed, whatever backs it.
    needed_of_worst = 0.0
    backing_of_worst = 1.0
    for i in range(n_instruments):
        quantity = position[held_cell(i, HELD.quantity, lane)]
        if quantity == 0.0:
            continue
        close = lanes.prices[PRICE.close, i]
        needed = find_maintenance(brackets, i, abs(quantity) * abs(close))
        backing = find_backing(position, close, i, lane)

        needed_of_all += needed
        needed_of_worst, backing_of_worst = raise_ratio(
            needed_of_worst, backing_of_worst, needed, backing, is_held=True
        )

    if brackets.are_isolated[0]:
        return needed_of_worst, backing_of_worst
    return needed_of_all, lanes.account[cell(WALLET.equity, lane)]


# Samples.


def end_samples(lanes: Lanes, free: float) -> None:
    """End a sample (such as a day) in all lanes, by the same function that ends it in a run.

    That function, ``finish_sample``, works on the record of a tally. So the fields of a sample are
    copied from the rows of a lane into ``lanes.tally``, and back. ``free`` is the risk-free return
    of the sample, a fraction. The unit values of the close must be written before.
    """
    account = lanes.account
    # A tally is numbers in the order of its fields, and a lane has them as rows in that order, from
    # FIRST_OF_TALLY on. Fields that the end of a sample changes stand together: ``sample_unit`` to
    # ``disutility``.
    tally = view_numbers(lanes.tally)
    first_row = TALLY.sample_unit
    stop_row = TALLY.disutility + 1
    for lane in range(LANES):
        for row in range(first_row, stop_row):
            tally[row - FIRST_OF_TALLY] = account[cell(row, lane)]

        lanes.tally.sample_free = free
        finish_sample(lanes.tally, account[cell(WALLET.unit, lane)])
        for row in range(first_row, stop_row):
            account[cell(row, lane)] = tally[row - FIRST_OF_TALLY]


def keep_units(lanes: Lanes) -> None:
    """Write the unit values of all lanes at the end of a sample, and renew bounds of quantities.

    The bound of an instrument, ``largest_quantity``, is only raised during a sample. Here it
    becomes GROWTH times the most contracts that a lane holds. Rates of margin are bounds up to it,
    so they are marked as not written. Lanes that were simulated alone must be back.
    """
    # ``units`` has no rows if the returns of the sets are not wanted.
    k = lanes.cursor[CURSOR.sample]
    if k < len(lanes.units):
        for lane in range(LANES):
            lanes.units[k, lane] = lanes.account[cell(WALLET.unit, lane)]
    lanes.cursor[CURSOR.sample] = k + 1

    for i in range(len(lanes.signal)):
        largest = 0.0
        for lane in range(LANES):
            largest = max(largest, abs(lanes.position[held_cell(i, HELD.quantity, lane)]))
        lanes.largest_quantity[i] = GROWTH * largest
    lanes.cursor[CURSOR.has_bounds] = 0
