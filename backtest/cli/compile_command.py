"""``backtest compile``: compile the engine before the first run."""

from __future__ import annotations

import time

import typer

EXAMPLES = """
backtest compile                       [dim]# once on a machine, or in a build[/dim]
"""


def compile_engine() -> None:
    """Compile the engine for this machine, so that no run waits for it."""
    import backtest as bt  # noqa: PLC0415 - loads much
    from backtest.base import compiling_first  # noqa: PLC0415
    from backtest.strategies import VolTarget  # noqa: PLC0415

    began = time.perf_counter()
    market = bt.Market.sample(bars=100)
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    for each in (market, bt.Markets({"ONE": market, "TWO": market})):
        with compiling_first():
            bt.run(each, VolTarget(), venue=venue, account=bt.Account())
    typer.echo(f"The engine is compiled, after {time.perf_counter() - began:.0f} s.")


COMMAND = compile_engine
