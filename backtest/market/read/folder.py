"""From paths to the arrays of a market: find the layout, read its files, assemble them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from backtest.base import DataError, FloatArray, IntArray, format_time, parse_duration
from backtest.base.units import HOUR, MINUTE
from backtest.market.read.csv_files import FIRST_LINE
from backtest.market.read.files import read_file
from backtest.market.read.layouts import ROLES, Layout, find_layout, find_rate_column
from backtest.market.read.vendors import rename_columns
from backtest.market.tables.align import SourceFrame, read_table, select_funding, span_of
from backtest.market.tables.bar_checks import spacing
from backtest.market.tables.defects import Defect
from backtest.market.tables.market_data import MarketData
from backtest.market.tables.market_from_frames import MarketFrames, align_frames
from backtest.market.tables.read_options import ReadOptions
from backtest.market.tables.timed_table import BARS, FUNDING, TimedTable, distinct, in_order


class SourceFiles(NamedTuple):
    layout: Layout
    frames: MarketFrames
    options: ReadOptions


def load_data(
    paths: Sequence[Path],
    options: ReadOptions,
    *,
    mark: Sequence[Path] = (),
    funding: Sequence[Path] = (),
    dividends: Sequence[Path] = (),
    joins: bool = False,
) -> MarketData:
    files = open_files(paths, options, mark=mark, funding=funding, dividends=dividends, joins=joins)
    data = align_frames(files.frames, files.options, where=", ".join(map(str, paths)))
    return dataclasses.replace(data, filled={**data.filled, **files.layout.filled})


def open_files(
    paths: Sequence[Path],
    options: ReadOptions,
    *,
    mark: Sequence[Path] = (),
    funding: Sequence[Path] = (),
    dividends: Sequence[Path] = (),
    joins: bool = False,
    needs_bars: bool = True,
) -> SourceFiles:
    layout = find_layout(paths, options, joins=joins, needs_bars=needs_bars)
    if mark:
        layout = layout._replace(mark=tuple(mark))
    if funding:
        layout = layout._replace(
            funding=tuple(funding), rate_column=find_rate_column(funding), has_same_funding=False
        )
    if dividends:
        layout = layout._replace(dividends=tuple(dividends))
    options = _complete_options(options, layout)
    files = ((role, getattr(layout, role)) for role in ROLES)
    frames = MarketFrames(
        *(tuple(_read_part(path, role, layout, options) for path in paths) for role, paths in files)
    )
    return SourceFiles(*choose_funding(layout, frames, options), options)


def _complete_options(options: ReadOptions, layout: Layout) -> ReadOptions:
    interval = parse_duration(layout.interval, "interval") if layout.interval else None
    known_gaps = "zero" if "funding_gaps" in layout.filled else None  # accepted when it was saved
    return options._replace(
        instrument=layout.instrument or options.instrument,
        interval=options.interval or interval,
        funding_gaps=options.funding_gaps or known_gaps,
        sessions=options.sessions or layout.sessions,
        synthetic=layout.synthetic,
    )


def _read_part(path: Path, role: str, layout: Layout, options: ReadOptions) -> SourceFrame:
    chosen = _columns_of(role, options.columns)
    times = [chosen[name] for name in ("time",) if name in chosen]
    frame = read_file(path, times, options.decimal)
    line = None if isinstance(frame, Defect) else frame.attrs.get(FIRST_LINE)
    if not isinstance(frame, Defect):
        frame = rename_columns(frame, role, chosen, options.instrument, where=str(path))
    if not isinstance(frame, Defect) and role == "funding":
        frame = _name_rate(frame, layout.rate_column)
    return SourceFrame(path.name, frame, is_file=True, first_line=line)


def _columns_of(role: str, columns: Mapping[str, str]) -> dict[str, str]:
    if role == "bars":
        return {ours: theirs for ours, theirs in columns.items() if "." not in ours}
    lead = f"{role}."
    return {n.removeprefix(lead): theirs for n, theirs in columns.items() if n.startswith(lead)}


def _name_rate(frame: pd.DataFrame, rate_column: str) -> pd.DataFrame:
    if rate_column == "rate" or rate_column not in frame:
        return frame
    zeros = [name for name in ("high", "low", "close", "volume") if name in frame]
    return frame.drop(columns=zeros).rename(columns={rate_column: "rate"})


ALIKE = 1e-9
"""Rates of two files are equal if they differ by less."""


class Cover(NamedTuple):
    share: float
    settlements: int


def choose_funding(
    layout: Layout, frames: MarketFrames, options: ReadOptions
) -> tuple[Layout, MarketFrames]:
    if not layout.has_same_funding:
        return layout, frames
    tables = [read_table((part,), FUNDING, options.timezone)[0] for part in frames.funding]
    _check_agreement([table for table in tables if table and "rate" in table.columns])
    bars = read_table(frames.bars, BARS, options.timezone)[0]
    covers = [_cover(bars, table, options) for table in tables]
    best = max(range(len(covers)), key=lambda row: (*covers[row], -row))
    named = zip(layout.funding, covers, strict=True)
    names = [f"{path.name} ({cover.share:.1%})" for path, cover in named]
    others = ", ".join(name for row, name in enumerate(names) if row != best)
    note = f"by the share of the bars covered: {names[best]}, not {others}"
    chosen = layout._replace(
        funding=(layout.funding[best],),
        has_same_funding=False,
        filled={**layout.filled, "funding_file": note},
    )
    return chosen, frames._replace(funding=(frames.funding[best],))


def _cover(bars: TimedTable | None, funding: TimedTable | None, options: ReadOptions) -> Cover:
    if bars is None or funding is None or not bars.time.size or not funding.time.size:
        return Cover(0.0, 0)
    ordered = in_order(bars)
    interval = options.interval or spacing(distinct(ordered.time)) or HOUR
    span = span_of(ordered, interval)
    low, high = options.between
    start = span.start if low is None else max(low, span.start)
    end = span.end if high is None else min(high, span.end)
    if start >= end:
        return Cover(0.0, 0)
    events = select_funding(in_order(funding), span._replace(start=start, end=end), interval)
    covered = events.covered
    share = max(covered.end - covered.start, 0) / (end - start)
    return Cover(share, int(events.table.time.size))


def _check_agreement(tables: list[TimedTable]) -> None:
    for first, second in pairwise(tables):
        one, other = map(in_order, (first, second))
        shared, mine, theirs = np.intersect1d(
            _minutes(one.time), _minutes(other.time), return_indices=True
        )
        differ = np.flatnonzero(
            ~_are_alike(one.columns["rate"][mine], other.columns["rate"][theirs])
        )
        if differ.size:
            raise DataError(
                f"files of funding must agree, {differ.size} of {shared.size} settlements differ, "
                f"first at {format_time(int(shared[differ[0]]) * MINUTE)} UTC ({first.name} and "
                f"{second.name}); choose one, funding_interval='8h' for example"
            )


def _minutes(time: IntArray) -> IntArray:
    return (time + MINUTE // 2) // MINUTE


def _are_alike(one: FloatArray, other: FloatArray) -> np.ndarray:
    return np.isclose(one, other, rtol=0.0, atol=ALIKE, equal_nan=True)
