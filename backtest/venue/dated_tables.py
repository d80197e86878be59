"""Margin tables that follow each other: which days each is of, and which bars it is for."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from backtest.base.errors import VenueError
from backtest.base.units import IntArray, format_time, to_nanoseconds
from backtest.base.values import Value
from backtest.venue import preset_files
from backtest.venue.brackets import Bracket, complete_table

__all__ = [
    "Earlier",
    "Followed",
    "InForce",
    "InUse",
    "link_tables",
    "list_in_use",
    "unlink_tables",
]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class InForce(Value):
    """Which margin tables of a preset the brackets are, and of which days.

    Parameters
    ----------
    preset : str
        The venue and the symbol, ``"binance-usdm:BTCUSDT"``.
    since : str
        The day the oldest of them came into force or, where no source says that, was read.
    until : str or None
        The day of the preset's next table; None: the newest is among them.
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
        """Return in one sentence where a span, in ns, leaves these days; empty where it does not.

        Examples
        --------
        >>> InForce(preset="x:Y", since="1970-01-03").describe_misfit(0, 10**15)
        'the margin table of x:Y is of 1970-01-03, the run begins on 1970-01-01 and uses it already'
        """
        parts = []
        if start < to_nanoseconds(self.since, where="since"):
            parts.append(f"the run begins on {format_time(start)[:10]} and uses it already")
        if self.until is not None and end > to_nanoseconds(self.until, where="until"):
            parts.append(f"it was followed by that of {self.until}, before the run ends")
        table = f"the margin table of {self.preset} is of {self.since}, "
        return table + " and ".join(parts) if parts else ""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Earlier(Value):
    """A margin table that was followed by another.

    Parameters
    ----------
    until : str
        The day, or time, in UTC from which the next one counts: for bars that open then or later.
    brackets : sequence of Bracket
        The table.
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


class Followed(tuple[Earlier, ...]):
    """Earlier tables with the one that follows the last of them: brackets of others are refused."""

    next: tuple[Bracket, ...]


class InUse(NamedTuple):
    """A margin table, and the bars it is for: ``first`` and those after it, before ``stop``.

    ``since`` is the day it came into force or was read; None where that is not known.
    """

    since: str | None
    brackets: Sequence[Bracket]
    first: int
    stop: int


def link_tables(earlier: Sequence[Earlier], brackets: tuple[Bracket, ...]) -> Followed:
    """Return earlier tables that know which one follows them.

    Raises
    ------
    VenueError
        If they are none, do not end one after the other, or are followed by other brackets than
        those they came with.
    """
    is_list = isinstance(earlier, Sequence) and all(isinstance(each, Earlier) for each in earlier)
    if not is_list or any(b.end <= a.end for a, b in itertools.pairwise(earlier)):
        raise VenueError(
            f"earlier must be tables that end one after the other, was {earlier!r}",
            where="Venue.earlier",
            cure='give earlier=[Earlier(until="2021-03-18", brackets=[...])], oldest first',
        )
    if isinstance(earlier, Followed) and earlier and earlier.next != brackets:
        raise VenueError(
            f"brackets must not be replaced alone where {len(earlier)} earlier margin tables count "
            "before them, or they would hold for a part of the time only",
            where="Venue.brackets",
            cure="write venue.override(brackets=...), for all times; with earlier=venue.earlier "
            "in it they follow those tables",
        )
    linked = Followed(earlier)
    linked.next = brackets
    return linked


def unlink_tables(content: Mapping[str, object]) -> dict[str, object]:
    """Return the same entries, earlier tables among them free to be followed by other brackets."""
    return {
        name: tuple(value) if isinstance(value, Followed) else value
        for name, value in content.items()
    }


def list_in_use(
    tables: Sequence[Sequence[Bracket]],
    days: Sequence[str | None],
    ends: Sequence[int],
    time: IntArray,
) -> list[InUse]:
    """Return the tables that are in force at one bar at least, of those that open at some times.

    Parameters
    ----------
    tables : sequence of tables
        The oldest first.
    days : sequence of str or None
        Since when each counts.
    ends : sequence of int
        Until when each but the last counts, in ns.
    time : IntArray of shape (n_bars,)
        Open times, in ns, rising.
    """
    bars = [0, *np.searchsorted(time, np.array(ends, dtype=np.int64)).tolist(), len(time)]
    found = (
        InUse(day, table, first, stop)
        for day, table, (first, stop) in zip(days, tables, itertools.pairwise(bars), strict=True)
    )
    return [each for each in found if each.first < each.stop]
