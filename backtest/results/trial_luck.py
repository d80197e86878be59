"""How many independent trials some correlated ones are worth, and what their best shows by luck."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backtest import core
from backtest.core.code_names import sp
from backtest.core.one_thread import one_thread
from backtest.results.luck import check_returns, expected_max_sharpe
from backtest.results.performance import LEAST_DEVIATION

DRAWS = 10_000
"""Simulated Sharpe ratios of each trial."""
MOST_TRIALS = 512
"""Trials that are simulated; of more, a random sample."""
FIGURES = 4
"""Significant digits of what was simulated, fewer than rounding errors of a machine can reach."""


class TrialLuck(NamedTuple):
    """How many independent trials some are worth, and what their best shows without skill.

    ``deviation`` is that of their Sharpe ratios without skill, in standard errors of one ratio:
    ``expected_max_sharpe(n, deviation)`` is the expected highest, in the same unit.
    """

    n: float
    deviation: float

    def find_deviation(self, n_returns: int, periods: float = 1.0) -> float:
        return self.deviation * math.sqrt(periods / (n_returns - 1))


@core.checked
def effective_trials(returns: core.FloatArray, *, n_trials: int | None = None) -> float:
    """Return the number of independent trials equivalent to several correlated trials.

    ``returns`` (n_samples, k) are finite simple returns of k trials over the same samples;
    ``n_trials`` is how many there were; these are a sample of them. The result is from 1
    (identical columns) to ``n_trials`` (uncorrelated ones), to four digits.

    Notes
    -----
    Without skill, estimated Sharpe ratios are normal with the correlations of the returns (Jobson
    and Korkie 1981, J. Finance 36(4)). The result is the number of independent normals whose
    expected highest is the mean of the highest of these in 10,000 draws: trials that share most of
    their returns, as where only a scale varies, are hardly more than one. Halves of the trials show
    how it grows with their count: n ~ k^b, b from 0 (more trials are copies) to 1 (each is new);
    trials beyond the k given count by this power. Constant trials count as identical, and as
    uncorrelated with others.

    Examples
    --------
    >>> effective_trials(np.array([[0.1, 0.1, 0.1], [0.2, 0.2, 0.2]]))
    1.0
    """
    return simulate_luck(returns, n_trials=n_trials).n


def simulate_luck(returns: core.FloatArray, *, n_trials: int | None = None) -> TrialLuck:
    """Return the luck of trials by the ``returns`` of a sample; see :func:`effective_trials`.

    Without skill, the highest of these is expected as high as that of the number of independent
    trials that is returned, whose ratios have the deviation that is returned.
    """
    table = check_returns(returns, samples=2)
    n_given = table.shape[1]
    total = n_given if n_trials is None else n_trials
    core.check_range("n_trials", total, low=n_given, open_high=True)

    # Sharpe ratios without skill, as correlated as the returns of a random order of trials.
    rng = np.random.default_rng(0)
    order = rng.permutation(n_given)[:MOST_TRIALS]
    n_drawn = len(order)
    with one_thread():
        draws = rng.standard_normal((DRAWS, n_drawn)) @ find_root(table[:, order])
    effective, highest = match_draws(draws)

    # One trial has no half, and up to 1.26 trials the expected highest is 0.
    half = n_drawn // 2
    expected = expected_max_sharpe(effective, 1.0)
    if half == 0 or expected == 0.0:
        return TrialLuck(round_figures(effective), 1.0)

    # Halves show the power by which the effective number grows with that of trials.
    effective_first, _ = match_draws(draws[:, :half])
    effective_second, _ = match_draws(draws[:, half : 2 * half])
    effective_half = 0.5 * (effective_first + effective_second)
    power = math.log(effective / effective_half) / math.log(n_drawn / half)
    power = min(1.0, max(0.0, power))
    grown = min(float(total), effective * (total / n_drawn) ** power)
    return TrialLuck(round_figures(grown), round_figures(highest / expected))


def find_root(table: core.FloatArray) -> core.FloatArray:
    """Return the root of the correlations of trials (n_samples, k), of shape (k, k).

    Constant trials are correlated with each other alone.
    """
    centered = table - np.mean(table, axis=0)
    is_moving = np.std(table, axis=0) >= LEAST_DEVIATION
    norms = np.sqrt(np.sum(centered**2, axis=0))
    units = np.where(is_moving, centered / np.where(is_moving, norms, 1.0), 0.0)
    correlations = units.T @ units + np.outer(~is_moving, ~is_moving)

    # A negative eigenvalue is a rounding error of 0.
    values, vectors = np.linalg.eigh(correlations)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)


def match_draws(draws: core.FloatArray) -> tuple[float, float]:
    """Return how many normals have the mean maximum of the draws, and this maximum."""
    most = draws.shape[1]
    highest = float(np.mean(np.max(draws, axis=1) - np.mean(draws, axis=1)))  # copies: exactly 0

    # The expected maximum of n normals: the integral of 1 - F(x)^n - F(-x)^n over x > 0.
    x, step = np.linspace(0.0, 9.0, 1_801, retstep=True)
    above = sp.special.ndtr(x)
    below = sp.special.ndtr(-x)

    def measure_excess(log_n: float) -> float:
        n = math.exp(log_n)
        values = 1.0 - above**n - below**n
        return float(step * (np.sum(values) - 0.5 * values[0])) - highest

    end = math.log(most)
    if measure_excess(end) <= 0.0:
        return float(most), highest
    log_n = sp.optimize.brentq(measure_excess, 0.0, end, xtol=1e-13)
    return math.exp(log_n), highest


def round_figures(value: float) -> float:
    return float(f"{value:.{FIGURES}g}")
