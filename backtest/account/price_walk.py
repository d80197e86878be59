"""The walk inside a bar: prices move together along waypoints, and liquidations and stops act."""

from __future__ import annotations

import math
from typing import NamedTuple

from backtest.account.account_records import Balances, Watch
from backtest.account.auto_margin import add_from_wallet, can_add
from backtest.account.balances import compute_root, is_failing
from backtest.account.equity_stop import find_stop_on_segment
from backtest.account.exits import (
    NOTHING,
    PROFIT,
    compute_target_price,
    find_nearest_stop,
    is_through,
    place_stop,
)
from backtest.account.ledger import enter_liquidation, log_liquidation, new_ledger
from backtest.account.liquidation import liquidate
from backtest.account.option_holdings import is_walking
from backtest.account.option_marks import book_options, price_options
from backtest.account.option_walk import (
    bound_fall,
    compute_left,
    find_place_with_options,
    is_moved_by,
    sum_notionals_on,
    sum_options_on,
)
from backtest.account.portfolio_balance import (
    count_cross,
    enter_step,
    has_only_position,
    is_pool_short,
    pick_balances,
    value_at,
)
from backtest.account.portfolio_gap import (
    close_account,
    find_stop,
    is_any_near,
    is_quiet,
    stop_position,
)
from backtest.account.portfolio_ledger import AMBIGUOUS, BOTH_REACHED, as_log
from backtest.account.portfolio_liquidation import liquidate_pool
from backtest.account.portfolio_payments import drop_after_liquidation
from backtest.account.portfolio_records import (
    CASH,
    POOL_FAILED,
    RESTING,
    WORST,
    AccountBar,
    AccountState,
    MarketBar,
    Scratch,
    Terms,
    is_held,
    is_isolated,
    pick_instrument,
    pick_position,
    pick_quote,
    share,
)
from backtest.account.position import find_adverse
from backtest.account.resting_orders import (
    fill_resting,
    find_fill_place,
    follow_fresh,
    is_any_reached,
)
from backtest.venue import Waypoint, aim, find_failure

SAME_PLACE = 1e-12
"""Places nearer to each other than this share of a segment are equal."""
NEARLY = 1e-9
"""Share of the notional by which one extreme must be worse than the other to come first."""
EVERY = -1
"""All markets together."""
POOL, ALONE, EXIT, DRAWN, FILLED = range(5)


class Event(NamedTuple):
    what: int
    who: int
    place: float
    value: float
    kind: int


# --------------------------------------------------------------------------- step 7: the walk


def walk(bar: AccountBar, t: int) -> None:
    """Take prices through the bar: open, both extremes, the worse one first, and the close."""
    terms, state, quotes, scratch = bar.terms, bar.state, bar.quotes, bar.scratch
    is_filling = terms.fill == RESTING and is_any_reached(state, quotes, scratch)
    is_sensed = is_filling or is_walking(terms, state)
    if not is_sensed and is_quiet(terms, state, quotes):
        return
    start_walk(quotes, scratch)
    choose_turns(terms, state, quotes, scratch)
    if is_sensed and not is_filling and is_sound_on_path(bar):
        return
    count_both_reached(bar)
    is_ambiguous = is_failing_at_adverse(bar)
    for leg in range(3):
        aim_at_leg(quotes, scratch, leg)
        walk_segment(bar, t)
    if is_filling:
        take_late_profits(bar, t)
        follow_fresh(state, scratch)
    if is_ambiguous and state.wallet[POOL_FAILED] == 0.0:
        bar.ledger[AMBIGUOUS, bar.ledger.shape[1] - 1] += 1.0


def is_sound_on_path(bar: AccountBar) -> bool:
    terms, state, quotes, scratch = bar.terms, bar.state, bar.quotes, bar.scratch
    if terms.equity_stop > 0.0 or is_any_near(terms, state, quotes):
        return False
    for i in range(len(scratch.last)):
        scratch.mark_end[i] = scratch.mark[i]
    for c in range(len(scratch.price)):
        scratch.price_end[c] = scratch.price[c]
    left = compute_left(terms, state, scratch, 0.0)
    for leg in range(3):
        aim_at_leg(quotes, scratch, leg)
        left -= bound_fall(terms, state, scratch) if left > 0.0 else 0.0
        advance(scratch, 1.0)
    start_walk(quotes, scratch)
    return left > 0.0


def start_walk(quotes: MarketBar, scratch: Scratch) -> None:
    for i in range(len(scratch.last)):
        scratch.last[i], scratch.mark[i] = quotes.open[i], quotes.mark_open[i]
    for c in range(len(scratch.price)):
        scratch.price[c] = quotes.asset_mark_open[c]


