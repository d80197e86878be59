"""Charts of many sets of parameters: maps, profiles, parallel coordinates, importance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base.units import FloatArray, IntArray
from backtest.report.page.figures import LIGHT, chart, dots, frame, line, plain, scale_log
from backtest.report.page.page import Chart
from backtest.report.page.report_numbers import title
from backtest.report.sets.explored import Explored, encode, leave_out, rank_from_best
from backtest.report.sets.importance import Importance
from backtest.sweep.heatmap import Axis, name_scale

SCALE = "Cividis"
"""A colour scale that rises in lightness, for all kinds of eyes and for grey paper."""
MOST_LINES = 300
MOST_AXES = 8
GROUPS = ("worst fifth", "", "", "", "best fifth")


class Cells(NamedTuple):
    """A measure by cell, arrays of shape (n_y, n_x): median, sets, and the share ruined."""

    median: FloatArray
    sets: IntArray
    ruined: FloatArray


def fill_cells(explored: Explored, across: Axis, along: Axis) -> Cells:
    """Return the median of each cell's sets that were not ruined."""
    shape = (along.n_cells, across.n_cells)
    place = along.cells * across.n_cells + across.cells
    count = np.bincount(place, minlength=shape[0] * shape[1])
    ruined = np.bincount(place, weights=explored.is_ruined, minlength=len(count))
    found = pd.Series(explored.values).groupby(place).median()
    median = np.full(len(count), np.nan)
    median[found.index] = found.to_numpy()
    share = np.divide(ruined, count, out=np.zeros(len(count)), where=count > 0)
    median[share >= 0.5] = np.nan
    return Cells(median.reshape(shape), count.reshape(shape).astype(np.int64), share.reshape(shape))


def draw_map(explored: Explored, x: str, y: str) -> Chart:
    """Return the objective over two parameters, the ruined cells and the best set marked."""
    explored, left_out = leave_out(explored, x, y)
    across, along = explored.read_axis(x), explored.read_axis(y)
    cells = fill_cells(explored, across, along)
    notes = [
        [f"{plain(across.words[j])}<br>{plain(y)} {plain(along.words[i])}<br>{cells.sets[i, j]:,} "
         f"sets, {cells.ruined[i, j]:.0%} ruined" for j in range(across.n_cells)]
        for i in range(along.n_cells)
    ]  # fmt: skip
    surface = {
        "type": "heatmap", "x": list_places(across), "y": list_places(along), "z": cells.median,
        "colorscale": SCALE, "reversescale": explored.better < 0, "hoverongaps": False,
        "customdata": notes,
        "colorbar": {"thickness": 10, "outlinewidth": 0, "tickfont": {"color": LIGHT["muted"]}},
        "hovertemplate": f"{plain(x)} %{{customdata}}<br>median %{{z:.4g}}<extra></extra>",
    }  # fmt: skip
    traces = [surface, *mark_cells(explored, across, along, cells)]
    layout = frame(400, showlegend=True)
    layout["xaxis"] |= {"title": name_axis(explored, x), **scale_axis(across)}
    layout["yaxis"] |= {"title": name_axis(explored, y), **scale_axis(along), "showgrid": False}
    what = title(explored.name)
    caption = (
        f"Median {what} of the sets in each cell, over all other parameters; brighter is better. "
        f"A wide bright area can be relied on more than a bright speck.{left_out}"
    )
    return chart(f"map-{x}-{y}", f"{what} by {x} and {y}", caption, traces, layout, "narrow")


def list_places(cells: Axis) -> Any:
    """Return where cells are drawn: their edges as numbers, or their words."""
    return [plain(word) for word in cells.words] if cells.edges is None else cells.edges


