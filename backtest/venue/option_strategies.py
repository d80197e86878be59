"""Margin of options per option and by strategies, in functions that also compile."""

from __future__ import annotations

import math

from backtest.venue.option_records import OptionPositions, OptionRates, OptionRules
from backtest.venue.portfolio_requirement import compute_own_maintenance
from backtest.venue.portfolio_rules import Holdings, PortfolioRules, is_in_pool

LEFT, SPARE, OF_SHORT, OF_LONG, NAKED = 0, 1, 2, 3, 4
"""Rows of the room: what a short has uncovered, a long to spare, distances, naked amounts."""
FAR = 1e4
"""The saving, in prices of the underlying, by which a short is covered wherever it can be."""


def compute_otm(options: OptionPositions, i: int, price: float) -> float:
    return float(max(0.0, options.signs[i] * (options.strikes[i] - price)))


def compute_payoff(options: OptionPositions, i: int, price: float) -> float:
    return float(max(0.0, options.signs[i] * (price - options.strikes[i])))


# ------------------------------------------------------------------------------ per option


def compute_standard_margin(
    options: OptionPositions, rates: OptionRates, i: int, is_initial: bool
) -> float:
    """Return the margin of one contract sold, its mark included, in the settlement currency."""
    unit = 1.0 if options.are_coin[i] else options.indices[i]
    forward = options.indices[i] * options.bases[i]
    mark = options.marks[i] / options.sizes[i]
    of_mark = rates.of_mark * mark if options.signs[i] < 0.0 else 0.0
    needed = max(rates.maintenance * unit, of_mark) * rates.factor
    if is_initial:
        out = compute_otm(options, i, forward) / forward
        needed = max(needed, max(rates.least, rates.initial - out) * rates.factor * unit)
    return float(options.sizes[i] * (needed + mark))


def compute_standard(options: OptionPositions, rules: OptionRules, is_initial: bool) -> float:
    total = 0.0
    for i in range(len(options.signs)):
        if options.quantities[i] < 0.0:
            needed = compute_standard_margin(options, rules.rates, i, is_initial)
            total -= options.quantities[i] * needed
    return total


# ------------------------------------------------------------------------------- the pairing


def compute_naked(options: OptionPositions, rates: OptionRates, i: int) -> float:
    price = options.indices[i]
    of_strike = rates.least_put * options.strikes[i]
    least = rates.least_call * price if options.signs[i] > 0.0 else of_strike
    mark = options.marks[i] / options.sizes[i]
    return float(mark + max(rates.naked * price - compute_otm(options, i, price), least))


def compute_cover(options: OptionPositions, rates: OptionRates, i: int, j: int) -> float:
    price = options.indices[i]
    if j == len(options.signs):
        return compute_payoff(options, i, price) if rates.has_covered_itm else 0.0
    return float(max(0.0, options.signs[i] * (options.strikes[j] - options.strikes[i])))


def is_cover(options: OptionPositions, i: int, j: int) -> bool:
    if j == len(options.signs):
        return True
    is_alike = options.groups[j] == options.groups[i] and options.signs[j] == options.signs[i]
    return bool(is_alike and options.quantities[j] > 0.0 and options.years[j] >= options.years[i])


def is_sold(options: OptionPositions, i: int, g: int, sign: float) -> bool:
    is_alike = options.groups[i] == g and options.signs[i] == sign
    return bool(is_alike and options.quantities[i] < 0.0)


def find_shares(packed: PortfolioRules, held: Holdings, rules: OptionRules, g: int) -> float:
    s = rules.underlyings[g]
    if s < 0 or packed.brackets.are_inverse[s] or not is_in_pool(packed, held, s):
        return 0.0
    return float(held.quantities[s] * packed.brackets.sizes[s])


def reset(options: OptionPositions, rules: OptionRules, g: int, shares: float, sign: float) -> None:
    rows, n = rules.scratch.rows, len(options.signs)
    rows[SPARE, n] = max(0.0, sign * shares)
    for i in range(n):
        if options.groups[i] == g and options.signs[i] == sign:
            units = options.quantities[i] * options.sizes[i]
            rows[LEFT, i], rows[SPARE, i] = max(0.0, -units), max(0.0, units)
            rows[NAKED, i] = compute_naked(options, rules.rates, i)
            rules.scratch.matches[i, :] = 0.0


def find_distances(
    options: OptionPositions, rules: OptionRules, g: int, sign: float, bonus: float
) -> None:
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
            if is_sold(options, i, g, sign):
                is_changed = improve_ways(options, rules, i) or is_changed


def improve_ways(options: OptionPositions, rules: OptionRules, i: int) -> bool:
    rows, paths, matches = rules.scratch.rows, rules.scratch.paths, rules.scratch.matches
    count, slack = 0, 1e-12 * options.indices[i]
    for j in range(len(options.signs) + 1):
        if matches[i, j] > 0.0:
            back = rows[OF_LONG, j] - compute_cover(options, rules.rates, i, j)
            if back < rows[OF_SHORT, i] - slack:
                rows[OF_SHORT, i], paths[0, i] = back, j
                count += 1
    for j in range(len(options.signs) + 1):
        if is_cover(options, i, j):
            there = rows[OF_SHORT, i] + compute_cover(options, rules.rates, i, j)
            if there < rows[OF_LONG, j] - slack:
                rows[OF_LONG, j], paths[1, j] = there, i
                count += 1
    return count > 0


