"""Serve the pages of saved results to a browser on this machine, reading only."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.serve.server import Server, is_local

open_door(__name__)
