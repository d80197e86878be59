"""``backtest options``: chains of quotes, and surfaces fitted to them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from backtest.base import ParameterError
from backtest.cli.command import AsJson, Report, command, flag
from backtest.cli.printing import print_json, print_paragraph, render, show_progress
from backtest.options import Chain, Surface
from backtest.options.chain import CHECKS
from backtest.options.surfaces import MODELS

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
Timezone = Annotated[str | None, flag("Time zone of stamps that have none.", "--timezone")]
Underlying = Annotated[str | None, flag("Name of the underlying, if there are several.")]


@command("options chain")
def show_chain(
    file: File = None,
    *,
    settlement: FileSettlement = None,
    timezone: Timezone = None,
    underlying: Underlying = None,
    as_json: AsJson = False,
) -> None:
    """Count the defects of a chain's quotes, by snapshot.

    backtest options chain                          [dim]# the sample[/dim]
    backtest options chain quotes.csv --settlement cash --json
    """
    with show_progress("reading the chain"):
        chain = read_chain(file, settlement, timezone).select(underlying)
        found = chain.inspect()
    if as_json:
        print_json({"snapshots": to_rows(found.table), "defects": to_rows(found.rows)})
        return
    print_paragraph(repr(chain), indent="")
    typer.echo(repr(found))
    kept = [name for name in CHECKS if found.total[name]]
    render(found.table[["time", "underlying", "quotes", "two_sided", *kept]])


@command("options surface")
def show_surface(
    file: File = None,
    *,
    settlement: FileSettlement = None,
    timezone: Timezone = None,
    underlying: Underlying = None,
    time: Annotated[
        str | None, flag("The last snapshot at or before this time, if there are several.")
    ] = None,
    model: Annotated[str, typer.Option(help=f"One of {', '.join(MODELS)}.")] = "svi",
    report: Report = None,
    as_json: AsJson = False,
) -> None:
    """Fit a surface of implied volatility to bids and asks, and say how well it fits.

    backtest options surface deribit.parquet --underlying ETH --model ssvi --report surface.html
    backtest options surface chains --underlying BTC --time 2026-01-05
    """
    with show_progress("reading the chain"):
        chain = read_chain(file, settlement, timezone).select(underlying, time)
    if len(chain.times) > 1:
        raise ParameterError(
            f"a surface is of one snapshot, got {len(chain.times)}: choose one with --time"
        )
    with show_progress("fitting the surface"):
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


def read_chain(file: Path | None, settlement: str | None, timezone: str | None) -> Chain:
    if file is None:
        return Chain.sample()
    return Chain.load(file, settlement=settlement, timezone=timezone)


def to_rows(frame: pd.DataFrame) -> list[Any]:
    times = frame.select_dtypes(["datetimetz", "datetime"]).columns
    text = {name: frame[name].dt.strftime("%Y-%m-%dT%H:%M:%SZ") for name in times}
    return list(frame.assign(**text).to_dict("records"))
