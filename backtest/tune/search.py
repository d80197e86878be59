"""tune(): search for good parameters, and measure how much of the result is luck."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backtest.base import (
    ParameterError,
    VenueDateWarning,
    checked_only,
    continue_making,
    encode_provenance,
    find_code,
    format_time,
    try_read_provenance,
    warn_caller,
)
from backtest.base.provenance import PROVENANCE
from backtest.engine import (
    SignalRule,
    check_overlay,
    check_terms,
    end_expired,
    read_named,
    warn_of_market,
    warn_of_weights,
    widen_market,
)
from backtest.market import Markets, as_markets, with_clock
from backtest.measures import read_constraints, read_objectives
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
from backtest.tune.holdout import find_split, warn_of_unseen
from backtest.tune.journal import (
    FORMAT,
    OUTCOME,
    STUDY,
    Journal,
    clear_drafts,
    hold_lock,
    seal_outcome,
    write_json,
    write_study_file,
)
from backtest.tune.load_study import load_outcome
from backtest.tune.other_trials import find_other_trials
from backtest.tune.plateau import BUDGET_SHARE, Robustness
from backtest.tune.search_arguments import (
    ObjectivesLike,
    check_choices,
    choose_metrics,
    list_objectives,
    read_budget,
    read_left_out,
    read_path_risk,
    read_robustness,
)
from backtest.tune.search_loop import Budget, search
from backtest.tune.search_outcome import StudyTask, build_outcome, reserve_trials
from backtest.tune.single_sets import Bench
from backtest.tune.study import Study
from backtest.tune.study_identity import (
    check_resume,
    describe_objective,
    describe_study,
    name_folder,
)
from backtest.tune.study_record import StudyOutcome
from backtest.tune.trial_evaluator import Examiner, Goal, Progress

if TYPE_CHECKING:
    from backtest.account import Account
    from backtest.market import Market
    from backtest.policy import Policy
    from backtest.risk import Paths
    from backtest.tune.samplers import SamplerName
    from backtest.venue import Venue


@checked_only("resume", "store", "progress")
def tune(  # noqa: PLR0913 - keywords, each with a default that is said
    market: Market | Markets,
    policy: type[Policy] | Policy,
    *,
    venue: Venue | Mapping[str, Venue],
    account: Account,
    accounts: Accounts = "shared",
    pool: Pool = "mean",
    markets_left_out: int = 0,
    objective: ObjectivesLike = "sharpe",
    constraints: Mapping[str, str] | None = None,
    paths: Paths | None = None,
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
    validate: str | None = None,
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
    markets_left_out : int
        Markets that are not here because of their results, in earlier searches or charts. Each is
        another choice of the markets: with 19 of 20 markets left out, the verdict counts 20 times
        as many trials.
    objective : str, mapping, callable, or a list of these
        What to maximize, as in :func:`backtest.measures.ranking.read_objective`: a measure, a
        weighted sum ``{"sharpe": 1.0, "turnover": -0.01}``, or a function of the measures of one
        set. Several give a Pareto front (``study.front``); the best is its knee.
    constraints : mapping, optional
        Bounds such as ``{"max_drawdown": "<= 0.4", "liquidations": "== 0"}``. A set that breaks one
        never wins over a set that does not. No ruin is always a constraint.
    paths : Paths, optional
        From :func:`backtest.simulate_paths` of the market or markets, for objectives and
        constraints on the risk ahead: the probabilities ``p_liquidation_30d`` and ``p_ruin_30d``
        (any horizon up to that of the paths), and ``max_leverage_at_1pct``, the largest factor on
        the policy at which 1 % of the
        paths are liquidated. All sets see the same paths, and begin there with a new account.
    trials : int, optional
        Most sets to evaluate, neighbors included, at least 4. Default 20,000 if ``seconds`` is not
        given either. A sampler may end earlier if nothing more is gained; ``study.spending`` says
        why fewer were evaluated.
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
        ``signal.window`` is its parameter ``window``; with ``paths`` it is kept.
    fix : mapping, optional
        Settings with one value in every set.
    robust : bool or Robustness
        Whether the leading sets are ranked by a low quantile of the objective over their neighbors
        and over parts of the time; a :class:`~backtest.tune.plateau.Robustness` says how. False
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
    validate : str, optional
        ``"walk-forward"`` or ``"cross-validate"``: judge the search at its end by
        :func:`backtest.walk_forward` or :func:`backtest.cross_validate` on the whole market, with
        as many trials, at most 2,000. ``study.validation`` holds it. Its test spans include the
        holdout, which is counted as looked at.
    progress : callable, optional
        Called with a :class:`~backtest.tune.trial_evaluator.Progress` after every piece of work.

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
    market = with_clock(market, decide, detail)
    is_separate, market = read_accounts(accounts, market, venue)
    left_out = read_left_out(markets_left_out)
    if not is_separate:
        market, signal = widen_market(
            market, signal, policy=policy, venue=venue, account=account, overlay=overlay
        )
        check_terms(end_expired(market, venue), policy, venue, account, sampling, calendar)
    if is_separate and paths is not None:
        raise ParameterError(
            "paths are of one account, and accounts='separate' has one in each market"
        )
    market = end_expired(market, venue)
    warn_of_market(market, venue)
    plan = None if validate is None else Study._plan_validation(validate, market, sampling)
    number, limit = read_budget(trials, seconds)
    rule = read_robustness(robust)
    check_choices(sampler, seed)
    named = read_named(signal, market)
    own = named if isinstance(named, SignalRule) else None
    found = read_space(
        policy, space, fix=fix, account=account, venue=venue, signal=own,
        names=() if is_separate else list_names(market), overlay=check_overlay(overlay),
    )  # fmt: skip
    varied = own if found.varies_signal else None
    risk = read_path_risk(
        paths,
        objective,
        constraints,
        market,
        signal=signal,
        overlay=overlay,
        threads=threads,
        compile=compile,
        validate=validate,
    )
    on_paths = () if risk is None else [each.name for each in risk.measures]
    goal = Goal(
        read_objectives(objective, on_paths=on_paths),
        read_constraints(constraints, on_paths=on_paths),
    )
    metrics = choose_metrics(objective, goal)
    split = find_split(market, holdout)
    warn_of_unseen(market, split)
    make = choose_evaluator(pool, is_separate=is_separate)
    signal = resolve_signals(named, market, is_separate=is_separate)
    terms = {"venue": venue, "account": account, "overlay": overlay}
    whole = make(market, policy, signal=signal, **terms)
    lasting = whole.keep_signals()
    if not is_separate:
        warn_of_weights(signal, as_markets(market))
    facts = describe_study(
        BaseTerms(policy, venue, account),
        market,
        whole.describe_signals(),
        sampling=sampling,
        calendar=calendar,
        objectives=[each.name for each in goal.objectives],
        objective=[describe_objective(each) for each in list_objectives(objective)],
        constraints=[str(each) for each in goal.constraints],
        metrics=metrics,
        space=found.describe(),
        sampler=sampler,
        budget={"trials": number, "seconds": limit},
        robust=rule.to_dict() if robust else False,
        holdout=holdout,
        searched=format_time(int(market.time[split - 1]) + market.interval),
        seed=seed,
        **({} if risk is None else {"paths": risk.paths.describe()}),
        **({} if overlay is None else {"overlay": repr(overlay)}),
        **whole.describe_pool(),
        **left_out,
    )

    def prepare(part: Market | Markets) -> Evaluator:
        return make(
            part,
            policy,
            venue=venue,
            account=account,
            signal=lasting if varied is None else varied,
            overlay=overlay,
            sampling=sampling,
            calendar=calendar,
            metrics=metrics,
            threads=threads,
            memory=memory,
            compile=compile,
        )

    folder = None if store is None else name_folder(Path(store), facts)
    check_resume(None if store is None else Path(store), facts, resume=resume)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VenueDateWarning)  # given above for the whole market
        task = StudyTask(
            facts=facts,
            space=found,
            goal=goal,
            rule=rule,
            is_robust=bool(robust),
            trials=number,
            seconds=limit,
            seed=seed,
            seen=prepare(market.prefix(split)),
            bench=Bench(prepare(market), split, risk),
            store=None if store is None else Path(store),
            count_others=partial(find_other_trials, None if store is None else Path(store), facts),
        )
        with on_cluster(task.seen, cluster) as working:
            task = task._replace(seen=working)
            study = run_study(task, folder, resume=resume, progress=progress)
    if validate is not None and study.complete:
        study.validation = Study._validate_search(
            validate,
            market,
            policy,
            plan,
            venue=venue,
            account=account,
            accounts=accounts,
            pool=pool,
            markets_left_out=markets_left_out,
            objective=objective,
            constraints=constraints,
            trials=trials,
            sampler=sampler,
            space=space,
            fix=fix,
            robust=robust,
            seed=seed,
            store=store,
            signal=named,
            overlay=overlay,
            sampling=sampling,
            calendar=calendar,
            threads=threads,
            memory=memory,
            cluster=cluster,
            compile=compile,
        )
    return study


def run_study(
    task: StudyTask,
    folder: Path | None,
    *,
    resume: bool,
    progress: Callable[[Progress], object] | None,
) -> Study:
    with open_folder(task, folder, resume=resume):
        journal = Journal(folder, task.facts["id"])
        outcome = None if folder is None else load_outcome(folder)
        if outcome is not None:
            return Study(task.facts, tuple(journal.read_all()), outcome, folder, task.bench)
        examiner = Examiner(
            task.seen,
            task.goal,
            journal,
            risk=task.bench.risk,
            total=task.trials,
            progress=progress,
        )
        with contextlib.suppress(KeyboardInterrupt):
            outcome = search_and_choose(task, examiner, folder)
        study = Study(task.facts, tuple(examiner.batches), outcome, folder, task.bench)
    if not study.complete:
        text = f"interrupted: the study is unfinished, {study.trials:,} sets were evaluated"
        warn_caller(text)
    return study


def search_and_choose(task: StudyTask, examiner: Examiner, folder: Path | None) -> StudyOutcome:
    task.seen.check_causal(task.space.list_ends())
    examiner.start_clock()  # a budget in seconds is for the search
    search(examiner, task.space, task.facts["sampler"], find_budget(task), task.seed)
    outcome = build_outcome(task, examiner)
    if folder is not None:
        note_making(task, folder, round(examiner.elapsed, 6))
        write_json(folder / OUTCOME, seal_outcome(folder, {"format": FORMAT, **outcome.to_dict()}))
    return outcome


@contextlib.contextmanager
def open_folder(task: StudyTask, folder: Path | None, *, resume: bool) -> Iterator[None]:
    if folder is None:
        yield
        return
    with hold_lock(folder):
        clear_drafts(folder)
        if not resume:
            check_resume(folder.parent, task.facts, resume=False)  # another may have begun it since
            write_json(folder / STUDY, task.facts)
        if not (folder / OUTCOME).is_file():
            note_making(task, folder)
        yield


def note_making(task: StudyTask, folder: Path, seconds: float | None = None) -> None:
    identity = task.facts["id"]
    code = find_code([task.bench.whole.base.policy_class])
    making = continue_making(try_read_provenance(folder, identity), code)._replace(seconds=seconds)
    write_study_file(folder / PROVENANCE, encode_provenance(identity, making))


def find_budget(task: StudyTask) -> Budget:
    trials = task.trials
    if trials is not None:
        trials -= reserve_trials(task.rule, trials, is_robust=task.is_robust)
    share = 1.0 - BUDGET_SHARE if task.is_robust else 1.0
    return Budget(trials, math.inf if task.seconds is None else share * task.seconds)
