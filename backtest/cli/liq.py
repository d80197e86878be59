"""``backtest liq``: the liquidation calculator."""

from __future__ import annotations

from typing import Annotated

import typer

from backtest.base import format_price_at_tick
from backtest.cli.command import AsJson, Command, flag
from backtest.cli.experiment import DEFAULT_VENUE
from backtest.cli.printing import print_json, print_title, render
from backtest.venue import Venue, calculate_liquidation, preset_files

EXAMPLES = """
backtest liq --side long --entry 30000 --leverage 10 --volatility 0.6
backtest liq --side short --entry 30000 --leverage 5 --margin cross --capital 10000
"""


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
    as_json: AsJson = False,
) -> None:
    """Calculate the margins, liquidation price and bankruptcy price of a position.

    With --volatility, also the probability of liquidation. Money is in the settlement currency.
    Fees for opening are not subtracted. In Python, bt.calculate_book takes several positions.
    """
    preset = preset_files.parse_name(venue)
    if preset.at is None:
        preset = preset._replace(at=preset_files.LATEST)
    rules = Venue.preset(*preset)
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


COMMANDS = {"liq": Command(liq, EXAMPLES)}
