"""Find the rows in which two columns differ by more than the last digits of sums."""

from __future__ import annotations

import numpy as np

from backtest.base.units import FloatArray, IntArray

RELATIVE = 1e-9
"""Two values are the same if they differ by this share or less.

Sums by FFT or BLAS have other last bits in arrays of other lengths, some 1e-16 of the sum. One more
bar changes a mean or a maximum of some hundred bars by a million times more.
"""
ABSOLUTE = 1e-12
"""The same for values near 0, as a share of the median size of the column's values."""
SINGLE = 1e-4
"""Both for a column in single precision: each layer of a model rounds by some 1e-7."""


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


def fits_single(column: FloatArray) -> bool:
    """Return whether float32 holds every value of a column exactly."""
    with np.errstate(over="ignore"):
        return np.array_equal(column.astype(np.float32), column, equal_nan=True)


def is_single(column: FloatArray) -> bool:
    """Return whether a column was computed in single precision: it fits, and is not of integers."""
    finite = column[np.isfinite(column)]
    return fits_single(finite) and bool((finite != np.trunc(finite)).any())
