"""How much the winners of a walk move from fold to fold, in numbers and charts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.base import ShownChart
from backtest.sweep import Dimension, name_column
from backtest.tune import find_extent
from backtest.validation.interval_estimates import correlate_ranks

if TYPE_CHECKING:
    from backtest.base import FloatArray
    from backtest.validation.fold_search import SearchedFold
    from backtest.validation.tuning_procedure import Procedure

PLATEAU_WIDTH = 0.1
PARAMETER = (
    "Blue: the winner of each fold. Gray: the box of its neighbors, 10 % of the range on either "
    "side. A winner that leaves the last box every time was chosen by noise."
)


def measure_stability(procedure: Procedure, found: Sequence[SearchedFold]) -> pd.DataFrame:
    """Return a row per parameter: spread, share of folds whose plateau held, rank correlation.

    ``interquartile_range`` is that of the winners over the declared range, on its declared scale;
    NaN for options. ``plateau_held`` is the share of folds, after the first, whose winner lies
    within the last winner's plateau: the box of neighbors of the search. ``rank_correlation`` is
    the mean over consecutive folds of Spearman's correlation of the objectives of all sets that
    both tried, the same in every row.
    """
    correlation = correlate_folds(found)
    rows = {
        each.name: {
            "interquartile_range": measure_spread(each, found),
            "plateau_held": measure_held(each, found, procedure.rule.width),
            "rank_correlation": correlation,
        }
        for each in procedure.space.dimensions
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("parameter")


def read_values(dimension: Dimension, found: Sequence[SearchedFold]) -> np.ndarray:
    """Return the values of the winners of one parameter, in the order of folds."""
    values = [fold.values[dimension.name] for fold in found]
    return np.array(values, dtype=object if dimension.options else np.float64)


def measure_spread(dimension: Dimension, found: Sequence[SearchedFold]) -> float:
    """Return the interquartile range of winners as a share of the range; NaN for options."""
    if dimension.options:
        return math.nan
    low, high = np.quantile(dimension.encode(read_values(dimension, found)), [0.25, 0.75])
    return float(high - low)


def measure_held(dimension: Dimension, found: Sequence[SearchedFold], width: float) -> float:
    """Return the share of folds whose winner lies within the plateau of the last winner."""
    values = read_values(dimension, found)
    if len(values) < 2:
        return math.nan
    if dimension.options:
        return float(np.mean(values[1:] == values[:-1]))
    place = dimension.encode(values)
    down, up = find_extent(dimension, values[:-1], width)
    move: FloatArray = np.diff(place)
    return float(np.mean((move >= -down - 1e-12) & (move <= up + 1e-12)))


def correlate_folds(found: Sequence[SearchedFold]) -> float:
    """Return the mean rank correlation of objectives between consecutive folds; NaN if unknown."""
    values = [correlate_pair(one, other) for one, other in itertools.pairwise(found)]
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def correlate_pair(one: SearchedFold, other: SearchedFold) -> float:
    """Return the rank correlation of the objectives of the sets that two folds tried."""
    names = list(one.sets)
    tables = [pd.DataFrame(dict(fold.sets)).assign(score=fold.inside) for fold in (one, other)]
    shared = tables[0].merge(tables[1], on=names, suffixes=("_one", "_other"))
    scores = [shared[name].to_numpy(dtype=np.float64) for name in ("score_one", "score_other")]
    return correlate_ranks(scores[0], scores[1])


def show_parameters(folds: pd.DataFrame, manifest: Mapping[str, Any]) -> Iterator[ShownChart]:
    """Yield each number through the folds of a walk, with the box of its neighbors."""
    rule = manifest["robust"] or {}
    width = float(rule.get("width", PLATEAU_WIDTH)) if isinstance(rule, dict) else PLATEAU_WIDTH
    for facts in manifest["space"]["dimensions"]:
        each = Dimension(**{name: facts[name] for name in Dimension._fields})
        if not each.options:
            yield show_parameter(each, folds, width)


def show_parameter(each: Dimension, folds: pd.DataFrame, width: float) -> ShownChart:
    """Return the chart of a number, on its own scale."""
    values = folds[name_column(each.name)].to_numpy(dtype=np.float64)
    ends = {
        f"{word} end of its plateau": each.decode(np.clip(each.encode(values) + side, 0.0, 1.0))
        for word, side in (("lower", -width), ("upper", width))
    }
    table = pd.DataFrame({**ends, "winner": values}, folds["test_start"])
    table.loc[folds["test_end"].iloc[-1]] = table.iloc[-1]
    colors = dict(zip(map(str, table), ("neutral", "neutral", "accent"), strict=True))
    return ShownChart(
        f"parameter-{each.name}", each.name.replace("_", " "), PARAMETER, table, "steps",
        colors, log="y" if each.log else "", size="half", height=240,
    )  # fmt: skip
