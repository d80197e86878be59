"""The liquidation of the cross positions of an account, at the values being tested.

``close``: all of them close, then collateral pays what is missing, then the fees. ``takeover``:
positions, balance and collateral are lost. ``partial``: one position is reduced at a time, in an
order found anew after each step, until the requirement holds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backtest.account import Books, Position
from backtest.account.account_records import CLOSE, TAKEOVER, InstrumentRules, Quote
from backtest.account.contagion import blame
from backtest.account.ledger import BAD_DEBT as DEBT
from backtest.account.ledger import LIQUIDATED
from backtest.account.liquidation import (
    choose_reduction,
    choose_share,
    close_contracts,
    forfeit,
    is_step_whole,
    repay_all,
)
from backtest.account.order_scaling import hide_others, show_others
from backtest.account.orders import LARGEST_WORSENING, compute_square_root_impact
from backtest.account.portfolio_balance import (
    compute_balance,
    compute_excess,
    compute_pool,
    compute_proceeds,
    count_cross,
    count_open,
    has_collateral,
    has_collateral_to_sell,
    is_pool_short,
    mark_book,
    sell_collateral,
)
from backtest.account.portfolio_ledger import (
    BAD_DEBT,
    COLLATERAL_PNL,
    LIQUIDATIONS,
    LOSS,
    TRADED,
    note,
)
from backtest.account.portfolio_records import (
    BY_NAME,
    CASH,
    IS_OVER,
    LARGEST_LOSS,
    LARGEST_NOTIONAL,
    LARGEST_REQUIREMENT,
    POOL_FAILED,
    SINCE_POOL,
    AccountState,
    BookLog,
    MarketBar,
    Scratch,
    Terms,
    is_held,
    is_isolated,
    is_spot,
    pick_instrument,
    pick_position,
    pick_quote,
    put_position,
    share,
)
from backtest.account.position import worsen
from backtest.base.units import TOLERANCE
from backtest.venue.book_requirement import compute_book_requirement, compute_own_maintenance
from backtest.venue.collateral_value import compute_collateral_value

if TYPE_CHECKING:
    from backtest.base.units import FloatArray

MOST_STEPS = 100_000
"""Steps of a partial liquidation after which everything closes at once."""


def liquidate_pool(  # noqa: C901 - the modes, and what follows all of them
    terms: Terms,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    ledger: FloatArray,
    log: BookLog,
    t: int,
    is_alone: bool,
) -> None:
    """Liquidate the cross positions in the venue's mode.

    ``is_alone``: the account holds one position and no collateral, like one of a single position.
    It drops the decisions of all cross instruments, and halts the account if liquidations halt.
    """
    blame(terms, state, scratch, ledger, log, t)
    for i in range(len(state.margin)):
        scratch.start[i] = 0.0
        if is_held(state, i) and not is_isolated(terms, i):
            scratch.start[i] = state.held.quantities[i]
            mark_book(state, i, state.held.values[i], ledger)
    last = ledger.shape[1] - 1
    ledger[LIQUIDATIONS, last] += 1.0
    mark_assets(state, ledger)
    if is_alone:
        liquidate_lone(terms, state, quotes, scratch, ledger, log, t)
    elif terms.liquidation_mode == TAKEOVER:
        forfeit_pool(terms, state, ledger, log, t)
    elif terms.liquidation_mode == CLOSE:
        close_pool(terms, state, quotes, scratch, ledger, log, t)
    else:
        reduce_pool(terms, state, quotes, scratch, ledger, log, t)
    book_bad_debt(terms, state, ledger, log, t)
    state.wallet[POOL_FAILED] = 1.0
    state.wallet[SINCE_POOL] = -1.0
    if terms.is_halting:
        state.wallet[IS_OVER] = 1.0
    for i in range(len(state.margin)):
        if not is_isolated(terms, i):
            state.is_pending[i] = 0
            state.since[i] = -1.0


def mark_assets(state: AccountState, ledger: FloatArray) -> None:
    """Value the collateral at the prices being tested."""
    last = ledger.shape[1] - 1
    for c in range(len(state.held.amounts)):
        if state.held.amounts[c] != 0.0:
            change = state.held.prices[c] - state.priced[c]
            ledger[COLLATERAL_PNL, last] += state.held.amounts[c] * change
            state.priced[c] = state.held.prices[c]


def liquidate_lone(
    terms: Terms,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    ledger: FloatArray,
    log: BookLog,
    t: int,
) -> None:
    """Liquidate the only position of the account as a single one, by the account's requirement."""
    for i in range(len(state.margin)):
        if is_held(state, i):
            rules, quote = share(pick_instrument(terms, i)), pick_quote(quotes, i)
            held, value = state.held.quantities[i], state.held.values[i]
            books = Books(state.wallet[CASH], (pick_position(state, i),))
            loss = 0.0
            if terms.liquidation_mode == TAKEOVER:
                ledger[TRADED, i] += abs(held) * abs(value)
                books, loss = forfeit(rules, books, value)
            while books.positions[0].quantity != 0.0:
                if rules.full_below_health > 0.0 and terms.rules.level != 1.0:
                    closed = find_step(terms, state, scratch, i)
                else:
                    x = quotes.multiplier[i]
                    closed = choose_reduction(rules, books, value, abs(held), x)
                books, cost, notional = close_contracts(rules, books, value, closed, quote)
                loss += cost
                ledger[TRADED, i] += notional
                put_position(state, i, books.positions[0])
                state.wallet[CASH] = books.cash
                if is_held(state, i) and not is_pool_short(terms, state):
                    break
            state.wallet[CASH] = books.cash
            put_position(state, i, books.positions[0])
            ledger[LOSS, i] += loss
            note_liquidation(log, t, i, value, state.held.quantities[i] - held, loss)


