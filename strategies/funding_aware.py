"""Less leverage while funding is expensive."""

import math
from typing import Annotated, ClassVar

import numpy as np

from backtest import AccountView, Bar, Columns, Combinator, Market, Range
from backtest.indicators import ewma_volatility, funding_forecast


class FundingAware(Combinator):
    """Reduce the leverage of a policy while the position pays funding above a break-even.

    L = a clip(1 - k max(0, s f - f_0) / sigma, 0, 1): a the leverage of the policy, s the side of
    the position, f the forecast of the funding rate per year, f_0 the break-even per year, sigma
    the volatility per sqrt(year). Funding in units of volatility is the Sharpe ratio it costs; k is
    the fraction of the leverage that each unit removes. Before the rate is known, nothing is
    reduced. Before sigma is known, a position that would be reduced stays unchanged. A sensitivity
    of 0 has no effect.
    Source: the carry as part of the expected return, Koijen, Moskowitz, Pedersen and Vrugt (2018),
    Carry, J. Financial Economics 127(2); the linear cut is ours.
    """

    only_lowers: ClassVar[bool] = True
    fails_when: ClassVar[str] = (
        "A rise that pays more than its high funding: the leverage is cut while prices go up."
    )

    sensitivity: Annotated[float, Range(0.0, 20.0, "of the leverage, per Sharpe ratio")] = 2.0
    break_even: Annotated[float, Range(-1.0, 3.0, "per year")] = 0.10
    half_life: Annotated[float, Range(1, 2000, "bars", log=True)] = 168.0

    def observe(self, market: Market) -> Columns:
        """Return the forecast of the funding that the position pays per year, and sigma."""
        side = np.sign(market.signal)
        forecast = funding_forecast(market, self.half_life)
        return {
            "paid": (side * forecast.T).T,
            "sigma": ewma_volatility(market, self.half_life),
        }

    def combine(self, bar: Bar, account: AccountView, asked: tuple[float, ...]) -> float:
        """Return what is asked times clip(1 - k max(0, s f - f_0) / sigma, 0, 1)."""
        # s f - f_0: what the position pays above the break-even, per year.
        excess = bar.paid - self.break_even
        if math.isnan(excess) or excess <= 0.0 or self.sensitivity == 0.0:
            return asked[0]

        # Something is to be reduced, and it is not known by how much.
        if math.isnan(bar.sigma):
            return math.nan

        share = 1.0 - self.sensitivity * excess / bar.sigma
        return asked[0] * max(share, 0.0)
