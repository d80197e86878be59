"""Objectives, constraints, and the order of parameter sets under them."""

from __future__ import annotations

import contextlib
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
    """A bound on a measure."""

    name: str
    operator: str
    bound: float

    def __str__(self) -> str:
        return f"{self.name} {self.operator} {self.bound:g}"

    def violation(self, metrics: MetricArrays) -> core.FloatArray:
        """Return by how much each set violates the bound, as a share of it; NaN by infinity."""
        # The time of what never came in a run is infinite.
        values = select_measure(metrics, self.name)
        if self.name in NEVER:
            ruined = metrics.get("ruined", np.zeros(len(values)))
            has_run = ~np.isnan(ruined)
            values = np.where(np.isnan(values) & has_run, np.inf, values)

        # How far a value is beyond the bound, positive where it violates it.
        over = values - self.bound
        if self.operator[0] == ">":
            over = -over
        if self.operator == "==":
            over = np.abs(over)
        elif self.operator in ("<", ">"):  # the bound itself violates it, by next to nothing
            least = np.finfo(np.float64).tiny
            over = np.where(over >= 0.0, np.maximum(over, least), over)

        # As a share of the bound; of a bound of 0 as it is.
        scale = abs(self.bound) or 1.0
        violation: core.FloatArray = np.maximum(over, 0.0) / scale
        violation[np.isnan(values)] = np.inf
        return violation


RUIN = Constraint("ruined", "==", 0.0)


def select_measure(metrics: MetricArrays, name: str) -> core.FloatArray:
    """Return a measure of all sets; raise ParameterError for one that was not measured."""
    if name in metrics:
        return metrics[name]
    check_metric(name)
    cure = "a sweep with metrics='all'"
    if name in PATH:
        cure = "sweep.detail of its rows"
    raise core.ParameterError(f"{name} was not measured; {cure} does")


def read_objective(objective: ObjectiveLike) -> Objective:
    """Return what to maximize: a measure, a weighted sum of measures, or a function of them."""
    if isinstance(objective, str):
        return _read_measure(objective)
    if isinstance(objective, Mapping) and objective:
        return _read_sum(objective)

    if not callable(objective):
        raise core.ParameterError(
            f"objective must be a measure, weights of measures or a function, "
            f"got {core.repr_plain(objective)}"
        )
    name = getattr(objective, "__name__", type(objective).__name__)
    return Objective(name, partial(apply_function, objective, name))


def _read_measure(objective: str) -> Objective:
    """Read a measure, such as ``"sharpe"``; one of which less is better counts as its negative."""
    measure = objective.strip().removeprefix("-").strip()
    bounded = _BOUNDED.fullmatch(measure)
    if bounded:
        raise core.ParameterError(
            f"an objective must be a measure without a bound, got {objective!r}; "
            f"constraints={{{bounded[1]!r}: {bounded[2]!r}}} bounds one"
        )
    check_metric(measure)

    name = measure
    sign = 1.0
    if objective.strip().startswith("-") or ABOUT[measure].better < 0:
        name = f"-{measure}"
        sign = -1.0
    return Objective(name, partial(add_measures, {measure: sign}), (measure,))


def add_measures(weights: Mapping[str, float], metrics: MetricArrays) -> core.FloatArray:
    """Return the weighted sum of measures of each set."""
    terms = [weight * select_measure(metrics, name) for name, weight in weights.items()]
    return np.asarray(np.sum(terms, axis=0))


def apply_function(
    objective: Callable[[Mapping[str, float]], float],
    name: str,
    metrics: MetricArrays,
) -> core.FloatArray:
    """Return what a user's function makes of the measures of each set, NaN of a failed one."""

    def call(row: Mapping[str, float]) -> float:
        """Return the score of one set; what is no number, as 1 / 0, is NaN."""
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
    scores = []
    for values in zip(*columns, strict=True):
        row = dict(zip(metrics, values, strict=True))
        scores.append(call(row))
    return np.array(scores, dtype=np.float64)


def _read_sum(weights: Mapping[str, float]) -> Objective:
    """Return the weighted sum of measures as an objective, named ``sharpe - 0.5 * turnover``."""
    terms = []
    for name, weight in weights.items():
        if not isinstance(name, str):
            raise core.ParameterError(
                f"objective must name its measures, got {core.repr_plain(name)}; "
                "{'sharpe': 1.0, 'max_drawdown': -0.5}, for example"
            )
        check_metric(name)
        core.ANY_NUMBER.check(f"the weight of {name}", weight)

        sign = "-" if weight < 0.0 else "+"
        size = "" if abs(weight) == 1.0 else f"{abs(weight):g} * "
        terms.append(f"{sign} {size}{name}")

    name = " ".join(terms).removeprefix("+ ")
    return Objective(name, partial(add_measures, dict(weights)), tuple(weights))


