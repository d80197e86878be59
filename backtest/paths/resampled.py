"""Models that repeat whole rows of history in blocks: stationary, fixed, and filtered."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

import numpy as np

from backtest.base.ranges import Number
from backtest.base.units import FloatArray
from backtest.features import garch_kernels
from backtest.features.compiled import compile_module
from backtest.features.garch import find_backcast
from backtest.features.returns import log_returns
from backtest.market import Market
from backtest.paths.changing_volatility import fit_student_garch
from backtest.paths.path_model import PathModel, read_returns

DOUBLINGS, NEGLIGIBLE = 64, 1e-12
"""The most doublings of the rows in a sum, and the factor under which more rows add nothing."""


def block_length(returns: FloatArray, *, is_stationary: bool = True) -> float:
    """Return the length of blocks for a bootstrap of squared returns, in bars.

    Parameters
    ----------
    returns : FloatArray of shape (n,)
        Their squares are what blocks must keep together.
    is_stationary : bool
        Whether lengths are geometric (stationary bootstrap) or all the same (circular).

    Returns
    -------
    float
        At least n^(1/3).

    Notes
    -----
    Source: Politis and White (2004), Automatic Block-Length Selection for the Dependent Bootstrap,
    Econometric Reviews 23(1), with the correction of Patton, Politis and White (2009), by ``arch``.
    """
    from arch.bootstrap import optimal_block_length  # noqa: PLC0415 - takes a second to import

    found = optimal_block_length(returns**2)["stationary" if is_stationary else "circular"]
    return max(float(found.iloc[0]), float(len(returns) ** (1.0 / 3.0)))


def find_row_scale(model: Filtered, rows: FloatArray, weight: FloatArray, target: float) -> float:
    """Return by what squared rows are multiplied, so that paths have the variance of history.

    ``rows`` are squared returns over their variance, ``weight`` the same times ``alpha`` (and
    ``gamma`` after a fall), of shape (n_rows,). ``target`` is the mean squared return.
    """
    if not rows.any():
        return 1.0
    low, high = 1e-6, 1e6
    while high > low * (1.0 + 1e-9):
        middle = math.sqrt(low * high)
        if find_long_run(model, middle * rows, middle * weight) < target:
            low = middle
        else:
            high = middle
    return low


def find_long_run(model: Filtered, rows: FloatArray, weight: FloatArray) -> float:
    """Return the mean squared return of a long path; infinite if its variance grows forever.

    Notes
    -----
    With q the probability that a block ends, u_t the mean variance before row t, and
    a_t = weight_t + beta, ``u_{t+1} = (1 - q) (omega + a_t u_t) + q mean(omega + a u)``. So u is a
    multiple of S, ``S_{t+1} = 1 + (1 - q) a_t S_t``, on a circle of rows.
    """
    stay, n = 1.0 - 1.0 / model.block, len(rows)
    growth = weight + model.beta
    factor, total = stay * np.roll(growth, 1), np.ones(n)
    with np.errstate(over="ignore", invalid="ignore"):
        for doubling in range(DOUBLINGS):  # of the rows behind each one that total counts
            if not NEGLIGIBLE < np.max(factor) < math.inf:
                break
            total = total + factor * np.roll(total, 2**doubling % n)
            factor = factor * np.roll(factor, 2**doubling % n)
        left = 1.0 - (1.0 - stay) * float(np.mean(growth * total))
    return model.omega / left * float(np.mean(rows * total)) if left > 0.0 else math.inf


@dataclass(frozen=True, eq=False, repr=False)
class _Resampled(PathModel):
    """Base of the models that repeat rows of history.

    A row is the logs of open, high, low and close over the last close, mark over last prices,
    volume over its mean, and the funding settled in it. A row stays in its phase of the funding
    interval (and of the week, in markets with sessions).
    """

    block: Annotated[float, Number(1.0)]

    is_resampled: ClassVar[bool] = True
    is_symmetric: ClassVar[bool] = False
    varies: ClassVar[bool] = True
    is_scaled: ClassVar[bool] = False

    @property
    def kernel(self) -> str:
        """The name of the kernel, in :mod:`backtest.paths.row_kernels`."""
        return "lay_rows"

    def terms(self, per_year: float) -> FloatArray:  # noqa: ARG002 - all is per bar
        """Return the terms of moves of :func:`backtest.paths.row_kernels.lay_rows`."""
        return np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0])

    def volatilities(self, market: Market) -> FloatArray:
        """Return the volatility per bar by which rows are divided: ones."""
        return np.ones(market.n_bars)


@dataclass(frozen=True, eq=False, repr=False)
class Stationary(_Resampled):
    """Rows of history in blocks of geometric length.

    Parameters
    ----------
    block : float
        Mean length in bars, at least 1. The length of a week keeps stress together.

    Notes
    -----
    Source: Politis and Romano (1994), The Stationary Bootstrap, JASA 89(428).
    """

    @classmethod
    def fit(cls, market: Market) -> Self:
        """Return the model with the block length of :func:`block_length`."""
        return cls(block=block_length(read_returns(market, cls.__name__)))


@dataclass(frozen=True, eq=False, repr=False)
class Block(_Resampled):
    """Rows of history in blocks of the same length.

    Parameters
    ----------
    block : float
        Length in whole bars, at least 1.

    Notes
    -----
    Source: Politis and Romano (1992), A Circular Block-Resampling Procedure for Stationary Data.
    """

    varies: ClassVar[bool] = False

    def _check_rules(self) -> None:
        self._set_fields(block=float(round(self.block)))

    @classmethod
    def fit(cls, market: Market) -> Self:
        """Return the model with the block length of :func:`block_length`."""
        return cls(block=block_length(read_returns(market, cls.__name__), is_stationary=False))


@dataclass(frozen=True, eq=False, repr=False)
class Filtered(_Resampled):
    """Rows of history divided by their GARCH volatility, times the volatility of the path.

    So paths start at today's volatility, and blocks keep what GARCH leaves of dependence.

    Parameters
    ----------
    block : float
        Mean length of a block in bars, at least 1.
    omega, alpha, gamma, beta : float
        ``v' = omega + (alpha + gamma [e < 0]) e^2 + beta v`` per bar.
    variance_now : float
        That of the next bar.

    Notes
    -----
    The rows are scaled by one constant, so that the long-run variance of paths is that of history.
    Fitted rows are too large for that, above all those of calm bars: drawn at any variance, they
    would let it grow without bound.
    Source: Barone-Adesi, Giannopoulos and Vosper (1999), VaR without Correlations for Portfolios of
    Derivative Securities, J. Futures Markets 19(5).
    """

    omega: Annotated[float, Number(0.0, open_low=True)]
    alpha: Annotated[float, Number(0.0, 1.0)]
    beta: Annotated[float, Number(0.0, 1.0, open_high=True)]
    variance_now: Annotated[float, Number(0.0, open_low=True)]
    gamma: Annotated[float, Number(-1.0, 2.0)] = 0.0

    is_scaled: ClassVar[bool] = True

    @classmethod
    def fit(cls, market: Market, *, asymmetric: bool = False) -> Self:
        """Return the model with the most likely GARCH (or GJR) with Student's t.

        The block length is that of the standardized returns.
        """
        returns = read_returns(market, cls.__name__)
        found = fit_student_garch(returns, is_asymmetric=asymmetric)
        bare = cls(
            block=1.0,
            omega=found.omega,
            alpha=found.alpha,
            beta=found.beta,
            gamma=found.gamma,
            variance_now=found.variance_now,
        )
        left = log_returns(market)[1:] / bare.volatilities(market)[1:]
        return bare.override(block=block_length(left[-len(returns) :]))

    def terms(self, per_year: float) -> FloatArray:  # noqa: ARG002 - all is per bar
        """Return the terms of moves of :func:`backtest.paths.row_kernels.lay_rows`."""
        return np.array([0.0, self.variance_now, self.omega, self.alpha, self.gamma, self.beta])

    def volatilities(self, market: Market) -> FloatArray:
        """Return the volatility per bar that the model had for each bar, at the close before.

        All are multiplied by a constant; see the notes of the class.
        """
        returns = log_returns(market)
        squares = returns**2
        ahead = np.full(market.n_bars, np.nan)
        weights = np.array([self.omega, self.alpha, self.gamma, self.beta])
        backcast = find_backcast(squares[1:])
        compile_module(garch_kernels).filter_variance(
            squares, (returns < 0.0).astype(np.float64), weights, backcast, 1, ahead
        )
        first = np.array([np.sqrt(backcast), np.sqrt(backcast)])
        found = np.concatenate([first[:1], first[1:], np.sqrt(ahead[1:-1])])
        rows = squares[1:] / found[1:] ** 2
        weight = (self.alpha + self.gamma * (returns[1:] < 0.0)) * rows
        return found / math.sqrt(find_row_scale(self, rows, weight, float(np.mean(squares[1:]))))
