"""The liquidation price in closed form: where the backing of a position equals its requirement."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.venue.contract_value import choose
from backtest.venue.requirement import (
    MarginRules,
    compute_maintenance,
    compute_maintenances,
    compute_rate,
)

if TYPE_CHECKING:
    from backtest.base import FloatArray


def compute_liquidation_value(
    rules: MarginRules, quantity: float, entry: float, base: float, multiplier: float
) -> float:
    """Return the u at which ``base + q u = MM``; NaN if no price liquidates."""
    size = abs(quantity)
    side = choose(quantity > 0.0, 1.0, -1.0)
    sign = -1.0 if rules.is_inverse else 1.0
    if rules.is_valued_at_entry:
        needed = compute_maintenance(rules, size * abs(entry), multiplier)
        root = side * (needed - base) / choose(size > 0.0, size, 1.0)
        return choose((size > 0.0) & (root * sign > 0.0), root, math.nan)
    best, highest = math.nan, -math.inf
    amount, last = 0.0, 0.0
    for k in range(len(rules.floors)):
        rate = compute_rate(rules, k, multiplier)
        if k > 0:
            amount += rules.floors[k] * (rate - last)
        last = rate
        slope = size * (1.0 - side * sign * rate)
        root = -side * (base + amount) / choose(slope > 0.0, slope, 1.0)
        is_nearer = (slope > 0.0) & (root * sign > 0.0) & (side * root > highest)
        best = choose(is_nearer, root, best)
        highest = choose(is_nearer, side * root, highest)
    return best


def compute_liquidation_values(
    rules: MarginRules, quantity: FloatArray, entry: FloatArray, base: FloatArray, multiplier: Any
) -> FloatArray:
    """Return what :func:`compute_liquidation_value` does, for arrays."""
    size, side = np.abs(quantity), np.where(quantity > 0.0, 1.0, -1.0)
    sign = -1.0 if rules.is_inverse else 1.0
    if rules.is_valued_at_entry:
        needed = compute_maintenances(rules, size * np.abs(entry), multiplier)
        root = side * (needed - base) / np.where(size > 0.0, size, 1.0)
        return np.where((size > 0.0) & (root * sign > 0.0), root, math.nan)
    best, highest = np.full(np.shape(quantity), math.nan), np.full(np.shape(quantity), -math.inf)
    amount, last = 0.0, 0.0
    for k in range(len(rules.floors)):
        rate = np.minimum(1.0, multiplier * rules.rates[k] + rules.close_fee)
        if k > 0:
            amount = amount + rules.floors[k] * (rate - last)
        last = rate
        slope = size * (1.0 - side * sign * rate)
        root = -side * (base + amount) / np.where(slope > 0.0, slope, 1.0)
        is_nearer = (slope > 0.0) & (root * sign > 0.0) & (side * root > highest)
        best, highest = np.where(is_nearer, root, best), np.where(is_nearer, side * root, highest)
    return best
