"""Tell differences between columns that are rounding errors from those that are not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from backtest.base.units import BoolArray, FloatArray, IntArray
from backtest.market import Market, Markets

RELATIVE = 1e-9
"""Two values are the same if they differ by this share or less.

Sums by FFT or BLAS have other last bits in arrays of other lengths, some 1e-16 of the sum. One more
bar changes a mean or a maximum of some hundred bars by a million times more.
"""
ABSOLUTE = 1e-12
"""The same for values near 0, as a share of the median size of the column's values."""
SINGLE = 1e-4
"""Both for a column in single precision: each layer of a model rounds by some 1e-7."""
NOISE = 1e-14
"""Relative noise on the numbers of the market that shows the effect of rounding on a column.

A variance as a difference of sums loses more digits than ``RELATIVE`` allows for, and the sign of a
sum that is 0 is that of its rounding error. Such rows also change when the market changes in its
last digits, and are ignored. A row that looks ahead does not change by that.
"""
SINGLE_NOISE = 1e-7
"""The same for a column whose values fit single precision; flags and signs do as well."""
TRIES = 12
"""How often noise is added to a part and to the longer one: not every noise changes a sign."""
FEW_ROWS = 3
"""Up to this number of rows are tried twice as often."""
CLEAR, SINGLE_CLEAR = 1e-4, 1e-2
"""A larger share of the median size, in a column of many values, is never rounding.

The second number is for columns in single precision.
"""


def find_differences(one: FloatArray, other: FloatArray) -> IntArray:
    """Return the rows in which two columns differ by more than rounding.

    Notes
    -----
    Values are the same where |x - y| <= 1e-9 max(|x|, |y|), or 1e-12 of the median size of the
    different values of the column; 1e-4 of either in single precision. NaN is NaN, and infinity
    is itself.
    """
    unlike = ~((one == other) | (np.isnan(one) & np.isnan(other)))
    rows = np.flatnonzero(unlike)
    if len(rows) == 0:
        return rows
    x, y = one[rows], other[rows]
    sizes = np.unique(np.abs(one[np.isfinite(one)]))
    scale = float(np.median(sizes)) if len(sizes) else 0.0
    with np.errstate(all="ignore"):
        relative, absolute = (SINGLE, SINGLE) if is_single(one) else (RELATIVE, ABSOLUTE)
        allowed = np.maximum(relative * np.maximum(np.abs(x), np.abs(y)), absolute * scale)
        is_same = (np.abs(x - y) <= allowed) & np.isfinite(x) & np.isfinite(y)
    return rows[~is_same]


def is_clear(one: FloatArray, other: FloatArray, rows: IntArray, least: int) -> bool:
    """Return whether two columns of many values differ by far more than rounding.

    Columns with fewer different values than half of ``least`` never do.
    """
    sizes = np.unique(np.abs(one[np.isfinite(one)]))
    if len(sizes) < max(least, len(one)) // 2:
        return False
    share = SINGLE_CLEAR if is_single(one) else CLEAR
    far = np.abs(one[rows] - other[rows]) > share * np.median(sizes)
    return bool(far.any())


def leave_out_rounding(
    market: Market | Markets,
    column: FloatArray,
    rows: IntArray,
    other: FloatArray,
    observe: Callable[[Market | Markets], FloatArray | None],
) -> IntArray:
    """Return the rows whose difference from a longer part is more than rounding explains.

    ``column`` holds the values in the part ``market``, ``other`` those of ``rows`` in the longer
    one. ``observe`` returns the column of a changed part, None where it is not known; all rows stay
    then.
    """
    rng = np.random.default_rng(0)
    size = SINGLE_NOISE if fits_single(column) else NOISE
    values = np.full((2, 2 * TRIES + 1, len(rows)), np.nan)
    values[:, 0] = column[rows]
    left = rows
    for k in range(TRIES if len(rows) > FEW_ROWS else 2 * TRIES):
        for half in (0, 1):
            seen = observe(add_noise(market, rng, half, size))
            if seen is None:
                return rows
            values[half, k + 1] = seen[rows]
        left = leave_out_spread(rows, values[:, : k + 2], other, market.n_bars)
        if not len(left):
            break  # more tries only explain more
    return left


def leave_out_spread(rows: IntArray, tries: FloatArray, other: FloatArray, n_bars: int) -> IntArray:
    """Return the rows whose difference from a longer part is more than noise changes them.

    ``tries`` of shape (2, n_tries, n_rows) holds the values in a part of ``n_bars`` bars, first
    without noise, then with noise in either half; ``other`` holds the values in the longer part.
    """
    own = np.where(rows >= n_bars // 2, tries[0], tries[1])  # noise in the other half
    unknown = np.isnan(own)
    with np.errstate(all="ignore"):
        spread = np.max(own, axis=0) - np.min(own, axis=0)
        is_rounding: BoolArray = np.abs(own[0] - other) <= 4.0 * spread
    is_rounding |= unknown.any(axis=0) & ~unknown.all(axis=0)
    return np.extract(~is_rounding, rows)


def fits_single(column: FloatArray) -> bool:
    """Return whether float32 holds every value of a column exactly."""
    with np.errstate(over="ignore"):
        return np.array_equal(column.astype(np.float32), column, equal_nan=True)


def is_single(column: FloatArray) -> bool:
    """Return whether a column was computed in single precision: it fits, and is not of integers."""
    finite = column[np.isfinite(column)]
    return fits_single(finite) and bool((finite != np.trunc(finite)).any())


def add_noise(
    market: Market | Markets, rng: np.random.Generator, half: int, size: float = NOISE
) -> Market | Markets:
    """Change the last digits of all numbers in one half of a market or panel.

    Values computed from the other half stay the same, except for the rounding of sums over all
    bars, as in an FFT.
    """
    rows = np.arange(market.n_bars) // max(1, market.n_bars // 2) == half
    if isinstance(market, Market):
        return _multiply(market, 1.0 + size * rng.normal(size=market.n_bars) * rows)
    changed = {
        name: _multiply(market[name], 1.0 + size * rng.normal(size=stop - first) * rows[first:stop])
        for name, (first, stop) in zip(market.names, market.spans, strict=True)
    }
    return market.with_markets(changed)


def _multiply(market: Market, noise: FloatArray) -> Market:
    names = ("open", "high", "low", "close", "volume")
    marks = ("mark_open", "mark_high", "mark_low", "mark_close")
    changed: dict[str, Any] = {name: getattr(market, name) * noise for name in (*names, *marks)}
    changed["columns"] = {name: values * noise for name, values in market.columns.items()}
    return dataclasses.replace(market, **changed)
