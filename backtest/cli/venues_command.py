"""``backtest venues``: list the presets, show one, and import tables of other programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from backtest.base import ParameterError
from backtest.base.fields import POSITIVE
from backtest.cli.experiment_venue import split_preset
from backtest.cli.flags import AsJson, flag
from backtest.cli.printing import (
    add_command,
    format_help,
    print_json,
    print_paragraph,
    print_table,
)
from backtest.cli.venues_import_command import EXAMPLES as IMPORT_EXAMPLES
from backtest.cli.venues_import_command import import_tiers, print_brackets
from backtest.venue import Venue, calculate_liquidation, list_presets, preset_files
from backtest.venue import terms as funding_terms

EXAMPLES = """
backtest venues
backtest venues binance-usdm:BTCUSDT
backtest venues --margins
backtest venues show binance-usdm:BTCUSDT --at 2021-05-19
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
    print_tables(rules)
    print_paragraph(describe_dates(rules, dates, name))
    typer.echo("")
    print_examples(examples, entry)
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


def print_examples(examples: list[dict[str, Any]], entry: float) -> None:
    typer.secho(f"Liquidation prices of a small position, isolated, opened at {entry:g}", bold=True)
    columns = ("leverage", "long", "short")
    rows = [
        [f"{each['leverage']:g}x"]
        + ["none" if math.isnan(each[k]) else f"{each[k]:.8g}" for k in ("long", "short")]
        for each in examples
    ]
    print_table(columns, rows, right=columns)


def print_rules(venue: Venue) -> None:
    content = {name: value for name, value in venue.to_dict().items() if name != "in_force"}
    for group, facts in content.items():
        if isinstance(facts, dict):
            text = ", ".join(f"{name} {value}" for name, value in facts.items())
            print_paragraph(f"{group}: {text}")
    rest = (f"{k} {v}" for k, v in content.items() if not isinstance(v, (dict, list)))
    print_paragraph("rules: " + ", ".join(rest))


def print_tables(venue: Venue) -> None:
    for day, brackets in zip(venue.days(), venue.tables(), strict=True):
        if venue.earlier:
            typer.secho(f"from {day}", bold=True)
        print_brackets(brackets)


add_command(app, "show", show, SHOW_EXAMPLES)
add_command(app, "import", import_tiers, IMPORT_EXAMPLES)
COMMAND = app
