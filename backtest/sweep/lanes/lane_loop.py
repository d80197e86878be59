"""Many accounts side by side: the bar loop of a sweep, over a block of 64 lanes.

The steps are those of a single run, called lane after lane in a loop without branches that matter,
so that the compiler turns it into vector arithmetic. :func:`pass_bar` takes all lanes through an
ordinary bar: what was carried pays funding and interest, the decision fills, the close is counted.
A lane to which anything else happens (a breach, a stop, a flow, the loss of everything) is left as
it was and then lives the bar again, with the very function of a single run (``lane_live.py``).

The rows of a block are those of :mod:`backtest.sweep.lanes.lane_rows`; ``decide`` is the policy's formula over
all lanes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from backtest.account.bar import Feed, Plan, is_flow_due, is_funding_due, place, quote_bar
from backtest.account.steps import (
    Books,
    Quote,
    Rules,
    charge_interest,
    compute_backing,
    compute_equity,
    compute_requirement,
    compute_target,
    compute_value_of,
    fill,
    is_asking,
    is_stopped,
    is_triggered,
    is_valued_at_entry,
    mark_to_market,
    pay_funding,
    size_order,
)
from backtest.engine.bar_loop import BROKEN, DONE, NEGATIVE, count_days
from backtest.measures.tally import (
    Sample,
    add_decay,
    deepen,
    find_near,
    fold,
    grow_free,
    invert,
    is_deeper,
    is_near,
    is_wide,
    raise_peaks,
    take_sample,
)
from backtest.sweep.lanes.lane_rows import (
    AT_ONCE,
    HOLD,
    LANES,
    LIVE,
    TRADE,
    Kind,
    Place,
    Setup,
    Sheets,
    cell,
    compute_unit,
    count_lanes,
    first_lane,
    hand_out,
    keep_books,
    lane_bit,
    no_lanes,
    read_books,
    read_exposure,
    read_own_rules,
    without_first,
)
from backtest.sweep.lanes.quick_looks import (
    SLACK,
    Most,
    find_most,
    find_rare,
    find_reach,
    may_be_near,
    may_be_poor,
    may_break,
    raise_bound,
)

from backtest.sweep.lanes.lane_rows import (  # isort: skip
    BOUND, CASH, CASH_BEFORE, DECAY_HELD, DECAY_LOG, DECAY_PRODUCT, DOWNSIDE, EQUITY,
    EQUITY_SUM, EXCESS_MEAN, EXCESS_SQUARES, FEES, FUNDING, FUNDING_BEFORE, IMPACT, INTEREST,
    INTEREST_BEFORE, INVERSE, LATER, LEVERAGE_SUM, LINE, LOW, LOW_PEAK, MARGIN, MARGIN_BEFORE,
    MEAN, NEAR, PEAK, PEAK_BACKING, PEAK_LEVERAGE, PEAK_NEEDED, PRICE_PNL, SAMPLE_UNIT, SAMPLES,
    SLIPPAGE, SQUARES, STEP_LEFT, TARGET, TRADED, UNIT,
)  # fmt: skip

if TYPE_CHECKING:
    from backtest.base.units import FloatArray

FEW = 7
"""Lanes that trade in a bar up to which they are taken one by one."""

RAISED = 4
"""Why a block stopped, beside those of a single run: the policy raised an exception."""


class Carried(NamedTuple):
    """What an ordinary bar charges all lanes: one funding event at the open, and interest."""

    funding_value: float
    funding_rate: float
    years: float
    borrow_rate: float
    cash_rate: float
    short_rate: float


class Traded(NamedTuple):
    """One account after the fill of an ordinary bar, with the money of the fill."""

    books: Books
    price_pnl: float
    fee: float
    slippage: float
    impact: float
    amount: float
    is_odd: bool


def carry_bar(
    rules: Rules,
    kind: Kind,
    quote: Quote,
    carried: Carried,
    block: FloatArray,
    value: float,
    is_paying: bool,
) -> None:
    """Charge funding and interest to all lanes, keeping what they had for those that are odd."""
    for i in range(LANES):
        own = read_own_rules(rules, kind, block, i)
        books = read_books(rules, block, value, i)
        block[cell(CASH_BEFORE, i)] = books.cash
        block[cell(FUNDING_BEFORE, i)] = block[cell(FUNDING, i)]
        if rules.is_isolated is not None:
            block[cell(MARGIN_BEFORE, i)] = books.margin
        if is_paying:
            books, paid = pay_funding(own, books, carried.funding_value, carried.funding_rate)
            block[cell(FUNDING, i)] += paid
        if rules.has_interest is not None:
            block[cell(INTEREST_BEFORE, i)] = block[cell(INTEREST, i)]
            books, interest = charge_interest(
                own,
                books,
                quote,
                carried.years,
                carried.borrow_rate,
                carried.cash_rate,
                carried.short_rate,
            )
            block[cell(INTEREST, i)] += interest
        block[cell(CASH, i)] = books.cash
        if rules.is_isolated is not None:
            block[cell(MARGIN, i)] = books.margin


def sort_lanes(
    rules: Rules,
    kind: Kind,
    quote: Quote,
    block: FloatArray,
    value: float,
    signal: float,
    is_carrying: bool,
) -> tuple[int, bool]:
    """Write what each lane has to do in the bar; return who trades, and whether any is odd."""
    asking, has_odd = no_lanes(), False
    for i in range(LANES):
        step = sort_lane(rules, kind, quote, block, value, signal, is_carrying, i)
        asking |= lane_bit(i, step == TRADE)
        has_odd |= step == LIVE
    return asking, has_odd


def sort_few(
    rules: Rules,
    kind: Kind,
    quote: Quote,
    block: FloatArray,
    value: float,
    signal: float,
    rare: int,
) -> tuple[int, bool]:
    """Do the same as :func:`sort_lanes` for some lanes, where the others hold what they have."""
    asking, has_odd = no_lanes(), False
    while rare != no_lanes():
        i = first_lane(rare)
        rare = without_first(rare)
        step = sort_lane(rules, kind, quote, block, value, signal, False, i)
        asking |= lane_bit(i, step == TRADE)
        has_odd |= step == LIVE
    return asking, has_odd


def sort_lane(
    rules: Rules,
    kind: Kind,
    quote: Quote,
    block: FloatArray,
    value: float,
    signal: float,
    is_carrying: bool,
    i: int,
) -> float:
    """Write and return what one lane has to do in the bar.

    It lives the bar in full when the extreme triggers something, when it has something left to do,
    and when the close may ruin it.
    """
    own = read_own_rules(rules, kind, block, i)
    books = read_books(rules, block, value, i)
    is_alive = compute_equity(rules, books, quote.open) > 0.0
    is_moving = is_alive & is_asking(own, books, quote, block[cell(TARGET, i)], signal)
    is_odd = is_triggered(own, books, quote) | (block[cell(LATER, i)] != 0.0)
    left = compute_equity(rules, books, quote.mark_close)
    is_odd |= not left > block[cell(LINE, i)]
    if rules.has_interest is not None:
        is_odd |= is_carrying & may_be_poor(own, books, quote, left)
    step = TRADE if is_moving else (LIVE if is_odd else HOLD)
    block[cell(STEP_LEFT, i)] = step
    return step


class News(NamedTuple):
    """What a close may bring to some lane, each seldom, and left to a loop of its own.

    A new peak or fall, a new peak of exposure, being near the limit, a notional over the bound.
    """

    has_marks: bool
    has_exposure: bool
    has_near: bool
    is_over: bool


def close_lanes(
    rules: Rules,
    kind: Kind,
    quote: Quote,
    block: FloatArray,
    value: float,
    move: float,
    rate: float,
    has_rare: bool | None,
) -> News:
    """Count the close of all lanes; return what else there may be to count.

    Where some lanes did more than hold (``has_rare``), those have counted their own money.
    """
    has_marks, has_exposure, has_near, is_over = False, False, False, False
    lower, upper = find_near(rules, quote)
    reach = find_reach(rate, quote.mark_close, lower, upper)
    bound = block[cell(BOUND, 0)]
    for i in range(LANES):
        books = read_books(rules, block, value, i)
        equity = compute_equity(rules, books, quote.mark_close)
        block[cell(EQUITY_SUM, i)] += equity
        unit = compute_unit(kind, block, i, equity)
        peak = block[cell(PEAK, i)]
        has_marks |= unit > peak
        has_marks |= is_deeper(peak, block[cell(LOW, i)], block[cell(LOW_PEAK, i)], unit)
        if kind.is_full is not None:
            own = read_own_rules(rules, kind, block, i)
            pnl = mark_to_market(books, quote)[1]
            if has_rare is not None:
                pnl = 0.0 if block[cell(STEP_LEFT, i)] != HOLD else pnl
            block[cell(PRICE_PNL, i)] += pnl
            has_exposure |= count_more(own, quote, block, i, books, equity, value, move, rate)
            has_near |= may_be_near(own, books, quote, reach)
        if len(rules.margin.floors) > 1:
            is_over |= not abs(books.quantity) * abs(quote.mark_close) <= bound
    return News(has_marks, has_exposure | is_over, has_near | is_over, is_over)


def count_near(rules: Rules, kind: Kind, quote: Quote, block: FloatArray) -> None:
    """Count the closes that are near liquidation."""
    for i in range(LANES):
        own = read_own_rules(rules, kind, block, i)
        books = read_books(rules, block, quote.mark_close, i)
        block[cell(NEAR, i)] += 1.0 if is_near(own, books, quote) else 0.0


def trade_lane(
    rules: Rules,
    quote: Quote,
    books: Books,
    leverage: float,
    signal: float,
    most: Most,
    line: float,
) -> Traded:
    """Fill one account's decision, which asks for a trade, at the open; take it to the close.

    At an equity up to ``line`` the close may ruin it.
    """
    equity = compute_equity(rules, books, quote.open)
    reach = compute_target(rules, equity, leverage, signal)
    is_odd = (reach == math.inf) | may_break(rules, books, quote, most)
    side = 1.0 if signal > 0.0 else -1.0
    wanted = size_order(rules, books, quote, equity, side, reach)
    done = fill(rules, books, quote, wanted, rules.fee)
    is_odd |= may_break(rules, done.books, quote, most)
    if rules.has_stop is not None:
        is_odd |= is_stopped(rules, books, quote.open)
        last = quote.low if done.books.quantity > 0.0 else quote.high
        is_odd |= is_stopped(rules, done.books, last)
    left = compute_equity(rules, done.books, quote.mark_close)
    is_odd |= (not left > line) | may_be_poor(rules, done.books, quote, left)
    amount = abs(done.quantity) * abs(done.value)
    return Traded(done.books, done.price_pnl, done.fee, done.slippage, done.impact, amount, is_odd)


def trade_lanes(
    rules: Rules,
    kind: Kind,
    quote: Quote,
    block: FloatArray,
    value: float,
    signal: float,
    most: Most,
) -> bool:
    """Take the lanes that ask for a trade through the bar; tell whether one of them is odd."""
    has_odd = False
    for i in range(LANES):
        has_odd |= trade_one(rules, kind, quote, block, i, value, signal, most)
    return has_odd


def trade_few(
    rules: Rules,
    kind: Kind,
    quote: Quote,
    block: FloatArray,
    value: float,
    signal: float,
    most: Most,
    asking: int,
) -> bool:
    """Do the same as :func:`trade_lanes`, lane by lane: quicker for a few."""
    has_odd = False
    while asking != no_lanes():
        i = first_lane(asking)
        asking = without_first(asking)
        has_odd |= trade_one(rules, kind, quote, block, i, value, signal, most)
    return has_odd


def trade_one(
    rules: Rules,
    kind: Kind,
    quote: Quote,
    block: FloatArray,
    i: int,
    value: float,
    signal: float,
    most: Most,
) -> bool:
    """Take one lane that asks for a trade through the bar; tell whether it is odd."""
    own = read_own_rules(rules, kind, block, i)
    books = read_books(rules, block, value, i)
    is_mine = block[cell(STEP_LEFT, i)] == TRADE
    target, line = block[cell(TARGET, i)], block[cell(LINE, i)]
    done = trade_lane(own, quote, books, target, signal, most, line)
    is_odd = is_mine & (done.is_odd | (block[cell(LATER, i)] != 0.0))
    if is_odd:
        block[cell(STEP_LEFT, i)] = LIVE
    if is_mine & (not is_odd):
        keep_books(rules, block, i, done.books)
        count_trade(rules, block, i, done)
        if kind.is_full is not None:
            block[cell(PRICE_PNL, i)] += done.price_pnl + mark_to_market(done.books, quote)[1]
    return bool(is_odd)


def count_trade(rules: Rules, block: FloatArray, i: int, done: Traded) -> None:
    """Add the costs of a fill to one lane."""
    block[cell(FEES, i)] += done.fee
    block[cell(SLIPPAGE, i)] += done.slippage
    if rules.has_impact is not None:
        block[cell(IMPACT, i)] += done.impact
    block[cell(TRADED, i)] += done.amount


def mark_lanes(rules: Rules, kind: Kind, quote: Quote, block: FloatArray) -> None:
    """Bring peaks and falls up to date at a close; a second time changes nothing."""
    for i in range(LANES):
        books = read_books(rules, block, quote.mark_close, i)
        equity = compute_equity(rules, books, quote.mark_close)
        mark_lane(block, i, compute_unit(kind, block, i, equity))


def mark_exposure(rules: Rules, kind: Kind, quote: Quote, block: FloatArray) -> None:
    """Bring the peaks of exposure up to date at a close; a second time changes nothing."""
    for i in range(LANES):
        books = read_books(rules, block, quote.mark_close, i)
        own = read_own_rules(rules, kind, block, i)
        peaks = raise_peaks(own, read_exposure(block, i), books, block[cell(INVERSE, i)], quote)
        block[cell(PEAK_LEVERAGE, i)] = peaks.peak_leverage
        block[cell(PEAK_NEEDED, i)] = peaks.peak_needed
        block[cell(PEAK_BACKING, i)] = peaks.peak_backing


def mark_lane(block: FloatArray, i: int, unit: float) -> None:
    """Bring peak and deepest fall of one lane up to date."""
    peak, low, low_peak = deepen(
        block[cell(PEAK, i)], block[cell(LOW, i)], block[cell(LOW_PEAK, i)], unit
    )
    block[cell(PEAK, i)] = peak
    block[cell(LOW, i)] = low
    block[cell(LOW_PEAK, i)] = low_peak


def count_more(
    rules: Rules,
    quote: Quote,
    block: FloatArray,
    i: int,
    books: Books,
    equity: float,
    value: float,
    move: float,
    rate: float,
) -> bool:
    """Add a close to the other measures of one lane; tell whether it may be at a new peak."""
    held, product = block[cell(DECAY_HELD, i)], block[cell(DECAY_PRODUCT, i)]
    base = block[cell(INVERSE, i)]
    held, product = add_decay(held, product, books.quantity, base, value, quote, move)
    block[cell(DECAY_HELD, i)] = held
    block[cell(DECAY_PRODUCT, i)] = product
    inverse = invert(equity)
    block[cell(INVERSE, i)] = inverse
    notional = abs(books.quantity) * abs(quote.mark_close)
    leverage = notional * inverse
    block[cell(LEVERAGE_SUM, i)] += leverage
    backing = compute_backing(rules, books, quote.mark_close)
    needed = rate * SLACK * notional
    if is_valued_at_entry(rules):
        needed = compute_requirement(rules, books, quote.mark_close, quote.multiplier)
    is_closer = needed * block[cell(PEAK_BACKING, i)] > block[cell(PEAK_NEEDED, i)] * backing
    return bool(is_closer | (leverage > block[cell(PEAK_LEVERAGE, i)]))


def find_carried(rules: Rules, feed: Feed, quote: Quote, event: int, t: int) -> Carried:
    """Return what bar t charges all lanes; the event, if one is due, is at the open."""
    value, rate = quote.mark_open, 0.0
    if is_funding_due(feed, event, t):
        rate = feed.funding_rate[event]
        if not math.isnan(feed.funding_price[event]):
            value = compute_value_of(rules, feed.funding_price[event])
    last = max(t - 1, 0)
    return Carried(
        value,
        rate,
        feed.years[min(t, len(feed.years) - 1)],
        feed.borrow_rate[min(last, len(feed.borrow_rate) - 1)],
        feed.cash_rate[min(last, len(feed.cash_rate) - 1)],
        feed.short_rate[min(last, len(feed.short_rate) - 1)],
    )


def is_charging(rules: Rules, carried: Carried) -> bool:
    """Tell whether a bar charges any interest."""
    if rules.has_interest is None:
        return False
    return carried.borrow_rate != 0.0 or carried.cash_rate != 0.0 or carried.short_rate != 0.0


def count_due(feed: Feed, event: int, t: int) -> int:
    """Return how many funding events belong to bar t."""
    n = 0
    while is_funding_due(feed, event + n, t):
        n += 1
    return n


def is_ordinary(plan: Plan, feed: Feed, at: Place, n_due: int, t: int) -> bool:
    """Tell whether bar t may be an ordinary one: no flow, and at most one event, at the open."""
    if t == 0 or plan.margin_call != 0.0 or is_flow_due(feed, at.flow, t):
        return False
    return n_due == 0 or (n_due == 1 and feed.funding_is_open[at.event] == 1)


def count_flows(feed: Feed, flow: int, t: int) -> int:
    """Return the flow after those of bar t."""
    while is_flow_due(feed, flow, t):
        flow += 1
    return flow


def take_samples(
    rules: Rules,
    kind: Kind,
    block: FloatArray,
    value: float,
    free: float,
    returns: FloatArray,
    k: int,
) -> None:
    """End a sample in all lanes; where returns are asked for, write them."""
    for i in range(LANES):
        equity = compute_equity(rules, read_books(rules, block, value, i), value)
        unit = compute_unit(kind, block, i, equity)
        sample = Sample(
            block[cell(SAMPLE_UNIT, i)],
            free,
            block[cell(SAMPLES, i)],
            block[cell(MEAN, i)],
            block[cell(SQUARES, i)],
            block[cell(EXCESS_MEAN, i)],
            block[cell(EXCESS_SQUARES, i)],
            block[cell(DOWNSIDE, i)],
        )
        after, change = take_sample(sample, unit)
        block[cell(SAMPLE_UNIT, i)] = after.unit
        block[cell(SAMPLES, i)] = after.n
        block[cell(MEAN, i)] = after.mean
        block[cell(SQUARES, i)] = after.squares
        block[cell(EXCESS_MEAN, i)] = after.excess_mean
        block[cell(EXCESS_SQUARES, i)] = after.excess_squares
        block[cell(DOWNSIDE, i)] = after.downside
        if k < len(returns):
            returns[k, i] = change


def fold_products(block: FloatArray) -> None:
    """Take the decay's products that have grown wide to their logarithms."""
    n_wide = 0
    for i in range(LANES):
        n_wide += 1 if is_wide(block[cell(DECAY_PRODUCT, i)]) else 0
    if n_wide > 0:
        for i in range(LANES):
            log, product = fold(block[cell(DECAY_LOG, i)], block[cell(DECAY_PRODUCT, i)])
            block[cell(DECAY_LOG, i)] = log
            block[cell(DECAY_PRODUCT, i)] = product


