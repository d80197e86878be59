"""Options in a liquidation of the cross positions, at the marks being tested."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backtest.account.account_records import PARTIAL
from backtest.account.ledger import LIQUIDATED
from backtest.account.option_marks import name_option, release
from backtest.account.option_orders import compute_option_fee, price_by_volatility, trade_option
from backtest.account.portfolio_balance import (
    compute_balance,
    compute_excess,
    compute_pool,
    compute_with_options,
)
from backtest.account.portfolio_ledger import LOSS, note
from backtest.account.portfolio_records import (
    BY_NAME,
    CASH,
    LARGEST_LOSS,
    LARGEST_NOTIONAL,
    LARGEST_REQUIREMENT,
    NUMBERS,
    OPTIONS_LAST,
    AccountBar,
    AccountState,
    EventLog,
    Scratch,
    Terms,
    is_held,
    is_isolated,
)
from backtest.base.units import TOLERANCE
from backtest.venue import compute_counted_rate, compute_option_delta

if TYPE_CHECKING:
    from backtest.base import FloatArray

SLIPPAGE, STEP, FULL_BELOW = (
    NUMBERS.index(name) for name in ("liquidation_slippage", "step", "full_below")
)


def begin_forced(state: AccountState) -> None:
    own = state.options
    for k in range(len(own.targets)):
        own.started[k] = own.positions.quantities[k]


def price_forced(terms: Terms, state: AccountState, k: int, side: float) -> float:
    own, worsening = state.options, 0.0
    if side > 0.0:
        worsening = terms.numbers[SLIPPAGE, terms.options.instruments[k]]
    elif own.has_quotes[k] == 1 and math.isnan(own.bids[k]):
        return 0.0
    if not math.isnan(own.half_spreads[k]):
        worsening += own.half_spreads[k]
    return price_by_volatility(terms, state, k, side, worsening)


def force_option(
    terms: Terms, state: AccountState, ledger: FloatArray, k: int, traded: float
) -> tuple[float, float]:
    price = price_forced(terms, state, k, 1.0 if traded > 0.0 else -1.0)
    held, mark = state.options.positions.quantities[k], state.options.positions.marks[k]
    trade_option(state, ledger, k, held + traded, price)
    return traded * (price - mark), abs(traded) * compute_option_fee(terms, state, k, price)


def book_forced(
    state: AccountState,
    ledger: FloatArray,
    log: EventLog,
    t: int,
    k: int,
    traded: float,
    loss: float,
) -> None:
    mark = state.options.positions.marks[k]
    state.options.losses[k] += loss
    ledger[LOSS, ledger.shape[1] - 1] += loss
    note(log, t, name_option(state, k), LIQUIDATED, mark, traded, abs(traded) * mark, loss)


# ------------------------------------------------------------------------------------ all at once


def close_options_of_pool(
    terms: Terms, state: AccountState, ledger: FloatArray
) -> tuple[float, float]:
    own, asked, gross = state.options, 0.0, 0.0
    for k in range(len(own.targets)):
        own.added[k], own.prices[k], own.kept[k] = 0.0, 0.0, 0.0
    for side in (1.0, -1.0):
        for k in range(len(own.targets)):
            traded = size_close(terms, state, k, side)
            if traded != 0.0:
                before = own.traded[k]
                own.added[k] = traded
                own.prices[k], own.kept[k] = force_option(terms, state, ledger, k, traded)
                asked += own.kept[k]
                gross += own.traded[k] - before if own.kept[k] > 0.0 else 0.0
    return asked, gross


def size_close(terms: Terms, state: AccountState, k: int, side: float) -> float:
    held = state.options.positions.quantities[k]
    if side > 0.0:
        return -held if held < 0.0 else 0.0
    missing = -compute_balance(terms, state)
    if not (held > 0.0 and missing > 0.0):
        return 0.0
    price = price_forced(terms, state, k, side)
    return float(-missing / price if price * held > missing else -held)


def end_close(
    state: AccountState, ledger: FloatArray, log: EventLog, t: int, asked: float, paid: float
) -> None:
    own = state.options
    share = 1.0 if asked == paid else paid / asked
    for k in range(len(own.targets)):
        if own.added[k] != 0.0:
            fee = own.kept[k] * share
            state.wallet[CASH] -= fee
            book_forced(state, ledger, log, t, k, own.added[k], own.prices[k] + fee)
            own.added[k] = 0.0


def forfeit_options(state: AccountState) -> tuple[float, float]:
    lost, gross = 0.0, 0.0
    for k in range(len(state.options.targets)):
        value = state.options.positions.quantities[k] * state.options.positions.marks[k]
        if value != 0.0:
            lost += value
            gross += abs(value)
    return lost, gross


def end_forfeit(
    state: AccountState, ledger: FloatArray, log: EventLog, t: int, rate: float
) -> None:
    own = state.options
    for k in range(len(own.targets)):
        held, mark = own.positions.quantities[k], own.positions.marks[k]
        if held != 0.0:
            own.traded[k] += abs(held * mark)
            book_forced(state, ledger, log, t, k, -held, rate * abs(held * mark))
            release(state, k)


# ----------------------------------------------------------------------------------- step by step


def compute_option_notional(state: AccountState, k: int) -> float:
    positions = state.options.positions
    unit = 1.0 if positions.are_coin[k] else positions.indices[k]
    return float(abs(positions.quantities[k]) * positions.sizes[k] * unit)


def size_option_step(terms: Terms, state: AccountState, k: int) -> float:
    i, held = terms.options.instruments[k], state.options.positions.quantities[k]
    notional, share = compute_option_notional(state, k), terms.numbers[STEP, i]
    is_whole = (
        terms.modes[i] != PARTIAL
        or not share > 0.0
        or notional <= terms.numbers[FULL_BELOW, i] * (1.0 + TOLERANCE)
        or abs(held) <= 1e-9 * abs(state.options.started[k])
        or compute_pool(terms, state) <= TOLERANCE * notional
    )
    return float(-held if is_whole else -held * share)


def may_step(terms: Terms, state: AccountState, k: int) -> bool:
    positions = state.options.positions
    held = positions.quantities[k]
    if held <= 0.0 or compute_counted_rate(terms.options.rules, positions, k) < 1.0:
        return bool(held != 0.0)
    for i in range(len(state.margin)):
        if is_held(state, i) and not is_isolated(terms, i):
            return False
    count = 0
    for j in range(len(state.options.targets)):
        count += 1 if positions.quantities[j] < 0.0 else 0
    return count == 0


def cap_fee(asked: float, left: float) -> float:
    most = max(left, 0.0)
    return most if asked * (1.0 + TOLERANCE) >= most else asked


def try_option_step(terms: Terms, state: AccountState, k: int) -> tuple[float, float]:
    own = state.options
    held, cash = own.positions.quantities[k], state.wallet[CASH]
    before, traded = compute_excess(terms, state), size_option_step(terms, state, k)
    price = price_forced(terms, state, k, 1.0 if traded > 0.0 else -1.0)
    notional = compute_option_notional(state, k) * abs(traded / held)
    state.wallet[CASH] -= traded * price
    own.positions.quantities[k] = held + traded
    asked = abs(traded) * compute_option_fee(terms, state, k, price)
    fee = cap_fee(asked, compute_pool(terms, state))
    gain = compute_excess(terms, state) - fee - before
    own.positions.quantities[k], state.wallet[CASH] = held, cash
    return gain, notional


def take_option_step(bar: AccountBar, t: int, k: int) -> None:
    terms, state, ledger = bar.terms, bar.state, bar.ledger
    traded = size_option_step(terms, state, k)
    cost, asked = force_option(terms, state, ledger, k, traded)
    fee = cap_fee(asked, compute_pool(terms, state))
    state.wallet[CASH] -= fee
    book_forced(state, ledger, bar.log, t, k, traded, cost + fee)


def choose_option_step(
    terms: Terms, state: AccountState, scratch: Scratch, least: float, best: float
) -> int:
    chosen = -1
    for k in range(len(state.options.targets)):
        if may_step(terms, state, k):
            gain, notional = try_option_step(terms, state, k)
            if gain > least:
                score = rank_option(terms, state, scratch, k, gain, notional)
                if score > best:
                    chosen, best = k, score
    return chosen


def rank_option(
    terms: Terms, state: AccountState, scratch: Scratch, k: int, gain: float, notional: float
) -> float:
    positions = state.options.positions
    held = positions.quantities[k]
    if terms.order == LARGEST_LOSS:
        return float(-held * (positions.marks[k] - state.options.paid[k]))
    if terms.order == LARGEST_REQUIREMENT:
        return compute_requirement_of_option(terms, state, scratch, k)
    if terms.order == LARGEST_NOTIONAL:
        return compute_option_notional(state, k)
    if terms.order == BY_NAME:
        return -1.0 * (len(state.margin) + k)
    if terms.order == OPTIONS_LAST:
        return float(abs(held * compute_option_delta(positions, k)) * positions.indices[k])
    return gain / notional


def compute_requirement_of_option(
    terms: Terms, state: AccountState, scratch: Scratch, k: int
) -> float:
    own = state.options
    for i in range(len(state.margin)):
        scratch.hidden[i], state.held.quantities[i] = state.held.quantities[i], 0.0
    for j in range(len(own.targets)):
        own.before[j] = own.positions.quantities[j]
        own.positions.quantities[j] = own.before[j] if j == k else 0.0
    found = compute_with_options(terms, state, False)
    for i in range(len(state.margin)):
        state.held.quantities[i] = scratch.hidden[i]
    for j in range(len(own.targets)):
        own.positions.quantities[j] = own.before[j]
    return found
