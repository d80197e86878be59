"""Random draws of markets, venues and accounts: what the random cases are made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from backtest import Multiple

MINUTE = 60_000_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
START = 1_600_000_000_000_000_000 // DAY * DAY


def utc(stamps: Any) -> pd.DatetimeIndex:
    """Return UTC nanoseconds as an index, to the nanosecond."""
    return pd.DatetimeIndex(np.asarray(stamps, dtype=np.int64).view("datetime64[ns]"), tz="UTC")


@lru_cache(maxsize=256)
def make_clock(n_bars: int, interval: int) -> pd.DatetimeIndex:
    """Return the opens of bars from the start on: one index, which tables of a case share."""
    return utc(START + interval * np.arange(n_bars))


def tabulate(columns: Mapping[str, np.ndarray], index: pd.DatetimeIndex) -> pd.DataFrame:
    """Return a table of floats, made as one array: ten times as fast as from a dict of columns."""
    values = np.array([*columns.values()], dtype=float)
    return pd.DataFrame(values.T, index=index, columns=name_columns(*columns))


@lru_cache(maxsize=256)
def name_columns(*names: str) -> pd.Index:
    """Return names of columns as an index, which tables share."""
    return pd.Index(names)


def list_columns(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the columns of a table of numbers as arrays, which nobody writes into."""
    values = np.ascontiguousarray(table.to_numpy(dtype=float).T)
    return dict(zip(table.columns, values, strict=True))


@dataclass(frozen=True)
class Scene:
    """What the parts of a case have in common, so that they meet: sizes, speed, clock."""

    rng: np.random.Generator
    n_bars: int
    interval: int
    price: float
    capital: float
    leverage: float  # typical target
    sigma: float  # of one bar
    is_linear: bool

    @property
    def time(self) -> np.ndarray:
        return START + self.interval * np.arange(self.n_bars)

    @property
    def clock(self) -> pd.DatetimeIndex:
        return make_clock(self.n_bars, self.interval)

    @property
    def end(self) -> int:
        return START + self.interval * self.n_bars

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def spread(self, low: float, high: float) -> float:
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def pick(self, *options: Any) -> Any:
        return options[self.rng.integers(len(options))]

    def sometimes(self, probability: float, low: float, high: float, other: Any = 0.0) -> Any:
        return self.uniform(low, high) if self.chance(probability) else other


def draw_prices(
    scene: Scene, start: np.ndarray, close: np.ndarray, sigma: float
) -> dict[str, np.ndarray]:
    """Return the prices of bars of logarithms of opens and closes, with wicks."""
    wick = np.abs(scene.rng.normal(0, 0.5 * sigma, (2, scene.n_bars)))
    logs = {
        "open": start,
        "high": np.maximum(start, close) + wick[0],
        "low": np.minimum(start, close) - wick[1],
        "close": close,
    }
    return {name: np.exp(values) for name, values in logs.items()}


def make_contract(scene: Scene) -> dict[str, Any]:
    """Draw a contract; lots and smallest trades are felt, but do not stop all trading."""
    size = scene.pick(1.0, 0.001, 0.37) if scene.is_linear else scene.pick(1.0, 100.0, 7.3)
    unit = size * scene.price if scene.is_linear else size / scene.price
    lot = scene.sometimes(0.4, 0.003, 0.2) * scene.capital / unit
    return {
        "kind": "linear" if scene.is_linear else "inverse", "size": size, "lot": lot, "tick": 0.01,
        "min_notional": scene.sometimes(0.3, 0.01, 0.4) * scene.capital,
    }  # fmt: skip


def make_volume(scene: Scene, close: np.ndarray, contract: dict[str, Any]) -> np.ndarray:
    unit = contract["size"] * (close if scene.is_linear else 1.0 / close)
    money = scene.capital * scene.leverage * scene.spread(2, 500)
    return money / unit * np.exp(scene.rng.normal(0, 0.7, scene.n_bars))