def write_equity(rules: Rules, kind: Kind, block: FloatArray, value: float) -> None:
    """Write equity and unit value of all lanes at u ``value``."""
    for i in range(LANES):
        equity = compute_equity(rules, read_books(rules, block, value, i), value)
        block[cell(UNIT, i)] = compute_unit(kind, block, i, equity)
        block[cell(EQUITY, i)] = equity


def pass_bar(setup: Setup, sheets: Sheets, live: Any, quote: Quote, at: Place, t: int) -> int:
    """Take all lanes through bar t; return one whose books do not balance, or -1."""
    rules, kind, block = setup.rules, setup.kind, sheets.block
    n_due = count_due(setup.feed, at.event, t)
    move = setup.clock.log_return[place(t)]
    most = find_most(rules, block, quote, at.value)
    fault, is_rare = -1, True
    if is_ordinary(setup.plan, setup.feed, at, n_due, t):
        carried = find_carried(rules, setup.feed, quote, at.event, t)
        is_carrying = n_due > 0 or is_charging(rules, carried)
        if is_carrying:
            carry_bar(rules, kind, quote, carried, block, at.value, n_due > 0)
        rare = find_rare(rules, kind, quote, block, at.value, at.signal, most.rate)
        is_rare = is_carrying or at.later > 0 or rare != no_lanes()
        if is_rare:
            fault = act(setup, sheets, live, quote, at, is_carrying, rare, most, t)
    else:
        fault = call_live(setup, block, live, at, False, False, t)
    if is_rare:
        news = close_lanes(rules, kind, quote, block, at.value, move, most.rate, True)
        for i in range(LANES):
            block[cell(STEP_LEFT, i)] = HOLD
    else:
        news = close_lanes(rules, kind, quote, block, at.value, move, most.rate, None)
    follow_up(rules, kind, quote, block, news)
    return fault


