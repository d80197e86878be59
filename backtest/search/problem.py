"""What a search or a validation chooses among and by what, and how that is described."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args

import numpy as np

from backtest import results
from backtest._compile.bytecode import name_callable
from backtest.core import Choice, ParameterError, Real, Value, Whole, is_path, repr_plain
from backtest.engine import Conditions
from backtest.policies import Policy
from backtest.results.measure_table import ABOUT, CORE, PATH
from backtest.search.trials import Goal, SamplerName
from backtest.sweep import Accounts, Evaluator, Metrics, Pool, SetRuns, read_runs, read_space

LIMITS = {
    "trials": Whole(4),
    "seconds": Real(0.0, open_low=True),
    "patience": Whole(1),
}
TRIALS = 20_000
"""Trials if neither trials nor seconds are given."""

Objectives: TypeAlias = results.ObjectiveLike | Sequence[str]
"""One objective, or the names of several measures."""


class Robustness(Value, kw_only=True):
    """Rule by which candidates are scored: a low quantile over neighbors, averaged over time.

    A candidate's robust score is the mean of two: the low quantile of the objective over its
    neighbors on the whole time, and the mean over equal parts of the time of the same quantile
    there. So a spike fails by its neighbors, and an exceptional part counts for no more than its
    share.

    Parameters
    ----------
    quantile : float
        Of the objective over the neighbors and the candidate itself. A tenth: of 17 the second
        lowest, so that a single odd neighbor does not decide.
    width : float
        Neighbors lie in a box of this share of each range on either side, on its scale. A tenth is
        farther than a spike of noise reaches, and near enough to be the same policy; whole numbers
        reach at least 1 on either side, options stay.
    neighbours : int
        In each box, evenly spread (scrambled Sobol points), the same for all candidates.
    parts : int
        Equal parts of the time, with a fresh account in each.
    candidates : int
        Leading sets whose neighbors are evaluated. The boxes of the first half do not overlap, so
        that they are not all from one hill; the others are outside of the boxes before.

    Notes
    -----
    A neighbor that breaks a constraint over the whole time, is ruined in it or in a part, or fails
    there, counts as minus infinity. A part where a set has no score (it does not trade) is left
    out.
    """

    quantile: Annotated[float, Real(0, 1)] = 0.10
    width: Annotated[float, Real(0, 0.5, open_low=True)] = 0.10
    neighbours: Annotated[int, Whole(1)] = 16
    parts: Annotated[int, Whole(1)] = 4
    candidates: Annotated[int, Whole(1)] = 96

    def fit(self, trials: float) -> Robustness:
        """Return the rule with as many candidates, and neighbors, as ``trials`` can pay for."""
        return Robustness(
            quantile=self.quantile,
            width=self.width,
            neighbours=int(min(self.neighbours, max(1.0, trials))),
            parts=self.parts,
            candidates=int(min(self.candidates, max(1.0, trials / self.neighbours))),
        )


PLAIN = Robustness(parts=1, candidates=1)


@dataclass(frozen=True, eq=False)
class SearchProblem(SetRuns):
    """What is chosen among what; ``space`` is None if sets come from elsewhere."""

    space: Any
    goal: Goal
    objective: Objectives
    metrics: Metrics
    sampler: SamplerName
    trials: int | None
    seconds: float | None
    robustness: Robustness
    is_robust: bool
    seed: int
    patience: int | None
    holdout: str | float | None
    store: Path | None
    resume: bool | None
    cluster: str | None

    @property
    def names(self) -> list[str]:
        return [dimension.name for dimension in self.space.dimensions]

    def build_evaluator(self, market: Any) -> Evaluator:
        return self.make(market, self.keep_times(), self.metrics)

    def describe_search(self, kind: str, **settings: Any) -> dict[str, Any]:
        """Return the manifest of a search, with the settings of its own kind."""
        patience: dict[str, Any] = {}
        if self.patience is not None:
            patience["patience"] = self.patience
        return self.describe(
            kind,
            space=self.space.describe(),
            objective=" and ".join(objective.name for objective in self.goal.objectives),
            objective_source=describe_objective(self.objective),
            constraints=[str(constraint) for constraint in self.goal.constraints],
            trials=self.trials,
            sampler=self.sampler,
            robust=self.robustness.to_dict() if self.is_robust else False,
            seed=self.seed,
            **patience,
            **settings,
        )


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a search varies, by what it judges, how long it looks, and where it keeps its batches.

    :meth:`backtest.Backtest.tune` documents the fields.
    """

    objective: Objectives = "sharpe"
    constraints: Mapping[str, str] | None = None
    trials: int | None = None
    seconds: float | None = None
    patience: int | None = None
    sampler: SamplerName = "auto"
    space: Mapping[str, Any] | None = None
    fix: Mapping[str, Any] | None = None
    robust: bool | Robustness = False
    holdout: str | float | None = "25%"
    seed: int = 0
    store: str | Path | None = None
    resume: bool | None = False
    accounts: Accounts = "shared"
    pool: Pool = "mean"
    threads: int | None = None
    memory: str = "1GiB"
    cluster: str | None = None
    compile: bool = True


