"""How people see growth: per year, or of the whole time where that is short."""

from __future__ import annotations

from typing import Any, NamedTuple

from backtest import core, engine
from backtest.core.units import DAY, YEAR_DAYS
from backtest.engine import Conditions
from backtest.results.run_record import shows_growth


class ShownGrowth(NamedTuple):
    """How people see growth: per year, or of the whole time where that is under 90 days.

    Tables and JSON have growth per year in any case. ``years`` is None where people see it too.
    """

    years: float | None
    when: str

    @property
    def is_yearly(self) -> bool:
        return self.years is None

    def compound(self, growth: Any) -> Any:
        """Return compound growth per year as it is shown."""
        if self.years is None:
            return growth
        return (1.0 + growth) ** self.years - 1.0

    def logarithmic(self, growth: Any) -> Any:
        """Return log growth per year, or its error, as it is shown."""
        if self.years is None:
            return growth
        return growth * self.years


def choose_shown_growth(days: float) -> ShownGrowth:
    """Return how the growth of some days is shown."""
    if shows_growth(days):
        return ShownGrowth(None, "per year")
    return ShownGrowth(days / YEAR_DAYS, f"in {core.count_nouns(round(days), 'day')}")


def count_account_days(test: Conditions) -> float:
    """Return the days from the first bar of the account to the last of the market."""
    first = engine.find_first_bar(test.market, test.start)
    return float(test.market.end - int(test.market.time[first])) / DAY


def describe_start(test: Conditions) -> dict[str, str]:
    """Return the first bar of the account, as settings of a result have it."""
    first = engine.find_first_bar(test.market, test.start)
    return {"start": core.format_time(int(test.market.time[first]))}
