"""The door: frames of bars, mark bars and funding to one set of aligned, checked arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypedDict

import numpy as np
import pandas as pd

from backtest.base.units import SECOND, FloatArray, IntArray, format_duration
from backtest.market.tables.align import (
    AlignedMark,
    FundingEvents,
    align_mark,
    cut_bars,
    cut_funding,
    span_of,
)
from backtest.market.tables.bar_checks import (
    order_defects,
    price_defects,
    rate_defects,
    spacing,
    spacing_defects,
    volume_defects,
)
from backtest.market.tables.defects import Defect, refuse
from backtest.market.tables.frames import BARS, FUNDING, MARK, TimedTable, distinct, in_order
from backtest.market.tables.joined_frames import SourceFrame, read_table
from backtest.market.tables.read_options import ReadOptions
from backtest.market.tables.repairs import apply_repairs
from backtest.market.tables.scale_checks import mark_scale_defects, rate_scale_defects
from backtest.market.tables.settlements import LARGEST_RATE, stamp_defects
from backtest.market.tables.trades_to_bars import make_bars


class Facts(TypedDict):
    """All fields of a Market but its source; arrays of shape (n,), funding arrays (k,)."""

    instrument: str
    interval: int
    time: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    mark_open: FloatArray
    mark_high: FloatArray
    mark_low: FloatArray
    mark_close: FloatArray
    has_mark: bool
    funding_time: IntArray
    funding_rate: FloatArray
    funding_mark: FloatArray
    funding_predicted: FloatArray
    columns: Mapping[str, FloatArray]
    synthetic: bool
    sessions: bool
    filled: Mapping[str, str]


class MarketFrames(NamedTuple):
    """What was read of each kind: frames, or the defects that kept them from being read."""

    bars: tuple[SourceFrame, ...]
    mark: tuple[SourceFrame, ...] = ()
    funding: tuple[SourceFrame, ...] = ()

    @classmethod
    def of(
        cls, bars: pd.DataFrame, mark: pd.DataFrame | None, funding: pd.DataFrame | None
    ) -> MarketFrames:
        """Return the parts of one frame each."""
        named = {"bars": bars, "mark": mark, "funding": funding}
        return cls(
            *((SourceFrame(n, frame),) if frame is not None else () for n, frame in named.items())
        )


def assemble(frames: MarketFrames, choices: ReadOptions, *, where: str) -> Facts:
    """Return aligned arrays.

    Raises
    ------
    DataError
        Listing every defect of every frame.
    """
    facts, defects = examine(frames, choices)
    refuse(defects, where=where)
    if facts is None:  # examine() returns facts or says why not
        raise AssertionError("no facts and no defects")
    return facts


def examine(frames: MarketFrames, choices: ReadOptions) -> tuple[Facts | None, list[Defect]]:
    """Return aligned arrays and no defects, or None and all defects: a report on quality."""
    tables, found = read_tables(frames, choices)
    bars, mark, funding = tables
    defects = [*found.bars]
    filled = dict(found.notes)
    interval: int | None = None
    if bars is not None:
        interval, wrong = found.bar_length, list[Defect]()
        if interval is None:
            interval, wrong = find_interval(bars, choices)
        bars = cut_bars(bars, choices.between, interval or 0)
        defects += wrong + _check_bars(bars, interval, sessions=choices.sessions)
    defects += [*found.mark, *(order_defects(mark, "mark bars") if mark else ())]
    defects += [*found.funding, *(_check_stamps(funding) if funding else ())]
    if bars is None or interval is None:
        return None, defects + _check_alone(mark, funding)
    ordered = MarketTables(in_order(bars), mark and in_order(mark), funding and in_order(funding))
    return _combine(ordered, interval, choices, defects, filled)


class MarketTables(NamedTuple):
    """The tables of a market, None where there is none or it could not be read."""

    bars: TimedTable | None
    mark: TimedTable | None
    funding: TimedTable | None


class TableDefects(NamedTuple):
    """What kept tables from being read, by kind, and the notes of what was mended.

    ``bar_length`` is that of bars made of trades, ns.
    """

    bars: Sequence[Defect]
    mark: Sequence[Defect]
    funding: Sequence[Defect]
    notes: Mapping[str, str]
    bar_length: int | None


def read_tables(frames: MarketFrames, choices: ReadOptions) -> tuple[MarketTables, TableDefects]:
    """Return the tables as they stand in the frames, mended where that was asked for."""
    notes: dict[str, str] = {}
    length: int | None = None
    bars, bar_defects = read_table(frames.bars, BARS, choices.timezone)
    if bars is not None and "price" in bars.columns and "open" not in bars.columns:
        bars, more, note = make_bars(bars, choices.bar_length)
        bar_defects = [*bar_defects, *more]
        notes |= note
        length = choices.bar_length
    mark, mark_defects = read_table(frames.mark, MARK, choices.timezone)
    funding, funding_defects = read_table(frames.funding, FUNDING, choices.timezone)
    step = length or (find_interval(bars, choices)[0] if bars else None)
    tables = MarketTables(
        *(
            apply_repairs(table, role, choices.repairs, step, notes) if table else None
            for role, table in (("bars", bars), ("mark", mark), ("funding", funding))
        )
    )
    return tables, TableDefects(bar_defects, mark_defects, funding_defects, notes, length)


def _combine(
    tables: MarketTables,
    interval: int,
    choices: ReadOptions,
    known: list[Defect],
    filled: dict[str, str],
) -> tuple[Facts | None, list[Defect]]:
    """Return the fields of a market, or the defects known so far and those of the alignment."""
    bars, mark, funding = tables
    if bars is None:  # examine() has looked
        raise AssertionError("no bars")
    span = span_of(bars, interval)
    marks = align_mark(bars, mark, interval, sessions=choices.sessions) if mark else None
    events = cut_funding(funding, span, interval) if funding else None
    needed = span  # the part that has all that is not filled by choice
    if marks and not choices.mark_gaps:
        needed = needed.within(marks.covered)
    if events and not choices.funding_gaps:
        needed = needed.within(events.covered)
    cut = needed.on_bars(bars.time, interval)
    filled |= {} if events else {"funding": "none given"}
    defects = [
        *known,
        *(price_defects(marks.table, "mark ") if marks else ()),
        *(marks.defects(cut, choices.mark_gaps, filled) if marks else ()),
        *_check_scales(bars, marks, funding),
        *(rate_defects(events.table, LARGEST_RATE) if events else ()),
        *(events.defects(cut, choices.funding_gaps, filled) if events else ()),
    ]
    if defects:
        return None, defects
    return _facts(bars, marks, events, interval, choices, filled), []


def _check_scales(
    bars: TimedTable, marks: AlignedMark | None, funding: TimedTable | None
) -> Iterator[Defect]:
    """Yield marks and funding on the wrong scale; rates by all rows that were given."""
    if marks and not marks.odd and _has_closes(bars, marks.table):
        yield from mark_scale_defects(bars, marks.present, marks.table)
    if funding:
        yield from rate_scale_defects(funding)


def _has_closes(*tables: TimedTable) -> bool:
    return all("close" in table.columns for table in tables)


def _facts(
    bars: TimedTable,
    marks: AlignedMark | None,
    events: FundingEvents | None,
    interval: int,
    choices: ReadOptions,
    filled: dict[str, str],
) -> Facts:
    extras = {key: values for key, values in bars.columns.items() if key not in BARS.known}
    marked = marks.fill(bars) if marks else bars.columns
    settled = (
        events.table if events else TimedTable("", np.empty(0, np.int64), {"rate": np.empty(0)})
    )
    unknown = np.full(settled.time.size, np.nan)
    facts = Facts(
        instrument=choices.instrument,
        interval=interval,
        time=bars.time,
        open=bars.columns["open"],
        high=bars.columns["high"],
        low=bars.columns["low"],
        close=bars.columns["close"],
        volume=bars.columns.get("volume", np.zeros(bars.time.size)),
        mark_open=marked["open"],
        mark_high=marked["high"],
        mark_low=marked["low"],
        mark_close=marked["close"],
        has_mark=marks is not None,
        funding_time=settled.time,
        funding_rate=settled.columns["rate"],
        funding_mark=settled.columns.get("mark", unknown),
        funding_predicted=settled.columns.get("predicted", unknown),
        columns=extras,
        synthetic=choices.synthetic,
        sessions=choices.sessions,
        filled=filled,
    )
    for array in (*facts.values(), *extras.values()):
        if isinstance(array, np.ndarray):
            array.flags.writeable = False  # they are ours alone: Market need not copy them
    return facts


def _check_bars(bars: TimedTable, interval: int | None, *, sessions: bool) -> list[Defect]:
    return [
        *order_defects(bars, "bars"),
        *(spacing_defects(bars, interval, sessions=sessions) if interval else ()),
        *price_defects(bars, ""),
        *volume_defects(bars),
    ]


def find_interval(bars: TimedTable, choices: ReadOptions) -> tuple[int | None, list[Defect]]:
    """Return the length of a bar in ns, None where it cannot be told, and what is wrong with it."""
    given, time = choices.interval, distinct(bars.time)
    found = spacing(time)
    if choices.sessions and found is not None:
        found = int(np.diff(time).min())
    length = given or found
    if length is None or length % SECOND:
        return None, [_unknown_interval(bars, length)]
    if choices.sessions or found is None or found == length:
        return length, []
    wrong = Defect(
        f"bars must open {format_duration(length)} apart, as was said",
        f"they open {format_duration(found)} apart",
        bars.name,
        f"give interval='{format_duration(found)}', or the file of the other bars",
    )
    return found, [wrong]


def _unknown_interval(bars: TimedTable, found: int | None) -> Defect:
    seen = f"bars are {format_duration(found)} apart" if found else "found only one time of opening"
    return Defect(
        "the length of a bar must be known, in whole seconds",
        seen,
        bars.name,
        "give interval='1h', or more bars",
    )


def _check_stamps(funding: TimedTable) -> list[Defect]:
    return [*order_defects(funding, "funding stamps"), *stamp_defects(funding)]


def _check_alone(mark: TimedTable | None, funding: TimedTable | None) -> list[Defect]:
    """Return the defects of values that show without the bars."""
    return [
        *(price_defects(mark, "mark ") if mark else ()),
        *(rate_defects(funding, LARGEST_RATE) if funding else ()),
        *(rate_scale_defects(in_order(funding)) if funding else ()),
    ]
