"""Bars of scenarios: made from figures, replayed from data, or from the crashes that are shipped.

``crash_bars.csv`` are facts of the markets: hours of coins, whose prices are over the first open
(of the coin's last price), and days of stocks, over the close before.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import NamedTuple

import numpy as np
import pandas as pd

from backtest import core
from backtest.core.units import DAY, HOUR
from backtest.market import Market, find_coin
from backtest.risk.funding_process import MONTH
from backtest.risk.path_bars import MARKS, PRICES, append_bars
from backtest.risk.scenarios import FILE, MOVES, Scenario, crashes


class ShockBars(NamedTuple):
    """Open, high, low and close (4, n) over the last close before, and settlements.

    ``stamps`` are ns after the open of the first bar.
    """

    last: core.FloatArray
    mark: core.FloatArray
    volume: core.FloatArray
    stamps: core.FloatArray
    rates: core.FloatArray


Bars = Mapping[str, ShockBars]


def make_flat_bars(n: int) -> ShockBars:
    """Return bars at the last close, without volume and funding."""
    ones = np.ones((4, n))
    return ShockBars(
        last=ones,
        mark=ones,
        volume=np.zeros(n),
        stamps=np.zeros(0),
        rates=np.zeros(0),
    )


def complete_bars(
    market: Market,
    last: core.FloatArray,
    mark: core.FloatArray,
    funding: float | None,
) -> ShockBars:
    """Return bars with the mean volume of a month, and funding at the open of the last one."""
    n = last.shape[1]
    is_recent = market.time > market.time[-1] - MONTH
    recent = market.volume[is_recent]
    stamps = []
    rates = []
    if funding is not None:
        stamps = [(n - 1) * market.interval]
        rates = [funding]

    return ShockBars(
        last=last,
        mark=mark,
        volume=np.full(n, float(np.mean(recent))),
        stamps=np.array(stamps, dtype=np.int64),
        rates=np.array(rates, dtype=np.float64),
    )


def slice_replay(
    scenario: Scenario,
    data: Market | None,
    interval: int,
) -> ShockBars | None:
    """Return the bars of data in the days of a scenario, None where they do not cover them."""
    if data is None or scenario.date is None or scenario.until is None:
        return None
    is_of_stocks = scenario.asset == "stocks"
    if scenario.asset != "any" and is_of_stocks != data.sessions:
        return None

    # The close before the first bar is what all prices are over.
    start = core.to_nanoseconds(scenario.date)
    stop = core.to_nanoseconds(scenario.until)
    first, last = np.searchsorted(data.time, [start, stop]).tolist()
    if first < 1 or stop > data.end or first >= last:
        return None
    if data.interval != interval:
        raise core.DataError(
            f"data must have the bars of the run for a replay of {scenario.name!r}, "
            f"{core.format_duration(interval)}, got {core.format_duration(data.interval)}"
        )

    part = data.slice(first, last)
    close_before = data.close[first - 1]
    last = np.array([getattr(part, name) for name in PRICES])
    mark = np.array([getattr(part, name) for name in MARKS])
    return ShockBars(
        last=last / close_before,
        mark=mark / close_before,
        volume=part.volume,
        stamps=part.funding_time - part.time[0],
        rates=part.funding_rate,
    )


def replay_crash(
    scenario: Scenario,
    markets: Mapping[str, Market],
    resting: Set[str],
    bare: Set[str],
) -> tuple[Bars, str] | None:
    """Return the shipped bars of a crash for each market, and what a row says of them.

    None if prices move otherwise than in the crash of its name, if markets are of another kind, or
    their bars do not fit.
    """
    if not moves_as_shipped(scenario):
        return None

    paths = read_bars(scenario)
    market = next(iter(markets.values()))
    is_stocks = scenario.asset == "stocks"
    if not paths or is_stocks != market.sessions:
        return None

    # Bars of the market are several of those shipped, or, of coins, parts of an hour.
    interval = market.interval
    step = DAY if is_stocks else HOUR
    is_longer = interval % step == 0
    is_part = step % interval == 0 and not is_stocks
    if not is_longer and not is_part:
        return None

    deepest = find_deepest(paths)
    bars = {}
    borrowing = []
    for name, own_market in markets.items():
        coin = find_coin(own_market.instrument) or name
        path = paths.get(coin, paths[deepest])
        last, mark = fit_bars(path, interval / step)
        if name in resting:
            bars[name] = make_flat_bars(last.shape[1])
            continue

        # A coin whose bars are not shipped takes those of the coin that fell most.
        if coin not in paths:
            borrowing.append(name)
        funding = None if name in bare else scenario.funding
        bars[name] = complete_bars(own_market, last, mark, funding)

    # The bars of stocks are those of one index, for all of them.
    if is_stocks or not borrowing:
        return bars, "history"
    return bars, f"history; {', '.join(borrowing)}: rows of {deepest}"


def moves_as_shipped(scenario: Scenario) -> bool:
    """Return whether prices move as in the shipped crash of the name of a scenario."""
    for crash in crashes():
        if crash.name == scenario.name:
            shipped = [getattr(crash, field) for field in MOVES]
            return shipped == [getattr(scenario, field) for field in MOVES]
    return False


def read_bars(scenario: Scenario) -> dict[str, core.FloatArray]:
    """Return bars of last prices and of marks, (2, 4, n), by coin."""
    rows = pd.read_csv(FILE.with_name("crash_bars.csv"))
    rows = rows[rows["episode"] == scenario.name]

    paths = {}
    for coin, part in rows.groupby("coin"):
        last = part[list(PRICES)].to_numpy().T
        mark = part[list(MARKS)].to_numpy().T
        paths[str(coin)] = np.stack([last, mark])
    return paths


def find_deepest(paths: Mapping[str, core.FloatArray]) -> str:
    """Return the coin whose mark fell most from a high of the crash."""
    lowest = {}
    for coin, (_, mark) in paths.items():
        _, high, low, _ = mark
        peaks = np.maximum.accumulate(high)
        lowest[coin] = np.min(low / peaks)
    return min(lowest, key=lowest.__getitem__)


def fit_bars(path: core.FloatArray, ratio: float) -> core.FloatArray:
    """Return bars (2, 4, n) of ``ratio`` times their length: prices and marks, by open to close.

    ``path`` (2, 4, n_shipped) are the bars that are shipped. Longer bars join some of them. Of
    several shorter ones in their place, the first goes all the way, and the others stay at its
    close.
    """
    # Shorter bars: all at the close of the one that is shipped, but for the first of its place.
    if ratio < 1.0:
        n_parts = round(1.0 / ratio)
        closes = np.broadcast_to(path[:, 3:], path.shape)
        shorter = np.repeat(closes, n_parts, axis=2)
        shorter[:, :, ::n_parts] = path
        return shorter

    # A longer bar has the first open, the extremes, and the last close of those that it joins.
    n_shipped = path.shape[2]
    firsts = np.arange(0, n_shipped, round(ratio))
    ends = np.append(firsts[1:], n_shipped)
    lasts = ends - 1
    open_ = path[:, 0, firsts]
    high = np.maximum.reduceat(path[:, 1], firsts, axis=1)
    low = np.minimum.reduceat(path[:, 2], firsts, axis=1)
    close = path[:, 3, lasts]
    return np.stack([open_, high, low, close], axis=1)


def go_on(market: Market, bars: ShockBars) -> Market:
    """Return a market with the bars of a scenario after its last one.

    Prices of ``bars`` are in parts of the last close, times of settlements in ns from the start.
    """
    close = float(market.close[-1])
    start = int(market.time[-1]) + market.interval
    n = len(bars.volume)
    ahead = {
        "time": start + market.interval * np.arange(n, dtype=np.int64),
        "volume": bars.volume,
        "funding_time": np.asarray(start + bars.stamps, dtype=np.int64),
        "funding_rate": bars.rates,
    }
    is_apart = not np.array_equal(bars.mark, bars.last)
    has_mark = market.has_mark or is_apart
    return append_bars(
        market,
        close * bars.last,
        close * bars.mark,
        ahead,
        source=f"{market.source} and {n} bars after {core.format_time(start)}",
        has_mark=has_mark,
    )


def count_bars(bars: Bars) -> int:
    """Return the bars of a scenario, the same for all markets."""
    first = next(iter(bars.values()))
    return int(first.last.shape[1])


def measure_fall(bars: Bars) -> float:
    """Return how far the mark falls from a high of a scenario, or its start, at worst; 0 to 1."""
    falls = [0.0]
    for shock in bars.values():
        if shock.mark.shape[1] == 0:
            continue

        _, high, low, _ = shock.mark
        peaks = np.maximum.accumulate(np.maximum(high, 1.0))
        falls.append(1.0 - float(np.min(low / peaks)))

    return max(falls)
