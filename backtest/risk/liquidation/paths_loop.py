"""The loop over paths: one account and one policy, through bars that differ from path to path."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from backtest.account import Feed, Log, Plan, Rules, State, live_bar
from backtest.engine import (
    Formula,
    Seen,
    count_days,
    decide,
    is_balanced,
    show_account,
    with_decision,
)
from backtest.engine.bar_loop import BROKEN, DONE, NEGATIVE

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray

LIVED = ("wealth", "liquidations", "bad_debt", "calls", "is_ruined")


def begin_path(state: State, funding_next: int, flow_next: int) -> State:
    return State(
        balances=state.balances,
        equity=state.equity,
        reserve=state.reserve,
        leverage=state.leverage,
        signal=state.signal,
        ratio=state.ratio,
        is_called=state.is_called,
        unmet=state.unmet,
        since=state.since,
        since_stop=state.since_stop,
        is_over=state.is_over,
        is_ruined=state.is_ruined,
        funding_next=funding_next,
        flow_next=flow_next,
        last_funding=state.last_funding,
        unit=state.unit,
        peak=state.peak,
        scale=state.scale,
        paid_in=state.paid_in,
        is_call_open=state.is_call_open,
        called_at=state.called_at,
        watch=state.watch,
    )


def live_paths(
    rules: Rules,
    plan: Plan,
    feed: Feed,
    seen: Seen,
    formula: Formula,
    state: State,
    memory: Any,
    log: Log,
    lived: FloatArray,
    cursor: IntArray,
    width: int,
    first: int,
) -> int:
    """Take the account through each path from its bar ``first`` on; return why it stopped.

    Paths of ``width`` bars lie end to end; ``cursor`` holds the current bar, and the numbers of
    funding events and of flows of each path. ``lived`` has shape (5, bars).
    """
    for p in range(lived.shape[1] // width):
        begun = begin_path(state, p * cursor[1], p * cursor[2])
        start, stop = p * width + first, (p + 1) * width
        why = live_path(
            rules, plan, feed, seen, formula, begun, memory, log, lived, cursor, start, stop
        )
        if why != DONE:
            return why
    return DONE


def live_path(
    rules: Rules,
    plan: Plan,
    feed: Feed,
    seen: Seen,
    formula: Formula,
    state: State,
    memory: Any,
    log: Log,
    lived: FloatArray,
    cursor: IntArray,
    start: int,
    stop: int,
) -> int:
    for t in range(start, stop):
        cursor[0] = t
        after, ledger, quote = live_bar(rules, plan, feed, state, log, t)
        if not is_balanced(state, after, ledger, quote):
            return BROKEN
        leverage = math.nan
        if not (after.is_ruined or after.is_over):
            days = count_days(seen, t)
            view = show_account(rules, after, quote, days, formula.wants_root)
            leverage, memory = decide(
                formula.params, formula.columns, memory, seen, view, after.last_funding, t
            )
            if leverage < 0.0:
                return NEGATIVE
        state = with_decision(after, leverage, feed.signal[min(t, len(feed.signal) - 1)])
        lived[0, t] = after.equity + after.reserve
        if ledger.liquidations > 0:
            lived[1, t] = ledger.liquidations
        if ledger.bad_debt != 0.0:
            lived[2, t] = ledger.bad_debt
        if ledger.calls > 0:
            lived[3, t] = ledger.calls
        if after.is_ruined:
            lived[4, t] = 1.0
    return DONE
