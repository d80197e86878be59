"""The process that draws the funding of paths, and its fit to the settlements of history."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from backtest.base import (
    FloatArray,
    IntArray,
    Number,
    ParameterError,
    did_you_mean,
    format_bps,
    format_duration,
)
from backtest.base.units import DAY, HOUR, MINUTE
from backtest.market import Market, cadence, nearest_minute
from backtest.market.tables import LARGEST_RATE
from backtest.venue import FundingTerms

FundingChoice: TypeAlias = str | float | FundingTerms | None
FITTED = "fitted"
WINDOWS = (DAY, 7 * DAY, 30 * DAY)
LONG_HISTORY = 180 * DAY
"""Span of settlements from which the means of 1, 7 and 30 days have weights of their own."""
LEAST_SETTLEMENTS = 10
"""Settlements below which the rate of paths is their mean."""
LEAST_DEVIATION = 1e-12
LARGEST_PERSISTENCE = 0.9999
LEAST_BASE = 0.05
"""The share of equal settlements from which a rate counts as the one that the venue clamps to."""


class FundingGrid(NamedTuple):
    """The settlements to come: every so many ns, at ``anchor`` plus multiples of it."""

    every: int
    anchor: int

    def find(self, start: int, end: int) -> IntArray:
        """Return the stamps from ``start`` up to but not including ``end``, ns."""
        first = -((self.anchor - start) // self.every)
        last = -((self.anchor - end) // self.every)
        return self.anchor + self.every * np.arange(first, last, dtype=np.int64)


USUAL_GRID = FundingGrid(8 * HOUR, 0)


def find_grid(history: Market) -> FundingGrid | None:
    if len(history.funding_time) < 2:  # how often is not known
        return None
    recent = history.funding_time[-100:]
    last = int(history.funding_time[-1])
    return FundingGrid(cadence(recent), (last + MINUTE // 2) // MINUTE * MINUTE)


def find_period(history: Market, grid: FundingGrid | None) -> int:
    """Return the time in ns between settlements that fall on the open of a bar."""
    return math.lcm(history.interval if grid is None else grid.every, history.interval)


@dataclass(frozen=True, eq=False)
class FundingProcess:
    """Process that draws the funding rates of paths.

    ``r_k = c + b1 r_(k-1) + b2 (mean of 1 day) + b3 (of 7 days) + b4 (of 30 days) + e_k``, within
    the cap. What is paid is ``base`` where r_k is no farther than ``clamp`` from it.

    ``weights`` are b1 to b4 and ``windows`` the settlements in each of the means; a first-order
    autoregression has b1 alone. ``rates`` (n,) are the settlements of history on the grid of paths,
    ``residuals`` e of the last 180 days, in order of time, ``cap`` the largest rate of either sign.
    Where no rate is repeated, ``base`` is NaN and ``clamp`` 0.
    """

    kind: str
    grid: FundingGrid | None
    rates: FloatArray
    constant: float = 0.0
    weights: tuple[float, ...] = ()
    windows: tuple[int, ...] = (1,)
    cap: float = LARGEST_RATE
    residuals: FloatArray = field(default_factory=lambda: np.empty(0))
    base: float = math.nan
    clamp: float = 0.0

    @property
    def recent(self) -> FloatArray:
        longest = self.windows[-1]
        return self.rates[-longest:] if len(self.rates) >= longest else np.zeros(longest)

    def walk(self, residuals: FloatArray, uniforms: FloatArray) -> FloatArray:
        """Return the rates of paths by settlement, of the shape of ``uniforms``.

        A uniform number chooses among ``residuals``: in order of time, instruments have those of
        the same time.
        """
        count, lags = len(residuals), len(self.recent)
        rates = np.empty((lags + len(uniforms), uniforms.shape[1]))
        rates[:lags] = self.recent[:, None]
        sums = [rates[lags - each : lags].sum(axis=0) for each in self.windows]
        ranks = np.minimum((uniforms * count).astype(np.int64), count - 1)
        shocks = residuals[ranks] if count else np.zeros_like(uniforms)
        for k, shock in enumerate(shocks, lags):
            rate = self.constant + shock
            for weight, each, total in zip(self.weights, self.windows, sums, strict=False):
                rate = rate + weight / each * total
            rates[k] = np.clip(rate, -self.cap, self.cap)
            sums = [
                total + rates[k] - rates[k - each]
                for each, total in zip(self.windows, sums, strict=True)
            ]
        paid = rates[lags:]
        return np.where(np.abs(paid - self.base) < self.clamp, self.base, paid)

    def describe(self) -> dict[str, Any]:
        """Return the fit as plain data: rates are fractions per settlement."""
        is_drawn = self.residuals.size > 0
        rates, left = self.rates, 1.0 - sum(self.weights)
        return {
            "process": self.kind,
            "every": None if self.grid is None else format_duration(self.grid.every),
            "settlements": len(rates),
            "last_rate": float(rates[-1]) if len(rates) else None,
            "long_run_rate": self.constant / left if is_drawn or self.constant else None,
            "residual": float(np.std(self.residuals)) if is_drawn else None,
        }


def read_funding(funding: object) -> FundingChoice:
    if funding is None or funding == FITTED or isinstance(funding, FundingTerms):
        return funding
    if isinstance(funding, str):
        raise ParameterError(
            f"funding must be 'fitted', a rate, terms or None, got {funding:.40}"
            + did_you_mean(funding, [FITTED])
        )
    rate = Number(-LARGEST_RATE, LARGEST_RATE)
    return float(rate.check("funding", funding))


def find_path_grid(history: Market, funding: FundingChoice) -> FundingGrid | None:
    if funding is None:
        return None
    return find_grid(history) or (USUAL_GRID if isinstance(funding, float) else None)


def make_process(history: Market, funding: FundingChoice) -> FundingProcess:
    grid = find_path_grid(history, funding)
    if grid is None:
        return FundingProcess("none", None, np.empty(0))
    rates = lay_on_grid(history, grid)
    if isinstance(funding, float):
        return FundingProcess("constant", grid, rates, constant=funding)
    cap = funding.cap if isinstance(funding, FundingTerms) else math.inf
    return fit_process(rates, grid, min(cap, LARGEST_RATE))


def lay_on_grid(history: Market, grid: FundingGrid) -> FloatArray:
    if not history.funding_time.size:
        return np.empty(0)
    time = nearest_minute(history.funding_time)
    first_gap = int(time[1] - time[0]) if len(time) > 1 else grid.every
    knots = np.concatenate([[time[0] - first_gap], time]).astype(np.float64)
    paid = np.concatenate([[0.0], np.cumsum(history.funding_rate)])
    stamps = grid.find(int(time[0]), int(time[-1]) + 1)
    ends, starts = (np.interp(each, knots, paid) for each in (stamps, stamps - grid.every))
    return np.asarray(ends - starts)


def fit_process(rates: FloatArray, grid: FundingGrid, cap: float) -> FundingProcess:
    """Return the autoregression of settlements, by least squares on all of them.

    Weights are at least 0 and their sum is under 1, so that every shock dies out. The clamp makes
    the base rate as frequent as it was in the last 180 days, if residuals come in any order.
    Source: Corsi (2009), A Simple Approximate Long-Memory Model of Realized Volatility, J.
    Financial Econometrics 7(2), whose regression on means of several spans this is.
    """
    if len(rates) < LEAST_SETTLEMENTS or not float(np.std(rates)) > LEAST_DEVIATION:
        return FundingProcess("constant", grid, rates, constant=float(np.mean(rates)))
    kind: str = "first-order autoregression"
    windows: tuple[int, ...] = (1,)
    if len(rates) * grid.every >= LONG_HISTORY:
        kind = "heterogeneous autoregression"
        windows = (1, *(max(each // grid.every, 1) for each in WINDOWS))
    constant, weights, residuals = regress(rates, windows)
    residuals = residuals[-(LONG_HISTORY // grid.every) :]
    recent = rates[-len(residuals) :]
    values, counts = np.unique(np.round(recent, 12), return_counts=True)
    base, share, clamp = float(values[counts.argmax()]), counts.max() / len(recent), 0.0
    if share < LEAST_BASE:
        base = math.nan
    else:
        mixed = recent - residuals + np.random.default_rng(0).permutation(residuals)
        clamp = float(np.quantile(np.abs(mixed - base), share))
    return FundingProcess(
        kind, grid, rates, constant, weights, windows, cap, residuals, base, clamp
    )


def regress(
    rates: FloatArray, windows: tuple[int, ...]
) -> tuple[float, tuple[float, ...], FloatArray]:
    """Return constant, weights and residuals of the least squares on means of several windows."""
    from scipy.optimize import nnls  # noqa: PLC0415 - slow to load

    sums = np.concatenate([[0.0], np.cumsum(rates)])
    k = np.arange(max(windows), len(rates))
    means = np.column_stack([(sums[k] - sums[k - each]) / each for each in windows])
    target, center, unit = rates[k], np.mean(means, axis=0), float(np.std(rates))
    weights, _ = nnls((means - center) / unit, (target - np.mean(target)) / unit)
    weights *= min(1.0, LARGEST_PERSISTENCE / max(float(np.sum(weights)), 1e-9))
    constant = float(np.mean(target) - center @ weights)
    return constant, tuple(map(float, weights)), target - constant - means @ weights


def summarize_funding(fits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    several = len(fits) > 1
    return [
        f"funding{f' of {name}' if several else ''}: {summarize_fit(fit)}"
        for name, fit in fits.items()
    ]


def summarize_fit(fit: Mapping[str, Any]) -> str:
    if fit["process"] == "none":
        return "none"
    last, mean, residual = (  # to three significant digits
        format_bps(float(f"{fit[name] or 0.0:.3g}"))
        for name in ("last_rate", "long_run_rate", "residual")
    )
    if fit["process"] == "constant":
        return f"constant at {mean}"
    return (
        f"{fit['process']} of {fit['settlements']:,} settlements every {fit['every']}; starts at "
        f"{last}, long-run mean {mean}, residuals {residual}"
    )
