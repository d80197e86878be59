"""Where the cross positions of an account with options fail on the way between two waypoints."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backtest.account.option_liquidation import compute_option_notional
from backtest.account.option_marks import find_index, price_options
from backtest.account.portfolio_balance import compute_caution
from backtest.account.portfolio_records import (
    WORST,
    AccountState,
    Scratch,
    Terms,
    is_held,
    is_isolated,
    is_spot,
)
from backtest.base.units import TOLERANCE
from backtest.venue import (
    Waypoint,
    aim,
    bound_asset_slope,
    bound_linear_slope,
    bound_option_slope,
    bound_relief_slope,
    move_holdings,
)

if TYPE_CHECKING:
    from backtest.base import FloatArray

PARTS = 16
"""Places at which a segment is tested."""
HALVINGS = 60
"""Steps of bisection: beyond the last digit."""
DOWN, UP = (1.0, 0.88, 0.7, 0.5, 0.3, 0.1), (1.0, 1.12, 1.3, 1.5, 1.7, 1.9)
"""Ratios of the price between which a liquidation price is searched."""


def value_on_segment(terms: Terms, state: AccountState, scratch: Scratch, place: float) -> None:
    start = Waypoint(scratch.mark, scratch.price)
    end = Waypoint(scratch.mark_end, scratch.price_end)
    move_holdings(state.held, start, end, place)
    price_options(terms, state, state.held.values)


def compute_left(terms: Terms, state: AccountState, scratch: Scratch, place: float) -> float:
    """Return D = M - level R less rounding at a place; the pool fails at 0."""
    value_on_segment(terms, state, scratch, place)
    return compute_caution(terms, state)


def find_place_with_options(terms: Terms, state: AccountState, scratch: Scratch) -> float:
    left = compute_left(terms, state, scratch, 0.0)
    if left <= 0.0:
        return 0.0
    return follow_segment(terms, state, scratch, left)[0]


def follow_segment(
    terms: Terms, state: AccountState, scratch: Scratch, left: float
) -> tuple[float, float]:
    bound, sound = bound_fall(terms, state, scratch), 0.0
    for part in range(1, PARTS + 1):
        place = part / PARTS
        strike = find_strike(terms, state, scratch, sound, place)
        while strike < place:
            strike_left = compute_left(terms, state, scratch, strike)
            if strike_left <= 0.0:
                return bisect_place(terms, state, scratch, sound, strike), 0.0
            sound, left = strike, strike_left
            strike = find_strike(terms, state, scratch, sound, place)
        if left > bound * (place - sound):
            continue
        tested = compute_left(terms, state, scratch, place)
        if tested <= 0.0:
            return bisect_place(terms, state, scratch, max(sound, (part - 1) / PARTS), place), 0.0
        sound, left = place, tested
    return 2.0, left - bound * (1.0 - sound)


def bisect_place(
    terms: Terms, state: AccountState, scratch: Scratch, sound: float, failing: float
) -> float:
    for _ in range(HALVINGS):
        middle = 0.5 * (sound + failing)
        if compute_left(terms, state, scratch, middle) <= 0.0:
            failing = middle
        else:
            sound = middle
    return failing


def find_strike(
    terms: Terms, state: AccountState, scratch: Scratch, after: float, before: float
) -> float:
    found = before
    if terms.intrabar != WORST:
        return found
    brackets, positions = terms.rules.brackets, state.options.positions
    for k in range(len(state.options.targets)):
        i = terms.options.instruments[k]
        size, step = brackets.sizes[i], scratch.mark_end[i] - scratch.mark[i]
        if positions.quantities[k] == 0.0 or step == 0.0:
            continue
        value = size * positions.strikes[k]
        if brackets.are_inverse[i]:
            value = -size / positions.strikes[k]
        place = (value - scratch.mark[i]) / step
        if after * (1.0 + TOLERANCE) < place < found:
            found = place
    return found


def bound_fall(terms: Terms, state: AccountState, scratch: Scratch) -> float:
    found, packed = 0.0, terms.rules
    for i in range(len(state.margin)):
        if is_held(state, i) and not is_isolated(terms, i):
            found += bound_position(terms, state, scratch, i)
    for c in range(len(state.held.amounts)):
        if state.held.amounts[c] != 0.0:
            step = abs(scratch.price_end[c] - scratch.price[c])
            found += step * bound_asset_slope(packed, state.held, c)
    rules, positions = terms.options.rules, state.options.positions
    for k in range(len(state.options.targets)):
        if positions.quantities[k] != 0.0:
            start, end = (
                find_index(terms, k, scratch.mark),
                find_index(terms, k, scratch.mark_end),
            )
            low, step = min(start, end), abs(end - start)
            if terms.rules.brackets.are_inverse[terms.options.instruments[k]]:
                step *= max(start, end) / low  # prices move fastest at the higher end
            gains = positions.quantities[k] * positions.signs[k] * (end - start) > 0.0
            slope = bound_option_slope(packed, positions, rules, k, low, gains)
            slope += bound_relief_slope(packed, positions, rules, k, low)
            found += step * slope if step > 0.0 else 0.0
    return found + TOLERANCE * abs(found)


def bound_position(terms: Terms, state: AccountState, scratch: Scratch, i: int) -> float:
    change = scratch.mark_end[i] - scratch.mark[i]
    gain = 0.0 if is_spot(terms, i) else max(state.held.quantities[i] * change, 0.0)
    return float(abs(change) * bound_linear_slope(terms.rules, state.held, i) - 2.0 * gain)


def sum_options_on(terms: Terms, state: AccountState, i: int, values: FloatArray) -> float:
    found, is_priced, positions = 0.0, False, state.options.positions
    for k in range(len(state.options.targets)):
        if positions.quantities[k] != 0.0 and terms.options.instruments[k] == i:
            if not is_priced:
                price_options(terms, state, values)
                is_priced = True
            found += positions.quantities[k] * positions.marks[k]
    return found


def sum_notionals_on(terms: Terms, state: AccountState, i: int, values: FloatArray) -> float:
    found, is_priced, own = 0.0, False, state.options
    for k in range(len(own.targets)):
        if own.positions.quantities[k] != 0.0 and terms.options.instruments[k] == i:
            if not is_priced:
                price_options(terms, state, values)
                is_priced = True
            found += compute_option_notional(state, k)
    return found


# ---------------------------------------------------------------------------- liquidation prices


def is_moved_by(terms: Terms, state: AccountState, i: int) -> bool:
    found = is_held(state, i)
    for k in range(len(state.options.targets)):
        is_on = terms.options.instruments[k] == i
        found = found or (is_on and state.options.positions.quantities[k] != 0.0)
    return bool(found)


def aim_at_ratios(terms: Terms, scratch: Scratch, i: int, step: int) -> None:
    first, second = DOWN[max(step, 0)], DOWN[max(step, 0) + 1]
    if step < 0:
        first, second = UP[-step - 1], UP[-step]
    base = Waypoint(scratch.last, scratch.kept_assets)
    aim(terms.rules, base, i, first, Waypoint(scratch.mark, scratch.price))
    aim(terms.rules, base, i, second, Waypoint(scratch.mark_end, scratch.price_end))


def begin_search(state: AccountState, scratch: Scratch) -> None:
    for i in range(len(state.margin)):
        scratch.last[i] = state.held.values[i]
    for c in range(len(state.held.prices)):
        scratch.kept_assets[c] = state.held.prices[c]


def end_search(terms: Terms, state: AccountState, scratch: Scratch) -> None:
    for i in range(len(state.margin)):
        state.held.values[i] = scratch.last[i]
    for c in range(len(state.held.prices)):
        state.held.prices[c] = scratch.kept_assets[c]
    price_options(terms, state, state.held.values)


def is_far_with_options(
    terms: Terms, state: AccountState, scratch: Scratch, i: int, excess: float
) -> bool:
    begin_search(state, scratch)
    aim_at_ratios(terms, scratch, i, 0)
    fall = bound_fall(terms, state, scratch)
    aim_at_ratios(terms, scratch, i, -1)
    return excess > max(fall, bound_fall(terms, state, scratch))


def find_value_with_options(
    terms: Terms, state: AccountState, scratch: Scratch, i: int, is_up: bool, left: float
) -> float:
    begin_search(state, scratch)
    found = math.nan
    for k in range(len(DOWN) - 1):
        aim_at_ratios(terms, scratch, i, -1 - k if is_up else k)
        if not left > 0.0:
            left = compute_left(terms, state, scratch, 0.0)
        place, left = follow_segment(terms, state, scratch, left) if left > 0.0 else (0.0, left)
        if place <= 1.0:
            found = scratch.mark[i] + place * (scratch.mark_end[i] - scratch.mark[i])
            break
    end_search(terms, state, scratch)
    return float(found)
