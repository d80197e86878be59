"""Policies whose size is one number: a leverage held from the start, and a multiple of another."""

from __future__ import annotations

import math
from typing import Annotated, Any

from backtest.base import Range
from backtest.policy import Combinator, Policy


class HoldOnce(Policy):
    """Open one position at a leverage, and keep its quantity.

    After a liquidation nothing is opened again.
    """

    size: Annotated[float, Range(0.0, 1000.0, "turns of equity")] = 1.0

    def leverage(self, bar: Any, account: Any) -> float:  # noqa: ARG002 - the signature of a formula
        """Return the leverage until there is a position, then NaN."""
        if account.position != 0.0 or account.bars_since_liquidation < 1e300:
            return math.nan
        return self.size


class Scaled(Combinator):
    """Multiply the leverage of a policy by a factor."""

    factor: Annotated[float, Range(0.0, 1000.0, "times")] = 1.0

    def combine(self, bar: Any, account: Any, asked: Any) -> Any:  # noqa: ARG002 - as above
        """Return factor times what the policy asks for."""
        return self.factor * asked[0]
