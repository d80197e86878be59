"""Where a pool that holds options fails on the way of the prices.

The value of an option bends with the price, so no closed form has the place. A segment is tested at
some places, and between them a bound of how far the excess can fall shows that nothing was missed.

====================  ============================================================================
word                  what it is, and its unit
====================  ============================================================================
segment               straight way of all values and prices from one waypoint to the next
place                 part of a segment, 0 to 1; UNREACHED if the pool does not fail on it
excess                D = M - level R, less rounding: the pool fails at 0
fall                  upper bound of how far the excess falls on a segment: money
sound, failing        two places between which the pool fails
ratio                 price over the price now, in a search for a liquidation price
====================  ============================================================================
"""

from __future__ import annotations

import math

from backtest import margin
from backtest.account import balance, options
from backtest.account import records as r
from backtest.account.forced_options import compute_option_notional
from backtest.core import FloatArray
from backtest.core.kernels import of_options
from backtest.core.units import TOLERANCE

PARTS = 16
"""Places at which a segment is tested."""
HALVINGS = 60
"""Steps of bisection: beyond the last digit."""
UNREACHED = 2.0
"""Place of what a segment does not reach."""
DOWN = (1.0, 0.88, 0.7, 0.5, 0.3, 0.1)
UP = (1.0, 1.12, 1.3, 1.5, 1.7, 1.9)
"""Ratios of the price between which a liquidation price is searched."""


# The excess on a segment.


def find_segment(bar: r.AccountBar) -> margin.Segment:
    """Return the pool on the segment that the walk has before it."""
    scratch = bar.scratch
    start = margin.Waypoint(scratch.mark, scratch.price)
    end = margin.Waypoint(scratch.mark_end, scratch.price_end)
    return margin.Segment(bar.terms.rules, bar.state.held, bar.state.wallet.cash, start, end)


def value_on_segment(bar: r.AccountBar, place: float) -> None:
    """Write the values and marks of positions and options at a part of the segment."""
    segment = find_segment(bar)
    margin.move_holdings(segment.held, segment.start, segment.end, place)
    options.price_options(bar.terms, bar.state, segment.held.values)


def compute_left(bar: r.AccountBar, place: float) -> float:
    """Return the excess at a place; writes the values of the account there."""
    value_on_segment(bar, place)
    return balance.compute_cautious_excess(bar.terms, bar.state)


@of_options(returns=0.0)
def find_place_with_options(bar: r.AccountBar) -> float:
    """Return at which part of the segment a pool with options fails, or UNREACHED."""
    left = compute_left(bar, 0.0)
    if left <= 0.0:
        return 0.0
    return follow_segment(bar, left)[0]


def follow_segment(bar: r.AccountBar, left: float) -> tuple[float, float]:
    """Return where on the segment the pool first fails, and a lower bound of its excess at the end.

    The excess is what backs the pool less its requirement: money; the pool fails at 0. ``left`` is
    the excess at the start. The place is 0 to 1 where the pool fails, and the bound is 0 then;
    else the place is UNREACHED.

    The segment is walked in PARTS parts. ``fall`` is a bound of how far the excess can fall on the
    whole segment: as long as it shows that some excess is left, a part is passed without a test.
    Else the end of the part is tested, and a failure is narrowed down by bisection. Each test
    writes the values and marks of the account.
    """
    fall = bound_fall(bar)
    # The last place that was tested: the excess there is ``left``.
    tested = 0.0
    for part in range(1, PARTS + 1):
        place = part / PARTS
        # The requirement may jump where prices cross a strike, so each of them is tested.
        strike = find_strike(bar, tested, place)
        while strike < place:
            left_at_strike = compute_left(bar, strike)
            if left_at_strike <= 0.0:
                return bisect_place(bar, tested, strike), 0.0
            tested = strike
            left = left_at_strike
            strike = find_strike(bar, tested, place)

        # The bound shows that the excess stays over 0 up to here.
        if left > fall * (place - tested):
            continue
        left_at_place = compute_left(bar, place)
        if left_at_place <= 0.0:
            # The parts before were tested or bounded: it fails inside of this one.
            sound = max(tested, (part - 1) / PARTS)
            return bisect_place(bar, sound, place), 0.0
        tested = place
        left = left_at_place
    return UNREACHED, left - fall * (1.0 - tested)


def bisect_place(bar: r.AccountBar, sound: float, failing: float) -> float:
    """Return the first part of the segment that fails, between a sound and a failing one."""
    for _ in range(HALVINGS):
        middle = 0.5 * (sound + failing)
        if compute_left(bar, middle) <= 0.0:
            failing = middle
        else:
            sound = middle
    return failing


