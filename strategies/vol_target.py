"""A volatility target: more leverage in calm markets, less in volatile ones."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np

from backtest import AccountView, Bar, Choice, Columns, Market, Policy, Promise, Range, math
from backtest.indicators import (
    VOLATILITY_ESTIMATORS,
    WEIGHTED_ESTIMATORS,
    volatility,
    volatility_feedback,
)


class VolTarget(Policy):
    """Hold the leverage at which forecast volatility equals a target.

    L_t = (kappa_t target / sigma_t)^power, sigma_t the volatility that the estimator forecasts at
    the close of bar t, annualized: by default the exponentially weighted one of closes (see
    ``backtest.indicators.volatility`` for others). Power 1 keeps the volatility of the account at
    the target; power 2 follows the variance, best if returns do not rise with volatility. A
    market that does not move has sigma 0, and gets the largest leverage that the limits allow.

    kappa_t is 1 without ``feedback``. With it the leverage learns from the volatility that it
    brought: kappa falls at each close at which that was over the target, and rises where it was
    under (see ``backtest.indicators.volatility_feedback``). It mends a forecast that is always too
    high or too low, and adds noise to one that is not.
    Source: Moreira and Muir (2017), Volatility-Managed Portfolios, J. Finance 72(4) (power 2);
    Harvey et al. (2018), The Impact of Volatility Targeting, J. Portfolio Management 45(1)
    (power 1); Devanathan et al. (2026), arXiv 2603.01298, for the feedback.
    """

    fails_when: ClassVar[str] = (
        "A crash out of a calm market: the leverage is highest when the fall begins."
    )
    charts: ClassVar[Mapping[str, str]] = {
        "kappa": "Factor of the target that the policy learned from its own error; 1 learned none."
    }
    takes_arrays: ClassVar[bool] = True

    target: Annotated[float, Range(0.05, 2.0, "per sqrt(year)", log=True)] = 0.40
    half_life: Annotated[
        float, Range(2, 2000, "bars", log=True, when=("estimator", WEIGHTED_ESTIMATORS))
    ] = 72.0
    power: Annotated[float, Range(0.5, 3.0)] = 1.0
    estimator: Annotated[str, Choice(*VOLATILITY_ESTIMATORS)] = "ewma"
    feedback: Annotated[float, Range(0.0, 1.0, "of the error, each bar", searched=False)] = 0.0

    def promises(self) -> tuple[Promise, ...]:
        """Return the target, which only power 1 aims at."""
        if self.power != 1.0:
            return ()
        return (Promise("volatility at the target", "volatility", self.target, 0.1, "about"),)

    def observe(self, market: Market) -> Columns:
        """Return sigma, NaN until a half-life of bars is known or a model is fitted.

        With feedback sigma is divided by kappa, which stands beside it.
        """
        sigma = volatility(market, self.estimator, self.half_life)

        # Sweeps share the columns of sets that differ in what is not read, so 0 reads no target.
        if not np.any(self.feedback):
            return {"sigma": sigma}

        kappa = volatility_feedback(
            market,
            sigma,
            self.target,
            self.feedback,
            self.half_life,
            self.power,
        )
        return {"sigma": sigma / kappa, "kappa": kappa}

    def leverage(self, bar: Bar, account: AccountView) -> float:
        """Return (target / sigma)^power."""
        return math.power(self.target / bar.sigma, self.power)
