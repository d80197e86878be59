"""The accounting of one bar: its steps, in order."""

from __future__ import annotations

import math

from backtest.account.account_records import Feed, InstrumentRules, Plan, Quote, Rules, State
from backtest.account.balances import close_bar, compute_equity
from backtest.account.calls import check_call, close_call, enter_call
from backtest.account.exits import NOTHING, follow_equity, follow_prices, follow_trade
from backtest.account.ledger import (
    BAD_DEBT,
    CALLED,
    Ledger,
    Log,
    compute_earned,
    enter_close,
    new_ledger,
    write_event,
)
from backtest.account.liquidation import find_gap, is_triggered
from backtest.account.position import compute_value_of
from backtest.account.ruin import is_ruin
from backtest.account.steps import (
    close_at_extreme,
    close_at_gap,
    end_account,
    fill_decision,
    fill_early,
    has_wealth,
    is_flow_due,
    is_funding_due,
    pay_funding_events,
    pay_interest,
    take_flows,
)


def as_index(t: int) -> int:
    return t


def quote_bar(rules: InstrumentRules, feed: Feed, t: int) -> Quote:
    last = as_index(max(t - 1, 0))
    i = as_index(t)
    start = compute_value_of(rules, feed.open[i])
    fill, stop_scale, profit_scale, trail_scale = start, 1.0, 1.0, 1.0
    limit, order_fee = math.inf, 0.0
    if rules.has_limits is not None:
        limit = feed.limit[min(t, len(feed.limit) - 1)]
    if rules.has_order_fee is not None:
        order_fee = feed.order_fee[min(t, len(feed.order_fee) - 1)]
    if rules.fills_late is not None:
        fill = compute_value_of(rules, feed.close[i])
    if rules.fills_early is not None:
        fill = compute_value_of(rules, feed.close[last])
    if rules.has_exits is not None:
        stop_scale = feed.stop_scale[min(t, len(feed.stop_scale) - 1)]
        profit_scale = feed.profit_scale[min(t, len(feed.profit_scale) - 1)]
        trail_scale = feed.trail_scale[min(t, len(feed.trail_scale) - 1)]
    return Quote(
        open=start,
        low=compute_value_of(rules, feed.low[i]),
        high=compute_value_of(rules, feed.high[i]),
        mark_open=compute_value_of(rules, feed.mark_open[i]),
        mark_low=compute_value_of(rules, feed.mark_low[i]),
        mark_high=compute_value_of(rules, feed.mark_high[i]),
        mark_close=compute_value_of(rules, feed.mark_close[i]),
        multiplier=feed.multiplier[min(t, len(feed.multiplier) - 1)],
        volume=feed.volume[last],
        sigma=feed.sigma[min(t, len(feed.sigma) - 1)],
        adv=feed.adv[min(t, len(feed.adv) - 1)],
        initial=feed.initial[min(t, len(feed.initial) - 1)],
        limit=limit,
        order_fee=order_fee,
        fill=fill,
        stop_scale=stop_scale,
        profit_scale=profit_scale,
        trail_scale=trail_scale,
    )


