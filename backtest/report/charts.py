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
    title_axis,
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
MAX_POINTS = 3_000
"""Most points of the first column in a scatter."""
FEW_POINTS = 30
"""Points up to which they are drawn large."""


def draw_declared(shown: core.ShownChart) -> Chart | None:
    """Return the chart, or None where all its values are 0 or unknown."""
    table = pd.DataFrame(shown.table)
    if shown.panels:
        return draw_panels(shown, table)
    if shown.kind not in FROM_LABELS and not has_values(table):
        return None

    layout = build_layout(shown.height, has_legend=shown.has_legend)
    if shown.x:
        layout["xaxis"]["title"] = title_axis(shown.x)
    if shown.y:
        layout["yaxis"]["title"] = title_axis(shown.y)
    for axis in shown.percent:
        layout[f"{axis}axis"]["tickformat"] = PERCENTS

    # A log scale comes last: its format of ticks wins over that of the kind of chart.
    traces = list(DRAWN[shown.kind](shown, table, layout))
    for axis in shown.log:
        layout[f"{axis}axis"] |= LOG
    return build_chart(shown, traces, layout)


def draw_lines(shown: core.ShownChart, table: pd.DataFrame, layout: Layout) -> Traces:
    """Yield a line for each column; write into ``layout`` whether its x axis has dates."""
    is_time = isinstance(table.index, pd.DatetimeIndex)
    if is_time:
        layout["xaxis"]["type"] = "date"
    elif table.index.dtype.kind in "iu":
        mark_whole(layout["xaxis"], table.index.to_numpy().astype(np.float64))

    for place, (name, column) in enumerate(table.items()):
        label = escape_label(name)
        color = choose_color(shown, name, place)
        values = column.to_numpy(dtype=np.float64)
        style = style_line(shown, str(name), place)
        if shown.kind == "points" and column.count() > MOST_POINTS:
            style["mode"] = "lines"
        if is_time:
            closes = pd.DatetimeIndex(table.index).as_unit("ns").asi8
            yield draw_series(closes, values, label, color, **style)
        else:
            x = table.index.to_numpy()
            yield draw_line(x, mask_infinite(values), label, color, **style)
    yield from draw_marks(shown, table)


MOST_POINTS = 60
"""Of a line whose points are marked: more of them would make it a thick line."""


def style_line(shown: core.ShownChart, name: str, place: int) -> dict[str, Any]:
    """Return what a line has beside its values; without colors, dashes tell lines apart."""
    line = {}
    if not shown.colors:
        line["dash"] = choose_dash(place)
    if name in shown.dotted:
        line["dash"] = "dot"
    if shown.kind == "steps":
        line["shape"] = "hv"

    style: dict[str, Any] = {"line": line, "showlegend": shown.has_legend}
    if shown.kind == "points":
        style["mode"] = "lines+markers"
    return style


