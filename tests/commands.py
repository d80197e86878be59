"""Commands run in this process, and code in another one."""

import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from backtest.cli import main


def override(words: Sequence[str], *flags: str) -> list[str]:
    """Return the words of a command with flags, in the place of those of the same name."""
    given = {flag for flag in flags if flag.startswith("--")}
    kept = [
        word
        for before, word in pairwise(["", *words])
        if not (word in given or (before in given and not word.startswith("--")))
    ]
    return [*kept, *flags]


def call(capsys, *words: object) -> tuple[int, str, str]:
    """Run a command; return its exit code and what it printed, on both streams."""
    code = main(list(map(str, words)))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def run_python(code: str) -> str:
    """Run code in a process of its own; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    return done.stdout.strip()
