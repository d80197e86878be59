"""Policies whose size is one number: a leverage held from the start, and a multiple of another."""

from __future__ import annotations

import math
from typing import Annotated, Any

from backtest.base import Range
from backtest.policy import Combinator, Policy


class HoldOnce(Policy):
    size: Annotated[float, Range(0.0, 1000.0, "turns of equity")] = 1.0

    def leverage(self, bar: Any, account: Any) -> float:  # noqa: ARG002 - the signature of a formula
        if account.position != 0.0 or account.bars_since_liquidation < 1e300:
            return math.nan
        return self.size


class Scaled(Combinator):
    factor: Annotated[float, Range(0.0, 1000.0, "times")] = 1.0

    def combine(self, bar: Any, account: Any, asked: Any) -> Any:  # noqa: ARG002 - as above
        return self.factor * asked[0]
