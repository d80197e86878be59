"""Tolerance bands of measures, the direction of a move, and whether it is more than noise."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Iterable, Mapping
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from backtest.base import FloatArray, ParameterError, did_you_mean
from backtest.base.units import DAY, TOLERANCE, YEAR_DAYS
from backtest.compare.comparison import LEAST_SAMPLES
from backtest.measures import Sampled, compare_pairs
from backtest.measures.measure_table import ABOUT
from backtest.regress.trace import Trace

FIGURES = {
    "walk_growth": ("growth_out_of_sample", 1),
    "walk_growth_in_sample": ("growth_in_sample", 0),
    "walk_growth_fixed": ("growth_fixed", 0),
    "walk_efficiency": ("efficiency", 1),
    "walk_efficiency_difference": ("efficiency_difference", 1),
    "walk_mean_rank": ("mean_rank", 1),
    "walk_deflated_sharpe": ("deflated_sharpe", 1),
}
OVERFIT = "walk_pbo"
BETTER_IF = {**{name: sign for name, (_, sign) in FIGURES.items()}, OVERFIT: -1}
FLOOR = 1e-12
"""Differences up to this count as rounding: a relative band of a measure of 0 has no width."""
BETTER, WORSE, NEITHER = "better", "worse", "neither better nor worse"
NEVER_IS_BEST = ("ruin_time", "time_to_first_liquidation")

_PERCENT = re.compile(r"(.+?)\s*%")


class Band(NamedTuple):
    relative: float | None = None
    absolute: float | None = None

    @property
    def is_open(self) -> bool:
        return self.relative is None and self.absolute is None

    def holds(self, was: float, now: float) -> bool:
        if self.is_open or was == now or (math.isnan(was) and math.isnan(now)):
            return True
        if not (math.isfinite(was) and math.isfinite(now)):
            return False
        width = self.absolute if self.relative is None else self.relative * abs(was)
        ends = TOLERANCE * max(abs(was), abs(now))
        return abs(now - was) <= max(width or 0.0, FLOOR) + ends

    def __str__(self) -> str:
        if self.is_open:
            return "any"
        if self.relative is None:
            return f"{self.absolute:g}"
        return (
            f"{self.relative * 100.0:g} %" if self.relative >= 1e-4 else f"{self.relative:g} rel."
        )

    def to_data(self) -> Any:
        if self.is_open:
            return "any"
        return {name: value for name, value in self._asdict().items() if value is not None}


TIGHT = Band(relative=1e-9)


def read_band(given: object, name: str) -> Band:
    if isinstance(given, Band):
        return given
    if isinstance(given, Mapping) and len(given) == 1 and {*given} <= {*Band._fields}:
        ((kind, value),) = given.items()
        return Band(**{kind: _read_width(value, given, name)})
    if isinstance(given, str) and given.strip() == "any":
        return Band()
    if isinstance(given, str) and (match := _PERCENT.fullmatch(given.strip())):
        return Band(relative=_read_width(match[1], given, name) / 100.0)
    return Band(absolute=_read_width(given, given, name))


def _read_width(value: object, given: object, name: str) -> float:
    is_text = isinstance(value, str)
    try:
        width = float(value) if is_text or type(value) in (int, float) else math.nan  # type: ignore[arg-type] # one of these
    except ValueError:
        width = math.nan
    if not 0.0 <= width < math.inf:
        raise ParameterError(
            f"{name} must be a number from 0, a percentage (5%) or 'any', which is reported and "
            f"never fails, got {given!r:.60}"
        )
    return width


def choose_bands(
    metrics: Iterable[str], wanted: Mapping[str, object], under: Mapping[str, Band]
) -> dict[str, Band]:
    names = list(metrics)
    bands = {name: under.get(name, TIGHT) for name in names}
    for pattern, given in wanted.items():
        band = read_band(given, f"tolerance.{pattern}")
        for name in match_names(pattern, names, "tolerance"):
            bands[name] = band
    return bands


def match_names(pattern: str, names: Iterable[str], argument: str) -> list[str]:
    known = list(names)
    found = fnmatch.filter(known, pattern)
    if not found:
        raise ParameterError(
            f"{argument} must name measures (docs/metrics.md) or a pattern such as es_*, got "
            f"{pattern!r}{did_you_mean(pattern, known)}"
        )
    return found


def find_direction(name: str, was: float, now: float) -> str:
    better = BETTER_IF.get(name, 0) if name not in ABOUT else ABOUT[name].better
    if name in NEVER_IS_BEST:
        was, now = (math.inf if math.isnan(value) else value for value in (was, now))
    if better == 0 or was == now or math.isnan(was) or math.isnan(now):
        return NEITHER
    return BETTER if (now > was) == (better > 0) else WORSE


# ------------------------------------------------------------------------------------- noise

CONFIDENCE = 0.95
DRAWS = 1_999
SEED = 0
ROUNDING = 1e-9
"""Returns are the same if their differences are this small relative to them (root mean square)."""

MEASURE = "log_growth"
NOISY = {
    MEASURE: ("total_return", "cagr", "final_equity"),
    "sharpe": ("sharpe",),
}
"""Statistics of the returns whose differences have a test, and the measures that follow them."""
INDISTINGUISHABLE = "indistinguishable"
UNKNOWN = "unknown"
POWER = 0.8
"""The probability of finding a difference that is called detectable."""


class Noise(NamedTuple):
    """The difference in log growth per year, now less baseline, and its test.

    ``verdict`` is worse, better or indistinguishable, or unknown if nothing can be measured;
    ``reason`` explains a verdict without a test. ``low`` and ``high`` bound ``difference`` at
    ``confidence``; ``block`` is the mean block length in samples. ``detectable`` is the least
    difference per year that the test finds in about four of five cases; infinite if there is none.
    ``within`` are the measures of the returns whose intervals contain no difference.
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
    within: tuple[str, ...] = ()

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
    within = tuple(each for names in NOISY.values() for each in names)
    return Noise(INDISTINGUISHABLE, reason, n, 0.0, 0.0, 0.0, 1.0, confidence, 0, 0.0, within)


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
    sampled = Sampled(rows, np.zeros(n), per_year, per_year)
    drawn = {name: draw_difference(sampled, name, confidence) for name in NOISY}
    found = drawn[MEASURE]
    difference, low, high = (float(x[0]) for x in (found.difference, found.low, found.high))
    p_value = float(found.p_value[0])
    if math.isnan(p_value):
        return Noise(UNKNOWN, "log growth does not exist", n, confidence=confidence)
    is_noise = {name: each.p_value[0] > 1.0 - confidence + 1e-12 for name, each in drawn.items()}
    verdict = INDISTINGUISHABLE
    if not is_noise[MEASURE]:
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
        within=tuple(each for name, names in NOISY.items() if is_noise[name] for each in names),
    )


def draw_difference(sampled: Sampled, measure: str, confidence: float) -> Any:
    rng = np.random.default_rng(SEED)
    pair = np.array([[0, 1]])
    return compare_pairs(sampled, pair, measure, confidence=confidence, draws=DRAWS, rng=rng)


def find_detectable(half: float, confidence: float) -> float:
    normal = NormalDist()
    return half * (1.0 + normal.inv_cdf(POWER) / normal.inv_cdf((1.0 + confidence) / 2.0))
