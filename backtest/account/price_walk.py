"""Step 7 of a bar: the walk of prices to both extremes and the close, and what acts on it.

:func:`walk` first asks whether anything can act at all: most bars are quiet. Else prices go through
three legs, each a straight segment: to one extreme, to the other, to the close. On each segment
:func:`find_event` finds what acts first; prices move there, it acts, and the rest of the segment is
asked again.

====================  ============================================================================
word                  what it is, and its unit
====================  ============================================================================
last, mark            contract values of a position now, by last prices and by marks
price                 mark of a collateral now
..._end               the same at the end of the segment
place                 part of a segment, 0 to 1; UNREACHED if something does not act on it
leg                   0 and 1 lead to the extremes, 2 to the close
turn                  which extreme a price goes to first: one that goes low first, or high
least                 lower bound of the excess D over all ways that prices can move in the bar
extremes              least and most equity on the way, for the report
====================  ============================================================================
"""

from __future__ import annotations

import math
from typing import NamedTuple

from backtest import margin
from backtest.account import balance, exits, option_pool, options, pool_liquidation
from backtest.account import position as p
from backtest.account import records as r
from backtest.account.balance import NO_INSTRUMENT
from backtest.account.equity_floors import CAUTION, find_stop_on_segment, is_drawdown_near
from backtest.account.exits import SAME_PLACE, find_stop_place, stop_position
from backtest.account.limit_orders import OPENED, fill_resting, find_fill_place, is_any_reached
from backtest.account.option_pool import UNREACHED
from backtest.account.options import must_value_options
from backtest.account.payments import liquidate_isolated
from backtest.core.kernels import inlined

NEARLY = 1e-9
"""Share of the notional by which one extreme must be worse than the other to come first."""
EVERY = -1
"""All markets together."""

NONE, POOL, ALONE, DRAWN, EXIT, FILLED = range(-1, 5)
"""What acts: nothing, the pool fails, an isolated position fails, a floor, an exit, a fill."""
LEGS = 3
TO_EXTREME, TO_OTHER, TO_CLOSE = range(LEGS)
"""The legs of a walk."""


class NextEvent(NamedTuple):
    """What acts first on a segment: what, on which instrument, and at which place of it.

    The instrument is NO_INSTRUMENT of the pool and of a floor. An exit has the contract value that
    it trades at and its kind; of all else they are NaN and NOTHING.
    """

    what: int
    i: int
    place: float
    value: float
    kind: int


def walk(bar: r.AccountBar, t: int) -> None:
    """Take prices through bar t: open, both extremes, the worse one first, and the close.

    What acts on the way, liquidations, stops and limit orders, acts where it is met, and writes
    account, ledger and log. Most bars end in one of the two tests before the walk: they show that
    nothing acts. Then only the extremes of the equity are noted, for the report.
    """
    scratch = bar.scratch
    is_filling = bar.terms.fill == r.RESTING and is_any_reached(bar.state, bar.quotes, scratch)
    has_options = must_value_options(bar.terms, bar.state)

    # A test of the extremes alone. It knows nothing of limit orders, which may fill between them.
    if not is_filling and not has_options and is_quiet(bar):
        note_extremes(bar, t)
        return

    # The worth of options is no sum of functions of one price, so their test needs the way itself:
    # where it starts, and which extreme each price goes to first.
    start_walk(bar.quotes, scratch)
    choose_turns(bar)
    if has_options and not is_filling and is_sound_on_path(bar):
        note_extremes(bar, t)
        return

    begin_extremes(bar)

    # Two questions for the report, asked at the opens, before anything moves.
    if is_any_both_reached(bar):
        bar.ledger[len(bar.ledger) - 1].both_reached += 1.0
    fails_at_adverse = is_failing_at_adverse(bar)

    for leg in range(LEGS):
        aim_at_leg(bar.quotes, scratch, leg)
        walk_segment(bar, t)
    # A limit order may have opened a position after the extreme of the bar: only the close surely
    # came later.
    if is_filling:
        take_late_profits(bar, t)
        follow_opened(bar)

    # A bar is ambiguous if the pool would fail with all prices at their adverse extremes at once,
    # and did not fail on the way.
    if fails_at_adverse and bar.state.wallet.pool_failed == 0.0:
        bar.ledger[len(bar.ledger) - 1].ambiguous_bars += 1.0


