"""``backtest data``: fetch, import and inspect market data."""

from __future__ import annotations

import typer

from backtest.cli import data_fetch_command, data_import_command, data_inspect_command
from backtest.cli.printing import add_command, format_help

EXAMPLES = """
backtest data fetch BTCUSDT --from 2023-01-01 --to 2024-01-01 --out btc
backtest data import klines/BTCUSDT/1h --funding fundingRate/BTCUSDT --out btc
backtest data fetch BTCUSDT ETHUSDT --from 2023-01-01 --to 2024-01-01 --out data
backtest data inspect btc
backtest run --data btc
"""

app = typer.Typer(rich_markup_mode="rich")


def data() -> None:
    """Fetch, import and inspect market data, in the layout that every command reads with --data."""


app.callback(help=format_help(data, EXAMPLES))(data)
add_command(app, "fetch", data_fetch_command.fetch, data_fetch_command.EXAMPLES)
add_command(app, "import", data_import_command.import_files, data_import_command.EXAMPLES)
add_command(app, "inspect", data_inspect_command.inspect, data_inspect_command.EXAMPLES)
COMMAND = app
