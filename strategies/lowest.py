"""The most careful of several policies."""

import math
from typing import ClassVar

from backtest import AccountView, Bar, Columns, Combinator, Market, held_leverage


class Lowest(Combinator):
    """Hold the least that any of several policies asks.

    L = min over i of a_i. A policy that leaves the position alone asks for the leverage there is:
    where that is the least, the position is left alone, so that one that does not know yet keeps a
    flat account flat.
    Source: risk limits in common practice: the tightest one binds.
    """

    takes: ClassVar[tuple[int, float]] = (1, math.inf)

    def observe(self, market: Market) -> Columns:
        """Return the direction, which tells what is held."""
        return {"direction": market.signal}

    def combine(self, bar: Bar, account: AccountView, asked: tuple[float, ...]) -> float:
        """Return the least of what is asked, NaN where that is the leverage there is."""
        lowest = math.inf
        is_unknown = False
        for each in asked:
            is_unknown = is_unknown or math.isnan(each)
            lowest = min(lowest, math.inf if math.isnan(each) else each)
        if is_unknown and held_leverage(account, bar.direction) <= lowest:
            return math.nan
        return lowest
