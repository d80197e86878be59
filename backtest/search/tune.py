"""tune(): search for good parameters, and estimate the selection bias of the result."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

import numpy as np

from backtest import core
from backtest.core.saved_result import COMMAND
from backtest.engine import BacktestFields, short_form
from backtest.market import Market, Markets, as_markets
from backtest.policies import Policy
from backtest.results import ObjectiveLike
from backtest.search import problem as p
from backtest.search import trials as t
from backtest.search.frontier import Frontier, Patience
from backtest.search.study import Study
from backtest.search.winner import BUDGET_SHARE, StudyOutcome, StudyTask, build_outcome
from backtest.sweep import Accounts, Pool, check_sets, on_cluster


@short_form
@core.checked_only("resume", "store", "progress")
@p.takes_fields(p.SearchFields)
def tune(
    market: Market | Markets,
    policy: type[Policy] | Policy,
    *,
    objective: p.Objectives = "sharpe",
    robust: bool | p.Robustness = True,
    progress: Callable[[t.Progress], object] | None = None,
    **fields: Unpack[p.SearchFields],
) -> Study:
    """Search for good parameters of a policy, and estimate the selection bias of the result.

    Parameters
    ----------
    market, compile, **fields
        As in :func:`backtest.run`; several markets have one policy, whose parameters are those of
        all instruments.
    policy : type or Policy
        A policy class, or an instance whose settings are used unless the search varies them.
    accounts, pool : str
        ``accounts="separate"`` scores each set in every market in an account of its own, and pools
        the measures, as in :func:`backtest.sweep`. The deflated Sharpe ratio is that of
        the mean of the returns, on the days that all markets have; the markets are no trials.
    objective : str, mapping or callable
        What to maximize, as in :func:`backtest.results.ranking.read_objective`: a measure, a
        weighted sum ``{"sharpe": 1.0, "turnover": -0.01}``, or a function of the measures of one
        set. Of several measures, as in :func:`backtest.frontier`, the best set is the knee, or that
        of the first measure if there is no knee, and nothing is ranked by neighbors.
    constraints : mapping, optional
        Bounds such as ``{"max_drawdown": "<= 0.4", "liquidations": "== 0"}``. A set that breaks one
        never wins over a set that does not. No ruin is always a constraint, and so is that the set
        fills an order.
    trials : int, optional
        Most sets to evaluate, neighbors included, at least 4. Default 20,000 if ``seconds`` is not
        given either. A sampler may end earlier if nothing more is gained.
    seconds : float, optional
        Most time to search, not counting the time to compile or load before the first result; time
        spent before a resume counts. With ``trials``, whichever ends first. With ``robust``, a
        quarter of either is reserved for the neighbors of candidates.
    patience : int, optional
        Evaluations without a gain after which the search ends. A gain is over a quarter of the
        standard error of the best, by a stationary bootstrap of its returns.
    sampler : str
        ``"auto"`` (Sobol points, then CMA-ES with restarts), ``"gp"`` (a Gaussian process: a second
        of thinking for each set), ``"sobol"``, ``"random"`` or ``"grid"``;
        :func:`backtest.objective` serves any other optimizer.
    space : mapping, optional
        What varies, as in :func:`backtest.sweep.sets.read_space`: ``{"target": (0.1, 1.0)}``.
        Default all parameters of the policy over their declared ranges. Where ``signal`` is a rule,
        ``signal.window`` is its parameter ``window``.
    fix : mapping, optional
        Settings with one value in every set.
    robust : bool or Robustness
        Whether the leading sets are ranked by a low quantile of the objective over their neighbors
        and over parts of the time; a :class:`~backtest.search.problem.Robustness` says how. False
        takes the highest objective. With too few trials for many candidates, the highest objective
        may win, with a warning.
    holdout : str, float or None
        The last part of the data, which the search never sees: a share (``"25%"``), a duration
        (``"90d"``), or 0 or None for none. The best trial is evaluated on it; every look at it is
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
        Called with a :class:`~backtest.search.trials.Progress` after every piece of work.

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
    problem = p.read_search(market, policy, objective=objective, robust=robust, **fields)
    market, holdout, place = problem.market, problem.holdout, problem.store
    split = find_split(market, holdout, problem.first)
    markets = as_markets(market)
    listed = zip(markets, markets.spans[:, 0], strict=True)
    if unseen := [name for name, first in listed if first >= split]:
        core.warn_caller(
            f"{', '.join(unseen)} is first listed in the holdout, so the search does not see it. "
            "Use a shorter holdout or other markets to include it"
        )
    manifest = problem.describe_search(
        Study.kind,
        seconds=problem.seconds,
        holdout=holdout,
        searched=core.format_time(int(market.time[split - 1]) + market.interval),
    )
    finished = t.find_finished(place, manifest, resume=problem.resume)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", core.VenueDateWarning)  # given above for the whole market
        seen = problem.build_evaluator(market.prefix(split))
        task = StudyTask(problem, seen, problem.build_evaluator(market), split, manifest, place)
        if finished is not None:
            return dataclasses.replace(Study.load(finished), task=task)
        with on_cluster(task.seen, problem.cluster) as working:
            return run_study(task._replace(seen=working), progress)


