"""Price impact of forced flow: the square-root law and the linear law.

Both are powers of the flow as a share of a daily volume, so one record serves both:
``fall = factor (Q / V)^exponent``. The flow ``Q`` is a notional at the price before the shock,
positive if it is sold. The fall is a fraction of that price.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np

from backtest.base import ParameterError, Value, check_range, declared
from backtest.base.fields import NOT_NEGATIVE, POSITIVE
from backtest.base.units import DAY
from backtest.venue import Contract, compute_value

if TYPE_CHECKING:
    from backtest.base import FloatArray
    from backtest.market import Market

WINDOW_DAYS = 30.0
"""The days at the end of a market from which volume and volatility are measured."""


class ImpactCurve(NamedTuple):
    factor: float
    exponent: float
    volume: float

    def fall(self, flow: FloatArray | float) -> FloatArray:
        """Return the fall of a cumulative flow, a fraction; negative if it was bought."""
        share = np.abs(flow) / self.volume
        return np.asarray(np.sign(flow) * self.factor * share**self.exponent)

    def fall_of(self, flow: float) -> float:
        return math.copysign(self.factor * (abs(flow) / self.volume) ** self.exponent, flow)

    def flow_of(self, fall: float) -> float:
        if self.factor == 0.0:
            return 0.0
        share = (abs(fall) / self.factor) ** (1.0 / self.exponent)
        return math.copysign(share * self.volume, fall)

    def mean_fall(self, start: float, flow: float) -> float:
        """Return the mean fall while a flow is added to one that was there."""
        if abs(flow) <= 1e-9 * abs(start):  # else the difference is rounding
            return self.fall_of(start + 0.5 * flow)
        power = self.exponent + 1.0
        before, after = (
            (abs(each) / self.volume) ** power * self.volume / power
            for each in (start, start + flow)
        )
        return self.factor * (after - before) / flow if flow else self.fall_of(start)


@declared
class SquareRoot(Value):
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

    Examples
    --------
    >>> SquareRoot(1.0, volatility=0.04).curve(volume=100.0).fall(25.0).item()
    0.02
    """

    coefficient: Annotated[float, NOT_NEGATIVE] = 1.0
    volatility: Annotated[float | None, POSITIVE] = None

    def curve(
        self,
        *,
        volume: float | None = None,
        market: Market | None = None,
        contract: Contract | None = None,
    ) -> ImpactCurve:
        """Return the law as numbers, for a daily volume in money or that of a market.

        The volume of a market is valued by ``contract``, by default linear and of one unit.
        """
        volatility = self.volatility
        if volatility is None:
            volatility = 1.0 if market is None else measure_volatility(market)
        factor = self.coefficient * volatility
        return ImpactCurve(factor, 0.5, find_volume(volume, market, contract))


@declared
class Linear(Value):
    """Impact in proportion to the flow: ``fall = coefficient Q / V``.

    Parameters
    ----------
    coefficient : float
        The fall at a flow of one daily volume; without a volume, per unit of money.

    Examples
    --------
    >>> Linear(0.5).curve(volume=100.0).fall(10.0).item()
    0.05
    """

    coefficient: Annotated[float, NOT_NEGATIVE]

    def curve(
        self,
        *,
        volume: float | None = None,
        market: Market | None = None,
        contract: Contract | None = None,
    ) -> ImpactCurve:
        """Return the law as numbers; without a volume and a market with one, the volume is 1."""
        if volume is None and (market is None or not np.any(market.volume > 0.0)):
            return ImpactCurve(self.coefficient, 1.0, 1.0)
        return ImpactCurve(self.coefficient, 1.0, find_volume(volume, market, contract))


Impact = SquareRoot | Linear


def find_volume(volume: float | None, market: Market | None, contract: Contract | None) -> float:
    """Return the volume per day, by default of a market's last 30 days, in money."""
    if volume is not None:
        return check_range("volume", volume, low=0.0, open_low=True)
    if market is None or not np.any(market.volume > 0.0):
        raise ParameterError(
            "a square-root impact needs a daily volume, the market has none; volume= is the money "
            "traded per day"
        )
    rows, terms = find_window(market), Contract() if contract is None else contract
    value = compute_value(terms.size, terms.kind == "inverse", market.close[rows])  # type: ignore[arg-type] # arrays too
    money = market.volume[rows] * np.abs(value)
    return float(np.sum(money)) / (len(money) * market.interval / DAY)


def measure_volatility(market: Market) -> float:
    steps = np.diff(np.log(market.close[find_window(market)]))
    if len(steps) < 2:
        raise ParameterError(
            f"a volatility needs 3 bars or more, got {len(steps) + 1} in {market!r}; "
            "bt.SquareRoot(1.0, volatility=0.03) has its own"
        )
    return float(np.std(steps, ddof=1)) * math.sqrt(DAY / market.interval)


def find_window(market: Market) -> slice:
    bars = max(int(WINDOW_DAYS * DAY / market.interval), int(WINDOW_DAYS))
    return slice(max(0, market.n_bars - bars), None)
