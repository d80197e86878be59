"""Markets and policies that a judgement is tried on: days of prices, whose calms are known."""

from typing import Annotated, Any

import numpy as np
import pandas as pd

import backtest as bt
from tests.kit import free_venue

TERMS: dict[str, Any] = {"venue": free_venue(), "account": bt.Account(capital=10_000.0)}
SHARPE = 1.5
"""The Sharpe ratio of a policy that holds the market in its calm alone."""
BLOCK = 20
"""Days of a calm, and of the storm after it."""
DAY = 86_400 * 10**9


def number_blocks(time: np.ndarray) -> np.ndarray:
    """Return the number of the block of days in which each time (ns) lies."""
    return time // (BLOCK * DAY)


class Calm(bt.Policy):
    """Hold twice the market on its calm days, which are known ahead, and nothing in its storms."""

    def observe(self, market):
        """Return whether the next day, over which a decision is held, is calm."""
        return {"calm": (number_blocks(market.time + DAY) % 2 == 0).astype(float)}

    def leverage(self, bar, account):
        """Return 2 in calm, else 0."""
        return 2.0 if bar.calm > 0.0 else 0.0


class Sized(Calm):
    """Hold a size in calm that can be tuned."""

    size: Annotated[float, bt.Range(0.5, 2.0, "x of equity")] = 1.0

    def leverage(self, bar, account):
        """Return the size in calm, else half of it."""
        return self.size if bar.calm > 0.0 else 0.5 * self.size


class Blind(bt.Policy):
    """Hold a leverage that changes with the calendar, and has nothing to do with prices."""

    def observe(self, market):
        """Return a leverage from .5 to 2 for each block of days."""
        return {"drawn": 1.25 + 0.75 * np.sin(12.9898 * number_blocks(market.time))}

    def leverage(self, bar, account):
        """Return the column."""
        return bar.drawn


def make_market(years: float, seed: int, *, drift: float = 1.0) -> bt.Market:
    """Return days of a market with calms and storms of twenty days each.

    In calm a day has a volatility of 1 %, and the drift that gives :data:`SHARPE` to a policy that
    holds it in calm alone. That is half of the days, so the mean of its returns is mu / 2 and their
    deviation sigma / sqrt(2): mu = SHARPE sqrt(2) sigma / sqrt(365). In a storm the volatility is
    2 %, without a drift. ``drift`` multiplies it.
    """
    rng = np.random.default_rng(seed)
    n = round(365 * years)
    index = pd.date_range("2015-01-01", periods=n, freq="1D", tz="UTC")

    is_calm = number_blocks(index.as_unit("ns").asi8) % 2 == 0
    sigma = np.where(is_calm, 0.01, 0.02)
    mu = np.where(is_calm, drift * SHARPE * np.sqrt(2.0) * 0.01 / np.sqrt(365.0), 0.0)

    close = 100.0 * np.exp(np.cumsum(mu - 0.5 * sigma**2 + sigma * rng.standard_normal(n)))
    opened = np.concatenate(([100.0], close[:-1]))

    bars = pd.DataFrame(
        {
            "open": opened,
            "high": np.maximum(opened, close),
            "low": np.minimum(opened, close),
            "close": close,
            "volume": 1e6,
        },
        index=index,
    )
    return bt.Market.from_frames(bars, instrument=f"M{seed}")


def make_test(market: Any, **changes: Any) -> bt.Backtest:
    return bt.Backtest(market, **{**TERMS, **changes})