def follow_opened(bar: r.AccountBar) -> None:
    """Advance the best contract value of positions that a limit order opened in this bar.

    ``best``, which a trailing stop follows, goes to the close of the bar where that is better. Not
    to the extreme: it may have come before the fill, only the close surely came after it.
    """
    for i in range(len(bar.state.positions)):
        if bar.scratch.plans[i].opened_now != OPENED or not r.is_held(bar.state, i):
            continue

        # At the end of the walk prices stand at the close.
        position = bar.state.positions[i]
        close = bar.scratch.walk[i].last
        if position.quantity > 0.0:
            position.best = max(position.best, close)
        else:
            position.best = min(position.best, close)


def take_late_profits(bar: r.AccountBar, t: int) -> None:
    """Close positions at their take-profit, where the close of the bar is beyond it.

    Only for positions that a limit order opened or increased in this bar. Inside the bar their
    take-profit did not act, as the high or low may have come before the fill. The close came after.
    """
    state = bar.state
    for i in range(len(state.positions)):
        rules = r.by_reference(r.pick_instrument(bar.terms, i))
        if bar.scratch.plans[i].opened_now == 0.0 or not r.is_held(state, i):
            continue
        if not rules.has_exits:
            continue

        quote = bar.quotes.instruments[i]
        position = r.pick_position(state, i)
        take_profit = p.compute_target_price(rules, position, quote)
        # The side is negated, as prices reach a take-profit by going with the position, and a stop
        # by going against it.
        if p.is_through(-p.find_side(position), quote.close, take_profit):
            stop_position(bar, t, i, p.PROFIT, take_profit)


# Bars in which nothing acts.


def is_quiet(bar: r.AccountBar) -> bool:
    """Return whether no price of the bar can make anything act; False where it is not certain.

    Under brackets, what the pool has over its requirement is a sum of concave functions, each of
    one price. So it is least with each price at one of its extremes, whichever way prices move: if
    something is left even there, the pool cannot fail.
    """
    terms = bar.terms
    state = bar.state
    quotes = bar.quotes
    if terms.has_floor and is_drawdown_near(terms, state, quotes):
        return False

    least = state.wallet.cash
    gross = 0.0
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
    # Scenarios are no sum of functions of one price.
    if terms.rules.has_scenarios:
        return False

    for c in range(len(state.held.amounts)):
        least += find_least_of_asset(bar, c)
    return bool(least > CAUTION * gross)


@inlined
def find_least(
    terms: r.Terms, state: r.AccountState, quotes: r.MarketBar, i: int, level: float
) -> float:
    """Return a lower bound of what a position adds to the excess of the pool in this bar: money.

    It adds its value less ``level`` times its maintenance margin. That is concave in the price, so
    it is least at one of the two extremes of the mark.
    """
    position = state.positions[i]
    quote = quotes.instruments[i]
    tables = terms.rules.brackets
    low = position.quantity * quote.mark_low
    high = position.quantity * quote.mark_high
    # A long spot leg needs no margin, but counts with a haircut: it is worth least at the low.
    if r.is_spot(terms, i) and position.quantity > 0.0:
        return float((1.0 - terms.rules.spot.haircuts[i]) * low)

    notional_at_low = abs(low)
    notional_at_high = abs(high)
    if tables.are_valued_at_entry[i]:
        notional_at_low = abs(position.quantity * position.entry)
        notional_at_high = notional_at_low
    at_low = low - level * margin.find_maintenance(tables, i, notional_at_low)
    at_high = high - level * margin.find_maintenance(tables, i, notional_at_high)
    return float(min(at_low, at_high))


