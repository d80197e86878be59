"""tune(): search for good parameters, and measure how much of the result is luck."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from backtest.base import (
    Choice,
    Making,
    Number,
    ParameterError,
    VenueDateWarning,
    Whole,
    checked_only,
    compute_id,
    discard_folder,
    find_versions,
    format_time,
    name_callable,
    name_folder,
    repr_plain,
    to_plain,
    warn_caller,
)
from backtest.base.provenance import COMMAND, attach_making
from backtest.base.result_folders import MANIFEST
from backtest.engine import (
    SignalRule,
    check_overlay,
    check_terms,
    describe_bars,
    describe_venue,
    end_expired,
    hash_source,
    read_named,
    warn_of_market,
    warn_of_weights,
    widen_market,
)
from backtest.market import Markets, as_markets, with_clock
from backtest.measures import (
    ObjectiveLike,
    read_aversion,
    read_constraints,
    read_objective,
)
from backtest.measures.measure_table import CORE, PATH
from backtest.sweep import (
    Accounts,
    BaseTerms,
    Evaluator,
    Pool,
    choose_evaluator,
    list_names,
    on_cluster,
    read_accounts,
    read_space,
    resolve_signals,
)
from backtest.tune.journal import UNFINISHED, Journal, open_folder
from backtest.tune.looks import (
    Bench,
    check_columns,
    find_split,
    record_tries,
    warn_of_unseen,
)
from backtest.tune.study import Study
from backtest.tune.trials import Budget, Examiner, Goal, Progress, search
from backtest.tune.winner import (
    BUDGET_SHARE,
    PLAIN,
    Robustness,
    StudyOutcome,
    StudyTask,
    build_outcome,
    reserve_trials,
)

if TYPE_CHECKING:
    from backtest.account import Account
    from backtest.market import Market
    from backtest.policy import Policy
    from backtest.sweep import Metrics
    from backtest.tune.samplers import SamplerName
    from backtest.venue import Venue


TRIALS = 20_000
"""Trials if neither trials nor seconds are given."""
LEAST_TRIALS = 4


@checked_only("resume", "store", "progress")
def tune(  # noqa: PLR0913 - keywords, each with a default that is said
    market: Market | Markets,
    policy: type[Policy] | Policy,
    *,
    venue: Venue | Mapping[str, Venue],
    account: Account,
    accounts: Accounts = "shared",
    pool: Pool = "mean",
    objective: ObjectiveLike = "sharpe",
    constraints: Mapping[str, str] | None = None,
    trials: int | None = None,
    seconds: float | None = None,
    sampler: SamplerName = "auto",
    space: Mapping[str, Any] | None = None,
    fix: Mapping[str, Any] | None = None,
    robust: bool | Robustness = True,
    holdout: str | float | None = "25%",
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
    progress: Callable[[Progress], object] | None = None,
    decide: str | None = None,
    detail: Any = None,
) -> Study:
    """Search for good parameters of a policy, and measure how much of the result is luck.

    Parameters
    ----------
    market, venue, account, signal, overlay, sampling, calendar, compile, decide, detail
        As in :func:`backtest.run`; several markets have one policy, whose parameters are those of
        all instruments.
    policy : type or Policy
        A policy class, or an instance whose settings are used unless the search varies them.
    accounts, pool : str, str or callable
        ``accounts="separate"`` scores each set in every market in an account of its own, and pools
        the measures, as in :func:`backtest.sweep.sweep.sweep`. The deflated Sharpe ratio is that of
        the mean of the returns, on the days that all markets have; the markets are no trials. For
        other pools than ``"mean"`` the verdict is a bootstrap that draws the same days in all
        markets.
    objective : str, mapping or callable
        What to maximize, as in :func:`backtest.measures.ranking.read_objective`: a measure, a
        weighted sum ``{"sharpe": 1.0, "turnover": -0.01}``, or a function of the measures of one
        set.
    constraints : mapping, optional
        Bounds such as ``{"max_drawdown": "<= 0.4", "liquidations": "== 0"}``. A set that breaks one
        never wins over a set that does not. No ruin is always a constraint.
    trials : int, optional
        Most sets to evaluate, neighbors included, at least 4. Default 20,000 if ``seconds`` is not
        given either. A sampler may end earlier if nothing more is gained.
    seconds : float, optional
        Most time to search, not counting the time to compile or load before the first result; time
        spent before a resume counts. With ``trials``, whichever ends first. With ``robust``, a
        quarter of either is reserved for the neighbors of candidates.
    sampler : str
        ``"auto"`` (Sobol points, then CMA-ES with restarts), ``"gp"`` (a Gaussian process: a second
        of thinking for each set), ``"sobol"``, ``"random"`` or ``"grid"``;
        :func:`backtest.objective` serves any other optimizer.
    space : mapping, optional
        What varies, as in :func:`backtest.sweep.sets.space.read_space`: ``{"target": (0.1, 1.0)}``.
        Default all parameters of the policy over their declared ranges. Where ``signal`` is a rule,
        ``signal.window`` is its parameter ``window``.
    fix : mapping, optional
        Settings with one value in every set.
    robust : bool or Robustness
        Whether the leading sets are ranked by a low quantile of the objective over their neighbors
        and over parts of the time; a :class:`~backtest.tune.winner.Robustness` says how. False
        takes the highest objective. With too few trials for many candidates, the highest objective
        may win, with a warning.
    holdout : str, float or None
        The last part of the data, which the search never sees: a share (``"25%"``), a duration
        (``"90d"``), or 0 or None for none. The winner is evaluated on it, and every look at it is
        counted.
    seed : int
        Seed of all random numbers. The same seed gives the same study with any number of threads.
    store : str or Path, optional
        Folder in which the study gets a folder of its own, ``"results"`` for example. None keeps
        it in memory only: a crash loses it, and looks at the holdout are not counted.
    resume : bool
        Continue the study of the same data, policy source, settings and seed in the store. Its
        result is the same as if it had not been interrupted.
    threads : int, optional
        Number of threads; default all cores.
    memory : str
        Limit for the columns of policies.
    cluster : str, optional
        ``"tcp://host:port"`` or ``"local:N"``: the cluster to use, see
        :mod:`backtest.sweep.cluster`. The numbers do not depend on it.
    progress : callable, optional
        Called with a :class:`~backtest.tune.trials.Progress` after every piece of work.

    Returns
    -------
    Study
        After Ctrl-C, an unfinished study with the sets that were done.

    Raises
    ------
    ParameterError
        If an argument is not allowed, or the study to resume differs.
    DataError
        If the folder cannot be written, is damaged, or another process works in it.
    PolicyError
        If every set of a batch fails.
    """
    problem = read_problem(
        market, policy, venue=venue, account=account, accounts=accounts, pool=pool, signal=signal,
        overlay=overlay, sampling=sampling, calendar=calendar, holdout=holdout, decide=decide,
        detail=detail,
    )  # fmt: skip
    market, named, split = problem.market, problem.named, problem.split
    number, limit = read_budget(trials, seconds)
    rule = read_robustness(robust)
    check_choices(sampler, seed)
    own = named if isinstance(named, SignalRule) else None
    found = read_space(
        policy, space, fix=fix, account=account, venue=venue, signal=own,
        names=() if accounts == "separate" else list_names(market), overlay=check_overlay(overlay),
    )  # fmt: skip
    goal = Goal(read_objective(objective), read_constraints(constraints))
    metrics = choose_metrics(objective, goal)
    whole = problem.make(market, signal=problem.resolved)
    if accounts != "separate":
        warn_of_weights(problem.resolved, as_markets(market))
    manifest = describe_study(
        BaseTerms(policy, venue, account),
        market,
        whole.describe_signals(),
        sampling=sampling,
        calendar=calendar,
        objective=goal.objective.name,
        objective_source=describe_objective(objective),
        constraints=[str(each) for each in goal.constraints],
        metrics=metrics,
        space=found.describe(),
        sampler=sampler,
        budget={"trials": number, "seconds": limit},
        robust=rule.to_dict() if robust else False,
        holdout=holdout,
        searched=format_time(int(market.time[split - 1]) + market.interval),
        seed=seed,
        **({} if overlay is None else {"overlay": repr(overlay)}),
        **whole.describe_pool(),
    )
    prepare = partial(
        problem.make,
        signal=own if found.varies_signal else whole.keep_signals(),
        sampling=sampling,
        calendar=calendar,
        metrics=metrics,
        threads=threads,
        memory=memory,
        compile=compile,
    )
    place = None if store is None else Path(store)
    finished = find_finished(place, manifest, resume=resume)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VenueDateWarning)  # given above for the whole market
        task = StudyTask(
            facts=manifest,
            space=found,
            goal=goal,
            rule=rule,
            is_robust=bool(robust),
            trials=number,
            seconds=limit,
            seed=seed,
            seen=prepare(market.prefix(split)),
            bench=Bench(prepare(market), split),
            store=place,
        )
        if finished is not None:
            study = dataclasses.replace(Study.load(finished), bench=task.bench)
        else:
            with on_cluster(task.seen, cluster) as working:
                study = run_study(task._replace(seen=working), progress)
    return study


class Problem(NamedTuple):
    """Market, signal and holdout of a search, and how its evaluators are made."""

    market: Any
    named: Any
    resolved: Any
    split: int
    make: Callable[..., Evaluator]


def read_problem(  # noqa: PLR0913 - keywords of tune and objective
    market: Market | Markets,
    policy: type[Policy] | Policy,
    *,
    venue: Any,
    account: Account,
    accounts: Accounts,
    pool: Pool,
    signal: Any,
    overlay: Policy | None,
    sampling: str,
    calendar: str,
    holdout: str | float | None,
    decide: str | None,
    detail: Any,
) -> Problem:
    market = with_clock(market, decide, detail)
    is_separate, market = read_accounts(accounts, market, venue)
    if not is_separate:
        market, signal = widen_market(
            market, signal, policy=policy, venue=venue, account=account, overlay=overlay
        )
        check_terms(end_expired(market, venue), policy, venue, account, sampling, calendar)
    market = end_expired(market, venue)
    warn_of_market(market, venue)
    split = find_split(market, holdout)
    warn_of_unseen(market, split)
    named = read_named(signal, market)
    make = partial(
        choose_evaluator(pool, is_separate=is_separate),
        policy=policy,
        venue=venue,
        account=account,
        overlay=overlay,
    )
    return Problem(
        market, named, resolve_signals(named, market, is_separate=is_separate), split, make
    )


def objective(  # noqa: PLR0913 - keywords, each with a default that is said
    market: Market | Markets,
    policy: type[Policy] | Policy,
    *,
    venue: Venue | Mapping[str, Venue],
    account: Account,
    accounts: Accounts = "shared",
    pool: Pool = "mean",
    objective: ObjectiveLike = "sharpe",
    constraints: Mapping[str, str] | None = None,
    fix: Mapping[str, Any] | None = None,
    holdout: str | float | None = "25%",
    signal: Any = None,
    overlay: Policy | None = None,
    sampling: str = "1d",
    calendar: str = "365",
    compile: bool = True,  # noqa: A002 - the word users know
    decide: str | None = None,
    detail: Any = None,
) -> Callable[[Mapping[str, Any]], float]:
    """Return a function from values of parameters to the score that a search would maximize.

    Parameters
    ----------
    market, policy, venue, account, accounts, pool, objective, constraints, fix, holdout
        As in :func:`backtest.tune`. The score is of the bars before the holdout.
    signal, overlay, sampling, calendar, compile, decide, detail
        As in :func:`backtest.tune`.

    Returns
    -------
    callable
        Takes a mapping such as ``{"target": 0.4}``, with the names that a ``space`` has, and
        returns a float: minus infinity if the account was ruined or breaks a constraint, NaN if
        the run of the set fails or the objective is not defined for it.

    Raises
    ------
    ParameterError
        If an argument is not allowed; from the function, if a value is out of its range.
    PolicyError
        From the function, if the columns of the first set look ahead.
    """
    problem = read_problem(
        market, policy, venue=venue, account=account, accounts=accounts, pool=pool, signal=signal,
        overlay=overlay, sampling=sampling, calendar=calendar, holdout=holdout, decide=decide,
        detail=detail,
    )  # fmt: skip
    goal = Goal(read_objective(objective), read_constraints(constraints))
    named = problem.named
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VenueDateWarning)  # given above
        lasting = problem.make(problem.market, signal=problem.resolved).keep_signals()
        evaluator = problem.make(
            problem.market.prefix(problem.split),
            signal=named if isinstance(named, SignalRule) else lasting,
            sampling=sampling,
            calendar=calendar,
            metrics=choose_metrics(objective, goal),
            compile=compile,
        )
    is_checked = False

    def score(values: Mapping[str, Any]) -> float:
        nonlocal is_checked
        if not isinstance(values, Mapping):
            raise ParameterError(
                f"values must be a mapping of parameters, got {repr_plain(values):.60}"
            )
        columns = {name: [value] for name, value in {**(fix or {}), **values}.items()}
        sets = check_columns(evaluator.base, columns)
        if not is_checked:
            evaluator.check_causal(sets)
            is_checked = True
        rows = evaluator.evaluate(sets)
        if not rows.done[0]:
            raise KeyboardInterrupt
        if rows.errors[0]:
            return float("nan")
        scores, violation = goal.score(rows.metrics, ~rows.done)
        return float(scores[0]) if violation[0] == 0.0 else float("-inf")

    return score


# ---------------------------------------------------------------------------------------- the study


def describe_study(
    base: BaseTerms, market: Market | Markets, signal: str, **settings: Any
) -> dict[str, Any]:
    manifest: dict[str, Any] = to_plain(
        {
            "kind": Study.kind,
            "data": {**describe_market(market), "source": repr(market)},
            "policy": describe_policy(base),
            "venue": describe_venue(base.venue),
            "account": base.account.to_dict(),
            "signal": signal,
            **settings,
        }
    )
    beside = {"policy_module": base.policy_class.__module__, "versions": find_versions()}
    return {"id": compute_id(manifest), **manifest, **beside}


def describe_market(market: Market | Markets) -> dict[str, Any]:
    found = describe_bars(market, market.start, market.time + market.interval)
    del found["source"]
    if isinstance(market, Markets):
        found["instruments"] = {name: each.content_hash for name, each in market.items()}
    return found


def describe_policy(base: BaseTerms) -> dict[str, Any]:
    cls = base.policy_class
    held = {} if isinstance(base.policy, type) else base.policy.settings()
    defaults = {
        name: each.default for name, each in cls.parameters().items() if each.default is not None
    }
    return {
        "name": cls.__name__,
        "source_hash": hash_source(cls),
        "settings": defaults | held,
    }


def describe_objective(objective: Any) -> Any:
    if isinstance(objective, Mapping):
        return {name: float(weight) for name, weight in objective.items()}
    return name_callable(objective) if callable(objective) else str(objective)


def find_finished(store: Path | None, manifest: Mapping[str, Any], *, resume: bool) -> Path | None:
    """Return the folder of a finished study, if this one is to be resumed and is finished."""
    if store is None:
        if resume:
            raise ParameterError("resume needs the store that the study was started in, got None")
        return None
    name = name_study(manifest)
    finished, begun = store / name, store / f"{UNFINISHED}{name}"
    is_finished = (finished / MANIFEST).is_file()
    if not resume and (is_finished or (begun / MANIFEST).is_file()):
        raise ParameterError(
            f"{finished if is_finished else begun}: this study was already started; resume=True "
            "continues it, bt.Study.load loads it if it is finished, another seed is another study"
        )
    if resume and not (is_finished or begun.is_dir()):
        raise ParameterError(
            f"{store}: there is no study of {manifest['policy']['name']} of these data, policy "
            "source and settings to resume"
        )
    if is_finished and begun.is_dir():  # of a process that was killed after it saved the study
        discard_folder(begun)
    return finished if is_finished else None


def name_study(manifest: Mapping[str, Any]) -> str:
    return name_folder(f"{manifest['policy']['name']} {Study.kind}", manifest["id"])


def run_study(task: StudyTask, progress: Callable[[Progress], object] | None) -> Study:
    if task.store is None:
        return search_journal(task, None, progress)
    folder = task.store / f"{UNFINISHED}{name_study(task.facts)}"
    with open_folder(folder, task.facts):
        study = search_journal(task, folder, progress)
        if study.complete:
            if study.trials:
                record_tries(task.store, task.facts, study.trials)
            study.save(task.store)
            discard_folder(folder)
    return study


def search_journal(
    task: StudyTask, folder: Path | None, progress: Callable[[Progress], object] | None
) -> Study:
    examiner = Examiner(task.seen, task.goal, Journal(folder), total=task.trials, progress=progress)
    outcome = None
    with contextlib.suppress(KeyboardInterrupt):
        outcome = search_and_choose(task, examiner)
    study = Study(task.facts, tuple(examiner.batches), outcome, task.store, task.bench)
    attach_making(study, Making(round(examiner.elapsed, 6), {}, argv=COMMAND.get()))
    if not study.complete:
        warn_caller(f"interrupted: the study is unfinished, {study.trials:,} sets were evaluated")
    return study


def search_and_choose(task: StudyTask, examiner: Examiner) -> StudyOutcome:
    task.seen.check_causal(task.space.list_ends())
    examiner.start_clock()  # a budget in seconds is for the search
    trials = task.trials
    if trials is not None:
        trials -= reserve_trials(task.rule, trials, is_robust=task.is_robust)
    share = 1.0 - BUDGET_SHARE if task.is_robust else 1.0
    budget = Budget(trials, math.inf if task.seconds is None else share * task.seconds)
    search(examiner, task.space, task.facts["sampler"], budget, task.seed)
    return build_outcome(task, examiner)


# ---------------------------------------------------------------------------------- the arguments


def read_budget(trials: int | None, seconds: float | None) -> tuple[int | None, float | None]:
    if trials is None and seconds is None:
        return TRIALS, None
    number = None
    if trials is not None:
        number = Whole(LEAST_TRIALS).check("trials", trials)
    limit = None
    if seconds is not None:
        limit = Number(0.0, open_low=True).check("seconds", seconds)
    return number, limit


def read_robustness(robust: object) -> Robustness:
    if isinstance(robust, Robustness):
        return robust
    if not isinstance(robust, bool):
        raise ParameterError(f"robust must be True, False or a bt.Robustness, got {robust!r}")
    return Robustness() if robust else PLAIN


def check_choices(sampler: str, seed: int) -> None:
    from backtest.tune.samplers import SamplerName  # noqa: PLC0415 - they load SciPy and more

    Choice(*get_args(SamplerName)).check("sampler", sampler)
    Whole(0).check("seed", seed)


def choose_metrics(objective: ObjectiveLike, goal: Goal) -> Metrics:
    if callable(objective):
        return "all"
    names = {*objective} if isinstance(objective, Mapping) else {objective.strip().lstrip("- ")}
    names |= {each.name for each in goal.constraints}
    by_aversion = tuple(sorted(name for name in names if read_aversion(name) is not None))
    names -= {*by_aversion}
    slow = sorted(names & set(PATH))
    if slow:
        raise ParameterError(
            "objective and constraints must be measures that need no path of an account, got "
            f"{', '.join(slow)}; study.replay().metrics has all"
        )
    if by_aversion:
        return by_aversion
    return "core" if names <= set(CORE) else "all"
