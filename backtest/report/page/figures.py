"""Building blocks of all charts: colors, layout, axes of money, traces, thinned series."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from backtest.base import BoolArray, FloatArray, IntArray, clip, escape_directions, format_magnitude
from backtest.report.page.page import Chart

COLORS = {
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
LIGHT = {role: light for role, (light, _) in COLORS.items()}
DARK = {role: dark for role, (_, dark) in COLORS.items()}
MOST_TICKS = 7
"""A log axis with more ticks than this keeps only the powers of ten."""
PERCENTS = ",.3~%"
MOST_LETTERS = 40
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
    return html.escape(clip(str(text), MOST_LETTERS), quote=False)


def build_layout(height: int, **more: Any) -> dict[str, Any]:
    top = 30 if more.get("showlegend") or "annotations" in more else 10
    return {
        "height": height,
        "margin": {"l": 8, "r": 8, "t": top, "b": 8, "pad": 2},
        "showlegend": False,
        "xaxis": {"showgrid": False},
        "yaxis": {},
        **more,
    }


def draw_line(x: Any, y: Any, name: str, color: str = "accent", **more: Any) -> dict[str, Any]:
    style = {"color": LIGHT[color], "width": 1.4, **more.pop("line", {})}
    drawn = {"type": "scatter", "mode": "lines", "x": x, "y": y, "name": name, "line": style}
    return {**drawn, "showlegend": False, **more}


def draw_series(
    closes: IntArray, values: FloatArray, name: str, color: str = "accent", **more: Any
) -> dict[str, Any]:
    rows = thin_rows(closes, values)
    return draw_line(to_datetimes(closes[rows]), values[rows], name, color, **more)


def draw_points(
    x: Any, y: Any, name: str, color: str = "accent", *, size: int = 8, symbol: str = "circle",
    stroke: float = 0.0, **more: Any,
) -> dict[str, Any]:  # fmt: skip
    marker: dict[str, Any] = {"symbol": symbol, "size": size, "color": LIGHT[color]}
    marker |= {"line": {"width": stroke, "color": LIGHT[color]}} if stroke else {}
    drawn = {"type": "scatter", "mode": "markers", "x": x, "y": y, "name": name}
    return {**drawn, "marker": marker, "showlegend": False, **more}


def build_chart(
    key: str, title: str, caption: str, traces: Iterable[Any], layout: Mapping[str, Any],
    size: str = "full",
) -> Chart:  # fmt: skip
    figure = {"data": list(traces), "layout": layout}
    return Chart(key, title, caption, figure, layout["height"], size)


def stack_panels(
    titles: Sequence[str], weights: Sequence[float], gap: float, span: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Return the layout of titled panels below each other that share their x axis.

    ``weights`` are the relative heights; ``gap`` is the room for the title of a lower panel, as a
    fraction of the figure. With ``span``, the first and last time of the x axis in ns, all panels
    are read at once.
    """
    room = 1.0 - gap * (len(titles) - 1)
    layout: dict[str, Any] = {}
    top, notes = 1.0, []
    for place, (title, weight) in enumerate(zip(titles, weights, strict=True), start=1):
        low = max(top - room * weight / sum(weights), 0.0)
        number = "" if place == 1 else str(place)
        layout[f"yaxis{number}"] = {"domain": [round(low, 6), round(top, 6)], "nticks": 5}
        notes.append(write_panel_title(title, round(top, 6)))
        top = low - gap
    last = "y" if len(titles) == 1 else f"y{len(titles)}"
    bottom: dict[str, Any] = {"showgrid": False, "anchor": last, "type": "date"}
    bottom["hoverformat"] = "%Y-%m-%d %H:%M"
    if span is not None:
        bottom["range"] = [str(np.datetime64(t, "ns").astype("datetime64[s]")) for t in span]
        layout |= {"hovermode": "x unified", "hoversubplots": "axis"}
    return {**layout, "xaxis": bottom, "annotations": notes}


def write_panel_title(text: str, y: float) -> dict[str, Any]:
    return {
        "text": text, "align": "left", "showarrow": False,
        "x": 0, "xref": "paper", "xanchor": "left",
        "y": y, "yref": "paper", "yanchor": "bottom", "yshift": 3,
        "font": {"size": 12, "color": LIGHT["muted"]},
    }  # fmt: skip


def color_key(text: str, color: str) -> str:
    return f'<span style="color:{LIGHT[color]}">\N{EM DASH} {text}</span>'


def to_datetimes(nanoseconds: IntArray) -> Any:
    """Convert times in ns to the milliseconds that Plotly draws."""
    return nanoseconds.view("datetime64[ns]").astype("datetime64[ms]")


