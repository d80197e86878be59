"""Plateaus, not spikes: what a set is worth where its parameters are not quite those.

The best of many sets is partly noise: moved a little, it is often no better than others. So the
leading sets are judged by the neighbours around them, and by parts of the time.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np

from backtest.base.fields import Whole
from backtest.base.ranges import Number
from backtest.base.units import FloatArray, IntArray
from backtest.base.values import Value
from backtest.sweep.sets.space import draw_cube
from backtest.tune.trial_evaluator import join_columns

if TYPE_CHECKING:
    from backtest.sweep.sets.dimension import Dimension
    from backtest.sweep.sets.sets import Sets
    from backtest.sweep.sets.space import Space
    from backtest.tune.trial_evaluator import Examiner

NEIGHBOUR, PART = "neighbour", "part"
BUDGET_SHARE = 0.25
"""The share of the budget that judging candidates may take."""
CELLS = 2
"""Parts of half a box, per axis, of which one set each says what is known there."""
KNOWN, LEAST_KNOWN = 32, 6
"""Sets that tell what another one is worth, at most and at least."""
WHOLE_STEPS = 1.5
"""How many steps of a whole number its neighbours reach: the value itself and the one beside it
on either side have equal chances."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Robustness(Value):
    """How candidates are judged: by a low quantile over neighbours, on average over the time.

    A candidate's robust score is the mean of two: the low quantile of the objective over its
    neighbours on the whole time, and the mean over equal parts of the time of the same quantile
    there. So a spike fails by its neighbours, and a lucky part counts for no more than its share.

    Parameters
    ----------
    quantile : float
        Of the objective over the neighbours and the candidate itself. A tenth: of 17 the second
        lowest, so that a single odd neighbour does not decide.
    width : float
        Neighbours lie in a box of this share of each range on either side, on its scale. A tenth is
        farther than a spike of noise reaches, and near enough to be the same policy; whole numbers
        reach at least 1 on either side, options stay.
    neighbours : int
        In each box, evenly spread (scrambled Sobol points), the same for all candidates.
    parts : int
        Equal parts of the time, with a fresh account in each.
    candidates : int
        The leading sets that are judged. No two of their boxes overlap, so that they are not all
        from one hill. Then, where the budget allows, twice as many that are the most promising by
        what is known around them by then, their boxes apart from one another too.

    Notes
    -----
    A neighbour that breaks a constraint over the whole time, is ruined in it or in a part, or fails
    there, counts as minus infinity. A part where a set has no score (it does not trade) is left
    out.
    """

    quantile: Annotated[float, Number(0, 1)] = 0.10
    width: Annotated[float, Number(0, 0.5, open_low=True)] = 0.10
    neighbours: Annotated[int, Whole(1)] = 16
    parts: Annotated[int, Whole(1)] = 4
    candidates: Annotated[int, Whole(1)] = 32

    def fit(self, trials: float) -> Robustness:
        """Return the same with as many candidates as some further trials are enough for.

        Of few trials even one candidate has fewer neighbours.
        """
        candidates = int(min(self.candidates, max(1.0, trials / self.neighbours)))
        neighbours = int(min(self.neighbours, max(1.0, trials)))
        return Robustness(
            **{
                **self.to_dict(),
                "candidates": candidates,
                "neighbours": neighbours,
            }
        )


PLAIN = Robustness(parts=1, candidates=1)
"""How the plain optimum is judged: alone, so that its neighbours are known."""


class Judgement(NamedTuple):
    """What k candidates are worth.

    ``robust`` is the robust score and ``plateau`` the median of the neighbours over the whole time,
    of shape (k, n_objectives); ``kept`` the share of neighbours, over the whole time and its parts,
    that break no constraint and are not ruined, of shape (k,).
    """

    robust: FloatArray
    plateau: FloatArray
    kept: FloatArray


def join_judgements(one: Judgement, other: Judgement) -> Judgement:
    """Return the judgements of two groups of candidates as one."""
    return Judgement(*(np.concatenate(pair) for pair in zip(one, other, strict=True)))


# ------------------------------------------------------------------------------------- the boxes


def half_widths(space: Space, sets: Sets, width: float) -> tuple[FloatArray, FloatArray]:
    """Return how far the boxes around sets reach down and up the cube, of shape (k, d) each."""
    pairs = [reach(each, np.asarray(sets[each.name]), width) for each in space.dimensions]
    down, up = (np.stack(side, axis=1) for side in zip(*pairs, strict=True))
    return down, up


