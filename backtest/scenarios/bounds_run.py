"""A run in every order that its bars allow: lanes that branch where a bar is ambiguous."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from backtest.account import Feed, Ledger, Log, Quote, Rules, State, live_bar
from backtest.account.bar import quote_bar
from backtest.account.ledger import new_ledger
from backtest.base.errors import DataError, ParameterError
from backtest.base.phrases import Place
from backtest.base.units import format_time
from backtest.engine import Result
from backtest.engine.bar_loop import (
    RECORDED,
    count_days,
    record_bar,
    show_account,
    with_decision,
)
from backtest.engine.lookahead.causality import observe
from backtest.engine.loop_inputs import start_state
from backtest.market import Market
from backtest.market.tables.dividends import read_settlements
from backtest.measures.tally import Tally, count_bar, start_tally
from backtest.policy import start_memory
from backtest.policy.error_location import bind_plain
from backtest.scenarios.bar_orders import (
    BarSteps,
    Branch,
    add_ledgers,
    finish,
    identify,
    without_ruin,
)

Progress = Callable[[int, int], None]
WHERE = "bt.bounds"


class Lane(NamedTuple):
    """One life: state, memory, measures, the records of its bars (a linked list), probability.

    ``is_run`` is the life of the ordinary run.
    """

    state: State
    memory: Any
    tally: Tally
    trail: Any
    weight: float
    is_run: bool


class AmbiguousBar(NamedTuple):
    """A bar of the run whose orders end in different states."""

    bar: int
    events: str
    states: int
    equity_low: float
    as_run: float
    equity_high: float
    probability: float


class BarOutcomes(NamedTuple):
    """The ways through a bar from a state: that of the run first, and its quote."""

    run: Branch
    others: list[Branch]
    quote: Quote


@dataclass(frozen=True, eq=False)
class BoundsRun:
    """A run, and the inputs for simulating it with other orders of prices inside bars.

    Parameters
    ----------
    result : Result
        A run in this process that began with a new account.
    refine : Market, optional
        Finer bars that replace ambiguous ones.
    depth : int
        At most 2^depth lives are kept.
    """

    result: Result
    refine: Market | None
    depth: int

    def __post_init__(self) -> None:
        check_result(self.result)

    def live(self, progress: Progress | None) -> tuple[list[Lane], list[AmbiguousBar], bool]:
        """Return the lives at the end, the ambiguous bars of the run, and if lives were dropped."""
        result = self.result
        inputs, market, policy = result.inputs, result.market, result.policy
        if inputs is None or market is None or policy is None:
            raise TypeError("the constructor requires a result of this process")
        columns = observe(policy, market)
        decide = bind_plain(policy, tuple(columns))
        values = tuple(columns.values())
        first, state = result.span.first, start_state(result.account)
        memory: Any = tuple(map(float, start_memory(policy) or ()))
        tally = start_tally(state.unit, state.equity, first)
        lanes = [Lane(state, memory, tally, None, 1.0, True)]
        found: list[AmbiguousBar] = []
        is_cut, rules, changes = False, inputs.rules, dict(inputs.changes)
        for t in range(first, market.n_bars):
            rules = rules.with_margin(changes[t]) if t in changes else rules
            following: list[Lane] = []
            for lane in lanes:
                ways = self.pass_bar(rules, inputs, market, lane.state, t)
                if lane.is_run and ways.others:
                    found.append(describe_bar(ways, t))
                following += spread(lane, ways, rules, inputs, t)
            lanes, was_cut = prune(merge(following), 2**self.depth)
            is_cut |= was_cut
            lanes = [decide_lane(lane, rules, inputs, decide, values, t) for lane in lanes]
            if progress is not None and t % 256 == 0:
                progress(t - first, market.n_bars - first)
        return lanes, found, is_cut

    def pass_bar(
        self, rules: Rules, inputs: Any, market: Market, state: State, t: int
    ) -> BarOutcomes:
        """Return the ways through bar t from a state."""
        log = Log(None, np.empty((1, 8)), np.zeros(1, dtype=np.int64))
        with np.errstate(all="ignore"):
            after, ledger, quote = live_bar(rules, inputs.plan, inputs.feed, state, log, t)
            run = Branch(after, ledger, 0.0, "as run")
            if t == 0 or not is_suspect(rules, inputs.feed, state, after, ledger, t):
                return BarOutcomes(run._replace(weight=1.0), [], quote)
            branches = BarSteps(rules, inputs.plan, inputs.feed, t).branches(state)
            is_open = any(identify(each.state) != identify(after) for each in branches)
            if is_open and self.refine is not None:
                fine = cut_fine(self.refine, market, inputs.feed, t)
                if fine is not None:
                    branches = live_fine(rules, inputs, fine, state, t)
        same = [b for b in branches if identify(b.state) == identify(after)]
        others = [b for b in branches if identify(b.state) != identify(after)]
        return BarOutcomes(run._replace(weight=sum(b.weight for b in same)), others, quote)

    def finish(self, lane: Lane) -> Result:
        """Return a life as a result, for its metrics."""
        rows, node = [], lane.trail
        while node is not None:
            node, column = node
            rows.append(column)
        book = np.concatenate(rows[::-1], axis=1)
        return replace(self.result, record=book.T, tally=lane.tally, state=lane.state)


def check_result(result: Result) -> None:
    """Refuse accounts whose orders inside a bar are not enumerated."""
    account, inputs = result.account, result.inputs
    refused = {
        "margin calls": account.margin_call is not None,
        "an equity stop": account.equity_stop is not None,
        f"fill={account.fill!r}": account.fill != "next_open",
        "fee tiers": inputs is not None and inputs.fees is not None,
        "an earlier run that it continues": math.isfinite(result.first_mark),
    }
    for name, is_used in refused.items():
        if is_used:
            raise ParameterError(
                f"bounds cannot be computed for an account with {name}",
                where=Place("account", of=WHERE),
                cure="leave it out, or run finer bars",
            )


def is_suspect(
    rules: Rules, feed: Feed, before: State, after: State, ledger: Ledger, t: int
) -> bool:
    """Return whether the order inside a bar may matter.

    It may if something was forced, as the whole bar tests all extremes; if a trailing stop follows
    the extremes; or if a settlement inside the bar meets a position.
    """
    if ledger.liquidations + ledger.stops + ledger.take_profits > 0:
        return True
    held = before.books.positions[0].quantity != 0.0 or after.books.positions[0].quantity != 0.0
    if not held:
        return False
    if rules.instrument.trailing_stop > 0.0:
        return True
    k = before.funding_next
    while k < len(feed.funding_bar) and feed.funding_bar[k] == t:
        if feed.funding_is_open[k] == 0:
            return True
        k += 1
    return False


def spread(lane: Lane, ways: BarOutcomes, rules: Rules, inputs: Any, t: int) -> list[Lane]:
    """Return the lives after a bar."""
    found = []
    for branch, is_run in [(ways.run, True), *((other, False) for other in ways.others)]:
        if is_run and not lane.is_run and ways.others and branch.weight == 0.0:
            continue
        row = np.zeros((len(RECORDED), 1))
        record_bar(row, with_decision(branch.state, math.nan, 1.0), branch.ledger, 0)
        tally = count_bar(
            rules.instrument, inputs.clock, lane.tally, lane.state, branch.state, branch.ledger,
            ways.quote, t,
        )  # fmt: skip
        weight = lane.weight * branch.weight
        trail = (lane.trail, row)
        kept = Lane(branch.state, lane.memory, tally, trail, weight, lane.is_run and is_run)
        found.append(kept)
    return found


def decide_lane(lane: Lane, rules: Rules, inputs: Any, decide: Any, values: Any, t: int) -> Lane:
    """Return a life with its decision at the close of bar t."""
    state, memory, leverage = lane.state, lane.memory, math.nan
    feed = inputs.feed
    if not (state.is_ruined or state.is_over):
        quote = quote_bar(rules.instrument, feed, t)
        with np.errstate(all="ignore"):
            view = show_account(rules, state, quote, count_days(inputs.seen, t), True)
            leverage, memory = decide(
                None, values, memory, inputs.seen, view, state.last_funding, t
            )
    lane.trail[1][RECORDED.index("target"), 0] = leverage
    signal = feed.signal[min(t, len(feed.signal) - 1)]
    return lane._replace(state=with_decision(state, leverage, signal), memory=memory)


def merge(lanes: list[Lane]) -> list[Lane]:
    """Return lives with equal states, memories and money as one."""
    found: dict[Any, Lane] = {}
    for lane in lanes:
        money = tuple(f"{x:.9g}" for x in lane.tally.money)
        key = (identify(lane.state), lane.memory, money, f"{lane.tally.drawdown[0]:.9g}")
        other = found.get(key)
        if other is not None:
            kept = lane if lane.is_run else other
            lane = kept._replace(  # noqa: PLW2901 - the merged one
                weight=lane.weight + other.weight, is_run=lane.is_run or other.is_run
            )
        found[key] = lane
    return list(found.values())


def prune(lanes: list[Lane], most: int) -> tuple[list[Lane], bool]:
    """Return at most so many lives: that of the run, and others evenly from worst to best.

    Lives without probability go first, such as those that finer bars contradict. Any other that is
    dropped leaves its probability to the nearest one kept, by wealth, so that probabilities sum
    to 1.
    """
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
    """Return equity and reserve of a life."""
    return lane.state.equity + lane.state.reserve


def describe_bar(ways: BarOutcomes, t: int) -> AmbiguousBar:
    """Return what competes in an ambiguous bar."""
    branches = [ways.run, *ways.others]
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
        events=" or ".join(sorted(kinds)),
        states=len(branches),
        equity_low=min(equity),
        as_run=ways.run.state.equity,
        equity_high=max(equity),
        probability=ways.run.weight,
    )


# ---------------------------------------------------------------------------------- finer bars


def cut_fine(refine: Market, market: Market, feed: Feed, t: int) -> Feed | None:
    """Return the finer bars of bar t as a feed from bar 1 on; None where there are none."""
    start, stop = int(market.time[t]), int(market.time[t]) + market.interval
    first, last = (int(k) for k in np.searchsorted(refine.time, [start, stop]))
    if (last - first) * refine.interval != market.interval or refine.interval >= market.interval:
        return None
    part = slice(first, last)
    check_sum(refine, market, part, t)
    n = last - first
    fields: dict[str, Any] = {}
    for name in ("open", "high", "low", "close"):
        for prefix in ("", "mark_"):
            whole = getattr(market, prefix + name)
            fine = getattr(refine, prefix + name)[part]
            fields[prefix + name] = np.concatenate([whole[t - 1 : t], fine])
    fields["volume"] = np.full(n + 1, market.volume[t - 1])
    for name in feed._fields:
        if name not in fields:
            values = getattr(feed, name)
            fields[name] = [values[min(t, len(values) - 1)] if len(values) else math.nan]
    fields["years"] = [0.0, fields["years"][0], *([0.0] * (n - 1))]
    fields["time"] = np.concatenate([[market.time[t]], refine.time[part]])
    events = np.flatnonzero(np.asarray(feed.funding_bar) == t)
    n_events = len(feed.funding_bar)
    stamps = read_settlements(market).time[-n_events:]
    bar = [max(int(np.searchsorted(refine.time[part], stamps[k] + 1, side="right")), 1)
           for k in events]  # fmt: skip
    settled = [feed.funding_price[k] for k in events]
    fields["funding_bar"] = bar
    fields["funding_is_open"] = [1] * len(bar)
    fields["funding_price"] = [feed.mark_open[t] if math.isnan(p) else p for p in settled]
    fields["funding_rate"] = [feed.funding_rate[k] for k in events]
    flows = np.flatnonzero(np.asarray(feed.flow_bar) == t)
    fields["flow_bar"] = [1] * len(flows)
    fields["flow_amount"] = [feed.flow_amount[k] for k in flows]
    return Feed(**fields)


def check_sum(refine: Market, market: Market, part: slice, t: int) -> None:
    """Require finer bars that add up to the bar."""
    found = (
        refine.open[part][0], refine.high[part].max(), refine.low[part].min(),
        refine.close[part][-1],
    )  # fmt: skip
    wanted = (market.open[t], market.high[t], market.low[t], market.close[t])
    if not np.allclose(found, wanted, rtol=1e-9, atol=0.0):
        texts = [", ".join(f"{x:g}" for x in each) for each in (found, wanted)]
        raise DataError(
            f"finer bars must add up to the bar they replace, {texts[0]} is not {texts[1]}",
            where=f"{WHERE}, refine, {format_time(int(market.time[t]))}",
            cure="give finer bars of the same instrument and venue, or leave refine out",
        )


def live_fine(rules: Rules, inputs: Any, fine: Feed, state: State, t: int) -> list[Branch]:
    """Return the different ways through a bar by its finer bars, in every order of each."""
    n = len(fine.open) - 1
    log = Log(None, np.empty((1, 8)), np.zeros(1, dtype=np.int64))
    begun = state._replace(funding_next=0, flow_next=0)
    lanes = [Branch(begun, new_ledger(), 1.0, "finer bars")]
    for k in range(1, n + 1):
        own = rules if k == n else without_ruin(rules)
        found: dict[Any, Branch] = {}
        for lane in lanes:
            after, ledger, _ = live_bar(own, inputs.plan, fine, lane.state, log, k)
            ways = [Branch(after, ledger, 1.0, "")]
            if is_suspect(own, fine, lane.state, after, ledger, k):
                ways = BarSteps(own, inputs.plan, fine, k).branches(lane.state)
            for way in ways:
                now = with_decision(way.state, math.nan, 1.0) if k < n else way.state
                total, weight = add_ledgers(lane.ledger, way.ledger), lane.weight * way.weight
                key = identify(now)
                if key in found:
                    weight += found[key].weight
                found[key] = Branch(now, total, weight, lane.order)
        lanes = list(found.values())
    n_events = int(np.sum(np.asarray(inputs.feed.funding_bar) == t))
    n_flows = int(np.sum(np.asarray(inputs.feed.flow_bar) == t))
    return [
        lane._replace(state=finish(state, lane.state, lane.ledger, n_events, n_flows))
        for lane in lanes
    ]
