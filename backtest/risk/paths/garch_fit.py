"""The most likely GARCH model of returns whose mean variance is given: variance targeting."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit, gammaln

from backtest.base import FloatArray, compile_module
from backtest.features import find_backcast, garch_kernels
from backtest.risk.paths.jump_fit import maximize

LARGEST_PERSISTENCE = 0.9999
LEAST_DEGREES = 2.05
STEPS, CHAINS = 1500, 400
"""Bars and number of the chains whose mean variance is made that of history."""
MOST_RAISE, BISECTIONS = 64.0, 8
FIRST = (4.0, -2.5, 0.5, 0.0)
"""Where the search begins: a persistence of 0.98, 8 % of it from the last surprise, 3.7 degrees of
freedom, and no asymmetry."""


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