def scale_log(*series: FloatArray) -> dict[str, Any]:
    known = np.concatenate([values[np.isfinite(values)] for values in series])
    low, high = float(np.min(known)), float(np.max(known))
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [lead * 10.0**power for power in powers for lead in (1.0, 2.0, 5.0)]
    ticks = [each for each in ticks if 0.7 * low <= each <= 1.4 * high]
    if len(ticks) > MOST_TICKS:
        ticks = [each for each in ticks if math.log10(each).is_integer()]
    if len(ticks) < 2:
        return {"type": "log"}
    return {"type": "log", "tickvals": ticks, "ticktext": list(map(format_magnitude, ticks))}


# ------------------------------------------------------------------------------------------ JSON


def encode_figure(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): encode_figure(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return encode_array(value)
    if isinstance(value, list | tuple):
        return [encode_figure(item) for item in value]
    if isinstance(value, str):
        return escape_directions(value)
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def encode_array(values: np.ndarray) -> Any:
    if values.dtype.kind == "M":
        return encode_bytes(values.astype("datetime64[ms]").astype(np.int64).astype("<f8"), "f8")
    if values.dtype.kind not in "fiu":
        return [encode_figure(item) for item in values.tolist()]
    shape = {} if values.ndim == 1 else {"shape": ", ".join(map(str, values.shape))}
    with np.errstate(over="ignore"):
        return {**encode_bytes(values.astype("<f4"), "f4"), **shape}


def encode_bytes(values: np.ndarray, kind: str) -> dict[str, str]:
    return {"dtype": kind, "bdata": base64.b64encode(values.tobytes()).decode("ascii")}


def write_script_data(value: Any) -> str:
    text = json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


LOG_FROM = 4.0
"""Ratio of the largest to the smallest value from which a log scale is used."""
DUST = 1e-6
"""An account that stays below this fraction of its maximum to the end is drawn as 0."""


def choose_scale(
    layout: dict[str, Any],
    own: FloatArray,
    *others: FloatArray,
    held: Sequence[int] = (),
    titles: Sequence[str] = (),
) -> None:
    shown = keep_positive(own)
    drawn = [each for each in (shown, *map(keep_positive, others)) if np.isfinite(each).any()]
    if not np.isfinite(shown).any():
        return
    axes = {"all": scale_log(*drawn), "own": scale_log(shown)}
    is_log = is_wide(np.concatenate(drawn))
    layout["yaxis"] |= axes["all"] if is_log else {}
    layout["meta"] = {"axes": axes, "is_log": is_log, "held": [*held], "titles": [*titles]}


def keep_positive(values: FloatArray) -> FloatArray:
    known = drop_dust(values)
    return np.where(known > 0.0, known, np.nan)


def drop_dust(values: FloatArray) -> FloatArray:
    most = float(np.nanmax(values, initial=0.0))
    large = np.flatnonzero(values >= DUST * most)
    is_end = np.arange(len(values)) > (large[-1] if len(large) else -1)
    return np.where(is_end & (values > 0.0), 0.0, values)


def is_wide(values: FloatArray) -> bool:
    positive = values[values > 0.0]
    return len(positive) > 1 and float(np.max(positive) / np.min(positive)) >= LOG_FROM


BUCKETS = 1000
"""Width of a chart in pixels: more than four points to a pixel cannot be seen."""


def thin_rows(
    time: IntArray, *series: FloatArray, keep: IntArray | None = None, buckets: int = BUCKETS
) -> IntArray:
    n = len(time)
    if n <= 4 * buckets:
        return np.arange(n, dtype=np.int64)
    edges = np.linspace(float(time[0]), float(time[-1]), buckets + 1)[:-1]
    starts = np.unique(np.searchsorted(time.astype(np.float64), edges))
    ends = np.append(starts[1:], n) - 1
    rows = [starts, ends]
    for values in series:
        rows += [*find_extremes(values, starts), find_gap_ends(values, buckets)]
    if keep is not None:
        rows.append(keep)
    return np.unique(np.concatenate(rows)).astype(np.int64)


def find_extremes(values: FloatArray, starts: IntArray) -> tuple[IntArray, IntArray]:
    missing = np.isnan(values)
    low = np.where(missing, np.inf, values)
    high = np.where(missing, -np.inf, values)
    return (
        find_first_rows(
            low == repeat_per_row(np.minimum.reduceat(low, starts), starts, len(low)), starts
        ),
        find_first_rows(
            high == repeat_per_row(np.maximum.reduceat(high, starts), starts, len(high)), starts
        ),
    )


def repeat_per_row(values: FloatArray, starts: IntArray, n: int) -> FloatArray:
    return np.repeat(values, np.diff(np.append(starts, n)))


def find_first_rows(is_wanted: BoolArray, starts: IntArray) -> IntArray:
    rows = np.flatnonzero(is_wanted)
    bucket = np.searchsorted(starts, rows, side="right")
    return rows[np.unique(bucket, return_index=True)[1]]


def find_gap_ends(values: FloatArray, buckets: int) -> IntArray:
    steps = np.flatnonzero(np.diff(np.isnan(values)))
    if len(steps) > buckets:
        steps = steps[np.linspace(0, len(steps) - 1, buckets).astype(np.int64)]
    return np.concatenate([steps, steps + 1])
