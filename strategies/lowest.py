"""The most careful of several policies."""

import math
from typing import ClassVar

from backtest import AccountView, Bar, Combinator


class Lowest(Combinator):
    """Hold the least that any of several policies asks.

    L = min over i of a_i. A policy that leaves the position alone asks for the leverage there is,
    so that one that does not know yet keeps a flat account flat; where all do, it is left alone.
    Source: risk limits in common practice: the tightest one binds.
    """

    takes: ClassVar[tuple[int, float]] = (1, math.inf)

    def combine(self, bar: Bar, account: AccountView, asked: tuple[float, ...]) -> float:
        """Return the least of what is asked."""
        lowest = math.inf
        is_known = False
        for each in asked:
            is_known = is_known or not math.isnan(each)
            wanted = abs(account.leverage) if math.isnan(each) else each
            lowest = min(lowest, wanted)
        return lowest if is_known else math.nan
