"""``backtest options``: prices, implied volatilities, chains of quotes and fitted surfaces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from backtest.base.errors import ParameterError
from backtest.base.number_text import format_percent
from backtest.base.units import YEAR_DAYS
from backtest.cli.flags import OUTPUT, AsJson, flag, option
from backtest.cli.printing import add_command, format_help, print_json, print_paragraph, print_table
from backtest.cli.progress import show_activity
from backtest.cli.unit_hints import warn_of_percentage
from backtest.options import Chain, Surface, greeks, implied_volatility, price, volatility_reason
from backtest.options.chain_inspection import CHECKS
from backtest.options.surface import MODELS

EXAMPLES = """
backtest options price --kind put --forward 60000 --strike 50000 --days 30 --volatility 0.55
backtest options implied --kind put --forward 60000 --strike 50000 --days 30 --price 560
backtest options chain deribit.parquet          [dim]# which quotes are defective[/dim]
backtest options surface deribit.parquet --underlying BTC --report surface.html
"""
PRICE_EXAMPLES = """
backtest options price --kind call --forward 60000 --strike 66000 --days 30 --volatility 0.55
backtest options price --kind put --forward 60000 --strike 50000 --days 30 --volatility 0.55 \
--settlement coin --json
"""
IMPLIED_EXAMPLES = """
backtest options implied --kind call --forward 60000 --strike 66000 --days 30 --price 1700
backtest options implied --kind put --forward 60000 --strike 50000 --days 30 --price 0.0093 \
--settlement coin
"""
CHAIN_EXAMPLES = """
backtest options chain                          [dim]# the sample[/dim]
backtest options chain quotes.csv --settlement cash --json
"""
SURFACE_EXAMPLES = """
backtest options surface deribit.parquet --underlying BTC
backtest options surface deribit.parquet --underlying ETH --model ssvi --report surface.html
"""


Kind = Annotated[str, flag("'call' or 'put'.", "--kind")]
Forward = Annotated[float, flag("Price of the forward with the same expiry.")]
Strike = Annotated[float, flag("The strike.")]
Days = Annotated[float, flag("Days to expiry.")]
Rate = Annotated[float, typer.Option(help="Continuous discount rate per year.")]
Settlement = Annotated[
    str, typer.Option(help="'cash', or 'coin' for prices in coins of the underlying.")
]
File = Annotated[
    Path | None,
    typer.Argument(
        help="A Parquet, Feather, CSV or JSON file; without one, a synthetic chain.",
        metavar="FILE",
        show_default=False,
    ),
]
FileSettlement = Annotated[
    str | None, flag("'cash' or 'coin'; needed unless the file is Deribit's.", "--settlement")
]
Underlying = Annotated[str | None, flag("Name of the underlying, if there are several.")]
UNITS = {
    "delta": "per unit of the forward",
    "gamma": "per unit squared",
    "vega": "per 1.00 of volatility",
    "theta": "per year",
    "rho": "per 1.00 of the rate",
    "vanna": "",
    "volga": "",
}

app = typer.Typer(rich_markup_mode="rich")


def options() -> None:
    """Price options, invert prices, inspect chains of quotes and fit surfaces to them."""


def show_price(
    *,
    kind: Kind,
    forward: Forward,
    strike: Strike,
    days: Days,
    volatility: Annotated[float, flag("Volatility per year (0.6 is 60 %).")],
    rate: Rate = 0.0,
    settlement: Settlement = "cash",
    as_json: AsJson = False,
) -> None:
    """Price a European option by Black-76, with its Greeks per unit of the underlying."""
    warn_of_percentage("--volatility", volatility)
    given = (kind, forward, strike, days / YEAR_DAYS, volatility, rate, settlement)
    value, found = price(*given), greeks(*given)  # type: ignore[arg-type] # checked by both
    if as_json:
        print_json({"price": value, **found._asdict()})
        return
    currency = "coins" if settlement == "coin" else "the quote currency"
    print_paragraph(f"{value:,.8g} in {currency}, per unit of the underlying", indent="")
    rows = [(name, f"{number:,.6g}", UNITS[name]) for name, number in found._asdict().items()]
    print_table(("greek", "value", "unit"), rows, right=("value",))


def show_implied(
    *,
    kind: Kind,
    price: Annotated[float, flag("Price per unit of the underlying.")],
    forward: Forward,
    strike: Strike,
    days: Days,
    rate: Rate = 0.0,
    settlement: Settlement = "cash",
    as_json: AsJson = False,
) -> None:
    """Find the volatility at which Black-76 gives a price."""
    given = (kind, price, forward, strike, days / YEAR_DAYS, rate, settlement)
    found = implied_volatility(*given)  # type: ignore[arg-type] # checked there
    reason = volatility_reason(*given)  # type: ignore[arg-type]
    if as_json:
        print_json({"implied_volatility": found, "reason": reason})
    elif reason:
        raise ParameterError(
            f"the price must have an implied volatility, got {price:g}: {reason}",
            where="--price",
            cure="give a price between the intrinsic and the largest value",
        )
    else:
        print_paragraph(f"{100.0 * found:.4f} % a year", indent="")


def show_chain(
    file: File = None,
    *,
    settlement: FileSettlement = None,
    underlying: Underlying = None,
    as_json: AsJson = False,
) -> None:
    """Count the defects of a chain's quotes, by snapshot."""
    with show_activity("reading the chain"):
        chain = read_chain(file, settlement)
        found = chain.select(underlying).inspect()
    if as_json:
        print_json({"snapshots": to_rows(found.table), "defects": to_rows(found.rows)})
        return
    print_paragraph(repr(chain), indent="")
    typer.echo(repr(found))
    kept = [name for name in CHECKS if found.total[name]]
    heads = ("time", "underlying", "quotes", "two_sided", *kept)
    rows = [
        (f"{row['time']:%Y-%m-%d %H:%M}", row["underlying"], *(f"{row[k]:,}" for k in heads[2:]))
        for row in found.table.to_dict("records")
    ]
    print_table(heads, rows, right=heads[2:])


