"""``backtest data``: get market data in. Each command stands in a file of its own."""

from __future__ import annotations

import typer

from backtest.cli import data_fetch, data_import, data_inspect
from backtest.cli.output import explain

EXAMPLES = """
backtest data fetch BTCUSDT --from 2023-01-01 --to 2024-01-01 --out btc
backtest data import klines/BTCUSDT/1h --funding fundingRate/BTCUSDT --out btc
backtest data inspect btc
backtest run --data btc
"""

app = typer.Typer(rich_markup_mode="rich")


def describe() -> None:
    """Get market data in, and into the layout that every command reads with --data."""


app.callback(help=explain(describe, EXAMPLES))(describe)
app.command("fetch", help=explain(data_fetch.fetch, data_fetch.EXAMPLES))(data_fetch.fetch)
app.command("import", help=explain(data_import.import_files, data_import.EXAMPLES))(
    data_import.import_files
)
app.command("inspect", help=explain(data_inspect.inspect, data_inspect.EXAMPLES))(
    data_inspect.inspect
)
