"""Scenarios, and stress(): what they do to an account, which goes on from where a run ended.

Bars of scenarios are made from figures, replayed from data, or from the crashes shipped.
``crash_bars.csv`` are facts of the markets: hours of coins, whose prices are over the first open
(of the coin's last price), and days of stocks, over the close before.
"""

from __future__ import annotations

import functools
import itertools
import math
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import account as a
from backtest import core, engine, results
from backtest.account.account import STOPS
from backtest.account.money import COSTS, TRADE_COSTS
from backtest.core import Progress
from backtest.core.number_text import Head
from backtest.core.result_parts import MONEY, Headline, Part, ShownChart, ShownTable
from backtest.core.units import DAY, HOUR
from backtest.engine import find_failure_value
from backtest.market import Market, Markets, as_markets, find_coin, remake
from backtest.results import Result
from backtest.results.settings_result import SettingsResult
from backtest.results.tables import value_of
from backtest.risk import warm_up
from backtest.risk.path_models import MONTH
from backtest.risk.paths import MARKS, PRICES, append_bars, bound_extremes
from backtest.venue import Venue, has_spread, scale_cost

SCALE = core.Real(0.0)
MOVE = core.Real(-1.0, open_low=True)
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
    funding: Annotated[float | None, core.Real(-1.0, 1.0)] = None
    spread: Annotated[float, SCALE] = 1.0
    depth: Annotated[float, core.Real(0.0, 1e6, open_low=True)] = 1.0
    margin: Annotated[float, core.Real(0.0, open_low=True)] = 1.0
    outage: Annotated[str | None, core.Duration()] = None
    adl: Annotated[float, core.Real(0.0, 1.0)] = 0.0
    adl_leverage: Annotated[float, core.Real(1.0)] = 20.0
    venue_default: Annotated[float, core.Real(0.0, 1.0)] = 0.0
    basis: Annotated[float, MOVE] = 0.0
    implied_volatility: Annotated[float, MOVE] = 0.0
    prices: Annotated[Mapping[str, float] | None, a.ByInstrument(MOVE)] = None
    correlation: Annotated[float | None, core.Real(-1.0, 1.0)] = None
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

    def _settle(self) -> None:
        if self.funding is not None:
            core.warn_of_high_rate("funding", self.funding, "of the notional at a settlement")


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
    paths = read_bars(scenario)
    if is_stocks != market.sessions or not fits or not paths:
        return None
    coins = {name: find_coin(each.instrument) or name for name, each in markets.items()}
    found, deepest = {}, find_deepest(paths)
    for name, each in markets.items():
        last, mark = fit_bars(paths.get(coins[name], paths[deepest]), market.interval / step)
        found[name] = complete_bars(each, last, mark, None if name in bare else scenario.funding)
        if name in resting:
            found[name] = make_flat_bars(last.shape[1])
    strange = [name for name in markets if coins[name] not in paths and name not in resting]
    if is_stocks or not strange:
        return found, "history"
    return found, f"history; {', '.join(strange)}: rows of {deepest}"


def read_bars(scenario: Scenario) -> dict[str, core.FloatArray]:
    """Return bars of last prices and of marks, (2, 4, n), by coin."""
    rows = pd.read_csv(FILE.with_name("crash_bars.csv"))
    rows = rows[rows["episode"] == scenario.name]
    return {
        str(coin): np.stack([part[list(names)].to_numpy().T for names in (PRICES, MARKS)])
        for coin, part in rows.groupby("coin")
    }


def find_deepest(paths: Mapping[str, core.FloatArray]) -> str:
    """Return the coin whose mark fell most from a high of the crash."""
    falls = {
        coin: np.min(bars[1, 2] / np.maximum.accumulate(bars[1, 1])) for coin, bars in paths.items()
    }
    return min(falls, key=falls.__getitem__)


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


NO_STOPS: dict[str, Any] = {
    **dict.fromkeys(STOPS),
    "after_stop": "continue",
    "daily_basis": "day",
    "day": "UTC",
}
"""Fields of an account on which no stop acts, with those that are of use to stops alone."""
FOREVER = 2**62
"""An age that no surface reaches, ns."""

PAID = tuple(name for name in COSTS if name in TRADE_COSTS)


