"""The account of a result in a scenario: it goes on from where the run ended."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from backtest.account import Account, AccountState, OptionFeed
from backtest.account.portfolio_records import CONVERTED_SO_FAR, EQUITY, RESERVE
from backtest.base import Cost, FloatArray, ParameterError, parse_duration, to_nanoseconds
from backtest.engine import (
    LaterBars,
    PortfolioInputs,
    Result,
    Setup,
    copy_state,
    end_expired,
    observe_policies,
    read_assets,
    read_portfolio_inputs,
    set_up,
    set_up_again,
)
from backtest.engine.feed_arrays import ASSET
from backtest.market import Market, Markets, remake
from backtest.policy import start_memory
from backtest.risk import liquidation_distance
from backtest.risk.scenario import Bars, Scenario, append_bars, find_moves, make_all_bars
from backtest.venue import Contract, Venue, compute_value, has_spread, pick_cost, scale_cost

NO_STOPS: dict[str, Any] = {
    "stop_loss": None,
    "take_profit": None,
    "trailing_stop": None,
    "equity_stop": None,
    "max_holding": None,
}
SEARCHED = 16
"""Bars that a search takes before it looks for a liquidation."""
FOREVER = 2**62
"""An age that no surface reaches, ns."""
OF_ACCOUNT = ("wallet", "fund", "cursor", "priced", "amounts", "prices")


class Shocked(NamedTuple):
    equity: float
    reserve: float
    quantities: Mapping[str, float]
    liquidations: int
    calls: int
    fees: float
    slippage: float
    impact: float
    funding: float
    distance: float


def compute_quote_value(contract: Contract, price: float) -> float:
    return abs(compute_value(contract.size, contract.kind == "inverse", price))


def select_state(state: AccountState, kept: list[int]) -> AccountState:
    n = len(state.margin)

    def cut(name: str, array: FloatArray) -> FloatArray:
        return array if name in OF_ACCOUNT else array[[*kept, *range(n, len(array))]]

    held = type(state.held)._make(cut(name, each) for name, each in state.held._asdict().items())
    own: dict[str, Any] = {"held": held, "options": state.options}
    arrays: dict[str, Any] = {
        name: cut(name, each) for name, each in state._asdict().items() if name not in own
    }
    return copy_state(type(state)(**arrays, **own))


def select_memory(result: Result, kept: list[int]) -> FloatArray:
    policies = [*result.policies.values(), result.overlay]
    sizes = [0 if each is None else len(start_memory(each) or ()) + 1 for each in policies]
    parts = np.split(np.asarray(result.memory), np.cumsum(sizes)[:-1])
    return np.concatenate([parts[i] for i in (*kept, len(parts) - 1)])


@dataclass(frozen=True, eq=False)
class StressAccount:
    result: Result
    history: Markets
    venues: Mapping[str, Venue]

    @functools.cached_property
    def kept(self) -> list[int]:
        return [self.result.names.index(name) for name in self.history]

    @functools.cached_property
    def state(self) -> AccountState:
        return self.result.state  # type: ignore[no-any-return]

    @property
    def equity(self) -> float:
        return float(self.result.of_account("equity")[-1])

    @property
    def wealth(self) -> float:
        return self.equity + float(self.result.of_account("reserve")[-1])

    @property
    def quantities(self) -> dict[str, float]:
        held = self.state.held.quantities
        return dict(zip(self.result.names, held.tolist(), strict=True))

    @property
    def resting(self) -> frozenset[str]:
        return frozenset(name for name, each in self.assets.items() if np.ptp(each.close) == 0.0)

    @functools.cached_property
    def assets(self) -> dict[str, Market]:
        fields = read_assets(self.history, self.base.account)
        return {
            each.name: make_asset(each.name, self.history, fields, c)
            for c, each in enumerate(self.base.account.collateral)
            if self.find_instrument(each.prices) is None
        }

    def find_instrument(self, prices: object) -> str | None:
        whole: Mapping[str, Market] = self.result.markets or {}
        same = [name for name in self.history if whole[name] is prices]
        return prices if isinstance(prices, str) else next(iter(same), None)

    def list_moving(self) -> dict[str, Market]:
        alive = {name: each for name, each in self.history.items() if self.goes_on(name)}
        return alive | self.assets if alive else {}

    def goes_on(self, name: str) -> bool:
        expires, end = self.venues[name].contract.expires, self.history.end
        if expires is not None and end >= to_nanoseconds(expires):
            return False
        return self.history[name].end == end

    def measure_exposures(self) -> dict[str, float]:
        found = dict.fromkeys(self.list_moving(), 0.0)
        for name in found:
            if name in self.history:
                mark = float(self.history[name].mark_close[-1])
                quote = compute_quote_value(self.venues[name].contract, mark)
                found[name] += self.quantities[name] * quote
        held = self.state.held
        for asset, amount, price in zip(
            self.result.account.collateral, held.amounts, held.prices, strict=True
        ):
            name = self.find_instrument(asset.prices) or asset.name
            if name in found:
                found[name] += float(amount * price)
        return found

    def find_distance(self) -> float:
        last = self.result.positions
        last = last[last["time"] == last["time"].iloc[-1]]
        price = last["liquidation_price"]
        gaps = (price / last["mark"] - 1.0).abs()[price > 0.0].dropna()
        return float(gaps.min()) if len(gaps) else math.nan

    @functools.cached_property
    def base(self) -> Setup:
        result, history = self.result, self.history
        kept = {name: result.policies[name] for name in history}
        signal = np.zeros((history.n_bars, len(history)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return set_up(
                history,
                kept,
                venue={name: self.venues[name] for name in history},
                account=replace(result.account, flows=None),
                signal=signal,
                overlay=result.overlay,
                sampling="1d",
                start=None,
                observed=observe_policies(
                    kept, result.overlay, history, signal.T, is_checked=False
                ),
            )

    @property
    def has_columns(self) -> bool:
        return any(each.columns for each in self.base.observed)

    @functools.cached_property
    def is_compiled(self) -> bool:
        return bool(self.result.manifest["compiled"] == "yes")

    def pass_bars(
        self,
        markets: Mapping[str, Market],
        venues: Mapping[str, Venue],
        outage: int,
        implied: float,
        *,
        is_search: bool,
    ) -> Shocked:
        given = {name: markets.get(name, market) for name, market in self.history.items()}
        panel = end_expired(keep_surfaces(remake(self.history, given)), venues)
        weights = np.tile(self.state.signal[self.kept, None], (1, panel.n_bars))
        account, first = self.reprice(markets), self.history.n_bars
        base = self.base._replace(venues={name: venues[name] for name in given}, account=account)
        setup = set_up_again(base, panel, weights, first=first, started=self.result.started)
        move_volatilities(setup.inputs.feed.options, first, implied)
        steps = LaterBars(
            setup,
            select_state(self.state, self.kept),
            select_memory(self.result, self.kept),
            self.result.traded,
            is_compiled=self.is_compiled,
        )
        quiet = self.read_quiet(setup, implied) if outage else setup.inputs
        distance = self.go_through(steps, quiet, outage, is_search=is_search)
        return self.sum_up(steps, distance)

    def read_quiet(self, setup: Setup, implied: float) -> PortfolioInputs:
        quiet = read_portfolio_inputs(
            setup.markets,
            setup.venues,
            replace(setup.account, **NO_STOPS),
            signal=setup.signal,
            sampling="1d",
            first=setup.first,
            started=setup.inputs.started,
        )
        move_volatilities(quiet.feed.options, setup.first, implied)
        return quiet

    def go_through(
        self, steps: LaterBars, quiet: PortfolioInputs, outage: int, *, is_search: bool
    ) -> float:
        """Take the account through its bars, or to a liquidation; return the least distance."""
        setup, least = steps.setup, math.inf
        first, total = setup.first, setup.markets.n_bars
        if outage:
            drop_decisions(steps.state)
        stop = first
        while stop < total:
            t, is_out = stop, stop - first < outage
            inputs = quiet if is_out else setup.inputs
            stop = min(t + (SEARCHED if is_search and not is_out else 1), total)
            if not is_search:
                least = min(least, steps.measure(liquidation_distance, inputs, t))
            steps.pass_bars(inputs, t, stop)
            if is_search and steps.tally.money.liquidations > 0:
                break
            if t + 1 - first < outage:  # orders that would fill while the venue is out are lost
                drop_decisions(steps.state)
        return least

    def sum_up(self, steps: LaterBars, distance: float) -> Shocked:
        state, money = steps.state, steps.tally.money
        held = state.held.quantities.tolist()
        converted = state.wallet[CONVERTED_SO_FAR] - self.state.wallet[CONVERTED_SO_FAR]
        return Shocked(
            equity=float(state.wallet[EQUITY]),
            reserve=float(state.wallet[RESERVE]),
            quantities=dict(zip(steps.setup.markets.names, held, strict=True)),
            liquidations=money.liquidations,
            calls=money.calls,
            fees=money.fees,
            slippage=float(money.slippage - converted),
            impact=money.impact,
            funding=money.funding,
            distance=distance if math.isfinite(distance) else math.nan,
        )

    def reprice(self, markets: Mapping[str, Market]) -> Account:
        known = self.base.account
        assets = [
            replace(each, prices=self.find_instrument(each.prices) or markets[each.name])
            for each in known.collateral
        ]
        return replace(known, flows=self.result.account.flows, collateral=assets)


def keep_surfaces(markets: Markets) -> Markets:
    if markets.listing is not None:
        markets.listing = markets.listing._replace(max_age=FOREVER)
    return markets


def move_volatilities(options: OptionFeed, first: int, factor: float) -> None:
    n = len(options.marks_open) - first
    if options.marks_open.shape[1] == 0:
        return
    scale = factor ** (np.arange(1, n + 1) / n)[:, None]
    options.volatilities_open[first:] *= scale
    options.volatilities_close[first:] *= scale
    options.marks_open[first:], options.marks_close[first:] = np.nan, np.nan


def make_asset(name: str, clock: Markets, assets: Mapping[str, FloatArray], c: int) -> Market:
    empty = np.zeros(0)
    prices: dict[str, Any] = {field: assets[f"asset_{field}"][c] for field in ASSET}
    return Market(
        time=clock.time,
        **prices,
        volume=np.zeros(clock.n_bars),
        funding_time=empty.astype(np.int64),
        funding_rate=empty,
        funding_mark=empty,
        funding_predicted=empty,
        columns={},
        instrument="",
        interval=clock.interval,
        has_mark=True,
        synthetic=True,
        sessions=clock.sessions,
        filled={},
        source=f"prices of {name}",
    )


def drop_decisions(state: AccountState) -> None:
    state.leverage[:], state.is_pending[:] = np.nan, 0


MULTIPLIERS = ("margin_multiplier", "initial_multiplier", "maintenance_multiplier")
WARMUP = 20_000
"""Bars of history in front of a scenario, for the columns of policies and for impact."""


class StressOutcome(NamedTuple):
    """What a scenario did to an account.

    ``equity`` is wealth after it, ``loss`` what it took of it. ``distance`` is the smallest
    distance of a mark price from the liquidation price of its position in any bar, a fraction of
    the mark, 0 once liquidated, NaN if no price liquidates.
    """

    equity: float
    loss: float
    liquidated: bool
    distance: float
    margin_calls: int
    fees: float
    slippage: float
    impact: float
    funding: float
    lost_to_adl: float
    lost_to_default: float


def scale(venue: Venue, name: str, factor: float, most: float) -> Cost:
    return scale_cost(pick_cost(venue, name), factor, most=most, name=f"venue.{name}")


def list_worsenings(venue: Venue) -> list[str]:
    return ["slippage.rate", *(["slippage.spread"] if has_spread(venue) else [])]


def scale_venue(venue: Venue, scenario: Scenario) -> Venue:
    changes: dict[str, Any] = {}
    if scenario.margin != 1.0:
        for name in MULTIPLIERS:
            given = getattr(venue, name)
            if given is not None:
                changes[name] = given * scenario.margin
    if scenario.spread != 1.0:
        for name in (*list_worsenings(venue), "liquidation.slippage"):
            changes[name] = scale(venue, name, scenario.spread, 0.99)
    if scenario.depth != 1.0:
        factor = 1.0 / math.sqrt(scenario.depth)
        changes["slippage.impact"] = venue.slippage.impact * factor
        changes["liquidation.impact"] = venue.liquidation.impact * factor
    return venue.override(changes) if changes else venue


@dataclass(frozen=True, eq=False)
class StressRun:
    result: Result
    venues: Mapping[str, Venue]

    @functools.cached_property
    def history(self) -> Markets:
        markets = self.result.markets
        if markets is None or not self.result.policies:
            raise ParameterError(
                "a stress test needs a result of this process, got a loaded one; run it again"
            )
        return markets.slice(max(markets.n_bars - WARMUP, 0), markets.n_bars)

    @functools.cached_property
    def account(self) -> StressAccount:
        return StressAccount(self.result, self.history, self.venues)

    @functools.cached_property
    def moving(self) -> dict[str, Market]:
        found = self.account.list_moving()
        if not found:
            raise ParameterError(
                "a scenario begins where an instrument goes on, "
                f"{', '.join(self.history)} ended with the run"
            )
        return found

    def find_moves(self, scenario: Scenario) -> dict[str, float]:
        return find_moves(scenario, self.moving, self.account.resting)

    def make(self, scenario: Scenario) -> Bars:
        moves, bare = self.find_moves(scenario), {*self.moving} - {*self.history}
        return make_all_bars(scenario, self.moving, moves, bare)

    def live(self, scenario: Scenario, bars: Bars) -> StressOutcome:
        before = self.account.wealth
        if count_bars(bars) == 0:
            distance = self.account.find_distance()
            gone = find_lost_equity(scenario, self.account.equity)
            return StressOutcome(
                before - gone, gone, False, distance, 0, 0.0, 0.0, 0.0, 0.0, 0.0, gone
            )
        markets, shocked = self.pass_bars(scenario, bars, is_search=False)
        lost = sum(
            find_lost_profit(
                scenario,
                self.venues[name].contract,
                shocked.quantities[name],
                float(self.history[name].close[-1]),
                float(markets[name].close[-1]),
            )
            for name in self.history
            if name in markets
        )
        kept = shocked.equity - lost
        gone = find_lost_equity(scenario, kept)
        equity = kept - gone + shocked.reserve
        liquidated = shocked.liquidations > 0
        return StressOutcome(
            equity=equity,
            loss=before - equity,
            liquidated=liquidated,
            distance=0.0 if liquidated else shocked.distance,
            margin_calls=shocked.calls,
            fees=shocked.fees,
            slippage=shocked.slippage,
            impact=shocked.impact,
            funding=shocked.funding,
            lost_to_adl=lost,
            lost_to_default=gone,
        )

    def is_liquidated(self, scenario: Scenario, bars: Bars) -> bool:
        if count_bars(bars) == 0:
            return False
        return self.pass_bars(scenario, bars, is_search=True)[1].liquidations > 0

    def pass_bars(
        self, scenario: Scenario, bars: Bars, *, is_search: bool
    ) -> tuple[dict[str, Market], Shocked]:
        markets = {name: append_bars(each, bars[name]) for name, each in self.moving.items()}
        venues = {name: scale_venue(each, scenario) for name, each in self.venues.items()}
        outage = 0
        if scenario.outage is not None:
            outage = -(-parse_duration(scenario.outage) // self.history.interval)
        implied = 1.0 + scenario.implied_volatility
        return markets, self.account.pass_bars(
            markets, venues, outage, implied, is_search=is_search
        )


def count_bars(bars: Bars) -> int:
    return int(next(iter(bars.values())).last.shape[1])


def find_lost_profit(
    scenario: Scenario, contract: Contract, quantity: float, start: float, last: float
) -> float:
    if scenario.adl == 0.0 or quantity == 0.0:
        return 0.0
    side = -1.0 if quantity < 0.0 else 1.0
    bankrupt = start * (1.0 + side / scenario.adl_leverage)
    if side * (last - bankrupt) <= 0.0:
        return 0.0
    size, is_inverse = contract.size, contract.kind == "inverse"
    gap = compute_value(size, is_inverse, last) - compute_value(size, is_inverse, bankrupt)
    return float(scenario.adl * quantity * gap)


def find_lost_equity(scenario: Scenario, equity: float) -> float:
    return scenario.venue_default * max(equity, 0.0)


def fix_margin_tables(result: Result, time: int) -> dict[str, Venue]:
    """Return the venues, each with the margin table of a time in ns."""
    at = np.array([time], dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: each.with_table(each.in_use(at)[0]) for name, each in result.venues.items()}


def find_table_time(result: Result, rules: str, scenario: Scenario) -> int:
    """Return the time, in ns, whose margin tables hold in a scenario."""
    if rules == "then" and scenario.date is not None:
        return to_nanoseconds(scenario.date)
    return int(np.iinfo(np.int64).max) if rules == "today" else result.last_time
