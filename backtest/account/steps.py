"""The steps of a bar, with their entries in ledger and log."""

from __future__ import annotations

import math

from backtest.account.account_records import (
    Balances,
    Feed,
    InstrumentRules,
    Plan,
    Quote,
    Rules,
    State,
    Watch,
)
from backtest.account.auto_margin import add_from_wallet, can_add
from backtest.account.balances import compute_equity, is_failing, mark_to_market
from backtest.account.calls import answer_call, end_grace, is_forced
from backtest.account.exits import LIQUIDATION, NOTHING, PROFIT, STOP, TRAIL, follow_trade
from backtest.account.fills import fill, reduce_to_ratio, stop_out
from backtest.account.ledger import (
    BAD_DEBT,
    EQUITY_STOPPED,
    FILL,
    FLOW,
    FUNDING,
    INTEREST,
    REFUSED,
    RUINED,
    STOPPED,
    TOOK_PROFIT,
    TRAILED,
    Ledger,
    Log,
    add_entry,
    enter_liquidation,
    enter_trade,
    log_liquidation,
    log_trade,
    new_ledger,
    write_event,
)
from backtest.account.liquidation import find_gap, find_trigger, liquidate
from backtest.account.orders import choose_quantity
from backtest.account.payments import apply_flow, charge_interest, pay_funding
from backtest.account.position import compute_value_of
from backtest.account.ruin import close_ruined, pay_in
from backtest.base.units import TOLERANCE

# -------------------------------------------------------------------------------- step 1: flows


def take_flows(
    rules: Rules,
    plan: Plan,
    feed: Feed,
    state: State,
    ledger: Ledger,
    quote: Quote,
    log: Log,
    t: int,
) -> tuple[State, Ledger]:
    instrument, balances = rules.instrument, state.balances
    reserve, flow_next, ratio = state.reserve, state.flow_next, state.ratio
    unmet, paid_in = state.unmet, state.paid_in
    is_open, called_at = state.is_call_open, state.called_at
    while is_flow_due(feed, flow_next, t):
        amount = feed.flow_amount[flow_next]
        wealth = compute_equity(instrument, balances, quote.mark_open) + reserve
        balances, moved = apply_flow(instrument, balances, quote, amount)
        paid_in = pay_in(paid_in, wealth, moved)
        flow_next += 1
        ledger = add_entry(ledger, flows=moved)
        if moved != 0.0:
            write_event(log, t, FLOW, quote.mark_open, 0.0, moved)
        if moved != amount:
            write_event(log, t, REFUSED, quote.mark_open, 0.0, moved - amount)
    if plan.margin_call is not None and plan.has_top_up and state.is_called:
        done = answer_call(rules, plan, balances, quote, reserve, log, t)
        balances, reserve = done.balances, reserve - done.moved
        met, failed = 1 if done.is_met else 0, 1 if done.is_due and not done.is_met else 0
        ledger = add_entry(ledger, top_up=done.moved, calls_met=met, calls_failed=failed)
        is_open = is_open and not done.is_due
        called_at = math.nan if done.is_met else called_at
        if done.moved != 0.0:
            ratio, unmet = done.ratio, -1.0 if done.is_met else unmet
    after = State(
        balances=balances,
        equity=state.equity,
        reserve=reserve,
        leverage=state.leverage,
        signal=state.signal,
        ratio=ratio,
        is_called=False,
        unmet=unmet,
        since=state.since,
        since_stop=state.since_stop,
        is_over=state.is_over,
        is_ruined=state.is_ruined,
        funding_next=state.funding_next,
        flow_next=flow_next,
        last_funding=state.last_funding,
        unit=state.unit,
        peak=state.peak,
        scale=rescale(state, ledger.flows),
        paid_in=paid_in,
        is_call_open=is_open,
        called_at=called_at,
        watch=rescale_watch(state, ledger),
    )
    return after, ledger


def rescale(state: State, flows: float) -> float:
    wealth = state.equity + state.reserve
    if flows == 0.0 or not has_wealth(wealth, flows):
        return state.scale
    return state.unit / (wealth + flows)


def has_wealth(wealth: float, flows: float) -> bool:
    return wealth + flows > TOLERANCE * abs(flows)


def rescale_watch(state: State, ledger: Ledger) -> Watch:
    moved = ledger.flows + ledger.top_up
    if moved == 0.0 or not state.equity > 0.0:
        return state.watch
    highest = state.watch.highest * ((state.equity + moved) / state.equity)
    return Watch(best=state.watch.best, highest=max(highest, 0.0))


def is_flow_due(feed: Feed, flow: int, t: int) -> bool:
    return flow < len(feed.flow_bar) and feed.flow_bar[flow] == t


