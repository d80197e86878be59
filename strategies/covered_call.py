"""Calls that are sold against a long position."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from backtest import AccountView, Bar, OptionRule, Range


class CoveredCall(OptionRule):
    """Hold the leverage of a policy, and sell calls on the position, rolled by rule.

    q = -cover N / n contracts at each roll: N the notional of a long position and of the coins that
    the account holds (collateral, the balance of an inverse account), n that of one contract. The
    call is the one with a bid and an ask whose expiry is nearest to the tenor and
    whose Black delta is nearest to delta; it is bought back when it has ``roll`` days left or is no
    longer quoted. The leg is ``call``. A cover over 1 is a naked short.
    Source: Whaley (2002), Return and Risk of CBOE Buy Write Monthly Index, J. Derivatives 10(2);
    Israelov and Nielsen (2014), Covered Call Strategies: One Fact and Eight Myths, Financial
    Analysts Journal 70(6).
    """

    fails_when: ClassVar[str] = (
        "A fall and the rise after it: the loss is kept, and the gain above the strike is sold."
    )

    delta: Annotated[float, Range(0.01, 0.6, "Black delta")] = 0.25
    tenor: Annotated[float, Range(1.0, 730.0, "days", log=True)] = 30.0
    roll: Annotated[float, Range(0.0, 365.0, "days")] = 1.0
    cover: Annotated[float, Range(0.0, 10.0, "of the notional")] = 1.0

    def orders(self, bar: Bar, account: AccountView, chain: Any) -> Mapping[str, tuple[str, float]]:
        """Return the call to be short after a roll, and its quantity."""
        legs = {"call": ("call", self.delta, -1.0)}
        contracts = chain.roll(legs, self.tenor, self.roll)

        # N: what is long; of a short position there is none.
        long_notional = max(chain.cover(account), 0.0)
        orders = {}
        for leg, contract in contracts.items():
            notional = -self.cover * long_notional
            quantity = notional / contract.notional
            orders[leg] = (contract.name, quantity)
        return orders
