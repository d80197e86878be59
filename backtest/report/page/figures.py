"""What all charts share: colors in light and dark, layout, traces, and a figure as JSON."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from backtest.base.number_text import format_magnitude
from backtest.base.text_layout import clip, escape_directions
from backtest.base.units import FloatArray, IntArray
from backtest.report.page.page import Chart

LIGHT = {
    "ink": "#1c2127",
    "muted": "#5b6570",
    "grid": "#e4e8ec",
    "paper": "#ffffff",
    "accent": "#1f5fae",
    "accent_soft": "rgba(31,95,174,0.18)",
    "loss": "#c0490d",
    "loss_soft": "rgba(192,73,13,0.15)",
    "neutral": "#8b949e",
    "neutral_soft": "rgba(139,148,158,0.17)",
    "step_1": "#c3c9cf",
    "step_2": "#9db3ca",
    "step_3": "#7297c1",
    "step_4": "#467ab8",
    "step_5": "#12447f",
}
"""The colours of figures by their part. Gain and loss differ for every kind of eyes."""

DARK = {
    "ink": "#e4e7eb",
    "muted": "#9aa5b1",
    "grid": "#2c333a",
    "paper": "#15191e",
    "accent": "#74aaf5",
    "accent_soft": "rgba(116,170,245,0.20)",
    "loss": "#f08c55",
    "loss_soft": "rgba(240,140,85,0.19)",
    "neutral": "#7d8894",
    "neutral_soft": "rgba(125,136,148,0.19)",
    "step_1": "#3d454d",
    "step_2": "#45617f",
    "step_3": "#4d7cb0",
    "step_4": "#6ba2e4",
    "step_5": "#c4dcff",
}
"""What takes their place on dark paper."""

MOST_TICKS = 7
"""Ticks of a log scale beyond which powers of ten are enough."""
MOST_LETTERS = 40
"""Letters of a name in a chart."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif"
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
"""An axis: thin grid, no box, small grey numbers."""
TEMPLATE: Mapping[str, Any] = {
    "paper_bgcolor": LIGHT["paper"],
    "plot_bgcolor": LIGHT["paper"],
    "font": {"family": FONT, "color": LIGHT["ink"], "size": 12},
    "hoverlabel": {
        "bgcolor": LIGHT["paper"],
        "bordercolor": LIGHT["grid"],
        "font": {"family": FONT, "color": LIGHT["ink"], "size": 12},
    },
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
    "yaxis": AXIS,
}
"""The layout that all figures share, as Plotly's templates have it."""


def plain(text: object) -> str:
    """Return a text that Plotly shows as it is, cut where it is long: it takes tags for markup.

    Examples
    --------
    >>> plain("<b>x</b>")
    '&lt;b&gt;x&lt;/b&gt;'
    """
    return html.escape(clip(str(text), MOST_LETTERS), quote=False)


def frame(height: int, **more: Any) -> dict[str, Any]:
    """Return the layout of a figure, with room on top where something stands there.

    What all figures share is in :data:`TEMPLATE`.
    """
    top = 30 if more.get("showlegend") or "annotations" in more else 10
    return {
        "height": height,
        "margin": {"l": 8, "r": 8, "t": top, "b": 8, "pad": 2},
        "showlegend": False,
        "xaxis": {"showgrid": False},
        "yaxis": {},
        **more,
    }


def line(x: Any, y: Any, name: str, colour: str = "accent", **more: Any) -> dict[str, Any]:
    """Return a line."""
    style = {"color": LIGHT[colour], "width": 1.4, **more.pop("line", {})}
    drawn = {"type": "scatter", "mode": "lines", "x": x, "y": y, "name": name, "line": style}
    return {**drawn, "showlegend": False, **more}


def dots(
    x: Any, y: Any, name: str, colour: str = "accent", *, size: int = 8, symbol: str = "circle",
    stroke: float = 0.0, **more: Any,
) -> dict[str, Any]:  # fmt: skip
    """Return points; ``stroke`` is the width of the lines of open symbols and crosses."""
    marker: dict[str, Any] = {"symbol": symbol, "size": size, "color": LIGHT[colour]}
    marker |= {"line": {"width": stroke, "color": LIGHT[colour]}} if stroke else {}
    drawn = {"type": "scatter", "mode": "markers", "x": x, "y": y, "name": name}
    return {**drawn, "marker": marker, "showlegend": False, **more}


