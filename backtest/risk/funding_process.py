"""The funding of paths: the settlements to come, and the process of their rates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from backtest import _compile, core
from backtest.core.code_names import sp
from backtest.core.one_thread import one_thread
from backtest.core.units import DAY, HOUR
from backtest.market import Market, cadence, nearest_minute
from backtest.market.tables import MAX_RATE
from backtest.risk import path_kernels
from backtest.risk.path_draws import FUNDING, Draws
from backtest.venue import FundingTerms

LARGEST_PERSISTENCE = 0.9999
"""The largest sum of the weights, so that every shock dies out."""
LEAST_MONTHS = 3.0
"""The fewest months that a variance of residuals counts as seen: fewer have no finite spread."""
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
        # The first stamp at or after each end: a quotient that is rounded up.
        first = -((self.anchor - start) // self.every)
        last = -((self.anchor - end) // self.every)
        steps = np.arange(first, last, dtype=np.int64)
        return self.anchor + self.every * steps


def find_grid(history: Market) -> FundingGrid | None:
    """Return the grid of the last settlements; None below two, from which no cadence is known."""
    if len(history.funding_time) < 2:
        return None
    recent = history.funding_time[-100:]
    anchor = int(nearest_minute(recent)[-1])
    return FundingGrid(every=cadence(recent), anchor=anchor)


class UnknownParts(NamedTuple):
    """What a short history leaves open of a process, drawn for each path.

    ``constants`` (paths,) and ``weights`` (windows, paths) replace those that were fitted, and
    ``spread`` (paths,) multiplies residuals.
    """

    constants: core.FloatArray
    weights: core.FloatArray
    spread: core.FloatArray


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

    def draw_unknown(self, draws: Draws) -> UnknownParts:
        """Return constants, weights and factors of residuals, as a short history leaves them open.

        Level and weights differ from those fitted by the errors of the regression, the variance of
        residuals by chi-squared. It lasts for about a month, so a history of n months has seen n of
        it, its degrees of freedom.
        """
        months = LEAST_MONTHS
        if self.grid is not None:
            months_seen = len(self.rates) * self.grid.every / MONTH
            months = max(months_seen, LEAST_MONTHS)
        n_paths = draws.shape[1]
        chi_squared = draws.generator(FUNDING, part=2).chisquare(months, n_paths)
        spread = np.sqrt(months / chi_squared)

        # The first shift is that of the level, the others are those of the weights.
        shape = (len(self.errors), n_paths)
        normals = draws.generator(FUNDING, part=1).standard_normal(shape)
        shifts = spread * (self.errors @ normals)

        # Every shock dies out: no weight is negative, and their sum is under 1.
        fitted = np.array(self.weights)[:, None]
        weights = np.maximum(fitted + shifts[1:], 0.0)
        total = np.maximum(np.sum(weights, axis=0), 1e-9)
        weights *= np.minimum(1.0, LARGEST_PERSISTENCE / total)

        # The level is known at the mean of history, so other weights move the constant.
        moved = self.centers @ (weights - fitted)
        constants = self.constant + shifts[0] - moved
        return UnknownParts(constants, weights, spread)

    def walk(
        self,
        residuals: core.FloatArray,
        uniforms: core.FloatArray,
        unknown: UnknownParts,
    ) -> core.FloatArray:
        """Return the rates of paths by settlement, of the shape of ``uniforms``.

        A uniform number chooses among ``residuals``: in order of time, instruments have those of
        the same time. ``unknown`` is what :meth:`draw_unknown` returns. A process without weights
        has its constant at every settlement.
        """
        if not self.weights:
            return np.full_like(uniforms, self.constant)

        # The longest window comes last: as many rates of history stand before those of the paths.
        lags = self.windows[-1]
        n_settlements, n_paths = uniforms.shape
        rates = np.zeros((lags + n_settlements, n_paths))
        rates[:lags] = self.rates[-lags:, None]

        # The means of several windows are one weight for each lag, (lags, paths).
        lag_weights = np.zeros((lags, n_paths))
        places = np.arange(lags)[:, None]
        for weight, window in zip(unknown.weights, self.windows, strict=True):
            is_inside = places >= lags - window
            lag_weights += is_inside * (weight / window)

        # A uniform number of 1 is of the last residual.
        n_residuals = len(residuals)
        chosen = (uniforms * n_residuals).astype(np.int64)
        chosen = np.minimum(chosen, n_residuals - 1)
        shocks = unknown.spread * residuals[chosen]
        _compile.compile_module(path_kernels).walk_rates(
            shocks,
            lag_weights,
            np.full(n_paths, unknown.constants),
            float(self.cap),
            rates,
        )

        # The venue clamps rates near the usual one to it.
        unclamped = rates[lags:]
        is_usual = np.abs(unclamped - self.usual) < self.clamp
        return np.where(is_usual, self.usual, unclamped)

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
    """Return a rate in basis points, to three digits."""
    return core.format_bps(float(f"{rate:.3g}"))


def read_funding(funding: object) -> FundingChoice:
    """Return what the user says about the funding of paths, checked."""
    if funding is None or funding == FITTED or isinstance(funding, FundingTerms):
        return funding
    if isinstance(funding, str):
        hint = core.did_you_mean(funding, [FITTED])
        raise core.ParameterError(
            f"funding must be 'fitted', a rate, terms or None, got {funding:.40}{hint}"
        )
    return float(core.Real(-MAX_RATE, MAX_RATE).check("funding", funding))


def make_process(history: Market, funding: FundingChoice) -> FundingProcess:
    """Return the process of a market's funding: none, constant, or fitted on its settlements."""
    grid = None
    if funding is not None:
        grid = find_grid(history)
    if isinstance(funding, float):
        grid = grid or FundingGrid(8 * HOUR, 0)
        return FundingProcess("constant", grid, funding)
    if grid is None:
        return FundingProcess("none", None)

    cap = MAX_RATE
    if isinstance(funding, FundingTerms):
        cap = min(funding.cap, MAX_RATE)
    rates = spread_on_grid(history, grid)
    return fit_process(rates, grid, cap)


