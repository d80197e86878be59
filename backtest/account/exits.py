"""What closes a position without the policy: stops and take-profits, at the open and on the way.

:func:`check_gap` is step 4 of a bar: liquidations at the mark open, then stops at the last open.

====================  ============================================================================
word                  what it is, and its unit
====================  ============================================================================
stop                  exit that limits a loss: a contract value on the losing side of the price
goal                  contract value of a take-profit that prices reach; NaN if they do not
kind                  event of the exit that acts (``p.STOP`` and others), ``p.NOTHING`` for none
adverse               the extreme of a bar that is worse for the position
level                 equity of the floor that acts at a single position, NaN elsewhere
place                 part of a segment of prices, 0 to 1; UNREACHED if no exit acts on it
====================  ============================================================================
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backtest.account import balance, equity_floors, options, pool_liquidation
from backtest.account import position as p
from backtest.account import records as r
from backtest.account.option_pool import UNREACHED
from backtest.account.orders import trade
from backtest.account.payments import liquidate_isolated
from backtest.core import FloatArray

SAME_PLACE = 1e-12
"""Places nearer to each other than this share of a segment are equal."""
STOP_ROW, PROFIT_ROW, TRAIL_ROW = range(3)
"""Rows of ``Terms.fixed``."""


class Reached(NamedTuple):
    """The exits of a position that prices reach, as contract values; NaN where one is not reached.

    ``kind`` is that of the nearest stop that limits a loss, ``p.NOTHING`` without one, and ``stop``
    its value.
    """

    kind: int
    stop: float
    take_profit: float


class ExitOnSegment(NamedTuple):
    """What closes a position on a segment of last prices, and where it fills.

    ``place`` is a part of the segment, 0 to 1, and ``value`` the contract value of the fill.
    Without an exit: ``p.NOTHING``, UNREACHED and NaN.
    """

    kind: int
    place: float
    value: float


# Step 4: the gap between the last close and the open.


def check_gap(bar: r.AccountBar, t: int) -> None:
    """Liquidate and stop what the gap from the last close to the open of bar t reached (step 4).

    Liquidations come first, tested at mark prices. Then stops and take-profits that the last price
    at the open is beyond fill at that price. A floor of the equity (an equity stop, or a limit of
    the loss of a day or week) closes the whole account. With a single position, the equity at the
    floor is a price of that position, so the floor counts as one more of its stops.
    """
    terms = bar.terms
    state = bar.state
    quotes = bar.quotes
    # Asked before anything is liquidated, which may leave one position of several.
    is_floor_a_stop = terms.has_floor and balance.has_only_position(terms, state)
    liquidate_in_gap(bar, t)

    # The equity at which the floor stops the only position, NaN where that is not the case.
    level = math.nan
    if is_floor_a_stop:
        level = equity_floors.compute_stop_level(terms, state)
    elif terms.has_floor and equity_floors.is_drawn(
        terms, state, quotes.open, quotes.asset_mark_open
    ):
        close_account(bar, t, quotes.open, quotes.asset_mark_open)

    for i in range(len(state.positions)):
        # What was liquidated at this open is not stopped there too.
        if bar.scratch.walk[i].is_hit == 1 or not r.is_held(state, i):
            continue
        quote = quotes.instruments[i]
        if quote.is_listed == 1 and r.has_stops(terms, i):
            kind, _ = find_stop(bar, i, quote.open, quote.open, level)
            if kind != p.NOTHING:
                stop_position(bar, t, i, kind, quote.open)


def liquidate_in_gap(bar: r.AccountBar, t: int) -> None:
    """Liquidate what fails at the mark open, first the cross pool, then isolated positions.

    Writes the account, and into the walk of each instrument ``is_hit``, 1 or 0: whether it was
    liquidated here. What was is not stopped at the same open.
    """
    terms = bar.terms
    state = bar.state
    balance.value_at(state, bar.quotes.mark_open, bar.quotes.asset_mark_open)
    is_pool_hit = balance.is_pool_short(terms, state)
    if is_pool_hit:
        pool_liquidation.liquidate_pool(bar, t, balance.has_only_position(terms, state))

    for i in range(len(state.positions)):
        is_hit = is_pool_hit
        if r.is_isolated(terms, i):
            quote = bar.quotes.instruments[i]
            may_fail = r.is_held(state, i) and quote.is_listed == 1
            is_hit = may_fail and liquidate_isolated(bar, t, i, quote.mark_open, is_failed=False)
        bar.scratch.walk[i].is_hit = 1 if is_hit else 0


# Which exit prices reach.


def find_stop(
    bar: r.AccountBar, i: int, low: float, high: float, level: float = math.nan
) -> tuple[int, float]:
    """Return the kind of the exit that acts between two contract values, and its contract value.

    A stop comes before a take-profit. Without an exit: ``p.NOTHING`` and NaN.
    """
    reached = find_reached(bar, i, low, high, level)
    if reached.kind == p.NOTHING and not math.isnan(reached.take_profit):
        return p.PROFIT, reached.take_profit
    return reached.kind, reached.stop


def find_reached(bar: r.AccountBar, i: int, low: float, high: float, level: float) -> Reached:
    """Return which exits of position i prices reach that move between two contract values.

    A contract value is what one contract is worth; that of an inverse contract is -size / price, so
    that it rises with the price too. ``level`` is an equity at which the position is closed as
    well, NaN for none.
    """
    rules = r.by_reference(r.pick_instrument(bar.terms, i))
    position = r.pick_position(bar.state, i)
    adverse = p.find_adverse(position, low, high)

    # Without trailing stop, take-profit or floor, a plain stop-loss alone can act.
    if not rules.has_exits:
        if rules.has_stop and p.is_stopped(rules, position, adverse):
            stop = p.compute_stop(rules, position)
            return Reached(kind=p.STOP, stop=stop, take_profit=math.nan)
        return Reached(kind=p.NOTHING, stop=math.nan, take_profit=math.nan)

    # The cash matters to a floor of the equity alone.
    balances = r.Balances(0.0, position)
    if not math.isnan(level):
        balances = balance.pick_balances(bar.terms, bar.state, i)
    quote = bar.quotes.instruments[i]
    side = p.find_side(position)
    best = bar.state.positions[i].best
    kind, stop = p.find_nearest_stop(rules, balances, quote, best, level)
    if kind != p.NOTHING and not p.is_through(side, adverse, stop):
        kind = p.NOTHING
        stop = math.nan

    # The favorable extreme is the adverse one of the opposite position.
    take_profit = p.compute_target_price(rules, position, quote)
    favorable = p.find_adverse(position, high, low)
    if not p.is_through(-side, favorable, take_profit):
        take_profit = math.nan
    return Reached(kind=kind, stop=stop, take_profit=take_profit)


def find_stop_place(bar: r.AccountBar, i: int) -> ExitOnSegment:
    """Return the exit of position i that acts first on the segment: a stop, or the take-profit.

    The segment is the way of last prices from where the walk stands to its next waypoint. If no
    exit acts, the kind is ``p.NOTHING`` and the place UNREACHED. If a stop and the take-profit are
    met at the same place, the stop acts: it is the worse one.
    """
    start = bar.scratch.walk[i].last
    end = bar.scratch.walk[i].last_end
    low = min(start, end)
    high = max(start, end)
    reached = find_reached(bar, i, low, high, level=math.nan)

    kind = reached.kind
    place = UNREACHED
    value = math.nan
    side = p.find_side(r.pick_position(bar.state, i))
    if kind != p.NOTHING:
        place, value = p.place_stop(side, start, end, reached.stop)
    # NaN: prices do not reach the take-profit.
    if math.isnan(reached.take_profit) or not may_take_profit(bar, i):
        return ExitOnSegment(kind=kind, place=place, value=value)

    # A stop is met by prices that go against the side of the position, the take-profit by prices
    # that go with it: so its side is negated. SAME_PLACE is more than rounding.
    place_of_profit, value_of_profit = p.place_stop(-side, start, end, reached.take_profit)
    if place_of_profit < place - SAME_PLACE:
        kind = p.PROFIT
        place = place_of_profit
        value = value_of_profit
    return ExitOnSegment(kind=kind, place=place, value=value)


def may_take_profit(bar: r.AccountBar, i: int) -> bool:
    """Return whether a take-profit may act inside the bar.

    It may not after a limit order of this bar: the extreme may have come before the fill.
    """
    return bar.terms.fill != r.RESTING or bar.scratch.plans[i].opened_now == 0.0


# What an exit does.


def stop_position(bar: r.AccountBar, t: int, i: int, kind: int, value: float) -> None:
    """Close a position at the contract value of an exit, and drop what was decided of it.

    ``kind`` says which exit: STOP, TRAIL, PROFIT, TIME, or DRAW for a floor of the equity. It is
    the number of the event in the log too. Writes account, ledger and log.
    """
    terms = bar.terms
    state = bar.state
    rules = r.by_reference(r.pick_instrument(terms, i))
    before = balance.pick_balances(terms, state, i)
    rates = r.CostRates(slippage=rules.slippage, impact=0.0, fee=rules.taker)
    quote = bar.quotes.instruments[i]
    done = trade(rules, before, value, 0.0, rates, quote, is_order=True)

    # The highest floor is the one that was reached. The events of floors follow each other from
    # DRAW on: that of the equity stop, then those of the loss of a day and of a week.
    event = kind
    floor = 0
    if kind == p.DRAW:
        floor = equity_floors.find_floor(terms, state)
        event = p.DRAW + floor
    is_profit = kind == p.PROFIT
    balance.enter_fill(bar, t, i, event, before, done, stops=0 if is_profit else 1)

    position = state.positions[i]
    position.is_pending = 0
    if is_profit:
        bar.ledger[i].take_profits += 1.0
    else:
        # Bars since the last stop: the close of this bar adds 1, so that it begins at 0.
        position.since_stop = -1.0
    if kind == p.DRAW:
        equity_floors.drop_after_equity_stop(bar, t, floor)


def close_account(bar: r.AccountBar, t: int, values: FloatArray, prices: FloatArray) -> None:
    """Close all positions and options where the equity has fallen to one of its floors.

    The floors are the equity stop, and the limits of loss of a day and of a week. Positions close
    at contract ``values`` of shape (n,); ``prices`` of the collateral, of shape (C,), value what is
    left. Writes account, ledger and log, and drops all orders.
    """
    state = bar.state
    floor = equity_floors.find_floor(bar.terms, state)
    for i in range(len(state.positions)):
        if r.is_held(state, i):
            stop_position(bar, t, i, p.DRAW, values[i])

    # Events of floors follow each other from DRAW on, in the order of the floors.
    options.stop_options(bar, t, p.DRAW + floor)
    equity_floors.drop_after_equity_stop(bar, t, floor)
    # The stop is used up: the highest equity starts anew.
    if floor == equity_floors.OF_EQUITY:
        state.wallet.highest = balance.compute_equity_at(bar.terms, state, values, prices)


# The time of a position.


def stop_by_time(bar: r.AccountBar, t: int, time: float) -> None:
    """Close at the open of bar t what was held for the longest time allowed.

    ``time`` is that of the open, ``position.opened`` that of the opening and ``max_holding`` the
    time allowed, all in ns; a ``max_holding`` of 0 sets no limit.
    """
    terms = bar.terms
    state = bar.state
    # No position has a longest time: opening times are not kept.
    if not terms.tracks_openings:
        return

    for i in range(len(state.positions)):
        time_held = time - state.positions[i].opened
        is_due = terms.max_holding[i] > 0.0 and time_held >= terms.max_holding[i]
        quote = bar.quotes.instruments[i]
        if is_due and r.is_held(state, i) and quote.is_listed == 1:
            stop_position(bar, t, i, p.TIME, quote.open)


def stamp_openings(terms: r.Terms, state: r.AccountState, time: float) -> None:
    """Write the time, ns, into positions that were opened since the last call.

    Called after fills. A position that is held and has no time yet was opened now, at ``time``; one
    that is closed loses its time (NaN).
    """
    # No time stop and no distance that is fixed at the entry reads it.
    if not terms.tracks_openings:
        return

    for i in range(len(state.positions)):
        position = state.positions[i]
        if not r.is_held(state, i):
            position.opened = math.nan
        elif math.isnan(position.opened):
            position.opened = time


def keep_distances(bar: r.AccountBar) -> None:
    """Write the distances of stops that are fixed at the entry into the quotes of a bar.

    A quote has a scale for stop-loss, take-profit and trailing stop: it multiplies the distance
    that the account declares. That of the bar itself stands there; where the account fixes the
    distance (``terms.fixed``), that of the bar that opened the position is written over it.
    """
    terms = bar.terms
    feed = bar.feed
    # No distance is fixed at the entry.
    if not terms.tracks_openings:
        return
    for i in range(len(bar.state.positions)):
        opened = bar.state.positions[i].opened
        if not r.is_held(bar.state, i) or math.isnan(opened):
            continue

        # The bar in which the position was opened: of the bars of the instrument, the first one
        # that opens at that time or later.
        first = feed.span[i, 0]
        last = feed.span[i, 1] - 1
        entry_bar = first + np.searchsorted(feed.time[first:last], int(opened))
        quote = bar.quotes.instruments[i]
        if terms.fixed[STOP_ROW, i] == 1:
            quote.stop_scale = r.at_column(feed.stop_scale, entry_bar, i)
        if terms.fixed[PROFIT_ROW, i] == 1:
            quote.profit_scale = r.at_column(feed.profit_scale, entry_bar, i)
        if terms.fixed[TRAIL_ROW, i] == 1:
            quote.trail_scale = r.at_column(feed.trail_scale, entry_bar, i)
