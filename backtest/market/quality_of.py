"""The quality report on a market, or on files that need not even load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from backtest.base.errors import ParameterError
from backtest.base.units import format_duration
from backtest.market.inspect.inspection import build_quality
from backtest.market.inspect.quality_report import Quality
from backtest.market.market import Market
from backtest.market.read.folder import complete_options, read_layout
from backtest.market.read.funding_files import choose_funding
from backtest.market.read.layouts import find_layout
from backtest.market.tables.assemble import MarketTables, examine, find_interval, read_tables
from backtest.market.tables.defects import Defect
from backtest.market.tables.frames import TimedTable
from backtest.market.tables.read_options import ReadOptions, read_decimal, read_names, read_options

__all__ = ["Quality", "quality"]

_NAIVE = "stamps must say their zone"
_NOTE = "stamps carry no zone: read as UTC for this report; the loader asks for timezone="


def quality(
    data: Market | str | Path | Sequence[str | Path],
    *,
    columns: Mapping[str, str | int] | None = None,
    instrument: str | None = None,
    interval: str | None = None,
    funding_interval: str | None = None,
    timezone: str | None = None,
    sessions: bool = False,
    decimal: str = ".",
) -> Quality:
    """Return what data look like and what they are fit for; nothing is refused or mended.

    Parameters
    ----------
    data : Market, path, or sequence of paths
        A folder or files are read even where :meth:`Market.load` refuses them.
    columns, decimal
        As in :func:`backtest.import_market`, for files with other names or decimal commas.
    instrument, interval, funding_interval, timezone, sessions
        As in :meth:`Market.load`; a market knows them.

    Returns
    -------
    Quality
        Gaps, duplicates, odd prices, the mark beside the last price, the cadence of funding, and
        a verdict per use.

    Raises
    ------
    DataError
        If there is no such path, or it does not say which of several instruments is meant.
    ParameterError
        If an argument is unknown or unreadable.

    Examples
    --------
    >>> report = quality(Market.sample(bars=240))
    >>> report.fit_for("liquidation"), report.bars.gaps.missing
    ('yes', 0)
    """
    if isinstance(data, Market):
        return _of_market(data)
    paths = [data] if isinstance(data, (str, Path)) else list(data)
    if not paths:
        raise ParameterError("quality needs a path", where="bt.quality", cure="give a folder")
    choices = read_options(
        instrument=instrument,
        interval=interval,
        timezone=timezone,
        mark_gaps=None,
        funding_gaps=None,
        sessions=sessions,
        between=None,
        funding_interval=funding_interval,
    )
    named = choices._replace(columns=read_names(columns), decimal=read_decimal(decimal))
    return _of_files([Path(path) for path in paths], named)


def _of_market(market: Market) -> Quality:
    names = ("open", "high", "low", "close")
    last = {name: getattr(market, name) for name in (*names, "volume")}
    bars = TimedTable("bars", market.time, last)
    mark = TimedTable(
        "mark", market.time, {name: getattr(market, f"mark_{name}") for name in names}
    )
    events = {
        "rate": market.funding_rate,
        "mark": market.funding_mark,
        "predicted": market.funding_predicted,
    }
    has_funding = bool(market.funding_time.size)
    funding = TimedTable("funding", market.funding_time, events) if has_funding else None
    return build_quality(
        MarketTables(bars, mark if market.has_mark else None, funding),
        source=repr(market),
        instrument=market.instrument,
        interval=market.interval,
        sessions=market.sessions,
        filled=market.filled,
    )


def _of_files(paths: Sequence[Path], choices: ReadOptions) -> Quality:
    layout = find_layout(
        paths,
        instrument=choices.instrument or None,
        interval=format_duration(choices.interval) if choices.interval else None,
        funding_interval=choices.funding_text,
        joins=True,
        needs_bars=False,
    )
    told = complete_options(choices, layout)
    layout, frames = choose_funding(layout, read_layout(layout, told), told)
    defects = examine(frames, told)[1] if layout.bars else [_no_bars(paths)]
    notes: tuple[str, ...] = ()
    if any(defect.rule == _NAIVE for defect in defects):
        told, notes = told._replace(timezone="UTC"), (_NOTE,)
    tables, _ = read_tables(frames, told)
    shown = MarketTables(*(_usable(table) for table in tables))
    return build_quality(
        shown,
        source=", ".join(map(str, paths)),
        instrument=told.instrument,
        interval=find_interval(shown.bars, told)[0] if shown.bars else None,
        sessions=told.sessions,
        defects=tuple(defects),
        filled=layout.filled,
        notes=notes,
    )


def _usable(table: TimedTable | None) -> TimedTable | None:
    """Return a table that has rows and columns; infinite values are left in it."""
    if table is None or not table.time.size or not table.columns:
        return None
    return table._replace(time=np.ascontiguousarray(table.time))


def _no_bars(paths: Sequence[Path]) -> Defect:
    where = ", ".join(map(str, paths))
    return Defect("a market needs bars", "found none", where, "give a file of bars too")
