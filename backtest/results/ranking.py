"""Objectives, constraints, and the order of parameter sets under them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from backtest import core
from backtest.core.code_names import pd
from backtest.results.measure_table import ABOUT, FRACTION, METRICS, PATH

MetricArrays: TypeAlias = Mapping[str, core.FloatArray]
ObjectiveLike: TypeAlias = str | Mapping[str, float] | Callable[[Mapping[str, float]], float]

NEVER = ("time_to_first_liquidation", "ruin_time")
COUNTED_BY = {"time_to_first_liquidation": "liquidations", "ruin_time": "ruined"}
"""By measure, the count of what it is the time to: where that is 0, it is NaN."""

_CONSTRAINT = re.compile(r"\s*(<=|>=|==|<|>)\s*(\S+)\s*")
_BOUNDED = re.compile(r"(\w+)\s*((?:<=|>=|==|<|>).*)")


class Objective(NamedTuple):
    """Quantity to maximize.

    ``score`` takes the measures as arrays of shape (n_sets,) and returns one score per set; larger
    is better, NaN means no score. ``measures`` are those that it adds up, none of a function.
    """

    name: str
    score: Callable[[MetricArrays], core.FloatArray]
    measures: tuple[str, ...] = ()


class Constraint(NamedTuple):
    name: str
    operator: str
    bound: float

    def __str__(self) -> str:
        return f"{self.name} {self.operator} {self.bound:g}"

    def violation(self, metrics: MetricArrays) -> core.FloatArray:
        values = select_measure(metrics, self.name)
        if self.name in NEVER:
            has_run = ~np.isnan(metrics.get("ruined", np.zeros(len(values))))
            values = np.where(np.isnan(values) & has_run, np.inf, values)
        sign = -1.0 if self.operator[0] == ">" else 1.0
        over = sign * (values - self.bound)
        if self.operator == "==":
            over = np.abs(over)
        elif len(self.operator) == 1:
            over = np.where(over >= 0.0, np.maximum(over, np.finfo(np.float64).tiny), over)
        violation: core.FloatArray = np.maximum(over, 0.0) / (abs(self.bound) or 1.0)
        violation[np.isnan(values)] = np.inf
        return violation


RUIN = Constraint("ruined", "==", 0.0)


def select_measure(metrics: MetricArrays, name: str) -> core.FloatArray:
    if name in metrics:
        return metrics[name]
    check_metric(name)
    does = "sweep.detail of its rows" if name in PATH else "a sweep with metrics='all'"
    raise core.ParameterError(f"{name} was not measured; {does} does")


def read_objective(objective: ObjectiveLike) -> Objective:
    if isinstance(objective, str):
        measure = objective.strip().removeprefix("-").strip()
        if bound := _BOUNDED.fullmatch(measure):
            raise core.ParameterError(
                f"an objective must be a measure without a bound, got {objective!r}; "
                f"constraints={{{bound[1]!r}: {bound[2]!r}}} bounds one"
            )
        check_metric(measure)
        is_turned = objective.strip().startswith("-") or ABOUT[measure].better < 0
        sign = -1.0 if is_turned else 1.0
        name = f"-{measure}" if is_turned else measure
        return Objective(name, partial(add_measures, {measure: sign}), (measure,))
    if isinstance(objective, Mapping) and objective:
        return _read_sum(objective)
    if not callable(objective):
        raise core.ParameterError(
            f"objective must be a measure, weights of measures or a function, "
            f"got {core.repr_plain(objective)}"
        )
    name = getattr(objective, "__name__", type(objective).__name__)
    return Objective(name, partial(apply_function, objective, name))


def add_measures(weights: Mapping[str, float], metrics: MetricArrays) -> core.FloatArray:
    found = [weight * select_measure(metrics, name) for name, weight in weights.items()]
    return np.asarray(np.sum(found, axis=0))


def apply_function(
    objective: Callable[[Mapping[str, float]], float], name: str, metrics: MetricArrays
) -> core.FloatArray:
    """Return what a user's function makes of the measures of each set, NaN of a failed one."""

    def call(row: Mapping[str, float]) -> float:
        if math.isnan(row.get("ruined", 0.0)):  # the set failed
            return math.nan
        try:
            return float(objective(row))
        except ArithmeticError:
            return math.nan
        except core.RAISED as error:  # a user's function may raise anything
            raise core.ParameterError(
                f"objective {name} must return a number, raised {type(error).__name__}: {error}"
            ) from error

    columns = [column.tolist() for column in metrics.values()]
    rows = (dict(zip(metrics, row, strict=True)) for row in zip(*columns, strict=True))
    return np.array([call(row) for row in rows], dtype=np.float64)


