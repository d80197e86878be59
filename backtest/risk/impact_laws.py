"""Laws of impact: by how much a flow of orders moves a price."""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

import numpy as np

from backtest import core
from backtest.core.fields import NOT_NEGATIVE, POSITIVE
from backtest.core.units import DAY
from backtest.market import Market
from backtest.results.tables import value_of
from backtest.venue import Contract

WINDOW_DAYS = 30.0
"""The days at the end of a market from which volume and volatility are measured."""


class ImpactCurve(NamedTuple):
    """Impact: fall = factor (Q / V)^exponent.

    The flow Q is a notional at the price before the shock, positive if it is sold, V the daily
    volume. The fall is a fraction of that price, negative for what was bought.
    """

    factor: float
    exponent: float
    volume: float

    def fall(self, flow: float) -> float:
        """Return the fall of the price that a flow causes, as a share; negative for a rise."""
        size = abs(flow) / self.volume
        fall = self.factor * size**self.exponent
        return math.copysign(fall, flow)

    def mean_fall(self, start: float, flow: float) -> float:
        """Return the mean fall while a flow is added to one that was there."""
        if abs(flow) <= 1e-9 * abs(start):  # else the difference is rounding
            return self.fall(start + 0.5 * flow)

        before = self._integrate(start)
        after = self._integrate(start + flow)
        return float(self.factor * (after - before) / flow)

    def _integrate(self, flow: float) -> float:
        """Return the integral of the fall up to a flow, over the factor."""
        power = self.exponent + 1.0
        size = abs(flow) / self.volume
        return float(size**power * self.volume / power)


class SquareRoot(core.Value):
    """Impact by the square-root law: ``fall = coefficient volatility sqrt(Q / V)``.

    Parameters
    ----------
    coefficient : float
        Y of the law, about 1 in measurements of large orders.
    volatility : float or None
        The daily volatility, a fraction. None: that of the last 30 days of the market where there
        is one, else 1, so that the coefficient is the fall at one day's volume.

    Notes
    -----
    Source: Toth et al. (2011), Anomalous Price Impact and the Critical Nature of Liquidity in
    Financial Markets, Physical Review X 1.
    """

    coefficient: Annotated[float, NOT_NEGATIVE] = 1.0
    volatility: Annotated[float | None, POSITIVE] = None

    def curve(
        self,
        volume: float | None,
        market: Market | None,
        contract: Contract,
    ) -> ImpactCurve:
        """Return the law as numbers, for a daily volume in money or that of a market."""
        daily_volume = find_volume(volume, market, contract)
        if daily_volume is None:
            raise core.ParameterError(
                "a square-root impact needs a daily volume, the market has none; volume= is the "
                "money traded per day"
            )

        sigma = self.volatility
        if sigma is None:
            sigma = 1.0 if market is None else measure_daily_volatility(market)
        return ImpactCurve(self.coefficient * sigma, 0.5, daily_volume)


def measure_daily_volatility(market: Market) -> float:
    """Return the standard deviation of log returns over the last 30 days, per day."""
    close = market.close[find_window(market)]
    steps = np.diff(np.log(close))
    if len(steps) < 2:
        raise core.ParameterError(
            f"a volatility needs 3 bars or more, got {len(steps) + 1} in {market!r}; "
            "bt.SquareRoot(1.0, volatility=0.03) has its own"
        )
    deviation = float(np.std(steps, ddof=1))
    return deviation * math.sqrt(DAY / market.interval)


class Linear(core.Value):
    """Impact in proportion to the flow: ``fall = coefficient Q / V``.

    Parameters
    ----------
    coefficient : float
        The fall at a flow of one daily volume; without a volume, per unit of money.
    """

    coefficient: Annotated[float, NOT_NEGATIVE]

    def curve(
        self,
        volume: float | None,
        market: Market | None,
        contract: Contract,
    ) -> ImpactCurve:
        """Return the law as numbers; without a volume and a market with one, the volume is 1."""
        daily_volume = find_volume(volume, market, contract) or 1.0
        return ImpactCurve(self.coefficient, 1.0, daily_volume)


Impact = SquareRoot | Linear


def find_volume(
    volume: float | None,
    market: Market | None,
    contract: Contract,
) -> float | None:
    """Return the volume per day in money: as given, or that of a market's last 30 days.

    None without either: the caller decides what that means.
    """
    if volume is not None:
        return core.check_range("volume", volume, low=0.0, open_low=True)
    if market is None or not np.any(market.volume > 0.0):
        return None

    # Volumes are in contracts, each worth its value at the close.
    rows = find_window(market)
    value = value_of(contract, market.close[rows])
    money = market.volume[rows] * np.abs(value)

    # Days as far as the bars go; of sessions, those on which there was trading.
    days = len(money) * market.interval / DAY
    if market.sessions:
        trading_days = np.unique(market.time[rows] // DAY)
        days = len(trading_days)
    return float(np.sum(money)) / days


def find_window(market: Market) -> slice:
    """Return the bars of the last days from which volume and volatility are measured."""
    n_days = int(WINDOW_DAYS)
    bars = max(int(WINDOW_DAYS * DAY / market.interval), n_days)
    return slice(-bars, None)
