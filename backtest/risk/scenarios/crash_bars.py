"""The bars of historical crashes: hours of six coins, days of the S&P 500, as shipped.

Prices are over the first open (hours, of the coin's last price) or over the close before (days).
They are facts of the markets: ``crash_hours.csv`` and ``crash_days.csv``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from backtest.base import FloatArray, find_coin, to_nanoseconds
from backtest.base.units import DAY, HOUR
from backtest.market import SESSIONS, Market, bars_per_year
from backtest.risk.scenarios.scenario import Scenario
from backtest.risk.scenarios.scenario_bars import MONTH, Bars, ShockBars, make_flat_bars

OTHERS = ("ADA", "LTC", "XRP")
"""The coins whose median is the path of a coin that is not among the hours."""
FIELDS = ("open", "high", "low", "close")
MARKS = tuple(f"mark_{name}" for name in FIELDS)
MOVES = ("price", "prices", "correlation", "over", "shape", "basis", "date", "until")
"""Fields of a scenario that say how prices move."""


@functools.cache
def read_table(name: str) -> pd.DataFrame:
    return pd.read_csv(Path(__file__).with_name(name))


def replay_crash(
    scenario: Scenario,
    known: Mapping[str, Scenario],
    markets: Mapping[str, Market],
    resting: Set[str],
    bare: Set[str],
) -> tuple[Bars, str] | None:
    """Return the shipped bars of a crash for each market, and what a row says of them.

    None if the scenario moves prices otherwise than the crash of its name, or bars do not fit into
    those of the run.
    """
    same = known.get(scenario.name)
    if same is None or any(getattr(scenario, name) != getattr(same, name) for name in MOVES):
        return None
    market = next(iter(markets.values()))
    coins = {name: find_coin(each.instrument) or name for name, each in markets.items()}
    paths = read_days(scenario) if scenario.asset == "stocks" else read_hours(scenario)
    step = DAY if scenario.asset == "stocks" else HOUR
    parts = count_parts(market, step)
    if not paths or not (parts > 1 or market.interval % step == 0 or market.sessions):
        return None
    taken, found = [], {}
    for name, each in markets.items():
        path = paths.get(coins[name], paths[""])
        taken += [] if coins[name] in paths or scenario.asset == "stocks" else [name]
        if scenario.asset == "stocks" and not market.sessions:
            path = fill_weekends(path, scenario)
        bars = fit_bars(path, parts, max(market.interval // step, 1))
        if name in resting:
            found[name] = make_flat_bars(bars.shape[2])
        else:
            found[name] = shape_bars(scenario, each, bars, has_funding=name not in bare)
    names = ", ".join(name for name in taken if name not in resting)
    return found, f"history; {names}: median of {', '.join(OTHERS)}" if names else "history"


def read_hours(scenario: Scenario) -> dict[str, FloatArray]:
    """Return bars of last prices and of marks, (2, 4, n), by coin; "" is the median of some."""
    rows = read_table("crash_hours.csv")
    rows = rows[rows["episode"] == scenario.name]
    found = {
        str(coin): np.stack([part[list(names)].to_numpy().T for names in (FIELDS, MARKS)])
        for coin, part in rows.groupby("coin")
    }
    if found:
        found[""] = np.median([found[coin] for coin in OTHERS], axis=0)
    return found


def read_days(scenario: Scenario) -> dict[str, FloatArray]:
    """Return daily bars, (2, 4, n); marks are last prices."""
    rows = list_days(scenario)
    days = rows[list(FIELDS)].to_numpy().T
    return {"": np.stack([days, days])} if len(rows) else {}


def list_days(scenario: Scenario) -> pd.DataFrame:
    rows = read_table("crash_days.csv")
    inside = (rows["date"] >= str(scenario.date)) & (rows["date"] < str(scenario.until))
    return rows[inside & (rows["episode"] == scenario.name)]


def fill_weekends(path: FloatArray, scenario: Scenario) -> FloatArray:
    """Return days of a market that never closes: flat where stocks did not trade."""
    times = [to_nanoseconds(date) // DAY for date in list_days(scenario)["date"]]
    day = np.arange(times[0], times[-1] + 1)
    last = np.searchsorted(times, day, side="right") - 1
    bars = path[:, :, last].copy()
    closed = ~np.isin(day, times)
    bars[:, :, closed] = bars[:, 3:, closed]
    return bars


def count_parts(market: Market, step: int) -> int:
    """Return how many bars of a market a step of the history takes, 1 if not several."""
    if market.interval >= step:
        return 1
    if market.sessions and step == DAY:
        return max(round(float(np.nanmax(np.atleast_1d(bars_per_year(market))[-1]) / SESSIONS)), 1)
    return step // market.interval if step % market.interval == 0 else 1


def fit_bars(path: FloatArray, parts: int, together: int) -> FloatArray:
    """Return bars (2, 4, n) of another length: each in several parts, or several together."""
    if parts > 1:
        return np.stack([np.hstack([*map(np.array, split_all(each, parts))]) for each in path])
    starts = np.arange(0, path.shape[2], together)
    return np.stack([
        np.stack([
            each[0, starts],
            np.maximum.reduceat(each[1], starts),
            np.minimum.reduceat(each[2], starts),
            each[3, np.append(starts[1:], path.shape[2]) - 1],
        ])
        for each in path
    ])  # fmt: skip


def split_all(path: FloatArray, parts: int) -> Iterator[list[FloatArray]]:
    """Yield each bar as shorter ones along open, the nearer extreme, the other, and close.

    The logarithm of the price moves at one speed; rising bars go by their low, falling ones by
    their high first.
    """
    for first, high, low, close in path.T.tolist():
        turns = [low, high] if close >= first else [high, low]
        logs = np.log([first, *turns, close])
        way = np.concatenate(([0.0], np.cumsum(np.abs(np.diff(logs)))))
        edges = np.linspace(0.0, way[-1], parts + 1)
        at = np.interp(edges, way, logs)
        inside = np.clip(np.searchsorted(edges, way[1:3], side="right") - 1, 0, parts - 1)
        tops, bottoms = np.maximum(at[:-1], at[1:]), np.minimum(at[:-1], at[1:])
        np.maximum.at(tops, inside, logs[1:3])
        np.minimum.at(bottoms, inside, logs[1:3])
        yield [np.exp(each) for each in (at[:-1], tops, bottoms, at[1:])]


def shape_bars(
    scenario: Scenario, market: Market, bars: FloatArray, *, has_funding: bool
) -> ShockBars:
    n = bars.shape[2]
    is_paid = scenario.funding is not None and has_funding
    recent: Any = market.volume[market.time > market.time[-1] - MONTH]
    return ShockBars(
        last=bars[0],
        mark=bars[1],
        volume=np.full(n, float(np.mean(recent))),
        stamps=np.array([(n - 1) * market.interval] if is_paid else [], dtype=np.int64),
        rates=np.array([scenario.funding] if is_paid else [], dtype=np.float64),
    )
