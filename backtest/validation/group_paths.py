"""Paths of a cross-validation: the winners of splits, one after another through all groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.base.units import FloatArray
from backtest.validation.group_scores import GroupPart, combine_parts
from backtest.validation.groups import list_paths
from backtest.validation.split_scores import SplitWinners

if TYPE_CHECKING:
    from backtest.validation.group_runs import GroupRuns


def stitch_paths(
    plan: Any,
    winners: SplitWinners,
    parts: Sequence[GroupPart],
    runs: Sequence[GroupRuns],
    periods: float,
) -> tuple[pd.DataFrame, FloatArray]:
    """Return the measures of each path, and the unit values of shape (n_paths, n_samples).

    A path is made of the fresh accounts of the winners, without trades of switching; splits without
    a winner hold nothing. Ruin in a group ends the path. The drawdown is the deepest inside a
    group, or across groups by sampled returns.
    """
    paths = np.array(list_paths(plan.groups.n, plan.k))
    rows = winners.row[paths]
    alive = np.ones(len(paths))
    taken, returns = [], []
    for group in range(plan.groups.n):
        chosen = rows[:, group]
        lives = alive * (chosen >= 0)
        part = parts[group].take(np.maximum(chosen, 0)).leave_out_ruined(lives)
        idle = part.moments._replace(
            n=parts[group].moments.n[np.maximum(chosen, 0)],
            years=parts[group].moments.years[np.maximum(chosen, 0)],
        )
        taken.append(part._replace(moments=idle))
        returns.append(runs[group].returns[:, np.maximum(chosen, 0)] * lives)
        alive = alive * (part.metrics["ruined"] == 0.0)
    curves: FloatArray = np.cumprod(1.0 + np.concatenate(returns), axis=0).T.astype(np.float64)
    measured = combine_parts(taken, periods)
    peaks = np.maximum.accumulate(np.maximum(curves, 1.0), axis=1)
    across = np.max(1.0 - curves / peaks, axis=1)
    measured["max_drawdown"] = np.maximum(measured["max_drawdown"], across)
    with np.errstate(all="ignore"):
        drawdown = measured["max_drawdown"]
        measured["calmar"] = np.where(drawdown > 0.0, measured["cagr"] / drawdown, np.nan)
    first = [name for name in ("sharpe", "cagr", "total_return", "volatility", "max_drawdown",
                               "ruined") if name in measured]  # fmt: skip
    names = [*first, *(name for name in measured if name not in first)]
    table = pd.DataFrame({name: measured[name] for name in names})
    return table.rename_axis("path"), curves
