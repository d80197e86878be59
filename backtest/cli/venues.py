"""``backtest venues`` and ``liq``: the presets, and the liquidation calculator."""

from __future__ import annotations

import math
from operator import attrgetter
from typing import Annotated, Any

import typer

from backtest.cli.command import AsJson, Text, argument, command, flag
from backtest.cli.experiment import read_list
from backtest.cli.printing import print_json, print_paragraph, print_title, render
from backtest.core import ParameterError, format_percent
from backtest.experiments.tables import DEFAULT_VENUE
from backtest.margin import calculate_liquidation, list_presets
from backtest.venue import FundingTerms, Venue, listing, preset_files
from backtest.venue import read_terms as read_funding_terms
from backtest.venue import terms as funding_terms

MARGINS_HELP = "List the margin rules of whole accounts instead, with the source of each figure."


@command("venues")
def venues(
    venue: Annotated[
        Text, argument("Show one: NAME:SYMBOL[@DATE], FILE.json:SYMBOL, or 'read' and a listing.")
    ] = None,
    file: Annotated[
        Text, argument("After 'read': a file or folder of what a venue lists.", "LISTING")
    ] = None,
    *,
    symbol: Annotated[Text, flag("The symbol of the listing to show.")] = None,
    like: Annotated[Text, flag("The preset of what the listing leaves out (binance-usdm).")] = None,
    at: Annotated[Text, flag("The day whose tables are shown (default: the newest).")] = None,
    margins: Annotated[bool, flag(MARGINS_HELP, "--margins")] = False,
    as_json: AsJson = False,
) -> None:
    """List the venue presets, with the days of their margin tables and their sources, or show one.

    A run uses at each bar the table in force, so the venue of --json has all tables. `backtest liq`
    calculates liquidation prices by its rules.

    backtest venues binance-usdm:BTCUSDT --at 2021-05-19 --json
    backtest venues read tiers.json --symbol PNUT/USDT:USDT --like binance-usdm
    backtest venues --margins
    """
    if venue == "read":
        show_listing(file, symbol, like, at, as_json=as_json)
        return
    for name, value in (("LISTING", file), ("--symbol", symbol), ("--like", like)):
        if value is not None:
            raise ParameterError(f"{name} belongs to `backtest venues read`, got {value!r}")

    if venue is not None:
        show(venue, at, as_json=as_json)
    elif margins:
        list_margin_rules(as_json=as_json)
    else:
        list_venues(as_json=as_json)


def list_margin_rules(*, as_json: bool) -> None:
    """Print the margin rules of whole accounts, with the source of each figure."""
    rules = list_presets()
    if as_json:
        rows = []
        for rule in rules:
            requirement = rule.requirement.to_dict()
            rows.append({**rule._asdict(), "requirement": requirement})
        print_json(rows)
        return

    for rule in rules:
        print_title(rule.name)
        print_paragraph(f"{rule.title}, tables of {', '.join(rule.dates)}")
        print_paragraph(f"Exact: {rule.exact}")
        print_paragraph(f"Left out: {rule.leaves_out}")
        for figure in rule.figures:
            text = f"{figure['status']}: {figure['figure']}"
            if figure["source"]:
                text += f": {figure['source']}"
            print_paragraph(text)


def list_venues(*, as_json: bool) -> None:
    """Print the presets; symbols of a venue whose rules have the same sources stand together."""
    presets = preset_files.available()
    if as_json:
        print_json([{"name": preset.name, **preset._asdict()} for preset in presets])
        return

    for group in preset_files.group_alike(presets):
        first = group[0]
        if len(group) == 1:
            print_title(first.name)
            print_paragraph(first.title)
        else:
            print_title(f"{first.venue}, {len(group)} symbols")
            print_paragraph(", ".join(preset.name for preset in group))
        print_paragraph(f"margin tables of {', '.join(first.dates)}: {first.source}")


def show_listing(
    file: str | None,
    symbol: str | None,
    like: str | None,
    at: str | None,
    *,
    as_json: bool,
) -> None:
    """Print the rules that a listing has for a symbol, and what it leaves to a preset."""
    if file is None or symbol is None:
        lacking = "--symbol"
        if file is None:
            lacking = "a file or folder"
        raise ParameterError(
            f"`backtest venues read` needs {lacking}: backtest venues read tiers.json --symbol "
            "BTC/USDT:USDT"
        )

    rules = Venue.read(file, symbol, like or listing.DEFAULT_LIKE, at)
    funding = read_funding_terms(file, symbol, like or listing.DEFAULT_LIKE, at)
    if as_json:
        print_json({"venue": rules.to_dict(), "funding": funding and funding.to_dict()})
        return

    source: Any = rules.in_force
    print_title(f"{source.preset}, {source.since or 'of a day that is not known'}")
    print_paragraph(f"Of the listing: {', '.join(source.listed)}. All others: {source.like}.")
    if rules.contract.unknown:
        print_paragraph(f"Unknown: {', '.join(rules.contract.unknown)}.")
    print_groups(rules, funding)
    print_margin_tables(rules)


def print_groups(rules: Venue, funding: FundingTerms | None) -> None:
    """Print the fields of a venue, a line for each group of them."""
    groups: dict[str, Any] = {}
    alone = {}
    for name, value in rules.to_dict().items():
        if isinstance(value, dict):
            groups[name] = value
        elif not isinstance(value, list):
            alone[name] = value
    groups["funding"] = {}
    if funding is not None:
        groups["funding"] = funding.to_dict()
    groups["rules"] = alone

    for group, facts in groups.items():
        if facts and group != "in_force":
            listed = ", ".join(f"{name} {value}" for name, value in facts.items())
            print_paragraph(f"{group}: {listed}")


