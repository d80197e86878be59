"""Reduce leverage as the drawdown of the account grows."""

from typing import Annotated

import backtest as bt


class Brake(bt.Policy):
    """Reduce leverage linearly with the drawdown.

    L = most * max(0, 1 - drawdown / limit). Source: made up for this example.
    """

    most: Annotated[float, bt.Range(0.5, 10.0, "turns of equity")] = 3.0
    limit: Annotated[float, bt.Range(0.05, 0.9, "of the peak")] = 0.3

    def leverage(self, bar, account):
        """Return the leverage decided at a close."""
        return self.most * max(0.0, 1.0 - account.drawdown / self.limit)
