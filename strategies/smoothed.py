"""A speed limit on another policy."""

import math
from typing import Annotated, ClassVar, NamedTuple

from backtest import AccountView, Bar, Columns, Combinator, Market, Promise, Range, held_leverage


class Pace(NamedTuple):
    """The last decision, its time in days since the start, and whether a position was held.

    ``is_held`` is 1 or 0, as a memory has numbers alone.
    """

    last: float
    days: float
    is_held: float


class Smoothed(Combinator):
    """Follow a policy, but change the leverage no faster than a limit.

    L_t = min(max(a_t, min(L_{t-1}, l_t) - down d), L_{t-1} + up d): a_t the leverage of the policy,
    l_t the leverage held and d the days since the last decision. A reduction starts from the
    leverage held if that is less, so that a decision beyond the account's limits does not delay it.
    L_{t-1} is 0 at the start, after a stop or liquidation, and while the signal is 0. If the policy
    keeps the position unchanged, so does this. Slow changes save costs and smooth spikes of an
    estimate. A slow reduction costs safety, so it has its own limit. Infinite limits have no
    effect.
    Source: Garleanu and Pedersen (2013), Dynamic Trading with Predictable Returns and Transaction
    Costs, J. Finance 68(6), on trading only part of the way; the constant speed is ours.
    """

    only_lowers: ClassVar[bool] = True
    fails_when: ClassVar[str] = (
        "A sudden rise of risk, which the leverage follows more slowly than the target."
    )

    up: Annotated[float, Range(0.01, math.inf, "x of equity per day", log=True)] = 1.0
    down: Annotated[float, Range(0.01, math.inf, "x of equity per day", log=True)] = math.inf

    def promises(self) -> tuple[Promise, ...]:
        """Return what is left of the promises if a reduction is never delayed."""
        if self.down < math.inf:
            return ()
        return super().promises()

    def observe(self, market: Market) -> Columns:
        """Return the direction of the signal."""
        return {"direction": market.signal}

    def start(self) -> Pace:
        """Return a memory of no leverage."""
        return Pace(last=0.0, days=0.0, is_held=0.0)

    def combine(
        self,
        bar: Bar,
        account: AccountView,
        asked: tuple[float, ...],
        memory: Pace,
    ) -> tuple[float, Pace]:
        """Return the leverage asked for, as far as the speeds allow it since the last decision.

        L_t = min(max(a_t, min(L_{t-1}, l_t) - down d), L_{t-1} + up d): a_t is asked for, l_t is
        held, and d are the days since the last decision.
        """
        wanted = asked[0]
        is_held = 0.0
        if account.position != 0.0:
            is_held = 1.0

        # L_{t-1} is 0 while the signal is 0, and after a stop or a liquidation: these leave no
        # position where one was held.
        is_lost = memory.is_held > 0.0 and account.position == 0.0
        last = memory.last
        if is_lost or bar.direction == 0.0:
            last = 0.0

        # The policy keeps the position unchanged: only time passes.
        if math.isnan(wanted):
            return wanted, Pace(last, account.days, is_held)

        # The lowest and the highest leverage that the speeds allow.
        days = account.days - memory.days
        held = held_leverage(account, bar.direction)
        lowest = min(last, held) - self.down * days
        highest = last + self.up * days

        # An infinite speed over no time makes a bound NaN, which limits nothing: comparisons with
        # NaN are False.
        leverage = wanted
        if wanted < lowest:
            leverage = lowest
        elif highest < wanted:
            leverage = highest
        return leverage, Pace(leverage, account.days, is_held)
