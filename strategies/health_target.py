"""Keep the health factor of a loan: repay below a bound, borrow above another."""

import math
from typing import Annotated, ClassVar

from backtest import AccountView, Bar, Columns, Market, Policy, Range, margin


class HealthTarget(Policy):
    """Repay to the target when the health factor is low, and borrow to it when it is high.

    The health factor is H = theta C / D: C the value of the collateral, D the debt, theta the
    liquidation threshold, 1 less the maintenance rate of the venue. A long of L times equity has
    C = L E and D = (L - 1) E, so L = H / (H - theta); a short has C = (1 + L) E and D = L E, and
    is liquidated at C = (2 - theta) D, so L = 1 / (H (2 - theta) - 1).

    At a close with H below ``min_health``, or above ``max_health``, the next open trades to the
    leverage of ``target``: it sells and repays, or borrows and buys. In between the position stays
    unchanged. ``min_health`` and ``max_health`` are taken as ``target`` if they are on its wrong
    side.
    Source: a rule of practice, such as the automation of DeFi Saver (repay and boost); Aave (2022),
    Aave V3 Technical Paper, for the health factor.
    """

    fails_when: ClassVar[str] = (
        "A fall in one bar that is larger than the distance to the liquidation threshold."
    )

    min_health: Annotated[float, Range(1.0, 10.0, "health factor", log=True)] = 1.3
    target: Annotated[float, Range(1.01, 10.0, "health factor", log=True)] = 1.6
    max_health: Annotated[float, Range(1.01, 100.0, "health factor", log=True)] = 2.2

    def observe(self, market: Market) -> Columns:
        """Return the signal decided at each close."""
        return {"signal": market.signal}

    def leverage(self, bar: Bar, account: AccountView) -> float:
        """Return the leverage at the target health outside the bounds, NaN inside.

        With the target health H and the liquidation threshold theta it is H / (H - theta) for a
        long and 1 / (H (2 - theta) - 1) for a short.
        """
        if bar.signal == 0.0:
            return 0.0

        # The maintenance rate, from the brackets of the venue: 2 - theta is 1 + rate.
        equity = account.equity
        rate: float = margin.maintenance(account.venue, equity) / equity
        theta = 1.0 - rate

        # The leverage of a position whose health is the target.
        if bar.signal > 0.0:
            wanted = 1.0 / (1.0 - theta / self.target)
        else:
            wanted = 1.0 / (self.target * (1.0 + rate) - 1.0)

        # Nothing is held on the side of the signal: there is no loan whose health could be kept.
        if bar.signal * account.position <= 0.0:
            return wanted

        # H of what is held, per unit of the signal. A long without a loan has no limit.
        held = account.leverage / bar.signal
        if bar.signal < 0.0:
            health = (1.0 / held + 1.0) / (1.0 + rate)
        elif held > 1.0:
            health = theta * held / (held - 1.0)
        else:
            health = math.inf

        low = min(self.min_health, self.target)
        high = max(self.max_health, self.target)
        if low <= health <= high:
            return math.nan
        return wanted
