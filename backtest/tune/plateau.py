"""Robust scores: rank the leading sets by their neighbors and by parts of the time."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np

from backtest.base import FloatArray, IntArray, Number, Value, Whole, declared
from backtest.sweep import draw_cube, take_sets
from backtest.tune.journal import PART
from backtest.tune.trial_evaluator import join_columns

if TYPE_CHECKING:
    from backtest.sweep import Dimension, Sets, Space
    from backtest.tune.trial_evaluator import Examiner

NEIGHBOUR = "neighbour"
BY_ROBUST, BY_KEPT, BY_SCORE = "robust_score", "kept", "score"
"""By what a winner is chosen."""
BUDGET_SHARE = 0.25
"""Share of the budget that may be spent on the neighbors of candidates."""
CELLS = 2
"""Cells per half of a box and axis. One set of each cell counts as known."""
KNOWN, LEAST_KNOWN = 32, 6
"""Known sets by which the robust score of another one is estimated, at most and at least."""
WHOLE_STEPS = 1.5
"""Reach of neighbors in steps of a whole number: the value and the two next to it are equally
likely."""


@declared(kw_only=True)
class Robustness(Value):
    """Rule by which candidates are scored: a low quantile over neighbors, averaged over time.

    A candidate's robust score is the mean of two: the low quantile of the objective over its
    neighbors on the whole time, and the mean over equal parts of the time of the same quantile
    there. So a spike fails by its neighbors, and a lucky part counts for no more than its share.

    Parameters
    ----------
    quantile : float
        Of the objective over the neighbors and the candidate itself. A tenth: of 17 the second
        lowest, so that a single odd neighbor does not decide.
    width : float
        Neighbors lie in a box of this share of each range on either side, on its scale. A tenth is
        farther than a spike of noise reaches, and near enough to be the same policy; whole numbers
        reach at least 1 on either side, options stay.
    neighbours : int
        In each box, evenly spread (scrambled Sobol points), the same for all candidates.
    parts : int
        Equal parts of the time, with a fresh account in each.
    candidates : int
        Leading sets whose neighbors are evaluated. Their boxes do not overlap, so that they are
        not all from one hill. If the budget allows, twice as many follow: the sets with the best
        estimated robust scores by then, with boxes that do not overlap either.

    Notes
    -----
    A neighbor that breaks a constraint over the whole time, is ruined in it or in a part, or fails
    there, counts as minus infinity. A part where a set has no score (it does not trade) is left
    out.
    """

    quantile: Annotated[float, Number(0, 1)] = 0.10
    width: Annotated[float, Number(0, 0.5, open_low=True)] = 0.10
    neighbours: Annotated[int, Whole(1)] = 16
    parts: Annotated[int, Whole(1)] = 4
    candidates: Annotated[int, Whole(1)] = 32

    def fit(self, trials: float) -> Robustness:
        """Return the rule with as many candidates, and neighbors, as ``trials`` can pay for."""
        candidates = int(min(self.candidates, max(1.0, trials / self.neighbours)))
        neighbours = int(min(self.neighbours, max(1.0, trials)))
        return Robustness(**{**self.to_dict(), "candidates": candidates, "neighbours": neighbours})


PLAIN = Robustness(parts=1, candidates=1)


class CandidateScores(NamedTuple):
    """Robust scores of k candidates.

    ``robust`` is the robust score and ``plateau`` the median of the neighbors over the whole time,
    of shape (k, n_objectives). ``kept``, of shape (k,), is the share of neighbors, over the whole
    time and its parts, that break no constraint and are not ruined.
    """

    robust: FloatArray
    plateau: FloatArray
    kept: FloatArray


def join_scores(one: CandidateScores, other: CandidateScores) -> CandidateScores:
    return CandidateScores(*(np.concatenate(pair) for pair in zip(one, other, strict=True)))


def half_widths(space: Space, sets: Sets, width: float) -> tuple[FloatArray, FloatArray]:
    """Return the extent of the boxes around sets, down and up, of shape (k, d) each."""
    pairs = [find_extent(each, sets[each.name], width) for each in space.dimensions]
    down, up = (np.stack(side, axis=1) for side in zip(*pairs, strict=True))
    return down, up


def find_extent(
    dimension: Dimension, values: np.ndarray, width: float
) -> tuple[FloatArray, FloatArray]:
    """Return the extent of boxes in one dimension, down and up, of shape (k,) each."""
    if dimension.options:
        return np.zeros(len(values)), np.zeros(len(values))
    if dimension.kind != "int":
        return np.full(len(values), width), np.full(len(values), width)
    here = dimension.encode(values)
    below = here - dimension.encode(np.maximum(values - 1, dimension.low))
    above = dimension.encode(np.minimum(values + 1, dimension.high)) - here
    return np.maximum(width, WHOLE_STEPS * below), np.maximum(width, WHOLE_STEPS * above)


def draw_neighbors(
    space: Space, sets: Sets, robustness: Robustness, rng: np.random.Generator
) -> Sets:
    centers = space.encode(sets)
    down, up = half_widths(space, sets, robustness.width)
    drawn = draw_cube(centers.shape[1], robustness.neighbours, "sobol", rng)
    offsets = (2.0 * drawn - 1.0)[None, :, :]
    steps = np.where(offsets < 0.0, down[:, None, :], up[:, None, :])
    points = np.abs(centers[:, None, :] + offsets * steps)
    points = np.clip(np.where(points > 1.0, 2.0 - points, points), 0.0, 1.0)
    return space.decode(points.reshape(-1, centers.shape[1]))


def choose_candidates(
    space: Space, sets: Sets, scores: FloatArray, robustness: Robustness
) -> IntArray:
    """Return the rows of the best sets whose boxes do not overlap, the best first.

    ``scores`` has shape (n,); sets without a finite score are no candidates.
    """
    places = np.argsort(-scores, kind="stable")
    places = places[np.isfinite(scores[places])]
    cube = space.encode(take_sets(sets, places))
    chosen: list[int] = []
    is_left = np.ones(len(places), dtype=np.bool_)
    while len(chosen) < robustness.candidates and is_left.any():
        first = int(np.argmax(is_left))
        chosen.append(int(places[first]))
        one = take_sets(sets, places[first : first + 1])
        down, up = half_widths(space, one, 2.0 * robustness.width)
        distance = cube - cube[first]
        is_left &= ~((distance >= -down) & (distance <= up)).all(axis=1)
    return np.array(chosen, dtype=np.int64)


def estimate_robustness(
    space: Space, sets: Sets, values: FloatArray, robustness: Robustness
) -> FloatArray:
    """Estimate robust scores from the sets evaluated so far, as keys for choosing candidates.

    ``values`` of shape (n,) are minus infinity for sets that break a constraint or have no score.
    """
    from scipy.spatial import KDTree  # noqa: PLC0415 - loads where it is used

    reached = np.maximum(*half_widths(space, sets, robustness.width)).max(axis=0)
    # different options are not close
    cube = space.encode(sets) / np.where(reached > 0.0, reached, 1e-9)
    cells = np.floor(cube * CELLS)
    best = np.argsort(-values, kind="stable")
    rated = best[np.unique(cells[best], axis=0, return_index=True)[1]]
    rated = rated[np.isfinite(values[rated])]
    known = np.unique(cells, axis=0, return_index=True)[1]
    nearest = np.arange(1, min(KNOWN, len(known)) + 1)
    found = KDTree(cube[known]).query(cube[rated], nearest, p=np.inf, distance_upper_bound=1.0)
    distance, place = (np.asarray(each) for each in found)
    is_near = np.isfinite(distance)
    around = np.append(values[known], np.nan)[place]
    low = low_quantile(around[:, :, None], robustness.quantile)[:, 0]
    kept = np.sum(is_near & np.isfinite(around), axis=1) / np.maximum(is_near.sum(axis=1), 1)
    floor = np.min(low, initial=0.0, where=np.isfinite(low)) - 2.0
    keys = np.full(len(values), -np.inf)
    keys[rated] = np.where(np.isfinite(low), low, floor + kept)
    keys[rated[is_near.sum(axis=1) < LEAST_KNOWN]] = -np.inf
    return keys


def score_candidates(
    examiner: Examiner,
    space: Space,
    sets: Sets,
    own: FloatArray,
    robustness: Robustness,
    rng: np.random.Generator,
) -> CandidateScores:
    """Evaluate the neighbors of k sets and return the robust scores.

    ``own`` of shape (k, n_objectives) are the scores of the sets over the whole time.
    """
    k, m = own.shape
    around = draw_neighbors(space, sets, robustness, rng)
    batch = examiner.evaluate(around, NEIGHBOUR)
    is_bad = (batch.violation > 0.0)[:, None] | np.isnan(batch.scores)
    scores = np.where(is_bad, -np.inf, batch.scores).reshape(k, -1, m)
    whole = np.concatenate([own[:, None, :], scores], axis=1)
    everything = join_columns([sets, around])
    parts = []
    for first, stop in split_parts(examiner.evaluator.market.n_bars, robustness.parts):
        part = examiner.evaluate(everything, PART, first=first, stop=stop)
        is_lost = ~(part.metrics["ruined"] == 0.0)[:, None]
        values = np.where(is_lost, -np.inf, part.scores)
        values = np.concatenate([values[:k, None, :], values[k:].reshape(k, -1, m)], axis=1)
        parts.append(values)
    samples = np.stack([whole, *parts])
    lows = np.stack([low_quantile(values, robustness.quantile) for values in samples])
    kept = np.mean(~np.isneginf(samples), axis=(0, 2, 3))
    return CandidateScores(average_parts(lows), np.median(scores, axis=1), kept)


def average_parts(lows: FloatArray) -> FloatArray:
    """Return the mean of the value over the whole time and the mean over its parts.

    ``lows`` has shape (1 + n_parts, k, m), the whole time first; parts that are NaN are left out.
    """
    parts = lows[1:]
    known = np.count_nonzero(~np.isnan(parts), axis=0)
    total = np.sum(np.where(np.isnan(parts), 0.0, parts), axis=0)
    mean: FloatArray = np.where(known > 0, total / np.maximum(known, 1), lows[0])
    both: FloatArray = 0.5 * (lows[0] + mean)
    return both


def split_parts(n_bars: int, parts: int) -> list[tuple[int, int]]:
    n = min(parts, n_bars // 2)
    if n < 2:
        return []
    edges = [n_bars * k // n for k in range(n + 1)]
    return list(itertools.pairwise(edges))


def low_quantile(samples: FloatArray, quantile: float) -> FloatArray:
    """Return the lower quantile along axis 1 of an array of shape (k, n, m), ignoring NaN."""
    ordered = np.sort(samples, axis=1)  # NaN comes last
    known = np.count_nonzero(~np.isnan(ordered), axis=1)
    place = np.maximum(np.floor(quantile * (known - 1)), 0).astype(np.int64)
    found: FloatArray = np.take_along_axis(ordered, place[:, None, :], axis=1)[:, 0, :]
    return found
