"""Floors of the equity: the equity stop, and limits of the losses of a day and a week.

Each floor is a share of the equity under where it started: the highest close, or the first open of
the day or week. At a floor all positions close, and nothing is ordered for a while (section 5 of
``docs/accounting.md``).

====================  ============================================================================
word                  what it is, and its unit
====================  ============================================================================
floor                 equity at which an account closes: money, -inf if it has none
level                 the highest of the three floors: money
rests                 of the wallet: 1 until the next day, 2 until the next week, 0 if orders fill
pause                 time after an equity stop in which nothing is ordered
place                 part of a segment of prices, 0 to 1; UNREACHED if no floor acts on it
====================  ============================================================================
"""

from __future__ import annotations

import math

from backtest.account import balance, option_pool
from backtest.account import position as p
from backtest.account import records as r
from backtest.account.events import Event
from backtest.account.option_pool import UNREACHED
from backtest.account.options import holds_options
from backtest.core import FloatArray
from backtest.core.kernels import of_options
from backtest.core.units import TOLERANCE

CAUTION = 1e-9
"""Share of the gross notional that a quiet bar must leave: more than rounding."""

OF_EQUITY, OF_DAY, OF_WEEK = range(3)
"""The floors, in the order of their events after that of the equity stop."""
RESTS_TODAY, RESTS_THIS_WEEK = 1.0, 2.0
"""Values of ``rests``: of the floors of the same numbers."""
DAY_COLUMN, WEEK_COLUMN = range(2)
"""Columns of ``MarketFeed.days``: the number of the day of each open, and of its week."""


# The floors, and which one acts.


def compute_floor(terms: r.Terms, state: r.AccountState, which: int) -> float:
    """Return the equity at which a floor closes the account: money, -inf without such a floor.

    ``which`` is OF_EQUITY (the equity stop, a share under the highest equity), OF_DAY or OF_WEEK (a
    loss since the first open of the day or week, a share of the equity then, or of what was paid
    in).
    """
    wallet = state.wallet
    if which == OF_EQUITY:
        share = terms.equity_stop
        start = wallet.highest
    elif which == OF_DAY:
        share = terms.daily_loss
        start = wallet.day_open
    else:
        share = terms.weekly_loss
        start = wallet.week_open
    if share == 0.0:
        return -math.inf

    # What the share is a share of.
    base = start
    if which != OF_EQUITY and terms.is_of_paid_in:
        base = wallet.paid_in
    return float(start - share * base)


def compute_stop_level(terms: r.Terms, state: r.AccountState) -> float:
    """Return the equity at which all is closed: the highest of the three floors."""
    of_losses = max(compute_floor(terms, state, OF_DAY), compute_floor(terms, state, OF_WEEK))
    return max(compute_floor(terms, state, OF_EQUITY), of_losses)


def find_floor(terms: r.Terms, state: r.AccountState) -> int:
    """Return which floor is the highest; of equal ones the equity stop, then the day."""
    level = compute_stop_level(terms, state)
    if level == compute_floor(terms, state, OF_EQUITY):
        return OF_EQUITY
    if level == compute_floor(terms, state, OF_DAY):
        return OF_DAY
    return OF_WEEK


def is_drawn(terms: r.Terms, state: r.AccountState, values: FloatArray, prices: FloatArray) -> bool:
    """Return whether a floor of the equity acts, at last contract values and collateral prices."""
    level = compute_stop_level(terms, state) * (1.0 + TOLERANCE)
    if balance.count_open(state) == 0:
        return False
    return balance.compute_equity_at(terms, state, values, prices) <= level


# Days, weeks and pauses.


def begin_day(bar: r.AccountBar, t: int) -> None:
    """Write the equity at the first open of a day and of a week, from which losses are measured.

    An account that is flat at or under the floor of its day or week rests: its orders are dropped
    until the next day, or the next week.
    """
    terms = bar.terms
    state = bar.state
    days = bar.feed.days
    # Without limits of loss the feed has no days.
    if len(days) == 0:
        return

    wallet = state.wallet
    last = max(t - 1, 0)
    is_new_day = days[t, DAY_COLUMN] != days[last, DAY_COLUMN]
    is_new_week = days[t, WEEK_COLUMN] != days[last, WEEK_COLUMN]
    equity = balance.compute_equity_at(terms, state, bar.quotes.open, bar.quotes.asset_mark_open)

    # 0: no open was written yet. A rest ends with its day or week; a new week is a new day too.
    if wallet.day_open == 0.0 or is_new_day:
        wallet.day_open = equity
        if wallet.rests == RESTS_TODAY:
            wallet.rests = 0.0
    if wallet.week_open == 0.0 or is_new_week:
        wallet.week_open = equity
        wallet.rests = 0.0

    if balance.count_open(state) == 0:
        rest_under_floors(terms, state, equity)
    if wallet.rests > 0.0:
        drop_orders(state)


