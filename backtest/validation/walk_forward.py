"""walk_forward(): tune on each train span, and trade the test span after it in one account."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from backtest.base import ParameterError, checked_only, record_making, warn_caller
from backtest.engine import Segment, merge_segments, run, run_switched
from backtest.market import Markets, with_clock
from backtest.sweep import Accounts, Pool, clip_spans, on_cluster
from backtest.tune import record_look
from backtest.validation.fold_search import (
    SearchedFold,
    describe_look,
    read_other_tries,
    record_folds,
    search_fold,
)
from backtest.validation.fold_spans import (
    TIMES,
    FoldSpan,
    describe_bar,
    plan_spans,
    read_plan,
    read_spans,
    tabulate_spans,
)
from backtest.validation.terms import SeparateAccounts
from backtest.validation.tuning_procedure import Procedure, read_procedure, silence_runs
from backtest.validation.validation_files import find_finished, open_progress
from backtest.validation.walk import WalkForward, measure_stability
from backtest.validation.walk_figures import Walked, judge_walk, tabulate_folds, tabulate_trials

if TYPE_CHECKING:
    from backtest.account import Account
    from backtest.engine import Progress, Result
    from backtest.market import Market
    from backtest.policy import Policy
    from backtest.sweep import Evaluator
    from backtest.tune import CountTries, Robustness
    from backtest.venue import Venue

KIND = "walk-forward"


@record_making
@checked_only("resume", "progress", "folds")
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
    market = procedure.terms.market
    if folds is None:
        spans = plan_spans(market, read_plan(train, test, anchored=anchored, gap=gap))
    else:
        spans = read_spans(folds, market)
    manifest = describe_walk(procedure, spans, carry=check_carry(carry))
    if (finished := find_finished(store, manifest, resume=resume)) is not None:
        return WalkForward.load(finished)
    evaluator = procedure.build_evaluator()
    with open_progress(store, manifest, resume=resume) as folder:
        with silence_runs(), on_cluster(evaluator, cluster) as working:
            count_tries = read_other_tries(store, procedure, manifest)
            found = search_folds(procedure, working, spans, folder, progress, count_tries)
        record_looks(store, procedure, manifest, found)
        walk = build_walk(procedure, found, manifest, count_tries, carry=carry)
        if store is not None:
            walk.save(store)
    for text in walk.warnings:
        warn_caller(text)
    return walk


def check_carry(carry: object) -> bool:
    if not isinstance(carry, bool):
        raise ParameterError(f"carry must be True or False, got {carry!r}")
    return carry


def describe_walk(procedure: Procedure, spans: list[FoldSpan], *, carry: bool) -> dict[str, Any]:
    table = tabulate_spans(procedure.terms.market, spans)
    folds = [[f"{time:%Y-%m-%d %H:%M:%S}" for time in row] for row in table.to_numpy().tolist()]
    return procedure.describe(
        KIND,
        sampler=procedure.sampler,
        robust=procedure.rule.to_dict() if procedure.is_robust else False,
        carry=carry,
        spans={"columns": list(TIMES), "rows": folds},
    )


def search_folds(
    procedure: Procedure,
    evaluator: Evaluator,
    spans: list[FoldSpan],
    folder: Path | None,
    progress: Progress | None,
    count_tries: CountTries,
) -> list[SearchedFold]:
    found: list[SearchedFold] = []
    for k, span in enumerate(spans):
        own = None if folder is None else folder / f"fold-{k:05d}"
        on_batch = count_sets_done(progress, k, len(spans), procedure.trials)
        fold = search_fold(procedure, evaluator, span, own, count_tries, on_batch)
        if fold.winner < 0 and not found:
            raise ParameterError(
                "the first train span must have a set that keeps all constraints, none of "
                f"{len(fold.inside):,} does from {describe_bar(evaluator.market, span.train)}"
            )
        if fold.winner < 0:
            fold = fold._replace(values=found[-1].values)
        found.append(fold)
    if progress is not None:
        progress(len(spans) * procedure.trials, len(spans) * procedure.trials)
    return found


def count_sets_done(
    progress: Progress | None, fold: int, n_folds: int, trials: int
) -> Callable[[Any], object] | None:
    if progress is None:
        return None
    return lambda now: progress(fold * trials + min(now.trials, trials), n_folds * trials)


def record_looks(
    store: str | Path | None,
    procedure: Procedure,
    manifest: dict[str, Any],
    found: list[SearchedFold],
) -> None:
    if store is None:
        return
    record_folds(Path(store), procedure, manifest, found)
    for fold in found:
        if fold.values:
            record_look(Path(store), describe_look(procedure, manifest, fold.span), fold.values)


# -------------------------------------------------------------------------------- the accounts


def build_walk(
    procedure: Procedure,
    found: list[SearchedFold],
    manifest: dict[str, Any],
    count_tries: CountTries,
    *,
    carry: bool,
) -> WalkForward:
    walked = run_walk(procedure, found, carry=carry)
    table = tabulate_folds(procedure, found)
    others = count_tries(found[0].span.train, found[-1].span.train_stop)
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
    segments = [
        Segment(
            fold.span.test,
            stop,
            procedure.build_trio(fold.values).policy,
            procedure.build_signal(fold.values),
            procedure.find_own_overlay(fold.values),
        )
        for fold, stop in zip(found, stops, strict=True)
    ]
    fixed = run_part(procedure, found[0].values, first, end)
    if carry:
        return Walked(switch(procedure, segments, fixed), fixed, ())
    parts = tuple(
        run_part(procedure, fold.values, segment.first, segment.stop)
        for fold, segment in zip(found, segments, strict=True)
    )
    return Walked(None, fixed, parts)


def switch(procedure: Procedure, segments: Sequence[Segment], fixed: Any) -> Any:
    if procedure.pool is None:
        return switch_account(procedure, segments, fixed)
    market, found = procedure.terms.market, {}
    for name in fixed.results:
        cuts = [clip_spans(market, each.first, each.stop).get(name) for each in segments]
        own = [
            each._replace(first=cut[0], stop=cut[1])
            for each, cut in zip(segments, cuts, strict=True)
            if cut is not None
        ]
        known = fixed.results[name] if own[0][2:] == segments[0][2:] else None
        found[name] = switch_account(procedure.take_market(name), own, known)
    return SeparateAccounts(found)


def switch_account(
    procedure: Procedure, segments: Sequence[Segment], fixed: Result | None
) -> Result:
    terms, stop = procedure.terms, segments[-1].stop
    if fixed is not None and len(merge_segments(segments)) == 1:
        return fixed
    with silence_runs():
        return run_switched(
            terms.market.prefix(stop),
            segments,
            venue=terms.venue,
            account=terms.account,
            signal=slice_signal(procedure, stop),
            overlay=segments[0].overlay or terms.overlay,
            sampling=terms.sampling,
            calendar=terms.calendar,
            compile=terms.compile,
        )


def run_part(procedure: Procedure, values: Mapping[str, Any], first: int, stop: int) -> Any:
    if procedure.pool is not None:
        spans = clip_spans(procedure.terms.market, first, stop)
        return SeparateAccounts(
            {
                name: run_part(procedure.take_market(name), values, *span)
                for name, span in spans.items()
            }
        )
    terms, trio = procedure.terms, procedure.build_trio(values)
    market = terms.market if stop == terms.market.n_bars else terms.market.prefix(stop)
    with silence_runs():
        found: Result = run(
            market,
            trio.policy,
            venue=trio.venue,
            account=trio.account,
            signal=procedure.build_signal(values) or slice_signal(procedure, stop),
            overlay=procedure.build_overlay(values),
            sampling=terms.sampling,
            calendar=terms.calendar,
            compile=terms.compile,
            start=terms.market.times[first],
        )
    return found


def slice_signal(procedure: Procedure, stop: int) -> Any:
    terms = procedure.terms
    if stop == terms.market.n_bars:
        return terms.signal
    return terms.read_directions().take_first(stop)
