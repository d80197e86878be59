"""The tables and the headline figures of a walk, and the memory of columns."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from backtest.base import BacktestError, FloatArray, IntArray, list_values
from backtest.compare import (
    BootstrapRules,
    SeparateAccounts,
    count_years,
    estimate_pairs,
    find_basis,
    find_growth,
    sample_returns,
)
from backtest.engine import Result, observe
from backtest.market import as_markets
from backtest.sweep import count_sets, name_column, take_sets
from backtest.tune import deflate_alone, find_chance
from backtest.validation.fold_spans import (
    count_test_bars,
    is_last_alone,
    tabulate_spans,
    warn_of_short,
)
from backtest.validation.interval_estimates import CONFIDENCE, estimate_share, share_overfit

if TYPE_CHECKING:
    from backtest.engine import SignalRule
    from backtest.market import Market, Markets
    from backtest.policy import Policy
    from backtest.sweep import Sets
    from backtest.validation.fold_search import SearchedFold
    from backtest.validation.tuning_procedure import Procedure


Account: TypeAlias = Result | SeparateAccounts
LEAST_DRAWN = 4
"""Least returns that are resampled."""
FEW_TRADES = 10
"""A fold with fewer trades than this says little about its parameters."""
DRAWS = 1_999
MOST_NOTES = 5
"""Most kinds of warnings of folds that a walk repeats."""


class Walked(NamedTuple):
    result: Account | None
    fixed: Account
    parts: tuple[Account, ...]

    @property
    def accounts(self) -> tuple[Account, ...]:
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
    memory = measure_memory(procedure)
    return {
        "growth_in_sample": inside,
        "growth_out_of_sample": outside,
        "growth_fixed": find_growth(walked.fixed, count_years(walked.fixed)),
        "efficiency": outside / inside if inside > 0.0 else math.nan,
        "efficiency_difference": outside - inside,
        "mean_rank": float(np.nanmean(ranks)) if np.isfinite(ranks).any() else math.nan,
        "pbo": estimate_share(
            share_overfit(ranks), int(np.count_nonzero(~np.isnan(ranks)))
        ).to_dict(),
        **judge_returns(procedure, found, walked),
        "memory": memory,
        "trades": trades,
        "warnings": list(list_warnings(found, trades, memory)),
    }


def measure_growth(walked: Walked) -> float:
    """Return the log growth per year over all test spans, minus infinity after ruin."""
    years = [count_years(each) for each in walked.accounts]
    growth = [find_growth(each, year) for each, year in zip(walked.accounts, years, strict=True)]
    return float(np.dot(growth, years)) / sum(years)


def judge_returns(
    procedure: Procedure, found: Sequence[SearchedFold], walked: Walked
) -> dict[str, Any]:
    if walked.result is None:
        return {"sharpe": math.nan, "deflated_sharpe": math.nan, "against_fixed": None}
    fixed, market = walked.fixed, procedure.terms.market
    first, stop = found[0].span.test, found[-1].span.stop
    terms = procedure.terms._replace(market=market.prefix(stop), start=market.times[first])
    sampled = sample_returns({"re-tuned": walked.result, "tuned once": fixed}, terms)
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


def judge_alone(procedure: Procedure, account: Account, excess: FloatArray) -> float:
    pool, left_out = procedure.pool, procedure.n_left_out
    if pool is None or pool.is_mean or isinstance(account, Result) or len(excess) < LEAST_DRAWN:
        return deflate_alone(excess, left_out)[0]
    returns = account.returns_by_market.to_numpy().T[:, :, None]
    return find_chance(returns, pool, procedure.seed, left_out)


def list_results(account: Account) -> Iterator[Result]:
    yield from [account] if isinstance(account, Result) else account.results.values()


def count_trades(procedure: Procedure, walked: Walked, found: Sequence[SearchedFold]) -> list[int]:
    runs = [each for account in walked.accounts for each in list_results(account)]
    fills = [each.events.loc[each.events["kind"] == "fill", "time"] for each in runs]
    times = pd.DatetimeIndex(pd.concat(fills)).as_unit("ns").asi8
    rows = np.searchsorted(procedure.terms.market.time, times)
    return [int(np.sum((rows >= fold.span.test) & (rows < fold.span.stop))) for fold in found]


def list_warnings(
    found: Sequence[SearchedFold], trades: Sequence[int], memory: int
) -> Iterator[str]:
    spans = [fold.span for fold in found]
    yield from warn_of_short(spans)
    yield from warn_of_memory(count_test_bars(spans), memory)
    few = sum(n < FEW_TRADES for n in trades)
    if 2 * few > len(found):
        yield (
            f"{few} of {len(found)} folds have under {FEW_TRADES} trades, {sum(trades):,} in all: "
            "a fold says little about its parameters"
        )
    yield from count_notes(found)


def warn_of_memory(bars: IntArray, memory: int) -> Iterator[str]:
    short = bars[bars < memory]
    end = f"the memory of the columns, up to {memory:,} bars at the ends of the ranges"
    if is_last_alone(bars, memory):
        yield (
            f"the last of {len(bars)} test spans, of {short[0]:,} bars, is shorter than {end}: "
            "its columns use bars of the training"
        )
    elif len(short):
        yield (
            f"{len(short)} of {len(bars)} test spans, the shortest of {short.min():,} bars, are "
            f"shorter than {end}: their columns use bars of the training"
        )


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


SETTLED = 0.01
"""A column has forgotten a bar once it is within this share of the largest disturbance."""
SHOCK = 1.05
"""Factor of the prices of the disturbed bar."""
PRICES = ("open", "high", "low", "close", "mark_open", "mark_high", "mark_low", "mark_close")


def measure_memory(procedure: Procedure) -> int:
    return max(measure_member(each) for each in procedure.list_members())


def measure_member(procedure: Procedure) -> int:
    markets = as_markets(procedure.terms.market)
    ends = procedure.space.list_ends()
    policies, rules = list_policies(procedure, ends), list_rules(procedure, ends)
    memory = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, market in markets.items():
            middle = market.n_bars // 2
            other = disturb_bar(market, middle)
            for policy in policies:
                found = compare_columns(partial(observe, policy), market, other, middle)
                memory = max(memory, found)
            for rule in rules:
                found = compare_columns(
                    partial(signal_columns, rule, markets, name), market, other, middle
                )
                memory = max(memory, found)
    return memory


def list_rules(procedure: Procedure, ends: Sets) -> list[SignalRule]:
    found: dict[SignalRule, None] = {}
    for row in range(count_sets(ends)):
        with contextlib.suppress(BacktestError):  # as for policies
            rule = procedure.build_signal(take_sets(ends, row))
            found |= {} if rule is None else {rule: None}
    return [*found]


def signal_columns(
    rule: SignalRule, whole: Markets, name: str, market: Market
) -> dict[str, FloatArray]:
    first, stop = whole.spans[whole.names.index(name)]
    weights = rule.weigh(whole.with_markets({name: market}), is_checked=False)
    return {str(key): values.to_numpy()[first:stop] for key, values in weights.items()}


def list_policies(procedure: Procedure, ends: Sets) -> list[Policy]:
    found: list[Policy] = []
    for row in range(count_sets(ends)):
        try:
            policy = procedure.build_trio(take_sets(ends, row)).policy
            found += list_values(policy)
        except BacktestError:
            continue  # a rule between its values forbids the set
    return found


def disturb_bar(market: Market, t: int) -> Market:
    names = [*PRICES, "volume"]
    changes: dict[str, Any] = {name: scale_bar(getattr(market, name), t) for name in names}
    columns = {name: scale_bar(values, t) for name, values in market.columns.items()}
    return dataclasses.replace(market, **changes, columns=columns)


def scale_bar(values: FloatArray, t: int) -> FloatArray:
    scaled: FloatArray = values.copy()
    scaled[t] *= SHOCK
    return scaled


def compare_columns(
    compute: Callable[[Market], Mapping[str, FloatArray]], market: Market, other: Market, t: int
) -> int:
    try:
        one, two = compute(market), compute(other)
    except BacktestError:
        return 0  # the run of the set gives the reason
    longest = 0
    for name, values in one.items():
        gap = np.abs(np.nan_to_num(values[t:] - two[name][t:]))
        far = np.flatnonzero(gap > SETTLED * gap.max(initial=0.0))
        longest = max(longest, int(far[-1]) + 1 if len(far) else 0)
    return longest
