"""Dated margin tables: the days for which each is in force, and the bars that it applies to."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np

from backtest.base import (
    AS_TUPLE,
    Declaration,
    Faults,
    IntArray,
    Text,
    Time,
    Value,
    declared,
    format_time,
    read_time,
    to_nanoseconds,
)
from backtest.venue import preset_files
from backtest.venue.brackets import Bracket, complete_table, find_table_faults


class Day(Declaration):
    kind: ClassVar[type] = str

    def read(self, value: Any) -> str:
        read_time(str(value) if type(value) is dt.date else value)
        return preset_files.read_day(value)


@declared(kw_only=True)
class InForce(Value):
    """The preset and the days that the brackets of a venue come from.

    Parameters
    ----------
    preset : str
        The venue and the symbol, ``"binance-usdm:BTCUSDT"``.
    since : str
        The day on which the oldest table came into force or, if no source says that, was read.
    until : str or None
        The day of the preset's next table; None if the newest is included.
    """

    preset: Annotated[str, Text()]
    since: Annotated[str, Day()]
    until: Annotated[str | None, Day()] = None

    def describe_misfit(self, start: int, end: int) -> str:
        """Describe the part of a span, in ns, outside of these days; empty if there is none.

        Examples
        --------
        >>> InForce(preset="x:Y", since="1970-01-03").describe_misfit(0, 10**15)
        'the margin table of x:Y is of 1970-01-03, but the run uses it from 1970-01-01 on'
        """
        parts = []
        if start < to_nanoseconds(self.since):
            parts.append(f"but the run uses it from {format_time(start)[:10]} on")
        if self.until is not None and end > to_nanoseconds(self.until):
            parts.append(f"it was replaced on {self.until}, before the run ends")
        table = f"the margin table of {self.preset} is of {self.since}, "
        return table + " and ".join(parts) if parts else ""


@declared(kw_only=True)
class Earlier(Value):
    """A margin table that was replaced by a later one.

    Parameters
    ----------
    until : str
        The day, or time, in UTC from which the next table applies: to bars that open then or later.
    brackets : sequence of Bracket
        The margin table.
    """

    until: Annotated[str, Time()]
    brackets: Annotated[Sequence[Bracket], AS_TUPLE]

    def faults(self) -> Faults:
        """Yield what keeps the brackets from forming a table."""
        yield from find_table_faults(self.brackets, "brackets")

    def _settle(self) -> None:
        self._set_fields(brackets=complete_table(self.brackets))

    @property
    def end(self) -> int:
        """``until`` in ns."""
        return to_nanoseconds(self.until)


class InUse(NamedTuple):
    since: str | None
    brackets: Sequence[Bracket]
    first: int
    stop: int


def list_in_use(
    tables: Sequence[Sequence[Bracket]],
    days: Sequence[str | None],
    ends: Sequence[int],
    time: IntArray,
) -> list[InUse]:
    """Return the tables that apply to at least one of the bars that open at ``time``.

    ``tables`` and ``days``, from which each applies, are in order from the oldest; ``ends`` are the
    times (ns) at which all but the last end.
    """
    bars = [0, *np.searchsorted(time, np.array(ends, dtype=np.int64)).tolist(), len(time)]
    found = (
        InUse(day, table, first, stop)
        for day, table, (first, stop) in zip(days, tables, itertools.pairwise(bars), strict=True)
    )
    return [each for each in found if each.first < each.stop]
