"""The mean of several policies."""

import math
from typing import ClassVar

from backtest import AccountView, Bar, Columns, Combinator, Market, held_leverage


class Average(Combinator):
    """Hold the mean of what several policies ask.

    L = sum over i of a_i, over their number. A policy that leaves the position alone asks for the
    leverage there is; where all do, it is left alone. The errors of different estimates cancel in
    part.
    Source: Timmermann (2006), Forecast Combinations, Handbook of Economic Forecasting 1, on how
    hard equal weights are to beat.
    """

    takes: ClassVar[tuple[int, float]] = (1, math.inf)

    def observe(self, market: Market) -> Columns:
        """Return the direction, which tells what is held."""
        return {"direction": market.signal}

    def combine(self, bar: Bar, account: AccountView, asked: tuple[float, ...]) -> float:
        """Return the mean of what is asked."""
        held = held_leverage(account, bar.direction)
        total = 0.0
        is_known = False
        for each in asked:
            is_known = is_known or not math.isnan(each)
            total += held if math.isnan(each) else each
        return total / len(asked) if is_known else math.nan