def find_least_of_asset(bar: r.AccountBar, c: int) -> float:
    """Return the least that a collateral backs the pool with in this bar."""
    tables = bar.terms.rules.collateral
    amount = bar.state.held.amounts[c]
    asset = bar.quotes.assets[c]
    at_low = margin.compute_value_at_rate(tables, c, amount * asset.mark_low)
    at_high = margin.compute_value_at_rate(tables, c, amount * asset.mark_high)
    return min(at_low, at_high)


@inlined
def is_isolated_near(terms: r.Terms, state: r.AccountState, quotes: r.MarketBar, i: int) -> bool:
    """Return whether an extreme of the bar may liquidate an isolated position.

    False is certain, True is not: CAUTION, a share of the notional that is more than rounding, must
    be left at the extreme.
    """
    position = state.positions[i]
    quote = quotes.instruments[i]
    posted = position.margin - position.quantity * position.entry
    gross = abs(position.quantity) * max(abs(quote.mark_low), abs(quote.mark_high))
    least = posted + find_least(terms, state, quotes, i, level=1.0)
    return not least > CAUTION * gross


def is_stop_near(bar: r.AccountBar, i: int) -> bool:
    """Return whether a stop or take-profit of a position may act between the extremes of the bar.

    Asked before prices move, to leave out the walk where nothing acts. Stops are tested on last
    prices.
    """
    quote = bar.quotes.instruments[i]
    # A trailing stop, take-profit or floor: the nearest of all exits counts.
    if r.has_exits(bar.terms, i):
        kind, _value = exits.find_stop(bar, i, quote.low, quote.high)
        return kind != p.NOTHING

    # A plain stop-loss alone, which is most of them: a shorter test with the same answer.
    position = r.pick_position(bar.state, i)
    adverse = p.find_adverse(position, quote.low, quote.high)
    return p.is_stopped(r.pick_instrument(bar.terms, i), position, adverse)


def is_sound_on_path(bar: r.AccountBar) -> bool:
    """Return whether nothing can act in the bar of a pool with options; False is not certain.

    The excess, what the pool has over its requirement at the opens, is lowered by a bound of how
    far it can fall on each of the three legs: to one extreme, to the other, to the close. If some
    is left after all three, the pool cannot fail.

    Before the call, the walk in the scratch must stand at the opens (:func:`start_walk`). It is
    moved along the legs here, and stands at the opens again afterwards.
    """
    scratch = bar.scratch
    # A floor of the equity, isolated margin and stops have tests of their own, which the walk does.
    if bar.terms.has_floor or is_own_limit_near(bar):
        return False

    # The excess at the opens: that at the start of a segment which ends where it starts.
    for i in range(len(scratch.walk)):
        scratch.walk[i].mark_end = scratch.walk[i].mark
    for c in range(len(scratch.assets)):
        scratch.assets[c].price_end = scratch.assets[c].price
    excess = option_pool.compute_left(bar, 0.0)

    # The bound reads where the walk stands and the end of the leg, so the walk moves with it.
    for leg in range(LEGS):
        aim_at_leg(bar.quotes, scratch, leg)
        if excess > 0.0:
            excess -= option_pool.bound_fall(bar)
        advance(scratch, 1.0)

    start_walk(bar.quotes, scratch)
    return excess > 0.0


def is_own_limit_near(bar: r.AccountBar) -> bool:
    """Return whether the own limit of any position may act in the bar: isolated margin, or a stop.

    False is certain, True is not.
    """
    terms = bar.terms
    state = bar.state
    for i in range(len(state.positions)):
        if not r.is_held(state, i):
            continue
        if r.is_isolated(terms, i) and is_isolated_near(terms, state, bar.quotes, i):
            return True
        if r.has_stops(terms, i) and is_stop_near(bar, i):
            return True
    return False


# The least and the most equity on the way.


