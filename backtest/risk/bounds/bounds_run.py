"""A run in every order that its bars allow: lanes that branch where a bar is ambiguous."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from backtest.engine import Progress, Result
from backtest.market import Market
from backtest.risk.bounds.bar_orders import Branch
from backtest.risk.bounds.bounds_lanes import AmbiguousBar, BarOrders, BarOutcomes, Lane
from backtest.risk.bounds.bounds_portfolio import PortfolioOrders, run_in_general
from backtest.risk.bounds.bounds_position import PositionOrders, varies_every_step


@dataclass(frozen=True, eq=False)
class BoundsRun:
    result: Result
    refine: Market | None
    depth: int

    @cached_property
    def orders(self) -> BarOrders:
        if varies_every_step(self.result):
            return PositionOrders(self.result, self.refine)
        return PortfolioOrders(run_in_general(self.result), self.refine, self.depth)

    def live(self, progress: Progress | None) -> tuple[list[Lane], list[AmbiguousBar], bool]:
        orders, is_cut = self.orders, False
        lanes, found = [orders.begin()], []
        for t in range(orders.first, orders.n_bars):
            orders.open_bar(t)
            following: list[Lane] = []
            for lane in lanes:
                ways = orders.pass_bar(lane, t)
                if lane.is_run and ways.others:
                    found.append(describe_bar(ways, t))
                following += spread(lane, ways, orders, t)
            lanes, was_cut = prune(merge(following, orders), 2**self.depth)
            is_cut |= was_cut
            lanes = [orders.decide(lane, t) for lane in lanes]
            if progress is not None and t % 256 == 0:
                progress(t - orders.first, orders.n_bars - orders.first)
        return lanes, found, is_cut or orders.n_beyond > 0


def spread(lane: Lane, ways: BarOutcomes, orders: BarOrders, t: int) -> list[Lane]:
    found = []
    for branch, is_run in [(ways.run, True), *((other, False) for other in ways.others)]:
        if is_run and not lane.is_run and ways.others and branch.weight == 0.0:
            continue
        tally, row = orders.count(lane, branch, ways, t)
        kept = lane._replace(
            state=branch.state,
            tally=tally,
            trail=(lane.trail, row),
            weight=lane.weight * branch.weight,
            is_run=lane.is_run and is_run,
        )
        found.append(kept)
    return found


def merge(lanes: list[Lane], orders: BarOrders) -> list[Lane]:
    found: dict[Any, Lane] = {}
    for lane in lanes:
        money = tuple(f"{x:.9g}" for x in lane.tally.money)
        key = (orders.identify(lane), money, f"{lane.tally.drawdown[0]:.9g}")
        other = found.get(key)
        if other is not None:
            kept = lane if lane.is_run else other
            lane = kept._replace(  # noqa: PLW2901 - the merged one
                weight=lane.weight + other.weight, is_run=lane.is_run or other.is_run
            )
        found[key] = lane
    return list(found.values())


def prune(lanes: list[Lane], most: int) -> tuple[list[Lane], bool]:
    if len(lanes) <= most:
        return lanes, False
    lanes = [lane for lane in lanes if lane.weight > 0.0 or lane.is_run]
    if len(lanes) <= most:
        return lanes, True
    ordered = sorted(lanes, key=wealth_of)
    own = next(k for k, lane in enumerate(ordered) if lane.is_run)
    places = np.linspace(0, len(ordered) - 1, most).round().astype(int)
    inner = np.arange(most)[1:-1] if most > 2 else np.arange(most)
    if own not in places:
        places[inner[np.argmin(np.abs(places[inner] - own))]] = own
    wealth = np.array([wealth_of(lane) for lane in ordered])
    nearest = np.argmin(np.abs(wealth[:, None] - wealth[None, places]), axis=1)
    nearest[places] = np.arange(most)
    weights = np.bincount(nearest, [lane.weight for lane in ordered], minlength=most)
    return [
        ordered[k]._replace(weight=float(weight)) for k, weight in zip(places, weights, strict=True)
    ], True


def wealth_of(lane: Lane) -> float:
    return float(lane.state.equity + lane.state.reserve)


def describe_bar(ways: BarOutcomes, t: int) -> AmbiguousBar:
    branches: list[Branch] = [ways.run, *ways.others]
    kinds = set()
    for branch in branches:
        ledger = branch.ledger
        kinds |= {
            name
            for name, count in (
                ("liquidation", ledger.liquidations),
                ("stop", ledger.stops),
                ("take-profit", ledger.take_profits),
            )
            if count > 0
        }
        if ledger.liquidations + ledger.stops + ledger.take_profits == 0:
            kinds.add("nothing")
    if len({branch.ledger.funding for branch in branches}) > 1:
        kinds.add("funding")
    equity = [branch.state.equity for branch in branches]
    return AmbiguousBar(
        bar=t,
        events=" or ".join(sorted(kinds)) + ways.names,
        states=len(branches),
        equity_low=min(equity),
        as_run=ways.run.state.equity,
        equity_high=max(equity),
        probability=ways.run.weight,
    )