def follow_up(rules: Rules, kind: Kind, quote: Quote, block: FloatArray, news: News) -> None:
    """Count what a close has brought to some lane."""
    if news.has_marks:
        mark_lanes(rules, kind, quote, block)
    if kind.is_full is not None:
        if news.has_exposure:
            mark_exposure(rules, kind, quote, block)
        if news.has_near:
            count_near(rules, kind, quote, block)
    if news.is_over:
        raise_bound(quote, block)


def act(
    setup: Setup,
    sheets: Sheets,
    live: Any,
    quote: Quote,
    at: Place,
    is_carrying: bool,
    rare: int,
    most: Most,
    t: int,
) -> int:
    """Fill what lanes ask for and live the bar of those that are odd; return a fault or -1."""
    rules, kind, block = setup.rules, setup.kind, sheets.block
    if is_carrying or at.later > 0 or count_lanes(rare) > FEW:
        asking, has_odd = sort_lanes(rules, kind, quote, block, at.value, at.signal, is_carrying)
    else:
        asking, has_odd = sort_few(rules, kind, quote, block, at.value, at.signal, rare)
    if count_lanes(asking) > FEW:
        has_odd |= trade_lanes(rules, kind, quote, block, at.value, at.signal, most)
    else:
        has_odd |= trade_few(rules, kind, quote, block, at.value, at.signal, most, asking)
    if has_odd:
        return call_live(setup, block, live, at, is_carrying, True, t)
    return -1


