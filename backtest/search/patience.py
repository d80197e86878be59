"""When a search has gained too little to go on: standard errors of scores, and patience."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from backtest import core
from backtest.core.units import DAY, YEAR_DAYS
from backtest.engine import count_periods
from backtest.results.differences import choose_block, draw_histories
from backtest.results.ranking import is_dominated
from backtest.search import trials as t
from backtest.sweep import Evaluator, Sets, take_sets

ERROR_DRAWS = 200
"""Resampled histories of a standard error: it is within 5 % of that of infinitely many."""
LEAST_GAIN = 0.25
"""Least gain that a search goes on for, in standard errors of the best."""


class Span(NamedTuple):
    """The years of a search, and its sampling periods per year."""

    years: float
    periods: float


def find_span(evaluator: Evaluator) -> Span:
    """Return the years of the accounts of an evaluator, and their sampling periods a year."""
    test = evaluator.varied.test
    market = evaluator.market
    first = evaluator.first
    return Span(
        years=(market.end - int(market.time[first])) / (YEAR_DAYS * DAY),
        periods=count_periods(test.calendar, test.sampling, market, first),
    )


def measure_returns(returns: core.FloatArray, span: Span) -> dict[str, core.FloatArray]:
    """Return the measures that follow from sampled returns, arrays of shape (k,) by name.

    ``returns`` (k, n) are simple, above -1, over the span. Drawdowns are those at the ends of
    sampling periods. The risk-free rate is 0.
    """
    path = np.cumsum(np.log1p(returns), axis=1)
    peaks = np.maximum(np.maximum.accumulate(path, axis=1), 0.0)
    drawdown = -np.expm1(np.min(path - peaks, axis=1))
    cagr = np.expm1(path[:, -1] / span.years)

    root = math.sqrt(span.periods)
    mean = np.mean(returns, axis=1)
    deviation = np.std(returns, axis=1, ddof=1)
    losses = np.minimum(returns, 0.0)
    downside = np.sqrt(np.mean(losses**2, axis=1))

    # The certainty equivalent of a relative risk aversion of 3, that of the measure of a run.
    worth = np.mean((1.0 + returns) ** -2.0, axis=1)
    return {
        "total_return": np.expm1(path[:, -1]),
        "cagr": cagr,
        "volatility": root * deviation,
        "sharpe": root * mean / deviation,
        "sortino": root * mean / downside,
        "max_drawdown": drawdown,
        "calmar": cagr / drawdown,
        "certainty_equivalent": worth ** (-0.5 * span.periods) - 1.0,
    }


def resample_scores(
    goal: t.Goal,
    metrics: Mapping[str, core.FloatArray],
    returns: core.FloatArray,
    span: Span,
    draws: int,
    seed: int,
) -> Iterator[core.FloatArray]:
    """Yield the scores of k sets in resampled histories, of shape (k, n_objectives) each.

    The sampled ``returns`` (n, k) are resampled together by the stationary bootstrap. A measure
    moves by as much as that of the returns does; one that does not follow from returns stays.
    """
    series = np.ascontiguousarray(returns.T)
    logs = np.log1p(series)
    block = choose_block(logs - logs.mean(axis=1, keepdims=True))
    rng = np.random.default_rng([seed, 4])

    with np.errstate(all="ignore"):
        of_history = measure_returns(series, span)
        follows_returns = [name for name in of_history if name in metrics]
        for history in draw_histories(series.shape[1], block, draws, rng):
            drawn = np.take(series, history.periods, axis=1)
            of_draw = measure_returns(drawn, span)

            moved = {}
            for name in follows_returns:
                moved[name] = metrics[name] + of_draw[name] - of_history[name]
            yield goal.grade({**metrics, **moved})


class Patience:
    """Ends a search after some evaluations without a gain: ``left`` are those to go.

    A set is a gain if every leading set, made better by a quarter of its standard errors, is worse
    in an objective; of one objective, if its score is over the best by more than that. Errors are
    those of a stationary bootstrap of the sampled returns of the search.
    """

    def __init__(
        self,
        evaluations: int,
        goal: t.Goal,
        evaluator: Evaluator,
        seed: int,
    ) -> None:
        self.evaluations = evaluations
        self.left = evaluations
        self.goal = goal
        self.evaluator = evaluator
        self.seed = seed
        self.bars = np.empty((0, len(goal.objectives)))

    def count(self, batch: t.Batch) -> None:
        """Count the evaluations that are left down, or begin anew after the last gain of a batch.

        Writes ``left``, the sets that may still be evaluated without a gain, and ``bars``. A set is
        a gain if no other of the batch beats it, and no bar: bars are the scores that a gain must
        be over in some objective.
        """
        scores = t.grade_feasible(self.goal, batch)
        leading = np.flatnonzero(~is_dominated(scores))

        # (n_leading, n_bars): whether a set is over a bar in some objective.
        is_over = np.any(scores[leading, None] > self.bars, axis=2)
        gains = leading[np.all(is_over, axis=1)]
        if len(gains) == 0:
            self.left -= len(scores)
            return

        # Of equal gains the first counts. Each becomes a bar, higher by a part of its error.
        _, first = np.unique(scores[gains], axis=0, return_index=True)
        gains = gains[np.sort(first)]
        errors = estimate_errors(self.goal, self.evaluator, take_sets(batch.sets, gains), self.seed)
        bars = np.vstack([self.bars, scores[gains] + LEAST_GAIN * errors])
        self.bars = bars[~is_dominated(bars)]

        n_after_last_gain = len(scores) - 1 - int(gains.max())
        self.left = self.evaluations - n_after_last_gain


def estimate_errors(
    goal: t.Goal,
    evaluator: Evaluator,
    sets: Sets,
    seed: int,
) -> core.FloatArray:
    """Return the standard errors of the scores of k sets, of shape (k, n_objectives).

    0 where a score does not follow from returns.
    """
    rows = evaluator.evaluate(sets, returns=True).finish()
    if len(rows.returns) < 2:
        return np.zeros((len(rows.done), len(goal.objectives)))
    drawn = [
        *resample_scores(
            goal,
            rows.metrics,
            rows.returns,
            find_span(evaluator),
            draws=ERROR_DRAWS,
            seed=seed,
        )
    ]
    return np.asarray(np.nan_to_num(np.std(drawn, axis=0, ddof=1)))
