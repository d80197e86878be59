"""What prices do inside a bar: the gap check at the open, stops, and the walk to both extremes."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backtest import margin
from backtest.account import balance, options, pool_liquidation
from backtest.account import position as p
from backtest.account import records as r
from backtest.account.events import Event
from backtest.account.limit_orders import fill_resting, find_fill_place, is_any_reached
from backtest.account.options import holds_options, is_walking
from backtest.account.orders import trade
from backtest.account.payments import liquidate_isolated
from backtest.core import FloatArray
from backtest.core.kernels import inlined, of_options
from backtest.core.units import TOLERANCE

CAUTION = 1e-9
"""Share of the gross notional that a quiet bar must leave: more than rounding."""


def compute_floor(terms: r.Terms, state: r.AccountState, which: int) -> float:
    """Return the floor of the equity stop (0), of the day (1) or of the week (2), -inf if off."""
    wallet, share, opened = state.wallet, terms.equity_stop, state.wallet.highest
    if which > 0:
        share = terms.daily_loss if which == 1 else terms.weekly_loss
        opened = wallet.day_open if which == 1 else wallet.week_open
    if share == 0.0:
        return -math.inf
    base = wallet.paid_in if which > 0 and terms.is_of_paid_in else opened
    return float(opened - share * base)


def compute_stop_level(terms: r.Terms, state: r.AccountState) -> float:
    """Return the equity at which all is closed: the highest of the three floors."""
    of_losses = max(compute_floor(terms, state, 1), compute_floor(terms, state, 2))
    return max(compute_floor(terms, state, 0), of_losses)


def find_floor(terms: r.Terms, state: r.AccountState) -> int:
    """Return which floor is the highest, as in :func:`compute_floor`."""
    level = compute_stop_level(terms, state)
    if level == compute_floor(terms, state, 0):
        return 0
    return 1 if level == compute_floor(terms, state, 1) else 2


def begin_day(bar: r.AccountBar, t: int) -> None:
    """Note the equity at the first open of a day and of a week, and drop orders while none fill.

    None fills of an account that is flat at or under the floor of its day or week.
    """
    terms, feed, state = bar.terms, bar.feed, bar.state
    if len(feed.days) == 0:
        return
    wallet, before = state.wallet, max(t - 1, 0)
    equity = balance.compute_equity_at(terms, state, bar.quotes.open, bar.quotes.asset_mark_open)
    if wallet.day_open == 0.0 or feed.days[t, 0] != feed.days[before, 0]:
        wallet.day_open = equity
        wallet.rests = 0.0 if wallet.rests == 1.0 else wallet.rests
    if wallet.week_open == 0.0 or feed.days[t, 1] != feed.days[before, 1]:
        wallet.week_open = equity
        wallet.rests = 0.0
    near, is_flat = 1.0 + TOLERANCE, balance.count_open(state) == 0
    if is_flat and equity <= compute_floor(terms, state, 1) * near:
        wallet.rests = max(wallet.rests, 1.0)
    if is_flat and equity <= compute_floor(terms, state, 2) * near:
        wallet.rests = 2.0
    if wallet.rests > 0.0:
        drop_orders(state)


def begin_pause(bar: r.AccountBar, t: int) -> None:
    """Note until when nothing is ordered, once all that an equity stop closes is closed."""
    wallet, pause_ends = bar.state.wallet, bar.feed.pause_ends
    if len(pause_ends) == 0 or wallet.paused_until != 0.0 or balance.count_open(bar.state) > 0:
        return
    wallet.paused_until = pause_ends[t]
    r.log_event(bar.log, t, -1, Event.PAUSED, 1.0, 0.0, 0.0)


def keep_pause(bar: r.AccountBar, t: int) -> None:
    """Drop orders while a pause lasts. After it the highest equity starts anew."""
    wallet = bar.state.wallet
    if wallet.paused_until == 0.0:
        return
    if bar.feed.time[t] < wallet.paused_until:
        drop_orders(bar.state)
        return
    wallet.paused_until = 0.0
    wallet.highest = wallet.equity


def is_drawn(terms: r.Terms, state: r.AccountState, values: FloatArray, prices: FloatArray) -> bool:
    """Return whether a floor of the equity acts at some last values u and prices of collateral."""
    level = compute_stop_level(terms, state) * (1.0 + TOLERANCE)
    is_any = balance.count_open(state) > 0
    return is_any and balance.compute_equity_at(terms, state, values, prices) <= level


def find_stop_on_segment(bar: r.AccountBar) -> float:
    """Return at which part of the segment a floor of the equity acts; 2 if none does."""
    terms, state, scratch = bar.terms, bar.state, bar.scratch
    if not terms.has_floor:
        return 2.0
    if holds_options(state):
        return find_stop_with_options(bar)
    if is_drawn(terms, state, scratch.last, scratch.price):
        return 0.0
    if not is_drawn(terms, state, scratch.last_end, scratch.price_end):
        return 2.0
    start = balance.compute_equity_at(terms, state, scratch.last, scratch.price)
    end = balance.compute_equity_at(terms, state, scratch.last_end, scratch.price_end)
    place = (start - compute_stop_level(terms, state)) / (start - end)
    return float(min(max(place, 0.0), 1.0))


def compute_drawn(bar: r.AccountBar, place: float) -> float:
    """Return the equity above its floor at a part of the segment; writes values there."""
    terms, state, scratch, values = bar.terms, bar.state, bar.scratch, bar.scratch.between
    pool_liquidation.value_on_segment(bar, place)
    for i in range(len(values)):
        values[i] = move(scratch.walk[i].last, scratch.walk[i].last_end, place)
    equity = balance.compute_equity_at(terms, state, values, state.held.prices)
    return equity - compute_stop_level(terms, state) * (1.0 + TOLERANCE)


@of_options(returns=0.0)
def find_stop_with_options(bar: r.AccountBar) -> float:
    """Return the same with options: 16 places are tested, and the first failure bisected."""
    sound = 0.0
    for part in range(pool_liquidation.PARTS + 1):
        failing = part / pool_liquidation.PARTS
        if compute_drawn(bar, failing) <= 0.0:
            for _ in range(pool_liquidation.HALVINGS if part > 0 else 0):
                middle = 0.5 * (sound + failing)
                if compute_drawn(bar, middle) <= 0.0:
                    failing = middle
                else:
                    sound = middle
            return failing
        sound = failing
    return 2.0


def is_drawdown_near(terms: r.Terms, state: r.AccountState, quotes: r.MarketBar) -> bool:
    """Return whether the least equity of the bar, a bound, may reach its floor."""
    least, gross = state.wallet.cash, abs(state.wallet.highest)
    for i in range(len(state.positions)):
        if r.is_held(state, i):
            position = state.positions[i]
            held = position.quantity
            quote = quotes.instruments[i]
            low, high = held * quote.low, held * quote.high
            ends = min(held * quote.open, held * quote.close)
            least += min(low, high, ends) + position.margin
            gross += max(abs(low), abs(high))
            if r.is_isolated(terms, i):
                least -= held * position.entry
    for c in range(len(state.held.amounts)):
        asset = quotes.assets[c]
        low, high = asset.mark_low, asset.mark_high
        ends = min(asset.mark_open, asset.mark_close)
        least += min(state.held.amounts[c] * min(low, ends), state.held.amounts[c] * high)
    return not least > compute_stop_level(terms, state) + CAUTION * gross


def follow_highest(bar: r.AccountBar, t: int, equity: float) -> None:
    """Write the highest equity so far; a used-up stop starts anew once all is closed.

    Whatever closed it, the account pauses as after the stop.
    """
    terms, state = bar.terms, bar.state
    if terms.equity_stop == 0.0:
        return
    is_under = equity <= compute_floor(terms, state, 0) * (1.0 + p.USED_UP)
    is_anew = is_under and balance.count_open(state) == 0
    state.wallet.highest = equity if is_anew else max(state.wallet.highest, equity)
    if is_anew:
        begin_pause(bar, t)


def check_gap(bar: r.AccountBar, t: int) -> None:
    """Liquidate at the mark open, then stop at the last open what is beyond it (step 4)."""
    terms, state, quotes = bar.terms, bar.state, bar.quotes
    had_only_position = terms.has_floor and balance.has_only_position(terms, state)
    balance.value_at(state, quotes.mark_open, quotes.asset_mark_open)
    is_pool_hit = balance.is_pool_short(terms, state)
    if is_pool_hit:
        pool_liquidation.liquidate_pool(bar, t, balance.has_only_position(terms, state))
    is_any_hit = is_pool_hit
    for i in range(len(state.positions)):
        is_hit, quote = is_pool_hit, quotes.instruments[i]
        if r.is_isolated(terms, i):
            may_fail = r.is_held(state, i) and quote.is_listed == 1
            is_hit = may_fail and liquidate_isolated(bar, t, i, quote.mark_open, False)
        bar.scratch.walk[i].is_hit = 1 if is_hit else 0
        is_any_hit = is_any_hit or is_hit
    level = math.nan
    if had_only_position:
        level = compute_stop_level(terms, state)
    elif terms.has_floor and is_drawn(terms, state, quotes.open, quotes.asset_mark_open):
        close_account(bar, t, quotes.open, quotes.asset_mark_open)
    for i in range(len(state.positions)):
        is_waiting = is_any_hit and bar.scratch.walk[i].is_hit == 1
        quote = quotes.instruments[i]
        may_stop = r.is_held(state, i) and quote.is_listed == 1 and r.has_stops(terms, i)
        if may_stop and not is_waiting:
            kind = find_stop(bar, i, quote.open, quote.open, level)[0]
            if kind != p.NOTHING:
                stop_position(bar, t, i, kind, quote.open)


def find_stop(
    bar: r.AccountBar, i: int, low: float, high: float, level: float = math.nan
) -> tuple[int, float]:
    """Return the kind of the stop that acts between two values u, and its value u."""
    kind, stop, goal = find_reached(bar, i, low, high, level)
    if kind == p.NOTHING and not math.isnan(goal):
        return p.PROFIT, goal
    return kind, stop


def find_reached(
    bar: r.AccountBar, i: int, low: float, high: float, level: float
) -> tuple[int, float, float]:
    """Return the kind of the stop that prices reach between two values u, its u, and a goal.

    The goal is the u of a take-profit that they reach; NaN if they reach none.
    """
    rules, quote = r.share(r.pick_instrument(bar.terms, i)), bar.quotes.instruments[i]
    position = r.pick_position(bar.state, i)
    adverse, side = p.find_adverse(position, low, high), p.find_side(position)
    if not rules.has_exits:
        if rules.has_stop and p.is_stopped(rules, position, adverse):
            return p.STOP, p.compute_stop(rules, position), math.nan
        return p.NOTHING, math.nan, math.nan
    balances, best = r.Balances(0.0, position), bar.state.positions[i].best
    if not math.isnan(level):
        balances = balance.pick_balances(bar.terms, bar.state, i)
    kind, stop = p.find_nearest_stop(rules, balances, quote, best, level)
    if kind != p.NOTHING and not p.is_through(side, adverse, stop):
        kind, stop = p.NOTHING, math.nan
    goal = p.compute_target_price(rules, position, quote)
    if not p.is_through(-side, p.find_adverse(position, high, low), goal):
        goal = math.nan
    return kind, stop, goal


def stop_position(bar: r.AccountBar, t: int, i: int, kind: int, value: float) -> None:
    """Close a position at the value u of a stop, and drop what was decided of it."""
    terms, state = bar.terms, bar.state
    rules, quote = r.share(r.pick_instrument(terms, i)), bar.quotes.instruments[i]
    before = balance.pick_balances(terms, state, i)
    done = trade(rules, before, value, 0.0, rules.slippage, 0.0, rules.taker, quote, True)
    floor = find_floor(terms, state) if kind == p.DRAW else 0
    balance.enter_fill(bar, t, i, kind + floor, before, done, 0 if kind == p.PROFIT else 1)
    bar.ledger[i].take_profits += 1.0 if kind == p.PROFIT else 0.0
    position = state.positions[i]
    position.is_pending = 0
    if kind != p.PROFIT:
        position.since_stop = -1.0
    if kind == p.DRAW:
        drop_after_equity_stop(bar, t, floor)


def drop_after_equity_stop(bar: r.AccountBar, t: int, floor: int) -> None:
    """Drop all orders; after the loss of a day or a week (``floor``) none fills until the next."""
    state = bar.state
    drop_orders(state)
    for i in range(len(state.positions)):
        state.positions[i].since_stop = -1.0
    state.wallet.rests = max(state.wallet.rests, 1.0 * floor)
    if floor == 0:
        begin_pause(bar, t)


def drop_orders(state: r.AccountState) -> None:
    """Write that nothing decided is to fill: neither positions nor options."""
    for i in range(len(state.positions)):
        state.positions[i].is_pending = 0
    for k in range(len(state.options.targets)):
        state.options.targets[k] = math.nan


def close_account(bar: r.AccountBar, t: int, values: FloatArray, prices: FloatArray) -> None:
    """Close all positions and options where a floor of the equity acts, at some last values u."""
    state = bar.state
    floor = find_floor(bar.terms, state)
    for i in range(len(state.positions)):
        if r.is_held(state, i):
            stop_position(bar, t, i, p.DRAW, values[i])
    options.stop_options(bar, t, p.DRAW + floor)
    drop_after_equity_stop(bar, t, floor)
    if floor == 0:
        state.wallet.highest = balance.compute_equity_at(bar.terms, state, values, prices)


def is_quiet(bar: r.AccountBar) -> bool:
    """Return whether no price of the bar can make anything act; False where it is not certain.

    D = M - level R under brackets is a sum of concave functions of one price each. So it is least
    at an extreme of each, whichever way the prices move.
    """
    terms, state, quotes = bar.terms, bar.state, bar.quotes
    if terms.has_floor and is_drawdown_near(terms, state, quotes):
        return False
    least, gross = state.wallet.cash, 0.0
    has_pool = False
    for i in range(len(state.positions)):
        if not r.is_held(state, i):
            continue
        if r.is_isolated(terms, i):
            if is_isolated_near(terms, state, quotes, i):
                return False
        else:
            has_pool = True
            least += find_least(terms, state, quotes, i, terms.rules.level)
            gross += abs(state.positions[i].quantity * quotes.instruments[i].mark_open)
        if r.has_stops(terms, i) and is_stop_near(bar, i):
            return False
    if not has_pool:
        return True
    if terms.rules.has_scenarios:
        return False
    for c in range(len(state.held.amounts)):
        amount, tables = state.held.amounts[c], terms.rules.collateral
        at_low = margin.compute_value_at_rate(tables, c, amount * quotes.assets[c].mark_low)
        at_high = margin.compute_value_at_rate(tables, c, amount * quotes.assets[c].mark_high)
        least += min(at_low, at_high)
    return bool(least > CAUTION * gross)


@inlined
def find_least(
    terms: r.Terms, state: r.AccountState, quotes: r.MarketBar, i: int, level: float
) -> float:
    """Return the least of value less level times maintenance of a position in this bar, a bound."""
    position, quote = state.positions[i], quotes.instruments[i]
    tables, held = terms.rules.brackets, position.quantity
    low, high = held * quote.mark_low, held * quote.mark_high
    of_low, of_high = abs(low), abs(high)
    if r.is_spot(terms, i) and held > 0.0:
        return float((1.0 - terms.rules.spot.haircuts[i]) * low)
    if tables.are_valued_at_entry[i]:
        of_low = of_high = abs(held * position.entry)
    at_low = low - level * margin.find_maintenance(tables, i, of_low)
    at_high = high - level * margin.find_maintenance(tables, i, of_high)
    return float(min(at_low, at_high))


@inlined
def is_isolated_near(terms: r.Terms, state: r.AccountState, quotes: r.MarketBar, i: int) -> bool:
    """Return whether an extreme of the bar, a bound, may liquidate an isolated position."""
    position, quote = state.positions[i], quotes.instruments[i]
    posted = position.margin - position.quantity * position.entry
    gross = abs(position.quantity) * max(abs(quote.mark_low), abs(quote.mark_high))
    return not posted + find_least(terms, state, quotes, i, 1.0) > CAUTION * gross


def is_stop_near(bar: r.AccountBar, i: int) -> bool:
    """Return whether a stop or take-profit may act between the extremes of the bar."""
    quote, position = bar.quotes.instruments[i], r.pick_position(bar.state, i)
    if r.has_exits(bar.terms, i):
        return find_stop(bar, i, quote.low, quote.high)[0] != p.NOTHING
    adverse = p.find_adverse(position, quote.low, quote.high)
    return p.is_stopped(r.pick_instrument(bar.terms, i), position, adverse)


def stop_by_time(bar: r.AccountBar, t: int, time: float) -> None:
    """Close at the open what was held for the longest time allowed."""
    terms, state = bar.terms, bar.state
    if not terms.has_time_stop:
        return
    for i in range(len(state.positions)):
        quote, held_for = bar.quotes.instruments[i], time - state.positions[i].opened
        is_due = terms.max_holding[i] > 0.0 and held_for >= terms.max_holding[i]
        if is_due and r.is_held(state, i) and quote.is_listed == 1:
            stop_position(bar, t, i, p.TIME, quote.open)


def stamp_openings(terms: r.Terms, state: r.AccountState, time: float) -> None:
    """Write the time, ns, at which each position was opened; NaN where nothing is held."""
    if not terms.has_time_stop:
        return
    for i in range(len(state.positions)):
        position = state.positions[i]
        if not r.is_held(state, i):
            position.opened = math.nan
        elif math.isnan(position.opened):
            position.opened = time


def keep_distances(bar: r.AccountBar) -> None:
    """Give stops that are fixed at the entry the distances of the bar that opened the position."""
    terms, feed, state, quotes = bar.terms, bar.feed, bar.state, bar.quotes
    if not terms.has_time_stop:
        return
    for i in range(len(state.positions)):
        quote, opened = quotes.instruments[i], state.positions[i].opened
        if not r.is_held(state, i) or math.isnan(opened):
            continue
        first, last = feed.span[i, 0], feed.span[i, 1] - 1
        t = first + np.searchsorted(feed.time[first:last], int(opened))
        if terms.fixed[0, i] == 1:
            quote.stop_scale = r.at_column(feed.stop_scale, t, i)
        if terms.fixed[1, i] == 1:
            quote.profit_scale = r.at_column(feed.profit_scale, t, i)
        if terms.fixed[2, i] == 1:
            quote.trail_scale = r.at_column(feed.trail_scale, t, i)


SAME_PLACE = 1e-12
"""Places nearer to each other than this share of a segment are equal."""
NEARLY = 1e-9
"""Share of the notional by which one extreme must be worse than the other to come first."""
EVERY = -1
"""All markets together."""
POOL, ALONE, EXIT, DRAWN, FILLED = range(5)


class NextEvent(NamedTuple):
    what: int
    who: int
    place: float
    value: float
    kind: int


def walk(bar: r.AccountBar, t: int) -> None:
    """Take prices through the bar: open, both extremes, the worse one first, and the close."""
    terms, state, quotes, scratch = bar.terms, bar.state, bar.quotes, bar.scratch
    is_filling = terms.fill == r.RESTING and is_any_reached(state, quotes, scratch)
    is_sensed = is_filling or is_walking(terms, state)
    if not is_sensed and is_quiet(bar):
        note_extremes(bar, t)
        return
    start_walk(quotes, scratch)
    choose_turns(bar)
    if is_sensed and not is_filling and is_sound_on_path(bar):
        note_extremes(bar, t)
        return
    begin_extremes(bar)
    is_both = False
    for i in range(len(state.positions)):
        is_both = is_both or (r.is_held(state, i) and is_both_reached(bar, i))
    if is_both:
        bar.ledger[len(bar.ledger) - 1].both_reached += 1.0
    is_ambiguous = is_failing_at_adverse(bar)
    for leg in range(3):
        aim_at_leg(quotes, scratch, leg)
        walk_segment(bar, t)
    if is_filling:
        take_late_profits(bar, t)
        for i in range(len(state.positions)):
            if scratch.plans[i].opened_now == 1.0 and r.is_held(state, i):
                position, now = state.positions[i], scratch.walk[i].last
                is_long, best = position.quantity > 0.0, position.best
                position.best = max(best, now) if is_long else min(best, now)
    if is_ambiguous and state.wallet.pool_failed == 0.0:
        bar.ledger[len(bar.ledger) - 1].ambiguous_bars += 1.0


def note_extremes(bar: r.AccountBar, t: int) -> None:
    """Write the least and the most equity of a bar in which nothing acts, at its extreme marks.

    With ``intrabar="worst"`` each position is at its adverse, and at its favorable one.
    """
    terms, feed, state, extremes = bar.terms, bar.feed, bar.state, bar.scratch.extremes
    if len(extremes) == 0:
        return
    at_low = at_high = state.wallet.cash
    worst = best = state.wallet.cash
    for i in range(len(state.positions)):
        position = state.positions[i]
        fixed = position.margin if r.is_isolated(terms, i) else 0.0
        low = high = fixed
        if position.quantity != 0.0:
            fixed -= position.quantity * position.entry if r.is_isolated(terms, i) else 0.0
            low = fixed + position.quantity * r.read_value(terms, feed.mark_low, t, i)
            high = fixed + position.quantity * r.read_value(terms, feed.mark_high, t, i)
        at_low += low
        at_high += high
        worst += min(low, high)
        best += max(low, high)
    is_worst = terms.intrabar == r.WORST
    extremes[0] = worst if is_worst else min(at_low, at_high)
    extremes[1] = best if is_worst else max(at_low, at_high)


def begin_extremes(bar: r.AccountBar) -> None:
    """Forget the extremes of the equity, and note it at the opens."""
    extremes = bar.scratch.extremes
    if len(extremes) > 0:
        extremes[0] = math.inf
        extremes[1] = -math.inf
        follow_extremes(bar)


def follow_extremes(bar: r.AccountBar) -> None:
    """Note the equity at the marks where the walk stands."""
    scratch = bar.scratch
    if len(scratch.extremes) > 0:
        equity = balance.compute_equity_at(bar.terms, bar.state, scratch.mark, scratch.price)
        scratch.extremes[0] = min(scratch.extremes[0], equity)
        scratch.extremes[1] = max(scratch.extremes[1], equity)


def is_sound_on_path(bar: r.AccountBar) -> bool:
    """Return whether a bound of how far D can fall on the walk shows that nothing acts."""
    terms, state, quotes, scratch = bar.terms, bar.state, bar.quotes, bar.scratch
    if terms.has_floor:
        return False
    for i in range(len(scratch.walk)):
        if r.is_held(state, i):
            if r.is_isolated(terms, i) and is_isolated_near(terms, state, quotes, i):
                return False
            if r.has_stops(terms, i) and is_stop_near(bar, i):
                return False
        scratch.walk[i].mark_end = scratch.walk[i].mark
    for c in range(len(scratch.assets)):
        scratch.assets[c].price_end = scratch.assets[c].price
    left = pool_liquidation.compute_left(bar, 0.0)
    for leg in range(3):
        aim_at_leg(quotes, scratch, leg)
        left -= pool_liquidation.bound_fall(bar) if left > 0.0 else 0.0
        advance(scratch, 1.0)
    start_walk(quotes, scratch)
    return left > 0.0


def start_walk(quotes: r.MarketBar, scratch: r.Scratch) -> None:
    """Write the opens as the values at which the walk stands."""
    for i in range(len(scratch.walk)):
        quote = quotes.instruments[i]
        scratch.walk[i].last = quote.open
        scratch.walk[i].mark = quote.mark_open
    for c in range(len(scratch.assets)):
        scratch.assets[c].price = quotes.assets[c].mark_open


def choose_turns(bar: r.AccountBar) -> None:
    """Write whether each price goes to its low first, once for the bar."""
    terms, state, quotes, scratch = bar.terms, bar.state, bar.quotes, bar.scratch
    n, is_worst = len(scratch.walk), terms.intrabar == r.WORST
    is_low = is_low_first(terms, state, quotes, EVERY)
    for i in range(n):
        if is_worst:
            is_low = is_low_first(terms, state, quotes, terms.markets[i])
            if r.is_isolated(terms, i):
                is_low = state.positions[i].quantity >= 0.0
        scratch.walk[i].goes_low_first = 1.0 if is_low else 0.0
    for c in range(len(scratch.assets)):
        if is_worst:
            is_low = is_low_first(terms, state, quotes, terms.markets[n + c])
        scratch.assets[c].goes_low_first = 1.0 if is_low else 0.0


def is_low_first(terms: r.Terms, state: r.AccountState, quotes: r.MarketBar, market: int) -> bool:
    """Return whether the account has no less equity at all highs together than at all lows.

    One market alone is judged by its cross positions, options and collateral.
    """
    n, at_low, at_high, gross = len(state.positions), 0.0, 0.0, 0.0
    has_options = is_walking(terms, state)
    for i in range(n):
        is_there = market == EVERY or terms.markets[i] == market
        if is_there and r.is_held(state, i) and (market == EVERY or not r.is_isolated(terms, i)):
            quote = quotes.instruments[i]
            held, opened = state.positions[i].quantity, quote.mark_open
            at_low += held * (quote.mark_low - opened)
            at_high += held * (quote.mark_high - opened)
            gross += abs(held * opened)
        if is_there and has_options:
            at_low += pool_liquidation.sum_options_on(terms, state, i, quotes.mark_low)[0]
            at_high += pool_liquidation.sum_options_on(terms, state, i, quotes.mark_high)[0]
            gross += pool_liquidation.sum_options_on(terms, state, i, quotes.mark_open)[1]
    for c in range(len(state.held.amounts)):
        if market == EVERY or terms.markets[n + c] == market:
            amount, asset = state.held.amounts[c], quotes.assets[c]
            opened = asset.mark_open
            at_low += amount * (asset.mark_low - opened)
            at_high += amount * (asset.mark_high - opened)
            gross += abs(amount * opened)
    return at_low <= at_high + NEARLY * gross


def aim_at_leg(quotes: r.MarketBar, scratch: r.Scratch, leg: int) -> None:
    """Write the values u at the end of leg 0, 1 or 2 of the walk."""
    for i in range(len(scratch.walk)):
        prices, quote = scratch.walk[i], quotes.instruments[i]
        is_low = (prices.goes_low_first == 1.0) == (leg == 0)
        if leg == 2:
            prices.last_end = quote.close
            prices.mark_end = quote.mark_close
        elif is_low:
            prices.last_end = quote.low
            prices.mark_end = quote.mark_low
        else:
            prices.last_end = quote.high
            prices.mark_end = quote.mark_high

    for c in range(len(scratch.assets)):
        asset, quote = scratch.assets[c], quotes.assets[c]
        is_low = (asset.goes_low_first == 1.0) == (leg == 0)
        if leg == 2:
            asset.price_end = quote.mark_close
        else:
            asset.price_end = quote.mark_low if is_low else quote.mark_high


def is_failing_at_adverse(bar: r.AccountBar) -> bool:
    """Return whether the pool fails with each cross position at its adverse extreme, or stop."""
    terms, state, quotes, scratch = bar.terms, bar.state, bar.quotes, bar.scratch
    if terms.intrabar == r.WORST or balance.count_cross(terms, state) == 0:
        return False
    has_options = is_walking(terms, state)
    for i in range(len(scratch.walk)):
        scratch.walk[i].mark_end = scratch.walk[i].mark
        quote = quotes.instruments[i]
        if r.is_held(state, i) and not r.is_isolated(terms, i):
            position = r.pick_position(state, i)
            scratch.walk[i].last_end = p.find_adverse(position, quote.low, quote.high)
            adverse = p.find_adverse(position, quote.mark_low, quote.mark_high)
            kind, place, _ = find_stop_place(bar, i)
            place = 1.0 if kind == p.NOTHING else min(place, 1.0)
            scratch.walk[i].mark_end = move(scratch.walk[i].mark, adverse, place)
        elif has_options and pool_liquidation.is_moved_by(terms, state, i):
            at_low = pool_liquidation.sum_options_on(terms, state, i, quotes.mark_low)[0]
            at_high = pool_liquidation.sum_options_on(terms, state, i, quotes.mark_high)[0]
            scratch.walk[i].mark_end = quote.mark_low if at_low <= at_high else quote.mark_high
    for c in range(len(scratch.assets)):
        is_long = state.held.amounts[c] > 0.0
        low, high = quotes.assets[c].mark_low, quotes.assets[c].mark_high
        scratch.assets[c].price_end = low if is_long else high
    balance.value_at(state, scratch.mark_end, scratch.price_end)
    if has_options:
        options.price_options(terms, state, state.held.values)
    return balance.is_pool_short(terms, state)


def is_both_reached(bar: r.AccountBar, i: int) -> bool:
    """Return whether a bar reaches a take-profit, and a stop or the liquidation of the position."""
    terms, state, quote, scratch = bar.terms, bar.state, bar.quotes.instruments[i], bar.scratch
    low, high = min(quote.low, quote.open), max(quote.high, quote.open)
    kind, _, goal = find_reached(bar, i, low, high, math.nan)
    if math.isnan(goal) or kind != p.NOTHING:
        return not math.isnan(goal)
    adverse = p.find_adverse(r.pick_position(state, i), quote.mark_low, quote.mark_high)
    if r.is_isolated(terms, i):
        scratch.walk[i].mark_end = adverse
        return find_own_failure(bar, i) <= 1.0
    ratio = adverse / scratch.walk[i].mark
    ratio = 1.0 / ratio if terms.rules.brackets.are_inverse[i] else ratio
    segment = pool_liquidation.find_segment(bar)
    margin.aim(terms.rules, segment.start, i, ratio, segment.end)
    return find_pool_failure(bar) <= 1.0


def take_late_profits(bar: r.AccountBar, t: int) -> None:
    """Close what a resting order opened or increased where the close is beyond its take-profit."""
    terms, state, quotes, scratch = bar.terms, bar.state, bar.quotes, bar.scratch
    for i in range(len(state.positions)):
        rules, quote = r.share(r.pick_instrument(terms, i)), quotes.instruments[i]
        if scratch.plans[i].opened_now == 0.0 or not r.is_held(state, i) or not rules.has_exits:
            continue
        side = 1.0 if state.positions[i].quantity > 0.0 else -1.0
        goal = p.compute_target_price(rules, r.pick_position(state, i), quote)
        if p.is_through(-side, quote.close, goal):
            stop_position(bar, t, i, p.PROFIT, goal)


def walk_segment(bar: r.AccountBar, t: int) -> None:
    """Take prices to the end of a leg, and let act what comes first, again and again."""
    state, scratch = bar.state, bar.scratch
    while True:
        event = find_event(bar)
        if event.what < 0:
            break
        who = event.who
        advance(scratch, event.place)
        follow_extremes(bar)
        if event.what == POOL:
            balance.value_at(state, scratch.mark, scratch.price)
            pool_liquidation.liquidate_pool(bar, t, balance.has_only_position(bar.terms, state))
        elif event.what == DRAWN:
            options.price_options(bar.terms, state, scratch.mark)
            options.book_profits(state, bar.ledger)
            close_account(bar, t, scratch.last, scratch.price)
        elif event.what == ALONE:
            liquidate_isolated(bar, t, who, scratch.walk[who].mark, True)
        elif event.what == FILLED:
            fill_resting(bar, t, who)
        else:
            stop_position(bar, t, who, event.kind, event.value)
        follow_extremes(bar)
    advance(scratch, 1.0)
    follow_extremes(bar)


def advance(scratch: r.Scratch, place: float) -> None:
    """Move the values u and prices to a part of the segment."""
    for i in range(len(scratch.walk)):
        prices = scratch.walk[i]
        prices.last = move(prices.last, prices.last_end, place)
        prices.mark = move(prices.mark, prices.mark_end, place)
    for c in range(len(scratch.assets)):
        asset = scratch.assets[c]
        asset.price = move(asset.price, asset.price_end, place)


@inlined
def move(start: float, end: float, place: float) -> float:
    return end if place == 1.0 else start + place * (end - start)


def find_event(bar: r.AccountBar) -> NextEvent:
    """Return what acts first on the segment.

    Ties go to the pool, alone, a floor, an exit, a resting order.
    """
    terms, state, scratch = bar.terms, bar.state, bar.scratch
    event = NextEvent(-1, -1, 2.0, math.nan, p.NOTHING)
    place = find_pool_failure(bar)
    if place <= 1.0:
        event = NextEvent(POOL, -1, place, math.nan, p.NOTHING)
    for i in range(len(state.positions)):
        if r.is_held(state, i) and r.is_isolated(terms, i):
            place = find_own_failure(bar, i)
            if place < event.place - SAME_PLACE:
                event = NextEvent(ALONE, i, place, math.nan, p.NOTHING)
    place = find_stop_on_segment(bar)
    if place < event.place - SAME_PLACE:
        event = NextEvent(DRAWN, -1, place, math.nan, p.NOTHING)
    for i in range(len(state.positions)):
        if r.is_held(state, i):
            kind, place, value = find_stop_place(bar, i)
            if kind != p.NOTHING and place < event.place - SAME_PLACE:
                event = NextEvent(EXIT, i, place, value, kind)
    for i in range(len(state.positions) if terms.fill == r.RESTING else 0):
        place = find_fill_place(state, scratch, i)
        if place < event.place - SAME_PLACE:
            event = NextEvent(FILLED, i, place, math.nan, p.NOTHING)
    return event


def find_pool_failure(bar: r.AccountBar) -> float:
    """Return at which part of the segment the pool fails; 2 if it does not."""
    terms, state, scratch = bar.terms, bar.state, bar.scratch
    if balance.count_cross(terms, state) == 0:
        return 2.0
    if is_walking(terms, state):
        return pool_liquidation.find_place_with_options(bar)
    balance.value_at(state, scratch.mark_end, scratch.price_end)
    is_short = balance.is_pool_short(terms, state)
    if not is_short and not terms.rules.has_scenarios:
        balance.value_at(state, scratch.mark, scratch.price)
        return 0.0 if balance.is_pool_short(terms, state) else 2.0
    place = margin.find_failure(pool_liquidation.find_segment(bar))
    return 2.0 if math.isnan(place) else place


def find_own_failure(bar: r.AccountBar, i: int) -> float:
    """Return at which part of the segment an isolated position fails; 2 if it does not."""
    rules, x = r.share(r.pick_instrument(bar.terms, i)), bar.quotes.instruments[i].multiplier
    balances = r.Balances(0.0, r.pick_position(bar.state, i))
    prices = bar.scratch.walk[i]
    start, end = prices.mark, prices.mark_end
    if p.is_failing(rules, balances, start, x):
        return 0.0
    if not p.is_failing(rules, balances, end, x):
        return 2.0
    root = p.compute_root(rules, balances, x)
    if math.isnan(root) or end == start:
        return 1.0
    return float(min(max((root - start) / (end - start), 0.0), 1.0))


def find_stop_place(bar: r.AccountBar, i: int) -> tuple[int, float, float]:
    """Return the stop that acts first on the segment, at which part, and its value u; 2 if none."""
    scratch, side = bar.scratch, p.find_side(r.pick_position(bar.state, i))
    start, end = scratch.walk[i].last, scratch.walk[i].last_end
    nearest, at = 2.0, math.nan
    found, stop, goal = find_reached(bar, i, min(start, end), max(start, end), math.nan)
    if found != p.NOTHING:
        nearest, at = p.place_stop(side, start, end, stop)
    may_profit = scratch.plans[i].opened_now == 0.0 or bar.terms.fill != r.RESTING
    if may_profit and not math.isnan(goal):
        place, value = p.place_stop(-side, start, end, goal)
        if place < nearest - SAME_PLACE:
            found, nearest, at = p.PROFIT, place, value
    return found, nearest, at
