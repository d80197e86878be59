"""A cap over another policy."""

import math
from typing import Annotated, ClassVar

from backtest import AccountView, Bar, Columns, Combinator, Market, Range, held_leverage


class Capped(Combinator):
    """Hold the leverage of a policy, but never more than a cap.

    L = min(a, cap), a the leverage of the policy. If the policy keeps the position unchanged and it
    has drifted over the cap, it is reduced to the cap. An infinite cap has no effect.
    Source: Moreira and Muir (2017), Volatility-Managed Portfolios, J. Finance 72(4), Table 5, where
    volatility targets are capped at 1 and 1.5.
    """

    only_lowers: ClassVar[bool] = True
    fails_when: ClassVar[str] = (
        "A long rise in calm markets, in which the policy is right and the cap keeps it small."
    )

    cap: Annotated[float, Range(0.0, math.inf, "x of equity")] = 3.0

    def observe(self, market: Market) -> Columns:
        """Return the direction of the signal."""
        return {"direction": market.signal}

    def combine(self, bar: Bar, account: AccountView, asked: tuple[float, ...]) -> float:
        """Return min(asked, cap)."""
        if asked[0] > self.cap:
            return self.cap

        # A position that is kept, and has drifted over the cap.
        if math.isnan(asked[0]) and held_leverage(account, bar.direction) > self.cap:
            return self.cap

        return asked[0]
