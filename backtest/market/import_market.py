"""Markets out of files of other tools: renamed, mended where that was asked for, made longer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from backtest.base.errors import ParameterError
from backtest.base.units import parse_duration
from backtest.market.market import Between, Market
from backtest.market.read.files import SUFFIXES, suffix_of
from backtest.market.read.folder import load_facts
from backtest.market.tables.read_options import ReadOptions, read_decimal, read_names, read_options
from backtest.market.tables.repairs import parse_repairs

Paths: TypeAlias = Sequence[str | Path]

_WHERE = "bt.import_market"


def import_market(
    *paths: str | Path,
    mark: Paths = (),
    funding: Paths = (),
    columns: Mapping[str, str | int] | None = None,
    resample: str | None = None,
    repair: str | Sequence[str] = (),
    instrument: str | None = None,
    interval: str | None = None,
    funding_interval: str | None = None,
    timezone: str | None = None,
    sessions: bool = False,
    between: Between = None,
    decimal: str = ".",
) -> Market:
    """Return the market in files of other tools and of any names; ``save`` keeps it.

    freqtrade (feather, json.gz, parquet), ccxt (JSON), Binance's archive (CSV and zip), files like
    CryptoDataDownload's, frames of yfinance and vectorbt, plain CSV, and single trades. They come
    in by the same door as those of :meth:`Market.load`, with the same checks.

    Parameters
    ----------
    *paths : str or Path
        One folder, or one or several files; several of a kind are parts of one table.
    mark, funding : sequence of str or Path
        Files, or folders of files, that are so although their names do not say it.
    columns : mapping of str to str or int, optional
        Which column of the bars is what, by name or position from 0:
        ``{"time": "ts", "open": "o"}``; those of the other files as ``"mark.time"`` and
        ``"funding.rate"``. Columns that are not named are left out.
    resample : str, optional
        Length of the bars wanted, a multiple of those given; needed for trades.
    repair : str or sequence of str, optional
        Names of repairs, such as ``"drop-duplicates,mark-gaps=last"``; see
        :data:`backtest.market.tables.repairs.KINDS`. What each did stands in ``market.filled``.
    instrument, interval, funding_interval, timezone, sessions, between
        As in :meth:`Market.load`.
    decimal : str
        What stands before the decimals in CSV files, ``"."`` or ``","``.

    Raises
    ------
    DataError
        Listing every defect of every file, each with its place and cure.
    ParameterError
        If an argument is unknown or unreadable.
    """
    if not paths:
        raise ParameterError("an import needs a file", where=_WHERE, cure="give its path")
    choices = _read_choices(
        columns, resample, repair, instrument, interval, timezone, sessions, between, decimal,
        funding_interval,
    )  # fmt: skip
    facts = load_facts(
        [Path(path) for path in paths],
        choices,
        mark=_list_files(mark),
        funding=_list_files(funding),
        joins=True,
    )
    given = ", ".join(repr(str(path)) for path in paths)
    market = Market(**facts, source=f"bt.import_market({given})")
    if resample is None or market.interval == choices.bar_length:
        return market
    return market.resample(resample)


def _list_files(paths: Paths) -> list[Path]:
    """Return files, and those in folders in the order of their names."""
    found: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        found += [file for file in inside if not path.is_dir() or suffix_of(file) in SUFFIXES]
    return found


def _read_choices(
    columns: Mapping[str, str | int] | None,
    resample: str | None,
    repair: str | Sequence[str],
    instrument: str | None,
    interval: str | None,
    timezone: str | None,
    sessions: bool,
    between: Between,
    decimal: str,
    funding_interval: str | None,
) -> ReadOptions:
    repairs = parse_repairs([repair] if isinstance(repair, str) else repair, where="repair")
    ways = {each.name: each.way for each in repairs}
    choices = read_options(
        instrument=instrument,
        interval=interval,
        timezone=timezone,
        mark_gaps=ways.get("mark-gaps"),
        funding_gaps=ways.get("funding-gaps"),
        sessions=sessions,
        between=between,
        funding_interval=funding_interval,
    )
    return choices._replace(
        columns=read_names(columns),
        repairs=repairs,
        bar_length=None if resample is None else parse_duration(resample, where="resample"),
        decimal=read_decimal(decimal),
    )
