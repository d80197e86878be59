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
from backtest.report.panels import draw_panels, mark_lines

MAX_NUMBERS = 200
"""Cells of a heat map up to which each has its number in it."""
FEW_WHOLE = 8
"""Largest whole number up to which each has a tick."""
MAX_LABELS = 12
"""Labels of a map across, at most; more are left out evenly."""
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
    elif table.index.dtype.kind in "iu":
        mark_whole(layout["xaxis"], x.astype(np.float64))
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
    mark_whole(layout["yaxis"], table.to_numpy(dtype=np.float64))
    layout["xaxis"] |= {"type": "category"} if is_beside else {}
    for place, (name, column) in enumerate(table.items()):
        yield {
            "type": "bar", "x": list(table.index), "y": column.to_numpy(dtype=np.float64),
            "name": escape_label(name), "showlegend": shown.has_legend,
            "marker": {"color": LIGHT[choose_color(shown, name, place)]},
        }  # fmt: skip
    yield from draw_marks(shown, table)


def mark_whole(axis: dict[str, Any], values: core.FloatArray) -> None:
    """Let an axis of whole numbers have no ticks between them."""
    known = values[np.isfinite(values)]
    if len(known) and np.all(known == np.round(known)):
        axis |= {"tickformat": ",d"}
        if known.max() - min(known.min(), 0.0) <= FEW_WHOLE:
            axis |= {"dtick": 1}


