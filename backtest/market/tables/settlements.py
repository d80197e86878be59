"""The cadence of funding settlements: which should be there, and which are missing.

Venues settle every 8, 4 or 1 hours and change it from time to time; stamps fall some milliseconds
off the boundary. A settlement is missing in a gap that is longer than both neighboring gaps by more
than half, or longer than 8.5 hours (or than the most common gap plus half an hour, if longer).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import numpy as np

from backtest.base import Argument, BoolArray, Either, IntArray, Phrase, format_duration
from backtest.base.units import HOUR, MINUTE, SECOND
from backtest.market.tables.bar_checks import spacing
from backtest.market.tables.defects import Defect, locate_rows
from backtest.market.tables.timed_table import TimedTable, distinct

JITTER = MINUTE
"""How far a stamp may be from the boundary that it belongs to, ns."""

LARGEST_RATE = 0.10
"""The largest rate of one settlement that is accepted, as a fraction; venues cap well below."""

_USUAL = 8 * HOUR
_Time = TypeVar("_Time", int, IntArray)


class SettlementGap(NamedTuple):
    """A gap between two settlements, at ``start`` and ``end`` (ns), in which others are missing.

    ``every`` is the time between the settlements around it, ns.
    """

    start: int
    end: int
    missing: int
    every: int


def stamp_defects(table: TimedTable) -> Iterator[Defect]:
    """Yield a defect if stamps are too close to each other to be two settlements."""
    time = distinct(table.time)
    near = np.flatnonzero(np.diff(time) < JITTER)
    if near.size:
        first, second = time[near[0]], time[near[0] + 1]
        pairs = "1 pair is" if near.size == 1 else f"{near.size} pairs are"
        yield Defect(
            "each settlement must occur once",
            f"{pairs} under {format_duration(JITTER)} apart, "
            f"the first by {(second - first) / 1e6:g} ms",
            locate_rows(table.name, time[near]),
            Phrase(
                "keep one stamp of each pair: they look like two sources of the same event; "
                "{} keeps the first",
                Either(
                    "bt.import_market(..., repair='settle-once')", Argument("repair", "settle-once")
                ),
            ),
        )


def settled_once(time: IntArray) -> IntArray:
    """Drop stamps that repeat the previous one within the jitter; ``time`` is sorted."""
    return time[np.diff(time, prepend=np.iinfo(np.int64).min // 2) >= JITTER]


def place_on_bars(
    stamps: IntArray, time: IntArray, interval: int, jitter: int = JITTER
) -> tuple[IntArray, BoolArray]:
    """Return the bar that each settlement belongs to, and whether it is paid at its open.

    A settlement belongs to the open within ``min(jitter, interval / 4)`` of it, on either side;
    otherwise to the bar that contains it, or, in a gap between sessions, to the next open.

    ``stamps`` are increasing, of shape (n_events,); ``time`` holds the opens of the bars, of shape
    (n_bars,); all times are in ns. Both results have shape (n_events,). The bar is -1 for a stamp
    before the first bar, and n_bars for one at the open after the last bar. What is paid at the
    open is paid by the position held before it.
    """
    width = min(jitter, interval // 4)
    bar = np.searchsorted(time, stamps + width, side="right") - 1
    opened = time[np.maximum(bar, 0)]
    is_later = (bar >= 0) & (stamps + width >= opened + interval)
    return bar + is_later, is_later | (np.abs(stamps - opened) <= width)


def cadence(time: IntArray) -> int:
    """Return the most common time between settlements in ns, without jitter; 8 h if unknown.

    Examples
    --------
    >>> cadence(np.array([0, 8 * HOUR + 7_000_000, 16 * HOUR])) // HOUR
    8
    """
    return spacing(np.cumsum(np.concatenate([[0], _gaps(time)]))) or _USUAL


def coverage(time: IntArray, start: int, end: int) -> tuple[int, int]:
    """Return the time within one cadence of the settlements in a span, as (start, end) in ns.

    The part of the span inside of it is covered. ``time`` is sorted and not empty.
    """
    gaps = np.minimum(_gaps(time), _limit(time))
    after = int(np.searchsorted(time, start - JITTER))
    before = int(np.searchsorted(time, end)) - 1
    if after == time.size or before < 0:
        return int(time[0]) - cadence(time), int(time[-1]) + cadence(time)
    lead = int(gaps[max(after - 1, 0) : after + 1].max(initial=0)) or _USUAL
    trail = int(gaps[max(before - 1, 0) : before + 1].max(initial=0)) or _USUAL
    first, last = int(time[after]), int(time[before])
    return first - lead - SECOND, last + trail + SECOND  # stamps lie some ms off the boundary


def missing_settlements(time: IntArray, start: int, end: int) -> list[SettlementGap]:
    """Return the gaps between settlements stamped inside a span; ``time`` is sorted."""
    gaps = _gaps(time)
    if gaps.size < 1:
        return []
    limit = _limit(time)
    capped = np.minimum(gaps, limit)
    local = np.maximum(
        np.concatenate([[limit], capped[:-1]]), np.concatenate([capped[1:], [limit]])
    )
    late = (gaps > limit) | (2 * gaps > 3 * local)
    inside = (time[:-1] >= start - JITTER) & (time[1:] < end)
    usual = np.full(1, cadence(time))
    near = np.minimum(np.concatenate([usual, gaps[:-1]]), np.concatenate([gaps[1:], usual]))
    return [  # a gap among hours lacks hours, also where most of the file is every 8 hours
        SettlementGap(
            int(time[row]),
            int(time[row + 1]),
            missing=max(1, round(gaps[row] / near[row]) - 1),
            every=int(near[row]),
        )
        for row in np.flatnonzero(late & inside)
    ]


def _limit(time: IntArray) -> int:
    return max(_USUAL, cadence(time)) + HOUR // 2


def _gaps(time: IntArray) -> IntArray:
    return nearest_minute(np.diff(time))


def nearest_minute(time: _Time) -> _Time:
    """Round times in ns to whole minutes, to remove the jitter of stamps."""
    return (time + MINUTE // 2) // MINUTE * MINUTE
