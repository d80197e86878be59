"""Where the cross positions of a portfolio fail: on the way between two waypoints, and at a price.

Between waypoints every u and every collateral price moves on a straight line. The distance to
failure ``D = M - level R`` is then concave and piecewise linear between the places where the
smaller side of a group changes (which matters with a pair contingency only). A tangent of a concave
function lies above it, so Newton's method from a failing place goes down to the one root and
reaches it after finitely many pieces.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from backtest.base import FloatArray
from backtest.base.units import TOLERANCE
from backtest.venue.collateral_value import compute_marginal_rate
from backtest.venue.portfolio_requirement import (
    compute_portfolio_backing,
    compute_portfolio_requirement,
    fill_shares,
    is_pool_failing,
)
from backtest.venue.portfolio_rules import Holdings, PortfolioRules, is_in_pool

MOST_STEPS = 100
"""Steps of Newton's method; each ends on another piece, and a portfolio has few."""


class Waypoint(NamedTuple):
    """A value u of each instrument, shape (n,), and a price of each collateral, shape (C,)."""

    values: FloatArray
    prices: FloatArray


def move_holdings(held: Holdings, start: Waypoint, end: Waypoint, place: float) -> None:
    for i in range(len(held.values)):
        step = end.values[i] - start.values[i]
        held.values[i] = end.values[i] if place == 1.0 else start.values[i] + place * step
    for c in range(len(held.prices)):
        step = end.prices[c] - start.prices[c]
        held.prices[c] = end.prices[c] if place == 1.0 else start.prices[c] + place * step


def compute_distance_left(rules: PortfolioRules, held: Holdings, cash: float) -> float:
    """Return D = M - level R, negative where the cross positions fail."""
    backing = compute_portfolio_backing(rules, held, cash)
    return backing - rules.level * compute_portfolio_requirement(rules, held)


def compute_slope(
    rules: PortfolioRules, held: Holdings, start: Waypoint, end: Waypoint, shares: FloatArray
) -> float:
    fill_shares(rules, held, shares)
    slope, n = 0.0, len(held.values)
    for i in range(n):
        if is_in_pool(rules, held, i):
            step = end.values[i] - start.values[i]
            slope += held.quantities[i] * step
            if rules.has_scenarios or not rules.brackets.are_valued_at_entry[i]:
                slope -= rules.level * (shares[i] / held.values[i] * step)
    for c in range(len(held.prices)):
        if held.amounts[c] != 0.0:
            step = end.prices[c] - start.prices[c]
            value = held.amounts[c] * held.prices[c]
            rate = compute_marginal_rate(rules.collateral, c, value)
            slope += rate * held.amounts[c] * step
            slope -= rules.level * (shares[n + c] / held.prices[c] * step)
    return slope


def find_next_break(
    rules: PortfolioRules, held: Holdings, start: Waypoint, end: Waypoint, place: float
) -> float:
    nearest = 1.0
    if not rules.has_scenarios or rules.scenarios.pair_contingency <= 0.0:
        return nearest
    for g in range(len(rules.scenarios.products)):
        at_start, at_end = 0.0, 0.0
        for order in range(rules.scenarios.starts[g], rules.scenarios.starts[g + 1]):
            i = rules.scenarios.members[order]
            if is_in_pool(rules, held, i):
                at_start += held.quantities[i] * abs(start.values[i])
                at_end += held.quantities[i] * abs(end.values[i])
        if at_start * at_end < 0.0:
            found = at_start / (at_start - at_end)
            if place * (1.0 + TOLERANCE) < found < nearest:
                nearest = found
    return nearest


def find_failure(
    rules: PortfolioRules,
    held: Holdings,
    cash: float,
    start: Waypoint,
    end: Waypoint,
    shares: FloatArray,
) -> float:
    move_holdings(held, start, end, 0.0)
    if is_pool_failing(rules, held, cash):
        return 0.0
    place = 0.0
    while place < 1.0:
        after = find_next_break(rules, held, start, end, place)
        move_holdings(held, start, end, after)
        if is_pool_failing(rules, held, cash):
            return descend(rules, held, cash, start, end, place, after, shares)
        place = after
    return math.nan


def descend(
    rules: PortfolioRules,
    held: Holdings,
    cash: float,
    start: Waypoint,
    end: Waypoint,
    low: float,
    place: float,
    shares: FloatArray,
) -> float:
    high = place
    for _ in range(MOST_STEPS):
        left = compute_distance_left(rules, held, cash)
        slope = compute_slope(rules, held, start, end, shares)
        if not slope < 0.0:
            break
        better = min(high, max(low, place - left / slope))
        if abs(better - place) <= 1e-15 * place:
            break
        place = better
        move_holdings(held, start, end, place)
    return place
