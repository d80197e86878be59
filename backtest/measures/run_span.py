"""The time that a run covers."""

from __future__ import annotations

from typing import NamedTuple

from backtest.base.units import DAY, YEAR_DAYS, IntArray


class RunSpan(NamedTuple):
    """Time that a run covers: its start and the closes of its bars in ns, and samples per year.

    ``first`` is the number of its first bar in the tally.
    """

    start: int
    closes: IntArray
    first: int
    periods: float

    @property
    def years(self) -> float:
        """Years from the start to the last close."""
        return (int(self.closes[-1]) - self.start) / (YEAR_DAYS * DAY)

    def time_of(self, bar: int) -> int:
        """Return the close of a bar in ns; the start for the bar before the first."""
        row = bar - self.first
        return self.start if row < 0 else int(self.closes[row])