@inlined
def value_at_extremes(
    terms: r.Terms, feed: r.MarketFeed, position: r.PositionState, t: int, i: int
) -> tuple[float, float]:
    """Return what a position adds to the equity at the low and at the high of its mark in bar t.

    Money. The cash has paid the entry of a cross position, so its whole value counts. For an
    isolated one it has paid the margin alone, so margin and profit count.
    """
    fixed = position.margin if r.is_isolated(terms, i) else 0.0
    # Prices of an instrument that is not held may be NaN.
    if position.quantity == 0.0:
        return fixed, fixed

    if r.is_isolated(terms, i):
        fixed -= position.quantity * position.entry
    at_low = fixed + position.quantity * r.read_value(terms, feed.mark_low, t, i)
    at_high = fixed + position.quantity * r.read_value(terms, feed.mark_high, t, i)
    return at_low, at_high


def note_extremes(bar: r.AccountBar, t: int) -> None:
    """Write the least and the most equity inside a quiet bar into ``scratch.extremes``: money.

    By how prices move in a bar (``Account.intrabar``): with "path" all marks are at their lows
    together, or all at their highs; with "worst" each is at the worse extreme for its position, or
    each at the better one. Without a place for them, the run does not report them.
    """
    terms = bar.terms
    feed = bar.feed
    extremes = bar.scratch.extremes
    # Runs that do not report them have no place for them.
    if len(extremes) == 0:
        return

    # The equity with all prices at their low, with all at their high, and with each at the worse
    # and at the better of the two for the account.
    cash = bar.state.wallet.cash
    at_low = cash
    at_high = cash
    worst = cash
    best = cash
    for i in range(len(bar.state.positions)):
        low, high = value_at_extremes(terms, feed, bar.state.positions[i], t, i)
        at_low += low
        at_high += high
        worst += min(low, high)
        best += max(low, high)

    if terms.intrabar == r.WORST:
        extremes[r.LEAST_EQUITY] = worst
        extremes[r.MOST_EQUITY] = best
    else:
        extremes[r.LEAST_EQUITY] = min(at_low, at_high)
        extremes[r.MOST_EQUITY] = max(at_low, at_high)


def begin_extremes(bar: r.AccountBar) -> None:
    """Forget the extremes of the equity, and note it at the opens."""
    extremes = bar.scratch.extremes
    if len(extremes) > 0:
        extremes[r.LEAST_EQUITY] = math.inf
        extremes[r.MOST_EQUITY] = -math.inf
        follow_extremes(bar)


def follow_extremes(bar: r.AccountBar) -> None:
    """Note the equity at the marks where the walk stands."""
    scratch = bar.scratch
    extremes = scratch.extremes
    if len(extremes) > 0:
        equity = balance.compute_equity_at(bar.terms, bar.state, scratch.mark, scratch.price)
        extremes[r.LEAST_EQUITY] = min(extremes[r.LEAST_EQUITY], equity)
        extremes[r.MOST_EQUITY] = max(extremes[r.MOST_EQUITY], equity)


# The way: where it starts, which extreme comes first, and each leg.


def start_walk(quotes: r.MarketBar, scratch: r.Scratch) -> None:
    """Write the opens as the values at which the walk stands."""
    for i in range(len(scratch.walk)):
        quote = quotes.instruments[i]
        scratch.walk[i].last = quote.open
        scratch.walk[i].mark = quote.mark_open
    for c in range(len(scratch.assets)):
        scratch.assets[c].price = quotes.assets[c].mark_open


def choose_turns(bar: r.AccountBar) -> None:
    """Write for each price whether it goes to its low or to its high first in this bar.

    By how prices move in a bar (``Account.intrabar``): with "path" all prices go the same way, the
    one that costs the account more. With "worst" each market goes the way that costs its own
    positions more, and the price of an isolated position the way that costs that position more.
    """
    terms = bar.terms
    state = bar.state
    quotes = bar.quotes
    walks = bar.scratch.walk
    assets = bar.scratch.assets
    is_worst = terms.intrabar == r.WORST

    # One turn for all prices; under "worst" each of them gets its own below.
    is_low = is_low_first(terms, state, quotes, EVERY)
    for i in range(len(walks)):
        if is_worst:
            is_low = is_low_first(terms, state, quotes, terms.markets[i])
            if r.is_isolated(terms, i):
                is_low = state.positions[i].quantity >= 0.0
        walks[i].goes_low_first = 1.0 if is_low else 0.0
    # ``terms.markets`` has the instruments first, then the collateral.
    for c in range(len(assets)):
        if is_worst:
            is_low = is_low_first(terms, state, quotes, terms.markets[len(walks) + c])
        assets[c].goes_low_first = 1.0 if is_low else 0.0


