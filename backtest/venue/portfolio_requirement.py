"""The margin requirement of a portfolio of cross positions, and each position's part in it."""

from __future__ import annotations

from backtest.base import FloatArray
from backtest.base.units import TOLERANCE
from backtest.venue.collateral_value import compute_collateral_value
from backtest.venue.portfolio_rules import (
    BracketTables,
    Holdings,
    PortfolioRules,
    is_cross,
    is_in_pool,
    is_spot_leg,
)
from backtest.venue.scenario_loss import (
    compute_exposure,
    compute_gain_rate,
    compute_gross,
    compute_group_loss,
    compute_offset,
    compute_scenario_loss,
    compute_side,
    count_gain,
    find_group_row,
    find_product_row,
)


def compute_tested_notional(rules: PortfolioRules, held: Holdings, i: int) -> float:
    value = held.entries[i] if rules.brackets.are_valued_at_entry[i] else held.values[i]
    notional: float = abs(held.quantities[i]) * abs(value)
    return notional


def find_bracket(tables: BracketTables, i: int, notional: float) -> int:
    k = 0
    while k + 1 < tables.counts[i] and notional > tables.floors[i, k + 1]:
        k += 1
    return k


def scale_rate(rate: float, multiplier: float, close_fee: float) -> float:
    return min(1.0, multiplier * rate + close_fee)


def find_maintenance(tables: BracketTables, i: int, notional: float) -> float:
    x, fee = tables.multipliers[i], tables.close_fees[i]
    rate, amount, k = scale_rate(tables.rates[i, 0], x, fee), 0.0, 1
    while k < tables.counts[i] and notional > tables.floors[i, k]:
        after = scale_rate(tables.rates[i, k], x, fee)
        amount += tables.floors[i, k] * (after - rate)
        rate = after
        k += 1
    return rate * notional - amount


def sum_maintenance(rules: PortfolioRules, held: Holdings, first: int, stop: int) -> float:
    tables, total = rules.brackets, 0.0
    for i in range(first, stop):
        if is_cross(held.quantities[i], tables.are_isolated[i]):
            value = held.entries[i] if tables.are_valued_at_entry[i] else held.values[i]
            notional = abs(held.quantities[i]) * abs(value)
            total += find_maintenance(tables, i, notional)
    return total


def compute_own_maintenance(rules: PortfolioRules, held: Holdings, i: int) -> float:
    return sum_maintenance(rules, held, i, i + 1)


def find_own_maintenance(rules: PortfolioRules, held: Holdings, i: int) -> float:
    return find_maintenance(rules.brackets, i, compute_tested_notional(rules, held, i))


def sum_initial(rules: PortfolioRules, held: Holdings) -> float:
    tables, total = rules.brackets, 0.0
    for i in range(len(held.quantities)):
        if is_cross(held.quantities[i], tables.are_isolated[i]):
            notional = abs(held.quantities[i] * abs(held.values[i]))
            x, k = tables.initial_multipliers[i], 0
            if tables.settings[i] > 0.0:
                total += notional / min(tables.settings[i], tables.leverages[i, 0] / x)
            else:
                while k + 1 < tables.counts[i] and notional > tables.caps[i, k]:
                    k += 1
                total += notional * x / tables.leverages[i, k]
    return total


def combine_scenarios(
    rules: PortfolioRules, loss: float, gross: float, offset: float, is_initial: bool
) -> float:
    tables = rules.scenarios
    factor = tables.initial_factor if is_initial else tables.factor
    contingency = tables.initial_contingency if is_initial else tables.contingency
    least = max(factor * loss, tables.minimum * gross)
    return least + contingency * gross + tables.pair_contingency * offset


def compute_scenario_margin(rules: PortfolioRules, held: Holdings, is_initial: bool) -> float:
    loss, gross = compute_scenario_loss(rules, held), compute_gross(rules, held)
    offset = compute_offset(rules, held) if rules.scenarios.pair_contingency > 0.0 else 0.0
    return combine_scenarios(rules, loss, gross, offset, is_initial)


def compute_portfolio_requirement(rules: PortfolioRules, held: Holdings) -> float:
    """Return R, the maintenance requirement of all cross positions, in the settlement currency."""
    if rules.has_scenarios:
        return compute_scenario_margin(rules, held, False)
    return sum_maintenance(rules, held, 0, len(held.quantities))


def compute_portfolio_initial(rules: PortfolioRules, held: Holdings) -> float:
    """Return the initial margin of all cross positions, in the settlement currency."""
    if rules.has_scenarios:
        return compute_scenario_margin(rules, held, True)
    total = sum_initial(rules, held)
    return total - compute_haircuts(rules, held) if rules.spot.has_any else total


def compute_haircut(rules: PortfolioRules, held: Holdings, i: int) -> float:
    if not is_spot_leg(rules, i) or not held.quantities[i] > 0.0:
        return 0.0
    return float(rules.spot.haircuts[i] * (held.quantities[i] * held.values[i]))


