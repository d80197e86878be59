"""Pictures: the failure line of two prices as an SVG, and the spans of a walk."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd

from backtest.base import IntArray, ShownChart, escape_directions, format_percent
from backtest.report.charts import LIGHT, TEMPLATE, build_layout, draw_declared, draw_line
from backtest.venue import FailureMap

SIZE, EDGE, TOP = 440, 64, 40
"""Width and height of the map, and the room left and below, and above, in pixels."""
TICKS = 5


def draw_failure_svg(found: FailureMap) -> str:
    wide, high = SIZE + EDGE + 24, SIZE + EDGE + TOP
    title = f"Where the book fails, by moves of {found.x} and {found.y}"
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" '
        f'viewBox="0 0 {wide} {high}" font-family="sans-serif" font-size="12">',
        f"<title>{escape_text(title)}</title>",
        f'<rect width="{wide}" height="{high}" fill="#ffffff"/>',
        f'<text x="{EDGE}" y="24" font-size="14">{escape_text(title)}</text>',
        f'<rect x="{EDGE}" y="{TOP}" width="{SIZE}" height="{SIZE}" fill="#f4d6d2"/>',
        f'<clipPath id="map"><rect x="{EDGE}" y="{TOP}" width="{SIZE}" '
        f'height="{SIZE}"/></clipPath>',
        '<g clip-path="url(#map)">',
        *draw_region(found),
        "</g>",
        *draw_axes(found),
        f'<circle cx="{place_x(found, 0.0):.1f}" cy="{place_y(found, 0.0):.1f}" r="4" '
        f'fill="{LIGHT["accent"]}"/>',
        *name_failure(found),
        "</svg>\n",
    ])  # fmt: skip


def escape_text(text: str) -> str:
    return escape(escape_directions(text))


def place_x(found: FailureMap, move: float) -> float:
    return EDGE + (move + found.span) / (2.0 * found.span) * SIZE


def place_y(found: FailureMap, move: float) -> float:
    return TOP + SIZE - (move + found.span) / (2.0 * found.span) * SIZE


def draw_region(found: FailureMap) -> list[str]:
    known = np.flatnonzero(~np.isnan(found.low)).astype(np.int64)
    if not known.size:
        return []
    pieces = np.split(known, np.flatnonzero(np.diff(known) > 1) + 1)
    return [draw_piece(found, piece) for piece in pieces]


def draw_piece(found: FailureMap, rows: IntArray) -> str:
    lower = [(found.moves[k], found.low[k]) for k in rows]
    upper = [(found.moves[k], found.high[k]) for k in rows[::-1]]
    points = " ".join(
        f"{place_x(found, float(a)):.1f},{place_y(found, float(b)):.1f}" for a, b in lower + upper
    )
    return f'<polygon points="{points}" fill="#ffffff" stroke="#8c2f22" stroke-width="1.2"/>'


def name_failure(found: FailureMap) -> list[str]:
    rows, columns = np.nonzero(found.distance <= 0.0)
    if not rows.size:
        return []
    x = place_x(found, float(found.moves[columns].mean()))
    y = place_y(found, float(found.moves[rows].mean()))
    return [f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="middle" fill="#8c2f22">liquidated</text>']


def draw_axes(found: FailureMap) -> list[str]:
    bottom, middle = TOP + SIZE, EDGE + SIZE / 2
    parts = [
        f'<rect x="{EDGE}" y="{TOP}" width="{SIZE}" height="{SIZE}" fill="none" stroke="#777"/>'
    ]
    for move in np.linspace(-found.span, found.span, TICKS).tolist():
        text = format_percent(move, 0, is_signed=True)
        x, y = place_x(found, move), place_y(found, move)
        parts += [
            f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}" stroke="#0001"/>',
            f'<line x1="{EDGE}" y1="{y:.1f}" x2="{EDGE + SIZE}" y2="{y:.1f}" stroke="#0001"/>',
            f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{text}</text>',
            f'<text x="{EDGE - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>',
        ]
    centre = TOP + SIZE / 2
    return [
        *parts,
        f'<text x="{middle}" y="{bottom + 42}" text-anchor="middle">{escape_text(found.x)}</text>',
        f'<text x="14" y="{centre}" text-anchor="middle" '
        f'transform="rotate(-90 14 {centre})">{escape_text(found.y)}</text>',
    ]


MOST_ROWS = 60
"""Most folds or splits in a picture: more cannot be told apart."""


def draw_spans(folds: pd.DataFrame) -> Any:
    import plotly.graph_objects as go  # type: ignore[import-untyped] # noqa: PLC0415 - a second

    bars = list_walk_bars(folds) if "train_start" in folds else list_split_bars(folds)
    rows = dict.fromkeys(bar[0] for bar in bars)
    kept = set(list(rows)[:MOST_ROWS])
    traces = [
        draw_line([start, end], [row, row], word, color, line={"width": 8},
                  hovertemplate=f"{word} %{{x}}<extra>{row}</extra>")
        for row, word, color, start, end in bars
        if row in kept
    ]  # fmt: skip
    layout = build_layout(80 + 16 * len(kept))
    layout["yaxis"] = {"autorange": "reversed", "type": "category", "showgrid": False}
    layout["xaxis"] = {"type": "date"}
    layout["plot_bgcolor"] = LIGHT["paper"]
    figure = go.Figure({"data": traces, "layout": layout})
    return figure.update_layout(template={"layout": TEMPLATE})


Bar = tuple[str, str, str, Any, Any]


def list_walk_bars(folds: pd.DataFrame) -> list[Bar]:
    return [
        (f"fold {fold}", word, color, row[f"{word}_start"], row[f"{word}_end"])
        for fold, row in zip(folds.index, folds.to_dict("records"), strict=True)
        for word, color in (("train", "neutral"), ("test", "accent"))
    ]


def list_split_bars(folds: pd.DataFrame) -> list[Bar]:
    return [
        (
            f"split {row['split']}",
            "test" if row["is_test"] else "train",
            "accent" if row["is_test"] else "neutral",
            row["start"],
            row["end"],
        )
        for row in folds.to_dict("records")
    ]


def draw_chart(shown: ShownChart) -> Any:
    import plotly.graph_objects as go  # noqa: PLC0415 - a second

    chart = draw_declared(shown)
    figure = go.Figure({} if chart is None else dict(chart.figure))
    return figure.update_layout(template={"layout": TEMPLATE})
