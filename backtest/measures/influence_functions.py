"""Measures of sampled returns, and the influence of each return on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from backtest.base import FloatArray
from backtest.measures.performance import LEAST_DEVIATION

TAIL = 0.95
"""The level of the expected shortfall."""


class Sampled(NamedTuple):
    """Returns of k accounts over the same n sampling periods."""

    returns: FloatArray
    """Simple returns of shape (k, n), above -1."""
    free: FloatArray
    """The simple risk-free return of each period, of shape (n,)."""
    per_year: float
    """Samples per year of the span, which annualizes a mean."""
    periods: float
    """Samples per calendar year, whose root annualizes a deviation."""


class StatisticInfluence(NamedTuple):
    value: FloatArray
    """Of shape (k,)."""
    influence: FloatArray
    """Of shape (k, n), with mean 0."""


class Statistic(NamedTuple):
    """Measure as a statistic of a series, with the factor that annualizes it."""

    read: Callable[[Sampled], FloatArray]
    estimate: Callable[[FloatArray], StatisticInfluence]
    scale: Callable[[Sampled], float]
    is_risk: bool = False


def estimate_mean(x: FloatArray) -> StatisticInfluence:
    """Return the means of series of shape (k, n)."""
    value = np.mean(x, axis=1)
    return StatisticInfluence(value, x - value[:, None])


def estimate_sharpe(x: FloatArray) -> StatisticInfluence:
    deviation = np.std(x, axis=1, ddof=1)
    known = np.where(deviation >= LEAST_DEVIATION, deviation, np.nan)
    ratio = np.mean(x, axis=1) / known
    z = standardise(x, known)
    return StatisticInfluence(ratio, z - 0.5 * ratio[:, None] * (z * z - 1.0))


def estimate_deviation(x: FloatArray) -> StatisticInfluence:
    deviation = np.std(x, axis=1, ddof=1)
    z = standardise(x, np.maximum(deviation, LEAST_DEVIATION))
    return StatisticInfluence(deviation, 0.5 * deviation[:, None] * (z * z - 1.0))


def estimate_shortfall(x: FloatArray) -> StatisticInfluence:
    """Return the mean of the losses at or beyond their quantile, positive = loss."""
    losses, n = -x, x.shape[1]
    place = math.ceil(TAIL * (n - 1))
    quantile = np.partition(losses, place, axis=1)[:, place, None]
    beyond = losses >= quantile
    m = np.sum(beyond, axis=1)
    value = np.sum(np.where(beyond, losses, 0.0), axis=1) / m
    over = np.maximum(losses - quantile, 0.0) * (n / m)[:, None]
    return StatisticInfluence(value, quantile + over - value[:, None])


def standardise(x: FloatArray, deviation: FloatArray) -> FloatArray:
    n = x.shape[1]
    whole = deviation * math.sqrt((n - 1) / n)
    return np.asarray((x - np.mean(x, axis=1)[:, None]) / whole[:, None])


def measure_activity(x: FloatArray) -> FloatArray:
    """Return the absolute standardized values of series of shape (k, n); 0 without deviation."""
    deviation = np.std(x, axis=1, ddof=1)
    return np.abs(standardise(x, np.maximum(deviation, LEAST_DEVIATION)))


STATISTICS = {
    "log_growth": Statistic(
        lambda sampled: np.log1p(sampled.returns), estimate_mean, lambda sampled: sampled.per_year
    ),
    "sharpe": Statistic(
        lambda sampled: sampled.returns - sampled.free,
        estimate_sharpe,
        lambda sampled: math.sqrt(sampled.periods),
    ),
    "volatility": Statistic(
        lambda sampled: sampled.returns,
        estimate_deviation,
        lambda sampled: math.sqrt(sampled.periods),
        is_risk=True,
    ),
    "es_95": Statistic(
        lambda sampled: sampled.returns, estimate_shortfall, lambda _: 1.0, is_risk=True
    ),
}
