"""One policy until a date, another from then on."""

from typing import Annotated, ClassVar

import numpy as np

from backtest import AccountView, Bar, Columns, Combinator, Market, Range


class Scheduled(Combinator):
    """Follow one policy before a date and another from then on.

    L = a_1 at closes before 00:00 UTC of the date, a_2 at that close and after it. For more dates,
    combine one schedule with another. A number that is not a date counts as the next date.
    Source: changes of mandate with a known date.
    """

    fails_when: ClassVar[str] = "A market that turns on another day than the one that was chosen."
    takes: ClassVar[tuple[int, float]] = (2, 2)

    since: Annotated[int, Range(1970_01_01, 2261_12_31, "UTC date, as 20220131")] = 2022_01_01

    def observe(self, market: Market) -> Columns:
        """Return the date of each close as a number, 20220131."""
        closes = (market.time + market.interval).astype("datetime64[ns]")
        days = closes.astype("datetime64[D]")
        months = days.astype("datetime64[M]")

        # Months are counted from January 1970, and days from the first of their month.
        years, months_before = np.divmod(months.astype(np.int64), 12)
        days_before = (days - months).astype(np.int64)

        year = years + 1970
        month = months_before + 1
        day = days_before + 1
        return {"date": year * 10_000.0 + month * 100.0 + day}

    def combine(self, bar: Bar, account: AccountView, asked: tuple[float, ...]) -> float:
        """Return what the policy of the day asks."""
        if bar.date < self.since:
            return asked[0]
        return asked[1]
