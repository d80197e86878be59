"""The process that draws the funding of paths, and its fit to the settlements of history."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
WINDOWS = (7 * DAY, 30 * DAY)
LONG_HISTORY = 180 * DAY
"""Span of settlements from which the means of 1, 7 and 30 days have weights of their own."""
LEAST_SETTLEMENTS = 10
"""Settlements below which the rate of paths is their mean."""
LEAST_DEVIATION = 1e-12
LARGEST_PERSISTENCE = 0.9999
LEAST_BASE = 0.05
"""The share of equal settlements from which a rate counts as the one that the venue clamps to."""
LIVES, GROWN = 4, 100.0
"""Longest means over which a shock is followed, and the response at which it has grown."""


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
    weights: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    windows: tuple[int, ...] = (1, 1, 1, 1)
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
            for weight, each, total in zip(self.weights, self.windows, sums, strict=True):
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
    is_rate = isinstance(funding, float)
    return find_grid(history) or (USUAL_GRID if is_rate else None)


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

    Source: Corsi (2009), A Simple Approximate Long-Memory Model of Realized Volatility, J.
    Financial Econometrics 7(2), whose regression on means of several spans this is.
    """
    count = len(rates)
    if count < LEAST_SETTLEMENTS or not float(np.std(rates)) > LEAST_DEVIATION:
        return FundingProcess("constant", grid, rates, constant=float(np.mean(rates)))
    if count * grid.every >= LONG_HISTORY:
        windows = (1, *(max(each // grid.every, 1) for each in (DAY, *WINDOWS)))
        constant, weights, residuals = regress(rates, windows)
        if is_stable(weights, windows):
            kind, fit = "heterogeneous autoregression", (constant, weights, windows, cap, residuals)
            return keep_recent(FundingProcess(kind, grid, rates, *fit))
    _, (found,), _ = regress(rates, (1,))
    weight = min(max(found, -LARGEST_PERSISTENCE), LARGEST_PERSISTENCE)
    left = rates[1:] - weight * rates[:-1]
    constant, weights = float(np.mean(left)), (weight, 0.0, 0.0, 0.0)
    kind = "first-order autoregression"
    process = FundingProcess(
        kind, grid, rates, constant, weights, cap=cap, residuals=left - constant
    )
    return keep_recent(process)


def keep_recent(process: FundingProcess) -> FundingProcess:
    """Return the process with the residuals of the last 180 days, and the rate it clamps to.

    The clamp is as wide as makes the base rate as frequent as it was, if residuals come in any
    order.
    """
    assert process.grid is not None  # noqa: S101 - of a fit
    count = min(len(process.residuals), LONG_HISTORY // process.grid.every)
    residuals, rates = process.residuals[-count:], process.rates[-count:]
    values, counts = np.unique(np.round(rates, 12), return_counts=True)
    base, share = float(values[counts.argmax()]), float(counts.max()) / count
    if share < LEAST_BASE:
        return replace(process, residuals=residuals)
    mixed = rates - residuals + np.random.default_rng(0).permutation(residuals)
    clamp = float(np.quantile(np.abs(mixed - base), share))
    return replace(process, residuals=residuals, base=base, clamp=clamp)


def regress(
    rates: FloatArray, windows: tuple[int, ...]
) -> tuple[float, tuple[float, ...], FloatArray]:
    """Return constant, weights and residuals of the least squares on means of several windows."""
    sums = np.concatenate([[0.0], np.cumsum(rates)])
    k = np.arange(max(windows), len(rates))
    means = np.column_stack([(sums[k] - sums[k - each]) / each for each in windows])
    target, center = rates[k], np.mean(means, axis=0)
    level = float(np.mean(target))
    weights = np.linalg.lstsq(means - center, target - level, rcond=None)[0]
    constant = level - float(center @ weights)
    return constant, tuple(map(float, weights)), target - constant - means @ weights


def is_stable(weights: tuple[float, ...], windows: tuple[int, ...]) -> bool:
    """Return whether a shock dies out: its response never grows far, and is not largest late."""
    longest = max(windows)
    lags = np.zeros(longest)
    for weight, each in zip(weights, windows, strict=True):
        lags[-each:] += weight / each
    response = np.zeros((LIVES + 1) * longest)
    response[longest] = 1.0
    for k in range(longest + 1, len(response)):
        response[k] = lags @ response[k - longest : k]
        if abs(response[k]) > GROWN:
            return False
    response = np.abs(response[longest:])
    is_late = response.argmax() >= (LIVES - 1) * longest
    return bool(sum(weights) < LARGEST_PERSISTENCE and not is_late)


def summarize_funding(fits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    several = len(fits) > 1
    return [
        f"funding{f' of {name}' if several else ''}: {summarize_fit(fit)}"
        for name, fit in fits.items()
    ]


def summarize_fit(fit: Mapping[str, Any]) -> str:
    if fit["process"] == "none":
        return "none"
    # in basis points, to three significant digits
    shown = {name: format_bps(float(f"{fit[name] or 0.0:.3g}"))
             for name in ("last_rate", "long_run_rate", "residual")}  # fmt: skip
    if fit["process"] == "constant":
        return f"constant at {shown['long_run_rate']}"
    return (
        f"{fit['process']} of {fit['settlements']:,} settlements every {fit['every']}; "
        f"starts at {shown['last_rate']}, long-run mean {shown['long_run_rate']}, residuals "
        f"{shown['residual']}"
    )
