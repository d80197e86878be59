"""Leverage by a budget for the loss in the tail."""

from typing import Annotated, ClassVar

import numpy as np

from backtest import AccountView, Bar, Choice, Columns, Market, Policy, Promise, Range
from backtest.indicators import TAIL_MODELS, tail_losses


class TailRisk(Policy):
    """Hold the leverage at which the loss in the tail equals a budget.

    L_t = min(budget / risk_t, cap): risk_t is the value at risk, or the expected shortfall, of a
    position of 1x over the next ``horizon`` bars, on the side of the signal at the close. If the
    model's tail is a gain, the leverage is the cap. Over more than a few days the budget is not a
    limit of the loss, because the leverage changes in between. The losses are those of single bars,
    scaled to the horizon, where the window has fewer than 10 of whole horizons beyond the level.

    ``historical`` uses the losses of the window, ``filtered-historical`` scales each of them to the
    current volatility.
    Source: Basak and Shapiro (2001), Value-at-Risk-Based Risk Management, Review of Financial
    Studies 14(2); Rockafellar and Uryasev (2002), Conditional Value-at-Risk for General Loss
    Distributions, J. Banking and Finance 26(7); for the models those of
    :mod:`backtest.indicators.tails`.
    """

    fails_when: ClassVar[str] = (
        "A loss larger than any that the window has seen, at the leverage of calm months."
    )

    measure: Annotated[str, Choice("VaR", "ES")] = "ES"
    model: Annotated[str, Choice(*TAIL_MODELS)] = "filtered-historical"
    level: Annotated[float, Range(0.95, 0.999)] = 0.99
    horizon: Annotated[int, Range(1, 168, "bars", log=True)] = 24
    window: Annotated[int, Range(1000, 20_000, "bars", log=True)] = 2160
    half_life: Annotated[
        float, Range(2, 2000, "bars", log=True, when=("model", "filtered-historical"))
    ] = 72.0
    budget: Annotated[float, Range(0.005, 1.0, "of equity", log=True)] = 0.15
    cap: Annotated[float, Range(0.1, 125.0, "x of equity", log=True)] = 10.0

    def promises(self) -> tuple[Promise, ...]:
        """Return the budget for the loss in the tail, over the horizon."""
        tail = f"{self.measure.lower()}_{100.0 * self.level:g}"
        name = f"{self.measure} {100.0 * self.level:g} % within the budget"
        return (Promise(name, tail, self.budget, 0.1, horizon=float(self.horizon)),)

    def observe(self, market: Market) -> Columns:
        """Return the risk of 1x, NaN until the model is warm."""
        tail = tail_losses(
            market,
            self.model,
            level=self.level,
            horizon=self.horizon,
            window=self.window,
            half_life=self.half_life,
        )
        is_value = np.asarray(self.measure) == "VaR"
        return {"risk": np.where(is_value, tail.value_at_risk, tail.expected_shortfall)}

    def leverage(self, bar: Bar, account: AccountView) -> float:
        """Return min(budget / risk, cap)."""
        # The tail of the model is a gain.
        if bar.risk <= 0.0:
            return self.cap

        wanted = self.budget / bar.risk
        return self.cap if wanted > self.cap else wanted
