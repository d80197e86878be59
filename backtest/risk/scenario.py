"""Scenarios, and their bars: made from figures, replayed from data or from the crashes shipped.

``crash_hours.csv`` and ``crash_days.csv`` are facts of the markets; prices are over the first open
(hours, of the coin's last price) or over the close before (days).
"""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd

from backtest import core
from backtest.account import ByInstrument
from backtest.core.units import DAY, HOUR
from backtest.market import Market, find_coin
from backtest.risk.paths import MARKS, MONTH, PRICES, append_bars, bound_extremes

SCALE = core.Number(0.0)
MOVE = core.Number(-1.0, open_low=True)
FILE = Path(__file__).with_name("crashes.toml")


class Scenario(core.Value):
    """A shock. The defaults change nothing.

    Parameters
    ----------
    name : str
        Its name.
    price : float
        The move of the price from the last close, a fraction over -1: -0.3 is a fall of 30 %.
    over : str, optional
        The time the move takes, for example ``"2h"``, in whole bars of the market; by default one
        bar.
    shape : str
        ``"bridge"``: a random walk over several bars that ends at the move, with the volatility
        below; one bar has the move alone. ``"line"``: at the same rate in each bar. ``"bar"``: all
        in one bar, whose extreme is its close.
    volatility : float
        Times the volatility of the last 30 days, for ``"bridge"``; 0 makes it a line.
    funding : float, optional
        The rate of one settlement, at the open of the last bar; positive: longs pay.
    spread : float
        Times the slippage of orders and of liquidations.
    depth : float
        The share of the market's volume that is left; impact is as if the daily volume were so.
    margin : float
        Times the maintenance and initial margin.
    outage : str, optional
        The time from the start in which neither decisions nor stops act; in whole bars, rounded up.
        Liquidations and funding go on.
    adl : float
        The share of a winning position that the venue closes (auto-deleveraging) at the bankruptcy
        price of a counterparty that entered at the start, if the price goes beyond it.
    adl_leverage : float
        The leverage of that counterparty.
    venue_default : float
        The share that is lost of what the account has at the venue, which defaults after the last
        bar: its equity there, positions at their marks. The account's ``reserve`` is elsewhere.
    basis : float
        Mark over last at the end, less 1; it grows evenly over the bars.
    implied_volatility : float
        The move of the implied volatility of options, a fraction over -1: 0.5 is half as much
        again. It grows evenly over the bars, and in each bar before the price moves.
    prices : mapping of str to float, optional
        Moves of single instruments of an account with several, and of its collateral by name; the
        others move by ``price``, except collateral with a constant price.
    correlation : float, optional
        Instruments without a move of their own move with those of ``prices``, or else with the
        first, which moves by ``price``: by this, times their volatility over that of the others.
        Where only one market moves, it is refused.
    date : str, optional
        When it happened, in UTC: the first bar of an episode of history.
    until : str, optional
        When it ended, in UTC, not included.
    asset : str
        Whose figures these are: ``"crypto"``, ``"stocks"``, or ``"any"``. Data of another kind are
        not replayed: stocks are data with sessions.
    source : str
        Where its figures are from.
    seed : int
        Of the random walk of ``"bridge"``.
    """

    name: Annotated[str, core.Text()]
    price: Annotated[float, MOVE] = 0.0
    over: Annotated[str | None, core.Duration()] = None
    shape: Annotated[str, core.Choice("bridge", "line", "bar")] = "bridge"
    volatility: Annotated[float, SCALE] = 1.0
    funding: Annotated[float | None, core.Number(-1.0, 1.0)] = None
    spread: Annotated[float, SCALE] = 1.0
    depth: Annotated[float, core.Number(0.0, 1e6, open_low=True)] = 1.0
    margin: Annotated[float, core.Number(0.0, open_low=True)] = 1.0
    outage: Annotated[str | None, core.Duration()] = None
    adl: Annotated[float, core.Number(0.0, 1.0)] = 0.0
    adl_leverage: Annotated[float, core.Number(1.0)] = 20.0
    venue_default: Annotated[float, core.Number(0.0, 1.0)] = 0.0
    basis: Annotated[float, MOVE] = 0.0
    implied_volatility: Annotated[float, MOVE] = 0.0
    prices: Annotated[Mapping[str, float] | None, ByInstrument(MOVE)] = None
    correlation: Annotated[float | None, core.Number(-1.0, 1.0)] = None
    date: Annotated[str | None, core.Time()] = None
    until: Annotated[str | None, core.Time()] = None
    asset: Annotated[str, core.Choice("any", "crypto", "stocks")] = "any"
    source: str = ""
    seed: Annotated[int, core.Whole(0)] = 0

    def faults(self) -> core.Faults:
        if self.shape == "bar" and self.over is not None:
            yield "over", "must be left out with shape 'bar', which lasts one bar"
        if self.prices is not None and not isinstance(self.prices, Mapping):
            yield "prices", "must name instruments, {'ETHUSDT': -0.4}; price is the move of all"
        if self.prices is not None and self.correlation is not None and self.price != 0.0:
            yield "price", "must be left out: prices with a correlation move all instruments"
        if (self.date is None) != (self.until is None):
            yield "until", "must be given with date, and only with it"
        elif self.date is not None and core.read_time(self.until) <= core.read_time(self.date):
            yield "until", f"must be after date {self.date}"


