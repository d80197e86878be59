"""Candidates of a search, and what their neighbors in the space of parameters score."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from backtest import core
from backtest.search import trials as t
from backtest.search.problem import Robustness
from backtest.sweep import draw_cube, take_sets
from backtest.sweep.set_evaluator import Evaluator
from backtest.sweep.sets import Dimension, Sets, Space

WHOLE_STEPS = 1.5
"""Reach of neighbors in steps of a whole number: the value and the two next to it are equally
likely."""


class CandidateScores(NamedTuple):
    """Robust scores, medians of the neighbors over the whole time, and shares of those that hold.

    A neighbor holds if it breaks no constraint and is not ruined. Arrays of shape (k,).
    """

    robust: core.FloatArray
    plateau: core.FloatArray
    kept: core.FloatArray


def half_widths(space: Space, sets: Sets, width: float) -> core.FloatArray:
    """Return the extents of the boxes around k sets, down and up, of shape (2, k, d)."""
    down = []
    up = []
    for dimension in space.dimensions:
        below, above = find_extent(dimension, sets[dimension.name], width)
        down.append(below)
        up.append(above)
    return np.stack([np.column_stack(down), np.column_stack(up)])


def find_extent(
    dimension: Dimension,
    values: np.ndarray,
    width: float,
) -> tuple[core.FloatArray, core.FloatArray]:
    """Return the extent of boxes in one dimension, down and up, of shape (k,) each."""
    if dimension.options:
        stays = np.zeros(len(values))
        return stays, stays
    if dimension.kind != "int":
        even = np.full(len(values), width)
        return even, even

    # Whole numbers: some steps of one, at least the width of others.
    lower = np.maximum(values - 1, dimension.low)
    upper = np.minimum(values + 1, dimension.high)
    here = dimension.encode(values)
    step_down = here - dimension.encode(lower)
    step_up = dimension.encode(upper) - here
    down = np.maximum(width, WHOLE_STEPS * step_down)
    up = np.maximum(width, WHOLE_STEPS * step_up)
    return down, up


def draw_neighbors(
    space: Space,
    sets: Sets,
    robustness: Robustness,
    rng: np.random.Generator,
) -> Sets:
    """Return the neighbors of k sets, those of the first set first: as many for each.

    All sets have the same draws, each in the box around it.
    """
    centers = space.encode(sets)
    n_dimensions = centers.shape[1]
    drawn = draw_cube(n_dimensions, robustness.neighbours, rng)
    offsets = (2.0 * drawn - 1.0)[None, :, :]  # from -1 to 1 of the box
    down, up = half_widths(space, sets, robustness.width)
    half_width = np.where(offsets < 0.0, down[:, None, :], up[:, None, :])
    points = centers[:, None, :] + offsets * half_width

    # What falls out of the cube is reflected into it.
    points = np.abs(points)
    points = np.where(points > 1.0, 2.0 - points, points)
    points = np.clip(points, 0.0, 1.0)
    return space.decode(points.reshape(-1, n_dimensions))


def choose_candidates(
    space: Space,
    sets: Sets,
    scores: core.FloatArray,
    robustness: Robustness,
) -> core.IntArray:
    """Return the rows of the leading sets, each outside of the boxes around those before.

    The boxes of the first half of them do not overlap: they reach twice as far.
    """
    places = np.argsort(-scores, kind="stable")
    places = places[np.isfinite(scores[places])]
    cube = space.encode(take_sets(sets, places))

    def is_outside(row: int, reach: float) -> core.BoolArray:
        """Return which sets are outside of the box around one, ``reach`` times as wide."""
        center = take_sets(sets, places[row : row + 1])
        down, up = half_widths(space, center, reach * robustness.width)
        distance = cube - cube[row]
        is_inside = (distance >= -down) & (distance <= up)
        return np.asarray(~is_inside.all(axis=1))

    # Rows of ``cube``, the best first. A second round, with smaller boxes, fills the rest.
    chosen: list[int] = []
    half = math.ceil(robustness.candidates / 2)
    for reach, most in ((2.0, half), (1.0, robustness.candidates)):
        is_left = np.ones(len(places), dtype=np.bool_)
        for row in chosen:
            is_left &= is_outside(row, reach)
        while len(chosen) < most and is_left.any():
            chosen.append(int(np.argmax(is_left)))
            is_left &= is_outside(chosen[-1], reach)
    return places[chosen]


def score_candidates(
    examiner: t.Examiner,
    space: Space,
    sets: Sets,
    scores: core.FloatArray,
    robustness: Robustness,
    rng: np.random.Generator,
) -> CandidateScores:
    """Evaluate the neighbors of k candidates, of these ``scores`` (k,), on the whole and in parts.

    ``examiner`` appends what it evaluates to its batches; only the neighbors on the whole count as
    trials there.
    """
    # A sample has a row for each candidate: its own score, and those of its neighbors. What breaks
    # a constraint, or has no score, counts as the worst.
    k = len(scores)
    neighbors = draw_neighbors(space, sets, robustness, rng)
    evaluated = examiner.evaluate(neighbors, "neighbour")
    is_bad = (evaluated.violation > 0.0) | np.isnan(evaluated.scores)
    neighbor_scores = np.where(is_bad, -np.inf, evaluated.scores).reshape(k, -1)
    samples = [np.column_stack([scores, neighbor_scores])]

    # The same sets in equal parts of the time, with a fresh account in each.
    everything = t.join_columns([sets, neighbors])
    for first, stop in list_time_parts(examiner.evaluator, robustness.parts):
        part = examiner.evaluate(
            everything,
            t.PART,
            first=first,
            stop=stop,
        )
        values = np.where(part.metrics["ruined"] == 0.0, part.scores, -np.inf)
        own_scores = values[:k]
        of_neighbors = values[k:].reshape(k, -1)
        samples.append(np.column_stack([own_scores, of_neighbors]))

    # A low quantile of each sample: of the candidate and its neighbors, (k,).
    lows = []
    for values in samples:
        table = pd.DataFrame(values)
        low = table.quantile(robustness.quantile, axis=1, interpolation="lower")
        lows.append(low)

    # The robust score is half of that on the whole, half of its mean over the parts that have one.
    # Without parts, that on the whole stands for both.
    on_whole = lows[0]
    in_parts = pd.DataFrame(lows[1:], columns=range(k), dtype=float).mean()
    robust = 0.5 * (on_whole + in_parts.fillna(on_whole))

    # The share of scores that exist, over all samples (axis 0) and neighbors (axis 2).
    kept = np.mean(~np.isneginf(samples), axis=(0, 2))
    return CandidateScores(
        robust=robust.to_numpy(),
        plateau=np.median(neighbor_scores, axis=1),
        kept=kept,
    )


def list_time_parts(evaluator: Evaluator, parts: int) -> Iterator[tuple[int, int]]:
    """Yield the first bar of equal parts of the time, and the bar after each; of one part none."""
    begin: int = evaluator.first
    n_bars = evaluator.market.n_bars - begin
    n = min(parts, n_bars // 2)
    if n > 1:
        edges = [begin + n_bars * part // n for part in range(n + 1)]
        yield from itertools.pairwise(edges)