def is_low_first(terms: r.Terms, state: r.AccountState, quotes: r.MarketBar, market: int) -> bool:
    """Return whether the walk goes to the lows before the highs: to what costs the account more.

    Compares the equity with prices at their lows and at their highs. Where both are equal within
    float rounding, the low comes first. ``market`` is EVERY for all prices together, or the number
    of one market, whose own cross positions, options and collateral decide. Marks of options are
    written on the way, and are those at the opens again in the end.
    """
    n_instruments = len(state.positions)
    has_options = must_value_options(terms, state)
    # The equity at both extremes, less what is the same in both: money. ``gross`` is the sum of
    # all notionals, without sign; the rounding of the equity is a small part of it.
    at_low = 0.0
    at_high = 0.0
    gross = 0.0
    for i in range(n_instruments):
        if market not in (EVERY, terms.markets[i]):
            continue

        quote = quotes.instruments[i]
        if r.is_held(state, i) and (market == EVERY or not r.is_isolated(terms, i)):
            quantity = state.positions[i].quantity
            at_low += quantity * (quote.mark_low - quote.mark_open)
            at_high += quantity * (quote.mark_high - quote.mark_open)
            gross += abs(quantity * quote.mark_open)

        # The opens come last, as the marks that they write are those of the account.
        if has_options:
            worth_at_low, _ = option_pool.sum_options_on(terms, state, i, quotes.mark_low)
            worth_at_high, _ = option_pool.sum_options_on(terms, state, i, quotes.mark_high)
            _, notional = option_pool.sum_options_on(terms, state, i, quotes.mark_open)
            at_low += worth_at_low
            at_high += worth_at_high
            gross += notional

    for c in range(len(state.held.amounts)):
        if market not in (EVERY, terms.markets[n_instruments + c]):
            continue

        amount = state.held.amounts[c]
        asset = quotes.assets[c]
        at_low += amount * (asset.mark_low - asset.mark_open)
        at_high += amount * (asset.mark_high - asset.mark_open)
        gross += abs(amount * asset.mark_open)
    return at_low <= at_high + NEARLY * gross


def aim_at_leg(quotes: r.MarketBar, scratch: r.Scratch, leg: int) -> None:
    """Write the contract values and prices at the end of a leg of the walk."""
    for i in range(len(scratch.walk)):
        aim_at_quote(scratch.walk[i], quotes.instruments[i], leg)
    for c in range(len(scratch.assets)):
        aim_asset(scratch.assets[c], quotes.assets[c], leg)


@inlined
def aim_at_quote(prices: r.Walk, quote: r.Quote, leg: int) -> None:
    """Write the contract values at which a leg of the walk ends: of the last price, and the mark.

    The three legs lead to one extreme (TO_EXTREME), to the other one, and to the close.
    ``goes_low_first``, 1 or 0, says which extreme comes first, of the last price and of the mark.
    """
    goes_low_first = prices.goes_low_first == 1.0
    is_first_leg = leg == TO_EXTREME
    if leg == TO_CLOSE:
        prices.last_end = quote.close
        prices.mark_end = quote.mark_close

    # The low is the end of the first leg if it comes first, else that of the second.
    elif goes_low_first == is_first_leg:
        prices.last_end = quote.low
        prices.mark_end = quote.mark_low
    else:
        prices.last_end = quote.high
        prices.mark_end = quote.mark_high


@inlined
def aim_asset(asset: r.AssetWalk, quote: r.Quote, leg: int) -> None:
    """Write the price of a collateral at the end of a leg."""
    is_low = (asset.goes_low_first == 1.0) == (leg == TO_EXTREME)
    if leg == TO_CLOSE:
        asset.price_end = quote.mark_close
    elif is_low:
        asset.price_end = quote.mark_low
    else:
        asset.price_end = quote.mark_high


