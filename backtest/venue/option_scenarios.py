"""Portfolio margin of a portfolio with options, in functions that also compile.

Row k moves the index of a group by ``m_k`` and the volatility of each option by the row's shock of
its tenor. The loss of the group is that of its futures and risk-cancelling collateral
(:mod:`backtest.venue.scenario_loss`) and ``-sum_e (d_e sum_i Q_i U_i(k) - sum_i Q_i U_i)`` over its
expiries e, times the weight of the row, less its relief. ``d_e`` is 1 unless expiries are
discounted. Marks are not in it: they back the account.
"""

from __future__ import annotations

import math

from backtest.venue.option_records import OptionPositions, OptionRules, ShockTables
from backtest.venue.option_values import compute_option_delta
from backtest.venue.portfolio_requirement import combine_scenarios
from backtest.venue.portfolio_rules import Holdings, PortfolioRules
from backtest.venue.scenario_loss import (
    compute_gross,
    compute_move_loss,
    compute_offset,
    count_gain,
    fill_nets,
)


def compute_discount(shocks: ShockTables, value: float, years: float, rate: float) -> float:
    if not shocks.has_discounts:
        return 1.0
    d = shocks.discounts
    if value >= 0.0:
        return float(d[0] * math.exp(-years * (max(rate, 0.0) * d[1] + d[2])))
    return float(
        min(math.exp(rate * years), d[3] * math.exp(years * (max(rate, 0.0) * d[4] + d[5])))
    )


def fill_sums(options: OptionPositions, rules: OptionRules) -> None:
    scratch, shocks = rules.scratch, rules.shocks
    scratch.sums[:] = 0.0
    scratch.totals[:] = 0.0
    last = scratch.table.shape[1]
    after = last - 4
    for i in range(len(options.signs)):
        quantity, e = options.quantities[i], options.expiries[i]
        if quantity != 0.0:
            scratch.totals[e] += quantity * options.values[i]
            for k in range(shocks.counts[options.groups[i]]):
                scratch.sums[e, k] += quantity * scratch.table[i, k]
            for k in range(after, last):
                scratch.sums[e, k] += quantity * scratch.table[i, k]


def fill_losses(
    packed: PortfolioRules, held: Holdings, options: OptionPositions, rules: OptionRules
) -> None:
    scratch, shocks, tables = rules.scratch, rules.shocks, packed.scenarios
    fill_nets(packed, held)
    for g in range(len(tables.products)):
        for k in range(shocks.counts[g]):
            scratch.losses[g, k] = compute_move_loss(
                tables.nets[g, 0], tables.nets[g, 1], shocks.linear_moves[g, k], 1.0
            )
    for first in range(len(options.signs)):
        if is_first(options, first):
            add_expiry(options, rules, first)
    for g in range(len(tables.products)):
        for k in range(shocks.counts[g]):
            loss = shocks.weights[g, k] * scratch.losses[g, k]
            relief = shocks.reliefs[g, k] / find_unit(options, g)
            scratch.losses[g, k] = max(0.0, loss - relief) if loss > 0.0 else loss


def find_unit(options: OptionPositions, g: int) -> float:
    """Return what one unit of the settlement currency of a group's options is worth in quotes."""
    for i in range(len(options.signs)):
        if options.groups[i] == g and options.are_coin[i]:
            return float(options.indices[i])
    return 1.0


def is_first(options: OptionPositions, i: int) -> bool:
    count = 0
    for j in range(i):
        count += options.expiries[j] == options.expiries[i]
    return count == 0


def add_expiry(options: OptionPositions, rules: OptionRules, i: int) -> None:
    scratch, shocks, g, e = rules.scratch, rules.shocks, options.groups[i], options.expiries[i]
    for k in range(shocks.counts[g]):
        value = scratch.sums[e, k]
        discount = compute_discount(shocks, value, options.years[i], options.rates[i])
        scratch.losses[g, k] -= value * discount - scratch.totals[e]


