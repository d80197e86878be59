"""Models of closes: a Brownian motion, alone and with jumps, and GARCH."""

from __future__ import annotations

import math
from typing import Annotated, Self

import numpy as np

from backtest.base import Faults, FloatArray, Number, ParameterError, checked, declared
from backtest.market import Market
from backtest.risk.paths.path_model import PathModel, count_per_year, read_returns

MOST_PER_BAR = 2.0
"""The largest expected number of jumps in a bar; at most 40 are drawn."""


@declared
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
        return np.array([mean / per_year, variance / per_year, 0.0, 0.0, 0.0, 0.0])


@declared
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
        from backtest.risk.paths.model_fits import fit_merton  # noqa: PLC0415 - loads scipy

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

    def terms(self, per_year: float) -> FloatArray:
        """Return the terms of :func:`backtest.risk.paths.path_kernels.walk_jumps`."""
        if self.jumps / per_year > MOST_PER_BAR:
            raise ParameterError(
                f"jumps must be at most {MOST_PER_BAR * per_year:g} a year with these bars, "
                f"got {self.jumps:g}"
            )
        growth = math.exp(self.jump_mean + 0.5 * self.jump_deviation**2)
        mean = self.drift - 0.5 * self.volatility**2 - self.jumps * (growth - 1.0)
        part = (mean / per_year, self.volatility**2 / per_year, self.jumps / per_year, 0.0)
        return np.array([*part, self.jump_mean, self.jump_deviation])


@declared
class Garch(PathModel):
    """GARCH(1,1), or GJR with ``gamma``, with Student's t or normal innovations; per bar.

    Parameters
    ----------
    omega : float
        Constant of the variance, per bar.
    alpha, beta : float
        Weights of the last squared surprise and of the last variance.
    gamma : float
        Further weight of the square of a negative surprise.
    degrees_of_freedom : float
        Of Student's t, over 2; infinite for the normal distribution.
    variance_now : float
        That of the next bar.
    variance_most : float
        The largest that the variance of a path may be. With heavy tails, the variance of a GARCH
        grows so far on a few paths that they make its mean.
    drift : float
        Growth of the expected price per year.

    Notes
    -----
    ``v' = omega + (alpha + gamma [e < 0]) e^2 + beta v``. Without ``variance_now`` the variance
    starts at its mean, ``omega / (1 - alpha - gamma / 2 - beta)``. Source: Bollerslev (1986),
    Generalized Autoregressive Conditional Heteroskedasticity, J. Econometrics 31(3); Glosten,
    Jagannathan and Runkle (1993), J. Finance 48(5).
    """

    omega: Annotated[float, Number(0.0, open_low=True)]
    alpha: Annotated[float, Number(0.0, 1.0)]
    beta: Annotated[float, Number(0.0, 1.0, open_high=True)]
    gamma: Annotated[float, Number(-1.0, 2.0)] = 0.0
    degrees_of_freedom: Annotated[float, Number(2.0, open_low=True, may_be_infinite=True)] = (
        math.inf
    )
    variance_now: Annotated[float | None, Number(0.0, open_low=True)] = None
    variance_most: Annotated[float, Number(0.0, open_low=True, may_be_infinite=True)] = math.inf
    drift: Annotated[float, Number()] = 0.0

    def faults(self) -> Faults:
        """Yield weights under which the variance has no mean, or may be negative."""
        if not self.persistence < 1.0:
            yield "beta", f"must leave alpha + gamma / 2 + beta under 1: it is {self.persistence:g}"
        if self.alpha + self.gamma < 0.0:
            yield "gamma", f"must be at least -alpha, {-self.alpha:g}"

    def _settle(self) -> None:
        if self.variance_now is None:
            self._set_fields(variance_now=self.omega / (1.0 - self.persistence))

    @property
    def persistence(self) -> float:
        """The share of a shock to the variance that is left after a bar."""
        return self.alpha + 0.5 * self.gamma + self.beta

    @classmethod
    @checked
    def fit(cls, market: Market, *, asymmetric: bool = False) -> Self:
        """Return the most likely model with Student's t of the last 20,000 returns.

        Its mean variance is that of these returns, ``variance_now`` that of today, and
        ``variance_most`` the largest that it had at any of them.

        Parameters
        ----------
        market : Market
            Its closes.
        asymmetric : bool
            Whether falls may weigh more than rises (GJR).
        """
        from backtest.risk.paths.model_fits import fit_student_garch  # noqa: PLC0415 - loads scipy

        returns = read_returns(market, cls.__name__)
        return cls(**fit_student_garch(returns, is_asymmetric=asymmetric)._asdict())

    @property
    def kernel(self) -> str:
        """The name of the kernel."""
        return "walk_garch"

    def terms(self, per_year: float) -> FloatArray:
        """Return the terms of :func:`backtest.risk.paths.path_kernels.walk_garch`."""
        now = math.nan if self.variance_now is None else self.variance_now
        weights = (self.omega, self.alpha, self.gamma, self.beta)
        limits = (self.degrees_of_freedom, self.variance_most)
        return np.array([self.drift / per_year, now, *weights, *limits])