def live_bar(  # noqa: C901, PLR0912, PLR0915 - the steps in their order
    rules: Rules, plan: Plan, feed: Feed, state: State, log: Log, t: int
) -> tuple[State, Ledger, Quote]:
    instrument = rules.instrument
    quote = quote_bar(instrument, feed, t)
    before = state.equity
    wealth = before + state.reserve
    ledger = new_ledger()
    if instrument.fills_early is not None and t > 0:
        state, ledger = fill_early(instrument, plan, state, quote, log, t)  # 0
    if state.is_called or is_flow_due(feed, state.flow_next, t):
        state, ledger = take_flows(rules, plan, feed, state, ledger, quote, log, t)  # 1
    balances, event, watch = state.balances, state.funding_next, state.watch
    first_event = event
    if is_funding_due(feed, event, t):  # 2
        balances, ledger, event = pay_funding_events(
            instrument, feed, balances, ledger, quote, log, t, event, 1
        )
    if rules.account.has_interest is not None and t > 0:
        balances, ledger = pay_interest(rules, feed, balances, ledger, quote, log, t)  # 3
    if find_gap(instrument, balances, quote, watch) != NOTHING:
        balances, ledger = close_at_gap(instrument, balances, watch, ledger, quote, log, t)  # 4
    is_filling = t > 0 and not state.is_ruined and instrument.fills_early is None
    if is_filling and instrument.fills_late is None and count_forced(ledger) == 0:
        held = balances.positions[0]
        balances, ledger = fill_decision(
            instrument, plan, state, balances, ledger, quote, log, t
        )  # 5
        if instrument.has_exits is not None:
            watch = follow_trade(watch, held, balances.positions[0])
    if is_funding_due(feed, event, t):  # 6
        balances, ledger, event = pay_funding_events(
            instrument, feed, balances, ledger, quote, log, t, event, 0
        )
    if is_triggered(instrument, balances, quote, watch):
        balances, ledger = close_at_extreme(instrument, balances, watch, ledger, quote, log, t)  # 7
    held = balances.positions[0]
    if instrument.has_exits is not None:
        watch = follow_prices(watch, held, quote)
    if instrument.fills_late is not None and is_filling and count_forced(ledger) == 0:
        balances, ledger = fill_decision(instrument, plan, state, balances, ledger, quote, log, t)
        watch = follow_trade(watch, held, balances.positions[0])
    balances, pnl, bad_debt = close_bar(instrument, balances, quote.mark_close)  # 8
    if bad_debt != 0.0:
        write_event(log, t, BAD_DEBT, quote.mark_close, 0.0, bad_debt)
    equity = compute_equity(instrument, balances, quote.mark_close)
    earned = compute_earned(ledger) + pnl + bad_debt
    is_lost = earned < 0.0 and not state.is_ruined
    if is_lost:
        is_lost = is_ruin(rules, balances, quote, equity, state.reserve, state.paid_in)
    if is_lost:
        balances, ledger = end_account(instrument, balances, ledger, quote, log, t)
        equity = compute_equity(instrument, balances, quote.mark_close)
    if instrument.has_exits is not None:
        watch = follow_equity(instrument, watch, balances.positions[0].quantity, equity)
    ratio, is_called, unmet = check_call(instrument, plan, state, balances, quote)
    is_open, called_at = state.is_call_open, state.called_at
    if plan.margin_call is not None:
        size = balances.positions[0].quantity
        end = close_call(plan, feed, state, ledger, ratio, is_called, is_lost, t)
        is_open, called_at = end.is_open, end.called_at
        ledger = enter_call(ledger, end, log, t, quote.mark_close, size, ratio)
        if is_called:
            write_event(log, t, CALLED, quote.mark_close, size, ratio)
    ledger = enter_close(ledger, pnl, bad_debt, 1 if is_called else 0)
    # numba takes many arguments by keyword, but no branches among them
    since = 0.0 if ledger.liquidations > 0 else state.since + 1.0
    since_stop = 0.0 if ledger.stops > 0 else state.since_stop + 1.0
    is_over = state.is_over or (plan.is_halting and ledger.liquidations > 0)
    is_ruined = state.is_ruined or is_lost
    last_funding = feed.funding_rate[event - 1] if event > first_event else state.last_funding
    is_growing = has_wealth(wealth, ledger.flows) and not state.is_ruined
    unit = state.scale * (equity + state.reserve) if is_growing else state.unit
    after = State(
        balances=balances,
        equity=equity,
        reserve=state.reserve,
        leverage=math.nan,
        signal=0.0,
        ratio=ratio,
        is_called=is_called,
        unmet=unmet,
        since=since,
        since_stop=since_stop,
        is_over=is_over,
        is_ruined=is_ruined,
        funding_next=event,
        flow_next=state.flow_next,
        last_funding=last_funding,
        unit=unit,
        peak=max(unit, state.peak),
        scale=state.scale,
        paid_in=state.paid_in,
        is_call_open=is_open,
        called_at=called_at,
        watch=watch,
    )
    return after, ledger, quote


def count_forced(ledger: Ledger) -> int:
    return ledger.liquidations + ledger.stops + ledger.take_profits
