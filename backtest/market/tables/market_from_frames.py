"""Frames of bars, mark bars and funding to one set of aligned, checked arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import format_duration, format_time
from backtest.base.units import SECOND
from backtest.market.reshape import BarGroups
from backtest.market.tables.align import (
    AlignedMark,
    FundingEvents,
    SourceFrame,
    align_mark,
    read_table,
    select_bars,
    select_funding,
    span_of,
)
from backtest.market.tables.bar_checks import (
    grid_origin,
    order_defects,
    price_defects,
    rate_defects,
    spacing,
    spacing_defects,
    volume_defects,
)
from backtest.market.tables.defects import Defect, refuse
from backtest.market.tables.market_data import MarketData
from backtest.market.tables.read_options import ReadOptions
from backtest.market.tables.repairs import apply_repairs
from backtest.market.tables.scale_checks import mark_scale_defects, rate_scale_defects
from backtest.market.tables.settlements import (
    DIVIDEND,
    LARGEST_RATE,
    dividend_defects,
    place_dividends,
    stamp_defects,
)
from backtest.market.tables.timed_table import (
    BARS,
    DIVIDENDS,
    FUNDING,
    MARK,
    PRICES,
    TimedTable,
    distinct,
    in_order,
)


class MarketFrames(NamedTuple):
    bars: tuple[SourceFrame, ...]
    mark: tuple[SourceFrame, ...] = ()
    funding: tuple[SourceFrame, ...] = ()
    dividends: tuple[SourceFrame, ...] = ()

    @classmethod
    def of(
        cls,
        bars: pd.DataFrame,
        mark: pd.DataFrame | None,
        funding: pd.DataFrame | None,
        dividends: pd.DataFrame | None = None,
    ) -> MarketFrames:
        named = {"bars": bars, "mark": mark, "funding": funding, "dividends": dividends}
        return cls(
            *((SourceFrame(n, each),) if each is not None else () for n, each in named.items())
        )


class MarketTables(NamedTuple):
    bars: TimedTable | None
    mark: TimedTable | None
    funding: TimedTable | None
    dividends: TimedTable | None = None


class ReadNotes(NamedTuple):
    """The defects found while reading, by kind, and the notes of the repairs.

    ``bar_length`` is that of bars made from trades, ns.
    """

    bars: Sequence[Defect]
    mark: Sequence[Defect]
    funding: Sequence[Defect]
    dividends: Sequence[Defect]
    repairs: Mapping[str, str]
    bar_length: int | None


def align_frames(frames: MarketFrames, options: ReadOptions, *, where: str) -> MarketData:
    data, defects = check_frames(frames, options)
    refuse(defects, where=where)
    if data is None:  # check_frames() returns data or defects
        raise AssertionError("no data and no defects")
    return data


def check_frames(
    frames: MarketFrames, options: ReadOptions
) -> tuple[MarketData | None, list[Defect]]:
    tables, notes = read_tables(frames, options)
    bars, mark, funding, dividends = tables
    defects = [*notes.bars]
    interval: int | None = None
    if bars is not None:
        interval, wrong = notes.bar_length, list[Defect]()
        if interval is None:
            interval, wrong = find_interval(bars, options)
        bars = select_bars(bars, options, interval or 0)
        defects += wrong + _check_bars(bars, interval, sessions=options.sessions)
    defects += [*notes.mark, *(order_defects(mark, "mark bars") if mark else ())]
    defects += [*notes.funding, *(_check_stamps(funding) if funding else ())]
    paid = list(dividend_defects(dividends, has_funding=bool(funding))) if dividends else []
    defects += [*notes.dividends, *paid]
    if bars is None or interval is None:
        return None, [*defects, *_check_without_bars(mark, funding)]
    mark, funding = mark and in_order(mark), funding and in_order(funding)
    filled = dict(notes.repairs)
    if dividends and not defects:
        bars = in_order(bars)
        column = place_dividends(dividends, bars.time, interval, filled)
        bars = bars._replace(columns={**bars.columns, DIVIDEND: column})
    return _align(in_order(bars), mark, funding, interval, options, defects, filled)


def read_tables(frames: MarketFrames, options: ReadOptions) -> tuple[MarketTables, ReadNotes]:
    notes: dict[str, str] = {}
    length: int | None = None
    bars, bar_defects = read_table(frames.bars, BARS, options.timezone)
    if bars is not None and "price" in bars.columns and "open" not in bars.columns:
        bars, more, note = make_bars(bars, options.bar_length)
        bar_defects = [*bar_defects, *more]
        notes |= note
        length = options.bar_length
    mark, mark_defects = read_table(frames.mark, MARK, options.timezone)
    funding, funding_defects = read_table(frames.funding, FUNDING, options.timezone)
    dividends, dividend_notes = read_table(frames.dividends, DIVIDENDS, options.timezone)
    step = length or (find_interval(bars, options)[0] if bars else None)
    given = (("bars", bars), ("mark", mark), ("funding", funding))
    repaired = {
        role: apply_repairs(table, role, options.repairs, step, notes) if table else None
        for role, table in given
    }
    tables = MarketTables(**repaired, dividends=dividends)
    found = (bar_defects, mark_defects, funding_defects, dividend_notes)
    return tables, ReadNotes(*found, notes, length)


def _align(
    bars: TimedTable,
    mark: TimedTable | None,
    funding: TimedTable | None,
    interval: int,
    options: ReadOptions,
    known: list[Defect],
    filled: dict[str, str],
) -> tuple[MarketData | None, list[Defect]]:
    span = span_of(bars, interval)
    marks = align_mark(bars, mark, interval, sessions=options.sessions) if mark else None
    events = select_funding(funding, span, interval) if funding else None
    needed = span  # the part that has everything that is not filled by choice
    if marks and not options.mark_gaps:
        needed = needed.within(marks.covered)
    if events and not options.funding_gaps:
        needed = needed.within(events.covered)
    cut = needed.on_bars(bars.time, interval)
    filled |= {} if events else {"funding": "none given"}
    defects = [
        *known,
        *(price_defects(marks.table, "mark ") if marks else ()),
        *(marks.defects(cut, options.mark_gaps, filled) if marks else ()),
        *_check_scales(bars, marks, funding),
        *(rate_defects(events.table, LARGEST_RATE) if events else ()),
        *(events.defects(cut, options.funding_gaps, filled) if events else ()),
    ]
    if defects:
        return None, defects
    return _build_data(bars, marks, events, interval, options, filled), []


def _check_scales(
    bars: TimedTable, marks: AlignedMark | None, funding: TimedTable | None
) -> Iterator[Defect]:
    has_closes = marks and "close" in bars.columns and "close" in marks.table.columns
    if marks and not marks.odd and has_closes:
        yield from mark_scale_defects(bars, marks.present, marks.table)
    if funding:
        yield from rate_scale_defects(funding)


def _build_data(
    bars: TimedTable,
    marks: AlignedMark | None,
    events: FundingEvents | None,
    interval: int,
    options: ReadOptions,
    filled: dict[str, str],
) -> MarketData:
    extras = {key: values for key, values in bars.columns.items() if key not in BARS.known}
    marked = marks.fill(bars) if marks else bars.columns
    none = TimedTable("", np.empty(0, np.int64), {"rate": np.empty(0)})
    settled = events.table if events else none
    unknown = np.full(settled.time.size, np.nan)
    fields: dict[str, Any] = {
        **{name: bars.columns[name] for name in PRICES},
        **{f"mark_{name}": marked[name] for name in PRICES},
        "time": bars.time,
        "volume": bars.columns.get("volume", np.zeros(bars.time.size)),
        "funding_time": settled.time,
        "funding_rate": settled.columns["rate"],
        "funding_mark": settled.columns.get("mark", unknown),
        "funding_predicted": settled.columns.get("predicted", unknown),
    }
    return MarketData(
        **fields,
        instrument=options.instrument,
        interval=interval,
        has_mark=marks is not None,
        columns=extras,
        synthetic=options.synthetic,
        sessions=options.sessions,
        filled=filled,
    )


def _check_bars(bars: TimedTable, interval: int | None, *, sessions: bool) -> list[Defect]:
    return [
        *order_defects(bars, "bars"),
        *(spacing_defects(bars, interval, sessions=sessions) if interval else ()),
        *price_defects(bars, ""),
        *volume_defects(bars),
    ]


def find_interval(bars: TimedTable, options: ReadOptions) -> tuple[int | None, list[Defect]]:
    """Return the length of a bar in ns, None if it cannot be known, and what is wrong with it."""
    given, time = options.interval, distinct(bars.time)
    found = spacing(time)
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
    wrong = Defect(
        f"bars must open {format_duration(length)} apart, as given, they open "
        f"{format_duration(found)} apart ({bars.name})"
    )
    return found, [wrong]


def _check_stamps(funding: TimedTable) -> list[Defect]:
    return [*order_defects(funding, "funding stamps"), *stamp_defects(funding)]


def _check_without_bars(mark: TimedTable | None, funding: TimedTable | None) -> Iterator[Defect]:
    if mark:
        yield from price_defects(mark, "mark ")
    if funding:
        yield from rate_defects(funding, LARGEST_RATE)
        yield from rate_scale_defects(in_order(funding))


WHOLE = 60
"""A bar at either end is complete if its first (last) trade is within this part of its end."""


def make_bars(
    trades: TimedTable, length: int | None
) -> tuple[TimedTable | None, list[Defect], dict[str, str]]:
    """Return the bars of ``length`` ns that trades make, the defects of the trades, and a note."""
    defects = [*_trade_defects(trades, length)]
    if defects or length is None:
        return None, defects, {}
    price = trades.columns["price"]
    bucket = (trades.time - grid_origin(length)) // length
    first = np.flatnonzero(np.diff(bucket, prepend=bucket[0] - 1))
    groups = BarGroups(bucket[first] * length + grid_origin(length), first)
    columns = dict(zip(PRICES, groups.ohlc(price, price, price, price), strict=True))
    columns["volume"] = groups.total(trades.columns.get("size", np.zeros(price.size)))
    bars = TimedTable(trades.name, groups.time, columns)
    late = int(trades.time[0] - bars.time[0]) > length // WHOLE
    early = int(bars.time[-1] + length - trades.time[-1]) > length // WHOLE
    kept = bars.rows(slice(int(late), bars.time.size - int(early)))
    text = f"{int(late)} bar at the start and {int(early)} at the end dropped: not filled by trades"
    if not kept.time.size:
        return None, [_none_complete(trades, length)], {}
    return kept, [], {"trades": text} if late or early else {}


def _trade_defects(trades: TimedTable, length: int | None) -> Iterator[Defect]:
    if length is None:
        yield Defect(
            f"trades must be made into bars, found {trades.time.size} trades ({trades.name}); "
            "resample='1h'"
        )
        return
    yield from (each for each in order_defects(trades, "trades") if "in order" in each)
    price, size = trades.columns["price"], trades.columns.get("size", np.zeros(0))
    for name, values, is_valid, rule in (
        ("price", price, price > 0.0, "positive"),
        ("size", size, size >= 0.0, "zero or more"),
    ):
        rows = np.flatnonzero(~(is_valid & (values < np.inf)))
        if rows.size:
            first = format_time(int(trades.time[rows[0]]))
            yield Defect(
                f"{name} must be {rule} and finite, got {values[rows[0]]} in {rows.size} of "
                f"{values.size} trades ({trades.name}, first at {first} UTC)"
            )


def _none_complete(trades: TimedTable, length: int) -> Defect:
    return Defect(
        f"trades must fill at least one bar of {format_duration(length)}, found {trades.time.size} "
        f"trades from {format_time(int(trades.time[0]))} to {format_time(int(trades.time[-1]))} "
        f"UTC ({trades.name})"
    )
