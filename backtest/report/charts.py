"""Charts: colors, layout, thinned series, and the drawing of each kind of declared chart."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from backtest import core
from backtest.core.code_names import pd
from backtest.report.page import Chart

Layout: TypeAlias = dict[str, Any]
Traces: TypeAlias = Iterator[dict[str, Any]]
ROLES = {
    "ink": ("#1c2127", "#e4e7eb"),
    "muted": ("#5b6570", "#9aa5b1"),
    "grid": ("#e4e8ec", "#2c333a"),
    "paper": ("#ffffff", "#15191e"),
    "accent": ("#1f5fae", "#74aaf5"),
    "accent_soft": ("rgba(31,95,174,0.18)", "rgba(116,170,245,0.20)"),
    "loss": ("#c0490d", "#f08c55"),
    "loss_soft": ("rgba(192,73,13,0.15)", "rgba(240,140,85,0.19)"),
    "neutral": ("#8b949e", "#7d8894"),
    "neutral_soft": ("rgba(139,148,158,0.17)", "rgba(125,136,148,0.19)"),
    "step_1": ("#c3c9cf", "#3d454d"),
    "step_2": ("#9db3ca", "#45617f"),
    "step_3": ("#7297c1", "#4d7cb0"),
    "step_4": ("#467ab8", "#6ba2e4"),
    "step_5": ("#12447f", "#c4dcff"),
}
LIGHT = {role: light for role, (light, _) in ROLES.items()}
DARK = {role: dark for role, (_, dark) in ROLES.items()}
PERCENTS = ",.3~%"
LOG = {"type": "log", "tickformat": ",.12~g"}
MAX_LETTERS = 40
"""Longest label in a chart, in characters."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif"
TEXT = {"family": FONT, "color": LIGHT["ink"], "size": 12}
AXIS = {
    "showgrid": True,
    "showline": True,
    "zeroline": True,
    "gridcolor": LIGHT["grid"],
    "linecolor": LIGHT["grid"],
    "zerolinecolor": LIGHT["grid"],
    "tickfont": {"color": LIGHT["muted"], "size": 11},
    "title": {"font": {"color": LIGHT["muted"], "size": 12}, "standoff": 8},
    "automargin": True,
}
TEMPLATE: Mapping[str, Any] = {
    "paper_bgcolor": LIGHT["paper"],
    "plot_bgcolor": LIGHT["paper"],
    "font": TEXT,
    "hoverlabel": {"bgcolor": LIGHT["paper"], "bordercolor": LIGHT["grid"], "font": TEXT},
    "legend": {
        "orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom",
        "font": {"color": LIGHT["muted"], "size": 12}, "bgcolor": "rgba(0,0,0,0)",
    },
    "xaxis": AXIS,
    "yaxis": AXIS,
}  # fmt: skip


def escape_label(text: object) -> str:
    return html.escape(core.clip(str(text), MAX_LETTERS), quote=False)


def build_layout(height: int, *, has_legend: bool = False) -> dict[str, Any]:
    return {
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 30 if has_legend else 10, "b": 8, "pad": 2},
        "showlegend": has_legend,
        "xaxis": {"showgrid": False},
        "yaxis": {},
    }


def draw_line(x: Any, y: Any, name: str, color: str = "accent", **more: Any) -> dict[str, Any]:
    style = {"color": LIGHT[color], "width": 1.4, **more.pop("line", {})}
    drawn = {"type": "scatter", "mode": "lines", "x": x, "y": y, "name": name, "line": style}
    return {**drawn, "showlegend": False, **more}


def draw_series(
    closes: core.IntArray, values: core.FloatArray, name: str, color: str, **more: Any
) -> dict[str, Any]:
    rows = thin_rows(closes, values)
    return draw_line(to_datetimes(closes[rows]), values[rows], name, color, **more)


def draw_points(
    x: Any, y: Any, name: str, color: str = "accent", size: int = 8, **more: Any
) -> dict[str, Any]:
    marker: dict[str, Any] = {"size": size, "color": LIGHT[color], **more.pop("marker", {})}
    drawn = {"type": "scatter", "mode": "markers", "x": x, "y": y, "name": name}
    return {**drawn, "marker": {"symbol": "circle", **marker}, "showlegend": False, **more}


def stack_panels(
    titles: Sequence[str], weights: Sequence[float], gap: float, closes: core.IntArray
) -> dict[str, Any]:
    """Return the layout of titled panels below each other that share their x axis.

    ``weights`` are the relative heights; ``gap`` is the room for the title of a lower panel, as a
    fraction of the figure. All panels are read at once, from the first of ``closes`` to the last.
    """
    room = 1.0 - gap * (len(titles) - 1)
    layout: dict[str, Any] = {}
    top, notes = 1.0, []
    for place, (title, weight) in enumerate(zip(titles, weights, strict=True), start=1):
        low = max(top - room * weight / sum(weights), 0.0)
        number = "" if place == 1 else str(place)
        layout[f"yaxis{number}"] = {"domain": [round(low, 6), round(top, 6)], "nticks": 5}
        notes.append({
            "text": title, "align": "left", "showarrow": False, "x": 0, "xref": "paper",
            "xanchor": "left", "y": round(top, 6), "yref": "paper", "yanchor": "bottom",
            "yshift": 3, "font": {"size": 12, "color": LIGHT["muted"]},
        })  # fmt: skip
        top = low - gap
    last = "y" if len(titles) == 1 else f"y{len(titles)}"
    bottom: dict[str, Any] = {"showgrid": False, "anchor": last, "type": "date"}
    bottom["hoverformat"] = "%Y-%m-%d %H:%M"
    bottom["range"] = [str(t) for t in closes[[0, -1]].view("datetime64[ns]").astype("M8[s]")]
    layout |= {"hovermode": "x unified", "hoversubplots": "axis"}
    return {**layout, "xaxis": bottom, "annotations": notes}


