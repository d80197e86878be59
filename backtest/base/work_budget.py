"""A deterministic count of the work that features do beyond one pass over their bars.

A check with a limited budget reads here how much work a call of ``observe`` took. The count is the
same on every machine and at every load, and so are the decisions based on it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar


class WorkMeter:
    """Counts work in bars: one pass of an ordinary estimator over one bar is 1."""

    def __init__(self) -> None:
        self.bars = 0.0
        self._done: dict[bytes, float] = {}

    def add(self, key: bytes, bars: float) -> None:
        """Count work under a key, only once per key."""
        if key not in self._done:
            self._done[key] = bars
            self.bars += bars

    def include(self, other: WorkMeter) -> None:
        """Count the work that another meter has counted, only once per key."""
        for key, bars in other._done.items():
            self.add(key, bars)


_meter: ContextVar[WorkMeter | None] = ContextVar("effort", default=None)


def count_work(key: bytes, bars: float) -> None:
    """Count work whose result is cached under a key: it is done and counted once."""
    meter = _meter.get()
    if meter is not None:
        meter.add(key, bars)


def count_again(meter: WorkMeter) -> None:
    """Count the work that another meter has counted, for a result that was kept."""
    outer = _meter.get()
    if outer is not None:
        outer.include(meter)


@contextlib.contextmanager
def measure_work(meter: WorkMeter) -> Iterator[WorkMeter]:
    """Add the work done inside the block to a meter."""
    token = _meter.set(meter)
    try:
        yield meter
    finally:
        _meter.reset(token)
