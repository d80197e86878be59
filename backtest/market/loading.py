"""Frames of bars, mark bars and funding to one set of aligned, checked arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import base
from backtest.base import ParameterError, TimeLike, did_you_mean, format_duration, repr_plain
from backtest.base.units import SECOND
from backtest.market import rules
from backtest.market import tables as timed
from backtest.market.rules import Repair, Subject, apply_repairs, count_uncovered, drop_duplicates
from backtest.market.tables import PRICES, SCHEMAS, Defect, SourceFrame, Span, TimedTable

ROLES = ("bars", "mark", "funding")
Frames = Mapping[str, Sequence[SourceFrame]]

# ------------------------------------------------------------------------------------- options


class ReadOptions(NamedTuple):
    """How data are read: the arguments of ``Market.load``, times in ns."""

    instrument: str = ""
    interval: int | None = None
    timezone: str | None = None
    mark_gaps: str | None = None
    funding_gaps: str | None = None
    sessions: bool = False
    between: tuple[int | None, int | None] = (None, None)
    synthetic: bool = False
    columns: Mapping[str, str] = MappingProxyType({})
    repairs: tuple[Repair, ...] = ()
    clips: bool = False

    def expression(
        self, paths: Sequence[object], *, loader: str = "Market.load", **more: object
    ) -> str:
        start, end = self.between
        span = tuple(None if time is None else time_text(time) for time in (start, end))
        named: dict[str, object] = {
            "instrument": self.instrument or None,
            "interval": format_duration(self.interval) if self.interval else None,
            "timezone": self.timezone,
            "mark_gaps": self.mark_gaps,
            "funding_gaps": self.funding_gaps,
            "sessions": self.sessions or None,
            "between": span if span != (None, None) else None,
            "columns": dict(self.columns) or None,
            "repair": ",".join(map(str, self.repairs)) or None,
            **more,
        }
        arguments = [repr(str(path)) for path in paths]
        arguments += [
            f"{name}={repr_plain(value)}" for name, value in named.items() if value is not None
        ]
        return f"{loader}({', '.join(arguments)})"


def time_text(time: int) -> str:
    """Return UTC ns as text that is read back to the same ns."""
    return base.format_time(time) if time % SECOND == 0 else pd.Timestamp(time).isoformat()


def read_options(
    *,
    instrument: str | None = None,
    interval: str | None = None,
    timezone: str | None = None,
    mark_gaps: str | None = None,
    funding_gaps: str | None = None,
    sessions: bool = False,
    between: tuple[TimeLike | None, TimeLike | None] | None = None,
    columns: Mapping[str, str | int] | None = None,
    repair: str | Sequence[str] = (),
) -> ReadOptions:
    repairs = rules.parse_repairs([repair] if isinstance(repair, str) else repair)
    ways = {each.name: each.way for each in repairs}
    timed.check_timezone(timezone)
    known = [f"{role}.{name}" for role in ROLES[1:] for name in ("time", *SCHEMAS[role].known)]
    for ours in columns or {}:
        if "." in ours and ours not in known:
            raise ParameterError(
                f"columns: one of another table must be among {', '.join(known)}, got "
                f"{repr_plain(ours)}{did_you_mean(ours, known)}"
            )
    start, end = (
        None if time is None else base.to_nanoseconds(time, f"between, {name}")
        for name, time in zip(("start", "end"), between or (None, None), strict=True)
    )
    return ReadOptions(
        instrument=instrument or "",
        interval=None if interval is None else base.parse_duration(interval, "interval"),
        timezone=timezone,
        mark_gaps=mark_gaps or ways.get("mark-gaps"),
        funding_gaps=funding_gaps or ways.get("funding-gaps"),
        sessions=sessions,
        between=(start, end),
        columns={ours: str(theirs) for ours, theirs in (columns or {}).items()},
        repairs=repairs,
    )


# ------------------------------------------------------------------------------- what was read


class Read(NamedTuple):
    tables: dict[str, TimedTable]
    defects: list[Defect]
    notes: dict[str, str]
    interval: int | None


def read_frames(frames: Frames, options: ReadOptions) -> Read:
    tables: dict[str, TimedTable] = {}
    defects: list[Defect] = []
    notes: dict[str, str] = {}
    interval: int | None = None
    for role in ROLES:
        table, found = timed.read_table(frames.get(role, ()), SCHEMAS[role], options.timezone)
        defects += found
        if role == "funding" and table is not None and len(frames[role]) > 1:
            # two files may hold the same settlements
            table = table.rows(np.argsort(table.time, kind="stable"))
            table = drop_duplicates(table, "", None)[0]
        if role == "bars" and table is not None:
            interval, found = find_interval(table, options)
            defects += found
        if table is not None:
            tables[role] = apply_repairs(table, role, options.repairs, interval, notes)
    bars = tables.get("bars")
    if bars is not None and options.between != (None, None):
        tables["bars"] = select_bars(bars, options, interval or 0)
    return Read(tables, defects, notes, interval)


def find_interval(bars: TimedTable, options: ReadOptions) -> tuple[int | None, list[Defect]]:
    time = bars.ordered.time
    given, found = options.interval, timed.spacing(time)
    if options.sessions and found is not None:
        found = int(np.diff(time).min())
    length = given or found
    if length is None or length % SECOND:
        apart = f"are {format_duration(length)} apart" if length else "all open at one time"
        return None, [
            Defect(
                "the length of a bar must be known, in whole seconds: bars "
                f"{apart} ({bars.name}); interval='1h', or more bars"
            )
        ]
    if options.sessions or found is None or found == length:
        return length, []
    wrong = (
        f"bars must open {format_duration(length)} apart, as given, they open "
        f"{format_duration(found)} apart ({bars.name})"
    )
    return found, [Defect(wrong)]


def select_bars(bars: TimedTable, options: ReadOptions, interval: int) -> TimedTable:
    low, high = options.between
    known = Span(int(bars.time.min()), int(bars.time.max()) + interval)
    span = Span(known.start if low is None else low, known.end if high is None else high)
    kept = bars.between(*span)
    is_outside = (span.start < known.start or span.end > known.end) and not options.clips
    if is_outside or not kept.time.size:
        raise ParameterError(
            f"between must lie inside the bars and hold one, got {span} ({bars.name}, {known})"
        )
    return kept


def make_subjects(read: Read, *, sessions: bool = False) -> dict[str, Subject]:
    found = {}
    bars, interval = read.tables.get("bars"), read.interval
    known: Any = {"interval": interval, "sessions": sessions}
    for role, table in read.tables.items():
        if role == "bars" or bars is None or not interval:
            found[role] = Subject(role, table, **known)
            continue
        start, end = int(bars.time.min()), int(bars.time.max()) + interval
        lead = interval // 4 if role == "funding" else 0
        found[role] = Subject(
            role, table.between(start - lead, end), bars=bars, whole=table, **known
        )
    return found


# ------------------------------------------------------------------------------------ alignment


def load_frames(frames: Frames, options: ReadOptions, *, where: str) -> dict[str, Any]:
    """Return the fields of a market, but for its source; raise all that is wrong at once."""
    read = read_frames(frames, options)
    subjects = make_subjects(read, sessions=options.sessions)
    filled = dict(read.notes)
    timed.refuse(find_defects(read, subjects, options, filled), where=where)
    return _build_fields(subjects, read.interval or 0, options, filled)


def find_defects(
    read: Read, subjects: Mapping[str, Subject], options: ReadOptions, filled: dict[str, str]
) -> list[Defect]:
    bars, mark, funding = (subjects.get(role) for role in ROLES)
    interval = read.interval
    repairs, needed = [], bars.span if bars is not None and interval else None
    if mark is not None and options.mark_gaps == "last" and mark.is_marked.any():
        repairs.append("mark-gaps=last")
    elif mark is not None and needed is not None:
        needed = needed.within(mark.covered)
    if funding is not None and options.funding_gaps == "zero":
        repairs.append("funding-gaps=zero")
    elif funding is not None and needed is not None:
        needed = needed.within(funding.covered)
    cut = needed.on_bars(bars.time, interval) if needed and bars and interval else None
    cure = "no bar has all of them: load files that overlap, or leave one out"
    if cut is not None:
        cure = f"cut the bars to what is covered, {rules.name_span(*cut)}"
    defects = [*read.defects]
    for subject in subjects.values():
        defects += rules.list_defects(subject, cure, repairs)
    if not defects and bars is not None:
        _note_gaps(mark, funding, repairs, filled)
    return defects


def _note_gaps(
    mark: Subject | None, funding: Subject | None, repairs: Sequence[str], filled: dict[str, str]
) -> None:
    if mark is not None and mark.bars is not None and not mark.is_marked.all():
        absent = mark.bars.time[~mark.is_marked]
        stretch = Span(int(absent[0]), int(absent[-1]) + (mark.interval or 0))
        filled["mark_gaps"] = f"last: {absent.size} of {mark.bars.time.size} bars, {stretch}"
    if funding is None:
        filled["funding"] = "none given"
    elif repairs and funding.covered is not None:
        missing = sum(gap.missing for gap in timed.missing_settlements(funding.once, *funding.span))
        missing += int(
            count_uncovered(funding.span, funding.covered, timed.cadence(funding.once)).sum()
        )
        if missing:
            filled["funding_gaps"] = f"zero: {missing} settlements missing in {funding.span}"


def _build_fields(
    subjects: Mapping[str, Subject], interval: int, options: ReadOptions, filled: dict[str, str]
) -> dict[str, Any]:
    bars, mark = subjects["bars"].table.ordered, subjects.get("mark")
    last = {name: bars.columns[name] for name in PRICES}
    marked = last if mark is None else _fill_mark(mark, last)
    none = TimedTable("", np.empty(0, np.int64), {"rate": np.empty(0)})
    settled = subjects["funding"].table.ordered if "funding" in subjects else none
    unknown = np.full(settled.time.size, np.nan)
    known = SCHEMAS["bars"].known
    columns = {key: values for key, values in bars.columns.items() if key not in known}
    return {
        **last,
        **{f"mark_{name}": values for name, values in marked.items()},
        "time": bars.time,
        "volume": bars.columns.get("volume", np.zeros(bars.time.size)),
        "funding_time": settled.time,
        "funding_rate": settled.columns["rate"],
        "funding_mark": settled.columns.get("mark", unknown),
        "funding_predicted": settled.columns.get("predicted", unknown),
        "instrument": options.instrument,
        "interval": interval,
        "has_mark": mark is not None,
        "columns": columns,
        "synthetic": options.synthetic,
        "sessions": options.sessions,
        "filled": filled,
    }


def _fill_mark(mark: Subject, last: Mapping[str, Any]) -> dict[str, Any]:
    _, present = mark.marked
    filled = {}
    for name, values in last.items():
        filled[name] = values.copy()
        filled[name][mark.is_marked] = present.columns[name]
    return filled
