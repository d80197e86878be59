"""Margin of the options of an account: scenarios, each option by itself, and bounds.

Row k of scenarios moves the index of a group by ``m_k`` and the volatility of each option by the
row's shock of its tenor. The loss of the group is that of its futures and risk-cancelling
collateral and ``-sum_e (d_e sum_i Q_i U_i(k) - sum_i Q_i U_i)`` over its expiries e, times the
weight of the row, less its relief. ``d_e`` is 1 unless expiries are discounted. Marks are not in
it: they back the account.
"""

from __future__ import annotations

import math

from backtest.core import black_kernels as b
from backtest.core.kernels import kernel, of_options
from backtest.margin import portfolio_kernels as p
from backtest.margin.option_values import (
    BY_SCENARIOS,
    BY_STRATEGIES,
    DAYS_PER_YEAR,
    OptionPool,
    OptionPositions,
    OptionRules,
    ShockTables,
    compute_option_delta,
    compute_option_value,
    compute_otm,
    is_first,
)
from backtest.margin.portfolio_kernels import Holdings, PortfolioRules
from backtest.margin.strategy_kernels import find_way


def compute_skewed_volatility(
    options: OptionPositions, i: int, shocks: ShockTables, is_absolute: bool
) -> float:
    root = math.sqrt(options.years[i])
    first = 2 if is_absolute else 0
    cap = shocks.skew[first] + shocks.skew[first + 1] * root
    level = shocks.skew[6] + shocks.skew[7] * root
    width = max(shocks.skew[4], root * shocks.skew[5] * level)
    k = -b.log_ratio(options.indices[i] * options.bases[i], options.strikes[i])
    k = abs(k) if is_absolute else k
    turn = k * cap / width if width > 0.0 else 0.0
    turn = min(cap, turn) if k >= 0.0 else max(-cap, turn)
    return float(options.volatilities[i] * max(0.0, 1.0 + turn))


def fill_row_values(options: OptionPositions, rules: OptionRules, i: int) -> None:
    shocks, table, g = rules.shocks, rules.scratch.table, options.groups[i]
    forward, strike = options.indices[i] * options.bases[i], options.strikes[i]
    time, distance = math.sqrt(options.years[i]), b.log_ratio(forward, strike)
    discount = options.sizes[i] * math.exp(-options.rates[i] * options.years[i])
    middle = math.sqrt(forward) * math.sqrt(strike)
    days, scale = DAYS_PER_YEAR * options.years[i], 1.0
    power = shocks.power[0 if days <= shocks.days else 1]
    if power != 0.0:
        scale = float((shocks.days / max(days, shocks.least_days)) ** power)
    for k in range(shocks.moves.shape[1]):
        volatility, shock = options.volatilities[i], shocks.volatilities[g, k]
        if shock != 0.0:
            volatility *= max(0.0, 1.0 + shock * scale)
        if shock > 0.0:
            volatility = max(volatility, shocks.least_volatility)
        moved = forward * (1.0 + shocks.moves[g, k])
        value = max(0.0, options.signs[i] * (moved - strike))
        s = volatility * time
        if s > 0.0:
            x = -abs(distance + shocks.logs[g, k])
            value += middle * shocks.roots[g, k] * b.normalized_price(x, s)
        table[i, k] = discount * value / moved if options.are_coin[i] else discount * value


def compute_discount(shocks: ShockTables, value: float, years: float, rate: float) -> float:
    """Return the discount factor of a scenario for an option value (not below 0: a long)."""
    if len(shocks.discounts) == 0:
        return 1.0
    d = shocks.discounts
    if value >= 0.0:
        return float(d[0] * math.exp(-years * (max(rate, 0.0) * d[1] + d[2])))
    grown = d[3] * math.exp(years * (max(rate, 0.0) * d[4] + d[5]))
    return float(min(math.exp(rate * years), grown))


