"""The time that a run covers."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from backtest.base import IntArray, format_time
from backtest.base.units import DAY, YEAR_DAYS


class RunSpan(NamedTuple):
    """Time that a run covers: its start and the closes of its bars in ns, and samples per year."""

    start: int
    closes: IntArray
    first: int
    periods: float

    @property
    def years(self) -> float:
        return (int(self.closes[-1]) - self.start) / (YEAR_DAYS * DAY)

    @property
    def is_daily(self) -> bool:
        return int(self.closes[0]) - self.start >= DAY

    @property
    def named(self) -> IntArray:
        """Moments that name the closes, ns: the dates of bars of a day or longer, their opens."""
        return self.closes - (int(self.closes[0]) - self.start) * self.is_daily

    def name_of(self, bar: int) -> int:
        """Return the moment that names the close of a bar, in ns, as :attr:`named`."""
        row = bar - self.first
        return self.start if row < 0 else int(self.named[row])

    def day_of(self, bar: int) -> str:
        time = self.name_of(bar)
        if bar >= self.first and not self.is_daily:
            time -= 1
        return format_time(time - time % DAY)

    def describe_close(self, bar: int) -> str:
        if self.is_daily:
            return f"on {self.day_of(bar)}"
        return f"at {pd.Timestamp(self.time_of(bar)):%Y-%m-%d %H:%M} UTC"

    def time_of(self, bar: int) -> int:
        """Return the close of a bar in ns; the start for the bar before the first."""
        row = bar - self.first
        return self.start if row < 0 else int(self.closes[row])
