"""Likelihoods of jump models on log returns, for bars with seldom more than one jump."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import erfcx, expit, logit
from scipy.stats import poisson

from backtest.base import FloatArray

MOST_AT_ONCE = 4
"""Jumps in one bar that the likelihood of Merton's model counts."""
FAR = 4.0
"""Returns beyond this many robust deviations start the search as jumps."""


def fit_merton(returns: FloatArray) -> tuple[float, float, float, float]:
    """Return deviation per bar, jumps per bar, and mean and deviation of a jump: most likely."""
    deviation, far, share = split_returns(returns)

    def log_density(x: FloatArray) -> FloatArray:
        s, jumps, mean, spread = math.exp(x[0]), expit(x[1]), x[2], math.exp(x[3])
        total = np.zeros(len(returns))
        for k in range(MOST_AT_ONCE):
            width = math.sqrt(s * s + k * spread * spread)
            z = (returns - k * mean) / width
            total += poisson.pmf(k, jumps) * np.exp(-0.5 * z * z) / width
        return np.asarray(np.log(np.maximum(total, 1e-300)))

    spread = float(np.std(far)) if len(far) > 1 else FAR * deviation
    first = [math.log(deviation), logit(share), 0.0, math.log(max(spread, deviation))]
    found = maximize(log_density, first)
    return math.exp(found[0]), float(expit(found[1])), float(found[2]), math.exp(found[3])


def fit_kou(returns: FloatArray) -> tuple[float, float, float, float, float]:
    """Return deviation and jumps per bar, the share that go up, and their mean sizes."""
    deviation, far, share = split_returns(returns)

    def log_density(x: FloatArray) -> FloatArray:
        s, jumps, up = math.exp(x[0]), expit(x[1]), expit(x[2])
        rise, fall = expit(x[3]), math.exp(x[4])
        still = np.exp(-0.5 * (returns / s) ** 2) / (s * math.sqrt(2.0 * math.pi))
        jumped = up * add_exponential(returns, s, rise)
        jumped += (1.0 - up) * add_exponential(-returns, s, fall)
        total = (1.0 - jumps) * still + jumps * jumped
        return np.asarray(np.log(np.maximum(total, 1e-300)))

    size = float(np.mean(np.abs(far))) if far.size else FAR * deviation
    size = min(max(size, deviation), 0.5)
    first = [math.log(deviation), logit(share), 0.0, logit(size), math.log(size)]
    found = maximize(log_density, first)
    return (
        math.exp(found[0]),
        float(expit(found[1])),
        float(expit(found[2])),
        float(expit(found[3])),
        math.exp(found[4]),
    )


def add_exponential(x: FloatArray, s: float, size: float) -> FloatArray:
    """Return the density of a normal number of deviation s plus an exponential one of mean size.

    ``exp(s^2 / 2 a^2 - x / a) Phi(x / s - s / a) / a``, written by erfcx so that nothing overflows.
    """
    z = (s / size - x / s) / math.sqrt(2.0)
    inner = np.exp(-0.5 * (x / s) ** 2) * erfcx(np.maximum(z, -25.0))
    far = 2.0 * np.exp(np.minimum(0.5 * (s / size) ** 2 - x / size, 700.0))
    return np.asarray(np.where(z > -25.0, inner, far) / (2.0 * size))


def split_returns(returns: FloatArray) -> tuple[float, FloatArray, float]:
    deviation = float(np.median(np.abs(returns))) / 0.6745 or float(np.std(returns))
    far = returns[np.abs(returns) > FAR * deviation]
    share = min(max(len(far) / len(returns), 1.0 / len(returns)), 0.2)
    return deviation, far, share


def maximize(log_density: Callable[[FloatArray], FloatArray], first: list[float]) -> FloatArray:
    def cost(x: FloatArray) -> float:
        return -float(np.mean(log_density(np.clip(x, -30.0, 30.0))))

    settings = {"maxiter": 4000, "xatol": 1e-4, "fatol": 1e-9}
    found: Any = minimize(cost, first, method="Nelder-Mead", options=settings)  # type: ignore[call-overload] # its stubs know no limits of this method
    return np.clip(np.asarray(found.x, dtype=np.float64), -30.0, 30.0)
