"""Models of paths and their fits: Brownian motion, and rows of history, plain or filtered."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, NamedTuple, Self

import numpy as np

from backtest import _compile, core
from backtest.core.code_names import sp
from backtest.core.units import YEAR_DAYS
from backtest.indicators import find_backcast, kernels, log_returns
from backtest.market import SESSIONS, Market
from backtest.results import find_block_length
from backtest.risk import path_kernels
from backtest.risk.path_draws import Draws, Moves
from backtest.risk.path_drift import count_per_year

MOST_RETURNS = 20_000
"""Returns that a fit looks at, the latest ones."""
LEAST_RETURNS = 100
"""Returns that a fit needs."""
HALF_LIFE = 3.0
"""Days in which half of a shock leaves the volatility of ``Filtered``. It and the next one were
chosen on 2020 and 2021, see docs/paths.md."""
REVERSION = 20.0
"""Days in which the volatility comes half of the way back to that of history."""
STATE = 0.8
"""The part of the log distance of today's variance from that of history which paths start with. On
BTC, ETH and LTC, of 1, 7 and 30 days at 3x, 5x and 10x, 14 of 18 forecasts of 2020 and 2021 (every
16 days) were right with 1 and with 0.7, 13 with 0.4; of 2022 and 2023 15 with 0.8, 14 with 1."""
LEAST_HALF_LIFE = 11.0
"""Bars that this half-life has at least: fewer make a noisy variance (0.94 for daily returns)."""
MOST_VARIANCE = 4.0
"""The largest variance of a path of ``Filtered``, in terms of the largest of history: after an hour
of 50 deviations it would grow until single rows make the mean price, and all others fall."""
LEAST_SQUARES = 11
"""Fewer returns have no estimate of a block length."""
DOUBLINGS = 64
"""The most doublings of the rows in a sum."""
NEGLIGIBLE = 1e-12
"""The factor under which more rows add nothing to a sum."""
LARGEST_LOG_SCALE = 14.0
"""The largest log of a factor of squared rows, of either sign."""


class PathModel(core.Value):
    """Base of the models of paths: frozen values whose fields are parameters with units.

    ``fit`` estimates the parameters on a market.
    """

    is_resampled: ClassVar[bool] = False
    """Whether bars repeat rows of history, with their mark prices, volumes and funding."""

    @classmethod
    @core.checked
    def fit(cls, market: Market) -> Self:
        """Return the model with its parameters estimated on the last 20,000 returns of a market."""
        returns = log_returns(market)[1:][-MOST_RETURNS:]
        if len(returns) >= LEAST_RETURNS and float(np.std(returns)) > 0.0:
            return cls._fit(market, returns)

        found = "prices that do not move"
        if len(returns) < LEAST_RETURNS:
            found = f"{len(returns)}"
        raise core.DataError(
            f"a fit of {cls.__name__} needs at least {LEAST_RETURNS} returns that vary, got "
            f"{found} in {market!r}; the model can be made from parameters"
        )

    @classmethod
    def _fit(cls, market: Market, returns: core.FloatArray) -> Self:
        """Return the model of a market; ``returns`` are the latest log returns of its bars."""
        raise NotImplementedError

    @property
    def drift(self) -> float:
        """Growth of the expected price per year: after T years it is exp(drift T) times today's.

        A field of every model, 0 by default: the mean return of a few years is mostly noise.
        """
        raise NotImplementedError

    def walk(self, draws: Draws, per_year: float) -> Moves:
        """Return log moves and extremes of the bars of a block; ``per_year`` counts bars."""
        raise NotImplementedError


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

    volatility: Annotated[float, core.Real(0.0, 100.0, open_low=True)]
    drift: Annotated[float, core.Real()] = 0.0

    @classmethod
    def _fit(cls, market: Market, returns: core.FloatArray) -> Self:
        deviation = float(np.std(returns))
        return cls(volatility=deviation * math.sqrt(count_per_year(market)))

    def walk(self, draws: Draws, per_year: float) -> Moves:
        variance = self.volatility**2 / per_year
        mean = self.drift / per_year - 0.5 * variance
        shocks = draws.joint_normals()
        moves = mean + math.sqrt(variance) * shocks
        return moves, *draws.extremes(moves, variance)


@core.checked
def block_length(returns: core.FloatArray) -> float:
    """Return the mean length of blocks for a stationary bootstrap of squared returns, in bars.

    ``returns`` have shape (n,); it is at least n^(1/3). Source: Politis and White
    (2004), Automatic Block-Length Selection for the Dependent Bootstrap, Econometric Reviews 23(1),
    with the correction of Patton, Politis and White (2009).
    """
    core.check_shape("returns", returns, (-1,))
    if len(returns) < LEAST_SQUARES:
        raise core.ParameterError(
            f"a block length needs at least {LEAST_SQUARES} returns, got {len(returns)}"
        )
    least = float(len(returns) ** (1.0 / 3.0))
    return max(least, find_block_length(returns**2))  # it is NaN if the squares do not vary


def find_row_scale(
    model: Filtered,
    rows: core.FloatArray,
    target: float,
) -> float:
    """Return by what squared rows are multiplied, so that paths have the variance of history.

    ``rows`` (n,) are squared returns over their variance.
    """

    def excess(log: float) -> float:
        ratio = find_long_run(model, math.exp(log) * rows) / target
        return math.log(min(ratio, 1e9))  # a variance that grows forever is infinite

    # Rows of one price, or weights that no factor brings to the target, stay as they are.
    low, high = -LARGEST_LOG_SCALE, LARGEST_LOG_SCALE
    has_root = rows.any() and excess(low) < 0.0 < excess(high)
    if not has_root:
        return 1.0
    log_scale = sp.optimize.brentq(excess, low, high, xtol=1e-13)
    return math.exp(log_scale)


def find_long_run(model: Filtered, rows: core.FloatArray) -> float:
    """Return the mean squared return of a long path; infinite if its variance grows forever.

    Notes
    -----
    With q the probability that a block ends, u_t the mean variance before row t, and a_t = alpha
    rows_t + beta, ``u_{t+1} = (1 - q) (omega + a_t u_t) + q mean(omega + a u)``. So u is a multiple
    of S, ``S_{t+1} = 1 + (1 - q) a_t S_t``, on a circle of rows.
    """
    # 1 - q, and a_t of each row.
    stay = 1.0 - 1.0 / model.block
    n = len(rows)
    growth = model.alpha * rows + model.beta

    # S adds up products of ever more rows behind each one: a doubling joins two runs of them. In
    # blocks of one row, as a fit has them first, there are none behind.
    total = np.ones(n)
    if stay > 0.0:
        factor = stay * np.roll(growth, 1)
        _compile.compile_module(path_kernels).sum_products(
            factor,
            total,
            np.empty((2, n)),
            DOUBLINGS,
            NEGLIGIBLE,
        )

    with np.errstate(over="ignore", invalid="ignore"):
        mean_of_all = float(np.mean(growth * total))
        left = 1.0 - (1.0 - stay) * mean_of_all

    if not left > 0.0:
        return math.inf
    mean_square = float(np.mean(rows * total))
    return model.omega / left * mean_square


class RowVariance(NamedTuple):
    """What the variance of a path follows: h_{t+1} = min(omega + alpha e_t^2 + beta h_t, most).

    ``now`` is the variance of the first bar, and e the move of its row times the root of h.
    """

    now: float
    omega: float
    alpha: float
    beta: float
    most: float


class _Resampled(PathModel):
    """Base of the models that repeat rows of history.

    A row is the logs of open, high, low and close over the last close, mark over last prices,
    volume over its mean, and the funding settled in it. A row stays in its phase of the funding
    interval (and of the week, in markets with sessions). All prices of a row are shifted by the
    same factor, so that its close rises by the drift in the mean over rows.
    """

    block: Annotated[float, core.Real(1.0)]

    is_resampled: ClassVar[bool] = True

    def scale(self, market: Market) -> tuple[core.FloatArray, RowVariance]:
        """Return the volatility of each row, (n_bars,), and what the variance of a path follows.

        Both are 1 at all times, as rows are repeated as they are.
        """
        constant = RowVariance(now=1.0, omega=0.0, alpha=0.0, beta=1.0, most=1.0)
        return np.ones(market.n_bars), constant


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

    drift: Annotated[float, core.Real()] = 0.0

    @classmethod
    def _fit(cls, market: Market, returns: core.FloatArray) -> Self:  # noqa: ARG003 - as its base
        return cls(block=block_length(returns))


class Filtered(_Resampled):
    """Rows of history divided by the volatility of their time, times the volatility of the path.

    So paths start at today's volatility, which returns to that of history, and blocks keep what
    the volatility leaves of dependence.

    Parameters
    ----------
    block : float
        Mean length of a block in bars, at least 1.
    omega, alpha, beta : float
        ``v' = omega + alpha e^2 + beta v`` per bar.
    variance_now : float
        That of the next bar.
    drift : float
        Growth of the expected price per year.

    Notes
    -----
    The rows are scaled by one constant, so that the long-run variance of paths is that of history;
    the first bar has ``variance_now``. In a fit, that is today's variance, its log distance from
    that of history times :data:`STATE`, and the block length is that of the divided returns.

    The weights are not estimated: with those of the highest likelihood, single large returns raise
    the variance so much that most paths are too calm, and forecasts of liquidations are worse. Half
    of a shock is gone after :data:`HALF_LIFE` days, and the variance returns to the mean square of
    history by half in :data:`REVERSION` days.
    Source: Barone-Adesi, Giannopoulos and Vosper (1999), VaR without Correlations for Portfolios of
    Derivative Securities, J. Futures Markets 19(5).
    """

    omega: Annotated[float, core.Real(0.0, open_low=True)]
    alpha: Annotated[float, core.Real(0.0, 1.0)]
    beta: Annotated[float, core.Real(0.0, 1.0, open_high=True)]
    variance_now: Annotated[float, core.Real(0.0, open_low=True)]
    drift: Annotated[float, core.Real()] = 0.0

    @classmethod
    def _fit(cls, market: Market, returns: core.FloatArray) -> Self:
        """Return the model of a market; ``returns`` are the latest log returns of its bars."""
        days_per_year = YEAR_DAYS
        if market.sessions:
            days_per_year = SESSIONS
        bars_per_day = count_per_year(market) / days_per_year

        # Weights by half-lives, in bars; the variance returns to that of history.
        alpha = find_weight(HALF_LIFE * bars_per_day)
        reversion = find_weight(REVERSION * bars_per_day)
        square = float(np.mean(returns**2))
        at_history = cls(
            block=1.0,
            omega=reversion * square,
            alpha=alpha,
            beta=1.0 - alpha - reversion,
            variance_now=square,
        )

        # Paths start with a part of the distance of today's variance from that of history.
        now = float(at_history.filter(market)[-1])
        started = square * (now / square) ** STATE
        model = at_history.override(variance_now=started)

        # Blocks keep what the variance does not explain: returns are divided by its root.
        volatility, _ = model.scale(market)
        divided = log_returns(market)[1:] / volatility[1:]
        recent = divided[-len(returns) :]
        return model.override(block=block_length(recent))

    def filter(self, market: Market) -> core.FloatArray:
        """Return the variance that the model forecasts for the bar after each, (n_bars,)."""
        squares = log_returns(market) ** 2
        first = find_backcast(squares[1:])
        ahead = np.full(market.n_bars, first)
        weights = np.array([self.omega, self.alpha, self.beta])
        _compile.compile_module(kernels).filter_variance(
            squares,
            weights,
            float(ahead[0]),
            1,
            ahead,
        )
        return ahead

    def scale(self, market: Market) -> tuple[core.FloatArray, RowVariance]:
        """Return what returns are divided by, and what the variance of a path follows.

        The first, (n_bars,), is the volatility that the model forecast for each bar, over one
        constant: with it, paths of the divided returns have the variance of history.
        """
        returns = log_returns(market)
        next_variance = self.filter(market)
        variance = np.concatenate([next_variance[:1], next_variance[:-1]])
        volatility = np.sqrt(variance)

        divided_squares = (returns[1:] / volatility[1:]) ** 2
        target = float(np.mean(returns[1:] ** 2))
        row_scale = find_row_scale(self, divided_squares, target)

        highest = float(np.max(next_variance))
        variance_of_path = RowVariance(
            now=self.variance_now,
            omega=self.omega,
            alpha=self.alpha,
            beta=self.beta,
            most=MOST_VARIANCE * max(highest, self.variance_now),
        )
        scaled = volatility / math.sqrt(row_scale)
        return np.asarray(scaled), variance_of_path


def find_weight(half_life: float) -> float:
    """Return the weight per bar that is half gone after so many bars, of at least the least."""
    bars = max(half_life, LEAST_HALF_LIFE)
    kept: float = 0.5 ** (1.0 / bars)
    return 1.0 - kept
