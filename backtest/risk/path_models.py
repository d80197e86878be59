"""Models of paths, their fits and their random numbers, and the process of funding.

Blocks of paths have a row per bar and a column per path, so that a longer horizon begins with the
same bars. Their numbers are those of NumPy's Philox.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, NamedTuple, Self, TypeAlias

import numpy as np

from backtest import _compile, core
from backtest.core.code_names import sp
from backtest.core.one_thread import one_thread
from backtest.core.units import DAY, HOUR, YEAR_DAYS
from backtest.indicators import find_backcast, kernels, log_returns
from backtest.market import SESSIONS, Market, bars_per_year, cadence, nearest_minute
from backtest.market.tables import MAX_RATE
from backtest.results import find_block_length
from backtest.venue import FundingTerms

MOST_RETURNS = 20_000
"""Returns that a fit looks at, the latest ones."""
LEAST_RETURNS = 100
"""Returns that a fit needs."""
HALF_LIFE, REVERSION = 3.0, 20.0
"""Days in which half of a shock leaves the volatility of ``Filtered``, and in which the volatility
comes half of the way back to that of history. Chosen on 2020 and 2021, see docs/paths.md."""
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
DOUBLINGS, NEGLIGIBLE = 64, 1e-12
"""The most doublings of the rows in a sum, and the factor under which more rows add nothing."""
LARGEST_PERSISTENCE = 0.9999
WIDE = 1.5
"""The spread of log prices at the end around today's from which few paths make the mean price."""
HISTORY, SHRUNK = "history", "shrunk"
Drift = float | str
"""Growth of the expected price per year, or :data:`HISTORY` or :data:`SHRUNK`."""


Moves: TypeAlias = tuple[core.FloatArray, core.FloatArray, core.FloatArray]
"""Log moves of bars, and their highest and lowest log price over the open, (bars, paths)."""
NORMALS, EXTREMES, ROWS, BASIS, FUNDING, PARTS = 0, 1, 3, 4, 5, 8
"""The kinds of random numbers: each has a generator of its own, whose number keeps its draws."""


@dataclass(frozen=True)
class Draws:
    """The random numbers of one instrument on one block of paths.

    ``shape`` counts bars and paths, ``loads`` is the row of the instrument in the factor of the
    correlation. Moves are of the instrument; all other numbers are common to all.
    """

    seed: int
    block: int
    shape: tuple[int, int]
    bridge: int = 1
    loads: tuple[float, ...] = (1.0,)

    def generator(self, kind: int, instrument: int = 0, part: int = 0) -> np.random.Generator:
        key = np.array([self.seed, self.block], dtype=np.uint64)
        counter = np.array([0, instrument, part, kind], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))

    def normals(self, kind: int, part: int = 0) -> core.FloatArray:
        return self.generator(kind, 0, part).standard_normal(self.shape)

    def joint_normals(self) -> core.FloatArray:
        total = np.zeros(self.shape)
        for j, load in enumerate(self.loads):
            if load != 0.0:
                total += load * self.generator(NORMALS, j).standard_normal(self.shape)
        return total

    def extremes(
        self, moves: core.FloatArray, variance: core.FloatArray | float
    ) -> tuple[core.FloatArray, core.FloatArray]:
        """Return the highest and lowest points of Brownian bridges from 0 to ``moves``.

        P(M >= m) = exp(-2 m (m - x) / v) for m >= max(0, x). A bridge of several steps draws the
        prices between them.
        """
        steps, share = self.bridge, variance / self.bridge
        parts = range(1000, 1000 + steps)
        z: list[Any] = [self.normals(PARTS, i) if steps > 1 else 0.0 for i in parts]
        center = sum(z) / steps
        at, high, low = np.zeros((3, *self.shape))
        for i in range(steps):
            waits = self.generator(EXTREMES, part=i)
            up, down = np.moveaxis(waits.standard_exponential((*self.shape, 2)), -1, 0)
            move = moves / steps + np.sqrt(share) * (z[i] - center)
            high = np.maximum(high, at + find_top(move, share, up))
            low = np.minimum(low, at - find_top(-move, share, down))
            at = at + move
        return high, low


