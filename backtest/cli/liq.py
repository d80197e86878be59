"""``backtest liq``: the liquidation calculator."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from backtest.base import (
    BacktestError,
    ParameterError,
    check_names,
    format_percent,
    format_price_at_tick,
)
from backtest.cli.build import DEFAULT_VENUE, split_preset
from backtest.cli.command import AsJson, flag
from backtest.cli.experiment import read_toml
from backtest.cli.printing import print_facts, print_json, print_paragraph, print_table
from backtest.venue import (
    BookCalculation,
    Brackets,
    Calculation,
    Collateral,
    MarginRule,
    OptionPosition,
    PresetMargin,
    Venue,
    calculate_book,
    calculate_liquidation,
    choose_nearest,
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
    if book is not None:
        refuse_with_book(side=side, entry=entry, leverage=leverage, capital=capital,
                         quantity=quantity, volatility=volatility)  # fmt: skip
        of_book = read_book_file(book)
        if as_json:
            print_json({"book": str(book), **of_book.to_dict()})
        else:
            typer.secho(str(book), bold=True)
            print_book(of_book)
        return
    if side is None or entry is None or leverage is None:
        raise_missing(side=side, entry=entry, leverage=leverage)
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
    print_facts(list_calculation(rules, found))


def describe_table_day(name: preset_files.PresetName, rules: Venue) -> str:
    since = "" if rules.in_force is None else rules.in_force.since
    known = f" (none is known for {name.at}: this is the oldest)" if name.is_before(since) else ""
    return f", margin table of {since}{known}" if since else ""


def list_calculation(rules: Venue, found: Calculation) -> Iterator[tuple[str, str]]:
    size, tick = abs(found.quantity), rules.contract.tick
    contracts = "contract" if size == 1.0 else "contracts"
    what = f"{found.side} {size:.12g} {contracts} at {found.entry:.12g}, "
    yield "position", f"{what}notional {found.notional:,.8g}, {found.margin} margin"
    yield "initial margin", f"{found.initial_margin:,.8g} at {found.leverage:g}x"
    yield "maintenance margin", f"{found.maintenance_margin:,.8g}"
    yield "backed by", f"{found.collateral:,.8g}"
    yield "liquidation price", format_price_at_tick(found.liquidation_price, tick)
    yield "bankruptcy price", format_price_at_tick(found.bankruptcy_price, tick)
    distance = format_percent(found.distance, 3, is_signed=True)
    if not math.isnan(found.volatility) and not math.isnan(found.distance):
        yearly = format_percent(found.volatility, 0)
        distance += f", {found.daily_sigmas:.2f} daily sigma at {yearly} a year"
    yield "distance", "no price liquidates" if math.isnan(found.distance) else distance
    if not math.isnan(found.volatility):
        odds = found.probabilities.items()
        yield "liquidated", ", ".join(f"{format_percent(p, 3)} in {n:g} d" for n, p in odds)


# ----------------------------------------------------------------------------- several positions


def refuse_with_book(**given: object) -> None:
    flags = [f"--{name}" for name, value in given.items() if value is not None]
    if flags:
        raise ParameterError(
            f"{', '.join(flags)} must be left out with --book, whose file has the positions"
        )


def raise_missing(**given: object) -> NoReturn:
    missing = ", ".join(f"--{name}" for name, value in given.items() if value is None)
    raise ParameterError(f"a position needs {missing}, or --book FILE for several positions")


KEYS = ("balance", "venue", "requirement", "positions", "collateral", "options")
POSITION = ("quantity", "price", "entry", "venue")
COIN = "name, amount, prices and rate"
OPTION = "option, quantity, index, at and volatility"


def read_book_file(file: Path) -> BookCalculation:
    tables = read_toml(file, noun="a book")
    try:
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
            collateral=read_list(tables.get("collateral", []), "collateral", COIN, Collateral),
            options=read_list(tables.get("options", []), "options", OPTION, OptionPosition),
        )
    except BacktestError as error:
        raise type(error)(f"{file}: {error}") from error


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


def read_list(given: object, name: str, keys: str, model: Any) -> list[Any]:
    if not isinstance(given, list):
        raise ParameterError(
            f"{name} must be a list of tables, [[{name}]] with {keys}, got {given!r:.80}"
        )
    return [model.from_dict(row, where=f"{name}[{k}]") for k, row in enumerate(given)]


OF_OPTIONS = ("option", "quantity", "index", "days", "mark", "value", "delta")
COLUMNS = ("instrument", "quantity", "price", "notional", "profit", "share", "fails at", "move")


def print_book(found: BookCalculation) -> None:
    print_facts(list_figures(found))
    for columns, rows in ((COLUMNS, list_positions(found)), (OF_OPTIONS, list_options(found))):
        typer.echo()
        if rows:
            print_table(columns, rows, right=columns[1:], squeezes=True)
    print_paragraph(describe_first(found))
    for move in () if found.is_failing else found.moves:
        name = "all prices together" if move.name == "all" else move.name
        known = [format_move(each) for each in (move.down, move.up) if not math.isnan(each)]
        what = f"liquidated at {' or '.join(known)}" if known else "no move liquidates"
        print_paragraph(f"{name}: {what}")


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
    styles = {"quantity": ",.7g", "price": ",.7g", "days": ",.4g"}
    styles |= {"mark": ",.6g", "value": ",.6g", "delta": ",.4g"}
    return [
        (row.option, *(format(getattr(row, name), style) for name, style in styles.items()))
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


COMMANDS = {"liq": (liq, EXAMPLES)}