# ---------------------------------------------------------------- steps 2, 3, 6: funding, interest


def is_funding_due(feed: Feed, event: int, t: int) -> bool:
    return event < len(feed.funding_bar) and feed.funding_bar[event] == t


def find_funding_value(rules: InstrumentRules, feed: Feed, quote: Quote, event: int) -> float:
    if math.isnan(feed.funding_price[event]):
        return quote.mark_open
    return compute_value_of(rules, feed.funding_price[event])


def pay_funding_events(
    rules: InstrumentRules,
    feed: Feed,
    balances: Balances,
    ledger: Ledger,
    quote: Quote,
    log: Log,
    t: int,
    event: int,
    is_open: int,
) -> tuple[Balances, Ledger, int]:
    while is_funding_due(feed, event, t) and feed.funding_is_open[event] == is_open:
        held = balances.positions[0].quantity
        if held != 0.0:
            value = find_funding_value(rules, feed, quote, event)
            balances, paid = pay_funding(rules, balances, value, feed.funding_rate[event])
            ledger = add_entry(ledger, funding=paid)
            write_event(log, t, FUNDING, value, held, paid)
            if rules.is_isolated is not None:
                balances, ledger = liquidate_if_failing(rules, balances, ledger, quote, log, t)
        event += 1
    return balances, ledger, event


def liquidate_if_failing(
    rules: InstrumentRules, balances: Balances, ledger: Ledger, quote: Quote, log: Log, t: int
) -> tuple[Balances, Ledger]:
    is_failed = is_failing(rules, balances, quote.mark_open, quote.multiplier)
    if is_failed and can_add(rules, balances):
        balances = add_from_wallet(rules, balances, quote.mark_open, quote, log, t)
        is_failed = is_failing(rules, balances, quote.mark_open, quote.multiplier)
    if is_failed:
        done = liquidate(rules, balances, quote.mark_open, quote)
        log_liquidation(log, t, quote.mark_open, done)
        return done.balances, enter_liquidation(ledger, done)
    return balances, ledger


def pay_interest(
    rules: Rules, feed: Feed, balances: Balances, ledger: Ledger, quote: Quote, log: Log, t: int
) -> tuple[Balances, Ledger]:
    last = max(t - 1, 0)
    balances, interest = charge_interest(
        rules,
        balances,
        quote,
        feed.years[min(t, len(feed.years) - 1)],
        feed.borrow_rate[min(last, len(feed.borrow_rate) - 1)],
        feed.cash_rate[min(last, len(feed.cash_rate) - 1)],
        feed.short_rate[min(last, len(feed.short_rate) - 1)],
    )
    if interest != 0.0:
        write_event(log, t, INTEREST, quote.mark_open, 0.0, interest)
    return balances, add_entry(ledger, interest=interest)


# ------------------------------------------------------------------------ steps 4, 7: forced closes


def close_at_gap(
    rules: InstrumentRules,
    balances: Balances,
    watch: Watch,
    ledger: Ledger,
    quote: Quote,
    log: Log,
    t: int,
) -> tuple[Balances, Ledger]:
    kind = find_gap(rules, balances, quote, watch)
    if kind == LIQUIDATION and can_add(rules, balances):
        balances = add_from_wallet(rules, balances, quote.mark_open, quote, log, t)
        kind = find_gap(rules, balances, quote, watch)
    if kind == LIQUIDATION:
        return liquidate_if_failing(rules, balances, ledger, quote, log, t)
    if kind == NOTHING:
        return balances, ledger
    return close_by_stop(rules, balances, ledger, quote, quote.open, kind, log, t)


def close_by_stop(
    rules: InstrumentRules,
    balances: Balances,
    ledger: Ledger,
    quote: Quote,
    value: float,
    kind: int,
    log: Log,
    t: int,
) -> tuple[Balances, Ledger]:
    done = stop_out(rules, balances, value, quote)
    log_trade(log, t, name_stop(kind), done)
    is_profit = kind == PROFIT
    stops, profits = 0 if is_profit else 1, 1 if is_profit else 0
    return done.balances, enter_trade(ledger, done, stops, profits)


def name_stop(kind: int) -> int:
    if kind == STOP:
        return STOPPED
    if kind == PROFIT:
        return TOOK_PROFIT
    return TRAILED if kind == TRAIL else EQUITY_STOPPED


def close_at_extreme(
    rules: InstrumentRules,
    balances: Balances,
    watch: Watch,
    ledger: Ledger,
    quote: Quote,
    log: Log,
    t: int,
) -> tuple[Balances, Ledger]:
    while balances.positions[0].quantity != 0.0:
        kind, value = find_trigger(rules, balances, quote, watch)
        if kind == NOTHING:
            break
        balances, ledger = act_at_extreme(rules, balances, ledger, quote, kind, value, log, t)
    return balances, ledger


