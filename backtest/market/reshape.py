"""A part of a market, groups of its bars, and a market of longer bars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from backtest.base import FloatArray, IntArray, ParameterError, format_duration
from backtest.market.tables.bar_checks import grid_origin
from backtest.market.tables.market_data import MarketData
from backtest.market.tables.settlements import DIVIDEND
from backtest.market.tables.timed_table import PRICES

NEIGHBORS = 5
"""Groups at either end that show when a group usually begins and ends."""


class BarGroups(NamedTuple):
    """Complete groups of bars, from bar ``first`` up to bar ``stop`` of the market.

    ``time`` holds the opens of the longer bars (UTC ns) and ``starts`` the first bar of each group,
    counted from ``first``, both of shape (n_groups,). ``note`` describes the bars that are dropped
    at either end. ``size`` is the number of bars in each group, 0 if it varies.
    """

    time: IntArray
    starts: IntArray
    first: int = 0
    stop: int = 0
    note: str = ""
    size: int = 0

    def total(self, values: FloatArray) -> FloatArray:
        """Return the sum of each group, of shape (n_groups,)."""
        if self.size:  # NumPy rounds the two sums differently
            return np.asarray(values.reshape(-1, self.size).sum(axis=1))
        return np.asarray(np.add.reduceat(values, self.starts))

    def last(self, values: FloatArray) -> FloatArray:
        """Return the last value of each group, of shape (n_groups,)."""
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


def group_bars(time: IntArray, interval: int, length: int) -> BarGroups:
    """Return the groups of bars that fill a UTC-aligned stretch of ``length`` ns.

    ``time`` holds the opens, UTC ns, ``interval`` apart.
    """
    if length % interval:
        raise ParameterError(
            f"bars must become a multiple of {format_duration(interval)}, got "
            f"{format_duration(length)}"
        )
    origin = grid_origin(length)
    if (int(time[0]) - origin) % interval:
        raise ParameterError(
            f"bars must open on multiples of {format_duration(interval)} in UTC to be resampled to "
            f"{format_duration(length)}"
        )
    size = length // interval
    first = int((origin - int(time[0])) % length) // interval
    count = max(time.size - first, 0) // size
    if count == 0:
        raise _none_complete(f"{size} bars", time)
    stop = first + count * size
    note = _describe_dropped(first, time.size - stop)
    starts = np.arange(0, count * size, size)
    return BarGroups(time[first:stop:size], starts, first, stop, note, size)


def group_sessions(time: IntArray, interval: int, length: int) -> BarGroups:
    """Return the groups of bars that open in the same UTC-aligned stretch of ``length`` ns."""
    since = time - grid_origin(length)
    stretch = since // length
    _check_fit(since, stretch, interval, length)
    starts = np.flatnonzero(np.diff(stretch, prepend=stretch[0] - 1))
    offset = since - stretch * length
    begins, ends = offset[starts], offset[np.append(starts[1:], len(time)) - 1]
    low = int(len(starts) < 2 or begins[0] > np.median(begins[1 : 1 + NEIGHBORS]))
    high = len(starts) - int(len(starts) < 2 or ends[-1] < np.median(ends[-1 - NEIGHBORS : -1]))
    if low >= high:
        raise _none_complete("bars", time)
    first, stop = int(starts[low]), int(np.append(starts, len(time))[high])
    kept = starts[low:high]
    opens = stretch[kept] * length + grid_origin(length)
    return BarGroups(opens, kept - first, first, stop, _describe_dropped(first, time.size - stop))


def group_known(time: IntArray, interval: int, length: int) -> BarGroups:
    if len(time) < 2 or int(np.diff(time).max()) == interval:
        return group_bars(time, interval, length)
    since = time - grid_origin(length)
    stretch = since // length
    _check_fit(since, stretch, interval, length)
    starts = np.flatnonzero(np.diff(stretch, prepend=stretch[0] - 1))
    low = int(since[0] % length != 0)
    high = len(starts) - int((int(since[-1]) + interval) % length != 0)
    if low >= high:
        raise _none_complete("bars", time)
    first, stop = int(starts[low]), int(np.append(starts, len(time))[high])
    opens = stretch[starts[low:high]] * length + grid_origin(length)
    note = _describe_dropped(first, time.size - stop)
    return BarGroups(opens, starts[low:high] - first, first, stop, note)


def _describe_dropped(before: int, after: int) -> str:
    text = f"{before} bars before the first whole group and {after} after the last dropped"
    return text if before or after else ""


def _none_complete(bars: str, time: IntArray) -> ParameterError:
    return ParameterError(
        f"at least one whole group of {bars} is needed, found none in {time.size} bars"
    )


def _check_fit(since: IntArray, stretch: IntArray, interval: int, length: int) -> None:
    if length < interval:
        raise ParameterError(
            f"bars must become longer than {format_duration(interval)}, got "
            f"{format_duration(length)}"
        )
    over = np.count_nonzero((since + interval - 1) // length != stretch)
    if over:
        raise ParameterError(
            f"a bar must not reach from one {format_duration(length)} of UTC time into the next, "
            f"{over} of {since.size} do; stamp each session within its own day of UTC"
        )


MARK_PRICES = tuple(f"mark_{name}" for name in PRICES)


def slice_fields(
    data: MarketData, rows: slice, *, funding_from: int, end: int | None = None
) -> dict[str, Any]:
    """Return the fields of a market of some bars, at least one, and of the funding of their time.

    Settlements stamped from ``funding_from`` up to but not including ``end`` (UTC ns, by default
    the last close) are kept.
    """
    if end is None:
        end = int(data.time[rows][-1]) + data.interval
    low, high = np.searchsorted(data.funding_time, [funding_from, end])
    settled = slice(int(low), int(high))
    fields = data.fields()
    for name, value in fields.items():
        if isinstance(value, np.ndarray):
            fields[name] = value[settled if name.startswith("funding_") else rows]
    fields["columns"] = {name: values[rows] for name, values in data.columns.items()}
    return fields


def resample_data(data: MarketData, length: int, groups: BarGroups | None = None) -> MarketData:
    """Return a market of bars of ``length`` ns, aligned to UTC, with the same funding."""
    if groups is None:
        find = group_sessions if data.sessions else group_bars
        groups = find(data.time, data.interval, length)
    lead = int(groups.time[0]) - data.interval // 4
    end = int(groups.time[-1]) + length
    fields = slice_fields(data, slice(groups.first, groups.stop), funding_from=lead, end=end)
    last = groups.ohlc(*(fields[name] for name in PRICES))
    mark = groups.ohlc(*(fields[name] for name in MARK_PRICES)) if data.has_mark else last
    note = _describe_resampling(groups, fields["columns"])
    fields |= {
        **dict(zip(PRICES, last, strict=True)),
        **dict(zip(MARK_PRICES, mark, strict=True)),
        "interval": length,
        "decide": 0,
        "time": groups.time,
        "volume": groups.total(fields["volume"]),
        "columns": {
            name: _combine(groups, name, values) for name, values in fields["columns"].items()
        },
        "filled": {**data.filled, **note},
    }
    return MarketData(**fields)


def _describe_resampling(groups: BarGroups, columns: Mapping[str, FloatArray]) -> dict[str, str]:
    notes = [groups.note] if groups.note else []
    if DIVIDEND in columns and split_dividends(groups, columns[DIVIDEND])[1][-1] > 0.0:
        notes.append("dividends inside the last bar dropped, as no open follows them")
    return {"resample": "; ".join(notes)} if notes else {}


def _combine(groups: BarGroups, name: str, values: FloatArray) -> FloatArray:
    if name != DIVIDEND:
        return groups.last(values)
    at_open, later = split_dividends(groups, values)
    due: FloatArray = at_open + np.append(0.0, later[:-1])
    return due


def split_dividends(groups: BarGroups, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    paid = np.nan_to_num(values)
    later = paid.copy()
    later[groups.starts] = 0.0
    return paid[groups.starts], groups.total(later)
