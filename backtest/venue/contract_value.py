"""The value of a contract and the payment of a funding event, on plain numbers.

The value ``u(P)`` of a contract is ``size P`` (linear) or ``-size / P`` (inverse) in the settlement
currency. Both rise with the price, so that one formula of margin and profit works for both.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from backtest.base import FloatArray


def choose(condition: bool, yes: float, no: float) -> float:
    return yes if condition else no


def compute_value(size: float, is_inverse: bool, price: float) -> float:
    """Return u(P), the value of one contract in the settlement currency."""
    return -size / price if is_inverse else size * price


def compute_price(size: float, is_inverse: bool, value: float) -> float:
    """Return the price at which one contract is worth ``value``; NaN if there is none."""
    known = choose(value != 0.0, value, math.nan)
    return -size / known if is_inverse else known / size


def compute_prices(size: float, is_inverse: bool, value: FloatArray) -> FloatArray:
    """Return what :func:`compute_price` does, for an array."""
    known = np.where(value != 0.0, value, math.nan)
    return np.asarray(-size / known if is_inverse else known / size)


def compute_payment(quantity: float, value: float, rate: float) -> float:
    """Return the payment of a position at a funding event: ``q |u| r``, negative if received."""
    return quantity * (abs(value) * rate)
