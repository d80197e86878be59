"""A volatility target on the implied volatility of options."""

from typing import Annotated, ClassVar

from backtest import AccountView, Bar, Columns, Market, Policy, Range, math
from backtest.indicators import implied_volatility


class ImpliedVolTarget(Policy):
    """Hold the leverage at which implied volatility equals a target.

    L_t = (target / (IV_t sqrt(1 - haircut)))^power, IV_t the market's column
    ``implied_volatility`` at the close of bar t, per sqrt(year), a fraction: DVOL or VIX over 100.
    Implied volatility is on average higher than realized volatility, because sellers of options
    are paid for the risk that it rises. The ``haircut`` is that premium, as a share of the implied
    variance. Power 1 keeps volatility at the target, power 2 follows the variance. Where there is
    no implied volatility (NaN), the position stays unchanged.
    Source: Carr and Wu (2009), Variance Risk Premiums, Review of Financial Studies 22(3), for the
    premium; Moreira and Muir (2017), Volatility-Managed Portfolios, J. Finance 72(4), for the rule.
    """

    fails_when: ClassVar[str] = (
        "A crash that option prices did not expect, at the leverage of a calm market."
    )

    target: Annotated[float, Range(0.05, 2.0, "per sqrt(year)", log=True)] = 0.40
    haircut: Annotated[float, Range(0.0, 0.9, "of the implied variance")] = 0.0
    power: Annotated[float, Range(0.5, 3.0)] = 1.0

    def observe(self, market: Market) -> Columns:
        """Return the implied volatility."""
        return {"implied": implied_volatility(market)}

    def leverage(self, bar: Bar, account: AccountView) -> float:
        """Return (target / (IV sqrt(1 - haircut)))^power."""
        # The volatility that is expected: implied, less its premium.
        share = math.power(1.0 - self.haircut, 0.5)
        expected = bar.implied * share
        return math.power(self.target / expected, self.power)
