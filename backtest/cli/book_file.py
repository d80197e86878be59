"""A book of positions in a TOML file, and its calculation as text: ``backtest liq --book``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from backtest.base import ParameterError, check_names, format_percent
from backtest.cli.experiment_draft import naming
from backtest.cli.experiment_schema import read_toml
from backtest.cli.experiment_venue import split_preset
from backtest.cli.printing import print_paragraph, print_table
from backtest.venue import (
    BookCalculation,
    Brackets,
    Collateral,
    MarginRule,
    OptionPosition,
    PresetMargin,
    Venue,
    calculate_book,
    choose_nearest,
    preset_files,
)

KEYS = ("balance", "venue", "requirement", "positions", "collateral", "options")
POSITION = ("quantity", "price", "entry", "venue")


def read_book_file(file: Path) -> BookCalculation:
    tables = read_toml(file, noun="a book")
    with naming(str(file)):
        needed = ("balance",) if tables.get("options") else ("balance", "positions")
        check_names("a book", tables, KEYS, needed, noun="entry")
        positions = read_positions(tables["positions"]) if "positions" in tables else {}
        return calculate_book(
            {name: read_venue(name, row, tables.get("venue")) for name, row in positions.items()},
            {name: row["quantity"] for name, row in positions.items()},
            {name: row["price"] for name, row in positions.items()},
            entries={name: row.get("entry", row["price"]) for name, row in positions.items()},
            balance=tables["balance"],
            rule=read_requirement(tables.get("requirement")),
            collateral=read_collateral(tables.get("collateral", [])),
            options=read_options(tables.get("options", [])),
        )


def read_positions(tables: object) -> dict[str, Mapping[str, Any]]:
    if not isinstance(tables, Mapping) or not tables:
        raise ParameterError(
            f"positions must be tables by instrument, [positions.BTCUSDT] with quantity and price, "
            f"got {tables!r:.80}"
        )
    for name, row in tables.items():
        if not isinstance(row, Mapping):
            raise ParameterError(
                f"positions.{name} must be a table with quantity and price, got {row!r:.80}"
            )
        needed = ("quantity", "price")
        check_names(f"positions.{name}", row, POSITION, needed, noun="entry")
    return dict(tables)


def read_venue(name: str, row: Mapping[str, Any], common: object) -> Venue:
    given = row.get("venue", None if common is None else f"{common}:{name}")
    if not isinstance(given, str):
        raise ParameterError(
            f'positions.{name}.venue must be "NAME:SYMBOL", or venue at the top "binance-usdm", '
            f"got {given!r}"
        )
    found = split_preset(given)
    if preset_files.is_history(found.at):
        found = found._replace(at=preset_files.LATEST)
    return Venue.preset(*found)


def read_requirement(given: object) -> MarginRule:
    if given is None:
        return Brackets()
    if isinstance(given, str):
        return PresetMargin(preset=given)
    return MarginRule.from_dict(given, where="requirement")  # type: ignore[arg-type] # checked there


def read_options(given: object) -> list[OptionPosition]:
    given = check_tables(given, "options", "option, quantity, index, at and volatility")
    return [OptionPosition.from_dict(row, where=f"options[{k}]") for k, row in enumerate(given)]


def read_collateral(given: object) -> list[Collateral]:
    given = check_tables(given, "collateral", "name, amount, prices and rate")
    return [Collateral.from_dict(row, where=f"collateral[{k}]") for k, row in enumerate(given)]


def check_tables(given: object, name: str, keys: str) -> list[Any]:
    if not isinstance(given, list):
        raise ParameterError(
            f"{name} must be a list of tables, [[{name}]] with {keys}, got {given!r:.80}"
        )
    return given


OF_OPTIONS = ("option", "quantity", "index", "days", "mark", "value", "delta")
COLUMNS = ("instrument", "quantity", "price", "notional", "profit", "share", "fails at", "move")
"""Every second move of y is a line of the map: characters are twice as high as wide."""


def print_book(found: BookCalculation) -> None:
    for name, text in list_figures(found):
        typer.echo(f"  {name:<20}{text}")
    typer.echo()
    right = tuple(name for name in COLUMNS if name != "instrument")
    if found.positions:
        rows = [list(row) for row in list_positions(found)]
        print_table(COLUMNS, rows, right=right, squeezes=True)
        typer.echo()
    if found.options:
        rows = [list(row) for row in list_options(found)]
        print_table(OF_OPTIONS, rows, right=OF_OPTIONS[1:], squeezes=True)
        typer.echo()
    print_paragraph(describe_first(found))
    for move in () if found.is_failing else found.moves:
        name = "all prices together" if move.name == "all" else move.name
        print_paragraph(f"{name}: {describe_moves(move.down, move.up)}")


def list_figures(found: BookCalculation) -> list[tuple[str, str]]:
    share = f", of which collateral {found.collateral_share:,.8g}" * (found.collateral_share != 0.0)
    level = "" if found.level == 1.0 else f", fails at {found.level:g} times that"
    state = ": it fails now" if found.is_failing else ""
    of_options = f", options {found.option_value:,.8g}" * bool(found.options)
    turns = f", options {found.options_leverage:.4g}" * bool(found.options)
    backed = f"{found.backing:,.8g}, of which collateral {found.collateral:,.8g}{of_options}"
    return [
        ("balance", f"{found.balance:,.8g}"),
        ("equity", f"{found.equity:,.8g}"),
        ("backed by", backed),
        ("requirement", f"{found.requirement:,.8g}{share}{level}"),
        ("initial margin", f"{found.initial:,.8g}"),
        ("margin ratio", format_percent(found.margin_ratio, 2) + state),
        ("left", f"{found.distance:,.8g}"),
        ("gross leverage", f"{found.gross_leverage:.4g}, net {found.net_leverage:.4g}{turns}"),
    ]


def list_positions(found: BookCalculation) -> list[tuple[str, ...]]:
    return [
        (
            row.instrument,
            f"{row.quantity:,.7g}",
            f"{row.price:,.7g}",
            f"{row.notional:,.6g}",
            f"{row.profit + 0.0:,.6g}",
            f"{row.share:,.6g}",
            "none" if math.isnan(row.liquidation_price) else f"{row.liquidation_price:,.7g}",
            format_move(choose_nearest(row.down, row.up)),
        )
        for row in found.positions
    ]


def list_options(found: BookCalculation) -> list[tuple[str, ...]]:
    return [
        (
            row.option,
            f"{row.quantity:,.7g}",
            f"{row.price:,.7g}",
            f"{row.days:,.4g}",
            f"{row.mark:,.6g}",
            f"{row.value:,.6g}",
            f"{row.delta:,.4g}",
        )
        for row in found.options
    ]


def format_move(move: float) -> str:
    return "-" if math.isnan(move) else format_percent(move, 2, is_signed=True)


def describe_first(found: BookCalculation) -> str:
    if found.is_failing:
        return "The requirement fails at these prices."
    if found.first is None and not found.positions:
        return "The book holds options only: their index moves it."
    if found.first is None:
        return "No move of one price alone liquidates."
    row = next(row for row in found.positions if row.instrument == found.first)
    move = format_move(choose_nearest(row.down, row.up))
    return f"First to liquidate, the others frozen: {found.first} at {move}."


def describe_moves(down: float, up: float) -> str:
    known = [format_move(move) for move in (down, up) if not math.isnan(move)]
    return f"liquidated at {' or '.join(known)}" if known else "no move liquidates"
