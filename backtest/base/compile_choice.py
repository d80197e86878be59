"""The choice between compiled code and plain Python, and the seconds spent on compiling."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from backtest.base.atomic_files import write_file
from backtest.base.cache_folder import find_lasting_folder, read_bytes
from backtest.base.code_identity import hash_texts
from backtest.base.errors import ParameterError, did_you_mean

MODE = "BACKTEST_COMPILE"
MODES = ("auto", "no", "now")
MOST_PLAIN = 10.0
"""Seconds of plain Python on this machine after which a run compiles first."""
SPENT = "plain-seconds"


class ThreadRequests(threading.local):
    def __init__(self) -> None:
        self.is_single = False
        self.must_compile = False


REQUESTS = ThreadRequests()


def read_mode() -> str:
    mode = os.environ.get(MODE, "").lower() or "auto"
    if mode not in MODES:
        raise ParameterError(
            f"the environment variable {MODE} must be one of {', '.join(MODES)} or unset, "
            f"got {mode!r}{did_you_mean(mode, MODES)}"
        )
    return mode


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

    It should while that takes less than ``MOST_PLAIN`` seconds, with what earlier runs of this
    machine took. The mode ``no`` counts no earlier runs.
    """
    if not REQUESTS.is_single or REQUESTS.must_compile or mark.exists():
        return False
    folder = find_lasting_folder() if read_mode() == "auto" else None
    spent = seconds + (read_spent(folder) if folder else 0.0)
    if folder and spent < MOST_PLAIN:
        with contextlib.suppress(OSError):
            write_file(folder / SPENT, f"{spent:.3f}".encode())
    return spent < MOST_PLAIN


def read_spent(folder: Path) -> float:
    try:
        return float(read_bytes(folder / SPENT) or 0.0)
    except ValueError:
        return 0.0


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


def name_types(*values: Any) -> str:
    """Return a hash of the types that numba compiles arguments for."""
    return hash_texts(*map(describe_type, values))


def describe_type(value: Any) -> str:
    if isinstance(value, np.ndarray):
        flags = value.flags
        layout = "C" if flags.c_contiguous else "F" if flags.f_contiguous else "A"
        return f"{value.dtype.str}{value.ndim}{layout}{flags.writeable}"
    if isinstance(value, tuple):
        inner = ", ".join(map(describe_type, value))
        return f"{type(value).__name__}({inner})"
    return NAMES.get(type(value)) or type(value).__name__


NAMES: dict[type, str] = {np.bool_: "bool", np.int64: "int", np.float64: "float"}


class Stopwatch:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._began = 0.0
        self._seconds = 0.0

    @property
    def is_running(self) -> bool:
        return self._depth > 0

    @property
    def seconds(self) -> float:
        with self._lock:
            running = time.perf_counter() - self._began if self._depth else 0.0
            return self._seconds + running

    def begin(self) -> None:
        with self._lock:
            if self._depth == 0:
                self._began = time.perf_counter()
            self._depth += 1

    def end(self) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._seconds += time.perf_counter() - self._began


COMPILING = Stopwatch()


@contextmanager
def count_as_compiling() -> Iterator[None]:
    COMPILING.begin()
    try:
        yield
    finally:
        COMPILING.end()
