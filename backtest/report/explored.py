"""The sets of a sweep, or the trials of a study, for charts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import BoolArray, FloatArray, IntArray
from backtest.measures import check_metric, order_sets, read_objective
from backtest.measures.measure_table import ABOUT
from backtest.sweep import ERROR

if TYPE_CHECKING:
    from backtest.sweep import Sweep
    from backtest.tune import Study


NEAR = 0.1
"""Largest distance of neighbors, as a fraction of a parameter's range, or one grid step."""
TIED = 1e-9


MOST_VALUES = 40
"""Most different numbers on an axis; more are put into bins."""

BINS = 24


class Axis(NamedTuple):
    """The cell of each set, and the center and the name of each cell."""

    cells: IntArray
    centers: np.ndarray
    words: list[str]
    scale: str


def read_axis(column: pd.Series, is_log: bool) -> Axis:
    is_number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if not is_number or column.isna().any():
        cells, names = pd.factorize(column.fillna("none").astype(str), sort=True)
        return Axis(cells, np.array(names, dtype=object), [*names], "category")
    numbers = column.to_numpy(dtype=np.float64)
    values = np.unique(numbers)
    is_log = is_log and bool(values[0] > 0.0)
    scale = "log" if is_log else "linear"
    if len(values) <= MOST_VALUES:
        words = [f"{value:.6g}" for value in values]
        return Axis(np.searchsorted(values, numbers), values, words, scale)
    numbers = np.log(numbers) if is_log else numbers
    edges = np.linspace(numbers.min(), numbers.max(), BINS + 1)
    cells = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, BINS - 1)
    centers = (edges[1:] + edges[:-1]) / 2.0
    if is_log:
        edges, centers = np.exp(edges), np.exp(centers)
    words = [f"{low:.4g} to {high:.4g}" for low, high in itertools.pairwise(edges)]
    return Axis(cells, centers, words, scale)


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

    def read_axis(self, name: str) -> Axis:
        return read_axis(self.table[name], self.parameters[name]["log"])


def explore_sweep(sweep: Sweep, objective: Any = None) -> Explored:
    objective, metrics = objective or sweep.ranked_by, sweep.metrics
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
    name = study.objective
    metrics = {each: table[each].to_numpy() for each in ABOUT if each in table}
    ruins = np.nan_to_num(metrics["ruined"], nan=0.0)
    ruined = ruins > 0.0
    kept = (table["violation"] == 0.0).to_numpy(dtype=np.bool_)
    scores = table["score"].to_numpy(dtype=np.float64)
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


def scale_parameter(column: pd.Series, *, log: bool) -> FloatArray:
    is_number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if is_number and not column.isna().any():
        numbers = column.to_numpy(dtype=np.float64)
        numbers = np.log(numbers) if log and float(np.min(numbers)) > 0.0 else numbers
        numbers = np.clip(numbers, -1e300, 1e300)
        span = float(np.ptp(numbers))
        return (numbers - np.min(numbers)) / span if span > 0.0 else np.zeros(len(numbers))
    words, codes = np.unique(column.astype(object).fillna("none").astype(str), return_inverse=True)
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
