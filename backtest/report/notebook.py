"""HTML for notebooks: the head of a result with its equity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from backtest.base import (
    FloatArray,
    IntArray,
    Reportable,
    clip,
)
from backtest.report.charts import LIGHT, thin_rows
from backtest.report.page import Fact
from backtest.report.pictures import escape_text
from backtest.report.write import build_head

WIDTH, HEIGHT = 560, 90
COLUMNS = 4
"""Headline numbers in a row."""
DRAWN = ("run",)
LONGEST = 200
"""Longest title in characters."""


def write_cell(source: Reportable) -> str:
    if source._is_empty:
        return f"<div><b>{escape_text(repr(source))}</b></div>"
    page = build_head(source)
    chart = draw_equity_svg(source) if source.kind in DRAWN else ""
    name = "result" if source.kind in DRAWN else page.kind.replace("-", "_").replace(" ", "_")
    more = f'{name}.report("report.html") writes the whole report.'
    return (
        f"<div><b>{escape_text(clip(page.title, LONGEST))}</b><br>"
        f"<small>{escape_text(' '.join([f'{page.subtitle}.', *page.notices]))}</small>"
        f"{chart}{write_facts_table(page.facts)}"
        f"<small>{escape_text(f'{page.summary} {more}')}</small></div>"
    )


def write_facts_table(facts: Sequence[Fact]) -> str:
    cells = [
        f'<td style="text-align:left;padding:2px 18px 2px 0;vertical-align:top">'
        f'<span style="opacity:.7">{label}</span><br><b>{value}</b><br>'
        f'<small style="opacity:.7">{note}</small></td>'
        for label, value, note in (map(escape_text, fact) for fact in facts)
    ]
    lines = (cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS))
    rows = "".join(f"<tr>{''.join(line)}</tr>" for line in lines)
    return f"<table>{rows}</table>"


def draw_equity_svg(result: Any) -> str:
    unit = result.of_account("unit") / result.tally.first_unit
    return draw_line_svg(result.span.closes, unit, "unit value")


def draw_line_svg(time: IntArray, values: FloatArray, title: str) -> str:
    rows = thin_rows(time, values, buckets=280)
    x = rescale(time[rows].astype(np.float64), 0.0, float(WIDTH))
    y = rescale(values[rows], HEIGHT - 2.0, 2.0)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{title} over time" style="display:block;max-width:100%">'
        f'<polyline fill="none" stroke="{LIGHT["accent"]}" stroke-width="1.2" points="{points}"/>'
        "</svg>"
    )


def rescale(values: FloatArray, low: float, high: float) -> FloatArray:
    least, span = float(np.min(values)), float(np.ptp(values))
    if span == 0.0:
        return np.full(len(values), (low + high) / 2.0)
    return low + (values - least) / span * (high - low)