def read_constraints(constraints: Mapping[str, str] | None = None) -> tuple[Constraint, ...]:
    """Return the bounds that sets must satisfy; the first is that none may be ruined."""
    if constraints is not None and not isinstance(constraints, Mapping):
        raise core.ParameterError(
            f"constraints must map measures to bounds, got {constraints!r}; "
            "{'max_drawdown': '<= 0.4'}, for example"
        )

    bounds = []
    for name, text in (constraints or {}).items():
        constraint = _read_constraint(name, text)
        if constraint != RUIN:
            check_domain(constraint)
            bounds.append(constraint)
    return (RUIN, *bounds)


def _read_constraint(name: str, text: object) -> Constraint:
    """Return the bound that a text such as ``"<= 0.4"`` sets on a measure."""
    check_metric(name)
    match = _CONSTRAINT.fullmatch(str(text))
    bound = math.nan
    if match:
        with contextlib.suppress(ValueError):
            bound = float(match[2])

    if match is None or not math.isfinite(bound):
        raise core.ParameterError(
            f"a constraint must be a number after <=, >=, ==, < or >, got {text!r} for "
            f"{name}; '<= 0.4', for example"
        )
    return Constraint(name, match[1], bound)


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
    is_always_kept, is_never_kept = by_operator[operator]
    if is_always_kept or is_never_kept:
        verb = "breaks" if is_always_kept else "satisfies"
        raise core.ParameterError(
            f"a constraint must be able to bind, no value {verb} {constraint}: {name} "
            f"{describe_domain(name)}; {find_cure(constraint)}"
        )


def describe_domain(name: str) -> str:
    """Return which values a measure can have, of one that is bounded on a side or two."""
    low, high = ABOUT[name].domain
    if high == math.inf:
        return f"is {low:g} or more"
    if low == -math.inf:
        return f"is at most {high:g}"
    return f"lies in [{low:g}, {high:g}]"


def find_cure(constraint: Constraint) -> str:
    """Return what was likely meant by a bound outside of the values of its measure."""
    name, operator, bound = constraint
    low, high = ABOUT[name].domain

    if ABOUT[name].unit == FRACTION and high < math.inf:
        if high < bound <= 100.0:
            return f"fractions are not per cent, '{operator} {bound / 100.0:g}' for example"
        if bound < low <= -bound <= high:
            return f"it is positive, '{operator} {-bound:g}' for example"
    return "leave it out"


def check_objective(objective: Objective, constraints: Sequence[Constraint]) -> None:
    """Raise ParameterError if constraints leave an objective one value, or none."""
    fixed = {rule.name: rule for rule in constraints if is_fixing(rule)}
    for name in objective.measures:
        counted = fixed.get(COUNTED_BY.get(name, ""))
        if counted is not None and counted.bound == 0.0:
            raise core.ParameterError(
                f"an objective must be known of sets that may be chosen, {name} is not where "
                f"{counted}; give another measure"
            )

    if objective.measures and fixed.keys() >= {*objective.measures}:
        names = dict.fromkeys(objective.measures)  # once each
        rules = " and ".join(str(fixed[name]) for name in names)
        raise core.ParameterError(
            f"an objective must differ among sets that may be chosen, {objective.name} is the same "
            f"in all: {rules}; give another measure, or leave the constraint out"
        )


def is_fixing(constraint: Constraint) -> bool:
    """Return whether a constraint leaves one value of its measure."""
    low, high = ABOUT[constraint.name].domain
    if constraint.operator == "==":
        return True
    if constraint.operator == "<=":
        return constraint.bound == low
    if constraint.operator == ">=":
        return constraint.bound == high
    return False


FAR_OFF = 10.0
"""A bound this many times from every value is likely in another unit."""


def find_far_bounds(constraints: Sequence[Constraint], metrics: MetricArrays) -> Iterator[str]:
    """Yield the bounds of open measures that no set came near, by size, with what was measured."""
    for constraint in constraints:
        about = ABOUT[constraint.name]
        low, high = about.domain
        is_open = not (math.isfinite(low) and math.isfinite(high))
        if not is_open or constraint.bound == 0.0 or constraint.name not in metrics:
            continue

        values = metrics[constraint.name]
        values = values[np.isfinite(values)]
        ratios = np.abs(values / constraint.bound)
        is_near = (ratios >= 1.0 / FAR_OFF) & (ratios <= FAR_OFF)
        if values.size and not is_near.any():
            yield (
                f"no set came within a factor {FAR_OFF:g} of the bound {constraint}: "
                f"{constraint.name} was {values.min():.4g} to {values.max():.4g} ({about.unit})"
            )


def check_metric(name: str) -> None:
    if name not in METRICS:
        raise core.ParameterError(f"there is no measure {name!r}{core.did_you_mean(name, METRICS)}")


def total_violation(constraints: Sequence[Constraint], metrics: MetricArrays) -> core.FloatArray:
    """Return the sum of all violations of each set, of shape (n_sets,)."""
    violations = [constraint.violation(metrics) for constraint in constraints]
    return np.asarray(np.sum(violations, axis=0))


