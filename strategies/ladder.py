"""Three levels of leverage, by drawdown or by volatility."""

import math
from typing import Annotated, ClassVar, NamedTuple

import numpy as np

from backtest import AccountView, Bar, Choice, Columns, Market, Policy, Range
from backtest.indicators import ewma_volatility


class Step(NamedTuple):
    """The number of thresholds passed."""

    step: float


class Ladder(Policy):
    """Hold one of three leverages, depending on the drawdown or the volatility.

    L = levels[n], with n the number of thresholds that x has passed: x the drawdown of the
    account, or the exponentially weighted volatility. A threshold is passed upward at
    x >= threshold and downward at x < threshold (1 - band). In between, the step does not change,
    so that x can vary around a threshold without trades.

    By drawdown, a level of 0 is final: equity that is not at risk does not recover.
    Source: Kritzman and Li (2010), Skulls, Financial Turbulence, and Risk Management, Financial
    Analysts Journal 66(5), for exposure by levels of turbulence; Schmitt (1938), A Thermionic
    Trigger, J. Scientific Instruments 15(1), for the band.
    """

    fails_when: ClassVar[str] = (
        "A fall that recovers at once: the leverage is cut near the low, and the rise is missed."
    )

    by: Annotated[str, Choice("drawdown", "volatility")] = "volatility"
    levels: Annotated[tuple[float, ...], Range(0.0, 125.0, "x of equity", length=3)] = (
        2.0, 1.0, 0.5,
    )  # fmt: skip
    drawdowns: Annotated[
        tuple[float, ...], Range(0.01, 0.95, "of peak", when=("by", "drawdown"), length=2)
    ] = (0.15, 0.30)
    volatilities: Annotated[
        tuple[float, ...],
        Range(0.05, 5.0, "per sqrt(year)", log=True, when=("by", "volatility"), length=2),
    ] = (0.60, 1.0)
    half_life: Annotated[float, Range(2, 2000, "bars", log=True, when=("by", "volatility"))] = 168.0
    band: Annotated[float, Range(0.0, 0.9, "of the threshold")] = 0.2

    def start(self) -> Step:
        """Return a memory on the first level."""
        return Step(step=0.0)

    def observe(self, market: Market) -> Columns:
        """Return sigma, 0 by drawdown, and 1 at all bars by volatility."""
        zeros = np.zeros(market.n_bars)
        if self.by == "drawdown":
            return {"sigma": zeros, "by_volatility": zeros}

        sigma = ewma_volatility(market, self.half_life)
        return {"sigma": sigma, "by_volatility": zeros + 1.0}

    def leverage(self, bar: Bar, account: AccountView, memory: Step) -> tuple[float, Step]:
        """Return the level of the step, and the step: how many thresholds x has passed."""
        x = account.drawdown
        thresholds = self.drawdowns
        if bar.by_volatility > 0.0:
            x = bar.sigma
            thresholds = self.volatilities

        # Volatility is not known yet: the position stays as it is.
        if math.isnan(x):
            return math.nan, memory

        # A threshold is passed upward at its value, and downward at 1 - band of it. So the step is
        # at least the number passed upward, at most the number not passed downward.
        first, second = thresholds
        downward = 1.0 - self.band
        fewest = count_passed(x, first, second)
        most = count_passed(x, first * downward, second * downward)
        step = min(max(memory.step, fewest), most)

        level = self.levels[2]
        if step == 0.0:
            level = self.levels[0]
        elif step == 1.0:
            level = self.levels[1]
        return level, Step(step)


def count_passed(x: float, first: float, second: float) -> float:
    """Return how many of two thresholds x has reached."""
    count = 0.0
    if x >= first:
        count += 1.0
    if x >= second:
        count += 1.0
    return count