# What the order of prices decides, for the report.


def is_failing_at_adverse(bar: r.AccountBar) -> bool:
    """Return whether the pool fails with all cross positions at their adverse extremes at once.

    Asked at the opens, before the walk begins: prices that never are together may fail a pool that
    the walk leaves alone, and the report counts such bars. A position with a stop goes no further
    than that. False under ``intrabar="worst"``, where the walk itself goes there.

    Leaves the ends of the segment and the values of the account at these extremes. Each leg of the
    walk writes both anew before it reads them.
    """
    terms = bar.terms
    state = bar.state
    scratch = bar.scratch
    if terms.intrabar == r.WORST or balance.count_cross(terms, state) == 0:
        return False

    # A position goes where it loses. An instrument that only options follow goes to the extreme at
    # which these are worth less, and all others stay.
    has_options = must_value_options(terms, state)
    for i in range(len(scratch.walk)):
        scratch.walk[i].mark_end = scratch.walk[i].mark
        if r.is_held(state, i) and not r.is_isolated(terms, i):
            aim_at_adverse(bar, i)
        elif has_options and option_pool.is_moved_by(terms, state, i):
            scratch.walk[i].mark_end = find_adverse_of_options(bar, i)

    for c in range(len(scratch.assets)):
        asset = bar.quotes.assets[c]
        is_long = state.held.amounts[c] > 0.0
        scratch.assets[c].price_end = asset.mark_low if is_long else asset.mark_high

    balance.value_at(state, scratch.mark_end, scratch.price_end)
    if has_options:
        options.price_options(terms, state, state.held.values)
    return balance.is_pool_short(terms, state)


def find_adverse_of_options(bar: r.AccountBar, i: int) -> float:
    """Return the mark extreme of instrument i at which the options on it are worth less."""
    quote = bar.quotes.instruments[i]
    worth_at_low, _ = option_pool.sum_options_on(bar.terms, bar.state, i, bar.quotes.mark_low)
    worth_at_high, _ = option_pool.sum_options_on(bar.terms, bar.state, i, bar.quotes.mark_high)
    return float(quote.mark_low if worth_at_low <= worth_at_high else quote.mark_high)


def aim_at_adverse(bar: r.AccountBar, i: int) -> None:
    """Write the segment of position i to its adverse extreme, or to the stop before it.

    A segment leads from where the walk of the instrument stands (``last``, ``mark``) to
    ``last_end`` and ``mark_end``, which are written here: contract values of the last price and of
    the mark.
    """
    walk_of = bar.scratch.walk[i]
    quote = bar.quotes.instruments[i]
    position = r.pick_position(bar.state, i)
    walk_of.last_end = p.find_adverse(position, quote.low, quote.high)

    # A stop is tested on last prices, so ``last_end`` is written before. It closes the position at
    # a part of the segment, and the mark goes no further than the same part of its own way.
    first_exit = find_stop_place(bar, i)
    place = 1.0
    if first_exit.kind != p.NOTHING:
        place = min(first_exit.place, 1.0)
    mark_adverse = p.find_adverse(position, quote.mark_low, quote.mark_high)
    walk_of.mark_end = p.move(walk_of.mark, mark_adverse, place)


def is_any_both_reached(bar: r.AccountBar) -> bool:
    """Return whether a bar reaches both sides of any position."""
    for i in range(len(bar.state.positions)):
        if r.is_held(bar.state, i) and is_both_reached(bar, i):
            return True
    return False


def is_both_reached(bar: r.AccountBar, i: int) -> bool:
    """Return whether a bar reaches the take-profit of a position, and also its stop or liquidation.

    Then the order of the extremes decides which of them acts, and the report counts the bar. Asked
    at the opens, before the walk: it writes the end of the segment into the scratch, which each leg
    of the walk writes anew.
    """
    # Stop and take-profit are tested on last prices, liquidations on marks. The open may lie
    # outside of low and high.
    quote = bar.quotes.instruments[i]
    low = min(quote.low, quote.open)
    high = max(quote.high, quote.open)
    reached = exits.find_reached(bar, i, low, high, level=math.nan)

    # NaN: the bar does not reach the take-profit.
    if math.isnan(reached.take_profit):
        return False
    return reached.kind != p.NOTHING or is_failing_alone(bar, i)


