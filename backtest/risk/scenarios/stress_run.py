"""Take an account from where a run ended through the bars of a scenario."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from backtest.base import Cost, ParameterError, parse_duration, to_nanoseconds
from backtest.engine import Result
from backtest.market import Market, Markets
from backtest.risk.scenarios.scenario import Scenario
from backtest.risk.scenarios.scenario_bars import Bars, append_bars, find_moves, make_all_bars
from backtest.risk.scenarios.stress_account import Shocked, StressAccount
from backtest.venue import Contract, Venue, compute_value, has_spread, pick_cost, scale_cost

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
