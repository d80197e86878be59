"""The quality report of market tables: :func:`build_quality`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from backtest.base import format_duration, format_time
from backtest.market.inspect import findings as find
from backtest.market.inspect.findings import Gaps
from backtest.market.inspect.quality_report import (
    BarsQuality,
    FundingQuality,
    MarkQuality,
    Quality,
    assess_fitness,
)
from backtest.market.market import Market
from backtest.market.read.folder import open_files
from backtest.market.tables.bar_checks import spacing
from backtest.market.tables.defects import Defect
from backtest.market.tables.market_from_frames import (
    MarketTables,
    check_frames,
    find_interval,
    read_tables,
)
from backtest.market.tables.read_options import ReadOptions
from backtest.market.tables.scale_checks import compare_prices, measure_rates
from backtest.market.tables.settlements import LARGEST_RATE, nearest_minute, settled_once
from backtest.market.tables.timed_table import PRICES, TimedTable, distinct, in_order
from backtest.market.tables.times import NAIVE


def build_quality(
    tables: MarketTables,
    *,
    source: str,
    instrument: str = "",
    interval: int | None = None,
    sessions: bool = False,
    defects: tuple[Defect, ...] = (),
    filled: Mapping[str, str] | None = None,
    notes: tuple[str, ...] = (),
) -> Quality:
    """Return the report on tables as they were read, sorted or not.

    ``interval`` is the length of a bar in ns, by default the most common distance. ``sessions``
    says whether the market closes, so that bars may be missing. The other arguments become fields
    of :class:`Quality`.
    """
    bars, mark, funding, _ = tables
    length = interval or (spacing(distinct(bars.time)) if bars else None)
    of_bars = measure_bars(bars, length, sessions=sessions) if bars else None
    of_mark = measure_bars(mark, length, sessions=sessions) if mark else None
    comparison = measure_mark(bars, mark) if bars and mark else None
    of_funding = measure_funding(funding, bars, length) if funding else None
    verdicts = assess_fitness(
        of_bars, of_mark, comparison, of_funding, length, defects, filled or {}
    )
    return Quality(
        source, instrument, of_bars, of_mark, comparison, of_funding, defects,
        dict(filled or {}), notes, verdicts,
    )  # fmt: skip


def measure_bars(table: TimedTable, interval: int | None, *, sessions: bool) -> BarsQuality:
    """Return the quality of bars; ``interval`` is in ns, None if unknown."""
    ordered = in_order(table)
    time = ordered.time
    step = spacing(time) or interval
    bad, odd = find.find_bad_prices(ordered) if _has_prices(ordered) else (time < 0, time < 0)
    volume = ordered.columns.get("volume")
    duplicates, conflicting = find.count_duplicates(table)
    off = time % step != 0 if step and not sessions else time < 0
    return BarsQuality(
        rows=int(table.time.size),
        start=format_time(int(time[0])),
        end=format_time(int(time[-1]) + (step or 0)),
        interval=format_duration(step) if step else None,
        gaps=find.find_gaps(time, step) if step and not sessions else Gaps(0, 0, 0, ()),
        duplicates=duplicates,
        conflicting=conflicting,
        disordered=int((np.diff(table.time) < 0).sum()),
        off_boundary=find.count_rows(off, time),
        bad_prices=find.count_rows(bad, time),
        bad_ranges=find.count_rows(odd, time),
        flat=find.count_rows(find.find_flat(ordered), time),
        zero_volume=None if volume is None else find.count_rows(~(volume > 0.0), time),
        outliers=find.find_outliers(ordered),
        unread=tuple(name for name in PRICES if name not in ordered.columns),
    )


def _has_prices(table: TimedTable) -> bool:
    return any(name in table.columns for name in PRICES)


def measure_mark(bars: TimedTable, mark: TimedTable) -> MarkQuality | None:
    if not ({*PRICES} <= {*bars.columns} and {*PRICES} <= {*mark.columns}):
        return None
    bars, mark = in_order(bars), in_order(mark)
    shared = mark.rows(np.flatnonzero(np.isin(mark.time, bars.time)))
    rows = np.searchsorted(bars.time, shared.time)
    wicks = find.find_wicks(bars, shared, rows)
    ratio = compare_prices(bars.columns["close"][rows], shared.columns["close"])
    return MarkQuality(
        coverage=shared.time.size / bars.time.size,
        ratio=ratio.value if ratio else 1.0,
        is_scale_known=ratio is not None and ratio.is_long,
        wicks=find.count_rows(wicks > find.WICK, shared.time),
        longest_wick=float(wicks.max(initial=0.0)),
        stale=find.count_rows(find.find_stale(bars, shared, rows), shared.time),
    )


def measure_funding(
    table: TimedTable, bars: TimedTable | None, interval: int | None
) -> FundingQuality:
    funding = in_order(table)
    time = funding.time
    rate = funding.columns.get("rate", np.full(time.size, np.nan))
    believed = np.abs(rate) <= LARGEST_RATE
    known = rate[~np.isnan(rate)]
    furthest, off = find.measure_offsets(time)
    scale = measure_rates(time, rate)
    covered, most = (
        find.cover_bars(in_order(bars), funding, interval) if bars and interval else (None, None)
    )
    return FundingQuality(
        settlements=int(table.time.size),
        start=format_time(int(nearest_minute(time[0]))),
        end=format_time(int(nearest_minute(time[-1]))),
        cadences=find.list_cadences(time),
        missing=find.find_missing(funding),
        duplicates=int(table.time.size - settled_once(time).size),
        disordered=int((np.diff(table.time) < 0).sum()),
        furthest_stamp=furthest,
        off_boundary=find.count_rows(off, time),
        lowest=float(known.min()) if known.size else float("nan"),
        highest=float(known.max()) if known.size else float("nan"),
        at_largest=int((np.abs(known) == np.abs(known).max()).sum()) if known.size else 0,
        typical=scale.value if scale else float("nan"),
        is_scale_known=scale is not None and scale.is_long,
        unbelievable=find.count_rows(~believed, time),
        coverage=covered,
        most_in_a_bar=most,
        priced=_share_known(funding, "mark"),
        predicted=_share_known(funding, "predicted"),
    )


def _share_known(table: TimedTable, column: str) -> float:
    values = table.columns.get(column)
    return 0.0 if values is None else float(np.isfinite(values).mean())


_NOTE = "stamps have no time zone: read as UTC for this report; the loader asks for timezone="


def inspect_market(market: Market) -> Quality:
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
    files = open_files(paths, options, joins=True, needs_bars=False)
    source = ", ".join(map(str, paths))
    options = files.options
    if files.layout.bars:
        defects = check_frames(files.frames, options)[1]
    else:
        defects = [Defect(f"a market needs bars, found none ({source})")]
    notes: tuple[str, ...] = ()
    if any(defect.startswith(NAIVE) for defect in defects):
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
    if table is None or not table.time.size or not table.columns:
        return None
    return table._replace(time=np.ascontiguousarray(table.time))
