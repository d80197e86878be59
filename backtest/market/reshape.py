"""A part of a market, groups of its bars, and a market of longer bars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from backtest.core import FloatArray, IntArray, ParameterError, format_duration
from backtest.core.units import DAY
from backtest.market.tables import PRICES

NEIGHBORS = 5
"""Groups at either end that show when a group usually begins and ends."""

MARK_PRICES = tuple(f"mark_{name}" for name in PRICES)
_MONDAY = 4 * DAY  # 1970-01-05; the epoch was a Thursday


def grid_origin(length: int) -> int:
    """Return a time at which bars of ``length`` ns begin: weeks begin on Monday."""
    return _MONDAY if length % (7 * DAY) == 0 else 0


class BarGroups(NamedTuple):
    """Complete groups of bars, from bar ``first`` up to bar ``stop`` of the market.

    ``time`` holds the opens of the longer bars (UTC ns) and ``starts`` the first bar of each group,
    counted from ``first``, both of shape (n_groups,). ``size`` is the number of bars in each group,
    0 if it varies.
    """

    time: IntArray
    starts: IntArray
    first: int = 0
    stop: int = 0
    size: int = 0

    def total(self, values: FloatArray) -> FloatArray:
        if self.size:  # NumPy rounds the two sums differently
            return np.asarray(values.reshape(-1, self.size).sum(axis=1))
        return np.asarray(np.add.reduceat(values, self.starts))

    def last(self, values: FloatArray) -> FloatArray:
        return np.asarray(values[np.append(self.starts[1:], len(values)) - 1])

    def ohlc(
        self, opens: FloatArray, highs: FloatArray, lows: FloatArray, closes: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return first open, highest high, lowest low, last close, each of shape (n_groups,)."""
        return (
            opens[self.starts],
            np.maximum.reduceat(highs, self.starts),
            np.minimum.reduceat(lows, self.starts),
            self.last(closes),
        )


def group_bars(time: IntArray, interval: int, length: int, *, sessions: bool) -> BarGroups:
    """Return the groups of bars that open in the same UTC-aligned stretch of ``length`` ns.

    ``time`` holds the opens, UTC ns. The first and the last stretch are complete if bars reach to
    their ends, in a market with ``sessions`` if they begin and end as usual for the five beside
    them.
    """
    origin, size = grid_origin(length), length // interval
    since, given, wanted = time - origin, format_duration(interval), format_duration(length)
    if size == 0 or (not sessions and length % interval):
        rule = f"longer than {given}" if sessions else f"a multiple of {given}"
        raise ParameterError(f"bars must become {rule}, got {wanted}")
    if not sessions and int(since[0]) % interval:
        raise ParameterError(
            f"bars must open on multiples of {given} in UTC to be resampled to {wanted}"
        )
    stretch = since // length
    over = np.count_nonzero((since + interval - 1) // length != stretch)
    if over:
        raise ParameterError(
            f"a bar must not reach from one {wanted} of UTC time into the next, {over} of "
            f"{since.size} do; stamp each session within its own day of UTC"
        )
    starts = np.flatnonzero(np.diff(stretch, prepend=stretch[0] - 1))
    edges = np.append(starts, len(time))
    offset = since - stretch * length
    is_late, is_early = offset[0] > 0, offset[-1] + interval < length
    if sessions:
        begins, ends, is_alone = offset[starts], offset[edges[1:] - 1], len(starts) < 2
        is_late = is_alone or begins[0] > np.median(begins[1 : 1 + NEIGHBORS])
        is_early = is_alone or ends[-1] < np.median(ends[-1 - NEIGHBORS : -1])
    edges = edges[int(is_late) : len(edges) - int(is_early)]
    if len(edges) < 2:
        bars = "bars" if sessions else f"{size} bars"
        raise ParameterError(
            f"at least one whole group of {bars} is needed, found none in {time.size} bars"
        )
    is_even = not sessions and bool((np.diff(edges) == size).all())
    first, opens = int(edges[0]), stretch[edges[:-1]] * length + origin
    return BarGroups(opens, edges[:-1] - first, first, int(edges[-1]), size if is_even else 0)


def slice_fields(
    market: Any, rows: slice, *, funding_from: int, end: int | None = None
) -> dict[str, Any]:
    """Return the fields of a market of some bars, at least one, and of the funding of their time.

    Settlements stamped from ``funding_from`` up to but not including ``end`` (UTC ns, by default
    the last close) are kept.
    """
    if end is None:
        end = int(market.time[rows][-1]) + market.interval
    low, high = np.searchsorted(market.funding_time, [funding_from, end])
    settled = slice(int(low), int(high))
    fields: dict[str, Any] = market.fields()
    for name, value in fields.items():
        if isinstance(value, np.ndarray):
            fields[name] = value[settled if name.startswith("funding_") else rows]
    fields["columns"] = {name: values[rows] for name, values in market.columns.items()}
    return fields


def resample_fields(market: Any, length: int, groups: BarGroups | None = None) -> dict[str, Any]:
    """Return the fields of a market of bars of ``length`` ns, aligned to UTC, of equal funding."""
    if groups is None:
        groups = group_bars(market.time, market.interval, length, sessions=market.sessions)
    lead = int(groups.time[0]) - market.interval // 4
    end = int(groups.time[-1]) + length
    fields = slice_fields(market, slice(groups.first, groups.stop), funding_from=lead, end=end)
    last = groups.ohlc(*(fields[name] for name in PRICES))
    mark = groups.ohlc(*(fields[name] for name in MARK_PRICES)) if market.has_mark else last
    note: Mapping[str, str] = {}
    before, after = groups.first, market.n_bars - groups.stop
    if before or after:
        text = f"{before} bars before the first whole group and {after} after the last dropped"
        note = {"resample": text}
    return fields | {
        **dict(zip(PRICES, last, strict=True)),
        **dict(zip(MARK_PRICES, mark, strict=True)),
        "interval": length,
        "decide": 0,
        "time": groups.time,
        "volume": groups.total(fields["volume"]),
        "columns": {name: groups.last(values) for name, values in fields["columns"].items()},
        "filled": {**market.filled, **note},
    }
