"""The bar loop: live a bar, check the books, measure, ask the policy, record.

``decide`` is a name this module leaves open: the compiler binds it to a policy's compiled
formula, plain Python to the policy itself. Everything else is the same for both.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from backtest.account.bar import Feed, Plan, State, live_bar, place
from backtest.account.ledger import Ledger, Log
from backtest.account.steps import Rules, compute_backing, compute_requirement, compute_root
from backtest.measures.tally import Clock, Tally, count_bar
from backtest.venue.margin import MarginRules, compute_price

if TYPE_CHECKING:
    from backtest.account.steps import Quote
    from backtest.base.units import FloatArray, IntArray

DONE, FULL, BROKEN, NEGATIVE = range(4)
"""Why the loop stopped: at its end, the log is full, the books do not balance, a bad decision."""

IDENTITY_TOLERANCE = 1e-9
DAY_NS = 86_400_000_000_000.0

RECORDED = (
    "equity",
    "cash",
    "position",
    "entry",
    "margin",
    "reserve",
    "unit",
    "price_pnl",
    "fees",
    "slippage",
    "impact",
    "funding",
    "interest",
    "liquidation_loss",
    "flows",
    "top_up",
    "bad_debt",
    "target",
)
"""The columns a run records, in their order; ``entry`` in u."""


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


class AccountView(NamedTuple):
    """The account at a bar's close, as a policy sees it.

    Money in the settlement currency; ``leverage`` and ``position`` (contracts) signed;
    ``peak_equity`` and ``drawdown`` free of flows; ``entry`` and ``liquidation_price`` are prices,
    NaN without a position; ``days`` since the start; ``venue`` serves :mod:`backtest.venue.margin`.
    """

    equity: float
    peak_equity: float
    drawdown: float
    leverage: float
    position: float
    entry: float
    wallet: float
    reserve: float
    maintenance: float
    margin_ratio: float
    liquidation_price: float
    bars_since_liquidation: float
    bars_since_stop: float
    days: float
    venue: MarginRules


class Formula(NamedTuple):
    """A policy's parameters and columns; ``wants_root`` is None unless it asks for the root."""

    params: Any
    columns: Any
    wants_root: bool | None


class Tape(NamedTuple):
    """What the loop writes to.

    ``book`` of shape (columns, n_bars) begins at bar ``cursor[1]``; ``cursor[0]`` follows the bar
    being lived, so that an exception can be placed.
    """

    log: Log
    book: FloatArray
    cursor: IntArray


def decide(
    params: Any, columns: Any, memory: Any, seen: Seen, account: AccountView, funding: float, t: int
) -> Any:
    """Return the leverage decided at the close of bar t and the policy's memory; bound later."""
    raise NotImplementedError


def count_days(seen: Seen, t: int) -> float:
    """Return the days from the account's start to the close of bar t."""
    days: float = (seen.time[t] + seen.interval - seen.start) / DAY_NS
    return days


def look(
    rules: Rules, state: State, quote: Quote, days: float, wants_root: bool | None
) -> AccountView:
    """Return what the policy sees of the account at a close, ``days`` after its start."""
    books = state.books
    needed, ratio, root, leverage = 0.0, 0.0, math.nan, 0.0
    wallet = books.cash
    if state.equity > 0.0:
        leverage = books.quantity * abs(quote.mark_close) / state.equity
    if rules.is_isolated is None:
        wallet += books.quantity * books.entry
    entry = math.nan
    if books.quantity != 0.0:
        entry = compute_price(rules.margin, books.entry)
        needed = compute_requirement(rules, books, quote.mark_close, quote.multiplier)
        backing = compute_backing(rules, books, quote.mark_close)
        ratio = needed / backing if backing > 0.0 else math.inf
        if wants_root is not None:
            root = compute_price(rules.margin, compute_root(rules, books, quote.multiplier))
    margin = rules.margin
    venue = MarginRules(
        margin.floors,
        margin.caps,
        margin.rates,
        margin.amounts,
        margin.leverages,
        margin.close_fee,
        margin.taker,
        margin.size,
        margin.setting,
        margin.is_inverse,
        margin.is_isolated,
        margin.is_valued_at_entry,
        quote.multiplier,
    )
    return AccountView(
        state.equity,
        state.equity * (state.peak / state.unit),
        1.0 - state.unit / state.peak,
        leverage,
        books.quantity,
        entry,
        wallet,
        state.reserve,
        needed,
        ratio,
        root,
        state.since,
        state.since_stop,
        days,
        venue,
    )