def find_top(
    move: core.FloatArray, variance: core.FloatArray | float, wait: core.FloatArray
) -> core.FloatArray:
    """Return the highest point of a Brownian bridge from 0 to ``move``, by an exponential."""
    return np.asarray(0.5 * (move + np.sqrt(move * move + 2.0 * variance * wait)))


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
        if len(returns) < LEAST_RETURNS or not float(np.std(returns)) > 0.0:
            found = f"{len(returns)}" if len(returns) < LEAST_RETURNS else "prices that do not move"
            raise core.DataError(
                f"a fit of {cls.__name__} needs at least {LEAST_RETURNS} returns that vary, got "
                f"{found} in {market!r}; the model can be made from parameters"
            )
        return cls._fit(market, returns)

    @classmethod
    def _fit(cls, market: Market, returns: core.FloatArray) -> Self:
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


def read_drift(drift: Drift, market: Market) -> float:
    """Return a growth per year; that of history is that of the mean simple return of its bars.

    ``"shrunk"`` is that times max(0, 1 - (s / drift)^2), s its standard error: James and Stein
    (1961), Proc. 4th Berkeley Symposium 1, in one dimension, by the positive part.
    """
    if drift in (HISTORY, SHRUNK):
        moves, per_year = np.exp(log_returns(market)[1:]), count_per_year(market)
        found = math.log(float(np.mean(moves))) * per_year
        error = float(np.std(moves)) / math.sqrt(len(moves)) * per_year
        kept = max(0.0, 1.0 - (error / found) ** 2) if found else 0.0
        return found if drift == HISTORY else found * kept
    if isinstance(drift, str):
        raise core.ParameterError(
            f"drift must be a number per year, 'history' or 'shrunk', got {drift[:60]!r}"
        )
    rate = float(core.Real().check("drift", drift))
    core.warn_of_high_rate("drift", rate)
    return rate


def describe_drift(paths: Mapping[str, Any]) -> str:
    """Describe the drift of paths, and where they are too wide to show their mean price."""
    rates, found = paths["drift"], "no drift"
    if any(rates.values()):
        shown = {name: core.format_percent(rate, is_signed=True) for name, rate in rates.items()}
        each = [f"{name} {rate}" for name, rate in shown.items()]
        text = shown[next(iter(shown))] if len(set(rates.values())) == 1 else ", ".join(each)
        of = "of history, " if paths["drift_of_history"] else "of "
        found = f"a drift {of}{text} per year"
    wide = {name: size for name, size in paths.get("spread", {}).items() if size > WIDE}
    each = [f"{size:.1f}{f' ({name})' * (len(rates) > 1)}" for name, size in wide.items()]
    said = f"; log prices end {', '.join(each)} from today's (root mean square): few paths make the"
    return found + f"{said} mean price, and it is not seen in a sample" * bool(wide)


def count_per_year(market: Market) -> float:
    return float(np.ravel(bars_per_year(market))[-1])  # with sessions, the first day has NaN


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
        return cls(volatility=float(np.std(returns)) * math.sqrt(count_per_year(market)))

    def walk(self, draws: Draws, per_year: float) -> Moves:
        variance = self.volatility**2 / per_year
        mean = self.drift / per_year - 0.5 * variance
        moves = mean + math.sqrt(variance) * draws.joint_normals()
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
    found = find_block_length(returns**2)
    return max(float(len(returns) ** (1.0 / 3.0)), found)  # it is NaN if the squares do not vary


def find_row_scale(model: Filtered, rows: core.FloatArray, target: float) -> float:
    """Return by what squared rows are multiplied, so that paths have the variance of history.

    ``rows`` (n,) are squared returns over their variance.
    """

    def excess(log: float) -> float:
        return math.log(min(find_long_run(model, math.exp(log) * rows) / target, 1e9))

    is_found = rows.any() and excess(-14.0) < 0.0 < excess(14.0)
    return math.exp(sp.optimize.brentq(excess, -14.0, 14.0, xtol=1e-13)) if is_found else 1.0


