"""Simulated markets whose law is known, a policy, and what each of its sets truly earns.

Used by ``luck.py``. Nothing costs, and each day opens where the last one
closed. So true figures need no account: they are means over 5,000 years of returns.
"""

from __future__ import annotations

import functools
import math
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd

import backtest as bt

YEAR = 365.0
MODELS = ("gbm", "heston", "merton", "regimes", "burst")
DRIFT, DEVIATION = 0.2, 0.6
"""Drift and volatility per year; all processes have this variance."""
BEFORE, AFTER = 1.0, -0.2
"""Drift of the burst in the first half of the data, and from then on."""
TRUE_PATHS, TRUE_DAYS = 1_000, 2_000
"""Size of the sample that gives true figures: 5,000 years."""
LONGEST = 120
"""Longest window of the policy, in days."""


class Lever(bt.Policy):
    """Hold a leverage, and half of it after a fall over some days."""

    size: Annotated[float, bt.Range(0.1, 3.0)] = 1.0
    window: Annotated[int, bt.Range(2, LONGEST)] = 20

    def observe(self, market: bt.Market) -> dict[str, Any]:
        """Return the change of the price over the window."""
        rise = np.full(market.n_bars, np.nan)
        rise[self.window :] = market.close[self.window :] / market.close[: -self.window] - 1.0
        return {"rise": rise}

    def leverage(self, bar: Any, account: Any) -> float:
        """Return the size, or half of it."""
        return self.size if bar.rise > 0.0 else 0.5 * self.size


FREE_VENUE = bt.Venue(
    contract=bt.Contract(lot=0.0, tick=0.01, min_notional=0.0),
    brackets=[bt.Bracket(0.0, 1e12, 20.0, 0.005)],
    fees=bt.Fees(taker=0.0, maker=0.0),
    slippage=bt.Slippage(rate=0.0),
    liquidation=bt.Liquidation(mode="close", fee=0.0, slippage=0.0),
)
FREE: dict[str, Any] = {"venue": FREE_VENUE, "account": bt.Account(capital=10_000.0)}


def draw_steps(law: str, paths: int, days: int, rng: np.random.Generator) -> np.ndarray:
    """Return daily log returns of shape (paths, days) under a law.

    GBM with a drift of 20 % and a volatility of 60 % per year; Heston (speed 3, volatility of
    variance 0.9) and Merton (12 jumps a year) with the same mean variance; two regimes of drift
    60 % and -40 % that change twice a year; a drift of 100 % in the first half and -20 % after
    it. All but the last are stationary. ``"driftless"`` is a GBM in which no set has skill.
    ``"burst-before"`` and ``"burst-after"`` are the halves of the burst.
    """
    dt, shape = 1.0 / YEAR, (paths, days)
    shocks = rng.standard_normal(shape)
    shocks -= shocks.mean() if paths > 1 else 0.0  # less noise in true figures
    drift = np.full(shape, 0.0 if law == "driftless" else DRIFT)
    variance, jumps = np.full(shape, DEVIATION**2), np.zeros(shape)
    if law == "heston":
        variance = draw_variance(paths, days, rng)
    elif law == "merton":
        counts = rng.poisson(12.0 * dt, shape)
        jumps = counts * -0.03 + np.sqrt(counts) * 0.06 * rng.standard_normal(shape)
        jumps -= 12.0 * dt * (math.exp(-0.03 + 0.5 * 0.06**2) - 1.0)
        variance -= 12.0 * (0.03**2 + 0.06**2)
    elif law == "regimes":
        changes = np.cumsum(rng.random(shape) < 2.0 * dt, axis=1)
        drift = np.where((changes + rng.integers(0, 2, (paths, 1))) % 2 == 0, 0.6, -0.4)
    elif law.startswith("burst"):
        halves = {"burst-before": days, "burst-after": 0}
        drift = np.where(np.arange(days) < halves.get(law, days // 2), BEFORE, AFTER) + drift * 0.0
    return (drift - 0.5 * variance) * dt + np.sqrt(variance * dt) * shocks + jumps


def draw_variance(paths: int, days: int, rng: np.random.Generator) -> np.ndarray:
    """Return variances of a square-root process, from a year after its start on."""
    found, burn = np.empty((paths, days)), int(YEAR)
    value = np.full(paths, DEVIATION**2)
    for t in range(burn + days):
        noise = 0.9 * np.sqrt(value / YEAR) * rng.standard_normal(paths)
        value = np.maximum(value + 3.0 * (DEVIATION**2 - value) / YEAR + noise, 1e-4)
        if t >= burn:
            found[:, t - burn] = value
    return found


def simulate(model: str, days: int, rng: np.random.Generator) -> bt.Market:
    """Return daily bars that open where the last one closed, without funding."""
    close = 100.0 * np.exp(np.cumsum(draw_steps(model, 1, days, rng)[0]))
    opened = np.concatenate(([100.0], close[:-1]))
    index = pd.date_range("2015-01-01", periods=days, freq="D", tz="UTC")
    high, low = np.maximum(opened, close), np.minimum(opened, close)
    frame = pd.DataFrame({"open": opened, "high": high, "low": low, "close": close}, index=index)
    return bt.Market.from_frames(frame, instrument=model.upper())


# ---------------------------------------------------------------------------------- true figures


class Figures(NamedTuple):
    """Log growth per year and Sharpe ratio."""

    growth: float
    sharpe: float


@functools.lru_cache(maxsize=2)
def draw_long(law: str) -> tuple[np.ndarray, np.ndarray]:
    """Return log prices and simple returns of the sample that gives true figures."""
    steps = draw_steps(law, TRUE_PATHS, TRUE_DAYS, np.random.default_rng(12_345))
    return np.cumsum(steps, axis=1), np.expm1(steps[:, LONGEST + 1 :])


@functools.lru_cache(maxsize=4)
def hold_window(law: str, window: int) -> np.ndarray:
    """Return h r by day: the return r after a rise over the window, half of it after a fall."""
    prices, returns = draw_long(law)
    is_up = prices[:, LONGEST:-1] > prices[:, LONGEST - window : -1 - window]
    return np.where(is_up, returns, 0.5 * returns)


@functools.cache
def true_figures(law: str, size: float, window: int) -> Figures:
    """Return what a set earns in the long run under a law.

    The price opens where it closed and nothing costs, so an account gains size x h x r in a day.
    """
    held = hold_window(law, window)
    growth = float(np.log1p(size * held).mean()) * YEAR
    return Figures(growth, float(held.mean() / held.std()) * math.sqrt(YEAR))


def gbm_growth(leverage: float) -> float:
    """Return the log growth per year of a constant leverage on the GBM: mu L - L^2 sigma^2 / 2."""
    return DRIFT * leverage - 0.5 * (leverage * DEVIATION) ** 2
