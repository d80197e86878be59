"""Ask the policy of an account with one position at a close, and take it through the next bar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.account import Log, State, live_bar
from backtest.account.bar import quote_bar
from backtest.account.ledger import new_ledger
from backtest.engine.bar_loop import count_days, record_bar, show_account, with_decision
from backtest.engine.fee_days import TradedDays, start_day, with_fees
from backtest.engine.record import new_record_of_one
from backtest.engine.target_cuts import find_decisions
from backtest.live.filled_bar import CAPACITY, Filled, pick_cuts
from backtest.policy.error_location import bind_plain

if TYPE_CHECKING:
    from backtest.account import Rules
    from backtest.engine.loop_inputs import Inputs
    from backtest.engine.portfolio_setup import Setup
    from backtest.policy.view import AccountView


def read_rules(inputs: Inputs, traded: TradedDays | None, t: int) -> Rules:
    """Return the rules of bar t, under the margin table and the fee tier of its day."""
    rules = inputs.at(t + 1).rules
    if inputs.fees is None:
        return rules
    day, _ = start_day(inputs.fees.day, traded, t)
    return with_fees(rules, inputs.fees.choose(day))


def view_close(setup: Setup, state: State, traded: TradedDays | None) -> AccountView:
    """Return the policy's view of the account at the last close."""
    t, inputs = setup.markets.n_bars - 1, setup.inputs
    rules = read_rules(inputs, traded, t)
    with np.errstate(all="ignore"):
        quote = quote_bar(rules.instrument, inputs.feed, t)
        return show_account(rules, state, quote, count_days(inputs.seen, t), True)


def ask(
    setup: Setup, state: State, memory: tuple[float, ...], traded: TradedDays | None
) -> tuple[State, tuple[float, ...]]:
    """Return the state with the decision of the last close, and what the policy remembers."""
    t, inputs, (panelist,) = setup.markets.n_bars - 1, setup.inputs, setup.panelists
    signal = float(inputs.feed.signal[min(t, len(inputs.feed.signal) - 1)])
    if state.is_ruined or state.is_over:
        return with_decision(state, float("nan"), signal), memory
    decide = bind_plain(panelist.policy, tuple(panelist.columns))
    columns = tuple(panelist.columns.values())
    view = view_close(setup, state, traded)
    with np.errstate(all="ignore"):
        leverage, after = decide(None, columns, memory, inputs.seen, view, state.last_funding, t)
    return with_decision(state, leverage, signal), tuple(after)


def fill(setup: Setup, ahead: Inputs, state: State, traded: TradedDays | None) -> Filled:
    """Take the account through the bar after the last one, which ``ahead`` has."""
    t = setup.markets.n_bars
    rules = read_rules(ahead, traded, t)
    log = Log(True, np.empty((CAPACITY, 8)), np.zeros(1, np.int64))
    begin = state._replace(funding_next=0, flow_next=0)
    with np.errstate(all="ignore"):
        after, ledger, quote = live_bar(rules, ahead.plan, ahead.feed, begin, log, t)
        view = show_account(rules, after, quote, count_days(ahead.seen, t), True)
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
