"""Models whose volatility changes: Heston, GARCH, and two regimes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np

from backtest.base import FloatArray, Number, ParameterError, checked, compile_module
from backtest.base.units import DAY
from backtest.market import Market
from backtest.risk.paths import regime_fit_kernels
from backtest.risk.paths.path_model import PathModel, count_per_year, read_returns

PULL = (0.5, 200.0)
"""Bounds of the pull to the mean variance that a fit of Heston's model finds, per year."""
HALF_LIFE = 5.0
"""Half-life, in days, of today's variance in a fit of Heston's model."""
ROUNDS = 200
"""Most rounds of expectation and maximization in a fit of two regimes."""
SETTLED = 1e-9
"""Gain of the mean log likelihood in a round at which such a fit ends."""


@dataclass(frozen=True, eq=False, repr=False)
class Heston(PathModel):
    """Stochastic variance that reverts to a mean, with shocks correlated with returns.

    Parameters
    ----------
    variance_now, variance_mean : float
        Per year; 0.64 is a volatility of 80 %.
    pull : float
        Speed at which the variance returns to its mean, per year: half of a shock is gone after
        ``ln 2 / pull`` years.
    volatility_of_variance : float
        Of the root of the variance: ``dv = pull (mean - v) dt + this sqrt(v) dW``, per year.
    correlation : float
        Of shocks to the variance and returns.
    drift : float
        Growth of the expected price per year.

    Notes
    -----
    Euler steps of one bar with full truncation. Source: Heston (1993), A Closed-Form Solution for
    Options with Stochastic Volatility, Review of Financial Studies 6(2).
    """

    variance_now: Annotated[float, Number(0.0)]
    variance_mean: Annotated[float, Number(0.0, open_low=True)]
    pull: Annotated[float, Number(0.0)]
    volatility_of_variance: Annotated[float, Number(0.0)]
    correlation: Annotated[float, Number(-1.0, 1.0)] = 0.0
    drift: Annotated[float, Number()] = 0.0

    @classmethod
    @checked
    def fit(cls, market: Market) -> Self:
        """Return the model with parameters by moments of the daily realized variance.

        The pull comes from the decay of its autocovariance from one to five days, which estimation
        noise of single days does not bias, the volatility of the variance from its autocovariance
        at one day, today's variance from an average with a half-life of five days.
        """
        returns, per_year = read_returns(market, cls.__name__), count_per_year(market)
        days, moves = sum_by_day(returns, market.interval, per_year)
        mean = float(np.mean(days))
        near, far = (covariance(days[lag:], days[:-lag]) for lag in (1, 5))
        per_day = math.log(near / far) / 4.0 if 0.0 < far < near else 0.0
        year = per_year * market.interval / DAY
        pull = min(max(per_day * year, PULL[0]), PULL[1])
        spread = math.sqrt(2.0 * pull * max(near, 0.0) * math.exp(pull / year) / mean)
        weights = 0.5 ** (np.arange(len(days))[::-1] / HALF_LIFE)
        change = np.diff(days)
        rho = covariance(moves[:-1], change) / math.sqrt(np.var(moves[:-1]) * np.var(change))
        return cls(
            variance_now=float(np.sum(days * weights) / np.sum(weights)),
            variance_mean=mean,
            pull=pull,
            volatility_of_variance=spread,
            correlation=float(min(max(rho, -0.95), 0.95)),
        )

    @property
    def kernel(self) -> str:
        """The name of the kernel."""
        return "walk_heston"

    def terms(self, per_year: float) -> FloatArray:
        """Return the terms of :func:`backtest.risk.paths.path_kernels.walk_heston`."""
        if not self.pull < per_year:
            raise ParameterError(
                f"pull must be below the bars in a year, {per_year:g}, got {self.pull:g}",
                where="bt.paths.Heston.pull",
                cure="use shorter bars, or a smaller pull",
            )
        variances = (self.variance_now / per_year, self.variance_mean / per_year)
        spread = self.volatility_of_variance / per_year
        return np.array(
            [self.drift / per_year, *variances, self.pull / per_year, spread, self.correlation]
        )


