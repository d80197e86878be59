"""The seconds that compiling takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """The seconds that compiling takes; only one thread compiles at a time."""

    depth, began, spent = 0, 0.0, 0.0

    @property
    def seconds(self) -> float:
        return self.spent + (time.perf_counter() - self.began if self.depth else 0.0)

    @contextmanager
    def running(self) -> Iterator[None]:
        self.began = self.began if self.depth else time.perf_counter()
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1
            if self.depth == 0:
                self.spent += time.perf_counter() - self.began


COMPILING = Stopwatch()
