"""Accounts of pockets on their way from one transfer date to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from backtest.account import Account
from backtest.base.units import FloatArray
from backtest.engine import Result, count_periods
from backtest.engine.account_loop import begin
from backtest.engine.bar_loop import RECORDED
from backtest.engine.lookahead.causality import observe_checked
from backtest.engine.loop_driver import LoopOutcome, LoopStart, run_loop
from backtest.engine.loop_inputs import start_state
from backtest.engine.named_signals import resolve_signal
from backtest.engine.portfolio.book_driver import Counts, advance_book
from backtest.engine.portfolio.book_inputs import BookInputs
from backtest.engine.portfolio.book_loop import Desk
from backtest.engine.portfolio.cut_terms import end_expired
from backtest.engine.portfolio.portfolio_setup import Setup, seat_again, set_up
from backtest.engine.run_setup import fits_one_position
from backtest.engine.switched_run import find_market, read_stretch_inputs, stop_inputs
from backtest.market import Market, Markets
from backtest.policy import Policy, start_memory
from backtest.portfolio.book_records import EQUITY, FLOW_NEXT, IS_RUINED, Book

FLOWS = RECORDED.index("flows")
"""The column of flows in the record of a run."""


class PocketRun(NamedTuple):
    """What one pocket runs on."""

    policy: Any
    share: float
    market: Market | Markets
    venue: Any
    signal: Any
    overlay: Policy | None


class LivePocket(NamedTuple):
    """A pocket with one position during a run: its run without transfers, columns, and state."""

    whole: Result
    policy: Policy
    columns: Mapping[str, FloatArray]
    begin: LoopStart

    @property
    def equity(self) -> float:
        """The equity at the last close."""
        return self.begin.state.equity

    @property
    def is_ruined(self) -> bool:
        """Whether the pocket is ruined."""
        return self.begin.state.is_ruined

    def advance(self, flow: float, stop: int, *, is_compiled: bool) -> tuple[LivePocket, float]:
        """Take the pocket up to bar ``stop`` with a flow at the open of its next bar.

        Returns it there, and the flow that was made: a withdrawal leaves what its margin needs.
        """
        begin = self.begin
        inputs = stop_inputs(read_stretch_inputs(self.whole, begin.first), stop)
        if flow != 0.0:
            feed = inputs.feed._replace(
                flow_bar=np.array([begin.first], dtype=np.int64), flow_amount=np.array([flow])
            )
            inputs = inputs._replace(feed=feed)
        done: LoopOutcome = run_loop(
            self.policy, inputs, self.columns, begin, is_compiled=is_compiled, progress=None
        )
        state = done.state._replace(funding_next=0, flow_next=0)
        after = LoopStart(state, done.memory, stop, done.traded)
        return self._replace(begin=after), float(done.book[FLOWS, 0])


class LivePortfolio(NamedTuple):
    """A pocket with several positions during a run, up to bar ``first``; its book changes."""

    setup: Setup
    inputs: BookInputs
    book: Book
    desk: Desk
    counts: Counts
    first: int

    @property
    def equity(self) -> float:
        """The equity at the last close."""
        return float(self.book.purse[EQUITY])

    @property
    def is_ruined(self) -> bool:
        """Whether the pocket is ruined."""
        return bool(self.book.purse[IS_RUINED] != 0.0)

    def advance(self, flow: float, stop: int, *, is_compiled: bool) -> tuple[LivePortfolio, float]:
        """Take the pocket up to bar ``stop``; see :meth:`LivePocket.advance`."""
        bars, amounts = np.zeros(0, np.int64), np.zeros(0)
        if flow != 0.0:
            bars, amounts = np.array([self.first], np.int64), np.array([flow])
        self.book.cursor[FLOW_NEXT] = 0
        feed = self.inputs.feed._replace(flow_bar=bars, flow_amount=amounts)
        counts, moved = advance_book(
            self.inputs._replace(feed=feed),
            self.book,
            self.desk,
            [(each.policy, tuple(each.columns)) for each in self.setup.panelists],
            self.counts,
            self.first,
            stop,
            requirement=self.setup.account.requirement,
            names=self.setup.markets.names,
            is_compiled=is_compiled,
        )
        return self._replace(counts=counts, first=stop), moved


def start_pocket(
    pocket: PocketRun, account: Account, whole: Result, terms: Mapping[str, Any]
) -> LivePocket | LivePortfolio:
    """Return a pocket at its beginning; ``whole`` is its run without transfers."""
    if isinstance(pocket.market, Markets):
        markets = end_expired(pocket.market, pocket.venue)
        if not fits_one_position(markets, account, pocket.overlay):
            return start_portfolio(pocket._replace(market=markets), account, terms)
    policy: Any = pocket.policy
    policy = next(iter(policy.values())) if isinstance(policy, Mapping) else policy
    memory = tuple(map(float, start_memory(policy) or ()))
    start = LoopStart(start_state(whole.account), memory, whole.span.first)
    columns, _ = observe_checked(policy, find_market(whole))
    return LivePocket(whole, policy, columns, start)


def start_portfolio(pocket: PocketRun, account: Account, terms: Mapping[str, Any]) -> LivePortfolio:
    """Return a pocket with several positions at its beginning."""
    markets: Any = pocket.market
    signal = resolve_signal(pocket.signal, markets)
    given = (markets, pocket.policy)
    start = terms["start"]
    setup = set_up(
        *given,
        venue=pocket.venue,
        account=account,
        signal=signal,
        overlay=pocket.overlay,
        sampling=terms["sampling"],
        periods=count_periods(terms["calendar"], terms["sampling"], markets),
        start=start,
        panelists=seat_again(*given, pocket.overlay, signal, start),
    )
    inputs, book, desk, tally = begin(setup)
    return LivePortfolio(setup, inputs, book, desk, Counts(tally, None), setup.first)
