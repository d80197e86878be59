"""Read a book of positions from a TOML file, for ``backtest liq --book``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backtest.base import ParameterError, check_names
from backtest.cli.experiment_draft import located
from backtest.cli.experiment_venue import split_preset
from backtest.cli.toml_files import read_toml
from backtest.features import BookCalculation, calculate_book
from backtest.venue import (
    Brackets,
    Collateral,
    MarginRule,
    OptionPosition,
    PresetMargin,
    Venue,
    preset_files,
)

CURE = "give a book, such as examples/book.toml"
KEYS = ("balance", "venue", "requirement", "positions", "collateral", "options")
POSITION = ("quantity", "price", "entry", "venue")


def read_book_file(file: Path) -> BookCalculation:
    """Read a book and calculate it.

    Raises
    ------
    ParameterError, VenueError
        Naming the file and the table, if the file cannot be read, an entry is unknown or missing,
        or a value breaks a rule.
    """
    tables = read_toml(file, noun="a book", argument="--book", cure=CURE)
    with located(str(file)):
        needed = ("balance",) if tables.get("options") else ("balance", "positions")
        check_names("a book", tables, KEYS, needed, noun="entry", where="top")
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
    """Return the tables of the positions, their names checked."""
    if not isinstance(tables, Mapping) or not tables:
        raise ParameterError(
            f"positions must be tables by instrument, got {tables!r:.80}",
            where="positions",
            cure="write [positions.BTCUSDT] with quantity and price",
        )
    for name, row in tables.items():
        if not isinstance(row, Mapping):
            raise ParameterError(
                f"a position must be a table, got {row!r:.80}",
                where=f"positions.{name}",
                cure=f"write [positions.{name}] with quantity and price",
            )
        place = f"positions.{name}"
        check_names("a position", row, POSITION, ("quantity", "price"), noun="entry", where=place)
    return dict(tables)


def read_venue(name: str, row: Mapping[str, Any], common: object) -> Venue:
    """Return the venue of a position: its own, or its symbol at the common one."""
    given = row.get("venue", None if common is None else f"{common}:{name}")
    where = f"positions.{name}.venue"
    if not isinstance(given, str):
        raise ParameterError(
            f"a position needs a venue, got {given!r}",
            where=where,
            cure='write venue = "binance-usdm" at the top, or "NAME:SYMBOL" in the position',
        )
    found = split_preset(given, where=where)
    if preset_files.is_history(found.at):
        found = found._replace(at=preset_files.LATEST)
    return Venue.preset(*found)


def read_requirement(given: object) -> MarginRule:
    """Return the requirement: the name of a preset, or a table of a rule."""
    if given is None:
        return Brackets()
    if isinstance(given, str):
        return PresetMargin(preset=given)
    return MarginRule.from_dict(given, where="requirement")  # type: ignore[arg-type] # checked there


def read_options(given: object) -> list[OptionPosition]:
    """Return the options of the book; a contract is a name, or a table of its terms."""
    given = check_tables(given, "options", "option, quantity, index, at and volatility")
    return [OptionPosition.from_dict(row, where=f"options[{k}]") for k, row in enumerate(given)]


def read_collateral(given: object) -> list[Collateral]:
    """Return the collateral of the book."""
    given = check_tables(given, "collateral", "name, amount, prices and rate")
    return [Collateral.from_dict(row, where=f"collateral[{k}]") for k, row in enumerate(given)]


def check_tables(given: object, name: str, keys: str) -> list[Any]:
    """Return a list of tables, or raise a ParameterError that tells their keys."""
    if not isinstance(given, list):
        raise ParameterError(
            f"{name} must be a list of tables, got {given!r:.80}",
            where=name,
            cure=f"write [[{name}]] with {keys}",
        )
    return given
