"""The price of one instrument at which the cross positions of a portfolio fail."""

from __future__ import annotations

import math

from backtest.base import FloatArray
from backtest.venue.portfolio_failure import Waypoint, find_failure, move_holdings
from backtest.venue.portfolio_requirement import is_pool_failing
from backtest.venue.portfolio_rules import Holdings, PortfolioRules, is_in_pool

NEAR_ZERO = 1e-12
"""The lowest price that is searched, as a fraction of the price now."""
FAR_AWAY = 1e12
"""The highest price that is searched, as a multiple of the price now."""
HALVINGS = 60
"""Steps of bisection: beyond the last digit."""


def find_group(packed: PortfolioRules, i: int) -> int:
    if packed.has_scenarios:
        for g in range(len(packed.scenarios.products)):
            for place in range(packed.scenarios.starts[g], packed.scenarios.starts[g + 1]):
                if packed.scenarios.members[place] == i:
                    return g
    return -2


def is_moving(packed: PortfolioRules, i: int, j: int) -> bool:
    return j == i or (packed.has_scenarios and find_group(packed, i) == find_group(packed, j))


def aim(packed: PortfolioRules, start: Waypoint, i: int, ratio: float, end: Waypoint) -> None:
    for j in range(len(start.values)):
        factor = 1.0
        if is_moving(packed, i, j):
            factor = 1.0 / ratio if packed.brackets.are_inverse[j] else ratio
        end.values[j] = start.values[j] * factor
    group = find_group(packed, i)
    for c in range(len(start.prices)):
        factor = ratio if packed.collateral.groups[c] == group else 1.0
        end.prices[c] = start.prices[c] * factor


def has_one_kind(packed: PortfolioRules, held: Holdings, i: int) -> bool:
    is_inverse = packed.brackets.are_inverse[i]
    for j in range(len(held.quantities)):
        is_other = packed.brackets.are_inverse[j] != is_inverse
        if is_other and is_in_pool(packed, held, j) and is_moving(packed, i, j):
            return False
    group = find_group(packed, i)
    for c in range(len(held.amounts)):
        if is_inverse and held.amounts[c] != 0.0 and packed.collateral.groups[c] == group:
            return False
    return True


def bisect_ratio(
    packed: PortfolioRules,
    held: Holdings,
    cash: float,
    i: int,
    ratio: float,
    start: Waypoint,
    end: Waypoint,
) -> float:
    sound, failing = 1.0, ratio
    for _ in range(HALVINGS):
        middle = 0.5 * (sound + failing)
        aim(packed, start, i, middle, end)
        move_holdings(held, start, end, 1.0)
        if is_pool_failing(packed, held, cash):
            failing = middle
        else:
            sound = middle
    return failing


def search_ratio(
    packed: PortfolioRules,
    held: Holdings,
    cash: float,
    i: int,
    first: float,
    start: Waypoint,
    end: Waypoint,
    shares: FloatArray,
) -> float:
    ratio = first
    while NEAR_ZERO <= ratio <= FAR_AWAY:
        aim(packed, start, i, ratio, end)
        place = find_failure(packed, held, cash, start, end, shares)
        if not math.isnan(place):
            if not has_one_kind(packed, held, i):
                return bisect_ratio(packed, held, cash, i, ratio, start, end)
            if packed.brackets.are_inverse[i]:
                return 1.0 / (1.0 + place * (1.0 / ratio - 1.0))
            return 1.0 + place * (ratio - 1.0)
        ratio *= ratio
    return math.nan


def find_failure_ratio(
    packed: PortfolioRules,
    held: Holdings,
    cash: float,
    i: int,
    start: Waypoint,
    end: Waypoint,
    shares: FloatArray,
) -> float:
    aim(packed, start, i, 1.0, end)
    move_holdings(held, start, end, 0.0)
    if is_pool_failing(packed, held, cash):
        return 1.0
    down = search_ratio(packed, held, cash, i, 0.5, start, end, shares)
    up = search_ratio(packed, held, cash, i, 2.0, start, end, shares)
    move_holdings(held, start, end, 0.0)
    if math.isnan(up) or 1.0 - down < up - 1.0:
        return down
    return up