def fill_losses(pool: OptionPool) -> None:
    options, rules, tables = pool.options, pool.rules, pool.packed.scenarios
    shocks, losses, scratch = rules.shocks, tables.losses, rules.scratch
    scratch.sums[:] = 0.0
    scratch.totals[:] = 0.0
    for i in range(len(options.signs)):
        quantity, e = options.quantities[i], options.expiries[i]
        if quantity != 0.0:
            scratch.totals[e] += quantity * options.values[i]
            for k in range(scratch.table.shape[1]):
                scratch.sums[e, k] += quantity * scratch.table[i, k]
    p.fill_nets(pool.packed, pool.held)
    for g in range(len(tables.products)):
        for k in range(losses.shape[1]):
            linear, inverse = tables.nets[g, 0], tables.nets[g, 1]
            losses[g, k] = p.compute_move_loss(linear, inverse, tables.moves[g, k], 1.0)
    for i in range(len(options.signs)):
        if is_first(options, i):
            g, e = options.groups[i], options.expiries[i]
            for k in range(losses.shape[1]):
                value = scratch.sums[e, k]
                discount = compute_discount(shocks, value, options.years[i], options.rates[i])
                losses[g, k] -= value * discount - scratch.totals[e]
    for g in range(len(tables.products)):
        for k in range(losses.shape[1]):
            loss = tables.weights[g, k] * losses[g, k]
            relief = shocks.reliefs[g, k] / find_unit(options, g)
            losses[g, k] = max(0.0, loss - relief) if loss > 0.0 else loss


def find_unit(options: OptionPositions, g: int) -> float:
    """Return what one unit of the settlement currency of a group's options is worth in quotes."""
    for i in range(len(options.signs)):
        if options.groups[i] == g and options.are_coin[i]:
            return float(options.indices[i])
    return 1.0


def compute_charges_by_expiry(options: OptionPositions, rules: OptionRules, g: int) -> float:
    scratch, shocks, after = rules.scratch, rules.shocks, rules.scratch.table.shape[1] - 4
    linear, absolute, forward = 0.0, 0.0, 0.0
    for i in range(len(options.signs)):
        if options.groups[i] == g and is_first(options, i):
            e, years, rate = options.expiries[i], options.years[i], options.rates[i]
            now = scratch.totals[e]
            if len(shocks.skew) > 0:
                one, two = scratch.sums[e, after], scratch.sums[e, after + 1]
                linear += abs(one * compute_discount(shocks, one, years, rate) - now)
                absolute += abs(two * compute_discount(shocks, two, years, rate) - now)
            if len(shocks.expiry_charge) > 0:
                least = min(scratch.sums[e, after + 2], scratch.sums[e, after + 3]) - now
                share = shocks.expiry_charge[1] + shocks.expiry_charge[2] * years
                forward += share * max(0.0, -least)
    return max(linear, absolute, forward)


def compute_option_loss(pool: OptionPool) -> float:
    options, rules, tables, total = pool.options, pool.rules, pool.packed.scenarios, 0.0
    fill_losses(pool)
    for product in range(tables.n_products):
        k, charged = p.find_product_row(tables, product), 0.0
        worst = p.compute_product_loss(tables, product, k) if k >= 0 else 0.0
        for g in range(len(tables.products)):
            if tables.products[g] == product:
                charged += compute_charges_by_expiry(options, rules, g)
        total += max(worst, charged)
    if max(rules.shocks.delta_charge[0], rules.shocks.delta_charge[1]) > 0.0:
        total += compute_delta_charge(options, rules)
    return total


def compute_delta_charge(options: OptionPositions, rules: OptionRules) -> float:
    shocks, scratch, total = rules.shocks, rules.scratch, 0.0
    scratch.totals[:] = 0.0
    for i in range(len(options.signs)):
        price = 1.0 if options.are_coin[i] else options.indices[i]
        delta = options.quantities[i] * compute_option_delta(options, i)
        scratch.totals[options.expiries[i]] += delta * price
    for i in range(len(options.signs)):
        if is_first(options, i):
            rate = max(shocks.delta_charge[0], shocks.delta_charge[1] * options.years[i])
            total += rate * abs(scratch.totals[options.expiries[i]])
    return total