def reach(dimension: Dimension, values: np.ndarray, width: float) -> tuple[FloatArray, FloatArray]:
    """Return how far a box reaches down and up one dimension, of shape (k,) each."""
    if dimension.options:
        return np.zeros(len(values)), np.zeros(len(values))
    if dimension.kind != "int":
        return np.full(len(values), width), np.full(len(values), width)
    here = dimension.encode(values)
    below = here - dimension.encode(np.maximum(values - 1, dimension.low))
    above = dimension.encode(np.minimum(values + 1, dimension.high)) - here
    return np.maximum(width, WHOLE_STEPS * below), np.maximum(width, WHOLE_STEPS * above)


def draw_neighbours(
    space: Space, sets: Sets, robustness: Robustness, rng: np.random.Generator
) -> Sets:
    """Return the neighbours of k sets, k * neighbours of them: those of the first set first.

    Points beyond a bound are mirrored at it.
    """
    centres = space.encode(sets)
    down, up = half_widths(space, sets, robustness.width)
    drawn = draw_cube(centres.shape[1], robustness.neighbours, "sobol", rng)
    offsets = (2.0 * drawn - 1.0)[None, :, :]
    steps = np.where(offsets < 0.0, down[:, None, :], up[:, None, :])
    points = np.abs(centres[:, None, :] + offsets * steps)
    points = np.clip(np.where(points > 1.0, 2.0 - points, points), 0.0, 1.0)
    return space.decode(points.reshape(-1, centres.shape[1]))


def choose_candidates(
    space: Space, sets: Sets, scores: FloatArray, robustness: Robustness
) -> IntArray:
    """Return the places of the best sets, the best first, no two of whose boxes overlap.

    Parameters
    ----------
    space, sets
        The sets, and where they lie.
    scores : array of shape (n,)
        Larger is better; sets without a finite one are no candidates.
    robustness : Robustness
        The box, and how many.
    """
    places = np.argsort(-scores, kind="stable")
    places = places[np.isfinite(scores[places])]
    cube = space.encode({name: np.asarray(values)[places] for name, values in sets.items()})
    chosen: list[int] = []
    is_left = np.ones(len(places), dtype=np.bool_)
    while len(chosen) < robustness.candidates and is_left.any():
        first = int(np.argmax(is_left))
        chosen.append(int(places[first]))
        one = {name: np.asarray(values)[places[first : first + 1]] for name, values in sets.items()}
        down, up = half_widths(space, one, 2.0 * robustness.width)
        distance = cube - cube[first]
        is_left &= ~((distance >= -down) & (distance <= up)).all(axis=1)
    return np.array(chosen, dtype=np.int64)


def guess_worth(space: Space, sets: Sets, values: FloatArray, robustness: Robustness) -> FloatArray:
    """Return keys for :func:`choose_candidates` by what is known around each set, of shape (n,).

    The leading sets of all often stand at the edge of a constraint, and their neighbours beyond it.
    A key is the low quantile over sets in the box that have been evaluated before, thinned out, so
    that those where the search dwelt count no more than others. Below all such keys come sets of
    which too many around break a constraint, the fewer the better. Of a small part of a box, only
    the best set has a key; the others, and those with too little around, have minus infinity.

    Parameters
    ----------
    values : array of shape (n,)
        Larger is better, minus infinity where a constraint is broken or there is no score.
    """
    from scipy.spatial import KDTree  # noqa: PLC0415 - loads where it is used

    reached = np.maximum(*half_widths(space, sets, robustness.width)).max(axis=0)
    cube = space.encode(sets) / np.where(reached > 0.0, reached, 1e-9)  # no two options are near
    cells = np.floor(cube * CELLS)
    best = np.argsort(-values, kind="stable")
    asked = best[np.unique(cells[best], axis=0, return_index=True)[1]]
    asked = asked[np.isfinite(values[asked])]
    known = np.unique(cells, axis=0, return_index=True)[1]
    nearest = np.arange(1, min(KNOWN, len(known)) + 1)
    found = KDTree(cube[known]).query(cube[asked], nearest, p=np.inf, distance_upper_bound=1.0)
    distance, place = (np.asarray(each) for each in found)
    is_near = np.isfinite(distance)
    around = np.append(values[known], np.nan)[place]
    low = low_quantile(around[:, :, None], robustness.quantile)[:, 0]
    kept = np.sum(is_near & np.isfinite(around), axis=1) / np.maximum(is_near.sum(axis=1), 1)
    floor = np.min(low, initial=0.0, where=np.isfinite(low)) - 2.0
    keys = np.full(len(values), -np.inf)
    keys[asked] = np.where(np.isfinite(low), low, floor + kept)
    keys[asked[is_near.sum(axis=1) < LEAST_KNOWN]] = -np.inf
    return keys


