"""The time that a run covers."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from backtest.base import IntArray, format_time
from backtest.base.units import DAY, YEAR_DAYS


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

    @property
    def is_daily(self) -> bool:
        """Whether a bar is a day or longer, so that its date names it."""
        return int(self.closes[0]) - self.start >= DAY

    @property
    def named(self) -> IntArray:
        """The moments that name the closes, ns: the dates of bars of a day or longer, their opens.

        The close of a shorter bar names itself.
        """
        return self.closes - (int(self.closes[0]) - self.start) * self.is_daily

    def name_of(self, bar: int) -> int:
        """Return the moment that names the close of a bar, in ns, as :attr:`named`.

        The start for the bar before the first.
        """
        row = bar - self.first
        return self.start if row < 0 else int(self.named[row])

    def day_of(self, bar: int) -> str:
        """Return the date of the bar at whose close something was; a close at midnight ends it."""
        time = self.name_of(bar)
        if bar >= self.first and not self.is_daily:
            time -= 1
        return format_time(time - time % DAY)

    def describe_close(self, bar: int) -> str:
        """Return in words when a bar closed: its date, or the time of the close of a shorter bar.

        Examples
        --------
        >>> import numpy as np
        >>> day, friday = 24 * 3_600_000_000_000, 11_040 * 24 * 3_600_000_000_000
        >>> RunSpan(friday, np.array([friday + day]), 0, 252.0).describe_close(0)
        'on 2000-03-24'
        """
        if self.is_daily:
            return f"on {self.day_of(bar)}"
        return f"at {pd.Timestamp(self.time_of(bar)):%Y-%m-%d %H:%M} UTC"

    def time_of(self, bar: int) -> int:
        """Return the close of a bar in ns; the start for the bar before the first."""
        row = bar - self.first
        return self.start if row < 0 else int(self.closes[row])