def find_strike(bar: r.AccountBar, after: float, before: float) -> float:
    """Return the first place after ``after`` at which a price crosses a strike, at most ``before``.

    Places are parts of the segment, 0 to 1; ``before`` is returned where no strike is crossed. On a
    segment the contract value of the underlying moves on a straight line, and crosses a strike
    where it is size * strike, or -size / strike of an inverse contract.
    """
    terms = bar.terms
    # A strike can make the requirement jump only where an option and its hedge move apart, each to
    # its own extreme.
    if terms.intrabar != r.WORST:
        return before

    brackets = terms.rules.brackets
    positions = bar.state.options.positions
    first = before
    for k in range(len(positions.strikes)):
        i = terms.options.instruments[k]
        start = bar.scratch.walk[i].mark
        way = bar.scratch.walk[i].mark_end - start
        # A price that stands still crosses nothing.
        if positions.quantities[k] == 0.0 or way == 0.0:
            continue

        # Values of inverse contracts are negative, so that they rise with the price too.
        value_at_strike = brackets.sizes[i] * positions.strikes[k]
        if brackets.are_inverse[i]:
            value_at_strike = -brackets.sizes[i] / positions.strikes[k]
        place = (value_at_strike - start) / way

        # The strike at ``after`` was tested already, and must not be found again: rounding may put
        # it a last digit further.
        if after * (1.0 + TOLERANCE) < place < first:
            first = place

    return first


# How far the excess can fall.


def bound_fall(bar: r.AccountBar) -> float:
    """Return an upper bound of how far the excess of the pool can fall on the whole segment: money.

    The excess is what the pool has over its requirement. The bound is the sum of those of
    positions, collateral and options: of each, how far its price goes on the segment times the most
    that the excess can fall per unit of that price. Reads the start and end of the segment from the
    walks in the scratch.
    """
    state = bar.state
    rules = bar.terms.rules
    positions = state.options.positions
    pool = margin.OptionPool(rules, state.held, positions, bar.terms.options.rules)

    fall = 0.0
    for i in range(len(state.positions)):
        if r.is_held(state, i) and not r.is_isolated(bar.terms, i):
            fall += bound_position_fall(bar, i)
    for c in range(len(state.held.amounts)):
        if state.held.amounts[c] != 0.0:
            asset = bar.scratch.assets[c]
            way = abs(asset.price_end - asset.price)
            fall += way * margin.bound_asset_slope(rules, state.held, c)
    for k in range(len(state.options.targets)):
        if positions.quantities[k] != 0.0:
            fall += bound_option_fall(bar, pool, k)

    # Rounding of the sum must not make the bound too small.
    return fall + TOLERANCE * abs(fall)


def bound_position_fall(bar: r.AccountBar, i: int) -> float:
    """Return a bound of how far a cross position can lower the excess on the segment: money.

    Negative where it gains more than its margin takes. The slope counts the change of its value as
    a loss. Where that is a gain, it is taken out of the fall twice: once as it is no loss, and once
    as it raises the excess. Of a spot leg no gain counts, as its haircut takes a part of it.
    """
    change = bar.scratch.walk[i].mark_end - bar.scratch.walk[i].mark
    gain = 0.0
    if not r.is_spot(bar.terms, i):
        gain = max(bar.state.positions[i].quantity * change, 0.0)
    slope = margin.bound_linear_slope(bar.terms.rules, bar.state.held, i)
    return abs(change) * slope - 2.0 * gain


def bound_option_fall(bar: r.AccountBar, pool: margin.OptionPool, k: int) -> float:
    """Return an upper bound of how far option k can lower the excess on the segment: money.

    The excess is what the pool has over its requirement. The bound is how far the index, the price
    of the underlying, goes on the segment, times the most that the excess can fall per unit of it.
    """
    terms = bar.terms
    positions = bar.state.options.positions
    start = options.find_index(terms, k, bar.scratch.mark)
    end = options.find_index(terms, k, bar.scratch.mark_end)
    low = min(start, end)
    high = max(start, end)

    # A segment is straight in the contract value v of an inverse contract, whose price is 1 / v:
    # the price changes by 1 / v^2, at most high / low times the mean of the way.
    way = high - low
    if terms.rules.brackets.are_inverse[terms.options.instruments[k]]:
        way *= high / low
    # A price that stands still moves nothing, whatever the slope, which may be infinite.
    if not way > 0.0:
        return 0.0

    # A call gains with the price, a put (sign -1) against it; a short the other way round.
    gains = positions.quantities[k] * positions.signs[k] * (end - start) > 0.0
    return way * margin.bound_option_slope(pool, k, low, gains)


# Options on one instrument.


@of_options(returns=(0.0, 0.0))
def sum_options_on(
    terms: r.Terms, state: r.AccountState, i: int, values: FloatArray
) -> tuple[float, float]:
    """Return what the options held on instrument i are worth, and their notional: money.

    At contract ``values`` of all instruments, of shape (n,). Writes the marks of all options at
    these values, if any option on the instrument is held.
    """
    worth = 0.0
    notional = 0.0
    is_priced = False
    positions = state.options.positions
    for k in range(len(state.options.targets)):
        if positions.quantities[k] == 0.0 or terms.options.instruments[k] != i:
            continue

        if not is_priced:
            options.price_options(terms, state, values)
            is_priced = True
        worth += positions.quantities[k] * positions.marks[k]
        notional += compute_option_notional(state, k)

    return worth, notional


