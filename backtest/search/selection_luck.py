"""How far chance explains the best of many trials: overfitting, and a deflated Sharpe ratio."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from backtest import core, results
from backtest.engine import count_periods
from backtest.results import deflated_sharpe
from backtest.search import trials as t
from backtest.search.growth_test import (
    BenchmarkedPart,
    GrowthTest,
    check_growth,
    count_trials,
    subtract_constant,
)
from backtest.search.problem import SearchProblem
from backtest.sweep import take_sets
from backtest.sweep.set_evaluator import Evaluator

SAMPLE = 128
"""Sets in the sample whose returns are compared."""
SPLITS = 10
"""Blocks of time for the probability of overfitting, which gives 252 splits into halves."""


class SelectionLuck(NamedTuple):
    """Fields of the verdict that say how far chance explains the best trial."""

    sharpe: float
    growth: GrowthTest = GrowthTest()
    overfitting: float = math.nan
    effective_trials: float = math.nan
    lucky_sharpe: float = math.nan
    deflated_sharpe: float = math.nan


class LuckSample(NamedTuple):
    """The luck, and what it was measured on: rows of trials, the best one last.

    ``returns`` (n_samples, n_rows) are by sampling period, in the search.
    """

    luck: SelectionLuck
    rows: core.IntArray
    returns: core.FloatArray


def measure_luck(
    problem: SearchProblem,
    evaluator: Evaluator,
    trials: t.Batch,
    best: int,
    others: int,
    parts: Sequence[BenchmarkedPart],
    *,
    is_judged: bool,
) -> LuckSample:
    """Return how far chance explains the best trial, the row ``best``.

    By differences of returns from constant leverage at equal risk, as the verdict is. ``others``
    are sets that were tried elsewhere; growth is not tested unless ``is_judged``.
    """
    # The returns of some of the trials, which are run again: the best one is the last column.
    distinct = t.find_distinct(trials.sets)
    sample = draw_sample(problem, trials, distinct, best)
    rows = evaluator.evaluate(take_sets(trials.sets, sample), returns=True).finish()
    returns = rows.returns
    n_sets = max(len(distinct), len(sample))

    test = evaluator.varied.test
    periods = count_periods(test.calendar, test.sampling, test.market, evaluator.first)

    # Of separate accounts the Sharpe ratio is that of their mean returns, not the pooled one.
    luck = SelectionLuck(sharpe=float(trials.metrics["sharpe"][best]))
    if evaluator.is_pooled and len(returns) > 1:
        luck = luck._replace(sharpe=measure_sharpe(returns[:, -1], periods))

    # Trials that are alike count as fewer; those elsewhere as much as these.
    if is_judged:
        n_trials = count_trials(returns, parts, n_sets) * (1.0 + others / n_sets)
        luck = luck._replace(growth=check_growth(parts, n_trials, problem.seed))

    # Two blocks of two periods are the least that can be split into halves.
    if len(returns) < 4:
        return LuckSample(luck, sample, returns)

    # Both refuse returns that are not finite; their fields then stay NaN.
    with contextlib.suppress(core.BacktestError):
        # One set alone has no halves in which it could be ranked.
        if len(sample) > 1:
            splits = min(SPLITS, len(returns) // 4 * 2)
            overfitting = results.probability_of_backtest_overfitting(returns, n_splits=splits)
            luck = luck._replace(overfitting=overfitting.pbo)

        differences = subtract_constant(returns, parts)
        if differences is not None:
            luck = deflate_best(
                luck,
                differences,
                periods,
                n_sets=n_sets,
                others=others,
            )
    return LuckSample(luck, sample, returns)


def draw_sample(
    problem: SearchProblem,
    trials: t.Batch,
    distinct: core.IntArray,
    best: int,
) -> core.IntArray:
    """Return the rows of a sample of the distinct sets that may be chosen; the best is the last."""
    feasible = distinct[t.is_feasible(trials)[distinct]]
    rng = np.random.default_rng([problem.seed, 2])
    sample = t.spread_sample(
        problem.space,
        trials.sets,
        feasible,
        SAMPLE,
        rng,
    )
    return np.append(sample[sample != best], best)


def measure_sharpe(returns: core.FloatArray, periods: float) -> float:
    """Return the annual Sharpe ratio of returns; 0 if they are constant."""
    ratio = results.annualize_ratios(returns.mean(), returns.std(ddof=1), periods)
    return float(np.nan_to_num(ratio))


def deflate_best(
    luck: SelectionLuck,
    returns: core.FloatArray,
    periods: float,
    *,
    n_sets: int,
    others: int,
) -> SelectionLuck:
    """Return the luck with the deflated Sharpe ratio of the last of some trials.

    ``returns`` (n, k) are those of a sample of ``n_sets``, by sampling period; ``periods`` of them
    are a year; ``others`` are sets that were tried elsewhere on some of the same bars.
    """
    # How many independent trials the sets are worth. Those tried elsewhere count as much as these;
    # the returns of one set alone show no correlation, so all sets count as independent.
    simulated = results.simulate_luck(returns, n_trials=n_sets)
    count = simulated.n * (1.0 + others / n_sets)
    if returns.shape[1] == 1:
        count = float(n_sets + others)
    deviation = simulated.find_deviation(len(returns), periods)

    # The deflated ratio is of ratios per sampling period.
    best = returns[:, -1]
    moments = results.estimate_moments(best)
    scale = math.sqrt(periods)
    deflated = deflated_sharpe(
        measure_sharpe(best, periods) / scale,
        moments.n,
        skew=moments.skew,
        kurtosis=moments.kurtosis,
        n_trials=count,
        std=deviation / scale,
    )
    return luck._replace(
        effective_trials=count,
        lucky_sharpe=results.expected_max_sharpe(count, deviation),
        deflated_sharpe=deflated,
    )


def deflate_alone(returns: core.FloatArray, trials: float) -> float:
    """Return the probabilistic Sharpe ratio of one account, deflated by some independent trials.

    Without the other trials' returns, their Sharpe ratios scatter as those of noise.
    """
    if len(returns) < 2:
        return 0.5
    moments = results.estimate_moments(returns)
    n = results.effective_observations(returns)
    return deflated_sharpe(
        moments.sharpe,
        n,
        skew=moments.skew,
        kurtosis=moments.kurtosis,
        n_trials=trials,
        std=math.sqrt(1.0 / (n - 1)) if trials > 1.0 else 0.0,
    )
