"""Sets that no other set beats in every objective, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest import core
from backtest.core.units import DAY, YEAR_DAYS
from backtest.engine import count_periods
from backtest.results.differences import choose_block, draw_histories
from backtest.search.trials import Batch, Goal, is_feasible
from backtest.sweep import take_sets

if TYPE_CHECKING:
    from backtest.search.problem import SearchProblem
    from backtest.sweep import Evaluator, Sets

ERROR_DRAWS = 200
"""Resampled histories of a standard error: it is within 5 % of that of infinitely many."""
LEAST_GAIN = 0.25
"""Least gain that a search goes on for, in standard errors of the best."""


class Span(NamedTuple):
    """Years of some bars, and the sampling periods of a year."""

    years: float
    periods: float


def find_span(evaluator: Evaluator) -> Span:
    test, market = evaluator.varied.test, evaluator.market
    years = (market.end - market.start) / (YEAR_DAYS * DAY)
    return Span(years, count_periods(test.calendar, test.sampling, market))


def measure_returns(returns: core.FloatArray, span: Span) -> dict[str, core.FloatArray]:
    """Return the measures that follow from sampled returns, arrays of shape (k,) by name.

    ``returns`` (k, n) are simple, above -1, over the span. Drawdowns are those at the ends of
    sampling periods. The risk-free rate is 0.
    """
    path = np.cumsum(np.log1p(returns), axis=1)
    peaks = np.maximum(np.maximum.accumulate(path, axis=1), 0.0)
    fall = -np.expm1(np.min(path - peaks, axis=1))
    growth, root = np.expm1(path[:, -1] / span.years), math.sqrt(span.periods)
    deviation, mean = np.std(returns, axis=1, ddof=1), np.mean(returns, axis=1)
    downside = np.sqrt(np.mean(np.minimum(returns, 0.0) ** 2, axis=1))
    worth = np.mean((1.0 + returns) ** -2.0, axis=1)
    return {
        "total_return": np.expm1(path[:, -1]),
        "cagr": growth,
        "volatility": root * deviation,
        "sharpe": root * mean / deviation,
        "sortino": root * mean / downside,
        "max_drawdown": fall,
        "calmar": growth / fall,
        "certainty_equivalent": worth ** (-0.5 * span.periods) - 1.0,
    }


def resample_scores(
    goal: Goal,
    metrics: Mapping[str, core.FloatArray],
    returns: core.FloatArray,
    span: Span,
    draws: int,
    seed: int,
) -> Iterator[core.FloatArray]:
    """Yield the scores of k sets in resampled histories, of shape (k, n_objectives) each.

    ``metrics`` are measures of shape (k,) by name, and ``returns`` (n, k) the sampled returns of
    the sets, all resampled together by the stationary bootstrap of
    :func:`backtest.measures.compare_pairs`. A measure moves by as much as that of the returns does;
    one that does not follow from returns stays.
    """
    series = np.ascontiguousarray(returns.T)
    logs = np.log1p(series)
    block = choose_block(logs - logs.mean(axis=1, keepdims=True))
    rng = np.random.default_rng([seed, 4])
    with np.errstate(all="ignore"):
        own = measure_returns(series, span)
        for chosen, _ in draw_histories(series.shape[1], block, draws, rng):
            drawn = measure_returns(np.take(series, chosen, axis=1), span)
            moved = {k: metrics[k] + drawn[k] - own[k] for k in own if k in metrics}
            yield goal.grade({**metrics, **moved})


def is_dominated(scores: core.FloatArray) -> core.BoolArray:
    """Return which sets another one beats: no worse in any objective, and better in one.

    ``scores`` (k, n_objectives) are larger for better sets; one with NaN is dominated.
    """
    order = np.lexsort(scores.T[::-1])[::-1]  # what beats a set stands before it
    beaten = np.isnan(scores).any(axis=1)
    kept = np.empty((0, scores.shape[1]))
    for row in order[~beaten[order]]:
        no_worse = (kept >= scores[row]).all(axis=1)
        beaten[row] = bool((no_worse & (kept > scores[row]).any(axis=1)).any())
        if not beaten[row]:
            kept = np.vstack([kept, scores[row]])
    return beaten


class Patience:
    """Ends a search after some evaluations without a gain: ``left`` are those to go.

    A set is a gain if every leading set, made better by a quarter of its standard errors, is worse
    in an objective; of one objective, if its score is over the best by more than that. Errors are
    those of a stationary bootstrap of the sampled returns of the search.
    """

    def __init__(self, evaluations: int, goal: Goal, evaluator: Evaluator, seed: int) -> None:
        self.left = self.evaluations = evaluations
        self.goal, self.evaluator, self.seed = goal, evaluator, seed
        self.bars = np.empty((0, len(goal.objectives)))

    def count(self, batch: Batch) -> None:
        """Count the sets of a batch from its last gain on."""
        scores = self.goal.grade(batch.metrics)
        scores[~is_feasible(batch)] = np.nan
        gains = np.flatnonzero(~is_dominated(scores))
        is_gain = (scores[gains, None] > self.bars).any(axis=2).all(axis=1)
        gains = gains[is_gain]
        if not len(gains):
            self.left -= len(scores)
            return
        _, first = np.unique(scores[gains], axis=0, return_index=True)
        gains = gains[np.sort(first)]
        errors = estimate_errors(self.goal, self.evaluator, take_sets(batch.sets, gains), self.seed)
        bars = np.vstack([self.bars, scores[gains] + LEAST_GAIN * errors])
        self.bars = bars[~is_dominated(bars)]
        self.left = self.evaluations - (len(scores) - 1 - int(gains.max()))


def start_patience(problem: SearchProblem, evaluator: Evaluator) -> Patience | None:
    if problem.patience is None:
        return None
    return Patience(problem.patience, problem.goal, evaluator, problem.seed)


def estimate_errors(goal: Goal, evaluator: Evaluator, sets: Sets, seed: int) -> core.FloatArray:
    """Return the standard errors of the scores of k sets, of shape (k, n_objectives).

    0 where a score does not follow from returns.
    """
    rows = evaluator.evaluate(sets, returns=True)
    if not rows.done.all():
        raise KeyboardInterrupt
    returns = rows.returns
    if returns is None or len(returns) < 2:
        return np.zeros((len(rows.done), len(goal.objectives)))
    terms = find_span(evaluator), ERROR_DRAWS, seed
    drawn = [*resample_scores(goal, rows.metrics, returns, *terms)]
    return np.nan_to_num(np.std(drawn, axis=0, ddof=1))
