"""Take single lanes through a full bar, with the same function that a single run uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.account import (
    Feed,
    Ledger,
    Log,
    Plan,
    Rules,
    State,
    compute_equity,
    find_line,
    has_wealth,
    live_bar,
    share,
)
from backtest.engine import is_balanced
from backtest.measures import add_carry, invert
from backtest.sweep.lanes.lane_rows import (
    LANES,
    LIVE,
    Cursor,
    Kind,
    cell,
    compute_unit,
    read_balances,
    read_own_rules,
    read_watch,
    write_balances,
    write_watch,
)

from backtest.sweep.lanes.lane_rows import (  # isort: skip
    BAD_DEBT, CALLS, CARRY, CARRY_BEFORE, CASH, CASH_BEFORE, FEES, FIRST_LIQUIDATION, FLOWS,
    FUNDING, FUNDING_BEFORE, IMPACT, INTEREST, INTEREST_BEFORE, INVERSE, IS_CALLED, IS_DONE,
    IS_OVER, IS_RUINED, LAST_LIQUIDATION, LAST_STOP, LATER, LINE, LIQUIDATION_LOSS,
    LIQUIDATIONS, MARGIN, MARGIN_BEFORE, PAID_IN, PEAK, PRICE_PNL, RATIO, RESERVE, RUIN, SCALE,
    SLIPPAGE, STEP_LEFT, STOPS, TARGET, TOP_UP, TRADED, UNIT, UNMET, IS_CALL_OPEN, CALLED_AT,
    CALLS_MET, CALLS_FAILED, LIQUIDATED_CALLS, CALL_DAYS, TAKE_PROFITS,
)  # fmt: skip

if TYPE_CHECKING:
    from backtest.base import FloatArray


def undo_carry(rules: Rules, kind: Kind, block: FloatArray, i: int) -> None:
    block[cell(CASH, i)] = block[cell(CASH_BEFORE, i)]
    block[cell(FUNDING, i)] = block[cell(FUNDING_BEFORE, i)]
    if rules.instrument.is_isolated is not None:
        block[cell(MARGIN, i)] = block[cell(MARGIN_BEFORE, i)]
    if rules.account.has_interest is not None:
        block[cell(INTEREST, i)] = block[cell(INTEREST_BEFORE, i)]
    if kind.is_full is not None:
        block[cell(CARRY, i)] = block[cell(CARRY_BEFORE, i)]


def live_lane(
    rules: Rules,
    kind: Kind,
    plan: Plan,
    feed: Feed,
    log: Log,
    block: FloatArray,
    at: Cursor,
    i: int,
    t: int,
) -> bool:
    own = share(read_own_rules(rules, kind, block, i))
    before = read_state(rules, kind, block, at, i, t)
    after, ledger, quote = live_bar(own, plan, feed, before, log, t)
    block[cell(STEP_LEFT, i)] = LIVE
    if not is_balanced(before, after, ledger, quote):
        return False
    write_balances(rules.instrument, block, i, after.balances)
    write_watch(rules.instrument, block, i, after.watch)
    write_state(own, block, i, before, after, ledger, t)
    count_ledger(block, i, ledger)
    if after.is_ruined and block[cell(RUIN, i)] < 0.0:
        block[cell(RUIN, i)] = t
    if kind.is_full is not None:
        count_events(block, i, before, ledger, t)
    return True


def live_lanes(
    rules: Rules,
    kind: Kind,
    plan: Plan,
    feed: Feed,
    log: Log,
    block: FloatArray,
    at: Cursor,
    is_carrying: bool,
    is_ordinary: bool,
    t: int,
) -> int:
    rules, plan, feed, log = share(rules), share(plan), share(feed), share(log)
    for i in range(LANES):
        if is_ordinary and block[cell(STEP_LEFT, i)] != LIVE:
            continue
        if is_carrying:
            undo_carry(rules, kind, block, i)
        if not live_lane(rules, kind, plan, feed, log, block, at, i, t):
            return i
    return -1


def read_state(rules: Rules, kind: Kind, block: FloatArray, at: Cursor, i: int, t: int) -> State:
    balances = read_balances(rules.instrument, block, at.value, i)
    equity = compute_equity(rules.instrument, balances, at.value)
    return State(
        balances=balances,
        equity=equity,
        reserve=block[cell(RESERVE, i)],
        leverage=block[cell(TARGET, i)],
        signal=at.signal,
        ratio=block[cell(RATIO, i)],
        is_called=block[cell(IS_CALLED, i)] != 0.0,
        unmet=block[cell(UNMET, i)],
        since=t - 1.0 - block[cell(LAST_LIQUIDATION, i)],
        since_stop=t - 1.0 - block[cell(LAST_STOP, i)],
        is_over=block[cell(IS_OVER, i)] != 0.0,
        is_ruined=block[cell(IS_RUINED, i)] != 0.0,
        funding_next=at.event,
        flow_next=at.flow,
        last_funding=at.last_funding,
        unit=compute_unit(kind, block, i, equity),
        peak=block[cell(PEAK, i)],
        scale=block[cell(SCALE, i)],
        paid_in=block[cell(PAID_IN, i)],
        is_call_open=block[cell(IS_CALL_OPEN, i)] != 0.0,
        called_at=block[cell(CALLED_AT, i)],
        watch=read_watch(rules.instrument, block, i),
    )


def write_state(
    rules: Rules, block: FloatArray, i: int, before: State, after: State, ledger: Ledger, t: int
) -> None:
    block[cell(RESERVE, i)] = after.reserve
    block[cell(RATIO, i)] = after.ratio
    block[cell(IS_CALLED, i)] = 1.0 if after.is_called else 0.0
    block[cell(UNMET, i)] = after.unmet
    block[cell(IS_CALL_OPEN, i)] = 1.0 if after.is_call_open else 0.0
    block[cell(CALLED_AT, i)] = after.called_at
    if after.since == 0.0:
        block[cell(LAST_LIQUIDATION, i)] = t
    if after.since_stop == 0.0:
        block[cell(LAST_STOP, i)] = t
    block[cell(IS_OVER, i)] = 1.0 if after.is_over else 0.0
    block[cell(IS_RUINED, i)] = 1.0 if after.is_ruined else 0.0
    block[cell(IS_DONE, i)] = 1.0 if after.is_over or after.is_ruined else 0.0
    block[cell(SCALE, i)] = after.scale
    block[cell(PAID_IN, i)] = after.paid_in
    line = find_line(rules.account.ruin_at, after.reserve, after.paid_in)
    block[cell(LINE, i)] = -1.0 if after.is_ruined else line
    block[cell(UNIT, i)] = after.unit
    is_closing = after.is_over and after.balances.positions[0].quantity != 0.0
    # a run keeps the unit value if there was no wealth before the bar, or none is left
    is_empty = not after.is_ruined and not after.equity + after.reserve > 0.0
    is_kept = not after.is_ruined and not has_wealth(before.equity + before.reserve, ledger.flows)
    block[cell(LATER, i)] = 1.0 if is_closing or is_empty or is_kept else 0.0


def count_ledger(block: FloatArray, i: int, ledger: Ledger) -> None:
    block[cell(FEES, i)] += ledger.fees
    block[cell(SLIPPAGE, i)] += ledger.slippage
    block[cell(IMPACT, i)] += ledger.impact
    block[cell(FUNDING, i)] += ledger.funding
    block[cell(INTEREST, i)] += ledger.interest
    block[cell(TRADED, i)] += ledger.traded
    block[cell(LIQUIDATIONS, i)] += ledger.liquidations


def count_events(block: FloatArray, i: int, before: State, ledger: Ledger, t: int) -> None:
    block[cell(PRICE_PNL, i)] += ledger.price_pnl
    block[cell(LIQUIDATION_LOSS, i)] += ledger.liquidation_loss
    block[cell(FLOWS, i)] += ledger.flows
    block[cell(TOP_UP, i)] += ledger.top_up
    block[cell(BAD_DEBT, i)] += ledger.bad_debt
    block[cell(STOPS, i)] += ledger.stops
    block[cell(TAKE_PROFITS, i)] += ledger.take_profits
    block[cell(CALLS, i)] += ledger.calls
    block[cell(CALLS_MET, i)] += ledger.calls_met
    block[cell(CALLS_FAILED, i)] += ledger.calls_failed
    block[cell(LIQUIDATED_CALLS, i)] += ledger.liquidated_calls
    block[cell(CALL_DAYS, i)] += ledger.call_days
    if ledger.liquidations > 0 and block[cell(FIRST_LIQUIDATION, i)] < 0.0:
        block[cell(FIRST_LIQUIDATION, i)] = t
    moved = ledger.flows + ledger.top_up
    if moved != 0.0:
        block[cell(INVERSE, i)] = invert(before.equity + moved)
    block[cell(CARRY, i)] = add_carry(block[cell(CARRY, i)], ledger, block[cell(INVERSE, i)])
    if ledger.liquidations + ledger.stops + ledger.take_profits > 0:
        block[cell(INVERSE, i)] = 0.0
