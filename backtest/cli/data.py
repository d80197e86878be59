"""``backtest data``: fetch, import and inspect market data."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backtest.base import DataError, ParameterError, format_duration, format_time
from backtest.cli import printing
from backtest.cli.command import AsJson, command, flag
from backtest.cli.experiment import split_pair
from backtest.market import Market, Quality, quality
from backtest.market.rules import KINDS

if TYPE_CHECKING:
    from backtest.market import Fetched

BASE_URL = "BACKTEST_FETCH_URL"


@command("data fetch")
def fetch(
    symbols: Annotated[
        list[str],
        typer.Argument(
            help="Symbols as the venue or ccxt writes them; each of several gets its own folder.",
            metavar="SYMBOL...",
            show_default=False,
        ),
    ],
    *,
    start: Annotated[str, flag("The first day, UTC.", "--from")],
    out: Annotated[Path, flag("The folder to write: new, or of an earlier fetch to continue.")],
    end: Annotated[
        str | None, flag("The day after the last one (default: as far as there are data).", "--to")
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            help="binance-archive or binance-archive-coinm; or through ccxt: binance, "
            "binance-coinm, bybit, okx, hyperliquid, bitmex, deribit."
        ),
    ] = "binance-archive",
    interval: Annotated[str, typer.Option(help="Length of a bar.")] = "1m",
    without: Annotated[list[str] | None, flag("What to leave out: mark, funding.")] = None,
    base_url: Annotated[
        str | None, flag("Address of a mirror of the archive.", envvar=BASE_URL)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch bars, mark prices and funding of one or several instruments, for whole days of UTC.

    If stopped, the same command continues. Gaps at the venue are listed, never filled.

    backtest data fetch BTCUSDT --from 2023-01-01 --to 2024-01-01 --out btc
    backtest data fetch BTC/USDC:USDC --source hyperliquid --without mark --from 2026-11-18 --out hl
    """
    from backtest.market import fetch_market, read_request  # noqa: PLC0415 - help needs neither

    requests = {
        folder: read_request(
            symbol, start=start, end=end, source=source, interval=interval, without=without or ()
        )
        for symbol, folder in zip(symbols, choose_folders(symbols, out), strict=True)
    }
    now = time.time_ns()
    done = []
    for symbol, (folder, request) in zip(symbols, requests.items(), strict=True):
        with printing.show_progress(f"fetching {symbol}", "days") as meter:
            fetched = fetch_market(
                folder,
                request,
                now=now,
                base_url=base_url,
                report=meter,
                notice=partial(setattr, meter, "note") if meter else printing.print_message,
            )
        done.append(fetched)
        if not as_json:
            print_fetched(fetched)
    if as_json:
        facts = [{"folder": str(x.folder), "is_new": x.is_new, **x.facts} for x in done]
        printing.print_json(facts[0] if len(facts) == 1 else {"folder": str(out), "markets": facts})
    else:
        folders = " ".join(f"--data {each.folder}" for each in done)
        typer.echo(f"\nbacktest run {folders}")


def choose_folders(symbols: Sequence[str], out: Path) -> list[Path]:
    if len(symbols) == 1:
        return [out]
    names = [re.sub(r"[^\w-]", "_", symbol) for symbol in symbols]
    if len({*names}) < len(names):
        raise ParameterError(f"each symbol is fetched once, got {', '.join(symbols)}")
    if any(out.glob("bars.*")):
        raise DataError(
            f"several symbols need a folder for each of them, {str(out)!r} holds one market"
        )
    return [out / name for name in names]


def print_fetched(fetched: Fetched) -> None:
    facts = fetched.facts
    printing.print_title(f"{facts['instrument']} {facts['interval']}, {facts['source']}")
    span = f"{facts['from']} to {facts['to']} UTC"
    printing.print_paragraph(span if fetched.is_new else f"{span}: all of it was there already")
    printing.print_paragraph(
        ", ".join(f"{count:,} {kind}" for kind, count in facts["rows"].items())
    )
    for gap in facts["gaps"]:
        printing.print_paragraph(f"missing or wrong, stored as it is: {gap}")


REPAIR_HELP = "; ".join(f"{'|'.join(words)}: {text}" for words, (text, _) in KINDS.items())


