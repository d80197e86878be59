"""Settlements: their cadence, which are missing, on which bar each is paid; and dividends."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import numpy as np

from backtest.base import (
    BoolArray,
    DataError,
    FloatArray,
    IntArray,
    format_time,
)
from backtest.base.units import HOUR, MINUTE, SECOND
from backtest.market.tables import TimedTable, spacing

JITTER = MINUTE
"""How far a stamp may be from the boundary that it belongs to, ns."""

LARGEST_RATE = 0.10
"""The largest rate of one settlement that is accepted, as a fraction; venues cap well below."""

USUAL = 8 * HOUR
DIVIDEND = "dividend_per_share"
_Time = TypeVar("_Time", int, IntArray)


class Span(NamedTuple):
    """Time from ``start`` up to but not including ``end``, ns."""

    start: int
    end: int

    def within(self, other: Span | None) -> Span:
        if other is None:
            return self
        return Span(max(self.start, other.start), min(self.end, other.end))

    def on_bars(self, time: IntArray, interval: int) -> Span | None:
        inside = time[(time >= self.start) & (time + interval <= self.end)]
        return Span(int(inside[0]), int(inside[-1]) + interval) if inside.size else None

    def __str__(self) -> str:
        return f"{format_time(self.start)} to {format_time(self.end)} UTC"


class SettlementGap(NamedTuple):
    """A gap between two settlements, at ``start`` and ``end`` (ns), in which others are missing.

    ``every`` is the time between the settlements around it, ns.
    """

    start: int
    end: int
    missing: int
    every: int


def settled_once(time: IntArray) -> IntArray:
    return time[np.diff(time, prepend=np.iinfo(np.int64).min // 2) >= JITTER]


def place_on_bars(
    stamps: IntArray, time: IntArray, interval: int, jitter: int = JITTER
) -> tuple[IntArray, BoolArray]:
    """Return the bar that each settlement belongs to, and whether it is paid at its open.

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
    """Return the most common time between settlements in ns, without jitter; 8 h if unknown."""
    return spacing(np.cumsum(np.concatenate([[0], _gaps(time)]))) or USUAL


def coverage(time: IntArray, start: int, end: int) -> tuple[int, int]:
    """Return the time within one cadence of the settlements in a span, as (start, end) in ns."""
    gaps = np.minimum(_gaps(time), _limit(time))
    after = int(np.searchsorted(time, start - JITTER))
    before = int(np.searchsorted(time, end)) - 1
    if after == time.size or before < 0:
        return int(time[0]) - cadence(time), int(time[-1]) + cadence(time)
    lead = int(gaps[max(after - 1, 0) : after + 1].max(initial=0)) or USUAL
    trail = int(gaps[max(before - 1, 0) : before + 1].max(initial=0)) or USUAL
    first, last = int(time[after]), int(time[before])
    return first - lead - SECOND, last + trail + SECOND  # stamps lie some ms off the boundary


def missing_settlements(time: IntArray, start: int, end: int) -> list[SettlementGap]:
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
    return max(USUAL, cadence(time)) + HOUR // 2


def _gaps(time: IntArray) -> IntArray:
    return nearest_minute(np.diff(time))


def nearest_minute(time: _Time) -> _Time:
    """Round times in ns to whole minutes, to remove the jitter of stamps."""
    return (time + MINUTE // 2) // MINUTE * MINUTE


class Settled(NamedTuple):
    """Payments for holding a position, arrays of shape (n_events,).

    ``time`` in UTC ns; ``rate`` as a fraction, longs pay if it is positive; ``price`` is the one
    that it is paid on, NaN for the mark at the open.
    """

    time: IntArray
    rate: FloatArray
    price: FloatArray


def place_dividends(
    table: TimedTable, time: IntArray, interval: int, notes: dict[str, str]
) -> FloatArray:
    """Return dividends of shape (n_bars,), NaN without one, and note their number."""
    kept = (table.time >= time[0]) & (table.time < time[-1] + interval)
    bar = np.searchsorted(time, table.time, side="left")
    kept &= bar < time.size
    totals = np.bincount(bar[kept], table.columns["amount"][kept], minlength=time.size)
    outside = f", {int((~kept).sum())} outside the bars left out" if not kept.all() else ""
    notes["dividends"] = f"{int(kept.sum())} of {table.name}, per share{outside}"
    return np.where(totals > 0.0, totals, np.nan)


def read_settlements(data: Any) -> Settled:
    """Return the payments of a market: its funding, or its dividends as rates."""
    column = data.columns.get(DIVIDEND)
    if column is None or not np.any(np.nan_to_num(column)):
        return Settled(data.funding_time, data.funding_rate, data.funding_mark)
    if data.funding_time.size:
        name = data.instrument or "the market"
        raise DataError(f"a market has funding or dividends, {name} has both")
    paid = np.flatnonzero(np.nan_to_num(column))
    price = np.where(paid > 0, data.close[paid - 1], data.open[0])
    amount = column[paid]
    bad = np.flatnonzero(~((amount > 0.0) & (amount < price)))
    if bad.size:
        raise DataError(
            f"{DIVIDEND} must be positive and below the close before it, got {amount[bad[0]]:g} "
            f"after a close of {price[bad[0]]:g} at {format_time(int(data.time[paid[bad[0]]]))} UTC"
        )
    return Settled(data.time[paid], -amount / price, price)
