"""Simulated prices for the replications, and a venue without costs or limits."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

import backtest as bt

FloatArray = npt.NDArray[np.float64]
YEAR = 8760
"""Hours."""


def venue_of(taker: float = 0.0, **terms: Any) -> bt.Venue:
    """Return a venue without costs that are not said, nearly without margin, of any size."""
    return bt.Venue(
        contract=bt.Contract(lot=0.0, tick=1e-8, min_notional=0.0),
        brackets=[bt.Bracket(0.0, 1e200, 1000.0, 1e-6), bt.Bracket(1e200, 1e201, 999.0, 2e-6)],
        fees=bt.Fees(taker=taker, maker=taker),
        slippage=bt.Slippage(rate=0.0),
        liquidation=bt.Liquidation(mode="close", fee=0.0, slippage=0.0),
        **terms,
    )


FREE = venue_of()


class Jumps(NamedTuple):
    """Kou's (2002) jumps: ``rate`` a year, a share ``down`` of them falls.

    The logarithm of the price moves by an exponential variable of mean ``mean_down`` or
    ``mean_up``.
    """

    rate: float
    down: float
    mean_down: float
    mean_up: float


def market_of(close: FloatArray, interval: str = "1h", **columns: npt.ArrayLike) -> bt.Market:
    """Return a market of closes from 1970 on, each bar opening at the close before."""
    opens = np.concatenate([close[:1], close[:-1]])
    bars = {
        "open": opens, "high": np.maximum(opens, close), "low": np.minimum(opens, close),
        "close": close, **columns,
    }  # fmt: skip
    index = pd.date_range("1970-01-01", periods=len(close), freq=interval, tz="UTC")
    return bt.Market.from_frames(pd.DataFrame(bars, index=index), now="2100-01-01")


def market_of_returns(daily: pd.Series) -> bt.Market:
    """Return a bar per session, opening at the close before, from simple returns by day."""
    close = 100.0 * np.cumprod(1.0 + daily.to_numpy())
    opens = np.concatenate([close[:1], close[:-1]])
    bars = {"open": opens, "high": np.maximum(opens, close), "low": np.minimum(opens, close)}
    index = pd.DatetimeIndex(daily.index, name="time")
    return bt.Market.from_frames(pd.DataFrame({**bars, "close": close}, index=index), sessions=True)


def walk(noise: FloatArray, mu: float, sigma: float, per_year: int = YEAR) -> FloatArray:
    """Return closes of dS / S = mu dt + sigma dW from standard normal noise, the first 100.

    Parameters
    ----------
    noise : array of shape (n_bars - 1,)
        One draw per bar after the first.
    mu, sigma : float
        Annual drift and volatility.
    per_year : int
        Bars a year.
    """
    steps = (mu - 0.5 * sigma**2) / per_year + sigma / math.sqrt(per_year) * noise
    return 100.0 * np.exp(np.concatenate([[0.0], np.cumsum(steps)]))


def mirrored_walks(
    n_bars: int, mu: float, sigma: float, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Return two walks whose noise is that of the other with the opposite sign.

    In their mean, what is linear in the noise cancels: the error that is left is that of the
    realised variance, sqrt(2 / n_bars) of it.
    """
    noise = np.random.default_rng(seed).standard_normal(n_bars - 1)
    return walk(noise, mu, sigma), walk(-noise, mu, sigma)


def jump_walk(
    n_bars: int,
    mu: float,
    sigma: float,
    jumps: Jumps,
    rng: np.random.Generator,
    per_year: int = YEAR,
) -> FloatArray:
    """Return closes of dS / S = mu dt + sigma dW + d(jumps), the first 100; mu is without jumps."""
    plain = walk(rng.standard_normal(n_bars - 1), mu, sigma, per_year)
    count = rng.poisson(jumps.rate * (n_bars - 1) / per_year)
    falls = rng.random(count) < jumps.down
    size = rng.exponential(np.where(falls, jumps.mean_down, jumps.mean_up))
    logs = np.zeros(n_bars)
    np.add.at(logs, rng.integers(1, n_bars, count), np.where(falls, -size, size))
    return plain * np.exp(np.cumsum(logs))


def live(market: bt.Market, policy: bt.Policy, **settings: Any) -> bt.Result:
    """Run an account of one without costs, unless settings say otherwise."""
    settings = {"venue": FREE, "account": bt.Account(capital=1.0), **settings}
    return bt.run(market, policy, **settings)
