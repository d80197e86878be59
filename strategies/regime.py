"""One leverage for calm markets, another for stress."""

from typing import Annotated, ClassVar

from backtest import AccountView, Bar, Columns, Market, Policy, Range
from backtest.indicators import learned_regimes


class Regime(Policy):
    """Hold the mean of two leverages, weighted by the probabilities of calm and stress.

    L_t = (1 - p_t) calm + p_t stress, p_t the probability that the next bar is one of stress given
    the returns up to bar t: predicted, never smoothed. Both regimes have returns of mean 0. Their
    volatilities are learned over time, with ``half_life``. ``calm_bars`` and ``stress_bars`` are
    the mean durations of the regimes: the longer they are, the more evidence a change needs.
    Source: Hamilton (1989), A New Approach to the Economic Analysis of Nonstationary Time Series
    and the Business Cycle, Econometrica 57(2), for the filter; Ang and Bekaert (2004), How Regimes
    Affect Asset Allocation, Financial Analysts Journal 60(2), for less risk under stress.
    """

    fails_when: ClassVar[str] = (
        "A crash in the middle of calm, before any return of stress is seen."
    )

    calm: Annotated[float, Range(0.0, 20.0, "x of equity")] = 1.5
    stress: Annotated[float, Range(0.0, 20.0, "x of equity")] = 0.5
    half_life: Annotated[float, Range(50, 20_000, "bars", log=True)] = 2160.0
    calm_bars: Annotated[float, Range(2, 5000, "bars", log=True)] = 720.0
    stress_bars: Annotated[float, Range(2, 5000, "bars", log=True)] = 168.0

    def observe(self, market: Market) -> Columns:
        """Return the probability of stress one bar ahead, NaN until it is learned."""
        regimes = learned_regimes(
            market,
            half_life=self.half_life,
            calm_bars=self.calm_bars,
            stress_bars=self.stress_bars,
        )
        return {"probability": regimes.predicted}

    def leverage(self, bar: Bar, account: AccountView) -> float:
        """Return (1 - p) calm + p stress."""
        in_calm = (1.0 - bar.probability) * self.calm
        in_stress = bar.probability * self.stress
        return in_calm + in_stress
