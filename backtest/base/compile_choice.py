"""The choice between compiled code and plain Python, and the kernels that wait to be compiled."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from backtest.base.errors import ParameterError, did_you_mean

MODE = "BACKTEST_COMPILE"
MODES = ("auto", "no", "now")


class KernelOrder(NamedTuple):
    module: str
    name: str
    arguments: tuple[Any, ...]


class ThreadRequests(threading.local):
    def __init__(self) -> None:
        self.is_hurried = False
        self.must_compile = False
        self.kernels: dict[str, KernelOrder] = {}


REQUESTS = ThreadRequests()
_spent: dict[str, float] = {}


def read_mode() -> str:
    mode = os.environ.get(MODE, "").lower() or "auto"
    if mode not in MODES:
        raise ParameterError(
            f"the environment variable {MODE} must be one of {', '.join(MODES)} or unset, "
            f"got {mode!r}{did_you_mean(mode, MODES)}"
        )
    return mode


def set_hurry(is_hurried: bool) -> None:
    REQUESTS.is_hurried = is_hurried and read_mode() != "now"


@contextlib.contextmanager
def compiling_first() -> Iterator[None]:
    before, REQUESTS.must_compile = REQUESTS.must_compile, True
    try:
        yield
    finally:
        REQUESTS.must_compile = before


def is_plain_sooner(key: str, plain: float, compiling: float) -> bool:
    if not REQUESTS.is_hurried or REQUESTS.must_compile:
        return False
    spent = _spent.get(key, 0.0) + plain
    if spent >= compiling:
        return False
    _spent[key] = spent
    return True


def pop_kernels() -> tuple[KernelOrder, ...]:
    orders = tuple(REQUESTS.kernels.values())
    REQUESTS.kernels.clear()
    return orders


def write_marks(marks: tuple[Path, ...]) -> None:
    for path in marks:
        with contextlib.suppress(OSError):
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()


class Stopwatch:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._began = 0.0
        self._seconds = 0.0
        self._collects = False

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
                self._collects = gc.isenabled()
                gc.disable()
            self._depth += 1

    def end(self) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._seconds += time.perf_counter() - self._began
                if self._collects:
                    gc.enable()


COMPILING = Stopwatch()


@contextmanager
def count_as_compiling() -> Iterator[None]:
    COMPILING.begin()
    try:
        yield
    finally:
        COMPILING.end()
