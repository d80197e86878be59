"""A map in a notebook: a figure to touch, and a table that a page made of the notebook shows."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]

from backtest import core

SHADE = "31,95,174"
"""Red, green and blue of the highest value; the lowest has no color."""
PALEST = 0.04
DEEPEST = 0.6
"""Opacity of the lowest and of the highest value: black and white text can be read on both."""


class MapFigure(go.Figure):  # type: ignore[misc]
    """A heat map of Plotly that also has a table, for where no script of Plotly runs."""

    def _ipython_display_(self) -> None:
        """Show both: a notebook chooses the figure, a page made of it the table."""
        from IPython.display import display  # noqa: PLC0415 - only in a notebook

        display(self._repr_mimebundle_(), raw=True)  # type: ignore[no-untyped-call]

    def _repr_mimebundle_(self, *given: Any, **named: Any) -> dict[str, Any]:
        bundle = dict(super()._repr_mimebundle_(*given, **named))
        bundle["text/html"] = write_map(self)
        bundle.setdefault("text/plain", "a heat map")
        return bundle


def write_map(figure: Any) -> str:
    """Return the cells of a heat map as a table whose colors are those of its values."""
    if not figure.data:
        return ""
    heat = figure.data[0]
    values = np.asarray(heat.z, dtype=np.float64)
    known = values[np.isfinite(values)]
    if not len(known):
        return ""

    # A color is the place of a value between the lowest and the highest. Equal values have the
    # lowest color.
    lowest = float(known.min())
    span = float(known.max()) - lowest
    if span == 0.0:
        span = 1.0

    # The axis of a chart goes up, a table down.
    rows = []
    for label, row in zip(reversed(heat.y), values[::-1], strict=True):
        cells = "".join(write_cell(float(value), (value - lowest) / span) for value in row)
        rows.append(f"<tr><th>{html.escape(str(label))}</th>{cells}</tr>")

    foot = "".join(f"<th>{html.escape(str(label))}</th>" for label in heat.x)
    across = html.escape(str(figure.layout.xaxis.title.text))
    along = html.escape(str(figure.layout.yaxis.title.text))
    title = html.escape(str(figure.layout.title.text))
    return (
        f"<table><caption>{title}: {along} down, {across} across</caption>"
        f"{''.join(rows)}<tr><th></th>{foot}</tr></table>"
    )


def write_cell(value: float, share: float) -> str:
    if not np.isfinite(value):
        return "<td></td>"
    opacity = PALEST + (DEEPEST - PALEST) * share
    style = f"background: rgba({SHADE},{opacity:.2f})"
    return f'<td style="{style}">{core.format_number(value)}</td>'