def to_text(nanoseconds: float) -> str:
    return str(np.datetime64(int(nanoseconds), "ns").astype("datetime64[s]"))


def to_datetimes(nanoseconds: core.IntArray) -> Any:
    return nanoseconds.view("datetime64[ns]").astype("datetime64[ms]")


def encode_figure(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): encode_figure(item) for name, item in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind == "M":
        return encode_bytes(value.astype("datetime64[ms]").astype(np.int64).astype("<f8"), "f8")
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        shape = {} if value.ndim == 1 else {"shape": ", ".join(map(str, value.shape))}
        with np.errstate(over="ignore"):
            return {**encode_bytes(value.astype("<f4"), "f4"), **shape}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [encode_figure(item) for item in value]
    if isinstance(value, str):
        return core.escape_directions(value)
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def encode_bytes(values: np.ndarray, kind: str) -> dict[str, str]:
    return {"dtype": kind, "bdata": base64.b64encode(values.tobytes()).decode("ascii")}


LOG_FROM = 4.0
"""Ratio of the largest to the smallest value from which a log scale is used."""
DUST = 1e-6
"""An account that stays below this fraction of its maximum to the end is drawn as 0."""


def drop_dust(values: core.FloatArray) -> core.FloatArray:
    most = float(np.nanmax(values, initial=0.0))
    large = np.flatnonzero(values >= DUST * most)
    is_end = np.arange(len(values)) > (large[-1] if len(large) else -1)
    return np.where(is_end & (values > 0.0), 0.0, values)


def is_wide(*series: core.FloatArray) -> bool:
    known = np.concatenate([drop_dust(values) for values in series])
    positive = known[known > 0.0]
    return len(positive) > 1 and float(np.max(positive) / np.min(positive)) >= LOG_FROM


BUCKETS = 500
"""Half the width of a chart in pixels: more than two points to a pixel cannot be seen."""


def thin_rows(
    time: core.IntArray, *series: core.FloatArray, buckets: int = BUCKETS
) -> core.IntArray:
    n = len(time)
    if n <= 4 * buckets:
        return np.arange(n, dtype=np.int64)
    edges = np.linspace(float(time[0]), float(time[-1]), buckets + 1)[:-1]
    starts = np.unique(np.searchsorted(time.astype(np.float64), edges))
    ends = np.append(starts[1:], n) - 1
    pixel = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, n)))
    rows = [starts, ends]
    for values in series:
        known = pd.Series(values).dropna()
        groups = known.groupby(pixel[known.index])
        extremes = groups.idxmin().to_numpy(), groups.idxmax().to_numpy()
        steps = np.flatnonzero(np.diff(np.isnan(values)))  # where gaps begin and end
        if len(steps) > buckets:
            steps = steps[np.linspace(0, len(steps) - 1, buckets).astype(np.int64)]
        rows += [*extremes, steps, steps + 1]
    return np.unique(np.concatenate(rows)).astype(np.int64)


COLORS = ("accent", "loss", "ink", "neutral", "step_5", "step_2", "step_3", "muted")
DASHES = ("solid", "dash", "dot")
MAX_NUMBERS = 200
"""Cells of a heat map up to which each has its number in it."""
FROM_LABELS = ("intervals", "tornado")
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


def has_values(table: pd.DataFrame) -> bool:
    return any(np.nan_to_num(table[name].to_numpy(dtype=np.float64)).any() for name in table)


def build_chart(shown: core.ShownChart, traces: list[Any], layout: dict[str, Any]) -> Chart:
    if shown.panels or shown.kind in ("bars", "line", "area"):
        # margins that fit the labels: measuring them doubles the time to draw a chart
        for name, axis in layout.items():
            if name[1:].startswith("axis"):
                axis["automargin"] = False
        bottom = 46 if layout["xaxis"].get("title") else 34
        left = 74 if layout["yaxis"].get("title") else 56
        layout["margin"] = {**layout["margin"], "l": left, "b": bottom}
    figure = {"data": traces, "layout": layout}
    values = () if shown.kind in FROM_LABELS else tuple(describe_lines(shown))
    return Chart(
        shown.key, shown.title, shown.caption, figure, layout["height"], shown.size, values
    )


