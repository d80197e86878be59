"""``backtest venues`` and ``liq``: the presets, and the liquidation calculator."""

from __future__ import annotations

import math
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
    for name, given in (("LISTING", file), ("--symbol", symbol), ("--like", like)):
        if given is not None:
            raise ParameterError(f"{name} belongs to `backtest venues read`, got {given!r}")
    if venue is not None:
        show(venue, at, as_json=as_json)
        return
    if margins:
        rules = list_presets()
        if as_json:
            print_json([{**x._asdict(), "requirement": x.requirement.to_dict()} for x in rules])
            return
        for each in rules:
            print_title(each.name)
            print_paragraph(f"{each.title}, tables of {', '.join(each.dates)}")
            print_paragraph(f"Exact: {each.exact}")
            print_paragraph(f"Left out: {each.leaves_out}")
            for figure in each.figures:
                source = f": {figure['source']}" if figure["source"] else ""
                print_paragraph(f"{figure['status']}: {figure['figure']}{source}")
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


def show_listing(
    file: str | None, symbol: str | None, like: str | None, at: str | None, *, as_json: bool
) -> None:
    if file is None or symbol is None:
        lacking = "a file or folder" if file is None else "--symbol"
        raise ParameterError(
            f"`backtest venues read` needs {lacking}: backtest venues read tiers.json --symbol "
            "BTC/USDT:USDT"
        )
    rules = Venue.read(file, symbol, like or listing.DEFAULT_LIKE, at)
    funding = read_funding_terms(file, symbol, like or listing.DEFAULT_LIKE, at)
    source: Any = rules.in_force
    if as_json:
        print_json({"venue": rules.to_dict(), "funding": funding and funding.to_dict()})
        return
    print_title(f"{source.preset}, {source.since or 'of a day that is not known'}")
    print_paragraph(f"Of the listing: {', '.join(source.listed)}. All others: {source.like}.")
    if rules.contract.unknown:
        print_paragraph(f"Unknown: {', '.join(rules.contract.unknown)}.")
    print_groups(rules, funding)
    print_margin_tables(rules)


def print_groups(rules: Venue, funding: FundingTerms | None) -> None:
    content = rules.to_dict() | {"funding": {} if funding is None else funding.to_dict()}
    rest = {x: each for x, each in content.items() if not isinstance(each, (dict, list))}
    for group, facts in {**content, "rules": rest}.items():
        if isinstance(facts, dict) and facts and group != "in_force":
            print_paragraph(f"{group}: " + ", ".join(f"{x} {each}" for x, each in facts.items()))


def print_margin_tables(rules: Venue) -> None:
    for since, brackets in zip(rules.days(), rules.tables(), strict=True):
        typer.echo(f"\nmargin table from {since or 'an unknown day'}")
        fields = ("floor", "cap", "max_leverage", "maintenance_rate", "amount")
        rows = [[getattr(each, x) for x in fields] for each in brackets]
        render(rows, fields, shares=("maintenance_rate",))


def show(venue: str, at: str | None, *, as_json: bool) -> None:
    name = preset_files.parse_name(venue)
    day = name.at if at is None else preset_files.read_day(at)
    name = name._replace(at=day or preset_files.LATEST)
    rules, funding = Venue.preset(*name), funding_terms(*name)
    dates = preset_files.find_preset(name.venue, name.symbol).dates
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
    print_groups(rules, funding)
    print_margin_tables(rules)
    print_paragraph(f"All margin tables: {', '.join(dates)}.")
    for each in origins:
        is_late = day not in (None, preset_files.LATEST) and day < each.date
        late = f"; nothing is known for {day}" if is_late else ""
        print_paragraph(f"{each.group}, {each.date}{late}: {each.source}")


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
    Fees for opening are not subtracted. In Python, bt.calculate_book has several positions.

    backtest liq --side long --entry 30000 --leverage 10 --volatility 0.6
    backtest liq --side short --entry 30000 --leverage 5 --margin cross --capital 10000
    """
    preset = preset_files.parse_name(venue)
    if preset.at is None:
        preset = preset._replace(at=preset_files.LATEST)
    rules = Venue.preset(*preset)
    terms: dict[str, Any] = {"side": side, "entry": entry, "leverage": leverage, "margin": margin}
    terms |= {"capital": capital, "quantity": quantity, "volatility": volatility}
    horizons = read_list(days, name="--days")
    found = calculate_liquidation(rules, **terms, multiplier=multiplier, days=horizons)
    odds = {f"{days:g}d": chance for days, chance in found.probabilities.items()}
    table = rules.in_force
    if as_json:
        content = {**found._asdict(), "probabilities": odds}
        print_json({"venue": venue, "table": table and table.to_dict(), **content})
        return
    print_title(venue + ("" if table is None else f", margin table of {table.since}"))
    numbers: dict[str, Any] = found._asdict()
    del numbers["probabilities"]
    for name in ("distance", "volatility"):
        numbers[name] = None if numbers[name] is None else format_percent(numbers[name])
    digits = max(0, math.ceil(-math.log10(rules.contract.tick or 1e-6) - 1e-9))
    for name in ("liquidation_price", "bankruptcy_price"):
        numbers[name] = "none" if math.isnan(numbers[name]) else f"{numbers[name]:,.{digits}f}"
    numbers |= {f"liquidated in {days}": format_percent(x) for days, x in odds.items()}
    render([(name.replace("_", " "), numbers[name]) for name in numbers], ("of the position", ""))
