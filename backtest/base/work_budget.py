"""A deterministic count of the work that features do beyond one pass over their bars."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar


class WorkMeter:
    def __init__(self) -> None:
        self.bars = 0.0
        self._done: dict[bytes, float] = {}

    def add(self, key: bytes, bars: float) -> None:
        if key not in self._done:
            self._done[key] = bars
            self.bars += bars

    def include(self, other: WorkMeter) -> None:
        for key, bars in other._done.items():
            self.add(key, bars)


_meter: ContextVar[WorkMeter | None] = ContextVar("effort", default=None)


def count_work(key: bytes, bars: float) -> None:
    meter = _meter.get()
    if meter is not None:
        meter.add(key, bars)


def count_again(meter: WorkMeter) -> None:
    outer = _meter.get()
    if outer is not None:
        outer.include(meter)


@contextlib.contextmanager
def measure_work(meter: WorkMeter) -> Iterator[WorkMeter]:
    token = _meter.set(meter)
    try:
        yield meter
    finally:
        _meter.reset(token)
