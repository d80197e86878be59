"""``backtest data``: get market data in. Each command stands in a file of its own."""

from __future__ import annotations

import typer

from backtest.cli import data_fetch_command, data_import_command, data_inspect_command
from backtest.cli.printing import format_help

EXAMPLES = """
backtest data fetch BTCUSDT --from 2023-01-01 --to 2024-01-01 --out btc
backtest data import klines/BTCUSDT/1h --funding fundingRate/BTCUSDT --out btc
backtest data inspect btc
backtest run --data btc
"""

app = typer.Typer(rich_markup_mode="rich")


def describe() -> None:
    """Get market data in, and into the layout that every command reads with --data."""


app.callback(help=format_help(describe, EXAMPLES))(describe)
app.command("fetch", help=format_help(data_fetch_command.fetch, data_fetch_command.EXAMPLES))(
    data_fetch_command.fetch
)
app.command(
    "import", help=format_help(data_import_command.import_files, data_import_command.EXAMPLES)
)(data_import_command.import_files)
app.command(
    "inspect", help=format_help(data_inspect_command.inspect, data_inspect_command.EXAMPLES)
)(data_inspect_command.inspect)