def check_search(search: Search) -> dict[str, Any]:
    """Check what the fields of a search may be by themselves; return its budget as numbers."""
    Choice(*get_args(SamplerName)).check("sampler", search.sampler)
    Whole(0).check("seed", search.seed)
    if not isinstance(search.resume, bool | np.bool_ | None):
        raise ParameterError(f"resume must be True or False, got {repr_plain(search.resume)}")
    if search.store is not None and not is_path(search.store):
        raise ParameterError(
            f"store must be the path of a folder or None, got {repr_plain(search.store)}"
        )
    if not isinstance(search.robust, bool | Robustness):
        raise ParameterError(
            f"robust must be True, False or a bt.Robustness, got {search.robust!r}"
        )

    budget = {name: getattr(search, name) for name in LIMITS}
    if search.trials is None and search.seconds is None:
        budget["trials"] = TRIALS
    for name, limit in LIMITS.items():
        if budget[name] is not None:
            budget[name] = limit.check(name, budget[name])
    return budget


def read_search(
    conditions: Conditions,
    policy: type[Policy] | Policy,
    search: Search,
    *,
    is_searched: bool = True,
) -> SearchProblem:
    """Return the problem that a search of a test poses; no space unless ``is_searched``."""
    budget = check_search(search)
    runs = read_runs(
        conditions,
        policy,
        accounts=search.accounts,
        pool=search.pool,
        compile=search.compile,
        threads=search.threads,
        memory=search.memory,
    )

    goal = read_goal(search.objective, search.constraints)
    names = name_measures(search.objective, goal)
    of_paths = sorted(names & set(PATH))
    if of_paths and not callable(search.objective):
        raise ParameterError(
            "objective and constraints must be measures that need no path of an account, got "
            f"{', '.join(of_paths)}; study.replay().metrics has all"
        )
    if goal.others and (search.sampler == "gp" or isinstance(search.robust, Robustness)):
        raise ParameterError(
            "several objectives take sampler auto, sobol, random or grid, and no robust, got "
            f"{search.sampler} and {search.robust}"
        )

    space = None
    if is_searched:
        space = read_space(runs.varied, search.space, fix=search.fix)
        varied = [dimension.name for dimension in space.dimensions]
        runs = runs.fit_to([*varied, *space.fixed])

    is_robust = bool(search.robust) and not goal.others
    rule = PLAIN
    if is_robust:
        rule = search.robust if isinstance(search.robust, Robustness) else Robustness()
    return SearchProblem(
        **vars(runs),
        **budget,
        space=space,
        goal=goal,
        objective=search.objective,
        metrics="core" if names <= set(CORE) else "all",
        sampler=search.sampler,
        robustness=rule,
        is_robust=is_robust,
        seed=search.seed,
        holdout=search.holdout,
        store=None if search.store is None else Path(search.store),
        resume=search.resume,
        cluster=search.cluster,
    )


def read_goal(objective: Objectives, constraints: Any) -> Goal:
    """Return what is maximized under which constraints."""
    bounds = results.read_constraints(constraints)
    if isinstance(objective, str) or not isinstance(objective, Sequence):
        wanted = results.read_objective(objective)
        results.check_objective(wanted, bounds)
        return Goal(wanted, bounds)

    check_several(objective)
    first, *others = map(results.read_objective, objective)
    for wanted in (first, *others):
        results.check_objective(wanted, bounds)
    return Goal(first, bounds, tuple(others))


def check_several(objectives: Sequence[Any]) -> None:
    """Raise ParameterError unless objectives are two or three measures with a direction."""
    names = {name for name in objectives if isinstance(name, str)}
    if not 2 <= len(names) == len(objectives) <= 3:
        raise ParameterError(
            f"objectives must be two or three different measures, got {objectives!r:.80}"
        )

    for name in objectives:
        if isinstance(name, str):
            results.check_metric(name)
        if not isinstance(name, str) or not ABOUT[name].better:
            raise ParameterError(
                f"an objective must be a measure with a better direction, got {name!r}"
            )


def refuse_several(problem: SearchProblem, what: str) -> None:
    if problem.goal.others:
        raise ParameterError(f"{what} needs one objective, got {len(problem.goal.objectives)}")


def name_measures(objective: Objectives, goal: Goal) -> set[str]:
    """Return the measures that a search reads; of a function it is not known which."""
    names = {constraint.name for constraint in goal.constraints}
    parts: list[Any] = [objective]
    if not isinstance(objective, str) and not callable(objective):
        parts = [*objective]
    for part in parts:
        names.add(part.strip().lstrip("- ") if isinstance(part, str) else "a function")
    return names


def describe_objective(objective: Objectives) -> Any:
    if isinstance(objective, Mapping):
        return {name: float(weight) for name, weight in objective.items()}
    if isinstance(objective, list | tuple):
        return list(objective)
    if callable(objective):
        return name_callable(objective)
    return str(objective)
