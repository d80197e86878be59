"""Value of collateral at its rates, as backing of cross positions.

An asset counts at the rate of each tier of its value, as tax brackets do: ``sum over tiers of
rate * (the part of the value between floor and cap)``, nothing beyond the last cap. A debt counts
in full.
"""

from __future__ import annotations

from backtest.venue.portfolio_rules import CollateralTables, Holdings


def compute_value_at_rate(tables: CollateralTables, c: int, value: float) -> float:
    """Return what a value of one asset counts for; a negative value is a debt."""
    if value < 0.0:
        return value
    counted = 0.0
    for k in range(tables.counts[c]):
        if value > tables.floors[c, k]:
            counted += tables.rates[c, k] * (min(value, tables.caps[c, k]) - tables.floors[c, k])
    return counted


def compute_marginal_rate(tables: CollateralTables, c: int, value: float) -> float:
    """Return what the last unit of a value of one asset counts for."""
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
    """Return the value of all collateral in full."""
    total = 0.0
    for c in range(len(held.amounts)):
        if held.amounts[c] != 0.0:
            total += held.amounts[c] * held.prices[c]
    return total
