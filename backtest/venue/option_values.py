"""Values of options at a moved index and volatility, in functions that also compile.

The index moves at a constant basis: the forward moves with it. Time stands still. An option that
settles in coins is worth its cash value over the moved forward.
"""

from __future__ import annotations

import math

from backtest.base import log_ratio, normal_cdf, normal_density, normalized_price, scalar_price
from backtest.venue.option_records import LONG, NET, OptionPositions, OptionRules, ShockTables

DAYS_PER_YEAR = 365.0
SMALL_VEGA = 1e-4
"""A vega under this share of the forward says nothing of a spread in volatility."""


def compute_option_value(
    options: OptionPositions, i: int, ratio: float, volatility: float
) -> float:
    forward = options.indices[i] * options.bases[i] * ratio
    price = scalar_price(
        options.signs[i],
        forward,
        options.strikes[i],
        options.years[i],
        volatility,
        options.rates[i],
        options.are_coin[i],
    )
    return float(options.sizes[i] * price)


def compute_option_delta(options: OptionPositions, i: int) -> float:
    sign, forward = options.signs[i], options.indices[i] * options.bases[i]
    s = options.volatilities[i] * math.sqrt(options.years[i])
    if not s > 0.0:
        above = sign * (forward - options.strikes[i])
        step = 0.5 if above == 0.0 else (1.0 if above > 0.0 else 0.0)
        return float(options.sizes[i] * sign * step)
    d1 = log_ratio(forward, options.strikes[i]) / s + 0.5 * s
    return float(options.sizes[i] * sign * normal_cdf(sign * d1))


def is_vega_small(options: OptionPositions, i: int) -> bool:
    root = math.sqrt(options.years[i])
    s = options.volatilities[i] * root
    if not s > 0.0:
        return True
    d1 = log_ratio(options.indices[i] * options.bases[i], options.strikes[i]) / s + 0.5 * s
    discount = math.exp(-options.rates[i] * options.years[i])
    return bool(discount * normal_density(d1) * root < SMALL_VEGA)


def compute_shock_scale(shocks: ShockTables, years: float) -> float:
    """Return ``(days / max(T, least_days)) ** power``, which scales a move of volatility."""
    days = DAYS_PER_YEAR * years
    power = shocks.short_power if days <= shocks.days else shocks.long_power
    if power == 0.0:
        return 1.0
    return float((shocks.days / max(days, shocks.least_days)) ** power)


def compute_shocked_volatility(
    shocks: ShockTables, volatility: float, shock: float, scale: float
) -> float:
    if shock == 0.0:
        return volatility
    moved = volatility * max(0.0, 1.0 + shock * scale)
    return max(moved, shocks.least_volatility) if shock > 0.0 else moved


def compute_skewed_volatility(
    options: OptionPositions, i: int, shocks: ShockTables, is_absolute: bool
) -> float:
    root = math.sqrt(options.years[i])
    first = 2 if is_absolute else 0
    cap = shocks.skew[first] + shocks.skew[first + 1] * root
    level = shocks.skew[6] + shocks.skew[7] * root
    width = max(shocks.skew[4], root * shocks.skew[5] * level)
    k = -log_ratio(options.indices[i] * options.bases[i], options.strikes[i])
    k = abs(k) if is_absolute else k
    turn = k * cap / width if width > 0.0 else 0.0
    turn = min(cap, turn) if k >= 0.0 else max(-cap, turn)
    return float(options.volatilities[i] * max(0.0, 1.0 + turn))


def fill_row_values(options: OptionPositions, rules: OptionRules, i: int) -> None:
    shocks, table, g = rules.shocks, rules.scratch.table, options.groups[i]
    forward, strike = options.indices[i] * options.bases[i], options.strikes[i]
    time, distance = math.sqrt(options.years[i]), log_ratio(forward, strike)
    discount = options.sizes[i] * math.exp(-options.rates[i] * options.years[i])
    middle = math.sqrt(forward) * math.sqrt(strike)
    scale = compute_shock_scale(shocks, options.years[i])
    for k in range(shocks.counts[g]):
        volatility = compute_shocked_volatility(
            shocks, options.volatilities[i], shocks.volatilities[g, k], scale
        )
        moved = forward * (1.0 + shocks.moves[g, k])
        value = max(0.0, options.signs[i] * (moved - strike))
        s = volatility * time
        if s > 0.0:
            x = -abs(distance + shocks.logs[g, k])
            value += middle * shocks.roots[g, k] * normalized_price(x, s)
        table[i, k] = discount * value / moved if options.are_coin[i] else discount * value


def fill_scenario_values(options: OptionPositions, rules: OptionRules, i: int) -> None:
    shocks, table = rules.shocks, rules.scratch.table
    after = shocks.moves.shape[1]
    volatility = options.volatilities[i]
    fill_row_values(options, rules, i)
    if shocks.has_skew:
        for row in range(2):
            turned = compute_skewed_volatility(options, i, shocks, row == 1)
            table[i, after + row] = compute_option_value(options, i, 1.0, turned)
    if shocks.has_expiry_charge:
        move = shocks.expiry_charge[0]
        table[i, after + 2] = compute_option_value(options, i, 1.0 + move, volatility)
        table[i, after + 3] = compute_option_value(options, i, 1.0 - move, volatility)


def compute_counted_rate(rules: OptionRules, options: OptionPositions, i: int) -> float:
    if rules.counted == NET:
        return 1.0
    if options.quantities[i] <= 0.0:
        return 0.0
    if rules.counted == LONG:
        return 1.0
    has_loan = rules.rates.loan_rate > 0.0 and options.years[i] > rules.rates.loan_years
    return rules.rates.loan_rate if has_loan and not has_short(options, i) else 0.0


def has_short(options: OptionPositions, i: int) -> bool:
    count = 0
    for j in range(len(options.signs)):
        is_alike = options.groups[j] == options.groups[i] and options.signs[j] == options.signs[i]
        count += is_alike and options.quantities[j] < 0.0
    return count > 0


def compute_counted_value(rules: OptionRules, options: OptionPositions) -> float:
    total = 0.0
    for i in range(len(options.signs)):
        if options.quantities[i] != 0.0:
            rate = compute_counted_rate(rules, options, i)
            total += rate * (options.quantities[i] * options.marks[i])
    return total


def compute_options_value(options: OptionPositions) -> float:
    total = 0.0
    for i in range(len(options.signs)):
        if options.quantities[i] != 0.0:
            total += options.quantities[i] * options.marks[i]
    return total
