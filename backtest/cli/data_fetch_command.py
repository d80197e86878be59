"""``backtest data fetch``: download a market from a venue's public archive or an exchange."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backtest.cli.flags import AsJson
from backtest.cli.printing import print_json, print_paragraph
from backtest.cli.progress import show_download

if TYPE_CHECKING:
    from backtest.market.fetch import Fetched

BASE_URL = "BACKTEST_FETCH_URL"
EXAMPLES = """
backtest data fetch BTCUSDT --from 2023-01-01 --to 2024-01-01 --out btc
backtest data fetch BTCUSDT --from 2023-01-01 --out btc   [dim]# later: what is new since[/dim]
backtest data fetch BTCUSD_PERP --market cm --interval 1h --from 2022-01-01 --out coin
backtest data fetch BTCUSDT --source bybit --interval 1h --from 2026-01-01 --out bybit
backtest data fetch BTC/USDC:USDC --source hyperliquid --without mark --from 2026-11-18 --out hl
"""


def fetch(
    symbol: Annotated[str, typer.Argument(help="The symbol as the venue or ccxt writes it.")],
    *,
    start: Annotated[str, typer.Option("--from", help="The first day, UTC.")],
    out: Annotated[
        Path,
        typer.Option(help="The folder: a new one, or that of an earlier fetch of the same data."),
    ],
    end: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="The day after the last one (default: as far as there are data).",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            help="binance-archive; or through ccxt: binance, binance-coinm, bybit, okx, "
            "hyperliquid, bitmex, deribit."
        ),
    ] = "binance-archive",
    interval: Annotated[str, typer.Option(help="Length of a bar.")] = "1m",
    without: Annotated[
        list[str] | None,
        typer.Option(help="What to leave out: mark, funding.", show_default=False),
    ] = None,
    market: Annotated[
        str, typer.Option(help="Market of the archive: um (in a stablecoin) or cm (in the coin).")
    ] = "um",
    base_url: Annotated[
        str | None,
        typer.Option(envvar=BASE_URL, help="Address of a mirror.", show_default=False),
    ] = None,
    parallel: Annotated[
        int, typer.Option(min=1, max=8, help="Number of months to download at once.")
    ] = 4,
    accept_gaps: Annotated[
        bool,
        typer.Option("--accept-gaps", help="Store the data in spite of gaps; nothing is filled."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch bars, mark prices and funding of one instrument, whole days of UTC.

    If stopped, the same command continues. What the venue lacks is reported, never filled.
    """
    from backtest.market.fetch import (  # noqa: PLC0415 - help and lists need none of it
        RetryPolicy,
        fetch_market,
        read_request,
    )

    request = read_request(
        symbol,
        start=start,
        end=end,
        source=source,
        interval=interval,
        without=without or (),
        market=market,
    )
    now = time.time_ns()
    with show_download(f"fetching {symbol}") as (report, notice):
        fetched = fetch_market(
            out,
            request,
            now=now,
            base_url=base_url,
            parallel=parallel,
            accept_gaps=accept_gaps,
            policy=RetryPolicy(seed=now),
            report=report,
            notice=notice,
        )
    if as_json:
        print_json(describe(fetched))
    else:
        print_fetched(fetched)


def describe(fetched: Fetched) -> dict[str, Any]:
    """Return a finished fetch as data."""
    facts = {key: value for key, value in fetched.facts.items() if key != "format"}
    return {
        "folder": str(fetched.folder),
        "is_new": fetched.is_new,
        "retries": fetched.retries,
        **facts,
    }


def print_fetched(fetched: Fetched) -> None:
    """Print what is there, what is missing, and what to do with it."""
    facts = fetched.facts
    typer.secho(f"{facts['instrument']} {facts['interval']}, {facts['source']}", bold=True)
    span = f"{facts['from']} to {facts['to']} UTC"
    print_paragraph(span if fetched.is_new else f"{span}: all of it was there already")
    print_paragraph(", ".join(f"{count:,} {kind}" for kind, count in facts["rows"].items()))
    if facts["gaps"]:
        typer.secho(f"  {len(facts['gaps'])} gaps, accepted and not filled:", fg="yellow")
        for gap in facts["gaps"]:
            print_paragraph(describe_gap(gap), indent="    ")
    typer.echo(f"\nbacktest run --data {fetched.folder}")


def describe_gap(gap: Mapping[str, Any]) -> str:
    """Return one gap in words."""
    return f"{gap['missing']:,} of {gap['kind']} from {gap['from']} to {gap['to']}"
