"""``backtest data import``: convert files of other tools to the layout that every command reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from backtest.base import format_duration, format_time
from backtest.cli.flags import AsJson, flag
from backtest.cli.printing import print_json, print_paragraph
from backtest.cli.progress import show_activity
from backtest.cli.typed_values import split_pair
from backtest.market import Market, Quality, Repair, import_market, quality
from backtest.market.tables.repairs import KINDS

EXAMPLES = """
backtest data import user_data/data/binance/futures --instrument BTCUSDT --interval 1h --out btc
backtest data import klines/BTCUSDT/1h --mark markPriceKlines/BTCUSDT/1h --funding rates --out btc
backtest data import prices.csv --columns time=ts,open=o,high=h,low=l,close=c --timezone UTC --out x
backtest data import SPY.csv --dividends SPY-paid.csv --sessions --timezone UTC --out spy
backtest data import trades.csv.gz --resample 1m --out ticks
backtest data import btc.json --repair sort,drop-duplicates,funding-gaps=zero --out btc
"""

REPAIR_HELP = "; ".join(
    f"{'|'.join(str(Repair(name, way)) for way in kind.ways)}: {kind.text}"
    for name, kind in KINDS.items()
)

Columns = Annotated[
    str | None, flag("Columns of the file, by name or position: time=ts,open=o,...")
]
Instrument = Annotated[str | None, flag("Name of the instrument; selects one of several.")]
Interval = Annotated[str | None, flag("Selects the bars among several files.")]
FundingInterval = Annotated[str | None, flag("Selects the funding among several files.")]
Timezone = Annotated[str | None, flag("Time zone of stamps that have none, such as UTC.")]
Sessions = Annotated[bool, flag("The market closes: bars may be missing.", "--sessions")]
Decimal = Annotated[str, flag("Decimal mark of a CSV: '.' or ','.")]


def import_files(  # noqa: PLR0913 - one for each flag
    files: Annotated[
        list[Path],
        typer.Argument(help="A folder, or files; several form one table.", metavar="FILE..."),
    ],
    *,
    out: Annotated[Path, flag("The new folder.")],
    mark: Annotated[
        list[Path] | None, flag("Mark bars: a file or folder; repeat for more.")
    ] = None,
    funding: Annotated[
        list[Path] | None, flag("Funding: a file or folder; repeat for more.")
    ] = None,
    dividends: Annotated[
        list[Path] | None, flag("Dividends per share by ex-date (time, amount): a file.")
    ] = None,
    columns: Columns = None,
    resample: Annotated[
        str | None, flag("Combine bars or trades into bars of this length: 1h.")
    ] = None,
    repair: Annotated[list[str] | None, flag(f"Repairs to make. {REPAIR_HELP}.")] = None,
    instrument: Instrument = None,
    interval: Interval = None,
    funding_interval: FundingInterval = None,
    timezone: Timezone = None,
    sessions: Sessions = False,
    start: Annotated[str | None, flag("First bar to read, UTC.", "--from")] = None,
    end: Annotated[str | None, flag("End of the last bar, UTC.", "--to")] = None,
    decimal: Decimal = ".",
    as_json: AsJson = False,
) -> None:
    """Convert files of other tools to the project's layout; nothing is written if a check fails.

    Reads what freqtrade, ccxt, Binance's archive, CryptoDataDownload, yfinance and vectorbt write,
    plain CSV with --columns, and single trades with --resample. Every defect is an error, unless a
    --repair for it is given; what the repair did is recorded with the data.
    """
    with show_activity("importing"):
        market = import_market(
            *files,
            mark=mark or (),
            funding=funding or (),
            dividends=dividends or (),
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
        print_json(import_to_dict(market, out, report))
    else:
        print_market(market, out, report)


def read_columns(text: str | None) -> dict[str, str | int]:
    if text is None:
        return {}
    return dict(split_pair("--columns", part, "time=ts,open=o") for part in text.split(","))


def import_to_dict(market: Market, out: Path, report: Quality) -> dict[str, object]:
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
    typer.secho(f"{market.instrument or 'market'} {format_duration(market.interval)}", bold=True)
    marked = "with mark prices" if market.has_mark else "no mark prices"
    settled = f"{market.funding_time.size} settlements"
    span = f"{format_time(market.start)} to {format_time(market.end)} UTC"
    print_paragraph(f"{len(market)} bars, {span}; {marked}; {settled}")
    for name, note in market.filled.items():
        print_paragraph(f"{name}: {note}")
    for each in report.verdicts:
        print_paragraph(f"fit for {each.use}: {each.fit}{format_reasons(each.reasons)}")
    print_paragraph(f"saved: {out}", indent="")


def format_reasons(texts: Sequence[str]) -> str:
    return f" ({'; '.join(texts)})" if texts else ""