def find_last(rules: OptionRules) -> int:
    rows, found, best = rules.scratch.rows, -1, 0.0
    for j in range(rows.shape[1]):
        if rows[SPARE, j] > 0.0 and rows[OF_LONG, j] < best:
            found, best = j, rows[OF_LONG, j]
    return found


def pair_along(rules: OptionRules, last: int) -> None:
    scratch, paths = rules.scratch, rules.scratch.paths
    units, j = scratch.rows[SPARE, last], last
    while j >= 0:
        i = paths[1, j]
        j = paths[0, i]
        units = min(units, scratch.rows[LEFT, i] if j < 0 else scratch.matches[i, j])
    scratch.rows[SPARE, last] -= units
    j = last
    while j >= 0:
        i = paths[1, j]
        scratch.matches[i, j] += units
        j = paths[0, i]
        if j < 0:
            scratch.rows[LEFT, i] -= units
        else:
            scratch.matches[i, j] -= units


def pair_shorts(
    options: OptionPositions, rules: OptionRules, g: int, sign: float, bonus: float
) -> None:
    n = len(options.signs)
    for _ in range(4 * n * (n + 1)):
        find_distances(options, rules, g, sign, bonus)
        last = find_last(rules)
        if last < 0:
            break
        pair_along(rules, last)


# ----------------------------------------------------------------------------- what it needs


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
        before = 0
        for i in range(first):
            before += options.expiries[i] == options.expiries[first]
        if options.groups[first] == g and before == 0:
            e = options.expiries[first]
            worst = max(0.0, find_loss(options, rules, e, 0.0))
            for i in range(n):
                if options.groups[i] == g:
                    worst = max(worst, find_loss(options, rules, e, options.strikes[i]))
            total += worst
    return total


def find_dearest(options: OptionPositions, rules: OptionRules, g: int, sign: float) -> int:
    rows, found = rules.scratch.rows, -1
    for i in range(len(options.signs)):
        is_open = is_sold(options, i, g, sign) and rows[LEFT, i] > 0.0
        if is_open and (found < 0 or rows[NAKED, i] > rows[NAKED, found]):
            found = i
    return found


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


def sum_covered(
    packed: PortfolioRules,
    held: Holdings,
    options: OptionPositions,
    rules: OptionRules,
    g: int,
    is_initial: bool,
) -> float:
    scratch, n, total = rules.scratch, len(options.signs), 0.0
    for i in range(n):
        units = scratch.matches[i, n] if options.groups[i] == g else 0.0
        if units > 0.0 and options.quantities[i] < 0.0:
            total += units * compute_cover(options, rules.rates, i, n)
            if not is_initial and rules.rates.conversion > 0.0:
                shares = find_shares(packed, held, rules, g)
                of_shares = compute_own_maintenance(packed, held, rules.underlyings[g]) / abs(
                    shares
                )
                spared = of_shares - rules.rates.conversion * options.strikes[i]
                total -= max(0.0, spared) * min(units, find_other_side(options, rules, i))
    return total


def find_other_side(options: OptionPositions, rules: OptionRules, i: int) -> float:
    units = 0.0
    for j in range(len(options.signs)):
        if options.pairs[j] == options.pairs[i] and options.signs[j] != options.signs[i]:
            units += rules.scratch.rows[SPARE, j]
    return units


def pair_group(
    packed: PortfolioRules,
    held: Holdings,
    options: OptionPositions,
    rules: OptionRules,
    g: int,
    way: int,
) -> None:
    shares = find_shares(packed, held, rules, g)
    bonus = FAR * find_index(options, g) if way == 2 else 0.0
    for sign in (1.0, -1.0):
        reset(options, rules, g, shares, sign)
        if way > 0:
            pair_shorts(options, rules, g, sign, bonus)


def find_way(
    packed: PortfolioRules,
    held: Holdings,
    options: OptionPositions,
    rules: OptionRules,
    g: int,
    is_initial: bool,
) -> tuple[int, float]:
    found, least = 0, math.inf
    for way in (1, 2, 0):
        pair_group(packed, held, options, rules, g, way)
        needed = sum_pairs(options, rules, g)
        needed += sum_covered(packed, held, options, rules, g, is_initial)
        needed += sum_naked(options, rules, g)
        if needed < least:
            found, least = way, needed
    return found, least


def find_index(options: OptionPositions, g: int) -> float:
    for i in range(len(options.signs)):
        if options.groups[i] == g:
            return float(options.indices[i])
    return 0.0


def compute_strategies(
    packed: PortfolioRules,
    held: Holdings,
    options: OptionPositions,
    rules: OptionRules,
    is_initial: bool,
) -> float:
    total = 0.0
    for g in range(len(rules.underlyings)):
        total += find_way(packed, held, options, rules, g, is_initial)[1]
    return total


def compute_premiums(
    packed: PortfolioRules, held: Holdings, options: OptionPositions, rules: OptionRules
) -> float:
    matches, n, total = rules.scratch.matches, len(options.signs), 0.0
    for g in range(len(rules.underlyings)):
        way = find_way(packed, held, options, rules, g, True)[0]
        pair_group(packed, held, options, rules, g, way)
        for i in range(n):
            if options.groups[i] == g:
                total += max(0.0, options.quantities[i]) * options.marks[i]
                if options.quantities[i] < 0.0:
                    for j in range(n):
                        total -= matches[i, j] * (options.marks[i] / options.sizes[i])
    return total
