"""What a rule of market data reads, and what it finds: a table of a role, and rows of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from backtest.core import BoolArray, FloatArray, IntArray
from backtest.market import tables
from backtest.market.tables import (
    Span,
    TimedTable,
    spacing,
)


@dataclass(eq=False)
class Subject:
    """A table of a role, cut to its bars, and ``whole``, the file that it was cut from."""

    role: str
    table: TimedTable
    whole: TimedTable
    interval: int | None
    sessions: bool
    bars: TimedTable | None

    @property
    def time(self) -> IntArray:
        """The times of the table in order, UTC ns."""
        return self.table.ordered.time

    def get(self, name: str, unknown: float = math.nan) -> FloatArray:
        """Return a column in order of time, or ``unknown`` in each row."""
        return self.table.ordered.columns.get(name, np.full(self.time.size, unknown))

    @property
    def span(self) -> Span:
        """The time that must be covered: that of the bars, or the table's own."""
        time = self.whole.time
        if self.bars is not None:
            time = self.bars.time
        return Span(int(time[0]), int(time[-1]) + (self.interval or 1))

    @cached_property
    def once(self) -> IntArray:
        """The stamps of the whole file without those that repeat the one before."""
        time = self.whole.time
        is_new = np.ones(time.size, dtype=np.bool_)
        is_new[1:] = np.diff(time) >= tables.JITTER
        return time[is_new]

    @cached_property
    def is_marked(self) -> BoolArray:
        """Which bars have a mark bar."""
        if self.bars is None:
            return np.empty(0, np.bool_)
        # Both rise: np.isin would sort them, half a minute of ten years of minutes.
        row = np.searchsorted(self.time, self.bars.time)
        next_time = np.append(self.time, -1)[row]
        return np.asarray(next_time == self.bars.time)

    @cached_property
    def marked(self) -> tuple[TimedTable, TimedTable]:
        """The bars that have a mark bar, and these, row by row."""
        bars = self.table.rows(slice(0))
        if self.bars is not None:
            bars = self.bars.rows(self.is_marked)
        mark = self.table.ordered
        return bars, mark.rows(np.searchsorted(mark.time, bars.time))

    @cached_property
    def misaligned(self) -> IntArray:
        """The times of mark bars that do not open with the bars of the market.

        One time, the first, stands for all if the mark bars open with bars but are longer.
        """
        time = self.time
        if self.bars is None or not self.interval or not time.size:
            return np.empty(0, np.int64)

        # Sessions open at any time, others a whole number of bars after the first one.
        if self.sessions:
            is_off = ~np.isin(time, self.bars.time)
        else:
            since_first = time - self.bars.time[0]
            is_off = since_first % self.interval != 0
        if is_off.any():
            return np.asarray(time[is_off])

        # The spacing of fewer than four stamps may be a gap.
        apart = spacing(time)
        usual = spacing(self.bars.time) or self.interval
        if apart is not None and apart > usual and time.size > 3:
            return time[:1]
        return time[:0]

    @cached_property
    def covered(self) -> Span | None:
        """The time that mark prices or funding cover; None if the marks fit no bars."""
        span = self.span
        if self.role == "funding":
            start, end = tables.coverage(self.once, span.start, span.end)
            return span.within(Span(start, end))
        if self.misaligned.size or not self.interval:
            return None

        # Where no bar has a mark, the marks are of another time: their own.
        time = self.whole.time
        if self.is_marked.any() and self.bars is not None:
            time = self.bars.time[self.is_marked]
        first = int(time[0])
        last = int(time[-1])
        return Span(first, last + self.interval)


class Hit(NamedTuple):
    """Rows that break a rule; ``missing``: how many rows lack at each stamp."""

    time: IntArray
    text: str = ""
    missing: IntArray | None = None
    place: str = ""
    cure: str = ""
    places: tuple[str, ...] = ()


class Rule(NamedTuple):
    """A rule of data; its cure may hold ``{span}``, the bars that have all of mark and funding.

    It is not an error once its ``repair`` is asked for.
    """

    name: str
    roles: tuple[str, ...]
    level: str
    find: Callable[[Subject], list[Hit]]
    cure: str = ""
    repair: str = ""


def find_rows(
    time: IntArray,
    is_bad: BoolArray,
    text: str = "",
    got: Callable[[int], object] = str,
    places: tuple[str, ...] = (),
) -> list[Hit]:
    """Return the bad rows, if any; ``text`` may hold ``{n}``, ``{of}`` and ``{got}``, the first."""
    rows = np.flatnonzero(is_bad)
    if not rows.size:
        return []
    found = text.format(n=rows.size, of=is_bad.size, got=got(int(rows[0])))
    return [Hit(time[rows], found, places=places)]
