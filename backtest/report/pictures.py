"""Pictures: the spans of a walk, and declared charts."""

from __future__ import annotations

from html import escape
from typing import Any

import pandas as pd

from backtest.base import ShownChart, escape_directions
from backtest.report.charts import LIGHT, TEMPLATE, build_layout, draw_declared, draw_line


def escape_text(text: str) -> str:
    return escape(escape_directions(text))


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


def draw_run(result: Any) -> Any:
    from backtest.report import run_parts  # noqa: PLC0415 - only when drawn

    return draw_chart(run_parts.draw_story(result))


def draw_surface(surface: Any) -> Any:
    from backtest.report import surface_parts  # noqa: PLC0415 - only when drawn

    return draw_chart(surface_parts.draw_map(surface))


def draw_chart(shown: ShownChart) -> Any:
    import plotly.graph_objects as go  # noqa: PLC0415 - a second

    chart = draw_declared(shown)
    figure = go.Figure({} if chart is None else dict(chart.figure))
    return figure.update_layout(template={"layout": TEMPLATE})
