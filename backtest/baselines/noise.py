"""Whether the returns of two runs differ by more than chance."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backtest.baselines.bands import BETTER, WORSE
from backtest.baselines.trace import Trace
from backtest.core import FloatArray, units
from backtest.results import Sampled, compare_pairs
from backtest.search import LEAST_SAMPLES

CONFIDENCE = 0.95
DRAWS = 1_999
SEED = 0
ROUNDING = 1e-9
"""Returns are the same if their differences are this small relative to them (root mean square)."""

NOISY = {"log_growth": ("total_return", "cagr", "final_equity"), "sharpe": ("sharpe",)}
"""Statistics of the returns whose differences have a test, and the measures that follow them."""
INDISTINGUISHABLE = "indistinguishable"
UNKNOWN = "unknown"


class Noise(NamedTuple):
    """The difference in log growth per year, now less baseline, and its test.

    ``verdict`` is worse, better or indistinguishable, or unknown if nothing can be measured;
    ``reason`` explains a verdict without a test. ``low`` and ``high`` bound ``difference``.
    ``within`` are the measures of the returns whose intervals contain no difference.
    """

    verdict: str
    reason: str
    samples: int
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p_value: float = math.nan
    within: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.reason:
            return f"{self.verdict}: {self.reason}"
        return (
            f"{self.verdict}: log growth {self.difference:+.3g} per year, {100.0 * CONFIDENCE:g} % "
            f"interval {self.low:+.3g} to {self.high:+.3g}, p = {self.p_value:.3g}, "
            f"{self.samples} returns"
        )


def compare_returns(
    was: Trace,
    now: Trace,
    *,
    was_ruined: bool = False,
    is_ruined: bool = False,
) -> Noise:
    """Return the difference in log growth of two traces of the same bars, and its test."""
    rows = np.array([now.returns, was.returns])
    n_returns = rows.shape[1]
    size = math.sqrt(float(np.max(np.mean(rows**2, axis=1))))
    if math.sqrt(float(np.mean((rows[0] - rows[1]) ** 2))) <= ROUNDING * size:
        return Noise(
            verdict=INDISTINGUISHABLE,
            reason="every return is the same",
            samples=n_returns,
            difference=0.0,
            low=0.0,
            high=0.0,
            p_value=1.0,
        )

    # A return of -1 leaves nothing to grow, so growth cannot be compared.
    has_lost = np.any(rows <= -1.0, axis=1)
    is_over = is_ruined or bool(has_lost[0])
    was_over = was_ruined or bool(has_lost[1])
    if is_over != was_over:
        verdict = WORSE if is_over else BETTER
        return Noise(verdict, "one of the two accounts is ruined", n_returns)
    if has_lost.any():
        return Noise(UNKNOWN, "both accounts are ruined", n_returns)
    if n_returns < LEAST_SAMPLES:
        reason = f"{n_returns} returns are too few, {LEAST_SAMPLES} are needed"
        return Noise(UNKNOWN, reason, n_returns)
    return measure_noise(rows, years=measure_years(was))


def measure_years(trace: Trace) -> float:
    length = int(trace.time[-1]) + trace.interval - int(trace.time[0])
    return length / (units.YEAR_DAYS * units.DAY)


def measure_noise(rows: FloatArray, *, years: float) -> Noise:
    """Return the noise of returns now and before, rows of shape (2, n_returns)."""
    n_returns = rows.shape[1]
    per_year = n_returns / years
    sampled = Sampled(rows, np.zeros(n_returns), per_year, per_year)
    tests = {}
    for statistic in NOISY:
        tests[statistic] = compare_pairs(
            sampled,
            np.array([[0, 1]]),
            statistic,
            confidence=CONFIDENCE,
            draws=DRAWS,
            rng=np.random.default_rng(SEED),  # the same draws for each statistic
        )

    growth = tests["log_growth"]
    difference = float(growth.difference[0])
    p_value = float(growth.p_value[0])
    if math.isnan(p_value):
        return Noise(UNKNOWN, "log growth does not exist", n_returns)

    # The statistics whose interval contains no difference, and the measures of these.
    level = 1.0 - CONFIDENCE + 1e-12
    in_noise = [name for name, test in tests.items() if test.p_value[0] > level]
    within: list[str] = []
    for statistic in in_noise:
        within += NOISY[statistic]

    verdict = BETTER if difference > 0.0 else WORSE
    if "log_growth" in in_noise:
        verdict = INDISTINGUISHABLE
    return Noise(
        verdict=verdict,
        reason="",
        samples=n_returns,
        difference=difference,
        low=float(growth.low[0]),
        high=float(growth.high[0]),
        p_value=p_value,
        within=tuple(within),
    )