def _read_sum(weights: Mapping[str, float]) -> Objective:
    terms = []
    for name, weight in weights.items():
        if not isinstance(name, str):
            raise core.ParameterError(
                f"objective must name its measures, got {core.repr_plain(name)}; "
                "{'sharpe': 1.0, 'max_drawdown': -0.5}, for example"
            )
        check_metric(name)
        core.ANY_NUMBER.check(f"the weight of {name}", weight)
        size = "" if abs(weight) == 1.0 else f"{abs(weight):g} * "
        terms.append(f"{'-' if weight < 0.0 else '+'} {size}{name}")

    name = " ".join(terms).removeprefix("+ ")
    return Objective(name, partial(add_measures, dict(weights)), tuple(weights))


def read_constraints(constraints: Mapping[str, str] | None = None) -> tuple[Constraint, ...]:
    if constraints is not None and not isinstance(constraints, Mapping):
        raise core.ParameterError(
            f"constraints must map measures to bounds, got {constraints!r}; "
            "{'max_drawdown': '<= 0.4'}, for example"
        )
    read = []
    for name, text in (constraints or {}).items():
        check_metric(name)
        match = _CONSTRAINT.fullmatch(str(text))
        try:
            bound = float(match[2]) if match else math.nan
        except ValueError:
            bound = math.nan
        if match is None or not math.isfinite(bound):
            raise core.ParameterError(
                f"a constraint must be a number after <=, >=, ==, < or >, got {text!r} for "
                f"{name}; '<= 0.4', for example"
            )
        constraint = Constraint(name, match[1], bound)
        if constraint != RUIN:
            check_domain(constraint)
        read.append(constraint)
    return (RUIN, *(each for each in read if each != RUIN))


def check_domain(constraint: Constraint) -> None:
    """Raise ParameterError for a bound that every value satisfies, or none."""
    name, operator, bound = constraint
    low, high = ABOUT[name].domain
    by_operator = {
        "<=": (bound >= high, bound < low),
        "<": (bound > high, bound <= low),
        ">=": (bound <= low, bound > high),
        ">": (bound < low, bound >= high),
        "==": (False, not low <= bound <= high),
    }
    is_kept, is_broken = by_operator[operator]
    if not is_kept and not is_broken:
        return

    span = f"is {low:g} or more" if high == math.inf else f"is at most {high:g}"
    if -math.inf < low and high < math.inf:
        span = f"lies in [{low:g}, {high:g}]"
    result = "no value breaks" if is_kept else "no value satisfies"
    cure = "leave it out"
    is_fraction = ABOUT[name].unit == FRACTION and high < math.inf
    if is_fraction and high < bound <= 100.0:
        cure = f"fractions are not per cent, '{operator} {bound / 100.0:g}' for example"
    elif is_fraction and bound < low <= -bound <= high:
        cure = f"it is positive, '{operator} {-bound:g}' for example"
    raise core.ParameterError(
        f"a constraint must be able to bind, {result} {constraint}: {name} {span}; {cure}"
    )


