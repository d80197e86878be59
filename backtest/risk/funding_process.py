"""The funding of paths: the settlements to come, and the process of their rates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from backtest import core
from backtest.core.code_names import sp
from backtest.core.one_thread import one_thread
from backtest.core.units import DAY, HOUR
from backtest.market import Market, cadence, nearest_minute
from backtest.market.tables import MAX_RATE
from backtest.risk.path_draws import FUNDING, Draws
from backtest.venue import FundingTerms

LARGEST_PERSISTENCE = 0.9999
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