def rest_under_floors(terms: r.Terms, state: r.AccountState, equity: float) -> None:
    """Write that a flat account rests, if its equity is at or under the floor of day or week.

    ``wallet.rests`` says until when no order fills: RESTS_TODAY or RESTS_THIS_WEEK. The longer one
    stands.
    """
    wallet = state.wallet
    rounded_up = 1.0 + TOLERANCE  # rounding counts against the trader
    if equity <= compute_floor(terms, state, OF_DAY) * rounded_up:
        wallet.rests = max(wallet.rests, RESTS_TODAY)
    if equity <= compute_floor(terms, state, OF_WEEK) * rounded_up:
        wallet.rests = RESTS_THIS_WEEK


def begin_pause(bar: r.AccountBar, t: int) -> None:
    """Note until when nothing is ordered after an equity stop, if all is closed; and log it.

    Writes ``paused_until`` of the wallet: a time in ns, 0 without a pause. Does nothing while a
    position is left, so it is called again when that may have closed, or while a pause lasts.
    """
    wallet = bar.state.wallet
    # Accounts that go on at once have no ends of pauses.
    if len(bar.feed.pause_ends) == 0:
        return
    is_paused = wallet.paused_until != 0.0
    if is_paused or balance.count_open(bar.state) > 0:
        return
    wallet.paused_until = bar.feed.pause_ends[t]
    owner = balance.NO_INSTRUMENT
    r.log_event(bar.log, t, owner, Event.PAUSED, value=1.0, quantity=0.0, amount=0.0)


def keep_pause(bar: r.AccountBar, t: int) -> None:
    """Drop the orders of bar t while a pause after an equity stop lasts, else end the pause.

    ``paused_until`` is a time in ns, 0 without a pause. At its end the highest equity, from which
    the equity stop is measured, starts anew from the equity of the last close.
    """
    wallet = bar.state.wallet
    is_paused = wallet.paused_until != 0.0
    if not is_paused:
        return
    if bar.feed.time[t] < wallet.paused_until:
        drop_orders(bar.state)
        return

    wallet.paused_until = 0.0
    wallet.highest = wallet.equity


def follow_highest(bar: r.AccountBar, t: int, equity: float) -> None:
    """Write the highest equity at a close so far, from which the equity stop is measured.

    A flat account whose equity is at its equity stop or under it has used up the stop. Then the
    highest equity starts again from what is left, and the account pauses as after a stop, whatever
    closed its positions. Accounts without an equity stop have nothing to follow.
    """
    state = bar.state
    if bar.terms.equity_stop == 0.0:
        return

    # A stop fills at its level within rounding. USED_UP, a share, is how far over it still counts.
    is_under = equity <= compute_floor(bar.terms, state, OF_EQUITY) * (1.0 + p.USED_UP)
    if is_under and balance.count_open(state) == 0:
        state.wallet.highest = equity
        begin_pause(bar, t)
    else:
        state.wallet.highest = max(state.wallet.highest, equity)


def drop_after_equity_stop(bar: r.AccountBar, t: int, floor: int) -> None:
    """Drop all orders after a floor of the equity has closed the account, and write what follows.

    ``floor`` is OF_EQUITY, OF_DAY or OF_WEEK. After the equity stop the account may pause. After
    the loss of a day or a week nothing fills until the next one: ``wallet.rests``.
    """
    state = bar.state
    drop_orders(state)
    # Bars since the last stop: the close of this bar adds 1, so that they begin at 0.
    for i in range(len(state.positions)):
        state.positions[i].since_stop = -1.0

    # The numbers of the floors, 0, 1 and 2, are those of the rests that they start: none, until the
    # next day, until the next week. The longer rest stands.
    state.wallet.rests = max(state.wallet.rests, 1.0 * floor)
    if floor == OF_EQUITY:
        begin_pause(bar, t)


def drop_orders(state: r.AccountState) -> None:
    """Write that nothing decided is to fill: neither positions nor options."""
    for i in range(len(state.positions)):
        state.positions[i].is_pending = 0
    for k in range(len(state.options.targets)):
        state.options.targets[k] = math.nan


# On the way of the prices.