@dataclass(frozen=True, kw_only=True)
class Layout:
    columns: Annotated[
        str | None, flag("Columns of the file, by name or position: time=ts,open=o,...")
    ] = None
    interval: Annotated[str | None, flag("Selects the bars among several files.")] = None
    timezone: Annotated[str | None, flag("Time zone of stamps that have none, such as UTC.")] = None
    sessions: Annotated[bool, flag("The market closes: bars may be missing.", "--sessions")] = False

    def list_terms(self) -> dict[str, Any]:
        pairs = self.columns.split(",") if self.columns is not None else []
        columns = dict(split_pair("--columns", each, "time=ts,open=o") for each in pairs)
        return {**vars(self), "columns": columns}


@command("data import")
def import_files(
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
    layout: Layout,
    resample: Annotated[
        str | None, flag("Combine bars into longer ones of this length: 1h.")
    ] = None,
    repair: Annotated[list[str] | None, flag(f"Repairs to make. {REPAIR_HELP}.")] = None,
    instrument: Annotated[
        str | None, flag("Name of the instrument; selects one of several.")
    ] = None,
    start: Annotated[str | None, flag("First bar to read, UTC.", "--from")] = None,
    end: Annotated[str | None, flag("End of the last bar, UTC.", "--to")] = None,
    as_json: AsJson = False,
) -> None:
    """Convert files of other tools to the project's layout; nothing is written if a check fails.

    Reads what freqtrade and Binance's archive write, and plain CSV with --columns. Every defect is
    an error, unless a --repair for it is given; what the repair did is recorded with the data.

    backtest data import user_data/data/binance/futures --instrument BTCUSDT --interval 1h --out btc
    backtest data import btc.csv --columns time=ts,close=c --repair funding-gaps=zero --out btc
    """
    with printing.show_progress("importing"):
        market = Market.load(
            *files,
            mark=mark or (),
            funding=funding or (),
            repair=repair or (),
            instrument=instrument,
            **layout.list_terms(),
            since=start,
            until=end,
        )
        market = market if resample is None else market.resample(resample)
        market.save(out)
    if as_json:
        printing.print_json({
            "path": str(out),
            "instrument": market.instrument,
            "bars": len(market),
            "filled": dict(market.filled),
            "content_hash": market.content_hash,
        })  # fmt: skip
    else:
        printing.print_title(f"{market.instrument or 'market'} {format_duration(market.interval)}")
        marked = "with mark prices" if market.has_mark else "no mark prices"
        span = f"{format_time(market.start)} to {format_time(market.end)} UTC"
        printing.print_paragraph(
            f"{len(market)} bars, {span}; {marked}; {market.funding_time.size} settlements"
        )
        for name, note in market.filled.items():
            printing.print_paragraph(f"{name}: {note}")
        typer.echo(f"saved: {out}")


@command("data inspect")
def inspect(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="A folder, or files; several folders for several markets; or sample.",
            metavar="PATH...",
            show_default=False,
        ),
    ],
    *,
    layout: Layout,
    instrument: Annotated[
        list[str] | None, flag("Name of the instrument; repeat for more.", "--instrument")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Report every defect of data, even if they do not load.

    Nothing is repaired. Of several markets, each is reported.

    backtest data inspect bars.csv funding.csv --json
    backtest data inspect btc eth
    """
    from backtest.cli.build import is_sample, load_samples  # noqa: PLC0415 - help needs neither

    with printing.show_progress("inspecting"):
        texts, terms = [*map(str, paths)], layout.list_terms() | {"instrument": instrument}
        given = [name for name, value in terms.items() if value]
        data: Any = load_samples(texts, (None, None), given) if is_sample(texts) else paths
        found = quality(data, **({} if is_sample(texts) else terms))
    reports = found if isinstance(found, dict) else {"": found}
    if as_json:
        plain = {name: each.to_dict() for name, each in reports.items()}
        printing.print_json(plain.get("", plain))
    else:
        for each in reports.values():
            print_quality(each)


def print_quality(report: Quality) -> None:
    printing.print_title(report.instrument or report.source)
    for name, text in report.filled.items():
        printing.print_paragraph(f"{name}: {text}")
    facts = [
        (table, name, value)
        for table, values in report.facts.items()
        for name, value in values.items()
    ]
    columns = ("table", "rule", "level", "count", "share", "longest", "first", "last")
    findings = [[getattr(each, name) for name in columns] for each in report.findings]
    places = [
        (f"{each.table}: {each.rule}", place) for each in report.findings for place in each.places
    ]
    for names, rows in (
        (("table", "fact", ""), facts),
        (columns, findings),
        (("where", ""), places),
        (("what the loader refuses",), [(str(each),) for each in report.defects]),
    ):
        if rows:
            typer.echo()
            printing.render(rows, names, shares=("share",))
