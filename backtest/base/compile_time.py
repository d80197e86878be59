"""The time this process has spent compiling, which limits in seconds leave out."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


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
