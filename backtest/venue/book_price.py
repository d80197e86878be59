"""The price of one instrument at which the cross positions of a book fail.

Under brackets the other instruments stay where they are. Under scenarios the instrument's group,
and the collateral that cancels its risk, move along by the same ratio.
"""

from __future__ import annotations

import math

from backtest.base.units import FloatArray
from backtest.venue.book_failure import Waypoint, find_failure, move_holdings
from backtest.venue.book_requirement import compute_own_maintenance, is_pool_failing
from backtest.venue.book_rules import BookRules, Holdings, is_in_pool, pick_rules
from backtest.venue.collateral_value import compute_collateral_value
from backtest.venue.liquidation_price import compute_liquidation_value

NEAR_ZERO = 1e-12
"""The lowest price that is searched, as a fraction of the price now."""
FAR_AWAY = 1e12
"""The highest price that is searched, as a multiple of the price now."""
HALVINGS = 60
"""Steps of bisection: beyond the last digit."""


def compute_base(book: BookRules, held: Holdings, cash: float, i: int) -> float:
    """Return what backs one cross position without its own value: M less the others' margin."""
    base = cash
    for j in range(len(held.quantities)):
        if j != i and is_in_pool(book, held, j):
            base += held.quantities[j] * held.values[j]
    base += compute_collateral_value(book.collateral, held)
    for j in range(len(held.quantities)):
        if j != i and is_in_pool(book, held, j):
            base -= compute_own_maintenance(book, held, j)
    return base


def compute_bracket_failure(book: BookRules, held: Holdings, cash: float, i: int) -> float:
    """Return u of one cross position at which the pool fails under brackets of level 1.

    The closed form of a single position; NaN if no price liquidates.
    """
    rules = pick_rules(book.brackets, i)
    base = compute_base(book, held, cash, i)
    return compute_liquidation_value(
        rules, held.quantities[i], held.entries[i], base, rules.multiplier
    )


def find_group(book: BookRules, i: int) -> int:
    """Return the group of an instrument; -2 under brackets, which have none."""
    if book.has_scenarios:
        for g in range(len(book.scenarios.products)):
            for place in range(book.scenarios.starts[g], book.scenarios.starts[g + 1]):
                if book.scenarios.members[place] == i:
                    return g
    return -2


def is_moving(book: BookRules, i: int, j: int) -> bool:
    """Return whether instrument j moves with instrument i: itself, or one of its group."""
    return j == i or (book.has_scenarios and find_group(book, i) == find_group(book, j))


def aim(book: BookRules, start: Waypoint, i: int, ratio: float, end: Waypoint) -> None:
    """Write the waypoint at which the price of i, its group and their collateral is multiplied."""
    for j in range(len(start.values)):
        factor = 1.0
        if is_moving(book, i, j):
            factor = 1.0 / ratio if book.brackets.are_inverse[j] else ratio
        end.values[j] = start.values[j] * factor
    group = find_group(book, i)
    for c in range(len(start.prices)):
        factor = ratio if book.collateral.groups[c] == group else 1.0
        end.prices[c] = start.prices[c] * factor


def has_one_kind(book: BookRules, held: Holdings, i: int) -> bool:
    """Return whether all that moves with an instrument is linear, or all inverse, as it is."""
    is_inverse = book.brackets.are_inverse[i]
    for j in range(len(held.quantities)):
        is_other = book.brackets.are_inverse[j] != is_inverse
        if is_other and is_in_pool(book, held, j) and is_moving(book, i, j):
            return False
    group = find_group(book, i)
    for c in range(len(held.amounts)):
        if is_inverse and held.amounts[c] != 0.0 and book.collateral.groups[c] == group:
            return False
    return True


def bisect_ratio(
    book: BookRules,
    held: Holdings,
    cash: float,
    i: int,
    ratio: float,
    start: Waypoint,
    end: Waypoint,
) -> float:
    """Bisect between 1 and a failing price ratio for the ratio at which the pool fails."""
    sound, failing = 1.0, ratio
    for _ in range(HALVINGS):
        middle = 0.5 * (sound + failing)
        aim(book, start, i, middle, end)
        move_holdings(held, start, end, 1.0)
        if is_pool_failing(book, held, cash):
            failing = middle
        else:
            sound = middle
    return failing


def search_ratio(
    book: BookRules,
    held: Holdings,
    cash: float,
    i: int,
    first: float,
    start: Waypoint,
    end: Waypoint,
    shares: FloatArray,
) -> float:
    """Return the ratio at which the pool fails in the direction of ``first``; NaN if none."""
    ratio = first
    while NEAR_ZERO <= ratio <= FAR_AWAY:
        aim(book, start, i, ratio, end)
        place = find_failure(book, held, cash, start, end, shares)
        if not math.isnan(place):
            if not has_one_kind(book, held, i):
                return bisect_ratio(book, held, cash, i, ratio, start, end)
            if book.brackets.are_inverse[i]:
                return 1.0 / (1.0 + place * (1.0 / ratio - 1.0))
            return 1.0 + place * (ratio - 1.0)
        ratio *= ratio
    return math.nan


def find_failure_ratio(
    book: BookRules,
    held: Holdings,
    cash: float,
    i: int,
    start: Waypoint,
    end: Waypoint,
    shares: FloatArray,
) -> float:
    """Return the ratio of an instrument's price at which the pool fails, the nearer of two.

    1 if it fails now, NaN if no price does. ``start`` has a copy of the values and prices now,
    ``end`` and ``shares`` are room. The holdings are valued at the start again afterwards.
    """
    aim(book, start, i, 1.0, end)
    move_holdings(held, start, end, 0.0)
    if is_pool_failing(book, held, cash):
        return 1.0
    down = search_ratio(book, held, cash, i, 0.5, start, end, shares)
    up = search_ratio(book, held, cash, i, 2.0, start, end, shares)
    move_holdings(held, start, end, 0.0)
    if math.isnan(up) or 1.0 - down < up - 1.0:
        return down
    return up
