"""The loop over the bars of an account: ask the policies, take the bar, check the books."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from backtest.account import (
    AccountBar,
    AccountState,
    MarketBar,
    MarketFeed,
    Scratch,
    Terms,
    compute_balance,
    compute_pool_ratio,
    is_held,
    is_isolated,
    live_bar,
    may_use_fast_path,
    share,
    sum_bar,
    take_fast_path,
    write_settings,
)
from backtest.account import records as r
from backtest.engine.closes import (
    CloseFacts,
    Lanes,
    RunTape,
    count_bar,
    look_at_close,
    measure_gross,
    record_account,
)
from backtest.measures import Clock
from backtest.venue import compute_price, compute_value, find_own_maintenance

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray


DONE, FULL, BROKEN, NEGATIVE = range(4)
IDENTITY_TOLERANCE = 1e-9
DAY_NS = 86_400_000_000_000.0


class Deciders(NamedTuple):
    """The policies: those of the n instruments, and last the overlay.

    ``methods`` are called in plain Python; compiled code calls ``addresses``. Parameters, columns
    and memory of policy i are flat arrays that begin at ``*_at[i]``; the columns of one policy are
    ``lengths[i]`` apart, and bar t is its bar ``t - firsts[i]``. ``asks`` is 1 if there is a
    policy, ``wants_price`` if it reads the liquidation price, ``wants_table`` if it reads the
    brackets, ``sets_margin`` if it decides the venue leverage, ``wants_bar`` if
    it reads anything of the bar but its columns, ``wants_account`` 0 if it reads nothing of the
    account, 1 if nothing of its margin, else 2. ``bars`` has the fields of a
    bar by policy, of shape (n + 1, 8): the numbers that it sees. ``shown`` is the view of the
    account, ``margin`` and ``levels`` room for the margin rules it sees, ``width`` the most
    brackets. Where policies do not decide at each close, ``rows`` says where the longer bars close
    that they see, as :class:`backtest.market.clock.PolicyClock` does, ``seen_time`` has
    their opens, ``seen_bars`` of shape (6, bars, n) their prices and volume, and the last number of
    the memory is the highest unit value at a decision.
    """

    methods: Any
    addresses: IntArray
    params: FloatArray
    params_at: IntArray
    columns: FloatArray
    columns_at: IntArray
    lengths: IntArray
    firsts: IntArray
    memory: FloatArray
    memory_at: IntArray
    asks: IntArray
    wants_price: IntArray
    wants_table: IntArray
    wants_account: IntArray
    wants_bar: IntArray
    sets_margin: IntArray
    index_bars: FloatArray
    rows: IntArray
    seen_time: IntArray
    seen_bars: FloatArray
    tradable: IntArray
    shown: FloatArray
    bar: FloatArray
    margin: FloatArray
    levels: FloatArray
    width: int
    interval: int
    start: int


# ---------------------------------------------------------------------------------------- the loop

(
    SHOWN_EQUITY, SHOWN_PEAK, SHOWN_DRAWDOWN, SHOWN_LEVERAGE, SHOWN_POSITION, SHOWN_ENTRY,
    SHOWN_WALLET, SHOWN_RESERVE, SHOWN_MAINTENANCE, SHOWN_RATIO, SHOWN_PRICE, SHOWN_SINCE,
    SHOWN_SINCE_STOP, SHOWN_DAYS, SHOWN_GROSS, SHOWN_NET, SHOWN_POOL_RATIO,
) = range(17)  # fmt: skip
N_SHOWN = 16
BEGIN, FIRST, STOP, SETTLED, FLOWED = range(5)
"""Columns of ``Lanes.places``."""
WEALTH, LIQUIDATED, LOST, CALLED, RUINED = range(5)
"""Rows of ``Lanes.lives``."""
PART, WHOLE = 1, 2
"""What a policy reads of the account: nothing of its margin, or anything."""
SETTING = 17
"""Entry of ``shown`` into which a policy writes the venue leverage that it decides."""


def ask(
    deciders: Deciders, terms: Terms, quotes: MarketBar, i: int, time: int, local: int
) -> float:
    raise NotImplementedError


def simulate_batch(  # noqa: PLR0913, PLR0917 - the arguments of a kernel
    terms: Terms,
    feed: MarketFeed,
    clock: Clock,
    log_returns: FloatArray,
    deciders: Deciders,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    ledger: FloatArray,
    tally: FloatArray,
    tape: RunTape,
    start: int,
    stop: int,
) -> tuple[int, int]:
    """Take the account through the bars from start to stop, or through each lane of the tape.

    With ``stop`` below 0, return the address of :func:`simulate_account` instead.
    """
    terms, feed, deciders, state = share(terms), share(feed), share(deciders), share(state)
    quotes, scratch, tape, clock = share(quotes), share(scratch), share(tape), share(clock)
    if stop < 0:
        given = (
            terms, feed, clock, log_returns, deciders, state, quotes, scratch, ledger, tally, tape,
            start, stop,
        )  # fmt: skip
        return locate(simulate_account, given), DONE
    lanes, reached, why = tape.lanes, start, DONE
    for k in range(max(len(lanes.places), 1)):
        first, end = start, stop
        if len(lanes.places) > 0:
            first, end = lanes.places[k, FIRST], lanes.places[k, STOP]
            begin_lane(lanes, feed, state, k)
        reached, why = simulate_account(
            terms, feed, clock, log_returns, deciders, state, quotes, scratch, ledger, tally, tape,
            first, end,
        )  # fmt: skip
        if why != DONE:
            break
    return reached, why


def locate(function: Any, arguments: Any) -> int:
    raise NotImplementedError


def begin_lane(lanes: Lanes, feed: MarketFeed, state: AccountState, k: int) -> None:
    for j in range(len(lanes.begun)):
        lanes.numbers[j] = lanes.begun[j]
    state.cursor[r.FUNDING_NEXT] = lanes.places[k, SETTLED]
    state.cursor[r.FLOW_NEXT] = lanes.places[k, FLOWED]
    for i in range(len(state.margin)):
        feed.span[i, 0], feed.span[i, 1] = lanes.places[k, BEGIN], lanes.places[k, STOP]


def simulate_account(  # noqa: PLR0913, PLR0917 - the arguments and the steps of a kernel
    terms: Terms,
    feed: MarketFeed,
    clock: Clock,
    log_returns: FloatArray,
    deciders: Deciders,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    ledger: FloatArray,
    tally: FloatArray,
    tape: RunTape,
    start: int,
    stop: int,
) -> tuple[int, int]:
    bar = AccountBar(
        terms=terms, feed=feed, state=state, quotes=quotes, scratch=scratch, ledger=ledger,
        log=tape.log,
    )  # fmt: skip
    bar = share(bar)
    has_fast_path = begin_bars(terms, feed, deciders, state)
    is_recorded, was_fast = tape.is_on[0] == 1, False
    has_prices = is_any_set(deciders.wants_price)
    lives, is_counted = tape.lanes.lives, len(tape.lanes.places) == 0
    money = scratch.money
    has_close = is_counted or wants_close(deciders)
    for t in range(start, stop):
        tape.cursor[0] = t
        equity = state.wallet[r.EQUITY]
        if is_counted:
            remember_marks(tape, terms, feed, quotes, t, t == start)
        may_be = has_fast_path and t > start  # the first bar writes the whole quotes
        is_fast = may_be and take_fast_path(bar, t, was_fast)
        was_fast = is_fast
        if not is_fast:
            live_bar(bar, t)
        if is_recorded and tape.log.written[0] > len(tape.log.entries):
            return t, FULL
        close = look_at_close(bar, has_prices) if has_close else measure_gross(bar)
        tape.pool[0], tape.pool[1] = close.needed, close.backing
        change, turnover = sum_bar(ledger, money, is_fast)
        if not is_balanced(equity, state, change, turnover, close.gross):
            return t, BROKEN
        if is_counted:
            held = scratch.carried if terms.fill == r.LATE else state.held.quantities
            count_bar(
                clock, tally, state, tape.before, equity, quotes, money, is_fast, close,
                log_returns, terms.max_gross_leverage, held, t,
            )  # fmt: skip
        if lives.shape[1] > 0:
            write_life(lives, state, money, is_fast, t)
        if not decide_all(bar, deciders, close, t):
            return t, NEGATIVE
        if len(tape.units) > 0:
            tape.units[t - tape.cursor[1]] = state.wallet[r.UNIT]
        if is_recorded:
            record_account(bar, tape, is_fast, t - tape.cursor[1])
    return stop, DONE


def write_life(
    lives: FloatArray, state: AccountState, money: FloatArray, is_fast: bool, t: int
) -> None:
    lives[WEALTH, t] = state.wallet[r.EQUITY] + state.wallet[r.RESERVE]
    lives[RUINED, t] = state.wallet[r.IS_RUINED]
    if not is_fast:
        lives[LIQUIDATED, t], lives[LOST, t] = money[r.LIQUIDATIONS], money[r.BAD_DEBT]
        lives[CALLED, t] = money[r.CALLS]


def begin_bars(terms: Terms, feed: MarketFeed, deciders: Deciders, state: AccountState) -> bool:
    begin_peak(deciders, state)
    if is_any_set(deciders.sets_margin):
        write_settings(terms, state)
        return False
    return may_use_fast_path(terms, feed, state)


def wants_close(deciders: Deciders) -> bool:
    found = deciders.asks[len(deciders.asks) - 1] == 1
    for i in range(len(deciders.wants_account)):
        found = found or deciders.wants_account[i] == WHOLE
    return bool(found)


def begin_peak(deciders: Deciders, state: AccountState) -> None:
    if len(deciders.rows) > 1 and deciders.memory[-1] == 0.0:
        deciders.memory[-1] = state.wallet[r.PEAK]


def is_any_set(flags: IntArray) -> bool:
    found = False
    for i in range(len(flags)):
        found = found or flags[i] != 0
    return bool(found)


def remember_marks(
    tape: RunTape, terms: Terms, feed: MarketFeed, quotes: MarketBar, t: int, is_first: bool
) -> None:
    brackets, last = terms.rules.brackets, max(t - 1, 0)
    for i in range(len(tape.before)):
        tape.before[i] = quotes.mark_close[i]
        if is_first:
            size, is_inverse = brackets.sizes[i], brackets.are_inverse[i]
            tape.before[i] = compute_value(size, is_inverse, feed.mark_close[last, i])


def is_balanced(
    before: float, state: AccountState, change: float, traded: float, gross: float
) -> bool:
    after = state.wallet[r.EQUITY]
    gap = abs(after - before - change)
    return bool(gap <= IDENTITY_TOLERANCE * max(before, after, traded, gross))


# --------------------------------------------------------------------------------- decisions


def decide_all(bar: AccountBar, deciders: Deciders, close: CloseFacts, t: int) -> bool:
    terms, state, quotes = bar.terms, bar.state, bar.quotes
    n, k = len(state.margin), find_seen_bar(deciders, state, t)
    if k < 0:
        hold_all(state)
        return True
    time = open_of(deciders, bar.feed, k)
    is_done = state.wallet[r.IS_RUINED] + state.wallet[r.IS_OVER] != 0.0
    if deciders.asks[n] == 1 or is_any_set(deciders.wants_account):
        days = (time + deciders.interval - deciders.start) / DAY_NS
        show_account_totals(terms, deciders, state, quotes, close, days)
    for i in range(n):
        decide(bar, deciders, is_done, i, t, k)
        if state.leverage[i] < 0.0 or state.asked[i] <= 0.0:
            return False
    if deciders.asks[n] == 1 and not is_done:
        show_account(terms, deciders, state, close)
        show_index(deciders, k)
        overlay = ask(deciders, terms, quotes, n, time, k - deciders.firsts[n])
        if overlay < 0.0 or overlay == math.inf:
            return False
        if not math.isnan(overlay):
            state.wallet[r.OVERLAY] = min(overlay, terms.max_overlay)
    return True


def find_seen_bar(deciders: Deciders, state: AccountState, t: int) -> int:
    k = t
    if len(deciders.rows) > 1:
        k = deciders.rows[t]
        if k >= 0:
            deciders.memory[-1] = max(deciders.memory[-1], state.wallet[r.UNIT])
    return k


def open_of(deciders: Deciders, feed: MarketFeed, k: int) -> int:
    time: int = deciders.seen_time[k] if len(deciders.rows) > 1 else feed.time[k]
    return time


def hold_all(state: AccountState) -> None:
    for i in range(len(state.margin)):
        state.leverage[i], state.asked[i], state.is_pending[i] = math.nan, math.nan, 0
        state.signal[i] = 1.0
        state.since[i] = hold_count(state.since[i])
        state.since_stop[i] = hold_count(state.since_stop[i])
    state.wallet[r.SINCE_POOL] = hold_count(state.wallet[r.SINCE_POOL])


def hold_count(since: float) -> float:
    return since - 1.0 if since > 0.0 else -1.0


def decide(bar: AccountBar, deciders: Deciders, is_done: bool, i: int, t: int, k: int) -> None:
    terms, feed, state, quotes = bar.terms, bar.feed, bar.state, bar.quotes
    state.leverage[i], state.is_pending[i] = math.nan, 0
    state.asked[i] = math.nan
    state.signal[i] = feed.signal[min(t, len(feed.signal) - 1), i]
    if deciders.tradable[min(t, len(deciders.tradable) - 1), i] == 0:
        return
    local = k - deciders.firsts[i]
    if len(deciders.rows) > 1 and (local < 0 or local >= deciders.lengths[i]):
        return
    state.is_pending[i] = 1
    if is_done or state.is_halted[i] == 1:
        return
    if deciders.wants_account[i] != 0:
        show_position(terms, deciders, state, quotes, bar.scratch, i)
    if deciders.wants_bar[i] == 1:
        show_bar(deciders, feed, state, i, t, k)
    state.leverage[i] = ask(deciders, terms, quotes, i, open_of(deciders, feed, k), local)
    if deciders.sets_margin[i] == 1:
        state.asked[i] = deciders.shown[SETTING]


def show_account_totals(
    terms: Terms,
    deciders: Deciders,
    state: AccountState,
    quotes: MarketBar,
    close: CloseFacts,
    days: float,
) -> None:
    shown, equity = deciders.shown, state.wallet[r.EQUITY]
    net = 0.0
    for i in range(len(state.margin)):
        if is_held(state, i):
            net += state.held.quantities[i] * abs(quotes.mark_close[i])
    shown[SHOWN_EQUITY] = equity
    peak = deciders.memory[-1] if len(deciders.rows) > 1 else state.wallet[r.PEAK]
    shown[SHOWN_PEAK] = equity * (peak / state.wallet[r.UNIT])
    shown[SHOWN_DRAWDOWN] = 1.0 - state.wallet[r.UNIT] / peak
    shown[SHOWN_WALLET] = compute_balance(terms, state)
    shown[SHOWN_RESERVE] = state.wallet[r.RESERVE]
    shown[SHOWN_DAYS] = days
    shown[SHOWN_GROSS] = close.gross / equity if equity > 0.0 else 0.0
    shown[SHOWN_NET] = net / equity if equity > 0.0 else 0.0
    shown[SHOWN_POOL_RATIO] = 0.0
    if close.needed > 0.0:
        shown[SHOWN_POOL_RATIO] = close.needed / close.backing if close.backing > 0.0 else math.inf


def show_position(
    terms: Terms,
    deciders: Deciders,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    i: int,
) -> None:
    shown, equity = deciders.shown, state.wallet[r.EQUITY]
    shown[SHOWN_LEVERAGE], shown[SHOWN_POSITION], shown[SHOWN_ENTRY] = 0.0, 0.0, math.nan
    shown[SHOWN_MAINTENANCE], shown[SHOWN_PRICE] = 0.0, math.nan
    shown[SHOWN_RATIO] = shown[SHOWN_POOL_RATIO]
    if is_isolated(terms, i):
        shown[SHOWN_RATIO] = compute_pool_ratio(terms, state, quotes, i)
    shown[SHOWN_SINCE] = state.since[i]
    shown[SHOWN_SINCE_STOP] = state.since_stop[i]
    if not is_held(state, i):
        return
    held, brackets = state.held.quantities[i], terms.rules.brackets
    size, is_inverse = brackets.sizes[i], brackets.are_inverse[i]
    factor = state.factor[i] if state.factor[i] > 0.0 else 1.0
    if equity > 0.0:
        shown[SHOWN_LEVERAGE] = held * abs(quotes.mark_close[i]) / equity / factor
    shown[SHOWN_POSITION] = held
    shown[SHOWN_ENTRY] = compute_price(size, is_inverse, state.held.entries[i])
    if deciders.wants_account[i] == WHOLE:
        shown[SHOWN_MAINTENANCE] = find_own_maintenance(terms.rules, state.held, i) / factor
    if deciders.wants_price[i] == 1:
        shown[SHOWN_PRICE] = compute_price(size, is_inverse, scratch.failure[i])


def show_account(terms: Terms, deciders: Deciders, state: AccountState, close: CloseFacts) -> None:
    shown = deciders.shown
    shown[SHOWN_LEVERAGE] = shown[SHOWN_NET]
    shown[SHOWN_POSITION], shown[SHOWN_ENTRY] = math.nan, math.nan
    shown[SHOWN_WALLET], shown[SHOWN_MAINTENANCE] = compute_balance(terms, state), close.needed
    shown[SHOWN_POOL_RATIO] = 0.0
    if close.needed > 0.0:
        shown[SHOWN_POOL_RATIO] = close.needed / close.backing if close.backing > 0.0 else math.inf
    shown[SHOWN_RATIO] = shown[SHOWN_POOL_RATIO]
    shown[SHOWN_PRICE] = math.nan
    shown[SHOWN_SINCE] = state.wallet[r.SINCE_POOL]
    shown[SHOWN_SINCE_STOP] = math.inf
    for i in range(len(state.margin)):
        shown[SHOWN_SINCE_STOP] = min(shown[SHOWN_SINCE_STOP], state.since_stop[i])


def show_bar(
    deciders: Deciders, feed: MarketFeed, state: AccountState, i: int, t: int, k: int
) -> None:
    bar = deciders.bar
    if len(deciders.rows) > 1:
        for j in range(6):
            bar[j] = deciders.seen_bars[j, k, i]
        bar[6] = state.last_funding[i]
        return
    bar[0], bar[1], bar[2] = feed.open[t, i], feed.high[t, i], feed.low[t, i]
    bar[3], bar[4], bar[5] = feed.close[t, i], feed.mark_close[t, i], feed.volume[t, i]
    bar[6] = state.last_funding[i]


def show_index(deciders: Deciders, t: int) -> None:
    for k in range(7):
        deciders.bar[k] = deciders.index_bars[k, t]