def describe_lines(shown: core.ShownChart) -> Iterator[tuple[str, ...]]:
    """Yield name, first, lowest, highest and last value of each column, for a screen reader."""
    percents = {name for each in shown.panels if each.percent for name in each.columns}
    for name, column in pd.DataFrame(shown.table).items():
        values = mask_infinite(column.to_numpy(dtype=np.float64))
        known = values[~np.isnan(values)]
        if not len(known):
            continue
        is_percent = name in percents or ("y" in shown.percent and not shown.panels)
        write = core.format_percent if is_percent else core.format_number
        found = (known[0], known.min(), known.max(), known[-1])
        yield str(name), *(write(float(each)) for each in found)


def choose_color(shown: core.ShownChart, name: object, place: int) -> str:
    return shown.colors.get(str(name)) or COLORS[place % len(COLORS)]


def draw_panels(shown: core.ShownChart, table: pd.DataFrame) -> Chart | None:
    panels = [each for each in shown.panels if has_values(table[list(each.columns)])]
    if not panels:
        return None
    closes = pd.DatetimeIndex(table.index).as_unit("ns").asi8
    layout = build_layout(shown.height * len(panels) // len(shown.panels))
    titles = [name_panel(shown, each) for each in panels]
    layout |= stack_panels(titles, [each.height for each in panels], 0.16 / len(panels), closes)
    traces: list[dict[str, Any]] = []
    for place, panel in enumerate(panels, start=1):
        number = "" if place == 1 else str(place)
        axis = layout[f"yaxis{number}"]
        axis |= {"rangemode": "tozero"} if panel.from_zero else {}
        axis |= {"tickformat": PERCENTS} if panel.percent else {}
        columns = {name: mask_infinite(table[name].to_numpy(dtype=np.float64))
                   for name in panel.columns}  # fmt: skip
        axis |= LOG if panel.scale and is_wide(*columns.values()) else {}
        layout |= {"meta": "scale"} if panel.scale else {}  # a page offers to switch it
        hover = "%{y:.1%}" if panel.percent else "%{y:,.6~g}"
        for column, values in columns.items():
            color = choose_color(shown, column, panel.columns.index(column))
            shape = {"shape": "hv"} if shown.kind == "steps" else {}
            shape |= {"dash": "dot"} if column in shown.dotted else {}
            more: dict[str, Any] = {"line": {"width": 1.2, **shape}, "yaxis": f"y{number}"}
            label = escape_label(column)
            traces.append(draw_series(closes, values, label, color, hovertemplate=hover, **more))
    traces += draw_events(shown)
    foot = "y" if len(panels) == 1 else f"y{len(panels)}"
    for first, last, name in shown.spans:  # shaded over all panels, named at the foot of the last
        start, middle, end = map(to_text, (first, (first + last) // 2, last))
        layout.setdefault("shapes", []).append({
            "type": "rect", "x0": start, "x1": end, "xref": "x", "y0": 0, "y1": 1, "yref": "paper",
            "fillcolor": LIGHT["loss_soft"], "line": {"width": 0}, "layer": "below", "opacity": 0.6,
        })  # fmt: skip
        layout["annotations"].append({
            "text": name, "x": middle, "xref": "x", "y": 0, "yref": f"{foot} domain",
            "yanchor": "bottom", "showarrow": False, "font": {"size": 12, "color": LIGHT["loss"]},
        })  # fmt: skip
    layout["margin"] = {**layout["margin"], "t": 30}
    if shown.events is not None and len(shown.events):
        layout |= {"showlegend": True, "legend": {"yref": "container", "y": 1, "yanchor": "top",
                                                  "traceorder": "normal"}}  # fmt: skip
        layout["margin"] = {**layout["margin"], "t": 60}
    return build_chart(shown, traces, layout)


def name_panel(shown: core.ShownChart, panel: core.Panel) -> str:
    if len(panel.columns) == 1:
        return panel.title
    keys = (
        f'<span style="color:{LIGHT[choose_color(shown, name, place)]}">\N{EM DASH} '
        f"{escape_label(name)}</span>"
        for place, name in enumerate(panel.columns)
    )
    return f"{panel.title} {'  '.join(keys)}"


def draw_events(shown: core.ShownChart) -> Traces:
    if shown.events is None:
        return
    for label, rows in shown.events.groupby("label", sort=False):
        first = rows.iloc[0]
        times = pd.DatetimeIndex(rows.index).as_unit("ns").asi8
        marker = {"symbol": first["symbol"], "line": {"width": 1.2, "color": LIGHT[first["color"]]}}
        yield draw_points(to_datetimes(times), rows["y"].to_numpy(), escape_label(label),
                          first["color"], marker=marker, showlegend=True,
                          hovertemplate=f"{escape_label(label)}<extra></extra>",
                          customdata=rows["row"].tolist())  # fmt: skip


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


def mask_infinite(values: core.FloatArray) -> core.FloatArray:
    return np.where(np.isfinite(values), values, np.nan)


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
    text = "%{z:.3g}" if grid.size <= MAX_NUMBERS else ""
    yield {
        "type": "heatmap", "x": x, "y": y, "z": grid.to_numpy(dtype=np.float64).T,
        "colorscale": [[0.0, LIGHT["paper"]], [1.0, LIGHT[color]]], "hoverongaps": False,
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
