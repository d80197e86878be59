"""Charts of panels below each other that share one axis of time.

A *panel* has an axis of values of its own, a *span* is shaded over all panels, a *line* crosses all
of them at one time. A *choice* is one of several sets of lines of which a page shows one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from backtest import core
from backtest.core.code_names import pd
from backtest.core.result_parts import Panel, ShownChart
from backtest.report.figures import (
    LIGHT,
    LOG,
    PERCENTS,
    Layout,
    Traces,
    build_chart,
    build_layout,
    choose_color,
    draw_points,
    draw_series,
    escape_label,
    has_values,
    is_wide,
    mask_infinite,
    name_axis,
    stack_panels,
    to_datetimes,
    to_text,
)
from backtest.report.page import Chart

GAP = 0.16
"""Room between panels for titles, in all, as a fraction of the chart."""
FEW_LINES = 6
"""Lines over all panels up to which they are drawn strong."""
TOP = 30
"""Margin above the first panel in pixels, for its title."""
TOP_OF_LEGEND = 60
"""The margin with a legend over the title."""
FOOT = 34
"""Margin under the last panel in pixels, for its dates."""
TITLE = 20
"""Room in pixels that the title of a lower panel has at least."""


def draw_panels(shown: ShownChart, table: pd.DataFrame) -> Chart | None:
    """Return the chart of the panels that hold something, or None if none does."""
    panels = [each for each in shown.panels if has_values(table[list(each.columns)])]
    if not panels:
        return None
    if shown.until:  # what is not shown needs no points
        table = table[table.index <= pd.Timestamp(shown.until, tz="UTC")]

    layout = lay_out_panels(shown, panels, table)
    traces: list[dict[str, Any]] = []
    for place, panel in enumerate(panels, start=1):
        traces += draw_panel(shown, panel, table, layout, place)
    traces += draw_events(shown, [panel.title for panel in panels])

    mark_spans(shown, layout, panels)
    mark_lines(shown, layout)
    return build_chart(shown, traces, layout)


def lay_out_panels(shown: ShownChart, panels: list[Panel], table: pd.DataFrame) -> Layout:
    weights = [panel.height for panel in panels]
    whole = sum(panel.height for panel in shown.panels)
    layout = build_layout(round(shown.height * sum(weights) / whole))

    titles = [name_panel(shown, panel) for panel in panels]
    closes = pd.DatetimeIndex(table.index).as_unit("ns").asi8
    gap = max(GAP / len(panels), TITLE / (layout["height"] - TOP - FOOT))
    layout |= stack_panels(titles, weights, gap, closes)
    if shown.until:
        start = layout["xaxis"]["range"][0]
        layout["xaxis"]["range"] = [start, to_text(shown.until)]

    layout["margin"] = {**layout["margin"], "t": TOP}
    if shown.events is not None and len(shown.events):
        layout["showlegend"] = True
        layout["legend"] = {
            "yref": "container",
            "y": 1,
            "yanchor": "top",
            "traceorder": "normal",
        }
        layout["margin"]["t"] = TOP_OF_LEGEND

    # What a page offers beside the chart: to switch the scale, and what is shown.
    meta: dict[str, Any] = {}
    if any(panel.scale for panel in panels):
        meta["scale"] = True
    choices = list(dict.fromkeys(shown.choices.values()))
    if choices:
        meta["choices"] = choices
    if meta:
        layout["meta"] = meta
    return layout


def draw_panel(
    shown: ShownChart,
    panel: Panel,
    table: pd.DataFrame,
    layout: Layout,
    place: int,
) -> Iterator[dict[str, Any]]:
    """Yield the lines of a panel; write the scale and format of its axis into ``layout``."""
    axis = layout[name_axis("yaxis", place)]
    columns = {
        name: mask_infinite(table[name].to_numpy(dtype=np.float64)) for name in panel.columns
    }
    if panel.from_zero:
        axis["rangemode"] = "tozero"
    if panel.percent:
        axis["tickformat"] = PERCENTS
    if panel.scale and is_wide(*columns.values()):
        axis |= LOG

    closes = pd.DatetimeIndex(table.index).as_unit("ns").asi8
    first_choice = next(iter(shown.choices.values()), None)
    for nth, (name, values) in enumerate(columns.items()):
        color = choose_color(shown, name, nth)
        line: dict[str, Any] = {"width": 1.2}
        if shown.kind == "steps":
            line["shape"] = "hv"
        if name in shown.dotted:
            line["dash"] = "dot"

        more: dict[str, Any] = {
            "line": line,
            "yaxis": name_axis("y", place),
            "hovertemplate": "%{y:.1%}" if panel.percent else "%{y:,.5~g}",
        }
        if panel.filled:
            more["fill"] = "tozeroy"
            more["fillcolor"] = LIGHT.get(f"{color}_soft", LIGHT["neutral_soft"])
        choice = shown.choices.get(name)
        if choice:
            more |= {"meta": choice, "visible": choice == first_choice}
        label = escape_label(shown.labels.get(name, name))
        yield draw_series(closes, values, label, color, **more)


def name_panel(shown: ShownChart, panel: Panel) -> str:
    """Return the title of a panel with the names of its lines, each once, in their colors."""
    # From the last to the first: of equal names, the first one gives the color.
    color_of = {}
    for place, name in reversed([*enumerate(panel.columns)]):
        color_of[shown.labels.get(name, name)] = choose_color(shown, name, place)

    if len(color_of) == 1:
        (label,) = color_of
        is_said = label in panel.columns or label in panel.title.lower()
        if is_said:
            return panel.title
        return f"{panel.title}: {escape_label(label)}"

    keys = []
    for label, color in reversed(color_of.items()):
        key = f"\N{EM DASH} {escape_label(label)}"
        keys.append(f'<span style="color:{LIGHT[color]}">{key}</span>')
    return f"{panel.title} {'  '.join(keys)}"


def draw_events(shown: ShownChart, titles: list[str]) -> Traces:
    """Yield the marks of events, a trace for each label, in the panel that it names.

    The legend explains each sign once: that of a choice only where no mark of all choices has it.
    """
    if shown.events is None:
        return
    first_choice = next(iter(shown.choices.values()), None)
    keys = [name for name in ("panel", "choice", "label") if name in shown.events]

    # (choice, symbol, color) of the signs that are in the legend already.
    explained: set[tuple[object, ...]] = set()
    for _, rows in shown.events.groupby(keys, sort=False, dropna=False):
        # What the events of a trace share.
        first = rows.iloc[0]
        label = first["label"]
        choice = first.get("choice")
        if not isinstance(choice, str):  # it belongs to all choices
            choice = None

        sign = (first["symbol"], first["color"])
        edge = {"width": 1.2, "color": LIGHT[first["color"]]}
        more: dict[str, Any] = {
            "marker": {"symbol": first["symbol"], "line": edge},
            "showlegend": explained.isdisjoint({(None, *sign), (choice, *sign)}),
            "hovertemplate": f"{escape_label(label)}<extra></extra>",
            "customdata": rows["row"].tolist(),
        }
        explained.add((choice, *sign))

        # An event without a panel is drawn in the first.
        panel = first.get("panel")
        if panel in titles[1:]:
            more["yaxis"] = name_axis("y", titles.index(panel) + 1)
        if choice is not None:
            more |= {"meta": choice, "visible": choice == first_choice}

        times = to_datetimes(pd.DatetimeIndex(rows.index).as_unit("ns").asi8)
        name = escape_label(first.get("name") or label)
        yield draw_points(times, rows["y"].to_numpy(), name, first["color"], **more)


def mark_spans(shown: ShownChart, layout: Layout, panels: list[Panel]) -> None:
    """Write the spans into ``layout``, named at the foot of the filled panel, else of the first."""
    filled = [place for place, panel in enumerate(panels, start=1) if panel.filled]
    foot = name_axis("y", filled[0] if filled else 1)
    for first, last, name in shown.spans:
        shape = {
            "type": "rect",
            "x0": to_text(first),
            "x1": to_text(last),
            "xref": "x",
            "y0": 0,
            "y1": 1,
            "yref": "paper",
            "fillcolor": LIGHT["loss_soft"],
            "line": {"width": 0},
            "layer": "below",
            "opacity": 0.6,
        }
        label = {
            "text": name,
            "x": to_text((first + last) // 2),
            "xref": "x",
            "y": 0,
            "yref": f"{foot} domain",
            "yanchor": "bottom",
            "showarrow": False,
            "name": "span",
            "font": {"size": 12, "color": LIGHT["loss"]},
        }
        layout.setdefault("shapes", []).append(shape)
        layout["annotations"].append(label)


def mark_lines(shown: ShownChart, layout: Layout) -> None:
    """Write the lines over all panels into ``layout``, those that come first named first.

    A page drops the names that would overlap one before them.
    """
    width = 1.4 if len(shown.lines) <= FEW_LINES else 0.7
    for time, name in shown.lines:
        x = to_text(time)
        shape = {
            "type": "line",
            "x0": x,
            "x1": x,
            "xref": "x",
            "y0": 0,
            "y1": 1,
            "yref": "paper",
            "line": {"width": width, "color": LIGHT["loss"], "dash": "dash"},
        }
        layout.setdefault("shapes", []).append(shape)
        if not name:
            continue

        label = {
            "text": core.clip(name, 60),
            "x": x,
            "xref": "x",
            "y": 1,
            "yref": "paper",
            "yanchor": "top",
            "xanchor": "left",
            "xshift": 3,
            "showarrow": False,
            "name": "line",
            "font": {"size": 11, "color": LIGHT["loss"]},
            "bgcolor": LIGHT["paper"],
        }
        layout["annotations"].append(label)
