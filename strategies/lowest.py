"""The lowest leverage of several policies."""

import math
from typing import ClassVar

from backtest import AccountView, Bar, Columns, Combinator, Market, held_leverage


class Lowest(Combinator):
    """Hold the lowest leverage of several policies.

    L = min over i of a_i, a_i the leverage of policy i. A policy that keeps the position unchanged
    counts with the leverage held. If that is the lowest, the position stays unchanged, so that a
    policy without an estimate yet keeps a flat account flat.
    Source: risk limits in common practice, where the tightest one binds.
    """

    only_lowers: ClassVar[bool] = True
    fails_when: ClassVar[str] = (
        "One policy that stays out by mistake, which keeps all others out of a rise."
    )
    takes: ClassVar[tuple[int, float]] = (1, math.inf)

    def observe(self, market: Market) -> Columns:
        """Return the direction of the signal."""
        return {"direction": market.signal}

    def combine(self, bar: Bar, account: AccountView, asked: tuple[float, ...]) -> float:
        """Return the least of what is asked, NaN where that is the leverage there is."""
        lowest = math.inf
        is_kept_by_one = False
        for leverage in asked:
            if math.isnan(leverage):
                is_kept_by_one = True
            else:
                lowest = min(lowest, leverage)

        if is_kept_by_one and held_leverage(account, bar.direction) <= lowest:
            return math.nan
        return lowest
