"""A speed limit on another policy."""

import math
from typing import Annotated, NamedTuple

from backtest import AccountView, Bar, Combinator, Range


class Pace(NamedTuple):
    """The leverage last asked for, and the days since the start then."""

    last: float
    days: float


class Smoothed(Combinator):
    """Follow a policy, but change the leverage no faster than a limit.

    L_t = min(max(a_t, L_{t-1} - down d), L_{t-1} + up d): a_t what the policy asks, d the days
    since the last decision, L_0 = 0. Where it leaves the position alone, so does this. Slow
    changes save costs and cut off spikes of an estimate; a slow way down costs safety, so it has
    a limit of its own. Infinite limits leave the policy as it is.
    Source: Garleanu and Pedersen (2013), Dynamic Trading with Predictable Returns and Transaction
    Costs, J. Finance 68(6), on trading only part of the way; the constant speed is ours.
    """

    up: Annotated[float, Range(0.01, math.inf, "turns of equity per day", log=True)] = 1.0
    down: Annotated[float, Range(0.01, math.inf, "turns of equity per day", log=True)] = math.inf

    def start(self) -> Pace:
        """Return a memory of no leverage."""
        return Pace(last=0.0, days=0.0)

    def combine(
        self, bar: Bar, account: AccountView, asked: tuple[float, ...], memory: Pace
    ) -> tuple[float, Pace]:
        """Return what is asked, within reach of the last decision."""
        wanted = asked[0]
        if math.isnan(wanted):
            return wanted, Pace(memory.last, account.days)
        passed = account.days - memory.days
        least, most = memory.last - self.down * passed, memory.last + self.up * passed
        held = least if wanted < least else min(wanted, most)
        return held, Pace(held, account.days)
