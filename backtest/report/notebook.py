"""HTML that a notebook shows of a result: the head of its page, and the equity of a run."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from backtest.base.text_layout import clip, escape_directions
from backtest.base.units import FloatArray
from backtest.engine.result import Result
from backtest.report.page.figures import LIGHT
from backtest.report.page.page import Facts
from backtest.report.page.thinning import thin
from backtest.report.write import build_kind
from backtest.tune import Study

if TYPE_CHECKING:
    from backtest.store.find import Saved

WIDTH, HEIGHT = 560, 90
COLUMNS = 4
"""Headline numbers in a row."""
LONGEST = 200
"""Letters of a name."""


def write_cell(source: Saved) -> str:
    """Return a result as a piece of HTML that inherits the colors of the notebook."""
    if isinstance(source, Study) and not source.trials:
        return f"<div><b>{safe(repr(source))}</b></div>"
    page = build_kind(source)
    chart = draw_line(source) if isinstance(source, Result) else ""
    name = "result" if isinstance(source, Result) else page.kind
    more = f'{name}.report("report.html") writes the whole report.'
    return (
        f"<div><b>{safe(clip(page.title, LONGEST))}</b><br>"
        f"<small>{safe(' '.join([f'{page.subtitle}.', *page.notices]))}</small>"
        f"{chart}{lay_out(page.facts)}<small>{safe(f'{page.summary} {more}')}</small></div>"
    )


def safe(text: str) -> str:
    """Return a text for HTML: escaped, marks that change the direction of writing written out."""
    return escape(escape_directions(text))


def lay_out(facts: Facts) -> str:
    """Return headline numbers as a table, four to a row."""
    cells = [
        f'<td style="text-align:left;padding:2px 18px 2px 0;vertical-align:top">'
        f'<span style="opacity:.7">{safe(fact.label)}</span><br><b>{safe(fact.value)}</b><br>'
        f'<small style="opacity:.7">{safe(fact.note)}</small></td>'
        for fact in facts.facts
    ]
    lines = (cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS))
    rows = "".join(f"<tr>{''.join(line)}</tr>" for line in lines)
    return f"<table>{rows}</table>"


def draw_line(result: Result) -> str:
    """Return the unit value over time as an SVG line that keeps its extremes."""
    unit = result.record[6] / result.tally.first_unit
    rows = thin(result.span.closes, unit, buckets=280)
    x = scale(result.span.closes[rows].astype(np.float64), 0.0, float(WIDTH))
    y = scale(unit[rows], HEIGHT - 2.0, 2.0)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="unit value over time" style="display:block;max-width:100%">'
        f'<polyline fill="none" stroke="{LIGHT["accent"]}" stroke-width="1.2" points="{points}"/>'
        "</svg>"
    )


def scale(values: FloatArray, low: float, high: float) -> FloatArray:
    """Return values stretched to go from one number to another; the middle where all are equal."""
    least, span = float(np.min(values)), float(np.ptp(values))
    if span == 0.0:
        return np.full(len(values), (low + high) / 2.0)
    return low + (values - least) / span * (high - low)
