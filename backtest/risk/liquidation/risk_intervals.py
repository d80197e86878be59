"""Intervals for probabilities: of independent paths, of mirrored pairs, of weighted paths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from backtest.base import FloatArray

LEAST_SAMPLE = 100.0
"""The smallest effective sample size for which a weighted interval is given."""
FEW_HITS = 10
"""Below this many hits the correlation within pairs is taken as 0: it cannot be estimated."""


class RiskEstimate(NamedTuple):
    value: float
    low: float
    high: float
    sample: float


UNKNOWN = RiskEstimate(math.nan, math.nan, math.nan, math.nan)


def exact_interval(hits: float, n: float, confidence: float) -> tuple[float, float]:
    """Return the interval of Clopper and Pearson; hits and n may be effective, not whole.

    Source: Clopper and Pearson (1934), Biometrika 26(4).
    """
    from scipy.special import betaincinv  # noqa: PLC0415 - slow to load

    tail = 0.5 * (1.0 - confidence)
    low = 0.0 if hits <= 0.0 else float(betaincinv(hits, n - hits + 1.0, tail))
    high = 1.0 if hits >= n else float(betaincinv(hits + 1.0, n - hits, 1.0 - tail))
    return low, high


def estimate_plain(is_hit: FloatArray, confidence: float) -> RiskEstimate:
    """Return the share of independent paths that were hit; ``is_hit`` has shape (n_paths,)."""
    n, hits = len(is_hit), float(np.sum(is_hit))
    return RiskEstimate(hits / n, *exact_interval(hits, n, confidence), n)


def estimate_pairs(is_hit: FloatArray, confidence: float) -> RiskEstimate:
    """Return the share of paths that were hit, of pairs of mirrored paths side by side.

    The interval is that of Clopper and Pearson for the effective number of independent paths, p (1
    - p) over the variance of the pair means. Source: Korn and Graubard (1998), Confidence Intervals
    for Proportions with Small Expected Number of Positive Counts, Survey Methodology 24(2).
    """
    pairs = is_hit[: len(is_hit) // 2 * 2].reshape(-1, 2)
    if len(pairs) < 2:
        return estimate_plain(is_hit, confidence)
    p = float(np.mean(is_hit))
    variance = float(np.var(pairs.mean(axis=1), ddof=1)) / len(pairs)
    n = float(len(is_hit))
    if min(np.sum(is_hit), n - np.sum(is_hit)) >= FEW_HITS and variance > 0.0:
        n = p * (1.0 - p) / variance
    return RiskEstimate(p, *exact_interval(p * n, n, confidence), n)


def estimate_difference(one: FloatArray, other: FloatArray, confidence: float) -> RiskEstimate:
    differences = np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    mean = float(np.mean(differences))
    reach = find_deviate(confidence) * float(np.std(differences, ddof=1)) / len(differences) ** 0.5
    return RiskEstimate(mean, mean - reach, mean + reach, float(np.sum(differences != 0.0)))


def find_deviate(confidence: float) -> float:
    from statistics import NormalDist  # noqa: PLC0415 - seldom needed

    return NormalDist().inv_cdf(0.5 + 0.5 * confidence)


def estimate_weighted(samples: Sequence[FloatArray], confidence: float) -> RiskEstimate:
    shares = np.concatenate([each / (len(each) * len(samples)) for each in samples])
    mean, square = float(np.sum(shares)), float(np.sum(shares**2))
    if not square > 0.0:
        return RiskEstimate(0.0, *exact_interval(0.0, len(samples[0]), confidence), math.nan)
    variance = sum(float(np.var(each, ddof=1)) / len(each) for each in samples) / len(samples) ** 2
    reach = find_deviate(confidence) * math.sqrt(variance)
    low, high = max(mean - reach, 0.0), min(mean + reach, 1.0)
    return RiskEstimate(mean, low, high, mean * mean / square)


def estimate_repeats(means: FloatArray, confidence: float, paths: float = 0.0) -> RiskEstimate:
    from scipy.special import stdtrit  # noqa: PLC0415 - slow to load

    mean, n = float(np.mean(means)), len(means)
    if mean == 0.0 and paths > 0.0:
        return RiskEstimate(0.0, *exact_interval(0.0, paths, confidence), math.nan)
    error = float(np.std(means, ddof=1)) / math.sqrt(n)
    reach = float(stdtrit(n - 1, 0.5 + 0.5 * confidence)) * error
    sample = mean * (1.0 - mean) / error**2 if error > 0.0 else math.inf
    return RiskEstimate(mean, max(mean - reach, 0.0), min(mean + reach, 1.0), sample)
