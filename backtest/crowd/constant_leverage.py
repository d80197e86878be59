"""A crowd at constant leverage, in closed form: its flow, its feedback, its critical leverage."""

from __future__ import annotations

import math

from backtest.base import check_range


def rebalancing_flow(leverage: float, wealth: float, move: float) -> float:
    """Return the notional that a crowd buys after a move, at the new price.

    After a return r the position is ``L (1 + r) W`` and the target ``L (1 + L r) W``, so the flow
    is ``L (L - 1) W r``: it sells after falls if L > 1.

    Examples
    --------
    >>> rebalancing_flow(3.0, 100.0, -0.01)
    -6.0
    """
    return leverage * (leverage - 1.0) * wealth * move


def feedback_gain(leverage: float, wealth: float, impact: float) -> float:
    """Return the final move over the first: ``1 / (1 - k W L (L - 1))``; infinite from 1 on.

    ``impact`` k is the move that a unit of notional makes (linear).

    Examples
    --------
    >>> round(feedback_gain(3.0, 100.0, 1e-3), 9)
    2.5
    """
    reproduction = impact * wealth * leverage * (leverage - 1.0)
    return 1.0 / (1.0 - reproduction) if reproduction < 1.0 else math.inf


def critical_leverage(wealth: float, impact: float) -> float:
    """Return the leverage at which feedback becomes unstable: the root of ``k W L (L - 1) = 1``.

    Raises
    ------
    ParameterError
        If wealth or impact is not positive.

    Examples
    --------
    >>> round(critical_leverage(100.0, 1.0 / 600.0), 9)
    3.0
    """
    check_range("wealth", wealth, where="critical_leverage, wealth", low=0.0, open_low=True)
    check_range("impact", impact, where="critical_leverage, impact", low=0.0, open_low=True)
    return 0.5 + 0.5 * math.sqrt(1.0 + 4.0 / (impact * wealth))
