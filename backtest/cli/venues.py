"""``backtest venues``: list the presets, show one, and import tables of other programs."""

from __future__ import annotations

import datetime as dt
import importlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from backtest.base import ParameterError, VenueError, did_you_mean, write_file
from backtest.base.fields import POSITIVE
from backtest.cli.build import split_preset
from backtest.cli.command import AsJson, flag
from backtest.cli.printing import (
    add_command,
    format_help,
    print_json,
    print_paragraph,
    print_table,
)
from backtest.venue import (
    Bracket,
    Venue,
    calculate_liquidation,
    list_presets,
    plain_symbol,
    preset_files,
    read_settlement,
    read_tiers,
    write_venue,
)
from backtest.venue import terms as funding_terms

EXAMPLES = """
backtest venues binance-usdm:BTCUSDT
backtest venues import tiers.json --venue mine --symbol BTC/USDT:USDT --like binance-usdm:BTCUSDT
"""
SHOW_EXAMPLES = """
backtest venues show binance-usdm:BTCUSDT
backtest venues show binance-usdm:BTCUSDT --at 2021-05-19 --json
"""
LEVERAGES = (5.0, 10.0, 20.0)
SMALL = 1e-3
"""Notional of the example positions, as a share of the cap of the first bracket."""


class ShowsByDefault(TyperGroup):
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known = args and (args[0] in self.commands or args[0].startswith("-"))
        return super().resolve_command(ctx, args if known else ["show", *args])


app = typer.Typer(cls=ShowsByDefault, rich_markup_mode="rich")


