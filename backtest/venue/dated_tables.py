"""Dated margin tables: the days for which each is in force, and the bars that it applies to."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from backtest.base import IntArray, Value, VenueError, format_time, to_nanoseconds
from backtest.venue import preset_files
from backtest.venue.brackets import Bracket, complete_table

__all__ = [
    "Earlier",
    "InForce",
    "InUse",
    "LinkedTables",
    "link_tables",
    "list_in_use",
    "unlink_tables",
]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
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

    preset: str
    since: str
    until: str | None = None

    def _check_rules(self) -> None:
        for name in ("since", "until"):
            day = getattr(self, name)
            if day is not None:
                self._set_fields(**{name: preset_files.read_day(day, where=f"InForce.{name}")})

    def describe_misfit(self, start: int, end: int) -> str:
        """Describe the part of a span, in ns, outside of these days; empty if there is none.

        Examples
        --------
        >>> InForce(preset="x:Y", since="1970-01-03").describe_misfit(0, 10**15)
        'the margin table of x:Y is of 1970-01-03, but the run uses it from 1970-01-01 on'
        """
        parts = []
        if start < to_nanoseconds(self.since, where="since"):
            parts.append(f"but the run uses it from {format_time(start)[:10]} on")
        if self.until is not None and end > to_nanoseconds(self.until, where="until"):
            parts.append(f"it was replaced on {self.until}, before the run ends")
        table = f"the margin table of {self.preset} is of {self.since}, "
        return table + " and ".join(parts) if parts else ""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Earlier(Value):
    """A margin table that was replaced by a later one.

    Parameters
    ----------
    until : str
        The day, or time, in UTC from which the next table applies: to bars that open then or later.
    brackets : sequence of Bracket
        The margin table.
    """

    until: str
    brackets: Sequence[Bracket]

    def _check_rules(self) -> None:
        to_nanoseconds(self.until, where="Earlier.until")
        self._set_fields(brackets=complete_table(self.brackets, 0.0))

    @property
    def end(self) -> int:
        """``until`` in ns."""
        return to_nanoseconds(self.until, where="Earlier.until")


class LinkedTables(tuple[Earlier, ...]):
    next: tuple[Bracket, ...]


class InUse(NamedTuple):
    since: str | None
    brackets: Sequence[Bracket]
    first: int
    stop: int


def link_tables(earlier: Sequence[Earlier], brackets: tuple[Bracket, ...]) -> LinkedTables:
    is_list = isinstance(earlier, Sequence) and all(isinstance(each, Earlier) for each in earlier)
    if not is_list or any(b.end <= a.end for a, b in itertools.pairwise(earlier)):
        raise VenueError(
            f"earlier must be tables with increasing end dates, got {earlier!r}",
            where="Venue.earlier",
            cure='give earlier=[Earlier(until="2021-03-18", brackets=[...])], oldest first',
        )
    if isinstance(earlier, LinkedTables) and earlier and earlier.next != brackets:
        raise VenueError(
            f"brackets must be replaced together with the {len(earlier)} earlier margin tables "
            "that apply before them",
            where="Venue.brackets",
            cure="write venue.override(brackets=...) to use them at all times; add "
            "earlier=venue.earlier to use them after those tables",
        )
    linked = LinkedTables(earlier)
    linked.next = brackets
    return linked


def unlink_tables(content: Mapping[str, object]) -> dict[str, object]:
    return {
        name: tuple(value) if isinstance(value, LinkedTables) else value
        for name, value in content.items()
    }


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