def show_surface(
    file: File = None,
    *,
    settlement: FileSettlement = None,
    underlying: Underlying = None,
    at: Annotated[
        str | None, flag("The last snapshot at or before this time, if there are several.", "--at")
    ] = None,
    model: Annotated[str, typer.Option(help=f"One of {', '.join(MODELS)}.")] = "svi",
    report: Annotated[
        Path | None, option(OUTPUT, "Write a report: .html, .md, .json or .png.", "--report")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fit a surface of implied volatility to bids and asks, and say how well it fits."""
    with show_activity("fitting the surface"):
        chain = read_chain(file, settlement).select(time=at)
        surface = Surface.fit(chain, model, underlying=underlying)  # type: ignore[arg-type]
        arbitrage = surface.arbitrage()
    if report is not None:
        surface.report(report)
    fits = surface.fits.assign(crossings=arbitrage["crossings"])
    if as_json:
        print_json({"summary": surface.summary, "fits": to_rows(fits),
                    "left_out": to_rows(surface.left_out)})  # fmt: skip
        return
    print_paragraph(surface.summary, indent="")
    heads = ("expiry", "days", "forward", "quotes", "inside", "median", "worst",
             "crosses")  # fmt: skip
    rows = [
        (
            f"{row['expiry']:%Y-%m-%d}", f"{YEAR_DAYS * row['years']:.1f}",
            f"{row['forward']:,.6g}", f"{row['quotes']}", format_percent(row["inside"]),
            f"{100 * row['median_error']:.2f} pt", f"{100 * row['worst_error']:.2f} pt",
            format_percent(row["crossings"]),
        )
        for row in fits.to_dict("records")
    ]  # fmt: skip
    print_table(heads, rows, right=heads[1:])
    for reason, count in surface.left_out["reason"].value_counts().items():
        print_paragraph(f"left out: {count:,} quotes, {reason}")
    if report is not None:
        typer.echo(f"\nreport: {report}")


def read_chain(file: Path | None, settlement: str | None) -> Chain:
    """Return the chain of a file, or the sample."""
    return Chain.sample() if file is None else Chain.load(file, settlement=settlement)


def to_rows(frame: pd.DataFrame) -> list[Any]:
    """Return a frame as JSON data, times as text."""
    times = frame.select_dtypes(["datetimetz", "datetime"]).columns
    text = {name: frame[name].dt.strftime("%Y-%m-%dT%H:%M:%SZ") for name in times}
    return list(frame.assign(**text).to_dict("records"))


app.callback(help=format_help(options, EXAMPLES))(options)
add_command(app, "price", show_price, PRICE_EXAMPLES)
add_command(app, "implied", show_implied, IMPLIED_EXAMPLES)
add_command(app, "chain", show_chain, CHAIN_EXAMPLES)
add_command(app, "surface", show_surface, SURFACE_EXAMPLES)
