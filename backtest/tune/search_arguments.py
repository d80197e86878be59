"""Check the arguments of tune(), and the paths of a search and what is measured on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from backtest.base import (
    Choice,
    Number,
    ParameterError,
    Whole,
    list_values,
)
from backtest.market import Markets, as_markets
from backtest.measures import ObjectiveLike, RiskMeasure, read_aversion, read_risk_name
from backtest.measures.measure_table import CORE, LARGEST, PATH
from backtest.tune.path_risk import PathRisk
from backtest.tune.plateau import PLAIN, Robustness

if TYPE_CHECKING:
    from backtest.market import Market
    from backtest.policy import Policy
    from backtest.risk import Paths
    from backtest.sweep import Metrics
    from backtest.tune.trial_evaluator import Goal


ObjectivesLike: TypeAlias = "ObjectiveLike | Sequence[ObjectiveLike]"

TRIALS = 20_000
"""Trials if neither trials nor seconds are given."""
LEAST_TRIALS = 4


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


def read_left_out(markets: object) -> dict[str, int]:
    number = Whole(0).check("markets_left_out", markets)
    return {"markets_left_out": number} if number else {}


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


def list_objectives(objective: ObjectivesLike) -> list[Any]:
    if isinstance(objective, Sequence) and not isinstance(objective, str):
        return list(objective)
    return [objective]


def find_names(objective: ObjectivesLike) -> set[str]:
    names: set[str] = set()
    for each in list_objectives(objective):
        if isinstance(each, str):
            names.add(each.strip().removeprefix("-").strip())
        elif isinstance(each, Mapping):
            names |= {str(name) for name in each}
    return names


def choose_metrics(objective: ObjectivesLike, goal: Goal) -> Metrics:
    if any(callable(each) for each in list_objectives(objective)):
        return "all"
    names = find_names(objective) | {each.name for each in goal.constraints}
    names = {name for name in names if read_risk_name(name) is None}
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


def read_path_risk(
    paths: Paths | None,
    objective: ObjectivesLike,
    constraints: Mapping[str, str] | None,
    market: Market | Markets,
    *,
    signal: object,
    overlay: Policy | None,
    threads: int | None,
    compile: bool,  # noqa: A002 - the word of bt.tune
    validate: str | None,
) -> PathRisk | None:
    if paths is None:
        return None
    check_history(paths, market)
    check_use(validate)
    bounded = constraints if isinstance(constraints, Mapping) else {}
    names = sorted(find_names(objective) | {str(name) for name in bounded})
    measures = tuple(each for each in map(read_risk_name, names) if each is not None)
    if not measures:
        raise ParameterError(
            "with paths, an objective or a constraint must be measured on them, none is; "
            "constraints={'p_liquidation_30d': '<= 0.01'} for example"
        )
    for each in measures:
        check_measure(paths, each)
    return PathRisk(
        paths,
        measures,
        signal=read_constant(signal),
        overlay=overlay,
        threads=threads,
        compile=compile,
    )


def check_history(paths: Paths, market: Market | Markets) -> None:
    from backtest.risk import check_paths  # noqa: PLC0415 - only with paths

    found = check_paths(paths).names
    wanted = as_markets(market).names
    if found != wanted:
        raise ParameterError(
            f"paths must be of the market of the search, {', '.join(wanted)!r}, got paths of "
            f"{', '.join(found)!r}"
        )


def check_use(validate: str | None) -> None:
    if validate is not None:
        raise ParameterError(
            "validate must be None for a search with paths, which begin after the folds"
        )


def check_measure(paths: Paths, measure: RiskMeasure) -> None:
    from backtest.risk import count_bars  # noqa: PLC0415 - only with paths
    from backtest.risk.liquidation.max_leverage import LEAST_HITS  # noqa: PLC0415

    if measure.kind != LARGEST:
        count_bars(paths, measure.horizon)
    elif not measure.probability * paths.count >= LEAST_HITS or measure.probability >= 1.0:
        raise ParameterError(
            f"{measure.name} needs a probability under 1, and paths times it to be at least "
            f"{LEAST_HITS}, got {measure.probability * paths.count:g}; simulate more paths"
        )


def read_constant(signal: Any) -> Any:
    for each in list_values(signal):
        is_number = isinstance(each, int | float) and not isinstance(each, bool)
        if not is_number and signal is not None:
            raise ParameterError(
                "with paths, the signal must be a number or a table of one for each instrument, as "
                f"columns, frames and rules end with the data, got {each!r:.60}"
            )
    return signal
