"""Whether the returns of two accounts differ by more than noise."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from backtest.base.units import DAY, YEAR_DAYS, FloatArray
from backtest.compare.pairs import LEAST_SAMPLES
from backtest.measures.influence import Sampled
from backtest.measures.paired_bootstrap import compare_pairs
from backtest.regress.trace import Trace

CONFIDENCE = 0.95
DRAWS = 1_999
SEED = 0
ROUNDING = 1e-9
"""Returns whose differences are this small a share of them, root mean square, are the same."""

MEASURE = "log_growth"
WORSE, BETTER, INDISTINGUISHABLE = "worse", "better", "indistinguishable"
"""The three words of a comparison."""
UNKNOWN = "unknown"
POWER = 0.8
"""How often the least difference that is called detectable would be found."""


class Noise(NamedTuple):
    """What is known of the difference in log growth per year, now less baseline.

    ``verdict`` is worse, better or indistinguishable, or unknown where nothing can be measured;
    ``reason`` says why it is known or not known without a test. ``difference``, ``low`` and
    ``high`` are per year, at ``confidence``; ``block`` is the mean length of the blocks, in
    samples. ``detectable`` is the least difference per year that a comparison of these returns
    finds in about four of five cases; infinite where it can find none.
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
        """Whether the returns are the same but for rounding, which takes no test."""
        return self.verdict == INDISTINGUISHABLE and bool(self.reason)


def compare_returns(
    was: Trace,
    now: Trace,
    confidence: float = CONFIDENCE,
    *,
    was_ruined: bool = False,
    is_ruined: bool = False,
) -> Noise:
    """Return whether an account grew faster or slower than its baseline by more than noise.

    Parameters
    ----------
    was, now : Trace
        Of the same bars.
    confidence : float
        Of the interval and the decision.
    was_ruined, is_ruined : bool
        Whether the account was ruined, with something left or without.

    Notes ----- Paired stationary bootstrap of the differences of the sampled log returns,
    studentised: see :func:`backtest.measures.paired_bootstrap.compare_pairs`. Ruin of one of two is
    decided without a test.
    """
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
    """Return the verdict on n returns that are the same: any other would have been seen."""
    return Noise(INDISTINGUISHABLE, reason, n, 0.0, 0.0, 0.0, 1.0, confidence, detectable=0.0)


def compare_ruin(rows: FloatArray, *, was_ruined: bool, is_ruined: bool) -> str:
    """Return what it means that one of two accounts was ruined; empty where both or none were."""
    is_now, was = (
        is_known or bool((row <= -1.0).any())
        for is_known, row in zip((is_ruined, was_ruined), rows, strict=True)
    )
    if is_now == was:
        return ""
    return WORSE if is_now else BETTER


def is_rounding(rows: FloatArray) -> bool:
    """Tell whether two rows of returns differ by rounding alone."""
    size = math.sqrt(float(np.max(np.mean(rows**2, axis=1))))
    return math.sqrt(float(np.mean((rows[0] - rows[1]) ** 2))) <= ROUNDING * size


def count_years(trace: Trace) -> float:
    """Return the years that a trace covers."""
    return (int(trace.time[-1]) + trace.interval - int(trace.time[0])) / (YEAR_DAYS * DAY)


def bootstrap_growth(rows: FloatArray, per_year: float, confidence: float) -> Noise:
    """Return the verdict of the bootstrap on two rows of returns, now and baseline."""
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
        verdict, "", n, difference, low, high, p_value, confidence, found.block,
        find_detectable((high - low) / 2.0, confidence),
    )  # fmt: skip


def find_detectable(half: float, confidence: float) -> float:
    """Return the least true difference that is found with probability :data:`POWER`.

    Parameters
    ----------
    half : float
        Half the width of the interval of the difference, at least 0.
    confidence : float
        Of that interval.

    Notes
    -----
    h (1 + z_p / z_c), z_p and z_c the normal quantiles of the power and of (1 + confidence) / 2:
    a difference d is found where it is over h, and d scatters by h / z_c around the truth.

    Examples
    --------
    >>> round(find_detectable(1.96, 0.95), 2)
    2.8
    """
    normal = NormalDist()
    return half * (1.0 + normal.inv_cdf(POWER) / normal.inv_cdf((1.0 + confidence) / 2.0))
