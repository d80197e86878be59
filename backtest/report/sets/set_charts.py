"""Charts of many sets of parameters: maps, profiles, parallel coordinates, importance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import FloatArray, IntArray
from backtest.measures import name_measure
from backtest.report.page.figures import (
    LIGHT,
    build_chart,
    build_layout,
    draw_line,
    draw_points,
    escape_label,
    scale_log,
)
from backtest.report.page.page import Chart
from backtest.report.sets.explored import (
    Explored,
    Importance,
    exclude_idle,
    rank_from_best,
    scale_parameter,
)
from backtest.sweep import Axis, name_scale

SCALE = "Cividis"
MOST_LINES = 300
MOST_AXES = 8
GROUPS = ("worst fifth", "", "", "", "best fifth")


class CellStatistics(NamedTuple):
    """Median of a measure, number of sets and share ruined by cell, of shape (n_y, n_x)."""

    median: FloatArray
    sets: IntArray
    ruined: FloatArray


def fill_cells(explored: Explored, across: Axis, along: Axis) -> CellStatistics:
    shape = (along.n_cells, across.n_cells)
    place = along.cells * across.n_cells + across.cells
    count = np.bincount(place, minlength=shape[0] * shape[1])
    ruined = np.bincount(place, weights=explored.is_ruined, minlength=len(count))
    found = pd.Series(explored.values).groupby(place).median()
    median = np.full(len(count), np.nan)
    median[found.index] = found.to_numpy()
    share = np.divide(ruined, count, out=np.zeros(len(count)), where=count > 0)
    median[share >= 0.5] = np.nan
    return CellStatistics(
        median.reshape(shape), count.reshape(shape).astype(np.int64), share.reshape(shape)
    )


def draw_map(explored: Explored, x: str, y: str) -> Chart:
    explored, left_out = exclude_idle(explored, x, y)
    across, along = explored.read_axis(x), explored.read_axis(y)
    cells = fill_cells(explored, across, along)
    heads, sides = list(map(escape_label, across.words)), list(map(escape_label, along.words))
    notes = [
        [f"{head}<br>{escape_label(y)} {side}<br>{cells.sets[i, j]:,} sets, "
         f"{cells.ruined[i, j]:.0%} ruined" for j, head in enumerate(heads)]
        for i, side in enumerate(sides)
    ]  # fmt: skip
    surface = {
        "type": "heatmap", "x": list_places(across), "y": list_places(along), "z": cells.median,
        "colorscale": SCALE, "reversescale": explored.better < 0, "hoverongaps": False,
        "customdata": notes,
        "colorbar": {"thickness": 10, "outlinewidth": 0, "tickfont": {"color": LIGHT["muted"]}},
        "hovertemplate": f"{escape_label(x)} %{{customdata}}<br>median %{{z:.4g}}<extra></extra>",
    }  # fmt: skip
    traces = [surface, *mark_cells(explored, across, along, cells)]
    layout = build_layout(400, showlegend=True)
    layout["xaxis"] |= {"title": name_axis(explored, x), **scale_axis(across)}
    layout["yaxis"] |= {"title": name_axis(explored, y), **scale_axis(along), "showgrid": False}
    what = name_measure(explored.name)
    caption = (
        f"Median {what} of the sets in each cell, over all other parameters; brighter is better. "
        f"A wide bright area can be relied on more than a bright speck.{left_out}"
    )
    return build_chart(f"map-{x}-{y}", f"{what} by {x} and {y}", caption, traces, layout, "narrow")


def list_places(cells: Axis) -> Any:
    return [escape_label(word) for word in cells.words] if cells.edges is None else cells.edges


def mark_cells(
    explored: Explored, across: Axis, along: Axis, cells: CellStatistics
) -> Iterator[dict[str, Any]]:
    rows, columns = np.nonzero(cells.ruined >= 0.5)
    spots = [("mostly ruined", rows, columns, "x-thin", 7)] if len(rows) else []
    best = explored.best
    here = (np.array([along.cells[best]]), np.array([across.cells[best]]))
    for name, i, j, symbol, size in [*spots, ("best set", *here, "circle-open", 13)]:
        yield draw_points(place_centers(across, j), place_centers(along, i), name, "loss", stroke=2,
                          size=size, symbol=symbol, hoverinfo="skip", showlegend=True)  # fmt: skip


def place_centers(cells: Axis, places: IntArray) -> Any:
    centers = cells.centers[places]
    return [escape_label(word) for word in centers] if cells.edges is None else centers


def scale_axis(cells: Axis) -> dict[str, Any]:
    kind = name_scale(cells)
    return {"type": kind} if kind != "log" or cells.edges is None else scale_log(cells.edges)


def name_axis(explored: Explored, name: str) -> dict[str, str]:
    unit = explored.parameters[name]["unit"]
    return {"text": escape_label(f"{name}, {unit}" if unit else name)}


# --------------------------------------------------------------------------- along one parameter


def draw_profile(explored: Explored, name: str) -> Chart:
    explored, left_out = exclude_idle(explored, name)
    cells = explored.read_axis(name)
    groups = pd.Series(explored.values).groupby(cells.cells)
    low, middle, high = (groups.quantile(level) for level in (0.1, 0.5, 0.9))
    places = middle.index.to_numpy(dtype=np.int64)
    x = place_centers(cells, places)
    best = slice(explored.best, explored.best + 1)
    traces = [
        draw_line(x, low.to_numpy(), "tenth", "accent_soft", line={"width": 0}, hoverinfo="skip"),
        draw_line(x, high.to_numpy(), "nine tenths", "accent_soft", line={"width": 0},
                  fill="tonexty", fillcolor=LIGHT["accent_soft"], hoverinfo="skip"),
        draw_line(x, middle.to_numpy(), "median", mode="lines+markers", marker={"size": 4},
                  hovertemplate="%{y:.4g}"),
        draw_points(place_centers(cells, cells.cells[best]), explored.values[best], "best", "loss",
                    size=10, symbol="circle-open", stroke=2,
                    hovertemplate="best %{y:.4g}<extra></extra>"),
    ]  # fmt: skip
    layout = build_layout(230)
    layout["xaxis"] |= {"title": name_axis(explored, name), **scale_axis(cells)}
    layout["yaxis"] |= {"nticks": 5}
    heading = f"{name_measure(explored.name)} by {name}"
    caption = f"Line: median. Area: four fifths of the sets. Circle: the best set.{left_out}"
    return build_chart(f"profile-{name}", heading, caption, traces, layout, "half")


# --------------------------------------------------------------------- across all parameters


def draw_importance(found: Importance) -> Chart:
    table = found.table
    trace = {
        "type": "bar", "orientation": "h", "y": [escape_label(name) for name in table.index],
        "x": table["importance"].to_numpy(), "marker": {"color": LIGHT["accent"]},
        "error_x": {"type": "data", "array": 1.96 * table["error"].to_numpy(),
                    "color": LIGHT["muted"], "thickness": 1, "width": 3},
        "hovertemplate": "%{y}: %{x:.3f}<extra></extra>", "name": "importance",
    }  # fmt: skip
    layout = build_layout(90 + 30 * len(table), bargap=0.4)
    layout["yaxis"] = {"type": "category", "autorange": "reversed", "showgrid": False}
    layout["xaxis"] = {"title": {"text": "loss of R\N{SUPERSCRIPT TWO} when shuffled"}, "nticks": 6}
    caption = (
        "Permutation importance: how much worse a random forest predicts the order of sets it has "
        "not seen when one parameter is shuffled among them. The forest explains "
        f"{max(found.explained, 0.0):.0%} of the order."
    )
    return build_chart("importance", "Which parameters matter", caption, [trace], layout, "narrow")


def draw_parallel(explored: Explored) -> Chart:
    names = explored.varied[:MOST_AXES]
    rows = choose_lines(explored)
    group = np.minimum((rank_from_best(explored)[rows] * 5).astype(np.int64), 4)
    height = [
        scale_parameter(explored.table[name], log=bool(explored.parameters[name]["log"]))
        for name in names
    ]
    worth = scale_values(explored.values)
    paths = np.stack([*height, worth], axis=1)[rows]
    ticks = [*names, name_measure(explored.name)]
    traces = []
    for k, label in enumerate(GROUPS):
        mine = paths[group == k]
        x = np.tile([*range(len(ticks)), np.nan], len(mine))
        y = np.concatenate([mine, np.full((len(mine), 1), np.nan)], axis=1).ravel()
        traces.append(
            draw_line(x, y, label or f"fifth {k + 1}", f"step_{k + 1}", hoverinfo="skip",
                      showlegend=bool(label), line={"width": 0.7 + 0.18 * k})
        )  # fmt: skip
    ends = [format_parameter_ends(explored, name) for name in names]
    ends.append(format_value_ends(explored.values))
    notes = [
        {"x": k, "y": y, "yanchor": anchor, "text": escape_label(text), "showarrow": False,
         "font": {"size": 11, "color": LIGHT["muted"]}}
        for k, pair in enumerate(ends)
        for text, y, anchor in ((pair[0], -0.02, "top"), (pair[1], 1.02, "bottom"))
    ]  # fmt: skip
    layout = build_layout(400, showlegend=True, annotations=notes)
    layout["xaxis"] |= {"tickvals": list(range(len(ticks))),
                        "ticktext": list(map(escape_label, ticks)), "showgrid": True,
                        "range": [-0.35, len(ticks) - 0.65], "zeroline": False}  # fmt: skip
    layout["yaxis"] |= {"visible": False, "range": [-0.09, 1.09]}
    layout["legend"] = {"y": 1.03}
    caption = (
        f"{len(rows):,} of {len(explored.table):,} sets: the best, and an even part of the others. "
        f"Each line is a set; the last axis is {name_measure(explored.name)}."
    )
    return build_chart("parallel", "Sets across all parameters", caption, traces, layout)


def choose_lines(explored: Explored) -> IntArray:
    n = len(explored.order)
    if n <= MOST_LINES:
        return explored.order[::-1]
    best = MOST_LINES // 6
    rest = np.linspace(best, n - 1, MOST_LINES - best).astype(np.int64)
    chosen: IntArray = explored.order[np.r_[:best, rest]][::-1]
    return chosen


def scale_values(values: FloatArray) -> FloatArray:
    known = values[np.isfinite(values)]
    if not len(known):
        return np.zeros(len(values))
    low, high = np.quantile(known, (0.01, 1.0))
    scaled = (np.nan_to_num(values, nan=low) - low) / max(high - low, 1e-300)
    placed: FloatArray = np.clip(scaled, 0.0, 1.0)
    return placed


def format_parameter_ends(explored: Explored, name: str) -> tuple[str, str]:
    cells = explored.read_axis(name)
    if cells.edges is None:
        return cells.words[0], cells.words[-1]
    column = explored.table[name].to_numpy(dtype=np.float64)
    return f"{np.min(column):.4g}", f"{np.max(column):.4g}"


def format_value_ends(values: FloatArray) -> tuple[str, str]:
    known = values[np.isfinite(values)]
    if not len(known):
        return "", ""
    return f"{np.quantile(known, 0.01):.3g}", f"{np.max(known):.3g}"