def find_long_run(model: Filtered, rows: core.FloatArray) -> float:
    """Return the mean squared return of a long path; infinite if its variance grows forever.

    Notes
    -----
    With q the probability that a block ends, u_t the mean variance before row t, and a_t = alpha
    rows_t + beta, ``u_{t+1} = (1 - q) (omega + a_t u_t) + q mean(omega + a u)``. So u is a multiple
    of S, ``S_{t+1} = 1 + (1 - q) a_t S_t``, on a circle of rows.
    """
    stay, n = 1.0 - 1.0 / model.block, len(rows)
    growth = model.alpha * rows + model.beta
    factor, total = stay * np.roll(growth, 1), np.ones(n)
    with np.errstate(over="ignore", invalid="ignore"):
        for doubling in range(DOUBLINGS):  # of the rows behind each one that total counts
            if not NEGLIGIBLE < np.max(factor) < math.inf:
                break
            total = total + factor * np.roll(total, 2**doubling % n)
            factor = factor * np.roll(factor, 2**doubling % n)
        left = 1.0 - (1.0 - stay) * float(np.mean(growth * total))
    return model.omega / left * float(np.mean(rows * total)) if left > 0.0 else math.inf


class _Resampled(PathModel):
    """Base of the models that repeat rows of history.

    A row is the logs of open, high, low and close over the last close, mark over last prices,
    volume over its mean, and the funding settled in it. A row stays in its phase of the funding
    interval (and of the week, in markets with sessions). All prices of a row are shifted by the
    same factor, so that its close rises by the drift in the mean over rows.
    """

    block: Annotated[float, core.Real(1.0)]

    is_resampled: ClassVar[bool] = True

    def scale(self, market: Market) -> tuple[core.FloatArray, core.FloatArray]:
        """Return the volatility of each row, (n_bars,), and what the variance of a path follows.

        That is variance now, omega, alpha, beta and the largest variance.
        """
        return np.ones(market.n_bars), np.array([1.0, 0.0, 0.0, 1.0, 1.0])


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
        now = float(bare.filter(market)[-1])
        made = bare.override(variance_now=square * (now / square) ** STATE)
        left = log_returns(market)[1:] / made.scale(market)[0][1:]
        return made.override(block=block_length(left[-len(returns) :]))

    def filter(self, market: Market) -> core.FloatArray:
        """Return the variance that the model forecasts for the bar after each, (n_bars,)."""
        squares = log_returns(market) ** 2
        ahead = np.full(market.n_bars, find_backcast(squares[1:]))
        _compile.compile_module(kernels).filter_variance(
            squares, np.array([self.omega, self.alpha, self.beta]), float(ahead[0]), 1, ahead
        )
        return ahead

    def scale(self, market: Market) -> tuple[core.FloatArray, core.FloatArray]:
        """Return the volatility that the model had for each bar, times a constant, and weights."""
        returns = log_returns(market)
        ahead = self.filter(market)
        found = np.sqrt(np.concatenate([ahead[:1], ahead[:-1]]))
        rows = (returns[1:] / found[1:]) ** 2
        target = float(np.mean(returns[1:] ** 2))
        most = MOST_VARIANCE * max(float(np.max(ahead)), self.variance_now)
        weights = np.array([self.variance_now, self.omega, self.alpha, self.beta, most])
        return np.asarray(found / math.sqrt(find_row_scale(self, rows, target))), weights


FundingChoice: TypeAlias = str | float | FundingTerms | None
FITTED = "fitted"
LONG_HISTORY = 180 * DAY
"""Span of settlements from which the means of 1, 7 and 30 days have weights of their own."""
LEAST_SETTLEMENTS = 10
"""Settlements below which the rate of paths is their mean."""
LEAST_DEVIATION = 1e-12
MONTH = 30 * DAY
LEAST_BASE = 0.05
"""The share of equal settlements from which a rate counts as the one that the venue clamps to."""


