"""Draw a measure over two parameters of a sweep as a Plotly heatmap."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import Choice, IntArray, ParameterError
from backtest.measures.measure_table import ABOUT, METRICS

Reduce = Literal["median", "best"]

MOST_VALUES = 40
"""Most different numbers on an axis; more are put into bins."""

BINS = 24


class Axis(NamedTuple):
    """The cell of each set, and the center and the name of each cell."""

    cells: IntArray
    centers: np.ndarray
    words: list[str]
    scale: str


def draw_map(
    table: pd.DataFrame,
    manifest: Mapping[str, Any],
    x: str,
    y: str,
    metric: str,
    reduce: Reduce = "median",
) -> Any:
    import plotly.graph_objects as go  # type: ignore[import-untyped] # noqa: PLC0415 - a second

    facts = manifest["parameters"]
    Choice("median", "best").check("reduce", reduce)
    Choice(*facts).check("x", x)
    Choice(*facts).check("y", y)
    Choice(*(name for name in METRICS if name in table)).check("metric", metric)
    if x == y:
        raise ParameterError(f"x and y must be two parameters, got {x!r} twice")
    across, along = read_axis(table[x], facts[x]["log"]), read_axis(table[y], facts[y]["log"])
    is_falling = ABOUT[metric].better < 0
    ruined = table["ruined"].to_numpy() > 0.0
    sets = pd.DataFrame({"y": along.cells, "x": across.cells, "ruined": ruined})
    sets["value"] = table[metric].mask(ruined).to_numpy()
    how = "median" if reduce == "median" else "min" if is_falling else "max"
    cells = sets.groupby(["y", "x"]).agg(
        value=("value", how), n=("ruined", "size"), ruined=("ruined", "sum")
    )
    hides = cells["ruined"] >= (cells["n"] if reduce == "best" else (cells["n"] + 1) // 2)
    cells["value"] = cells["value"].mask(hides)
    cells["note"] = [f"{n} sets, {lost} ruined" for n, lost in zip(cells["n"], cells["ruined"],
                                                                  strict=True)]  # fmt: skip
    whole = pd.MultiIndex.from_product([range(len(along.words)), range(len(across.words))])
    shape = (len(along.words), len(across.words))
    filled = cells.reindex(whole)
    notes = np.empty((*shape, 3), dtype=object)
    notes[..., 0], notes[..., 1] = across.words, np.array(along.words, dtype=object)[:, np.newaxis]
    notes[..., 2] = filled["note"].fillna("0 sets").to_numpy().reshape(shape)
    figure = go.Figure(
        go.Heatmap(
            x=across.centers,
            y=along.centers,
            z=filled["value"].to_numpy(dtype=np.float64).reshape(shape),
            colorscale="Viridis",
            reversescale=is_falling,
            colorbar={"title": ABOUT[metric].unit},
            customdata=notes,
            hovertemplate=f"{x} %{{customdata[0]}}<br>{y} %{{customdata[1]}}"
            f"<br>{metric} %{{z:.4g}}<br>%{{customdata[2]}}<extra></extra>",
            hoverongaps=False,
        )
    )
    lost = cells[hides]
    if len(lost):
        figure.add_scatter(
            x=across.centers[lost.index.get_level_values("x")],
            y=along.centers[lost.index.get_level_values("y")],
            mode="markers",
            marker={"symbol": "x", "color": "#b2182b", "size": 9},
            name="ruined",
            showlegend=True,
            text=lost["note"].tolist(),
            hovertemplate="%{text}<extra></extra>",
        )
    others = [name for name in facts if name not in (x, y)]
    subtitle = f"{reduce} over {', '.join(others)}" if others else f"{len(table):,} sets"
    title = f"{metric.replace('_', ' ')} of {manifest['policy']['name']}"
    for update, name, axis in ((figure.update_xaxes, x, across), (figure.update_yaxes, y, along)):
        unit = facts[name]["unit"]
        update(title=f"{name} ({unit})" if unit else name, type=axis.scale, showgrid=False)
    return figure.update_layout(
        template="plotly_white",
        legend={"orientation": "h", "x": 1.0, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
        title={"text": f"{title}<br><sup>{subtitle}</sup>"},
    )


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
