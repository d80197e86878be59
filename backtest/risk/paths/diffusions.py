"""Models with independent moves: a Brownian motion, alone and with jumps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np

from backtest.base import FloatArray, Number, ParameterError, checked
from backtest.market import Market
from backtest.risk.paths.path_model import PathModel, count_per_year, read_returns

MOST_PER_BAR = 2.0
"""The largest expected number of jumps in a bar; at most 40 are drawn."""


@dataclass(frozen=True, eq=False, repr=False)
class GBM(PathModel):
    """Geometric Brownian motion.

    Parameters
    ----------
    volatility : float
        Per sqrt(year), over 0.
    drift : float
        Growth of the expected price per year, so that the log return of a year has the mean
        ``drift - volatility^2 / 2``.
    """

    volatility: Annotated[float, Number(0.0, 100.0, open_low=True)]
    drift: Annotated[float, Number()] = 0.0

    @classmethod
    @checked
    def fit(cls, market: Market) -> Self:
        """Return the model with the volatility of the last 20,000 returns."""
        returns, per_year = read_returns(market, cls.__name__), count_per_year(market)
        return cls(volatility=float(np.std(returns)) * math.sqrt(per_year))

    @property
    def kernel(self) -> str:
        """The name of the kernel."""
        return "walk_jumps"

    def terms(self, per_year: float) -> FloatArray:
        """Return the terms of :func:`backtest.risk.paths.path_kernels.walk_jumps`."""
        variance = self.volatility**2
        mean = self.drift - 0.5 * variance
        return np.array([mean / per_year, variance / per_year, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])


def check_jumps(model: str, jumps: float, per_year: float) -> float:
    per_bar = jumps / per_year
    if per_bar > MOST_PER_BAR:
        raise ParameterError(
            f"jumps must be at most {MOST_PER_BAR * per_year:g} a year with these bars, "
            f"got {jumps:g}",
            where=f"bt.paths.{model}.jumps",
            cure="use shorter bars, or fewer jumps and a higher volatility",
        )
    return per_bar


@dataclass(frozen=True, eq=False, repr=False)
class Merton(PathModel):
    """Brownian motion with normal jumps of the log price.

    Parameters
    ----------
    volatility : float
        Of the continuous part, per sqrt(year), over 0.
    jumps : float
        Expected number per year.
    jump_mean, jump_deviation : float
        Of the log size of a jump.
    drift : float
        Growth of the expected price per year, jumps included.

    Notes
    -----
    The log return of a year has variance ``s^2 + l (m^2 + d^2)`` and fourth cumulant ``l (m^4 + 6
    m^2 d^2 + 3 d^4)``. Source: Merton (1976), Option Pricing When Underlying Stock Returns Are
    Discontinuous, J. Financial Economics 3.
    """

    volatility: Annotated[float, Number(0.0, 100.0, open_low=True)]
    jumps: Annotated[float, Number(0.0)]
    jump_mean: Annotated[float, Number(-5.0, 5.0)]
    jump_deviation: Annotated[float, Number(0.0, 5.0)]
    drift: Annotated[float, Number()] = 0.0

    @classmethod
    @checked
    def fit(cls, market: Market) -> Self:
        """Return the most likely model of the last 20,000 returns."""
        from backtest.risk.paths.jump_fit import fit_merton  # noqa: PLC0415 - loads scipy

        returns, per_year = read_returns(market, cls.__name__), count_per_year(market)
        deviation, jumps, mean, spread = fit_merton(returns)
        return cls(
            volatility=deviation * math.sqrt(per_year),
            jumps=jumps * per_year,
            jump_mean=mean,
            jump_deviation=spread,
        )

    @property
    def kernel(self) -> str:
        """The name of the kernel."""
        return "walk_jumps"

    def _growth(self, force: float) -> float:
        """Return E[exp(force J)] of a jump J."""
        return math.exp(force * self.jump_mean + 0.5 * (force * self.jump_deviation) ** 2)

    def _mean(self) -> float:
        """Return the mean log move of the continuous part per year."""
        return self.drift - 0.5 * self.volatility**2 - self.jumps * (self._growth(1.0) - 1.0)

    def terms(self, per_year: float) -> FloatArray:
        """Return the terms of :func:`backtest.risk.paths.path_kernels.walk_jumps`."""
        per_bar = check_jumps("Merton", self.jumps, per_year)
        part = (self._mean() / per_year, self.volatility**2 / per_year, per_bar, 0.0)
        return np.array([*part, 1.0, self.jump_mean, self.jump_deviation, 0.0])


@dataclass(frozen=True, eq=False, repr=False)
class Kou(PathModel):
    """Brownian motion with double exponential jumps of the log price.

    Parameters
    ----------
    volatility : float
        Of the continuous part, per sqrt(year), over 0.
    jumps : float
        Expected number per year.
    up : float
        The probability that a jump goes up.
    up_size, down_size : float
        Mean log size of a jump up (below 1, so that the expected price is finite) and down.
    drift : float
        Growth of the expected price per year, jumps included.

    Notes
    -----
    The log return of a year has variance ``s^2 + 2 l (p a^2 + q b^2)`` and fourth cumulant ``24 l
    (p a^4 + q b^4)``. Source: Kou (2002), A Jump-Diffusion Model for Option Pricing, Management
    Science 48(8).
    """

    volatility: Annotated[float, Number(0.0, 100.0, open_low=True)]
    jumps: Annotated[float, Number(0.0)]
    up: Annotated[float, Number(0.0, 1.0)]
    up_size: Annotated[float, Number(0.0, 1.0, open_low=True, open_high=True)]
    down_size: Annotated[float, Number(0.0, 5.0, open_low=True)]
    drift: Annotated[float, Number()] = 0.0

    @classmethod
    @checked
    def fit(cls, market: Market) -> Self:
        """Return the most likely model of the last 20,000 returns."""
        from backtest.risk.paths.jump_fit import fit_kou  # noqa: PLC0415 - loads scipy

        returns, per_year = read_returns(market, cls.__name__), count_per_year(market)
        deviation, jumps, up, up_size, down_size = fit_kou(returns)
        return cls(
            volatility=deviation * math.sqrt(per_year),
            jumps=jumps * per_year,
            up=up,
            up_size=up_size,
            down_size=down_size,
        )

    @property
    def kernel(self) -> str:
        """The name of the kernel."""
        return "walk_jumps"

    def _growth(self, force: float) -> float:
        """Return E[exp(force J)] of a jump J."""
        rise, fall = 1.0 - force * self.up_size, 1.0 + force * self.down_size
        return self.up / rise + (1.0 - self.up) / fall

    def _mean(self) -> float:
        """Return the mean log move of the continuous part per year."""
        return self.drift - 0.5 * self.volatility**2 - self.jumps * (self._growth(1.0) - 1.0)

    def terms(self, per_year: float) -> FloatArray:
        """Return the terms of :func:`backtest.risk.paths.path_kernels.walk_jumps`."""
        per_bar = check_jumps("Kou", self.jumps, per_year)
        part = (self._mean() / per_year, self.volatility**2 / per_year, per_bar, 0.0)
        return np.array([*part, 0.0, self.up, self.up_size, self.down_size])
