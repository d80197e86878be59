"""What a search or a validation chooses among and by what, and how that is described."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar, get_args

from backtest import results
from backtest._compile.bytecode import name_callable
from backtest.core import Choice, ParameterError, Real, Value, Whole
from backtest.engine import BacktestFields, read_test
from backtest.policies import Policy
from backtest.results.measure_table import ABOUT, CORE, PATH
from backtest.search.trials import Goal, SamplerName
from backtest.sweep import Accounts, Evaluator, Metrics, Pool, SetRuns, read_runs, read_space

LIMITS = {"trials": Whole(4), "seconds": Real(0.0, open_low=True), "patience": Whole(1)}
TRIALS = 20_000
"""Trials if neither trials nor seconds are given."""

_F = TypeVar("_F", bound=Callable[..., Any])
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
        candidates = int(min(self.candidates, max(1.0, trials / self.neighbours)))
        neighbours = int(min(self.neighbours, max(1.0, trials)))
        return Robustness(**{**self.to_dict(), "candidates": candidates, "neighbours": neighbours})


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
    resume: bool
    cluster: str | None

    @property
    def names(self) -> list[str]:
        return [each.name for each in self.space.dimensions]

    def build_evaluator(self, market: Any) -> Evaluator:
        return self.make(market, self.keep_times(), self.metrics)

    def describe_search(self, kind: str, **settings: Any) -> dict[str, Any]:
        patience: dict[str, Any] = {} if self.patience is None else {"patience": self.patience}
        return self.describe(
            kind,
            space=self.space.describe(),
            objective=" and ".join(each.name for each in self.goal.objectives),
            objective_source=describe_objective(self.objective),
            constraints=[str(each) for each in self.goal.constraints],
            trials=self.trials,
            sampler=self.sampler,
            robust=self.robustness.to_dict() if self.is_robust else False,
            seed=self.seed,
            **patience,
            **settings,
        )


class SharedFields(BacktestFields, total=False):
    space: Mapping[str, Any] | None
    fix: Mapping[str, Any] | None
    constraints: Mapping[str, str] | None
    seed: int
    store: str | Path | None
    resume: bool
    threads: int | None
    memory: str
    cluster: str | None
    compile: bool


class SearchFields(SharedFields, total=False):
    accounts: Accounts
    pool: Pool
    trials: int | None
    seconds: float | None
    patience: int | None
    sampler: SamplerName
    holdout: str | float | None


OF_SEARCH = SearchFields.__annotations__.keys() - BacktestFields.__annotations__.keys()
DEFAULTS: Mapping[str, Any] = {
    "accounts": "shared", "pool": "mean", "sampler": "auto", "holdout": "25%", "seed": 0,
    "resume": False, "memory": "1GiB", "compile": True,
}  # fmt: skip
"""Defaults of what a search takes by name; all others are None."""


def read_search(
    market: Any,
    policy: type[Policy] | Policy,
    *,
    objective: Objectives = "sharpe",
    robust: bool | Robustness = False,
    is_searched: bool = True,
    **fields: Any,
) -> SearchProblem:
    """Read the arguments of a search and of its test; there is no space unless ``is_searched``."""
    own: dict[str, Any] = {name: fields.pop(name, DEFAULTS.get(name)) for name in OF_SEARCH}
    test, sampler = read_test(market, fields), own["sampler"]
    Choice(*get_args(SamplerName)).check("sampler", sampler)
    Whole(0).check("seed", own["seed"])
    if own["trials"] is None and own["seconds"] is None:
        own["trials"] = TRIALS
    for name, limit in LIMITS.items():
        if own[name] is not None:
            own[name] = limit.check(name, own[name])
    own["store"] = None if own["store"] is None else Path(own["store"])
    how = {name: own.pop(name) for name in ("accounts", "pool", "compile", "threads", "memory")}
    runs = read_runs(test, policy, **how)
    space, fix, constraints = (own.pop(name) for name in ("space", "fix", "constraints"))
    goal = read_goal(objective, constraints)
    names = name_measures(objective, goal)
    if not callable(objective) and (slow := sorted(names & set(PATH))):
        raise ParameterError(
            "objective and constraints must be measures that need no path of an account, got "
            f"{', '.join(slow)}; study.replay().metrics has all"
        )
    if goal.others and (sampler == "gp" or isinstance(robust, Robustness)):
        raise ParameterError(
            "several objectives take sampler auto, sobol, random or grid, and no robust, got "
            f"{sampler} and {robust}"
        )
    found = None
    if is_searched:
        found = read_space(runs.varied, space, fix=fix)
        runs = runs.fit_to([*(each.name for each in found.dimensions), *found.fixed])
    if not isinstance(robust, bool | Robustness):
        raise ParameterError(f"robust must be True, False or a bt.Robustness, got {robust!r}")
    is_robust = bool(robust) and not goal.others
    rule = robust if isinstance(robust, Robustness) else Robustness()
    return SearchProblem(
        **vars(runs),
        space=found,
        goal=goal,
        objective=objective,
        metrics="core" if names <= set(CORE) else "all",
        robustness=rule if is_robust else PLAIN,
        is_robust=is_robust,
        **own,
    )


def takes_fields(fields: type) -> Callable[[_F], _F]:
    """Show arguments that a function takes by name as :func:`read_search` reads them."""

    def show(function: _F) -> _F:
        *own, rest = inspect.signature(function).parameters.values()
        taken, types = {each.name for each in own}, fields.__annotations__
        more = [
            rest.replace(
                name=name,
                kind=rest.KEYWORD_ONLY,
                default=DEFAULTS.get(name),
                annotation=types[name].__forward_arg__,
            )
            for name in types
            if name in OF_SEARCH - taken
        ]
        shown: Any = function
        shown.__signature__ = inspect.Signature([*own, *more, rest])
        shown.__annotations__ |= {each.name: each.annotation for each in more}
        return function

    return show


def read_goal(objective: Objectives, constraints: Any) -> Goal:
    bounds = results.read_constraints(constraints)
    if isinstance(objective, str) or not isinstance(objective, Sequence):
        wanted = results.read_objective(objective)
        results.check_objective(wanted, bounds)
        return Goal(wanted, bounds)
    names = {each for each in objective if isinstance(each, str)}
    if not 2 <= len(names) == len(objective) <= 3:
        raise ParameterError(
            f"objectives must be two or three different measures, got {objective!r:.80}"
        )
    for name in objective:
        if isinstance(name, str):
            results.check_metric(name)
        if not isinstance(name, str) or not ABOUT[name].better:
            raise ParameterError(
                f"an objective must be a measure with a better direction, got {name!r}"
            )
    first, *others = map(results.read_objective, objective)
    for each in (first, *others):
        results.check_objective(each, bounds)
    return Goal(first, bounds, tuple(others))


def refuse_several(problem: SearchProblem, what: str) -> None:
    if problem.goal.others:
        raise ParameterError(f"{what} needs one objective, got {len(problem.goal.objectives)}")


def name_measures(objective: Objectives, goal: Goal) -> set[str]:
    given = [objective] if isinstance(objective, str) or callable(objective) else [*objective]
    names = {k.strip().lstrip("- ") if isinstance(k, str) else "a function" for k in given}
    return names | {each.name for each in goal.constraints}


def describe_objective(objective: Objectives) -> Any:
    if isinstance(objective, Mapping):
        return {name: float(weight) for name, weight in objective.items()}
    if isinstance(objective, list | tuple):
        return list(objective)
    return name_callable(objective) if callable(objective) else str(objective)
