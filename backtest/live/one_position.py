"""Ask the policy of an account with one position at a close, and take it through the next bar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.account import Log, State, live_bar, new_ledger, quote_bar
from backtest.engine import (
    TradedDays,
    find_decisions,
    new_record_of_one,
    record_bar,
    show_account,
    start_day,
    with_decision,
    with_fees,
)
from backtest.engine.bar_loop import DAY_NS
from backtest.live.act_or_not import CAPACITY, Filled, pick_cuts
from backtest.live.starting_state import start_one
from backtest.market import find_clock
from backtest.policy import bind_plain

if TYPE_CHECKING:
    from backtest.account import Rules
    from backtest.engine import Inputs, Setup
    from backtest.live.facts import Completed
    from backtest.policy import AccountView


def read_rules(inputs: Inputs, traded: TradedDays | None, t: int) -> Rules:
    rules = inputs.at(t + 1).rules
    if inputs.fees is None:
        return rules
    day, _ = start_day(inputs.fees.day, traded, t)
    return with_fees(rules, inputs.fees.choose(day))


def start(setup: Setup, completed: Completed, traded: TradedDays | None) -> State:  # noqa: ARG001 - as several
    return start_one(setup, completed)


def view_close(setup: Setup, state: State, traded: TradedDays | None) -> tuple[AccountView]:
    t, inputs = setup.markets.n_bars - 1, setup.inputs
    rules = read_rules(inputs, traded, t)
    with np.errstate(all="ignore"):
        quote = quote_bar(rules.instrument, inputs.feed, t)
        return (show_account(rules, state, quote, count_days_to(setup.markets.end, inputs), True),)


def count_days_to(end: int, inputs: Inputs) -> float:
    """Return the days from the account's start to a close, ns."""
    return (end - inputs.seen.start) / DAY_NS


def ask(
    setup: Setup, state: State, memory: list[tuple[float, ...]], traded: TradedDays | None
) -> tuple[State, list[tuple[float, ...]]]:
    t, inputs, (policy,) = setup.markets.n_bars - 1, setup.inputs, setup.observed
    (numbers,) = memory
    signal = float(inputs.feed.signal[min(t, len(inputs.feed.signal) - 1)])
    if state.is_ruined or state.is_over or not find_clock(setup.markets).is_at_close(t):
        return with_decision(state, float("nan"), signal), memory
    decide = bind_plain(policy.policy, tuple(policy.columns))
    columns = tuple(policy.columns.values())
    (view,) = view_close(setup, state, traded)
    with np.errstate(all="ignore"):
        k = len(inputs.seen.time) - 1
        leverage, after = decide(None, columns, numbers, inputs.seen, view, state.last_funding, k)
    return with_decision(state, leverage, signal), [tuple(after)]


def read_overlay(state: State) -> float:  # noqa: ARG001 - as several
    return 1.0


def read_settings(state: State) -> list[float]:  # noqa: ARG001 - as several
    return [float("nan")]


def fill(setup: Setup, later: Setup, state: State, traded: TradedDays | None) -> Filled:
    t, ahead = setup.markets.n_bars, later.inputs
    rules = read_rules(ahead, traded, t)
    log = Log(True, np.empty((CAPACITY, 8)), np.zeros(1, np.int64))
    begin = state._replace(funding_next=0, flow_next=0)
    with np.errstate(all="ignore"):
        after, ledger, quote = live_bar(rules, ahead.plan, ahead.feed, begin, log, t)
        end = int(ahead.feed.time[t]) + setup.markets.interval
        view = show_account(rules, after, quote, count_days_to(end, ahead), True)
    record = new_record_of_one(2)
    record_bar(record, state, new_ledger(), 0)
    record_bar(record, after, ledger, 1)
    entries = log.entries[: log.written[0]]
    charged: Any = ahead
    if ahead.fees is not None:
        rate = ((t, rules.instrument.fee),)
        charged = ahead._replace(fees=ahead.fees._replace(charged=rate))
    found = find_decisions(charged, record, entries, t - 1)
    whose = np.zeros(len(found.bar), np.int64)
    return Filled(entries, (view,), after.equity, pick_cuts(found, whose, t, 1))
