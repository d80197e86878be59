"""Work that a feature does beyond one pass over its bars, counted and not timed.

A check that may cost only so much asks here what a call of ``observe`` has cost. The count is the
same on every machine and at every load, so that what is decided by it is the same as well.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar


class WorkMeter:
    """Counts work in bars: one pass of an ordinary estimator over one bar is 1."""

    def __init__(self) -> None:
        self.bars = 0.0
        self._done: set[bytes] = set()

    def add(self, key: bytes, bars: float) -> None:
        """Count work under a key, once."""
        if key not in self._done:
            self._done.add(key)
            self.bars += bars


_meter: ContextVar[WorkMeter | None] = ContextVar("effort", default=None)


def count_work(key: bytes, bars: float) -> None:
    """Count work that is kept under a key: it is not done again, and not counted again."""
    meter = _meter.get()
    if meter is not None:
        meter.add(key, bars)


@contextlib.contextmanager
def measure_work(meter: WorkMeter) -> Iterator[WorkMeter]:
    """Count the work that is done inside the block, in addition to what the meter has counted."""
    token = _meter.set(meter)
    try:
        yield meter
    finally:
        _meter.reset(token)
