"""Charts of columns that a result declares: lines, bars, maps, and tornados."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from backtest.base.result_parts import ShownChart
from backtest.base.units import FloatArray
from backtest.report.page.figures import (
    LIGHT,
    build_chart,
    build_layout,
    draw_line,
    draw_series,
)
from backtest.report.page.page import Chart

COLORS = ("accent", "loss", "ink", "neutral")
"""Colors of columns in turn."""
DASHES = ("solid", "dash", "dot")
"""Dash patterns of lines that have the same color."""


def draw_declared(shown: ShownChart) -> Chart:
    """Return a chart that a result declares."""
    table = pd.DataFrame(shown.table)
    layout = build_layout(shown.height, showlegend=shown.has_legend)
    layout["xaxis"] |= {"title": {"text": shown.x}} if shown.x else {}
    layout["yaxis"] |= {"title": {"text": shown.y}} if shown.y else {}
    if shown.kind == "heat":
        traces = [draw_heat(table, layout)]
    elif shown.kind == "tornado":
        traces = list(draw_tornado(table, layout))
    elif shown.kind == "bars":
        traces = list(draw_bars(shown, table, layout))
    else:
        traces = list(draw_lines(shown, table, layout))
    for axis in shown.log:
        layout[f"{axis}axis"] |= {"type": "log"}
    traces += draw_marks(shown, table)
    return build_chart(shown.key, shown.title, shown.caption, traces, layout, shown.size)


def choose_color(shown: ShownChart, name: object, place: int) -> str:
    """Return the role of the color of a column."""
    return shown.colors.get(str(name)) or COLORS[place % len(COLORS)]


def draw_lines(
    shown: ShownChart, table: pd.DataFrame, layout: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield a line per column; the index may be times."""
    is_time = isinstance(table.index, pd.DatetimeIndex)
    layout["xaxis"] |= {"type": "date"} if is_time else {}
    for place, (name, column) in enumerate(table.items()):
        color, values = choose_color(shown, name, place), column.to_numpy(dtype=np.float64)
        dash = DASHES[place // len(COLORS) % len(DASHES)]
        line: dict[str, Any] = {"dash": dash} if not shown.colors else {}
        line |= {"shape": "hv"} if shown.kind == "steps" else {}
        more: dict[str, Any] = {"line": line, "showlegend": shown.has_legend}
        more |= {"mode": "lines+markers"} if shown.kind == "points" else {}
        if isinstance(table.index, pd.DatetimeIndex):
            closes = table.index.as_unit("ns").asi8
            yield draw_series(closes, values, str(name), color, **more)
        else:
            yield draw_line(list(table.index), mask_infinite(values), str(name), color, **more)


def mask_infinite(values: FloatArray) -> FloatArray:
    """Return values with NaN, a gap in a line, for those that are not finite."""
    return np.where(np.isfinite(values), values, np.nan)


def draw_bars(
    shown: ShownChart, table: pd.DataFrame, layout: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield the bars of each column, one over the other."""
    layout |= {"barmode": "overlay", "bargap": 0.05}
    for place, (name, column) in enumerate(table.items()):
        yield {
            "type": "bar", "x": list(table.index), "y": column.to_numpy(dtype=np.float64),
            "name": str(name), "showlegend": shown.has_legend,
            "marker": {"color": LIGHT[choose_color(shown, name, place)]},
        }  # fmt: skip


def draw_heat(table: pd.DataFrame, layout: dict[str, Any]) -> dict[str, Any]:
    """Return a map of the first column over the first two levels of the index."""
    grid = table.iloc[:, 0].groupby(level=[0, 1]).mean().unstack(1)
    for axis, name in zip(("xaxis", "yaxis"), table.index.names, strict=False):
        layout[axis] |= {"type": "category", "title": {"text": str(name)}}
    return {
        "type": "heatmap",
        "x": [f"{x:.3g}" for x in grid.index],
        "y": [f"{y:.3g}" for y in grid.columns],
        "z": grid.to_numpy().T.tolist(),
        "colorscale": [[0.0, LIGHT["paper"]], [1.0, LIGHT["loss"]]],
    }


def draw_tornado(table: pd.DataFrame, layout: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield bars of the last and the first value of each label, the widest on top."""
    change = table.iloc[:, 0].fillna(0.0)
    order = change.abs().groupby(level=0).max().sort_values().index
    layout |= {"height": 90 + 34 * len(order), "barmode": "overlay"}
    for place, color in ((-1, "accent"), (0, "loss")):
        yield {
            "type": "bar", "orientation": "h", "y": [str(name) for name in order],
            "x": [float(change.loc[name].iloc[place]) for name in order],
            "marker": {"color": LIGHT[color]}, "showlegend": False,
        }  # fmt: skip


def draw_marks(shown: ShownChart, table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return dotted vertical lines at the marked places of the x axis, over all values."""
    values = mask_infinite(table.to_numpy(dtype=np.float64)) if shown.marks else np.empty(0)
    ends = [float(np.nanmin(values)), float(np.nanmax(values))] if len(values) else []
    dot = {"color": LIGHT["neutral"], "width": 1.2, "dash": "dot"}
    known = [each for each in shown.marks if math.isfinite(each)]
    return [draw_line([at, at], ends, "mark", "neutral", line=dot) for at in known]
