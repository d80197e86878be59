"""The venue's margin functions on arrays of accounts: liquidation prices, requirements, values.

The formulas are those of :mod:`backtest.venue`; here they take arrays. An account's money is kept
as ``base``, its equity without the position: ``equity(P) = base + q u(P)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.base import FloatArray, ParameterError, make_array_twins
from backtest.base.units import TOLERANCE
from backtest.venue import (
    MarginRules,
    contract_value,
    liquidation_price,
    read_newest,
    read_rules,
    requirement,
)

if TYPE_CHECKING:
    from backtest.base import BoolArray
    from backtest.venue import Venue

ARRAYS = make_array_twins(contract_value, requirement, liquidation_price)


class ForcedRules(NamedTuple):
    margin: MarginRules
    mode: str
    fee: float
    slippage: float
    step: float
    full_below: float


def read_forced_rules(venue: Venue) -> ForcedRules:
    terms = venue.liquidation
    if terms.full_below_health > 0.0:
        raise ParameterError(
            "liquidation.full_below_health must be left out for a crowd, "
            f"got {terms.full_below_health:g}"
        )
    fee, slippage = (
        read_newest(getattr(terms, name), f"venue.liquidation.{name}", "in a crowd")
        for name in ("fee", "slippage")
    )
    is_taken = terms.mode == "takeover"
    return ForcedRules(
        margin=read_rules(venue),
        mode=terms.mode,
        fee=0.0 if is_taken else fee,
        slippage=0.0 if is_taken else slippage,
        step=0.0 if isinstance(terms.step, str) else terms.step,
        full_below=terms.full_below,
    )


def to_value(rules: MarginRules, price: Any) -> Any:
    return ARRAYS.compute_value(rules.size, rules.is_inverse, price)


def to_price(rules: MarginRules, value: Any) -> Any:
    return ARRAYS.compute_price(rules.size, rules.is_inverse, value)


def find_liquidation_prices(
    rules: MarginRules,
    quantity: FloatArray,
    entry: FloatArray,
    base: FloatArray,
    multiplier: float = 1.0,
) -> FloatArray:
    root = ARRAYS.compute_liquidation_value(rules, quantity, entry, base, multiplier)
    price = np.where(np.isnan(root), np.nan, to_price(rules, root))
    needed = ARRAYS.compute_maintenance(rules, np.abs(quantity * entry), multiplier)
    is_failing = base + quantity * entry <= needed * (1.0 + TOLERANCE)
    price = np.where(np.isnan(price) & is_failing, to_price(rules, entry), price)
    return np.asarray(np.where(quantity == 0.0, np.nan, price))


def find_bankruptcy_prices(
    rules: MarginRules, quantity: FloatArray, base: FloatArray
) -> FloatArray:
    size = np.where(quantity == 0.0, np.nan, quantity)
    price = to_price(rules, -base / size)
    return np.asarray(np.where(price > 0.0, price, np.nan))


def find_failing(quantity: FloatArray, liquidation: FloatArray, price: float) -> BoolArray:
    is_long = (quantity > 0.0) & (liquidation * (1.0 + TOLERANCE) >= price)
    is_short = (quantity < 0.0) & (liquidation * (1.0 - TOLERANCE) <= price)
    return np.asarray(is_long | is_short)


def choose_sizes(
    rules: ForcedRules,
    quantity: FloatArray,
    base: FloatArray,
    first: FloatArray,
    value: FloatArray,
) -> FloatArray:
    if rules.mode != "partial":
        return quantity
    notional = np.abs(quantity * value)
    is_whole = notional <= rules.full_below * (1.0 + TOLERANCE)
    is_whole |= np.abs(quantity) <= 1e-9 * np.abs(first)
    is_whole |= base + quantity * value <= TOLERANCE * notional
    if rules.step > 0.0:
        return np.where(is_whole, quantity, quantity * rules.step)
    floors = np.asarray(rules.margin.floors)
    row = np.searchsorted(floors, notional * (1.0 - 1e-9), side="left") - 1
    floor = floors[np.maximum(row, 0)]
    is_whole |= floor == 0.0
    return np.where(is_whole, quantity, quantity - np.sign(quantity) * floor / np.abs(value))


def worsen_value(rules: ForcedRules, value: FloatArray, side: FloatArray) -> FloatArray:
    price = to_price(rules.margin, value) * (1.0 + side * rules.slippage)
    return np.asarray(to_value(rules.margin, price))