def check_objective(objective: Objective, constraints: Sequence[Constraint]) -> None:
    """Raise ParameterError if constraints leave an objective one value, or none."""
    fixed = {each.name: each for each in constraints if is_fixing(each)}
    for name in objective.measures:
        counted = fixed.get(COUNTED_BY.get(name, ""))
        if counted is not None and counted.bound == 0.0:
            raise core.ParameterError(
                f"an objective must be known of sets that may be chosen, {name} is not where "
                f"{counted}; give another measure"
            )
    if objective.measures and fixed.keys() >= {*objective.measures}:
        rules = " and ".join(str(fixed[name]) for name in dict.fromkeys(objective.measures))
        raise core.ParameterError(
            f"an objective must differ among sets that may be chosen, {objective.name} is the same "
            f"in all: {rules}; give another measure, or leave the constraint out"
        )


def is_fixing(constraint: Constraint) -> bool:
    """Return whether a constraint leaves one value of its measure."""
    low, high = ABOUT[constraint.name].domain
    at_edge = {"<=": low, ">=": high}.get(constraint.operator, math.nan)
    return constraint.operator == "==" or constraint.bound == at_edge


FAR_OFF = 10.0
"""A bound this many times from every value is likely in another unit."""


def find_far_bounds(constraints: Sequence[Constraint], metrics: MetricArrays) -> Iterator[str]:
    """Yield the bounds of open measures that no set came near, by size, with what was measured."""
    for each in constraints:
        low, high = ABOUT[each.name].domain
        is_open = not (math.isfinite(low) and math.isfinite(high))
        if not is_open or each.bound == 0.0 or each.name not in metrics:
            continue
        values = metrics[each.name]
        values = values[np.isfinite(values)]
        ratios = np.abs(values / each.bound)
        if values.size and not np.any((ratios >= 1.0 / FAR_OFF) & (ratios <= FAR_OFF)):
            yield (
                f"no set came within a factor {FAR_OFF:g} of the bound {each}: {each.name} was "
                f"{values.min():.4g} to {values.max():.4g} ({ABOUT[each.name].unit})"
            )


def check_metric(name: str) -> None:
    if name not in METRICS:
        raise core.ParameterError(f"there is no measure {name!r}{core.did_you_mean(name, METRICS)}")


def total_violation(constraints: Sequence[Constraint], metrics: MetricArrays) -> core.FloatArray:
    """Return the sum of all violations of each set, of shape (n_sets,)."""
    return np.asarray(np.sum([each.violation(metrics) for each in constraints], axis=0))


def order_sets(
    scores: core.FloatArray,
    violations: core.FloatArray,
    ruined: core.FloatArray | core.BoolArray,
    ruin_time: core.FloatArray,
    failed: core.BoolArray,
) -> core.IntArray:
    """Return the rows of all sets, the best first; equal sets keep their order.

    Arrays have shape (n_sets,). Larger ``scores`` are better, a violation of 0 satisfies all
    constraints, ``ruined`` counts the accounts that were ruined, ``ruin_time`` is in days. The
    order is: sets that satisfy the constraints by score, those of them without a score, sets that
    violate constraints by how much, ruined sets (the fewest ruins and the latest first), failed
    sets.
    """
    is_scoreless, is_over, is_ruined = np.isnan(scores), ~(violations <= 0.0), ruined > 0.0
    tier = np.select([failed, is_ruined, is_over, is_scoreless], [4, 3, 2, 1], default=0)
    within = np.select([tier == 3, tier == 2, tier == 0], [-ruin_time, violations, -scores], 0.0)
    return np.lexsort((within, np.where(tier == 3, ruined, 0.0), tier)).astype(np.int64)


def is_dominated(scores: core.FloatArray) -> core.BoolArray:
    """Return which sets another one beats: no worse in any objective, and better in one.

    ``scores`` (k, n_objectives) are larger for better sets; one with NaN is dominated.
    """
    order = np.lexsort(scores.T[::-1])[::-1]  # what beats a set stands before it
    beaten: core.BoolArray = np.any(np.isnan(scores), axis=1)
    kept = np.empty((0, scores.shape[1]))
    for row in order[~beaten[order]]:
        no_worse = (kept >= scores[row]).all(axis=1)
        beaten[row] = bool((no_worse & (kept > scores[row]).any(axis=1)).any())
        if not beaten[row]:
            kept = np.vstack([kept, scores[row]])
    return beaten


