"""What a contract is worth at a price, and what a settlement of its funding pays."""

from __future__ import annotations

from backtest.core.kernels import inlined


@inlined
def compute_value(size: float, is_inverse: bool, price: float) -> float:
    """Return u(P), the value of one contract in the settlement currency."""
    return -size / price if is_inverse else size * price


def compute_payment(quantity: float, value: float, rate: float) -> float:
    """Return the payment of a position at a funding event: ``q |u| r``, negative if received."""
    return quantity * (abs(value) * rate)
