"""Models that repeat whole rows of history in blocks: stationary, and filtered."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Self

import numpy as np

from backtest.base import (
    FloatArray,
    Number,
    ParameterError,
    check_lengths,
    checked,
    compile_module,
    declared,
    find_block_length,
)
from backtest.base.units import YEAR_DAYS
from backtest.features import find_backcast, garch_kernels, log_returns
from backtest.market import SESSIONS, Market
from backtest.risk.paths.path_model import PathModel, count_per_year, read_returns

HALF_LIFE, REVERSION = 3.0, 20.0
"""Days in which half of a shock leaves the volatility of ``Filtered``, and in which the volatility
comes half of the way back to that of history. Chosen on 2020 and 2021, see docs/risk.md."""
LEAST_HALF_LIFE = 11.0
"""Bars that this half-life has at least: fewer make a noisy variance (0.94 for daily returns)."""
LEAST_SQUARES = 11
"""Fewer returns have no estimate of a block length."""
DOUBLINGS, NEGLIGIBLE = 64, 1e-12
"""The most doublings of the rows in a sum, and the factor under which more rows add nothing."""


@checked
def block_length(returns: FloatArray) -> float:
    """Return the mean length of blocks for a stationary bootstrap of squared returns, in bars.

    Parameters
    ----------
    returns : FloatArray of shape (n,)
        Their squares are what blocks must keep together.

    Returns
    -------
    float
        At least n^(1/3).

    Notes
    -----
    Source: Politis and White (2004), Automatic Block-Length Selection for the Dependent Bootstrap,
    Econometric Reviews 23(1), with the correction of Patton, Politis and White (2009).
    """
    check_lengths(returns=returns)
    if len(returns) < LEAST_SQUARES:
        raise ParameterError(
            f"a block length needs at least {LEAST_SQUARES} returns, got {len(returns)}"
        )
    found = find_block_length(returns**2)
    return max(float(len(returns) ** (1.0 / 3.0)), found)  # it is NaN if the squares do not vary


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


@declared
class _Resampled(PathModel):
    """Base of the models that repeat rows of history.

    A row is the logs of open, high, low and close over the last close, mark over last prices,
    volume over its mean, and the funding settled in it. A row stays in its phase of the funding
    interval (and of the week, in markets with sessions). All prices of a row are shifted by the
    same factor, so that its close rises by the drift in the mean over rows.
    """

    block: Annotated[float, Number(1.0)]

    is_resampled: ClassVar[bool] = True
    is_symmetric: ClassVar[bool] = False
    is_scaled: ClassVar[bool] = False

    @property
    def kernel(self) -> str:
        """The name of the kernel, in :mod:`backtest.risk.paths.row_kernels`."""
        return "lay_rows"

    def terms(self, per_year: float) -> FloatArray:
        """Return the terms of moves of :func:`backtest.risk.paths.row_kernels.lay_rows`."""
        return np.array([self.drift / per_year, 0.0, 0.0, 0.0, 0.0, 0.0])

    def volatilities(self, market: Market) -> FloatArray:
        """Return the volatility per bar by which rows are divided: ones."""
        return np.ones(market.n_bars)


@declared
class Stationary(_Resampled):
    """Rows of history in blocks of geometric length.

    Parameters
    ----------
    block : float
        Mean length in bars, at least 1. The length of a week keeps stress together.
    drift : float
        Growth of the expected price per year.

    Notes
    -----
    Source: Politis and Romano (1994), The Stationary Bootstrap, JASA 89(428).
    """

    drift: Annotated[float, Number()] = 0.0

    @classmethod
    @checked
    def fit(cls, market: Market) -> Self:
        """Return the model with the block length of :func:`block_length`."""
        return cls(block=block_length(read_returns(market, cls.__name__)))


@declared
class Filtered(_Resampled):
    """Rows of history divided by the volatility of their time, times the volatility of the path.

    So paths start at today's volatility, which returns to that of history, and blocks keep what
    the volatility leaves of dependence.

    Parameters
    ----------
    block : float
        Mean length of a block in bars, at least 1.
    omega, alpha, gamma, beta : float
        ``v' = omega + (alpha + gamma [e < 0]) e^2 + beta v`` per bar.
    variance_now : float
        That of the next bar.
    drift : float
        Growth of the expected price per year.

    Notes
    -----
    The rows are scaled by one constant, so that the long-run variance of paths is that of history;
    the first bar has ``variance_now``.
    Source: Barone-Adesi, Giannopoulos and Vosper (1999), VaR without Correlations for Portfolios of
    Derivative Securities, J. Futures Markets 19(5).
    """

    omega: Annotated[float, Number(0.0, open_low=True)]
    alpha: Annotated[float, Number(0.0, 1.0)]
    beta: Annotated[float, Number(0.0, 1.0, open_high=True)]
    variance_now: Annotated[float, Number(0.0, open_low=True)]
    gamma: Annotated[float, Number(-1.0, 2.0)] = 0.0
    drift: Annotated[float, Number()] = 0.0

    is_scaled: ClassVar[bool] = True

    @classmethod
    @checked
    def fit(cls, market: Market) -> Self:
        """Return the model with today's variance, and the block length of the divided returns.

        The weights are not estimated: with those of the highest likelihood, single large returns
        raise the variance so much that most paths are too calm, and forecasts of liquidations are
        worse. Half of a shock is gone after :data:`HALF_LIFE` days, and the variance returns to the
        mean square of history by half in :data:`REVERSION` days.
        """
        returns = read_returns(market, cls.__name__)
        day = count_per_year(market) / (SESSIONS if market.sessions else YEAR_DAYS)
        alpha = 1.0 - 0.5 ** (1.0 / max(HALF_LIFE * day, LEAST_HALF_LIFE))
        back = 1.0 - 0.5 ** (1.0 / max(REVERSION * day, LEAST_HALF_LIFE))
        square = float(np.mean(returns**2))
        bare = cls(
            block=1.0,
            omega=back * square,
            alpha=alpha,
            beta=1.0 - alpha - back,
            variance_now=square,
        )
        made = bare.override(variance_now=float(bare.filter(market)[-1]))
        left = log_returns(market)[1:] / made.volatilities(market)[1:]
        return made.override(block=block_length(left[-len(returns) :]))

    def terms(self, per_year: float) -> FloatArray:
        """Return the terms of moves of :func:`backtest.risk.paths.row_kernels.lay_rows`."""
        weights = (self.omega, self.alpha, self.gamma, self.beta)
        return np.array([self.drift / per_year, self.variance_now, *weights])

    def filter(self, market: Market) -> FloatArray:
        """Return the variance that the model forecasts for the bar after each, of shape (n_bars,).

        Before the first return, it is a weighted mean square of the first ones.
        """
        returns = log_returns(market)
        squares = returns**2
        ahead = np.full(market.n_bars, find_backcast(squares[1:]))
        weights = np.array([self.omega, self.alpha, self.gamma, self.beta])
        compile_module(garch_kernels).filter_variance(
            squares, (returns < 0.0).astype(np.float64), weights, float(ahead[0]), 1, ahead
        )
        return ahead

    def volatilities(self, market: Market) -> FloatArray:
        """Return the volatility per bar that the model had for each bar, at the close before.

        All are multiplied by a constant; see the notes of the class.
        """
        returns = log_returns(market)
        ahead = self.filter(market)
        found = np.sqrt(np.concatenate([ahead[:1], ahead[:-1]]))
        rows = (returns[1:] / found[1:]) ** 2
        weight = (self.alpha + self.gamma * (returns[1:] < 0.0)) * rows
        target = float(np.mean(returns[1:] ** 2))
        return np.asarray(found / math.sqrt(find_row_scale(self, rows, weight, target)))
