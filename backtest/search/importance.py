"""Which parameters matter: functional ANOVA of a random forest, beside permuted scores."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core
from backtest.search import trials as t
from backtest.sweep import Space, draw_cube, take_sets

TREES = 32
"""Trees of the forest."""
LEAF = 2
"""The least sets of a leaf."""
FEATURES = 0.75
"""The share of parameters of a split."""
CELLS = 48
"""Cells of an axis on which marginals are averaged."""
POINTS = 4096
"""Points of the variance of the forest."""
MOST_FITTED = 1024
"""Sets that the trees are fitted to; of more, those that lie evenly among them."""
LEAST_FITTED = 500
"""Least sets: with fewer, a parameter that explains a fifth of the score is often missed."""
PERMUTATIONS = 19
"""Forests of permuted scores: the share of a score without any effect exceeds the largest of them
with probability 1 / 20."""


class Explained(NamedTuple):
    """Variance that a forest explains: by parameters (d,), by pairs beyond them (n_pairs,), in all.

    In squares of the sum of the trees' values. Pairs are in the order of
    ``itertools.combinations``.
    """

    alone: core.FloatArray
    together: core.FloatArray
    total: float


def measure_importance(space: Space, trials: t.Batch, seed: int) -> pd.DataFrame:
    """Return the share of the variance of a score that each parameter and pair explains.

    Functional ANOVA of a random forest over the declared scales: Hutter, Hoos and Leyton-Brown
    (2014), An Efficient Approach for Assessing Hyperparameter Importance, ICML; here of the mean of
    the trees. Of each tree alone, S2 of Ishigami's function came to .33 to .37 in place of .44.

    A share is over the noise if it exceeds the largest, over all parameters (or all pairs), in
    each of 19 forests that are fitted to permuted scores: Altmann, Tolosi, Sander and Lengauer
    (2010), Permutation importance: a corrected feature importance measure, Bioinformatics 26(10).
    """
    rng = np.random.default_rng([seed, 5])
    cube, scores = read_scored(space, trials, rng)
    points = draw_cube(cube.shape[1], POINTS, rng)

    # The forest, and those of scores that have nothing to do with the sets.
    explained = explain_scores(cube, scores, points, rng)
    permuted = []
    for _ in range(PERMUTATIONS):
        noise_scores = rng.permutation(scores)
        permuted.append(explain_scores(cube, noise_scores, points, rng))

    # The largest over parameters, so that a search of many has no larger chance of a false one.
    noise_alone = max(float(np.max(forest.alone)) for forest in permuted)
    noise_together = max(float(np.max(forest.together, initial=0.0)) for forest in permuted)
    noise = [noise_alone] * len(explained.alone) + [noise_together] * len(explained.together)

    # Shares are of the fitted forest, also those of noise: a forest of noise varies less.
    total = explained.total if explained.total > 0.0 else math.inf
    share = np.concatenate([explained.alone, explained.together]) / total
    names = [dimension.name for dimension in space.dimensions]
    names += [f"{one} x {other}" for one, other in itertools.combinations(names, 2)]
    columns = {"share": share, "noise": np.divide(noise, total)}
    table = pd.DataFrame(columns, index=pd.Index(names, name="parameters"))

    # What parameters and pairs do not explain. A parameter may be called "rest".
    rest = "rest"
    if rest in names:
        rest = "rest of the variance"
    table.loc[rest] = 1.0 - share.sum(), math.nan
    table["is_over_noise"] = table["share"] > table["noise"]
    return table


def read_scored(
    space: Space,
    trials: t.Batch,
    rng: np.random.Generator,
) -> tuple[core.FloatArray, core.FloatArray]:
    """Return the places (n, d) of different sets in the unit cube, and their scores (n,).

    A ruined set has the worst finite score; sets that failed are left out.
    """
    scores = np.where(trials.violation < np.inf, trials.scores, -np.inf)
    has_run = np.array([error == "" for error in trials.errors], dtype=np.bool_)

    rows = t.find_distinct(trials.sets)
    rows = t.spread_sample(
        space,
        trials.sets,
        rows[has_run[rows]],
        MOST_FITTED,
        rng,
    )
    scores = scores[rows]
    finite = scores[np.isfinite(scores)]
    if len(rows) < LEAST_FITTED or len(finite) == 0 or not np.ptp(finite) > 0.0:
        raise core.ParameterError(
            f"importance needs {LEAST_FITTED} sets whose scores differ, got {len(finite)}; search "
            "with more trials"
        )

    scores = np.where(np.isfinite(scores), scores, finite.min())
    return space.encode(take_sets(trials.sets, rows)), scores


def explain_scores(
    cube: core.FloatArray,
    scores: core.FloatArray,
    points: core.FloatArray,
    rng: np.random.Generator,
) -> Explained:
    """Return what parameters and pairs explain in a forest that is fitted to scores (n,).

    ``cube`` (n, d) are the sets as numbers in [0, 1], and ``points`` (m, d) those at which the
    variance of the forest is measured. Of each tree the mean over all other parameters is taken, on
    a grid of one parameter or of two: by these the variance is divided (functional ANOVA).
    """
    from sklearn.tree import DecisionTreeRegressor  # noqa: PLC0415 - takes seconds to import

    d = cube.shape[1]
    pairs = [*itertools.combinations(range(d), 2)]
    predicted = np.zeros(len(points))
    alone = np.zeros((d, CELLS))
    joint = np.zeros((len(pairs), CELLS, CELLS))

    # Sums over the trees, each fitted to a sample of the sets with replacement.
    for _ in range(TREES):
        rows = rng.integers(len(cube), size=len(cube))
        tree = DecisionTreeRegressor(
            min_samples_leaf=LEAF,
            max_features=FEATURES,
            random_state=int(rng.integers(2**31)),
        )
        tree.fit(cube[rows], scores[rows])
        tree_alone, tree_joint = average_leaves(tree.tree_, pairs)
        predicted += tree.predict(points)
        alone += tree_alone
        joint += tree_joint

    own, beyond = measure_marginals(alone, joint, pairs)
    return Explained(own, beyond, float(np.var(predicted)))


class Leaves(NamedTuple):
    """Boxes of the leaves of a tree, ``low`` to ``high`` (n, d), and values (n,)."""

    low: core.FloatArray
    high: core.FloatArray
    value: core.FloatArray


def list_leaves(tree: Any) -> Leaves:
    """Return the boxes of the leaves of a fitted tree, found level by level from its root."""
    low = np.zeros((tree.node_count, tree.n_features))
    high = np.ones((tree.node_count, tree.n_features))
    level = np.zeros(1, dtype=np.int64)

    while len(level):
        level = level[tree.feature[level] >= 0]  # a leaf splits on no feature
        axis = tree.feature[level]
        cut = tree.threshold[level]
        left = tree.children_left[level]
        right = tree.children_right[level]

        for children in (left, right):
            low[children] = low[level]
            high[children] = high[level]
        high[left, axis] = cut
        low[right, axis] = cut
        level = np.concatenate([left, right])

    is_leaf = tree.feature < 0
    return Leaves(low[is_leaf], high[is_leaf], tree.value[is_leaf].ravel())


def average_leaves(
    tree: Any,
    pairs: Sequence[tuple[int, int]],
) -> tuple[core.FloatArray, core.FloatArray]:
    """Return what a tree predicts in each cell of each axis, and of each pair, less its mean.

    Of shape (d, n_cells) and (n_pairs, n_cells, n_cells): exact means over all other axes, as
    leaves are boxes in the unit cube.
    """
    # The mean of the tree over the cube, and how far each leaf takes the mean away from it.
    leaves = list_leaves(tree)
    width = leaves.high - leaves.low
    volume = width.prod(axis=1)
    mean = volume @ leaves.value
    weight = volume * (leaves.value - mean)

    # A leaf adds the same height to a range of cells. It is written as a difference, plus at its
    # first cell and minus behind its last, and the differences are summed up at the end.
    middle = (np.arange(CELLS) + 0.5) / CELLS
    first = np.searchsorted(middle, leaves.low)
    stop = np.searchsorted(middle, leaves.high)

    alone = np.zeros((tree.n_features, CELLS + 1))
    for k in range(tree.n_features):
        height = weight / width[:, k]
        np.add.at(alone[k], first[:, k], height)
        np.add.at(alone[k], stop[:, k], -height)

    # Of two axes a rectangle has four corners, which take turns in sign.
    joint = np.zeros((len(pairs), CELLS + 1, CELLS + 1))
    for k, (i, j) in enumerate(pairs):
        height = weight / (width[:, i] * width[:, j])
        np.add.at(joint[k], (first[:, i], first[:, j]), height)
        np.add.at(joint[k], (stop[:, i], stop[:, j]), height)
        np.add.at(joint[k], (first[:, i], stop[:, j]), -height)
        np.add.at(joint[k], (stop[:, i], first[:, j]), -height)

    alone = np.cumsum(alone, axis=1)
    joint = np.cumsum(np.cumsum(joint, axis=1), axis=2)
    return alone[:, :CELLS], joint[:, :CELLS, :CELLS]


def measure_marginals(
    alone: core.FloatArray,
    joint: core.FloatArray,
    pairs: Sequence[tuple[int, int]],
) -> tuple[core.FloatArray, core.FloatArray]:
    """Return the variances of marginals: of each axis (d,), and of pairs beyond them (n_pairs,)."""
    own = np.mean(alone**2, axis=1)
    beyond = np.mean(joint**2, axis=(1, 2))
    for k, (one, other) in enumerate(pairs):
        beyond[k] -= own[one] + own[other]
    return own, np.maximum(beyond, 0.0)
