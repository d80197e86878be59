"""All trials of a study as one batch or table, and samples of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from backtest.base import BoolArray, FloatArray, IntArray
from backtest.sweep import (
    ERROR,
    count_sets,
    draw_cube,
    find_different,
    name_column,
    order_columns,
    take_sets,
)
from backtest.sweep.tabulate import SCORE, STAGE, VIOLATION
from backtest.tune.journal import Batch
from backtest.tune.plateau import PART
from backtest.tune.trial_evaluator import join_batches

if TYPE_CHECKING:
    from backtest.sweep import Sets, Space


def gather(batches: Sequence[Batch]) -> Batch:
    """Return the sets evaluated over the whole time of the search, as one batch."""
    whole = [batch for batch in batches if batch.stage != PART]
    if not whole:
        return Batch("", 0.0, {}, {}, np.empty((0, 1)), np.empty(0), [])
    return join_batches(whole, whole[0].sets, whole[0].scores.shape[1])


def is_feasible(trials: Batch) -> BoolArray:
    """Return which sets keep all constraints and have finite scores."""
    kept: BoolArray = (trials.violation == 0.0) & np.isfinite(trials.scores).all(axis=1)
    return kept


def find_distinct(sets: Sets) -> IntArray:
    """Return the rows of the different sets, the first of each."""
    return find_different(sets)[0] if sets else np.empty(0, dtype=np.int64)


def tabulate_trials(batches: Sequence[Batch], names: Sequence[str]) -> pd.DataFrame:
    """Return one row per set: parameters, measures, error, scores, violation, stage."""
    trials = gather(batches)
    parameters = {name_column(name): values for name, values in trials.sets.items()}
    table = pd.DataFrame({**parameters, **trials.metrics})
    table[ERROR] = np.array(trials.errors, dtype=object)
    table = order_columns(table, tuple(parameters))
    for name, scores in zip(names, trials.scores.T, strict=False):
        table[name] = scores
    table[VIOLATION] = trials.violation
    sizes = [0 if batch.stage == PART else count_sets(batch.sets) for batch in batches]
    table[STAGE] = np.repeat([batch.stage for batch in batches], sizes).astype(object)
    return table.rename_axis("trial")


def name_scores(objectives: Sequence[str], prefix: str = SCORE) -> list[str]:
    """Return the columns of scores: ``score``, or ``score: sharpe`` etc. for several objectives.

    Examples
    --------
    >>> name_scores(["sharpe"]), name_scores(["sharpe", "-turnover"])
    (['score'], ['score: sharpe', 'score: -turnover'])
    """
    if len(objectives) == 1:
        return [prefix]
    return [f"{prefix}: {name}" for name in objectives]


def spread_sample(
    space: Space, sets: Sets, places: IntArray, n: int, rng: np.random.Generator
) -> IntArray:
    """Return up to n of the given rows, spread over the space: the nearest sets to n even points.

    A random sample would consist of near copies of the best set, where a search ends.
    """
    if len(places) <= n:
        return places
    from scipy.spatial import KDTree  # noqa: PLC0415 - loads where it is used

    cube = space.encode(take_sets(sets, places))
    nearest = KDTree(cube).query(draw_cube(cube.shape[1], n, "sobol", rng))[1]
    return places[np.unique(nearest)]


def worst_where_broken(trials: Batch) -> FloatArray:
    """Return the scores, minus infinity for sets that break a constraint or have no score."""
    return np.where(is_feasible(trials)[:, None], trials.scores, -np.inf)