# ------------------------------------------------------------------- which extreme comes first


def choose_turns(terms: Terms, state: AccountState, quotes: MarketBar, scratch: Scratch) -> None:
    """Write whether each price goes to its low first, once for the bar."""
    n, is_worst = len(scratch.last), terms.intrabar == WORST
    is_low = is_low_first(terms, state, quotes, EVERY)
    for i in range(n):
        if is_worst:
            is_low = is_low_first(terms, state, quotes, terms.markets[i])
            if is_isolated(terms, i):
                is_low = state.held.quantities[i] >= 0.0
        scratch.turn[i] = 1.0 if is_low else 0.0
    for c in range(len(scratch.price)):
        if is_worst:
            is_low = is_low_first(terms, state, quotes, terms.markets[n + c])
        scratch.asset_turn[c] = 1.0 if is_low else 0.0


def is_low_first(terms: Terms, state: AccountState, quotes: MarketBar, market: int) -> bool:
    """Return whether the account has no less equity at all highs together than at all lows.

    One market alone is judged by its cross positions, options and collateral.
    """
    n, at_low, at_high, gross = len(state.margin), 0.0, 0.0, 0.0
    has_options = is_walking(terms, state)
    for i in range(n):
        is_there = market == EVERY or terms.markets[i] == market
        if is_there and is_held(state, i) and (market == EVERY or not is_isolated(terms, i)):
            held, opened = state.held.quantities[i], quotes.mark_open[i]
            at_low += held * (quotes.mark_low[i] - opened)
            at_high += held * (quotes.mark_high[i] - opened)
            gross += abs(held * opened)
        if is_there and has_options:
            at_low += sum_options_on(terms, state, i, quotes.mark_low)
            at_high += sum_options_on(terms, state, i, quotes.mark_high)
            gross += sum_notionals_on(terms, state, i, quotes.mark_open)
    for c in range(len(state.held.amounts)):
        if market == EVERY or terms.markets[n + c] == market:
            amount, opened = state.held.amounts[c], quotes.asset_mark_open[c]
            at_low += amount * (quotes.asset_mark_low[c] - opened)
            at_high += amount * (quotes.asset_mark_high[c] - opened)
            gross += abs(amount * opened)
    return at_low <= at_high + NEARLY * gross


def aim_at_leg(quotes: MarketBar, scratch: Scratch, leg: int) -> None:
    for i in range(len(scratch.last)):
        is_low = (scratch.turn[i] == 1.0) == (leg == 0)
        scratch.last_end[i] = quotes.low[i] if is_low else quotes.high[i]
        scratch.mark_end[i] = quotes.mark_low[i] if is_low else quotes.mark_high[i]
        if leg == 2:
            scratch.last_end[i], scratch.mark_end[i] = quotes.close[i], quotes.mark_close[i]
    for c in range(len(scratch.price)):
        is_low = (scratch.asset_turn[c] == 1.0) == (leg == 0)
        scratch.price_end[c] = quotes.asset_mark_low[c] if is_low else quotes.asset_mark_high[c]
        if leg == 2:
            scratch.price_end[c] = quotes.asset_mark_close[c]


# --------------------------------------------------------------- what the order of prices decides


def is_failing_at_adverse(bar: AccountBar) -> bool:
    """Return whether the pool fails with each cross position at its adverse extreme, or stop."""
    terms, state, quotes, scratch = bar.terms, bar.state, bar.quotes, bar.scratch
    if terms.intrabar == WORST or count_cross(terms, state) == 0:
        return False
    has_options = is_walking(terms, state)
    for i in range(len(scratch.mark)):
        scratch.mark_end[i] = scratch.mark[i]
        if is_held(state, i) and not is_isolated(terms, i):
            position = pick_position(state, i)
            scratch.last_end[i] = find_adverse(position, quotes.low[i], quotes.high[i])
            adverse = find_adverse(position, quotes.mark_low[i], quotes.mark_high[i])
            kind, place, _ = find_stop_place(bar, i)
            place = 1.0 if kind == NOTHING else min(place, 1.0)
            scratch.mark_end[i] = move(scratch.mark[i], adverse, place)
        elif has_options and is_moved_by(terms, state, i):
            at_low = sum_options_on(terms, state, i, quotes.mark_low)
            at_high = sum_options_on(terms, state, i, quotes.mark_high)
            scratch.mark_end[i] = quotes.mark_low[i] if at_low <= at_high else quotes.mark_high[i]
    for c in range(len(scratch.price)):
        is_long = state.held.amounts[c] > 0.0
        low, high = quotes.asset_mark_low[c], quotes.asset_mark_high[c]
        scratch.price_end[c] = low if is_long else high
    value_at(state, scratch.mark_end, scratch.price_end)
    if has_options:
        price_options(terms, state, state.held.values)
    return is_pool_short(terms, state)


