"""``import_market``: a market from files of other tools, with columns renamed and data repaired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from backtest.base import ParameterError, checked
from backtest.market.files import SUFFIXES, load_fields, suffix_of
from backtest.market.loading import read_options
from backtest.market.market import Between, Market

Paths: TypeAlias = Sequence[str | Path]


@checked
def import_market(  # noqa: PLR0913 - one for each choice of the reader
    *paths: str | Path,
    mark: Paths = (),
    funding: Paths = (),
    dividends: Paths = (),
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
    """Return the market in files of other tools, with any names; ``save`` keeps it.

    It reads files of freqtrade (feather, parquet), Binance's archive (CSV and zip), and plain CSV.
    The checks are those of :meth:`Market.load`.

    Raises DataError listing every defect of every file, each with its place and cure;
    ParameterError if an argument is unknown or unreadable.

    Parameters
    ----------
    *paths : str or Path
        One folder, or one or several files; several files of a kind are joined to one table.
    mark, funding : sequence of str or Path
        Files, or folders of files, of mark prices and of funding, if their names do not say so.
    dividends : sequence of str or Path
        Files of dividends per share (``time``, ``amount``), likewise; see
        :meth:`Market.from_frames`.
    columns : mapping of str to str or int, optional
        Our names of the bars' columns, and their names or positions (from 0) in the files:
        ``{"time": "ts", "open": "o"}``; for the other files ``"mark.time"``,
        ``"funding.rate"`` and ``"dividends.amount"``. Columns that are not named are left out.
    resample : str, optional
        Length of the resulting bars, a multiple of the given one.
    repair : str or sequence of str, optional
        Names of repairs, such as ``"drop-duplicates,mark-gaps=last"``; see
        the table of repairs in the documentation. ``market.filled`` notes what each did.
    instrument, interval, funding_interval, timezone, sessions, between
        As in :meth:`Market.load`.
    decimal : str
        The decimal mark of CSV files, ``"."`` or ``","``.
    """
    if not paths:
        raise ParameterError("an import needs a file, got none")
    options = read_options(
        columns=columns,
        repair=repair,
        instrument=instrument,
        interval=interval,
        timezone=timezone,
        sessions=sessions,
        between=between,
        decimal=decimal,
        funding_interval=funding_interval,
    )
    fields = load_fields(
        [Path(path) for path in paths],
        options,
        mark=_list_files(mark),
        funding=_list_files(funding),
        dividends=_list_files(dividends),
        joins=True,
    )
    given = ", ".join(repr(str(path)) for path in paths)
    market = Market(**fields, source=f"bt.import_market({given})")
    return market if resample is None else market.resample(resample)


def _list_files(paths: Paths) -> list[Path]:
    found: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        found += [file for file in inside if not path.is_dir() or suffix_of(file) in SUFFIXES]
    return found
