"""``backtest data`` and ``options``: fetch, import and inspect bars and quotes of options."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from backtest.cli import printing
from backtest.cli.command import (
    DURATION,
    PATH,
    AsJson,
    Files,
    Report,
    Text,
    Texts,
    argument,
    command,
    flag,
)
from backtest.cli.experiment import split_pair
from backtest.core import DataError, ParameterError, format_duration, format_time
from backtest.market import Market
from backtest.market.names import LISTING_FILE
from backtest.market.quality import quality
from backtest.market.rules import KINDS
from backtest.options import Chain, Surface
from backtest.options.chain import CHECKS
from backtest.options.fitted_surface import MODELS

Timezone = Annotated[Text, flag("Time zone of stamps that have none, such as UTC.", "--timezone")]


@command("data fetch")
def fetch(
    symbols: Annotated[
        list[str],
        argument(
            "Symbols as the venue or ccxt writes them; each of several gets its own folder.",
            "SYMBOL...",
        ),
    ],
    *,
    start: Annotated[str, flag("The first day, UTC.", "--from")],
    out: Annotated[
        Path, flag("The folder to write: new, or of an earlier fetch to continue.", metavar=PATH)
    ],
    end: Annotated[
        Text, flag("The day after the last one (default: as far as there are data).", "--to")
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            help="binance-archive or binance-archive-coinm; or through ccxt: binance, "
            "binance-coinm, bybit, okx, hyperliquid, bitmex, deribit."
        ),
    ] = "binance-archive",
    interval: Annotated[str, typer.Option(help="Length of a bar.", metavar=DURATION)] = "1m",
    without: Annotated[Texts, flag("What to leave out: mark, funding.")] = None,
    more: Annotated[
        Texts,
        flag("More of Binance's archive, as columns: metrics,taker,premium.", "--with"),
    ] = None,
    base_url: Annotated[
        Text, flag("Address of a mirror of the archive.", envvar="BACKTEST_FETCH_URL")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch bars, mark prices and funding of one or several instruments, for whole days of UTC.

    If stopped, the same command continues. Gaps at the venue are listed, never filled.

    backtest data fetch BTCUSDT --from 2023-01-01 --to 2024-01-01 --out btc
    backtest data fetch BTC/USDC:USDC --source hyperliquid --without mark --from 2026-11-18 --out hl
    """
    from backtest.market import fetch_market, read_request  # noqa: PLC0415 - help needs neither

    folders = choose_folders(symbols, out)
    terms: dict[str, Any] = {
        "start": start,
        "end": end,
        "source": source,
        "interval": interval,
        "without": without or (),
        "with_more": ",".join(more).split(",") if more else [],
    }

    requests = [read_request(symbol, **terms) for symbol in symbols]
    now = time.time_ns()
    markets = []
    for symbol, folder, request in zip(symbols, folders, requests, strict=True):
        with printing.show_progress(f"fetching {symbol}", "days") as meter:
            # A terminal shows the latest notice behind the progress; a log has them all.
            notice = printing.print_message
            if sys.stderr.isatty():
                notice = partial(setattr, meter, "note")
            fetched = fetch_market(
                folder,
                request,
                now=now,
                base_url=base_url,
                report=meter,
                notice=notice,
            )
        markets.append(fetched)
        if not as_json:
            print_fetched(fetched)

    if as_json:
        rows = []
        for fetched in markets:
            facts = {"folder": str(fetched.folder), "is_new": fetched.is_new}
            rows.append({**facts, **fetched.facts})
        content: dict[str, Any] = {"folder": str(out), "markets": rows}
        if len(rows) == 1:
            content = rows[0]
        printing.print_json(content)
        return

    words = [f"--data {folder}" for folder in folders]
    if all((folder / LISTING_FILE).exists() for folder in folders):
        words.append("--venue auto")
    typer.echo(f"\nbacktest run {' '.join(words)}")


def choose_folders(symbols: list[str], out: Path) -> list[Path]:
    """Return the folder of each symbol: of several, one of its own in the one that is given."""
    if len(symbols) == 1:
        return [out]

    folders = [out / re.sub(r"[^\w-]", "_", symbol) for symbol in symbols]
    if len({*folders}) < len(folders):
        raise ParameterError(f"each symbol is fetched once, got {', '.join(symbols)}")
    if any(out.glob("bars.*")):
        raise DataError(
            f"several symbols need a folder for each of them, {str(out)!r} holds one market"
        )
    return folders


