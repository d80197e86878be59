"""Sets of parameters and their outcomes: which set is best, and which are near it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core
from backtest.report.explorer import is_numeric
from backtest.report.page import format_measure
from backtest.results.measure_table import ABOUT
from backtest.results.ranking import order_sets, read_objective
from backtest.search import Study
from backtest.sweep import Sweep, find_failed

NEAR = 0.1
"""Largest distance of neighbors, as a fraction of a parameter's range, or one grid step."""
TIED = 1e-9
"""Distance under which two places on a range are the same, but for rounding."""
MAX_VALUES = 40
"""Most different numbers on an axis; more are put into bins."""
BINS = 24


def is_number(column: pd.Series) -> bool:
    is_bool = pd.api.types.is_bool_dtype(column)
    return pd.api.types.is_numeric_dtype(column) and not is_bool


def read_axis(column: pd.Series, is_log: bool) -> tuple[core.IntArray, list[str]]:
    """Return the cell of each set, and the name of each cell."""
    if not is_numeric(column):
        texts = column.astype(object).fillna("none").astype(str)
        cells, names = pd.factorize(texts, sort=True)
        return cells, [*names]

    numbers = column.to_numpy(dtype=np.float64)
    values = np.unique(numbers)
    if len(values) <= MAX_VALUES:
        return np.searchsorted(values, numbers), [f"{value:.6g}" for value in values]

    # Bins of equal width, or of equal ratio.
    is_log = is_log and bool(values[0] > 0.0)
    if is_log:
        numbers = np.log(numbers)
    edges = np.linspace(numbers.min(), numbers.max(), BINS + 1)
    cells = np.searchsorted(edges, numbers, side="right") - 1
    cells = np.clip(cells, 0, BINS - 1)  # the last edge is of the last bin

    if is_log:
        edges = np.exp(edges)
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
        """Which sets are near the best."""
        return find_neighbors(self)

    @property
    def best(self) -> int:
        """The row of the best set."""
        return int(self.order[0])

    @property
    def varied(self) -> list[str]:
        """The parameters that differ among the sets."""
        return [name for name in self.parameters if self.table[name].nunique(dropna=False) > 1]

    def name_best(self, names: list[str]) -> str:
        """Return the values of some parameters in the best set, as in "a = 1, b = 2"."""
        values = {name: self.table[name].iloc[self.best] for name in names}
        return ", ".join(f"{name} = {core.format_value(value)}" for name, value in values.items())


def explore_sweep(sweep: Sweep, objective: Any = None) -> Explored:
    """Return the sets of a sweep, as ``objective`` ranks them, or what it was ranked by.

    A measure counts as it is; any other objective as its score, of which more is better.
    """
    objective = objective or sweep.ranked_by
    metrics = sweep.metrics
    order = sweep.rank(objective, sweep.ranked_where)

    if isinstance(objective, str) and objective in metrics:
        name = objective
        values = metrics[name]
        better = ABOUT[name].better or 1
    else:
        score = read_objective(objective)
        name = score.name
        values = score.score(metrics)
        better = 1

    is_ruined = np.nan_to_num(metrics["ruined"], nan=0.0) > 0.0
    is_out = is_ruined | find_failed(sweep.table)
    return Explored(
        table=sweep.table,
        parameters=sweep.manifest["parameters"],
        name=name,
        values=np.where(is_out, np.nan, values),
        better=better,
        order=order,
        is_ruined=is_ruined,
    )


def explore_study(study: Study) -> Explored:
    """Return the trials of a study by its objective.

    A measure counts as it is; any other objective as its score, of which more is better.
    """
    table = study.table
    name = study.objective
    ruins = np.nan_to_num(table["ruined"].to_numpy(), nan=0.0)
    scores, violations = table[["score", "violation"]].to_numpy(dtype=np.float64).T

    # The trial that the search chose comes first, whatever its score.
    order = order_sets(
        scores,
        violations=violations,
        ruined=ruins,
        ruin_time=table["ruin_time"].to_numpy(),
        failed=find_failed(table),
    )
    if study.best_trial >= 0:
        others = order[order != study.best_trial]
        order = np.concatenate([[study.best_trial], others])

    values = scores
    better = 1
    if name in ABOUT:
        values = table[name].to_numpy()
        better = ABOUT[name].better or 1
    return Explored(
        table=table,
        parameters=find_dimensions(study),
        name=name,
        values=np.where(ruins > 0.0, np.nan, values),
        better=better,
        order=order.astype(np.int64),
        is_ruined=ruins > 0.0,
    )


def find_dimensions(study: Study) -> dict[str, dict[str, Any]]:
    """Return the dimensions of a search by their columns in the table of its trials."""
    dimensions = {}
    for dimension in study.manifest["space"]["dimensions"]:
        column = f"policy.{dimension['name']}"
        if column not in study.table:
            column = dimension["name"]
        dimensions[column] = {"unit": "", **dimension}
    return dimensions


def find_neighbors(explored: Explored) -> core.BoolArray:
    """Return which sets differ from the best by little in every parameter; not the best itself."""
    is_near = np.ones(len(explored.table), dtype=np.bool_)
    for name in explored.varied:
        column = explored.table[name]
        place = find_place(column, is_log=explored.parameters[name]["log"])
        distance = np.abs(place - place[explored.best])

        reach = 0.0  # of options, only the same one is near
        if is_number(column):
            reach = find_reach(place)
        is_near &= distance <= reach + TIED

    is_near[explored.best] = False
    return is_near


def find_place(column: pd.Series, *, is_log: bool) -> core.FloatArray:
    """Return where each value lies on the range of all, from 0 to 1."""
    if is_numeric(column):
        place = column.to_numpy(dtype=np.float64)
        if is_log and place.min() > 0.0:
            place = np.log(place)
        place = np.clip(place, -1e300, 1e300)
    else:
        cells, _ = read_axis(column, is_log=False)
        place = cells.astype(np.float64)

    width = float(np.ptp(place)) or 1.0
    scaled: core.FloatArray = (place - place.min()) / width
    return scaled


def find_reach(place: core.FloatArray) -> float:
    """Return how far neighbors are: a tenth of the range, or one step of the grid."""
    steps = np.diff(np.unique(place))
    if len(steps) == 0:
        return NEAR
    smallest_step = float(np.min(steps[steps > TIED], initial=1.0))
    return max(NEAR, smallest_step)


def find_median(values: core.FloatArray) -> float:
    """Return the median of finite values, NaN of none."""
    return float(pd.Series(values[np.isfinite(values)]).median())


def format_explored(explored: Explored, value: float) -> str:
    if explored.name in ABOUT:
        return format_measure(explored.name, float(value))
    return core.format_number(float(value))


WARNED_BY = ("ruined", "ruin_time", "cagr", "max_drawdown")
"""Measures by which a set is cautioned against."""


def read_rows(explored: Explored, count: int) -> list[dict[Any, float]]:
    """Return what the best sets are cautioned by, the best first."""
    names = [name for name in WARNED_BY if name in explored.table]
    rows = explored.table[names].iloc[explored.order[:count]]
    return rows.to_dict("records")
