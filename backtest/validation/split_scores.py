"""Winners of splits, how often they fail in the test, their paths, and the luck of the best."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import FloatArray, IntArray
from backtest.engine import count_periods
from backtest.measures import (
    deflated_sharpe_of_returns,
    expected_max_sharpe,
    simulate_luck,
)
from backtest.tune import OtherTrials, count_independent, pool_deviation
from backtest.validation.group_runs import list_paths, list_splits
from backtest.validation.group_scores import GroupPart, combine_parts
from backtest.validation.interval_estimates import (
    Estimate,
    estimate_share,
    find_rank,
    share_overfit,
)

if TYPE_CHECKING:
    from backtest.validation.group_runs import GroupRuns
    from backtest.validation.tuning_procedure import Procedure


PANELS = 200
"""Panels of noise by which the interval of an overfitting probability is calibrated."""
PANEL_SETS = 50
MOST_COMPARED = 500
"""Splits of a panel, spread evenly."""


class SplitWinners(NamedTuple):
    row: IntArray
    inside: FloatArray
    outside: FloatArray
    rank: FloatArray


def choose_winners(inside: Sequence[FloatArray], outside: Sequence[FloatArray]) -> SplitWinners:
    """Return the best set of each split in training, of the first of equals.

    Objectives of shape (n_sets,) per split; minus infinity for sets that must not win, -1 is the
    row of a split in which all are.
    """
    rows, ranks, trained, tested = [], [], [], []
    for one, other in zip(inside, outside, strict=True):
        best = int(np.argmax(one))
        is_any = bool(np.isfinite(one[best]))
        rows.append(best if is_any else -1)
        trained.append(float(one[best]) if is_any else math.nan)
        tested.append(float(other[best]) if is_any else math.nan)
        ranks.append(find_rank(other, best) if is_any else math.nan)
    return SplitWinners(np.array(rows), np.array(trained), np.array(tested), np.array(ranks))


def estimate_overfitting(ranks: FloatArray, n: int, k: int) -> Estimate:
    return estimate_share(share_overfit(ranks), count_independent_splits(n, k))


@functools.cache
def count_independent_splits(n: int, k: int) -> float:
    splits = list_splits(n, k)
    chosen = np.unique(np.linspace(0, len(splits) - 1, MOST_COMPARED).astype(np.int64))
    tested = np.zeros((len(chosen), n))
    for row, place in enumerate(chosen.tolist()):
        tested[row, list(splits[place])] = 1.0
    rng = np.random.default_rng(0)
    shares = [measure_panel(tested, rng.standard_normal((n, PANEL_SETS))) for _ in range(PANELS)]
    return 0.25 / float(np.var(shares, ddof=1))


def measure_panel(tested: FloatArray, panel: FloatArray) -> float:
    """Return the share of overfit splits on a panel of group means of shape (n, n_sets)."""
    outside = tested @ panel
    best = np.argmax((1.0 - tested) @ panel, axis=1)[:, None]
    rank = np.mean(outside < np.take_along_axis(outside, best, axis=1), axis=1)
    return float(np.mean(rank * PANEL_SETS / (PANEL_SETS - 1) <= 0.5))


# ----------------------------------------------------------------------------------------- paths


def stitch_paths(
    plan: Any,
    winners: SplitWinners,
    parts: Sequence[GroupPart],
    runs: Sequence[GroupRuns],
    periods: float,
) -> tuple[pd.DataFrame, FloatArray]:
    """Return the measures of each path, and the unit values of shape (n_paths, n_samples)."""
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


SAMPLE = 128
"""Sets whose returns are correlated, spread evenly over the draws."""


def measure_sharpes(
    procedure: Procedure, parts: Sequence[GroupPart], runs: Sequence[GroupRuns]
) -> FloatArray:
    """Return the Sharpe ratio of each set over all groups, per sqrt(year), of shape (n_sets,)."""
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
