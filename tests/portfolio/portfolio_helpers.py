"""Small markets, venues and policies for tests of several positions."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import pandas as pd

import backtest as bt


class Hold(bt.Policy):
    """A constant leverage, which may be infinite."""

    level: Annotated[float, bt.Range(0.0, 1e9, "turns")] = 1.0

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return the level."""
        return self.level


class Once(bt.Policy):
    """Take a leverage at the first close, and leave the position alone afterwards."""

    level: Annotated[float, bt.Range(0.0, 100.0, "turns")] = 1.0

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return the level in the first day's first hour, then NaN."""
        return self.level if account.days < 1.5 / 24.0 else float("nan")


def make_market(rows: Sequence[Sequence[float]], start: str = "2024-01-01", **more):
    """Return an hourly market of rows (open, high, low, close)."""
    index = pd.date_range(start, periods=len(rows), freq="1h", tz="UTC")
    bars = pd.DataFrame(rows, columns=["open", "high", "low", "close"], index=index)
    bars["volume"] = 1e6
    return bt.Market.from_frames(bars, **more)


def flat(price: float) -> tuple[float, float, float, float]:
    """Return a bar that stays at a price."""
    return (price, price, price, price)


def make_venue(**more) -> bt.Venue:
    """Return a venue without costs, maintenance 5 %, leverage up to 20, closing."""
    given = {
        "taker": 0.0,
        "slippage": 0.0,
        "maintenance_rate": 0.05,
        "max_leverage": 20.0,
        "liquidation_fee": 0.0,
    }
    return bt.Venue.simple(**{**given, **more})


def simulate_pair(n: int = 600, seed: int = 0) -> bt.Markets:
    """Return two wild markets with funding, the second listed later and delisted earlier."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, first, stop in (("AAA", 0, n), ("BBB", n // 10, n - n // 10)):
        close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.02, n)))
        start = np.concatenate(([100.0], close[:-1]))
        wick = 1.0 + np.abs(rng.normal(0.0, 0.01, (2, n)))
        high, low = np.maximum(start, close) * wick[0], np.minimum(start, close) / wick[1]
        index = pd.date_range("2024-01-01", periods=n, freq="1h", tz="UTC")
        frame = pd.DataFrame(
            {"open": start, "high": high, "low": low, "close": close, "volume": 1e5}, index=index
        ).iloc[first:stop]
        stamps = frame.index[::8]
        funding = pd.DataFrame({"rate": rng.normal(0.0, 1e-3, len(stamps))}, index=stamps)
        found[name] = bt.Market.from_frames(frame, funding=funding)
    return bt.Markets(found, currency="USDT")