class FundingGrid(NamedTuple):
    """The settlements to come: every so many ns, at ``anchor`` plus multiples of it."""

    every: int
    anchor: int

    def find(self, start: int, end: int) -> core.IntArray:
        """Return the stamps from ``start`` up to but not including ``end``, ns."""
        first = -((self.anchor - start) // self.every)
        last = -((self.anchor - end) // self.every)
        return self.anchor + self.every * np.arange(first, last, dtype=np.int64)


def find_grid(history: Market) -> FundingGrid | None:
    if len(history.funding_time) < 2:  # how often is not known
        return None
    recent = history.funding_time[-100:]
    return FundingGrid(cadence(recent), int(nearest_minute(recent)[-1]))


@dataclass(frozen=True, eq=False)
class FundingProcess:
    """Process that draws the funding rates of paths.

    ``r_k = c + b1 r_(k-1) + b2 (mean of 1 day) + b3 (of 7 days) + b4 (of 30 days) + e_k``, within
    the cap. What is paid is ``usual`` where r_k is no farther than ``clamp`` from it.

    ``weights`` are b1 to b4 and ``windows`` the settlements in each of the means; a first-order
    autoregression has b1 alone. ``centers`` are the means of these means, and ``errors``, (1 +
    windows) squared, a factor of the covariance of the level at them and of the weights. ``rates``
    (n,) are the settlements of history on the grid of paths, ``residuals`` e of the last 180 days,
    in order of time, ``cap`` the largest rate of either sign. Where no rate is repeated, ``usual``
    is NaN and ``clamp`` 0.
    """

    kind: str
    grid: FundingGrid | None
    constant: float = 0.0
    rates: core.FloatArray = field(default_factory=lambda: np.empty(0))
    weights: tuple[float, ...] = ()
    windows: tuple[int, ...] = (1,)
    cap: float = MAX_RATE
    residuals: core.FloatArray = field(default_factory=lambda: np.empty(0))
    centers: core.FloatArray = field(default_factory=lambda: np.empty(0))
    errors: core.FloatArray = field(default_factory=lambda: np.zeros((1, 1)))
    usual: float = math.nan
    clamp: float = 0.0

    def draw_unknown(
        self, draws: Draws
    ) -> tuple[core.FloatArray, core.FloatArray, core.FloatArray]:
        """Return constants (paths,), weights (windows, paths) and factors of residuals (paths,).

        A short history does not know them: level and weights have the errors of the regression, and
        a variance that lasts for a month was seen once a month (chi-squared).
        """
        months = max(len(self.rates) * self.grid.every / MONTH, 3.0) if self.grid else 3.0
        first, second = (draws.generator(FUNDING, part=part) for part in (1, 2))
        spread = np.sqrt(months / second.chisquare(months, draws.shape[1]))
        normals = first.standard_normal((len(self.errors), draws.shape[1]))
        known, shifts = np.array(self.weights)[:, None], spread * (self.errors @ normals)
        weights = np.maximum(known + shifts[1:], 0.0)
        total = np.maximum(np.sum(weights, axis=0), 1e-9)
        weights *= np.minimum(1.0, LARGEST_PERSISTENCE / total)
        return self.constant + shifts[0] - self.centers @ (weights - known), weights, spread

    def walk(
        self, residuals: core.FloatArray, uniforms: core.FloatArray, unknown: tuple[Any, Any, Any]
    ) -> core.FloatArray:
        """Return the rates of paths by settlement, of the shape of ``uniforms``.

        A uniform number chooses among ``residuals``: in order of time, instruments have those of
        the same time. ``unknown`` is what :meth:`draw_unknown` returns.
        """
        if not self.weights:
            return np.full_like(uniforms, self.constant)
        (constant, drawn, spread), count, lags = unknown, len(residuals), self.windows[-1]
        rates, weights = np.zeros((lags + len(uniforms), uniforms.shape[1])), 0.0
        rates[:lags] = self.rates[-lags:, None]
        for weight, each in zip(drawn, self.windows, strict=True):
            inside = np.arange(lags)[:, None] >= lags - each
            weights = weights + inside * (weight / each)
        ranks = np.minimum((uniforms * count).astype(np.int64), count - 1)
        for k, shock in enumerate(residuals[ranks]):
            rate = constant + spread * shock + np.sum(weights * rates[k : k + lags], axis=0)
            rates[k + lags] = np.clip(rate, -self.cap, self.cap)
        paid = rates[lags:]
        return np.where(np.abs(paid - self.usual) < self.clamp, self.usual, paid)

    def __str__(self) -> str:
        if self.grid is None:
            return "none"
        mean = self.constant / (1.0 - sum(self.weights))
        if not self.weights:
            return f"constant at {format_rate(mean)}"
        return (
            f"{self.kind} of {len(self.rates):,} settlements every "
            f"{core.format_duration(self.grid.every)}; starts at {format_rate(self.rates[-1])}, "
            f"long-run mean {format_rate(mean)}, residuals {format_rate(np.std(self.residuals))}"
        )


def format_rate(rate: Any) -> str:
    return core.format_bps(float(f"{rate:.3g}"))


def read_funding(funding: object) -> FundingChoice:
    if funding is None or funding == FITTED or isinstance(funding, FundingTerms):
        return funding
    if isinstance(funding, str):
        raise core.ParameterError(
            f"funding must be 'fitted', a rate, terms or None, got {funding:.40}"
            + core.did_you_mean(funding, [FITTED])
        )
    return float(core.Real(-MAX_RATE, MAX_RATE).check("funding", funding))


def make_process(history: Market, funding: FundingChoice) -> FundingProcess:
    grid = None if funding is None else find_grid(history)
    if isinstance(funding, float):
        return FundingProcess("constant", grid or FundingGrid(8 * HOUR, 0), funding)
    if grid is None:
        return FundingProcess("none", None)
    cap = funding.cap if isinstance(funding, FundingTerms) else math.inf
    time = nearest_minute(history.funding_time)
    knots = np.concatenate([[2 * time[0] - time[1]], time]).astype(np.float64)
    paid = np.concatenate([[0.0], np.cumsum(history.funding_rate)])
    stamps = grid.find(int(time[0]), int(time[-1]) + 1)
    ends, starts = (np.interp(each, knots, paid) for each in (stamps, stamps - grid.every))
    return fit_process(np.asarray(ends - starts), grid, min(cap, MAX_RATE))


def fit_process(rates: core.FloatArray, grid: FundingGrid, cap: float) -> FundingProcess:
    """Return the autoregression of settlements, by least squares on all of them.

    Weights are at least 0 and their sum is under 1, so that every shock dies out. The clamp makes
    the base rate as frequent as it was in the last 180 days, if residuals come in any order.
    Source: Corsi (2009), A Simple Approximate Long-Memory Model of Realized Volatility, J.
    Financial Econometrics 7(2), whose regression on means of several spans this is. The errors are
    F of the covariance F F' = (x'x)^-1 x' diag(e^2) x (x'x)^-1 with x = (1, means less their
    center). Source: White (1980), A Heteroskedasticity-Consistent Covariance Matrix Estimator and a
    Direct Test for Heteroskedasticity, Econometrica 48(4).
    """
    if len(rates) < LEAST_SETTLEMENTS or not float(np.std(rates)) > LEAST_DEVIATION:
        return FundingProcess("constant", grid, float(np.mean(rates)))
    is_long = len(rates) * grid.every >= LONG_HISTORY
    kind = f"{'heterogeneous' if is_long else 'first-order'} autoregression"
    windows = (1, *(max(each // grid.every, 1) for each in (DAY, 7 * DAY, MONTH) if is_long))
    sums, k = np.concatenate([[0.0], np.cumsum(rates)]), np.arange(max(windows), len(rates))
    means = np.column_stack([(sums[k] - sums[k - each]) / each for each in windows])
    target, centers, unit = rates[max(windows) :], np.mean(means, axis=0), float(np.std(rates))
    with one_thread():
        weights, _ = sp.optimize.nnls((means - centers) / unit, (target - np.mean(target)) / unit)
    weights *= min(1.0, LARGEST_PERSISTENCE / max(float(np.sum(weights)), 1e-9))
    constant, known = float(np.mean(target) - centers @ weights), tuple(map(float, weights))
    x = np.column_stack([np.ones(len(means)), means - centers])
    with one_thread():
        residuals = target - constant - means @ weights
        root: Any = np.linalg.qr((np.linalg.pinv(x) * residuals).T, mode="r")
    residuals = residuals[-(LONG_HISTORY // grid.every) :]
    recent = rates[-len(residuals) :]
    values, counts = np.unique(np.round(recent, 12), return_counts=True)
    usual, share, clamp = float(values[counts.argmax()]), counts.max() / len(recent), 0.0
    if share < LEAST_BASE:
        usual = math.nan
    else:
        mixed = recent - residuals + np.random.default_rng(0).permutation(residuals)
        clamp = float(np.quantile(np.abs(mixed - usual), share))
    return FundingProcess(
        kind, grid, constant, rates, known, windows, cap, residuals, centers, root.T, usual, clamp
    )


def summarize_funding(fits: Mapping[str, str]) -> list[str]:
    return [f"funding{f' of {name}' * (len(fits) > 1)}: {fit}" for name, fit in fits.items()]