def spread_on_grid(history: Market, grid: FundingGrid) -> core.FloatArray:
    """Return the funding rate of history in each interval of a grid, (n_stamps,).

    Its cadence may have been another, so a payment is spread evenly over the interval that it was
    for: the rate of an interval is the difference of the cumulative rate at its ends.
    """
    settled = nearest_minute(history.funding_time)

    # The first payment was for an interval as long as the second one's.
    first_interval = settled[1] - settled[0]
    first_start = settled[0] - first_interval
    knots = np.concatenate([[first_start], settled]).astype(np.float64)
    rate_so_far = np.concatenate([[0.0], np.cumsum(history.funding_rate)])

    # The intervals of the grid that end between the first settlement and the last.
    ends = grid.find(int(settled[0]), int(settled[-1]) + 1)
    starts = ends - grid.every
    at_ends = np.interp(ends, knots, rate_so_far)
    at_starts = np.interp(starts, knots, rate_so_far)
    return np.asarray(at_ends - at_starts)


def fit_process(
    rates: core.FloatArray,
    grid: FundingGrid,
    cap: float,
) -> FundingProcess:
    """Return the autoregression of settlements, by least squares on all of them.

    Weights are at least 0 and their sum is under 1, so that every shock dies out. The clamp makes
    the base rate as frequent as it was in the last 180 days, if residuals come in any order.
    Source: Corsi (2009), A Simple Approximate Long-Memory Model of Realized Volatility, J.
    Financial Econometrics 7(2), whose regression on means of several spans this is. The errors are
    F of the covariance F F' = (x'x)^-1 x' diag(e^2) x (x'x)^-1 with x = (1, means less their
    center). Source: White (1980), A Heteroskedasticity-Consistent Covariance Matrix Estimator and a
    Direct Test for Heteroskedasticity, Econometrica 48(4).
    """
    is_varying = float(np.std(rates)) > LEAST_DEVIATION
    if len(rates) < LEAST_SETTLEMENTS or not is_varying:
        return FundingProcess("constant", grid, float(np.mean(rates)))

    kind = "first-order autoregression"
    windows: tuple[int, ...] = (1,)
    if len(rates) * grid.every >= LONG_HISTORY:
        kind = "heterogeneous autoregression"
        spans = (DAY, 7 * DAY, MONTH)
        windows = (1, *(max(span // grid.every, 1) for span in spans))

    # The means of each window before a settlement explain it.
    means = average_before(rates, windows)
    target = rates[max(windows) :]

    # Units make no difference but to the solver; weights that sum to too much are scaled down, so
    # that every shock dies out.
    centers = np.mean(means, axis=0)
    unit = float(np.std(rates))
    with one_thread():
        regressors = (means - centers) / unit
        regressand = (target - np.mean(target)) / unit
        weights, _ = sp.optimize.nnls(regressors, regressand)
    persistence = max(float(np.sum(weights)), 1e-9)
    weights *= min(1.0, LARGEST_PERSISTENCE / persistence)
    constant = float(np.mean(target) - centers @ weights)

    # F of the errors, and the clamp by the last 180 days.
    ones = np.ones(len(means))
    x = np.column_stack([ones, means - centers])
    with one_thread():
        residuals = target - constant - means @ weights
        scaled = np.linalg.pinv(x) * residuals
        root: Any = np.linalg.qr(scaled.T, mode="r")

    recent_residuals = residuals[-(LONG_HISTORY // grid.every) :]
    recent_rates = rates[-len(recent_residuals) :]
    usual, clamp = fit_clamp(recent_rates, recent_residuals)
    return FundingProcess(
        kind=kind,
        grid=grid,
        constant=constant,
        rates=rates,
        weights=tuple(map(float, weights)),
        windows=windows,
        cap=cap,
        residuals=recent_residuals,
        centers=centers,
        errors=root.T,
        usual=usual,
        clamp=clamp,
    )


def average_before(rates: core.FloatArray, windows: tuple[int, ...]) -> core.FloatArray:
    """Return the mean rates of some windows before each settlement, (n, windows).

    The first settlement is the first one with the longest window before it.
    """
    sums = np.concatenate([[0.0], np.cumsum(rates)])
    k = np.arange(max(windows), len(rates))
    means = [(sums[k] - sums[k - window]) / window for window in windows]
    return np.column_stack(means)


def fit_clamp(rates: core.FloatArray, residuals: core.FloatArray) -> tuple[float, float]:
    """Return the rate that the venue clamps to, and how near a rate is for it; NaN and 0 if none.

    The clamp makes that rate as frequent as it was, if residuals come in any order.
    """
    rounded = np.round(rates, 12)
    values, counts = np.unique(rounded, return_counts=True)
    usual = float(values[counts.argmax()])
    share = counts.max() / len(rates)
    if share < LEAST_BASE:
        return math.nan, 0.0

    # Rates as simulated ones are, with residuals in another order: the share of them that was at
    # the usual rate lies within the clamp.
    shuffled = np.random.default_rng(0).permutation(residuals)
    mixed = rates - residuals + shuffled
    gaps = np.abs(mixed - usual)
    return usual, float(np.quantile(gaps, share))


def summarize_funding(fits: Mapping[str, str]) -> list[str]:
    """Return a line on the funding of each instrument."""
    if len(fits) == 1:
        return [f"funding: {fit}" for fit in fits.values()]
    return [f"funding of {name}: {fit}" for name, fit in fits.items()]
