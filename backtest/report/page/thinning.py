"""Thin a long series for a chart, and keep every extreme that the eye would see."""

from __future__ import annotations

import numpy as np

from backtest.base import BoolArray, FloatArray, IntArray

BUCKETS = 1000
"""Width of a chart in pixels: more than four points to a pixel cannot be seen."""


def thin_rows(
    time: IntArray, *series: FloatArray, keep: IntArray | None = None, buckets: int = BUCKETS
) -> IntArray:
    """Return the rows that a chart of some series over time needs, in rising order.

    If there are more than four rows to each of the ``buckets``, which are equal parts of the time,
    each bucket keeps its first and last row, the lowest and highest value of every series, and
    both sides of where a gap (NaN) begins or ends. The rows in ``keep`` stay in any case.
    """
    n = len(time)
    if n <= 4 * buckets:
        return np.arange(n, dtype=np.int64)
    edges = np.linspace(float(time[0]), float(time[-1]), buckets + 1)[:-1]
    starts = np.unique(np.searchsorted(time.astype(np.float64), edges))
    ends = np.append(starts[1:], n) - 1
    rows = [starts, ends]
    for values in series:
        rows += [*find_extremes(values, starts), find_gap_ends(values, buckets)]
    if keep is not None:
        rows.append(keep)
    return np.unique(np.concatenate(rows)).astype(np.int64)


def find_extremes(values: FloatArray, starts: IntArray) -> tuple[IntArray, IntArray]:
    """Return the row of the lowest and of the highest value of each bucket that has one."""
    missing = np.isnan(values)
    low = np.where(missing, np.inf, values)
    high = np.where(missing, -np.inf, values)
    return (
        find_first_rows(
            low == repeat_per_row(np.minimum.reduceat(low, starts), starts, len(low)), starts
        ),
        find_first_rows(
            high == repeat_per_row(np.maximum.reduceat(high, starts), starts, len(high)), starts
        ),
    )


def repeat_per_row(values: FloatArray, starts: IntArray, n: int) -> FloatArray:
    """Return one value per bucket as one value per row."""
    return np.repeat(values, np.diff(np.append(starts, n)))


def find_first_rows(is_wanted: BoolArray, starts: IntArray) -> IntArray:
    """Return the first wanted row of each bucket that has one."""
    rows = np.flatnonzero(is_wanted)
    bucket = np.searchsorted(starts, rows, side="right")
    return rows[np.unique(bucket, return_index=True)[1]]


def find_gap_ends(values: FloatArray, buckets: int) -> IntArray:
    """Return the rows on both sides of each gap's ends; an even sample if there are very many."""
    steps = np.flatnonzero(np.diff(np.isnan(values)))
    if len(steps) > buckets:
        steps = steps[np.linspace(0, len(steps) - 1, buckets).astype(np.int64)]
    return np.concatenate([steps, steps + 1])