def count_later(block: FloatArray) -> int:
    """Return how many lanes cannot live the next bar as an ordinary one."""
    n = 0
    for i in range(LANES):
        n += 1 if block[cell(LATER, i)] != 0.0 else 0
    return n


def call_live(
    setup: Setup,
    block: FloatArray,
    live: Any,
    at: Place,
    is_carrying: bool,
    is_ordinary: bool,
    t: int,
) -> int:
    """Call :func:`live_lanes`, through its pointer."""
    fault: int = live(
        setup.full,
        setup.whole,
        setup.plan,
        setup.feed,
        setup.log,
        block,
        at,
        is_carrying,
        is_ordinary,
        t,
    )
    return fault


def close_bar_of_all(setup: Setup, sheets: Sheets, quote: Quote, at: Place, t: int) -> Place:
    """Sample returns where a sample ends; return where the block stands after bar t."""
    feed, clock = setup.feed, setup.clock
    if setup.kind.is_full is not None:
        fold_products(sheets.block)
    n_due = count_due(feed, at.event, t)
    last_funding = feed.funding_rate[at.event + n_due - 1] if n_due > 0 else at.last_funding
    free, sample = grow_free(at.free, clock.risk_free[place(t)]), at.sample
    value = quote.mark_close
    if clock.ends_sample[place(t)] != 0.0:
        take_samples(setup.rules, setup.kind, sheets.block, value, free, sheets.returns, sample)
        raise_bound(quote, sheets.block)
        free, sample = 0.0, sample + 1
    signal = feed.signal[min(t, len(feed.signal) - 1)]
    flow = count_flows(feed, at.flow, t)
    later = count_later(sheets.block) if setup.kind.has_flows is not None else at.later
    return Place(at.event + n_due, flow, last_funding, value, signal, free, sample, later)


