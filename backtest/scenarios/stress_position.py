"""The account of one position in a scenario: its own bar, in plain Python."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from backtest.account import Account, Feed, Ledger, Log, Rules, State, live_bar
from backtest.account.books import compute_root
from backtest.account.position import compute_value_of
from backtest.base.errors import AccountingError
from backtest.base.units import format_time
from backtest.engine import Result
from backtest.engine.bar_loop import count_days, is_balanced, show_account, with_decision
from backtest.engine.fee_days import start_day, with_fees
from backtest.engine.lookahead.causality import observe
from backtest.engine.loop_inputs import Inputs, read_inputs
from backtest.market import Market, Markets
from backtest.paths.paths_loop import begin_path
from backtest.policy.error_location import bind_plain
from backtest.scenarios.stress_account import NO_STOPS, Shocked, compute_quote_value
from backtest.venue import Venue


@dataclass(frozen=True, eq=False)
class PositionAccount:
    """An account with one position at the end of a run, and the last bars of its market."""

    result: Result
    history: Markets

    resting: ClassVar[frozenset[str]] = frozenset()

    @property
    def name(self) -> str:
        """The name of the instrument."""
        return self.history.names[0]

    @property
    def source(self) -> Market | None:
        """The market of the run."""
        return self.result.market

    @property
    def wealth(self) -> float:
        """Equity and reserve."""
        return float(self.result.state.equity + self.result.state.reserve)

    def list_moving(self) -> dict[str, Market]:
        """Return the market of the instrument."""
        return {**self.history}

    def measure_exposures(self) -> dict[str, float]:
        """Return the signed notional at the last mark."""
        quote = compute_quote_value(self.result.venue.contract, float(self.result.marks[-1, 0]))
        return {self.name: self.result.state.books.positions[0].quantity * quote}

    def find_distance(self) -> float:
        """Return the distance of the liquidation price at the end of the run."""
        row = self.result.bars.iloc[-1]
        return abs(float(row["liquidation_price"]) / float(row["mark"]) - 1.0)

    def pass_bars(
        self,
        markets: Mapping[str, Market],
        venues: Mapping[str, Venue],
        outage: int,
        *,
        is_search: bool,
    ) -> Shocked:
        """Return the account after the bars that follow its history."""
        given, signal = markets[self.name], float(self.result.state.signal)
        market = given.with_signal(np.full(given.n_bars, signal))
        first, account = self.history.n_bars, self.result.account

        def read(account: Account) -> Inputs:
            return read_inputs(
                market, venues[self.name], account, signal=np.array([signal]), sampling="1d",
                first=first, started=self.result.started,
            )  # fmt: skip

        inputs = read(account)
        quiet = read(replace(account, **NO_STOPS)).rules if outage else inputs.rules
        loop = PositionLoop(self.result, inputs, market)
        return loop.sum_bars(first, market.n_bars, outage, quiet, is_search=is_search)


class PositionLoop:
    """The loop over the bars of a scenario, in plain Python."""

    def __init__(self, result: Result, inputs: Inputs, market: Market) -> None:
        self.name, self.inputs = result.names[0], inputs
        self.signal = float(result.state.signal)
        policy = result.policies[self.name]
        columns = observe(policy, market)
        self.decide = bind_plain(policy, tuple(columns))
        self.columns = tuple(columns.values())
        self.state, self.memory = begin_path(result.state, 0, 0), result.memory
        self.traded, self.distance = result.traded, math.inf
        self.sums = np.zeros(6)

    def sum_bars(
        self, first: int, stop: int, outage: int, quiet: Rules, *, is_search: bool
    ) -> Shocked:
        """Take the account through the bars; ``quiet`` are the rules of an outage."""
        if outage:
            self.state = with_decision(self.state, math.nan, 1.0)
        for t in range(first, stop):
            rules = self.charge_fees(quiet if t - first < outage else self.inputs.rules, t)
            ledger = self.pass_bar(rules, t)
            if self.traded is not None:
                self.traded = self.traded.add(ledger.traded)
            if is_search and ledger.liquidations > 0:
                break
            # an order that would fill while the venue is out is lost
            self.decide_at(rules, t, is_lost=t + 1 - first < outage)
        liquidations, calls, fees, slippage, impact, funding = self.sums.tolist()
        return Shocked(
            wealth=self.state.equity + self.state.reserve,
            quantities={self.name: self.state.books.positions[0].quantity},
            liquidations=int(liquidations),
            calls=int(calls),
            fees=fees,
            slippage=slippage,
            impact=impact,
            funding=funding,
            distance=self.distance if math.isfinite(self.distance) else math.nan,
        )

    def charge_fees(self, rules: Rules, t: int) -> Rules:
        """Return the rules with the fee rates of bar t, where the venue has tiers."""
        fees = self.inputs.fees
        if fees is None:
            return rules
        self.traded, _ = start_day(fees.day, self.traded, t)
        return with_fees(rules, fees.choose(self.traded))

    def pass_bar(self, rules: Rules, t: int) -> Ledger:
        """Take the account through bar t, and add it to the sums."""
        inputs, state = self.inputs, self.state
        log = Log(None, np.empty((1, 8)), np.zeros(1, dtype=np.int64))
        with np.errstate(all="ignore"):
            near = measure_distance(rules, state, inputs.feed, t)
            after, ledger, self.quote = live_bar(rules, inputs.plan, inputs.feed, state, log, t)
        if not is_balanced(state, after, ledger, self.quote):
            raise AccountingError(
                "the books do not balance in a scenario",
                where=f"bar {t}, {format_time(int(inputs.seen.time[t]))}",
                cure="this is a defect of the engine: please report it with this text",
            )
        self.state = after
        self.sums += (
            ledger.liquidations, ledger.calls, ledger.fees, ledger.slippage, ledger.impact,
            ledger.funding,
        )  # fmt: skip
        if not math.isnan(near):
            self.distance = min(self.distance, near)
        return ledger

    def decide_at(self, rules: Rules, t: int, *, is_lost: bool) -> None:
        """Ask the policy at the close of bar t; what it decides may be lost."""
        state, seen, leverage = self.state, self.inputs.seen, math.nan
        if not (state.is_ruined or state.is_over):
            with np.errstate(all="ignore"):
                view = show_account(rules, state, self.quote, count_days(seen, t), True)
                leverage, self.memory = self.decide(
                    None, self.columns, self.memory, seen, view, state.last_funding, t
                )
        self.state = with_decision(
            state, math.nan if is_lost else leverage, 1.0 if is_lost else self.signal
        )


def measure_distance(rules: Rules, state: State, feed: Feed, t: int) -> float:
    """Return how near the mark of bar t comes to the liquidation price of the position carried in.

    A fraction of that mark price; 0 or less is a liquidation. NaN if no price liquidates.
    """
    instrument, position = rules.instrument, state.books.positions[0]
    if position.quantity == 0.0:
        return math.nan
    multiplier = feed.multiplier[min(t, len(feed.multiplier) - 1)]
    root = compute_root(instrument, state.books, multiplier)
    price = feed.mark_low[t] if position.quantity > 0.0 else feed.mark_high[t]
    value = compute_value_of(instrument, price)
    gap = (value - root) / abs(value)
    return max(float(gap if position.quantity > 0.0 else -gap), 0.0)
