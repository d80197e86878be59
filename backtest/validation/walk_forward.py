"""walk_forward(): tune on each train span, and trade the test span after it in one account."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import (
    BoolArray,
    FloatArray,
    ParameterError,
    Range,
    checked_only,
    record_making,
    warn_caller,
)
from backtest.base.units import DAY, YEAR_DAYS
from backtest.compare import (
    BootstrapRules,
    estimate_pairs,
    find_basis,
    find_growth,
    sample_free,
    search_scale,
)
from backtest.engine import Result, Segment, merge_segments, run_switched
from backtest.engine.run_record import measure_holding
from backtest.engine.run_warnings import warn_once
from backtest.market import Markets, with_clock
from backtest.measures import Sampled, compound_growth
from backtest.measures.performance import LEAST_DEVIATION
from backtest.policy import Policy
from backtest.sweep import (
    Accounts,
    Dimension,
    Evaluator,
    Pool,
    clip_spans,
    find_different,
    name_column,
    on_cluster,
    take_sets,
    to_plain_value,
)
from backtest.tune import (
    Bench,
    Examiner,
    Journal,
    SpanTries,
    StudyTask,
    deflate_alone,
    find_chance,
    find_distinct,
    find_extent,
    gather,
    is_feasible,
    search_and_choose,
)
from backtest.validation.procedure import (
    AnyAccount,
    Procedure,
    Records,
    SeparateAccounts,
    list_results,
    read_procedure,
)
from backtest.validation.spans import (
    TIMES,
    FoldSpan,
    describe_bar,
    plan_spans,
    read_spans,
    tabulate_spans,
    warn_of_short,
)
from backtest.validation.validation import (
    CONFIDENCE,
    estimate_share,
    find_finished,
    find_rank,
    finite_or_nan,
    open_progress,
    order_scores,
    share_overfit,
)
from backtest.validation.walk import WalkForward

if TYPE_CHECKING:
    from backtest.account import Account
    from backtest.engine import Progress
    from backtest.market import Market
    from backtest.sweep import Rows, Sets
    from backtest.tune import Progress as SearchProgress
    from backtest.tune import Robustness, Verdict
    from backtest.venue import Venue

KIND = "walk-forward"
NO_WINNER = -1
LEAST_DRAWN = 4
"""Least returns that are resampled."""
FEW_TRADES = 10
"""A fold with fewer trades than this says little about its parameters."""
DRAWS = 1_999
MOST_NOTES = 5
"""Most kinds of warnings of folds that a walk repeats."""


@record_making
@checked_only("resume", "progress", "folds", "anchored", "carry")
def walk_forward(  # noqa: PLR0913 - keywords, each with a default that is said
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
    train: str = "365d",
    test: str = "30d",
    anchored: bool = False,
    gap: str = "0d",
    folds: pd.DataFrame | None = None,
    trials: int | None = None,
    sampler: str = "auto",
    robust: bool | Robustness = True,
    carry: bool = True,
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
) -> WalkForward:
    """Tune on each train span, trade the test span after it, and judge the whole procedure.

    Parameters
    ----------
    market, venue, account, signal, overlay, sampling, calendar, compile, decide, detail
        As in :func:`backtest.run`. Several markets have one policy, whose parameters are those of
        all instruments; of several, ``BTCUSDT.NAME`` of one of them, ``overlay.NAME`` of the
        overlay.
    accounts, pool, markets_left_out
        As in :func:`backtest.tune`. Separate accounts are searched pooled, and traded in each
        market in an account of its own; returns out of sample are their mean.
    policy, space, fix, objective, constraints, sampler, robust, seed, threads, memory, cluster
        As in :func:`backtest.tune`, which searches every train span with the same seed. One
        objective; the space holds parameters of the policy and of the signal.
    train, test : str
        Lengths of the spans, such as ``"365d"``: at least 200 and 20 bars. The first test span
        opens ``train + gap`` after the data begin. The last one ends with the data.
    anchored : bool
        Whether every train span begins with the data instead of moving on.
    gap : str
        Time between the end of a train span and its test span; a walk trains before it tests, and
        needs none.
    folds : DataFrame, optional
        The spans themselves, as :func:`backtest.folds` returns them, instead of the four above.
    trials : int, optional
        Most sets to evaluate in each fold, neighbors included; 2,000 by default.
    carry : bool
        Whether one account lives through all test spans, so that switching parameters costs what
        it costs. False begins a fresh account in every fold, for comparison only.
    store : str or Path, optional
        Folder in which the walk is saved, ``"results"`` for example. It keeps every batch until
        then, so that a killed walk can be resumed.
    resume : bool or None
        Continue the walk of the same arguments in the store. It ends at the same bytes. A finished
        walk is loaded from the store. None continues it if it was begun.
    progress : callable, optional
        Called with the sets evaluated and the most there will be.

    Returns
    -------
    WalkForward

    Raises
    ------
    ParameterError
        If an argument is not allowed, a span is too short, or nothing is there to resume.
    DataError
        If the folder cannot be written, or another process works in it.

    Notes
    -----
    A decision at the last close of a train span fills in the test span: nothing of it is known
    before. The account's parameters change at the first close of each test span; until then the
    last decision of the earlier ones holds.
    """
    market = with_clock(market, decide, detail)
    procedure = read_procedure(locals())
    market = procedure.market
    if folds is None:
        spans = plan_spans(market, train, test, anchored, gap)
    else:
        spans = read_spans(folds, market)
    table = tabulate_spans(market, spans)
    rows = [[f"{time:%Y-%m-%d %H:%M:%S}" for time in row] for row in table.to_numpy().tolist()]
    manifest = procedure.describe(
        KIND,
        sampler=procedure.sampler,
        robust=procedure.rule.to_dict() if procedure.is_robust else False,
        carry=carry,
        spans={"columns": list(TIMES), "rows": rows},
    )
    if (finished := find_finished(store, manifest, resume=resume)) is not None:
        return WalkForward.load(finished)
    evaluator = procedure.build_evaluator()
    records = Records(None if store is None else Path(store), procedure, manifest)
    with open_progress(store, manifest, resume=resume) as folder:
        with warn_once(is_first=False), on_cluster(evaluator, cluster) as working:
            found = search_folds(procedure, working, spans, folder, progress, records)
        records.add_tries([fold.describe_tries(procedure) for fold in found])
        for fold in found:
            if fold.values:
                times = procedure.find_times(fold.span.test, fold.span.stop)
                records.add_look(str(fold.span.test), *times, fold.values)
        walk = build_walk(procedure, found, manifest, records, carry=carry)
        if store is not None:
            walk.save(store)
    for text in walk.warnings:
        warn_caller(text)
    return walk


# -------------------------------------------------------------------------------- searching a fold


class SearchedFold(NamedTuple):
    """A fold after its search and its test.

    ``sets`` are the distinct sets tried, ``winner`` the row of the best of them (-1 if none keeps
    the constraints), ``values`` its parameters. ``inside`` and ``outside`` of shape (n,) are their
    objectives on both spans, minus infinity after ruin or without a score. ``sharpes`` of shape
    (n,) are those of the train span, ``is_kept`` marks the sets that keep the constraints there.
    ``growth`` is the winner's log growth per year on the train span.
    """

    span: FoldSpan
    sets: Sets
    winner: int
    values: dict[str, Any]
    inside: FloatArray
    outside: FloatArray
    sharpes: FloatArray
    is_kept: BoolArray
    growth: float
    verdict: Verdict
    warnings: tuple[str, ...]

    @property
    def rank(self) -> float:
        return find_rank(self.outside, self.winner) if self.winner >= 0 else math.nan

    def describe_tries(self, procedure: Procedure) -> SpanTries:
        times = procedure.find_times(self.span.train, self.span.train_stop)
        return SpanTries(*times, self.sets, self.sharpes, self.is_kept)


def search_folds(
    procedure: Procedure,
    evaluator: Evaluator,
    spans: list[FoldSpan],
    folder: Path | None,
    progress: Progress | None,
    records: Records,
) -> list[SearchedFold]:
    found: list[SearchedFold] = []
    trials = procedure.trials
    for k, span in enumerate(spans):
        on_batch = None
        if progress is not None:
            on_batch = partial(report_sets, progress, k * trials, trials, len(spans) * trials)
        own = None if folder is None else folder / f"fold-{k:05d}"
        fold = search_fold(procedure, evaluator, span, own, records, on_batch)
        if fold.winner < 0 and not found:
            raise ParameterError(
                "the first train span must have a set that keeps all constraints, none of "
                f"{len(fold.inside):,} does from {describe_bar(evaluator.market, span.train)}"
            )
        found.append(fold if fold.winner >= 0 else fold._replace(values=found[-1].values))
    if progress is not None:
        progress(len(spans) * trials, len(spans) * trials)
    return found


def report_sets(
    progress: Progress, before: int, trials: int, total: int, now: SearchProgress
) -> None:
    progress(before + min(now.trials, trials), total)


def search_fold(
    procedure: Procedure,
    whole: Evaluator,
    span: FoldSpan,
    folder: Path | None,
    records: Records,
    on_batch: Callable[[SearchProgress], object] | None,
) -> SearchedFold:
    task = StudyTask(
        facts={
            **procedure.left_out,
            "id": "",
            "sampler": procedure.sampler,
            "objectives": [each.name for each in procedure.goal.objectives],
        },
        space=procedure.space,
        goal=procedure.goal,
        rule=procedure.rule,
        is_robust=procedure.is_robust,
        trials=procedure.trials,
        seconds=None,
        seed=procedure.seed,
        seen=SpanEvaluator(whole, span.train, span.train_stop),
        bench=Bench(SpanEvaluator(whole, 0, span.stop), span.test),
        store=None,
        count_others=partial(records.count_tries, span.train, span.train_stop),
    )
    examiner = Examiner(
        task.seen, task.goal, Journal(folder), total=procedure.trials, progress=on_batch
    )
    outcome = search_and_choose(task, examiner)
    trials = gather(examiner.batches)
    rows = find_distinct(trials.sets)
    sets = take_sets(trials.sets, rows)
    later = Journal(None if folder is None else folder / "test")
    tested = Examiner(SpanEvaluator(whole, span.test, span.stop), task.goal, later)
    outside = tested.evaluate(sets, "part")
    is_kept = is_feasible(trials)[rows]
    winner, values, growth = NO_WINNER, {}, math.nan
    if outcome.best >= 0:
        best = take_sets(trials.sets, outcome.best)
        names = [*procedure.names, *procedure.space.fixed]
        values = {name: to_plain_value(whole.settings[name], best[name]) for name in names}
        code = find_different(trials.sets)[1][outcome.best]
        winner = int(np.searchsorted(rows, rows[code]))
        growth = measure_growth(whole, span, trials.metrics, outcome.best)
    return SearchedFold(
        span=span,
        sets=sets,
        winner=winner,
        values=values,
        inside=np.where(is_kept, trials.scores[rows, 0], -np.inf),
        outside=order_scores(outside.scores[:, 0], outside.metrics["ruined"]),
        sharpes=trials.metrics["sharpe"][rows],
        is_kept=is_kept,
        growth=growth,
        verdict=outcome.verdict,
        warnings=tuple(outcome.warnings),
    )


def measure_growth(
    whole: Evaluator, span: FoldSpan, metrics: Mapping[str, FloatArray], best: int
) -> float:
    """Return the log growth per year of a set on a train span; of separate accounts their mean."""
    market = whole.market
    parts = [(market, (span.train, span.train_stop), "total_return")]
    if whole.pool is not None:
        cuts = clip_spans(market, span.train, span.train_stop)
        parts = [(market[name], cut, f"total_return {name}") for name, cut in cuts.items()]
    growth = []
    for part, (first, stop), name in parts:
        length = int(part.time[stop - 1]) + part.interval - int(part.time[first])
        growth.append(math.log1p(float(metrics[name][best])) * YEAR_DAYS * DAY / length)
    return math.fsum(growth) / len(growth)


class SpanEvaluator(Evaluator):
    """An evaluator on some bars of a market, with columns that are warmed by the bars before."""

    def __init__(self, whole: Evaluator, first: int, stop: int) -> None:
        vars(self).update(vars(whole))
        self.whole = whole
        self.first, self.stop = first, stop
        self.market = whole.market.slice(first, stop)

    def _move(self, first: int, stop: int | None) -> dict[str, int]:
        end = self.stop if stop is None else self.first + stop
        return {"first": self.first + first, "stop": end}

    def evaluate(
        self,
        sets: Sets,
        *,
        first: int = 0,
        stop: int | None = None,
        returns: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Rows:
        moved = self._move(first, stop)
        rows = self.whole.evaluate(sets, **moved, returns=returns, progress=progress)
        super().copy_fallback(self.whole)
        return rows

    def replay(
        self, values: Mapping[str, object], *, first: int = 0, stop: int | None = None
    ) -> Result:
        return self.whole.replay(values, **self._move(first, stop))

    def sample_returns(self, sets: Sets, *, first: int = 0, stop: int | None = None) -> FloatArray:
        return self.whole.sample_returns(sets, **self._move(first, stop))

    def check_causal(self, sets: Sets) -> None:
        self.whole.check_causal(sets)

    def check_set(self, values: Mapping[str, Any]) -> None:
        self.whole.check_set(values)

    @property
    def doubts(self) -> list[str]:
        return self.whole.doubts

    def copy_fallback(self, other: Evaluator) -> None:
        super().copy_fallback(other)
        self.whole.copy_fallback(other)


# ------------------------------------------------------------------------------------ the accounts


class Walked(NamedTuple):
    result: AnyAccount | None
    fixed: AnyAccount
    parts: tuple[AnyAccount, ...]

    @property
    def accounts(self) -> tuple[AnyAccount, ...]:
        return self.parts if self.result is None else (self.result,)


class ConstantLeverage(Policy):
    """Hold the same leverage at all times."""

    turns: Annotated[float, Range(0.0, math.inf)] = 1.0

    def leverage(self, bar: Any, account: Any) -> float:  # noqa: ARG002 - it knows nothing
        return self.turns


def build_walk(
    procedure: Procedure,
    found: list[SearchedFold],
    manifest: dict[str, Any],
    records: Records,
    *,
    carry: bool,
) -> WalkForward:
    walked = run_walk(procedure, found, carry=carry)
    table = tabulate_folds(procedure, found)
    others = records.count_tries(found[0].span.train, found[-1].span.train_stop)
    figures = judge_walk(procedure, found, table, walked)
    return WalkForward(
        folds=table,
        result=walked.result,
        fixed=walked.fixed,
        stability=measure_stability(procedure, found),
        trials=tabulate_trials(procedure, found),
        figures=figures | others.describe(),
        manifest=manifest,
        parts=walked.parts,
    )


def run_walk(procedure: Procedure, found: list[SearchedFold], *, carry: bool) -> Walked:
    first, end = found[0].span.test, found[-1].span.stop
    stops = [*(fold.span.test for fold in found[1:]), end]
    fixed = procedure.run(found[0].values, first, end)
    if not carry:
        parts = zip(found, stops, strict=True)
        runs = (procedure.run(fold.values, fold.span.test, stop) for fold, stop in parts)
        return Walked(None, fixed, tuple(runs))
    segments = []
    for fold, stop in zip(found, stops, strict=True):
        overlay = procedure.build_overlay(fold.values)
        own = None if overlay is procedure.overlay else overlay
        policy = procedure.build_trio(fold.values).policy
        rule = procedure.build_signal(fold.values)
        segments.append(Segment(fold.span.test, stop, policy, rule, own))
    if isinstance(fixed, Result):
        return Walked(switch(procedure, segments, fixed), fixed, ())
    accounts = {}
    for name in fixed.results:
        own_segments = []
        for each in segments:
            cut = clip_spans(procedure.market, each.first, each.stop).get(name)
            if cut is not None:
                own_segments.append(each._replace(first=cut[0], stop=cut[1]))
        known = fixed.results[name] if own_segments[0][2:] == segments[0][2:] else None
        accounts[name] = switch(procedure.take_market(name), own_segments, known)
    return Walked(SeparateAccounts(accounts), fixed, ())


def switch(procedure: Procedure, segments: Sequence[Segment], fixed: Result | None) -> Result:
    stop = segments[-1].stop
    if fixed is not None and len(merge_segments(segments)) == 1:
        return fixed
    with warn_once(is_first=False):
        return run_switched(
            procedure.market.prefix(stop),
            segments,
            venue=procedure.venue,
            account=procedure.account,
            signal=procedure.slice_signal(stop),
            overlay=segments[0].overlay or procedure.overlay,
            sampling=procedure.sampling,
            calendar=procedure.calendar,
            compile=procedure.compile,
        )


def hold_at_equal_risk(
    procedure: Procedure, fold: SearchedFold, end: int, wanted: AnyAccount
) -> dict[str, float] | None:
    """Return the measures of a constant leverage with the volatility of another account.

    It trades the signal, under the overlay, with the costs of that account. None of an account
    with options, which have no leverage of their own, and of one that was ruined or did not move.
    """
    for each in list_results(wanted):
        moves = each.metrics["volatility"] > LEAST_DEVIATION
        if each.options is not None or each.metrics["ruined"] or not moves:
            return None
    if isinstance(wanted, SeparateAccounts):
        parts = {}
        for name, each in wanted.results.items():
            spans = clip_spans(procedure.market, fold.span.test, end)
            parts[name] = scale_held(procedure.take_market(name), fold, *spans[name], each)
        return SeparateAccounts(parts).metrics
    return dict(scale_held(procedure, fold, fold.span.test, end, wanted).metrics)


def scale_held(
    procedure: Procedure, fold: SearchedFold, first: int, stop: int, wanted: Result
) -> Result:
    def hold(turns: float) -> Result:
        found = procedure.run(fold.values, first, stop, ConstantLeverage(turns=turns))
        assert isinstance(found, Result)  # noqa: S101 - one market is one account
        return found

    return search_scale(hold(1.0), hold, wanted.metrics["volatility"], most=math.inf).result


# ------------------------------------------------------------------------------ tables and figures


def tabulate_folds(procedure: Procedure, found: Sequence[SearchedFold]) -> pd.DataFrame:
    table = tabulate_spans(procedure.market, [fold.span for fold in found])
    for name in procedure.names:
        table[name_column(name)] = [fold.values[name] for fold in found]
    inside = np.array([fold.verdict.score for fold in found])
    outside = np.array([fold.verdict.holdout_score for fold in found])
    is_positive = inside > 0.0
    return table.assign(
        in_sample=inside,
        out_of_sample=outside,
        rank=[fold.rank for fold in found],
        shrinkage=np.where(is_positive, outside / np.where(is_positive, inside, 1.0), np.nan),
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


def judge_walk(
    procedure: Procedure, found: Sequence[SearchedFold], table: pd.DataFrame, walked: Walked
) -> dict[str, Any]:
    inside = float(np.mean([fold.growth for fold in found if not math.isnan(fold.growth)]))
    years = [count_years(each) for each in walked.accounts]
    growth = [find_log_growth(each) for each in walked.accounts]
    outside = float(np.dot(growth, years)) / sum(years)
    ranks = table["rank"].to_numpy(dtype=np.float64)
    trades = count_trades(procedure, walked, found)
    known = int(np.count_nonzero(~np.isnan(ranks)))
    return {
        "growth_in_sample": inside,
        "growth_out_of_sample": outside,
        "growth_fixed": find_log_growth(walked.fixed),
        "efficiency": outside / inside if inside > 0.0 else math.nan,
        "efficiency_difference": outside - inside,
        "mean_rank": float(np.nanmean(ranks)) if known else math.nan,
        "pbo": estimate_share(share_overfit(ranks), known).to_dict(),
        **judge_account(procedure, found, walked),
        "trades": trades,
        "warnings": list(list_warnings(found, trades)),
    }


def judge_account(
    procedure: Procedure, found: Sequence[SearchedFold], walked: Walked
) -> dict[str, Any]:
    result, fixed = walked.result, walked.fixed
    if result is None:
        return {"sharpe": math.nan, "deflated_sharpe": math.nan, "against_fixed": None,
                "effective_trials": math.nan, "broken": {}, "beside": {}}  # fmt: skip
    sampled = sample_accounts([result, fixed])
    ruined = np.array([each.metrics["ruined"] != 0.0 for each in (result, fixed)])
    pair = np.array([[0, 1]])
    bases = np.array([find_basis(sampled.returns, pair[0], ruined)], dtype=object)
    rules = BootstrapRules(CONFIDENCE, DRAWS, procedure.seed)
    living = sampled._replace(returns=np.where(ruined[:, None], 0.0, sampled.returns))
    gap, _ = estimate_pairs(living, pair, bases, "log_growth", rules, None)
    trials = count_trials(procedure, found)
    deflated = deflate(procedure, result, sampled.returns[0] - sampled.free, trials)
    held = hold_at_equal_risk(procedure, found[0], found[-1].span.stop, result)
    beside = {"the market": follow_market(fixed)}
    beside |= {} if held is None else {"constant leverage at equal risk": held}
    return {
        "sharpe": float(result.metrics["sharpe"]),
        "effective_trials": trials,
        "deflated_sharpe": 0.0 if ruined[0] else deflated,
        "broken": find_broken(procedure, result),
        "beside": beside,
        "against_fixed": {
            **{name: float(column[0]) for name, column in gap.items()},
            "basis": str(bases[0]),
        },
    }


def count_trials(procedure: Procedure, found: Sequence[SearchedFold]) -> float:
    """Return the independent sets of all folds; those of a fold with one set chose nothing."""
    pools = 1.0 + procedure.n_left_out
    counts = [
        pools * len(fold.inside) if math.isnan(known) else known
        for fold in found
        if len(fold.inside) > 1
        for known in [fold.verdict.effective_trials]
    ]
    return max(pools, sum(counts))


def deflate(procedure: Procedure, account: AnyAccount, excess: FloatArray, trials: float) -> float:
    """Return the probability that the account is better than the luckiest of as many trials."""
    pool = procedure.pool
    if pool is None or pool.is_mean or isinstance(account, Result) or len(excess) < LEAST_DRAWN:
        return deflate_alone(excess, trials)[0]
    returns = account.returns_by_market.to_numpy().T[:, :, None]
    return find_chance(returns, pool, procedure.seed, trials)


def find_broken(procedure: Procedure, account: AnyAccount) -> dict[str, float]:
    """Return the constraints of the search that the account broke, and what it came to."""
    measured, pool = dict(account.metrics), procedure.pool
    if isinstance(account, SeparateAccounts) and pool is not None:
        measured |= account.pool(pool)
    columns = {name: np.array([value]) for name, value in measured.items()}
    return {
        str(each): float(measured[each.name])
        for each in procedure.goal.constraints
        if each.name in columns and each.violation(columns)[0] > 0.0
    }


def follow_market(account: AnyAccount) -> dict[str, float]:
    """Return the measures of holding the market over the same bars, without costs."""
    rows = [measure_holding(each) for each in list_results(account)]
    names = ("total_return", "volatility", "sharpe", "max_drawdown")
    row = {name: float(np.mean([getattr(each, name) for each in rows])) for name in names}
    cagr = [
        compound_growth(1.0 + held.total_return, each.span.years)
        for held, each in zip(rows, list_results(account), strict=True)
    ]
    return {**row, "cagr": float(np.mean(cagr))}


def count_years(account: AnyAccount) -> float:
    """Return the years that all accounts have in common."""
    spans = [each.span for each in list_results(account)]
    start, end = max(each.start for each in spans), min(int(each.closes[-1]) for each in spans)
    return spans[0]._replace(start=start, closes=np.array([end])).years


def find_log_growth(account: AnyAccount) -> float:
    """Return the log growth of the unit value per year; -inf after ruin."""
    if isinstance(account, Result):
        return find_growth(account)
    return float(account.metrics["log_growth"])


def sample_accounts(accounts: Sequence[AnyAccount]) -> Sampled:
    """Return the sampled returns of accounts over the same time, of shape (k, n)."""
    first = accounts[0]
    result = list_results(first)[0]
    rows = np.array([each.returns.to_numpy() for each in accounts])
    free: FloatArray = sample_free(result)
    if isinstance(first, SeparateAccounts):
        free = np.asarray(pd.Series(free, index=result.returns.index).loc[first.returns.index])
    return Sampled(rows, free, rows.shape[1] / count_years(first), result.span.periods)


def count_trades(procedure: Procedure, walked: Walked, found: Sequence[SearchedFold]) -> list[int]:
    runs = [each for account in walked.accounts for each in list_results(account)]
    fills = [each.events.loc[each.events["kind"] == "fill", "time"] for each in runs]
    times = pd.DatetimeIndex(pd.concat(fills)).as_unit("ns").asi8
    rows = np.searchsorted(procedure.market.time, times)
    return [int(np.sum((rows >= fold.span.test) & (rows < fold.span.stop))) for fold in found]


def list_warnings(found: Sequence[SearchedFold], trades: Sequence[int]) -> Iterator[str]:
    yield from warn_of_short([fold.span for fold in found])
    few = sum(n < FEW_TRADES for n in trades)
    if 2 * few > len(found):
        yield (
            f"{few} of {len(found)} folds have under {FEW_TRADES} trades, {sum(trades):,} in all: "
            "a fold says little about its parameters"
        )
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for text in (text for fold in found for text in fold.warnings):
        key = re.sub(r"[-+]?\d[\d.,e+-]*", "#", text)
        first.setdefault(key, text)
        counts[key] += 1
    for key, n in counts.most_common(MOST_NOTES):
        yield f"in {n} of {len(found)} folds, as in the first of them: {first[key]}"


# ----------------------------------------------------------------------- how much the winners move


def measure_stability(procedure: Procedure, found: Sequence[SearchedFold]) -> pd.DataFrame:
    pairs = [correlate_pair(one, other) for one, other in itertools.pairwise(found)]
    known = [value for value in pairs if not math.isnan(value)]
    rows = {}
    for each in procedure.space.dimensions:
        values = np.array([fold.values[each.name] for fold in found],
                          dtype=object if each.options else np.float64)  # fmt: skip
        spread = math.nan
        if not each.options:
            low, high = np.quantile(each.encode(values), [0.25, 0.75])
            spread = float(high - low)
        rows[each.name] = {
            "interquartile_range": spread,
            "plateau_held": measure_held_plateaus(each, values, procedure.rule.width),
            "rank_correlation": float(np.mean(known)) if known else math.nan,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("parameter")


def measure_held_plateaus(dimension: Dimension, values: np.ndarray, width: float) -> float:
    if len(values) < 2:
        return math.nan
    if dimension.options:
        return float(np.mean(values[1:] == values[:-1]))
    down, up = find_extent(dimension, values[:-1], width)
    move: FloatArray = np.diff(dimension.encode(values))
    return float(np.mean((move >= -down - 1e-12) & (move <= up + 1e-12)))


def correlate_pair(one: SearchedFold, other: SearchedFold) -> float:
    """Return the rank correlation of the sets that two folds tried; NaN of fewer than three."""
    tables = [pd.DataFrame(dict(fold.sets)).assign(score=fold.inside) for fold in (one, other)]
    shared = tables[0].merge(tables[1], on=list(one.sets), suffixes=("_one", "_other"))
    scores = shared[["score_one", "score_other"]].to_numpy(dtype=np.float64)
    known = scores[np.isfinite(scores).all(axis=1)]
    if len(known) < 3 or not np.ptp(known, axis=0).all():
        return math.nan
    return float(pd.Series(known[:, 0]).corr(pd.Series(known[:, 1]), method="spearman"))
