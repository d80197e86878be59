"""Accounts of subaccounts on their way from one transfer date to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from backtest.account import AccountState
from backtest.account.portfolio_records import EQUITY, FLOW_NEXT, IS_RUINED
from backtest.base import FloatArray, IntArray
from backtest.engine import (
    Counts,
    Deciders,
    Inputs,
    LoopStart,
    PortfolioInputs,
    Result,
    Setup,
    advance_portfolio,
    begin,
    run_loop,
    start_numbers,
    start_state,
)
from backtest.market import Market, Markets
from backtest.policy import Policy


class SubaccountRun(NamedTuple):
    """What one subaccount runs on."""

    policy: Any
    share: float
    market: Market | Markets
    venue: Any
    signal: Any
    overlay: Policy | None


def place_flow(flow: float, bar: int) -> tuple[IntArray, FloatArray]:
    """Return the bars and the amounts of a flow at the open of a bar; none if it is 0."""
    amounts = np.array([flow] if flow != 0.0 else [])
    return np.full(len(amounts), bar, dtype=np.int64), amounts


class LiveSubaccount(NamedTuple):
    """A subaccount with one position during a run: its inputs, columns, and state."""

    inputs: Inputs
    policy: Policy
    columns: Mapping[str, FloatArray]
    begin: LoopStart

    @property
    def equity(self) -> float:
        """The equity at the last close."""
        return self.begin.state.equity

    @property
    def is_ruined(self) -> bool:
        """Whether the subaccount is ruined."""
        return self.begin.state.is_ruined

    def advance(self, flow: float, stop: int, *, is_compiled: bool) -> tuple[LiveSubaccount, float]:
        """Take the subaccount up to bar ``stop`` with a flow at the open of its next bar.

        Returns it there, and the flow that was made: a withdrawal leaves what its margin needs.
        """
        begin = self.begin._replace(state=self.begin.state._replace(flow_next=0))
        bars, amounts = place_flow(flow, begin.first)
        feed = self.inputs.feed._replace(flow_bar=bars, flow_amount=amounts)
        done = run_loop(
            self.policy,
            self.inputs.at(begin.first)._replace(feed=feed),
            self.columns,
            begin,
            stop=stop,
            is_compiled=is_compiled,
            progress=None,
        )
        after = LoopStart(done.state, done.memory, stop, done.traded)
        return self._replace(begin=after), float(done.of_account("flows")[0])


class LivePortfolio(NamedTuple):
    """A subaccount with several positions during a run, up to bar ``first``; its state changes."""

    setup: Setup
    inputs: PortfolioInputs
    state: AccountState
    deciders: Deciders
    counts: Counts
    first: int

    @property
    def equity(self) -> float:
        """The equity at the last close."""
        return float(self.state.wallet[EQUITY])

    @property
    def is_ruined(self) -> bool:
        """Whether the subaccount is ruined."""
        return bool(self.state.wallet[IS_RUINED] != 0.0)

    def advance(self, flow: float, stop: int, *, is_compiled: bool) -> tuple[LivePortfolio, float]:
        """Take the subaccount up to bar ``stop``; see :meth:`LiveSubaccount.advance`."""
        bars, amounts = place_flow(flow, self.first)
        self.state.cursor[FLOW_NEXT] = 0
        feed = self.inputs.feed._replace(flow_bar=bars, flow_amount=amounts)
        counts, moved = advance_portfolio(
            self.inputs._replace(feed=feed),
            self.state,
            self.deciders,
            [(each.policy, tuple(each.columns)) for each in self.setup.observed],
            self.counts,
            self.first,
            stop,
            requirement=self.setup.account.requirement,
            names=self.setup.markets.names,
            is_compiled=is_compiled,
        )
        return self._replace(counts=counts, first=stop), moved


def start_subaccount(whole: Result) -> LiveSubaccount | LivePortfolio:
    """Return a subaccount at its beginning; ``whole`` is its run without transfers."""
    setup: Setup = whole.setup
    if setup.is_of_fast_loop:
        ((policy, _, columns, *_),) = setup.observed
        start = LoopStart(start_state(setup.account), start_numbers(policy), setup.first)
        return LiveSubaccount(setup.inputs, policy, columns, start)
    inputs, state, deciders, tally = begin(setup)
    return LivePortfolio(setup, inputs, state, deciders, Counts(tally, None), setup.first)