def note_liquidation(
    log: BookLog, t: int, i: int, value: float, quantity: float, loss: float
) -> None:
    """Log what a liquidation closed of one position."""
    note(log, t, i, LIQUIDATED, value, quantity, abs(quantity) * abs(value), loss)


def book_bad_debt(
    terms: Terms, state: AccountState, ledger: FloatArray, log: BookLog, t: int
) -> None:
    """Book a negative cash as bad debt if neither cross positions nor collateral are left."""
    if count_cross(terms, state) > 0 or has_collateral_to_sell(state):
        return
    if state.wallet[CASH] < 0.0:
        debt = -state.wallet[CASH]
        state.wallet[CASH] = 0.0
        ledger[BAD_DEBT, ledger.shape[1] - 1] += debt
        note(log, t, -1, DEBT, 1.0, 0.0, debt)


# --------------------------------------------------------------------------------- the modes


def forfeit_pool(
    terms: Terms, state: AccountState, ledger: FloatArray, log: BookLog, t: int
) -> None:
    """Give up the cross positions, the balance and all collateral.

    The loss is shared by notional, as the positions' own profits are in the price profit already.
    """
    lost, gross = state.wallet[CASH], 0.0
    for c in range(len(state.held.amounts)):
        amount, price = state.held.amounts[c], state.held.prices[c]
        lost += amount * price
        if amount != 0.0:
            note(log, t, len(state.margin) + c, LIQUIDATED, price, -amount, abs(amount) * price)
        state.held.amounts[c] = 0.0
    for i in range(len(state.margin)):
        if is_held(state, i) and not is_isolated(terms, i):
            lost += state.held.quantities[i] * state.held.values[i]
            gross += abs(state.held.quantities[i] * state.held.values[i])
    state.wallet[CASH] = min(lost, 0.0)
    loss = max(lost, 0.0)
    for i in range(len(state.margin)):
        if is_held(state, i) and not is_isolated(terms, i):
            value = state.held.values[i]
            notional = abs(state.held.quantities[i] * value)
            share = loss * (notional / gross) if gross > 0.0 else 0.0
            ledger[LOSS, i] += share
            ledger[TRADED, i] += notional
            note_liquidation(log, t, i, value, -state.held.quantities[i], share)
            put_position(state, i, Position(0.0, 0.0, 0.0, value))


