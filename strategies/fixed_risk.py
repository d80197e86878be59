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
        """Return NaN while a position in the direction of the signal is held, else L.

        L = share / loss, loss what one unit of notional loses from the entry to the stop, with both
        fees and slippage; less where the venue would liquidate before the stop.
        """
        # An entry is held as it is; without a stop there is no size.
        is_held = bar.signal * account.position > 0.0
        if is_held or math.isnan(bar.stop_distance):
            return math.nan

        # Prices of both fills, over the close.
        side = -1.0 if bar.signal < 0.0 else 1.0
        distance = max(bar.stop_distance, self.least)
        slip = side * bar.slippage
        entry = 1.0 + slip
        stop = entry * (1.0 - side * distance)
        out = stop * (1.0 - slip)

        # A contract of an inverse market is worth the reciprocal, which falls as the price rises.
        if account.venue.is_inverse:
            entry = 1.0 / entry
            out = 1.0 / out
            side = -side

        entry_fee = bar.taker * entry
        loss = side * (entry - out) + entry_fee + bar.taker * out
        level = self.share / loss

        # The venue must not liquidate before the stop. ``largest`` is the leverage that the stop
        # would just liquidate. The entry costs equity first, so the leverage over what is left is
        # larger by this factor.
        notional = margin.survivable_notional(account.venue, account.equity, stop)
        largest = notional / account.equity
        entry_cost = side * (entry - 1.0) + entry_fee
        growth = 1.0 + largest * entry_cost
        if level * growth > largest * INSIDE:
            level = largest * INSIDE / growth
        return level
