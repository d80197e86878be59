"""A put and a call that are bought for their gamma and vega."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from backtest import AccountView, Bar, OptionRule, Range


class LongVolatility(OptionRule):
    """Hold the leverage of a policy, and a straddle or strangle that is bought and rolled.

    q = budget E / (a_put + a_call) of both at each roll: E the equity, a the asks of a contract. At
    a delta of 0.5 both are at the money, a straddle; below it a strangle. They roll together, when
    one has ``roll`` days left or is no longer quoted. The legs are ``put`` and ``call``.
    Source: Coval and Shumway (2001), Expected Option Returns, J. Finance 56(3), on straddles.
    """

    fails_when: ClassVar[str] = (
        "A market that moves less than implied volatility, which is the usual one: both "
        "premiums decay."
    )

    delta: Annotated[float, Range(0.01, 0.6, "absolute Black delta")] = 0.5
    tenor: Annotated[float, Range(1.0, 730.0, "days", log=True)] = 30.0
    roll: Annotated[float, Range(0.0, 365.0, "days")] = 7.0
    budget: Annotated[float, Range(0.0, 1.0, "of equity per roll")] = 0.02

    def orders(self, bar: Bar, account: AccountView, chain: Any) -> Mapping[str, tuple[str, float]]:
        """Return both contracts after a roll, and their common quantity."""
        legs = {
            "put": ("put", self.delta, 1.0),
            "call": ("call", self.delta, 1.0),
        }
        contracts = chain.roll(legs, self.tenor, self.roll)

        # a_put + a_call: what one contract of both costs.
        cost = sum(contract.cost for contract in contracts.values())
        quantity = 0.0
        if cost > 0.0:
            quantity = max(self.budget * account.equity / cost, 0.0)

        orders = {}
        for leg, contract in contracts.items():
            orders[leg] = (contract.name, quantity)
        return orders
