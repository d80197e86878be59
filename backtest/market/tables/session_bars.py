"""Longer bars of a market with sessions, which may lack bars by nature."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backtest.base.errors import ParameterError
from backtest.base.units import FloatArray, IntArray, format_duration
from backtest.market.tables.bar_checks import grid_origin

NEIGHBORS = 5
"""Groups at either end that show when a group usually begins and ends."""


class SessionGroups(NamedTuple):
    """Groups of the bars that open in one stretch of UTC time each.

    Parameters
    ----------
    time : IntArray of shape (n_groups,)
        Where the stretches begin, UTC ns.
    starts : IntArray of shape (n_groups,)
        The first bar of each group, counted from bar ``first`` of the market.
    first, stop : int
        The bars of all groups: those before and after are left out.
    note : str
        What was left out; empty where nothing was.
    """

    time: IntArray
    starts: IntArray
    first: int
    stop: int
    note: str

    def total(self, values: FloatArray) -> FloatArray:
        """Return the sums of values of shape (stop - first,), of shape (n_groups,)."""
        sums: FloatArray = np.add.reduceat(values, self.starts)
        return sums

    def last(self, values: FloatArray) -> FloatArray:
        """Return the last value of each group, of shape (n_groups,)."""
        found: FloatArray = values[np.append(self.starts[1:], len(values)) - 1]
        return found

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


def group_sessions(time: IntArray, interval: int, length: int) -> SessionGroups:
    """Return the groups of bars that open in the same UTC-aligned stretch of ``length`` ns.

    Parameters
    ----------
    time : IntArray of shape (n_bars,)
        Opens, UTC ns.
    interval, length : int
        Of the bars given and wanted, ns.

    Raises
    ------
    ParameterError
        If the bars are longer than the stretches, reach from one into the next, or fill none.
    """
    here = f"resample({format_duration(length)!r})"
    since = time - grid_origin(length)
    stretch = since // length
    _check_fit(since, stretch, interval, length, here)
    starts = np.flatnonzero(np.diff(stretch, prepend=stretch[0] - 1))
    offset = since - stretch * length
    begins, ends = offset[starts], offset[np.append(starts[1:], len(time)) - 1]
    low = int(len(starts) < 2 or begins[0] > np.median(begins[1 : 1 + NEIGHBORS]))
    high = len(starts) - int(len(starts) < 2 or ends[-1] < np.median(ends[-1 - NEIGHBORS : -1]))
    if low >= high:
        raise ParameterError(
            f"at least one whole group of bars is needed, found none in {time.size} bars",
            where=here,
            cure="choose shorter bars, or load more",
        )
    first, stop = int(starts[low]), int(np.append(starts, len(time))[high])
    note = (
        f"{first} bars before the first whole group and {time.size - stop} after the last dropped"
    )
    kept = starts[low:high]
    return SessionGroups(
        stretch[kept] * length + grid_origin(length),
        kept - first,
        first,
        stop,
        note if stop - first < time.size else "",
    )


def _check_fit(since: IntArray, stretch: IntArray, interval: int, length: int, here: str) -> None:
    if length < interval:
        raise ParameterError(
            f"bars must become longer than {format_duration(interval)}, "
            f"was {format_duration(length)}",
            where=here,
            cure="load finer bars",
        )
    over = np.count_nonzero((since + interval - 1) // length != stretch)
    if over:
        raise ParameterError(
            f"a bar must not reach from one {format_duration(length)} of UTC time into the next, "
            f"{over} of {since.size} do",
            where=here,
            cure="load the longer bars, or stamp each session within its own day of UTC",
        )
