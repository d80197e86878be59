"""A population that improves: differential evolution, and small moves of its best members.

Differential evolution (moves towards one of the best, plus a difference of two others, its
strengths learnt from what succeeded) spreads over the good regions. Small moves of all sizes around
the leading members climb the spikes within them, a few coordinates at a time because the cliffs of
a backtest (a trade more, a liquidation) run along the axes. Grown together they find on rugged
surfaces in the same number of evaluations about half the regret of either alone.
Source: Tanabe and Fukunaga (2014), Improving the search performance of SHADE using linear
population size reduction, IEEE CEC; Zhang and Sanderson (2009), JADE, IEEE Trans. Evolutionary
Computation 13(5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest.base.units import BoolArray, FloatArray, IntArray
from backtest.tune.samplers.feasibility import Grades, join
from backtest.tune.samplers.grid import count_values

if TYPE_CHECKING:
    from backtest.sweep.sets.space import Space

MEMORY = 8
"""How many generations' strengths are remembered."""
BEST_SHARE = 0.15
"""The best of the population, towards one of which a move goes."""
LEADERS = 3.2
"""Mean rank of the members that small moves start from."""
SMALLEST, LARGEST = 1e-4, 0.3
"""Standard deviations of small moves, in parts of an axis, log-uniform."""
MOVED_SHARE = 0.4
"""The chance of a coordinate to be moved by a small move."""


class Axes(NamedTuple):
    """What the axes stand for, each of shape (n_dimensions,).

    ``grain`` is the share of an axis that one whole number has, 0 on axes of floats;
    ``is_unordered`` says where nearness means nothing: on axes of options.
    """

    grain: FloatArray
    is_unordered: BoolArray


def read_axes(space: Space) -> Axes:
    """Return what the axes of a space stand for."""
    return Axes(
        np.array([1.0 / count_values(each) for each in space.dimensions]),
        np.array([bool(each.options) for each in space.dimensions]),
    )


class Brood(NamedTuple):
    """The points of one generation: each replaces its parent if it is as good.

    The first ones, as many as there are members, have one parent each, and were made with a
    strength and a crossover rate of their own.
    """

    cube: FloatArray
    parent: IntArray
    strength: FloatArray
    crossover: FloatArray


class Population:
    """Some points, best first, and what they have learnt.

    Parameters
    ----------
    cube : FloatArray of shape (n, n_dimensions)
        At least 4 points.
    grades : Grades
        Of these points.
    axes : Axes
        What the coordinates stand for.
    """

    def __init__(self, cube: FloatArray, grades: Grades, axes: Axes) -> None:
        order = grades.sort()
        self.cube, self.grades, self.axes = cube[order], grades.take(order), axes
        self._replaced = cube[:0]
        self._strength = np.full(MEMORY, 0.5)
        self._crossover = np.full(MEMORY, 0.5)
        self._next = 0

    def breed(self, n: int, rng: np.random.Generator) -> Brood:
        """Return n points, at least as many as there are members."""
        size = len(self.cube)
        slot = rng.integers(0, MEMORY, size)
        strength = np.clip(self._strength[slot] + 0.1 * rng.standard_cauchy(size), 0.05, 1.0)
        crossover = np.clip(self._crossover[slot] + 0.1 * rng.standard_normal(size), 0.0, 1.0)
        crossed = self._cross(strength, crossover, rng)
        leader = np.minimum(rng.exponential(LEADERS, n - size).astype(np.int64), size - 1)
        moved = move_a_little(self.cube[leader], self.axes, rng)
        parent = np.concatenate([np.arange(size), leader])
        return Brood(np.concatenate([crossed, moved]), parent, strength, crossover)

    def _cross(
        self, strength: FloatArray, crossover: FloatArray, rng: np.random.Generator
    ) -> FloatArray:
        """Return one point per member x: x + F (best - x) + F (one - other), part of it crossed."""
        size, d = self.cube.shape
        x = self.cube
        best = x[rng.integers(0, max(2, int(BEST_SHARE * size)), size)]
        one = x[(np.arange(size) + rng.integers(1, size, size)) % size]
        pool = np.concatenate([x, self._replaced])
        other = pool[rng.integers(0, len(pool), size)]
        mutant = x + strength[:, None] * (best - x + one - other)
        mutant = np.where(mutant < 0.0, x / 2, np.where(mutant > 1.0, (1.0 + x) / 2, mutant))
        return np.where(choose_coordinates(crossover, d, rng), mutant, x)

    def select(self, brood: Brood, grades: Grades, size: int, rng: np.random.Generator) -> None:
        """Replace parents by children that are as good, and keep the best ``size`` members."""
        old = self.grades
        matched = grades.matches(old.take(brood.parent))
        self._learn(brood, grades, rng)
        order = grades.sort()[::-1]
        winners = order[matched[order]]  # the best child of a parent is written last
        cube, violation, score = self.cube.copy(), old.violation.copy(), old.score.copy()
        place = brood.parent[winners]
        cube[place] = brood.cube[winners]
        violation[place], score[place] = grades.violation[winners], grades.score[winners]
        new = Grades(violation, score)
        order = new.sort()[:size]
        self.cube, self.grades = cube[order], new.take(order)

    def _learn(self, brood: Brood, grades: Grades, rng: np.random.Generator) -> None:
        """Remember the strengths of the children that surpass their parents, by ranks gained."""
        size = len(self.cube)
        ranks = join(self.grades, grades.take(slice(size))).rank()
        gain = np.maximum(ranks[size:] - ranks[:size], 0.0)
        if not gain.any():
            return
        weight, strength = gain / gain.sum(), brood.strength
        self._strength[self._next] = (weight @ strength**2) / (weight @ strength)
        self._crossover[self._next] = weight @ brood.crossover
        self._next = (self._next + 1) % MEMORY
        pool = np.concatenate([self._replaced, self.cube[gain > 0.0]])
        self._replaced = rng.permutation(pool)[:size]


def move_a_little(cube: FloatArray, axes: Axes, rng: np.random.Generator) -> FloatArray:
    """Return a point near each of some points: few coordinates moved, by steps of all sizes.

    A whole number moves by one or so at least; an option becomes any other.
    """
    n, d = cube.shape
    size = np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST), (n, 1)))
    moved = cube + np.maximum(size, axes.grain) * rng.standard_normal((n, d))
    moved = 1.0 - np.abs(1.0 - np.abs(moved))  # reflected at the walls
    moved = np.where(axes.is_unordered, rng.random((n, d)), np.clip(moved, 0.0, 1.0))
    return np.where(choose_coordinates(np.full(n, MOVED_SHARE), d, rng), moved, cube)


def choose_coordinates(chance: FloatArray, d: int, rng: np.random.Generator) -> BoolArray:
    """Return which coordinates of each point change, of shape (n, d): at least one."""
    n = len(chance)
    chosen = rng.random((n, d)) < chance[:, None]
    chosen[np.arange(n), rng.integers(0, d, n)] = True
    return chosen