def print_fetched(fetched: Any) -> None:
    """Print what was fetched of a market: its span, its rows, and what is missing."""
    facts = fetched.facts
    printing.print_title(f"{facts['instrument']} {facts['interval']}, {facts['source']}")

    span = f"{facts['from']} to {facts['to']} UTC"
    if not fetched.is_new:
        span += ": all of it was there already"
    printing.print_paragraph(span)
    counts = ", ".join(f"{count:,} {kind}" for kind, count in facts["rows"].items())
    printing.print_paragraph(counts)

    for gap in facts["gaps"]:
        printing.print_paragraph(f"missing or wrong, stored as it is: {gap}")
    for name, count in facts.get("missing", {}).items():
        printing.print_paragraph(f"{name}: missing at {count:,} closes")
    printing.print_paragraph(f"listing: {facts.get('listing', 'none')}")


REPAIR_HELP = "; ".join(f"{', '.join(words)}: {text}" for words, (text, _) in KINDS.items())


@dataclass(frozen=True, kw_only=True)
class Layout:
    columns: Annotated[
        Text, flag("Columns of the file, by name or position: time=ts,open=o,...")
    ] = None
    interval: Annotated[Text, flag("Selects the bars among several files.", metavar=DURATION)] = (
        None
    )
    timezone: Timezone = None
    sessions: Annotated[bool, flag("The market closes: bars may be missing.", "--sessions")] = False

    def list_terms(self) -> dict[str, Any]:
        columns = {}
        if self.columns is not None:
            for pair in self.columns.split(","):
                name, source = split_pair("--columns", pair, "time=ts,open=o")
                columns[name] = source
        # Without the flag the folder says whether its market closes.
        return {**vars(self), "columns": columns, "sessions": self.sessions or None}


@command("data import")
def import_files(
    files: Annotated[
        list[Path], argument("A folder, or files; several form one table.", "FILE...")
    ],
    *,
    out: Annotated[Path, flag("The new folder.", metavar=PATH)],
    mark: Annotated[
        Files, flag("Mark bars: a file or folder; repeat for more.", metavar=PATH)
    ] = None,
    funding: Annotated[
        Files, flag("Funding: a file or folder; repeat for more.", metavar=PATH)
    ] = None,
    layout: Layout,
    resample: Annotated[
        Text, flag("Combine bars into longer ones of this length: 1h.", metavar=DURATION)
    ] = None,
    repair: Annotated[Texts, flag(f"Repairs to make. {REPAIR_HELP}.")] = None,
    instrument: Annotated[Text, flag("Name of the instrument; selects one of several.")] = None,
    start: Annotated[Text, flag("First bar to read, UTC.", "--from")] = None,
    end: Annotated[Text, flag("End of the last bar, UTC.", "--to")] = None,
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
            **layout.list_terms(),
            instrument=instrument,
            since=start,
            until=end,
            mark=mark or (),
            funding=funding or (),
            repair=repair or (),
        )
        if resample is not None:
            market = market.resample(resample)
        market.save(out)

    if as_json:
        facts = {
            "path": str(out),
            "instrument": market.instrument,
            "bars": len(market),
            "filled": dict(market.filled),
            "content_hash": market.content_hash,
        }
        printing.print_json(facts)
        return

    printing.print_title(f"{market.instrument or 'market'} {format_duration(market.interval)}")
    span = f"{format_time(market.start)} to {format_time(market.end)} UTC"
    marks = "no mark prices"
    if market.has_mark:
        marks = "with mark prices"
    printing.print_paragraph(
        f"{len(market)} bars, {span}; {marks}; {market.funding_time.size} settlements"
    )
    for name, note in market.filled.items():
        printing.print_paragraph(f"{name}: {note}")
    typer.echo(f"saved: {out}")


