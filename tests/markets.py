"""Simulated markets and a venue without costs, to hold policies to their closed forms."""

import math
from typing import Any

import numpy as np
import pandas as pd

import backtest as bt

YEAR = 8760
"""Hours."""


def free_venue(**terms: Any) -> bt.Venue:
    """Return a venue without costs and nearly without margin; compiles as the presets do."""
    return bt.Venue(
        contract=bt.Contract(lot=0.0, tick=1e-8, min_notional=0.0),
        brackets=[bt.Bracket(0.0, 1e15, 1000.0, 1e-6), bt.Bracket(1e15, 1e16, 999.0, 2e-6)],
        fees=bt.Fees(taker=0.0, maker=0.0),
        slippage=bt.Slippage(rate=0.0),
        liquidation=bt.Liquidation(mode="close", fee=0.0, slippage=0.0),
        **terms,
    )


def market_of(close: np.ndarray, freq: str = "1h", **columns: np.ndarray) -> bt.Market:
    """Return a market of closes, each bar opening at the close before."""
    opens = np.concatenate([close[:1], close[:-1]])
    return bars_market(opens, close, freq, **columns)


def bars_market(
    opens: np.ndarray, close: np.ndarray, freq: str = "1h", **columns: np.ndarray
) -> bt.Market:
    """Return a market of opens and closes."""
    bars = {
        "open": opens,
        "high": np.maximum(opens, close),
        "low": np.minimum(opens, close),
        "close": close,
        **columns,
    }
    index = pd.date_range("2020-01-01", periods=len(close), freq=freq, tz="UTC")
    return bt.Market.from_frames(pd.DataFrame(bars, index=index))


def walk(n: int, mu: float, sigma: float | np.ndarray, seed: int) -> bt.Market:
    """Return hourly bars of a geometric Brownian motion: dS / S = mu dt + sigma dW, annual."""
    noise = np.random.default_rng(seed).standard_normal(n)
    steps = (mu - 0.5 * np.square(sigma)) / YEAR + sigma / math.sqrt(YEAR) * noise
    return market_of(100.0 * np.exp(np.cumsum(steps)))


def live(market: bt.Market, policy: bt.Policy, **settings: Any) -> bt.Result:
    """Run without costs."""
    settings = {"venue": free_venue(), "account": bt.Account(), **settings}
    return bt.run(market, policy, **settings)


def find_touches(position, price, low, high, bars):
    """Return whether each close's liquidation price is touched in so many bars, and is known."""
    low = pd.Series(low).rolling(bars).min().shift(-bars).to_numpy()
    high = pd.Series(high).rolling(bars).max().shift(-bars).to_numpy()
    is_known = ~np.isnan(low) & ~np.isnan(price) & (position != 0.0)
    return np.where(position > 0.0, low <= price, high >= price) & is_known, is_known
