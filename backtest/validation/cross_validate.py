"""cross_validate(): combinatorial purged cross-validation of a search, at the cost of one sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import (
    FloatArray,
    IntArray,
    ParameterError,
    PolicyError,
    checked_only,
    format_time,
    parse_duration,
    record_making,
    warn_caller,
)
from backtest.engine import count_periods, mark_ends
from backtest.market import Markets, with_clock
from backtest.sweep import (
    Accounts,
    Pool,
    draw_sets,
    name_column,
    on_cluster,
    take_sets,
    to_plain_value,
)
from backtest.tune import describe_market, find_distinct, record_look
from backtest.validation.cross_validation import CrossValidation
from backtest.validation.fold_search import read_other_tries, record_drawn
from backtest.validation.group_runs import (
    USUAL_EMBARGO,
    GroupRuns,
    Groups,
    SplitScores,
    build_parts,
    check_counts,
    check_embargo,
    is_decided,
    list_splits,
    run_groups,
    score_groups,
    score_segments,
    score_splits,
    split_groups,
)
from backtest.validation.split_scores import (
    SplitWinners,
    choose_winners,
    estimate_overfitting,
    judge_best,
    measure_sharpes,
    stitch_paths,
)
from backtest.validation.tuning_procedure import (
    Procedure,
    read_procedure,
    require_mean,
    silence_runs,
)
from backtest.validation.validation_files import find_finished, open_progress
from backtest.validation.walk_figures import finite_or_nan

if TYPE_CHECKING:
    from backtest.account import Account
    from backtest.engine import Progress
    from backtest.market import Market
    from backtest.policy import Policy
    from backtest.sweep import Evaluator, Sets
    from backtest.venue import Venue

KIND = "cross-validation"


class SplitPlan(NamedTuple):
    groups: Groups
    k: int
    embargo: int
    skipped: int


@record_making
@checked_only("resume", "progress")
def cross_validate(  # noqa: PLR0913 - keywords, each with a default that is said
    market: Market | Markets,
    policy: type[Policy] | Policy,
    *,
    venue: Venue | Mapping[str, Venue],
    account: Account,
    accounts: Accounts = "shared",
    pool: Pool = "mean",
    markets_left_out: int = 0,
    space: Mapping[str, Any] | None = None,
    fix: Mapping[str, Any] | None = None,
    objective: Any = "sharpe",
    constraints: Mapping[str, str] | None = None,
    groups: int = 10,
    test_groups: int = 2,
    embargo: int | str | None = None,
    trials: int | None = None,
    seed: int = 0,
    store: str | Path | None = None,
    resume: bool | None = False,
    signal: Any = None,
    overlay: Policy | None = None,
    sampling: str = "1d",
    calendar: str = "365",
    threads: int | None = None,
    memory: str = "1GiB",
    cluster: str | None = None,
    compile: bool = True,  # noqa: A002 - the word users know
    progress: Progress | None = None,
    decide: str | None = None,
    detail: Any = None,
) -> CrossValidation:
    """Choose the best set on each choice of groups of time, and test it on the others.

    Parameters
    ----------
    market, venue, account, signal, overlay, sampling, calendar, compile, decide, detail
        As in :func:`backtest.walk_forward`.
    accounts, pool, markets_left_out
        As in :func:`backtest.walk_forward`. The markets of separate
        accounts must have the same span: a group has the same days in each.
    policy, space, fix, objective, constraints, seed, threads, memory, cluster
        As in :func:`backtest.tune`. One objective; the space holds parameters of the policy
        and of the signal.
    groups, test_groups : int
        N groups of whole sampling periods, k of them in each test: C(N, k) splits and
        k/N · C(N, k) paths.
    embargo : int or str, optional
        Bars, or a duration, at the beginning of a train group that follows a test group, whose
        returns do not count, rounded up to whole sampling periods; 1 % of all bars by default.
        It should be as long as the policy's columns remember: their longest window.
    trials : int, optional
        Sets, drawn evenly from the space (scrambled Sobol points); 2,000 by default.
    store : str or Path, optional
        Folder in which the result is saved; it keeps each group until then.
    resume : bool or None
        Continue the cross-validation of the same arguments in the store, to the same bytes. None
        continues it if it was begun.
    progress : callable, optional
        Called with the sets run in a group, and all there will be.

    Returns
    -------
    CrossValidation

    Raises
    ------
    ParameterError
        If an argument is not allowed, groups are too short, or nothing is there to resume.
    PolicyError
        If every set fails.

    Notes
    -----
    Every set lives with fresh capital in each group; its columns are warmed by the bars before. A
    split is scored from these accounts: returns one after another, costs and counts as sums, the
    drawdown as the deepest within a group, ruin in any. For other objectives each segment of
    consecutive groups is run instead; ``figures["scored_by"]`` says which. Labels do not overlap
    here, so that nothing is purged: accounts end at their mark. Source: Lopez de Prado (2018),
    Advances in Financial Machine Learning, chapter 12.
    """
    market = with_clock(market, decide, detail)
    procedure = read_procedure(locals())
    require_mean(procedure)
    check_spans(procedure)
    plan = plan_splits(procedure, groups, test_groups, embargo)
    manifest = procedure.describe(
        KIND, groups=plan.groups.n, test_groups=plan.k, embargo=plan.embargo
    )
    drawn = draw_sets(procedure.space, procedure.trials, seed=procedure.seed)
    sets = take_sets(drawn, find_distinct(drawn))
    if (finished := find_finished(store, manifest, resume=resume)) is not None:
        return CrossValidation.load(finished)
    evaluator = procedure.build_evaluator()
    with open_progress(store, manifest, resume=resume) as folder:
        with silence_runs(), on_cluster(evaluator, cluster) as working:
            working.check_causal(procedure.space.list_ends())
            runs = run_groups(working, sets, plan.groups, folder, progress)
            check_runs(runs)
            found = judge_splits(procedure, working, sets, plan, runs, manifest, store, progress)
        if store is not None:
            record_splits(Path(store), procedure, plan, manifest, found)
            found.save(store)
    for text in found.warnings:
        warn_caller(text)
    return found


def plan_splits(
    procedure: Procedure, groups: int, test_groups: int, embargo: int | str | None
) -> SplitPlan:
    market, sampling = procedure.terms.market, procedure.terms.sampling
    n, k = check_counts(groups, test_groups)
    cut = split_groups(market, n, sampling)
    usual = math.ceil(USUAL_EMBARGO * market.n_bars)
    bars = usual if embargo is None else check_embargo(embargo, cut, market)
    period = max(parse_duration(sampling, "sampling"), market.interval)
    skipped = -(-bars * market.interval // period)
    skipped = min(skipped, int(np.diff(cut.samples).min()) - 2)
    return SplitPlan(cut, k, bars, skipped)


def check_spans(procedure: Procedure) -> None:
    market = procedure.terms.market
    if procedure.pool is None:
        return
    for name, span in zip(market.names, market.spans.tolist(), strict=True):
        if tuple(span) != (0, market.n_bars):
            raise ParameterError(
                f"separate accounts need markets of one span, got {name} from "
                f"{format_time(int(market[name].time[0]))} to {format_time(market[name].end)}; "
                "Markets.between cuts them"
            )


def check_runs(runs: Sequence[GroupRuns]) -> None:
    if any(each.failed.all() for each in runs):
        raise PolicyError("every set failed in a group; run one alone with bt.run to see more")


def judge_splits(
    procedure: Procedure,
    evaluator: Evaluator,
    sets: Sets,
    plan: SplitPlan,
    runs: Sequence[GroupRuns],
    manifest: dict[str, Any],
    store: str | Path | None,
    progress: Progress | None,
) -> CrossValidation:
    terms = procedure.terms
    periods = count_periods(terms.calendar, terms.sampling, terms.market)
    plain = build_parts(procedure, plan.groups, runs, 0)
    late = build_parts(procedure, plan.groups, runs, plan.skipped)
    by_groups = procedure.pool is None and is_decided(procedure)
    if by_groups:
        scores = score_splits(procedure, plain, late, runs, plan.k, periods)
    else:
        scores = score_segments(
            procedure, evaluator, sets, plan.groups, plan.k, plan.embargo, progress
        )
    winners = choose_winners(scores.inside, scores.outside)
    paths, curves = stitch_paths(plan, winners, plain, runs, periods)
    times = terms.market.time[find_ends(procedure)]
    sharpes = measure_sharpes(procedure, plain, runs)
    if store is not None:
        record_drawn(Path(store), procedure, manifest, sets, sharpes)
    others = read_other_tries(store, procedure, manifest)(0, terms.market.n_bars)
    luck = judge_best(procedure, sharpes, runs, others) | others.describe()
    return CrossValidation(
        splits=tabulate_splits(procedure, evaluator, sets, plan, winners),
        paths=paths,
        matrix=pd.DataFrame(score_groups(procedure, runs)).rename_axis("set"),
        sets=pd.DataFrame({name_column(name): sets[name] for name in procedure.names}),
        curves=pd.DataFrame(curves.T, index=pd.DatetimeIndex(times, tz="UTC", name="time")),
        trials=tabulate_points(scores, winners),
        figures=describe_figures(plan, runs, winners, luck, by_groups=by_groups),
        manifest=manifest,
    )


def find_ends(procedure: Procedure) -> IntArray:
    period = parse_duration(procedure.terms.sampling, "sampling")
    return np.flatnonzero(mark_ends(procedure.terms.market, period))


def tabulate_splits(
    procedure: Procedure, evaluator: Evaluator, sets: Sets, plan: SplitPlan, winners: SplitWinners
) -> pd.DataFrame:
    table = pd.DataFrame({"groups": list_splits(plan.groups.n, plan.k)})
    table = table.assign(in_sample=winners.inside, out_of_sample=winners.outside, rank=winners.rank)
    for name in procedure.names:
        setting = evaluator.settings[name]
        values = [None if row < 0 else to_plain_value(setting, sets[name][row])
                  for row in winners.row.tolist()]  # fmt: skip
        table[name_column(name)] = pd.Series(values)
    return table.rename_axis("split")


def tabulate_points(scores: SplitScores, winners: SplitWinners) -> pd.DataFrame:
    chosen = np.unique(np.linspace(0, len(scores.inside) - 1, 12).astype(np.int64))
    tables = [
        pd.DataFrame(
            {
                "split": split,
                "in_sample": finite_or_nan(scores.inside[split]),
                "out_of_sample": finite_or_nan(scores.outside[split]),
                "is_winner": np.arange(len(scores.inside[split])) == winners.row[split],
            }
        )
        for split in chosen.tolist()
    ]
    return pd.concat(tables, ignore_index=True)


def describe_figures(
    plan: SplitPlan,
    runs: Sequence[GroupRuns],
    winners: SplitWinners,
    luck: Mapping[str, Any],
    *,
    by_groups: bool,
) -> dict[str, Any]:
    known = winners.rank[~np.isnan(winners.rank)]
    notes = []
    empty = int(np.sum(winners.row < 0))
    if empty:
        notes.append(f"{empty} of {len(winners.row)} splits have no set that keeps all constraints")
    return {
        "scored_by": "groups" if by_groups else "stretches",
        "embargo_bars": plan.embargo,
        "embargo_samples": plan.skipped,
        "sets": int(runs[0].returns.shape[1]),
        "pbo": estimate_overfitting(winners.rank, plan.groups.n, plan.k).to_dict(),
        "mean_rank": float(np.mean(known)) if len(known) else math.nan,
        "median_in_sample": median_of(winners.inside),
        "median_out_of_sample": median_of(winners.outside),
        **luck,
        "warnings": notes,
    }


def median_of(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else math.nan


def record_splits(
    store: Path,
    procedure: Procedure,
    plan: SplitPlan,
    manifest: dict[str, Any],
    found: CrossValidation,
) -> None:
    market, names = procedure.terms.market, [name_column(name) for name in procedure.names]
    data = describe_market(market)
    ends = [
        market.start,
        *(int(market.time[e - 1]) + market.interval for e in plan.groups.edges[1:]),
    ]
    for row in found.splits.reset_index().to_dict("records"):
        if math.isnan(row["rank"]):
            continue
        for group in row["groups"]:
            facts = {
                "id": f"{manifest['id']}-{row['split']}-{group}",
                "data": {**data, "end": format_time(ends[group + 1])},
                "holdout": KIND,
                "searched": format_time(ends[group]),
                "policy": manifest["policy"],
            }
            record_look(store, facts, {name: row[name] for name in names})
