"""A cap over another policy."""

import math
from typing import Annotated

from backtest import AccountView, Bar, Combinator, Range


class Capped(Combinator):
    """Hold what a policy asks, but never more than a cap.

    L = min(a, cap), a what the policy asks. Where it leaves the position alone, that has drifted
    over the cap is brought back to it. With an infinite cap it is the policy itself.
    Source: Moreira and Muir (2017), Volatility-Managed Portfolios, J. Finance 72(4), Table 5, where
    volatility targets are capped at 1 and 1.5.
    """

    cap: Annotated[float, Range(0.0, math.inf, "turns of equity")] = 3.0

    def combine(self, bar: Bar, account: AccountView, asked: tuple[float, ...]) -> float:
        """Return min(asked, cap)."""
        held = asked[0]
        if math.isnan(held) and abs(account.leverage) > self.cap:
            return self.cap
        return self.cap if held > self.cap else held
