"""Part of a market, and longer bars of it: the same fields again, as :class:`Facts`."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np

from backtest.base.errors import ParameterError
from backtest.base.units import FloatArray, IntArray, format_duration
from backtest.market.tables.assemble import Facts
from backtest.market.tables.bar_checks import grid_origin
from backtest.market.tables.session_bars import group_sessions


def cut(facts: Facts, rows: slice, *, funding_from: int, end: int | None = None) -> Facts:
    """Return the bars of some rows, and the funding from a time up to their last close.

    Parameters
    ----------
    facts : Facts
        The fields of a market.
    rows : slice
        Of bars, step 1, at least one.
    funding_from : int
        The first stamp that is kept, UTC ns.
    end : int, optional
        The first stamp that is not kept, UTC ns, if not that of the last close.
    """
    if end is None:
        end = int(facts["time"][rows][-1]) + facts["interval"]
    low, high = np.searchsorted(facts["funding_time"], [funding_from, end])
    settled = slice(int(low), int(high))
    changed: dict[str, Any] = {
        name: value[settled if name.startswith("funding_") else rows]
        for name, value in facts.items()
        if isinstance(value, np.ndarray)
    }
    changed["columns"] = {name: values[rows] for name, values in facts["columns"].items()}
    return cast("Facts", {**facts, **changed})


def resample(facts: Facts, length: int) -> Facts:
    """Return bars of ``length`` ns, aligned to UTC; funding as it is.

    Raises
    ------
    ParameterError
        If length is no multiple of the interval, or groups cannot be known to be whole; in a market
        with sessions, if a bar reaches from one group into the next.
    """
    find = group_sessions if facts["sessions"] else _whole_groups
    groups = find(facts["time"], facts["interval"], length)
    rows = slice(groups.first, groups.stop)
    lead = int(groups.time[0]) - facts["interval"] // 4
    end = int(groups.time[-1]) + length
    whole = cut(facts, rows, funding_from=lead, end=end)
    last = groups.ohlc(whole["open"], whole["high"], whole["low"], whole["close"])
    mark = last
    if facts["has_mark"]:
        prices = (whole["mark_open"], whole["mark_high"], whole["mark_low"], whole["mark_close"])
        mark = groups.ohlc(*prices)
    return {
        **whole,
        "interval": length,
        "time": groups.time,
        "open": last[0],
        "high": last[1],
        "low": last[2],
        "close": last[3],
        "volume": groups.total(whole["volume"]),
        "mark_open": mark[0],
        "mark_high": mark[1],
        "mark_low": mark[2],
        "mark_close": mark[3],
        "columns": {name: groups.last(v) for name, v in whole["columns"].items()},
        "filled": {**facts["filled"], "resample": groups.note} if groups.note else facts["filled"],
    }


class Groups(NamedTuple):
    """Whole groups of ``size`` bars each, from row ``first`` up to row ``stop``."""

    time: IntArray
    first: int
    stop: int
    size: int
    note: str

    def split(self, values: FloatArray) -> FloatArray:
        """Return values of shape (n_groups * size,) as (n_groups, size)."""
        return values.reshape(-1, self.size)

    def total(self, values: FloatArray) -> FloatArray:
        """Return the sum of each group, of shape (n_groups,)."""
        sums: FloatArray = self.split(values).sum(axis=1)
        return sums

    def last(self, values: FloatArray) -> FloatArray:
        """Return the last value of each group, of shape (n_groups,)."""
        return self.split(values)[:, -1]

    def ohlc(
        self, opens: FloatArray, highs: FloatArray, lows: FloatArray, closes: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return first open, highest high, lowest low, last close, each of shape (n_groups,)."""
        return (
            self.split(opens)[:, 0],
            self.split(highs).max(axis=1),
            self.split(lows).min(axis=1),
            self.split(closes)[:, -1],
        )


def _whole_groups(time: IntArray, interval: int, length: int) -> Groups:
    """Return the groups of bars that fill a UTC-aligned stretch of ``length`` ns.

    Parameters
    ----------
    time : IntArray of shape (n_bars,)
        Opens, UTC ns, ``interval`` apart.
    interval, length : int
        Of the bars given and wanted, ns.

    Raises
    ------
    ParameterError
        If length is no multiple of interval, or groups cannot be known to be whole.
    """
    here = f"resample({format_duration(length)!r})"
    if length % interval:
        raise ParameterError(
            f"bars must become a multiple of {format_duration(interval)}, "
            f"was {format_duration(length)}",
            where=here,
            cure="load finer bars" if length < interval else "choose a multiple",
        )
    origin = grid_origin(length)
    if (int(time[0]) - origin) % interval:
        raise ParameterError(
            f"bars must open on multiples of {format_duration(interval)} in UTC to be resampled",
            where=here,
            cure="load the longer bars",
        )
    size = length // interval
    ahead = int((origin - int(time[0])) % length) // interval
    count = max(time.size - ahead, 0) // size
    if count == 0:
        raise ParameterError(
            f"at least one whole group of {size} bars is needed, found none in {time.size} bars",
            where=here,
            cure="choose shorter bars, or load more",
        )
    behind = time.size - ahead - count * size
    note = f"{ahead} bars before the first whole group and {behind} after the last dropped"
    stop = ahead + count * size
    return Groups(time[ahead:stop:size], ahead, stop, size, note if ahead or behind else "")
