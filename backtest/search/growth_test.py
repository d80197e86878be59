"""Whether the best trial grows more than constant leverage at equal risk, by more than noise."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core, results
from backtest.results.result import Lack
from backtest.search import equal_risk
from backtest.search.compare import ALIKE
from backtest.search.signal_shifts import SIGNIFICANT
from backtest.sweep.set_evaluator import Evaluator, pool_measure

OWN = "best trial"
LEAST_RETURNS = 30
"""The least returns for a test."""
FIRST_DRAWS = 999
"""Resampled histories at first."""
DRAWS_PER_TRIAL = 100
MOST_DRAWS = 50_000
"""Where evidence is left possible, so many histories for each trial, and at most so many."""


class BenchmarkedPart(NamedTuple):
    """The best trial and its benchmark lines on some of the bars, over ``years``.

    ``returns`` (2, n) are those of the trial and of a constant leverage at equal risk by sampling
    period, of separate accounts their mean. ``untested`` says why they cannot be compared, if so,
    ``lack`` why there is no constant leverage. ``takes_sides`` says whether the policy itself was
    in and out of the market by the columns that it observes.
    """

    lines: dict[str, dict[str, float]]
    returns: core.FloatArray
    years: float
    fills: int
    untested: str
    lack: str = ""
    takes_sides: bool = False


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


def takes_sides(run: results.Result) -> bool:
    """Return whether a policy that observes columns decided to be in the market, and out of it."""
    setup: Any = run.setup
    if not any(observed.columns for observed in setup.observed[: len(run.names)]):
        return False
    decided = run.of_positions("target")
    return bool((decided == 0.0).any() and (decided > 0.0).any())


def run_beside(
    evaluator: Evaluator,
    values: Mapping[str, Any],
    pool: Any,
    first: int,
    stop: int,
    *,
    is_unsignalled: bool,
) -> BenchmarkedPart:
    """Run the best trial, and on the same bars buy and hold and constant leverage at equal risk.

    ``pool`` says how the measures of separate accounts become one. ``is_unsignalled`` says that
    constant leverage holds the market, whatever the signal is.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they were given before the search
        replayed: Any = evaluator.replay(values, first=first, stop=stop)
    runs = [*replayed.values()] if isinstance(replayed, Mapping) else [replayed]
    scaled = [equal_risk.hold_at_equal_risk(run, is_unsignalled=is_unsignalled) for run in runs]

    # Each account has a line of measures, and returns by sampling period.
    lines = {
        OWN: [run.metrics for run in runs],
        equal_risk.BUY_AND_HOLD: [equal_risk.measure_market(run) for run in runs],
    }
    of_trial = average_returns([run.returns for run in runs])
    returns = [of_trial]

    lack = find_lack(scaled)
    untested = lack
    if not lack:
        constants = [account for account in scaled if isinstance(account, equal_risk.ScaledAccount)]
        lines[equal_risk.CONSTANT] = [constant.result.metrics for constant in constants]
        # The volatility by which they still differ is scaled away in the returns.
        of_constant = average_returns(
            [constant.rest * constant.result.returns for constant in constants]
        )
        returns.append(of_constant)
        if np.std(of_trial - of_constant) <= ALIKE * np.std(of_trial):
            untested = "it is constant leverage"

    years_of_period = runs[0].span.years / len(runs[0].returns)
    return BenchmarkedPart(
        lines=pool_lines(lines, pool),
        returns=np.array(returns),
        years=len(of_trial) * years_of_period,
        fills=sum(count_fills(run) for run in runs),
        untested=untested,
        lack=lack,
        takes_sides=any(map(takes_sides, runs)),
    )


def count_fills(run: results.Result) -> int:
    return int((run.events["kind"] == "fill").sum())


def average_returns(returns: Sequence[pd.Series]) -> core.FloatArray:
    """Return the mean returns of some accounts, in the periods that all of them have."""
    return np.asarray(pd.concat(returns, axis=1, join="inner").mean(axis=1))


def pool_lines(
    lines: Mapping[str, Sequence[Mapping[str, float]]],
    pool: Any,
) -> dict[str, dict[str, float]]:
    """Return the measures of each line, of separate accounts as they are pooled."""
    pooled = {}
    for name, accounts in lines.items():
        pooled[name] = dict(accounts[0])
        if len(accounts) == 1:
            continue

        for measure in accounts[0]:
            column = np.array([[metrics[measure]] for metrics in accounts])
            pooled[name][measure] = float(pool_measure(measure, column, pool)[0])
    return pooled