def is_failing_alone(bar: r.AccountBar, i: int) -> bool:
    """Return whether a position is liquidated if its price alone moves to its adverse extreme.

    An isolated position fails by itself; for a cross one the pool must fail, and prices that the
    margin rule groups with it move by the same ratio. The move starts from where the walk stands.
    Writes it into the scratch as the segment that is tested.
    """
    quote = bar.quotes.instruments[i]
    walk_of = bar.scratch.walk[i]
    adverse = p.find_adverse(r.pick_position(bar.state, i), quote.mark_low, quote.mark_high)

    # A place of the segment is 0 to 1; UNREACHED, where nothing fails, is over 1.
    if r.is_isolated(bar.terms, i):
        walk_of.mark_end = adverse
        return find_own_failure(bar, i) <= 1.0

    # The ratio of prices. These are contract values, which go with 1 / price if it is inverse.
    ratio = adverse / walk_of.mark
    if bar.terms.rules.brackets.are_inverse[i]:
        ratio = 1.0 / ratio
    segment = option_pool.find_segment(bar)
    margin.aim(bar.terms.rules, segment.start, i, ratio, segment.end)
    return find_pool_failure(bar) <= 1.0


# One segment.


def walk_segment(bar: r.AccountBar, t: int) -> None:
    """Take prices to the end of a leg, and carry out on the way what prices make act.

    What acts first on the segment (liquidation, floor, stop or fill) is found, prices move to its
    place, it is carried out, and the rest of the segment is searched anew. The extremes of the
    equity are followed before and after each event: both belong to the way.
    """
    while True:
        # What acted has changed the account, so that it does not act again: the loop ends.
        event = find_event(bar)
        if event.what == NONE:
            break
        advance(bar.scratch, event.place)
        follow_extremes(bar)
        carry_out(bar, t, event)
        follow_extremes(bar)

    advance(bar.scratch, 1.0)
    follow_extremes(bar)


def carry_out(bar: r.AccountBar, t: int, event: NextEvent) -> None:
    """Carry out an event where prices stand now: liquidate, close, stop or fill.

    ``event.what`` says what: POOL (the cross pool fails), ALONE (an isolated position fails), DRAWN
    (a floor of the equity), EXIT (a stop or take-profit), else a limit order fills. Writes account,
    ledger and log.
    """
    state = bar.state
    scratch = bar.scratch
    i = event.i
    if event.what == POOL:
        # The pool is closed at the marks of its place.
        balance.value_at(state, scratch.mark, scratch.price)
        pool_liquidation.liquidate_pool(bar, t, balance.has_only_position(bar.terms, state))

    elif event.what == ALONE:
        liquidate_isolated(bar, t, i, scratch.walk[i].mark, is_failed=True)

    elif event.what == DRAWN:
        # What options gained up to here is entered before they are closed.
        options.price_options(bar.terms, state, scratch.mark)
        options.book_profits(state, bar.ledger)
        exits.close_account(bar, t, scratch.last, scratch.price)

    elif event.what == EXIT:
        stop_position(bar, t, i, event.kind, event.value)

    else:
        fill_resting(bar, t, i)


def advance(scratch: r.Scratch, place: float) -> None:
    """Move contract values and prices of the walk to a part of the segment, 0 to 1.

    The ends of the segment stay, so the rest of it can be searched from there.
    """
    for i in range(len(scratch.walk)):
        prices = scratch.walk[i]
        prices.last = p.move(prices.last, prices.last_end, place)
        prices.mark = p.move(prices.mark, prices.mark_end, place)
    for c in range(len(scratch.assets)):
        asset = scratch.assets[c]
        asset.price = p.move(asset.price, asset.price_end, place)


