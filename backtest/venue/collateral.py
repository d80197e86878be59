"""Assets held beside the money of an account, which back its cross positions at a rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from backtest.base.fields import COST, SHARE, Text
from backtest.base.ranges import Number
from backtest.base.values import Value


@dataclass(frozen=True, eq=False, repr=False)
class Collateral(Value):
    """An asset held beside the money of an account, not traded by policies.

    It counts in full in the equity, and at its rate in what backs the cross positions. A debt, a
    negative amount, counts in full in both.

    Parameters
    ----------
    name : str
        What it is called in tables and events.
    amount : float
        Units of the asset; negative for a debt.
    prices : Market
        Its price path, in the settlement currency of the account.
    rate : float
        The share of its value that backs positions, from 0 to 1.
    tiers : sequence of (floor, cap, rate)
        Instead of ``rate``: marginal rates by the value of the asset in the settlement currency,
        falling; nothing counts beyond the last cap.
    slippage : float
        How much under the open a conversion sells it, as a fraction of the price.
    cancels_risk : str, optional
        The group of a :class:`ScenarioMargin` whose losses it offsets.
    """

    name: Annotated[str, Text()]
    amount: Annotated[float, Number(-math.inf, math.inf, open_low=True, open_high=True)]
    prices: Any = None
    rate: Annotated[float | None, SHARE] = None
    tiers: Sequence[Sequence[float]] | None = None
    slippage: Annotated[float, COST] = 0.0
    cancels_risk: Annotated[str | None, Text()] = None

    def list_tiers(self) -> tuple[tuple[float, float, float], ...]:
        """Return the tiers as (floor, cap, rate); a rate is one tier of any value."""
        if self.tiers is None:
            return ((0.0, math.inf, self.rate or 0.0),)
        return tuple((row[0], row[1], row[2]) for row in self.tiers)
