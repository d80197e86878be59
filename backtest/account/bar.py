"""One bar of an account's life: the eight steps of the accounting, in their order.

Everything here is scalar arithmetic on named tuples: it runs as plain Python and compiles to the
same bits. The steps themselves, where money moves, are in :mod:`backtest.account.steps`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from backtest.account.ledger import (
    BAD_DEBT,
    CALLED,
    FILL,
    FLOW,
    FUNDING,
    INTEREST,
    REFUSED,
    RUINED,
    STOPPED,
    TOP_UP,
    Ledger,
    Log,
    compute_earned,
    enter_carry,
    enter_close,
    enter_flow,
    enter_liquidation,
    enter_ruin,
    enter_trade,
    log_liquidation,
    log_trade,
    new_ledger,
    write,
)
from backtest.account.ruin import close_out, is_ruin, pay_in
from backtest.account.steps import (
    LIQUIDATION,
    NOTHING,
    Books,
    Quote,
    Rules,
    apply_flow,
    charge_interest,
    choose_quantity,
    close_bar,
    compute_equity,
    compute_ratio,
    compute_value_of,
    fill,
    find_gap,
    find_trigger,
    is_failing,
    is_triggered,
    liquidate,
    pay_funding,
    reduce_to_ratio,
    stop_out,
    top_up,
)
from backtest.base.units import TOLERANCE

if TYPE_CHECKING:
    from backtest.base.units import FloatArray, IntArray


class Feed(NamedTuple):
    """The market as arrays of shape (n_bars,), with what else arrives by time.

    ``multiplier``, ``signal``, ``years``, ``borrow_rate``, ``cash_rate``, ``short_rate``,
    ``sigma`` and ``adv`` may have one entry, which then holds for all bars. Rates are those in
    force at the previous open, ``years`` the day-counted time since it. Funding events and flows
    are lists in time order, each with the bar it falls into; ``funding_is_open`` is 1 for events
    at the open.
    """

    open: FloatArray
    high: FloatArray
    low: FloatArray
    mark_open: FloatArray
    mark_high: FloatArray
    mark_low: FloatArray
    mark_close: FloatArray
    volume: FloatArray
    multiplier: FloatArray
    sigma: FloatArray
    adv: FloatArray
    signal: FloatArray
    years: FloatArray
    borrow_rate: FloatArray
    cash_rate: FloatArray
    short_rate: FloatArray
    funding_bar: IntArray
    funding_is_open: IntArray
    funding_price: FloatArray
    funding_rate: FloatArray
    flow_bar: IntArray
    flow_amount: FloatArray


class Plan(NamedTuple):
    """What the account wants besides trading: margin calls, reserve, grace, halt.

    ``margin_call`` 0 means none; ``grace`` -1 means none, else bars.
    """

    margin_call: float
    has_top_up: bool
    grace: float
    grace_ratio: float
    is_halting: bool


class State(NamedTuple):
    """Where the account stands at a bar's close, with the decision that waits for the next open.

    ``funding_next`` and ``flow_next`` index the next event of the feed; ``ratio`` is the margin
    ratio, ``is_called`` whether a margin call waits for the reserve, ``unmet`` the bars a call
    has gone unmet (-1: none), ``since`` the bars since the last liquidation and ``since_stop``
    those since the last stop (infinite: never).
    ``unit`` is wealth free of flows: ``scale`` times wealth, the scale 1 at the start and changed
    by flows only; ``peak`` is its highest. ``paid_in`` is the capital paid in, with the reserve.
    """

    books: Books
    equity: float
    reserve: float
    leverage: float
    signal: float
    ratio: float
    is_called: bool
    unmet: float
    since: float
    since_stop: float
    is_over: bool
    is_ruined: bool
    funding_next: int
    flow_next: int
    last_funding: float
    unit: float
    peak: float
    scale: float
    paid_in: float


def place(t: int) -> int:
    """Return a bar's number as an index.

    The compiled twin is unsigned, which spares a test for negative numbers at every access.
    """
    return t


def quote_bar(rules: Rules, feed: Feed, t: int) -> Quote:
    """Return bar t in values u; volume, sigma and ADV are those of the close before."""
    last = place(max(t - 1, 0))
    i = place(t)
    return Quote(
        compute_value_of(rules, feed.open[i]),
        compute_value_of(rules, feed.low[i]),
        compute_value_of(rules, feed.high[i]),
        compute_value_of(rules, feed.mark_open[i]),
        compute_value_of(rules, feed.mark_low[i]),
        compute_value_of(rules, feed.mark_high[i]),
        compute_value_of(rules, feed.mark_close[i]),
        feed.multiplier[min(t, len(feed.multiplier) - 1)],
        feed.volume[last],
        feed.sigma[min(t, len(feed.sigma) - 1)],
        feed.adv[min(t, len(feed.adv) - 1)],
    )


def take_flows(
    rules: Rules, plan: Plan, feed: Feed, state: State, quote: Quote, log: Log, t: int
) -> tuple[State, Ledger]:
    """Step 1: deposits, withdrawals, and what a margin call draws from the reserve."""
    books, ledger = state.books, new_ledger()
    reserve, flow_next, ratio = state.reserve, state.flow_next, state.ratio
    unmet, paid_in = state.unmet, state.paid_in
    while is_flow_due(feed, flow_next, t):
        amount = feed.flow_amount[flow_next]
        wealth = compute_equity(rules, books, quote.mark_open) + reserve
        books, moved = apply_flow(rules, books, quote, amount)
        paid_in = pay_in(paid_in, wealth, moved)
        flow_next += 1
        ledger = enter_flow(ledger, moved, 0.0)
        if moved != 0.0:
            write(log, t, FLOW, quote.mark_open, 0.0, moved)
        if moved != amount:
            write(log, t, REFUSED, quote.mark_open, 0.0, moved - amount)
    if plan.has_top_up and state.is_called and reserve > 0.0:
        books, moved = top_up(rules, books, quote, reserve)
        reserve -= moved
        ledger = enter_flow(ledger, 0.0, moved)
        if moved != 0.0:
            write(log, t, TOP_UP, quote.mark_open, 0.0, moved)
            ratio = compute_ratio(rules, books, quote.mark_open, quote.multiplier)
            unmet = unmet if ratio >= plan.margin_call * (1.0 - TOLERANCE) else -1.0
    after = State(
        books,
        state.equity,
        reserve,
        state.leverage,
        state.signal,
        ratio,
        False,
        unmet,
        state.since,
        state.since_stop,
        state.is_over,
        state.is_ruined,
        state.funding_next,
        flow_next,
        state.last_funding,
        state.unit,
        state.peak,
        rescale(state, ledger.flows),
        paid_in,
    )
    return after, ledger


def rescale(state: State, flows: float) -> float:
    """Return the scale after flows: the unit value does not move by them."""
    wealth = state.equity + state.reserve + flows
    if flows == 0.0 or not wealth > 0.0:
        return state.scale
    return state.unit / wealth


def is_flow_due(feed: Feed, flow: int, t: int) -> bool:
    """Tell whether the next flow belongs to bar t."""
    return flow < len(feed.flow_bar) and feed.flow_bar[flow] == t


def is_funding_due(feed: Feed, event: int, t: int) -> bool:
    """Tell whether the next funding event belongs to bar t."""
    return event < len(feed.funding_bar) and feed.funding_bar[event] == t


def settle_funding(
    rules: Rules,
    feed: Feed,
    books: Books,
    ledger: Ledger,
    quote: Quote,
    log: Log,
    t: int,
    event: int,
    is_open: int,
) -> tuple[Books, Ledger, int]:
    """Settle the bar's next events of one kind (steps 2 and 6); return the event after them.

    An isolated position whose margin no longer suffices after a payment is liquidated at once.
    """
    while is_funding_due(feed, event, t) and feed.funding_is_open[event] == is_open:
        value = quote.mark_open
        if not math.isnan(feed.funding_price[event]):
            value = compute_value_of(rules, feed.funding_price[event])
        if books.quantity != 0.0:
            held = books.quantity
            books, paid = pay_funding(rules, books, value, feed.funding_rate[event])
            ledger = enter_carry(ledger, paid, 0.0)
            write(log, t, FUNDING, value, held, paid)
            if rules.is_isolated is not None:
                books, ledger = liquidate_if_failing(rules, books, ledger, quote, log, t)
        event += 1
    return books, ledger, event


def liquidate_if_failing(
    rules: Rules, books: Books, ledger: Ledger, quote: Quote, log: Log, t: int
) -> tuple[Books, Ledger]:
    """Liquidate at the mark open if the requirement fails there."""
    if is_failing(rules, books, quote.mark_open, quote.multiplier):
        done = liquidate(rules, books, quote.mark_open, quote.multiplier)
        log_liquidation(log, t, quote.mark_open, done)
        return done.books, enter_liquidation(ledger, done)
    return books, ledger


def pay_interest(
    rules: Rules, feed: Feed, books: Books, ledger: Ledger, quote: Quote, log: Log, t: int
) -> tuple[Books, Ledger]:
    """Step 3: interest since the previous open."""
    last = max(t - 1, 0)
    books, interest = charge_interest(
        rules,
        books,
        quote,
        feed.years[min(t, len(feed.years) - 1)],
        feed.borrow_rate[min(last, len(feed.borrow_rate) - 1)],
        feed.cash_rate[min(last, len(feed.cash_rate) - 1)],
        feed.short_rate[min(last, len(feed.short_rate) - 1)],
    )
    if interest != 0.0:
        write(log, t, INTEREST, quote.mark_open, 0.0, interest)
    return books, enter_carry(ledger, 0.0, interest)


def act_on_gap(
    rules: Rules, books: Books, ledger: Ledger, quote: Quote, log: Log, t: int
) -> tuple[Books, Ledger]:
    """Liquidate or stop out at the open, before the trader can act (step 4)."""
    if find_gap(rules, books, quote) == LIQUIDATION:
        return liquidate_if_failing(rules, books, ledger, quote, log, t)
    done = stop_out(rules, books, quote.open, quote.multiplier)
    log_trade(log, t, STOPPED, done)
    return done.books, enter_trade(ledger, done, 1)


def act_on_decision(
    rules: Rules,
    plan: Plan,
    state: State,
    books: Books,
    ledger: Ledger,
    quote: Quote,
    log: Log,
    t: int,
) -> tuple[Books, Ledger]:
    """Fill what was decided at the last close (step 5), or what the broker or a halt forces."""
    if state.is_over or is_forced(plan, state):
        return act_on_force(rules, plan, state, books, ledger, quote, log, t)
    wanted = choose_quantity(rules, books, quote, state.leverage, state.signal)
    if wanted == books.quantity:
        return books, ledger
    return trade_at_open(rules, books, ledger, quote, wanted, log, t)


def trade_at_open(
    rules: Rules, books: Books, ledger: Ledger, quote: Quote, wanted: float, log: Log, t: int
) -> tuple[Books, Ledger]:
    """Fill an order for the wanted quantity."""
    done = fill(rules, books, quote, wanted, rules.fee)
    log_trade(log, t, FILL, done)
    return done.books, enter_trade(ledger, done, 0)


def is_forced(plan: Plan, state: State) -> bool:
    """Tell whether a margin call has gone unmet for its grace."""
    return plan.grace >= 0.0 and state.unmet >= plan.grace


def act_on_force(
    rules: Rules,
    plan: Plan,
    state: State,
    books: Books,
    ledger: Ledger,
    quote: Quote,
    log: Log,
    t: int,
) -> tuple[Books, Ledger]:
    """Reduce to the ratio of an unmet call; where that takes nothing, the decision stands."""
    if is_forced(plan, state) and books.quantity != 0.0:
        done = reduce_to_ratio(rules, books, quote, plan.grace_ratio)
        if done.quantity != 0.0:
            log_trade(log, t, FILL, done)
            return done.books, enter_trade(ledger, done, 0)
    wanted = 0.0
    if not state.is_over:
        wanted = choose_quantity(rules, books, quote, state.leverage, state.signal)
    return trade_at_open(rules, books, ledger, quote, wanted, log, t)


def act_on_extreme(
    rules: Rules, books: Books, ledger: Ledger, quote: Quote, log: Log, t: int
) -> tuple[Books, Ledger]:
    """Liquidate and stop out inside the bar (step 7), the nearer first, until nothing is left."""
    while books.quantity != 0.0:
        kind, value = find_trigger(rules, books, quote)
        if kind == NOTHING:
            break
        if kind == LIQUIDATION:
            done = liquidate(rules, books, value, quote.multiplier)
            books, ledger = done.books, enter_liquidation(ledger, done)
            log_liquidation(log, t, value, done)
        else:
            closed = stop_out(rules, books, value, quote.multiplier)
            books, ledger = closed.books, enter_trade(ledger, closed, 1)
            log_trade(log, t, STOPPED, closed)
    return books, ledger


def live_bar(  # noqa: C901 - the eight steps in their order
    rules: Rules, plan: Plan, feed: Feed, state: State, log: Log, t: int
) -> tuple[State, Ledger, Quote]:
    """Take the account through bar t; the decision of its close is still to come."""
    quote = quote_bar(rules, feed, t)
    before = state.equity
    wealth = before + state.reserve
    ledger = new_ledger()
    if state.is_called or is_flow_due(feed, state.flow_next, t):
        state, ledger = take_flows(rules, plan, feed, state, quote, log, t)  # 1
    books, event = state.books, state.funding_next
    first_event = event
    if is_funding_due(feed, event, t):  # 2
        books, ledger, event = settle_funding(rules, feed, books, ledger, quote, log, t, event, 1)
    if rules.has_interest is not None and t > 0:
        books, ledger = pay_interest(rules, feed, books, ledger, quote, log, t)  # 3
    if find_gap(rules, books, quote) != NOTHING:
        books, ledger = act_on_gap(rules, books, ledger, quote, log, t)  # 4
    if ledger.liquidations + ledger.stops == 0 and t > 0 and not state.is_ruined:
        books, ledger = act_on_decision(rules, plan, state, books, ledger, quote, log, t)  # 5
    if is_funding_due(feed, event, t):  # 6
        books, ledger, event = settle_funding(rules, feed, books, ledger, quote, log, t, event, 0)
    if is_triggered(rules, books, quote):
        books, ledger = act_on_extreme(rules, books, ledger, quote, log, t)  # 7
    books, pnl, bad_debt = close_bar(rules, books, quote)  # 8
    if bad_debt != 0.0:
        write(log, t, BAD_DEBT, quote.mark_close, 0.0, bad_debt)
    equity = compute_equity(rules, books, quote.mark_close)
    earned = compute_earned(ledger) + pnl + bad_debt
    is_lost = earned < 0.0 and not state.is_ruined
    if is_lost:
        is_lost = is_ruin(rules, books, quote, equity, state.reserve, state.paid_in)
    if is_lost:
        books, ledger = end_account(rules, books, ledger, quote, log, t)
        equity = compute_equity(rules, books, quote.mark_close)
    ratio, is_called, unmet = test_call(rules, plan, state, books, quote)
    if is_called:
        write(log, t, CALLED, quote.mark_close, books.quantity, ratio)
    ledger = enter_close(ledger, pnl, bad_debt, 1 if is_called else 0)
    since = 0.0 if ledger.liquidations > 0 else state.since + 1.0
    since_stop = 0.0 if ledger.stops > 0 else state.since_stop + 1.0
    last_funding = feed.funding_rate[event - 1] if event > first_event else state.last_funding
    unit = grow_unit(state, wealth + ledger.flows, equity + state.reserve)
    after = State(
        books,
        equity,
        state.reserve,
        math.nan,
        0.0,
        ratio,
        is_called,
        unmet,
        since,
        since_stop,
        state.is_over or (plan.is_halting and ledger.liquidations > 0),
        state.is_ruined or is_lost,
        event,
        state.flow_next,
        last_funding,
        unit,
        max(unit, state.peak),
        state.scale,
        state.paid_in,
    )
    return after, ledger, quote


def end_account(
    rules: Rules, books: Books, ledger: Ledger, quote: Quote, log: Log, t: int
) -> tuple[Books, Ledger]:
    """Close what a ruined account holds at the mark close, and log its ruin."""
    traded = abs(books.quantity) * abs(quote.mark_close)
    write(log, t, RUINED, quote.mark_close, 0.0 - books.quantity, traded)
    books, bad_debt = close_out(rules, books, quote)
    if bad_debt != 0.0:
        write(log, t, BAD_DEBT, quote.mark_close, 0.0, bad_debt)
    return books, enter_ruin(ledger, bad_debt, traded)


def grow_unit(state: State, before: float, after: float) -> float:
    """Return the unit value after the bar: it grows as wealth does, flows aside, until ruin."""
    if state.is_ruined or not before > 0.0:
        return state.unit
    return state.scale * after


def test_call(
    rules: Rules, plan: Plan, state: State, books: Books, quote: Quote
) -> tuple[float, bool, float]:
    """Return margin ratio, whether a margin call begins at this close, and bars unmet."""
    if plan.margin_call == 0.0:
        return 0.0, False, -1.0
    ratio = compute_ratio(rules, books, quote.mark_close, quote.multiplier)
    threshold = plan.margin_call * (1.0 - TOLERANCE)
    was_over = state.ratio >= threshold and not is_forced(plan, state)
    if ratio < threshold:
        return ratio, False, -1.0
    if not was_over:
        return ratio, True, 0.0
    return ratio, False, state.unmet + 1.0 if state.unmet >= 0.0 else -1.0
