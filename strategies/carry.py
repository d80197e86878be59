"""Cash and carry: own the coin, sell the perpetual, and earn its funding."""

import math
from typing import Annotated, ClassVar

from backtest import AccountView, Bar, Columns, Market, Policy, Range
from backtest.indicators import funding_forecast


class Carry(Policy):
    """Hold a pair of a long spot leg and a short perpetual while its carry pays for it.

    Both legs ask for the same L. f is the forecast of the funding rate per year, c what opening and
    closing both legs costs, per year of ``holding``. Where f is over the rate of borrowed money
    plus c, L = n, the largest pair that bears the buffer; over the rate that cash earns plus c, L =
    min(1, n), a pair without a loan; otherwise 0. What is held already stays until f is under these
    rates less c, as closing and opening again would cost c.

    n = 1 / ((1 + rise) (h + b + m (1 + b))), h the haircut of the spot leg, m the maintenance rate
    of the perpetual, b the premium: a pair of n times the equity, opened without a premium, is
    liquidated where the price has risen by ``rise`` and the perpetual is b over spot. Nothing is
    held before the rate is known.

    The signal is 1 for the spot leg and -1 for the perpetual. The market of the spot leg has the
    funding of the perpetual, which it does not pay, so that both legs decide alike.
    Source: ours; the trade is described by Schmeling, Schrimpf and Todorov (2023), Crypto Carry,
    BIS Working Papers 1087.
    """

    fails_when: ClassVar[str] = (
        "A premium that widens beyond its allowance while the price rises, which liquidates a pair "
        "whose legs offset."
    )

    rise: Annotated[float, Range(0.0, 10.0, "of the price")] = 1.0
    premium: Annotated[float, Range(0.0, 1.0, "of the spot price")] = 0.05
    haircut: Annotated[float, Range(0.001, 0.9, "of the spot value")] = 0.05
    maintenance: Annotated[float, Range(0.0, 0.5, "of the notional")] = 0.01
    borrow_rate: Annotated[float, Range(0.0, 5.0, "per year")] = 0.08
    cash_rate: Annotated[float, Range(0.0, 1.0, "per year")] = 0.0
    cost: Annotated[float, Range(0.0, 0.1, "of the notional, to open and close both legs")] = 0.004
    holding: Annotated[float, Range(1.0, 1000.0, "days", log=True)] = 60.0
    half_life: Annotated[float, Range(1, 2000, "bars", log=True)] = 168.0

    def observe(self, market: Market) -> Columns:
        """Return the forecast of the funding that the short perpetual earns per year."""
        return {"earned": funding_forecast(market, self.half_life)}

    def leverage(self, bar: Bar, account: AccountView) -> float:
        """Return the leverage of each leg: n, at most 1, or nothing.

        n = 1 / ((1 + rise) (h + b + m (1 + b))), h the haircut of the spot leg, b the premium and m
        the maintenance rate of the perpetual.
        """
        # The funding rate is not known yet.
        if math.isnan(bar.earned):
            return math.nan

        # n, the largest pair that bears the buffer.
        maintenance = self.maintenance * (1.0 + self.premium)
        needed = self.haircut + self.premium + maintenance
        largest = 1.0 / ((1.0 + self.rise) * needed)
        unlevered = min(1.0, largest)

        # c per year. Each size must earn it to be opened; what is held stays until it loses it.
        cost = self.cost * 365.0 / self.holding
        held = abs(account.leverage)

        # The large pair, which is held where the leverage is nearer to it than to 1.
        is_levered = held > 0.5 * (1.0 + largest)
        hurdle = -cost if is_levered else cost
        if bar.earned > self.borrow_rate + hurdle:
            return largest

        # The pair without a loan.
        hurdle = -cost if held > 0.0 else cost
        if bar.earned > self.cash_rate + hurdle:
            return unlevered

        return 0.0
