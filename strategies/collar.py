"""Puts under a long position, paid by calls over it."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from backtest import AccountView, Bar, OptionRule, Range


class Collar(OptionRule):
    """Hold the leverage of a policy, buy puts under the position, and sell calls over it.

    q = cover N / n puts and as many calls sold at each roll: N the notional of a long position and
    of the coins that the account holds (collateral, the balance of an inverse account), n that of
    one contract. Both expire nearest to the tenor, with the Black deltas nearest to those
    given; they roll together, when one has ``roll`` days left or is no longer quoted. The legs are
    ``put`` and ``call``.
    Source: Szado and Schneeweis (2010), Loosening Your Collar: Alternative Implementations of QQQ
    Collars, J. Trading 5(2); Israelov and Klein (2016), Risk and Return of Equity Index Collar
    Strategies, J. Alternative Investments 19(1).
    """

    fails_when: ClassVar[str] = (
        "A strong rise: the calls that paid for the puts take the gain above their strike."
    )

    put_delta: Annotated[float, Range(0.01, 0.6, "absolute Black delta")] = 0.25
    call_delta: Annotated[float, Range(0.01, 0.6, "Black delta")] = 0.25
    tenor: Annotated[float, Range(1.0, 730.0, "days", log=True)] = 30.0
    roll: Annotated[float, Range(0.0, 365.0, "days")] = 7.0
    cover: Annotated[float, Range(0.0, 10.0, "of the notional")] = 1.0

    def orders(self, bar: Bar, account: AccountView, chain: Any) -> Mapping[str, tuple[str, float]]:
        """Return both contracts after a roll, and their quantities."""
        # Puts are bought, and calls are sold.
        sides = {"put": 1.0, "call": -1.0}
        legs = {
            "put": ("put", self.put_delta, sides["put"]),
            "call": ("call", self.call_delta, sides["call"]),
        }
        contracts = chain.roll(legs, self.tenor, self.roll)

        # N: what is long; of a short position there is none.
        long_notional = max(chain.cover(account), 0.0)
        orders = {}
        for leg, contract in contracts.items():
            notional = sides[leg] * self.cover * long_notional
            quantity = notional / contract.notional
            orders[leg] = (contract.name, quantity)
        return orders
