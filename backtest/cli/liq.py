"""``backtest liq``: the liquidation calculator."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from backtest.base import BacktestError, ParameterError, check_names, format_price_at_tick
from backtest.cli.command import AsJson, Command, flag
from backtest.cli.experiment import DEFAULT_VENUE, read_toml
from backtest.cli.printing import print_json, print_paragraph, print_title, render
from backtest.venue import (
    BookCalculation,
    Brackets,
    Collateral,
    MarginRule,
    OptionPosition,
    PresetMargin,
    Venue,
    calculate_book,
    calculate_liquidation,
    preset_files,
)

EXAMPLES = """
backtest liq --side long --entry 30000 --leverage 10 --volatility 0.6
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
    given = {"side": side, "entry": entry, "leverage": leverage}
    if book is not None:
        if typed := [f"--{name}" for name, each in given.items() if each is not None]:
            raise ParameterError(
                f"{', '.join(typed)} must be left out with --book, whose file has the positions"
            )
        print_book(book, read_book_file(book), as_json=as_json)
        return
    if side is None or entry is None or leverage is None:
        missing = ", ".join(f"--{name}" for name, each in given.items() if each is None)
        raise ParameterError(f"a position needs {missing}, or --book FILE for several positions")
    rules = read_venue(venue)
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
    odds = {f"{days:g}d": chance for days, chance in found.probabilities.items()}
    table = rules.in_force
    if as_json:
        content = {**found._asdict(), "probabilities": odds}
        print_json({"venue": venue, "table": table and table.to_dict(), **content})
        return
    print_title(venue + ("" if table is None else f", margin table of {table.since}"))
    numbers = {name: x for name, x in found._asdict().items() if name not in ("probabilities",)}
    for name in ("liquidation_price", "bankruptcy_price"):
        numbers[name] = format_price_at_tick(numbers[name], rules.contract.tick)
    numbers |= {f"liquidated in {days}": chance for days, chance in odds.items()}
    render([(name.replace("_", " "), numbers[name]) for name in numbers], ("of the position", ""))


def read_venue(text: str) -> Venue:
    """Return the rules of a preset; without a date those of its newest table."""
    name = preset_files.parse_name(text)
    if preset_files.is_history(name.at):
        name = name._replace(at=preset_files.LATEST)
    return Venue.preset(*name)


# ----------------------------------------------------------------------------- several positions

KEYS = ("balance", "venue", "requirement", "positions", "collateral", "options")
POSITION = ("quantity", "price", "entry", "venue")


def read_book_file(file: Path) -> BookCalculation:
    tables = read_toml(file, noun="a book")
    try:
        needed = ("balance",) if tables.get("options") else ("balance", "positions")
        check_names("a book", tables, KEYS, needed, noun="entry")
        positions = read_tables("positions", tables.get("positions", {}))
        for name, row in positions.items():
            check_names(f"positions.{name}", row, POSITION, POSITION[:2], noun="entry")
        return calculate_book(
            {name: pick_venue(name, row, tables.get("venue")) for name, row in positions.items()},
            {name: row["quantity"] for name, row in positions.items()},
            {name: row["price"] for name, row in positions.items()},
            entries={name: row.get("entry", row["price"]) for name, row in positions.items()},
            balance=tables["balance"],
            rule=read_requirement(tables.get("requirement")),
            collateral=read_list("collateral", tables, Collateral),
            options=read_list("options", tables, OptionPosition),
        )
    except BacktestError as error:
        raise type(error)(f"{file}: {error}") from error


def read_tables(name: str, tables: Any) -> dict[str, Mapping[str, Any]]:
    if not isinstance(tables, dict) or not all(isinstance(x, dict) for x in tables.values()):
        raise ParameterError(
            f"{name} must be tables by instrument, [{name}.BTCUSDT] with quantity and price, "
            f"got {tables!r:.80}"
        )
    return tables


def pick_venue(name: str, row: Mapping[str, Any], common: object) -> Venue:
    given = row.get("venue", None if common is None else f"{common}:{name}")
    if not isinstance(given, str):
        raise ParameterError(
            f'positions.{name}.venue must be "NAME:SYMBOL", or venue at the top "binance-usdm", '
            f"got {given!r}"
        )
    return read_venue(given)


def read_requirement(given: Any) -> MarginRule:
    if given is None or isinstance(given, str):
        return Brackets() if given is None else PresetMargin(preset=given)
    return MarginRule.from_dict(given, where="requirement")


def read_list(name: str, tables: Mapping[str, Any], model: Any) -> list[Any]:
    given = tables.get(name, [])
    if not isinstance(given, list):
        raise ParameterError(f"{name} must be a list of tables, [[{name}]], got {given!r:.80}")
    return [model.from_dict(row, where=f"{name}[{k}]") for k, row in enumerate(given)]


FIGURES = ("balance", "equity", "backing", "collateral", "option_value", "requirement", "initial",
           "margin_ratio", "distance", "gross_leverage", "net_leverage")  # fmt: skip


def print_book(file: Path, found: BookCalculation, *, as_json: bool) -> None:
    if as_json:
        print_json({"book": str(file), **found.to_dict()})
        return
    print_title(str(file))
    render(
        [(name.replace("_", " "), getattr(found, name)) for name in FIGURES], ("of the book", "")
    )
    for rows, columns in (
        (found.positions, ("instrument", "quantity", "price", "notional", "profit", "share",
                           "liquidation_price", "down", "up")),
        (found.options, ("option", "quantity", "price", "days", "mark", "value", "delta")),
    ):  # fmt: skip
        if rows:
            typer.echo()
            render(
                pd.DataFrame(row._asdict() for row in rows)[list(columns)], shares=("down", "up")
            )
    if found.is_failing:
        print_paragraph("The requirement fails at these prices.")
        return
    for move in found.moves:
        name = "all prices together" if move.name == "all" else move.name
        known = [f"{each:+.2%}" for each in (move.down, move.up) if not math.isnan(each)]
        what = f"liquidated at {' or '.join(known)}" if known else "no move liquidates"
        print_paragraph(f"{name}: {what}")
    if found.first is not None:
        print_paragraph(f"first to liquidate, the others frozen: {found.first}")


COMMANDS = {"liq": Command(liq, EXAMPLES)}
