"""``quality``: the report on markets or files, on each of them and how they fit together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
import pandas as pd

from backtest.base import (
    BacktestError,
    FloatArray,
    IntArray,
    ParameterError,
    checked,
    format_duration,
    format_time,
    utc_index,
)
from backtest.base.units import DAY
from backtest.market.inspect.inspection import inspect_files, inspect_market
from backtest.market.inspect.quality_report import Fit, Quality
from backtest.market.market import Market
from backtest.market.markets import Markets
from backtest.market.read.instrument_folders import find_sources
from backtest.market.tables.bar_checks import spacing
from backtest.market.tables.read_options import read_options
from backtest.market.tables.timed_table import TimedTable, distinct, in_order

FITS: tuple[Fit, ...] = ("yes", "with care", "no")
LEAST_RETURNS = 10
"""Returns in common from which a correlation is shown."""


@dataclass(frozen=True)
class InstrumentSpan:
    name: str
    start: str
    end: str
    bars: int
    missing: int
    first_missing: str = ""
    beside: str = ""


@dataclass(frozen=True)
class PanelQuality:
    """How the data of several instruments fit together.

    ``common_start`` and ``common_end`` bound the bars that all instruments have, ``common_bars``
    in number; empty if there are none. ``correlations`` are those of ``period`` log returns at
    closes, by pair, NaN with fewer than ten of them. ``refused`` says what does not load, or why
    the markets do not load together; it is empty if they do.
    ``reports`` has the report on each instrument.
    """

    start: str
    end: str
    bars: int
    common_start: str
    common_end: str
    common_bars: int
    period: str
    instruments: tuple[InstrumentSpan, ...]
    correlations: Mapping[str, Mapping[str, float]]
    refused: str = ""
    reports: Mapping[str, Quality] = field(default_factory=dict)

    def fit_for(self, use: str) -> Fit:
        """Return the worst verdict of the instruments on a use; see :meth:`Quality.fit_for`."""
        return max((each.fit_for(use) for each in self.reports.values()), key=FITS.index)

    def to_dict(self) -> dict[str, Any]:
        """Return the reports on the markets and on the panel as plain data."""
        facts = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        facts["instruments"] = [dataclasses.asdict(each) for each in self.instruments]
        reports = facts.pop("reports")
        return {"markets": {name: each.to_dict() for name, each in reports.items()}, "panel": facts}


def inspect_markets(markets: Markets) -> PanelQuality:
    tables = {
        name: TimedTable("bars", each.time, {"close": each.close}) for name, each in markets.items()
    }
    reports = {name: inspect_market(each) for name, each in markets.items()}
    return dataclasses.replace(measure_panel(tables), reports=reports)


def inspect_panel(
    paths: Sequence[str | Path], instruments: Sequence[str] | None = None, **options: Any
) -> PanelQuality:
    sources = find_sources([Path(path) for path in paths], instruments)
    reports: dict[str, Quality] = {}
    tables: dict[str, TimedTable] = {}
    for name, source in sources.items():
        read = read_options(instrument=source.instrument, **options)
        reports[name], bars = inspect_files([source.path], read)
        if bars is not None:
            tables[name] = in_order(bars)
    alone = [name for name, report in reports.items() if report.defects]
    refused = f"by themselves: {', '.join(alone)}"
    if not alone:
        refused = _find_refusal(paths, instruments, options)
    panel = measure_panel(tables)
    return dataclasses.replace(panel, refused=refused, reports=reports)


def _find_refusal(
    paths: Sequence[str | Path], instruments: Sequence[str] | None, options: Mapping[str, Any]
) -> str:
    try:
        Markets.load(*paths, instruments=instruments, **options)
    except BacktestError as error:
        return str(error)
    return ""


def measure_panel(tables: Mapping[str, TimedTable]) -> PanelQuality:
    times = {name: distinct(table.time) for name, table in tables.items()}
    clock = np.unique(np.concatenate([*times.values(), np.empty(0, np.int64)]))
    step = max((spacing(time) or 0 for time in times.values()), default=0)
    shared = clock
    for time in times.values():
        shared = np.intersect1d(shared, time, assume_unique=True)
    period = max(step, DAY)
    return PanelQuality(
        start=_format_first(clock),
        end=_format_last(clock, step),
        bars=int(clock.size),
        common_start=_format_first(shared),
        common_end=_format_last(shared, step),
        common_bars=int(shared.size),
        period="daily" if period == DAY else format_duration(period),
        instruments=tuple(_measure_span(name, times, clock, step) for name in times),
        correlations=correlate(tables, period),
    )


def _format_first(times: IntArray) -> str:
    return format_time(int(times[0])) if times.size else ""


def _format_last(times: IntArray, step: int) -> str:
    return format_time(int(times[-1]) + step) if times.size else ""


def _measure_span(
    name: str, times: Mapping[str, IntArray], clock: IntArray, step: int
) -> InstrumentSpan:
    own = times[name]
    inside = clock[(clock >= own[0]) & (clock <= own[-1])]
    missing = np.setdiff1d(inside, own, assume_unique=True)
    first = int(missing[0]) if missing.size else 0
    return InstrumentSpan(
        name,
        _format_first(own),
        _format_last(own, step),
        int(own.size),
        int(missing.size),
        format_time(first) if missing.size else "",
        next((n for n, time in times.items() if missing.size and np.isin(first, time)), ""),
    )


def correlate(tables: Mapping[str, TimedTable], period: int) -> dict[str, dict[str, float]]:
    """Return the correlations of log returns between the last closes of each ``period`` (ns)."""
    closes = pd.DataFrame({name: _take_last(table, period) for name, table in tables.items()})
    logs = pd.DataFrame(_take_logs(closes.to_numpy()), closes.index, closes.columns)
    found = logs.diff().corr(min_periods=LEAST_RETURNS)
    return {name: {other: float(found[name][other]) for other in tables} for name in tables}


def _take_logs(closes: FloatArray) -> FloatArray:
    with np.errstate(all="ignore"):
        return np.where(closes > 0.0, np.log(closes), np.nan)


def _take_last(table: TimedTable, period: int) -> pd.Series:
    close: FloatArray = table.columns.get("close", np.full(table.time.size, np.nan))
    stretch = table.time // period
    last = np.flatnonzero(np.diff(stretch, append=stretch[-1] + 1))
    return pd.Series(close[last], index=utc_index(stretch[last] * period))


__all__ = ["PanelQuality", "Quality", "quality"]


@overload
def quality(
    data: Market | str | Path | Sequence[str | Path],
    *,
    columns: Mapping[str, str | int] | None = ...,
    instrument: str | None = ...,
    interval: str | None = ...,
    funding_interval: str | None = ...,
    timezone: str | None = ...,
    sessions: bool = ...,
    decimal: str = ...,
) -> Quality: ...


@overload
def quality(data: Markets) -> PanelQuality: ...


@checked
def quality(
    data: Market | Markets | str | Path | Sequence[str | Path],
    *,
    columns: Mapping[str, str | int] | None = None,
    instrument: str | None = None,
    interval: str | None = None,
    funding_interval: str | None = None,
    timezone: str | None = None,
    sessions: bool = False,
    decimal: str = ".",
) -> Quality | PanelQuality:
    """Return a report on the quality of data and their fitness for use; nothing is changed.

    Parameters
    ----------
    data : Market, Markets, path, or sequence of paths
        A folder or files are read even if :meth:`Market.load` refuses them.
    columns, decimal
        As in :func:`backtest.import_market`, for files with other names or decimal commas.
    instrument, interval, funding_interval, timezone, sessions
        As in :meth:`Market.load`; a market has its own.

    Returns
    -------
    Quality, or PanelQuality of several markets
        Gaps, duplicates, odd prices, the mark compared with the last price, the cadence of
        funding, and a verdict per use. Of several markets, the report on each, their common span,
        the holes in one where others trade, and the correlations of their returns.

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
        return inspect_market(data)
    if isinstance(data, Markets):
        return inspect_markets(data)
    paths = [data] if isinstance(data, (str, Path)) else data
    if not len(paths):
        raise ParameterError("quality needs a path, got none")
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
