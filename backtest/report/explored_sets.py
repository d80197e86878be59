"""Sets of parameters and their outcomes: which set is best, and which are near it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core
from backtest.report.page import format_measure
from backtest.results.measure_table import ABOUT
from backtest.results.ranking import order_sets, read_objective
from backtest.search import Study
from backtest.sweep import Sweep, find_failed

NEAR = 0.1
"""Largest distance of neighbors, as a fraction of a parameter's range, or one grid step."""


TIED = 1e-9


MAX_VALUES = 40
"""Most different numbers on an axis; more are put into bins."""


BINS = 24


def is_numeric(column: pd.Series) -> bool:
    is_number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    return is_number and not column.isna().any()


def read_axis(column: pd.Series, is_log: bool) -> tuple[core.IntArray, list[str]]:
    """Return the cell of each set, and the name of each cell."""
    if not is_numeric(column):
        cells, names = pd.factorize(column.astype(object).fillna("none").astype(str), sort=True)
        return cells, [*names]
    numbers = column.to_numpy(dtype=np.float64)
    values = np.unique(numbers)
    if len(values) <= MAX_VALUES:
        return np.searchsorted(values, numbers), [f"{value:.6g}" for value in values]
    is_log = is_log and bool(values[0] > 0.0)
    numbers = np.log(numbers) if is_log else numbers
    edges = np.linspace(numbers.min(), numbers.max(), BINS + 1)
    cells = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, BINS - 1)
    edges = np.exp(edges) if is_log else edges
    return cells, [f"{low:.4g} to {high:.4g}" for low, high in itertools.pairwise(edges)]


class Explored(NamedTuple):
    """Sets of parameters and their outcomes, in arrays of shape (n_sets,)."""

    table: pd.DataFrame
    parameters: Mapping[str, Mapping[str, Any]]
    name: str
    values: core.FloatArray
    better: int
    order: core.IntArray
    is_ruined: core.BoolArray

    @property
    def near(self) -> core.BoolArray:
        return find_neighbors(self)

    @property
    def best(self) -> int:
        return int(self.order[0])

    @property
    def varied(self) -> list[str]:
        return [name for name in self.parameters if self.table[name].nunique(dropna=False) > 1]

    def name_best(self, names: list[str]) -> str:
        return ", ".join(f"{name} = {core.format_value(self.table[name].iloc[self.best])}"
                         for name in names)  # fmt: skip


def explore_sweep(sweep: Sweep, objective: Any = None) -> Explored:
    objective, metrics = objective or sweep.ranked_by, sweep.metrics
    order = sweep.rank(objective, sweep.ranked_where)
    if isinstance(objective, str) and objective in metrics:
        name, values, better = objective, metrics[objective], ABOUT[objective].better or 1
    else:
        score = read_objective(objective)
        name, values, better = score.name, score.score(metrics), 1
    ruined = np.nan_to_num(metrics["ruined"], nan=0.0) > 0.0
    return Explored(
        table=sweep.table,
        parameters=sweep.manifest["parameters"],
        name=name,
        values=np.where(ruined | find_failed(sweep.table), np.nan, values),
        better=better,
        order=order,
        is_ruined=ruined,
    )


def explore_study(study: Study) -> Explored:
    table = study.table
    name = study.objective
    ruins = np.nan_to_num(table["ruined"].to_numpy(), nan=0.0)
    scores, violations = table[["score", "violation"]].to_numpy(dtype=np.float64).T
    order = order_sets(scores, violations, ruins, table["ruin_time"].to_numpy(), find_failed(table))
    if study.best_trial >= 0:
        order = np.concatenate([[study.best_trial], order[order != study.best_trial]])
    dimensions = study.manifest["space"]["dimensions"]
    names = [own if (own := f"policy.{each['name']}") in table else each["name"]
             for each in dimensions]  # fmt: skip
    return Explored(
        table=table,
        parameters=dict(zip(names, ({"unit": "", **each} for each in dimensions), strict=True)),
        name=name,
        values=np.where(ruins > 0.0, np.nan, table[name] if name in ABOUT else scores),
        better=(ABOUT[name].better or 1) if name in ABOUT else 1,
        order=order.astype(np.int64),
        is_ruined=ruins > 0.0,
    )


def find_neighbors(explored: Explored) -> core.BoolArray:
    near = np.ones(len(explored.table), dtype=np.bool_)
    for name in explored.varied:
        column = explored.table[name]
        if is_numeric(column):
            place = column.to_numpy(dtype=np.float64)
            is_log = explored.parameters[name]["log"] and place.min() > 0.0
            place = np.clip(np.log(place) if is_log else place, -1e300, 1e300)
        else:
            place = read_axis(column, is_log=False)[0].astype(np.float64)
        place = (place - place.min()) / (float(np.ptp(place)) or 1.0)
        distance = np.abs(place - place[explored.best])
        if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
            near &= distance <= TIED
            continue
        steps = np.diff(np.unique(place))
        reach = max(NEAR, float(np.min(steps[steps > TIED], initial=1.0))) if len(steps) else NEAR
        near &= distance <= reach + TIED
    near[explored.best] = False
    return near


def find_median(values: core.FloatArray) -> float:
    return float(pd.Series(values[np.isfinite(values)]).median())


def format_explored(explored: Explored, value: float) -> str:
    if explored.name in ABOUT:
        return format_measure(explored.name, float(value))
    return core.format_number(float(value))


def read_rows(explored: Explored, count: int) -> list[dict[Any, float]]:
    names = [x for x in ("ruined", "ruin_time", "cagr", "max_drawdown") if x in explored.table]
    return explored.table[names].iloc[explored.order[:count]].to_dict("records")
