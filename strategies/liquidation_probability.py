"""The largest leverage with a limited probability of liquidation."""

from typing import Annotated, ClassVar

import numpy as np

from backtest import AccountView, Bar, Choice, Columns, Market, Policy, Promise, Range, margin
from backtest.indicators import VOLATILITY_ESTIMATORS, WEIGHTED_ESTIMATORS, forecast_reach


class LiquidationProbability(Policy):
    """Hold the largest leverage with a limited probability of liquidation within a horizon.

    L = N / E, N the largest notional with ``P(mark touches the liquidation price within horizon) <=
    probability``. A price without drift touches a level at the log distance a with probability
    ``2 Phi(-a / (sigma sqrt(horizon)))``, which gives a; the venue's maintenance brackets then give
    N: the largest with ``N |1 - u| + MM(u N) <= E``, u = exp(-a) for a long, exp(a) for a short,
    and the inverse of that for an inverse contract. The ``tail_index`` is one over the degrees of
    freedom of a Student's t with the same volatility: 0 is the normal distribution.

    In cross margin all equity backs the position. In isolated margin only the posted margin does,
    one over the leverage set at the venue, so that N sets the amount at stake but hardly the
    distance to the liquidation price. The rule is then all or nothing, for a position as if it were
    opened at this close. A signal of less than 1 holds less than L, and is safer.

    The position is assumed to be held unchanged over the horizon; one that is adjusted at every bar
    is liquidated less often. Costs and funding within the horizon are ignored.
    Source: Harrison (1985), Brownian Motion and Stochastic Flow Systems, section 1.8 (the first
    passage).
    """

    fails_when: ClassVar[str] = (
        "A jump out of a calm market: the forecast knows only moves of the recent size."
    )

    probability: Annotated[float, Range(1e-9, 0.5, log=True)] = 0.0001
    horizon: Annotated[float, Range(1.0, 2000.0, "bars", log=True)] = 168.0
    estimator: Annotated[str, Choice(*VOLATILITY_ESTIMATORS)] = "ewma"
    half_life: Annotated[
        float, Range(2, 2000, "bars", log=True, when=("estimator", WEIGHTED_ESTIMATORS))
    ] = 72.0
    tail_index: Annotated[float, Range(0.0, 0.45, "1 / degrees of freedom")] = 0.25

    def promises(self) -> tuple[Promise, ...]:
        """Return the probability of a liquidation within the horizon."""
        name = "liquidations as probable as targeted"
        row = Promise(name, "liquidations", self.probability, 0.0, horizon=self.horizon)
        return (row,)

    def observe(self, market: Market) -> Columns:
        """Return the price ratio to withstand, for a long, and the side of the signal."""
        # A tail index of 0 is the normal distribution, of infinite degrees of freedom.
        with np.errstate(divide="ignore"):
            degrees = np.divide(1.0, self.tail_index)

        reach = forecast_reach(
            market,
            self.probability,
            self.horizon,
            estimator=self.estimator,
            half_life=self.half_life,
            degrees_of_freedom=degrees,
        )
        return {
            "ratio": np.exp(-reach),
            "side": np.sign(market.signal),
        }

    def leverage(self, bar: Bar, account: AccountView) -> float:
        """Return N / E, N the largest notional that survives a move of the price to u."""
        equity = account.equity
        if equity <= 0.0:
            return 0.0

        # u: the price to survive over that of the close, below 1 for a long, above it for a short.
        ratio = bar.ratio
        if bar.side < 0.0:
            ratio = 1.0 / bar.ratio

        # N, by the maintenance brackets of the venue.
        notional: float = margin.survivable_notional(account.venue, equity, ratio)
        return notional / equity
