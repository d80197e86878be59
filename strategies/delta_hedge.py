"""The delta of options, held near zero with their underlying."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from backtest import AccountView, Bar, Choice, OptionRule, Range


class DeltaHedge(OptionRule):
    """Hold the delta of the options on an instrument near a target, with the instrument itself.

    x = (N + sum of Q D) / E at each close: E the equity, N the signed notional of the instrument, Q
    the contracts held of each option on it, D = S dU/dS of one contract at a constant basis: in
    cash size delta F, in coins size (delta - V / F). If abs(x - target) > band, contracts of the
    instrument are ordered for the next open that bring x to the target, or to the edge of the band.
    With ``numeraire="money"`` it is the equity in the quote currency that is hedged: x of an
    account in coins is 1 more, the coins themselves. The hedge replaces the leverage of the policy
    inside, whose orders of options are kept. The instrument is the one that has this policy.
    Source: Black and Scholes (1973), The Pricing of Options and Corporate Liabilities, J. Political
    Economy 81(3); Whalley and Wilmott (1997), An Asymptotic Analysis of an Optimal Hedging Model
    for Option Pricing with Transaction Costs, Mathematical Finance 7(3), for bands.
    """

    fails_when: ClassVar[str] = (
        "A price that jumps between two closes under short options: the hedge comes one bar late, "
        "and the loss is that of their gamma."
    )
    may_hold_nothing: ClassVar[bool] = True  # where there are no options to hedge

    band: Annotated[float, Range(0.0, 10.0, "x of equity")] = 0.05
    edge: Annotated[str, Choice("zero", "band")] = "zero"
    numeraire: Annotated[str, Choice("settlement", "money")] = "settlement"
    target: Annotated[float, Range(-10.0, 10.0, "x of equity")] = 0.0

    def combine(self, bar: Bar, account: AccountView, asked: tuple[float, ...]) -> float:
        """Return NaN: the hedge is an order in contracts."""
        return math.nan

    def orders(self, bar: Bar, account: AccountView, chain: Any) -> Mapping[str, tuple[str, float]]:
        """Return the contracts of the instrument to hold, if x has left the band.

        x = (N + sum of Q D) / E: the instrument and the deltas of the options, over the equity.
        """
        equity = account.equity
        if not equity > 0.0:
            return {}

        # x - target. Coins count where the equity in money is hedged: all of it is in coins.
        delta = sum(option.quantity * option.delta_notional for option in chain.positions())
        coins = 0.0
        if self.numeraire == "money" and account.venue.is_inverse:
            coins = 1.0
        distance = account.leverage + delta / equity + coins - self.target
        if abs(distance) <= self.band:
            return {}

        # A hedge back to the edge leaves a band's width, on the side where x is.
        distance_left = 0.0
        if self.edge == "band":
            distance_left = math.copysign(self.band, distance)

        # A contract of an inverse market is worth the reciprocal of the price.
        price = bar.mark
        if account.venue.is_inverse:
            price = 1.0 / bar.mark
        contract_value = account.venue.size * price

        # What is too much, as a number of contracts, is sold.
        excess = distance - distance_left
        quantity = account.position - excess * equity / contract_value
        return {"hedge": (chain.instrument, quantity)}
