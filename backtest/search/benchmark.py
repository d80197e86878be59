"""The best trial beside buy and hold and a constant leverage at equal risk, and if it beats it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core
from backtest.engine import BUY_AND_HOLD, CONSTANT, hold_at_equal_risk, measure_market
from backtest.engine.equal_risk import NEAR
from backtest.results import Sampled, compare_pairs, simulate_luck
from backtest.sweep import Evaluator
from backtest.sweep.set_evaluator import pool_measure

OWN = "best trial"
SIGNIFICANT = 0.05
"""The largest adjusted p-value that is evidence."""
LEAST_RETURNS, FEW_FILLS = 30, 10
"""The least returns for a test; fewer fills than this in the holdout say little."""
ALIKE = 1e-4
"""The root mean square of differences of returns, over that of returns, up to which they are
alike."""
FIRST_DRAWS, MOST_DRAWS, DRAWS_PER_TRIAL = 999, 50_000, 100
"""Resampled histories at first; and where evidence is left possible, so many for each trial."""


class BenchmarkedPart(NamedTuple):
    """The best trial and its benchmark lines on some of the bars, over ``years``.

    ``returns`` (2, n) are those of the trial and of a constant leverage at equal risk by sampling
    period, of separate accounts their mean. ``untested`` says why they cannot be compared, if so.
    ``lines`` has the measures of the trial and of its benchmarks.
    """

    lines: dict[str, dict[str, float]]
    returns: core.FloatArray
    years: float
    fills: int
    untested: str


class GrowthTest(NamedTuple):
    """Log growth of the best trial less that of constant leverage at equal risk, per year.

    Over all bars, and on the holdout alone; ``p_adjusted`` allows for the independent trials.
    """

    difference: float = math.nan
    holdout_difference: float = math.nan
    p_value: float = math.nan
    p_adjusted: float = math.nan
    trials: float = math.nan
    holdout_fills: int = 0
    untested: str = f"under {LEAST_RETURNS} returns"

    @property
    def is_evidence(self) -> bool:
        """Return whether the trial grew more, by more than noise, and did so on the holdout too."""
        is_more = self.difference > 0.0 and not self.holdout_difference <= 0.0
        return is_more and self.p_adjusted <= SIGNIFICANT


def run_beside(
    evaluator: Evaluator, values: Mapping[str, Any], pool: Any, first: int, stop: int
) -> BenchmarkedPart:
    """Run a set and its benchmark lines on some bars, with fresh capital."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they were given before the search
        found: Any = evaluator.replay(values, first=first, stop=stop)
    results = [*found.values()] if isinstance(found, Mapping) else [found]
    held = [hold_at_equal_risk(each) for each in results]
    constants = [each for each in held if each is not None]
    rows = {OWN: [each.metrics for each in results], BUY_AND_HOLD: [*map(measure_market, results)]}
    series, untested = [[each.returns for each in results]], "it held nothing, or trades options"
    if len(constants) == len(results):
        rows[CONSTANT] = [each.result.metrics for each in constants]
        series.append([each.rest * each.result.returns for each in constants])
        untested = ""
    returns = np.array([pd.concat(each, axis=1, join="inner").mean(axis=1) for each in series])
    if any(each["ruined"] for name in (OWN, CONSTANT) for each in rows.get(name, [])):
        untested = "one of them was ruined"
    elif any(not each.distance <= NEAR for each in constants):
        untested = "constant leverage cannot reach its volatility"
    elif not untested and np.std(returns[0] - returns[1]) <= ALIKE * np.std(returns[0]):
        untested = "it is constant leverage"
    span, fills = results[0].span.years / len(results[0].returns), [each.events for each in results]
    return BenchmarkedPart(
        lines={name: pool_rows(each, pool) for name, each in rows.items()},
        returns=returns,
        years=returns.shape[1] * span,
        fills=sum(int((each["kind"] == "fill").sum()) for each in fills),
        untested=untested,
    )


def pool_rows(rows: Sequence[Mapping[str, float]], pool: Any) -> dict[str, float]:
    if len(rows) == 1:
        return dict(rows[0])
    values = {name: np.array([[row[name]] for row in rows]) for name in rows[0]}
    return {name: float(pool_measure(name, each, pool)[0]) for name, each in values.items()}


def count_trials(
    returns: core.FloatArray | None, parts: Sequence[BenchmarkedPart], n_trials: int
) -> float:
    """Return how many independent trials some are worth in their differences from a constant one.

    ``returns`` (n, k) are those of k of the trials in the search; constant leverage is scaled to
    the volatility of each.
    """
    if returns is None or returns.shape[1] < 2 or not parts or parts[0].untested:
        return float(n_trials)
    constant = parts[0].returns[1]
    if len(constant) != len(returns) or not np.isfinite(returns).all():
        return float(n_trials)
    scale = np.std(returns, axis=0) / np.std(constant)
    return simulate_luck(returns - constant[:, None] * scale, n_trials=n_trials).n


def check_growth(parts: Sequence[BenchmarkedPart], trials: float, seed: int) -> GrowthTest:
    """Test whether the best of some independent trials grows more than constant leverage.

    ``parts`` are the search, and the holdout if there is one. The paired stationary bootstrap of
    :func:`backtest.measures.compare_pairs`; p is adjusted as by Sidak (1967), J. American
    Statistical Association 62(318), for the trials among which the best was chosen.
    """
    found = GrowthTest(holdout_fills=parts[1].fills if len(parts) > 1 else 0)
    if untested := next((each.untested for each in parts if each.untested), ""):
        return found._replace(untested=untested)
    if sum(each.returns.shape[1] for each in parts) < LEAST_RETURNS:
        return found
    gaps = [float(np.sum(np.log1p(one) - np.log1p(other))) for one, other in
            (each.returns for each in parts)]  # fmt: skip
    years, returns = sum(each.years for each in parts), np.hstack([each.returns for each in parts])
    p = draw_p_value(returns, FIRST_DRAWS, seed)
    if adjust_p_value(p, trials) < 0.5:
        p = draw_p_value(returns, min(MOST_DRAWS, int(DRAWS_PER_TRIAL * trials) + 999), seed)
    return found._replace(
        difference=sum(gaps) / years,
        holdout_difference=gaps[1] / parts[1].years if len(parts) > 1 else math.nan,
        p_value=p,
        p_adjusted=adjust_p_value(p, trials),
        trials=trials,
        untested="",
    )


def draw_p_value(returns: core.FloatArray, draws: int, seed: int) -> float:
    sampled = Sampled(returns, np.zeros(returns.shape[1]), per_year=1.0, periods=1.0)
    terms = {"confidence": 0.95, "draws": draws, "rng": np.random.default_rng([seed, 3])}
    return float(compare_pairs(sampled, np.array([[0, 1]]), "log_growth", **terms).p_value[0])  # type: ignore[arg-type] # by name


def adjust_p_value(p: float, trials: float) -> float:
    """Return the probability of a p-value as small in the best of some independent trials."""
    return -math.expm1(trials * math.log1p(-p)) if p < 1.0 else 1.0