def compute_charges_by_expiry(options: OptionPositions, rules: OptionRules, g: int) -> float:
    scratch, shocks, after = rules.scratch, rules.shocks, rules.scratch.table.shape[1] - 4
    linear, absolute, forward = 0.0, 0.0, 0.0
    for i in range(len(options.signs)):
        if options.groups[i] == g and is_first(options, i):
            e, years, rate = options.expiries[i], options.years[i], options.rates[i]
            now = scratch.totals[e]
            if shocks.has_skew:
                one, two = scratch.sums[e, after], scratch.sums[e, after + 1]
                linear += abs(one * compute_discount(shocks, one, years, rate) - now)
                absolute += abs(two * compute_discount(shocks, two, years, rate) - now)
            if shocks.has_expiry_charge:
                least = min(scratch.sums[e, after + 2], scratch.sums[e, after + 3]) - now
                share = shocks.expiry_charge[1] + shocks.expiry_charge[2] * years
                forward += share * max(0.0, -least)
    return max(linear, absolute, forward)


def compute_worst_loss(
    packed: PortfolioRules, options: OptionPositions, rules: OptionRules
) -> float:
    tables, total = packed.scenarios, 0.0
    for product in range(tables.n_products):
        worst, charged = 0.0, 0.0
        for k in range(rules.shocks.moves.shape[1]):
            loss = 0.0
            for g in range(len(tables.products)):
                if tables.products[g] == product and k < rules.shocks.counts[g]:
                    of_group = rules.scratch.losses[g, k]
                    loss += count_gain(tables.offset, of_group) * of_group
            worst = max(worst, loss)
        for g in range(len(tables.products)):
            if tables.products[g] == product:
                charged += compute_charges_by_expiry(options, rules, g)
        total += max(worst, charged)
    return total


def compute_short_notional(options: OptionPositions, rules: OptionRules) -> float:
    """Return the notional of what is net short by strike and expiry, in the settlement currency."""
    nets, total = rules.scratch.nets, 0.0
    nets[:] = 0.0
    for i in range(len(options.signs)):
        price = 1.0 if options.are_coin[i] else options.indices[i]
        nets[options.pairs[i]] += options.quantities[i] * options.sizes[i] * price
    for pair in range(len(nets)):
        total += max(0.0, -nets[pair])
    return total


def compute_delta_charge(options: OptionPositions, rules: OptionRules) -> float:
    """Return the charge on the delta of each expiry, in the settlement currency."""
    shocks, scratch, total = rules.shocks, rules.scratch, 0.0
    scratch.totals[:] = 0.0
    for i in range(len(options.signs)):
        price = 1.0 if options.are_coin[i] else options.indices[i]
        delta = options.quantities[i] * compute_option_delta(options, i)
        scratch.totals[options.expiries[i]] += delta * price
    for i in range(len(options.signs)):
        if is_first(options, i):
            rate = max(shocks.delta_charge, shocks.yearly_delta_charge * options.years[i])
            total += rate * abs(scratch.totals[options.expiries[i]])
    return total


def compute_option_loss(
    packed: PortfolioRules, held: Holdings, options: OptionPositions, rules: OptionRules
) -> float:
    fill_sums(options, rules)
    fill_losses(packed, held, options, rules)
    loss = compute_worst_loss(packed, options, rules)
    if rules.shocks.delta_charge > 0.0 or rules.shocks.yearly_delta_charge > 0.0:
        loss += compute_delta_charge(options, rules)
    return loss


def compute_short_charge(options: OptionPositions, rules: OptionRules, is_initial: bool) -> float:
    shocks = rules.shocks
    rate = shocks.initial_short_charge if is_initial else shocks.short_charge
    return rate * compute_short_notional(options, rules) if rate > 0.0 else 0.0


def compute_option_scenario_margin(
    packed: PortfolioRules,
    held: Holdings,
    options: OptionPositions,
    rules: OptionRules,
    is_initial: bool,
) -> float:
    loss, gross = compute_option_loss(packed, held, options, rules), compute_gross(packed, held)
    offset = compute_offset(packed, held) if packed.scenarios.pair_contingency > 0.0 else 0.0
    margin = combine_scenarios(packed, loss, gross, offset, is_initial)
    return margin + compute_short_charge(options, rules, is_initial)
