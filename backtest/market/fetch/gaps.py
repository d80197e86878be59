"""Gaps in fetched data: where rows are missing, and the longest span without a gap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from backtest.base import BoolArray, IntArray, format_time
from backtest.base.units import DAY, SECOND
from backtest.market.tables.settlements import (
    SettlementGap,
    cadence,
    coverage,
    missing_settlements,
    nearest_minute,
    settled_once,
)

SHOWN = 40
_NOUNS = {"bars": "bars", "mark": "mark bars", "funding": "settlements"}


class MissingRows(NamedTuple):
    """A gap from ``start`` up to ``end`` (ns), and how many rows are missing in it."""

    kind: str
    start: int
    end: int
    missing: int

    def __str__(self) -> str:
        count = f"{self.missing:,} {_NOUNS[self.kind]}"
        return f"{count} from {format_time(self.start)} to {format_time(self.end)}"


def find_gaps(kind: str, time: IntArray, interval: int, start: int, end: int) -> list[MissingRows]:
    inside = time[(time >= start) & (time < end)]
    if kind == "funding":
        return find_funding_gaps(inside, start, end)
    return find_bar_gaps(kind, inside, interval, start, end)


def find_bar_gaps(
    kind: str, time: IntArray, interval: int, start: int, end: int
) -> list[MissingRows]:
    edges = np.concatenate([[start - interval], time, [end]])
    rows = np.flatnonzero(np.diff(edges) > interval)
    return [
        MissingRows(
            kind,
            int(edges[row]) + interval,
            int(edges[row + 1]),
            int(edges[row + 1] - edges[row]) // interval - 1,
        )
        for row in rows
    ]


def find_funding_gaps(time: IntArray, start: int, end: int) -> list[MissingRows]:
    if not time.size:
        return [MissingRows("funding", start, end, _count_settlements(end - start, cadence(time)))]
    stamps = settled_once(time)
    usual = cadence(stamps)
    first, last = coverage(stamps, start, end)
    gaps = [_between(gap) for gap in missing_settlements(stamps, start, end)]
    if first > start:
        until = int(stamps[0]) // SECOND * SECOND
        gaps.insert(
            0, MissingRows("funding", start, until, _count_settlements(until - start, usual))
        )
    if last < end:
        since = last // SECOND * SECOND - SECOND  # coverage() reaches a second further
        gaps.append(MissingRows("funding", since, end, _count_settlements(end - since, usual)))
    return gaps


def _between(gap: SettlementGap) -> MissingRows:
    step = (gap.end - gap.start) // (gap.missing + 1)
    start, end = nearest_minute(gap.start + step), nearest_minute(gap.end)
    return MissingRows("funding", start, end, gap.missing)


def find_end(time: IntArray, kind: str, interval: int, start: int) -> int:
    if not time.size:
        return start
    if kind != "funding":
        return (int(time[-1]) + interval) // DAY * DAY
    stamps = settled_once(time)
    gaps = np.diff(stamps)
    step = int(gaps[-1]) if gaps.size else cadence(stamps)
    return (int(stamps[-1]) + min(step, cadence(stamps)) + 60 * SECOND) // DAY * DAY


def longest_complete(gaps: Sequence[MissingRows], start: int, end: int) -> tuple[int, int] | None:
    days = np.arange(start, end, DAY)
    whole: BoolArray = np.ones(days.size, dtype=np.bool_)
    for gap in gaps:
        whole &= (days + DAY <= gap.start) | (days >= gap.end)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], whole, [False]]).astype(np.int8)))
    runs = edges.reshape(-1, 2)
    if not runs.size:
        return None
    first, stop = runs[(runs[:, 1] - runs[:, 0]).argmax()]
    return int(start + first * DAY), int(start + stop * DAY)


def describe_gaps(gaps: Sequence[MissingRows], where: str) -> str:
    lines = [f"  {gap}" for gap in gaps[:SHOWN]]
    if len(gaps) > SHOWN:
        lines.append(f"  and {len(gaps) - SHOWN} more, all of them in {where}")
    return "\n".join(lines)


def count_missing(gaps: Sequence[MissingRows]) -> Mapping[str, int]:
    kinds = dict.fromkeys(gap.kind for gap in gaps)
    return {kind: sum(gap.missing for gap in gaps if gap.kind == kind) for kind in kinds}


def _count_settlements(length: int, step: int) -> int:
    return max(1, -(-length // step))