@command("data inspect")
def inspect(
    paths: Annotated[
        list[Path],
        argument("A folder, or files; several folders for several markets; or sample.", "PATH..."),
    ],
    *,
    layout: Layout,
    instrument: Annotated[
        Texts, flag("Name of the instrument; repeat for more.", "--instrument")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Report every defect of data, even if they do not load.

    Nothing is repaired. Several markets are reported one by one.

    backtest data inspect bars.csv funding.csv --json
    backtest data inspect btc eth
    """
    from backtest.experiments.data_table import is_sample, load_samples  # noqa: PLC0415 - help needs neither

    with printing.show_progress("inspecting"):
        texts = [str(path) for path in paths]
        terms = layout.list_terms() | {"instrument": instrument}
        if is_sample(texts):
            flags = [name for name, value in terms.items() if value]
            inspected: Any = quality(load_samples(texts, (None, None), flags))
        else:
            inspected = quality(paths, **terms)

    # Of one market the report itself comes back, of several a report by name.
    reports = inspected
    if not isinstance(inspected, dict):
        reports = {"": inspected}
    if as_json:
        contents = {name: report.to_dict() for name, report in reports.items()}
        printing.print_json(contents.get("", contents))
        return
    for report in reports.values():
        print_quality(report)


COLUMNS = ("table", "rule", "level", "count", "share", "longest", "first", "last")


def print_quality(report: Any) -> None:
    """Print what is known of the data of a market, then its defects, where they are, and errors."""
    printing.print_title(report.instrument or report.source)
    for name, text in report.filled.items():
        printing.print_paragraph(f"{name}: {text}")

    facts: list[Any] = []
    for table, by_name in report.facts.items():
        facts.extend((table, name, value) for name, value in by_name.items())
    print_rows(("table", "fact", ""), facts)

    read_columns = attrgetter(*COLUMNS)
    findings = [list(read_columns(finding)) for finding in report.findings]
    print_rows(COLUMNS, findings)

    places: list[Any] = []
    for finding in report.findings:
        rule = f"{finding.table}: {finding.rule}"
        places.extend((rule, place) for place in finding.places)
    print_rows(("where", ""), places)

    defects = [(str(defect),) for defect in report.defects]
    print_rows(("what the loader refuses",), defects)


def print_rows(columns: tuple[str, ...], rows: list[Any]) -> None:
    if rows:
        typer.echo()
        printing.render(rows, columns, shares=("share",))


@dataclass(frozen=True, kw_only=True)
class ChainFile:
    file: Annotated[
        Path | None,
        argument(
            "A Parquet, Feather, CSV or JSON file, or a folder of them; without one, a synthetic "
            "chain.",
            "FILE",
        ),
    ] = None
    settlement: Annotated[
        Text, flag("'cash' or 'coin'; needed unless the file is Deribit's.", "--settlement")
    ] = None
    timezone: Timezone = None
    underlying: Annotated[Text, flag("Name of the underlying, if there are several.")] = None

    def load(self, time: str | None = None) -> Chain:
        if self.file is None:
            chain = Chain.sample()
        else:
            terms: dict[str, Any] = {"settlement": self.settlement, "timezone": self.timezone}
            chain = Chain.load(self.file, **terms)
        return chain.select(self.underlying, time)


@command("options chain")
def show_chain(quotes: ChainFile, *, as_json: AsJson = False) -> None:
    """Count the defects of a chain's quotes, by snapshot.

    backtest options chain                          [dim]# the sample[/dim]
    backtest options chain quotes.csv --settlement cash --json
    """
    with printing.show_progress("reading the chain"):
        chain = quotes.load()
        defects = chain.inspect()
    if as_json:
        content = {
            "snapshots": to_rows(defects.table),
            "defects": to_rows(defects.rows),
        }
        printing.print_json(content)
        return

    printing.print_paragraph(repr(chain), indent="")
    typer.echo(repr(defects))
    failed = [name for name in CHECKS if defects.total[name]]
    printing.render(defects.table[["time", "underlying", "quotes", "two_sided", *failed]])


@command("options surface")
def show_surface(
    quotes: ChainFile,
    *,
    time: Annotated[
        Text, flag("The last snapshot at or before this time, if there are several.")
    ] = None,
    model: Annotated[str, typer.Option(help=f"One of {', '.join(MODELS)}.")] = "svi",
    report: Report = None,
    as_json: AsJson = False,
) -> None:
    """Fit a surface of implied volatility to bids and asks, and report how well it fits.

    backtest options surface deribit.parquet --underlying ETH --model ssvi --report surface.html
    backtest options surface chains --underlying BTC --time 2026-01-05
    """
    with printing.show_progress("reading the chain"):
        chain = quotes.load(time)
    if len(chain.times) > 1:
        raise ParameterError(
            f"a surface is of one snapshot, got {len(chain.times)}: choose one with --time"
        )

    with printing.show_progress("fitting the surface"):
        surface = Surface.fit(chain, model)  # type: ignore[arg-type] # checked there
    if report is not None:
        surface.report(report)

    fits = surface.fits.assign(crossings=surface.arbitrage()["crossings"])
    if as_json:
        content = {
            "summary": surface.verdict,
            "fits": to_rows(fits),
            "left_out": to_rows(surface.left_out),
        }
        printing.print_json(content)
        return
    typer.echo(printing.write_colored(surface))
    if report is not None:
        typer.echo(f"\nreport: {report}")


def to_rows(frame: pd.DataFrame) -> list[Any]:
    """Return the rows of a frame for JSON, its times as text."""
    shown = frame.copy()
    for name in frame.select_dtypes(["datetimetz", "datetime"]).columns:
        shown[name] = frame[name].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    return list(shown.to_dict("records"))
