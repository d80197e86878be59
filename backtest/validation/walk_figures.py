"""The tables and the headline figures of a walk."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import FloatArray
from backtest.compare import (
    BootstrapRules,
    estimate_pairs,
    find_basis,
)
from backtest.engine import Result
from backtest.sweep import name_column
from backtest.tune import deflate_alone, find_chance
from backtest.validation.fold_spans import (
    tabulate_spans,
    warn_of_short,
)
from backtest.validation.interval_estimates import CONFIDENCE, estimate_share, share_overfit
from backtest.validation.terms import (
    AnyAccount,
    count_years,
    find_growth,
    list_results,
    sample_accounts,
)

if TYPE_CHECKING:
    from backtest.validation.fold_search import SearchedFold
    from backtest.validation.tuning_procedure import Procedure


LEAST_DRAWN = 4
"""Least returns that are resampled."""
FEW_TRADES = 10
"""A fold with fewer trades than this says little about its parameters."""
DRAWS = 1_999
MOST_NOTES = 5
"""Most kinds of warnings of folds that a walk repeats."""


class Walked(NamedTuple):
    result: AnyAccount | None
    fixed: AnyAccount
    parts: tuple[AnyAccount, ...]

    @property
    def accounts(self) -> tuple[AnyAccount, ...]:
        return self.parts if self.result is None else (self.result,)


def tabulate_folds(procedure: Procedure, found: Sequence[SearchedFold]) -> pd.DataFrame:
    table = tabulate_spans(procedure.terms.market, [fold.span for fold in found])
    for name in procedure.names:
        table[name_column(name)] = [fold.values[name] for fold in found]
    inside = np.array([fold.verdict.score for fold in found])
    outside = np.array([fold.verdict.holdout_score for fold in found])
    is_positive = inside > 0.0
    shrinkage = np.where(is_positive, outside / np.where(is_positive, inside, 1.0), np.nan)
    return table.assign(
        in_sample=inside,
        out_of_sample=outside,
        rank=[fold.rank for fold in found],
        shrinkage=shrinkage,
        difference=outside - inside,
        trials=[fold.verdict.trials for fold in found],
        deflated_sharpe=[fold.verdict.deflated_sharpe for fold in found],
    )


def tabulate_trials(procedure: Procedure, found: Sequence[SearchedFold]) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "fold": np.full(len(fold.inside), k, dtype=np.int64),
                "in_sample": finite_or_nan(fold.inside),
                "out_of_sample": finite_or_nan(fold.outside),
                "is_winner": np.arange(len(fold.inside)) == fold.winner,
                **{name_column(name): fold.sets[name] for name in procedure.names},
            }
        )
        for k, fold in enumerate(found)
    ]
    return pd.concat(parts, ignore_index=True)


def finite_or_nan(values: FloatArray) -> FloatArray:
    return np.where(np.isfinite(values), values, np.nan)


def judge_walk(
    procedure: Procedure, found: Sequence[SearchedFold], table: pd.DataFrame, walked: Walked
) -> dict[str, Any]:
    inside = float(np.mean([fold.growth for fold in found if not math.isnan(fold.growth)]))
    outside = measure_growth(walked)
    ranks = table["rank"].to_numpy(dtype=np.float64)
    trades = count_trades(procedure, walked, found)
    return {
        "growth_in_sample": inside,
        "growth_out_of_sample": outside,
        "growth_fixed": find_growth(walked.fixed),
        "efficiency": outside / inside if inside > 0.0 else math.nan,
        "efficiency_difference": outside - inside,
        "mean_rank": float(np.nanmean(ranks)) if np.isfinite(ranks).any() else math.nan,
        "pbo": estimate_share(
            share_overfit(ranks), int(np.count_nonzero(~np.isnan(ranks)))
        ).to_dict(),
        **judge_returns(procedure, walked),
        "trades": trades,
        "warnings": list(list_warnings(found, trades)),
    }


def measure_growth(walked: Walked) -> float:
    """Return the log growth per year over all test spans, minus infinity after ruin."""
    years = [count_years(each) for each in walked.accounts]
    growth = [find_growth(each) for each in walked.accounts]
    return float(np.dot(growth, years)) / sum(years)


def judge_returns(procedure: Procedure, walked: Walked) -> dict[str, Any]:
    if walked.result is None:
        return {"sharpe": math.nan, "deflated_sharpe": math.nan, "against_fixed": None}
    fixed = walked.fixed
    sampled = sample_accounts([walked.result, fixed])
    ruined = np.array([each.metrics["ruined"] != 0.0 for each in (walked.result, fixed)])
    pair = np.array([[0, 1]])
    bases = np.array([find_basis(sampled.returns, pair[0], ruined)], dtype=object)
    rules = BootstrapRules(CONFIDENCE, DRAWS, procedure.seed)
    living = sampled._replace(returns=np.where(ruined[:, None], 0.0, sampled.returns))
    gap, _ = estimate_pairs(living, pair, bases, "log_growth", rules, None)
    alone = judge_alone(procedure, walked.result, sampled.returns[0] - sampled.free)
    return {
        "sharpe": float(walked.result.metrics["sharpe"]),
        "deflated_sharpe": 0.0 if ruined[0] else alone,
        "against_fixed": {
            **{name: float(column[0]) for name, column in gap.items()},
            "basis": str(bases[0]),
        },
    }


def judge_alone(procedure: Procedure, account: AnyAccount, excess: FloatArray) -> float:
    pool, left_out = procedure.pool, procedure.n_left_out
    if pool is None or pool.is_mean or isinstance(account, Result) or len(excess) < LEAST_DRAWN:
        return deflate_alone(excess, left_out)[0]
    returns = account.returns_by_market.to_numpy().T[:, :, None]
    return find_chance(returns, pool, procedure.seed, left_out)


def count_trades(procedure: Procedure, walked: Walked, found: Sequence[SearchedFold]) -> list[int]:
    runs = [each for account in walked.accounts for each in list_results(account)]
    fills = [each.events.loc[each.events["kind"] == "fill", "time"] for each in runs]
    times = pd.DatetimeIndex(pd.concat(fills)).as_unit("ns").asi8
    rows = np.searchsorted(procedure.terms.market.time, times)
    return [int(np.sum((rows >= fold.span.test) & (rows < fold.span.stop))) for fold in found]


def list_warnings(found: Sequence[SearchedFold], trades: Sequence[int]) -> Iterator[str]:
    yield from warn_of_short([fold.span for fold in found])
    few = sum(n < FEW_TRADES for n in trades)
    if 2 * few > len(found):
        yield (
            f"{few} of {len(found)} folds have under {FEW_TRADES} trades, {sum(trades):,} in all: "
            "a fold says little about its parameters"
        )
    yield from count_notes(found)


def count_notes(found: Sequence[SearchedFold]) -> Iterator[str]:
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for fold in found:
        for text in fold.warnings:
            key = re.sub(r"[-+]?\d[\d.,e+-]*", "#", text)
            first.setdefault(key, text)
            counts[key] += 1
    for key, n in counts.most_common(MOST_NOTES):
        yield f"in {n} of {len(found)} folds, as in the first of them: {first[key]}"


def read_figures(figures: Mapping[str, Any], name: str) -> float:
    value = figures.get(name)
    return math.nan if value is None else float(value)
