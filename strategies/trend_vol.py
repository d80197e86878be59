"""A volatility target while the trend is with the position."""

from typing import Annotated, ClassVar

import numpy as np

from backtest import AccountView, Bar, Choice, Columns, Market, Policy, Range
from backtest.indicators import ewma_volatility, trend_sign, trend_strength


class TrendVol(Policy):
    """Scale a volatility target by the trend in the direction of the signal.

    L_t = (target / sigma_t) max(0, s_t (m_1 + m_2 + m_3) / 3): s_t the side of the signal and m_i
    the trend over three lookbacks, from -1 to 1. By ``sign`` it is the sign of the return over the
    lookback, by ``strength`` that return in standard deviations, 1 at ``full`` of them. The
    leverage is 0 while the trend is against the signal.
    Source: Moskowitz, Ooi and Pedersen (2012), Time Series Momentum, J. Financial Economics 104(2):
    sign(r_{t-12,t}) 40 % / sigma_t, each month; Liu and Tsyvinski (2021), Risks and Returns of
    Cryptocurrency, Review of Financial Studies 34(6), find momentum over one to four weeks.
    """

    fails_when: ClassVar[str] = (
        "A market that turns as often as its lookbacks are long: it holds what has just ended."
    )

    target: Annotated[float, Range(0.05, 2.0, "per sqrt(year)", log=True)] = 0.40
    half_life: Annotated[float, Range(2, 2000, "bars", log=True)] = 72.0
    short: Annotated[int, Range(1, 20_000, "bars", log=True)] = 168
    middle: Annotated[int, Range(1, 20_000, "bars", log=True)] = 336
    long: Annotated[int, Range(1, 20_000, "bars", log=True)] = 672
    measure: Annotated[str, Choice("sign", "strength")] = "strength"
    full: Annotated[float, Range(0.1, 5.0, "deviations", when=("measure", "strength"))] = 1.0

    def observe(self, market: Market) -> Columns:
        """Return sigma, the mean trend over the lookbacks, and the side of the signal."""
        trends = []
        for bars in (self.short, self.middle, self.long):
            if self.measure == "sign":
                trends.append(trend_sign(market, bars))
            else:
                trends.append(trend_strength(market, bars, self.half_life, self.full))

        return {
            "sigma": ewma_volatility(market, self.half_life),
            "trend": (trends[0] + trends[1] + trends[2]) / 3.0,
            "side": np.sign(market.signal),
        }

    def leverage(self, bar: Bar, account: AccountView) -> float:
        """Return (target / sigma) max(0, side trend)."""
        strength = bar.side * bar.trend

        # The trend is against the signal.
        if strength <= 0.0:
            return 0.0

        of_full_trend = self.target / bar.sigma
        return of_full_trend * strength
