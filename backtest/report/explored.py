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
from backtest.sweep.sweep_table import MOST_VALUES

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


LEAST_SETS = 20
"""Fewer sets than this do not show what matters."""


def measure_importance(explored: Explored) -> pd.Series | None:
    """Return the share of each varied parameter, the largest first; None if there are too few sets.

    Notes
    -----
    The correlation ratio (Fisher 1925), adjusted for the number of cells: the part of the variance
    of the ranks of sets that lies between the cells of one parameter. Ranks, so that ruined sets
    count as the worst and single extremes do not dominate. What parameters do only together is in
    none of them.
    """
    names, n = explored.varied, len(explored.table)
    if n < LEAST_SETS or not names:
        return None
    rank = pd.Series(rank_from_best(explored))
    shares = {}
    for name in names:
        cells = explored.read_axis(name).cells
        k = len(np.unique(cells))
        inside = float((rank - rank.groupby(cells).transform("mean")).pow(2).sum())
        whole = float((rank - rank.mean()).pow(2).sum())
        shares[name] = 1.0 - inside / whole * (n - 1) / max(n - k, 1) if whole > 0.0 else 0.0
    return pd.Series(shares, name="importance").sort_values(ascending=False, kind="stable")
