"""Most likely parameters of log returns: jumps, and GARCH whose mean variance is given."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, gammaln, logit
from scipy.stats import poisson

from backtest.base import FloatArray, compile_module
from backtest.features import find_backcast, garch_kernels

MOST_AT_ONCE = 4
"""Jumps in one bar that the likelihood of Merton's model counts."""
FAR = 4.0
"""Returns beyond this many robust deviations start the search as jumps."""
LARGEST_PERSISTENCE = 0.9999
LEAST_DEGREES = 2.05
STEPS, CHAINS = 1500, 400
"""Bars and number of the chains whose mean variance is made that of history."""
MOST_RAISE, BISECTIONS = 64.0, 8
FIRST = (4.0, -2.5, 0.5, 0.0)
"""Where the search begins: a persistence of 0.98, 8 % of it from the last surprise, 3.7 degrees of
freedom, and no asymmetry."""


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


class StudentGarch(NamedTuple):
    omega: float
    alpha: float
    beta: float
    gamma: float
    degrees_of_freedom: float
    variance_now: float
    variance_most: float


def fit_student_garch(returns: FloatArray, *, is_asymmetric: bool) -> StudentGarch:
    """Return the most likely GARCH(1,1), or GJR, with Student's t of returns of mean 0.

    Notes
    -----
    In the likelihood, omega is ``(1 - alpha - gamma / 2 - beta)`` times the mean square of the
    returns. The likelihood alone puts the mean variance far above them, as the persistence of
    hourly prices is close to 1. The variance is bounded by the largest one of the returns, and
    omega then raised, so that paths have the mean square of the returns all the same.
    Source: Engle and Mezrich (1996), GARCH for Groups, Risk 9(8).
    """
    squares = np.concatenate([[0.0], returns**2])
    falls = np.concatenate([[0.0], (returns < 0.0).astype(np.float64)])
    target, backcast = float(np.mean(squares[1:])), find_backcast(squares[1:])
    filter_variance = compile_module(garch_kernels).filter_variance

    def read(x: FloatArray) -> StudentGarch:
        persistence = LARGEST_PERSISTENCE * float(expit(x[0]))
        shocks = persistence * float(expit(x[1]))
        skew = 2.0 * float(expit(x[3])) - 1.0 if is_asymmetric else 0.0
        weights = np.array([(1.0 - persistence) * target, shocks * (1.0 - skew),
                            2.0 * shocks * skew, persistence - shocks])  # fmt: skip
        ahead[0] = weights[0] + (shocks + weights[3]) * backcast
        filter_variance(squares, falls, weights, backcast, 1, ahead)
        omega, alpha, gamma, beta = map(float, weights)
        degrees = LEAST_DEGREES + float(np.exp(min(x[2], 6.0)))
        return StudentGarch(
            omega, alpha, beta, gamma, degrees, float(ahead[-1]), float(ahead.max())
        )

    def log_density(x: FloatArray) -> FloatArray:
        nu = read(x).degrees_of_freedom
        constant = gammaln(0.5 * (nu + 1.0)) - gammaln(0.5 * nu) - 0.5 * np.log(np.pi * (nu - 2.0))
        tail = np.log1p(squares[1:] / (ahead[:-1] * (nu - 2.0)))
        return np.asarray(constant - 0.5 * np.log(ahead[:-1]) - 0.5 * (nu + 1.0) * tail)

    ahead = np.empty(len(squares))
    found = read(np.append(maximize(log_density, [*FIRST[: 3 + is_asymmetric]]), 0.0))
    return found._replace(omega=found.omega * find_raise(found, target))


def find_raise(fit: StudentGarch, target: float) -> float:
    nu = fit.degrees_of_freedom
    shocks = np.random.default_rng(0).standard_t(nu, (STEPS, CHAINS)) * np.sqrt((nu - 2.0) / nu)
    weights = (fit.alpha + fit.gamma * (shocks < 0.0)) * shocks**2 + fit.beta

    def find_mean(factor: float) -> float:
        variance, total = np.full(CHAINS, target), 0.0
        for weight in weights:
            variance = np.minimum(factor * fit.omega + weight * variance, fit.variance_most)
            total += float(np.mean(variance))
        return total / STEPS

    low, high = 1.0, 2.0
    while find_mean(high) < target and high < MOST_RAISE:
        high *= 2.0
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if find_mean(middle) < target else (low, middle)
    return low