def choose_dash(place: int) -> str:
    """Return the dash of a line: another one each time that the colors begin again."""
    return DASHES[place // len(COLORS) % len(DASHES)]


def draw_bars(shown: core.ShownChart, table: pd.DataFrame, layout: Layout) -> Traces:
    """Yield the bars of each column: side by side over words, over each other on a scale.

    Writes this, and the axes that follow from it, into ``layout``.
    """
    is_beside = isinstance(table.index[0], str)
    if is_beside:  # few bars stay narrow
        layout |= {"barmode": "group", "bargap": max(0.2, 1.0 - 0.15 * len(table))}
    else:
        layout |= {"barmode": "overlay", "bargap": 0.05}
    mark_whole(layout["yaxis"], table.to_numpy(dtype=np.float64))
    if is_beside:
        layout["xaxis"]["type"] = "category"

    for place, (name, column) in enumerate(table.items()):
        yield {
            "type": "bar",
            "x": list(table.index),
            "y": column.to_numpy(dtype=np.float64),
            "name": escape_label(name),
            "showlegend": shown.has_legend,
            "marker": {"color": LIGHT[choose_color(shown, name, place)]},
        }
    yield from draw_marks(shown, table)


def mark_whole(axis: dict[str, Any], values: core.FloatArray) -> None:
    """Let an axis of whole numbers have no ticks between them."""
    known = values[np.isfinite(values)]
    if len(known) == 0 or not np.all(known == np.round(known)):
        return

    axis["tickformat"] = ",d"
    if known.max() - min(known.min(), 0.0) <= FEW_WHOLE:
        axis["dtick"] = 1


def draw_heat(shown: core.ShownChart, table: pd.DataFrame, layout: Layout) -> Traces:
    """Yield a heat map of the first column, by the two levels of its index; axes into ``layout``.

    A cell is the mean of its rows, with its number in it if there are few.
    """
    labels = table.index.get_level_values(0)
    is_sorted = not isinstance(labels[0], str)  # words stay in their own order
    cells = table.iloc[:, 0].groupby(level=[0, 1], sort=is_sorted).mean()
    grid = cells.unstack(1, sort=is_sorted)

    for axis, name in zip(("xaxis", "yaxis"), table.index.names, strict=False):
        layout[axis] |= {"type": "category", "title": title_axis(name)}
    x = [write_cell_label(label) for label in grid.index]
    y = [write_cell_label(label) for label in grid.columns]
    if len(x) > MAX_LABELS:
        step = math.ceil(len(x) / MAX_LABELS)
        layout["xaxis"] |= {"tickvals": x[::step], "tickangle": 0}

    # Between limits there are two colors, with white in their middle.
    color = shown.colors.get(str(table.columns[0]), "loss")
    colorscale = [[0.0, LIGHT["paper"]], [1.0, LIGHT[color]]]
    ends: dict[str, Any] = {}
    if shown.limits:
        low, high = shown.limits
        colorscale = [[0.0, LIGHT["accent"]], [0.5, LIGHT["paper"]], [1.0, LIGHT["loss"]]]
        ends = {"zmin": low, "zmax": high}

    yield {
        "type": "heatmap",
        "x": x,
        "y": y,
        "z": grid.to_numpy(dtype=np.float64).T,
        "colorscale": colorscale,
        "hoverongaps": False,
        **ends,
        "hovertemplate": "%{x}, %{y}: %{z:.4g}<extra></extra>",
        "texttemplate": "%{z:.3g}" if grid.size <= MAX_NUMBERS else "",
        "textfont": {"size": 10},
        "colorbar": {"thickness": 10, "outlinewidth": 0, "tickfont": {"color": LIGHT["muted"]}},
    }


def write_cell_label(label: Any) -> str:
    if isinstance(label, str):
        return escape_label(label)
    return escape_label(f"{label:.3g}")


ARROWS = {
    "": "",
    "down": "\N{BLACK DOWN-POINTING TRIANGLE} ",
    "up": "\N{BLACK UP-POINTING TRIANGLE} ",
}
"""Arrows before the number of the lowest and of the highest step."""


def draw_tornado(shown: core.ShownChart, table: pd.DataFrame, layout: Layout) -> Traces:  # noqa: ARG001
    """Yield a bar for the lowest and for the highest step, in the color of its sign."""
    change = table.iloc[:, 0].fillna(0.0)
    names = change.abs().groupby(level=0).max().sort_values().index
    labels = [escape_label(name) for name in names]

    layout |= {"height": 90 + 40 * len(names), "barmode": "group", "bargap": 0.3}
    layout["yaxis"] |= {"type": "category", "showgrid": False}

    steps = {"": 0}
    if change.groupby(level=0).size().max() > 1:
        steps = {"down": 0, "up": -1}
    for arrow, row in steps.items():
        values = [float(change.loc[name].iloc[row]) for name in names]
        yield draw_signed_bars(labels, values, ARROWS[arrow])
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
    low = min(*values, 0.0)
    high = max(*values, 0.0)
    room = 0.16 * (high - low) or 1.0

    left = 0.0
    if low < 0.0:
        left = low - room
    right = 0.0
    if high > 0.0:
        right = high + room
    if left < right:
        layout["xaxis"]["range"] = [left, right]


def draw_signed_bars(labels: list[str], values: list[float], before: str = "") -> dict[str, Any]:
    """Return bars to the right and to the left of 0, with their values at their ends."""
    colors = [LIGHT["loss" if value < 0.0 else "accent"] for value in values]
    return {
        "type": "bar",
        "orientation": "h",
        "y": labels,
        "x": values,
        "text": [f"{before}{write_change(value)}" for value in values],
        "textposition": "outside",
        "textfont": {"size": 11, "color": LIGHT["muted"]},
        "cliponaxis": False,
        "marker": {"color": colors},
        "showlegend": False,
        "hovertemplate": "%{y}: %{text}<extra></extra>",
    }


def write_change(value: float) -> str:
    """Return a signed number with two decimals, or with two significant digits under 0.1."""
    if 0.0 < abs(value) < 0.1:
        return f"{value:+.2g}"
    return f"{value:+z,.2f}"


def draw_fan(shown: core.ShownChart, table: pd.DataFrame, layout: Layout) -> Traces:
    """Yield the bands between the first and last columns, and inwards; the middle is a line."""
    closes = pd.DatetimeIndex(table.index).as_unit("ns").asi8
    layout["xaxis"] |= {"type": "date"}
    names = [str(name) for name in table]
    half = len(names) // 2
    for place in range(half):
        low = names[place]
        high = names[-1 - place]
        color = "neutral" if place == 0 else "accent"
        edge: dict[str, Any] = {"line": {"width": 0.6}}

        values = table[low].to_numpy(dtype=np.float64)
        yield draw_series(closes, values, f"{escape_label(low)}", color, **edge)

        label = f"between {escape_label(low)} and {escape_label(high)}"
        filled: dict[str, Any] = {**edge, "fill": "tonexty", "fillcolor": LIGHT[f"{color}_soft"]}
        values = table[high].to_numpy(dtype=np.float64)
        yield draw_series(closes, values, label, color, **filled, showlegend=True)

    middle = names[half]
    values = table[middle].to_numpy(dtype=np.float64)
    yield draw_series(closes, values, escape_label(middle), "accent", showlegend=True)
    yield from draw_marks(shown, table)


def draw_marks(shown: core.ShownChart, table: pd.DataFrame) -> Traces:
    """Yield a dotted line up for each mark; three names in a row have three heights."""
    if not shown.marks:
        return
    values = mask_infinite(table.to_numpy(dtype=np.float64))
    low = float(np.nanmin(values))
    high = float(np.nanmax(values))

    style: dict[str, Any] = {
        "line": {"color": LIGHT["neutral"], "width": 1.2, "dash": "dot"},
        "cliponaxis": False,
    }
    if shown.mark_names:
        style["mode"] = "lines+text"
        style["textfont"] = {"size": 10, "color": LIGHT["muted"]}

    names = shown.mark_names or ("mark",) * len(shown.marks)
    for place, (mark, name) in enumerate(zip(shown.marks, names, strict=True)):
        if math.isfinite(mark):
            top = high + 0.09 * (high - low) * (place % 3)
            style["textposition"] = place_name(shown, table, mark, name)
            yield draw_line([mark, mark], [low, top], name, "neutral", **style, text=["", name])


def place_name(shown: core.ShownChart, table: pd.DataFrame, mark: float, name: str) -> str:
    """Return where the name of a mark has room beside it, also in a chart of NARROW pixels."""
    if not shown.mark_names or table.index.dtype.kind not in "fiu":
        return "top center"
    first, *_, last = np.sort(table.index.to_numpy(dtype=np.float64))
    half = 0.5 * LETTER * len(name) / NARROW
    share = (mark - first) / (last - first)
    if share < half:
        return "top right"
    if share > 1.0 - half:
        return "top left"
    return "top center"


NARROW = 300
"""Pixels between the axes of a chart on a phone."""
LETTER = 6
"""Pixels of a letter of small text."""


def draw_cloud(shown: core.ShownChart, table: pd.DataFrame, layout: Layout) -> Traces:
    """Yield the points of each column over the index; a scatter has the diagonal too.

    Of many points of the first column, the cloud, some are drawn, small and pale. Writes the grid
    into ``layout``.
    """
    layout["xaxis"]["showgrid"] = True
    for place, (name, column) in enumerate(table.items()):
        points = column[np.isfinite(column) & np.isfinite(table.index.to_numpy())]
        marker: dict[str, Any] = {"size": 9}
        if place == 0:  # the others are few: what was chosen among them
            if len(points) > FEW_POINTS:
                marker = {"size": 5, "opacity": 0.6}
            points = points.iloc[:: math.ceil(len(points) / MAX_POINTS) or 1]
        yield draw_points(
            points.index.to_numpy(),
            points.to_numpy(),
            escape_label(name),
            choose_color(shown, name, place),
            **marker,
            showlegend=True,
            hovertemplate="%{x:.2f}, %{y:.2f}",
        )

    if shown.kind == "scatter":
        yield from draw_diagonal(table)


def draw_diagonal(table: pd.DataFrame) -> Traces:
    """Yield the line on which both axes are equal."""
    x = mask_infinite(np.asarray(table.index, dtype=np.float64))
    y = mask_infinite(np.asarray(table, dtype=np.float64))
    if np.isnan(x).all() or np.isnan(y).all():
        return

    ends = np.array([np.nanmin(x), np.nanmax(x)])
    line = {"dash": "dot"}
    yield draw_line(ends, ends, "equal", "loss", line=line, showlegend=True, hoverinfo="skip")


def draw_history(shown: core.ShownChart, table: pd.DataFrame, layout: Layout) -> Traces:
    """Yield the points of the first column, without its lowest twentieth, and the second's line."""
    points, line = (str(name) for name in table)
    values = table[points].to_numpy()
    trials = table.index.to_numpy()

    low = np.nanquantile(values, 0.05)
    high = np.nanmax(values)
    pad = 0.06 * (high - low) or 1.0
    layout["yaxis"]["range"] = [float(low - pad), float(high + pad)]
    layout["xaxis"]["range"] = [0.5, len(table) + 0.5]

    dots: dict[str, Any] = {"size": 5, "hovertemplate": "trial %{x}: %{y:.3g}<extra></extra>"}
    yield draw_points(trials, values, escape_label(points), choose_color(shown, points, 0), **dots)
    steps: dict[str, Any] = {
        "line": {"shape": "hv", "width": 2},
        "hovertemplate": "best so far %{y:.3g}<extra></extra>",
    }
    yield draw_line(trials, table[line].to_numpy(), line, choose_color(shown, line, 1), **steps)


def draw_intervals(shown: core.ShownChart, table: pd.DataFrame, layout: Layout) -> Traces:
    """Yield a point with its interval for each row; its height and axes into ``layout``.

    The columns are, in this order, the value, its lower and upper end, and whether it is marked.
    """
    value, low, high = table.iloc[:, :3].to_numpy(dtype=np.float64).T
    error = {
        "type": "data",
        "symmetric": False,
        "array": mask_infinite(high - value),
        "arrayminus": mask_infinite(value - low),
        "thickness": 1.2,
        "width": 4,
        "color": LIGHT["neutral"],
    }
    labels = [escape_label(label) for label in table.index]
    hover = "%{y}: %{x:.4g}<extra></extra>"
    trace = draw_points(value, labels, shown.key, error_x=error, hovertemplate=hover)
    colors = [LIGHT["accent" if is_marked else "neutral"] for is_marked in table.iloc[:, 3]]
    trace["marker"]["color"] = colors
    trace["cliponaxis"] = False  # a value may lie at the end of its axis

    layout |= {"height": 110 + 34 * len(table)}
    layout["yaxis"] |= {"autorange": "reversed", "type": "category", "showgrid": False}
    layout["xaxis"] |= {
        "zeroline": True,
        "zerolinecolor": LIGHT["ink"],
        "nticks": 6,
        "rangemode": "tozero",
    }
    yield trace


def draw_accounts(shown: core.ShownChart, table: pd.DataFrame, layout: Layout) -> Traces:
    """Yield the unit value of each account, and its drawdown in the panel below."""
    closes = pd.DatetimeIndex(table.index).as_unit("ns").asi8
    units = table.to_numpy(dtype=np.float64).T
    lay_out_accounts(shown, layout, closes)
    if is_wide(*units):
        layout["yaxis"] |= LOG

    for place, (name, unit) in enumerate(join_equal(table)):
        drawdown = unit / np.maximum.accumulate(np.maximum(unit, 1.0)) - 1.0
        rows = thin_rows(closes, unit, drawdown)
        x = to_datetimes(closes[rows])
        label = escape_label(name)
        color = choose_color(shown, name.partition(EQUAL)[0], place)
        is_alone = list(shown.colors.values()).count(color) <= 1
        style: dict[str, Any] = {
            "line": {"dash": "solid" if name in shown.colors else choose_dash(place)},
            "legendgroup": str(place),
        }
        yield draw_line(
            x,
            drop_dust(unit)[rows],
            label,
            color,
            **style,
            showlegend=is_alone,  # a color of several lines names none of them
            hovertemplate="%{y:.3f}",
        )
        below = {"yaxis": "y2", "hovertemplate": "%{y:.1%}"}
        yield draw_line(x, drawdown[rows], label, color, **style, **below)


EQUAL = " = "
"""Between the names of accounts that are one line."""


def join_equal(table: pd.DataFrame) -> list[tuple[str, core.FloatArray]]:
    """Return the columns under their names; equal ones are one, under the names of all."""
    joined: list[tuple[str, core.FloatArray]] = []
    for name, column in table.items():
        values = column.to_numpy(dtype=np.float64)
        for place, (other, known) in enumerate(joined):
            if np.allclose(values, known, rtol=1e-9, atol=0.0, equal_nan=True):
                joined[place] = (f"{other}{EQUAL}{name}", known)
                break
        else:
            joined.append((str(name), values))
    return joined


def lay_out_accounts(shown: core.ShownChart, layout: Layout, closes: core.IntArray) -> None:
    """Write the panels of unit values and drawdowns into ``layout``, and the marks of times."""
    layout |= stack_panels(("One unit of money", "Drawdown"), (2, 1), 0.09, closes)
    layout["yaxis2"] |= {"tickformat": PERCENTS, "nticks": 4}
    layout["margin"]["t"] = 60
    layout["legend"] = {"y": 1.06, "traceorder": "normal"}

    mark_lines(shown, layout)
    shapes = layout.setdefault("shapes", [])
    for mark in shown.marks:
        time = to_text(mark)
        shapes.append({
            "type": "line",
            "xref": "x",
            "y0": 0,
            "y1": 1,
            "yref": "paper",
            "layer": "below",
            "line": {"color": LIGHT["neutral_soft"], "width": 1},
            "x0": time,
            "x1": time,
        })  # fmt: skip


def draw_area(shown: core.ShownChart, table: pd.DataFrame, layout: Layout) -> Traces:
    """Yield each column as an area, those above 0 and those below stacked apart.

    Writes dates as the x axis of ``layout``.
    """
    closes = pd.DatetimeIndex(table.index).as_unit("ns").asi8
    layout["xaxis"]["type"] = "date"
    columns = [column.to_numpy(dtype=np.float64) for _, column in table.items()]
    rows = thin_rows(closes, *columns)
    x = to_datetimes(closes[rows])

    for place, (name, values) in enumerate(zip(table, columns, strict=True)):
        label = escape_label(name)
        color = choose_color(shown, name, place)
        sides = {"long": np.maximum(values, 0.0), "short": np.minimum(values, 0.0)}
        for side, heights in sides.items():
            yield draw_line(
                x,
                heights[rows],
                label,
                color,
                stackgroup=side,
                legendgroup=str(name),
                showlegend=side == "long",
                line={"width": 0.5},
            )


def draw_quotes(shown: core.ShownChart, table: pd.DataFrame, layout: Layout) -> Traces:  # noqa: ARG001
    """Yield a point between bid and ask with a bar to both, and the line of the fit.

    The columns are, in this order, the fit, the bid and the ask; a row has the first or the others.
    """
    low = table.iloc[:, 1]
    high = table.iloc[:, 2]
    middle = (0.5 * (low + high)).dropna()
    error = {
        "type": "data",
        "array": (high - low).dropna().to_numpy() / 2.0,
        "color": LIGHT["neutral"],
        "thickness": 1.2,
        "width": 2,
    }
    x = middle.index.to_numpy()
    yield draw_points(x, middle.to_numpy(), "bid to ask", "neutral", size=3, error_y=error)

    fitted = table.iloc[:, 0].dropna()
    yield draw_line(fitted.index.to_numpy(), fitted.to_numpy(), "fit")


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
