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
        is_volatility = bool(self.by == "volatility")
        nothing = np.zeros(market.n_bars)
        sigma = ewma_volatility(market, self.half_life) if is_volatility else nothing
        return {"sigma": sigma, "by_volatility": nothing + float(is_volatility)}

    def leverage(self, bar: Bar, account: AccountView, memory: Step) -> tuple[float, Step]:
        """Return the level of the step, and the step."""
        x, thresholds = account.drawdown, self.drawdowns
        if bar.by_volatility > 0.0:
            x, thresholds = bar.sigma, self.volatilities
        first, second = thresholds
        if math.isnan(x):
            return math.nan, memory
        kept = 1.0 - self.band
        least = count_passed(x, first, second)
        most = count_passed(x, first * kept, second * kept)
        step = min(max(memory.step, least), most)
        if step == 0.0:
            return self.levels[0], Step(step)
        return (self.levels[1] if step == 1.0 else self.levels[2]), Step(step)


def count_passed(x: float, first: float, second: float) -> float:
    """Return how many of two thresholds x has reached."""
    return (1.0 if x >= first else 0.0) + (1.0 if x >= second else 0.0)