def with_decision(state: State, leverage: float, signal: float) -> State:
    """Return the state with a decision waiting for the next open."""
    return State(
        state.books,
        state.equity,
        state.reserve,
        leverage,
        signal,
        state.ratio,
        state.is_called,
        state.unmet,
        state.since,
        state.since_stop,
        state.is_over,
        state.is_ruined,
        state.funding_next,
        state.flow_next,
        state.last_funding,
        state.unit,
        state.peak,
        state.scale,
        state.paid_in,
    )


def balance(ledger: Ledger) -> float:
    """Return the change of equity that the terms of the ledger add up to."""
    costs = ledger.fees + ledger.slippage + ledger.impact + ledger.funding + ledger.interest
    gains = ledger.price_pnl + ledger.flows + ledger.top_up + ledger.bad_debt
    return gains - costs - ledger.liquidation_loss


def is_balanced(before: State, after: State, ledger: Ledger, quote: Quote) -> bool:
    """Tell whether the change of equity is the sum of its terms, to 1e-9 of what is at stake."""
    gap = abs(after.equity - before.equity - balance(ledger))
    notional = abs(after.books.quantity * quote.mark_close)
    scale = max(before.equity, after.equity, ledger.traded, notional)
    return gap <= IDENTITY_TOLERANCE * scale


def record(book: FloatArray, state: State, ledger: Ledger, t: int) -> None:
    """Write bar t into the columns of the record, an array of shape (columns, n_bars) of zeros.

    Terms that are seldom there are only written where there are some: memory that is never
    touched is never asked for.
    """
    book[0, t] = state.equity
    book[1, t] = state.books.cash
    book[2, t] = state.books.quantity
    book[3, t] = state.books.entry
    put(book, 4, t, state.books.margin)
    put(book, 5, t, state.reserve)
    book[6, t] = state.unit
    book[7, t] = ledger.price_pnl
    put(book, 8, t, ledger.fees)
    put(book, 9, t, ledger.slippage)
    put(book, 10, t, ledger.impact)
    put(book, 11, t, ledger.funding)
    put(book, 12, t, ledger.interest)
    put(book, 13, t, ledger.liquidation_loss)
    put(book, 14, t, ledger.flows + ledger.top_up)
    put(book, 15, t, ledger.top_up)
    put(book, 16, t, ledger.bad_debt)
    book[17, t] = state.leverage


def put(book: FloatArray, column: int, t: int, value: float) -> None:
    """Write a value unless it is 0."""
    if value != 0.0:
        book[column, t] = value


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
    """Take the account through bars ``start`` to ``stop``.

    Returns state, tally and memory after the last good bar, the bar reached, and why it stopped.
    """
    log, book, cursor = tape.log, tape.book, tape.cursor
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
            counted = count_bar(rules, clock, tally, state, after, ledger, quote, t)
        leverage = math.nan
        if not (after.is_ruined or after.is_over):
            days = count_days(seen, t)
            view = look(rules, after, quote, days, formula.wants_root)
            funding = after.last_funding
            leverage, memory = decide(
                formula.params, formula.columns, memory, seen, view, funding, t
            )
            if leverage < 0.0:
                log.written[0] = written
                return state, tally, memory, t, NEGATIVE
        state = with_decision(after, leverage, feed.signal[min(t, len(feed.signal) - 1)])
        tally = counted
        if log.is_on is not None:
            record(book, state, ledger, place(t - offset))
    return state, tally, memory, stop, DONE
