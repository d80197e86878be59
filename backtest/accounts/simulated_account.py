"""One account of a book, simulated from wake to wake: what a rule is shown, and what enters it."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import account as a
from backtest import core
from backtest.account import payments
from backtest.account import records as r
from backtest.accounts.rules import AccountStatus
from backtest.core import IntArray
from backtest.engine import new_bar
from backtest.engine.batch import AccountRun, choose_loop, copy_state
from backtest.engine.driver import list_arrays
from backtest.engine.run_setup import Setup
from backtest.market import Markets, find_clock, has_gaps

LATER = np.iinfo(np.int64).max
"""The bar of a spare entry of the flows: none."""
SPARE = 64
"""Spare entries of the flows at first; they double when they are used up."""
BEFORE_OPEN, LEAVING, ARRIVING, AT_OPEN = range(4)
"""The order of flows of one bar: own ones dated before its open, transfers, own ones at it."""


class Flow(NamedTuple):
    """An entry of the flows of an account; ``order`` is its place among those of its bar."""

    bar: int
    order: int
    amount: float


def find_closes(markets: Markets) -> IntArray:
    """Return when each bar has closed for certain, UTC ns, of shape (n_bars,).

    Bars of two lengths, as with ``detail=``, are closed where the next one opens.
    """
    closes = markets.time + markets.interval
    if markets.sessions or not has_gaps(markets):
        return closes
    longest = max(markets.interval, find_clock(markets).seen.interval)
    return np.append(markets.time[1:], markets.time[-1] + longest)


class SimulatedAccount:
    """An account of a book: a run that goes on from wake to wake, with flows that are added.

    ``opens`` and ``closes`` of shape (n_bars,) are those of its market, UTC ns; its bars
    are ``first`` to ``total``. ``start_wealth`` and ``start_equity`` are what it began with.
    """

    def __init__(
        self,
        name: str,
        setup: Setup,
        *,
        is_compiled: Any,
        has_overflowed: bool,
        has_transfers: bool,
    ) -> None:
        self.name = name
        self.opens: IntArray = setup.markets.time
        self.closes = find_closes(setup.markets)
        self.first = setup.first
        self.total = len(self.opens)
        self.can_send = not setup.markets.options
        self.flows = list_flows(setup)
        if has_transfers:
            setup = setup._replace(inputs=setup.inputs._replace(feed=make_room(setup, self.flows)))
        self.setup = setup

        self.choice = choose_loop(setup, is_compiled=is_compiled)
        self.run = AccountRun(
            setup, is_compiled=self.choice == "compiled", has_overflowed=has_overflowed
        )
        self.drive = self.run.drive
        self.state = self.run.state
        self.start_equity = float(self.state.wallet.equity)
        self.start_wealth = self.start_equity + float(self.state.wallet.reserve)

        if has_transfers:
            self.prepare_views()  # without a rule they would cost memory for nothing

    def prepare_views(self) -> None:
        """Make room for the quotes of the last close and of the next open, as rules are asked."""
        setup = self.setup
        terms = self.drive.terms.terms
        self.at_close = new_bar(terms, setup.inputs.feed, self.state)
        self.at_open = new_bar(terms, setup.inputs.feed, copy_state(self.state))
        self.kept = list_arrays(self.state)
        self.copied = list_arrays(self.at_open.state)

        # Before its first bar it holds nothing, whatever the prices are.
        begun = copy_state(self.state)
        self.before = new_bar(terms, setup.inputs.feed, begun)
        self.before.quotes.instruments.numbers[:] = 1.0
        for position in begun.positions:
            position.value = 1.0

    @property
    def t(self) -> int:
        """The next bar to simulate."""
        return self.drive.t

    def count_closed(self, times: IntArray) -> IntArray:
        """Return the bar that comes after those that have closed by some times, UTC ns."""
        return np.maximum(np.searchsorted(self.closes, times, side="right"), self.first)

    def find_open(self, time: int) -> int | None:
        """Return the first bar that opens at a time or later; None after the last."""
        bar = max(int(np.searchsorted(self.opens, time)), self.first)
        return bar if bar < self.total else None

    def advance(self, bar: int) -> None:
        """Simulate all bars before one."""
        if bar > self.drive.t:
            self.drive.advance(bar)

    def show(self, *, in_transit: float, ordered: float, fee: float) -> AccountStatus:
        """Return the status of the account at its last close, with what is on its way to it.

        Before its first close that is an account that holds nothing, of no time.
        """
        bar = self.before
        as_of = None
        last = self.t - 1
        if last >= self.first:
            bar = self.read_close(last)
            as_of = pd.Timestamp(int(self.closes[last]), tz="UTC")

        requirement, backing, ratio = self.measure_margin(bar)
        equity = float(self.state.wallet.equity)
        gross_notional = 0.0
        for position in self.state.positions:
            if position.quantity != 0.0:
                gross_notional += abs(position.quantity * position.value)

        return AccountStatus(
            equity=equity,
            available=float(payments.compute_withdrawable(bar)),
            margin_ratio=ratio,
            leverage=gross_notional / equity if equity > 0.0 else 0.0,
            in_transit=in_transit,
            as_of=as_of,
            requirement=requirement,
            backing=backing,
            ordered=ordered,
            capital=self.start_equity,
            fee=fee,
            can_send=self.can_send,
        )

    def read_close(self, t: int) -> a.AccountBar:
        """Return a bar whose opens are the marks of close t, the last one.

        Positions are marked to it, in place.
        """
        terms = self.drive.terms.terms
        feed = self.drive.inputs.feed
        bar = self.at_close._replace(terms=terms, feed=feed)

        for i, position in enumerate(self.state.positions):
            is_listed = feed.span[i, 0] <= t < feed.span[i, 1]
            if not is_listed:
                continue

            quote = bar.quotes.instruments[i]
            r.read_mark_close(terms, feed, quote, t, i)
            r.read_multipliers(terms, feed, quote, t, i)
            quote.mark_open = quote.mark_close
            position.value = quote.mark_close
        return bar

    def measure_margin(self, bar: a.AccountBar) -> tuple[float, float, float]:
        """Return requirement, backing and margin ratio of its worst pool at the last close."""
        terms = bar.terms
        requirement = 0.0
        backing = 0.0
        worst_ratio = 0.0

        # The shared pool, as the loop found it at the close.
        shared_requirement, shared_backing = self.run.tape.pool.tolist()
        if shared_requirement > 0.0:
            requirement = shared_requirement
            backing = shared_backing
            worst_ratio = requirement / backing if backing > 0.0 else math.inf

        for pool in range(len(self.state.positions)):
            if not a.is_isolated(terms, pool):
                continue
            ratio = float(a.compute_pool_ratio(bar, pool))
            if ratio > worst_ratio:
                requirement = float(a.compute_pool_needed(bar, pool))
                backing = float(a.compute_pool_backing(terms, self.state, pool))
                worst_ratio = ratio

        if worst_ratio == 0.0:
            return 0.0, float(a.compute_pool(terms, bar.state)), 0.0
        return requirement, backing, worst_ratio

    def find_withdrawable(self, bar: int) -> float:
        """Return what may leave at the mark open of the next bar, before top-ups and arrivals.

        Own flows that are dated before that open come first. Nothing of the account changes.
        """
        drive = self.drive
        drive.terms.at(bar, bar + 1, drive.counts.traded)
        terms = drive.terms.terms
        feed = drive.inputs.feed
        earlier = self.flows[self.find_place(bar, BEFORE_OPEN) : self.find_place(bar, LEAVING)]
        feed = feed._replace(
            flow_bar=np.array([flow.bar for flow in earlier], dtype=np.int64),
            flow_amount=np.array([flow.amount for flow in earlier], dtype=np.float64),
        )

        # A bar of copies: the state and the quotes of the account as they are now.
        opened = self.at_open._replace(terms=terms, feed=feed)
        quotes = opened.quotes
        quotes.instruments.numbers[:] = drive.quotes.instruments.numbers
        quotes.assets.numbers[:] = drive.quotes.assets.numbers
        for array, copy in zip(self.kept, self.copied, strict=True):
            copy[...] = array
        opened.state.cursor[r.FLOW_NEXT] = 0
        opened.log.written[0] = 0

        with np.errstate(all="ignore"):
            a.set_quotes(terms, feed, quotes, bar)
            payments.take_flows(opened, bar)
            a.value_at(opened.state, quotes.mark_open, quotes.asset_mark_open)
            return float(payments.compute_withdrawable(opened))

    def find_place(self, bar: int, order: int) -> int:
        """Return the place of a new flow of a bar: before those of this order."""
        return bisect.bisect_left(self.flows, (bar, order), key=lambda flow: flow[:2])

    def enter(self, bar: int, order: int, amount: float) -> None:
        """Write a transfer into the flows of a bar that is not simulated yet."""
        place = self.find_place(bar, order + 1)
        self.flows.insert(place, Flow(bar, order, amount))
        feed = self.drive.inputs.feed
        if len(self.flows) > len(feed.flow_bar):
            feed = make_room(self.setup, self.flows)
            self.drive.inputs = self.drive.inputs._replace(feed=feed)
        write_flows(feed, self.flows, place)

    def list_transfers(self) -> list[Flow]:
        """Return the flows that transfers were."""
        return [flow for flow in self.flows if flow.order in (LEAVING, ARRIVING)]

    def find_outcome(self) -> Any:
        """Return where the account ended, as a run does."""
        outcome = self.run.find_outcome()
        return outcome._replace(plain_because="") if self.choice == "sooner" else outcome


def list_flows(setup: Setup) -> list[Flow]:
    """Return the account's own deposits and withdrawals, in their order."""
    flows = setup.account.flows
    if flows is None:
        return []

    # A flow that is dated before the open of its bar comes before transfers at that open.
    stamps = core.read_stamps(flows.index, name="flows")
    bars = np.searchsorted(setup.markets.time, stamps, side="left")
    inside = (bars < len(setup.markets.time)) & (bars >= setup.first)
    opens = setup.markets.time[bars[inside]]
    orders = np.where(np.asarray(stamps)[inside] >= opens, AT_OPEN, BEFORE_OPEN)

    feed = setup.inputs.feed
    rows = zip(feed.flow_bar, orders, feed.flow_amount, strict=True)
    return [Flow(int(bar), int(order), float(amount)) for bar, order, amount in rows]


def make_room(setup: Setup, flows: Sequence[Flow]) -> Any:
    """Return the feed of a setup with some flows, and as many spare entries and more."""
    capacity = 2 * len(flows) + SPARE
    feed = setup.inputs.feed._replace(
        flow_bar=np.full(capacity, LATER, dtype=np.int64), flow_amount=np.zeros(capacity)
    )
    write_flows(feed, flows, 0)
    return feed


def write_flows(feed: Any, flows: Sequence[Flow], first: int) -> None:
    """Write flows from one on into the entries of a feed."""
    later = flows[first:]
    feed.flow_bar[first : len(flows)] = [flow.bar for flow in later]
    feed.flow_amount[first : len(flows)] = [flow.amount for flow in later]
