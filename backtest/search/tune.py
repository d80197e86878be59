"""tune(): search for good parameters, and estimate the selection bias of the result."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from backtest import core
from backtest.core.provenance import COMMAND
from backtest.engine import Conditions
from backtest.market import Market, Markets, as_markets
from backtest.policies import Policy
from backtest.search import problem as p
from backtest.search import trials as t
from backtest.search.frontier import Frontier
from backtest.search.patience import Patience
from backtest.search.study import Study
from backtest.search.winner import BUDGET_SHARE, Conclusion, StudyTask, build_outcome
from backtest.sweep import check_sets, on_cluster


@core.checked_only("progress")
def tune(
    conditions: Conditions,
    policy: type[Policy] | Policy,
    search: p.Search,
    *,
    progress: Callable[[t.Progress], object] | None = None,
) -> Study:
    """Answer :meth:`backtest.Backtest.tune`, which documents it."""
    problem = p.read_search(conditions, policy, search)
    market = problem.market
    split = find_split(market, problem.holdout, problem.first)
    warn_of_unseen(market, split)
    manifest = problem.describe_search(
        Study.kind,
        seconds=problem.seconds,
        holdout=problem.holdout,
        searched=core.format_time(int(market.time[split - 1]) + market.interval),
    )

    finished = t.find_finished(problem.store, manifest, resume=problem.resume)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", core.VenueDateWarning)  # given above for the whole market
        task = StudyTask(
            problem,
            problem.build_evaluator(market.prefix(split)),
            problem.build_evaluator(market),
            split,
            manifest,
            problem.store,
        )
        if finished is not None:
            return dataclasses.replace(Study.load(finished), task=task)
        with on_cluster(task.seen, problem.cluster) as working:
            return run_study(task._replace(seen=working), progress)


def warn_of_unseen(market: Market | Markets, split: int) -> None:
    """Warn of instruments that are listed in the holdout alone."""
    markets = as_markets(market)
    unseen = [
        name for name, first in zip(markets, markets.spans[:, 0], strict=True) if first >= split
    ]
    if unseen:
        core.warn_caller(
            f"{', '.join(unseen)} is first listed in the holdout, so the search does not see it. "
            "Use a shorter holdout or other markets to include it"
        )


@core.record_making
def frontier(
    conditions: Conditions,
    policy: type[Policy] | Policy,
    search: p.Search,
    *,
    progress: Callable[[t.Progress], object] | None = None,
) -> Frontier:
    """Answer :meth:`backtest.Backtest.frontier`, which documents it."""
    study = tune(conditions, policy, search, progress=progress)
    if not study.complete:
        raise KeyboardInterrupt
    return study.frontier()


def objective(
    conditions: Conditions,
    policy: type[Policy] | Policy,
    search: p.Search,
) -> Callable[[Mapping[str, Any]], float]:
    """Answer :meth:`backtest.Backtest.objective`, which documents it."""
    problem = p.read_search(
        conditions,
        policy,
        search,
        is_searched=False,
    )
    p.refuse_several(problem, "Backtest.objective")
    split = find_split(problem.market, search.holdout, problem.first)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", core.VenueDateWarning)  # given above
        evaluator = problem.build_evaluator(problem.market.prefix(split))
    goal = problem.goal

    def score(values: Mapping[str, Any]) -> float:
        """Return the objective of a set: NaN if it failed, -inf if it breaks a constraint."""
        if not isinstance(values, Mapping):
            raise core.ParameterError(
                f"values must be a mapping of parameters, got {core.repr_plain(values):.60}"
            )

        columns = {name: [value] for name, value in {**(search.fix or {}), **values}.items()}
        sets = check_sets(evaluator.varied, columns)
        evaluator.check_causal(sets)
        rows = evaluator.evaluate(sets).finish()
        if rows.errors[0]:
            return math.nan
        scores, violation = goal.score(rows.metrics, ~rows.done)
        return float(scores[0]) if violation[0] == 0.0 else -math.inf

    return score


def run_study(task: StudyTask, progress: Callable[[t.Progress], object] | None) -> Study:
    """Search, and save the study; one that is interrupted stays to be resumed."""
    conclusion = None
    with t.open_folder(task.store, task.facts) as folder:
        examiner = t.Examiner(
            task.seen,
            task.problem.goal,
            t.Journal(folder),
            total=task.problem.trials,
            progress=progress,
        )
        with contextlib.suppress(KeyboardInterrupt):
            conclusion = search_and_choose(task, examiner)

        outcome = None if conclusion is None else conclusion.outcome
        curves = None if conclusion is None else conclusion.curves
        study = Study(
            task.facts,
            tuple(examiner.batches),
            outcome,
            task.store,
            task,
            curves,
        )
        making = core.Making(round(examiner.elapsed, 6), {}, argv=COMMAND.get())
        vars(study)[core.KEPT] = making

        # What is unfinished stays in its folder; what is finished moves into the store.
        if outcome is None:
            core.warn_caller(
                f"interrupted: the study is unfinished, {study.trials:,} sets were evaluated"
            )
        elif folder is not None and task.store is not None:
            if study.trials:
                t.add_note(
                    task.store,
                    t.TRIED,
                    task.facts,
                    sets=study.trials,
                )
            study.save(task.store)
            core.discard_folder(folder)
    return study


def search_and_choose(task: StudyTask, examiner: t.Examiner) -> Conclusion:
    """Search within the budget, whose clock starts in ``examiner``; returns what came out."""
    from backtest.search import samplers  # noqa: PLC0415 - they load SciPy and more

    problem = task.problem
    goal = problem.goal
    task.seen.check_causal(problem.space.list_ends())
    examiner.since = examiner.clock()  # a budget in seconds is for the search
    left = count_searched(problem)
    deadline = find_deadline(problem)
    patience = None
    if problem.patience is not None:
        patience = Patience(problem.patience, goal, task.seen, problem.seed)

    sampler = samplers.make_sampler(
        problem.sampler,
        problem.space,
        seed=problem.seed,
        trials=left,
        objectives=len(goal.objectives),
    )
    while left != 0:
        asked = sampler.ask()
        cube = asked[:left]
        if len(cube) == 0:
            break

        batch = examiner.search(problem.space.decode(cube), deadline, patience)
        n_evaluated = len(batch.errors)
        if n_evaluated >= FAILURES and all(batch.errors):
            raise core.PolicyError(
                f"all {n_evaluated} sets failed, the first with: {batch.errors[0]}"
            )
        if n_evaluated < len(cube):
            break  # time or patience is up

        # A piece of what was asked is the last one: the sampler learns from whole batches.
        if n_evaluated == len(asked):
            scores = goal.grade(batch.metrics)
            sampler.tell(cube, scores if goal.others else scores[:, 0], batch.violation)
        if left is not None:
            left -= n_evaluated
    return build_outcome(task, examiner)


def count_searched(problem: p.SearchProblem) -> int | None:
    """Return how many trials are for the search: all but those of neighbors; None: no limit."""
    if problem.trials is None:
        return None
    wanted = problem.robustness.candidates * problem.robustness.neighbours
    return problem.trials - max(1, min(wanted, int(BUDGET_SHARE * problem.trials)))


def find_deadline(problem: p.SearchProblem) -> float:
    """Return the seconds of the search alone; infinite without a budget in seconds."""
    if problem.seconds is None:
        return math.inf
    share = 1.0 - BUDGET_SHARE if problem.is_robust else 1.0
    return share * problem.seconds


FAILURES = 16
"""If a batch of at least so many sets fails as a whole, the search stops."""
LEAST_BARS = 2
"""Least bars on either side of the split, as a run needs two."""

_SHARE = re.compile(r"\s*(\d+(?:\.\d*)?)\s*%\s*")


def find_split(
    market: Market | Markets,
    holdout: str | float | None,
    first: int = 0,
) -> int:
    """Return the first bar of the holdout; the number of bars if there is none.

    A share is of the bars from ``first`` on, with which accounts begin.
    """
    n = market.n_bars
    if holdout is None or (not isinstance(holdout, str) and holdout == 0):
        return n

    split = place_split(market, holdout, first)
    if split != n and not first + LEAST_BARS <= split <= n - LEAST_BARS:
        raise core.ParameterError(
            "holdout must be a share such as '25%', a duration such as '90d' or 0 for none, that "
            f"leaves bars to search on, got {holdout!r} of {n - first} bars"
        )
    return split


def place_split(market: Market | Markets, holdout: str | float, first: int) -> int:
    """Return the bar at which a holdout begins by its share or its duration; -1 if it is neither.

    A share is a float, or a text such as ``"25%"``; it is of the bars from ``first`` on.
    """
    share = holdout
    if isinstance(holdout, str):
        match = _SHARE.fullmatch(holdout)
        if match is None:
            return place_duration(market, holdout)
        share = float(match[1]) / 100.0

    if not isinstance(share, float) or not 0.0 <= share < 1.0:
        return -1
    n = market.n_bars
    return n - round((n - first) * share)


def place_duration(market: Market | Markets, text: str) -> int:
    """Return the first bar of a duration before the end of a market; -1 if the text is none."""
    try:
        begin = market.end - core.parse_duration(text)
    except core.ParameterError:
        return -1
    return int(np.searchsorted(market.time, begin))
