"""The funding of simulated paths: an autoregression of settlements on what they were."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from backtest.base import (
    FloatArray,
    Number,
    ParameterError,
    did_you_mean,
    format_bps,
    format_duration,
    format_setting,
)
from backtest.base.units import DAY, HOUR
from backtest.market import Market, nearest_minute
from backtest.market.settlements import LARGEST_RATE
from backtest.risk.paths.path_calendar import FundingGrid, find_grid, find_last_bars
from backtest.venue import FundingTerms

FundingChoice: TypeAlias = str | float | FundingTerms | None
FITTED, HISTORY = "fitted", "history"
WINDOWS = (7 * DAY, 30 * DAY)
LONG_HISTORY = 180 * DAY
"""Span of settlements from which the means of 1, 7 and 30 days have weights of their own."""
LEAST_SETTLEMENTS = 10
"""Settlements below which the rate of paths is their mean."""
LEAST_DEVIATION = 1e-12
LARGEST_PERSISTENCE = 0.9999
LIVES, GROWN = 4, 100.0
"""Longest means over which a shock is followed, and the response at which it has grown."""
USUAL_GRID = FundingGrid(8 * HOUR, 0)


@dataclass(frozen=True, eq=False)
class FundingProcess:
    """Process that draws the funding rates of paths.

    ``r_k = c + b1 r_(k-1) + b2 (mean of 1 day) + b3 (of 7 days) + b4 (of 30 days) + e_k``, within
    the cap.

    Parameters
    ----------
    kind : str
        ``"heterogeneous autoregression"``, ``"first-order autoregression"`` (b2 to b4 are 0),
        ``"constant"``, ``"history"`` (settlements of the rows drawn) or ``"none"``.
    reason : str
        Why it is not the heterogeneous autoregression; empty if it is.
    rates : FloatArray of shape (n,)
        The settlements of history on the grid of paths, per settlement.
    constant : float
        c.
    weights : tuple of float
        b1 to b4.
    windows : tuple of int
        Settlements in each of the four means.
    cap : float
        The largest rate of either sign.
    residuals : FloatArray of shape (up to n,)
        e of the last settlements, in order of time; their mean is 0.
    """

    kind: str
    reason: str
    grid: FundingGrid | None
    rates: FloatArray
    constant: float = 0.0
    weights: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    windows: tuple[int, ...] = (1, 1, 1, 1)
    cap: float = LARGEST_RATE
    residuals: FloatArray = field(default_factory=lambda: np.empty(0))

    @property
    def recent(self) -> FloatArray:
        longest = self.windows[-1]
        return self.rates[-longest:] if len(self.rates) >= longest else np.zeros(longest)

    @functools.cached_property
    def ranked(self) -> FloatArray:
        return np.sort(self.residuals)

    @property
    def terms(self) -> FloatArray:
        return np.array([self.constant, *self.weights, *self.windows, self.cap])

    def describe(self) -> dict[str, Any]:
        """Return the fit as plain data: rates are fractions per settlement."""
        total = sum(self.weights)
        has_residuals = self.residuals.size > 0
        is_drawn = self.kind in ("first-order autoregression", "heterogeneous autoregression")
        return {
            "process": self.kind,
            "reason": self.reason,
            "every": None if self.grid is None else format_duration(self.grid.every),
            "settlements": len(self.rates),
            "last_rate": float(self.rates[-1]) if len(self.rates) else None,
            "mean_rate": float(np.mean(self.rates)) if len(self.rates) else None,
            "long_run_rate": self.constant / (1.0 - total) if is_drawn or self.constant else None,
            "weight_last": self.weights[0] if is_drawn else None,
            "weight_1d": self.weights[1] if is_drawn else None,
            "weight_7d": self.weights[2] if is_drawn else None,
            "weight_30d": self.weights[3] if is_drawn else None,
            "residual": float(np.std(self.residuals)) if has_residuals else None,
            "cap": self.cap if is_drawn else None,
        }

    def tabulate_residuals(self, history: Market) -> FloatArray:
        """Return the residual of each settlement by the last bar of its interval.

        The shape is (n_orders, n_bars), for several settlements in one bar; NaN where there is
        none.
        """
        if self.grid is None or not self.residuals.size:
            return np.full((1, history.n_bars), np.nan)
        n, last = len(self.residuals), find_last_stamp(history, self.grid)
        stamps = last - self.grid.every * np.arange(n - 1, -1, -1, dtype=np.int64)
        bar, order = find_last_bars(history.time, stamps)
        found = np.full((int(order.max()) + 1, history.n_bars), np.nan)
        known = bar >= 0
        found[order[known], bar[known]] = self.residuals[known]
        return found


def read_funding(funding: object, *, is_resampled: bool) -> FundingChoice:
    if funding is None or isinstance(funding, FundingTerms):
        return funding
    if isinstance(funding, str) and funding not in (FITTED, HISTORY):
        raise ParameterError(
            f"funding must be 'fitted', 'history', a rate, terms or None, got {funding[:40]!r}"
            + did_you_mean(funding, (FITTED, HISTORY))
        )
    if isinstance(funding, str) and funding == HISTORY and not is_resampled:
        raise ParameterError(
            "funding='history' needs a resampled model such as 'filtered', got a parametric one"
        )
    if isinstance(funding, str):
        return funding
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
        asked = "none was asked for"
        reason = asked if funding is None else "the history has no settlements"
        return FundingProcess("none", reason, None, np.empty(0))
    rates = lay_on_grid(history, grid)
    if isinstance(funding, float):
        return FundingProcess("constant", "a rate was given", grid, rates, constant=funding)
    if funding == HISTORY:
        return FundingProcess("history", "settlements of the rows are repeated", grid, rates)
    cap = funding.cap if isinstance(funding, FundingTerms) else math.inf
    return fit_process(rates, grid, min(cap, LARGEST_RATE))


def find_last_stamp(history: Market, grid: FundingGrid) -> int:
    """Return the last stamp of the grid up to the last settlement of history, ns."""
    last = nearest_minute(int(history.funding_time[-1]))
    return last - (last - grid.anchor) % grid.every


def lay_on_grid(history: Market, grid: FundingGrid) -> FloatArray:
    if not history.funding_time.size:
        return np.empty(0)
    time = nearest_minute(history.funding_time)
    first_gap = int(time[1] - time[0]) if len(time) > 1 else grid.every
    knots = np.concatenate([[time[0] - first_gap], time]).astype(np.float64)
    paid = np.concatenate([[0.0], np.cumsum(history.funding_rate)])
    last = find_last_stamp(history, grid)
    stamps = grid.find(int(time[0]), last + 1)
    ends, starts = (np.interp(each, knots, paid) for each in (stamps, stamps - grid.every))
    return np.asarray(ends - starts)


def fit_process(rates: FloatArray, grid: FundingGrid, cap: float) -> FundingProcess:
    """Return the autoregression of settlements, by least squares on all of them.

    Source: Corsi (2009), A Simple Approximate Long-Memory Model of Realized Volatility, J.
    Financial Econometrics 7(2), whose regression on means of several spans this is.
    """
    count = len(rates)
    if count < LEAST_SETTLEMENTS or not float(np.std(rates)) > LEAST_DEVIATION:
        few = f"the history has {count} settlements, fewer than {LEAST_SETTLEMENTS}"
        reason = few if count < LEAST_SETTLEMENTS else "all settlements of the history are the same"
        return FundingProcess("constant", reason, grid, rates, constant=float(np.mean(rates)))
    span = count * grid.every
    if span < LONG_HISTORY:
        reason = f"the history has {span / DAY:.0f} days of settlements, fewer than 180"
        return fit_first_order(rates, grid, cap, reason)
    windows = (1, *(max(each // grid.every, 1) for each in (DAY, *WINDOWS)))
    constant, weights, residuals = regress(rates, windows)
    if not is_stable(weights, windows):
        reason = "the weights of the means of 1, 7 and 30 days are not stable"
        return fit_first_order(rates, grid, cap, reason)
    return FundingProcess(
        kind="heterogeneous autoregression",
        reason="",
        grid=grid,
        rates=rates,
        constant=constant,
        weights=weights,
        windows=windows,
        cap=cap,
        residuals=residuals,
    )


def fit_first_order(
    rates: FloatArray, grid: FundingGrid, cap: float, reason: str
) -> FundingProcess:
    _, (found,), _ = regress(rates, (1,))
    weight = min(max(found, -LARGEST_PERSISTENCE), LARGEST_PERSISTENCE)
    left = rates[1:] - weight * rates[:-1]
    constant = float(np.mean(left))
    return FundingProcess(
        kind="first-order autoregression",
        reason=reason,
        grid=grid,
        rates=rates,
        constant=constant,
        weights=(weight, 0.0, 0.0, 0.0),
        cap=cap,
        residuals=left - constant,
    )


def regress(
    rates: FloatArray, windows: tuple[int, ...]
) -> tuple[float, tuple[float, ...], FloatArray]:
    sums = np.concatenate([[0.0], np.cumsum(rates)])
    k = np.arange(max(windows), len(rates))
    means = np.column_stack([(sums[k] - sums[k - each]) / each for each in windows])
    target, center = rates[k], np.mean(means, axis=0)
    level = float(np.mean(target))
    weights = np.linalg.lstsq(means - center, target - level, rcond=None)[0]
    constant = level - float(center @ weights)
    return constant, tuple(map(float, weights)), target - constant - means @ weights


def is_stable(weights: tuple[float, ...], windows: tuple[int, ...]) -> bool:
    if not sum(weights) < LARGEST_PERSISTENCE:
        return False
    longest = max(windows)
    sums = [0.0] * longest + [0.0, 1.0]  # of the responses, from that of the shock on
    largest, at = 1.0, 0
    for k in range(1, LIVES * longest):
        value = sum(
            weight * (sums[-1] - sums[-1 - each]) / each
            for weight, each in zip(weights, windows, strict=True)
        )
        if abs(value) > largest:
            largest, at = abs(value), k
        if largest > GROWN:
            return False
        sums.append(sums[-1] + value)
    return at < (LIVES - 1) * longest


def tabulate_funding(fits: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(list(fits.values()), index=pd.Index(list(fits), name="instrument"))


def summarize_funding(fits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    several = len(fits) > 1
    return [
        f"funding{f' of {name}' if several else ''}: {summarize_fit(fit)}"
        for name, fit in fits.items()
    ]


def summarize_fit(fit: Mapping[str, Any]) -> str:
    if fit["process"] in ("none", "history"):
        return f"{fit['process']} ({fit['reason']})"
    if fit["process"] == "constant":
        return f"constant at {write_bps(fit['long_run_rate'] or 0.0)} ({fit['reason']})"
    named = ", ".join(
        f"{format_setting(round(fit[f'weight_{name}'], 3))} {label}"
        for name, label in (("last", "last rate"), ("1d", "1 day"), ("7d", "7 days"),
                            ("30d", "30 days"))
        if fit["process"].startswith("hetero") or name == "last"
    )  # fmt: skip
    because = f" because {fit['reason']}" if fit["reason"] else ""
    return (
        f"{fit['process']} of {fit['settlements']:,} settlements every {fit['every']}{because}; "
        f"starts at {write_bps(fit['last_rate'])}, long-run mean "
        f"{write_bps(fit['long_run_rate'])}, weights {named}, residuals "
        f"{write_bps(fit['residual'])}"
    )


def write_bps(rate: float) -> str:
    """Return a rate in basis points, to three significant digits."""
    return format_bps(float(f"{rate:.3g}"))