def sum_by_day(
    returns: FloatArray, interval: int, per_year: float
) -> tuple[FloatArray, FloatArray]:
    """Return realized variance (per year) and return of each stretch of a day, or bar if longer."""
    n = max(DAY // interval, 1)
    whole = returns[len(returns) % n :].reshape(-1, n)
    return np.sum(whole**2, axis=1) * (per_year / n), np.sum(whole, axis=1)


def covariance(x: FloatArray, y: FloatArray) -> float:
    return float(np.mean((x - np.mean(x)) * (y - np.mean(y))))


@dataclass(frozen=True, eq=False, repr=False)
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

    def _check_rules(self) -> None:
        if not self.persistence < 1.0 or self.alpha + self.gamma < 0.0:
            raise ParameterError(
                "alpha + gamma / 2 + beta must be below 1 and alpha + gamma at least 0, "
                f"got {self.persistence:g} and {self.alpha + self.gamma:g}",
                where="bt.paths.Garch",
                cure="choose smaller weights, so that the variance has a mean",
            )
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
        from backtest.risk.paths.garch_fit import fit_student_garch  # noqa: PLC0415 - loads scipy

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


@dataclass(frozen=True, eq=False, repr=False)
class Regimes(PathModel):
    """Two regimes, calm and stress, each with normal returns; a Markov chain.

    Parameters
    ----------
    calm_volatility, stress_volatility : float
        Per sqrt(year).
    calm_bars, stress_bars : float
        Mean length of a stay, in bars, at least 1.
    stress_now : float, optional
        Probability that the next bar is in stress; by default its share in the long run,
        ``stress_bars / (calm_bars + stress_bars)``.
    calm_drift, stress_drift : float
        Growth of the expected price per year in a regime, on top of ``drift``.
    drift : float
        Growth of the expected price per year.

    Notes
    -----
    Source: Hamilton (1989), A New Approach to the Economic Analysis of Nonstationary Time Series
    and the Business Cycle, Econometrica 57(2).
    """

    calm_volatility: Annotated[float, Number(0.0, 100.0, open_low=True)]
    stress_volatility: Annotated[float, Number(0.0, 100.0, open_low=True)]
    calm_bars: Annotated[float, Number(1.0)]
    stress_bars: Annotated[float, Number(1.0)]
    stress_now: Annotated[float | None, Number(0.0, 1.0)] = None
    calm_drift: Annotated[float, Number()] = 0.0
    stress_drift: Annotated[float, Number()] = 0.0
    drift: Annotated[float, Number()] = 0.0

    def _check_rules(self) -> None:
        if self.stress_now is None:
            self._set_fields(stress_now=self.stress_share)

    @property
    def stress_share(self) -> float:
        """The share of bars in stress in the long run."""
        return self.stress_bars / (self.calm_bars + self.stress_bars)

    @classmethod
    @checked
    def fit(cls, market: Market) -> Self:
        """Return the most likely model of the last 20,000 returns with mean 0.

        By expectation and maximization (Baum and Welch), from variances of a quarter and twice the
        sample's, and stays of 50 and 20 bars.
        """
        returns, per_year = read_returns(market, cls.__name__), count_per_year(market)
        variance = float(np.var(returns))
        terms = np.array([0.25 * variance, 2.0 * variance, 0.02, 0.05, 0.3, -math.inf])
        scratch = np.empty((4, len(returns)))
        update = compile_module(regime_fit_kernels).update_regimes
        for _ in range(ROUNDS):
            before = terms[5]
            update(terms, scratch, returns)
            if not terms[5] - before > SETTLED:
                break
        calm, stress, leave_calm, leave_stress, now = terms[:5]
        root = math.sqrt(per_year)
        return cls(
            calm_volatility=math.sqrt(calm) * root,
            stress_volatility=math.sqrt(stress) * root,
            calm_bars=1.0 / max(leave_calm, 1e-6),
            stress_bars=1.0 / max(leave_stress, 1e-6),
            stress_now=float(min(max(now, 0.0), 1.0)),
        )

    @property
    def kernel(self) -> str:
        """The name of the kernel."""
        return "walk_regimes"

    def terms(self, per_year: float) -> FloatArray:
        """Return the terms of :func:`backtest.risk.paths.path_kernels.walk_regimes`."""
        now = self.stress_share if self.stress_now is None else self.stress_now
        both = (
            (self.drift + self.calm_drift, self.calm_volatility),
            (self.drift + self.stress_drift, self.stress_volatility),
        )
        moments = [((mu - 0.5 * s * s) / per_year, s * s / per_year) for mu, s in both]
        leaves = (1.0 / self.calm_bars, 1.0 / self.stress_bars)
        return np.array([now, *leaves, *moments[0], *moments[1]])
