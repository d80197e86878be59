"""The sets of a sweep, or the trials of a study, for charts; and what parameters matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import BoolArray, FloatArray, IntArray
from backtest.measures import check_metric, order_sets, read_objective
from backtest.measures.measure_table import ABOUT
from backtest.sweep import ERROR, Axis, read_axis
from backtest.sweep.heatmap import MOST_VALUES

if TYPE_CHECKING:
    from backtest.sweep import Sweep
    from backtest.tune import Study


NEAR = 0.1
"""Largest distance of neighbors, as a fraction of a parameter's range, or one grid step."""
TIED = 1e-9


class Explored(NamedTuple):
    """Sets of parameters and their outcomes, in arrays of shape (n_sets,)."""

    table: pd.DataFrame
    parameters: Mapping[str, Mapping[str, Any]]
    name: str
    values: FloatArray
    better: int
    order: IntArray
    is_ruined: BoolArray
    is_kept: BoolArray

    @property
    def best(self) -> int:
        return int(self.order[0])

    @property
    def varied(self) -> list[str]:
        return [name for name in self.parameters if self.table[name].nunique(dropna=False) > 1]

    def keep(self, chosen: BoolArray) -> Explored:
        place = np.cumsum(chosen) - 1
        return self._replace(
            table=self.table[chosen].reset_index(drop=True),
            values=self.values[chosen],
            order=place[self.order[chosen[self.order]]].astype(np.int64),
            is_ruined=self.is_ruined[chosen],
            is_kept=self.is_kept[chosen],
        )

    def read_axis(self, name: str) -> Axis:
        return read_axis(self.table[name], self.parameters[name]["log"])


def explore_sweep(sweep: Sweep) -> Explored:
    objective, metrics = sweep.ranked_by, sweep.metrics
    order = sweep.rank(objective, sweep.ranked_where)
    if isinstance(objective, str):
        check_metric(objective)
        name, values, better = objective, metrics[objective], ABOUT[objective].better or 1
    else:
        score = read_objective(objective)
        name, values, better = score.name, score.score(metrics), 1
    ruined = np.nan_to_num(metrics["ruined"], nan=0.0) > 0.0
    errors = sweep.table.get(ERROR, pd.Series("", index=sweep.table.index))
    failed = (errors != "").to_numpy(dtype=np.bool_)
    return Explored(
        table=sweep.table,
        parameters=sweep.manifest["parameters"],
        name=name,
        values=np.where(ruined | failed, np.nan, values),
        better=better,
        order=order,
        is_ruined=ruined,
        is_kept=~failed,
    )


def explore_study(study: Study) -> Explored:
    table = study.table
    name = study.objectives[0]
    score = "score" if len(study.objectives) == 1 else f"score: {name}"
    metrics = {each: table[each].to_numpy() for each in ABOUT if each in table}
    ruins = np.nan_to_num(metrics["ruined"], nan=0.0)
    ruined = ruins > 0.0
    kept = (table["violation"] == 0.0).to_numpy(dtype=np.bool_)
    scores = table[score].to_numpy(dtype=np.float64)
    violations = table["violation"].to_numpy(dtype=np.float64)
    failed = (table[ERROR] != "").to_numpy(dtype=np.bool_)
    order = order_sets(scores, violations, ruins, metrics["ruin_time"], failed)
    if study.best_trial >= 0:
        order = np.concatenate([[study.best_trial], order[order != study.best_trial]])
    dimensions = study.facts["space"]["dimensions"]
    return Explored(
        table=table,
        parameters={find_label(table, each["name"]): {"unit": "", **each} for each in dimensions},
        name=name,
        values=np.where(ruined, np.nan, metrics[name] if name in ABOUT else scores),
        better=(ABOUT[name].better or 1) if name in ABOUT else 1,
        order=order.astype(np.int64),
        is_ruined=ruined,
        is_kept=kept,
    )


def find_label(table: pd.DataFrame, name: str) -> str:
    own = f"policy.{name}"
    return own if own in table else name


def find_idle(explored: Explored, name: str) -> BoolArray:
    column = explored.table[name]
    none = np.zeros(len(column), dtype=np.bool_)
    if not pd.api.types.is_float_dtype(column) or column.nunique() <= MOST_VALUES:
        return none
    counts = column.value_counts()
    value, count = float(counts.index[0]), int(counts.iloc[0])
    is_inside = column.min() < value < column.max()
    is_alone = len(counts) < 2 or int(counts.iloc[1]) < count / 10
    if not (is_inside and is_alone and count > len(column) / 20):
        return none
    return (column == value).to_numpy(dtype=np.bool_)


