"""The bar loop of several positions: update the account, check the books, ask the policies, record.

``ask`` is a placeholder: plain Python binds it to the policies' methods, the compiler to a call of
their compiled formulas.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from backtest.account.fast_path import live_calm_bar, may_be_calm
from backtest.account.portfolio_balance import compute_balance, compute_pool
from backtest.account.portfolio_bar import live_book_bar
from backtest.account.portfolio_calls import compute_pot_ratio
from backtest.account.portfolio_ledger import (
    BAD_DEBT,
    COLLATERAL_PNL,
    CONVERSION,
    FEES,
    FLOWS,
    FUNDING,
    IMPACT,
    INTEREST,
    LOSS,
    MANAGEMENT_FEE,
    PERFORMANCE_FEE,
    PRICE_PNL,
    SLIPPAGE,
    TOP_UP,
    sum_book_terms,
    sum_calm_ledger,
    sum_ledger,
    total,
)
from backtest.account.portfolio_margin import write_settings
from backtest.account.portfolio_records import (
    CASH,
    EQUITY,
    IS_OVER,
    IS_RUINED,
    LATE,
    OVERLAY,
    PEAK,
    RESERVE,
    SINCE_POOL,
    UNIT,
    AccountState,
    BookFeed,
    BookLog,
    MarketBar,
    Scratch,
    Terms,
    is_held,
    is_isolated,
    share,
)
from backtest.engine.bar_loop import BROKEN, DAY_NS, DONE, FULL, IDENTITY_TOLERANCE, NEGATIVE
from backtest.engine.portfolio_close import look_at_close
from backtest.engine.portfolio_tally import BookClose, count_book_bar
from backtest.measures.tally import Clock, Tally
from backtest.venue.book_requirement import (
    compute_book_initial,
    find_own_maintenance,
)
from backtest.venue.collateral_value import compute_collateral_value, compute_full_value
from backtest.venue.contract_value import compute_price, compute_value

if TYPE_CHECKING:
    from backtest.base.units import FloatArray, IntArray

(
    SHOWN_EQUITY, SHOWN_PEAK, SHOWN_DRAWDOWN, SHOWN_LEVERAGE, SHOWN_POSITION, SHOWN_ENTRY,
    SHOWN_WALLET, SHOWN_RESERVE, SHOWN_MAINTENANCE, SHOWN_RATIO, SHOWN_PRICE, SHOWN_SINCE,
    SHOWN_SINCE_STOP, SHOWN_DAYS, SHOWN_GROSS, SHOWN_NET, SHOWN_POOL_RATIO,
) = range(17)  # fmt: skip
"""The fields of :class:`AccountView` without ``venue``, in order: the sheet that ``ask`` reads.