def ask(setup: Setup, sheets: Sheets, decide: Any, quote: Quote, at: Place, t: int, k: int) -> int:
    """Ask the policy at the close of bar t, row k of its own columns; return how it went."""
    seen, flags = setup.seen, sheets.flags
    flags[0], flags[1] = -1, 1
    j = place(t)
    decide(
        sheets.block,
        sheets.brackets,
        sheets.shared,
        sheets.own,
        flags,
        seen.time[j],
        seen.open[j],
        seen.high[j],
        seen.low[j],
        seen.close[j],
        seen.mark[j],
        seen.volume[j],
        at.last_funding,
        count_days(seen, t),
        quote.mark_close,
        quote.multiplier,
        t,
        k,
    )
    if flags[1] != 0:
        return RAISED
    return NEGATIVE if flags[0] >= 0 else DONE


def advance_block(
    setup: Setup, sheets: Sheets, live: Any, decide: Any, at: Place, start: int, stop: int
) -> tuple[Place, int, int]:
    """Take a block through bars ``start`` to ``stop``.

    Parameters
    ----------
    setup : Setup
        The rules, the market, the kind of account.
    sheets : Sheets
        The state, which is written, and the columns.
    live, decide : compiled functions
        :func:`live_lanes`, and the policy's formula over all lanes.
    at : Place
        Where the block stands before bar ``start``.

    Returns
    -------
    Place, bar reached, and why it stopped (as :func:`backtest.engine.bar_loop.simulate`).
    """
    for t in range(start, stop):
        quote = quote_bar(setup.rules, setup.feed, t)
        fault = pass_bar(setup, sheets, live, quote, at, t)
        if fault >= 0:
            sheets.flags[0] = fault
            return at, t, BROKEN
        at = close_bar_of_all(setup, sheets, quote, at, t)
        k = t
        if len(sheets.places) > 0:
            k = (t - start) % AT_ONCE
            if k == 0:
                hand_out(sheets, t)
        why = ask(setup, sheets, decide, quote, at, t, k)
        if why != DONE:
            return at, t, why
    write_equity(setup.rules, setup.kind, sheets.block, at.value)
    return at, stop, DONE
