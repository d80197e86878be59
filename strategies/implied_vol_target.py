"""More leverage where options are cheap, less where they are dear."""

import math
from typing import Annotated

from backtest import AccountView, Bar, Columns, Market, Policy, Range
from backtest.features import implied_volatility


class ImpliedVolTarget(Policy):
    """Hold the leverage at which the volatility that options imply equals a target.

    L_t = (target / (IV_t sqrt(1 - haircut)))^power, IV_t the market's column
    ``implied_volatility`` at the close of bar t, per sqrt(year), a fraction: DVOL or VIX over 100.
    Those who sell options want to be paid for the risk that volatility rises, so that what is
    implied is on average more than what comes. The ``haircut`` is that premium, as a share of the
    implied variance. Power 1 keeps volatility at the target, power 2 follows the variance. Where
    nothing is implied (NaN) the position is left alone.
    Source: Carr and Wu (2009), Variance Risk Premiums, Review of Financial Studies 22(3), for the
    premium; Moreira and Muir (2017), Volatility-Managed Portfolios, J. Finance 72(4), for the rule.
    """

    target: Annotated[float, Range(0.05, 2.0, "per sqrt(year)", log=True)] = 0.40
    haircut: Annotated[float, Range(0.0, 0.9, "of the implied variance")] = 0.0
    power: Annotated[float, Range(0.5, 3.0)] = 1.0

    def observe(self, market: Market) -> Columns:
        """Return what options imply."""
        return {"implied": implied_volatility(market)}

    def leverage(self, bar: Bar, account: AccountView) -> float:
        """Return (target / (IV sqrt(1 - haircut)))^power."""
        ratio = self.target / (bar.implied * math.sqrt(1.0 - self.haircut))
        return ratio if self.power == 1.0 else float(ratio**self.power)
