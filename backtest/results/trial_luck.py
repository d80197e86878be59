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
        """Return the deviation of Sharpe ratios of some returns, annualized by ``periods``."""
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

    Sharpe ratios without skill are drawn for the sample. Independent trials with the same expected
    highest ratio are counted, and this count is carried from the sample to all ``n_trials``.
    """
    table = check_returns(returns, samples=2)
    n_given = table.shape[1]
    n_tried = n_given if n_trials is None else n_trials
    core.check_range(
        "n_trials",
        n_tried,
        low=n_given,
        open_high=True,
    )

    ratios = draw_ratios(table)
    n_drawn = ratios.shape[1]
    n_effective, highest = match_draws(ratios)

    # Luck as low as that of copies, whose expected highest is 0 by the formula, shows neither a
    # power nor a deviation; nor does one trial, which has no half.
    expected = expected_max_sharpe(n_effective, 1.0)
    if n_drawn == 1 or expected == 0.0:
        return TrialLuck(round_figures(n_effective), 1.0)

    growth = (n_tried / n_drawn) ** measure_power(ratios, n_effective)
    n_in_all = min(float(n_tried), n_effective * growth)
    return TrialLuck(
        n=round_figures(n_in_all),
        deviation=round_figures(highest / expected),
    )


def draw_ratios(table: core.FloatArray) -> core.FloatArray:
    """Return simulated Sharpe ratios without skill, (DRAWS, k), as correlated as the returns.

    ``table`` (n_samples, n_trials) are returns. The k trials stand in a random order, so that any
    half of the columns is a random half of them.
    """
    rng = np.random.default_rng(0)
    drawn = rng.permutation(table.shape[1])[:MOST_TRIALS]
    with one_thread():
        independent = rng.standard_normal((DRAWS, len(drawn)))
        return np.asarray(independent @ find_root(table[:, drawn]))


def measure_power(ratios: core.FloatArray, n_effective: float) -> float:
    """Return the power b by which the effective number grows with that of trials, n ~ k^b.

    It is 0 where more trials are copies, 1 where each is new. ``ratios`` (DRAWS, k) have the
    effective number ``n_effective``; the mean of that of their halves says what half as many have.
    """
    n_drawn = ratios.shape[1]
    half = n_drawn // 2
    n_of_first, _ = match_draws(ratios[:, :half])
    n_of_second, _ = match_draws(ratios[:, half : 2 * half])
    n_of_half = 0.5 * (n_of_first + n_of_second)

    power = math.log(n_effective / n_of_half) / math.log(n_drawn / half)
    return min(1.0, max(0.0, power))


def find_root(table: core.FloatArray) -> core.FloatArray:
    """Return the root of the correlations of trials (n_samples, k), of shape (k, k).

    Constant trials are correlated with each other alone.
    """
    centered = table - np.mean(table, axis=0)
    is_constant = ~(np.std(table, axis=0) >= LEAST_DEVIATION)

    # Products of columns of length 1 are their correlations.
    norms = np.sqrt(np.sum(centered**2, axis=0))
    divisors = np.where(is_constant, 1.0, norms)
    units = np.where(is_constant, 0.0, centered / divisors)
    of_moving = units.T @ units
    of_constant = np.outer(is_constant, is_constant)
    correlations = of_moving + of_constant

    # The root has the roots of the eigenvalues. A negative one is a rounding error of 0.
    values, vectors = np.linalg.eigh(correlations)
    roots = np.sqrt(np.maximum(values, 0.0))
    root = (vectors * roots) @ vectors.T
    return np.asarray(root)


def match_draws(ratios: core.FloatArray) -> tuple[float, float]:
    """Return how many independent normals have the mean maximum of the ratios, and this maximum.

    A row of ``ratios`` (n_draws, k) is one draw of k ratios. The maximum is that over their mean,
    which all share; the number is at most k.
    """
    most = ratios.shape[1]
    over_mean = np.max(ratios, axis=1) - np.mean(ratios, axis=1)  # of copies exactly 0
    highest = float(np.mean(over_mean))

    # The expected maximum of n normals: the integral of 1 - F(x)^n - F(-x)^n over x > 0, to where
    # F(x) is 1 in double precision.
    x, step = np.linspace(0.0, 9.0, 1_801, retstep=True)
    chance_below_x = sp.special.ndtr(x)
    chance_above_x = sp.special.ndtr(-x)

    def measure_excess(log_n: float) -> float:
        """Return the expected maximum of n normals less that of the ratios."""
        n = math.exp(log_n)
        values = 1.0 - chance_below_x**n - chance_above_x**n
        integral = float(step * (np.sum(values) - 0.5 * values[0]))  # trapezoids
        return integral - highest

    log_most = math.log(most)
    if measure_excess(log_most) <= 0.0:
        return float(most), highest
    log_n = sp.optimize.brentq(
        measure_excess,
        0.0,
        log_most,
        xtol=1e-13,
    )
    return math.exp(log_n), highest


def round_figures(value: float) -> float:
    return float(f"{value:.{FIGURES}g}")
