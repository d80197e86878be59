"""The report on the data of one market, or of its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backtest.base import Argument, Phrase
from backtest.market.inspect.inspection import build_quality
from backtest.market.inspect.quality_report import Quality
from backtest.market.market import Market
from backtest.market.read.folder import open_files
from backtest.market.tables.defects import Defect
from backtest.market.tables.market_from_frames import (
    MarketTables,
    check_frames,
    find_interval,
    read_tables,
)
from backtest.market.tables.read_options import ReadOptions
from backtest.market.tables.timed_table import PRICES, TimedTable

_NAIVE = "stamps must have a time zone"
_NOTE = Phrase(
    "stamps have no time zone: read as UTC for this report; the loader asks for {}",
    Argument("timezone"),
)


def inspect_market(market: Market) -> Quality:
    """Return the report on a market."""
    last = {name: getattr(market, name) for name in (*PRICES, "volume")}
    mark = {name: getattr(market, f"mark_{name}") for name in PRICES}
    rates = {name: getattr(market, f"funding_{name}") for name in ("rate", "mark", "predicted")}
    has_funding = bool(market.funding_time.size)
    tables = MarketTables(
        TimedTable("bars", market.time, last),
        TimedTable("mark", market.time, mark) if market.has_mark else None,
        TimedTable("funding", market.funding_time, rates) if has_funding else None,
    )
    return build_quality(
        tables,
        source=repr(market),
        instrument=market.instrument,
        interval=market.interval,
        sessions=market.sessions,
        filled=market.filled,
    )


def inspect_files(paths: Sequence[Path], options: ReadOptions) -> tuple[Quality, TimedTable | None]:
    """Return the report on the files of one market, and its bars if they can be read."""
    files = open_files(paths, options, joins=True, needs_bars=False)
    source = ", ".join(map(str, paths))
    options = files.options
    if files.layout.bars:
        defects = check_frames(files.frames, options)[1]
    else:
        defects = [Defect("a market needs bars", "found none", source, "give a file of bars too")]
    notes: tuple[str, ...] = ()
    if any(defect.rule == _NAIVE for defect in defects):
        options, notes = options._replace(timezone="UTC"), (_NOTE,)
    tables, _ = read_tables(files.frames, options)
    usable = MarketTables(*(_if_usable(table) for table in tables))
    report = build_quality(
        usable,
        source=source,
        instrument=options.instrument,
        interval=find_interval(usable.bars, options)[0] if usable.bars else None,
        sessions=options.sessions,
        defects=tuple(defects),
        filled=files.layout.filled,
        notes=notes,
    )
    return report, usable.bars


def _if_usable(table: TimedTable | None) -> TimedTable | None:
    """Return a table if it has rows and columns; infinite values stay in it."""
    if table is None or not table.time.size or not table.columns:
        return None
    return table._replace(time=np.ascontiguousarray(table.time))
