"""Joint tests of all policies: is any better than the baseline, and which may be the best."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest.base import Choice, FloatArray, ParameterError
from backtest.compare.pairs import LEAST_SAMPLES
from backtest.compare.shared_terms import check_baseline
from backtest.measures import Sampled, find_confidence_set, find_superiority
from backtest.measures.differences import STATISTICS

if TYPE_CHECKING:
    from backtest.compare.comparison_record import ComparisonRecord

GAINS = Choice("log_growth", "sharpe")


class SuperiorityTest(NamedTuple):
    measure: str
    baseline: str
    p_value: float
    p_lower: float
    p_upper: float
    best: str | None
    is_beaten: bool
    block: int
    ruined: tuple[str, ...]


class ConfidenceSet(NamedTuple):
    measure: str
    confidence: float
    members: tuple[str, ...]
    p_values: dict[str, float]
    block: int
    ruined: tuple[str, ...]


def run_superiority_test(
    comparison: ComparisonRecord, measure: str, baseline: str | None
) -> SuperiorityTest:
    base = comparison.baseline
    base = base if baseline is None else check_baseline(baseline, comparison.names)
    gains = read_gains(comparison, measure)
    ruined = comparison.ruined
    if base in ruined:
        best = max(gains, key=lambda name: float(np.mean(gains[name])), default=None)
        p_values = (math.nan, math.nan, math.nan)
        return SuperiorityTest(measure, base, *p_values, best, best is not None, 0, ruined)
    if base not in gains:
        raise ParameterError(
            f"baseline must have a {measure}, {base!r} has none, as its returns do not vary; it "
            "has a log_growth"
        )
    others = [name for name in gains if name != base]
    if not others:
        return SuperiorityTest(measure, base, 1.0, 1.0, 1.0, None, False, 0, ruined)
    rows = np.array([gains[name] for name in others])
    found = find_superiority(rows, gains[base], draws=comparison.draws, seed=comparison.seed)
    p_values = (found.p_value, found.p_lower, found.p_upper)
    best = others[found.best] if found.best >= 0 else None
    is_beaten = found.p_value <= 1.0 - comparison.confidence
    return SuperiorityTest(measure, base, *p_values, best, is_beaten, found.block, ruined)


def build_confidence_set(comparison: ComparisonRecord, measure: str) -> ConfidenceSet:
    gains = read_gains(comparison, measure)
    p_values, block = dict.fromkeys(gains, 1.0), 0
    if len(gains) > 1:
        rows = np.array(list(gains.values()))
        found, block = find_confidence_set(rows, draws=comparison.draws, seed=comparison.seed)
        p_values = dict(zip(gains, found.tolist(), strict=True))
    known = {name: p_values.get(name, 0.0) for name in comparison.names}
    level = 1.0 - comparison.confidence
    members = tuple(name for name in comparison.order if known[name] > level)
    return ConfidenceSet(measure, comparison.confidence, members, known, block, comparison.ruined)


def read_gains(comparison: ComparisonRecord, measure: str) -> dict[str, FloatArray]:
    GAINS.check("measure", measure)
    names = [name for name in comparison.names if name not in comparison.ruined]
    sampled = comparison.sample(names)
    n = sampled.returns.shape[1]
    if n < LEAST_SAMPLES:
        raise ParameterError(
            f"a test needs {LEAST_SAMPLES} returns or more, got {n}; a shorter sampling has more"
        )
    return estimate_gains(sampled, names, measure) if names else {}


def estimate_gains(sampled: Sampled, names: list[str], measure: str) -> dict[str, FloatArray]:
    statistic = STATISTICS[measure]
    found = statistic.estimate(statistic.read(sampled))
    gains = statistic.scale(sampled) * (found.value[:, None] + found.influence)
    known = ~np.isnan(found.value)
    return {name: row for name, row, is_known in zip(names, gains, known, strict=True) if is_known}
