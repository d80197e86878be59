"""``backtest liq``: the liquidation calculator."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from backtest.base import ParameterError, format_percent, format_price_at_tick
from backtest.cli.book_file import print_book, read_book_file
from backtest.cli.experiment_venue import DEFAULT_VENUE, split_preset
from backtest.cli.flags import AsJson, flag
from backtest.cli.printing import print_json, print_paragraph
from backtest.cli.typed_values import warn_of_percentage
from backtest.venue import (
    Calculation,
    Venue,
    calculate_liquidation,
    preset_files,
)

EXAMPLES = """
backtest liq --side long --entry 30000 --leverage 10
backtest liq --venue binance-usdm:BTCUSDT@2021-05-19 --side short --entry 40000 --leverage 5
backtest liq --side long --entry 30000 --leverage 5 --margin cross --capital 100000 --quantity 2
backtest liq --side long --entry 30000 --leverage 10 --volatility 0.6 --json
backtest liq --book book.toml
"""


def liq(
    *,
    side: Annotated[str | None, flag("'long' or 'short'.")] = None,
    entry: Annotated[float | None, flag("The price at which the position is opened.")] = None,
    leverage: Annotated[float | None, flag("The leverage set at the venue.")] = None,
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
    book: Annotated[
        Path | None,
        flag("A TOML file of several positions on one collateral, instead of a single one."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Calculate the margins, liquidation price and bankruptcy price of a position.

    With --volatility, also the probability of liquidation. With --book, the requirement of several
    positions, what is left over it, and the moves that liquidate. Money is in the settlement
    currency. Fees for opening are not subtracted.
    """
    if book is not None:
        refuse_with_book(side=side, entry=entry, leverage=leverage, capital=capital,
                         quantity=quantity, volatility=volatility)  # fmt: skip
        calculate_file(book, as_json=as_json)
        return
    if side is None or entry is None or leverage is None:
        raise_missing(side=side, entry=entry, leverage=leverage)
    warn_of_percentage("--volatility", volatility)
    name = split_preset(venue)
    if preset_files.is_history(name.at):
        name = name._replace(at=preset_files.LATEST)
    rules = Venue.preset(*name)
    found = calculate_liquidation(
        rules,
        side=side,
        entry=entry,
        leverage=leverage,
        margin=margin,
        capital=capital,
        quantity=quantity,
        volatility=volatility,
        multiplier=multiplier,
    )
    if as_json:
        odds = {f"{days:g}d": chance for days, chance in found.probabilities.items()}
        table = None if rules.in_force is None else rules.in_force.to_dict()
        print_json({"venue": venue, "table": table, **found._asdict(), "probabilities": odds})
        return
    kind = next(p.title for p in preset_files.in_file(name.venue) if p.symbol == name.symbol)
    typer.secho(f"{venue}{describe_table_day(name, rules)}", bold=True)
    print_paragraph(kind)
    print_calculation(rules, found)


def describe_table_day(name: preset_files.PresetName, rules: Venue) -> str:
    since = "" if rules.in_force is None else rules.in_force.since
    known = f" (none is known for {name.at}: this is the oldest)" if name.is_before(since) else ""
    return f", margin table of {since}{known}" if since else ""


def print_calculation(rules: Venue, found: Calculation) -> None:
    size = abs(found.quantity)
    contracts = "contract" if size == 1.0 else "contracts"
    what = f"{found.side} {size:.12g} {contracts} at {found.entry:.12g}, "
    rows = [
        ("position", f"{what}notional {found.notional:,.8g}, {found.margin} margin"),
        ("initial margin", f"{found.initial_margin:,.8g} at {found.leverage:g}x"),
        ("maintenance margin", f"{found.maintenance_margin:,.8g}"),
        ("backed by", f"{found.collateral:,.8g}"),
        ("liquidation price", format_price_at_tick(found.liquidation_price, rules.contract.tick)),
        ("bankruptcy price", format_price_at_tick(found.bankruptcy_price, rules.contract.tick)),
        ("distance", describe_distance(found)),
    ]
    if not math.isnan(found.volatility):
        odds = (
            f"{format_percent(chance, 3)} in {n:g} d" for n, chance in found.probabilities.items()
        )
        rows.append(("liquidated", ", ".join(odds)))
    for name, text in rows:
        typer.echo(f"  {name:<20}{text}")


def describe_distance(found: Calculation) -> str:
    if math.isnan(found.distance):
        return "no price liquidates"
    text = format_percent(found.distance, 3, is_signed=True)
    if math.isnan(found.volatility):
        return text
    yearly = format_percent(found.volatility, 0)
    return f"{text}, {found.daily_sigmas:.2f} daily sigma at {yearly} a year"


# ----------------------------------------------------------------------------- several positions


def calculate_file(file: Path, *, as_json: bool) -> None:
    found = read_book_file(file)
    if as_json:
        print_json({"book": str(file), **found.to_dict()})
        return
    typer.secho(str(file), bold=True)
    print_book(found)


def refuse_with_book(**given: object) -> None:
    flags = [f"--{name}" for name, value in given.items() if value is not None]
    if flags:
        raise ParameterError(
            f"{', '.join(flags)} must be left out with --book, whose file has the positions"
        )


def raise_missing(**given: object) -> NoReturn:
    missing = ", ".join(f"--{name}" for name, value in given.items() if value is None)
    raise ParameterError(f"a position needs {missing}, or --book FILE for several positions")


COMMAND = liq
