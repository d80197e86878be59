"""Check the arguments of tune()."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from backtest.base import Choice, Number, ParameterError, Place, Whole
from backtest.measures import ObjectiveLike, read_aversion, read_risk_name
from backtest.measures.path_measures import PATH
from backtest.measures.run_measures import CORE
from backtest.tune.plateau import PLAIN, Robustness

if TYPE_CHECKING:
    from backtest.sweep import Metrics
    from backtest.tune.trial_evaluator import Goal

ObjectivesLike: TypeAlias = "ObjectiveLike | Sequence[ObjectiveLike]"

TRIALS = 20_000
"""Trials if neither trials nor seconds are given."""
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


def read_left_out(markets: object) -> dict[str, int]:
    """Return the number of markets that were left out, as a setting of a manifest; {} without."""
    where = Place("markets_left_out", of="bt.tune")
    number = Whole(0).check("markets_left_out", markets, where=where)
    return {"markets_left_out": number} if number else {}


def read_robustness(robust: object) -> Robustness:
    """Return the rule by which candidates are scored; PLAIN if ``robust`` is False."""
    if isinstance(robust, Robustness):
        return robust
    if not isinstance(robust, bool):
        raise ParameterError(
            f"robust must be True, False or a Robustness, got {robust!r}",
            where=Place("robust", of="bt.tune"),
            cure="write robust=bt.Robustness(quantile=0.1), for example",
        )
    return Robustness() if robust else PLAIN


def check_choices(sampler: str, seed: int) -> None:
    """Check the name of the sampler and the seed."""
    from backtest.tune.samplers import SamplerName  # noqa: PLC0415 - they load SciPy and more

    Choice(*get_args(SamplerName)).check("sampler", sampler, where=Place("sampler", of="bt.tune"))
    Whole(0).check("seed", seed, where=Place("seed", of="bt.tune"))


def list_objectives(objective: ObjectivesLike) -> list[Any]:
    """Return one or several objectives as a list."""
    if isinstance(objective, Sequence) and not isinstance(objective, str):
        return list(objective)
    return [objective]


def find_names(objective: ObjectivesLike) -> set[str]:
    """Return the measures that objectives name; functions name none."""
    names: set[str] = set()
    for each in list_objectives(objective):
        if isinstance(each, str):
            names.add(each.strip().removeprefix("-").strip())
        elif isinstance(each, Mapping):
            names |= {str(name) for name in each}
    return names


def choose_metrics(objective: ObjectivesLike, goal: Goal) -> Metrics:
    """Return "core" if the core measures are enough for a study, else "all".

    Certainty equivalents of a risk aversion are given by name: they come with all measures.
    """
    if any(callable(each) for each in list_objectives(objective)):
        return "all"
    names = find_names(objective) | {each.name for each in goal.constraints}
    names = {name for name in names if read_risk_name(name) is None}
    by_aversion = tuple(sorted(name for name in names if read_aversion(name) is not None))
    names -= {*by_aversion}
    slow = sorted(names & set(PATH))
    if slow:
        raise ParameterError(
            f"a search can use measures that need no path of an account, not {', '.join(slow)}",
            where=Place(("objective", "constraints"), of="bt.tune"),
            cure="use others, such as max_drawdown; study.replay().metrics has all of them",
        )
    if by_aversion:
        return by_aversion
    return "core" if names <= set(CORE) else "all"
