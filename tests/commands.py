"""Commands run in this process."""

from __future__ import annotations

from backtest.cli import main


def call(capsys, *words: object) -> tuple[int, str, str]:
    """Run a command; return its exit code and what it printed, on both streams."""
    code = main(list(map(str, words)))
    captured = capsys.readouterr()
    return code, captured.out, captured.err
