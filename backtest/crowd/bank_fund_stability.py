"""The fixed point of the leverage cycle, its stability, and the critical leverage."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from backtest.base import ParameterError
from backtest.crowd import bank_fund_kernels as kernels

if TYPE_CHECKING:
    from backtest.base import FloatArray
    from backtest.crowd.agents import LeverageCycle

NUDGE = 1e-3
"""How far from its fixed point the price starts, as a share."""


def list_cycle_terms(agents: LeverageCycle) -> FloatArray:
    return np.array(
        [
            agents.tau, agents.delta, agents.tau, agents.theta, agents.eta, agents.rho,
            agents.value, agents.bank_weight, agents.alpha, agents.power, agents.offset,
            agents.equity, agents.a_0 if agents.noise else 0.0, agents.a_1, agents.b_1, 0.0, 0.0,
        ]
    )  # fmt: skip


def find_fixed_point(agents: LeverageCycle) -> FloatArray:
    assets = agents.target * agents.equity
    share = assets * agents.bank_weight / agents.value
    if not share < 1.0:
        raise ParameterError(
            "the bank must own less than all of the asset at its target leverage, got "
            f"{share:.3g} of it",
            where=repr(agents),
            cure="lower alpha or equity",
        )
    debt = assets - agents.equity
    return np.array([0.0, agents.fund_weight, agents.value, share, debt, agents.value])


def start_cycle(agents: LeverageCycle) -> FloatArray:
    state = find_fixed_point(agents)
    state[kernels.PRICE] *= 1.0 + NUDGE
    return state


def measure_growth(agents: LeverageCycle) -> float:
    terms, point = list_cycle_terms(agents), find_fixed_point(agents)
    size = len(point)
    slope = np.empty((size, size))
    for row in range(size):
        step = 1e-6 * max(abs(point[row]), 1e-6) if row else 1e-12
        high, low = point.copy(), point.copy()
        high[row] += step
        low[row] -= step if row else 0.0  # a variance is not negative
        sound = kernels.step_cycle(terms, high, 0.0) and kernels.step_cycle(terms, low, 0.0)
        if not sound:
            return float("inf")
        slope[:, row] = (high - low) / (2.0 * step if row else step)
    sizes = np.abs(np.linalg.eigvals(slope))
    return float(np.max(np.delete(sizes, np.argmin(np.abs(sizes - 1.0)))))


def find_critical_leverage(agents: LeverageCycle) -> float:
    unit = agents.offset**agents.power
    most = 0.999 * agents.value / (agents.bank_weight * agents.equity)
    low, high = 1e-3, min(most, 1e4)

    def is_stable(leverage: float) -> bool:
        return measure_growth(replace(agents, alpha=leverage / unit)) < 1.0

    if is_stable(high):
        raise ParameterError(
            f"no leverage is unstable: the market is stable even at {high:.4g}",
            where=repr(agents),
            cure="raise the equity: a bank of this size cannot destabilize the market",
        )
    while high - low > 1e-6 * high:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if is_stable(middle) else (low, middle)
    return 0.5 * (low + high)
