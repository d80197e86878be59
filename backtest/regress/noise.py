"""Test whether the growth of two accounts differs by more than noise."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from backtest.base import FloatArray
from backtest.base.units import DAY, YEAR_DAYS
from backtest.compare.pairs import LEAST_SAMPLES
from backtest.measures import Sampled, compare_pairs
from backtest.regress.trace import Trace

CONFIDENCE = 0.95
DRAWS = 1_999
SEED = 0
ROUNDING = 1e-9
"""Returns are the same if their differences are this small relative to them (root mean square)."""

MEASURE = "log_growth"
WORSE, BETTER, INDISTINGUISHABLE = "worse", "better", "indistinguishable"
UNKNOWN = "unknown"
POWER = 0.8
"""The probability of finding a difference that is called detectable."""


class Noise(NamedTuple):
    """The difference in log growth per year, now less baseline, and its test.

    ``verdict`` is worse, better or indistinguishable, or unknown if nothing can be measured;
    ``reason`` explains a verdict without a test. ``low`` and ``high`` bound ``difference`` at
    ``confidence``; ``block`` is the mean block length in samples. ``detectable`` is the least
    difference per year that the test finds in about four of five cases; infinite if there is none.
    """

    verdict: str
    reason: str
    samples: int
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p_value: float = math.nan
    confidence: float = CONFIDENCE
    block: int = 0
    detectable: float = math.nan

    @property
    def is_same(self) -> bool:
        return self.verdict == INDISTINGUISHABLE and bool(self.reason)


def compare_returns(
    was: Trace,
    now: Trace,
    confidence: float = CONFIDENCE,
    *,
    was_ruined: bool = False,
    is_ruined: bool = False,
) -> Noise:
    rows = np.array([now.returns, was.returns])
    n = rows.shape[1]
    if np.array_equal(rows[0], rows[1]):
        return report_identical("every return is the same", n, confidence)
    decided = compare_ruin(rows, was_ruined=was_ruined, is_ruined=is_ruined)
    if decided:
        return Noise(decided, "one of the two accounts is ruined", n, confidence=confidence)
    if (rows <= -1.0).any():
        return Noise(UNKNOWN, "both accounts are ruined", n, confidence=confidence)
    if is_rounding(rows):
        return report_identical("returns differ by rounding alone", n, confidence)
    if n < LEAST_SAMPLES:
        reason = f"{n} returns are too few, {LEAST_SAMPLES} are needed"
        return Noise(UNKNOWN, reason, n, confidence=confidence)
    return bootstrap_growth(rows, n / count_years(was), confidence)


def report_identical(reason: str, n: int, confidence: float) -> Noise:
    return Noise(
        verdict=INDISTINGUISHABLE,
        reason=reason,
        samples=n,
        difference=0.0,
        low=0.0,
        high=0.0,
        p_value=1.0,
        confidence=confidence,
        detectable=0.0,
    )


def compare_ruin(rows: FloatArray, *, was_ruined: bool, is_ruined: bool) -> str:
    is_now, was = (
        is_known or bool((row <= -1.0).any())
        for is_known, row in zip((is_ruined, was_ruined), rows, strict=True)
    )
    if is_now == was:
        return ""
    return WORSE if is_now else BETTER


def is_rounding(rows: FloatArray) -> bool:
    size = math.sqrt(float(np.max(np.mean(rows**2, axis=1))))
    return math.sqrt(float(np.mean((rows[0] - rows[1]) ** 2))) <= ROUNDING * size


def count_years(trace: Trace) -> float:
    return (int(trace.time[-1]) + trace.interval - int(trace.time[0])) / (YEAR_DAYS * DAY)


def bootstrap_growth(rows: FloatArray, per_year: float, confidence: float) -> Noise:
    n = rows.shape[1]
    found = compare_pairs(
        Sampled(rows, np.zeros(n), per_year, per_year),
        np.array([[0, 1]]),
        MEASURE,
        confidence=confidence,
        draws=DRAWS,
        rng=np.random.default_rng(SEED),
    )
    difference, low, high = (float(x[0]) for x in (found.difference, found.low, found.high))
    p_value = float(found.p_value[0])
    if math.isnan(p_value):
        return Noise(UNKNOWN, "log growth does not exist", n, confidence=confidence)
    verdict = INDISTINGUISHABLE
    if p_value <= 1.0 - confidence + 1e-12:
        verdict = BETTER if difference > 0.0 else WORSE
    return Noise(
        verdict=verdict,
        reason="",
        samples=n,
        difference=difference,
        low=low,
        high=high,
        p_value=p_value,
        confidence=confidence,
        block=found.block,
        detectable=find_detectable((high - low) / 2.0, confidence),
    )


def find_detectable(half: float, confidence: float) -> float:
    normal = NormalDist()
    return half * (1.0 + normal.inv_cdf(POWER) / normal.inv_cdf((1.0 + confidence) / 2.0))
