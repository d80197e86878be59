"""Number of good outcomes that chance alone gives, reported with every count."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from backtest.base import FloatArray

EVIDENCE = 0.95
"""Least deflated Sharpe ratio that counts as evidence; without skill it has 1 in 20 chances."""


class ChanceCount(NamedTuple):
    """How many of ``n`` cases came out well, and how many ``expected`` without any skill.

    Expected counts hold for dependent cases too; ``p_value``, the probability of as many or more by
    chance, is that of independent ones.
    """

    found: int
    n: int
    expected: float
    p_value: float


def count_by_chance(is_good: np.ndarray, share: float) -> ChanceCount:
    """Count good cases; by chance, each is good with probability ``share``.

    Examples
    --------
    >>> count_by_chance(np.array([True, True, True]), 0.5)
    ChanceCount(found=3, n=3, expected=1.5, p_value=0.125)
    """
    n, found = len(is_good), int(np.count_nonzero(is_good))
    tail = sum(math.comb(n, k) * share**k * (1.0 - share) ** (n - k) for k in range(found, n + 1))
    return ChanceCount(found, n, share * n, min(1.0, tail))


def count_better_than_median(ranks: FloatArray) -> ChanceCount:
    """Return how many winners were better than the median set out of sample; NaN is left out."""
    known = ranks[~np.isnan(ranks)]
    return count_by_chance(known > 0.5, 0.5)


def count_evidence(deflated: FloatArray) -> ChanceCount:
    """Return how many searches had a deflated Sharpe ratio of 0.95 or more; NaN is left out."""
    known = deflated[~np.isnan(deflated)]
    return count_by_chance(known >= EVIDENCE, 1.0 - EVIDENCE)


class ClearCount(NamedTuple):
    """How many of ``n`` intervals lie above and below zero; chance puts ``expected`` off it."""

    above: int
    below: int
    n: int
    expected: float

    def __str__(self) -> str:
        """Return the counts as the end of a sentence.

        Examples
        --------
        >>> str(ClearCount(1, 0, 24, 1.2))
        'of 24 comparisons 1 is above zero and 0 below; chance alone gives 1.2'
        """
        return (
            f"of {self.n} comparisons {self.above} {'is' if self.above == 1 else 'are'} above zero "
            f"and {self.below} below; chance alone gives {self.expected:.2g}"
        )


def count_clear(low: FloatArray, high: FloatArray, confidence: float) -> ClearCount:
    """Return how many intervals of differences leave zero out; those without an end do not count.

    Examples
    --------
    >>> count_clear(np.array([0.1, -1.0]), np.array([0.2, 1.0]), 0.95)[:3]
    (1, 0, 2)
    """
    known = np.isfinite(low) & np.isfinite(high)
    above, below = int(np.sum(low[known] > 0.0)), int(np.sum(high[known] < 0.0))
    n = int(np.count_nonzero(known))
    return ClearCount(above, below, n, (1.0 - confidence) * n)