LEAST_BULGE = 0.05
"""Least distance of a knee from the chord, in ranges of the objectives: a frontier that is nearly
straight has a set everywhere that is as good a compromise as its neighbors."""


class Knee(NamedTuple):
    """The set of a frontier that a search of several objectives chooses.

    ``is_knee`` says whether it is a knee; else it is the best set of the first objective.
    """

    row: int
    is_knee: bool


def find_knee(scores: core.FloatArray) -> Knee:
    """Return the row that is farthest out from the chord between the ends of a frontier.

    ``scores`` (k, n_objectives), larger for better sets, are scaled to their range; of three
    objectives, the chord is the plane through the best set of each. Where no row is farther out
    than .05, the frontier has no knee.
    """
    width = np.ptp(scores, axis=0)
    scaled = (scores - scores.min(axis=0)) / np.where(width > 0.0, width, 1.0)
    ends = scaled[np.argmax(scaled, axis=0)]
    across = np.linalg.lstsq(ends, np.ones(len(ends)), rcond=None)[0]

    heights = scaled @ across
    row = int(np.argmax(heights))
    norm = float(np.linalg.norm(across))
    if norm > 0.0 and (heights[row] - 1.0) / norm > LEAST_BULGE:
        return Knee(row, is_knee=True)
    return Knee(int(np.argmax(scores[:, 0])), is_knee=False)


def rank_by_objective(
    metrics: MetricArrays,
    objective: ObjectiveLike,
    constraints: Mapping[str, str] | None,
    failed: core.BoolArray,
) -> core.IntArray:
    wanted, bounds = read_objective(objective), read_constraints(constraints)
    check_objective(wanted, bounds)
    return order_sets(
        wanted.score(metrics),
        total_violation(bounds, metrics),
        select_measure(metrics, "ruined"),
        select_measure(metrics, "ruin_time"),
        failed,
    )


DEEP = 0.8
"""A drawdown above which a set is marked: what is left must rise fivefold to get back."""
LEFT = 0.01
"""An account is lost if at most this share of its unit value is left at the end."""

DOUBTS = {
    "ambiguous_bars": "the account survives only if prices that hedge each other move together",
    "both_reached": "a take-profit is reached, and so is the stop or the liquidation price of the "
    "position",
}
"""By measure, what is so in bars whose outcome hangs on the way of prices inside them."""
AFTER_RUIN = "returns after the ruin count as 0 in Sharpe, Sortino, volatility, VaR and ES"


def is_lost(metrics: Mapping[Any, float]) -> bool:
    return metrics["ruined"] > 0.0 or metrics["total_return"] <= LEFT - 1.0


def find_cautions(metrics: Mapping[Any, float] | pd.Series) -> str:
    if metrics.get("ruined", 0.0) > 0.0:
        day = metrics.get("ruin_time", math.nan)
        return "ruined" if math.isnan(day) else f"ruined, day {day:.0f}"
    found = ["negative growth"] if metrics.get("cagr", 0.0) < 0.0 else []
    is_deep = metrics.get("max_drawdown", 0.0) > DEEP
    found += [f"drawdown over {DEEP:.0%}".replace("%", " %")] if is_deep else []
    return ", ".join(found)


def count_cautions(metrics: Sequence[Mapping[Any, float]]) -> str:
    marks = [find_cautions(each) != "" for each in metrics]
    n = sum(marks)
    if not n:
        return ""
    has = "has" if n == 1 else "have"
    best = ", the best one among them," if marks[0] and len(marks) > 1 else ""
    of = f"{n:,} of these {len(marks):,} sets" if len(marks) > 1 else "this set"
    return f"{of}{best} {has} negative growth or a drawdown over 80 %"
