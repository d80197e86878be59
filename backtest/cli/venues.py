"""``backtest venues``: the presets, and what one of them says."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from backtest import presets
from backtest.cli.experiment import split_preset
from backtest.cli.output import print_json, print_paragraph, print_table
from backtest.venue import Venue

EXAMPLES = """
backtest venues
backtest venues binance-usdm:BTCUSDT
backtest venues binance-usdm:BTCUSDT --json
"""


def venues(
    venue: Annotated[
        str | None, typer.Argument(help="One preset: brackets, fees, sources.")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="JSON.")] = False,
) -> None:
    """List the venue presets, with the day of their margin tables and where they come from."""
    if venue is None:
        list_presets(as_json=as_json)
    else:
        show_preset(venue, as_json=as_json)


def list_presets(*, as_json: bool) -> None:
    """Print every preset."""
    found = presets.available()
    if as_json:
        print_json([{"name": f"{each.venue}:{each.symbol}", **each._asdict()} for each in found])
        return
    for each in found:
        typer.secho(f"{each.venue}:{each.symbol}", bold=True)
        print_paragraph(each.title)
        print_paragraph(f"margin table of {each.date}: {each.source}")


def show_preset(name: str, *, as_json: bool) -> None:
    """Print all that one preset says."""
    venue_name, symbol = split_preset(name, where="VENUE")
    venue = Venue.preset(venue_name, symbol)
    origins = presets.origins(venue_name, symbol)
    if as_json:
        sources = {each.group: {"date": each.date, "source": each.source} for each in origins}
        print_json({"name": name, "venue": venue.to_dict(), "sources": sources})
        return
    typer.secho(name, bold=True)
    print_rules(venue)
    typer.echo("")
    print_brackets(venue)
    typer.echo("")
    typer.secho("Sources", bold=True)
    for each in origins:
        print_paragraph(f"{each.group}, {each.date}: {each.source}")


def print_rules(venue: Venue) -> None:
    """Print everything but the brackets, a group per line."""
    for group, content in venue.to_dict().items():
        if isinstance(content, dict):
            facts = ", ".join(f"{name} {value}" for name, value in content.items())
            print_paragraph(f"{group}: {facts}")
    rest: dict[str, Any] = {
        group: content
        for group, content in venue.to_dict().items()
        if not isinstance(content, (dict, list))
    }
    print_paragraph("rules: " + ", ".join(f"{name} {value}" for name, value in rest.items()))


def print_brackets(venue: Venue) -> None:
    """Print the margin table, notionals in the settlement currency."""
    columns = ("from", "to", "most leverage", "maintenance", "amount")
    rows = [
        (
            f"{row.floor:,.0f}",
            f"{row.cap:,.0f}",
            f"{row.max_leverage:g}x",
            f"{100 * row.maintenance_rate:g} %",
            f"{row.amount:,.2f}",
        )
        for row in venue.brackets
    ]
    print_table(columns, rows, right=columns)
