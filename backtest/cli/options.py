"""``backtest options``: chains of quotes, and surfaces fitted to them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from backtest.base import ParameterError
from backtest.cli.command import AsJson, flag, option
from backtest.cli.printing import add_command, format_help, print_json, print_paragraph, render
from backtest.cli.progress import show_activity, show_progress
from backtest.options import Chain, Surface, Surfaces
from backtest.options.chain import CHECKS
from backtest.options.surfaces import MODELS

EXAMPLES = """
backtest options chain deribit.parquet          [dim]# which quotes are defective[/dim]
backtest options surface deribit.parquet --underlying BTC --report surface.html
"""
CHAIN_EXAMPLES = """
backtest options chain                          [dim]# the sample[/dim]
backtest options chain quotes.csv --settlement cash --json
"""
SURFACE_EXAMPLES = """
backtest options surface deribit.parquet --underlying ETH --model ssvi --report surface.html
backtest options surface chains --underlying BTC   [dim]# a folder: a line per snapshot[/dim]
"""


File = Annotated[
    Path | None,
    typer.Argument(
        help="A Parquet, Feather, CSV or JSON file, or a folder of them; without one, a synthetic "
        "chain.",
        metavar="FILE",
        show_default=False,
    ),
]
FileSettlement = Annotated[
    str | None, flag("'cash' or 'coin'; needed unless the file is Deribit's.", "--settlement")
]
Underlying = Annotated[str | None, flag("Name of the underlying, if there are several.")]
HEADLINE = "30d"

app = typer.Typer(rich_markup_mode="rich")


def options() -> None:
    """Inspect chains of quotes of options, and fit surfaces to them."""


def show_chain(
    file: File = None,
    *,
    settlement: FileSettlement = None,
    underlying: Underlying = None,
    as_json: AsJson = False,
) -> None:
    """Count the defects of a chain's quotes, by snapshot."""
    with show_activity("reading the chain"):
        chain = read_chain(file, settlement).select(underlying)
        found = chain.inspect()
    if as_json:
        print_json({"snapshots": to_rows(found.table), "defects": to_rows(found.rows)})
        return
    print_paragraph(repr(chain), indent="")
    typer.echo(repr(found))
    kept = [name for name in CHECKS if found.total[name]]
    render(found.table[["time", "underlying", "quotes", "two_sided", *kept]])


def show_surface(
    file: File = None,
    *,
    settlement: FileSettlement = None,
    underlying: Underlying = None,
    time: Annotated[
        str | None, flag("The last snapshot at or before this time, if there are several.", "--at")
    ] = None,
    model: Annotated[str, typer.Option(help=f"One of {', '.join(MODELS)}.")] = "svi",
    report: Annotated[
        Path | None, option("Write a report: .html, .md or .json.", "--report")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fit a surface of implied volatility to bids and asks, and say how well it fits.

    Of several snapshots, a line each.
    """
    if report is not None:
        from backtest.report import choose_format  # noqa: PLC0415 - seldom used

        choose_format(report, None)
    with show_activity("reading the chain"):
        chain = read_chain(file, settlement).select(underlying, time)
    if len(chain.times) > 1:
        if report is not None:
            raise ParameterError(
                f"a report shows one snapshot, got {len(chain.times)}; choose one with --at"
            )
        show_surfaces(chain, model, as_json=as_json)
        return
    with show_activity("fitting the surface"):
        surface = Surface.fit(chain, model)  # type: ignore[arg-type] # checked there
    if report is not None:
        surface.report(report)
    fits = surface.fits.assign(crossings=surface.arbitrage()["crossings"])
    if as_json:
        print_json({"summary": surface.verdict, "fits": to_rows(fits),
                    "left_out": to_rows(surface.left_out)})  # fmt: skip
        return
    typer.echo(surface.summary())
    if report is not None:
        typer.echo(f"\nreport: {report}")


def show_surfaces(chain: Chain, model: str, *, as_json: bool) -> None:
    with show_progress("fitting surfaces", "snapshots") as progress:
        found = Surfaces.fit(chain, model, progress=progress)  # type: ignore[arg-type]
    table = measure_surfaces(found)
    if as_json:
        print_json({"surfaces": to_rows(table), "skipped": to_rows(found.skipped)})
        return
    print_paragraph(repr(found), indent="")
    render(table, shares=("iv", "skew", "vix", "inside"))
    print_paragraph(
        "At 30 days: iv at the money, skew of the 25-delta put less the call, vix model-free. "
        "butterflies and crossings: expiries with arbitrage of that kind."
    )
    for time, reason in found.skipped.itertuples(index=False):
        print_paragraph(f"skipped: {time:%Y-%m-%d %H:%M}, {reason}")


def measure_surfaces(found: Surfaces) -> pd.DataFrame:
    rows = []
    for each in found.surfaces:
        arbitrage = each.arbitrage()
        rows.append(
            {
                "time": each.time,
                "expiries": len(each.fits),
                "iv": each.measure("atm", HEADLINE),
                "skew": each.measure("skew", HEADLINE),
                "vix": each.measure("vix", HEADLINE),
                "inside": each.inside,
                "butterflies": int(arbitrage["butterfly"].sum()),
                "crossings": int((arbitrage["crossings"] > 0.0).sum()),
            }
        )
    return pd.DataFrame(rows)


def read_chain(file: Path | None, settlement: str | None) -> Chain:
    return Chain.sample() if file is None else Chain.load(file, settlement=settlement)


def to_rows(frame: pd.DataFrame) -> list[Any]:
    times = frame.select_dtypes(["datetimetz", "datetime"]).columns
    text = {name: frame[name].dt.strftime("%Y-%m-%dT%H:%M:%SZ") for name in times}
    return list(frame.assign(**text).to_dict("records"))


app.callback(help=format_help(options, EXAMPLES))(options)
add_command(app, "chain", show_chain, CHAIN_EXAMPLES)
add_command(app, "surface", show_surface, SURFACE_EXAMPLES)
COMMANDS = {"options": app}
