"""Which parameters matter: how much worse a forest predicts the order of sets without each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from backtest.base.units import FloatArray
from backtest.report.sets.explored import Explored, encode, rank_from_best

LEAST_SETS = 60
"""Sets below which a forest has nothing to learn from."""
MOST_SETS = 4000
TREES = 60
REPEATS = 5
EXPLAINS = 0.1
"""From which share of variance explained importances are worth reading."""


class Importance(NamedTuple):
    """How much parameters matter.

    Attributes
    ----------
    table : DataFrame
        By parameter, the most important first: ``importance``, the loss of R^2 on sets the forest
        had not seen when the parameter is shuffled among them, and its standard ``error``.
    explained : float
        R^2 of the forest on those sets.
    sets : int
        How many sets it learnt from and was tested on.
    """

    table: pd.DataFrame
    explained: float
    sets: int


def measure_importance(explored: Explored, seed: int = 0) -> Importance | None:
    """Return how much each varied parameter matters; None where there are too few sets.

    Notes
    -----
    Permutation importance: Breiman (2001), Random Forests, Machine Learning 45, of a forest grown
    on half of the sets and tested on the other half. What is predicted is a set's place in the
    order from best to worst, so that ruined sets count as the worst and single extremes do not
    rule. Parameters that vary together share what they explain.
    """
    names = explored.varied
    if len(explored.table) < LEAST_SETS or not names:
        return None
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(explored.table))[:MOST_SETS]
    columns = [encode(explored.table[n], log=bool(explored.parameters[n]["log"])) for n in names]
    inputs = np.stack(columns, axis=1)[rows]
    target = rank_from_best(explored)[rows]
    half = len(rows) // 2
    forest = grow(inputs[:half], target[:half], seed)
    losses, explained = shuffle_each(forest, inputs[half:], target[half:], rng)
    table = pd.DataFrame(
        {"importance": losses.mean(axis=0), "error": losses.std(axis=0, ddof=1) / REPEATS**0.5},
        index=pd.Index(names, name="parameter"),
    )
    ordered = table.sort_values("importance", ascending=False, kind="stable")
    return Importance(ordered, explained, len(rows))


def grow(inputs: FloatArray, target: FloatArray, seed: int) -> object:
    """Return a forest."""
    from sklearn.ensemble import RandomForestRegressor  # noqa: PLC0415 - takes a second to load

    forest = RandomForestRegressor(TREES, min_samples_leaf=3, random_state=seed, n_jobs=1)
    return forest.fit(inputs, target)


def shuffle_each(
    forest: object, inputs: FloatArray, target: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, float]:
    """Return the losses of R^2 of shape (repeats, parameters), and the R^2 itself."""
    explained = measure_fit(forest, inputs, target)
    losses = np.empty((REPEATS, inputs.shape[1]))
    for place in range(inputs.shape[1]):
        for repeat in range(REPEATS):
            shuffled = inputs.copy()
            shuffled[:, place] = rng.permutation(shuffled[:, place])
            losses[repeat, place] = explained - measure_fit(forest, shuffled, target)
    return losses, explained


def measure_fit(forest: object, inputs: FloatArray, target: FloatArray) -> float:
    """Return R^2."""
    found = forest.predict(inputs)  # type: ignore[attr-defined]
    spread = float(np.sum(np.square(target - np.mean(target))))
    return 1.0 - float(np.sum(np.square(target - found))) / spread if spread > 0.0 else 0.0
