"""A volatility target: more leverage in calm markets, less in volatile ones."""

from typing import Annotated, ClassVar

from backtest import AccountView, Bar, Choice, Columns, Market, Policy, Promise, Range, math
from backtest.indicators import VOLATILITY_ESTIMATORS, WEIGHTED_ESTIMATORS, volatility


class VolTarget(Policy):
    """Hold the leverage at which forecast volatility equals a target.

    L_t = (target / sigma_t)^power, sigma_t the volatility that the estimator forecasts at the close
    of bar t, annualized: by default the exponentially weighted one of closes (see
    ``backtest.indicators.volatility`` for others). Power 1 keeps the volatility of the account at
    the target; power 2 follows the variance, best if returns do not rise with volatility. A
    market that does not move has sigma 0, and gets the largest leverage that the limits allow.
    Source: Moreira and Muir (2017), Volatility-Managed Portfolios, J. Finance 72(4) (power 2);
    Harvey et al. (2018), The Impact of Volatility Targeting, J. Portfolio Management 45(1)
    (power 1).
    """

    fails_when: ClassVar[str] = (
        "A crash out of a calm market: the leverage is highest when the fall begins."
    )
    takes_arrays: ClassVar[bool] = True
    target: Annotated[float, Range(0.05, 2.0, "per sqrt(year)", log=True)] = 0.40
    half_life: Annotated[
        float, Range(2, 2000, "bars", log=True, when=("estimator", WEIGHTED_ESTIMATORS))
    ] = 72.0
    power: Annotated[float, Range(0.5, 3.0)] = 1.0
    estimator: Annotated[str, Choice(*VOLATILITY_ESTIMATORS)] = "ewma"

    def promises(self) -> tuple[Promise, ...]:
        """Return the target, which only power 1 aims at."""
        if self.power != 1.0:
            return ()
        return (Promise("volatility at the target", "volatility", self.target, 0.1, "about"),)

    def observe(self, market: Market) -> Columns:
        """Return sigma, NaN until a half-life of bars is known or a model is fitted."""
        return {"sigma": volatility(market, self.estimator, self.half_life)}

    def leverage(self, bar: Bar, account: AccountView) -> float:
        """Return (target / sigma)^power."""
        return math.power(self.target / bar.sigma, self.power)