def compute_haircuts(rules: PortfolioRules, held: Holdings) -> float:
    total = 0.0
    if rules.spot.has_any:
        for i in range(len(held.quantities)):
            total += compute_haircut(rules, held, i)
    return total


def compute_portfolio_backing(rules: PortfolioRules, held: Holdings, cash: float) -> float:
    total = compute_full_backing(rules, held, cash)
    return total - compute_haircuts(rules, held) if rules.spot.has_any else total


def compute_full_backing(rules: PortfolioRules, held: Holdings, cash: float) -> float:
    total = cash
    for i in range(len(held.quantities)):
        if is_cross(held.quantities[i], rules.brackets.are_isolated[i]):
            total += held.quantities[i] * held.values[i]
    return total + compute_collateral_value(rules.collateral, held)


def has_pool(rules: PortfolioRules, held: Holdings) -> bool:
    count = 0
    for i in range(len(held.quantities)):
        count += is_cross(held.quantities[i], rules.brackets.are_isolated[i])
    return count > 0


def is_pool_failing(rules: PortfolioRules, held: Holdings, cash: float) -> bool:
    if not has_pool(rules, held):
        return False
    needed = rules.level * compute_portfolio_requirement(rules, held)
    return compute_portfolio_backing(rules, held, cash) <= needed * (1.0 + TOLERANCE)


# ------------------------------------------------------------------------------- Euler shares


def fill_shares(rules: PortfolioRules, held: Holdings, shares: FloatArray) -> None:
    """Write each position's Euler share of R, ``q_i dR/dq_i``, and each collateral's.

    ``shares`` has shape (n + C,). At a kink the derivative is that of the active row, the first of
    equal ones, and of the lower bracket. Under scenarios the shares add up to R. Under brackets
    they exceed it by the cumulative amounts. A spot leg has its haircut / level besides: what M is
    without counts as if it were required.
    """
    shares[:] = 0.0
    if rules.has_scenarios:
        fill_scenario_shares(rules, held, shares)
    else:
        for i in range(len(held.quantities)):
            if is_in_pool(rules, held, i):
                notional = compute_tested_notional(rules, held, i)
                k = find_bracket(rules.brackets, i, notional)
                x, fee = rules.brackets.multipliers[i], rules.brackets.close_fees[i]
                shares[i] = scale_rate(rules.brackets.rates[i, k], x, fee) * notional
    if rules.spot.has_any:
        for i in range(len(held.quantities)):
            shares[i] += compute_haircut(rules, held, i) / rules.level


def fill_scenario_shares(rules: PortfolioRules, held: Holdings, shares: FloatArray) -> None:
    tables = rules.scenarios
    loss, gross = compute_scenario_loss(rules, held), compute_gross(rules, held)
    is_least = tables.minimum * gross > tables.factor * loss
    if not is_least:
        add_loss_shares(rules, held, shares)
    rate = tables.contingency + (tables.minimum if is_least else 0.0)
    for i in range(len(held.quantities)):
        if is_in_pool(rules, held, i):
            shares[i] += rate * abs(compute_exposure(held, i))
    if tables.pair_contingency > 0.0:
        for g in range(len(tables.products)):
            add_offset_shares(rules, held, g, shares)


def add_loss_shares(rules: PortfolioRules, held: Holdings, shares: FloatArray) -> None:
    tables = rules.scenarios
    for g in range(len(tables.products)):
        counted = 1.0
        if tables.is_same_row:
            k = find_product_row(tables, tables.products[g])
            if k >= 0:
                counted = count_gain(tables.offset, compute_group_loss(tables, g, k))
        else:
            k = find_group_row(tables, g)
        if k >= 0:
            add_row_shares(
                rules, held, g, k, -tables.factor * counted * tables.weights[g, k], shares
            )


def add_row_shares(
    rules: PortfolioRules, held: Holdings, g: int, k: int, scale: float, shares: FloatArray
) -> None:
    tables = rules.scenarios
    move = tables.moves[g, k]
    for place in range(tables.starts[g], tables.starts[g + 1]):
        i = tables.members[place]
        if is_in_pool(rules, held, i):
            rate = compute_gain_rate(rules.brackets.are_inverse[i], move)
            shares[i] += scale * (compute_exposure(held, i) * rate)
    for c in range(len(held.amounts)):
        if rules.collateral.groups[c] == g and held.amounts[c] != 0.0:
            shares[len(held.quantities) + c] += scale * (held.amounts[c] * held.prices[c] * move)


def add_offset_shares(rules: PortfolioRules, held: Holdings, g: int, shares: FloatArray) -> None:
    longs, shorts = compute_side(rules, held, g, 1.0), compute_side(rules, held, g, -1.0)
    of_longs = 1.0 if longs < shorts else 0.0 if longs > shorts else 0.5
    rate = rules.scenarios.pair_contingency
    for place in range(rules.scenarios.starts[g], rules.scenarios.starts[g + 1]):
        i = rules.scenarios.members[place]
        if is_in_pool(rules, held, i):
            exposure = compute_exposure(held, i)
            part = of_longs if exposure > 0.0 else 1.0 - of_longs
            shares[i] += rate * part * abs(exposure)
