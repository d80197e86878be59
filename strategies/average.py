"""The mean of several policies."""

import math
from typing import ClassVar

from backtest import AccountView, Bar, Columns, Combinator, Market, held_leverage


class Average(Combinator):
    """Hold the mean leverage of several policies.

    L = (sum over i of a_i) / n, a_i the leverage of policy i. A policy that keeps the position
    unchanged counts with the leverage held; if all do, the position stays unchanged. The errors of
    different estimates partly cancel.
    Source: Timmermann (2006), Forecast Combinations, Handbook of Economic Forecasting 1, on why
    equal weights are hard to beat.
    """

    fails_when: ClassVar[str] = (
        "One policy holds far too much: the mean has its share of that mistake in the crash."
    )
    takes: ClassVar[tuple[int, float]] = (1, math.inf)

    def observe(self, market: Market) -> Columns:
        """Return the direction of the signal."""
        return {"direction": market.signal}

    def combine(self, bar: Bar, account: AccountView, asked: tuple[float, ...]) -> float:
        """Return the mean of what is asked; NaN keeps the position, and counts as what is held."""
        held = held_leverage(account, bar.direction)

        total = 0.0
        is_known = False
        for leverage in asked:
            if math.isnan(leverage):
                total += held
            else:
                total += leverage
                is_known = True

        if not is_known:
            return math.nan
        return total / len(asked)