def find_lack(held: Sequence[equal_risk.ScaledAccount | Lack]) -> str:
    """Return why some accounts have no constant leverage at equal risk; empty if all have one."""
    for account in held:
        why = account.why if isinstance(account, Lack) else equal_risk.explain_distance(account)
        if why:
            return why
    return ""


def count_trials(
    returns: core.FloatArray,
    parts: Sequence[BenchmarkedPart],
    n_trials: int,
) -> float:
    """Return how many independent trials some are worth in their differences from a constant one.

    ``returns`` (n, k) are those of trials in the search.
    """
    if returns.shape[1] > 1 and parts and np.isfinite(returns).all():
        compared = subtract_constant(returns, parts)
        if compared is not None:
            return results.simulate_luck(compared, n_trials=n_trials).n
    return float(n_trials)


def check_growth(parts: Sequence[BenchmarkedPart], trials: float, seed: int) -> GrowthTest:
    """Test whether the best of some independent trials grows more than constant leverage.

    ``parts`` are the search, and the holdout if there is one. p is adjusted for the trials as by
    Sidak (1967), J. American Statistical Association 62(318). A test that was not made says why.
    """
    has_holdout = len(parts) > 1
    not_made = GrowthTest(holdout_fills=parts[1].fills if has_holdout else 0)
    for part in parts:
        if part.untested:
            return not_made._replace(untested=part.untested)
    # What it says by default is that there are too few returns.
    if sum(part.returns.shape[1] for part in parts) < LEAST_RETURNS:
        return not_made

    gaps = []
    for part in parts:
        trial, constant = part.returns
        gaps.append(float(np.sum(np.log1p(trial) - np.log1p(constant))))
    returns = np.hstack([part.returns for part in parts])
    p_value, p_adjusted = measure_p_value(returns, trials, seed)
    return not_made._replace(
        difference=sum(gaps) / sum(part.years for part in parts),
        holdout_difference=gaps[1] / parts[1].years if has_holdout else math.nan,
        p_value=p_value,
        p_adjusted=p_adjusted,
        trials=trials,
        untested="",
    )


def measure_p_value(
    returns: core.FloatArray,
    trials: float,
    seed: int,
) -> tuple[float, float]:
    """Return p of no difference in growth between two accounts, and p adjusted for the trials.

    ``returns`` (2, n) are those of the two, by sampling period. Evidence among many trials needs a
    small p, and so many histories: they are drawn only if the first ones left evidence possible.
    """
    sampled = results.Sampled(
        returns,
        np.zeros(returns.shape[1]),
        per_year=1.0,
        periods=1.0,
    )
    many_draws = min(MOST_DRAWS, int(DRAWS_PER_TRIAL * trials) + 999)
    p_value = math.nan
    p_adjusted = 0.0
    for draws in (FIRST_DRAWS, many_draws):
        if p_adjusted >= 0.5:  # after the first ones: more would not make it small
            break

        drawn = results.compare_pairs(
            sampled,
            np.array([[0, 1]]),
            "log_growth",
            confidence=0.95,
            draws=draws,
            rng=np.random.default_rng([seed, 3]),
        )
        p_value = float(drawn.p_value[0])

        # Sidak's 1 - (1 - p)^trials, exact for a small p too.
        p_adjusted = 1.0
        if p_value < 1.0:
            p_adjusted = -math.expm1(trials * math.log1p(-p_value))
    return p_value, p_adjusted


def measure_gain(parts: Sequence[BenchmarkedPart]) -> float:
    """Return the log growth a year of the best trial less that of its market, or of cash if higher.

    The benchmark where no account at equal risk can be had: in a market that fell to nothing.
    """
    years = sum(part.years for part in parts)
    gained = 0.0
    held = 0.0

    with np.errstate(divide="ignore"):  # minus infinity at ruin
        for part in parts:
            market = part.lines[equal_risk.BUY_AND_HOLD]
            gained += float(np.log1p(part.returns[0]).sum())
            held += float(np.log1p(market["total_return"]))
    return (gained - max(held, 0.0)) / years


def subtract_constant(
    returns: core.FloatArray,
    parts: Sequence[BenchmarkedPart],
) -> core.FloatArray | None:
    """Return the returns (n, k) of trials less those of constant leverage at the risk of each.

    Without a benchmark they are returned as they are; None where it could not be measured.
    """
    if not parts:
        return returns

    # The first part is the time that was searched. Its returns are those of the best trial, and
    # then those of constant leverage.
    searched = parts[0]
    if searched.untested:
        return None
    constant = searched.returns[1]
    if len(constant) != len(returns):
        return None

    # Scaled to the deviation of each trial.
    scale = np.std(returns, axis=0) / np.std(constant)
    return np.asarray(returns - constant[:, None] * scale)