def compute_short_charge(options: OptionPositions, rules: OptionRules, is_initial: bool) -> float:
    shocks, nets, total = rules.shocks, rules.scratch.nets, 0.0
    rate = shocks.short_charge[1 if is_initial else 0]
    if rate > 0.0:
        nets[:] = 0.0
        for i in range(len(options.signs)):
            price = 1.0 if options.are_coin[i] else options.indices[i]
            nets[options.pairs[i]] += options.quantities[i] * options.sizes[i] * price
        for pair in range(len(nets)):
            total += max(0.0, -nets[pair])
    return float(rate * total)


def compute_standard(options: OptionPositions, rules: OptionRules, is_initial: bool) -> float:
    rates, total = rules.rates, 0.0
    for i in range(len(options.signs)):
        if options.quantities[i] < 0.0:
            unit = 1.0 if options.are_coin[i] else options.indices[i]
            forward = options.indices[i] * options.bases[i]
            mark = options.marks[i] / options.sizes[i]
            of_mark = rates.of_mark * mark if options.signs[i] < 0.0 else 0.0
            needed = max(rates.maintenance * unit, of_mark) * rates.factor
            if is_initial:
                out = compute_otm(options, i, forward) / forward
                needed = max(needed, max(rates.least, rates.initial - out) * rates.factor * unit)
            total -= options.quantities[i] * (options.sizes[i] * (needed + mark))
    return total


@kernel
def fill_options(options: OptionPositions, rules: OptionRules) -> None:
    for i in range(len(options.signs)):
        fill_option(options, rules, i)


def fill_option(options: OptionPositions, rules: OptionRules, i: int) -> None:
    """Write the value of option i into ``options``, and under scenarios that in each."""
    volatility, shocks, table = options.volatilities[i], rules.shocks, rules.scratch.table
    options.values[i] = compute_option_value(options, i, 1.0, volatility)
    if rules.kind != BY_SCENARIOS:
        return
    fill_row_values(options, rules, i)
    after = shocks.moves.shape[1]
    if len(shocks.skew) > 0:
        for row in range(2):
            turned = compute_skewed_volatility(options, i, shocks, row == 1)
            table[i, after + row] = compute_option_value(options, i, 1.0, turned)
    if len(shocks.expiry_charge) > 0:
        move = shocks.expiry_charge[0]
        table[i, after + 2] = compute_option_value(options, i, 1.0 + move, volatility)
        table[i, after + 3] = compute_option_value(options, i, 1.0 - move, volatility)


@kernel
def compute_option_requirement(pool: OptionPool, is_initial: bool) -> float:
    packed, held, options, rules = pool.packed, pool.held, pool.options, pool.rules
    if rules.kind == BY_SCENARIOS:
        margin = p.combine_scenarios(packed, held, compute_option_loss(pool), is_initial)
        return margin + compute_short_charge(options, rules, is_initial)
    total = p.compute_portfolio_requirement(packed, held, is_initial)
    if rules.kind != BY_STRATEGIES:
        return total + compute_standard(options, rules, is_initial)
    of_strategies = 0.0
    for g in range(len(rules.underlyings)):
        of_strategies += find_way(pool, g, is_initial)[1]
    return total + of_strategies


DENSITY = 0.39894228040143276
"""The largest value of the normal density."""


def bound_value_slope(options: OptionPositions, i: int, low: float, move: float) -> float:
    """Return an upper bound of the change of an option value per price, at prices from ``low``."""
    size, years, rate = options.sizes[i], options.years[i], options.rates[i]
    discount = math.exp(abs(rate) * years)
    forward = low * options.bases[i] * move
    if options.are_coin[i]:
        return float(size * discount / low * max(1.0, options.strikes[i] / forward))
    return float(size * discount * options.bases[i] * move)


