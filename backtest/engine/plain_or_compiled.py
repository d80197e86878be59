"""Whether a run takes plain Python or compiled code, by what it has to wait for."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from backtest.base import Choice, find_lasting_folder, read_bytes, write_file

MODE = "BACKTEST_COMPILE"
MODES = ("auto", "no", "now")
MOST_SECONDS = 10.0
"""Seconds of plain Python on this machine after which a run compiles first."""
SPENT = "plain-seconds"


class ThreadRequests(threading.local):
    is_single = False
    must_compile = False


REQUESTS = ThreadRequests()


def read_mode() -> str:
    mode = os.environ.get(MODE, "").lower() or "auto"
    return str(Choice(*MODES).check(f"the environment variable {MODE}", mode))


def set_single(is_single: bool) -> None:
    """Say whether one account is evaluated: what evaluates several compiles first."""
    REQUESTS.is_single = is_single and read_mode() != "now"


@contextlib.contextmanager
def compiling_first() -> Iterator[None]:
    before, REQUESTS.must_compile = REQUESTS.must_compile, True
    try:
        yield
    finally:
        REQUESTS.must_compile = before


def is_plain_sooner(mark: Path, seconds: float) -> bool:
    """Return whether code that is not compiled yet should run in plain Python.

    It should while that takes less than ``MOST_SECONDS``, with what earlier runs of this machine
    took. The mode ``no`` counts no earlier runs.
    """
    if not REQUESTS.is_single or REQUESTS.must_compile or mark.exists():
        return False
    folder = find_lasting_folder() if read_mode() == "auto" else None
    if folder:
        with contextlib.suppress(ValueError):
            seconds += float(read_bytes(folder / SPENT) or 0.0)
        if seconds < MOST_SECONDS:
            with contextlib.suppress(OSError):
                write_file(folder / SPENT, f"{seconds:.3f}".encode())
    return seconds < MOST_SECONDS


def write_mark(mark: Path) -> None:
    with contextlib.suppress(OSError):
        if not mark.exists():
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()


def tell_of_compiling(seconds: int) -> None:
    """Say on stderr that a run waits for the compiler, unless compiling is what was asked for."""
    if REQUESTS.must_compile:
        return
    text = (
        f"compiling the engine once on this machine, about {seconds} s; later runs take 2 s "
        "(backtest compile does it beforehand)"
    )
    with contextlib.suppress(OSError, ValueError, AttributeError):  # there may be no stderr
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - the one line there is
