"""Find differences of columns, and tell rounding errors from lookahead by noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from backtest.base import BoolArray, FloatArray, IntArray
from backtest.market import Market, Markets, as_given, as_markets, detach

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
    with np.errstate(over="ignore"):
        return np.array_equal(column.astype(np.float32), column, equal_nan=True)


def is_single(column: FloatArray) -> bool:
    finite = column[np.isfinite(column)]
    return fits_single(finite) and bool((finite != np.trunc(finite)).any())


NOISE = 1e-14
"""Relative noise in the numbers of the market that shows the effect of rounding on a column."""
SINGLE_NOISE = 1e-7
"""The same for a column whose values fit single precision, in the half of the bars without the row.

Flags and signs fit single precision too. Near the row, noise of this size would change the sign of
small moves, and excuse columns that look ahead at them.
"""
OTHER_DIGITS = 1e-9
"""Relative noise after which a sum that is 0 has a sign."""
TRIES = 12
"""How often noise is added: not every noise changes a sign."""
FEW_ROWS = 3
"""Up to this number of rows are tried twice as often."""
LEAST_TRIES = 4
TRIED_BARS = 200_000
"""Bars that are observed with noise; a longer part is tried ``LEAST_TRIES`` times."""
FAR = 1e3
"""A difference of so many times what noise changes, in all rows, is not tried further."""
MANY = 32
"""Bars in which a column of many values has at least half as many different ones."""

UNSTABLE = 0.05
"""Share of a column's rows; if noise moves more of them, rounding excuses none."""
MOVED = 1e-6
"""A row is moved by noise if it changes by more than this share of the interquartile range."""
SINGLE_MOVED = 1e-2
"""The same for a column that fits single precision, under its larger noise."""

Column = Callable[[Any], FloatArray | None]


def leave_out_spread(
    column: Column,
    market: Market | Markets,
    rows: IntArray,
    own: FloatArray,
    other: FloatArray,
    reach: float = 4.0,
) -> IntArray:
    rng = np.random.default_rng(0)
    noises = list_noises(own)
    n_tries = count_tries(len(rows), market.n_bars)
    values = np.full((len(noises), n_tries + 1, len(rows)), np.nan)
    values[:, 0] = own[rows]
    left = rows
    for k in range(1, n_tries + 1):
        for noise, (size, half) in enumerate(noises):
            seen = column(add_noise(market, rng, size, half))
            if seen is None:
                return rows
            values[noise, k] = seen[rows]
        tries = values[:, : k + 1]
        if len(noises) == 2:  # the half without the row
            tries = np.where(rows >= market.n_bars // 2, tries[:1], tries[1:])
        left = np.extract(~is_within_spread(tries[0], other[rows], reach), rows)
        if not len(left) or (k == LEAST_TRIES and is_far(own, tries[0], other[rows])):
            break  # more tries only explain more
    return left


def leave_out_ties(
    column: Column, market: Market | Markets, shorter: Market | Markets, rows: IntArray
) -> IntArray:
    rng = np.random.default_rng(0)
    n_tries = count_tries(len(rows), market.n_bars)
    n_unlike = np.zeros(len(rows), dtype=np.int64)
    for _ in range(n_tries):
        noisy = add_noise(market, rng, OTHER_DIGITS, None)
        one, other = column(detach(noisy.slice(0, shorter.n_bars))), column(noisy)
        if one is None or other is None:
            return rows
        n_unlike += np.isin(rows, find_differences(one, other[: len(one)]))
        if np.all(n_unlike > n_tries // TRIES):
            break
    return np.extract(n_unlike > n_tries // TRIES, rows)


def find_unstable_share(column: Column, market: Market | Markets, own: FloatArray) -> float:
    rng, most = np.random.default_rng(0), 0
    known = max(1, int(np.count_nonzero(~np.isnan(own))))
    noises = [(NOISE, MOVED)] + [(SINGLE_NOISE, SINGLE_MOVED)] * fits_single(own)
    for size, moved in noises:
        for _ in range(2):
            seen = column(add_noise(market, rng, size, None))
            if seen is not None:
                most = max(most, count_moved(own, seen, moved))
    return most / known if most > FEW_ROWS else 0.0


def count_moved(own: FloatArray, seen: FloatArray, share: float) -> int:
    finite = own[np.isfinite(own)]
    scale = float(np.subtract(*np.quantile(finite, [0.75, 0.25]))) if len(finite) else 0.0
    scale = scale or (float(np.ptp(finite)) if len(finite) else 0.0)
    is_same = (own == seen) | (np.isnan(own) & np.isnan(seen))
    with np.errstate(all="ignore"):
        is_same |= np.abs(own - seen) <= share * scale
    return int(np.count_nonzero(~is_same))


def count_tries(n_rows: int, n_bars: int) -> int:
    wanted = TRIES if n_rows > FEW_ROWS else 2 * TRIES
    return min(wanted, max(LEAST_TRIES, TRIED_BARS // n_bars))


def list_noises(column: FloatArray) -> list[tuple[float, int | None]]:
    if fits_single(column):
        return [(SINGLE_NOISE, 0), (SINGLE_NOISE, 1)]
    return [(NOISE, None)]


def is_within_spread(tries: FloatArray, other: FloatArray, reach: float) -> BoolArray:
    """Return by row whether values of shape (n_tries, n_rows) vary as much as they differ."""
    unknown = np.isnan(tries)
    with np.errstate(all="ignore"):
        spread = np.ptp(tries, axis=0)
        usual = np.median(spread[np.isfinite(spread)]) if np.isfinite(spread).any() else 0.0
        within: BoolArray = np.abs(tries[0] - other) <= reach * np.maximum(spread, usual)
    return within | (unknown.any(axis=0) & ~unknown.all(axis=0))


def is_far(column: FloatArray, tries: FloatArray, other: FloatArray) -> bool:
    if len(np.unique(column[np.isfinite(column)])) < max(MANY, len(column)) // 2:
        return False
    with np.errstate(all="ignore"):
        return bool((np.abs(tries[0] - other) > FAR * np.ptp(tries, axis=0)).all())


def add_noise(
    market: Market | Markets, rng: np.random.Generator, size: float, half: int | None
) -> Market | Markets:
    noise = 1.0 + size * rng.normal(size=market.n_bars)
    if half is not None:
        is_half = np.arange(market.n_bars) // max(1, market.n_bars // 2) == half
        noise = np.where(is_half, noise, 1.0)
    markets = as_markets(market)
    changed = {
        name: _multiply(markets[name], noise[first:stop])
        for name, (first, stop) in zip(markets.names, markets.spans, strict=True)
    }
    rounded: Market | Markets = as_given(markets.with_markets(changed), market)
    return rounded


def _multiply(market: Market, noise: FloatArray) -> Market:
    names = ("open", "high", "low", "close", "volume")
    marks = ("mark_open", "mark_high", "mark_low", "mark_close")
    changed: dict[str, Any] = {name: getattr(market, name) * noise for name in (*names, *marks)}
    changed["columns"] = {name: values * noise for name, values in market.columns.items()}
    return dataclasses.replace(market, **changed)