def exclude_idle(explored: Explored, *names: str) -> tuple[Explored, str]:
    idle = np.zeros(len(explored.table), dtype=np.bool_)
    said = []
    for name in names:
        here = find_idle(explored, name)
        if here.any():
            value = explored.table[name].to_numpy()[here][0]
            said.append(f"{here.sum():,} sets in which {name} has no part and is {value:g}")
        idle |= here
    idle[explored.best] = False
    words = f" Left out: {' and '.join(said)}." if said else ""
    return (explored.keep(~idle), words) if idle.any() else (explored, "")


def rank_from_best(explored: Explored) -> FloatArray:
    n = len(explored.order)
    place = np.empty(n)
    place[explored.order] = np.arange(n)
    return 1.0 - place / max(n - 1, 1)


def scale_parameter(column: pd.Series, *, log: bool) -> FloatArray:
    is_number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if is_number and not column.isna().any():
        numbers = column.to_numpy(dtype=np.float64)
        numbers = np.log(numbers) if log and float(np.min(numbers)) > 0.0 else numbers
        numbers = np.clip(numbers, -1e300, 1e300)
        span = float(np.ptp(numbers))
        return (numbers - np.min(numbers)) / span if span > 0.0 else np.zeros(len(numbers))
    words, codes = np.unique(column.fillna("none").astype(str), return_inverse=True)
    return np.asarray(codes / max(len(words) - 1, 1), dtype=np.float64)


def find_neighbors(explored: Explored) -> BoolArray:
    near = np.ones(len(explored.table), dtype=np.bool_)
    for name in explored.varied:
        column = explored.table[name]
        place = scale_parameter(column, log=bool(explored.parameters[name]["log"]))
        distance = np.abs(place - place[explored.best])
        if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
            near &= distance <= TIED
            continue
        steps = np.diff(np.unique(place))
        reach = max(NEAR, float(np.min(steps[steps > TIED], initial=1.0))) if len(steps) else NEAR
        near &= distance <= reach + TIED
    near[explored.best] = False
    return near


LEAST_SETS = 60
"""Least number of sets that a forest can learn from."""
MOST_SETS = 4000
TREES = 60
REPEATS = 5
EXPLAINS = 0.1
"""Least share of explained variance at which importances are worth reading."""


class Importance(NamedTuple):
    table: pd.DataFrame
    explained: float


def measure_importance(explored: Explored, seed: int = 0) -> Importance | None:
    """Return the importance of each varied parameter; None if there are too few sets.

    Notes
    -----
    Permutation importance: Breiman (2001), Random Forests, Machine Learning 45, of a forest grown
    on half of the sets and tested on the other half. It predicts the rank of a set, so that ruined
    sets count as the worst and single extremes do not dominate. Parameters that vary together
    share what they explain.
    """
    names = explored.varied
    if len(explored.table) < LEAST_SETS or not names:
        return None
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(explored.table))[:MOST_SETS]
    columns = [
        scale_parameter(explored.table[n], log=bool(explored.parameters[n]["log"])) for n in names
    ]
    inputs = np.stack(columns, axis=1)[rows]
    target = rank_from_best(explored)[rows]
    half = len(rows) // 2
    forest = fit_forest(inputs[:half], target[:half], seed)
    losses, explained = shuffle_each(forest, inputs[half:], target[half:], rng)
    table = pd.DataFrame(
        {"importance": losses.mean(axis=0), "error": losses.std(axis=0, ddof=1) / REPEATS**0.5},
        index=pd.Index(names, name="parameter"),
    )
    ordered = table.sort_values("importance", ascending=False, kind="stable")
    return Importance(ordered, explained)


def fit_forest(inputs: FloatArray, target: FloatArray, seed: int) -> Any:
    from sklearn.ensemble import RandomForestRegressor  # noqa: PLC0415 - takes a second to load

    forest = RandomForestRegressor(TREES, min_samples_leaf=3, random_state=seed, n_jobs=1)
    return forest.fit(inputs, target)


def shuffle_each(
    forest: Any, inputs: FloatArray, target: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, float]:
    """Return the losses of R^2 of shape (repeats, parameters), and the R^2 itself."""
    explained = float(forest.score(inputs, target))
    losses = np.empty((REPEATS, inputs.shape[1]))
    for place in range(inputs.shape[1]):
        for repeat in range(REPEATS):
            shuffled = inputs.copy()
            shuffled[:, place] = rng.permutation(shuffled[:, place])
            losses[repeat, place] = explained - forest.score(shuffled, target)
    return losses, explained
