"""The choice among several funding files with the same settlements, as freqtrade leaves them."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from backtest.base import Argument, DataError, FloatArray, IntArray, Phrase, format_time
from backtest.base.units import HOUR, MINUTE
from backtest.market.read.layouts import Layout
from backtest.market.tables.align import select_funding, span_of
from backtest.market.tables.bar_checks import spacing
from backtest.market.tables.joined_frames import read_table
from backtest.market.tables.market_from_frames import MarketFrames
from backtest.market.tables.read_options import ReadOptions
from backtest.market.tables.timed_table import BARS, FUNDING, TimedTable, distinct, in_order

ALIKE = 1e-9
"""Rates of two files are equal if they differ by less."""


class Cover(NamedTuple):
    """The share of the bars' time that a funding file covers, and its settlements in that time."""

    share: float
    settlements: int


def choose_funding(
    layout: Layout, frames: MarketFrames, options: ReadOptions
) -> tuple[Layout, MarketFrames]:
    """Keep one of several funding files with the same settlements.

    It is the file that covers most of the bars; of equals, the one with most settlements, then the
    one with the shorter interval. ``layout.filled`` names it.

    Raises DataError if the files disagree about a settlement.
    """
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
    """Refuse files with different rates at the same time."""
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
                f"files of funding must agree, {differ.size} of {shared.size} settlements differ",
                where=f"{first.name} and {second.name}, first at "
                f"{format_time(int(shared[differ[0]]) * MINUTE)} UTC",
                cure=Phrase(
                    "choose one: {}, or keep one of the files", Argument("funding_interval", "8h")
                ),
            )


def _minutes(time: IntArray) -> IntArray:
    return (time + MINUTE // 2) // MINUTE


def _are_alike(one: FloatArray, other: FloatArray) -> np.ndarray:
    return np.isclose(one, other, rtol=0.0, atol=ALIKE, equal_nan=True)
