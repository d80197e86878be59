"""Results in a notebook: headline numbers, of a run the equity too, without a script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.base.text_layout import clip, escape_directions
from backtest.base.units import FloatArray
from backtest.report.page.figures import LIGHT
from backtest.report.page.page import Facts
from backtest.report.page.thinning import thin
from backtest.report.run.run_page import headline, list_notices, tell

if TYPE_CHECKING:
    from backtest.compare import Comparison
    from backtest.engine.result import Result
    from backtest.sweep.sweep import Sweep
    from backtest.tune import Study

WIDTH, HEIGHT = 560, 90
A_LINE = 4
"""Headline numbers beside each other."""
LONGEST = 200
"""Letters of a name."""


def write_cell(result: Result) -> str:
    """Return a result as a piece of HTML that inherits the colours of the notebook."""
    return frame_cell(
        str(result.manifest["policy"]["text"]),
        tell_data(result.manifest["data"], list_notices(result)),
        draw_line(result) + lay_out(headline(result)),
        f'{tell(result)} result.plot() draws it, result.report("report.html") tells all.',
    )


def write_study_cell(study: Study) -> str:
    """Return a study as a piece of HTML: the set it chose, and how much of it is luck."""
    from backtest.report.sets import study_page as page  # noqa: PLC0415 - only of studies
    from backtest.report.sets.explored import explore_study  # noqa: PLC0415 - as above

    name = f"{study.facts['policy']['name']}: {study.trials:,} sets searched for "
    place = tell_data(study.facts["data"], page.list_notices(study))
    if not study.trials:
        return frame_cell(name + " and ".join(study.objectives), place, "", "")
    explored = explore_study(study)
    return frame_cell(
        name + " and ".join(study.objectives),
        place,
        lay_out(page.headline(study, explored)),
        f'{page.tell(study, explored)} study.report("report.html") tells all.',
    )


def write_sweep_cell(sweep: Sweep) -> str:
    """Return a sweep as a piece of HTML: its best set by Sharpe, and what lies around it."""
    from backtest.report.sets import sweep_page as page  # noqa: PLC0415 - only of sweeps
    from backtest.report.sets.explored import explore_sweep  # noqa: PLC0415 - as above

    explored = explore_sweep(sweep, "sharpe")
    return frame_cell(
        f"{sweep.manifest['policy']['name']}: {len(sweep.table):,} sets",
        tell_data(sweep.manifest["data"], page.list_notices(sweep, explored)),
        lay_out(page.headline(explored)),
        f'{page.tell(explored)} sweep.report("report.html") tells all.',
    )


def write_comparison_cell(comparison: Comparison) -> str:
    """Return a comparison as a piece of HTML: its accounts, and what differs beyond noise."""
    from backtest.report import compare_page as page  # noqa: PLC0415 - only of comparisons

    return frame_cell(
        f"{comparison.baseline} against {', '.join(page.list_others(comparison))}",
        tell_data(comparison.manifest["data"], page.list_notices(comparison)),
        lay_out(page.headline(comparison)),
        f'{page.tell(comparison)} comparison.report("report.html") tells all.',
    )


def tell_data(data: Mapping[str, Any], notices: Sequence[str]) -> str:
    """Return on which data something was done, and what must be read before any number."""
    where = f"{data['instrument'] or 'unnamed instrument'}, {data['start']} to {data['end']} UTC."
    return " ".join([where, *notices])


def frame_cell(name: str, place: str, body: str, story: str) -> str:
    """Return a cell: texts around a body of HTML."""
    return (
        f"<div><b>{write(clip(name, LONGEST))}</b><br><small>{write(place)}</small>{body}"
        f"<small>{write(story)}</small></div>"
    )


def write(text: str) -> str:
    """Return a text for HTML: escaped, marks that change the direction of writing written out."""
    return escape(escape_directions(text))


def lay_out(facts: Facts) -> str:
    """Return headline numbers as a table, four to a line."""
    cells = [
        f'<td style="text-align:left;padding:2px 18px 2px 0;vertical-align:top">'
        f'<span style="opacity:.7">{write(fact.label)}</span><br><b>{write(fact.value)}</b><br>'
        f'<small style="opacity:.7">{write(fact.note)}</small></td>'
        for fact in facts.facts
    ]
    lines = (cells[start : start + A_LINE] for start in range(0, len(cells), A_LINE))
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
