"""A crowd at constant leverage, in closed form: its flow, its feedback, its critical leverage."""

from __future__ import annotations

import math

from backtest.base import check_range


def rebalancing_flow(leverage: float, wealth: float, move: float) -> float:
    return leverage * (leverage - 1.0) * wealth * move


def feedback_gain(leverage: float, wealth: float, impact: float) -> float:
    reproduction = impact * wealth * leverage * (leverage - 1.0)
    return 1.0 / (1.0 - reproduction) if reproduction < 1.0 else math.inf


def critical_leverage(wealth: float, impact: float) -> float:
    """Return the leverage at which feedback becomes unstable: the root of ``k W L (L - 1) = 1``."""
    check_range("wealth", wealth, where="critical_leverage, wealth", low=0.0, open_low=True)
    check_range("impact", impact, where="critical_leverage, impact", low=0.0, open_low=True)
    return 0.5 + 0.5 * math.sqrt(1.0 + 4.0 / (impact * wealth))
