"""``backtest data import``: convert files of other tools to the layout that every command reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from backtest.base.units import format_duration, format_time
from backtest.cli.flags import AsJson
from backtest.cli.printing import print_json, print_paragraph
from backtest.cli.progress import show_activity
from backtest.cli.typed_values import split_pair
from backtest.market.import_market import import_market
from backtest.market.inspect.quality_report import Quality
from backtest.market.market import Market
from backtest.market.quality_of import quality
from backtest.market.tables.repairs import KINDS, Repair

EXAMPLES = """
backtest data import user_data/data/binance/futures --instrument BTCUSDT --interval 1h --out btc
backtest data import klines/BTCUSDT/1h --mark markPriceKlines/BTCUSDT/1h --funding rates --out btc
backtest data import prices.csv --columns time=ts,open=o,high=h,low=l,close=c --timezone UTC --out x
backtest data import trades.csv.gz --resample 1m --out ticks
backtest data import btc.json --repair sort,drop-duplicates,funding-gaps=zero --out btc
"""

REPAIRS = "; ".join(
    f"{'|'.join(str(Repair(name, way)) for way in kind.ways)}: {kind.text}"
    for name, kind in KINDS.items()
)
"""Each repair and what it does."""


def option(text: str, *names: str) -> Any:
    """Return a flag whose default is stated in its help text."""
    return typer.Option(*names, help=text, show_default=False)


Columns = Annotated[
    str | None,
    option("Which column is what: time=ts,open=o,...; by name or position.", "--columns"),
]
Instrument = Annotated[
    str | None, option("Name of the instrument; chooses one of several.", "--instrument")
]
Interval = Annotated[str | None, option("Chooses the bars among several files.", "--interval")]
FundingInterval = Annotated[
    str | None, option("Chooses the funding among several files.", "--funding-interval")
]
Timezone = Annotated[str | None, option("Time zone of stamps that carry none: UTC.", "--timezone")]
Sessions = Annotated[bool, option("The market closes: bars may be missing.", "--sessions")]
Decimal = Annotated[str, option("Decimal mark of a CSV: '.' or ','.", "--decimal")]


def import_files(  # noqa: PLR0913 - one for each flag
    files: Annotated[
        list[Path],
        typer.Argument(
            help="A folder, or files; several are parts of one table.", metavar="FILE..."
        ),
    ],
    *,
    out: Annotated[Path, option("The new folder.", "--out")],
    mark: Annotated[
        list[Path] | None, option("Mark bars: a file or folder; repeat for more.", "--mark")
    ] = None,
    funding: Annotated[
        list[Path] | None, option("Funding: a file or folder; repeat for more.", "--funding")
    ] = None,
    columns: Columns = None,
    resample: Annotated[
        str | None, option("Combine bars or trades into bars of this length: 1h.", "--resample")
    ] = None,
    repair: Annotated[list[str] | None, option(f"Only where asked. {REPAIRS}.", "--repair")] = None,
    instrument: Instrument = None,
    interval: Interval = None,
    funding_interval: FundingInterval = None,
    timezone: Timezone = None,
    sessions: Sessions = False,
    start: Annotated[str | None, option("First bar to read, UTC.", "--from")] = None,
    end: Annotated[str | None, option("End of the last bar, UTC.", "--to")] = None,
    decimal: Decimal = ".",
    as_json: AsJson = False,
) -> None:
    """Convert files of other tools to the project's layout: checked, all or nothing.

    Reads what freqtrade, ccxt, Binance's archive, CryptoDataDownload, yfinance and vectorbt write,
    plain CSV with --columns, and single trades with --resample. Every defect is refused, unless a
    --repair of that name is asked for; what it did is recorded with the data.
    """
    with show_activity("importing"):
        market = import_market(
            *files,
            mark=mark or (),
            funding=funding or (),
            columns=read_columns(columns),
            resample=resample,
            repair=repair or (),
            instrument=instrument,
            interval=interval,
            funding_interval=funding_interval,
            timezone=timezone,
            sessions=sessions,
            between=(start, end) if start or end else None,
            decimal=decimal,
        )
        market.save(out)
        report = quality(market)
    if as_json:
        print_json(describe(market, out, report))
    else:
        print_market(market, out, report)


def read_columns(text: str | None) -> dict[str, str | int]:
    """Return the map of ``"time=ts,open=o"``.

    Examples
    --------
    >>> read_columns("time=ts,open=1")
    {'time': 'ts', 'open': '1'}
    """
    if text is None:
        return {}
    return dict(split_pair("--columns", part, "time=ts,open=o") for part in text.split(","))


def describe(market: Market, out: Path, report: Quality) -> dict[str, object]:
    """Return what was imported."""
    return {
        "path": str(out),
        "instrument": market.instrument,
        "interval": format_duration(market.interval),
        "bars": len(market),
        "start": format_time(market.start),
        "end": format_time(market.end),
        "has_mark": market.has_mark,
        "funding_events": int(market.funding_time.size),
        "columns": list(market.columns),
        "filled": dict(market.filled),
        "content_hash": market.content_hash,
        "verdicts": [each.to_dict() for each in report.verdicts],
    }


def print_market(market: Market, out: Path, report: Quality) -> None:
    """Print what was imported, what was mended, what it is good for, and where it is."""
    typer.secho(f"{market.instrument or 'market'} {format_duration(market.interval)}", bold=True)
    marked = "with mark prices" if market.has_mark else "no mark prices"
    settled = f"{market.funding_time.size} settlements"
    span = f"{format_time(market.start)} to {format_time(market.end)} UTC"
    print_paragraph(f"{len(market)} bars, {span}; {marked}; {settled}")
    for name, note in market.filled.items():
        print_paragraph(f"{name}: {note}")
    for each in report.verdicts:
        print_paragraph(f"fit for {each.use}: {each.fit}{reasons(each.reasons)}")
    print_paragraph(f"saved: {out}", indent="")


def reasons(texts: Sequence[str]) -> str:
    """Return reasons as the end of a line."""
    return f" ({'; '.join(texts)})" if texts else ""
