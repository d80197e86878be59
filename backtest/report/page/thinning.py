"""Thin a long series for a chart and keep what the eye would see of it: every extreme."""

from __future__ import annotations

import numpy as np

from backtest.base.units import BoolArray, FloatArray, IntArray

BUCKETS = 1000
"""Columns of pixels that a chart is wide: more points than four to each cannot be seen."""


def thin(
    time: IntArray, *series: FloatArray, keep: IntArray | None = None, buckets: int = BUCKETS
) -> IntArray:
    """Return the rows that a chart of some series needs, rising.

    Parameters
    ----------
    time : array of shape (n,)
        Rising.
    *series : array of shape (n,)
        What is drawn over it; NaN is a gap.
    keep : array of int, optional
        Rows to keep whatever their values: those of events.
    buckets : int
        Equal parts of the time.

    Returns
    -------
    array of int
        All rows where there are at most four to a bucket. Else of each bucket the first, the last,
        the lowest and the highest of every series, where a gap begins or ends, and ``keep``.
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
        find_first(low == spread(np.minimum.reduceat(low, starts), starts, len(low)), starts),
        find_first(high == spread(np.maximum.reduceat(high, starts), starts, len(high)), starts),
    )


def spread(values: FloatArray, starts: IntArray, n: int) -> FloatArray:
    """Return one value per bucket as one value per row."""
    return np.repeat(values, np.diff(np.append(starts, n)))


def find_first(is_wanted: BoolArray, starts: IntArray) -> IntArray:
    """Return the first wanted row of each bucket that has one."""
    rows = np.flatnonzero(is_wanted)
    bucket = np.searchsorted(starts, rows, side="right")
    return rows[np.unique(bucket, return_index=True)[1]]


def find_gap_ends(values: FloatArray, buckets: int) -> IntArray:
    """Return the rows on both sides of where gaps begin and end; an even part of very many."""
    steps = np.flatnonzero(np.diff(np.isnan(values)))
    if len(steps) > buckets:
        steps = steps[np.linspace(0, len(steps) - 1, buckets).astype(np.int64)]
    return np.concatenate([steps, steps + 1])