def mark_cells(
    explored: Explored, across: Axis, along: Axis, cells: Cells
) -> Iterator[dict[str, Any]]:
    """Yield the marks of ruined cells and of the best set."""
    rows, columns = np.nonzero(cells.ruined >= 0.5)
    spots = [("mostly ruined", rows, columns, "x-thin", 7)] if len(rows) else []
    best = explored.best
    here = (np.array([along.cells[best]]), np.array([across.cells[best]]))
    for name, i, j, symbol, size in [*spots, ("best set", *here, "circle-open", 13)]:
        yield dots(pick(across, j), pick(along, i), name, "loss", size=size, symbol=symbol,
                   stroke=2, hoverinfo="skip", showlegend=True)  # fmt: skip


def pick(cells: Axis, places: IntArray) -> Any:
    """Return the centres of some cells."""
    centres = cells.centres[places]
    return [plain(word) for word in centres] if cells.edges is None else centres


def scale_axis(cells: Axis) -> dict[str, Any]:
    """Return the kind of an axis, and where it has ticks."""
    kind = name_scale(cells)
    return {"type": kind} if kind != "log" or cells.edges is None else scale_log(cells.edges)


def name_axis(explored: Explored, name: str) -> dict[str, str]:
    """Return the title of an axis with its unit."""
    unit = explored.parameters[name]["unit"]
    return {"text": plain(f"{name}, {unit}" if unit else name)}


# --------------------------------------------------------------------------- along one parameter


def draw_profile(explored: Explored, name: str) -> Chart:
    """Return the objective along one parameter: median, middle, and the best set."""
    explored, left_out = leave_out(explored, name)
    cells = explored.read_axis(name)
    groups = pd.Series(explored.values).groupby(cells.cells)
    low, middle, high = (groups.quantile(level) for level in (0.1, 0.5, 0.9))
    places = middle.index.to_numpy(dtype=np.int64)
    x = pick(cells, places)
    best = explored.best
    traces = [
        line(x, low.to_numpy(), "tenth", "accent_soft", line={"width": 0}, hoverinfo="skip"),
        line(x, high.to_numpy(), "nine tenths", "accent_soft", line={"width": 0}, fill="tonexty",
             fillcolor=LIGHT["accent_soft"], hoverinfo="skip"),
        line(x, middle.to_numpy(), "median", mode="lines+markers", marker={"size": 4},
             hovertemplate="%{y:.4g}"),
        dots(pick(cells, cells.cells[best : best + 1]), explored.values[best : best + 1], "best",
             "loss", size=10, symbol="circle-open", stroke=2,
             hovertemplate="best %{y:.4g}<extra></extra>"),
    ]  # fmt: skip
    layout = frame(230)
    layout["xaxis"] |= {"title": name_axis(explored, name), **scale_axis(cells)}
    layout["yaxis"] |= {"nticks": 5}
    heading = f"{title(explored.name)} by {name}"
    caption = f"Line: median. Area: four fifths of the sets. Circle: the best set.{left_out}"
    return chart(f"profile-{name}", heading, caption, traces, layout, "half")


# --------------------------------------------------------------------- across all parameters


def draw_importance(found: Importance) -> Chart:
    """Return how much each parameter matters."""
    table = found.table
    height = 90 + 30 * len(table)
    trace = {
        "type": "bar", "orientation": "h", "y": [plain(name) for name in table.index],
        "x": table["importance"].to_numpy(), "marker": {"color": LIGHT["accent"]},
        "error_x": {"type": "data", "array": 1.96 * table["error"].to_numpy(),
                    "color": LIGHT["muted"], "thickness": 1, "width": 3},
        "hovertemplate": "%{y}: %{x:.3f}<extra></extra>", "name": "importance",
    }  # fmt: skip
    layout = frame(height, bargap=0.4)
    layout["yaxis"] = {"type": "category", "autorange": "reversed", "showgrid": False}
    layout["xaxis"] = {"title": {"text": "loss of R\N{SUPERSCRIPT TWO} when shuffled"}, "nticks": 6}
    caption = (
        "Permutation importance: how much worse a random forest predicts the order of sets it has "
        "not seen when one parameter is shuffled among them. The forest explains "
        f"{max(found.explained, 0.0):.0%} of the order."
    )
    return chart("importance", "Which parameters matter", caption, [trace], layout, "narrow")


