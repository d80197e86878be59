"""``backtest venues import``: leverage tiers of other programs or exchanges as a venue file."""

from __future__ import annotations

import datetime as dt
import importlib
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from backtest.base import ParameterError, VenueError, did_you_mean, write_file
from backtest.cli.experiment_venue import split_preset
from backtest.cli.flags import AsJson, flag
from backtest.cli.printing import print_json, print_paragraph, print_table
from backtest.venue import (
    Bracket,
    plain_symbol,
    preset_files,
    read_settlement,
    read_tiers,
    write_venue,
)

EXAMPLES = """
backtest venues import --exchange bybit --venue my --symbol OP/USDT:USDT --like bybit-linear:BTCUSDT
backtest venues import tiers.json --venue mine --symbol BTC/USDT:USDT --like binance-usdm:BTCUSDT
backtest run --venue venues/mine.json:BTCUSDT
"""


def import_tiers(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="JSON file of ccxt or freqtrade; none with --exchange.", show_default=False
        ),
    ] = None,
    *,
    venue: Annotated[str, typer.Option(help="Name of the file to write, without .json.")],
    symbol: Annotated[str, flag("The symbol as ccxt or FILE has it, for example BTC/USDT:USDT.")],
    like: Annotated[str, flag("The preset to copy fees, liquidation and contract kind from.")],
    date: Annotated[
        str | None, flag("The day from which the tiers apply (default: today).")
    ] = None,
    unit: Annotated[
        float | None, flag("Value of one unit of FILE's sizes, if they count contracts.")
    ] = None,
    exchange: Annotated[
        str | None, flag("An exchange of ccxt to ask for the tiers, instead of FILE: bybit, okx.")
    ] = None,
    to: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("venues"),
    as_json: AsJson = False,
) -> None:
    """Read leverage tiers of ccxt or freqtrade, and write a venue file for --venue.

    With --exchange they are fetched through ccxt, and its answer is kept beside the venue file.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", venue):
        raise ParameterError(f"venue must be a name of letters, digits, - and _, got {venue!r}")
    base = split_preset(like)
    preset_files.origins(*base)
    today = f"{dt.datetime.now(tz=dt.UTC):%Y-%m-%d}"
    day = today if date is None else preset_files.read_day(date)
    if unit is not None and not 0 < unit < math.inf:
        raise ParameterError(f"unit must be over 0, got {unit}")
    if (file is None) == (exchange is None):
        raise ParameterError(
            f"tiers come from a file or from an exchange, got {'both' if file else 'neither'}"
        )
    given = fetch_tiers(str(exchange), symbol, to) if file is None else file
    tiers = read_tiers(given, symbol, unit)
    read = "" if date is not None else ", day of the import"
    path, name = to / f"{venue}.json", plain_symbol(symbol)
    made = write_venue(
        path, name, tiers, date=day, source=f"{given.name}, {symbol}{read}", like=base,
        settles=read_settlement(symbol),
    )  # fmt: skip
    note = describe_whole_tiers(made.brackets) if unit is not None else ""
    if as_json:
        facts = {"file": str(path), "name": f"{path}:{name}", "note": note}
        print_json({**facts, "venue": made.to_dict()})
        return
    print_brackets(made.brackets)
    if note:
        print_paragraph(note, indent="")
    typer.echo(f"written to {path}; use it with --venue {path}:{name}")


def describe_whole_tiers(brackets: Sequence[Bracket]) -> str:
    if len(brackets) == 1:
        return ""
    second = brackets[1]
    whole = second.maintenance_rate * second.cap
    return (
        "Tiers in contracts: some venues (OKX) charge the rate of a tier on the whole position. "
        f"This table charges it on the part in the tier: {whole - (second.amount or 0.0):,.10g} "
        f"instead of {whole:,.10g} at a notional of {second.cap:,.12g}. In the first tier both are "
        "the same."
    )


def print_brackets(brackets: Sequence[Bracket]) -> None:
    """Print a margin table, notionals in the settlement currency."""
    columns = ("from", "to", "most leverage", "maintenance", "amount")
    rows = [
        (
            f"{row.floor:,.12g}",
            f"{row.cap:,.12g}",
            f"{row.max_leverage:g}x",
            f"{100 * row.maintenance_rate:g} %",
            f"{row.amount:,.10g}",
        )
        for row in brackets
    ]
    print_table(columns, rows, right=columns)


BY_HAND = (
    "write what ccxt's fetch_leverage_tiers returns with your own key to a JSON file, and give "
    "that file instead of --exchange"
)


def fetch_tiers(exchange: str, symbol: str, folder: Path) -> Path:
    ccxt = import_ccxt()
    client = connect(ccxt, exchange)
    try:
        if client.has.get("fetchMarketLeverageTiers") is True:
            tiers = client.fetch_market_leverage_tiers(symbol)
        else:
            tiers = client.fetch_leverage_tiers([symbol])
    except ccxt.BaseError as error:
        reason = str(error).strip().split("\n")[0][:160]
        raise VenueError(
            f"{exchange} must answer with leverage tiers of {symbol}, got {type(error).__name__}: "
            f"{reason}; ccxt writes symbols as BTC/USDT:USDT; or {BY_HAND}"
        ) from error
    file = folder / f"{exchange}-{plain_symbol(symbol)}-tiers.json"
    folder.mkdir(parents=True, exist_ok=True)
    write_file(file, json.dumps(tiers, indent=1).encode())
    return file


def import_ccxt() -> Any:
    try:
        return importlib.import_module("ccxt")
    except ModuleNotFoundError as error:
        raise VenueError(
            "leverage tiers of an exchange need ccxt: pip install 'leverage-backtest[fetch]'"
        ) from error


def connect(ccxt: Any, exchange: str) -> Any:
    if exchange not in ccxt.exchanges:
        raise VenueError(
            f"exchange must be one of ccxt, got {exchange!r}"
            + did_you_mean(exchange, ccxt.exchanges)
        )
    client = getattr(ccxt, exchange)({"enableRateLimit": True, "timeout": 20_000})
    if not (client.has.get("fetchLeverageTiers") or client.has.get("fetchMarketLeverageTiers")):
        raise VenueError(
            f"{exchange} has no leverage tiers in ccxt; write brackets to [venue] of an experiment"
        )
    return client