def count_both_reached(bar: AccountBar) -> None:
    found = False
    for i in range(len(bar.state.margin)):
        found = found or (is_held(bar.state, i) and is_both_reached(bar, i))
    if found:
        bar.ledger[BOTH_REACHED, bar.ledger.shape[1] - 1] += 1.0


def is_both_reached(bar: AccountBar, i: int) -> bool:
    """Return whether a bar reaches a take-profit, and a stop or the liquidation of the position."""
    terms, state, quotes, scratch = bar.terms, bar.state, bar.quotes, bar.scratch
    rules, quote = share(pick_instrument(terms, i)), pick_quote(quotes, i)
    if rules.has_exits is None:
        return False
    position = pick_position(state, i)
    side = 1.0 if position.quantity > 0.0 else -1.0
    low, high = min(quotes.low[i], quotes.open[i]), max(quotes.high[i], quotes.open[i])
    goal = compute_target_price(rules, position, quote)
    if not is_through(-side, find_adverse(position, high, low), goal):
        return False
    watch = Watch(state.best[i], math.nan)
    kind, stop = find_nearest_stop(rules, Balances(0.0, (position,)), quote, watch)
    if kind != NOTHING and is_through(side, find_adverse(position, low, high), stop):
        return True
    adverse = find_adverse(position, quotes.mark_low[i], quotes.mark_high[i])
    if is_isolated(terms, i):
        scratch.mark_end[i] = adverse
        return find_own_failure(bar, i) <= 1.0
    ratio = adverse / scratch.mark[i]
    ratio = 1.0 / ratio if terms.rules.brackets.are_inverse[i] else ratio
    start = Waypoint(scratch.mark, scratch.price)
    aim(terms.rules, start, i, ratio, Waypoint(scratch.mark_end, scratch.price_end))
    return find_pool_failure(terms, state, scratch) <= 1.0


def take_late_profits(bar: AccountBar, t: int) -> None:
    """Close what a resting order opened or increased where the close is beyond its take-profit."""
    terms, state, quotes, scratch = bar.terms, bar.state, bar.quotes, bar.scratch
    for i in range(len(state.margin)):
        rules, quote = share(pick_instrument(terms, i)), pick_quote(quotes, i)
        if scratch.fresh[i] == 0.0 or not is_held(state, i) or rules.has_exits is None:
            continue
        side = 1.0 if state.held.quantities[i] > 0.0 else -1.0
        goal = compute_target_price(rules, pick_position(state, i), quote)
        if is_through(-side, quotes.close[i], goal):
            stop_position(bar, t, i, PROFIT, goal)


# ------------------------------------------------------------------------------- one segment


def walk_segment(bar: AccountBar, t: int) -> None:
    state, scratch = bar.state, bar.scratch
    while True:
        event = find_event(bar)
        if event.what < 0:
            break
        who = event.who
        advance(scratch, event.place)
        if event.what == POOL:
            value_at(state, scratch.mark, scratch.price)
            liquidate_pool(bar, t, has_only_position(bar.terms, state))
        elif event.what == DRAWN:
            book_options(bar.terms, state, scratch.mark, bar.ledger)
            close_account(bar, t, scratch.last, scratch.price)
        elif event.what == ALONE:
            fail_alone(bar, t, who, scratch.mark[who])
        elif event.what == FILLED:
            fill_resting(bar, t, who)
        else:
            stop_position(bar, t, who, event.kind, event.value)
    advance(scratch, 1.0)


def advance(scratch: Scratch, place: float) -> None:
    for i in range(len(scratch.last)):
        scratch.last[i] = move(scratch.last[i], scratch.last_end[i], place)
        scratch.mark[i] = move(scratch.mark[i], scratch.mark_end[i], place)
    for c in range(len(scratch.price)):
        scratch.price[c] = move(scratch.price[c], scratch.price_end[c], place)


def move(start: float, end: float, place: float) -> float:
    return end if place == 1.0 else start + place * (end - start)


def find_event(bar: AccountBar) -> Event:
    terms, state, scratch = bar.terms, bar.state, bar.scratch
    found = Event(-1, -1, 2.0, math.nan, NOTHING)
    place = find_pool_failure(terms, state, scratch)
    if place <= 1.0:
        found = Event(POOL, -1, place, math.nan, NOTHING)
    for i in range(len(state.margin)):
        if is_held(state, i) and is_isolated(terms, i):
            place = find_own_failure(bar, i)
            if place < found.place - SAME_PLACE:
                found = Event(ALONE, i, place, math.nan, NOTHING)
    place = find_stop_on_segment(terms, state, scratch)
    if place < found.place - SAME_PLACE:
        found = Event(DRAWN, -1, place, math.nan, NOTHING)
    found = add_stops(bar, found)
    return add_fills(state, scratch, found) if terms.fill == RESTING else found


