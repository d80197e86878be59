"""The account of a result in a scenario: it goes on from where the run ended."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import base
from backtest.account import (
    Account,
    AccountState,
    MarketBar,
    MarketFeed,
    OptionFeed,
    Scratch,
    Terms,
    aim_at_leg,
    choose_turns,
    compute_excess,
    is_moved_by,
    is_walking,
    open_options,
    price_options,
    set_quotes,
    value_at,
)
from backtest.account.records import CONVERTED_SO_FAR, EQUITY, RESERVE
from backtest.engine import (
    AccountInputs,
    LaterBars,
    Result,
    Setup,
    copy_state,
    end_expired,
    find_failure_value,
    observe_policies,
    read_assets,
    set_up,
    set_up_again,
)
from backtest.market import Market, Markets, remake
from backtest.risk.paths import PRICES
from backtest.risk.scenario import Bars, Scenario, find_moves, go_on, make_all_bars
from backtest.venue import Venue, compute_value, has_spread, pick_cost, scale_cost

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


@dataclass(frozen=True, eq=False)
class StressedAccount:
    """The account where a run ended, at venues with the margin tables of one time."""

    result: Result
    venues: Mapping[str, Venue]

    @functools.cached_property
    def history(self) -> Markets:
        markets = self.result.markets
        if markets is None or not self.result.policies:
            raise base.ParameterError(
                "a stress test needs a result of this process, got a loaded one; run it again"
            )
        first = min(markets.n_bars - WARMUP, int(markets.spans[:, 1].min()) - 1)  # none is left out
        return markets.slice(max(first, 0), markets.n_bars)

    @functools.cached_property
    def base(self) -> Setup:
        result, history = self.result, self.history
        signal = np.zeros((history.n_bars, len(history)))
        observed = observe_policies(
            result.policies, result.overlay, history, signal.T, is_checked=False
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return set_up(
                history,
                result.policies,
                venue=self.venues,
                account=replace(result.account, flows=None),
                signal=signal,
                overlay=result.overlay,
                sampling="1d",
                start=None,
                observed=observed,
            )

    # --------------------------------------------------------------------------- what it holds

    @property
    def wealth(self) -> float:
        return float(sum(self.result.of_account(name)[-1] for name in ("equity", "reserve")))

    @functools.cached_property
    def assets(self) -> dict[str, Market]:
        """The collateral that moves by itself, as markets."""
        fields = read_assets(self.history, self.base.account)
        return {
            each.name: make_asset(self.history, fields, c)
            for c, each in enumerate(self.base.account.collateral)
            if self.find_instrument(each.prices) is None
        }

    @functools.cached_property
    def resting(self) -> frozenset[str]:
        return frozenset(name for name, each in self.assets.items() if np.ptp(each.close) == 0.0)

    @functools.cached_property
    def moving(self) -> dict[str, Market]:
        """The markets that go on after the run."""
        found = {name: each for name, each in self.history.items() if self.goes_on(name)}
        if not found:
            raise base.ParameterError(
                "a scenario begins where an instrument goes on, "
                f"{', '.join(self.history)} ended with the run"
            )
        return found | self.assets

    def goes_on(self, name: str) -> bool:
        expires, end = self.venues[name].contract.expires, self.history.end
        if expires is not None and end >= base.to_nanoseconds(expires):
            return False
        return self.history[name].end == end

    def find_instrument(self, prices: object) -> str | None:
        whole: Mapping[str, Market] = self.result.markets or {}
        same = [name for name in whole if prices is whole[name] or prices == name]
        return next(iter(same), None)

    @functools.cached_property
    def exposures(self) -> dict[str, float]:
        """Money that moves with each market."""
        held, found = self.result.state.held, dict.fromkeys(self.moving, 0.0)
        for name, quantity in zip(self.history, held.quantities.tolist(), strict=True):
            if name in found:
                mark = float(self.history[name].mark_close[-1])
                found[name] += quantity * abs(self.value_one(name, mark))
        assets = zip(self.result.account.collateral, held.amounts * held.prices, strict=True)
        for asset, worth in assets:
            name = self.find_instrument(asset.prices) or asset.name
            if name in found:
                found[name] += float(worth)
        return found

    def value_one(self, name: str, price: float) -> float:
        contract = self.venues[name].contract
        return float(compute_value(contract.size, contract.kind == "inverse", price))

    def find_distance(self) -> float:
        last = self.result.positions
        last = last[last["time"] == last["time"].iloc[-1]]
        price = last["liquidation_price"]
        gaps = (price / last["mark"] - 1.0).abs()[price > 0.0].dropna()
        return float(gaps.min()) if len(gaps) else math.nan

    # --------------------------------------------------------------------------- a scenario

    def find_moves(self, scenario: Scenario) -> dict[str, float]:
        return find_moves(scenario, self.moving, self.resting)

    def make(self, scenario: Scenario) -> Bars:
        moves, bare = self.find_moves(scenario), {*self.moving} - {*self.history}
        return make_all_bars(scenario, self.moving, moves, bare)

    def live(self, scenario: Scenario, bars: Bars) -> StressOutcome:
        before, state, money = self.wealth, self.result.state, None
        distance, lost = self.find_distance(), 0.0
        if count_bars(bars):
            markets, steps, distance = self.pass_bars(scenario, bars, is_search=False)
            state, money = steps.state, steps.tally.money
            lost = sum(
                self.find_lost_profit(scenario, name, quantity, float(markets[name].close[-1]))
                for name, quantity in zip(self.history, state.held.quantities.tolist(), strict=True)
                if name in markets
            )
        kept = float(state.wallet[EQUITY]) - lost
        gone = scenario.venue_default * max(kept, 0.0)
        equity = kept - gone + float(state.wallet[RESERVE])
        converted = state.wallet[CONVERTED_SO_FAR] - self.result.state.wallet[CONVERTED_SO_FAR]
        costs = ("fees", "slippage", "impact", "funding")
        fees, slippage, impact, funding = (float(getattr(money, name, 0.0)) for name in costs)
        is_dead = money is not None and money.liquidations > 0
        return StressOutcome(
            equity=equity,
            loss=before - equity,
            liquidated=is_dead,
            distance=0.0 if is_dead else distance,
            margin_calls=0 if money is None else money.calls,
            fees=fees,
            slippage=slippage - float(converted),
            impact=impact,
            funding=funding,
            lost_to_adl=lost,
            lost_to_default=gone,
        )

    def find_lost_profit(
        self, scenario: Scenario, name: str, quantity: float, last: float
    ) -> float:
        """Return what auto-deleveraging takes: closed at the bankruptcy price of a counterparty."""
        side = math.copysign(1.0, quantity)
        start = float(self.history[name].close[-1])
        bankrupt = start * (1.0 + side / scenario.adl_leverage)
        if scenario.adl == 0.0 or quantity == 0.0 or side * (last - bankrupt) <= 0.0:
            return 0.0
        gap = self.value_one(name, last) - self.value_one(name, bankrupt)
        return float(scenario.adl * quantity * gap)

    def is_liquidated(self, scenario: Scenario, bars: Bars) -> bool:
        if count_bars(bars) == 0:
            return False
        _, steps, _ = self.pass_bars(scenario, bars, is_search=True)
        return bool(steps.tally.money.liquidations > 0)

    def pass_bars(
        self, scenario: Scenario, bars: Bars, *, is_search: bool
    ) -> tuple[dict[str, Market], LaterBars, float]:
        """Take the account through bars, or to a liquidation; return also the least distance."""
        result, history = self.result, self.history
        markets = {name: go_on(each, bars[name]) for name, each in self.moving.items()}
        venues = {name: scale_venue(each, scenario) for name, each in self.venues.items()}
        panel = remake(history, {name: markets.get(name, each) for name, each in history.items()})
        if panel.listing is not None:
            panel.listing = panel.listing._replace(max_age=FOREVER)
        panel = end_expired(panel, venues)
        setup = set_up_again(
            self.base._replace(venues=venues, account=self.reprice(markets)),
            panel,
            np.tile(result.state.signal[:, None], (1, panel.n_bars)),
            first=history.n_bars,
            started=result.started,
        )
        quiet, outage = setup.inputs, 0
        if scenario.outage is not None:
            outage = -(-base.parse_duration(scenario.outage) // history.interval)
            quiet = setup.change(account=replace(setup.account, **NO_STOPS)).inputs
        for inputs in (setup.inputs, quiet)[: 1 + bool(outage)]:
            move_volatilities(inputs.feed.options, setup.first, 1.0 + scenario.implied_volatility)
        steps = LaterBars(
            setup,
            copy_state(result.state),
            np.asarray(result.memory),
            result.traded,
            is_compiled=bool(result.manifest["compiled"] == "yes"),
        )
        return markets, steps, go_through(steps, quiet, outage, is_search=is_search)

    def reprice(self, markets: Mapping[str, Market]) -> Account:
        known = self.base.account
        assets = [
            replace(each, prices=self.find_instrument(each.prices) or markets[each.name])
            for each in known.collateral
        ]
        return replace(known, flows=self.result.account.flows, collateral=assets)


def count_bars(bars: Bars) -> int:
    return int(next(iter(bars.values())).last.shape[1])


def go_through(steps: LaterBars, quiet: AccountInputs, outage: int, *, is_search: bool) -> float:
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
            least = min(least, steps.measure(measure_distance, inputs, t))
        steps.pass_bars(inputs, t, stop)
        if is_search and steps.tally.money.liquidations > 0:
            break
        if t + 1 - first < outage:  # orders that would fill while the venue is out are lost
            drop_decisions(steps.state)
    return least if math.isfinite(least) else math.nan


# ------------------------------------------------------------------- how near it comes


def measure_distance(
    terms: Terms, feed: MarketFeed, state: AccountState, quotes: MarketBar, scratch: Scratch, t: int
) -> float:
    """Return how near the marks of bar t come to the liquidation prices of what is carried in.

    At each waypoint of the bar (:mod:`backtest.account.price_walk`), all marks are those of the
    waypoint, and the distance of a position is that of its mark from the price at which it would be
    liquidated there, the others frozen; a fraction of the mark, infinite if no price liquidates.
    With options it is that of the nearer price on either side. The account is only valued.
    """
    set_quotes(terms, feed, quotes, t)
    open_options(terms, feed, state, quotes, t)
    least = math.inf
    choose_turns(terms, state, quotes, scratch)
    for leg in range(3):
        aim_at_leg(quotes, scratch, leg)
        values, prices = scratch.mark_end.copy(), scratch.price_end.copy()
        value_all_at(terms, state, values, prices)
        excess = compute_excess(terms, state)
        for i in range(len(state.margin)):
            if is_moved_by(terms, state, i):
                value_all_at(terms, state, values, prices)
                root = find_failure_value(terms, state, quotes, scratch, i, excess)
                gap = (values[i] - root) / abs(values[i])
                gap = gap if state.held.quantities[i] > 0.0 else -gap
                if is_walking(terms, state):
                    gap = abs(gap) if excess > 0.0 else 0.0
                least = min(least, max(gap, 0.0)) if not math.isnan(gap) else least
    return least


def value_all_at(
    terms: Terms, state: AccountState, values: base.FloatArray, prices: base.FloatArray
) -> None:
    value_at(state, values, prices)
    price_options(terms, state, values)


# ------------------------------------------------------------------- where it begins


def drop_decisions(state: AccountState) -> None:
    state.leverage[:], state.is_pending[:] = np.nan, 0


def move_volatilities(options: OptionFeed, first: int, factor: float) -> None:
    n = len(options.marks_open) - first
    if options.marks_open.shape[1] == 0:
        return
    scale = factor ** (np.arange(1, n + 1) / n)[:, None]
    options.volatilities_open[first:] *= scale
    options.volatilities_close[first:] *= scale
    options.marks_open[first:], options.marks_close[first:] = np.nan, np.nan


def make_asset(clock: Markets, assets: Mapping[str, base.FloatArray], c: int) -> Market:
    last, mark = (
        pd.DataFrame({each: assets[f"asset_{kind}{each}"][c] for each in PRICES}, clock.times)
        for kind in ("", "mark_")
    )
    interval = base.format_duration(clock.interval)
    return Market.from_frames(last, mark=mark, interval=interval, sessions=clock.sessions)


# ------------------------------------------------------------------------- venue in a scenario


def scale(venue: Venue, name: str, factor: float, most: float) -> base.Cost:
    return scale_cost(pick_cost(venue, name), factor, most=most, name=f"venue.{name}")


def list_worsenings(venue: Venue) -> list[str]:
    return ["slippage.rate", *(["slippage.spread"] if has_spread(venue) else [])]


def scale_venue(venue: Venue, scenario: Scenario) -> Venue:
    changes: dict[str, Any] = {}
    if scenario.margin != 1.0:
        given = {name: getattr(venue, name) for name in MULTIPLIERS}
        changes = {name: x * scenario.margin for name, x in given.items() if x is not None}
    if scenario.spread != 1.0:
        for name in (*list_worsenings(venue), "liquidation.slippage"):
            changes[name] = scale(venue, name, scenario.spread, 0.99)
    if scenario.depth != 1.0:
        factor = 1.0 / math.sqrt(scenario.depth)
        changes["slippage.impact"] = venue.slippage.impact * factor
        changes["liquidation.impact"] = venue.liquidation.impact * factor
    return venue.override(changes) if changes else venue