def close_part(
    rules: InstrumentRules, state: AccountState, quote: Quote, i: int, closed: float
) -> tuple[float, float]:
    """Close some contracts at the worsened value; return what the worsening cost, the notional."""
    value = state.held.values[i]
    worsening = rules.liquidation_slippage
    if rules.has_liquidation_impact is not None:
        size = abs(closed) * abs(value)
        impact = compute_square_root_impact(rules.liquidation_impact, quote, size)
        worsening = min(worsening + impact, LARGEST_WORSENING)
    side = -1.0 if closed > 0.0 else 1.0
    filled = worsen(rules, value, side, worsening)
    state.wallet[CASH] += closed * filled
    quantity = state.held.quantities[i] - closed
    entry = state.held.entries[i] if quantity != 0.0 else 0.0
    put_position(state, i, Position(quantity, entry, 0.0, value))
    return closed * (value - filled), abs(closed) * abs(filled)


def close_pool(
    terms: Terms,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    ledger: FloatArray,
    log: BookLog,
    t: int,
) -> None:
    """Close all cross positions, sell collateral for what is missing, then take the fees."""
    asked, gross = 0.0, 0.0
    for i in range(len(state.margin)):
        scratch.cost[i], scratch.taken[i] = 0.0, 0.0
        if is_held(state, i) and not is_isolated(terms, i):
            rules, quote = share(pick_instrument(terms, i)), pick_quote(quotes, i)
            scratch.reach[i] = state.held.quantities[i]
            scratch.cost[i], scratch.taken[i] = close_part(rules, state, quote, i, scratch.reach[i])
            scratch.fee[i] = rules.liquidation_fee * scratch.taken[i]
            asked += scratch.fee[i]
            gross += scratch.taken[i]
            ledger[TRADED, i] += scratch.taken[i]
    sell_collateral(terms, state, -compute_balance(terms, state), ledger, log, t)
    left = max(compute_balance(terms, state), 0.0) + compute_proceeds(terms, state)
    is_all = asked * (1.0 + TOLERANCE) < left
    for i in range(len(state.margin)):
        if scratch.taken[i] > 0.0:
            fee = scratch.fee[i] if is_all else left * (scratch.taken[i] / gross)
            state.wallet[CASH] -= fee
            loss = scratch.cost[i] + fee
            ledger[LOSS, i] += loss
            note_liquidation(log, t, i, state.marked[i], -scratch.reach[i], loss)
    sell_collateral(terms, state, -compute_balance(terms, state), ledger, log, t)
    if not is_all and left > 0.0:
        state.wallet[CASH] = 0.0  # the shares of the fee add up to all that was left


def reduce_pool(
    terms: Terms,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    ledger: FloatArray,
    log: BookLog,
    t: int,
) -> None:
    """Reduce one position at a time until the requirement holds; if nothing helps, close all."""
    for _ in range(MOST_STEPS):
        if compute_pool(terms, state) <= 0.0:
            close_pool(terms, state, quotes, scratch, ledger, log, t)
            return
        i = choose_step(terms, state, quotes, scratch)
        if i < 0:
            close_pool(terms, state, quotes, scratch, ledger, log, t)
            return
        take_step(terms, state, quotes, scratch, ledger, log, t, i)
        if not is_pool_short(terms, state):
            return
    close_pool(terms, state, quotes, scratch, ledger, log, t)


def find_step(terms: Terms, state: AccountState, scratch: Scratch, i: int) -> float:
    """Return the signed contracts that a step closes of one position."""
    position, rules = pick_position(state, i), share(pick_instrument(terms, i))
    held, value = position.quantity, state.held.values[i]
    pool = compute_pool(terms, state)
    books = Books(pool - held * value, (position,))
    if is_step_whole(rules, books, value, abs(scratch.start[i])):
        return held
    if rules.full_below_health > 0.0:
        assets, debts, debt = weigh_pool(terms, state, pool)
        is_unhealthy = assets <= rules.full_below_health * debts * (1.0 + TOLERANCE)
        if is_unhealthy and (held < 0.0 or debt > 0.0):
            return repay_all(rules, held, value, debt)
    return choose_share(rules, held, value)