def venues(
    context: typer.Context,
    *,
    margins: Annotated[
        bool,
        flag(
            "List the margin rules of whole accounts instead, with the source of each figure.",
            "--margins",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the venue presets, with the days of their margin tables and their sources.

    Add the name of a preset to see its brackets, fees, liquidation prices and sources.
    """
    if context.invoked_subcommand is not None:
        if as_json:
            raise ParameterError(
                "--json goes after the command it is for: backtest venues "
                f"{context.invoked_subcommand} ... --json"
            )
        return
    if margins:
        list_margins(as_json=as_json)
        return
    found = preset_files.available()
    if as_json:
        print_json([{"name": each.name, **each._asdict()} for each in found])
        return
    for group in preset_files.group_alike(found):
        first, names = group[0], ", ".join(each.name for each in group)
        is_one = len(group) == 1
        typer.secho(names if is_one else f"{first.venue}, {len(group)} symbols", bold=True)
        print_paragraph(first.title if is_one else names)
        older = f" (others of {', '.join(first.dates[:-1])})" if first.dates[:-1] else ""
        print_paragraph(f"margin table of {first.date}{older}: {first.source}")


def list_margins(*, as_json: bool) -> None:
    found = list_presets()
    if as_json:
        print_json([each.to_dict() for each in found])
        return
    for each in found:
        typer.secho(each.name, bold=True)
        print_paragraph(f"{each.title}, tables of {', '.join(each.dates)}")
        print_paragraph(f"Exact: {each.exact}")
        print_paragraph(f"Left out: {each.leaves_out}")
        for figure in each.figures:
            source = f": {figure.source}" if figure.source else ""
            print_paragraph(f"{figure.status}: {figure.figure}{source}")


app.callback(invoke_without_command=True, help=format_help(venues, EXAMPLES))(venues)


def show(
    venue: Annotated[
        str,
        typer.Argument(help="NAME:SYMBOL[@DATE], or FILE.json:SYMBOL; @history for all tables."),
    ],
    *,
    at: Annotated[str | None, flag("The day whose tables are shown (default: the newest).")] = None,
    entry: Annotated[
        float, typer.Option(help="The price at which the examples are opened.")
    ] = 100.0,
    as_json: AsJson = False,
) -> None:
    """Show one preset on a day: rules, brackets, liquidation prices, sources.

    Without a day it shows the newest table. A run uses at each bar the table in force, so the venue
    of --json has all tables.
    """
    name = split_preset(venue)
    day = name.at if at is None else preset_files.read_at(at)
    name = name._replace(at=day or preset_files.LATEST)
    POSITIVE.check("entry", entry)
    rules = Venue.preset(*name)
    dates = next(p.dates for p in preset_files.in_file(name.venue) if p.symbol == name.symbol)
    origins = list_origins(name, dates)
    funding = funding_terms(*name)
    examples = calculate_examples(rules, entry)
    if as_json:
        print_json({
            "name": venue,
            "at": day,
            "venue": Venue.preset(name.venue, name.symbol, day).to_dict(),
            "funding": None if funding is None else funding.to_dict(),
            "margin_tables": dates,
            "margin_table": describe_dates(rules, dates, name),
            "liquidation_prices": examples,
            "sources": {each.group: each._asdict() for each in preset_files.origins(*name)},
        })  # fmt: skip
        return
    typer.secho(f"{name.venue}:{name.symbol}" + (f"@{day}" if day else ""), bold=True)
    print_rules(rules)
    if funding is not None:
        print_paragraph(
            f"funding: every {funding.interval}, interest {funding.interest:g} and clamp "
            f"{funding.clamp:g} for {funding.period}"
            + (f", cap {funding.cap:g}" if math.isfinite(funding.cap) else "")
        )
    typer.echo("")
    for since, brackets in zip(rules.days(), rules.tables(), strict=True):
        if rules.earlier:
            typer.secho(f"from {since}", bold=True)
        print_brackets(brackets)
    print_paragraph(describe_dates(rules, dates, name))
    typer.echo("")
    typer.secho(f"Liquidation prices of a small position, isolated, opened at {entry:g}", bold=True)
    columns = ("leverage", "long", "short")
    print_table(columns, (list_example(each) for each in examples), right=columns)
    typer.echo("")
    typer.secho("Sources", bold=True)
    for each in origins:
        print_paragraph(f"{each.group}, {each.date}: {each.source}")
    late = ", ".join(each.group for each in origins if name.is_before(each.date))
    if late:
        print_paragraph(f"nothing is known of {late} for {name.at}: these are the oldest")


def list_origins(
    name: preset_files.PresetName, dates: Sequence[str]
) -> list[preset_files.GroupSource]:
    found = preset_files.origins(*name)
    if not preset_files.is_history(name.at):
        return found
    rest = [each for each in found if each.group != "brackets"]
    tables = (preset_files.origins(name.venue, name.symbol, date) for date in dates)
    return rest + [each for table in tables for each in table if each.group == "brackets"]


def describe_dates(venue: Venue, dates: tuple[str, ...], name: preset_files.PresetName) -> str:
    if venue.earlier:
        return f"margin tables of {', '.join(dates)}; a run takes at each bar the one in force"
    since = dates[-1] if venue.in_force is None else venue.in_force.since
    others = [date for date in dates if date != since]
    text = f"margin table of {since}"
    if name.is_before(since):
        text = f"no margin table is known for {name.at}, this is the oldest, of {since}"
    elif others and since == dates[-1]:
        text += ", the newest"
    if not others:
        return f"{text}; the only one"
    return f"{text}; others of {', '.join(others)}; without @DATE a run takes each at its days"


def calculate_examples(venue: Venue, entry: float) -> list[dict[str, Any]]:
    is_inverse = venue.contract.kind == "inverse"
    unit = venue.contract.size / entry if is_inverse else venue.contract.size * entry
    notional = SMALL * min(venue.brackets[0].cap, 1e6)
    most = venue.brackets[0].max_leverage
    found = []
    for leverage in [each for each in LEVERAGES if each <= most] or [most]:
        prices = {
            side: calculate_liquidation(
                venue, side=side, entry=entry, leverage=leverage, quantity=notional / unit
            ).liquidation_price
            for side in ("long", "short")
        }
        found.append({"leverage": leverage, "entry": entry, **prices})
    return found


def list_example(example: Mapping[str, float]) -> list[str]:
    prices = [example[side] for side in ("long", "short")]
    shown = ["none" if math.isnan(price) else f"{price:.8g}" for price in prices]
    return [f"{example['leverage']:g}x", *shown]


def print_rules(venue: Venue) -> None:
    content = {name: value for name, value in venue.to_dict().items() if name != "in_force"}
    for group, facts in content.items():
        if isinstance(facts, dict):
            text = ", ".join(f"{name} {value}" for name, value in facts.items())
            print_paragraph(f"{group}: {text}")
    rest = (f"{k} {v}" for k, v in content.items() if not isinstance(v, (dict, list)))
    print_paragraph("rules: " + ", ".join(rest))


# ----------------------------------------------------------------------------------------- import

IMPORT_EXAMPLES = """
backtest venues import --exchange bybit --venue my --symbol OP/USDT:USDT --like bybit-linear:BTCUSDT
backtest venues import tiers.json --venue mine --symbol BTC/USDT:USDT --like binance-usdm:BTCUSDT
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
    try:
        ccxt: Any = importlib.import_module("ccxt")
    except ModuleNotFoundError as error:
        raise VenueError(
            "leverage tiers of an exchange need ccxt: pip install 'leverage-backtest[fetch]'"
        ) from error
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


add_command(app, "show", show, SHOW_EXAMPLES)
add_command(app, "import", import_tiers, IMPORT_EXAMPLES)
COMMANDS = {"venues": app}
