"""Puts far out of the money under a levered position."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from backtest import AccountView, Bar, OptionRule, Range


class TailHedge(OptionRule):
    """Hold the leverage of a policy, and an option out of the money that is bought and rolled.

    q = min(budget E / a, cover N / n) contracts at each roll: E the equity, a the ask of a
    contract, N the notional on the side that the option protects, of the position and of the coins
    that the account holds (collateral, the balance of an inverse account), n that of one contract.
    The option is the one with an ask whose expiry is nearest to the tenor and whose Black delta is
    nearest to delta; it is rolled when it has ``roll`` days left or is no longer quoted. A negative
    delta buys puts under a long position, a positive one calls over a short position. The leg is
    ``tail``.
    Source: Bhansali (2014), Tail Risk Hedging, ch. 3 and 4, for rules of budget, moneyness and
    rolls; Israelov and Nielsen (2015), Still Not Cheap: Portfolio Protection in Calm Markets, J.
    Portfolio Management 41(4), for what they cost.
    """

    fails_when: ClassVar[str] = (
        "A market that is calm, or falls slowly: each option expires worthless, and the budget of "
        "each roll is lost."
    )

    delta: Annotated[float, Range(-0.5, 0.5, "Black delta")] = -0.1
    tenor: Annotated[float, Range(1.0, 730.0, "days", log=True)] = 30.0
    roll: Annotated[float, Range(0.0, 365.0, "days")] = 7.0
    budget: Annotated[float, Range(0.0, 1.0, "of equity per roll")] = 0.005
    cover: Annotated[float, Range(0.0, 10.0, "of the notional")] = 1.0

    def orders(self, bar: Bar, account: AccountView, chain: Any) -> Mapping[str, tuple[str, float]]:
        """Return the contract to hold after a roll, and its quantity.

        The quantity is min(budget E / a, cover N / n), a the ask of a contract and n its notional.
        Between rolls there is no order.
        """
        # A put protects what is long, a call what is short.
        kind = "call"
        side = -1.0
        if self.delta < 0.0:
            kind = "put"
            side = 1.0

        # N, the notional on that side.
        notional = max(side * chain.cover(account), 0.0)

        legs = {"tail": (kind, self.delta, 1.0)}
        contracts = chain.roll(legs, self.tenor, self.roll)

        orders = {}
        for leg, contract in contracts.items():
            quantity = self.cover * notional / contract.notional
            if contract.cost > 0.0:
                affordable = self.budget * account.equity / contract.cost
                quantity = min(affordable, quantity)

            # Equity below 0 affords none.
            orders[leg] = (contract.name, max(quantity, 0.0))
        return orders