def act_at_extreme(
    rules: InstrumentRules,
    balances: Balances,
    ledger: Ledger,
    quote: Quote,
    kind: int,
    value: float,
    log: Log,
    t: int,
) -> tuple[Balances, Ledger]:
    if kind == LIQUIDATION and can_add(rules, balances):
        return add_from_wallet(rules, balances, value, quote, log, t), ledger
    if kind == LIQUIDATION:
        done = liquidate(rules, balances, value, quote)
        log_liquidation(log, t, value, done)
        return done.balances, enter_liquidation(ledger, done)
    return close_by_stop(rules, balances, ledger, quote, value, kind, log, t)


# ----------------------------------------------------------------------------- steps 0, 5: fills


def fill_early(
    rules: InstrumentRules, plan: Plan, state: State, quote: Quote, log: Log, t: int
) -> tuple[State, Ledger]:
    balances, pnl = mark_to_market(state.balances, quote.fill)
    ledger = add_entry(new_ledger(), price_pnl=pnl)
    if not state.is_ruined:
        balances, ledger = fill_decision(rules, plan, state, balances, ledger, quote, log, t)
    watch = follow_trade(state.watch, state.balances.positions[0], balances.positions[0])
    is_open = state.is_call_open and ledger.calls_met + ledger.calls_failed == 0
    is_called = state.is_called and is_open  # numba takes no branches among many keywords
    after = State(
        balances=balances,
        equity=state.equity,
        reserve=state.reserve,
        leverage=state.leverage,
        signal=state.signal,
        ratio=state.ratio,
        is_called=is_called,
        unmet=state.unmet,
        since=state.since,
        since_stop=state.since_stop,
        is_over=state.is_over,
        is_ruined=state.is_ruined,
        funding_next=state.funding_next,
        flow_next=state.flow_next,
        last_funding=state.last_funding,
        unit=state.unit,
        peak=state.peak,
        scale=state.scale,
        paid_in=state.paid_in,
        is_call_open=is_open,
        called_at=state.called_at,
        watch=watch,
    )
    return after, ledger


def fill_decision(
    rules: InstrumentRules,
    plan: Plan,
    state: State,
    balances: Balances,
    ledger: Ledger,
    quote: Quote,
    log: Log,
    t: int,
) -> tuple[Balances, Ledger]:
    if state.is_over or is_forced(plan, state):
        return fill_forced(rules, plan, state, balances, ledger, quote, log, t)
    wanted = choose_quantity(rules, balances, quote, state.leverage, state.signal)
    if wanted == balances.positions[0].quantity:
        return balances, ledger
    return fill_order(rules, balances, ledger, quote, wanted, log, t)


def fill_order(
    rules: InstrumentRules,
    balances: Balances,
    ledger: Ledger,
    quote: Quote,
    wanted: float,
    log: Log,
    t: int,
) -> tuple[Balances, Ledger]:
    done = fill(rules, balances, quote, wanted, rules.fee)
    log_trade(log, t, FILL, done)
    return done.balances, enter_trade(ledger, done, 0)


def fill_forced(
    rules: InstrumentRules,
    plan: Plan,
    state: State,
    balances: Balances,
    ledger: Ledger,
    quote: Quote,
    log: Log,
    t: int,
) -> tuple[Balances, Ledger]:
    is_held = balances.positions[0].quantity != 0.0
    if plan.margin_call is not None and is_held and is_forced(plan, state):
        done = reduce_to_ratio(rules, balances, quote, plan.grace_ratio)
        is_reduced = done.quantity != 0.0
        log_trade(log, t, FILL, done)
        after = done.balances if is_reduced else balances
        ledger = end_grace(rules, plan, state, after, ledger, quote, is_reduced, log, t)
        if is_reduced:
            return after, enter_trade(ledger, done, 0)
    wanted = 0.0
    if not state.is_over:
        wanted = choose_quantity(rules, balances, quote, state.leverage, state.signal)
    return fill_order(rules, balances, ledger, quote, wanted, log, t)


# --------------------------------------------------------------------------------- step 8: close


def end_account(
    rules: InstrumentRules, balances: Balances, ledger: Ledger, quote: Quote, log: Log, t: int
) -> tuple[Balances, Ledger]:
    held = balances.positions[0].quantity
    traded = abs(held) * abs(quote.mark_close)
    write_event(log, t, RUINED, quote.mark_close, 0.0 - held, traded)
    balances, bad_debt = close_ruined(rules, balances, quote)
    if bad_debt != 0.0:
        write_event(log, t, BAD_DEBT, quote.mark_close, 0.0, bad_debt)
    return balances, add_entry(ledger, bad_debt=bad_debt, traded=traded)