def find_stop_on_segment(bar: r.AccountBar) -> float:
    """Return at which part of the segment, 0 to 1, a floor of the equity acts, or UNREACHED.

    It acts where the equity at last prices, which move on the segment, falls to the highest floor.
    """
    terms = bar.terms
    state = bar.state
    scratch = bar.scratch
    if not terms.has_floor:
        return UNREACHED
    if holds_options(state):
        return find_stop_with_options(bar)
    if is_drawn(terms, state, scratch.last, scratch.price):
        return 0.0
    if not is_drawn(terms, state, scratch.last_end, scratch.price_end):
        return UNREACHED

    # The equity is linear on a segment.
    start = balance.compute_equity_at(terms, state, scratch.last, scratch.price)
    end = balance.compute_equity_at(terms, state, scratch.last_end, scratch.price_end)
    place = (start - compute_stop_level(terms, state)) / (start - end)
    return float(min(max(place, 0.0), 1.0))


def measure_above_floor(bar: r.AccountBar, place: float) -> float:
    """Return the equity above the floor that closes the account, at a place of the segment: money.

    A place is a part of the segment on which prices move, 0 to 1. The equity is that of last
    prices, for options and collateral that of marks. Values the account at the place: a search of
    places calls it again and again. Rounding counts against the trader.
    """
    scratch = bar.scratch
    # Writes the prices of collateral, and the marks of options, at the place.
    option_pool.value_on_segment(bar, place)

    # Last prices at the place: ``between`` is a column of the walks, written over each time.
    values = scratch.between
    for i in range(len(values)):
        values[i] = p.move(scratch.walk[i].last, scratch.walk[i].last_end, place)
    equity = balance.compute_equity_at(bar.terms, bar.state, values, bar.state.held.prices)
    return equity - compute_stop_level(bar.terms, bar.state) * (1.0 + TOLERANCE)


@of_options(returns=0.0)
def find_stop_with_options(bar: r.AccountBar) -> float:
    """Return the first place of the segment, 0 to 1, at which the equity is at its floor.

    Of an account with options, whose value is no straight line in the place: so evenly spaced
    places are tested, and between the first without equity above the floor and the one before it
    the place is found by bisection. UNREACHED if no tested place has the equity at its floor.
    """
    last_above = 0.0
    for part in range(option_pool.PARTS + 1):
        place = part / option_pool.PARTS
        if measure_above_floor(bar, place) <= 0.0:
            # At the start of the segment there is nothing before it.
            if part == 0:
                return place
            return bisect_floor(bar, last_above, place)
        last_above = place

    return UNREACHED


def bisect_floor(bar: r.AccountBar, sound: float, failing: float) -> float:
    """Return the first place at which the equity is at its floor, between two places."""
    for _ in range(option_pool.HALVINGS):
        middle = 0.5 * (sound + failing)
        if measure_above_floor(bar, middle) <= 0.0:
            failing = middle
        else:
            sound = middle
    return failing


def is_drawdown_near(terms: r.Terms, state: r.AccountState, quotes: r.MarketBar) -> bool:
    """Return whether the equity may fall to its floor in this bar: False is certain, True is not.

    A quick test before prices are walked through. It compares the floor with a lower bound of the
    equity, in which every price is at its worst of the bar for the account, though prices need not
    be there at the same time.
    """
    # The bound is a sum of money: cash, then of each position what it adds to the equity, which is
    # quantity * value, and of an isolated one also its margin less what it cost.
    least = state.wallet.cash
    gross = abs(state.wallet.highest)
    for i in range(len(state.positions)):
        if not r.is_held(state, i):
            continue
        position = state.positions[i]
        quote = quotes.instruments[i]
        at_low = position.quantity * quote.low
        at_high = position.quantity * quote.high
        # Open and close may lie outside of low and high.
        at_ends = min(position.quantity * quote.open, position.quantity * quote.close)

        # A cross position has no margin of its own: 0.
        least += min(at_low, at_high, at_ends) + position.margin
        gross += max(abs(at_low), abs(at_high))
        if r.is_isolated(terms, i):
            least -= position.quantity * position.entry

    for c in range(len(state.held.amounts)):
        asset = quotes.assets[c]
        amount = state.held.amounts[c]
        ends = min(asset.mark_open, asset.mark_close)
        least += min(amount * min(asset.mark_low, ends), amount * asset.mark_high)

    # Float rounding grows with what was added, so a part of that must be left.
    return not least > compute_stop_level(terms, state) + CAUTION * gross
