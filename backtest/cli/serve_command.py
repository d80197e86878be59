"""``backtest serve``: show saved results in a browser."""

from __future__ import annotations

import gc
import threading
from typing import Annotated

import typer

from backtest.base import DataError, Range
from backtest.cli.flags import OUTPUT, RESULTS, Results, option

EXAMPLES = """
backtest serve                          [dim]# http://127.0.0.1:8642, until Ctrl-C[/dim]
backtest serve --results other --port 0 --open
"""
PORT, HOST = 8642, "127.0.0.1"
SERVING = "Serving"


def serve(
    *,
    results: Results = RESULTS,
    port: Annotated[
        int, option(SERVING, "The port to listen on (8642); 0: any free one.", "--port")
    ] = PORT,
    host: Annotated[
        str, option(SERVING, "The address to listen on (127.0.0.1: this machine only).", "--host")
    ] = HOST,
    open_: Annotated[bool, option(OUTPUT, "Open the page in the browser.", "--open")] = False,
) -> None:
    """Show saved results in the browser: list, filter, compare, follow a running study.

    Nothing is written, and nothing leaves this machine unless --host is set.
    """
    import webbrowser  # noqa: PLC0415 - seldom used

    from backtest.report import Server, is_local  # noqa: PLC0415 - loads much

    Range(0, 65_535).check("port", port, where="--port", whole=True)
    if not results.is_dir():
        raise DataError(
            f"the folder of results must exist, {str(results)!r} does not",
            where="--results",
            cure="run something first, for example: backtest run",
        )
    gc.enable()  # a server runs for long
    with Server(results, host, port) as server:
        if not is_local(host):
            text = f"everyone who reaches {host} over the network can read these results"
            typer.echo(f"warning: {text}", err=True)
        typer.echo(f"{results} at {server.url} (Ctrl-C ends)")
        if open_:
            threading.Thread(target=webbrowser.open, args=(server.near_url,), daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


COMMAND = serve