Last the margin ratio of the pool, which is shown for all cross positions.
"""
N_SHOWN = 16
SETTING = 17
"""Entry of the sheet into which a policy writes the venue leverage that it decides."""


class Desk(NamedTuple):
    """The policies: those of the n instruments, and last the overlay.

    ``deciders`` are called in plain Python; compiled code calls ``addresses``. Parameters, columns
    and memory of policy i are flat arrays that begin at ``*_at[i]``; the columns of one policy are
    ``lengths[i]`` apart, and bar t is its bar ``t - firsts[i]``. ``asks`` is 1 if there is a
    policy, ``wants_price`` if it reads the liquidation price, ``wants_table`` if it reads the
    brackets, ``sets_margin`` if it decides the venue leverage, ``wants_account`` and ``wants_bar``
    if it reads anything of the account and of the bar but its columns. ``bars`` has the fields of a
    bar by policy, of shape (n + 1, 8): the numbers that it sees. ``sheet`` is the view of the
    account, ``margin`` and ``levels`` room for the margin rules it sees, ``width`` the most
    brackets.
    """

    deciders: Any
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
    tradable: IntArray
    sheet: FloatArray
    bar: FloatArray
    margin: FloatArray
    levels: FloatArray
    width: int
    interval: int
    start: int


class BookTape(NamedTuple):
    """What the loop writes to: the log of events, and the record.

    ``cursor[0]`` is the current bar, ``cursor[1]`` the first one. ``before`` are the marks of the
    last close, ``is_on[0]`` is 1 if bars and events are recorded, and ``units`` has the unit value
    by bar (empty: it is not wanted).
    """

    log: BookLog
    record: Any
    cursor: IntArray
    before: FloatArray
    is_on: IntArray
    units: FloatArray


def ask(desk: Desk, terms: Terms, quotes: MarketBar, i: int, time: int, local: int) -> float:
    """Return the leverage that policy i decides: a placeholder."""
    raise NotImplementedError


def simulate_book(  # noqa: PLR0913, PLR0917 - the arguments and the steps of a kernel
    terms: Terms,
    feed: BookFeed,
    clock: Clock,
    log_returns: FloatArray,
    desk: Desk,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    ledger: FloatArray,
    tally: Tally,
    tape: BookTape,
    start: int,
    stop: int,
) -> tuple[Tally, int, int]:
    """Take the account through bars ``start`` to ``stop``; the state and the tape change in place.

    Returns the tally, the bar reached, and why it stopped.
    """
    terms, feed, desk, state = share(terms), share(feed), share(desk), share(state)
    quotes, scratch, tape, clock = share(quotes), share(scratch), share(tape), share(clock)
    has_calm = begin_bars(terms, feed, desk, state)
    is_recorded, was_calm = tape.is_on[0] == 1, False
    has_prices = is_recorded or is_any_set(desk.wants_price)
    for t in range(start, stop):
        tape.cursor[0] = t
        equity = state.wallet[EQUITY]
        remember_marks(tape, terms, feed, t)
        may_be = has_calm and t > start  # the first bar writes the whole quotes
        is_calm = may_be and live_calm_bar(
            terms, feed, state, quotes, scratch, ledger, tape.log, t, was_calm
        )
        was_calm = is_calm
        if not is_calm:
            live_book_bar(terms, feed, state, quotes, scratch, ledger, tape.log, t)
        if is_recorded and tape.log.written[0] > len(tape.log.entries):
            return tally, t, FULL
        close = look_at_close(terms, state, quotes, scratch, has_prices)
        found = sum_calm_ledger(ledger) if is_calm else sum_ledger(ledger)
        change = found.price_pnl if is_calm else sum_book_terms(ledger)
        turnover = max(found.traded, abs(found.price_pnl))  # that of collateral may be all there is
        if not is_book_balanced(equity, state, change, turnover, close.gross):
            return tally, t, BROKEN
        held = scratch.carried if terms.fill == LATE else state.held.quantities
        tally = count_book_bar(
            clock, tally, state, tape.before, equity, quotes, found, close, log_returns,
            terms.max_gross_leverage, held, t,
        )  # fmt: skip
        if not decide_all(terms, feed, desk, state, quotes, close, scratch, t):
            return tally, t, NEGATIVE
        if len(tape.units) > 0:
            tape.units[t - tape.cursor[1]] = state.wallet[UNIT]
        if is_recorded:
            record_book(tape, terms, state, ledger, scratch, close, t - tape.cursor[1])
    return tally, stop, DONE


def begin_bars(terms: Terms, feed: BookFeed, desk: Desk, state: AccountState) -> bool:
    """Return whether bars may take the fast path; write the settings that policies decide."""
    if is_any_set(desk.sets_margin):
        write_settings(terms, state)
        return False
    return may_be_calm(terms, feed, state)


def is_any_set(flags: IntArray) -> bool:
    """Return whether any flag is 1."""
    found = False
    for i in range(len(flags)):
        found = found or flags[i] == 1
    return bool(found)


def remember_marks(tape: BookTape, terms: Terms, feed: BookFeed, t: int) -> None:
    """Keep the marks of the close before bar t for the tally, also of what is not held then."""
    brackets, last = terms.rules.brackets, max(t - 1, 0)
    for i in range(len(tape.before)):
        size, is_inverse = brackets.sizes[i], brackets.are_inverse[i]
        tape.before[i] = compute_value(size, is_inverse, feed.mark_close[last, i])


def is_book_balanced(
    before: float, state: AccountState, change: float, traded: float, gross: float
) -> bool:
    """Return whether the equity changed by ``change``, the sum of its terms, to a relative 1e-9."""
    after = state.wallet[EQUITY]
    gap = abs(after - before - change)
    return bool(gap <= IDENTITY_TOLERANCE * max(before, after, traded, gross))


# --------------------------------------------------------------------------------- decisions


def decide_all(
    terms: Terms,
    feed: BookFeed,
    desk: Desk,
    state: AccountState,
    quotes: MarketBar,
    close: BookClose,
    scratch: Scratch,
    t: int,
) -> bool:
    """Ask all policies at the close of bar t; False if an answer is not allowed."""
    n = len(state.margin)
    time, is_done = feed.time[t], state.wallet[IS_RUINED] + state.wallet[IS_OVER] != 0.0
    if desk.asks[n] == 1 or is_any_set(desk.wants_account):
        days = (time + desk.interval - desk.start) / DAY_NS
        show_account_totals(terms, desk, state, quotes, close, days)
    for i in range(n):
        decide(terms, feed, desk, state, quotes, scratch, is_done, i, t)
        if state.leverage[i] < 0.0 or state.asked[i] <= 0.0:
            return False
    if desk.asks[n] == 1 and not is_done:
        show_portfolio(desk, state, close)
        show_index(desk, t)
        overlay = ask(desk, terms, quotes, n, time, t - desk.firsts[n])
        if overlay < 0.0 or overlay == math.inf:
            return False
        if not math.isnan(overlay):
            state.wallet[OVERLAY] = min(overlay, terms.max_overlay)
    return True


def decide(
    terms: Terms,
    feed: BookFeed,
    desk: Desk,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    is_done: bool,
    i: int,
    t: int,
) -> None:
    """Write the decision of one instrument at the close of bar t."""
    state.leverage[i], state.is_pending[i] = math.nan, 0
    state.asked[i] = math.nan
    state.signal[i] = feed.signal[min(t, len(feed.signal) - 1), i]
    if desk.tradable[min(t, len(desk.tradable) - 1), i] == 0:
        return
    state.is_pending[i] = 1
    if is_done or state.is_halted[i] == 1:
        return
    if desk.wants_account[i] == 1:
        show_position(terms, desk, state, quotes, scratch, i)
    if desk.wants_bar[i] == 1:
        show_bar(desk, feed, state, i, t)
    state.leverage[i] = ask(desk, terms, quotes, i, feed.time[t], t - desk.firsts[i])
    if desk.sets_margin[i] == 1:
        state.asked[i] = desk.sheet[SETTING]


def show_account_totals(
    terms: Terms, desk: Desk, state: AccountState, quotes: MarketBar, close: BookClose, days: float
) -> None:
    """Write what all policies see of the account."""
    sheet, equity = desk.sheet, state.wallet[EQUITY]
    net = 0.0
    for i in range(len(state.margin)):
        if is_held(state, i):
            net += state.held.quantities[i] * abs(quotes.mark_close[i])
    sheet[SHOWN_EQUITY] = equity
    sheet[SHOWN_PEAK] = equity * (state.wallet[PEAK] / state.wallet[UNIT])
    sheet[SHOWN_DRAWDOWN] = 1.0 - state.wallet[UNIT] / state.wallet[PEAK]
    sheet[SHOWN_WALLET] = compute_balance(terms, state)
    sheet[SHOWN_RESERVE] = state.wallet[RESERVE]
    sheet[SHOWN_DAYS] = days
    sheet[SHOWN_GROSS] = close.gross / equity if equity > 0.0 else 0.0
    sheet[SHOWN_NET] = net / equity if equity > 0.0 else 0.0
    sheet[SHOWN_POOL_RATIO] = 0.0
    if close.needed > 0.0:
        sheet[SHOWN_POOL_RATIO] = close.needed / close.backing if close.backing > 0.0 else math.inf


def show_position(
    terms: Terms, desk: Desk, state: AccountState, quotes: MarketBar, scratch: Scratch, i: int
) -> None:
    """Write what the policy of one instrument sees of its position.

    Leverage and maintenance are divided by the overlay of the last fill.
    """
    sheet, equity = desk.sheet, state.wallet[EQUITY]
    sheet[SHOWN_LEVERAGE], sheet[SHOWN_POSITION], sheet[SHOWN_ENTRY] = 0.0, 0.0, math.nan
    sheet[SHOWN_MAINTENANCE], sheet[SHOWN_PRICE] = 0.0, math.nan
    sheet[SHOWN_RATIO] = sheet[SHOWN_POOL_RATIO]
    if is_isolated(terms, i):
        sheet[SHOWN_RATIO] = compute_pot_ratio(terms, state, quotes, i)
    sheet[SHOWN_SINCE] = state.since[i]
    sheet[SHOWN_SINCE_STOP] = state.since_stop[i]
    if not is_held(state, i):
        return
    held, brackets = state.held.quantities[i], terms.rules.brackets
    size, is_inverse = brackets.sizes[i], brackets.are_inverse[i]
    factor = state.factor[i] if state.factor[i] > 0.0 else 1.0
    if equity > 0.0:
        sheet[SHOWN_LEVERAGE] = held * abs(quotes.mark_close[i]) / equity / factor
    sheet[SHOWN_POSITION] = held
    sheet[SHOWN_ENTRY] = compute_price(size, is_inverse, state.held.entries[i])
    sheet[SHOWN_MAINTENANCE] = find_own_maintenance(terms.rules, state.held, i) / factor
    if desk.wants_price[i] == 1:
        sheet[SHOWN_PRICE] = compute_price(size, is_inverse, scratch.failure[i])


def show_portfolio(desk: Desk, state: AccountState, close: BookClose) -> None:
    """Write what the overlay sees: the totals of the account, no position."""
    sheet = desk.sheet
    sheet[SHOWN_LEVERAGE] = sheet[SHOWN_NET]
    sheet[SHOWN_POSITION], sheet[SHOWN_ENTRY] = math.nan, math.nan
    sheet[SHOWN_MAINTENANCE] = close.needed
    sheet[SHOWN_RATIO] = sheet[SHOWN_POOL_RATIO]
    sheet[SHOWN_PRICE] = math.nan
    sheet[SHOWN_SINCE] = state.wallet[SINCE_POOL]
    sheet[SHOWN_SINCE_STOP] = math.inf
    for i in range(len(state.margin)):
        sheet[SHOWN_SINCE_STOP] = min(sheet[SHOWN_SINCE_STOP], state.since_stop[i])


def show_bar(desk: Desk, feed: BookFeed, state: AccountState, i: int, t: int) -> None:
    """Write the bar that the policy of one instrument sees, without its time."""
    bar = desk.bar
    bar[0], bar[1], bar[2] = feed.open[t, i], feed.high[t, i], feed.low[t, i]
    bar[3], bar[4], bar[5] = feed.close[t, i], feed.mark_close[t, i], feed.volume[t, i]
    bar[6] = state.last_funding[i]


def show_index(desk: Desk, t: int) -> None:
    """Write the bar of the portfolio index that the overlay sees."""
    for k in range(7):
        desk.bar[k] = desk.index_bars[k, t]


# ----------------------------------------------------------------------------------- the record


def record_book(
    tape: BookTape,
    terms: Terms,
    state: AccountState,
    ledger: FloatArray,
    scratch: Scratch,
    close: BookClose,
    t: int,
) -> None:
    """Write bar t into a record of zeros."""
    account, wallet = tape.record.account, state.wallet
    account.equity[t], account.cash[t] = wallet[EQUITY], wallet[CASH]
    account.reserve[t], account.unit[t] = wallet[RESERVE], wallet[UNIT]
    account.overlay[t] = wallet[OVERLAY]
    write_total(account.price_pnl, ledger, PRICE_PNL, t)
    write_total(account.fees, ledger, FEES, t)
    write_total(account.slippage, ledger, SLIPPAGE, t)
    write_total(account.impact, ledger, IMPACT, t)
    write_total(account.funding, ledger, FUNDING, t)
    write_total(account.interest, ledger, INTEREST, t)
    write_total(account.liquidation_loss, ledger, LOSS, t)
    account.flows[t] = total(ledger, FLOWS) + total(ledger, TOP_UP)
    write_total(account.top_up, ledger, TOP_UP, t)
    write_total(account.bad_debt, ledger, BAD_DEBT, t)
    write_total(account.collateral_pnl, ledger, COLLATERAL_PNL, t)
    write_total(account.conversion, ledger, CONVERSION, t)
    write_total(account.management_fee, ledger, MANAGEMENT_FEE, t)
    write_total(account.performance_fee, ledger, PERFORMANCE_FEE, t)
    for i in range(len(state.margin)):
        record_position(tape, state, ledger, i, t)
    record_close(tape, terms, state, scratch, close, t)


def write_total(column: FloatArray, ledger: FloatArray, term: int, t: int) -> None:
    """Write the sum of a term unless it is 0: untouched pages take no memory."""
    value = total(ledger, term)
    if value != 0.0:
        column[t] = value


def record_position(
    tape: BookTape, state: AccountState, ledger: FloatArray, i: int, t: int
) -> None:
    """Write one position of a bar into the record."""
    held = tape.record.positions
    held.quantity[t, i], held.entry[t, i] = state.held.quantities[i], state.held.entries[i]
    held.margin[t, i], held.target[t, i] = state.margin[i], state.leverage[i]
    held.price_pnl[t, i], held.fees[t, i] = ledger[PRICE_PNL, i], ledger[FEES, i]
    held.slippage[t, i], held.impact[t, i] = ledger[SLIPPAGE, i], ledger[IMPACT, i]
    held.funding[t, i], held.liquidation_loss[t, i] = ledger[FUNDING, i], ledger[LOSS, i]
    held.bad_debt[t, i] = ledger[BAD_DEBT, i]


def record_close(
    tape: BookTape, terms: Terms, state: AccountState, scratch: Scratch, close: BookClose, t: int
) -> None:
    """Write what follows from the account and the market at the close of a bar."""
    closes = tape.record.closes
    closes.balance[t], closes.backing[t] = compute_balance(terms, state), compute_pool(terms, state)
    closes.requirement[t] = close.needed
    closes.collateral[t] = compute_full_value(state.held)
    closes.collateral_at_rate[t] = compute_collateral_value(terms.rules.collateral, state.held)
    closes.initial[t] = compute_book_initial(terms.rules, state.held)
    for i in range(len(state.margin)):
        if is_isolated(terms, i):
            closes.initial[t] += state.margin[i]
        closes.share[t, i], closes.failure[t, i] = state.shares[i], scratch.failure[i]
