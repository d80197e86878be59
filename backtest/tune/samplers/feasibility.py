"""How good points are, constraints first: Deb's rules of feasibility.

A point that keeps the constraints is better than one that does not; of two that keep them the one
with the higher score; of two that break them the one that breaks them less. Only the order counts,
so a constraint has no weight that could be too small.
Source: Deb (2000), An efficient constraint handling method for genetic algorithms, Computer
Methods in Applied Mechanics and Engineering 186(2-4).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backtest.base.units import BoolArray, FloatArray, IntArray


class Grades(NamedTuple):
    """How good some points are.

    Attributes
    ----------
    violation : FloatArray of shape (n,)
        0 where all constraints are kept.
    score : FloatArray of shape (n,)
        Larger is better, -inf where it was NaN; 0 where constraints are broken, for it does not
        count there.
    """

    violation: FloatArray
    score: FloatArray

    def take(self, places: IntArray | BoolArray | slice) -> Grades:
        """Return the grades of some of the points."""
        return Grades(self.violation[places], self.score[places])

    def sort(self) -> IntArray:
        """Return the places of the points, best first, equals as they stand."""
        return np.lexsort((-self.score, self.violation))

    def matches(self, other: Grades) -> BoolArray:
        """Tell where these points are at least as good as others."""
        is_equal = self.violation == other.violation
        is_match: BoolArray = (self.violation < other.violation) | (
            is_equal & (self.score >= other.score)
        )
        return is_match

    def rank(self) -> FloatArray:
        """Return ranks of shape (n,) from 0 for the worst; equals share the mean of theirs."""
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
    """Return the grades of points from what a sampler is told; a violation of NaN is infinite."""
    broken = np.where(np.isnan(violation), np.inf, np.maximum(violation, 0.0))
    known = np.where(np.isnan(score), -np.inf, score)
    return Grades(broken, np.where(broken > 0.0, 0.0, known))


def join(*parts: Grades) -> Grades:
    """Return the grades of several groups of points in one."""
    return Grades(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
