"""Intervals for probabilities: of independent paths, and of mirrored pairs."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backtest.base import FloatArray

FEW_HITS = 10
"""Below this many hits the correlation within pairs is taken as 0: it cannot be estimated."""


class RiskEstimate(NamedTuple):
    value: float
    low: float
    high: float


UNKNOWN = RiskEstimate(math.nan, math.nan, math.nan)


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
    return RiskEstimate(hits / n, *exact_interval(hits, n, confidence))


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
    return RiskEstimate(p, *exact_interval(p * n, n, confidence))
