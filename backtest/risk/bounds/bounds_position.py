"""The bars of an account with one position, in every order of their extremes and settlements."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from backtest.account import (
    Balances,
    Feed,
    InstrumentRules,
    Ledger,
    Log,
    Position,
    Quote,
    Rules,
    State,
    Watch,
    find_adverse,
    find_nearest_stop,
    find_side,
    is_through,
    live_bar,
    new_ledger,
    quote_bar,
)  # fmt: skip
from backtest.account.exits import NOTHING
from backtest.base import DataError, format_time
from backtest.engine import (
    Result,
    count_days,
    join_records,
    new_record_of_one,
    observe,
    record_bar,
    show_account,
    start_state,
    with_decision,
)
from backtest.market import Market, read_settlements
from backtest.measures import Tally, count_bar, start_tally
from backtest.policy import bind_plain, start_memory
from backtest.risk.bounds.bar_orders import (
    BarSteps,
    Branch,
    add_ledgers,
    finish,
    identify,
    without_ruin,
)
from backtest.risk.bounds.bounds_lanes import WHERE, BarOutcomes, Lane, check_new


class PositionOrders:
    def __init__(self, result: Result, refine: Market | None) -> None:
        check_new(result)
        self.result, self.refine = result, refine
        market, policy = result.market, result.policy
        if market is None or policy is None:
            raise TypeError("bounds require a result of this process")
        inputs = result.setup.inputs
        self.inputs, self.market, self.policy = inputs, market, policy
        self.rules, self.changes = inputs.rules, dict(inputs.changes)
        columns = observe(policy, market)
        self.ask, self.values = bind_plain(policy, tuple(columns)), tuple(columns.values())
        self.first, self.n_bars = result.span.first, market.n_bars

    @property
    def n_beyond(self) -> int:
        return 0

    @property
    def source(self) -> Market:
        return self.market

    def begin(self) -> Lane:
        state = start_state(self.result.account)
        memory: Any = tuple(map(float, start_memory(self.policy) or ()))
        return Lane(
            state, memory, start_tally(state.unit, state.equity, self.first), None, 1.0, True
        )

    def open_bar(self, t: int) -> None:
        if t in self.changes:
            self.rules = self.rules.with_margin(self.changes[t])

    def pass_bar(self, lane: Lane, t: int) -> BarOutcomes:
        rules, inputs, state = self.rules, self.inputs, lane.state
        log = Log(None, np.empty((1, 8)), np.zeros(1, dtype=np.int64))
        with np.errstate(all="ignore"):
            after, ledger, quote = live_bar(rules, inputs.plan, inputs.feed, state, log, t)
            run = Branch(after, ledger, 0.0, "as run")
            if t == 0 or not is_suspect(rules, inputs.feed, state, after, ledger, t):
                return BarOutcomes(run._replace(weight=1.0), [], quote)
            branches = BarSteps(rules, inputs.plan, inputs.feed, t).branches(state)
            is_open = any(identify(each.state) != identify(after) for each in branches)
            if is_open and self.refine is not None:
                fine = slice_fine_bars(self.refine, self.market, inputs.feed, t)
                if fine is not None:
                    branches = live_fine(rules, inputs, fine, state, t)
        same = [b for b in branches if identify(b.state) == identify(after)]
        others = [b for b in branches if identify(b.state) != identify(after)]
        return BarOutcomes(run._replace(weight=sum(b.weight for b in same)), others, quote)

    def count(self, lane: Lane, branch: Branch, ways: BarOutcomes, t: int) -> tuple[Tally, Any]:
        row = new_record_of_one(1)
        record_bar(row, with_decision(branch.state, math.nan, 1.0), branch.ledger, 0)
        tally = count_bar(
            self.rules.instrument, self.inputs.clock, lane.tally, lane.state, branch.state,
            branch.ledger, ways.quote, t,
        )  # fmt: skip
        return tally, row

    def decide(self, lane: Lane, t: int) -> Lane:
        state, memory, leverage = lane.state, lane.memory, math.nan
        rules, inputs = self.rules, self.inputs
        feed = inputs.feed
        if not (state.is_ruined or state.is_over):
            quote = quote_bar(rules.instrument, feed, t)
            with np.errstate(all="ignore"):
                view = show_account(rules, state, quote, count_days(inputs.seen, t), True)
                leverage, memory = self.ask(
                    None, self.values, memory, inputs.seen, view, state.last_funding, t
                )
        lane.trail[1].positions.target[0, 0] = leverage
        signal = feed.signal[min(t, len(feed.signal) - 1)]
        return lane._replace(state=with_decision(state, leverage, signal), memory=memory)

    def identify(self, lane: Lane) -> Any:
        return identify(lane.state), lane.memory

    def finish(self, lane: Lane) -> Result:
        rows, node = [], lane.trail
        while node is not None:
            node, column = node
            rows.append(column)
        record = join_records(rows[::-1])
        return replace(self.result, record=record, tally=lane.tally, state=lane.state)


def varies_every_step(result: Result) -> bool:
    account, setup = result.account, result.setup
    acts_on_closes = account.margin_call is not None or account.equity_stop is not None
    has_tiers = setup is not None and setup.inputs.fees is not None
    is_plain = account.fill == "next_open" and not (acts_on_closes or has_tiers)
    return result.is_of_fast_loop and is_plain


def is_suspect(
    rules: Rules, feed: Feed, before: State, after: State, ledger: Ledger, t: int
) -> bool:
    if ledger.liquidations + ledger.stops + ledger.take_profits > 0:
        return True
    held = (
        before.balances.positions[0].quantity != 0.0 or after.balances.positions[0].quantity != 0.0
    )
    if not held:
        return False
    if rules.instrument.trailing_stop > 0.0 and may_trail(rules, feed, after, t):
        return True
    k = before.funding_next
    while k < len(feed.funding_bar) and feed.funding_bar[k] == t:
        if feed.funding_is_open[k] == 0:
            return True
        k += 1
    return False


def may_trail(rules: Rules, feed: Feed, after: State, t: int) -> bool:
    position = after.balances.positions[0]
    if position.quantity == 0.0:
        return False
    return may_stop(rules.instrument, position, quote_bar(rules.instrument, feed, t), after.watch)


def may_stop(instrument: InstrumentRules, position: Position, quote: Quote, watch: Watch) -> bool:
    kind, stop = find_nearest_stop(instrument, Balances(0.0, (position,)), quote, watch)
    adverse = find_adverse(position, quote.low, quote.high)
    return bool(kind != NOTHING and is_through(find_side(position), adverse, stop))


# ---------------------------------------------------------------------------------- finer bars


def slice_fine_bars(refine: Market, market: Market, feed: Feed, t: int) -> Feed | None:
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
