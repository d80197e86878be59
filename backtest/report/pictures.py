"""Pictures: the spans of a walk, and declared charts."""

from __future__ import annotations

from html import escape
from typing import Any

from backtest.base import ShownChart, escape_directions
from backtest.report.charts import TEMPLATE, draw_declared


def escape_text(text: str) -> str:
    return escape(escape_directions(text))


def draw_run(result: Any) -> Any:
    from backtest.report import run_parts  # noqa: PLC0415 - only when drawn

    return draw_chart(run_parts.draw_story(result))


def draw_surface(surface: Any) -> Any:
    from backtest.report import surface_parts  # noqa: PLC0415 - only when drawn

    return draw_chart(surface_parts.draw_map(surface))


def draw_chart(shown: ShownChart) -> Any:
    import plotly.graph_objects as go  # type: ignore[import-untyped] # noqa: PLC0415 - a second

    chart = draw_declared(shown)
    figure = go.Figure({} if chart is None else dict(chart.figure))
    return figure.update_layout(template={"layout": TEMPLATE})