def chart(
    key: str, title: str, caption: str, traces: Iterable[Any], layout: Mapping[str, Any],
    size: str = "full",
) -> Chart:  # fmt: skip
    """Return a chart as high as its layout says."""
    figure = {"data": list(traces), "layout": layout}
    return Chart(key, title, caption, figure, layout["height"], size)


def stack(
    titles: Sequence[str], weights: Sequence[float], gap: float, span: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Return the layout of panels under each other that share their x axis, each with a title.

    Parameters
    ----------
    titles : sequence of str
        Of the panels, from the top.
    weights : sequence of float
        Their heights relative to each other.
    gap : float
        Between two of them, for the title of the lower one, as a fraction of the figure.
    span : tuple of int, optional
        The first and last time of the x axis, in ns, over which all panels are read at once.
    """
    room = 1.0 - gap * (len(titles) - 1)
    layout: dict[str, Any] = {}
    top, notes = 1.0, []
    for place, (title, weight) in enumerate(zip(titles, weights, strict=True), start=1):
        low = max(top - room * weight / sum(weights), 0.0)
        number = "" if place == 1 else str(place)
        layout[f"yaxis{number}"] = {"domain": [round(low, 6), round(top, 6)], "nticks": 5}
        notes.append(heading(title, round(top, 6)))
        top = low - gap
    last = "y" if len(titles) == 1 else f"y{len(titles)}"
    bottom: dict[str, Any] = {"showgrid": False, "anchor": last, "type": "date"}
    bottom["hoverformat"] = "%Y-%m-%d %H:%M"
    if span is not None:
        bottom["range"] = [str(np.datetime64(t, "ns").astype("datetime64[s]")) for t in span]
        layout |= {"hovermode": "x unified", "hoversubplots": "axis"}
    return {**layout, "xaxis": bottom, "annotations": notes}


def heading(text: str, y: float) -> dict[str, Any]:
    """Return the title of a panel, above its left end."""
    return {
        "text": text,
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "y": y,
        "yref": "paper",
        "yanchor": "bottom",
        "yshift": 3,
        "align": "left",
        "showarrow": False,
        "font": {"size": 12, "color": LIGHT["muted"]},
    }


def key(text: str, colour: str) -> str:
    """Return a word in the colour of the line it names."""
    return f'<span style="color:{LIGHT[colour]}">\N{EM DASH} {text}</span>'


def stamps(nanoseconds: IntArray) -> Any:
    """Return times as Plotly draws them."""
    return nanoseconds.view("datetime64[ns]").astype("datetime64[ms]")


def scale_log(*series: FloatArray) -> dict[str, Any]:
    """Return an axis on a log scale with ticks at 1, 2 and 5 times powers of ten, or at those."""
    known = np.concatenate([values[np.isfinite(values)] for values in series])
    low, high = float(np.min(known)), float(np.max(known))
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [lead * 10.0**power for power in powers for lead in (1.0, 2.0, 5.0)]
    ticks = [each for each in ticks if 0.7 * low <= each <= 1.4 * high]
    if len(ticks) > MOST_TICKS:
        ticks = [each for each in ticks if math.log10(each).is_integer()]
    if len(ticks) < 2:
        return {"type": "log"}
    return {
        "type": "log",
        "tickvals": ticks,
        "ticktext": [format_magnitude(each) for each in ticks],
    }


# ------------------------------------------------------------------------------------------ JSON


def encode(value: Any) -> Any:
    """Return a figure as data for JSON: arrays of numbers as bytes, which is short and exact."""
    if isinstance(value, Mapping):
        return {str(name): encode(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return encode_array(value)
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, str):
        return escape_directions(value)
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def encode_array(values: np.ndarray) -> Any:
    """Return an array: times as f8 of ms, numbers as f4 (seven figures), other things as a list."""
    if values.dtype.kind == "M":
        return pack(values.astype("datetime64[ms]").astype(np.int64).astype("<f8"), "f8")
    if values.dtype.kind not in "fiu":
        return [encode(item) for item in values.tolist()]
    shape = {} if values.ndim == 1 else {"shape": ", ".join(map(str, values.shape))}
    with np.errstate(over="ignore"):
        return {**pack(values.astype("<f4"), "f4"), **shape}


def pack(values: np.ndarray, kind: str) -> dict[str, str]:
    """Return numbers as Plotly reads them from bytes."""
    return {"dtype": kind, "bdata": base64.b64encode(values.tobytes()).decode("ascii")}


def write_script_data(value: Any) -> str:
    """Return JSON that may stand inside a script element: no text in it can end the element."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
