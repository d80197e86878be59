"""``quality``: the report on a market, or on files, even if they cannot be loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from backtest.base.checked_calls import checked_only, is_path
from backtest.base.errors import ParameterError
from backtest.base.json_values import repr_plain
from backtest.base.phrases import Argument, Phrase
from backtest.market.inspect.inspection import build_quality
from backtest.market.inspect.quality_report import Quality
from backtest.market.market import Market
from backtest.market.panel_data import PanelData
from backtest.market.read.folder import open_files
from backtest.market.tables.assemble import MarketTables, check_frames, find_interval, read_tables
from backtest.market.tables.defects import Defect
from backtest.market.tables.frames import PRICES, TimedTable
from backtest.market.tables.read_options import ReadOptions, read_options

__all__ = ["Quality", "quality"]

_NAIVE = "stamps must have a time zone"
_NOTE = Phrase(
    "stamps have no time zone: read as UTC for this report; the loader asks for {}",
    Argument("timezone"),
)


@checked_only("columns", "instrument", "sessions")
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
    """Return a report on the quality of data and their fitness for use; nothing is changed.

    Parameters
    ----------
    data : Market, path, or sequence of paths
        A folder or files are read even if :meth:`Market.load` refuses them.
    columns, decimal
        As in :func:`backtest.import_market`, for files with other names or decimal commas.
    instrument, interval, funding_interval, timezone, sessions
        As in :meth:`Market.load`; a market has its own.

    Returns
    -------
    Quality
        Gaps, duplicates, odd prices, the mark compared with the last price, the cadence of
        funding, and a verdict per use.

    Raises
    ------
    DataError
        If there is no such path, or it holds several instruments and none is chosen.
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
    if isinstance(data, PanelData):
        raise ParameterError(
            f"quality reports on one market, was given {data!r}",
            where="bt.quality",
            cure="call it for each, bt.quality(markets[name]); `backtest data inspect` also shows "
            "how they fit together",
        )
    paths = [data] if isinstance(data, (str, Path)) or not isinstance(data, Sequence) else data
    if not len(paths) or not all(map(is_path, paths)):
        raise ParameterError(
            f"quality needs a path, got {repr_plain(data)}",
            where="bt.quality",
            cure="give a folder",
        )
    options = read_options(
        instrument=instrument,
        interval=interval,
        timezone=timezone,
        sessions=sessions,
        funding_interval=funding_interval,
        columns=columns,
        decimal=decimal,
    )
    return inspect_files([Path(path) for path in paths], options)[0]


def _of_market(market: Market) -> Quality:
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
