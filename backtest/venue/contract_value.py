"""What one contract is worth, and what a funding event costs: formulas on plain numbers.

The value ``u(P)`` of a contract is ``size P`` (linear) or ``-size / P`` (inverse) in the settlement
currency. It rises with the price in both, so that one formula of margin and profit serves both.

The lines serve one account as well as arrays: :func:`choose` and :func:`is_any` stand for a branch,
and :func:`backtest.base.compiled_twins.make_array_twins` puts numpy's functions in their place.
"""

from __future__ import annotations

import math


def choose(condition: bool, yes: float, no: float) -> float:
    """Return one of two numbers; of arrays, element by element."""
    return yes if condition else no


def is_any(condition: bool) -> bool:
    """Return the condition; of an array, whether it holds anywhere."""
    return condition


def compute_value(size: float, is_inverse: bool, price: float) -> float:
    """Return u(P), the value of one contract in the settlement currency."""
    return -size / price if is_inverse else size * price


def compute_price(size: float, is_inverse: bool, value: float) -> float:
    """Return the price at which one contract is worth ``value``; NaN where there is none."""
    known = choose(value != 0.0, value, math.nan)
    return -size / known if is_inverse else known / size


def compute_payment(quantity: float, value: float, rate: float) -> float:
    """Return what a position pays at one funding event at u: ``q |u| r``, negative if received."""
    return quantity * (abs(value) * rate)