def weigh_pool(terms: Terms, state: AccountState, pool: float) -> tuple[float, float, float]:
    """Return assets and debts of the pool, whose quotient is its health factor, and the cash owed.

    Longs are assets of their notional less their requirement, shorts are debts of their notional
    plus theirs. The cash is what is left of M, without the collateral, after selling the longs and
    buying the shorts back: an asset, or a debt.
    """
    counted = compute_collateral_value(terms.rules.collateral, state.held)
    cash, assets, debts = pool - counted, counted, 0.0
    for i in range(len(state.margin)):
        if is_held(state, i) and not is_isolated(terms, i):
            notional = abs(state.held.quantities[i] * state.held.values[i])
            needed = terms.rules.level * compute_own_maintenance(terms.rules, state.held, i)
            if state.held.quantities[i] > 0.0:
                cash -= notional
                assets += notional - needed
            else:
                cash += notional
                debts += notional + needed
    debt = max(-cash, 0.0)
    return assets + max(cash, 0.0), debts + debt, debt


def try_step(
    terms: Terms, state: AccountState, quotes: MarketBar, scratch: Scratch, i: int
) -> tuple[float, float]:
    """Return what a step gains in D after worsening and fee, and its notional."""
    position, cash = pick_position(state, i), state.wallet[CASH]
    before = compute_excess(terms, state)
    closed = find_step(terms, state, scratch, i)
    rules = share(pick_instrument(terms, i))
    _, notional = close_part(rules, state, pick_quote(quotes, i), i, closed)
    fee = cap_fee(rules.liquidation_fee * notional, compute_pool(terms, state))
    gain = compute_excess(terms, state) - fee - before
    put_position(state, i, position)
    state.wallet[CASH] = cash
    return gain, notional


def cap_fee(asked: float, left: float) -> float:
    """Return the fee of a step: at most what backs the positions after it."""
    most = max(left, 0.0)
    return most if asked * (1.0 + TOLERANCE) >= most else asked


def take_step(
    terms: Terms,
    state: AccountState,
    quotes: MarketBar,
    scratch: Scratch,
    ledger: FloatArray,
    log: BookLog,
    t: int,
    i: int,
) -> None:
    """Take one step of a partial liquidation."""
    closed = find_step(terms, state, scratch, i)
    rules = share(pick_instrument(terms, i))
    cost, notional = close_part(rules, state, pick_quote(quotes, i), i, closed)
    fee = cap_fee(rules.liquidation_fee * notional, compute_pool(terms, state))
    state.wallet[CASH] -= fee
    ledger[LOSS, i] += cost + fee
    ledger[TRADED, i] += notional
    note_liquidation(log, t, i, state.held.values[i], -closed, cost + fee)


def choose_step(terms: Terms, state: AccountState, quotes: MarketBar, scratch: Scratch) -> int:
    """Return the position that the next step reduces; -1 if no step raises M - level R."""
    needed = terms.rules.level * compute_book_requirement(terms.rules, state.held)
    chosen, best = -1, -math.inf
    for i in range(len(state.margin)):
        if is_held(state, i) and not is_isolated(terms, i):
            gain, notional = try_step(terms, state, quotes, scratch, i)
            if gain > TOLERANCE * needed:
                score = rank(terms, state, scratch, i, gain, notional)
                if score > best:
                    chosen, best = i, score
    return chosen


def rank(
    terms: Terms, state: AccountState, scratch: Scratch, i: int, gain: float, notional: float
) -> float:
    """Return the place of a position in the order: the highest is reduced first."""
    held = state.held
    if terms.order == LARGEST_LOSS:
        return float(-held.quantities[i] * (held.values[i] - held.entries[i]))
    if terms.order == LARGEST_REQUIREMENT:
        return compute_lone_requirement(terms, state, scratch, i)
    if terms.order == LARGEST_NOTIONAL:
        return float(abs(held.quantities[i] * held.values[i]))
    if terms.order == BY_NAME:
        return float(-1.0 * terms.ranks[i])
    return gain / notional


def compute_lone_requirement(terms: Terms, state: AccountState, scratch: Scratch, i: int) -> float:
    """Return the requirement of one position as if it were alone, without collateral."""
    hide_others(state, scratch, i, state.held.quantities[i])
    found = compute_book_requirement(terms.rules, state.held)
    show_others(state, scratch)
    return found


def is_lone(terms: Terms, state: AccountState) -> bool:
    """Return whether one margined position is all that is held: no collateral, no spot leg."""
    if not terms.rules.spot.has_any:
        return count_open(state) == 1 and not has_collateral(state)
    count = 0
    for i in range(len(state.margin)):
        if is_held(state, i):
            count += 2 if is_spot(terms, i) else 1
    return count == 1 and not has_collateral(state)