def bound_scenario_slope(pool: OptionPool, i: int, low: float) -> float:
    """Return an upper bound of the change of a scenario loss per price, at prices from ``low``."""
    packed, options, shocks = pool.packed, pool.options, pool.rules.shocks
    g, years, most = options.groups[i], options.years[i], 0.0
    if len(shocks.discounts) + len(shocks.skew) + len(shocks.expiry_charge) > 0:
        return math.inf
    here = bound_value_slope(options, i, low, 1.0)
    for k in range(shocks.moves.shape[1]):
        moved = bound_value_slope(options, i, low, 1.0 + shocks.moves[g, k])
        most = max(most, packed.scenarios.weights[g, k] * (moved + here))
    s = options.volatilities[i] * math.sqrt(years)
    bend = DENSITY / s if s > 0.0 else math.inf
    turn = bend / low if options.are_coin[i] else 1.0 + bend
    charge = max(shocks.delta_charge[0], shocks.delta_charge[1] * years)
    most += charge * options.sizes[i] * turn if charge > 0.0 else 0.0
    short = 0.0 if options.are_coin[i] else shocks.short_charge[0] * options.sizes[i]
    return float(packed.scenarios.factor * most + short)


@of_options(returns=0.0)
def bound_option_slope(pool: OptionPool, i: int, low: float, gains: bool) -> float:
    """Return an upper bound of the change of backing less requirement of option i per price."""
    packed, options, rules = pool.packed, pool.options, pool.rules
    here, rates, size = bound_value_slope(options, i, low, 1.0), rules.rates, options.sizes[i]
    unit, relief = 0.0 if options.are_coin[i] else size, 0.0
    if rules.kind == BY_SCENARIOS:
        needed = bound_scenario_slope(pool, i, low)
        for k in range(rules.shocks.reliefs.shape[1]):
            relief = max(relief, rules.shocks.reliefs[options.groups[i], k])
    elif rules.kind == BY_STRATEGIES:
        needed = here + size * (2.0 + rates.naked + rates.least_call)
    else:
        needed = here + rates.factor * (rates.maintenance * unit + rates.of_mark * here)
    lost = (0.0 if gains else here) + packed.level * needed
    if options.are_coin[i]:  # in coins, what is taken off losses changes too
        lost_relief = packed.level * packed.scenarios.factor * relief / (low * low)
        return float(abs(options.quantities[i]) * lost + lost_relief)
    return float(abs(options.quantities[i]) * lost)


def bound_linear_slope(packed: PortfolioRules, held: Holdings, i: int) -> float:
    """Return an upper bound of the change of backing less requirement per contract value."""
    tables = packed.brackets
    if packed.has_scenarios:
        rate = bound_scenario_rate(packed, tables.are_inverse[i])
    else:
        highest = tables.rates[i, tables.counts[i] - 1]
        rate = p.scale_rate(highest, tables.multipliers[i], tables.close_fees[i])
    return float(abs(held.quantities[i]) * (1.0 + packed.level * rate))


def bound_scenario_rate(packed: PortfolioRules, is_inverse: bool) -> float:
    """Return an upper bound of the scenario requirement per notional."""
    tables, most = packed.scenarios, 0.0
    for g in range(len(tables.products)):
        for k in range(tables.moves.shape[1]):
            rate = p.compute_gain_rate(is_inverse, tables.moves[g, k])
            most = max(most, tables.weights[g, k] * abs(rate))
    total = tables.factor * most + tables.minimum + tables.contingency
    return float(total + tables.pair_contingency)


def bound_asset_slope(packed: PortfolioRules, held: Holdings, c: int) -> float:
    """Return an upper bound of the change of backing less requirement per price of asset c."""
    rate = bound_scenario_rate(packed, False) if packed.has_scenarios else 0.0
    return float(abs(held.amounts[c]) * (1.0 + packed.level * rate))
