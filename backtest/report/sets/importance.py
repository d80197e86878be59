"""Importance of parameters: how much worse a forest predicts the order of sets without each."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import FloatArray
from backtest.report.sets.explored import Explored, rank_from_best, scale_parameter

LEAST_SETS = 60
"""Least number of sets that a forest can learn from."""
MOST_SETS = 4000
TREES = 60
REPEATS = 5
EXPLAINS = 0.1
"""Least share of explained variance at which importances are worth reading."""


class Importance(NamedTuple):
    """The importance of parameters.

    ``table`` lists the parameters, the most important first: ``importance`` is the loss of R^2 on
    unseen sets when the parameter is shuffled among them, ``error`` its standard error.
    ``explained`` is the R^2 of the forest on those sets.
    """

    table: pd.DataFrame
    explained: float


def measure_importance(explored: Explored, seed: int = 0) -> Importance | None:
    """Return the importance of each varied parameter; None if there are too few sets.

    Notes
    -----
    Permutation importance: Breiman (2001), Random Forests, Machine Learning 45, of a forest grown
    on half of the sets and tested on the other half. It predicts the rank of a set, so that ruined
    sets count as the worst and single extremes do not dominate. Parameters that vary together
    share what they explain.
    """
    names = explored.varied
    if len(explored.table) < LEAST_SETS or not names:
        return None
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(explored.table))[:MOST_SETS]
    columns = [
        scale_parameter(explored.table[n], log=bool(explored.parameters[n]["log"])) for n in names
    ]
    inputs = np.stack(columns, axis=1)[rows]
    target = rank_from_best(explored)[rows]
    half = len(rows) // 2
    forest = fit_forest(inputs[:half], target[:half], seed)
    losses, explained = shuffle_each(forest, inputs[half:], target[half:], rng)
    table = pd.DataFrame(
        {"importance": losses.mean(axis=0), "error": losses.std(axis=0, ddof=1) / REPEATS**0.5},
        index=pd.Index(names, name="parameter"),
    )
    ordered = table.sort_values("importance", ascending=False, kind="stable")
    return Importance(ordered, explained)


def fit_forest(inputs: FloatArray, target: FloatArray, seed: int) -> Any:
    """Fit a random forest."""
    from sklearn.ensemble import RandomForestRegressor  # noqa: PLC0415 - takes a second to load

    forest = RandomForestRegressor(TREES, min_samples_leaf=3, random_state=seed, n_jobs=1)
    return forest.fit(inputs, target)


def shuffle_each(
    forest: Any, inputs: FloatArray, target: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, float]:
    """Return the losses of R^2 of shape (repeats, parameters), and the R^2 itself."""
    explained = float(forest.score(inputs, target))
    losses = np.empty((REPEATS, inputs.shape[1]))
    for place in range(inputs.shape[1]):
        for repeat in range(REPEATS):
            shuffled = inputs.copy()
            shuffled[:, place] = rng.permutation(shuffled[:, place])
            losses[repeat, place] = explained - forest.score(shuffled, target)
    return losses, explained