def draw_parallel(explored: Explored) -> Chart:
    """Return some sets as lines across all parameters, the better the stronger."""
    names = explored.varied[:MOST_AXES]
    rows = choose_lines(explored)
    group = np.minimum((rank_from_best(explored)[rows] * 5).astype(np.int64), 4)
    height = [
        encode(explored.table[name], log=bool(explored.parameters[name]["log"])) for name in names
    ]
    worth = place_values(explored.values)
    paths = np.stack([*height, worth], axis=1)[rows]
    ticks = [*names, title(explored.name)]
    traces = []
    for k, label in enumerate(GROUPS):
        mine = paths[group == k]
        x = np.tile([*range(len(ticks)), np.nan], len(mine))
        y = np.concatenate([mine, np.full((len(mine), 1), np.nan)], axis=1).ravel()
        traces.append(
            line(x, y, label or f"fifth {k + 1}", f"step_{k + 1}", hoverinfo="skip",
                 showlegend=bool(label), line={"width": 0.7 + 0.18 * k})
        )  # fmt: skip
    ends = [describe_ends(explored, name) for name in names]
    ends.append(describe_span(explored.values))
    notes = [
        {"x": k, "y": y, "yanchor": anchor, "text": plain(text), "showarrow": False,
         "font": {"size": 11, "color": LIGHT["muted"]}}
        for k, pair in enumerate(ends)
        for text, y, anchor in ((pair[0], -0.02, "top"), (pair[1], 1.02, "bottom"))
    ]  # fmt: skip
    layout = frame(400, showlegend=True, annotations=notes)
    layout["xaxis"] |= {"tickvals": list(range(len(ticks))), "ticktext": [plain(t) for t in ticks],
                        "showgrid": True, "range": [-0.35, len(ticks) - 0.65],
                        "zeroline": False}  # fmt: skip
    layout["yaxis"] |= {"visible": False, "range": [-0.09, 1.09]}
    layout["legend"] = {"y": 1.03}
    caption = (
        f"{len(rows):,} of {len(explored.table):,} sets: the best, and an even part of the others. "
        f"Each line is a set; the last axis is {title(explored.name)}."
    )
    return chart("parallel", "Sets across all parameters", caption, traces, layout)


def choose_lines(explored: Explored) -> IntArray:
    """Return the places of the sets to draw: a sixth of the room for the best, an even rest."""
    n = len(explored.order)
    if n <= MOST_LINES:
        return explored.order[::-1]
    best = MOST_LINES // 6
    rest = np.linspace(best, n - 1, MOST_LINES - best).astype(np.int64)
    chosen: IntArray = explored.order[np.concatenate([np.arange(best), rest])][::-1]
    return chosen


def place_values(values: FloatArray) -> FloatArray:
    """Return values from 0 to 1 between their outer hundredths; what lies beyond at the ends."""
    known = values[np.isfinite(values)]
    if not len(known):
        return np.zeros(len(values))
    low, high = np.quantile(known, (0.01, 1.0))
    scaled = (np.nan_to_num(values, nan=low) - low) / max(high - low, 1e-300)
    placed: FloatArray = np.clip(scaled, 0.0, 1.0)
    return placed


def describe_ends(explored: Explored, name: str) -> tuple[str, str]:
    """Return the lowest and the highest value of a parameter."""
    cells = explored.read_axis(name)
    if cells.edges is None:
        return cells.words[0], cells.words[-1]
    column = explored.table[name].to_numpy(dtype=np.float64)
    return f"{np.min(column):.4g}", f"{np.max(column):.4g}"


def describe_span(values: FloatArray) -> tuple[str, str]:
    """Return the bounds of the axis of values."""
    known = values[np.isfinite(values)]
    if not len(known):
        return "", ""
    return f"{np.quantile(known, 0.01):.3g}", f"{np.max(known):.3g}"
