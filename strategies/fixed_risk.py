"""A position sized so that its stop costs a fixed share of equity."""

import math
from typing import Annotated, ClassVar

from backtest import AccountView, Bar, Columns, Market, Policy, Range, margin

INSIDE = 1.0 - 1e-6
"""Share of the notional that a move to the stop would just liquidate."""


class FixedRisk(Policy):
    """Enter with the leverage at which the stop loses a share of equity, and hold it.

    L = share / {(1 + s) [1 - (1 - d)(1 - s) + f + f (1 - d)(1 - s)]} for a long of linear
    contracts, d the distance of the account's nearest stop from the entry (``bar.stop_distance``,
    at least ``least``), s the slippage and f the taker fee of both fills; for a short with the
    signs of d and s turned, (1 - s) [(1 + d)(1 + s) - 1 + f + f (1 + d)(1 + s)]; of inverse
    contracts with the reciprocal prices. A position is held as it is until the account closes it or
    the signal turns. L is lower where the venue would liquidate before the stop.

    The loss is the share if the next bar opens at the close, without impact and lots, and the stop
    fills at its price less slippage: a gap loses more.
    Source: Tharp (1998), Trade Your Way to Financial Freedom: percent risk position sizing.
    """

    fails_when: ClassVar[str] = (
        "Prices that jump over the stop, and swings as wide as it: each costs the share."
    )
    share: Annotated[float, Range(1e-4, 0.5, "of equity", log=True)] = 0.01
    least: Annotated[float, Range(1e-5, 0.5, "of the entry price", log=True)] = 0.001

    def observe(self, market: Market) -> Columns:
        """Return the signal decided at each close."""
        return {"signal": market.signal}

    def leverage(self, bar: Bar, account: AccountView) -> float:
        """Return NaN while a position in the direction of the signal is held, else L."""
        if bar.signal * account.position > 0.0 or math.isnan(bar.stop_distance):
            return math.nan
        side = -1.0 if bar.signal < 0.0 else 1.0
        distance, slip = max(bar.stop_distance, self.least), side * bar.slippage
        entry = 1.0 + slip
        stop = entry * (1.0 - side * distance)
        out = stop * (1.0 - slip)
        if account.venue.is_inverse:
            entry, out = 1.0 / entry, 1.0 / out
            side = -side
        fees = bar.taker * entry
        loss = side * (entry - out) + fees + bar.taker * out
        paid = side * (entry - 1.0) + fees
        most = margin.survivable_notional(account.venue, account.equity, stop) / account.equity
        level = self.share / loss
        if level * (1.0 + most * paid) > most * INSIDE:
            level = most * INSIDE / (1.0 + most * paid)
        return level