class StressedAccount:
    """The account where a run ended, at venues with the margin tables of one time.

    ``moving`` are the markets that go on after the run, with the collateral that moves by itself;
    ``bare`` is the collateral, which has neither funding nor basis, and ``resting`` that of a
    constant price. ``exposures`` are the money that moves with each market.
    """

    def __init__(self, result: Result, venues: Mapping[str, Venue]) -> None:
        markets, collateral = result.markets, result.account.collateral
        if markets is None or not result.policies:
            raise core.ParameterError(
                "a stress test needs a result of this process, got a loaded one; run it again"
            )
        self.warm_up = warm_up.measure_warm_up(result.setup.observed, markets)
        first = markets.n_bars - self.warm_up.count_bars(markets, venues)
        first = min(first, int(markets.spans[:, 1].min()) - 1)  # no instrument is left out
        self.history = markets.slice(max(first, 0), markets.n_bars)
        self.result, self.venues = result, venues
        fields, held = engine.read_assets(self.history, result.account), result.state.held
        assets, interval = dict[str, Market](), core.format_duration(self.history.interval)
        for c, each in enumerate(collateral):
            if self.find_instrument(each.prices) is None:
                last, mark = (
                    pd.DataFrame(
                        {x: fields[f"asset_{kind}{x}"][c] for x in PRICES}, self.history.times
                    )
                    for kind in ("", "mark_")
                )
                assets[each.name] = Market.from_frames(
                    last, mark=mark, interval=interval, sessions=self.history.sessions
                )
        self.resting = {name for name, each in assets.items() if np.ptp(each.close) == 0.0}
        end, going = self.history.end, dict[str, Market]()
        for name, market in self.history.items():
            expires = venues[name].contract.expires
            if market.end == end and (expires is None or end < core.to_nanoseconds(expires)):
                going[name] = market
        if not going:
            raise core.ParameterError(
                "a scenario begins where an instrument goes on, "
                f"{', '.join(self.history)} ended with the run"
            )
        self.moving = going | assets
        self.bare = {*self.moving} - {*self.history}
        self.exposures = dict.fromkeys(self.moving, 0.0)
        for name, quantity in zip(self.history, held.quantities.tolist(), strict=True):
            if name in self.moving:
                close = float(self.history[name].mark_close[-1])
                self.exposures[name] += quantity * abs(value_of(venues[name].contract, close))
        for asset, worth in zip(collateral, held.amounts * held.prices, strict=True):
            name = self.find_instrument(asset.prices) or asset.name
            if name in self.moving:
                self.exposures[name] += float(worth)

    def find_instrument(self, prices: object) -> str | None:
        whole: Mapping[str, Market] = self.result.markets or {}
        return next((name for name in whole if prices is whole[name] or prices == name), None)

    def make(self, scenario: Scenario) -> Bars:
        moves = find_moves(scenario, self.moving, self.resting)
        if scenario.over is not None:
            n = max(-(-core.parse_duration(scenario.over) // self.history.interval), 1)
        else:
            is_lived = any(getattr(scenario, each) != getattr(Scenario, each) for each in LIVED)
            n = int(is_lived or scenario.shape == "bar")
        if n == 0:
            return dict.fromkeys(self.moving, make_flat_bars(0))
        rho = 1.0 if scenario.correlation is None else scenario.correlation
        rng = np.random.Generator(np.random.Philox(scenario.seed))
        first, found = rng.standard_normal(16 * n), {}
        whole: Mapping[str, Market] = self.result.markets or {}
        for k, (name, market) in enumerate(self.moving.items()):
            own = first if k == 0 else rng.standard_normal(16 * n)
            noise = first if k == 0 else rho * first + math.sqrt(1.0 - rho * rho) * own
            recent = measure_recent(whole.get(name, market))  # not of the bars in front alone
            sigma = scenario.volatility * recent / 4.0
            walk = np.cumsum(noise) * (sigma if scenario.shape == "bridge" and n > 1 else 0.0)
            way = walk + np.arange(1, 16 * n + 1) / (16 * n) * (math.log1p(moves[name]) - walk[-1])
            path = np.concatenate([[0.0], way]).clip(-50.0, 50.0)
            parts = np.lib.stride_tricks.sliding_window_view(path, 17)[::16]
            last = np.exp([parts[:, 0], parts.max(axis=1), parts.min(axis=1), parts[:, -1]])
            last[3, -1] = 1.0 + moves[name]
            last = bound_extremes(last)
            before = math.log(market.mark_close[-1] / market.close[-1])
            is_moved = name not in self.bare and scenario.basis != 0.0
            after = math.log1p(scenario.basis) if is_moved else before
            at = np.exp(np.linspace(before, after, n + 1))
            mark = bound_extremes(last * np.array([at[:-1], at[1:], at[1:], at[1:]]))
            funding = None if name in self.bare else scenario.funding
            found[name] = complete_bars(market, last, mark, funding)
        return found

    def live(self, scenario: Scenario, bars: Bars) -> dict[str, Any]:
        before = float(sum(self.result.of_account(name)[-1] for name in ("equity", "reserve")))
        state, money, lost, last = self.result.state, None, 0.0, self.result.positions
        last = last[last["time"] == last["time"].iloc[-1]]
        price = last["liquidation_price"]
        distance = float((price / last["mark"] - 1.0).abs()[price > 0.0].min())
        if count_bars(bars):
            steps, distance = self.pass_bars(scenario, bars, is_search=False)
            state, money = steps.state, steps.tally.money
            lost = sum(
                self.find_lost_profit(scenario, name, quantity, float(bars[name].last[3, -1]))
                for name, quantity in zip(self.history, state.held.quantities.tolist(), strict=True)
                if name in bars
            )
        kept = float(state.wallet.equity) - lost
        gone = scenario.venue_default * max(kept, 0.0)
        equity = kept - gone + float(state.wallet.reserve)
        converted = state.wallet.converted_so_far - self.result.state.wallet.converted_so_far
        is_dead = money is not None and money.liquidations > 0
        row = {
            "equity": equity,
            "loss": before - equity,
            "liquidated": is_dead,
            "distance": 0.0 if is_dead else distance,
            "margin_calls": 0 if money is None else money.calls,
            **{name: float(getattr(money, name, 0.0)) for name in PAID},
            "lost_to_adl": lost,
            "lost_to_default": gone,
        }
        return row | {"slippage": row["slippage"] - float(converted)}

    def find_lost_profit(
        self, scenario: Scenario, name: str, quantity: float, rise: float
    ) -> float:
        """Return what auto-deleveraging takes: closed at the bankruptcy price of a counterparty."""
        side, start = math.copysign(1.0, quantity), float(self.history[name].close[-1])
        bankrupt, last = start * (1.0 + side / scenario.adl_leverage), start * rise
        if scenario.adl == 0.0 or quantity == 0.0 or side * (last - bankrupt) <= 0.0:
            return 0.0
        contract = self.venues[name].contract
        gap = value_of(contract, last) - value_of(contract, bankrupt)
        return float(scenario.adl * quantity * gap)

    def pass_bars(
        self, scenario: Scenario, bars: Bars, *, is_search: bool
    ) -> tuple[engine.LaterBars, float]:
        """Take the account through bars, or to a liquidation; return also the least distance."""
        result, history = self.result, self.history
        markets = {name: go_on(each, bars[name]) for name, each in self.moving.items()}
        venues = {name: scale_venue(each, scenario) for name, each in self.venues.items()}
        panel = remake(history, {name: markets.get(name, each) for name, each in history.items()})
        if panel.listing is not None:
            panel.listing = panel.listing._replace(max_age=FOREVER)
        panel = engine.end_expired(panel, venues)
        assets = [
            replace(each, prices=self.find_instrument(each.prices) or markets[each.name])
            for each in result.account.collateral
        ]
        account = replace(result.account, collateral=assets)
        setup = engine.set_up_again(
            result.setup._replace(venues=venues, account=account),
            panel,
            np.tile(result.state.positions.column("signal")[:, None], (1, panel.n_bars)),
            first=history.n_bars,
            started=result.started,
        )
        warm_up.check_known(
            setup.observed, panel, history.n_bars, "scenarios", apart=self.warm_up.never
        )
        quiet, outage = setup.inputs, 0
        if scenario.outage is not None:
            outage = -(-core.parse_duration(scenario.outage) // history.interval)
            quiet = setup.change(account=replace(setup.account, **NO_STOPS)).inputs
        for inputs in (setup.inputs, quiet)[: 1 + bool(outage)]:
            options, begin = inputs.feed.options, setup.first
            if options.marks_open.shape[1]:  # grows to full size at the last bar
                n = len(options.marks_open) - begin
                scale = (1.0 + scenario.implied_volatility) ** (np.arange(1, n + 1) / n)[:, None]
                options.volatilities_open[begin:] *= scale
                options.volatilities_close[begin:] *= scale
                options.marks_open[begin:], options.marks_close[begin:] = np.nan, np.nan
        inputs = [quiet] * outage + [setup.inputs]
        is_compiled = bool(result.manifest["compiled"] == "yes")
        try:
            return self.pass_on(setup, inputs, is_compiled=is_compiled, is_search=is_search)
        except engine.OverflowedFormula:
            core.warn_caller(
                f"scenario {scenario.name!r} ran in plain Python: whole numbers beyond 64 bits are "
                "not supported in compiled code"
            )
            return self.pass_on(setup, inputs, is_compiled=False, is_search=is_search)

    def pass_on(
        self,
        setup: engine.Setup,
        inputs: Sequence[engine.AccountInputs],
        *,
        is_compiled: bool,
        is_search: bool,
    ) -> tuple[engine.LaterBars, float]:
        """Do so with the inputs of each bar, of which the last are those of all further ones."""
        result = self.result
        steps = engine.LaterBars(
            setup,
            engine.copy_state(result.state),
            np.asarray(result.memory),
            result.traded,
            is_compiled=is_compiled,
        )
        least = math.inf
        stop = setup.first
        total = setup.markets.n_bars
        while stop < total:
            t = stop
            is_out = t - setup.first < len(inputs) - 1
            own = inputs[t - setup.first] if is_out else inputs[-1]
            stop = total if is_search and not is_out else t + 1
            if is_out:  # orders that would fill while the venue is out are lost
                for position in steps.state.positions:
                    position.leverage, position.is_pending = np.nan, 0.0
            if not is_search:
                least = min(least, steps.measure(measure_distance, own, t))
            steps.pass_bars(own, t, stop)
        return steps, least if math.isfinite(least) else math.nan


def count_bars(bars: Bars) -> int:
    return int(next(iter(bars.values())).last.shape[1])


def measure_fall(bars: Bars) -> float:
    """Return how far the mark falls from a high of a scenario, or its start, at worst; 0 to 1."""
    falls = [0.0]
    for each in bars.values():
        if each.mark.shape[1]:
            peaks = np.maximum.accumulate(np.maximum(each.mark[1], 1.0))
            falls.append(1.0 - float(np.min(each.mark[2] / peaks)))
    return max(falls)


def measure_distance(bar: a.AccountBar, t: int) -> float:
    """Return how near the marks of bar t come to the liquidation prices of what is held there.

    At each waypoint of the bar (:mod:`backtest.account.price_walk`), after the orders at its open,
    the distance of a position is that of its mark from the price at which it would be liquidated,
    the others frozen; a fraction of the mark, infinite if no price liquidates. With options the
    nearer side counts. A position that is stopped counts up to its stop. A mark beyond its
    liquidation price has none: the account is liquidated, or held the position no more.
    """
    terms, state, quotes, scratch = bar.terms, bar.state, bar.quotes, bar.scratch
    a.open_bar(bar, t, float(state.wallet.equity))
    least = math.inf
    a.choose_turns(bar)
    last, mark = quotes.open.copy(), quotes.mark_open.copy()
    for leg in range(3):
        a.aim_at_leg(quotes, scratch, leg)
        end, ahead, prices = (
            each.copy() for each in (scratch.last_end, scratch.mark_end, scratch.price_end)
        )
        values, stops = ahead.copy(), list[tuple[int, int, float]]()
        for i in range(len(values)):
            kind, stop = 0, math.nan
            if a.is_held(state, i) and a.has_stops(terms, i):
                between = min(last[i], end[i]), max(last[i], end[i])
                kind, stop = a.find_stop(bar, i, *between)
            if not math.isnan(stop):
                place = (stop - last[i]) / (end[i] - last[i]) if end[i] != last[i] else 0.0
                values[i] = mark[i] + min(max(place, 0.0), 1.0) * (ahead[i] - mark[i])
                stops.append((i, kind, stop))
        a.value_at(state, values, prices)
        a.price_options(terms, state, values)
        excess = a.compute_excess(terms, state)
        for i in range(len(state.positions)):
            if a.is_moved_by(terms, state, i):
                a.value_at(state, values, prices)
                a.price_options(terms, state, values)
                root = find_failure_value(bar, i, excess)
                gap = (values[i] - root) / abs(values[i])
                gap = gap if state.positions[i].quantity > 0.0 else -gap
                if a.is_walking(terms, state):
                    gap = abs(gap) if excess > 0.0 else 0.0
                least = min(least, gap) if gap > 0.0 else least
        for i, kind, stop in stops:
            a.stop_position(bar, t, i, kind, stop)
        last, mark = end, ahead
    return least


def scale_slippage(venue: Venue, factor: float) -> dict[str, Any]:
    names = ["slippage.rate", *(["slippage.spread"] if has_spread(venue) else [])]
    return {name: scale_cost(venue, name, factor, 0.99) for name in names}


def scale_margin(venue: Venue, factor: float) -> dict[str, Any]:
    names = ("margin_multiplier", "initial_multiplier", "maintenance_multiplier")
    given = {name: getattr(venue, name) for name in names}
    return {name: value * factor for name, value in given.items() if value is not None}


def scale_venue(venue: Venue, scenario: Scenario) -> Venue:
    changes: dict[str, Any] = {}
    if scenario.margin != 1.0:
        changes = scale_margin(venue, scenario.margin)
    if scenario.spread != 1.0:
        changes |= scale_slippage(venue, scenario.spread)
        name = "liquidation.slippage"
        changes[name] = scale_cost(venue, name, scenario.spread, 0.99)
    if scenario.depth != 1.0:
        factor = 1.0 / math.sqrt(scenario.depth)
        changes["slippage.impact"] = venue.slippage.impact * factor
        changes["liquidation.impact"] = venue.liquidation.impact * factor
    return venue.override(changes) if changes else venue


@dataclass(frozen=True, eq=False, repr=False)
class Stress(SettingsResult):
    """Outcome of scenarios.

    Attributes
    ----------
    table : DataFrame
        A row per scenario: ``equity`` (wealth after it), ``loss``, ``liquidated``, ``distance``
        (the smallest of the mark from the liquidation price while a position is held, a fraction of
        the mark; 0 if and only if the account is liquidated, NaN if no price does),
        ``margin_calls``, ``fees``, ``slippage``, ``impact``, ``funding``, ``lost_to_adl``,
        ``lost_to_default``, ``break_even`` (the move of the price, all else as in the scenario, at
        which the account is liquidated, while its policy goes on trading at the closes on the way;
        NaN if none does), ``bars``, ``from``: ``figures``, ``data`` or ``history`` and whose rows,
        and ``rules``: whose margin table.
    ladder : DataFrame or None
        ``equity``, ``loss`` and ``liquidated`` for every combination of the axes of the ladder.
    """

    table: pd.DataFrame
    ladder: pd.DataFrame | None

    kind = "stress"
    call = "bt.stress"
    plural = "stress tests"
    called = "stress test"

    @property
    def note(self) -> str:
        return f"{int(self.table['liquidated'].sum())} of {len(self.table)} liquidate"

    @property
    def verdict(self) -> str:
        dead, total = int(self.table["liquidated"].sum()), len(self.table)
        loss = self.table["loss"]
        most = float(loss.max())
        verb = "loses" if most >= 0.0 else "gains"
        share = ""
        if self.worth > 0.0:
            share = f", {core.format_percent(abs(most) / self.worth)}"
        return (
            f"{dead} of {total} scenarios liquidate the account; the worst, {loss.idxmax()}, "
            f"{verb} {core.format_money(abs(most))} of {core.format_money(self.worth)}{share}."
        )

    @property
    def worth(self) -> float:
        """What the account was worth at the last close of the run, in money."""
        return float(self.table["equity"].iloc[0] + self.table["loss"].iloc[0])

    @property
    def details(self) -> str:
        worth = (
            f"The account was worth {core.format_money(self.worth)} at the last close of the run."
        )
        return " ".join([worth, *self.settings["tables"]])

    @property
    def notices(self) -> tuple[str, ...]:
        is_other = self.table["from"].str.contains(": rows of").any()
        other = "Bars of some scenarios are those of another coin: the column bars from names it."
        return (*self.settings["not_counted"], *[other] * bool(is_other))

    def list_numbers(self) -> list[Headline]:
        loss, dead = self.table["loss"], int(self.table["liquidated"].sum())
        of = f"{dead} of {len(self.table)}"
        return [
            Headline("liquidating", "scenarios that liquidate", dead, text=of),
            Headline("worst_loss", "largest loss", float(loss.max()), "money",
                     str(loss.idxmax())),
        ]  # fmt: skip

    def list_parts(self) -> list[Part]:
        heads = {
            **{name: Head(name, "money", "money")
               for name in ("loss", *PAID)},
            "distance": Head("distance to liquidation", "nearest mark", "chance"),
            "lost_to_adl": Head("ADL loss", "money", "money"),
            "lost_to_default": Head("default loss", "money", "money"),
            "margin_calls": Head("margin calls", "", "count"),
            "break_even": Head("break-even move", "policy trading", "signed percent"),
            "bars": Head("bars", "", "count"), "from": Head("bars from"),
            "rules": Head("margin table of"),
        }  # fmt: skip
        front = ["from", "equity", "loss", "liquidated", "break_even", "distance"]
        rest = self.table.drop(columns=front)
        shown = self.table[[*front, *rest.columns[(rest != 0).any()]]]  # not what never came
        sources = (f"{each['name']}: {each['source']}." for each in self.settings["scenarios"]
                   if each.get("source"))  # fmt: skip
        ladder: tuple[ShownChart | ShownTable | str, ...] = ()
        if self.ladder is not None:
            names = [str(name) for name in self.ladder.index.names[:2]]
            axes = [str(name) for name in self.ladder.index.names]
            units = ", ".join(f"{name} ({find_unit(name)})" for name in axes)
            kind, losses = "heat", self.ladder["loss"]
            if len(names) == 1:
                kind, losses = "line", losses.set_axis(losses.index.get_level_values(0))
            ladder = (
                ShownChart("ladder", "Ladder",
                           f"Loss of one-bar shocks, by {' and '.join(names)}.",
                           losses, kind, {"loss": "loss"}, x="".join(names),
                           y="money" * (kind == "line"), height=340),
                ShownTable(self.ladder, "Ladder", labels=Head(names[0]),
                           heads={"loss": heads["loss"]}),
                f"Units of the axes: {units}. A fall is negative.",
            )  # fmt: skip
        of = ", ".join(f"{name} in {scenario}" for scenario, name in self.settings["leads"].items())
        told = f"Break-even: the move of {of}; the others move as in the scenario. " * bool(of)
        told += f"Losses and costs are positive, gains negative. {MONEY} "
        told += (
            "Distance: the smallest distance of the mark from the liquidation price; a stop or an "
            "order may close the position before. On the way to the break-even move the policy "
            "continues to trade at the closes, and may have sold."
        )
        if self.table["break_even"].isna().any():
            told += " Where the break-even is -, no price move liquidates the account."
        return [
            Part("scenarios", "Scenarios", "From the last close of the run on.", (
                ShownTable(shown, "Scenarios", labels=Head("scenario"), heads=heads),
                told, *ladder,
            ), shows="both"),
            Part("sources", "Sources", "Where the figures of scenarios come from.",
                 tuple(sources) or ("The scenarios are the user's.",)),
        ]  # fmt: skip

    def list_assumptions(self) -> tuple[str, ...]:
        return (
            "Policies continue to decide at the closes of a scenario, with the last signal. Rows "
            "marked data or history replay those bars; other rows are built from their figures.",
        )


def find_unit(axis: str) -> str:
    """Return the unit of an axis of the ladder."""
    return "x of today" if axis in ("volatility", "spread", "depth", "margin") else "fraction"


LARGEST_RISE, LARGEST_FALL = math.log(64.0), 36.7
"""The largest log moves that a search for the break-even tries."""
HEDGED = tuple(2.0**k for k in range(-6, 6))
"""Log moves that a search for the break-even of a hedge tries: it may die and live again."""


def find_break_even(
    account: StressedAccount, scenario: Scenario, replayed: Bars | None
) -> tuple[str, float]:
    """Return whose move the break-even is, and the move: of a replay, that at its worst point."""
    held = account.exposures
    if replayed is None:
        moves = find_moves(scenario, account.moving, account.resting)
        logs = {name: math.log1p(move) for name, move in moves.items()}
        logs = logs if any(logs.values()) else dict.fromkeys(logs, 1.0)
    else:
        logs = {
            name: math.log(each.last[1].max() if held[name] < 0.0 else each.last[2].min())
            for name, each in replayed.items()
        }
    lead = next((name for name, log in logs.items() if log != 0.0), "")
    if not lead:
        return next(iter(logs)), math.nan
    way = dict(logs)
    for name, each in (replayed or {}).items():
        low, high = math.log(each.last[2].min()), math.log(each.last[1].max())
        way[name] = low if -low >= high else high
    gains = [held[name] * log for name, log in way.items()]
    side = math.copysign(1.0, logs[lead])
    if replayed is None and sum(gains) > 0.0:
        side = -side

    def is_dead(size: float) -> bool:
        by = side * size / logs[lead]
        if replayed is None:
            moves = {name: shrink(by * log) for name, log in logs.items()}
            moved = scenario.override(price=0.0, prices=moves, correlation=None)
            bars = account.make(moved)
        else:
            moved = scenario
            bars = {
                name: each._replace(last=each.last**by, mark=each.mark**by)
                for name, each in replayed.items()
            }
        steps, _ = account.pass_bars(moved, bars, is_search=True)
        return bool(steps.tally.money.liquidations > 0)

    limit = LARGEST_FALL if replayed is None and side < 0.0 else LARGEST_RISE
    is_hedged = min(gains) < 0.0 < max(gains)
    tried = [size for size in HEDGED if size <= limit] if is_hedged else [limit]
    return lead, math.expm1(side * find_edge(is_dead, tried))


def find_edge(is_dead: Callable[[float], bool], tried: Iterable[float]) -> float:
    """Return the least x from 0 on at which an account dies, of values tried in turn; or NaN."""
    known = functools.cache(lambda x: 1.0 if is_dead(x) else -1.0)
    if known(0.0) > 0.0:
        return 0.0
    for alive, dead in itertools.pairwise((0.0, *tried)):
        if known(dead) > 0.0:
            return float(
                core.sp.optimize.bisect(known, alive, dead, xtol=1e-12, maxiter=60, disp=False)
            )
    return math.nan


@core.checked_only("result", "scenarios", "progress", "data", "ladder")
def stress(
    result: Result,
    scenarios: Sequence[Scenario] | Scenario | None = None,
    *,
    rules: str = "run",
    data: Market | Markets | None = None,
    ladder: Mapping[str, Sequence[float]] | None = None,
    progress: Progress | None = None,
) -> Stress:
    """Return what scenarios after the last close of a run would do to its account.

    Parameters
    ----------
    result : Result
        Of :func:`backtest.run`, in this process. Its policies go on deciding at the closes of the
        scenario, with the last direction and weights of the signal.
    scenarios : sequence of Scenario, optional
        By default :func:`backtest.crashes`; those of stocks for markets with sessions alone.
    rules : str
        ``"run"``: the margin table in force at the end of the run; ``"today"``: the newest one of
        the venue; ``"then"``: the one in force at the date of a scenario, if it has one.
    data : Market or Markets, optional
        Where it covers the days of a scenario, its bars and funding are replayed. Otherwise crashes
        of history are replayed from the hours of BTC, ETH, XRP, LTC, ADA (another coin takes those
        of the coin that fell most), and in markets with sessions from the days of the S&P 500. Bars
        of other scenarios are made from their figures.
    ladder : mapping, optional
        Axes of a grid of one-bar shocks: ``{"price": (-0.5, 0.5, 41), "depth": (0.1, 0.3, 1)}``.
        A tuple ``(low, high, n)`` with a whole n over 2 is a range, anything else are values.
    progress : callable, optional
        Called with scenarios done and scenarios in all.

    Notes
    -----
    A scenario takes whole bars of the market of the run, rounded up, and policies decide at their
    closes. ``distance`` is measured at each waypoint of a bar, with all marks at the waypoint, and
    of a position that is stopped up to the stop.

    ``break_even`` is found by bisection on the move of the price in the direction that hurts the
    account, with bars made anew for each move. Of several instruments it is the move of the first
    that moves in the scenario; all log moves of the scenario, or of a replay, are multiplied by one
    factor. Everything else stays as it is.

    Options are valued by the last surface, moved by ``implied_volatility``; the crashes of history
    move prices alone. Instruments that ended in the run have no bars; one whose contract expires
    during a scenario is closed at its mark price then. Collateral moves as the instrument whose
    prices it has, else under its own name; one with a constant price only where ``prices`` name it.
    """
    if result.metrics["ruined"]:
        time = core.format_time(result.span.start + round(result.metrics["ruin_time"] * DAY))
        raise core.ParameterError(
            f"the account was ruined in the run, at {time} UTC with "
            f"{result.metrics['final_equity']:,.2f} left: no scenario can change it"
        )
    given = crashes() if scenarios is None else scenarios
    chosen = tuple(given) if isinstance(given, Sequence) else (given,)
    names = [each.name for each in chosen]
    if not names or len({*names}) < len(names):
        raise core.ParameterError(
            f"scenarios must be one or more with different names, got {', '.join(names) or 'none'}"
        )
    if scenarios is None or chosen == crashes():  # of stocks only beside stocks
        has_sessions = result.markets is not None and result.markets.sessions
        chosen = tuple(each for each in chosen if has_sessions or each.asset != "stocks")
    how = core.Choice("run", "today", "then").check("rules", rules)
    axes = {str(name): find_values(axis, name) for name, axis in (ladder or {}).items()}
    points = [*itertools.product(*axes.values())] if axes else []
    rows, leads, falls = {}, {}, dict[str, float]()
    total = len(chosen) + len(points)
    times = {each.name: find_table_time(result, how, each) for each in chosen}

    @functools.cache
    def stand_at(time: int) -> StressedAccount:
        return StressedAccount(result, fix_margin_tables(result.venues, time))

    for done, each in enumerate(chosen, 1):
        account = stand_at(times[each.name])
        replayed, source = slice_replays(account, each, data), "data"
        if replayed is None:
            shipped = replay_crash(each, account.moving, account.resting, account.bare)
            replayed, source = (None, "figures") if shipped is None else shipped
        bars = account.make(each) if replayed is None else replayed
        falls[each.name] = measure_fall(bars)
        leads[each.name], even = find_break_even(account, each, replayed)
        rows[each.name] = account.live(each, bars) | {
            "break_even": even,
            "bars": count_bars(bars),
            "from": source,
            "rules": "run" if how == "then" and each.date is None else how,
        }
        core.report_progress(progress, done, total)
    climbed: list[dict[str, Any]] = []
    for point in points:
        fields = {"name": "ladder", "shape": "bar"} | dict(zip(axes, point, strict=True))
        shock = Scenario.from_dict(fields, where="ladder")
        account = stand_at(find_table_time(result, how, shock))
        climbed.append(account.live(shock, account.make(shock)))
        core.report_progress(progress, len(chosen) + len(climbed), total)
    steps = None
    if climbed:
        index = pd.MultiIndex.from_tuples(points, names=[*axes])
        steps = pd.DataFrame(climbed, index, ["equity", "loss", "liquidated"])
    idle = results.explain_idle_options(result)
    settings = {
        "policy": result.manifest["policy"]["text"],
        "data": result.manifest["data"]["source"],
        "run": result.manifest["id"],
        "rules": how,
        "scenarios": [each.to_dict() for each in chosen],
        "ladder": None if ladder is None else {name: list(axis) for name, axis in ladder.items()},
        "leads": leads if len(account.moving) > 1 else {},
        "falls": falls,
        "tables": list(describe_tables(result, times)),
        "not_counted": [core.capitalize(f"{idle}.")] if idle else [],
    }
    return Stress(
        table=pd.DataFrame(rows.values(), index=pd.Index(rows, name="scenario")),
        ladder=steps,
        settings=settings,
        market=result.markets,
    )


def describe_tables(result: Result, times: Mapping[str, int]) -> Iterator[str]:
    """Yield since when the margin tables of scenarios are in force, and which are too old."""
    days, early = set(), {}
    for name, time in times.items():
        for venue in result.venues.values():
            first = venue.days()[0]
            days.add(venue.in_use(np.array([time], dtype=np.int64))[0].since)
            if first is not None and time < core.to_nanoseconds(first):
                early[name] = first
    known = ", ".join(sorted(day for day in days if day))
    if known:
        yield f"Margin tables in force since {known}."
    if early:
        yield (
            f"{', '.join(early)} {'is' if len(early) == 1 else 'are'} older than any table known, "
            f"of {min(early.values())}, which stands in."
        )


def find_table_time(result: Result, rules: str, scenario: Scenario) -> int:
    """Return the time, in ns, whose margin tables hold in a scenario."""
    if rules == "then" and scenario.date is not None:
        return core.to_nanoseconds(scenario.date)
    return int(np.iinfo(np.int64).max) if rules == "today" else result.last_time


def fix_margin_tables(venues: Mapping[str, Venue], time: int) -> dict[str, Venue]:
    at = np.array([time], dtype=np.int64)
    return {name: each.with_table(each.in_use(at)[0]) for name, each in venues.items()}


def slice_replays(account: StressedAccount, scenario: Scenario, data: Any) -> Bars | None:
    names, moving, interval = account.history.names, account.moving, account.history.interval
    markets: Mapping[str, Market] = {} if data is None else as_markets(data)
    if data is not None and data is not markets and engine.is_same_account(tuple(markets), names):
        markets = dict(zip(names, markets.values(), strict=True))
    found = {name: slice_replay(scenario, markets.get(name), interval) for name in moving}
    cut = {name: bars for name, bars in found.items() if bars is not None}
    still = {name for name in found if name in account.resting and name not in markets}
    if not cut or {*cut, *still} != {*found}:
        return None
    flat = make_flat_bars(count_bars(cut))
    return {name: cut.get(name, flat) for name in found}


def find_values(axis: Any, name: str) -> core.FloatArray:
    is_range = isinstance(axis, tuple) and len(axis) == 3 and isinstance(axis[2], int)
    values = np.linspace(*axis) if is_range and axis[2] > 2 else np.array(axis, dtype=np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise core.ParameterError(
            f"ladder: {name} must be (low, high, n) or finite values, got {core.repr_plain(axis)}"
        )
    return values
