"""Values and margins of the options of an account, in functions that also compile.

The index moves at a constant basis: the forward moves with it. Time stands still. An option that
settles in coins is worth its cash value over the moved forward.

Row k of scenarios moves the index of a group by ``m_k`` and the volatility of each option by the
row's shock of its tenor. The loss of the group is that of its futures and risk-cancelling
collateral and ``-sum_e (d_e sum_i Q_i U_i(k) - sum_i Q_i U_i)`` over its expiries e, times the
weight of the row, less its relief. ``d_e`` is 1 unless expiries are discounted. Marks are not in
it: they back the account.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from backtest.core import BoolArray, FloatArray, Greeks, IntArray
from backtest.core import black_kernels as b
from backtest.core.kernels import kernel, of_options
from backtest.margin import portfolio_kernels as p
from backtest.margin.portfolio_kernels import Holdings, PortfolioRules

NONE, LONG, NET = 0, 1, 2
"""Which option values back the account: none, those of longs, all with their sign."""
BY_BRACKETS, BY_SCENARIOS, PER_OPTION, BY_STRATEGIES = 0, 1, 2, 3
"""How options are margined; brackets have no rule for a short."""


class OptionPositions(NamedTuple):
    """n options held: what they are, and what their values depend on; arrays of shape (n,).

    ``signs`` is 1 for a call and -1 for a put, ``sizes`` the units of the underlying per contract,
    ``bases`` the forward of the expiry over the index. ``values`` (by the model) and ``marks`` are
    those of one contract in the settlement currency.
    """

    signs: FloatArray
    strikes: FloatArray
    sizes: FloatArray
    are_coin: BoolArray
    groups: IntArray
    expiries: IntArray
    pairs: IntArray
    years: FloatArray
    rates: FloatArray
    volatilities: FloatArray
    bases: FloatArray
    indices: FloatArray
    quantities: FloatArray
    values: FloatArray
    marks: FloatArray


class ShockTables(NamedTuple):
    """What scenarios are for options; arrays of shape (G, K) as those of ``ScenarioTables``.

    ``logs`` is ln(1 + move) and ``roots`` the root of 1 + move. The others are those of
    ``OptionShocks``; ``discounts``, ``skew`` and ``expiry_charge`` are empty if there are none.
    """

    moves: FloatArray
    logs: FloatArray
    roots: FloatArray
    volatilities: FloatArray
    reliefs: FloatArray
    days: float
    least_days: float
    least_volatility: float
    power: FloatArray
    short_charge: FloatArray
    delta_charge: FloatArray
    discounts: FloatArray
    skew: FloatArray
    expiry_charge: FloatArray


class OptionRates(NamedTuple):
    initial: float
    least: float
    maintenance: float
    of_mark: float
    factor: float
    naked: float
    least_call: float
    least_put: float
    covered_itm: float
    conversion: float
    loan_value: float
    loan_days: float


class OptionScratch(NamedTuple):
    """Room for one evaluation of n options, E expiries, P pairs and K + 4 rows.

    ``table`` (n, K + 4) has the value of each option in each row, then in the two rows of the skew
    and the two of the charge by expiry. It stays right until an index, a volatility or the time
    changes. ``sums`` is (E, K + 4), ``totals`` (E,), ``nets`` (P,), ``matches`` (n, n + 1),
    ``rows`` (5, n + 1) and ``paths`` (2, n + 1).
    """

    table: FloatArray
    sums: FloatArray
    totals: FloatArray
    nets: FloatArray
    matches: FloatArray
    rows: FloatArray
    paths: IntArray


class OptionRules(NamedTuple):
    kind: int
    counted: int
    underlyings: IntArray
    shocks: ShockTables
    rates: OptionRates
    scratch: OptionScratch


class OptionPool(NamedTuple):
    """The options of an account with what else it holds, and the rules of both."""

    packed: PortfolioRules
    held: Holdings
    options: OptionPositions
    rules: OptionRules


DAYS_PER_YEAR = 365.0
SMALL_VEGA = 1e-4
"""A vega under this share of the forward says nothing of a spread in volatility."""


def compute_option_value(
    options: OptionPositions, i: int, ratio: float, volatility: float
) -> float:
    forward, strike = options.indices[i] * options.bases[i] * ratio, options.strikes[i]
    sign, years, rate = options.signs[i], options.years[i], options.rates[i]
    price = b.scalar_price(sign, forward, strike, years, volatility, rate, options.are_coin[i])
    return float(options.sizes[i] * price)


def compute_option_delta(options: OptionPositions, i: int) -> float:
    return float(options.sizes[i] * compute_greeks(options, i, 0.0).delta)


def is_vega_small(options: OptionPositions, i: int) -> bool:
    forward = options.indices[i] * options.bases[i]
    return bool(compute_greeks(options, i, options.rates[i]).vega < SMALL_VEGA * forward)


def compute_greeks(options: OptionPositions, i: int, rate: float) -> Greeks:
    forward, strike = options.indices[i] * options.bases[i], options.strikes[i]
    years, volatility = options.years[i], options.volatilities[i]
    return b.scalar_greeks(options.signs[i], forward, strike, years, volatility, rate, False)


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


def compute_counted_rate(rules: OptionRules, options: OptionPositions, i: int) -> float:
    if rules.counted == NET:
        return 1.0
    if options.quantities[i] <= 0.0:
        return 0.0
    if rules.counted == LONG:
        return 1.0
    is_lasting = DAYS_PER_YEAR * options.years[i] > rules.rates.loan_days
    if not (rules.rates.loan_value > 0.0 and is_lasting):
        return 0.0
    shorts = 0
    for j in range(len(options.signs)):
        is_alike = options.groups[j] == options.groups[i] and options.signs[j] == options.signs[i]
        shorts += is_alike and options.quantities[j] < 0.0
    return rules.rates.loan_value if shorts == 0 else 0.0


@of_options(returns=0.0)
def compute_counted_value(rules: OptionRules, options: OptionPositions) -> float:
    total = 0.0
    for i in range(len(options.signs)):
        if options.quantities[i] != 0.0:
            rate = compute_counted_rate(rules, options, i)
            total += rate * (options.quantities[i] * options.marks[i])
    return total


@of_options(returns=0.0)
def compute_options_value(options: OptionPositions) -> float:
    total = 0.0
    for i in range(len(options.signs)):
        if options.quantities[i] != 0.0:
            total += options.quantities[i] * options.marks[i]
    return total


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


def is_first(options: OptionPositions, i: int) -> bool:
    count = 0
    for j in range(i):
        count += options.expiries[j] == options.expiries[i]
    return count == 0


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


LEFT, SPARE, OF_SHORT, OF_LONG, NAKED = 0, 1, 2, 3, 4
"""Rows of the room: what a short has uncovered, a long to spare, distances, naked amounts."""
FAR = 1e4
"""The saving, in prices of the underlying, by which a short is covered wherever it can be."""


def compute_otm(options: OptionPositions, i: int, price: float) -> float:
    return float(max(0.0, options.signs[i] * (options.strikes[i] - price)))


def compute_payoff(options: OptionPositions, i: int, price: float) -> float:
    return float(max(0.0, options.signs[i] * (price - options.strikes[i])))


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


def compute_cover(options: OptionPositions, rates: OptionRates, i: int, j: int) -> float:
    """Return what a unit of short i needs under a long, or under shares; infinite if uncovered."""
    price = options.indices[i]
    if j == len(options.signs):
        return compute_payoff(options, i, price) if rates.covered_itm > 0.0 else 0.0
    is_alike = options.groups[j] == options.groups[i] and options.signs[j] == options.signs[i]
    if not is_alike or options.years[j] < options.years[i]:
        return math.inf
    return float(max(0.0, options.signs[i] * (options.strikes[j] - options.strikes[i])))


def is_sold(options: OptionPositions, i: int, g: int, sign: float) -> bool:
    is_alike = options.groups[i] == g and options.signs[i] == sign
    return bool(is_alike and options.quantities[i] < 0.0)


def find_shares(pool: OptionPool, g: int) -> float:
    brackets, s = pool.packed.brackets, pool.rules.underlyings[g]
    if s < 0 or brackets.are_inverse[s] or not p.is_in_pool(pool.packed, pool.held, s):
        return 0.0
    return float(pool.held.quantities[s] * brackets.sizes[s])


def find_distances(pool: OptionPool, g: int, sign: float, bonus: float) -> None:
    options, rules = pool.options, pool.rules
    rows, paths, n = rules.scratch.rows, rules.scratch.paths, len(options.signs)
    rows[OF_SHORT, :] = math.inf
    rows[OF_LONG, :] = math.inf
    for i in range(n):
        if is_sold(options, i, g, sign) and rows[LEFT, i] > 0.0:
            rows[OF_SHORT, i] = -(rows[NAKED, i] + bonus)
            paths[0, i] = -1
    is_changed, rounds = True, 0
    while is_changed and rounds <= 2 * n:
        is_changed, rounds = False, rounds + 1
        for i in range(n):
            slack = 1e-12 * options.indices[i]
            for j in range(n + 1 if is_sold(options, i, g, sign) else 0):
                if rules.scratch.matches[i, j] > 0.0:
                    back = rows[OF_LONG, j] - compute_cover(options, rules.rates, i, j)
                    if back < rows[OF_SHORT, i] - slack:
                        rows[OF_SHORT, i], paths[0, i], is_changed = back, j, True
            for j in range(n + 1 if is_sold(options, i, g, sign) else 0):
                if j == n or options.quantities[j] > 0.0:
                    there = rows[OF_SHORT, i] + compute_cover(options, rules.rates, i, j)
                    if there < rows[OF_LONG, j] - slack:
                        rows[OF_LONG, j], paths[1, j], is_changed = there, i, True


def pair_shorts(pool: OptionPool, g: int, sign: float, bonus: float) -> None:
    """Cover shorts by longs and shares at least cost, along shortest augmenting paths."""
    n, scratch = len(pool.options.signs), pool.rules.scratch
    rows, paths, matches = scratch.rows, scratch.paths, scratch.matches
    for _ in range(4 * n * (n + 1)):
        find_distances(pool, g, sign, bonus)
        last, best = -1, 0.0
        for j in range(n + 1):
            if rows[SPARE, j] > 0.0 and rows[OF_LONG, j] < best:
                last, best = j, rows[OF_LONG, j]
        if last < 0:
            break
        units, j = rows[SPARE, last], last
        while j >= 0:
            i = paths[1, j]
            j = paths[0, i]
            units = min(units, rows[LEFT, i] if j < 0 else matches[i, j])
        rows[SPARE, last] -= units
        j = last
        while j >= 0:
            i = paths[1, j]
            matches[i, j] += units
            j = paths[0, i]
            if j < 0:
                rows[LEFT, i] -= units
            else:
                matches[i, j] -= units


def find_loss(options: OptionPositions, rules: OptionRules, e: int, price: float) -> float:
    matches, n, loss = rules.scratch.matches, len(options.signs), 0.0
    for i in range(n):
        if options.expiries[i] == e and options.quantities[i] < 0.0:
            owed = compute_payoff(options, i, price)
            for j in range(n):
                if matches[i, j] > 0.0:
                    loss += matches[i, j] * (owed - compute_payoff(options, j, price))
    return loss


def sum_pairs(options: OptionPositions, rules: OptionRules, g: int) -> float:
    n, total = len(options.signs), 0.0
    for first in range(n):
        if options.groups[first] == g and is_first(options, first):
            e = options.expiries[first]
            worst = max(0.0, find_loss(options, rules, e, 0.0))
            for i in range(n):
                if options.groups[i] == g:
                    worst = max(worst, find_loss(options, rules, e, options.strikes[i]))
            total += worst
    return total


def find_dearest(options: OptionPositions, rules: OptionRules, g: int, sign: float) -> int:
    rows, dearest = rules.scratch.rows, -1
    for i in range(len(options.signs)):
        is_open = is_sold(options, i, g, sign) and rows[LEFT, i] > 0.0
        if is_open and (dearest < 0 or rows[NAKED, i] > rows[NAKED, dearest]):
            dearest = i
    return dearest


def sum_naked(options: OptionPositions, rules: OptionRules, g: int) -> float:
    rows, total = rules.scratch.rows, 0.0
    for _ in range(2 * len(options.signs)):
        call = find_dearest(options, rules, g, 1.0)
        put = find_dearest(options, rules, g, -1.0)
        if call < 0 and put < 0:
            break
        if call < 0 or put < 0:
            one = max(call, put)
            total += rows[LEFT, one] * rows[NAKED, one]
            rows[LEFT, one] = 0.0
        else:
            one, other = (call, put) if rows[NAKED, call] >= rows[NAKED, put] else (put, call)
            units = min(rows[LEFT, call], rows[LEFT, put])
            mark = options.marks[other] / options.sizes[other]
            total += units * (rows[NAKED, one] + mark)
            rows[LEFT, call] -= units
            rows[LEFT, put] -= units
    return total


def sum_covered(pool: OptionPool, g: int, is_initial: bool) -> float:
    options, rules, n, total = pool.options, pool.rules, len(pool.options.signs), 0.0
    for i in range(n):
        units = rules.scratch.matches[i, n] if options.groups[i] == g else 0.0
        if units > 0.0 and options.quantities[i] < 0.0:
            total += units * compute_cover(options, rules.rates, i, n)
            if not is_initial and rules.rates.conversion > 0.0:
                of_shares = p.find_own_maintenance(pool.packed, pool.held, rules.underlyings[g])
                of_shares /= abs(find_shares(pool, g))
                spared, locked = of_shares - rules.rates.conversion * options.strikes[i], 0.0
                for j in range(n):
                    is_other = options.signs[j] != options.signs[i]
                    if is_other and options.pairs[j] == options.pairs[i]:
                        locked += rules.scratch.rows[SPARE, j]
                total -= max(0.0, spared) * min(units, locked)
    return total


def pair_group(pool: OptionPool, g: int, way: int) -> None:
    options, rules, shares = pool.options, pool.rules, find_shares(pool, g)
    rates, rows, n, bonus = rules.rates, rules.scratch.rows, len(options.signs), 0.0
    for i in range(n if way == 2 else 0):
        bonus = FAR * options.indices[i] if options.groups[i] == g else bonus
    for sign in (1.0, -1.0):
        rows[SPARE, n] = max(0.0, sign * shares)
        for i in range(n):
            if options.groups[i] == g and options.signs[i] == sign:
                units = options.quantities[i] * options.sizes[i]
                rows[LEFT, i], rows[SPARE, i] = max(0.0, -units), max(0.0, units)
                rules.scratch.matches[i, :] = 0.0
                price = options.indices[i]
                of_strike = rates.least_put * options.strikes[i]
                least = rates.least_call * price if sign > 0.0 else of_strike
                naked = max(rates.naked * price - compute_otm(options, i, price), least)
                rows[NAKED, i] = options.marks[i] / options.sizes[i] + naked
        if way > 0:
            pair_shorts(pool, g, sign, bonus)


def find_way(pool: OptionPool, g: int, is_initial: bool) -> tuple[int, float]:
    """Return the pairing of group g with the least requirement, and that requirement."""
    cheapest, least = 0, math.inf
    for way in (1, 2, 0):
        pair_group(pool, g, way)
        needed = sum_pairs(pool.options, pool.rules, g)
        needed += sum_covered(pool, g, is_initial)
        needed += sum_naked(pool.options, pool.rules, g)
        if needed < least:
            cheapest, least = way, needed
    return cheapest, least


def compute_premiums(pool: OptionPool) -> float:
    options, n, total = pool.options, len(pool.options.signs), 0.0
    for g in range(len(pool.rules.underlyings)):
        pair_group(pool, g, find_way(pool, g, True)[0])
        for i in range(n):
            if options.groups[i] == g:
                total += max(0.0, options.quantities[i]) * options.marks[i]
                if options.quantities[i] < 0.0:
                    for j in range(n):
                        paired = pool.rules.scratch.matches[i, j]
                        total -= paired * (options.marks[i] / options.sizes[i])
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