def print_margin_tables(rules: Venue) -> None:
    """Print the brackets of each margin table, under the day from which it is in force."""
    fields = ("floor", "cap", "max_leverage", "maintenance_rate", "amount")
    read_fields = attrgetter(*fields)
    for since, brackets in zip(rules.days(), rules.tables(), strict=True):
        typer.echo(f"\nmargin table from {since or 'an unknown day'}")
        rows = [list(read_fields(bracket)) for bracket in brackets]
        render(rows, fields, shares=("maintenance_rate",))


def show(venue: str, at: str | None, *, as_json: bool) -> None:
    """Print the rules of a preset on a day, by default the newest ones, with their sources."""
    name = preset_files.parse_name(venue)
    day = name.at
    if at is not None:
        day = preset_files.read_day(at)
    name = name._replace(at=day or preset_files.LATEST)
    rules = Venue.preset(*name)
    funding = funding_terms(*name)
    dates = preset_files.find_preset(name.venue, name.symbol).dates
    origins = preset_files.origins(*name)
    if as_json:
        content = {
            "name": venue,
            "at": day,
            "venue": Venue.preset(name.venue, name.symbol, day).to_dict(),
            "funding": None if funding is None else funding.to_dict(),
            "margin_tables": dates,
            "sources": {origin.group: origin._asdict() for origin in origins},
        }
        print_json(content)
        return

    title = f"{name.venue}:{name.symbol}"
    if day:
        title = f"{title}@{day}"
    print_title(title)
    print_groups(rules, funding)
    print_margin_tables(rules)
    print_paragraph(f"All margin tables: {', '.join(dates)}.")
    for origin in origins:
        text = f"{origin.group}, {origin.date}"
        if day not in (None, preset_files.LATEST) and day < origin.date:
            text = f"{text}; nothing is known for {day}"
        print_paragraph(f"{text}: {origin.source}")


def format_numbers(numbers: dict[str, Any], tick: float) -> None:
    """Write prices with the digits of the tick, and shares in percent, in their places."""
    # Less a rounding, so that a tick of .001 has three digits and not four.
    digits = max(0, math.ceil(-math.log10(tick) - 1e-9))
    for name in ("liquidation_price", "bankruptcy_price"):
        price = numbers[name]
        numbers[name] = f"{price:,.{digits}f}"
        if math.isnan(price):
            numbers[name] = "none"

    for name in ("distance", "volatility"):
        if numbers[name] is not None:
            numbers[name] = format_percent(numbers[name])


@command("liq")
def liq(
    *,
    side: Annotated[str, flag("'long' or 'short'.")],
    entry: Annotated[float, flag("The price at which the position is opened.")],
    leverage: Annotated[float, flag("The leverage set at the venue.")],
    venue: Annotated[
        str,
        typer.Option(
            help="NAME:SYMBOL[@DATE], or FILE.json:SYMBOL; without a date, the newest table."
        ),
    ] = DEFAULT_VENUE,
    margin: Annotated[str, typer.Option(help="'isolated' or 'cross'.")] = "isolated",
    capital: Annotated[
        float | None,
        flag("Money in the account; without --quantity all of it is margin (the initial margin)."),
    ] = None,
    quantity: Annotated[
        float | None, flag("Number of contracts (default: one coin, without --capital).")
    ] = None,
    volatility: Annotated[
        float | None,
        flag("Volatility per year (0.6 is 60 %), for the probability of liquidation."),
    ] = None,
    multiplier: Annotated[float, typer.Option(help="Multiplier of dynamic margin.")] = 1.0,
    days: Annotated[str, typer.Option(help="Horizons of that probability, in days.")] = "1,7,30",
    as_json: AsJson = False,
) -> None:
    """Calculate the margins, liquidation price and bankruptcy price of a position.

    With --volatility, also the probability of liquidation. Money is in the settlement currency.
    Fees for opening are not subtracted. For several positions, use bt.calculate_book in Python.

    backtest liq --side long --entry 30000 --leverage 10 --volatility 0.6
    backtest liq --side short --entry 30000 --leverage 5 --margin cross --capital 10000
    """
    preset = preset_files.parse_name(venue)
    if preset.at is None:
        preset = preset._replace(at=preset_files.LATEST)
    rules = Venue.preset(*preset)
    terms: dict[str, Any] = {
        "side": side,
        "entry": entry,
        "leverage": leverage,
        "margin": margin,
        "capital": capital,
        "quantity": quantity,
        "volatility": volatility,
        "multiplier": multiplier,
        "days": read_list(days, name="--days"),
    }
    liquidation = calculate_liquidation(rules, **terms)
    numbers: dict[str, Any] = liquidation._asdict()
    by_horizon = numbers.pop("probabilities")
    probabilities = {f"{horizon:g}d": chance for horizon, chance in by_horizon.items()}
    table = rules.in_force
    if as_json:
        numbers["probabilities"] = probabilities
        print_json({"venue": venue, "table": table and table.to_dict(), **numbers})
        return

    format_numbers(numbers, rules.contract.tick or 1e-6)
    for horizon, chance in probabilities.items():
        numbers[f"liquidated in {horizon}"] = format_percent(chance)

    title = venue
    if table is not None:
        title = f"{venue}, margin table of {table.since}"
    print_title(title)
    rows = [(name.replace("_", " "), value) for name, value in numbers.items()]
    render(rows, ("of the position", ""))