@short_form
@core.checked_only("resume", "store", "progress")
@p.takes_fields(p.SearchFields)
def frontier(
    market: Market | Markets,
    policy: type[Policy] | Policy,
    *,
    objectives: Sequence[str] = ("cagr", "max_drawdown"),
    progress: Callable[[t.Progress], object] | None = None,
    **fields: Unpack[p.SearchFields],
) -> Frontier:
    """Search for the sets that no other set beats in every one of several objectives.

    Parameters
    ----------
    market, policy, progress, **fields
        As in :func:`backtest.tune`. The store keeps the search, as a study.
    objectives : sequence of str
        Two or three measures; more or less is better as they say.

    Returns
    -------
    Frontier
        :meth:`backtest.search.study.Study.frontier` of the study.

    Raises
    ------
    ParameterError
        If an argument is wrong, a measure has no direction, or no set satisfies the constraints.

    Notes
    -----
    Sobol points, then CMA-ES in which each strategy has random weights for the objectives and
    minimizes the largest weighted distance to the best of each. Source: Knowles (2006), ParEGO,
    IEEE Transactions on Evolutionary Computation 10(1).
    """
    given: Any = {"objective": [*objectives], "robust": False, "progress": progress}
    found = tune(market, policy, **given, **fields)
    if not found.complete:
        raise KeyboardInterrupt
    return found.frontier()


@short_form
def objective(
    market: Market | Markets,
    policy: type[Policy] | Policy,
    *,
    accounts: Accounts = "shared",
    pool: Pool = "mean",
    objective: ObjectiveLike = "sharpe",
    constraints: Mapping[str, str] | None = None,
    fix: Mapping[str, Any] | None = None,
    holdout: str | float | None = "25%",
    compile: bool = True,  # noqa: A002 - the word users know
    **fields: Unpack[BacktestFields],
) -> Callable[[Mapping[str, Any]], float]:
    """Return a function from values of parameters to the score that a search would maximize.

    Parameters
    ----------
    market, policy, accounts, pool, objective, constraints, fix, holdout, compile, **fields
        As in :func:`backtest.tune`. The score is of the bars before the holdout.

    Returns
    -------
    callable
        Takes a mapping such as ``{"target": 0.4}``, with the names that a ``space`` has, and
        returns a float: minus infinity if the account was ruined, filled no order or breaks a
        constraint, NaN if the run of the set fails or the objective is not defined for it.

    Raises
    ------
    ParameterError
        If an argument is not allowed; from the function, if a value is out of its range.
    PolicyError
        From the function, if the columns of the first set look ahead.
    """
    given: Any = {"accounts": accounts, "pool": pool, "constraints": constraints}
    given |= {"objective": objective, "compile": compile, "is_searched": False}
    problem = p.read_search(market, policy, **given, **fields)
    p.refuse_several(problem, "bt.objective")
    split = find_split(problem.market, holdout, problem.first)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", core.VenueDateWarning)  # given above
        evaluator = problem.build_evaluator(problem.market.prefix(split))
    goal = problem.goal

    def score(values: Mapping[str, Any]) -> float:
        if not isinstance(values, Mapping):
            raise core.ParameterError(
                f"values must be a mapping of parameters, got {core.repr_plain(values):.60}"
            )
        columns = {name: [value] for name, value in {**(fix or {}), **values}.items()}
        sets = check_sets(evaluator.varied, columns)
        evaluator.check_causal(sets)
        rows = evaluator.evaluate(sets).finish()
        if rows.errors[0]:
            return math.nan
        scores, violation = goal.score(rows.metrics, ~rows.done)
        return float(scores[0]) if violation[0] == 0.0 else -math.inf

    return score


