"""The page of a saved result, from what the result declares of itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from backtest.base import (
    FloatArray,
    Head,
    Headline,
    Part,
    SavedResult,
    Shown,
    ShownChart,
    ShownTable,
    capitalize,
    find_head,
    format_cell,
    format_time,
    name_folder,
)
from backtest.base.table_text import HEADS, NONE, STYLES
from backtest.measures import name_measure
from backtest.measures.measure_table import ABOUT
from backtest.report.basis.data_quality import NOTHING, Background
from backtest.report.basis.declared_terms import build_basis
from backtest.report.page.figures import (
    LIGHT,
    PERCENTS,
    build_chart,
    build_layout,
    choose_scale,
    draw_line,
    draw_points,
    draw_series,
    drop_dust,
    escape_label,
    stack_panels,
    thin_rows,
    to_datetimes,
)
from backtest.report.page.page import (
    SYNTHETIC,
    Block,
    Chart,
    Column,
    Fact,
    Page,
    Paragraph,
    SearchTable,
    Section,
    Table,
)
from backtest.report.page.report_numbers import format_measure

MEASURE = "measure"


def build_declared(found: SavedResult, background: Background = NOTHING) -> Page:
    manifest = dict(found.manifest)
    data = dict(manifest["data"])
    return Page(
        kind=found.called or found.kind,
        manifest={**manifest, "data": data},
        title=found.heading,
        notices=[*found.notices, *([SYNTHETIC] if data.get("synthetic") else [])],
        summary=f"{write_sentence(found.verdict)} {found.details}".rstrip(),
        facts=[write_fact(each) for each in found.list_numbers()],
        write_sections=lambda: write_parts(found, background),
        collect=found.to_dict,
        about=found.about or ("" if data["bars"] else "Without a market"),
    )


def write_parts(found: SavedResult, background: Background) -> list[Section]:
    folder = name_folder(found.folder_title, found.manifest["id"])
    basis = build_basis(found.manifest, folder, found.list_assumptions(), background)
    return [*(write_part(each) for each in found.list_parts()), *basis]


def write_sentence(text: str) -> str:
    return capitalize(text) if text.endswith((".", "?")) else f"{capitalize(text)}."


def write_fact(number: Headline) -> Fact:
    return Fact(number.title, str(number), number.note)


def write_part(part: Part) -> Section:
    blocks = [block for shown in part.blocks if (block := write_block(part.key, shown)) is not None]
    return Section(part.key, part.title, part.lead, blocks)


def write_block(key: str, shown: Shown) -> Block | None:
    if isinstance(shown, str):
        return Paragraph(shown, "note") if shown else None
    if shown.table is None:
        return None
    if isinstance(shown, ShownChart):
        chart = draw_declared(shown)
        return chart._replace(key=chart.key or key)
    if not len(shown.table):
        return Paragraph(shown.empty)
    table = write_table(shown, shown.table)
    return SearchTable(table, ()) if shown.is_searched else table


# ----------------------------------------------------------------------------------------- tables


def write_table(shown: ShownTable, whole: pd.DataFrame) -> Table:
    frame = whole.head(shown.most)
    if frame.index.nlevels > 1:
        lower = [name for name in frame.index.names if name != frame.index.names[0]]
        frame = frame.reset_index(level=lower)
    heads = choose_heads(shown, frame)
    labels = [write_label(each, shown) for each in frame.index]
    rows = frame.to_dict("records")
    cells = (write_row(shown, heads, label, row)
             for label, row in zip(map(str, frame.index), rows, strict=True))  # fmt: skip
    texts = tuple((label, *each) for label, each in zip(labels, cells, strict=True))
    first = shown.labels.title or str(frame.index.name or "").replace("_", " ")
    columns = (
        Column(first, shown.labels.unit, is_number=False),
        *(Column(head.title, head.unit, is_numeric_dtype(frame[name]))
          for name, head in heads.items()),
    )  # fmt: skip
    left = len(whole) - len(frame)
    note = f"{shown.note} {f'And {left:,} more rows.' if left else ''}".strip()
    return Table(shown.caption, columns, texts, note)


def choose_heads(shown: ShownTable, frame: pd.DataFrame) -> dict[str, Head]:
    names = shown.columns or tuple(map(str, frame))
    heads = {name: shown.heads.get(name) or find_column(name) for name in names}
    ends = {head.until for head in heads.values()}
    return {name: head for name, head in heads.items() if name not in ends}


def find_column(name: str) -> Head:
    is_measure = name in ABOUT and name not in HEADS
    return Head(name_measure(name), "", MEASURE) if is_measure else find_head(name)


def write_label(label: Any, shown: ShownTable) -> str:
    if isinstance(label, pd.Timestamp):
        return format_time(label.value)
    if isinstance(label, str):
        return name_measure(label) if shown.has_measures else label
    return STYLES[shown.labels.style](float(label))


def write_row(
    shown: ShownTable, heads: Mapping[str, Head], label: str, row: Mapping[Any, Any]
) -> Iterator[str]:
    for name, head in heads.items():
        if shown.has_measures or head.style == MEASURE:
            yield format_measure(label if shown.has_measures else name, float(row[name]))
        else:
            ends: Sequence[Any] = [row[name], *([row[head.until]] if head.until else [])]
            cells = [format_cell(each, STYLES[head.style]) for each in ends]
            yield NONE if {*cells} == {NONE} else " to ".join(cells)


COLORS = ("accent", "loss", "ink", "neutral")
DASHES = ("solid", "dash", "dot")
MOST_POINTS = 3_000
"""Most points of a column in a scatter but the last."""


def draw_declared(shown: ShownChart) -> Chart:
    table = pd.DataFrame(shown.table)
    layout = build_layout(shown.height, showlegend=shown.has_legend)
    layout["xaxis"] |= {"title": {"text": shown.x}} if shown.x else {}
    layout["yaxis"] |= {"title": {"text": shown.y}} if shown.y else {}
    for axis in shown.percent:
        layout[f"{axis}axis"] |= {"tickformat": PERCENTS}
    traces = list(DRAWN[shown.kind](shown, table, layout))
    for axis in shown.log:
        layout[f"{axis}axis"] |= {"type": "log"}
    return build_chart(shown.key, shown.title, shown.caption, traces, layout, shown.size)


def choose_color(shown: ShownChart, name: object, place: int) -> str:
    return shown.colors.get(str(name)) or COLORS[place % len(COLORS)]


def draw_lines(
    shown: ShownChart, table: pd.DataFrame, layout: dict[str, Any]
) -> Iterator[dict[str, Any]]:
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
            yield draw_series(closes, values, escape_label(name), color, **more)
        else:
            yield draw_line(
                list(table.index), mask_infinite(values), escape_label(name), color, **more
            )
    yield from draw_marks(shown, table)


def mask_infinite(values: FloatArray) -> FloatArray:
    return np.where(np.isfinite(values), values, np.nan)


def draw_bars(
    shown: ShownChart, table: pd.DataFrame, layout: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    layout |= {"barmode": "overlay", "bargap": 0.05}
    for place, (name, column) in enumerate(table.items()):
        yield {
            "type": "bar", "x": list(table.index), "y": column.to_numpy(dtype=np.float64),
            "name": escape_label(name), "showlegend": shown.has_legend,
            "marker": {"color": LIGHT[choose_color(shown, name, place)]},
        }  # fmt: skip
    yield from draw_marks(shown, table)


def draw_heat(
    shown: ShownChart,  # noqa: ARG001
    table: pd.DataFrame,
    layout: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    grid = table.iloc[:, 0].groupby(level=[0, 1]).mean().unstack(1)
    for axis, name in zip(("xaxis", "yaxis"), table.index.names, strict=False):
        layout[axis] |= {"type": "category", "title": {"text": str(name)}}
    yield {
        "type": "heatmap",
        "x": [f"{x:.3g}" for x in grid.index],
        "y": [f"{y:.3g}" for y in grid.columns],
        "z": grid.to_numpy().T.tolist(),
        "colorscale": [[0.0, LIGHT["paper"]], [1.0, LIGHT["loss"]]],
    }


def draw_tornado(
    shown: ShownChart,  # noqa: ARG001
    table: pd.DataFrame,
    layout: dict[str, Any],
) -> Iterator[dict[str, Any]]:
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
    values = mask_infinite(table.to_numpy(dtype=np.float64)) if shown.marks else np.empty(0)
    ends = [float(np.nanmin(values)), float(np.nanmax(values))] if len(values) else []
    dot = {"color": LIGHT["neutral"], "width": 1.2, "dash": "dot"}
    known = [each for each in shown.marks if math.isfinite(each)]
    return [draw_line([at, at], ends, "mark", "neutral", line=dot) for at in known]


def draw_scatter(
    shown: ShownChart, table: pd.DataFrame, layout: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    layout["xaxis"] |= {"showgrid": True}
    last = table.shape[1] - 1
    for place, (name, column) in enumerate(table.items()):
        known = column[np.isfinite(column) & np.isfinite(table.index.to_numpy())]
        points = known.iloc[:: 1 if place == last else math.ceil(len(known) / MOST_POINTS) or 1]
        more = {"size": 9} if place == last else {"size": 4, "opacity": 0.35}
        yield draw_points(points.index.to_numpy(), points.to_numpy(), escape_label(name),
                          choose_color(shown, name, place), **more, showlegend=True,
                          hovertemplate="%{x:.2f}, %{y:.2f}")  # fmt: skip
    x, y = table.index.to_numpy(dtype=np.float64), table.to_numpy(dtype=np.float64)
    if np.isfinite(x).any() and np.isfinite(y).any():
        ends = np.array([np.nanmin(mask_infinite(x)), np.nanmax(mask_infinite(x))])
        line = {"dash": "dot"}
        yield draw_line(ends, ends, "equal", "loss", line=line, showlegend=True, hoverinfo="skip")


def draw_intervals(
    shown: ShownChart, table: pd.DataFrame, layout: dict[str, Any]
) -> Iterator[dict[str, Any]]:
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


def draw_accounts(
    shown: ShownChart, table: pd.DataFrame, layout: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    closes = pd.DatetimeIndex(table.index).as_unit("ns").asi8
    span = (int(closes[0]), int(closes[-1]))
    layout |= stack_panels(("One unit of money", "Drawdown"), (2, 1), 0.09, span)
    layout["yaxis2"] |= {"tickformat": PERCENTS, "nticks": 4}
    layout["margin"]["t"] = 60
    layout["legend"] = {"y": 1.06, "traceorder": "normal"}
    layout["shapes"] = [draw_edge(int(each)) for each in shown.marks]
    units = table.to_numpy(dtype=np.float64).T
    choose_scale(layout, np.concatenate([drop_dust(unit) for unit in units]))
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


def draw_edge(time: int) -> dict[str, Any]:
    """Return a thin vertical line over all panels at a time in ns."""
    at = str(np.datetime64(time, "ns").astype("datetime64[s]"))
    line = {"color": LIGHT["neutral_soft"], "width": 1}
    return {"type": "line", "x0": at, "x1": at, "xref": "x", "y0": 0, "y1": 1, "yref": "paper",
            "line": line, "layer": "below"}  # fmt: skip


def draw_fan(
    shown: ShownChart,  # noqa: ARG001
    table: pd.DataFrame,
    layout: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    closes = pd.DatetimeIndex(table.index).as_unit("ns").asi8
    units = table.to_numpy(dtype=np.float64)
    rows = thin_rows(closes, *units.T)
    layout["xaxis"] |= {"type": "date"}
    choose_scale(layout, np.concatenate([drop_dust(unit) for unit in units.T]))
    gray: dict[str, Any] = {"color": "neutral", "opacity": 0.5, "line": {"width": 1.0}}
    blue: dict[str, Any] = {"line": {"width": 2.2}, "showlegend": True}
    drawn = [*((f"{table.columns.name} {name}", unit, gray)
               for name, unit in zip(table, units.T, strict=True)),
             ("median", np.median(units, axis=1), blue)]  # fmt: skip
    for name, unit, more in drawn:
        yield draw_line(to_datetimes(closes[rows]), drop_dust(unit)[rows], escape_label(name),
                        hovertemplate="%{y:.3f}", **more)  # fmt: skip


Draw: TypeAlias = Callable[[ShownChart, pd.DataFrame, dict[str, Any]], Iterator[dict[str, Any]]]
DRAWN: Mapping[str, Draw] = {
    "line": draw_lines,
    "points": draw_lines,
    "steps": draw_lines,
    "bars": draw_bars,
    "heat": draw_heat,
    "tornado": draw_tornado,
    "scatter": draw_scatter,
    "intervals": draw_intervals,
    "accounts": draw_accounts,
    "fan": draw_fan,
}
