"""Whether a run takes plain Python or compiled code, where the code is not compiled yet."""

from __future__ import annotations

import contextlib
import os
import sys

from backtest.base import Choice

MODE = "BACKTEST_COMPILE"
MODES = ("auto", "now")
MOST_PLAIN = 50_000
"""Bars times parameter sets times instruments that plain Python takes where nothing is compiled.

A bar takes plain Python about 200 us, so this many take 10 s; the compiler takes 60 s once.
"""


def is_plain_sooner(n: int) -> bool:
    """Return whether ``n`` bars times sets times instruments do not wait for the compiler."""
    mode = os.environ.get(MODE, "").lower() or "auto"
    mode = str(Choice(*MODES).check(f"the environment variable {MODE}", mode))
    return mode != "now" and n <= MOST_PLAIN


def tell_of_compiling() -> None:
    """Say on stderr that a run waits for the compiler."""
    text = (
        "compiling the engine once on this machine, about 60 s; later runs take 2 s "
        "(backtest compile does it beforehand)"
    )
    with contextlib.suppress(OSError, ValueError, AttributeError):  # there may be no stderr
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - the one line there is
