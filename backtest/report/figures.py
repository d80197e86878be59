"""What charts are drawn of: colors, layouts, lines, points, and thinned series."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
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
"""Colors by what they are for, on a light and on a dark page."""
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
    "title": {"font": {"color": LIGHT["muted"], "size": 12}},
    "automargin": True,
    "separatethousands": True,
}
TEMPLATE: Mapping[str, Any] = {
    "paper_bgcolor": LIGHT["paper"],
    "plot_bgcolor": LIGHT["paper"],
    "font": TEXT,
    "hoverlabel": {"bgcolor": LIGHT["paper"], "bordercolor": LIGHT["grid"], "font": TEXT},
    "legend": {
        "orientation": "h",
        "x": 0,
        "xanchor": "left",
        "y": 1.02,
        "yanchor": "bottom",
        "font": {"color": LIGHT["muted"], "size": 12},
        "bgcolor": "rgba(0,0,0,0)",
    },
    "xaxis": AXIS,
    "yaxis": {**AXIS, "ticklabeloverflow": "allow"},  # has room: to measure it takes long
}


def escape_label(text: object) -> str:
    return html.escape(core.clip(str(text), MAX_LETTERS), quote=False)


def title_axis(text: object) -> dict[str, Any]:
    """Return the title of an axis, off its labels: an axis without one need not measure them."""
    return {"text": escape_label(text), "standoff": 8}


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
    closes: core.IntArray,
    values: core.FloatArray,
    name: str,
    color: str,
    **more: Any,
) -> dict[str, Any]:
    rows = thin_rows(closes, values)
    return draw_line(to_datetimes(closes[rows]), values[rows], name, color, **more)


def draw_points(
    x: Any,
    y: Any,
    name: str,
    color: str = "accent",
    size: int = 8,
    **more: Any,
) -> dict[str, Any]:
    marker: dict[str, Any] = {"size": size, "color": LIGHT[color], **more.pop("marker", {})}
    drawn = {"type": "scatter", "mode": "markers", "x": x, "y": y, "name": name}
    return {**drawn, "marker": {"symbol": "circle", **marker}, "showlegend": False, **more}


def stack_panels(
    titles: Sequence[str],
    weights: Sequence[float],
    gap: float,
    closes: core.IntArray,
) -> dict[str, Any]:
    """Return the layout of titled panels below each other that share their x axis.

    ``weights`` are the relative heights; ``gap`` is the room for the title of a lower panel, as a
    fraction of the figure. All panels are read at once, from the first of ``closes`` to the last.
    """
    room = 1.0 - gap * (len(titles) - 1)
    layout: dict[str, Any] = {}
    notes = []
    top = 1.0
    for place, (title, weight) in enumerate(zip(titles, weights, strict=True), start=1):
        bottom = max(top - room * weight / sum(weights), 0.0)
        domain = [round(bottom, 6), round(top, 6)]
        layout[name_axis("yaxis", place)] = {"domain": domain, "nticks": 5}
        notes.append(write_panel_title(title, round(top, 6)))
        top = bottom - gap

    span = closes[[0, -1]].view("datetime64[ns]").astype("datetime64[s]")
    x_axis: dict[str, Any] = {
        "showgrid": False,
        "anchor": name_axis("y", len(titles)),
        "type": "date",
        "hoverformat": "%Y-%m-%d %H:%M",
        "range": [str(time) for time in span],
    }
    return {
        **layout,
        "hovermode": "x unified",
        "hoversubplots": "axis",
        "xaxis": x_axis,
        "annotations": notes,
    }


def name_axis(axis: str, place: int) -> str:
    """Return the name that Plotly gives an axis: the first has no number."""
    if place == 1:
        return axis
    return f"{axis}{place}"


def write_panel_title(title: str, top: float) -> dict[str, Any]:
    return {
        "text": title,
        "align": "left",
        "showarrow": False,
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "y": top,
        "yref": "paper",
        "yanchor": "bottom",
        "yshift": 3,
        "font": {"size": 12, "color": LIGHT["muted"]},
    }


def to_text(nanoseconds: float) -> str:
    return str(np.datetime64(int(nanoseconds), "ns").astype("datetime64[s]"))


def to_datetimes(nanoseconds: core.IntArray) -> Any:
    return nanoseconds.view("datetime64[ns]").astype("datetime64[ms]")


LOG_FROM = 4.0
"""Ratio of the largest to the smallest value from which a log scale is used."""
DUST = 1e-6
"""An account that stays below this fraction of its maximum to the end is drawn as 0."""


def drop_dust(values: core.FloatArray) -> core.FloatArray:
    """Return the values, those as 0 that follow the last one that is no dust."""
    highest = float(np.nanmax(values, initial=0.0))
    large = np.flatnonzero(values >= DUST * highest)
    last_large = -1
    if len(large):
        last_large = large[-1]
    is_end = np.arange(len(values)) > last_large
    return np.where(is_end & (values > 0.0), 0.0, values)


def is_wide(*series: core.FloatArray) -> bool:
    """Return whether lines of one axis differ so much that a log scale shows them better."""
    values = np.concatenate([drop_dust(line) for line in series])
    positive = values[values > 0.0]
    if len(positive) < 2:
        return False
    return float(np.max(positive) / np.min(positive)) >= LOG_FROM


BUCKETS = 500
"""Half the width of a chart in pixels: more than two points to a pixel cannot be seen."""


def thin_rows(
    time: core.IntArray,
    *series: core.FloatArray,
    buckets: int = BUCKETS,
) -> core.IntArray:
    """Return the rows to draw: of each pixel the first, last, lowest and highest of every line.

    The ends of gaps are among them.
    """
    n_rows = len(time)
    if n_rows <= 4 * buckets:
        return np.arange(n_rows, dtype=np.int64)

    # The pixel of each row; pixels without a row are left out.
    edges = np.linspace(float(time[0]), float(time[-1]), buckets + 1)[:-1]
    starts = np.unique(np.searchsorted(time.astype(np.float64), edges))
    stops = np.append(starts[1:], n_rows)
    pixel = np.repeat(np.arange(len(starts)), stops - starts)

    rows = [starts, stops - 1]
    for values in series:
        known = pd.Series(values).dropna()
        by_pixel = known.groupby(pixel[known.index])
        rows.append(by_pixel.idxmin().to_numpy())
        rows.append(by_pixel.idxmax().to_numpy())

        # The rows on both sides of where a gap begins or ends, of too many gaps some.
        edges_of_gaps = np.flatnonzero(np.diff(np.isnan(values)))
        if len(edges_of_gaps) > buckets:
            some = np.linspace(0, len(edges_of_gaps) - 1, buckets).astype(np.int64)
            edges_of_gaps = edges_of_gaps[some]
        rows.append(edges_of_gaps)
        rows.append(edges_of_gaps + 1)
    return np.unique(np.concatenate(rows)).astype(np.int64)


COLORS = ("accent", "loss", "ink", "neutral", "step_5", "step_2", "step_3", "muted")
DASHES = ("solid", "dash", "dot")
FROM_LABELS = ("intervals", "tornado", "ranked")


def has_values(table: pd.DataFrame) -> bool:
    return any(np.nan_to_num(table[name].to_numpy(dtype=np.float64)).any() for name in table)


def build_chart(shown: core.ShownChart, traces: list[Any], layout: dict[str, Any]) -> Chart:
    if shown.panels or shown.kind in ("bars", "line", "area"):
        fix_margins(layout)
    values: tuple[tuple[str, ...], ...] = ()
    if shown.kind not in FROM_LABELS:
        values = tuple(describe_lines(shown))
    return Chart(
        key=shown.key,
        title=shown.title,
        caption=shown.caption,
        figure={"data": traces, "layout": layout},
        height=layout["height"],
        size=shown.size,
        values=values,
    )


def fix_margins(layout: Layout) -> None:
    """Write margins that fit the labels into ``layout``: to measure them doubles the time."""
    for name, axis in layout.items():
        if name[1:].startswith("axis"):
            axis["automargin"] = False
    left = 74 if layout["yaxis"].get("title") else 56
    bottom = 46 if layout["xaxis"].get("title") else 34
    layout["margin"] = {**layout["margin"], "l": left, "b": bottom}


def describe_lines(shown: core.ShownChart) -> Iterator[tuple[str, ...]]:
    """Yield name, first, lowest, highest and last value of each column, for a screen reader."""
    for name, column in pd.DataFrame(shown.table).items():
        values = mask_infinite(column.to_numpy(dtype=np.float64))
        known = values[~np.isnan(values)]
        if not len(known):
            continue

        write = core.format_number
        if is_percent(shown, name):
            write = core.format_percent
        levels = (known[0], known.min(), known.max(), known[-1])
        yield str(name), *(write(float(level)) for level in levels)


def is_percent(shown: core.ShownChart, name: object) -> bool:
    """Return whether a column is drawn in per cent."""
    if not shown.panels:
        return "y" in shown.percent
    return any(panel.percent and name in panel.columns for panel in shown.panels)


def choose_color(shown: core.ShownChart, name: object, place: int) -> str:
    return shown.colors.get(str(name)) or COLORS[place % len(COLORS)]


def mask_infinite(values: core.FloatArray) -> core.FloatArray:
    return np.where(np.isfinite(values), values, np.nan)
