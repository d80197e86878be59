"""Draw a measure over two parameters of a sweep as a Plotly heatmap."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import BoolArray, Choice, FloatArray, IntArray, ParameterError
from backtest.measures import order_sets
from backtest.measures.measure_table import ABOUT, METRICS

Reduce = Literal["median", "best"]

MOST_VALUES = 40
"""Most different numbers on an axis; more are put into bins."""

BINS = 24


class Axis(NamedTuple):
    cells: IntArray
    edges: FloatArray | None
    words: tuple[str, ...]
    is_log: bool

    @property
    def n_cells(self) -> int:
        return len(self.words)

    @property
    def places(self) -> Any:
        return list(self.words) if self.edges is None else self.edges

    @property
    def centers(self) -> Any:
        if self.edges is None:
            return np.array(self.words, dtype=object)
        low, high = self.edges[:-1], self.edges[1:]
        return np.sqrt(low * high) if self.is_log else (low + high) / 2.0


class HeatmapCells(NamedTuple):
    """A measure by cell, arrays of shape (n_y, n_x): NaN where a cell has none."""

    values: FloatArray
    counts: IntArray
    ruined: IntArray
    is_ruined: BoolArray


def draw_map(
    table: pd.DataFrame,
    manifest: Mapping[str, Any],
    x: str,
    y: str,
    metric: str,
    reduce: Reduce = "median",
) -> Any:
    Choice("median", "best").check("reduce", reduce)
    facts = manifest["parameters"]
    check_axes(tuple(facts), tuple(name for name in METRICS if name in table), x, y, metric)
    across, along = read_axis(table[x], facts[x]), read_axis(table[y], facts[y])
    grid = fill_grid(table, across, along, metric, reduce)
    figure = build_figure(across, along, grid, (x, y, metric))
    figure.update_xaxes(title=name_axis(facts, x), type=name_scale(across), showgrid=False)
    figure.update_yaxes(title=name_axis(facts, y), type=name_scale(along), showgrid=False)
    others = [name for name in facts if name not in (x, y)]
    subtitle = f"{reduce} over {', '.join(others)}" if others else f"{len(table):,} sets"
    title = f"{metric.replace('_', ' ')} of {manifest['policy']['name']}"
    return figure.update_layout(title={"text": f"{title}<br><sup>{subtitle}</sup>"})


def check_axes(
    parameters: tuple[str, ...], metrics: tuple[str, ...], x: str, y: str, metric: str
) -> None:
    for argument, name, known in (("x", x, parameters), ("y", y, parameters),
                                  ("metric", metric, metrics)):  # fmt: skip
        Choice(*known).check(argument, name)
    if x == y:
        raise ParameterError(f"x and y must be two parameters, got {x!r} twice")


def read_axis(column: pd.Series, facts: Mapping[str, Any]) -> Axis:
    is_number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if not is_number or column.isna().any():
        words, cells = np.unique(column.fillna("none").astype(str), return_inverse=True)
        return Axis(cells.astype(np.int64), None, tuple(words), is_log=False)
    numbers = column.to_numpy(dtype=np.float64)
    values = np.unique(numbers)
    is_log = bool(facts["log"]) and values[0] > 0.0
    scaled = np.log(values) if is_log else values
    if len(values) > MOST_VALUES:
        edges = np.linspace(scaled[0], scaled[-1], BINS + 1)
    else:
        edges = find_cell_edges(scaled)
    place = np.log(numbers) if is_log else numbers
    cells = np.clip(np.searchsorted(edges, place, side="right") - 1, 0, len(edges) - 2)
    edges = np.exp(edges) if is_log else edges
    return Axis(cells.astype(np.int64), edges, name_cells(values, edges), is_log)


def find_cell_edges(values: FloatArray) -> FloatArray:
    if len(values) == 1:
        return np.array([values[0] - 0.5, values[0] + 0.5])
    middle = (values[1:] + values[:-1]) / 2.0
    first, last = 2.0 * values[0] - middle[0], 2.0 * values[-1] - middle[-1]
    return np.concatenate([[first], middle, [last]])


def name_cells(values: FloatArray, edges: FloatArray) -> tuple[str, ...]:
    if len(values) == len(edges) - 1:
        return tuple(f"{value:.6g}" for value in values)
    return tuple(f"{low:.4g} to {high:.4g}" for low, high in itertools.pairwise(edges))


def fill_grid(
    table: pd.DataFrame, across: Axis, along: Axis, metric: str, reduce: Reduce
) -> HeatmapCells:
    shape = (along.n_cells, across.n_cells)
    place = along.cells * across.n_cells + across.cells
    is_ruined = table["ruined"].to_numpy() > 0.0
    counts = np.bincount(place, minlength=shape[0] * shape[1])
    ruined = np.bincount(place, weights=is_ruined, minlength=len(counts)).astype(np.int64)
    values = np.full(len(counts), np.nan)
    known = pd.DataFrame({"place": place, "value": table[metric].to_numpy()})[~is_ruined]
    if reduce == "best":
        known = known.iloc[rank_values(known["value"].to_numpy(), metric)]
        found = known.groupby("place", sort=False)["value"].first()
    else:
        found = known.groupby("place")["value"].median()
    values[found.index] = found.to_numpy()
    least = counts if reduce == "best" else (counts + 1) // 2
    hides = (counts > 0) & (ruined >= least)
    values[hides] = np.nan
    return HeatmapCells(
        values.reshape(shape),
        counts.astype(np.int64).reshape(shape),
        ruined.reshape(shape),
        hides.reshape(shape),
    )


def rank_values(values: FloatArray, metric: str) -> IntArray:
    scores = -values if ABOUT[metric].better < 0 else values
    nothing, zeros = np.zeros(len(values), dtype=np.bool_), np.zeros(len(values))
    return order_sets(scores, zeros, nothing, zeros, nothing)


def build_figure(across: Axis, along: Axis, grid: HeatmapCells, names: tuple[str, str, str]) -> Any:
    import plotly.graph_objects as go  # type: ignore[import-untyped] # noqa: PLC0415 - a second

    x, y, metric = names
    figure = go.Figure(
        go.Heatmap(
            x=across.places,
            y=along.places,
            z=grid.values,
            colorscale="Viridis",
            reversescale=ABOUT[metric].better < 0,
            colorbar={"title": ABOUT[metric].unit},
            customdata=describe_cells(across, along, grid),
            hovertemplate=f"{x} %{{customdata[0]}}<br>{y} %{{customdata[1]}}"
            f"<br>{metric} %{{z:.4g}}<br>%{{customdata[2]}}<extra></extra>",
            hoverongaps=False,
        )
    )
    mark_ruined(figure, across, along, grid)
    return figure.update_layout(
        template="plotly_white",
        legend={"orientation": "h", "x": 1.0, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
    )


def mark_ruined(figure: Any, across: Axis, along: Axis, grid: HeatmapCells) -> None:
    rows, columns = np.nonzero(grid.is_ruined)
    if not len(rows):
        return
    pairs = zip(grid.ruined[rows, columns], grid.counts[rows, columns], strict=True)
    figure.add_scatter(
        x=across.centers[columns],
        y=along.centers[rows],
        mode="markers",
        marker={"symbol": "x", "color": "#b2182b", "size": 9},
        name="ruined",
        showlegend=True,
        text=[f"{ruined} of {n} sets ruined" for ruined, n in pairs],
        hovertemplate="%{text}<extra></extra>",
    )


def describe_cells(across: Axis, along: Axis, grid: HeatmapCells) -> np.ndarray:
    """Return the hover texts of each cell, of shape (n_y, n_x, 3)."""
    notes = np.empty((*grid.values.shape, 3), dtype=object)
    notes[..., 0] = np.array(across.words, dtype=object)
    notes[..., 1] = np.array(along.words, dtype=object)[:, np.newaxis]
    for place in np.ndindex(grid.values.shape):
        n, ruined = grid.counts[place], grid.ruined[place]
        notes[(*place, 2)] = f"{n} {'set' if n == 1 else 'sets'}, {ruined} ruined"
    return notes


def name_axis(parameters: Mapping[str, Any], name: str) -> str:
    unit = parameters[name]["unit"]
    return f"{name} ({unit})" if unit else name


def name_scale(axis: Axis) -> str:
    if axis.edges is None:
        return "category"
    return "log" if axis.is_log else "linear"
