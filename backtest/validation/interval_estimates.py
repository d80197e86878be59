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
    low: float
    high: float

    def __new__(cls, value: float, low: float, high: float) -> Estimate:
        found = super().__new__(cls, value)
        found.low, found.high = float(low), float(high)
        return found

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (float(self), self.low, self.high)

    def to_dict(self) -> dict[str, float]:
        return {"value": float(self), "low": self.low, "high": self.high}


UNKNOWN = Estimate(math.nan, math.nan, math.nan)


def estimate_share(share: float, n: float) -> Estimate:
    """Return a share of n independent cases with its interval; n need not be whole.

    Source: Wilson (1927), J. American Statistical Association 22(158): the interval has the shares
    p with ``|share - p| <= z sqrt(p (1 - p) / n)``.
    """
    if math.isnan(share) or n <= 0.0:
        return UNKNOWN
    z = NormalDist().inv_cdf(0.5 + 0.5 * CONFIDENCE)
    weight = 1.0 + z * z / n
    middle = (share + 0.5 * z * z / n) / weight
    half = z / weight * math.sqrt(share * (1.0 - share) / n + 0.25 * z * z / (n * n))
    return Estimate(share, max(0.0, middle - half), min(1.0, middle + half))


def order_scores(scores: FloatArray, ruined: FloatArray) -> FloatArray:
    is_known = np.isfinite(scores) & (ruined == 0.0)
    return np.where(is_known, scores, -np.inf)


def find_rank(scores: FloatArray, row: int) -> float:
    n = len(scores)
    if n < 2:
        return math.nan
    worse = np.count_nonzero(scores < scores[row])
    equal = np.count_nonzero(scores == scores[row]) - 1
    return float((worse + 0.5 * equal) / (n - 1))


def share_overfit(ranks: FloatArray) -> float:
    known = ranks[~np.isnan(ranks)]
    return float(np.mean(known <= 0.5)) if len(known) else math.nan


def correlate_ranks(one: FloatArray, other: FloatArray) -> float:
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
    found: int
    n: int
    expected: float
    p_value: float


def count_by_chance(is_good: np.ndarray, share: float) -> ChanceCount:
    n, found = len(is_good), int(np.count_nonzero(is_good))
    tail = sum(math.comb(n, k) * share**k * (1.0 - share) ** (n - k) for k in range(found, n + 1))
    return ChanceCount(found, n, share * n, min(1.0, tail))


def count_better_than_median(ranks: FloatArray) -> ChanceCount:
    known = ranks[~np.isnan(ranks)]
    return count_by_chance(known > 0.5, 0.5)


def count_evidence(deflated: FloatArray) -> ChanceCount:
    known = deflated[~np.isnan(deflated)]
    return count_by_chance(known >= EVIDENCE, 1.0 - EVIDENCE)
