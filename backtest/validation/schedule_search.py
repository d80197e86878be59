"""schedules(): compare how often a policy is re-tuned, and on how much of the past."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import (
    ParameterError,
    Place,
    checked_only,
    did_you_mean,
    parse_duration,
    record_making,
    repr_plain,
    warn_caller,
)
from backtest.base.units import DAY
from backtest.compare import check_rules, compare_results, describe_shared
from backtest.market import with_clock
from backtest.measures import (
    deflated_sharpe_of_returns,
    expected_max_sharpe,
    simulate_luck,
)
from backtest.sweep import Accounts, Pool, on_cluster
from backtest.validation.fold_search import read_other_tries
from backtest.validation.fold_spans import FoldSpan, WalkPlan, plan_spans
from backtest.validation.interval_estimates import share_overfit
from backtest.validation.schedules import Schedules
from backtest.validation.tuning_procedure import (
    Procedure,
    read_procedure,
    require_mean,
    silence_runs,
)
from backtest.validation.validation_files import find_finished, open_progress
from backtest.validation.walk_figures import tabulate_folds
from backtest.validation.walk_forward import record_looks, run_walk, search_folds

if TYPE_CHECKING:
    from backtest.account import Account
    from backtest.compare import Comparison
    from backtest.engine import Progress
    from backtest.market import Market, Markets
    from backtest.policy import Policy
    from backtest.sweep import Evaluator
    from backtest.tune import CountTries, Robustness
    from backtest.validation.fold_search import SearchedFold
    from backtest.venue import Venue

KIND = "schedules"
CALL = "bt.schedules"
NEVER, ALL = "never", "all"
USUAL = "365d"
MOST = 40
"""Most schedules."""


class Schedule(NamedTuple):
    name: str
    train: str
    test: str
    spans: list[FoldSpan]


@record_making
@checked_only("train", "test", "resume", "progress")
def schedules(  # noqa: PLR0913 - keywords, each with a default that is said
    market: Market | Markets,
    policy: type[Policy] | Policy,
    *,
    venue: Venue | Mapping[str, Venue],
    account: Account,
    accounts: Accounts = "shared",
    pool: Pool = "mean",
    markets_left_out: int = 0,
    train: Sequence[str] | str = ("90d", "365d", "all"),
    test: Sequence[str] | str = ("7d", "30d", "90d"),
    baseline: str = NEVER,
    space: Mapping[str, Any] | None = None,
    fix: Mapping[str, Any] | None = None,
    objective: Any = "sharpe",
    constraints: Mapping[str, str] | None = None,
    trials: int | None = None,
    sampler: str = "auto",
    robust: bool | Robustness = True,
    confidence: float = 0.95,
    draws: int = 1_999,
    seed: int = 0,
    store: str | Path | None = None,
    resume: bool = False,
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
) -> Schedules:
    """Walk forward under each schedule of re-tuning, and compare what the accounts earned.

    Parameters
    ----------
    market, venue, account, signal, overlay, sampling, calendar, compile, decide, detail
        As in :func:`backtest.walk_forward`.
    accounts, pool, markets_left_out
        As in :func:`backtest.walk_forward`.
    policy, space, fix, objective, constraints, trials, sampler, robust, seed, threads, memory
        As in :func:`backtest.walk_forward`.
    train : sequence of str
        Lengths of train spans; ``"all"`` is all of the past.
    test : sequence of str
        Lengths of test spans: how often parameters are tuned. Every train length is combined with
        every test length.
    baseline : str
        What the others are compared with: ``"never"``, tuned once on all bars before the first
        test span and left alone, or the name of a schedule, ``"30d on 365d"`` for example.
    confidence, draws : float, int
        As in :func:`backtest.compare`.
    store, resume, cluster, progress
        As in :func:`backtest.walk_forward`.

    Returns
    -------
    Schedules

    Raises
    ------
    ParameterError
        If an argument is not allowed, a span is too short, or nothing is there to resume.

    Notes
    -----
    All accounts live over the same bars: every schedule's first test span opens after the longest
    train span. Differences of log growth are tested by the stationary bootstrap of
    :func:`backtest.compare`, with Holm's correction. The schedules count as trials in the deflated
    Sharpe ratio of the best of them.
    """
    market = with_clock(market, decide, detail, call="bt.schedules")
    procedure = read_procedure(CALL, locals())
    require_mean(CALL, procedure)
    market = procedure.terms.market
    planned = plan_schedules(market, read_lengths("train", train), read_lengths("test", test))
    check_baseline(baseline, planned)
    rules = check_rules(confidence, draws, seed)
    manifest = procedure.describe(
        KIND,
        sampler=sampler,
        robust=procedure.rule.to_dict() if procedure.is_robust else False,
        schedules=[[each.name, each.train, each.test] for each in planned],
        baseline=baseline,
        confidence=rules.confidence,
        draws=rules.draws,
    )
    if (finished := find_finished(store, manifest, resume=resume)) is not None:
        return Schedules.load(finished)
    evaluator = procedure.build_evaluator()
    with open_progress(store, manifest, resume=resume) as folder:
        with silence_runs(), on_cluster(evaluator, cluster) as working:
            count_tries = read_other_tries(store, procedure, manifest)
            found = search_schedules(
                procedure, working, planned, manifest, folder, progress, count_tries
            )
        results = {
            each.name: run_schedule(procedure, folds)
            for each, folds in zip(planned, found, strict=True)
        }
        start = market.times[planned[0].spans[0].test]
        setting = procedure.terms._replace(start=start)
        shared = describe_shared(results, setting, is_separate=procedure.pool is not None)
        compared = compare_results(results, setting, baseline, rules, shared)
        made = build_schedules(procedure, planned, found, compared, manifest)
        if store is not None:
            different = {fold.span: fold for folds in found for fold in folds}
            record_looks(store, procedure, manifest, [*different.values()])
            made.save(store)
    for text in made.warnings:
        warn_caller(text)
    return made


def read_lengths(name: str, given: Sequence[str] | str) -> list[str]:
    where = Place(name, of=CALL)
    lengths = [given] if isinstance(given, str) else list(given)
    if not lengths:
        raise ParameterError(
            f"schedules need a length of {name} spans, got none",
            where=where,
            cure="give ('30d', '90d'), for example",
        )
    for text in lengths:
        if not (name == "train" and text == ALL):
            parse_duration(text, where=where)
    return list(dict.fromkeys(lengths))


def plan_schedules(market: Market | Markets, trains: list[str], tests: list[str]) -> list[Schedule]:
    where = Place("train", of=CALL)
    known = [parse_duration(text, where=where) for text in trains if text != ALL]
    longest = max(known, default=parse_duration(USUAL, where=where))
    begin = market.start + longest
    if len(trains) * len(tests) > MOST:
        raise ParameterError(
            f"at most {MOST} schedules can be compared, got {len(trains) * len(tests)}",
            where=where,
            cure="give fewer lengths: every schedule counts as a trial",
        )
    once = plan_spans(market, WalkPlan(longest, max(market.end - begin, DAY), 0, True, begin))
    found = [Schedule(NEVER, ALL, NEVER, once)]
    for train, test in itertools.product(trains, tests):
        length = longest if train == ALL else parse_duration(train, where=where)
        short = parse_duration(test, where=Place("test", of=CALL))
        plan = WalkPlan(length, short, 0, train == ALL, begin)
        found.append(Schedule(f"{test} on {train}", train, test, plan_spans(market, plan)))
    return found


def check_baseline(baseline: str, planned: Sequence[Schedule]) -> None:
    names = [each.name for each in planned]
    if not isinstance(baseline, str) or baseline not in names:
        raise ParameterError(
            f"the baseline must be a schedule, got {repr_plain(baseline)}"
            + did_you_mean(baseline, names),
            where=Place("baseline", of=CALL),
            cure=f"choose one of {', '.join(names)}",
        )


def search_schedules(
    procedure: Procedure,
    evaluator: Evaluator,
    planned: Sequence[Schedule],
    manifest: Mapping[str, Any],
    folder: Path | None,
    progress: Progress | None,
    count_tries: CountTries,
) -> list[list[SearchedFold]]:
    known: dict[FoldSpan, SearchedFold] = {}
    total = sum(len(each.spans) for each in planned) * procedure.trials
    found = []
    for k, each in enumerate(planned):
        before = sum(len(other.spans) for other in planned[:k]) * procedure.trials
        own = None if folder is None else folder / f"schedule-{k:03d}"
        on_sets = add_before(progress, before, total)
        facts = {"id": f"{manifest['id']}-{k}"}
        found.append(
            search_folds(procedure, evaluator, each.spans, facts, own, on_sets, count_tries, known)
        )
    return found


def add_before(progress: Progress | None, before: int, total: int) -> Progress | None:
    return None if progress is None else lambda done, _: progress(before + done, total)


def run_schedule(procedure: Procedure, folds: Sequence[SearchedFold]) -> Any:
    walked = run_walk(procedure, list(folds), carry=True)
    return walked.fixed if walked.result is None else walked.result


def build_schedules(
    procedure: Procedure,
    planned: Sequence[Schedule],
    found: Sequence[Sequence[SearchedFold]],
    compared: Comparison,
    manifest: dict[str, Any],
) -> Schedules:
    tables = [tabulate_folds(procedure, folds).reset_index() for folds in found]
    rows = compared.differences
    growth = rows[rows["measure"] == "log_growth"].set_index("policy")
    measures = ["log_growth", "sharpe", "max_drawdown", "volatility", "turnover", "fees", "ruined"]
    table = pd.DataFrame(
        {
            "schedule": [each.name for each in planned],
            "train": [each.train for each in planned],
            "test": [each.test for each in planned],
            "folds": [len(each.spans) for each in planned],
            "pbo": [share_overfit(each["rank"].to_numpy(dtype=np.float64)) for each in tables],
        }
    ).set_index("schedule")
    table = table.join(compared.table[measures])
    wanted = ["difference", "low", "high", "p_value", "p_holm", "distinguishable", "basis"]
    table = table.join(growth[wanted])
    table["distinguishable"] = table["distinguishable"].eq(True)
    table["basis"] = table["basis"].fillna("baseline").astype(str)
    folds = [each.assign(schedule=plan.name) for each, plan in zip(tables, planned, strict=True)]
    return Schedules(
        table=table,
        folds=pd.concat(folds, ignore_index=True),
        returns=compared.returns,
        figures=judge_schedules(procedure, compared),
        manifest=manifest,
        comparison=compared,
    )


def judge_schedules(procedure: Procedure, compared: Comparison) -> dict[str, Any]:
    living = [name for name in compared.order if name not in compared.ruined]
    notes = list(compared.warnings)
    if not living or len(compared.returns) < 2:
        return {"best": "", "deflated_sharpe": None, "lucky_sharpe": None, "warnings": notes}
    sampled = compared.sample(living)
    excess = sampled.returns - sampled.free
    sharpes = np.nan_to_num(compared.table.loc[living, "sharpe"].to_numpy(dtype=np.float64))
    scale = float(np.sqrt(sampled.periods))
    found = simulate_luck(excess.T, n_trials=len(compared.names))
    n = found.n * (1 + procedure.n_left_out)
    deviation = found.find_deviation(excess.shape[1], sampled.periods)
    best = int(np.argmax(sharpes))
    return {
        "best": living[best],
        "effective_trials": n,
        "lucky_sharpe": expected_max_sharpe(n, deviation),
        "deflated_sharpe": deflated_sharpe_of_returns(
            excess[best], n_trials=n, std=deviation / scale
        ),
        "warnings": notes,
    }