@of_options(returns=False)
def is_moved_by(terms: r.Terms, state: r.AccountState, i: int) -> bool:
    """Return whether a position or an option is held that the price of instrument i moves."""
    if r.is_held(state, i):
        return True
    for k in range(len(state.options.targets)):
        if terms.options.instruments[k] == i and state.options.positions.quantities[k] != 0.0:
            return True
    return False


# Liquidation prices: at which price of one instrument the pool fails.


def aim_at_ratios(terms: r.Terms, scratch: r.Scratch, i: int, is_up: bool, k: int) -> None:
    """Write segment k of a search for a liquidation price of instrument i into the scratch.

    The segments follow each other away from the price now, up (``is_up``) by the ratios of UP, or
    down by those of DOWN: segment k leads from ratio k to ratio k + 1 of the price. Prices that the
    margin rule moves together with i move by the same ratio; all others stay. Reads the values and
    prices of now where :func:`begin_search` put them aside.
    """
    if is_up:
        start_ratio = UP[k]
        end_ratio = UP[k + 1]
    else:
        start_ratio = DOWN[k]
        end_ratio = DOWN[k + 1]

    now = margin.Waypoint(scratch.value_aside, scratch.price_aside)
    start = margin.Waypoint(scratch.mark, scratch.price)
    end = margin.Waypoint(scratch.mark_end, scratch.price_end)
    # The waypoints share the memory of the scratch, which is written here.
    margin.aim(terms.rules, now, i, start_ratio, start)
    margin.aim(terms.rules, now, i, end_ratio, end)


def begin_search(state: r.AccountState, scratch: r.Scratch) -> None:
    """Put the contract values and prices of now aside, which a search writes over.

    :func:`end_search` takes them back.
    """
    for i in range(len(state.positions)):
        scratch.walk[i].value_aside = state.positions[i].value
    for c in range(len(state.held.prices)):
        scratch.assets[c].price_aside = state.held.prices[c]


def end_search(bar: r.AccountBar) -> None:
    """Write the values and prices that :func:`begin_search` put aside back, and price options."""
    state = bar.state
    for i in range(len(state.positions)):
        state.positions[i].value = bar.scratch.walk[i].value_aside
    for c in range(len(state.held.prices)):
        state.held.prices[c] = bar.scratch.assets[c].price_aside
    options.price_options(bar.terms, state, state.held.values)


@of_options(returns=False)
def probe_near_segments(bar: r.AccountBar, i: int, excess: float) -> bool:
    """Return whether a bound shows that the pool holds on both segments next to the price now.

    One leads down and one up, to the first ratios of the price of instrument i. Writes each of them
    as the segment of the scratch, and the values of now aside (:func:`begin_search`). ``excess`` is
    what the pool has over its requirement now: money.
    """
    begin_search(bar.state, bar.scratch)
    aim_at_ratios(bar.terms, bar.scratch, i, is_up=False, k=0)
    fall_down = bound_fall(bar)
    aim_at_ratios(bar.terms, bar.scratch, i, is_up=True, k=0)
    fall_up = bound_fall(bar)
    return excess > max(fall_down, fall_up)


@of_options(returns=0.0)
def find_value_with_options(bar: r.AccountBar, i: int, is_up: bool, left: float) -> float:
    """Return the contract value of instrument i at which the pool fails, NaN if there is none.

    Searched away from the price now, up or down, while other prices of its group move along.
    ``left`` is the excess now: what the pool has over its requirement, money. The search values the
    account elsewhere; at the end it stands at the prices of now again.
    """
    begin_search(bar.state, bar.scratch)
    value = search_failing_value(bar, i, is_up, left)
    end_search(bar)
    return value


def search_failing_value(bar: r.AccountBar, i: int, is_up: bool, left: float) -> float:
    """Return the first contract value of instrument i at which the pool fails, NaN if none is.

    Goes from segment to segment, up or down, to the last ratio of UP or DOWN. ``left`` is the
    excess at the start of the first one: money. Writes the values of the account on the way.
    """
    left_at_start = left
    for k in range(len(DOWN) - 1):
        aim_at_ratios(bar.terms, bar.scratch, i, is_up, k)

        # The segment before gave a lower bound of the excess. It may be under 0 where the excess is
        # not, so that is computed then.
        if not left_at_start > 0.0:
            left_at_start = compute_left(bar, 0.0)
        place_of_failure = 0.0
        if left_at_start > 0.0:
            place_of_failure, left_at_start = follow_segment(bar, left_at_start)

        # A place over 1 is UNREACHED: the pool holds up to the end of this segment.
        if place_of_failure <= 1.0:
            start = bar.scratch.walk[i].mark
            end = bar.scratch.walk[i].mark_end
            return float(start + place_of_failure * (end - start))
    return math.nan
