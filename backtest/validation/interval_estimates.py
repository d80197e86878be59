"""Estimates with intervals, and ranks of winners among all sets."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from backtest.base import FloatArray

CONFIDENCE = 0.95


class Estimate(float):
    """A number with an interval: ``low`` to ``high`` has it with 95 % confidence."""

    low: float
    high: float

    def __new__(cls, value: float, low: float, high: float) -> Estimate:
        """Return the number with its interval."""
        found = super().__new__(cls, value)
        found.low, found.high = float(low), float(high)
        return found

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (float(self), self.low, self.high)

    def to_dict(self) -> dict[str, float]:
        """Return value and interval as data for JSON."""
        return {"value": float(self), "low": self.low, "high": self.high}


UNKNOWN = Estimate(math.nan, math.nan, math.nan)


def estimate_share(share: float, n: float) -> Estimate:
    """Return a share of n independent cases with its interval; n need not be whole.

    Source: Wilson (1927), J. American Statistical Association 22(158): the interval has the shares
    p with ``|share - p| <= z sqrt(p (1 - p) / n)``.

    Examples
    --------
    >>> found = estimate_share(0.5, 9)
    >>> round(found.low, 3), round(found.high, 3)
    (0.227, 0.773)
    """
    if math.isnan(share) or n <= 0.0:
        return UNKNOWN
    z = NormalDist().inv_cdf(0.5 + 0.5 * CONFIDENCE)
    weight = 1.0 + z * z / n
    middle = (share + 0.5 * z * z / n) / weight
    half = z / weight * math.sqrt(share * (1.0 - share) / n + 0.25 * z * z / (n * n))
    return Estimate(share, max(0.0, middle - half), min(1.0, middle + half))


def order_scores(scores: FloatArray, ruined: FloatArray) -> FloatArray:
    """Return scores that can be ranked: minus infinity for ruin, failure, or no score."""
    is_known = np.isfinite(scores) & (ruined == 0.0)
    return np.where(is_known, scores, -np.inf)


def find_rank(scores: FloatArray, row: int) -> float:
    """Return the share of the other sets that a set beats, ties half: 1 is best, 0 worst.

    ½ is the median. NaN for a single set.

    Examples
    --------
    >>> scores = np.array([3.0, 1.0, 2.0, 2.0, 0.0])
    >>> [find_rank(scores, row) for row in (0, 2, 4)]
    [1.0, 0.625, 0.0]
    """
    n = len(scores)
    if n < 2:
        return math.nan
    worse = np.count_nonzero(scores < scores[row])
    equal = np.count_nonzero(scores == scores[row]) - 1
    return float((worse + 0.5 * equal) / (n - 1))


def share_overfit(ranks: FloatArray) -> float:
    """Return the share of winners that were no better than the median out of sample."""
    known = ranks[~np.isnan(ranks)]
    return float(np.mean(known <= 0.5)) if len(known) else math.nan


def correlate_ranks(one: FloatArray, other: FloatArray) -> float:
    """Return Spearman's rank correlation of two series, NaN if one is constant or has under 3.

    Examples
    --------
    >>> round(correlate_ranks(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0])), 12)
    1.0
    """
    known = np.isfinite(one) & np.isfinite(other)
    if np.count_nonzero(known) < 3:
        return math.nan
    from scipy.stats import rankdata  # noqa: PLC0415 - loads where it is used

    ranks = np.array([rankdata(one[known]), rankdata(other[known])])
    ranks -= ranks.mean(axis=1, keepdims=True)
    scale = math.sqrt(float(np.sum(ranks[0] ** 2) * np.sum(ranks[1] ** 2)))
    return float(ranks[0] @ ranks[1]) / scale if scale > 0.0 else math.nan


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
