"""The search loop: a sampler proposes sets, which are evaluated and scored."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest.base import FloatArray, PolicyError
from backtest.measures import pareto
from backtest.sweep import count_sets, draw_cube
from backtest.tune.journal import Batch
from backtest.tune.trial_evaluator import Examiner, find_best

if TYPE_CHECKING:
    from backtest.sweep import Space
    from backtest.tune.samplers import Sampler, SamplerName

SEARCH = "search"
EXPLORED = 256
"""Sets drawn to estimate the scales of several objectives; a quarter of the trials at most."""
FAILURES = 16
"""If a batch of at least so many sets fails as a whole, the search stops."""
DIVISIONS = {2: 4, 3: 2}
NOT_ADAPTIVE = ("grid", "sobol", "random")
FARTHER = 2.0
"""Distance of the ideal point from the median, in spreads of an objective."""
SLOPE = 0.05
"""Weight of the sum of distances in the score of a direction, which breaks ties."""


class Budget(NamedTuple):
    trials: int | None
    deadline: float


def search(
    examiner: Examiner, space: Space, sampler: SamplerName, budget: Budget, seed: int
) -> None:
    if len(examiner.goal.objectives) == 1 or sampler in NOT_ADAPTIVE:
        chosen = start_sampler(sampler, space, budget.trials, seed)
        for _ in run_sampler(examiner, space, chosen, budget, None):
            pass
    else:
        search_directions(examiner, space, sampler, budget, seed)


def start_sampler(sampler: SamplerName, space: Space, trials: int | None, seed: int) -> Sampler:
    from backtest.tune.samplers import make_sampler  # noqa: PLC0415 - they load SciPy and more

    return make_sampler(sampler, space, seed=seed, trials=trials)


class Ideal(NamedTuple):
    point: FloatArray
    spread: FloatArray
    weights: FloatArray

    def score(self, scores: FloatArray) -> FloatArray:
        """Return the scores in this direction, given scores of shape (n, n_objectives)."""
        distance = (self.point - scores) / self.spread
        total: FloatArray = -np.max(self.weights * distance, axis=1) - SLOPE * distance.sum(axis=1)
        return total


def run_sampler(
    examiner: Examiner, space: Space, sampler: Sampler, budget: Budget, ideal: Ideal | None
) -> Iterator[Batch]:
    left = budget.trials
    while left is None or left > 0:
        asked = sampler.ask()
        cube = asked[:left]
        if not len(cube):
            return
        batch = examiner.evaluate(space.decode(cube), SEARCH, deadline=budget.deadline)
        check_failures(batch)
        n = count_sets(batch.sets)
        if n < len(cube):
            return  # time is up
        if n == len(asked):
            is_known = np.isfinite(batch.scores).all(axis=1, keepdims=True)
            scores = np.where(is_known, batch.scores, np.nan)
            score = scores[:, 0] if ideal is None else ideal.score(scores)
            sampler.tell(cube, score, batch.violation)
        left = None if left is None else left - n
        yield batch


def check_failures(batch: Batch) -> None:
    if len(batch.errors) >= FAILURES and all(batch.errors):
        raise PolicyError(f"all {len(batch.errors)} sets failed, the first with: {batch.errors[0]}")


def search_directions(
    examiner: Examiner, space: Space, sampler: SamplerName, budget: Budget, seed: int
) -> None:
    n = EXPLORED if budget.trials is None else min(EXPLORED, budget.trials // 4)
    rng = np.random.default_rng([seed, 3])
    cube = draw_cube(len(space.dimensions), max(n, 1), "sobol", rng)
    drawn = examiner.evaluate(space.decode(cube), SEARCH, deadline=budget.deadline)
    check_failures(drawn)
    directions = list(spread_weights(len(examiner.goal.objectives)))
    share = None if budget.trials is None else (budget.trials - len(cube)) // len(directions)
    runs = []
    for k, weights in enumerate(directions if share != 0 else ()):
        direction_seed = int(np.random.SeedSequence([seed, k]).generate_state(1)[0])
        chosen = start_sampler(sampler, space, share, direction_seed)
        ideal = find_ideal(drawn, weights)
        runs.append(run_sampler(examiner, space, chosen, Budget(share, budget.deadline), ideal))
    while runs:
        runs = [run for run in runs if next(run, None) is not None]


def spread_weights(n: int) -> Iterator[FloatArray]:
    steps = DIVISIONS.get(n, 1)
    for counts in itertools.product(range(steps + 1), repeat=n):
        if sum(counts) == steps:
            yield np.array(counts) / steps
    if steps < n and n > 2:
        yield np.full(n, 1.0 / n)


def find_ideal(drawn: Batch, weights: FloatArray) -> Ideal:
    is_known = np.isfinite(drawn.scores).all(axis=1)
    is_kept = is_known & (drawn.violation == 0.0)
    scores = drawn.scores[is_kept if is_kept.sum() > 1 else is_known]
    if len(scores) < 2:
        scores = np.array([[0.0] * len(weights), [1.0] * len(weights)])
    low, middle, high = np.quantile(scores, [0.05, 0.5, 0.95], axis=0)
    spread = np.where(high > low, high - low, 1.0)
    return Ideal(middle + FARTHER * spread, spread, weights)


def find_knee(scores: FloatArray, feasible: np.ndarray) -> int:
    if scores.shape[1] == 1:
        return find_best(scores[:, 0], np.where(feasible, 0.0, 1.0))
    front = pareto(scores, feasible & np.isfinite(scores).all(axis=1))
    if not len(front):
        return -1
    values = scores[front]
    low, high = values.min(axis=0), values.max(axis=0)
    share = np.where(high > low, (values - low) / np.where(high > low, high - low, 1.0), 1.0)
    return int(front[np.argmin(np.sum((1.0 - share) ** 2, axis=1))])
