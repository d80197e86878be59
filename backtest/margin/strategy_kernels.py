"""Margin of options by strategies: shorts paired with longs and shares; it also compiles."""

from __future__ import annotations

import math

from backtest.margin import portfolio_kernels as p
from backtest.margin.option_values import (
    OptionPool,
    OptionPositions,
    OptionRates,
    OptionRules,
    compute_otm,
    compute_payoff,
    is_first,
)

LEFT, SPARE, OF_SHORT, OF_LONG, NAKED = 0, 1, 2, 3, 4
"""Rows of the room: what a short has uncovered, a long to spare, distances, naked amounts."""


FAR = 1e4
"""The saving, in prices of the underlying, by which a short is covered wherever it can be."""


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
