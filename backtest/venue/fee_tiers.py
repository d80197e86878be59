"""Fee tiers: the rates that an account pays by its own traded volume of the last 30 days."""

from __future__ import annotations

from typing import Annotated

from backtest.base import Number, Value, declared
from backtest.base.fields import COST, POSITIVE

MAKER = Number(-1, 1, open_low=True, open_high=True)


@declared
class FeeTier(Value):
    """The fees from a traded volume on.

    Parameters
    ----------
    volume : float
        Notional that the account has traded in the last 30 UTC days without the current one, in the
        settlement currency, from which the tier holds.
    taker, maker : float
        Its fee rates, per unit of notional; a negative maker rate is a rebate.
    """

    volume: Annotated[float, POSITIVE]
    taker: Annotated[float, COST]
    maker: Annotated[float, MAKER]
