"""What the cross positions have, need and fail by; the balances of one position."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.account import records as r
from backtest.account.account_records import Balances
from backtest.account.ledger import log_trade
from backtest.account.options import count_options, has_short_option, holds_options, is_walking
from backtest.account.position import mark_position
from backtest.account.records import (
    AccountBar,
    AccountState,
    Terms,
    as_log,
    enter_trade,
    is_held,
    is_isolated,
    is_spot,
    note,
    pick_position,
    put_position,
    stamp,
)
from backtest.base.units import TOLERANCE
from backtest.venue import (
    compute_counted_value,
    compute_full_backing,
    compute_full_value,
    compute_option_requirement,
    compute_options_value,
    compute_portfolio_backing,
    compute_portfolio_initial,
    compute_portfolio_requirement,
)
from backtest.venue import is_pool_failing as is_short

if TYPE_CHECKING:
    from backtest.account.account_records import Trade
    from backtest.base import FloatArray


LEAST = 1e-300
"""More than nothing."""


def value_at(state: AccountState, values: FloatArray, prices: FloatArray) -> None:
    for i in range(len(values)):
        state.held.values[i] = values[i]
    for c in range(len(prices)):
        state.held.prices[c] = prices[c]


def count_cross(terms: Terms, state: AccountState) -> int:
    found = count_options(state)
    for i in range(len(state.margin)):
        if is_held(state, i) and not is_isolated(terms, i):
            found += 1
    return found


def count_open(state: AccountState) -> int:
    found = count_options(state)
    for i in range(len(state.margin)):
        if is_held(state, i):
            found += 1
    return found


def has_only_position(terms: Terms, state: AccountState) -> bool:
    count = 0
    for i in range(len(state.margin)):
        if is_held(state, i):
            count += 2 if is_spot(terms, i) else 1
    return count == 1 and not has_collateral(state) and not is_walking(terms, state)


def has_one_position(terms: Terms, state: AccountState) -> bool:
    """Whether one margined position and money are all that the account can hold."""
    if len(state.margin) != 1 or len(state.held.amounts) != 0 or is_spot(terms, 0):
        return False
    if terms.rules.has_scenarios or terms.rules.level != 1.0:
        return False
    return len(state.options.targets) == 0


def has_collateral(state: AccountState) -> bool:
    found = False
    for c in range(len(state.held.amounts)):
        found = found or state.held.amounts[c] != 0.0
    return bool(found)


def has_collateral_to_sell(state: AccountState) -> bool:
    found = False
    for c in range(len(state.held.amounts)):
        found = found or state.held.amounts[c] > 0.0
    return bool(found)


def compute_balance(terms: Terms, state: AccountState) -> float:
    balance = state.wallet[r.CASH]
    for i in range(len(state.margin)):
        if is_held(state, i) and not is_isolated(terms, i) and not is_spot(terms, i):
            balance += state.held.quantities[i] * state.held.entries[i]
    return float(balance)


def compute_isolated(terms: Terms, state: AccountState) -> float:
    backing = 0.0
    for i in range(len(state.margin)):
        if is_isolated(terms, i):
            backing += state.margin[i]
            if is_held(state, i):
                profit = state.held.values[i] - state.held.entries[i]
                backing += state.held.quantities[i] * profit
    return backing


def compute_pool(terms: Terms, state: AccountState) -> float:
    backing = compute_portfolio_backing(terms.rules, state.held, state.wallet[r.CASH])
    return backing + compute_counted(terms, state) if holds_options(state) else backing


def compute_counted(terms: Terms, state: AccountState) -> float:
    return compute_counted_value(terms.options.rules, state.options.positions)


def compute_whole_pool(terms: Terms, state: AccountState) -> float:
    backing = compute_full_backing(terms.rules, state.held, state.wallet[r.CASH])
    return backing + compute_counted(terms, state) if holds_options(state) else backing


def compute_needed(terms: Terms, state: AccountState) -> float:
    if holds_options(state):
        return compute_with_options(terms, state, False)
    return compute_portfolio_requirement(terms.rules, state.held)


def compute_initial_needed(terms: Terms, state: AccountState) -> float:
    if holds_options(state):
        return compute_with_options(terms, state, True)
    return compute_portfolio_initial(terms.rules, state.held)


def compute_with_options(terms: Terms, state: AccountState, is_initial: bool) -> float:
    positions = state.options.positions
    return compute_option_requirement(
        terms.rules, state.held, positions, terms.options.rules, is_initial
    )


def compute_account_equity(terms: Terms, state: AccountState) -> float:
    equity = state.wallet[r.CASH]
    for i in range(len(state.margin)):
        if is_held(state, i) and not is_isolated(terms, i):
            equity += state.held.quantities[i] * state.held.values[i]
    equity += compute_full_value(state.held)
    if holds_options(state):
        equity += compute_options_value(state.options.positions)
    return float(equity + compute_isolated(terms, state))


def compute_excess(terms: Terms, state: AccountState) -> float:
    """Return D = M - level R at the values being tested."""
    needed = terms.rules.level * compute_needed(terms, state)
    return compute_pool(terms, state) - needed


def is_pool_short(terms: Terms, state: AccountState) -> bool:
    if count_cross(terms, state) == 0:
        return False
    if not holds_options(state):
        return is_short(terms.rules, state.held, state.wallet[r.CASH])
    return compute_caution(terms, state) <= 0.0


def compute_caution(terms: Terms, state: AccountState) -> float:
    """Return D = M - level R less rounding: the pool of an account with options fails at 0."""
    pool = compute_pool(terms, state)
    needed = terms.rules.level * compute_needed(terms, state)
    if count_cross(terms, state) == count_options(state) and not has_short_option(state):
        left = pool - needed * (1.0 - TOLERANCE)
        left += TOLERANCE * compute_options_value(state.options.positions)
        return left if left < 0.0 else left + LEAST
    return pool - needed * (1.0 + TOLERANCE)


# ---------------------------------------------------------------- the balances of one position


def pick_balances(terms: Terms, state: AccountState, i: int) -> Balances:
    if is_isolated(terms, i):
        return Balances(max(compute_balance(terms, state), 0.0), (pick_position(state, i),))
    return Balances(state.wallet[r.CASH], (pick_position(state, i),))


def put_balances(
    terms: Terms, state: AccountState, i: int, before: Balances, after: Balances
) -> None:
    if is_isolated(terms, i):
        state.wallet[r.CASH] += after.cash - before.cash
    else:
        state.wallet[r.CASH] = after.cash
    put_position(state, i, after.positions[0])


def enter_step(bar: AccountBar, i: int, row: int, before: Balances, after: Balances) -> None:
    stamp(bar.log, row, i)
    put_balances(bar.terms, bar.state, i, before, after)


def enter_fill(
    bar: AccountBar, t: int, i: int, kind: int, before: Balances, done: Trade, stops: int
) -> None:
    row = bar.log.written[0]
    log_trade(as_log(bar.log), t, kind, done)
    enter_trade(bar.ledger, i, done)
    bar.ledger[r.STOPS, i] += stops
    enter_step(bar, i, row, before, done.balances)


def is_under_limit(terms: Terms, state: AccountState, equity: float) -> bool:
    limit = terms.negative_limit * (1.0 - TOLERANCE) + TOLERANCE * max(equity, 0.0)
    return has_collateral(state) and compute_balance(terms, state) < -limit


def mark_to_ledger(state: AccountState, i: int, value: float, ledger: FloatArray) -> None:
    marked, pnl = mark_position(pick_position(state, i), value)
    put_position(state, i, marked)
    ledger[r.PRICE_PNL, i] += pnl


# ------------------------------------------------------------------------------ the collateral


def mark_collateral(state: AccountState, prices: FloatArray, ledger: FloatArray) -> None:
    last = ledger.shape[1] - 1
    for c in range(len(prices)):
        if state.held.amounts[c] != 0.0:
            pnl = state.held.amounts[c] * (prices[c] - state.priced[c])
            ledger[r.COLLATERAL_PNL, last] += pnl
        state.priced[c] = prices[c]


def compute_proceeds(terms: Terms, state: AccountState) -> float:
    found = 0.0
    for c in range(len(state.held.amounts)):
        if state.held.amounts[c] > 0.0:
            kept = 1.0 - terms.rules.collateral.slippages[c]
            found += state.held.amounts[c] * state.held.prices[c] * kept
    return found


def sell_collateral(bar: AccountBar, t: int, missing: float) -> None:
    terms, state, ledger = bar.terms, bar.state, bar.ledger
    share = 1.0
    if terms.conversion_is_pro_rata:
        most = compute_proceeds(terms, state)
        share = min(missing / most, 1.0) if most > 0.0 else 0.0
    for c in range(len(state.held.amounts)):
        amount, price = state.held.amounts[c], state.held.prices[c]
        if not (missing > 0.0 and amount > 0.0):
            continue
        kept = price * (1.0 - terms.rules.collateral.slippages[c])
        most = amount * kept
        sold = amount * share
        if not terms.conversion_is_pro_rata:
            sold = amount
            if most > missing * (1.0 + TOLERANCE):
                sold = missing / kept
            missing -= sold * kept
        last = ledger.shape[1] - 1
        ledger[r.COLLATERAL_PNL, last] += sold * (price - state.priced[c])
        ledger[r.CONVERSION, last] += sold * (price - kept)
        state.held.amounts[c] = amount - sold
        state.wallet[r.CASH] += sold * kept
        note(
            bar.log,
            t,
            len(state.margin) + c,
            r.CONVERTED,
            kept,
            -sold,
            sold * kept,
            sold * (price - kept),
        )