def draw_heat(shown: core.ShownChart, table: pd.DataFrame, layout: Layout) -> Traces:
    labels = table.index.get_level_values(0)
    is_sorted = not isinstance(labels[0], str)  # words stay in their own order
    cells = table.iloc[:, 0].groupby(level=[0, 1], sort=is_sorted).mean()
    grid = cells.unstack(1, sort=is_sorted)
    for axis, name in zip(("xaxis", "yaxis"), table.index.names, strict=False):
        layout[axis] |= {"type": "category", "title": {"text": escape_label(name)}}
    x, y = ([escape_label(each if isinstance(each, str) else f"{each:.3g}") for each in labels]
            for labels in (grid.index, grid.columns))  # fmt: skip
    if len(x) > MAX_LABELS:
        layout["xaxis"] |= {"tickvals": x[:: -(-len(x) // MAX_LABELS)], "tickangle": 0}
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


ARROWS = {
    "": "",
    "down": "\N{BLACK DOWN-POINTING TRIANGLE} ",
    "up": "\N{BLACK UP-POINTING TRIANGLE} ",
}
"""What stands before the number of the lowest and of the highest step."""


def draw_tornado(shown: core.ShownChart, table: pd.DataFrame, layout: Layout) -> Traces:  # noqa: ARG001
    """Yield a bar for the lowest and for the highest step, in the color of its sign."""
    change = table.iloc[:, 0].fillna(0.0)
    order = change.abs().groupby(level=0).max().sort_values().index
    has_steps = bool(change.groupby(level=0).size().max() > 1)
    ends = ((0, "down"), (-1, "up")) if has_steps else ((0, ""),)
    layout |= {"height": 90 + 40 * len(order), "barmode": "group", "bargap": 0.3}
    layout["yaxis"] |= {"type": "category", "showgrid": False}
    for place, step in ends:
        values = [float(change.loc[name].iloc[place]) for name in order]
        yield draw_signed_bars([escape_label(name) for name in order], values, ARROWS[step])
    make_room(layout, change.tolist())


def draw_ranked(shown: core.ShownChart, table: pd.DataFrame, layout: Layout) -> Traces:  # noqa: ARG001
    """Yield a bar for each row, the first one on top, in the color of its sign."""
    layout |= {"height": max(90 + 26 * len(table), 220), "bargap": 0.25}
    layout["yaxis"] |= {"type": "category", "autorange": "reversed", "showgrid": False}
    labels = [escape_label(name) for name in table.index]
    values = table.iloc[:, 0].fillna(0.0).tolist()
    make_room(layout, values)
    yield draw_signed_bars(labels, values)


def make_room(layout: Layout, values: list[float]) -> None:
    """Widen the axis of values into ``layout``, for the numbers at the ends of bars."""
    low, high = min(*values, 0.0), max(*values, 0.0)
    room = 0.16 * (high - low) or 1.0
    ends = [low - room if low < 0.0 else 0.0, high + room if high > 0.0 else 0.0]
    if ends[0] < ends[1]:
        layout["xaxis"] |= {"range": ends}


def draw_signed_bars(labels: list[str], values: list[float], before: str = "") -> dict[str, Any]:
    """Return bars to the right and to the left of 0, with their values at their ends."""
    colors = [LIGHT["loss" if value < 0.0 else "accent"] for value in values]
    return {
        "type": "bar",
        "orientation": "h",
        "y": labels,
        "x": values,
        "text": [f"{before}{value:+.3g}" for value in values],
        "textposition": "outside",
        "textfont": {"size": 11, "color": LIGHT["muted"]},
        "cliponaxis": False,
        "marker": {"color": colors},
        "showlegend": False,
        "hovertemplate": "%{y}: %{text}<extra></extra>",
    }


def draw_fan(shown: core.ShownChart, table: pd.DataFrame, layout: Layout) -> Traces:
    """Yield the bands between the first and last columns, and inwards; the middle is a line."""
    closes = pd.DatetimeIndex(table.index).as_unit("ns").asi8
    layout["xaxis"] |= {"type": "date"}
    names = [str(name) for name in table]
    half = len(names) // 2
    for place in range(half):
        low, high = names[place], names[-1 - place]
        soft = ("neutral_soft", "accent_soft")[min(place, 1)]
        edge: dict[str, Any] = {"line": {"width": 0.6}}
        color = ("neutral", "accent")[min(place, 1)]
        values = table[low].to_numpy(dtype=np.float64)
        yield draw_series(closes, values, f"{escape_label(low)}", color, **edge)
        label = f"between {escape_label(low)} and {escape_label(high)}"
        filled: dict[str, Any] = {**edge, "fill": "tonexty", "fillcolor": LIGHT[soft]}
        values = table[high].to_numpy(dtype=np.float64)
        yield draw_series(closes, values, label, color, **filled, showlegend=True)
    middle = names[half]
    values = table[middle].to_numpy(dtype=np.float64)
    yield draw_series(closes, values, escape_label(middle), "accent", showlegend=True)
    yield from draw_marks(shown, table)


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


def draw_history(shown: core.ShownChart, table: pd.DataFrame, layout: Layout) -> Traces:
    """Yield the points of the first column, without its lowest twentieth, and the second's line."""
    (points, values), (line, best) = ((str(name), table[name].to_numpy()) for name in table)
    low, high = np.nanquantile(values, 0.05), np.nanmax(values)
    pad = 0.06 * (high - low) or 1.0
    layout["yaxis"] |= {"range": [float(low - pad), float(high + pad)]}
    layout["xaxis"] |= {"range": [0.5, len(table) + 0.5]}
    trials = table.index.to_numpy()
    dots: dict[str, Any] = {"size": 5, "hovertemplate": "trial %{x}: %{y:.3g}<extra></extra>"}
    yield draw_points(trials, values, escape_label(points), choose_color(shown, points, 0), **dots)
    steps: dict[str, Any] = {
        "line": {"shape": "hv", "width": 2},
        "hovertemplate": "best so far %{y:.3g}<extra></extra>",
    }
    yield draw_line(trials, best, line, choose_color(shown, line, 1), **steps)


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
    mark_lines(shown, layout)
    layout.setdefault("shapes", []).extend(
        {**edge, "x0": at, "x1": at} for at in map(to_text, shown.marks)
    )
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
    "ranked": draw_ranked,
    "fan": draw_fan,
    "scatter": draw_cloud,
    "cloud": draw_cloud,
    "intervals": draw_intervals,
    "history": draw_history,
    "accounts": draw_accounts,
}
