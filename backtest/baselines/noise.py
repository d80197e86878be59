"""Whether the returns of two runs differ by more than chance."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from backtest.baselines.bands import BETTER, WORSE
from backtest.baselines.trace import Trace
from backtest.core import units
from backtest.results import Sampled, compare_pairs
from backtest.search import LEAST_SAMPLES

CONFIDENCE, DRAWS, SEED = 0.95, 1_999, 0
ROUNDING = 1e-9
"""Returns are the same if their differences are this small relative to them (root mean square)."""

NOISY = {"log_growth": ("total_return", "cagr", "final_equity"), "sharpe": ("sharpe",)}
"""Statistics of the returns whose differences have a test, and the measures that follow them."""
INDISTINGUISHABLE, UNKNOWN = "indistinguishable", "unknown"


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
            f"{self.verdict}: log growth {self.difference:+.3g} per year, {CONFIDENCE:.0%} "
            f"interval {self.low:+.3g} to {self.high:+.3g}, p = {self.p_value:.3g}, "
            f"{self.samples} returns"
        )


def compare_returns(
    was: Trace, now: Trace, *, was_ruined: bool = False, is_ruined: bool = False
) -> Noise:
    rows = np.array([now.returns, was.returns])
    n = rows.shape[1]
    size = math.sqrt(float(np.max(np.mean(rows**2, axis=1))))
    if math.sqrt(float(np.mean((rows[0] - rows[1]) ** 2))) <= ROUNDING * size:
        return Noise(INDISTINGUISHABLE, "every return is the same", n, 0.0, 0.0, 0.0, 1.0)
    ends = [flag or bool((row <= -1.0).any()) for flag, row in zip((is_ruined, was_ruined), rows)]  # noqa: B905
    if ends[0] != ends[1]:
        return Noise(WORSE if ends[0] else BETTER, "one of the two accounts is ruined", n)
    if (rows <= -1.0).any():
        return Noise(UNKNOWN, "both accounts are ruined", n)
    if n < LEAST_SAMPLES:
        return Noise(UNKNOWN, f"{n} returns are too few, {LEAST_SAMPLES} are needed", n)
    years = (int(was.time[-1]) + was.interval - int(was.time[0])) / (units.YEAR_DAYS * units.DAY)
    sampled = Sampled(rows, np.zeros(n), n / years, n / years)
    how: Any = {"confidence": CONFIDENCE, "draws": DRAWS}
    drawn = {
        name: compare_pairs(
            sampled, np.array([[0, 1]]), name, **how, rng=np.random.default_rng(SEED)
        )
        for name in NOISY
    }
    found = drawn["log_growth"]
    difference, low, high, p_value = (
        float(x[0]) for x in (found.difference, found.low, found.high, found.p_value)
    )
    if math.isnan(p_value):
        return Noise(UNKNOWN, "log growth does not exist", n)
    is_noise = {name: each.p_value[0] > 1.0 - CONFIDENCE + 1e-12 for name, each in drawn.items()}
    moved = BETTER if difference > 0.0 else WORSE
    verdict = INDISTINGUISHABLE if is_noise["log_growth"] else moved
    within = tuple(each for name, names in NOISY.items() if is_noise[name] for each in names)
    return Noise(verdict, "", n, difference, low, high, p_value, within)
