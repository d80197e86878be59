"""``backtest data fetch``: download a market from a venue's public archive or an exchange."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backtest.base import DataError, ParameterError
from backtest.cli.flags import AsJson, flag
from backtest.cli.printing import print_json, print_paragraph
from backtest.cli.progress import show_download

if TYPE_CHECKING:
    from backtest.market import Fetched

BASE_URL = "BACKTEST_FETCH_URL"
EXAMPLES = """
backtest data fetch BTCUSDT --from 2023-01-01 --to 2024-01-01 --out btc
backtest data fetch BTCUSDT --from 2023-01-01 --out btc   [dim]# later: only new data[/dim]
backtest data fetch BTCUSDT ETHUSDT --from 2023-01-01 --out data   [dim]# data/BTCUSDT, ...[/dim]
backtest data fetch BTCUSD_PERP --market cm --interval 1h --from 2022-01-01 --out coin
backtest data fetch BTCUSDT --source bybit --interval 1h --from 2026-01-01 --out bybit
backtest data fetch BTC/USDC:USDC --source hyperliquid --without mark --from 2026-11-18 --out hl
"""


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
            help="binance-archive; or through ccxt: binance, binance-coinm, bybit, okx, "
            "hyperliquid, bitmex, deribit."
        ),
    ] = "binance-archive",
    interval: Annotated[str, typer.Option(help="Length of a bar.")] = "1m",
    without: Annotated[list[str] | None, flag("What to leave out: mark, funding.")] = None,
    market: Annotated[
        str,
        typer.Option(
            help="Market of the archive: um (settled in a stablecoin) or cm (settled in the coin)."
        ),
    ] = "um",
    base_url: Annotated[str | None, flag("Address of a mirror.", envvar=BASE_URL)] = None,
    parallel: Annotated[
        int, typer.Option(min=1, max=8, help="Number of months to download at once.")
    ] = 4,
    accept_gaps: Annotated[
        bool, flag("Store the data although rows are missing; nothing is filled.", "--accept-gaps")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch bars, mark prices and funding of one or several instruments, for whole days of UTC.

    If stopped, the same command continues. Gaps at the venue are reported, never filled.
    """
    from backtest.market import (  # noqa: PLC0415 - help and lists need none of it
        RetryPolicy,
        fetch_market,
        read_request,
    )

    requests = {
        folder: read_request(
            symbol,
            start=start,
            end=end,
            source=source,
            interval=interval,
            without=without or (),
            market=market,
        )
        for symbol, folder in zip(symbols, choose_folders(symbols, out), strict=True)
    }
    now = time.time_ns()
    done = []
    for symbol, (folder, request) in zip(symbols, requests.items(), strict=True):
        with show_download(f"fetching {symbol}") as (report, notice):
            fetched = fetch_market(
                folder,
                request,
                now=now,
                base_url=base_url,
                parallel=parallel,
                accept_gaps=accept_gaps,
                policy=RetryPolicy(seed=now),
                report=report,
                notice=notice,
            )
        done.append(fetched)
        if not as_json:
            print_fetched(fetched)
    if as_json:
        facts = [fetched_to_dict(each) for each in done]
        print_json(facts[0] if len(facts) == 1 else {"folder": str(out), "markets": facts})
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


def fetched_to_dict(fetched: Fetched) -> dict[str, Any]:
    facts = {key: value for key, value in fetched.facts.items() if key != "format"}
    return {
        "folder": str(fetched.folder),
        "is_new": fetched.is_new,
        "retries": fetched.retries,
        **facts,
    }


def print_fetched(fetched: Fetched) -> None:
    facts = fetched.facts
    typer.secho(f"{facts['instrument']} {facts['interval']}, {facts['source']}", bold=True)
    span = f"{facts['from']} to {facts['to']} UTC"
    print_paragraph(span if fetched.is_new else f"{span}: all of it was there already")
    print_paragraph(", ".join(f"{count:,} {kind}" for kind, count in facts["rows"].items()))
    if facts["gaps"]:
        typer.secho(f"  {len(facts['gaps'])} gaps, accepted and not filled:", fg="yellow")
        for gap in facts["gaps"]:
            text = f"{gap['missing']:,} of {gap['kind']} from {gap['from']} to {gap['to']}"
            print_paragraph(text, indent="    ")
