"""The bars of a scenario: made from its figures, or replayed from the data of its days."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from typing import NamedTuple

import numpy as np

from backtest.base import (
    DataError,
    FloatArray,
    ParameterError,
    did_you_mean,
    format_duration,
    format_time,
    parse_duration,
    to_nanoseconds,
)
from backtest.base.units import DAY
from backtest.market import Market
from backtest.risk.scenarios.scenario import Scenario

MONTH = 30 * DAY
"""The time before the end whose volatility a bridge scales."""


class ShockBars(NamedTuple):
    """Bars relative to the last close before them.

    ``last`` and ``mark`` (4, n) are open, high, low, close over that close; ``volume`` (n,) in
    contracts; ``stamps`` (ns after the open of the first bar) and ``rates`` are settlements.
    """

    last: FloatArray
    mark: FloatArray
    volume: FloatArray
    stamps: FloatArray
    rates: FloatArray


def make_flat_bars(n: int) -> ShockBars:
    still = np.ones((4, n))
    return ShockBars(still, still, np.zeros(n), np.zeros(0), np.zeros(0))


Bars = Mapping[str, ShockBars]


def find_moves(
    scenario: Scenario, markets: Mapping[str, Market], resting: Set[str] = frozenset()
) -> dict[str, float]:
    """Return the move of each market in a scenario, a fraction of its last close."""
    own = {} if scenario.prices is None else dict(scenario.prices)
    for name in own:
        if name not in markets:
            raise ParameterError(
                f"prices of scenario {scenario.name!r} must be of {', '.join(markets)}, "
                f"got {name!r}{did_you_mean(name, list(markets))}"
            )
    free = {name: market for name, market in markets.items() if name not in resting}
    rest = {name: own.get(name, 0.0) for name in markets if name in resting}
    if scenario.correlation is None:
        return {name: own.get(name, scenario.price) for name in free} | rest
    if len(free) < 2:
        raise ParameterError(
            f"correlation of scenario {scenario.name!r} needs several instruments that move, "
            f"got {', '.join(free)}"
        )
    leads = {name: move for name, move in own.items() if name in free}
    leads = leads or {next(iter(free)): scenario.price}
    sigma = {name: measure_recent(market) for name, market in free.items()}
    if not all(each > 0.0 for each in sigma.values()):
        sigma = dict.fromkeys(free, 1.0)
    z = float(np.mean([math.log1p(move) / sigma[name] for name, move in leads.items()]))
    return {
        name: leads[name] if name in leads else shrink(scenario.correlation * sigma[name] * z)
        for name in free
    } | rest


def shrink(log_move: float) -> float:
    """Return a log move as a fraction, over -1."""
    return max(math.expm1(log_move), math.nextafter(-1.0, 0.0))


def shift_scenario(
    scenario: Scenario, moves: Mapping[str, float], lead: str, move: float
) -> Scenario:
    before = moves[lead]
    if all(each == before for each in moves.values()):
        return scenario.override(
            price=max(move, math.nextafter(-1.0, 0.0)), prices=None, correlation=None
        )
    scale = math.log1p(move) / math.log1p(before)
    shifted = {name: shrink(scale * math.log1p(each)) for name, each in moves.items()}
    shifted[lead] = max(move, math.nextafter(-1.0, 0.0))
    return scenario.override(price=0.0, prices=shifted, correlation=None)


def make_all_bars(
    scenario: Scenario, markets: Mapping[str, Market], moves: Mapping[str, float], bare: Set[str]
) -> Bars:
    n = count_scenario_bars(scenario, next(iter(markets.values())).interval)
    rho = 1.0 if scenario.correlation is None else scenario.correlation
    rng = np.random.Generator(np.random.Philox(scenario.seed))
    first, found = rng.standard_normal(16 * n), {}
    for k, (name, market) in enumerate(markets.items()):
        own = first if k == 0 else rng.standard_normal(16 * n)
        noise = first if k == 0 else rho * first + math.sqrt(1.0 - rho * rho) * own
        alone = scenario.override(price=moves[name], prices=None, correlation=None)
        if name in bare:
            alone = alone.override(funding=None, basis=0.0)
        found[name] = make_bars(alone, market, n, noise)
    return found


def count_scenario_bars(scenario: Scenario, interval: int) -> int:
    if scenario.is_empty:
        return 0
    if scenario.over is None:
        return 1
    return max(-(-parse_duration(scenario.over) // interval), 1)


def make_bars(scenario: Scenario, market: Market, n: int, noise: FloatArray) -> ShockBars:
    steps = np.arange(1, n + 1) / max(n, 1)
    end = math.log1p(scenario.price)
    if scenario.shape == "bridge" and scenario.volatility > 0.0 and n > 1:
        last = walk_bridge(scenario, market, n, end, noise)
    else:
        close = np.exp(end * steps)
        start = np.concatenate([[1.0], close[:-1]])[:n]
        if n:
            close[-1] = 1.0 + scenario.price
        last = np.array([start, np.maximum(start, close), np.minimum(start, close), close])
    before = np.log(market.mark_close[-1] / market.close[-1])
    after = math.log1p(scenario.basis) if scenario.basis != 0.0 else before
    at = np.exp(before + (after - before) * steps)
    mark = last * at if n else last
    if n:
        first = np.exp(before + (after - before) * (steps - 1.0 / n))
        mark[0] = last[0] * first
        mark[1] = np.maximum(mark[1], np.maximum(mark[0], mark[3]))
        mark[2] = np.minimum(mark[2], np.minimum(mark[0], mark[3]))
    recent = market.volume[market.time > market.time[-1] - MONTH]
    paid = scenario.funding is not None and n > 0
    return ShockBars(
        last=last,
        mark=mark,
        volume=np.full(n, float(np.mean(recent))),
        stamps=np.array([(n - 1) * market.interval] if paid else [], dtype=np.int64),
        rates=np.array([scenario.funding] if paid else [], dtype=np.float64),
    )


def measure_recent(market: Market) -> float:
    """Return the standard deviation of the log returns of the last 30 days, per bar."""
    recent = market.close[market.time > market.time[-1] - MONTH]
    return float(np.std(np.diff(np.log(recent)))) if len(recent) > 2 else 0.0


def is_calm(bars: ShockBars, market: Market) -> bool:
    moves = np.diff(np.log(np.concatenate([[1.0], bars.last[3]])))
    size = float(np.sqrt(np.mean(moves**2))) if len(moves) > 1 else 0.0
    return 0.0 < size < measure_recent(market)


def walk_bridge(
    scenario: Scenario, market: Market, n: int, end: float, noise: FloatArray
) -> FloatArray:
    sigma, steps = measure_recent(market), 16 * n
    walk = np.cumsum(noise) * scenario.volatility * sigma / 4.0
    share = np.arange(1, steps + 1) / steps
    path = np.concatenate([[0.0], walk + share * (end - walk[-1])]).clip(-50.0, 50.0)
    parts = np.array([path[16 * k : 16 * k + 17] for k in range(n)])
    logs = np.array([parts[:, 0], parts.max(axis=1), parts.min(axis=1), parts[:, -1]])
    found = np.exp(logs)
    found[3, -1] = 1.0 + scenario.price
    found[1], found[2] = np.maximum(found[1], found[3]), np.minimum(found[2], found[3])
    return np.asarray(found)


def slice_replay(scenario: Scenario, data: Market | None, interval: int) -> ShockBars | None:
    if data is None or scenario.date is None or scenario.until is None:
        return None
    if scenario.asset != "any" and (scenario.asset == "stocks") != data.sessions:
        return None
    start = to_nanoseconds(scenario.date)
    stop = to_nanoseconds(scenario.until)
    first = int(np.searchsorted(data.time, start))
    last = int(np.searchsorted(data.time, stop))
    if first < 1 or stop > data.end or first >= last:
        return None
    if data.interval != interval:
        raise DataError(
            f"data must have the bars of the run for a replay of {scenario.name!r}, "
            f"{format_duration(interval)}, got {format_duration(data.interval)}"
        )
    return relate(data, first, last)


def relate(data: Market, first: int, last: int) -> ShockBars:
    names = ("open", "high", "low", "close")
    base = data.close[first - 1]
    part = slice(first, last)
    lead = data.time[first] - data.interval // 4
    events = (data.funding_time >= lead) & (data.funding_time < data.time[last - 1] + data.interval)
    return ShockBars(
        last=np.array([getattr(data, name)[part] / base for name in names]),
        mark=np.array([getattr(data, f"mark_{name}")[part] / base for name in names]),
        volume=data.volume[part],
        stamps=data.funding_time[events] - data.time[first],
        rates=data.funding_rate[events],
    )


def append_bars(market: Market, bars: ShockBars, base: float | None = None) -> Market:
    n = bars.last.shape[1]
    close = float(market.close[-1]) if base is None else base
    start = int(market.time[-1]) + market.interval
    time = start + market.interval * np.arange(n, dtype=np.int64)
    names = ("open", "high", "low", "close")
    fields = {name: np.concatenate([getattr(market, name), close * bars.last[j]])
              for j, name in enumerate(names)}  # fmt: skip
    fields |= {
        f"mark_{name}": np.concatenate([getattr(market, f"mark_{name}"), close * bars.mark[j]])
        for j, name in enumerate(names)
    }
    unknown = np.full(len(bars.stamps), np.nan)
    whole = market.fields() | fields
    whole |= {
        "time": np.concatenate([market.time, time]),
        "volume": np.concatenate([market.volume, bars.volume]),
        "funding_time": np.concatenate([market.funding_time, start + bars.stamps]).astype(np.int64),
        "funding_rate": np.concatenate([market.funding_rate, bars.rates]),
        "funding_mark": np.concatenate([market.funding_mark, unknown]),
        "funding_predicted": np.concatenate([market.funding_predicted, unknown]),
        "columns": {
            name: np.concatenate([each, np.full(n, each[-1])])
            for name, each in market.columns.items()
        },
        "synthetic": True,
        "has_mark": market.has_mark or not np.array_equal(bars.mark, bars.last),
    }
    return Market(**whole, source=f"{market.source} and {n} bars after {format_time(start)}")
