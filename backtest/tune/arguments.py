"""What a user asks of a search, checked at the door."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from backtest.base.errors import ParameterError
from backtest.base.fields import Whole
from backtest.base.phrases import Place
from backtest.base.ranges import Choice, Number
from backtest.measures.ranking import ObjectiveLike
from backtest.measures.run_measures import CORE, PATH
from backtest.tune.plateau import PLAIN, Robustness
from backtest.tune.study_identity import describe_objective

if TYPE_CHECKING:
    from backtest.sweep.evaluator import Metrics
    from backtest.tune.trial_evaluator import Goal

ObjectivesLike: TypeAlias = "ObjectiveLike | Sequence[ObjectiveLike]"

TRIALS = 20_000
"""The budget where none is given."""
LEAST_TRIALS = 4


def read_budget(trials: int | None, seconds: float | None) -> tuple[int | None, float | None]:
    """Return the most sets and the most seconds; None is no limit."""
    if trials is None and seconds is None:
        return TRIALS, None
    number = None
    if trials is not None:
        number = Whole(LEAST_TRIALS).check("trials", trials, where=Place("trials", of="bt.tune"))
    limit = None
    if seconds is not None:
        limit = Number(0.0, open_low=True).check(
            "seconds", seconds, where=Place("seconds", of="bt.tune")
        )
    return number, limit


def read_rule(robust: object) -> Robustness:
    """Return how candidates are judged: one by its neighbours alone where the plain optimum wins.

    Raises
    ------
    ParameterError
        If it is neither a bool nor a Robustness.
    """
    if isinstance(robust, Robustness):
        return robust
    if not isinstance(robust, bool):
        raise ParameterError(
            f"robust must be True, False or a Robustness, was {robust!r}",
            where=Place("robust", of="bt.tune"),
            cure="write robust=bt.Robustness(quantile=0.1), for example",
        )
    return Robustness() if robust else PLAIN


def check_choices(sampler: str, seed: int) -> None:
    """Refuse a sampler that there is not, and a seed that is none."""
    from backtest.tune.samplers import SamplerName  # noqa: PLC0415 - they load SciPy and more

    Choice(*get_args(SamplerName)).check("sampler", sampler, where=Place("sampler", of="bt.tune"))
    Whole(0).check("seed", seed, where=Place("seed", of="bt.tune"))


def list_objectives(objective: ObjectivesLike) -> list[Any]:
    """Return one objective, or several, as a list."""
    if isinstance(objective, Sequence) and not isinstance(objective, str):
        return list(objective)
    return [objective]


def describe_objectives(objective: ObjectivesLike) -> list[Any]:
    """Return the objectives as data."""
    return [describe_objective(each) for each in list_objectives(objective)]


def choose_metrics(objective: ObjectivesLike, goal: Goal) -> Metrics:
    """Return which measures a study needs: the core ones where they are enough.

    Raises
    ------
    ParameterError
        If one needs the whole path of an account.
    """
    names = {each.name for each in goal.constraints}
    for each in list_objectives(objective):
        if callable(each):
            return "all"
        names |= {each.strip().removeprefix("-").strip()} if isinstance(each, str) else set(each)
    slow = sorted(names & set(PATH))
    if slow:
        raise ParameterError(
            f"a search can use measures that need no path of an account, not {', '.join(slow)}",
            where=Place(("objective", "constraints"), of="bt.tune"),
            cure="use others, such as max_drawdown; study.replay().metrics has all of them",
        )
    return "core" if names <= set(CORE) else "all"