def add_fills(state: AccountState, scratch: Scratch, found: Event) -> Event:
    for i in range(len(state.margin)):
        place = find_fill_place(state, scratch, i)
        if place < found.place - SAME_PLACE:
            found = Event(FILLED, i, place, math.nan, NOTHING)
    return found


def add_stops(bar: AccountBar, found: Event) -> Event:
    for i in range(len(bar.state.margin)):
        if is_held(bar.state, i):
            kind, place, value = find_stop_place(bar, i)
            if kind != NOTHING and place < found.place - SAME_PLACE:
                found = Event(EXIT, i, place, value, kind)
    return found


def find_pool_failure(terms: Terms, state: AccountState, scratch: Scratch) -> float:
    if count_cross(terms, state) == 0:
        return 2.0
    if is_walking(terms, state):
        return find_place_with_options(terms, state, scratch)
    value_at(state, scratch.mark_end, scratch.price_end)
    is_short = is_pool_short(terms, state)
    if not is_short and not terms.rules.has_scenarios:
        value_at(state, scratch.mark, scratch.price)
        return 0.0 if is_pool_short(terms, state) else 2.0
    start = Waypoint(scratch.mark, scratch.price)
    end = Waypoint(scratch.mark_end, scratch.price_end)
    place = find_failure(terms.rules, state.held, state.wallet[CASH], start, end, scratch.shares)
    return 2.0 if math.isnan(place) else place


def find_own_failure(bar: AccountBar, i: int) -> float:
    rules, x = share(pick_instrument(bar.terms, i)), bar.quotes.multiplier[i]
    balances = Balances(0.0, (pick_position(bar.state, i),))
    start, end = bar.scratch.mark[i], bar.scratch.mark_end[i]
    if is_failing(rules, balances, start, x):
        return 0.0
    if not is_failing(rules, balances, end, x):
        return 2.0
    root = compute_root(rules, balances, x)
    if math.isnan(root) or end == start:
        return 1.0
    return float(min(max((root - start) / (end - start), 0.0), 1.0))


def find_stop_place(bar: AccountBar, i: int) -> tuple[int, float, float]:
    terms, state, quotes, scratch = bar.terms, bar.state, bar.quotes, bar.scratch
    rules, quote = share(pick_instrument(terms, i)), pick_quote(quotes, i)
    position = pick_position(state, i)
    start, end = scratch.last[i], scratch.last_end[i]
    low, high = min(start, end), max(start, end)
    if rules.has_exits is None:
        kind, stop = find_stop(terms, state, quotes, i, low, high, math.nan)
        if kind == NOTHING:
            return NOTHING, 2.0, math.nan
        place, value = place_stop(1.0 if position.quantity > 0.0 else -1.0, start, end, stop)
        return kind, place, value
    side = 1.0 if position.quantity > 0.0 else -1.0
    found, nearest, at = NOTHING, 2.0, math.nan
    balances, watch = Balances(0.0, (position,)), Watch(state.best[i], math.nan)
    kind, stop = find_nearest_stop(rules, balances, quote, watch)
    if kind != NOTHING and is_through(side, find_adverse(position, low, high), stop):
        found = kind
        nearest, at = place_stop(side, start, end, stop)
    goal = compute_target_price(rules, position, quote)
    may_profit = scratch.fresh[i] == 0.0 or terms.fill != RESTING
    if may_profit and is_through(-side, find_adverse(position, high, low), goal):
        place, value = place_stop(-side, start, end, goal)
        if place < nearest - SAME_PLACE:
            found, nearest, at = PROFIT, place, value
    return found, nearest, at


def fail_alone(bar: AccountBar, t: int, i: int, value: float) -> None:
    terms, state, log = bar.terms, bar.state, bar.log
    rules, quote = share(pick_instrument(terms, i)), pick_quote(bar.quotes, i)
    before, row = pick_balances(terms, state, i), log.written[0]
    if can_add(rules, before):
        after = add_from_wallet(rules, before, value, quote, as_log(log), t)
        enter_step(bar, i, row, before, after, new_ledger())
        return
    own = Balances(0.0, before.positions)
    done = liquidate(rules, own, value, quote)
    log_liquidation(as_log(log), t, value, done)
    found = enter_liquidation(new_ledger(), done)
    enter_step(bar, i, row, own, done.balances, found)
    drop_after_liquidation(terms, state, i)
