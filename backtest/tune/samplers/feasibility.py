"""Order of points by Deb's feasibility rules, constraints first.

A point that keeps the constraints is better than one that does not. Of two that keep them, the one
with the higher score is better; of two that break them, the one that breaks them less. Only the
order counts, so constraints need no weights.
Source: Deb (2000), An efficient constraint handling method for genetic algorithms, Computer
Methods in Applied Mechanics and Engineering 186(2-4).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backtest.base import BoolArray, FloatArray, IntArray


class Grades(NamedTuple):
    """Violations and scores of points, of shape (n,) each.

    ``violation`` is 0 if all constraints are kept. ``score`` is larger for better points, -inf
    instead of NaN, and 0 if constraints are broken, as it does not count then.
    """

    violation: FloatArray
    score: FloatArray

    def take(self, places: IntArray | BoolArray | slice) -> Grades:
        """Return the grades of a selection of points."""
        return Grades(self.violation[places], self.score[places])

    def sort(self) -> IntArray:
        """Return the rows of the points, best first; ties keep their order."""
        return np.lexsort((-self.score, self.violation))

    def matches(self, other: Grades) -> BoolArray:
        """Return where these points are at least as good as others."""
        is_equal = self.violation == other.violation
        is_match: BoolArray = (self.violation < other.violation) | (
            is_equal & (self.score >= other.score)
        )
        return is_match

    def equals(self, other: Grades) -> BoolArray:
        """Return where these points are exactly as good as others."""
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
    """Return the grades of scores and violations; a violation of NaN is infinite."""
    broken = np.where(np.isnan(violation), np.inf, np.maximum(violation, 0.0))
    known = np.where(np.isnan(score), -np.inf, score)
    return Grades(broken, np.where(broken > 0.0, 0.0, known))


def join(*parts: Grades) -> Grades:
    """Concatenate the grades of groups of points."""
    return Grades(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
