"""Margin calls: the top-up that answers one, and when a call is met, fails, or is liquidated."""

from __future__ import annotations

import math
from typing import NamedTuple

from backtest.account.account_records import (
    Balances,
    Feed,
    InstrumentRules,
    Plan,
    Quote,
    Rules,
    State,
)
from backtest.account.balances import compute_ratio
from backtest.account.ledger import (
    CALL_FAILED,
    CALL_MET,
    CALL_PARTLY_MET,
    TOP_UP,
    Ledger,
    Log,
    add_entry,
    write_event,
)
from backtest.account.payments import top_up
from backtest.base.units import DAY, TOLERANCE


class TopUp(NamedTuple):
    balances: Balances
    moved: float
    ratio: float
    is_due: bool
    is_met: bool


class CallEnd(NamedTuple):
    is_open: bool
    called_at: float
    is_met: bool
    is_failed: bool
    is_liquidated: bool
    days: float


def is_under_call(plan: Plan, ratio: float) -> bool:
    return plan.margin_call is not None and ratio < plan.margin_call * (1.0 - TOLERANCE)


def answer_call(
    rules: Rules, plan: Plan, balances: Balances, quote: Quote, reserve: float, log: Log, t: int
) -> TopUp:
    after, moved, missing = top_up(rules, balances, quote, reserve)
    held, ratio = after.positions[0].quantity, 0.0
    is_due = missing > 0.0
    if is_due:
        ratio = compute_ratio(rules.instrument, after, quote.mark_open, quote.multiplier)
    is_met = is_due and is_under_call(plan, ratio)
    if moved != 0.0:
        write_event(log, t, TOP_UP, quote.mark_open, 0.0, moved)
    if is_due and moved != 0.0 and not is_met:
        write_event(log, t, CALL_PARTLY_MET, quote.mark_open, held, ratio)
    if is_due:
        write_event(log, t, CALL_MET if is_met else CALL_FAILED, quote.mark_open, held, ratio)
    return TopUp(after, moved, ratio, is_due, is_met)


def end_grace(
    rules: InstrumentRules,
    plan: Plan,
    state: State,
    balances: Balances,
    ledger: Ledger,
    quote: Quote,
    is_reduced: bool,
    log: Log,
    t: int,
) -> Ledger:
    if not state.is_call_open:
        return ledger
    ratio = compute_ratio(rules, balances, quote.fill, quote.multiplier)
    is_met = is_under_call(plan, ratio) and not is_reduced
    kind = CALL_MET if is_met else CALL_FAILED
    write_event(log, t, kind, quote.fill, balances.positions[0].quantity, ratio)
    return add_entry(ledger, calls_met=1 if is_met else 0, calls_failed=0 if is_met else 1)


def close_call(
    plan: Plan,
    feed: Feed,
    state: State,
    ledger: Ledger,
    ratio: float,
    is_called: bool,
    is_lost: bool,
    t: int,
) -> CallEnd:
    is_under, is_hit = is_under_call(plan, ratio), ledger.liquidations > 0
    is_open = state.is_call_open and ledger.calls_met + ledger.calls_failed == 0
    called_at = math.nan if ledger.calls_met > 0 else state.called_at
    is_failed = is_open and (is_hit or is_lost)
    is_met = is_open and is_under and not is_failed
    is_liquidated = is_hit and not math.isnan(called_at)
    days = (feed.time[t] - called_at) / DAY if is_liquidated else 0.0
    if is_liquidated or is_under:
        called_at = math.nan
    if is_called:
        called_at = 1.0 * feed.time[t]
    is_left = is_open and not (is_failed or is_met)
    return CallEnd(
        is_open=is_called or is_left,
        called_at=called_at,
        is_met=is_met,
        is_failed=is_failed,
        is_liquidated=is_liquidated,
        days=days,
    )


def enter_call(
    ledger: Ledger, end: CallEnd, log: Log, t: int, value: float, held: float, ratio: float
) -> Ledger:
    if end.is_met or end.is_failed:
        write_event(log, t, CALL_MET if end.is_met else CALL_FAILED, value, held, ratio)
    return add_entry(
        ledger,
        calls_met=1 if end.is_met else 0,
        calls_failed=1 if end.is_failed else 0,
        liquidated_calls=1 if end.is_liquidated else 0,
        call_days=end.days,
    )


def is_forced(plan: Plan, state: State) -> bool:
    return plan.margin_call is not None and plan.grace >= 0.0 and state.unmet >= plan.grace


def check_call(
    rules: InstrumentRules, plan: Plan, state: State, balances: Balances, quote: Quote
) -> tuple[float, bool, float]:
    if plan.margin_call is None:
        return 0.0, False, -1.0
    ratio = compute_ratio(rules, balances, quote.mark_close, quote.multiplier)
    was_over = not is_under_call(plan, state.ratio) and not is_forced(plan, state)
    if is_under_call(plan, ratio):
        return ratio, False, -1.0
    if not was_over:
        return ratio, True, 0.0
    return ratio, False, state.unmet + 1.0 if state.unmet >= 0.0 else -1.0
