"""Which differences between columns are rounding: last digits, and what noise in them changes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from backtest.base.units import BoolArray, FloatArray, IntArray
from backtest.market.market import Market

RELATIVE = 1e-9
"""Two values are the same where they differ by this share or less.

Sums by FFT or BLAS have other last bits in arrays of other lengths, some 1e-16 of what is summed.
What one more bar adds to a mean or a maximum of some hundred bars is a million times more.
"""
ABSOLUTE = 1e-12
"""The same for values near 0, as a share of the median size of the column's values."""
SINGLE = 1e-4
"""Both for a column in single precision: each layer of a model rounds by some 1e-7."""
NOISE = 1e-14
"""By how much numbers of the market are changed to see what rounding does to a column.

A variance as a difference of sums loses more digits than ``RELATIVE`` allows for, and the sign of a
sum that is 0 is that of its rounding error. Such rows change as well when the market changes in its
last digits, and count for nothing. What looks ahead does not change by that.
"""
SINGLE_NOISE = 1e-7
"""The same for a column that fits single precision: less is lost in float32.

Yes or no, signs and classes fit as well, whatever they were computed in.
"""
TRIES = 12
"""How often that is done, to a part and to the longer one: a sign by rounding changes in some."""
FEW_ROWS = 3
"""So few rows are tried twice as often."""
CLEAR, SINGLE_CLEAR = 1e-4, 1e-2
"""A difference of this share of the median size, in a column of many values, is no rounding.

The second one is for columns in single precision.
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
    """Tell whether two columns of many values differ by far more than rounding.

    Fewer values than half of ``least`` are not many.
    """
    sizes = np.unique(np.abs(one[np.isfinite(one)]))
    if len(sizes) < max(least, len(one)) // 2:
        return False
    share = SINGLE_CLEAR if is_single(one) else CLEAR
    far = np.abs(one[rows] - other[rows]) > share * np.median(sizes)
    return bool(far.any())


def leave_out_spread(rows: IntArray, tries: FloatArray, other: FloatArray, n_bars: int) -> IntArray:
    """Return the rows whose difference is more than they change by themselves.

    Parameters
    ----------
    rows : IntArray of shape (n_rows,)
        Where a column of a part of ``n_bars`` bars differs from a longer one.
    tries : FloatArray of shape (2, n_tries, n_rows)
        Its values there, first as they are, then with noise in either half of the part.
    other : FloatArray of shape (n_rows,)
        The values of the longer one.
    """
    own = np.where(rows >= n_bars // 2, tries[0], tries[1])  # of noise in the half they are not in
    unknown = np.isnan(own)
    with np.errstate(all="ignore"):
        spread = np.max(own, axis=0) - np.min(own, axis=0)
        is_rounding: BoolArray = np.abs(own[0] - other) <= 4.0 * spread
    is_rounding |= unknown.any(axis=0) & ~unknown.all(axis=0)
    return np.extract(~is_rounding, rows)


def fits_single(column: FloatArray) -> bool:
    """Tell whether float32 holds every value of a column exactly."""
    with np.errstate(over="ignore"):
        return np.array_equal(column.astype(np.float32), column, equal_nan=True)


def is_single(column: FloatArray) -> bool:
    """Tell whether a column was computed in single precision: numbers that fit it, not whole."""
    finite = column[np.isfinite(column)]
    return fits_single(finite) and bool((finite != np.trunc(finite)).any())


def add_noise(market: Market, rng: np.random.Generator, half: int, size: float = NOISE) -> Market:
    """Change the last digits of all numbers in one half of a market.

    What is computed of the bars of the other half stays the same, but for the rounding of sums that
    run over all bars, as those of an FFT do.
    """
    rows = np.arange(market.n_bars) // max(1, market.n_bars // 2) == half
    noise = 1.0 + size * rng.normal(size=market.n_bars) * rows
    names = ("open", "high", "low", "close", "volume")
    marks = ("mark_open", "mark_high", "mark_low", "mark_close")
    changed: dict[str, Any] = {name: getattr(market, name) * noise for name in (*names, *marks)}
    changed["columns"] = {name: values * noise for name, values in market.columns.items()}
    return dataclasses.replace(market, **changed)
