"""The command line: it parses, calls, and prints; everything it does can be done from Python."""

from backtest.cli.app import main

__all__ = ["main"]
