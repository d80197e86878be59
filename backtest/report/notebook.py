"""A result in a notebook: headline numbers and the equity as a small drawing, without a script."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from backtest.report.figures import LIGHT
from backtest.report.run_page import headline, list_notices, tell
from backtest.report.thinning import thin
from backtest.units import FloatArray

if TYPE_CHECKING:
    from backtest.result import Result

WIDTH, HEIGHT = 560, 90


def write_cell(result: Result) -> str:
    """Return a result as a piece of HTML that inherits the colours of the notebook."""
    data = result.manifest["data"]
    where = f"{data['instrument'] or 'unnamed instrument'}, {data['start']} to {data['end']} UTC"
    notices = " ".join(escape(each) for each in list_notices(result))
    cells = "".join(
        f'<td style="text-align:left;padding:2px 18px 2px 0;vertical-align:top">'
        f'<span style="opacity:.7">{escape(fact.label)}</span><br><b>{escape(fact.value)}</b><br>'
        f'<small style="opacity:.7">{escape(fact.note)}</small></td>'
        for fact in headline(result).facts
    )
    rows = cells.split("</td>")
    first, second = ("</td>".join(part) + "</td>" for part in (rows[:4], rows[4:8]))
    return (
        f"<div><b>{escape(str(result.manifest['policy']['text']))}</b><br><small>{escape(where)}. "
        f"{notices}</small>{draw_line(result)}<table><tr>{first}</tr><tr>{second}</tr></table>"
        f"<small>{escape(tell(result))} result.plot() draws it, "
        "result.report(&quot;report.html&quot;) tells all.</small></div>"
    )


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