def run_study(task: StudyTask, progress: Callable[[t.Progress], object] | None) -> Study:
    problem, outcome = task.problem, None
    with t.open_folder(task.store, task.facts) as folder:
        journal = t.Journal(folder)
        examiner = t.Examiner(
            task.seen, problem.goal, journal, total=problem.trials, progress=progress
        )
        with contextlib.suppress(KeyboardInterrupt):
            outcome = search_and_choose(task, examiner)
        study = Study(task.facts, tuple(examiner.batches), outcome, task.store, task)
        vars(study)[core.KEPT] = core.Making(round(examiner.elapsed, 6), {}, argv=COMMAND.get())
        if outcome is None:
            core.warn_caller(
                f"interrupted: the study is unfinished, {study.trials:,} sets were evaluated"
            )
        elif folder is not None and task.store is not None:
            if study.trials:
                t.add_note(task.store, t.TRIED, task.facts, sets=study.trials)
            study.save(task.store)
            core.discard_folder(folder)
    return study


def search_and_choose(task: StudyTask, examiner: t.Examiner) -> StudyOutcome:
    """Search within the budget, whose clock starts in ``examiner``; returns the outcome."""
    from backtest.search import samplers  # noqa: PLC0415 - they load SciPy and more

    task.seen.check_causal(task.problem.space.list_ends())
    examiner.since = examiner.clock()  # a budget in seconds is for the search
    problem, left, seed = task.problem, task.problem.trials, task.problem.seed
    if left is not None:
        wanted = problem.robustness.candidates * problem.robustness.neighbours
        left -= max(1, min(wanted, int(BUDGET_SHARE * left)))
    share = 1.0 - BUDGET_SHARE if problem.is_robust else 1.0
    deadline = math.inf if problem.seconds is None else share * problem.seconds
    goal, patience = problem.goal, None
    if problem.patience is not None:
        patience = Patience(problem.patience, goal, task.seen, seed)
    plan: Any = {"seed": seed, "trials": left, "objectives": len(goal.objectives)}
    sampler = samplers.make_sampler(problem.sampler, problem.space, **plan)
    while left != 0:
        asked = sampler.ask()
        cube = asked[:left]
        if not len(cube):
            break
        batch = examiner.search(problem.space.decode(cube), deadline, patience)
        n, errors = len(batch.errors), batch.errors
        if n >= FAILURES and all(errors):
            raise core.PolicyError(f"all {n} sets failed, the first with: {errors[0]}")
        if n < len(cube):
            break  # time or patience is up
        if n == len(asked):
            scores = goal.grade(batch.metrics)
            sampler.tell(cube, scores if goal.others else scores[:, 0], batch.violation)
        left = None if left is None else left - n
    return build_outcome(task, examiner)


FAILURES = 16
"""If a batch of at least so many sets fails as a whole, the search stops."""
LEAST_BARS = 2
"""Least bars on either side of the split, as a run needs two."""

_SHARE = re.compile(r"\s*(\d+(?:\.\d*)?)\s*%\s*")


def find_split(market: Market | Markets, holdout: str | float | None, first: int = 0) -> int:
    """Return the first bar of the holdout; the number of bars if there is none.

    A share is of the bars from ``first`` on, with which accounts begin.
    """
    n = market.n_bars
    if holdout is None or (not isinstance(holdout, str) and holdout == 0):
        return n
    split, share = -1, holdout
    if isinstance(holdout, str) and (match := _SHARE.fullmatch(holdout)):
        share = float(match[1]) / 100.0
    if isinstance(share, float):
        split = n - round((n - first) * share) if 0.0 <= share < 1.0 else -1
    elif isinstance(holdout, str):
        with contextlib.suppress(core.ParameterError):
            begin = market.end - core.parse_duration(holdout)
            split = int(np.searchsorted(market.time, begin))
    if split != n and not first + LEAST_BARS <= split <= n - LEAST_BARS:
        raise core.ParameterError(
            "holdout must be a share such as '25%', a duration such as '90d' or 0 for none, that "
            f"leaves bars to search on, got {holdout!r} of {n - first} bars"
        )
    return split
