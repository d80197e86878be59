"""The best of several correlated trials without skill: how many independent ones it is worth."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backtest.base import FloatArray, check_range, checked
from backtest.measures.deflated_sharpe import check_returns, expected_max_sharpe
from backtest.measures.performance import LEAST_DEVIATION

DRAWS = 10_000
"""Simulated Sharpe ratios of each trial."""
MOST_TRIALS = 512
"""Trials that are simulated; of more, a random sample."""
LEAST_SPREAD = 1e-6
"""A standard deviation over trials below which they are copies of one another."""
FIGURES = 4
"""Significant digits of what was simulated, fewer than rounding errors of a machine can reach."""


class TrialLuck(NamedTuple):
    """What the best of several trials without skill is expected to show.

    Attributes
    ----------
    n : float
        Number of independent trials equivalent to all trials.
    deviation : float
        Standard deviation of their Sharpe ratios without skill, in standard errors of one ratio.
        ``expected_max_sharpe(n, deviation)`` is the expected highest ratio, in the same unit.
    """

    n: float
    deviation: float

    def find_deviation(self, n_returns: int, periods: float = 1.0) -> float:
        return self.deviation * math.sqrt(periods / (n_returns - 1))


@checked
def effective_trials(returns: FloatArray, *, n_trials: int | None = None) -> float:
    """Return the number of independent trials equivalent to several correlated trials.

    Parameters
    ----------
    returns : array of shape (n_samples, k)
        Simple returns of k trials over the same samples; at least 2 samples, all finite.
    n_trials : int, optional
        How many trials there were, of which these k are a sample; k by default.

    Returns
    -------
    float
        From 1 (identical columns) to ``n_trials`` (uncorrelated ones), to four digits.

    Raises
    ------
    ParameterError
        If the returns have another shape or are not finite, or ``n_trials`` is below k.

    Notes
    -----
    Without skill, estimated Sharpe ratios are normal with the correlations of the returns (Jobson
    and Korkie 1981, J. Finance 36(4)). 10,000 draws of them give the mean of the highest ratio and
    of the standard deviation over trials. The result is the number of independent normals whose
    expected highest is as many standard deviations. So :func:`expected_max_sharpe` of this number
    is what the best of these trials shows by luck.

    Halves of the trials show how the number n grows with their count: n ~ k^b, b from 0 (more
    trials are copies) to 1 (each is new). Trials beyond the k given count by this power. Constant
    trials count as identical, and as uncorrelated with others.

    Examples
    --------
    >>> effective_trials(np.array([[0.1, 0.1, 0.1], [0.2, 0.2, 0.2]]))
    1.0
    """
    return simulate_luck(returns, n_trials=n_trials).n


def simulate_luck(returns: FloatArray, *, n_trials: int | None = None) -> TrialLuck:
    table = check_returns(returns, samples=2)
    k = table.shape[1]
    total = k if n_trials is None else n_trials
    check_range("n_trials", total, low=k, open_high=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(k)[:MOST_TRIALS]
    draws = rng.standard_normal((DRAWS, len(order))) @ find_root(table[:, order])
    n, highest = match_draws(draws)
    half = len(order) // 2
    expected = expected_max_sharpe(n, 1.0)  # 0 up to 1.26 trials
    if not half or expected == 0.0:
        return TrialLuck(n, 0.0)
    fewer = 0.5 * (match_draws(draws[:, :half])[0] + match_draws(draws[:, half : 2 * half])[0])
    power = min(1.0, max(0.0, math.log(n / fewer) / math.log(len(order) / half)))
    grown = min(float(total), n * (total / len(order)) ** power)
    return TrialLuck(round_figures(grown), round_figures(highest / expected))


def find_root(table: FloatArray) -> FloatArray:
    centered = table - np.mean(table, axis=0)
    moves = np.std(table, axis=0) >= LEAST_DEVIATION
    norms = np.sqrt(np.sum(centered**2, axis=0))
    units = np.where(moves, centered / np.where(moves, norms, 1.0), 0.0)
    values, vectors = np.linalg.eigh(units.T @ units + np.outer(~moves, ~moves))
    root: FloatArray = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return root


def match_draws(draws: FloatArray) -> tuple[float, float]:
    k = draws.shape[1]
    spread = float(np.mean(np.std(draws, axis=1, ddof=1))) if k > 1 else 0.0
    if spread < LEAST_SPREAD:
        return 1.0, 0.0
    highest = float(np.mean(np.max(draws, axis=1)))
    return count_normals(highest / spread, k), highest


def count_normals(height: float, most: int) -> float:
    from scipy.special import ndtr  # noqa: PLC0415 - loads where it is used

    x, step = np.linspace(0.0, 9.0, 1_801, retstep=True)
    above, below = ndtr(x), ndtr(-x)

    def expect(n: float) -> float:
        values = 1.0 - above**n - below**n
        return float(step * (np.sum(values) - 0.5 * values[0]))

    if height >= expect(most):
        return float(most)
    low, high = 0.0, math.log(most)
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if expect(math.exp(middle)) < height else (low, middle)
    return math.exp(low)


def round_figures(value: float) -> float:
    return float(f"{value:.{FIGURES}g}")
