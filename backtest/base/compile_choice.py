"""The choice between compiled code and plain Python, and the kernels that wait to be compiled.

Both give the same bits. Code that is not compiled yet runs in plain Python as long as that takes
less time than compiling it. The rule counts bars and does not read a clock. The plain work of one
process adds up: once it exceeds the cost of compiling, the process compiles.

The time this process has spent compiling is kept here too: limits in seconds leave it out.
"""

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
"""The environment variable that sets when to compile."""
MODES = ("auto", "no", "now")
"""In the background if that is faster; never in the background; always before running."""


class KernelOrder(NamedTuple):
    """A kernel of a module to compile for arguments of some types."""

    module: str
    name: str
    arguments: tuple[Any, ...]


class ThreadRequests(threading.local):
    """Requests of a thread: whether to hurry or compile first, and the kernels to compile."""

    def __init__(self) -> None:
        self.is_hurried = False
        self.must_compile = False
        self.kernels: dict[str, KernelOrder] = {}


REQUESTS = ThreadRequests()
_spent: dict[str, float] = {}


def read_mode() -> str:
    """Return the value of ``BACKTEST_COMPILE``, checked."""
    mode = os.environ.get(MODE, "").lower() or "auto"
    if mode not in MODES:
        raise ParameterError(
            f"{MODE} must be one of {', '.join(MODES)}, got {mode!r}{did_you_mean(mode, MODES)}",
            where=f"the environment variable {MODE}",
            cure=f"unset {MODE}, or set it to one of these words",
        )
    return mode


def set_hurry(is_hurried: bool) -> None:
    """Set whether this thread wants one result soon, or many results."""
    REQUESTS.is_hurried = is_hurried and read_mode() != "now"


@contextlib.contextmanager
def compiling_first() -> Iterator[None]:
    """Make this thread compile before it runs anything inside the block."""
    before, REQUESTS.must_compile = REQUESTS.must_compile, True
    try:
        yield
    finally:
        REQUESTS.must_compile = before


def is_plain_sooner(key: str, plain: float, compiling: float) -> bool:
    """Return whether plain Python is faster, given the seconds that both ways take.

    The seconds already spent in plain Python under the same ``key`` count as well.
    """
    if not REQUESTS.is_hurried or REQUESTS.must_compile:
        return False
    spent = _spent.get(key, 0.0) + plain
    if spent >= compiling:
        return False
    _spent[key] = spent
    return True


def pop_kernels() -> tuple[KernelOrder, ...]:
    """Return the kernels that wait to be compiled, and clear the list."""
    orders = tuple(REQUESTS.kernels.values())
    REQUESTS.kernels.clear()
    return orders


def write_marks(marks: tuple[Path, ...]) -> None:
    """Create empty marker files; a missing one only costs compiling or looking again."""
    for path in marks:
        with contextlib.suppress(OSError):
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()


class Stopwatch:
    """Seconds during which at least one thread compiled.

    Garbage is not collected meanwhile: a compiler makes millions of objects that it keeps, and
    looking through them takes a fifth of its time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._began = 0.0
        self._seconds = 0.0
        self._collects = False

    @property
    def is_running(self) -> bool:
        """Whether something is being compiled now."""
        return self._depth > 0

    @property
    def seconds(self) -> float:
        """The seconds counted so far."""
        with self._lock:
            running = time.perf_counter() - self._began if self._depth else 0.0
            return self._seconds + running

    def begin(self) -> None:
        """Count one more thread that compiles."""
        with self._lock:
            if self._depth == 0:
                self._began = time.perf_counter()
                self._collects = gc.isenabled()
                gc.disable()
            self._depth += 1

    def end(self) -> None:
        """Count one thread less."""
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._seconds += time.perf_counter() - self._began
                if self._collects:
                    gc.enable()


COMPILING = Stopwatch()
"""The stopwatch of this process."""


@contextmanager
def count_as_compiling() -> Iterator[None]:
    """Count the time inside the block as compiling."""
    COMPILING.begin()
    try:
        yield
    finally:
        COMPILING.end()
