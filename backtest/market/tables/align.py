"""Alignment of mark bars and funding events with the bars, and frames joined in time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from backtest.base import (
    BoolArray,
    FloatArray,
    IntArray,
    ParameterError,
    format_duration,
    format_time,
)
from backtest.market.tables.bar_checks import name_span, spacing
from backtest.market.tables.defects import Defect, locate_rows
from backtest.market.tables.read_options import ReadOptions
from backtest.market.tables.settlements import (
    SettlementGap,
    cadence,
    coverage,
    missing_settlements,
    settled_once,
)
from backtest.market.tables.timed_table import PRICES, TRADES, Schema, TimedTable, read_frame


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


def span_of(bars: TimedTable, interval: int) -> Span:
    return Span(int(bars.time[0]), int(bars.time[-1]) + interval)


def select_bars(bars: TimedTable, options: ReadOptions, interval: int) -> TimedTable:
    between = options.between
    if between == (None, None):
        return bars
    known = Span(int(bars.time.min()), int(bars.time.max()) + interval)
    start = known.start if between[0] is None else between[0]
    end = known.end if between[1] is None else between[1]
    kept = np.flatnonzero((bars.time >= start) & (bars.time < end))
    is_outside = (start < known.start or end > known.end) and not options.clips
    if is_outside or not kept.size:
        raise ParameterError(
            f"between must lie inside the bars and hold one, got {Span(start, end)} "
            f"({bars.name}, {known})"
        )
    return bars.rows(kept)


class AlignedMark(NamedTuple):
    table: TimedTable
    present: BoolArray
    time: IntArray
    interval: int
    odd: Defect | None
    whole: Span

    @property
    def covered(self) -> Span | None:
        if self.odd:
            return None
        rows = np.flatnonzero(self.present)
        if not rows.size:
            return self.whole
        return Span(int(self.time[rows[0]]), int(self.time[rows[-1]]) + self.interval)

    def fill(self, bars: TimedTable) -> dict[str, FloatArray]:
        """Return mark prices of shape (n_bars,); last prices for bars without a mark bar."""
        if self.present.all():
            return self.table.columns
        filled = {name: bars.columns[name].copy() for name in PRICES}
        for name, values in filled.items():
            values[self.present] = self.table.columns[name]
        return filled

    def defects(self, cut: Span | None, gaps: str | None, filled: dict[str, str]) -> list[Defect]:
        if self.odd:
            return [self.odd]
        rows = np.flatnonzero(self.present)
        absent = np.flatnonzero(~self.present)
        if not absent.size:
            return []
        if gaps == "last" and rows.size:
            stretch = Span(int(self.time[absent[0]]), int(self.time[absent[-1]]) + self.interval)
            filled["mark_gaps"] = f"last: {absent.size} of {self.time.size} bars, {stretch}"
            return []
        edge = (absent < rows[0]) | (absent > rows[-1]) if rows.size else absent >= 0
        return [
            *([self._uncovered(int(edge.sum()), cut)] if edge.any() else ()),
            *([self._holes(absent[~edge])] if not edge.all() else ()),
        ]

    def _uncovered(self, count: int, cut: Span | None) -> Defect:
        bars = Span(int(self.time[0]), int(self.time[-1]) + self.interval)
        instead = "mark_gaps='last' to test liquidations on last prices there"
        return Defect(
            f"mark bars must cover the bars, {count} of {self.time.size} bars lie outside them "
            f"({self.table.name}, {self.whole}; bars {bars}); "
            + _span_cure(cut, instead if self.present.any() else "leave mark out")
        )

    def _holes(self, absent: IntArray) -> Defect:
        return Defect(
            f"every bar must have a mark bar, {absent.size} of {self.time.size} bars have none "
            f"({locate_rows(self.table.name, self.time[absent])}); mark_gaps='last' takes last "
            "prices"
        )


def align_mark(bars: TimedTable, mark: TimedTable, interval: int, *, sessions: bool) -> AlignedMark:
    whole = Span(int(mark.time[0]), int(mark.time[-1]) + interval)
    if np.array_equal(mark.time, bars.time):
        present = np.ones(bars.time.size, dtype=np.bool_)
        return AlignedMark(mark, present, bars.time, interval, None, whole)
    rows = np.minimum(np.searchsorted(mark.time, bars.time), mark.time.size - 1)
    present = mark.time[rows] == bars.time
    odd = _other_length(bars, mark, interval, sessions=sessions)
    return AlignedMark(mark.rows(rows[present]), present, bars.time, interval, odd, whole)


def _other_length(
    bars: TimedTable, mark: TimedTable, interval: int, *, sessions: bool
) -> Defect | None:
    inside = mark.time[(mark.time >= bars.time[0]) & (mark.time <= bars.time[-1])]
    between = ~np.isin(inside, bars.time) if sessions else (inside - bars.time[0]) % interval != 0
    found, usual = spacing(mark.time), spacing(bars.time) or interval
    longer = found is not None and found > usual and mark.time.size > 3
    if not between.any() and not longer:
        return None
    wrong = inside[between] if between.any() else mark.time[:1]
    length = format_duration(found) if found else "unknown"
    return Defect(
        f"mark bars must open with the bars and be as long, mark bars are {length} apart, bars "
        f"{format_duration(usual)} ({locate_rows(mark.name, wrong)})"
    )
    return Defect(
        "mark bars must open with the bars and be as long",
        f"mark bars are {length} apart, bars {format_duration(usual)}",
        locate_rows(mark.name, wrong),
        f"give mark bars of {format_duration(usual)}, or leave mark out",
    )


class FundingEvents(NamedTuple):
    table: TimedTable
    time: IntArray
    span: Span

    @property
    def covered(self) -> Span:
        return self.span.within(Span(*coverage(self.time, *self.span)))

    def defects(self, cut: Span | None, gaps: str | None, filled: dict[str, str]) -> list[Defect]:
        holes = missing_settlements(self.time, *self.span)
        covered = self.covered
        if gaps == "zero":
            missing = sum(hole.missing for hole in holes) + self._beyond(covered)
            if missing:
                filled["funding_gaps"] = f"zero: {missing} settlements missing in {self.span}"
            return []
        given = Span(int(self.time[0]), int(self.time[-1]))
        uncovered = Defect(
            "funding must cover the bars, one settlement each "
            f"{format_duration(cadence(self.time))}, settlements run from {given} "
            f"({self.table.name}; bars {self.span}); "
            + _span_cure(cut, "funding_gaps='zero' to charge none there")
        )
        return [
            *([uncovered] if covered != self.span else ()),
            *([self._holes(holes)] if holes else ()),
        ]

    def _beyond(self, covered: Span) -> int:
        step = cadence(self.time)
        before, after = covered.start - self.span.start, self.span.end - covered.end
        return sum(
            min(lack, self.span.end - self.span.start) // step + 1
            for lack in (before, after)
            if lack > 0
        )

    def _holes(self, holes: list[SettlementGap]) -> Defect:
        missing = sum(hole.missing for hole in holes)
        end = f", last from {format_time(holes[-1].start)} to {format_time(holes[-1].end)}"
        return Defect(
            f"settlements must follow each other every {format_duration(holes[0].every)}, "
            f"{missing} missing in {len(holes)} gap{'s' if len(holes) > 1 else ''} "
            f"({self.table.name}, first gap from {format_time(holes[0].start)} to "
            f"{format_time(holes[0].end)}{end if len(holes) > 1 else ''} UTC); funding_gaps='zero' "
            "charges none there"
        )


def select_funding(funding: TimedTable, span: Span, interval: int) -> FundingEvents:
    low, high = np.searchsorted(funding.time, [span.start - interval // 4, span.end])
    kept = slice(int(low), int(high))
    return FundingEvents(funding.rows(kept), settled_once(funding.time), span)


def _span_cure(cut: Span | None, instead: str) -> str:
    if cut is None:
        return f"no bar has all of them: load files that overlap, or {instead}"
    return f"cut the bars to what is covered, {name_span(*cut)}; or {instead}"


_ROW = re.compile(r", row (\d+)(?=\))")


class SourceFrame(NamedTuple):
    name: str
    content: pd.DataFrame | Defect
    is_file: bool = False
    first_line: int | None = None

    def with_line(self, defect: Defect) -> Defect:
        if self.first_line is None:
            return defect
        first = self.first_line
        return Defect(_ROW.sub(lambda row: f", line {int(row[1]) + first}", defect, count=1))


def read_table(
    parts: Sequence[SourceFrame], schema: Schema, timezone: str | None
) -> tuple[TimedTable | None, list[Defect]]:
    tables, defects = [], []
    for part in parts:
        table, found = _read_part(part, schema, timezone)
        defects += found
        if table is not None:
            tables.append(table)
    if len(tables) < len(parts) or not tables:
        return None, defects
    odd = next((t for t in tables if {*t.columns} != {*tables[0].columns}), None)
    if odd is not None and not defects:
        return None, [_other_columns(tables[0], odd)]
    return _join(tables), defects


def _read_part(
    part: SourceFrame, schema: Schema, timezone: str | None
) -> tuple[TimedTable | None, list[Defect]]:
    if isinstance(part.content, Defect):
        return None, [part.content]
    is_trades = "price" in part.content and "open" not in part.content and "open" in schema.required
    wanted = TRADES if is_trades else schema
    table, found = read_frame(part.content, wanted, name=part.name, timezone=timezone)
    defects = [part.with_line(defect) for defect in found]
    if part.is_file and table is not None and _is_newest_first(table):
        table = table.rows(np.arange(table.time.size)[::-1])
    return table, defects


def _is_newest_first(table: TimedTable) -> bool:
    return table.time.size > 1 and bool((table.time[1:] <= table.time[:-1]).all())


def _join(tables: Sequence[TimedTable]) -> TimedTable:
    if len(tables) == 1:
        return tables[0]
    ordered = sorted(tables, key=lambda table: int(table.time[0]))
    shared = [name for name in ordered[0].columns if all(name in t.columns for t in ordered)]
    more = len(ordered) - 1
    return TimedTable(
        f"{ordered[0].name} and {more} more",
        np.concatenate([table.time for table in ordered]),
        {name: np.concatenate([table.columns[name] for table in ordered]) for name in shared},
    )


def _other_columns(first: TimedTable, odd: TimedTable) -> Defect:
    differ = ", ".join(sorted({*first.columns} ^ {*odd.columns}))
    return Defect(
        f"files of one table must have the same columns, {first.name} and {odd.name} differ in "
        f"{differ}"
    )
