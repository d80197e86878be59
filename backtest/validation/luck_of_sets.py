"""How much of the best of all sets is luck, from their returns in all groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.base import FloatArray
from backtest.engine import count_periods
from backtest.measures import (
    deflated_sharpe_of_returns,
    expected_max_sharpe,
    simulate_luck,
)
from backtest.tune import OtherTrials, count_independent, pool_deviation
from backtest.validation.group_scores import GroupPart, combine_parts

if TYPE_CHECKING:
    from backtest.validation.group_runs import GroupRuns
    from backtest.validation.tuning_procedure import Procedure

SAMPLE = 128
"""Sets whose returns are correlated, spread evenly over the draws."""


def measure_sharpes(
    procedure: Procedure, parts: Sequence[GroupPart], runs: Sequence[GroupRuns]
) -> FloatArray:
    """Return the Sharpe ratio of each set over all groups, per sqrt(year), of shape (n_sets,).

    It is NaN for sets that are ruined or fail.
    """
    measured = combine_parts(parts, find_periods(procedure))
    failed = np.any([each.failed for each in runs], axis=0)
    return np.where(failed | (measured["ruined"] != 0.0), np.nan, measured["sharpe"])


def find_periods(procedure: Procedure) -> float:
    """Return the number of sampled returns per year."""
    terms = procedure.terms
    return count_periods(terms.calendar, terms.sampling, terms.market)


def judge_best(
    procedure: Procedure, sharpe: FloatArray, runs: Sequence[GroupRuns], others: OtherTrials
) -> dict[str, Any]:
    """Return the highest Sharpe ratio of a set over all groups, and its deflated Sharpe ratio.

    Ruined and failed sets are left out. ``others`` were tried by other searches on these bars, and
    count as trials.
    """
    if not np.isfinite(sharpe).any():
        return {"best_sharpe": math.nan, "lucky_sharpe": math.nan, "deflated_sharpe": math.nan}
    best, kept = int(np.nanargmax(sharpe)), np.flatnonzero(np.isfinite(sharpe))
    returns = np.concatenate([each.returns for each in runs])
    chosen = kept[np.unique(np.linspace(0, len(kept) - 1, SAMPLE).astype(np.int64))]
    found = simulate_luck(returns[:, chosen], n_trials=len(kept))
    n = count_independent(found.n, len(kept), others) * (1 + procedure.n_left_out)
    periods = find_periods(procedure)
    own = found.find_deviation(len(returns), periods)
    deviation = pool_deviation(own, sharpe[kept], len(kept), others)
    return {
        "best_sharpe": float(sharpe[best]),
        "best_set": best,
        "effective_trials": n,
        "lucky_sharpe": expected_max_sharpe(n, deviation),
        "deflated_sharpe": deflated_sharpe_of_returns(
            returns[:, best], n_trials=n, std=deviation / math.sqrt(periods)
        ),
    }
