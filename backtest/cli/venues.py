"""``backtest venues``: list the presets, show one, and import leverage tiers."""

from __future__ import annotations

import datetime as dt
import math
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from backtest.base import ParameterError
from backtest.cli.command import AsJson, flag
from backtest.cli.printing import (
    add_command,
    format_help,
    print_json,
    print_paragraph,
    print_title,
    render,
)
from backtest.venue import (
    Venue,
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

    Add the name of a preset to see its brackets, fees and sources.
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
        print_title(names if is_one else f"{first.venue}, {len(group)} symbols")
        print_paragraph(first.title if is_one else names)
        print_paragraph(f"margin tables of {', '.join(first.dates)}: {first.source}")


def list_margins(*, as_json: bool) -> None:
    found = list_presets()
    if as_json:
        print_json([each.to_dict() for each in found])
        return
    for each in found:
        print_title(each.name)
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
    as_json: AsJson = False,
) -> None:
    """Show one preset on a day: rules, brackets, sources.

    Without a day it shows the newest table. A run uses at each bar the table in force, so the venue
    of --json has all tables. `backtest liq` calculates liquidation prices by its rules.
    """
    name = preset_files.parse_name(venue)
    day = name.at if at is None else preset_files.read_at(at)
    name = name._replace(at=day or preset_files.LATEST)
    rules, funding = Venue.preset(*name), funding_terms(*name)
    dates = next(p.dates for p in preset_files.in_file(name.venue) if p.symbol == name.symbol)
    origins = preset_files.origins(*name)
    if as_json:
        print_json({
            "name": venue,
            "at": day,
            "venue": Venue.preset(name.venue, name.symbol, day).to_dict(),
            "funding": None if funding is None else funding.to_dict(),
            "margin_tables": dates,
            "sources": {each.group: each._asdict() for each in origins},
        })  # fmt: skip
        return
    print_title(f"{name.venue}:{name.symbol}" + (f"@{day}" if day else ""))
    content = rules.to_dict() | {"funding": {} if funding is None else funding.to_dict()}
    rest = {x: each for x, each in content.items() if not isinstance(each, (dict, list))}
    for group, facts in {**content, "rules": rest}.items():
        if isinstance(facts, dict) and facts:
            print_paragraph(f"{group}: " + ", ".join(f"{x} {each}" for x, each in facts.items()))
    for since, brackets in zip(rules.days(), rules.tables(), strict=True):
        typer.echo(f"\nmargin table from {since}")
        fields = ("floor", "cap", "max_leverage", "maintenance_rate", "amount")
        rows = [[getattr(each, x) for x in fields] for each in brackets]
        render(rows, fields, shares=("maintenance_rate",))
    print_paragraph(f"All margin tables: {', '.join(dates)}.")
    for each in origins:
        late = f"; nothing is known for {name.at}" if name.is_before(each.date) else ""
        print_paragraph(f"{each.group}, {each.date}{late}: {each.source}")


# ----------------------------------------------------------------------------------------- import

IMPORT_EXAMPLES = """
backtest venues import tiers.json --venue mine --symbol BTC/USDT:USDT --like binance-usdm:BTCUSDT
"""


def import_tiers(
    file: Annotated[
        Path,
        typer.Argument(help="JSON file of ccxt's fetch_leverage_tiers, or of freqtrade."),
    ],
    *,
    venue: Annotated[str, typer.Option(help="Name of the file to write, without .json.")],
    symbol: Annotated[str, flag("The symbol as FILE has it, for example BTC/USDT:USDT.")],
    like: Annotated[str, flag("The preset to copy fees, liquidation and contract kind from.")],
    date: Annotated[
        str | None, flag("The day from which the tiers apply (default: today).")
    ] = None,
    unit: Annotated[
        float | None, flag("Value of one unit of FILE's sizes, if they count contracts.")
    ] = None,
    to: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("venues"),
    as_json: AsJson = False,
) -> None:
    """Read leverage tiers of ccxt or freqtrade, and write a venue file for --venue."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", venue):
        raise ParameterError(f"venue must be a name of letters, digits, - and _, got {venue!r}")
    base = preset_files.parse_name(like)
    preset_files.origins(*base)
    if unit is not None and not 0 < unit < math.inf:
        raise ParameterError(f"unit must be over 0, got {unit}")
    today = f"{dt.datetime.now(tz=dt.UTC):%Y-%m-%d}"
    path, name = to / f"{venue}.json", plain_symbol(symbol)
    made = write_venue(
        path,
        name,
        read_tiers(file, symbol, unit),
        date=today if date is None else preset_files.read_day(date),
        source=f"{file.name}, {symbol}" + ("" if date else ", day of the import"),
        like=base,
        settles=read_settlement(symbol),
    )
    if as_json:
        print_json({"file": str(path), "name": f"{path}:{name}", "venue": made.to_dict()})
    else:
        typer.echo(f"written to {path}; use it with --venue {path}:{name}")


add_command(app, "show", show, SHOW_EXAMPLES)
add_command(app, "import", import_tiers, IMPORT_EXAMPLES)
COMMANDS = {"venues": app}
