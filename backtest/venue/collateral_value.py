"""Value of collateral at its rates, as backing of cross positions."""

from __future__ import annotations

from backtest.venue.portfolio_rules import CollateralTables, Holdings


def compute_value_at_rate(tables: CollateralTables, c: int, value: float) -> float:
    if value < 0.0:
        return value
    counted = 0.0
    for k in range(tables.counts[c]):
        if value > tables.floors[c, k]:
            counted += tables.rates[c, k] * (min(value, tables.caps[c, k]) - tables.floors[c, k])
    return counted


def compute_marginal_rate(tables: CollateralTables, c: int, value: float) -> float:
    if value < 0.0:
        return 1.0
    rate = float(tables.rates[c, 0])
    for k in range(tables.counts[c]):
        if value > tables.floors[c, k]:
            rate = float(tables.rates[c, k]) if value <= tables.caps[c, k] else 0.0
    return rate


def compute_collateral_value(tables: CollateralTables, held: Holdings) -> float:
    """Return the value of all collateral at its rates, in the settlement currency."""
    total = 0.0
    for c in range(len(held.amounts)):
        if held.amounts[c] != 0.0:
            total += compute_value_at_rate(tables, c, held.amounts[c] * held.prices[c])
    return total


def compute_full_value(held: Holdings) -> float:
    total = 0.0
    for c in range(len(held.amounts)):
        if held.amounts[c] != 0.0:
            total += held.amounts[c] * held.prices[c]
    return total
