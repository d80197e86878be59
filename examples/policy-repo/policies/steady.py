"""A volatility target that takes less risk while the account is below its peak."""

from typing import Annotated

import backtest as bt
from backtest.indicators import ewma_volatility


class Steady(bt.Policy):
    """Target a volatility; less of it in a drawdown, but at least a quarter.

    L = min(2, max(1/4, 1 - 2 drawdown) * target / sigma). Source: made up for this example.
    """

    target: Annotated[float, bt.Range(0.05, 2.0, "per sqrt(year)")] = 0.3

    def observe(self, market):
        """Return the volatility of the last days, annualized."""
        return {"sigma": ewma_volatility(market, 72)}

    def leverage(self, bar, account):
        """Return the leverage decided at a close."""
        brake = max(0.25, 1.0 - 2.0 * account.drawdown)
        return min(brake * self.target / bar.sigma, 2.0)
