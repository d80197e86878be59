"""Interface and settings of samplers, and the order of points by Deb's feasibility rules.

A point that keeps the constraints is better than one that does not. Of two that keep them, the one
with the higher score is better; of two that break them, the one that breaks them less. Only the
order counts, so constraints need no weights.
Source: Deb (2000), An efficient constraint handling method for genetic algorithms, Computer
Methods in Applied Mechanics and Engineering 186(2-4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np

from backtest.base import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from backtest.sweep import Space


SamplerName = Literal["auto", "cmaes", "gp", "sobol", "random", "grid"]


class Sampler(Protocol):
    def ask(self) -> FloatArray:
        """Return the next points, of shape (n, n_dimensions) in [0, 1]; n = 0 ends the search."""

    def tell(self, cube: FloatArray, score: FloatArray, violation: FloatArray) -> None:
        """Take the scores of the points that :meth:`ask` returned.

        ``score`` of shape (n,) is larger for better points; NaN is worst. ``violation`` of shape
        (n,) is by how much constraints are broken: 0 for none, inf for ruin or failure.
        """


class SamplerTerms(NamedTuple):
    space: Space
    seed: int
    trials: int | None = None
    batch: int | None = None

    @property
    def n_dimensions(self) -> int:
        return len(self.space.dimensions)

    def size(self, default: int, *, least: int = 1) -> int:
        return max(least, default if self.batch is None else self.batch)


class Capped:
    def __init__(self, sampler: Sampler, trials: int, n_dimensions: int) -> None:
        self._sampler = sampler
        self._left = trials
        self._n_dimensions = n_dimensions

    def ask(self) -> FloatArray:
        if self._left == 0:
            return no_points(self._n_dimensions)
        return self._sampler.ask()[: self._left]

    def tell(self, cube: FloatArray, score: FloatArray, violation: FloatArray) -> None:
        self._left -= len(cube)
        if self._left > 0:
            self._sampler.tell(cube, score, violation)


def no_points(n_dimensions: int) -> FloatArray:
    """Return the batch that ends a search, of shape (0, n_dimensions)."""
    return np.empty((0, n_dimensions))


class Grades(NamedTuple):
    """Violations and scores of points, of shape (n,) each."""

    violation: FloatArray
    score: FloatArray

    def take(self, places: IntArray | BoolArray | slice) -> Grades:
        return Grades(self.violation[places], self.score[places])

    def sort(self) -> IntArray:
        return np.lexsort((-self.score, self.violation))

    def matches(self, other: Grades) -> BoolArray:
        is_equal = self.violation == other.violation
        is_match: BoolArray = (self.violation < other.violation) | (
            is_equal & (self.score >= other.score)
        )
        return is_match

    def equals(self, other: Grades) -> BoolArray:
        is_equal: BoolArray = (self.violation == other.violation) & (self.score == other.score)
        return is_equal

    def rank(self) -> FloatArray:
        """Return ranks of shape (n,), 0 for the worst; ties share their mean rank."""
        order = self.sort()[::-1]
        mine = self.take(order)
        is_new = np.zeros(len(order), dtype=np.bool_)
        for column in mine:
            is_new[1:] |= column[1:] != column[:-1]
        group = np.cumsum(is_new)
        means = np.bincount(group, weights=np.arange(len(order))) / np.bincount(group)
        ranks = np.empty(len(order))
        ranks[order] = means[group]
        return ranks


def grade(score: FloatArray, violation: FloatArray) -> Grades:
    broken = np.where(np.isnan(violation), np.inf, np.maximum(violation, 0.0))
    known = np.where(np.isnan(score), -np.inf, score)
    return Grades(broken, np.where(broken > 0.0, 0.0, known))


def join(*parts: Grades) -> Grades:
    return Grades(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