CHOOSABLE, SCORELESS, VIOLATING, RUINED, FAILED = range(5)
"""Tiers of sets, the best first."""


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
    is_violating = ~(violations <= 0.0)  # NaN violates too
    tier = np.select(
        [failed, ruined > 0.0, is_violating, np.isnan(scores)],
        [FAILED, RUINED, VIOLATING, SCORELESS],
        default=CHOOSABLE,
    )
    place_in_tier = np.select(
        [tier == RUINED, tier == VIOLATING, tier == CHOOSABLE],
        [-ruin_time, violations, -scores],
        default=0.0,
    )
    n_ruins = np.where(tier == RUINED, ruined, 0.0)
    return np.lexsort((place_in_tier, n_ruins, tier)).astype(np.int64)


def thin_order(order: core.IntArray, most: int) -> core.IntArray:
    """Return at most some rows of an order: the best half, and others evenly down to the worst."""
    if len(order) <= most:
        return order
    n_best = most // 2
    best = order[:n_best]
    others = order[n_best:]

    even = np.linspace(0, len(others) - 1, most - n_best)
    places = even.round().astype(np.int64)
    return np.concatenate([best, others[places]])


def is_dominated(scores: core.FloatArray) -> core.BoolArray:
    """Return which sets another one beats: no worse in any objective, and better in one.

    ``scores`` (k, n_objectives) are larger for better sets; one with NaN is dominated.
    """
    beaten: core.BoolArray = np.any(np.isnan(scores), axis=1)

    # By the first objective, equal ones by the next, the best first: what beats a set stands
    # before it.
    keys = scores.T[::-1]  # of lexsort the last is the first
    order = np.lexsort(keys)[::-1]
    in_question = order[~beaten[order]]

    # A set that another one beats is beaten by one of the frontier too.
    frontier = np.empty((0, scores.shape[1]))
    for row in in_question:
        own = scores[row]
        is_no_worse = (frontier >= own).all(axis=1)
        is_better = (frontier > own).any(axis=1)
        is_beaten = bool((is_no_worse & is_better).any())
        beaten[row] = is_beaten
        if not is_beaten:
            frontier = np.vstack([frontier, own])

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
    unit = np.where(width > 0.0, width, 1.0)  # an objective without a range is 0 for all
    scaled = (scores - scores.min(axis=0)) / unit

    # The chord has the points x with across @ x = 1.
    ends = scaled[np.argmax(scaled, axis=0)]
    ones = np.ones(len(ends))
    across, *_ = np.linalg.lstsq(ends, ones, rcond=None)

    # The distance of a point from the chord is (across @ x - 1) / |across|.
    heights = scaled @ across
    row = int(np.argmax(heights))
    norm = float(np.linalg.norm(across))
    if norm > 0.0 and (heights[row] - 1.0) / norm > LEAST_BULGE:
        return Knee(row, is_knee=True)

    best_of_first = int(np.argmax(scores[:, 0]))
    return Knee(best_of_first, is_knee=False)


def rank_by_objective(
    metrics: MetricArrays,
    objective: ObjectiveLike,
    constraints: Mapping[str, str] | None,
    failed: core.BoolArray,
) -> core.IntArray:
    """Return the rows of all sets in the order of :func:`order_sets`, the best first."""
    goal = read_objective(objective)
    bounds = read_constraints(constraints)
    check_objective(goal, bounds)
    return order_sets(
        goal.score(metrics),
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
    """Return whether an account was ruined, or has next to nothing left."""
    return metrics["ruined"] > 0.0 or metrics["total_return"] <= LEFT - 1.0


def find_cautions(metrics: Mapping[Any, float] | pd.Series) -> str:
    """Return what speaks against a set, for its row in a table; empty if nothing does."""
    if metrics.get("ruined", 0.0) > 0.0:
        day = metrics.get("ruin_time", math.nan)
        if math.isnan(day):
            return "ruined"
        return f"ruined, day {day:.0f}"

    cautions = []
    if metrics.get("cagr", 0.0) < 0.0:
        cautions.append("negative growth")
    if metrics.get("max_drawdown", 0.0) > DEEP:
        cautions.append(f"drawdown over {100.0 * DEEP:.0f} %")
    return ", ".join(cautions)


def count_cautions(metrics: Sequence[Mapping[Any, float]]) -> str:
    """Return how many of some sets, the best first, have a caution; empty if none has."""
    has_caution = [find_cautions(row) != "" for row in metrics]
    n = sum(has_caution)
    if n == 0:
        return ""

    caution = f"negative growth or a drawdown over {100.0 * DEEP:.0f} %"
    if len(metrics) == 1:
        return f"this set has {caution}"
    if n == len(metrics):
        return f"all of these {n:,} sets have {caution}"
    if n == 1 and has_caution[0]:
        return f"the best of these {len(metrics):,} sets has {caution}"

    subject = f"{n:,} of these {len(metrics):,} sets"
    if has_caution[0]:
        subject = f"{subject}, the best one among them,"
    verb = "has" if n == 1 else "have"
    return f"{subject} {verb} {caution}"
