"""The drawing of each kind of declared chart."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from backtest import core
from backtest.core.code_names import pd
from backtest.report.figures import (
    COLORS,
    DASHES,
    FROM_LABELS,
    LIGHT,
    LOG,
    PERCENTS,
    Layout,
    Traces,
    build_chart,
    build_layout,
    choose_color,
    draw_line,
    draw_points,
    draw_series,
    drop_dust,
    escape_label,
    has_values,
    is_wide,
    mask_infinite,
    stack_panels,
    thin_rows,
    to_datetimes,
    to_text,
)
from backtest.report.page import Chart
from backtest.report.panels import draw_panels

MAX_NUMBERS = 200
"""Cells of a heat map up to which each has its number in it."""
MAX_POINTS, FEW_POINTS = 3_000, 30
"""Most points of the first column in a scatter, and up to how many they are drawn large."""


def draw_declared(shown: core.ShownChart) -> Chart | None:
    """Return the chart, or None where all its values are 0 or unknown."""
    table = pd.DataFrame(shown.table)
    if shown.panels:
        return draw_panels(shown, table)
    if shown.kind not in FROM_LABELS and not has_values(table):
        return None
    layout = build_layout(shown.height, has_legend=shown.has_legend)
    layout["xaxis"] |= {"title": {"text": escape_label(shown.x)}} if shown.x else {}
    layout["yaxis"] |= {"title": {"text": escape_label(shown.y)}} if shown.y else {}
    for axis in shown.percent:
        layout[f"{axis}axis"] |= {"tickformat": PERCENTS}
    traces = list(DRAWN[shown.kind](shown, table, layout))
    for axis in shown.log:
        layout[f"{axis}axis"] |= LOG
    return build_chart(shown, traces, layout)


def draw_lines(shown: core.ShownChart, table: pd.DataFrame, layout: Layout) -> Traces:
    draw: Any = draw_line
    x, is_time = table.index.to_numpy(), isinstance(table.index, pd.DatetimeIndex)
    if is_time:
        draw, x = draw_series, pd.DatetimeIndex(table.index).as_unit("ns").asi8
        layout["xaxis"] |= {"type": "date"}
    for place, (name, column) in enumerate(table.items()):
        color, values = choose_color(shown, name, place), column.to_numpy(dtype=np.float64)
        dash = DASHES[place // len(COLORS) % len(DASHES)]
        line: dict[str, Any] = {"dash": dash} if not shown.colors else {}
        line |= {"shape": "hv"} if shown.kind == "steps" else {}
        more: dict[str, Any] = {"line": line, "showlegend": shown.has_legend}
        more |= {"mode": "lines+markers"} if shown.kind == "points" else {}
        known = values if is_time else mask_infinite(values)
        yield draw(x, known, escape_label(name), color, **more)
    yield from draw_marks(shown, table)


def draw_bars(shown: core.ShownChart, table: pd.DataFrame, layout: Layout) -> Traces:
    is_beside = isinstance(table.index[0], str)
    layout |= {"barmode": "group" if is_beside else "overlay", "bargap": 0.05}
    if is_beside:  # few bars stay narrow
        layout["bargap"] = max(0.2, 1.0 - 0.15 * len(table))
    layout["xaxis"] |= {"type": "category"} if is_beside else {}
    for place, (name, column) in enumerate(table.items()):
        yield {
            "type": "bar", "x": list(table.index), "y": column.to_numpy(dtype=np.float64),
            "name": escape_label(name), "showlegend": shown.has_legend,
            "marker": {"color": LIGHT[choose_color(shown, name, place)]},
        }  # fmt: skip
    yield from draw_marks(shown, table)


def draw_heat(shown: core.ShownChart, table: pd.DataFrame, layout: Layout) -> Traces:
    labels = table.index.get_level_values(0)
    is_sorted = not isinstance(labels[0], str)  # words stay in their own order
    cells = table.iloc[:, 0].groupby(level=[0, 1], sort=is_sorted).mean()
    grid = cells.unstack(1, sort=is_sorted)
    for axis, name in zip(("xaxis", "yaxis"), table.index.names, strict=False):
        layout[axis] |= {"type": "category", "title": {"text": escape_label(name)}}
    x, y = ([escape_label(each if isinstance(each, str) else f"{each:.3g}") for each in labels]
            for labels in (grid.index, grid.columns))  # fmt: skip
    color = shown.colors.get(str(table.columns[0]), "loss")
    colorscale = [[0.0, LIGHT["paper"]], [1.0, LIGHT[color]]]
    ends: dict[str, Any] = {}
    if shown.limits:
        low, high = shown.limits
        colorscale = [[0.0, LIGHT["accent"]], [0.5, LIGHT["paper"]], [1.0, LIGHT["loss"]]]
        ends = {"zmin": low, "zmax": high}
    text = "%{z:.3g}" if grid.size <= MAX_NUMBERS else ""
    yield {
        "type": "heatmap", "x": x, "y": y, "z": grid.to_numpy(dtype=np.float64).T,
        "colorscale": colorscale, "hoverongaps": False, **ends,
        "hovertemplate": "%{x}, %{y}: %{z:.4g}<extra></extra>", "texttemplate": text,
        "textfont": {"size": 10},
        "colorbar": {"thickness": 10, "outlinewidth": 0, "tickfont": {"color": LIGHT["muted"]}},
    }  # fmt: skip


def draw_tornado(shown: core.ShownChart, table: pd.DataFrame, layout: Layout) -> Traces:  # noqa: ARG001
    change = table.iloc[:, 0].fillna(0.0)
    order = change.abs().groupby(level=0).max().sort_values().index
    layout |= {"height": 90 + 34 * len(order), "barmode": "overlay"}
    for place, color in ((0, "loss"), (-1, "accent")):
        yield {
            "type": "bar", "orientation": "h", "y": [str(name) for name in order],
            "x": [float(change.loc[name].iloc[place]) for name in order],
            "marker": {"color": LIGHT[color]}, "showlegend": False,
        }  # fmt: skip


def draw_marks(shown: core.ShownChart, table: pd.DataFrame) -> list[dict[str, Any]]:
    values = mask_infinite(table.to_numpy(dtype=np.float64)) if shown.marks else np.empty(0)
    ends = [float(np.nanmin(values)), float(np.nanmax(values))] if len(values) else []
    dot = {"color": LIGHT["neutral"], "width": 1.2, "dash": "dot"}
    names = shown.mark_names or ("mark",) * len(shown.marks)
    more: dict[str, Any] = {"line": dot, "cliponaxis": False}
    if shown.mark_names:
        more |= {"mode": "lines+text", "textposition": "top center",
                 "textfont": {"size": 10, "color": LIGHT["muted"]}}  # fmt: skip
    return [
        draw_line([at, at], [ends[0], ends[1] * (1.0 - 0.09 * (k % 3))], name, "neutral", **more,
                  text=["", name])
        for k, (at, name) in enumerate(zip(shown.marks, names, strict=True)) if math.isfinite(at)
    ]  # fmt: skip


def draw_cloud(shown: core.ShownChart, table: pd.DataFrame, layout: Layout) -> Traces:
    layout["xaxis"] |= {"showgrid": True}
    for place, (name, column) in enumerate(table.items()):
        known = column[np.isfinite(column) & np.isfinite(table.index.to_numpy())]
        points = known.iloc[:: 1 if place else math.ceil(len(known) / MAX_POINTS) or 1]
        is_dense = place == 0 and len(known) > FEW_POINTS
        more = {"size": 4, "opacity": 0.35} if is_dense else {"size": 9}
        yield draw_points(points.index.to_numpy(), points.to_numpy(), escape_label(name),
                          choose_color(shown, name, place), **more, showlegend=True,
                          hovertemplate="%{x:.2f}, %{y:.2f}")  # fmt: skip
    x, y = (mask_infinite(np.asarray(each, dtype=np.float64)) for each in (table.index, table))
    if shown.kind == "scatter" and not (np.isnan(x).all() or np.isnan(y).all()):
        ends, line = np.array([np.nanmin(x), np.nanmax(x)]), {"dash": "dot"}
        yield draw_line(ends, ends, "equal", "loss", line=line, showlegend=True, hoverinfo="skip")


def draw_intervals(shown: core.ShownChart, table: pd.DataFrame, layout: Layout) -> Traces:
    value, low, high = (table.iloc[:, k].to_numpy(dtype=np.float64) for k in range(3))
    error = {"type": "data", "symmetric": False, "array": mask_infinite(high - value),
             "arrayminus": mask_infinite(value - low), "thickness": 1.2, "width": 4,
             "color": LIGHT["neutral"]}  # fmt: skip
    labels = list(map(escape_label, table.index))
    trace = draw_points(value, labels, shown.key, error_x=error,
                        hovertemplate="%{y}: %{x:.4g}<extra></extra>")  # fmt: skip
    trace["marker"]["color"] = [LIGHT["accent" if each else "neutral"] for each in table.iloc[:, 3]]
    layout |= {"height": 110 + 34 * len(table)}
    layout["yaxis"] |= {"autorange": "reversed", "type": "category", "showgrid": False}
    layout["xaxis"] |= {"zeroline": True, "zerolinecolor": LIGHT["ink"], "nticks": 6,
                        "rangemode": "tozero"}  # fmt: skip
    yield trace


def draw_accounts(shown: core.ShownChart, table: pd.DataFrame, layout: Layout) -> Traces:
    closes = pd.DatetimeIndex(table.index).as_unit("ns").asi8
    layout |= stack_panels(("One unit of money", "Drawdown"), (2, 1), 0.09, closes)
    layout["yaxis2"] |= {"tickformat": PERCENTS, "nticks": 4}
    layout["margin"]["t"] = 60
    layout["legend"] = {"y": 1.06, "traceorder": "normal"}
    edge = {"type": "line", "xref": "x", "y0": 0, "y1": 1, "yref": "paper", "layer": "below",
            "line": {"color": LIGHT["neutral_soft"], "width": 1}}  # fmt: skip
    layout["shapes"] = [{**edge, "x0": at, "x1": at} for at in map(to_text, shown.marks)]
    units = table.to_numpy(dtype=np.float64).T
    layout["yaxis"] |= LOG if is_wide(*units) else {}
    for place, (name, unit) in enumerate(zip(table, units, strict=True)):
        fall = unit / np.maximum.accumulate(np.maximum(unit, 1.0)) - 1.0
        rows = thin_rows(closes, unit, fall)
        dash = DASHES[place // len(COLORS) % len(DASHES)]
        more: dict[str, Any] = {"line": {"dash": dash}, "legendgroup": str(place)}
        x, color, label = (to_datetimes(closes[rows]), choose_color(shown, name, place),
                           escape_label(name))  # fmt: skip
        yield draw_line(x, drop_dust(unit)[rows], label, color, **more, showlegend=True,
                        hovertemplate="%{y:.3f}")  # fmt: skip
        yield draw_line(x, fall[rows], label, color, **more, yaxis="y2", hovertemplate="%{y:.1%}")


def draw_area(shown: core.ShownChart, table: pd.DataFrame, layout: Layout) -> Traces:
    closes = pd.DatetimeIndex(table.index).as_unit("ns").asi8
    layout["xaxis"] |= {"type": "date"}
    columns = [column.to_numpy(dtype=np.float64) for _, column in table.items()]
    rows = thin_rows(closes, *columns)
    x = to_datetimes(closes[rows])
    for place, (name, values) in enumerate(zip(table, columns, strict=True)):
        for side, part in (("long", np.maximum(values, 0.0)), ("short", np.minimum(values, 0.0))):
            yield draw_line(x, part[rows], escape_label(name), choose_color(shown, name, place),
                            stackgroup=side, legendgroup=str(name), showlegend=side == "long",
                            line={"width": 0.5})  # fmt: skip


def draw_quotes(shown: core.ShownChart, table: pd.DataFrame, layout: Layout) -> Traces:  # noqa: ARG001
    fitted, low, high = (table.iloc[:, k] for k in range(3))
    middle = (0.5 * (low + high)).dropna()
    error = {"type": "data", "array": (high - low).dropna().to_numpy() / 2.0,
             "color": LIGHT["neutral"], "thickness": 1.2, "width": 2}  # fmt: skip
    yield draw_points(middle.index.to_numpy(), middle.to_numpy(), "bid to ask", "neutral", size=3,
                      error_y=error)  # fmt: skip
    known = fitted.dropna()
    yield draw_line(known.index.to_numpy(), known.to_numpy(), "fit")


DRAWN: Mapping[str, Callable[[core.ShownChart, pd.DataFrame, Layout], Traces]] = {
    "line": draw_lines,
    "points": draw_lines,
    "steps": draw_lines,
    "bars": draw_bars,
    "area": draw_area,
    "quotes": draw_quotes,
    "heat": draw_heat,
    "tornado": draw_tornado,
    "scatter": draw_cloud,
    "cloud": draw_cloud,
    "intervals": draw_intervals,
    "accounts": draw_accounts,
}
