"""A collateral loop: deposit, borrow, buy, deposit again."""

import math
from typing import Annotated, ClassVar

from backtest import AccountView, Bar, Columns, Market, Policy, Range


class LeverageLoop(Policy):
    """Borrow against collateral at a loan to value, and keep the health factor in a band.

    L = 1 / (1 - v), v = ltv: the sum 1 + v + v^2 + ... of repeated deposits of the borrowed money.
    At a later close the loan is v_t = (L_t - 1) / L_t of its collateral, and the health factor is
    threshold / v_t. Relative to its target it is v / v_t, for any threshold. While that ratio is
    from 1 - band to 1 + band, the loop stays unchanged; otherwise it is rebuilt. A short is held at
    the same leverage.

    At a lending market ``maintenance_rate = 1 - threshold``, and the loan is liquidated at a health
    factor of 1, in parts. With ``step = close_factor threshold (1 + penalty)``, a fraction of the
    collateral, and ``fee = penalty / (1 + penalty)`` a step repays the close factor of the debt.
    Source: Aave (2022), Aave V3 Technical Paper, for health factor, close factor and penalty;
    Heimbach and Huang (2024), DeFi Leverage, BIS Working Papers 1171, for the loop.
    """

    fails_when: ClassVar[str] = (
        "A fall in one bar that is larger than the distance to the liquidation threshold."
    )

    ltv: Annotated[float, Range(0.01, 0.95, "loan over collateral")] = 0.5
    band: Annotated[float, Range(0.0, 0.9, "of the health factor")] = 0.1

    def observe(self, market: Market) -> Columns:
        """Return the signal: a change of side does not depend on the health factor."""
        return {"direction": market.signal}

    def leverage(self, bar: Bar, account: AccountView) -> float:
        """Return the leverage of the loan to value v that is wanted: 1 / (1 - v).

        NaN, which keeps the position, while the health factor is inside the band around its target.
        """
        wanted = 1.0 / (1.0 - self.ltv)
        if account.leverage * bar.direction <= 0.0:
            return wanted

        # The health factor falls as the loan to value v_t rises, so it is v / v_t of its target. At
        # a leverage of L the loan is 1 - 1 / L of what is held; up to 1 there is none.
        held = account.leverage / bar.direction
        health_to_target = math.inf
        if held > 1.0:
            health_to_target = self.ltv * held / (held - 1.0)

        if 1.0 - self.band <= health_to_target <= 1.0 + self.band:
            return math.nan
        return wanted