def find_event(bar: r.AccountBar) -> NextEvent:
    """Return what acts first on the segment: a failure, a floor of the equity, an exit or a fill.

    Places are parts of the segment, 0 to 1, or UNREACHED, which is over 1. Ties go to the pool,
    then an isolated position, a floor, an exit, a resting order: each must be nearer than those
    before it (:func:`is_before`), so their order here is that of ties.
    """
    terms = bar.terms
    state = bar.state
    first = make_event(NONE, NO_INSTRUMENT, UNREACHED)
    place = find_pool_failure(bar)
    if place <= 1.0:
        first = make_event(POOL, NO_INSTRUMENT, place)

    for i in range(len(state.positions)):
        if r.is_held(state, i) and r.is_isolated(terms, i):
            place = find_own_failure(bar, i)
            if is_before(place, first):
                first = make_event(ALONE, i, place)

    place = find_stop_on_segment(bar)
    if is_before(place, first):
        first = make_event(DRAWN, NO_INSTRUMENT, place)

    for i in range(len(state.positions)):
        if r.is_held(state, i):
            own_exit = find_stop_place(bar, i)
            if own_exit.kind != p.NOTHING and is_before(own_exit.place, first):
                first = NextEvent(
                    what=EXIT, i=i, place=own_exit.place, value=own_exit.value, kind=own_exit.kind
                )

    if terms.fill == r.RESTING:
        for i in range(len(state.positions)):
            place = find_fill_place(state, bar.scratch, i)
            if is_before(place, first):
                first = make_event(FILLED, i, place)
    return first


@inlined
def make_event(what: int, i: int, place: float) -> NextEvent:
    """Return an event that is no exit."""
    return NextEvent(what=what, i=i, place=place, value=math.nan, kind=p.NOTHING)


@inlined
def is_before(place: float, event: NextEvent) -> bool:
    """Return whether a place comes before that of an event; places that rounding parts are one."""
    return place < event.place - SAME_PLACE


def find_pool_failure(bar: r.AccountBar) -> float:
    """Return at which part of the segment the pool fails: 0 (its start) to 1, or UNREACHED.

    The segment leads from where the walk stands in the scratch to the ends written there. The test
    leaves the account valued somewhere on it, so callers value it anew before they read it.
    """
    terms = bar.terms
    state = bar.state
    scratch = bar.scratch
    if balance.count_cross(terms, state) == 0:
        return UNREACHED
    if must_value_options(terms, state):
        return option_pool.find_place_with_options(bar)

    # Under brackets the excess is concave on a segment. So a pool that holds at its end has no
    # place of failure inside: it fails at once, at the start, or not at all.
    balance.value_at(state, scratch.mark_end, scratch.price_end)
    is_short_at_end = balance.is_pool_short(terms, state)
    if not is_short_at_end and not terms.rules.has_scenarios:
        balance.value_at(state, scratch.mark, scratch.price)
        return 0.0 if balance.is_pool_short(terms, state) else UNREACHED
    place = margin.find_failure(option_pool.find_segment(bar))
    return UNREACHED if math.isnan(place) else place


def find_own_failure(bar: r.AccountBar, i: int) -> float:
    """Return where on the segment an isolated position fails: a place from 0 to 1, or UNREACHED.

    The segment is the way of the mark from where the walk stands to its next waypoint. The position
    fails where posted margin plus profit is at most its maintenance margin. Their difference is
    concave in the contract value, so a position that holds at both ends holds in between.
    """
    rules = r.by_reference(r.pick_instrument(bar.terms, i))
    multiplier = bar.quotes.instruments[i].multiplier
    balances = r.Balances(0.0, r.pick_position(bar.state, i))
    start = bar.scratch.walk[i].mark
    end = bar.scratch.walk[i].mark_end
    if p.is_failing(rules, balances, start, multiplier):
        return 0.0
    if not p.is_failing(rules, balances, end, multiplier):
        return UNREACHED

    # It holds at the start and fails at the end. If the formula finds no root in between, the
    # failure at the end is a matter of rounding, so the end is the place.
    root = p.compute_root(rules, balances, multiplier)
    if math.isnan(root) or end == start:
        return 1.0
    return float(min(max((root - start) / (end - start), 0.0), 1.0))
