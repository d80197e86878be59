"""Points of the unit cube: their order, a Sobol sequence of them, and grids.

A point that satisfies the constraints is better than one that does not. Of two that do, the one
with the higher score is better; of two that break them, the one that breaks them less. Only the
order counts, so constraints need no weights.
Source: Deb (2000), An efficient constraint handling method for genetic algorithms, Computer
Methods in Applied Mechanics and Engineering 186(2-4).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import qmc, rankdata

from backtest.core import FloatArray, IntArray
from backtest.sweep import Dimension, Space

BULK = 1024
"""Points of a batch where scores are ignored; a power of two keeps Sobol points balanced."""


class Points(NamedTuple):
    """Points of shape (n, n_dimensions), with violations and scores of shape (n,)."""

    cube: FloatArray
    violation: FloatArray
    score: FloatArray

    def add(self, other: Points) -> Points:
        return Points(
            cube=np.concatenate((self.cube, other.cube)),
            violation=np.concatenate((self.violation, other.violation)),
            score=np.concatenate((self.score, other.score)),
        )

    def take(self, places: Any) -> Points:
        return Points(self.cube[places], self.violation[places], self.score[places])

    def sort(self) -> IntArray:
        """Return the places of the points, of shape (n,), the best first."""
        return np.lexsort((-self.score, self.violation))

    def rank(self) -> FloatArray:
        """Return ranks of shape (n,), 1 for the worst; ties share their mean rank."""
        by_score = rankdata(self.score, "dense")
        return rankdata(by_score - len(by_score) * rankdata(self.violation, "dense"))


def grade(cube: FloatArray, score: FloatArray, violation: FloatArray) -> Points:
    """Return points that can be ordered; the score of one that breaks a constraint is none."""
    broken = np.where(np.isnan(violation), np.inf, np.maximum(violation, 0.0))
    known = np.where(np.isnan(score), -np.inf, score)
    return Points(cube, broken, np.where(broken > 0.0, 0.0, known))


class SobolStream:
    """Scrambled Sobol sequence, taken in pieces of any length.

    Source: Owen (1998), Scrambling Sobol' and Niederreiter-Xing points, J. Complexity 14(4); as in
    ``scipy.stats.qmc``.
    """

    def __init__(self, n_dimensions: int, rng: np.random.Generator) -> None:
        self._engine = qmc.Sobol(n_dimensions, rng=rng)
        self._left = np.empty((0, n_dimensions))

    def take(self, n: int) -> FloatArray:
        """Return the next n points of the sequence, of shape (n, n_dimensions)."""
        n_bulks = math.ceil((n - len(self._left)) / BULK)
        drawn = [self._engine.random(BULK) for _ in range(n_bulks)]
        points = np.concatenate([self._left, *drawn])
        self._left = points[n:]
        return points[:n]


def build_grid(space: Space, most: int) -> FloatArray:
    """Return the points of a grid of at most so many, of shape (n, n_dimensions)."""
    levels = choose_levels(space, most)
    axes = [*map(spread_levels, space.dimensions, levels)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    if all(dimension.when is None for dimension in space.dimensions):
        return points

    # A parameter that is not in force makes several points the same.
    _, first = np.unique(canonicalize(space, points), axis=0, return_index=True)
    return points[np.sort(first)]


def choose_levels(space: Space, most: int) -> list[int]:
    """Return the levels of each axis of a grid: all options, and as many of numbers as fit."""
    limits = [count_values(dimension) for dimension in space.dimensions]
    numeric = [k for k, dimension in enumerate(space.dimensions) if not dimension.options]

    # As many levels of each number as fit beside all choices of the options.
    n_options = math.prod(len(dimension.options) or 1 for dimension in space.dimensions)
    root = 1.0 / max(len(numeric), 1)
    even = max(int((most / n_options) ** root), 1)
    levels = []
    for k, limit in enumerate(limits):
        level = limit
        if k in numeric:
            level = min(even, limit)
        levels.append(int(level))

    # What rounding left over goes to one axis after the other, while the grid still fits.
    growing = list(numeric)
    while growing:
        for k in list(growing):
            # The points of the grid, if this axis had a level more.
            n_points = math.prod(levels) // levels[k] * (levels[k] + 1)
            if levels[k] >= limits[k] or n_points > most:
                growing.remove(k)
            else:
                levels[k] += 1
    return levels


def count_values(dimension: Dimension) -> float:
    """Return how many values a parameter can have; infinite for a real number."""
    if dimension.options:
        return len(dimension.options)
    if dimension.low == dimension.high:
        return 1
    if dimension.kind == "int":
        return dimension.high - dimension.low + 1
    return math.inf


def spread_levels(dimension: Dimension, count: int) -> FloatArray:
    """Return so many places of [0, 1] for a parameter; fewer if some are of one value."""
    if dimension.options:
        return (np.arange(count) + 0.5) / count
    if count == 1:
        return np.full(1, 0.5)
    if count == count_values(dimension):
        return dimension.encode(dimension.low + np.arange(count))
    return np.unique(dimension.encode(dimension.decode(np.linspace(0.0, 1.0, count))))


def canonicalize(space: Space, cube: FloatArray) -> FloatArray:
    """Return points as their parameters are encoded: equal sets have equal points."""
    return np.nan_to_num(space.encode(space.decode(cube)), nan=0.5)
