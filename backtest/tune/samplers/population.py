"""Evolving population: differential evolution, and small moves of its best members.

Differential evolution (moves towards one of the best, plus a difference of two others, with
adapted strengths) spreads over the good regions. Small moves of all sizes around the leading
members climb the spikes there, a few coordinates at a time because the cliffs of a backtest (one
more trade, a liquidation) run along the axes. On rugged surfaces, both together have about half the
regret of either alone with the same number of evaluations. A population that begins on a ridge
across the axes (where band and target grow together, for instance) can also move along lines
through two of its members.
Source: Tanabe and Fukunaga (2014), Improving the search performance of SHADE using linear
population size reduction, IEEE CEC; Zhang and Sanderson (2009), JADE, IEEE Trans. Evolutionary
Computation 13(5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest.base import BoolArray, FloatArray, IntArray
from backtest.tune.samplers.grid import count_values
from backtest.tune.samplers.protocol import Grades, join

if TYPE_CHECKING:
    from backtest.sweep import Space

MEMORY = 8
"""Generations whose strengths are remembered."""
BEST_SHARE = 0.15
"""Share of the best members, towards one of which a point moves."""
LEADERS = 3.2
"""Mean rank of the members from which small moves start."""
SMALLEST, LARGEST = 1e-4, 0.3
"""Log-uniform standard deviations of small moves, as shares of an axis."""
MOVED_SHARE = 0.4
"""Probability that a small move changes a coordinate."""
SHORTEST, LONGEST = 1e-3, 4.0
"""Log-uniform standard deviations of moves along a line, as shares of its length."""


class Axes(NamedTuple):
    """Kinds of the axes, of shape (n_dimensions,) each."""

    grain: FloatArray
    is_unordered: BoolArray


def read_axes(space: Space) -> Axes:
    return Axes(
        np.array([1.0 / count_values(each) for each in space.dimensions]),
        np.array([bool(each.options) for each in space.dimensions]),
    )


class Generation(NamedTuple):
    cube: FloatArray
    parent: IntArray
    strength: FloatArray
    crossover: FloatArray


class Population:
    def __init__(
        self, cube: FloatArray, grades: Grades, axes: Axes, *, share_along: float = 0.0
    ) -> None:
        self._share_along = share_along
        order = grades.sort()
        self.cube, self.grades, self.axes = cube[order], grades.take(order), axes
        self._replaced = cube[:0]
        self._strength = np.full(MEMORY, 0.5)
        self._crossover = np.full(MEMORY, 0.5)
        self._next = 0

    def breed(self, n: int, rng: np.random.Generator) -> Generation:
        size = len(self.cube)
        slot = rng.integers(0, MEMORY, size)
        strength = np.clip(self._strength[slot] + 0.1 * rng.standard_cauchy(size), 0.05, 1.0)
        crossover = np.clip(self._crossover[slot] + 0.1 * rng.standard_normal(size), 0.0, 1.0)
        crossed = self._cross(strength, crossover, rng)
        leader = np.minimum(rng.exponential(LEADERS, n - size).astype(np.int64), size - 1)
        along, across = np.split(self.cube[leader], [round(self._share_along * len(leader))])
        moved = [self._move_along(along, rng), move_a_little(across, self.axes, rng)]
        parent = np.concatenate([np.arange(size), leader])
        return Generation(np.concatenate([crossed, *moved]), parent, strength, crossover)

    def _move_along(self, cube: FloatArray, rng: np.random.Generator) -> FloatArray:
        n, size = len(cube), len(self.cube)
        one = rng.integers(0, size, n)
        other = (one + rng.integers(1, size, n)) % size
        share = np.exp(rng.uniform(np.log(SHORTEST), np.log(LONGEST), (n, 1)))
        step = share * rng.standard_normal((n, 1))
        moved = np.clip(cube + step * (self.cube[one] - self.cube[other]), 0.0, 1.0)
        return np.where(self.axes.is_unordered, cube, moved)

    def _cross(
        self, strength: FloatArray, crossover: FloatArray, rng: np.random.Generator
    ) -> FloatArray:
        size, d = self.cube.shape
        x = self.cube
        best = x[rng.integers(0, max(2, int(BEST_SHARE * size)), size)]
        one = x[(np.arange(size) + rng.integers(1, size, size)) % size]
        pool = np.concatenate([x, self._replaced])
        other = pool[rng.integers(0, len(pool), size)]
        mutant = x + strength[:, None] * (best - x + one - other)
        mutant = np.where(mutant < 0.0, x / 2, np.where(mutant > 1.0, (1.0 + x) / 2, mutant))
        return np.where(choose_coordinates(crossover, d, rng), mutant, x)

    def select(
        self, generation: Generation, grades: Grades, size: int, rng: np.random.Generator
    ) -> None:
        old = self.grades
        matched = grades.matches(old.take(generation.parent))
        self._learn(generation, grades, rng)
        order = grades.sort()[::-1]
        winners = order[matched[order]]  # the best child of a parent is written last
        cube, violation, score = self.cube.copy(), old.violation.copy(), old.score.copy()
        place = generation.parent[winners]
        cube[place] = generation.cube[winners]
        violation[place], score[place] = grades.violation[winners], grades.score[winners]
        new = Grades(violation, score)
        order = new.sort()[:size]
        self.cube, self.grades = cube[order], new.take(order)

    def _learn(self, generation: Generation, grades: Grades, rng: np.random.Generator) -> None:
        size = len(self.cube)
        ranks = join(self.grades, grades.take(slice(size))).rank()
        gain = np.maximum(ranks[size:] - ranks[:size], 0.0)
        if not gain.any():
            return
        weight, strength = gain / gain.sum(), generation.strength
        self._strength[self._next] = (weight @ strength**2) / (weight @ strength)
        self._crossover[self._next] = weight @ generation.crossover
        self._next = (self._next + 1) % MEMORY
        pool = np.concatenate([self._replaced, self.cube[gain > 0.0]])
        self._replaced = rng.permutation(pool)[:size]


def move_a_little(cube: FloatArray, axes: Axes, rng: np.random.Generator) -> FloatArray:
    n, d = cube.shape
    size = np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST), (n, 1)))
    moved = cube + np.maximum(size, axes.grain) * rng.standard_normal((n, d))
    moved = np.clip(moved, 0.0, 1.0)  # onto a bound, where the best points often are
    moved = np.where(axes.is_unordered, rng.random((n, d)), moved)
    return np.where(choose_coordinates(np.full(n, MOVED_SHARE), d, rng), moved, cube)


def choose_coordinates(chance: FloatArray, d: int, rng: np.random.Generator) -> BoolArray:
    """Choose the coordinates of each point that change, of shape (n, d); at least one."""
    n = len(chance)
    chosen = rng.random((n, d)) < chance[:, None]
    chosen[np.arange(n), rng.integers(0, d, n)] = True
    return chosen
