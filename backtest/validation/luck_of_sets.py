"""How much of the best of all sets is luck, from their returns in all groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.engine import count_periods
from backtest.measures.deflated_sharpe import (
    deflated_sharpe_of_returns,
    effective_trials,
    expected_max_sharpe,
)
from backtest.validation.group_scores import GroupPart, combine_parts

if TYPE_CHECKING:
    from backtest.validation.group_runs import GroupRuns
    from backtest.validation.procedure import Procedure

SAMPLE = 128
"""Sets whose returns are correlated, spread evenly over the draws."""


def judge_best(
    procedure: Procedure, parts: Sequence[GroupPart], runs: Sequence[GroupRuns]
) -> dict[str, Any]:
    """Return the highest Sharpe ratio of a set over all groups, and its deflated Sharpe ratio.

    Ruined and failed sets are left out.
    """
    terms = procedure.terms
    periods = count_periods(terms.calendar, terms.sampling, terms.market)
    measured = combine_parts(parts, periods)
    failed = np.any([each.failed for each in runs], axis=0)
    sharpe = np.where(failed | (measured["ruined"] != 0.0), np.nan, measured["sharpe"])
    if not np.isfinite(sharpe).any():
        return {"best_sharpe": math.nan, "lucky_sharpe": math.nan, "deflated_sharpe": math.nan}
    best, kept = int(np.nanargmax(sharpe)), np.flatnonzero(np.isfinite(sharpe))
    returns = np.concatenate([each.returns for each in runs])
    chosen = kept[np.unique(np.linspace(0, len(kept) - 1, SAMPLE).astype(np.int64))]
    n = effective_trials(returns[:, chosen], n_trials=max(len(kept), len(chosen)))
    deviation = float(np.std(sharpe[kept], ddof=1)) if len(kept) > 1 else 0.0
    scale = math.sqrt(periods)
    return {
        "best_sharpe": float(sharpe[best]),
        "best_set": best,
        "effective_trials": n,
        "lucky_sharpe": expected_max_sharpe(n, deviation),
        "deflated_sharpe": deflated_sharpe_of_returns(
            returns[:, best], n_trials=n, std=deviation / scale
        ),
    }