def make_funding(scene: Scene, close: np.ndarray) -> pd.DataFrame | None:
    """Draw settlements: at opens but for some milliseconds or seconds, or anywhere in the bar."""
    if scene.chance(0.15):
        return None

    rng = scene.rng
    every = int(scene.pick(HOUR, 4 * HOUR, 8 * HOUR, scene.interval, scene.interval // 3))
    stamps = START + np.arange(-(-(scene.end - START) // every) + 1) * every  # to the end and on
    off = scene.pick(5e6, 5e9, 70e9, every / 3)  # 5 ms, 5 s, 70 s (over the jitter), anywhere
    stamps = np.unique(stamps + rng.uniform(-off, off, stamps.size).astype(np.int64))

    bar = np.clip((stamps - START) // scene.interval, 0, scene.n_bars - 1)
    mark = close[bar] * np.exp(rng.normal(0, scene.sigma, stamps.size))
    mark[rng.random(stamps.size) >= scene.pick(0.0, 0.5, 1.0)] = np.nan

    spread = scene.pick(1e-4, 0.02 / scene.leverage, 0.1 / scene.leverage)
    rate = np.clip(rng.normal(0, spread, stamps.size), -0.099, 0.099)
    return tabulate({"rate": rate, "mark": mark}, utc(stamps))


def make_targets(scene: Scene) -> np.ndarray:
    """Draw leverages around the typical one; some NaN, infinite, zero."""
    rng = scene.rng
    n = scene.n_bars
    keeps_last = rng.random(n) < scene.pick(0.0, 0.7)
    level = scene.leverage * np.exp(rng.normal(0, scene.pick(0.05, 0.6), n))
    targets = level[np.maximum.accumulate(np.where(keeps_last, 0, np.arange(n)))]

    targets[rng.random(n) < scene.pick(0.0, 0.15)] = np.nan
    targets[rng.random(n) < scene.pick(0.0, 0.0, 0.1, 0.9)] = np.inf
    targets[rng.random(n) < scene.pick(0.0, 0.05)] = 0.0
    return targets


def make_brackets(scene: Scene, taker: float) -> list[dict[str, Any]]:
    """Draw 1 to 4 brackets that the position crosses, each clearly dearer than the last."""
    count = int(scene.rng.integers(1, 5))
    rate = min(scene.spread(0.002, 0.03), 0.6 / scene.leverage)
    floor = 0.0
    cap = scene.capital * scene.leverage * scene.spread(0.1, 3.0)
    most = 1e9

    rows = []
    for k in range(count):
        most = max(1.0, min(0.98 * most, scene.uniform(0.4, 0.95) / (rate + taker)))
        if k == count - 1:
            cap *= scene.pick(1.0, 1e6)
        rows.append({"floor": floor, "cap": cap, "max_leverage": most, "maintenance_rate": rate})

        floor = cap
        cap *= scene.uniform(1.3, 3.0)
        rate = min(0.8, rate * scene.uniform(1.3, 3.0))
    return rows


def make_fees(scene: Scene) -> dict[str, Any]:
    return {
        "taker": scene.pick(0.0, 5e-4, 2e-3),
        "maker": scene.pick(-2e-4, 0.0, 2e-4),
        "maker_share": scene.sometimes(0.3, 0.0, 1.0),
    }


def make_slippage(scene: Scene) -> dict[str, Any]:
    return {
        "rate": scene.sometimes(0.7, 1e-5, 3e-3),
        "impact": scene.sometimes(0.4, 0.05, 0.4) / (DAY // scene.interval) ** 0.5,
        "impact_window": f"{scene.pick(3, 4, 10, 24) * scene.interval // MINUTE}m",
        "max_participation": scene.sometimes(0.2, 0.005, 0.2, None),
    }


def make_liquidation(scene: Scene) -> dict[str, Any]:
    mode = scene.pick("close", "takeover", "partial", "partial")
    full_below = scene.sometimes(0.4, 0.0, 1.0) * scene.capital * scene.leverage
    return {
        "mode": mode,
        "fee": scene.sometimes(0.8, 0.0, 0.3 / max(scene.leverage, 6.0)),
        "slippage": scene.sometimes(0.7, 0.0, 0.3 / max(scene.leverage, 6.0)),
        "step": "bracket" if scene.chance(0.4) else scene.uniform(0.1, 0.7),
        "full_below": full_below if mode == "partial" else 0.0,
    }


def make_rate(scene: Scene, high: float) -> Any:
    """Draw an annual rate: none, one, or a series that starts before the market."""
    kind = scene.pick("none", "one", "series")
    if kind == "series":
        return make_series(scene, 0.0, high)
    return scene.uniform(0, high) if kind == "one" else 0.0


def make_series(scene: Scene, low: float, high: float) -> pd.Series:
    stamps = scene.rng.integers(START, scene.end, 6)
    stamps = np.unique(np.concatenate([[START - DAY], stamps]))
    return pd.Series(scene.rng.uniform(low, high, stamps.size), index=utc(stamps))


def make_carry(scene: Scene) -> dict[str, Any]:
    interest_on = scene.pick("balance", "loan")
    return {
        "interest_on": interest_on,
        "borrow_rate": make_rate(scene, 3.0),
        "cash_rate": make_rate(scene, 0.5),
        "short_rate": make_rate(scene, 3.0) if interest_on == "loan" else 0.0,
        "day_count": scene.pick(365, 360),
        "funding_jitter": scene.pick("60s", "60s", "2s"),
        "isolated_funding": scene.pick("margin", "wallet"),
    }


def draw_exits(rng: np.random.Generator, typical: float, *names: str) -> dict[str, Any]:
    """Draw exits of these names: none, plain, or in multiples of a column."""
    exits: dict[str, Any] = {}
    for name in names:
        factor = float(np.exp(rng.uniform(np.log(0.7), np.log(6.0))))
        kind = rng.choice(["none", "plain", "price", "fraction"], p=[0.4, 0.3, 0.15, 0.15])
        exits[name] = {
            "none": None,
            "plain": min(0.9, factor * typical),
            "price": Multiple(factor, "width"),
            "fraction": Multiple(factor, "sigma", unit="fraction"),
        }[str(kind)]
    return exits


def make_flows(scene: Scene) -> pd.Series:
    count = int(scene.rng.integers(1, 7))
    stamps = np.unique(scene.rng.integers(START, scene.end - scene.interval, count))
    amounts = scene.rng.normal(0, scene.pick(0.2, 1.0), stamps.size) * scene.capital
    return pd.Series(amounts, index=utc(stamps))
