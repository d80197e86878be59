"""How fast M - level R can change while prices move: bounds, not estimates."""

from __future__ import annotations

import math

from backtest.venue.option_records import (
    BY_SCENARIOS,
    BY_STRATEGIES,
    OptionPositions,
    OptionRules,
)
from backtest.venue.option_scenarios import compute_discount
from backtest.venue.portfolio_rules import BracketTables, Holdings, PortfolioRules
from backtest.venue.scenario_loss import compute_gain_rate

DENSITY = 0.39894228040143276
"""The largest value of the normal density."""


def bound_value_slope(options: OptionPositions, i: int, low: float, move: float) -> float:
    size, years, rate = options.sizes[i], options.years[i], options.rates[i]
    discount = math.exp(abs(rate) * years)
    forward = low * options.bases[i] * move
    if options.are_coin[i]:
        return float(size * discount / low * max(1.0, options.strikes[i] / forward))
    return float(size * discount * options.bases[i] * move)


def bound_turn(options: OptionPositions, rules: OptionRules, i: int, low: float) -> float:
    shocks, root = rules.shocks, math.sqrt(options.years[i])
    most = 0.0
    for row in range(2):
        cap = shocks.skew[2 * row] + shocks.skew[2 * row + 1] * root
        level = shocks.skew[6] + shocks.skew[7] * root
        width = max(shocks.skew[4], root * shocks.skew[5] * level)
        if width > 0.0:
            most = max(most, abs(cap) / width)
    vega = DENSITY * root * options.sizes[i] * math.exp(abs(options.rates[i]) * options.years[i])
    slope = vega * options.volatilities[i] * most
    if options.are_coin[i]:
        return float(slope / low)
    return float(slope * options.bases[i])


def bound_scenario_slope(
    packed: PortfolioRules, options: OptionPositions, rules: OptionRules, i: int, low: float
) -> float:
    shocks, g, most = rules.shocks, options.groups[i], 0.0
    years, rate = options.years[i], options.rates[i]
    here = bound_value_slope(options, i, low, 1.0)
    discount = max(
        1.0,
        compute_discount(shocks, 1.0, years, rate),
        compute_discount(shocks, -1.0, years, rate),
    )
    for k in range(shocks.counts[g]):
        moved = bound_value_slope(options, i, low, 1.0 + shocks.moves[g, k])
        most = max(most, shocks.weights[g, k] * (moved * discount + here))
    if shocks.has_skew:
        turned = here + 2.0 * bound_turn(options, rules, i, low)
        most += 2.0 * (turned * discount + here)
    if shocks.has_expiry_charge:
        move = shocks.expiry_charge[0]
        share = shocks.expiry_charge[1] + shocks.expiry_charge[2] * years
        widest = max(
            bound_value_slope(options, i, low, 1.0 + move),
            bound_value_slope(options, i, low, 1.0 - move),
        )
        most += share * (widest + here)
    most += max(shocks.delta_charge, shocks.yearly_delta_charge * years) * bound_delta_slope(
        options, i, low
    )
    charge = 0.0 if options.are_coin[i] else shocks.short_charge * options.sizes[i]
    return float(packed.scenarios.factor * most + charge)


def bound_relief_slope(
    packed: PortfolioRules, options: OptionPositions, rules: OptionRules, i: int, low: float
) -> float:
    """Return the most that what is taken off the losses of a group changes, in coins."""
    shocks, g, most = rules.shocks, options.groups[i], 0.0
    if rules.kind == BY_SCENARIOS and options.are_coin[i]:
        for k in range(shocks.counts[g]):
            most = max(most, shocks.reliefs[g, k])
    return float(packed.level * packed.scenarios.factor * most / (low * low))


def bound_delta_slope(options: OptionPositions, i: int, low: float) -> float:
    s = options.volatilities[i] * math.sqrt(options.years[i])
    bend = DENSITY / s if s > 0.0 else math.inf
    if options.are_coin[i]:
        return float(options.sizes[i] * bend / low)
    return float(options.sizes[i] * (1.0 + bend))


def bound_option_slope(
    packed: PortfolioRules,
    options: OptionPositions,
    rules: OptionRules,
    i: int,
    low: float,
    gains: bool,
) -> float:
    here, rates, size = bound_value_slope(options, i, low, 1.0), rules.rates, options.sizes[i]
    if rules.kind == BY_SCENARIOS:
        needed = bound_scenario_slope(packed, options, rules, i, low)
    elif rules.kind == BY_STRATEGIES:
        needed = here + size * (2.0 + rates.naked + rates.least_call)
    else:
        unit = 0.0 if options.are_coin[i] else size
        needed = here + rates.factor * (rates.maintenance * unit + rates.of_mark * here)
    lost = 0.0 if gains else here
    return float(abs(options.quantities[i]) * (lost + packed.level * needed))


def bound_linear_slope(packed: PortfolioRules, held: Holdings, i: int) -> float:
    if packed.has_scenarios:
        rate = bound_scenario_rate(packed, packed.brackets.are_inverse[i])
    else:
        rate = find_highest_rate(packed.brackets, i)
    return float(abs(held.quantities[i]) * (1.0 + packed.level * rate))


def find_highest_rate(tables: BracketTables, i: int) -> float:
    last = tables.counts[i] - 1
    return float(min(1.0, tables.multipliers[i] * tables.rates[i, last] + tables.close_fees[i]))


def bound_scenario_rate(packed: PortfolioRules, is_inverse: bool) -> float:
    tables, most = packed.scenarios, 0.0
    for g in range(len(tables.products)):
        for k in range(tables.counts[g]):
            rate = compute_gain_rate(is_inverse, tables.moves[g, k])
            most = max(most, tables.weights[g, k] * abs(rate))
    found = tables.factor * most + tables.minimum + tables.contingency
    return float(found + tables.pair_contingency)


def bound_asset_slope(packed: PortfolioRules, held: Holdings, c: int) -> float:
    rate = bound_scenario_rate(packed, False) if packed.has_scenarios else 0.0
    return float(abs(held.amounts[c]) * (1.0 + packed.level * rate))