# -------------------------------------------------------------------------------------- the worth


def judge_candidates(
    examiner: Examiner,
    space: Space,
    sets: Sets,
    own: FloatArray,
    robustness: Robustness,
    rng: np.random.Generator,
    n_bars: int,
) -> Judgement:
    """Return what k sets are worth.

    Parameters
    ----------
    examiner : Examiner
        Evaluates the neighbours.
    space, sets
        The k sets, and where they lie.
    own : array of shape (k, n_objectives)
        Their scores over the whole time.
    robustness : Robustness
        How they are judged.
    rng : Generator
        Of the neighbours.
    n_bars : int
        Of the search.
    """
    k, m = own.shape
    around = draw_neighbours(space, sets, robustness, rng)
    batch = examiner.examine(around, NEIGHBOUR)
    is_bad = (batch.violation > 0.0)[:, None] | np.isnan(batch.scores)
    scores = np.where(is_bad, -np.inf, batch.scores).reshape(k, -1, m)
    whole = np.concatenate([own[:, None, :], scores], axis=1)
    everyone = join_columns([sets, around])
    parts = []
    for first, stop in split_parts(n_bars, robustness.parts):
        part = examiner.examine(everyone, PART, first=first, stop=stop)
        is_lost = ~(part.metrics["ruined"] == 0.0)[:, None]
        values = np.where(is_lost, -np.inf, part.scores)
        values = np.concatenate([values[:k, None, :], values[k:].reshape(k, -1, m)], axis=1)
        parts.append(values)
    samples = np.stack([whole, *parts])
    lows = np.stack([low_quantile(values, robustness.quantile) for values in samples])
    kept = np.mean(~np.isneginf(samples), axis=(0, 2, 3))
    return Judgement(average(lows), np.median(scores, axis=1), kept)


def average(lows: FloatArray) -> FloatArray:
    """Return the mean of what holds over the whole time and of the mean over its parts.

    Parameters
    ----------
    lows : array of shape (1 + n_parts, k, m)
        The whole time first; NaN where a part says nothing.

    Examples
    --------
    >>> average(np.array([[[1.0]], [[0.0]], [[np.nan]], [[4.0]]]))
    array([[1.5]])
    """
    parts = lows[1:]
    known = np.count_nonzero(~np.isnan(parts), axis=0)
    total = np.sum(np.where(np.isnan(parts), 0.0, parts), axis=0)
    mean: FloatArray = np.where(known > 0, total / np.maximum(known, 1), lows[0])
    both: FloatArray = 0.5 * (lows[0] + mean)
    return both


def split_parts(n_bars: int, parts: int) -> list[tuple[int, int]]:
    """Return first and stop of equal parts of some bars; none where there is but one.

    Examples
    --------
    >>> split_parts(100, 4)
    [(0, 25), (25, 50), (50, 75), (75, 100)]
    """
    n = min(parts, n_bars // 2)
    if n < 2:
        return []
    edges = [n_bars * k // n for k in range(n + 1)]
    return list(itertools.pairwise(edges))


def low_quantile(samples: FloatArray, quantile: float) -> FloatArray:
    """Return a quantile along axis 1 of an array of shape (k, n, m), one of the values itself.

    NaN is left out; of nothing but NaN it is NaN.

    Examples
    --------
    >>> low_quantile(np.array([[[3.0], [1.0], [np.nan], [2.0], [-np.inf]]]), 0.5)
    array([[1.]])
    """
    ordered = np.sort(samples, axis=1)  # NaN comes last
    known = np.count_nonzero(~np.isnan(ordered), axis=1)
    place = np.maximum(np.floor(quantile * (known - 1)), 0).astype(np.int64)
    found: FloatArray = np.take_along_axis(ordered, place[:, None, :], axis=1)[:, 0, :]
    return found
