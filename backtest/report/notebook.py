"""HTML of a result for notebooks: the head of its page, and the equity of a run."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from backtest.base import FloatArray, IntArray, Reportable, clip, escape_directions
from backtest.report.page.figures import LIGHT
from backtest.report.page.page import Fact
from backtest.report.page.thinning import thin_rows
from backtest.report.write import build_kind

WIDTH, HEIGHT = 560, 90
COLUMNS = 4
"""Headline numbers in a row."""
DRAWN = ("run",)
"""The kinds whose unit value is drawn."""
LONGEST = 200
"""Longest title in characters."""


def write_cell(source: Reportable) -> str:
    """Return a result as an HTML fragment that inherits the colors of the notebook."""
    if source._is_empty:
        return f"<div><b>{escape_text(repr(source))}</b></div>"
    page = build_kind(source)
    chart = draw_equity_svg(source) if source.kind in DRAWN else ""
    name = "result" if source.kind in DRAWN else page.kind.replace("-", "_").replace(" ", "_")
    more = f'{name}.report("report.html") writes the whole report.'
    return (
        f"<div><b>{escape_text(clip(page.title, LONGEST))}</b><br>"
        f"<small>{escape_text(' '.join([f'{page.subtitle}.', *page.notices]))}</small>"
        f"{chart}{write_facts_table(page.facts)}"
        f"<small>{escape_text(f'{page.summary} {more}')}</small></div>"
    )


def escape_text(text: str) -> str:
    """Escape a text for HTML, and the characters that set the direction of writing."""
    return escape(escape_directions(text))


def write_facts_table(facts: Sequence[Fact]) -> str:
    """Return headline numbers as an HTML table, four to a row."""
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
    """Return the unit value over time as an SVG line."""
    unit = result.of_account("unit") / result.tally.first_unit
    return draw_line_svg(result.span.closes, unit, "unit value")


def draw_line_svg(time: IntArray, values: FloatArray, title: str) -> str:
    """Return values over time as an SVG line that keeps its extremes."""
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
    """Scale values linearly to an interval; to its middle if they are all equal."""
    least, span = float(np.min(values)), float(np.ptp(values))
    if span == 0.0:
        return np.full(len(values), (low + high) / 2.0)
    return low + (values - least) / span * (high - low)