@functools.cache
def crashes() -> tuple[Scenario, ...]:
    """Return historical crashes of bitcoin and of stocks, with their dates and sources.

    Figures that no source gives are at their defaults: they change nothing.

    Examples
    --------
    >>> [each.name for each in crashes()][2:4]
    ['2020-03-12', '2021-05-19']
    """
    with FILE.open("rb") as file:
        found = tomllib.load(file)["episode"]
    return tuple(Scenario.from_dict(each, where=FILE.name) for each in found)


class ShockBars(NamedTuple):
    """Open, high, low and close (4, n) over the last close before, and settlements.

    ``stamps`` are ns after the open of the first bar.
    """

    last: core.FloatArray
    mark: core.FloatArray
    volume: core.FloatArray
    stamps: core.FloatArray
    rates: core.FloatArray


def make_flat_bars(n: int) -> ShockBars:
    still = np.ones((4, n))
    return ShockBars(still, still, np.zeros(n), np.zeros(0), np.zeros(0))


Bars = Mapping[str, ShockBars]


def find_moves(
    scenario: Scenario, markets: Mapping[str, Market], resting: Set[str]
) -> dict[str, float]:
    """Return the move of each market in a scenario, a fraction of its last close."""
    own = {} if scenario.prices is None else dict(scenario.prices)
    owner = f"prices of scenario {scenario.name!r}: the account"
    core.check_names(owner, own, list(markets), noun="instrument")
    free = {name: market for name, market in markets.items() if name not in resting}
    rest = {name: own.get(name, 0.0) for name in markets if name in resting}
    if scenario.correlation is None:
        return {name: own.get(name, scenario.price) for name in free} | rest
    if len(free) < 2:
        raise core.ParameterError(
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
    return max(math.expm1(log_move), math.nextafter(-1.0, 0.0))


def make_all_bars(
    scenario: Scenario, markets: Mapping[str, Market], resting: Set[str], bare: Set[str]
) -> Bars:
    """Return the bars of each market; those in ``bare`` have neither funding nor basis."""
    moves = find_moves(scenario, markets, resting)
    if scenario.over is not None:
        interval = next(iter(markets.values())).interval
        n = max(-(-core.parse_duration(scenario.over) // interval), 1)
    else:
        still = Scenario(scenario.name)
        is_lived = any(getattr(scenario, each) != getattr(still, each) for each in LIVED)
        n = int(is_lived or scenario.shape == "bar")
    if n == 0:
        return dict.fromkeys(markets, make_flat_bars(0))
    rho = 1.0 if scenario.correlation is None else scenario.correlation
    rng = np.random.Generator(np.random.Philox(scenario.seed))
    first, found = rng.standard_normal(16 * n), {}
    for k, (name, market) in enumerate(markets.items()):
        own = first if k == 0 else rng.standard_normal(16 * n)
        noise = first if k == 0 else rho * first + math.sqrt(1.0 - rho * rho) * own
        sigma = scenario.volatility * measure_recent(market) / 4.0
        walk = np.cumsum(noise) * (sigma if scenario.shape == "bridge" and n > 1 else 0.0)
        way = walk + np.arange(1, 16 * n + 1) / (16 * n) * (math.log1p(moves[name]) - walk[-1])
        path = np.concatenate([[0.0], way]).clip(-50.0, 50.0)
        parts = np.lib.stride_tricks.sliding_window_view(path, 17)[::16]
        last = np.exp([parts[:, 0], parts.max(axis=1), parts.min(axis=1), parts[:, -1]])
        last[3, -1] = 1.0 + moves[name]
        last = bound_extremes(last)
        before = math.log(market.mark_close[-1] / market.close[-1])
        is_moved = name not in bare and scenario.basis != 0.0
        after = math.log1p(scenario.basis) if is_moved else before
        at = np.exp(np.linspace(before, after, n + 1))
        mark = bound_extremes(last * np.array([at[:-1], at[1:], at[1:], at[1:]]))
        found[name] = complete_bars(market, last, mark, None if name in bare else scenario.funding)
    return found


def complete_bars(
    market: Market, last: core.FloatArray, mark: core.FloatArray, funding: float | None
) -> ShockBars:
    """Return bars with the mean volume of a month, and funding at the open of the last one."""
    n, recent = last.shape[1], market.volume[market.time > market.time[-1] - MONTH]
    return ShockBars(
        last=last,
        mark=mark,
        volume=np.full(n, float(np.mean(recent))),
        stamps=np.array([(n - 1) * market.interval] if funding is not None else [], dtype=np.int64),
        rates=np.array([funding] if funding is not None else [], dtype=np.float64),
    )


def measure_recent(market: Market) -> float:
    """Return the standard deviation of the log returns of the last 30 days, per bar."""
    recent = market.close[market.time > market.time[-1] - MONTH]
    return float(np.std(np.diff(np.log(recent)))) if len(recent) > 2 else 0.0


def slice_replay(scenario: Scenario, data: Market | None, interval: int) -> ShockBars | None:
    if data is None or scenario.date is None or scenario.until is None:
        return None
    if scenario.asset != "any" and (scenario.asset == "stocks") != data.sessions:
        return None
    start, stop = map(core.to_nanoseconds, (scenario.date, scenario.until))
    first, last = np.searchsorted(data.time, [start, stop]).tolist()
    if first < 1 or stop > data.end or first >= last:
        return None
    if data.interval != interval:
        raise core.DataError(
            f"data must have the bars of the run for a replay of {scenario.name!r}, "
            f"{core.format_duration(interval)}, got {core.format_duration(data.interval)}"
        )
    part, before = data.slice(first, last), data.close[first - 1]
    return ShockBars(
        last=np.array([getattr(part, name) for name in PRICES]) / before,
        mark=np.array([getattr(part, name) for name in MARKS]) / before,
        volume=part.volume,
        stamps=part.funding_time - part.time[0],
        rates=part.funding_rate,
    )


def go_on(market: Market, bars: ShockBars) -> Market:
    """Return a market with the bars of a scenario behind its own."""
    close, start = float(market.close[-1]), int(market.time[-1]) + market.interval
    n = len(bars.volume)
    ahead = {
        "time": start + market.interval * np.arange(n, dtype=np.int64),
        "volume": bars.volume,
        "funding_time": np.asarray(start + bars.stamps, dtype=np.int64),
        "funding_rate": bars.rates,
    }
    source = f"{market.source} and {n} bars after {core.format_time(start)}"
    has_mark = market.has_mark or not np.array_equal(bars.mark, bars.last)
    prices = close * bars.last, close * bars.mark
    return append_bars(market, *prices, ahead, source=source, has_mark=has_mark)


LIVED = ("price", "prices", "funding", "basis", "implied_volatility", "margin", "outage")
"""Fields of a scenario that take a bar."""
MOVES = ("price", "prices", "correlation", "over", "shape", "basis", "date", "until")
"""Fields of a scenario that say how prices move."""


@functools.cache
def read_table(name: str) -> pd.DataFrame:
    return pd.read_csv(Path(__file__).with_name(name))


def replay_crash(
    scenario: Scenario, markets: Mapping[str, Market], resting: Set[str], bare: Set[str]
) -> tuple[Bars, str] | None:
    """Return the shipped bars of a crash for each market, and what a row says of them.

    None if prices move otherwise than in the crash of its name, if markets are of another kind, or
    their bars do not fit.
    """
    same = next((each for each in crashes() if each.name == scenario.name), None)
    market = next(iter(markets.values()))
    if same is None or any(getattr(scenario, name) != getattr(same, name) for name in MOVES):
        return None
    is_stocks = scenario.asset == "stocks"
    step = DAY if is_stocks else HOUR
    fits = market.interval % step == 0 or (step % market.interval == 0 and not is_stocks)
    paths = read_days(scenario) if is_stocks else read_hours(scenario)
    if is_stocks != market.sessions or not fits or not paths:
        return None
    coins = {name: find_coin(each.instrument) or name for name, each in markets.items()}
    found = {}
    for name, each in markets.items():
        last, mark = fit_bars(paths.get(coins[name], paths[""]), market.interval / step)
        funding = None if name in bare else scenario.funding
        found[name] = complete_bars(each, last, mark, funding)
        if name in resting:
            found[name] = make_flat_bars(last.shape[1])
    strange = [name for name in markets if coins[name] not in paths and name not in resting]
    if is_stocks or not strange:
        return found, "history"
    return found, f"history; {', '.join(strange)}: rows of {find_deepest(paths)}"


def read_hours(scenario: Scenario) -> dict[str, core.FloatArray]:
    """Return bars of last prices and of marks, (2, 4, n), by coin; "" is the one that fell most."""
    rows = read_table("crash_hours.csv")
    rows = rows[rows["episode"] == scenario.name]
    found = {
        str(coin): np.stack([part[list(names)].to_numpy().T for names in (PRICES, MARKS)])
        for coin, part in rows.groupby("coin")
    }
    if found:
        found[""] = found[find_deepest(found)]
    return found


def find_deepest(paths: Mapping[str, core.FloatArray]) -> str:
    """Return the coin whose mark fell most from a high of the crash."""
    falls = {
        coin: np.min(bars[1, 2] / np.maximum.accumulate(bars[1, 1]))
        for coin, bars in paths.items()
        if coin
    }
    return min(falls, key=falls.__getitem__)


def read_days(scenario: Scenario) -> dict[str, core.FloatArray]:
    """Return daily bars, (2, 4, n); marks are last prices."""
    rows = read_table("crash_days.csv")
    inside = (rows["date"] >= str(scenario.date)) & (rows["date"] < str(scenario.until))
    days = rows[inside & (rows["episode"] == scenario.name)][list(PRICES)].to_numpy().T
    return {"": np.stack([days, days])} if days.size else {}


def fit_bars(path: core.FloatArray, ratio: float) -> core.FloatArray:
    """Return bars (2, 4, n) of ``ratio`` times their length.

    Of several shorter ones, the first goes all the way, and the others stay at its close.
    """
    if ratio < 1.0:
        parts = round(1.0 / ratio)
        found = np.repeat(np.broadcast_to(path[:, 3:], path.shape), parts, axis=2)
        found[:, :, ::parts] = path
        return found
    starts = np.arange(0, path.shape[2], round(ratio))
    ends = np.append(starts[1:], path.shape[2]) - 1
    high = np.maximum.reduceat(path[:, 1], starts, axis=1)
    low = np.minimum.reduceat(path[:, 2], starts, axis=1)
    return np.stack([path[:, 0, starts], high, low, path[:, 3, ends]], axis=1)
