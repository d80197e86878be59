"""Small curves of results for the list of a store, and what two of them are compared by."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from backtest import core

POINTS = 160
"""Points of a curve at most: each keeps the last value of its stretch of time."""
WIDTH = 84
HEIGHT = 24
"""Of the drawing in the list, in pixels."""
MILLISECOND = 1_000_000
"""In ns."""


class Curve(NamedTuple):
    """The unit value of a run: its start and its end in ms, and values at even steps of time."""

    start: int
    end: int
    values: tuple[float, ...]

    @property
    def points(self) -> str:
        """The line of the drawing, as an SVG has it."""
        values = np.array(self.values)
        low = float(values.min())
        high = float(values.max())

        # A flat curve lies in the middle.
        across = np.linspace(1.0, WIDTH - 1.0, len(values))
        down = np.full(len(values), HEIGHT / 2.0)
        if high > low:
            down = np.interp(values, (low, high), (HEIGHT - 2.0, 2.0))
        points = [f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True)]
        return " ".join(points)


def find_curve(run: Any) -> Curve | None:
    """Return the curve of a run, None of any other result."""
    if run.kind != "run":
        return None

    # The last close up to each time; before the first close an account has what it began with.
    unit: core.FloatArray = run.of_account("unit") / run.tally.first_unit
    closes = run.span.closes
    times = np.linspace(float(run.span.start), float(closes[-1]), POINTS)
    rows = np.searchsorted(closes, times, side="right") - 1
    values = np.where(rows >= 0, unit[np.maximum(rows, 0)], 1.0)
    return Curve(
        start=int(run.span.start) // MILLISECOND,
        end=int(closes[-1]) // MILLISECOND,
        values=tuple(float(f"{value:.5g}") for value in values),
    )
