"""The bar loop: for each bar, update the account, check the books, ask the policy, record."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from backtest.account import (
    Feed,
    Ledger,
    Log,
    Plan,
    Rules,
    State,
    as_index,
    compute_backing,
    compute_requirement,
    compute_root,
    live_bar,
)
from backtest.measures import Clock, Tally, count_bar
from backtest.policy import AccountView
from backtest.venue import MarginRules, compute_price

if TYPE_CHECKING:
    from backtest.account import Quote
    from backtest.base import FloatArray, IntArray
    from backtest.engine.record import Record

DONE, FULL, BROKEN, NEGATIVE = range(4)

IDENTITY_TOLERANCE = 1e-9
DAY_NS = 86_400_000_000_000.0


class Seen(NamedTuple):
    """The market as policies see it, arrays of shape (n_bars,); times in int64 ns."""

    time: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    mark: FloatArray
    volume: FloatArray
    interval: int
    start: int
    rows: IntArray


class Formula(NamedTuple):
    params: Any
    columns: Any
    wants_root: bool | None


class Tape(NamedTuple):
    log: Log
    record: Record
    cursor: IntArray


def decide(
    params: Any, columns: Any, memory: Any, seen: Seen, account: AccountView, funding: float, t: int
) -> Any:
    raise NotImplementedError


def find_seen(seen: Seen, t: int) -> int:
    return t if len(seen.rows) == 1 else seen.rows[as_index(t)]


def count_days(seen: Seen, t: int) -> float:
    days: float = (seen.time[t] + seen.interval - seen.start) / DAY_NS
    return days


def show_account(
    rules: Rules, state: State, quote: Quote, days: float, wants_root: bool | None
) -> AccountView:
    instrument, balances, position = rules.instrument, state.balances, state.balances.positions[0]
    margin = instrument.margin
    needed, ratio, root, leverage = 0.0, 0.0, math.nan, 0.0
    wallet = balances.cash
    if state.equity > 0.0:
        leverage = position.quantity * abs(quote.mark_close) / state.equity
    if instrument.is_isolated is None:
        wallet += position.quantity * position.entry
    entry = math.nan
    if position.quantity != 0.0:
        entry = compute_price(margin.size, margin.is_inverse, position.entry)
        needed = compute_requirement(instrument, position, quote.mark_close, quote.multiplier)
        backing = compute_backing(instrument, balances, quote.mark_close)
        ratio = needed / backing if backing > 0.0 else math.inf
        if wants_root is not None:
            value = compute_root(instrument, balances, quote.multiplier)
            root = compute_price(margin.size, margin.is_inverse, value)
    return AccountView(
        equity=state.equity,
        peak_equity=state.equity * (state.peak / state.unit),
        drawdown=1.0 - state.unit / state.peak,
        leverage=leverage,
        position=position.quantity,
        entry=entry,
        wallet=wallet,
        reserve=state.reserve,
        maintenance=needed,
        margin_ratio=ratio,
        liquidation_price=root,
        bars_since_liquidation=state.since,
        bars_since_stop=state.since_stop,
        days=days,
        gross_leverage=abs(leverage),
        net_leverage=leverage,
        venue=with_multipliers(margin, quote.multiplier, quote.initial),
    )


def with_multipliers(margin: MarginRules, multiplier: float, initial: float) -> MarginRules:
    if margin.multiplier == multiplier and margin.initial_multiplier == initial:
        return margin
    return MarginRules(
        floors=margin.floors,
        caps=margin.caps,
        rates=margin.rates,
        amounts=margin.amounts,
        leverages=margin.leverages,
        close_fee=margin.close_fee,
        taker=margin.taker,
        size=margin.size,
        setting=margin.setting,
        is_inverse=margin.is_inverse,
        is_isolated=margin.is_isolated,
        is_valued_at_entry=margin.is_valued_at_entry,
        multiplier=multiplier,
        initial_multiplier=initial,
    )


def with_decision(state: State, leverage: float, signal: float) -> State:
    return with_counts(state, leverage, signal, state.peak, state.since, state.since_stop)


def hold_counts(state: State, peak: float, k: int) -> State:
    if k >= 0:
        return state
    since = state.since - 1.0 if state.since > 0.0 else -1.0
    stop = state.since_stop - 1.0 if state.since_stop > 0.0 else -1.0
    return with_counts(state, math.nan, state.signal, peak, since, stop)


def with_counts(
    state: State, leverage: float, signal: float, peak: float, since: float, since_stop: float
) -> State:
    return State(
        balances=state.balances,
        equity=state.equity,
        reserve=state.reserve,
        leverage=leverage,
        signal=signal,
        ratio=state.ratio,
        is_called=state.is_called,
        unmet=state.unmet,
        since=since,
        since_stop=since_stop,
        is_over=state.is_over,
        is_ruined=state.is_ruined,
        funding_next=state.funding_next,
        flow_next=state.flow_next,
        last_funding=state.last_funding,
        unit=state.unit,
        peak=peak,
        scale=state.scale,
        paid_in=state.paid_in,
        is_call_open=state.is_call_open,
        called_at=state.called_at,
        watch=state.watch,
    )


def sum_terms(ledger: Ledger) -> float:
    costs = ledger.fees + ledger.slippage + ledger.impact + ledger.funding + ledger.interest
    gains = ledger.price_pnl + ledger.flows + ledger.top_up + ledger.bad_debt
    return gains - costs - ledger.liquidation_loss


def is_balanced(before: State, after: State, ledger: Ledger, quote: Quote) -> bool:
    gap = abs(after.equity - before.equity - sum_terms(ledger))
    notional = abs(after.balances.positions[0].quantity * quote.mark_close)
    scale = max(before.equity, after.equity, ledger.traded, notional)
    return gap <= IDENTITY_TOLERANCE * scale


def record_bar(record: Record, state: State, ledger: Ledger, t: int) -> None:
    account, held, position = record.account, record.positions, state.balances.positions[0]
    account.equity[t] = state.equity
    account.cash[t] = state.balances.cash
    write_if_any(account.reserve, t, state.reserve)
    account.unit[t] = state.unit
    account.price_pnl[t] = ledger.price_pnl
    write_if_any(account.fees, t, ledger.fees)
    write_if_any(account.slippage, t, ledger.slippage)
    write_if_any(account.impact, t, ledger.impact)
    write_if_any(account.funding, t, ledger.funding)
    write_if_any(account.interest, t, ledger.interest)
    write_if_any(account.liquidation_loss, t, ledger.liquidation_loss)
    write_if_any(account.flows, t, ledger.flows + ledger.top_up)
    write_if_any(account.top_up, t, ledger.top_up)
    write_if_any(account.bad_debt, t, ledger.bad_debt)
    held.quantity[t, 0] = position.quantity
    held.entry[t, 0] = position.entry
    held.target[t, 0] = state.leverage
    if position.margin != 0.0:
        held.margin[t, 0] = position.margin


def write_if_any(column: FloatArray, t: int, value: float) -> None:
    if value != 0.0:
        column[t] = value


def simulate(
    rules: Rules,
    plan: Plan,
    feed: Feed,
    clock: Clock,
    seen: Seen,
    formula: Formula,
    state: State,
    tally: Tally,
    memory: Any,
    tape: Tape,
    start: int,
    stop: int,
) -> tuple[State, Tally, Any, int, int]:
    log, cursor = tape.log, tape.cursor
    offset = cursor[1]
    for t in range(start, stop):
        cursor[0] = t
        written = log.written[0]
        after, ledger, quote = live_bar(rules, plan, feed, state, log, t)
        if log.is_on is not None and log.written[0] > len(log.entries):
            log.written[0] = written
            return state, tally, memory, t, FULL
        if not is_balanced(state, after, ledger, quote):
            return state, tally, memory, t, BROKEN
        counted = tally
        if clock.is_on is not None:
            counted = count_bar(rules.instrument, clock, tally, state, after, ledger, quote, t)
        leverage, k = math.nan, find_seen(seen, t)
        after = hold_counts(after, state.peak, k)
        if k >= 0 and not (after.is_ruined or after.is_over):
            days = count_days(seen, k)
            view = show_account(rules, after, quote, days, formula.wants_root)
            funding = after.last_funding
            leverage, memory = decide(
                formula.params, formula.columns, memory, seen, view, funding, k
            )
            if leverage < 0.0:
                log.written[0] = written
                return state, tally, memory, t, NEGATIVE
        state = with_decision(after, leverage, feed.signal[min(t, len(feed.signal) - 1)])
        tally = counted
        if log.is_on is not None:
            record_bar(tape.record, state, ledger, as_index(t - offset))
    return state, tally, memory, stop, DONE
