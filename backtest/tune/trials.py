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
from backtest.tune.journal import PART, Batch
from backtest.tune.trial_evaluator import join_batches

if TYPE_CHECKING:
    from backtest.sweep import Sets, Space


def gather(batches: Sequence[Batch]) -> Batch:
    whole = [batch for batch in batches if batch.stage != PART]
    if not whole:
        return Batch("", 0.0, {}, {}, np.empty((0, 1)), np.empty(0), [])
    return join_batches(whole, whole[0].sets, whole[0].scores.shape[1])


def is_feasible(trials: Batch) -> BoolArray:
    kept: BoolArray = (trials.violation == 0.0) & np.isfinite(trials.scores).all(axis=1)
    return kept


def find_distinct(sets: Sets) -> IntArray:
    return find_different(sets)[0] if sets else np.empty(0, dtype=np.int64)


def tabulate_trials(batches: Sequence[Batch], names: Sequence[str]) -> pd.DataFrame:
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
    if len(objectives) == 1:
        return [prefix]
    return [f"{prefix}: {name}" for name in objectives]


def spread_sample(
    space: Space, sets: Sets, places: IntArray, n: int, rng: np.random.Generator
) -> IntArray:
    if len(places) <= n:
        return places
    from scipy.spatial import KDTree  # noqa: PLC0415 - loads where it is used

    cube = space.encode(take_sets(sets, places))
    nearest = KDTree(cube).query(draw_cube(cube.shape[1], n, "sobol", rng))[1]
    return places[np.unique(nearest)]


def worst_where_broken(trials: Batch) -> FloatArray:
    return np.where(is_feasible(trials)[:, None], trials.scores, -np.inf)
