"""The liquidation of the cross positions, whole or in steps, and what caused it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backtest.account import records as r
from backtest.account.account_records import (
    CLOSE,
    TAKEOVER,
    Balances,
    InstrumentRules,
    Position,
    Quote,
)
from backtest.account.balance import (
    compute_balance,
    compute_excess,
    compute_needed,
    compute_pool,
    compute_proceeds,
    count_cross,
    has_collateral_to_sell,
    is_pool_short,
    mark_to_ledger,
    sell_collateral,
)
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
from backtest.account.option_liquidation import (
    begin_forced,
    cap_fee,
    choose_option_step,
    close_options_of_pool,
    compute_option_notional,
    end_close,
    end_forfeit,
    forfeit_options,
    take_option_step,
)
from backtest.account.options import book_profits, holds_options, price_options
from backtest.account.order_limits import hide_others, show_others
from backtest.account.orders import LARGEST_WORSENING, compute_square_root_impact
from backtest.account.payments import drop_after_pool_failure
from backtest.account.position import worsen
from backtest.account.records import (
    AccountBar,
    AccountState,
    EventLog,
    Scratch,
    Terms,
    is_held,
    is_isolated,
    note,
    pick_instrument,
    pick_position,
    pick_quote,
    put_position,
    share,
    total,
)
from backtest.base.units import TOLERANCE
from backtest.venue import (
    compute_collateral_value,
    compute_counted_rate,
    compute_own_maintenance,
    compute_portfolio_requirement,
    fill_shares,
)

if TYPE_CHECKING:
    from backtest.base import FloatArray


CAUSED = 20
"""Kind of the entries in the log that give a cause of a liquidation and where it stands."""
OF_COLLATERAL, OF_FLOWS, OF_RULES = range(3)


def log_causes(bar: AccountBar, t: int) -> None:
    """Log where each cause stands before a liquidation of the pool.

    Of an instrument and the collateral, level times the Euler share less what it gained in this
    bar; of flows what they took; and last D.
    """
    terms, state, scratch, ledger, log = bar.terms, bar.state, bar.scratch, bar.ledger, bar.log
    n, last = len(state.margin), ledger.shape[1] - 1
    if len(log.entries) == 0 or has_one_cause(state):
        return
    needed, level = measure_shares(terms, state, scratch), terms.rules.level
    for i in range(n):
        stand, profit, held = 0.0, 0.0, state.held.quantities[i]
        if not is_isolated(terms, i):
            gain = (
                ledger[r.PRICE_PNL, i]
                - ledger[r.FUNDING, i]
                - ledger[r.FEES, i]
                - ledger[r.LOSS, i]
            )
            gain -= ledger[r.SLIPPAGE, i] + ledger[r.IMPACT, i]
            if is_held(state, i):
                gain += held * (state.held.values[i] - state.marked[i])
                profit = held * (state.held.values[i] - state.held.entries[i])
            gain += sum_option_gains(terms, state, i)
            stand = level * scratch.shares[i] - gain
        note(log, t, i, CAUSED, stand, held, profit)
    assets = ledger[r.CONVERSION, last] - ledger[r.COLLATERAL_PNL, last]
    for c in range(len(state.held.amounts)):
        assets -= state.held.amounts[c] * (state.held.prices[c] - state.priced[c])
        assets += level * scratch.shares[n + c]
    note(log, t, n + OF_COLLATERAL, CAUSED, assets, 0.0, 0.0)
    flows = total(ledger, r.INTEREST) - total(ledger, r.FLOWS) - total(ledger, r.TOP_UP)
    note(log, t, n + OF_FLOWS, CAUSED, flows, 0.0, 0.0)
    left = compute_pool(terms, state) - level * needed
    note(log, t, n + OF_RULES, CAUSED, left, 0.0, 0.0)


def has_one_cause(state: AccountState) -> bool:
    return len(state.margin) == 1 and len(state.priced) + len(state.options.targets) == 0


def measure_shares(terms: Terms, state: AccountState, scratch: Scratch) -> float:
    """Write the Euler shares of the requirement R into ``scratch.shares``. Returns R."""
    fill_shares(terms.rules, state.held, scratch.shares)
    needed = compute_needed(terms, state)
    if holds_options(state):
        add_option_shares(terms, state, scratch, needed)
    return needed


def add_option_shares(terms: Terms, state: AccountState, scratch: Scratch, needed: float) -> None:
    gross, positions = 0.0, state.options.positions
    for k in range(len(state.options.targets)):
        gross += compute_option_notional(state, k) if positions.quantities[k] != 0.0 else 0.0
    rest = needed - compute_portfolio_requirement(terms.rules, state.held)
    for k in range(len(state.options.targets)):
        if positions.quantities[k] != 0.0 and gross > 0.0:
            part = rest * (compute_option_notional(state, k) / gross)
            withheld = 1.0 - compute_counted_rate(terms.options.rules, positions, k)
            part += withheld * positions.quantities[k] * positions.marks[k] / terms.rules.level
            scratch.shares[terms.options.instruments[k]] += part


def sum_option_gains(terms: Terms, state: AccountState, i: int) -> float:
    own, gain = state.options, 0.0
    for k in range(len(own.targets)):
        if terms.options.instruments[k] == i:
            held, costs = own.positions.quantities[k], own.fees[k] + own.slippage[k]
            gain += own.profits[k] - costs - own.losses[k]
            if held != 0.0:
                gain += held * (own.positions.marks[k] - own.priced[k])
    return gain


# ------------------------------------------------------------------------------------ step by step


def note_liquidation(
    log: EventLog, t: int, i: int, value: float, quantity: float, loss: float
) -> None:
    note(log, t, i, LIQUIDATED, value, quantity, abs(quantity) * abs(value), loss)


def close_part(
    rules: InstrumentRules, state: AccountState, quote: Quote, i: int, closed: float
) -> tuple[float, float]:
    value = state.held.values[i]
    worsening = rules.liquidation_slippage
    if rules.has_liquidation_impact is not None:
        size = abs(closed) * abs(value)
        impact = compute_square_root_impact(rules.liquidation_impact, quote, size)
        worsening = min(worsening + impact, LARGEST_WORSENING)
    side = -1.0 if closed > 0.0 else 1.0
    filled = worsen(rules, value, side, worsening)
    state.wallet[r.CASH] += closed * filled
    quantity = state.held.quantities[i] - closed
    entry = state.held.entries[i] if quantity != 0.0 else 0.0
    put_position(state, i, Position(quantity, entry, 0.0, value))
    return closed * (value - filled), abs(closed) * abs(filled)


def find_step(terms: Terms, state: AccountState, scratch: Scratch, i: int) -> float:
    position, rules = pick_position(state, i), share(pick_instrument(terms, i))
    held, value = position.quantity, state.held.values[i]
    pool = compute_pool(terms, state)
    balances = Balances(pool - held * value, (position,))
    if is_step_whole(rules, balances, value, abs(scratch.start[i])):
        return held
    if rules.full_below_health > 0.0:
        assets, debts, debt = weigh_pool(terms, state, pool)
        is_unhealthy = assets <= rules.full_below_health * debts * (1.0 + TOLERANCE)
        if is_unhealthy and (held < 0.0 or debt > 0.0):
            return repay_all(rules, held, value, debt)
    return choose_share(rules, held, value)


def weigh_pool(terms: Terms, state: AccountState, pool: float) -> tuple[float, float, float]:
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


def try_step(bar: AccountBar, i: int) -> tuple[float, float]:
    terms, state = bar.terms, bar.state
    position, cash = pick_position(state, i), state.wallet[r.CASH]
    before = compute_excess(terms, state)
    closed = find_step(terms, state, bar.scratch, i)
    rules = share(pick_instrument(terms, i))
    _, notional = close_part(rules, state, pick_quote(bar.quotes, i), i, closed)
    fee = cap_fee(rules.liquidation_fee * notional, compute_pool(terms, state))
    gain = compute_excess(terms, state) - fee - before
    put_position(state, i, position)
    state.wallet[r.CASH] = cash
    return gain, notional


def take_step(bar: AccountBar, t: int, i: int) -> None:
    terms, state, ledger = bar.terms, bar.state, bar.ledger
    closed = find_step(terms, state, bar.scratch, i)
    rules = share(pick_instrument(terms, i))
    cost, notional = close_part(rules, state, pick_quote(bar.quotes, i), i, closed)
    fee = cap_fee(rules.liquidation_fee * notional, compute_pool(terms, state))
    state.wallet[r.CASH] -= fee
    ledger[r.LOSS, i] += cost + fee
    ledger[r.TRADED, i] += notional
    note_liquidation(bar.log, t, i, state.held.values[i], -closed, cost + fee)


def choose_step(bar: AccountBar) -> int:
    terms, state, scratch = bar.terms, bar.state, bar.scratch
    needed = terms.rules.level * compute_needed(terms, state)
    chosen, best = -1, -math.inf
    for i in range(len(state.margin)):
        if is_held(state, i) and not is_isolated(terms, i):
            gain, notional = try_step(bar, i)
            if gain > TOLERANCE * needed:
                score = rank(terms, state, scratch, i, gain, notional)
                if score > best:
                    chosen, best = i, score
    if chosen >= 0 and terms.order == r.OPTIONS_LAST:
        return chosen
    k = choose_option_step(terms, state, scratch, TOLERANCE * needed, best)
    return len(state.margin) + k if k >= 0 else chosen


def rank(
    terms: Terms, state: AccountState, scratch: Scratch, i: int, gain: float, notional: float
) -> float:
    held = state.held
    if terms.order == r.LARGEST_LOSS:
        return float(-held.quantities[i] * (held.values[i] - held.entries[i]))
    if terms.order == r.LARGEST_REQUIREMENT:
        return compute_requirement_of_one(terms, state, scratch, i)
    if terms.order in (r.LARGEST_NOTIONAL, r.OPTIONS_LAST):
        return float(abs(held.quantities[i] * held.values[i]))
    if terms.order == r.BY_NAME:
        return float(-1.0 * terms.ranks[i])
    return gain / notional


def compute_requirement_of_one(
    terms: Terms, state: AccountState, scratch: Scratch, i: int
) -> float:
    hide_others(state, scratch, i, state.held.quantities[i])
    found = compute_portfolio_requirement(terms.rules, state.held)
    show_others(state, scratch)
    return found


# ------------------------------------------------------------------------------------- liquidation

MOST_STEPS = 100_000
"""Steps of a partial liquidation after which everything closes at once."""


def liquidate_pool(bar: AccountBar, t: int, is_alone: bool) -> None:
    terms, state, scratch, ledger = bar.terms, bar.state, bar.scratch, bar.ledger
    price_options(terms, state, state.held.values)
    log_causes(bar, t)
    for i in range(len(state.margin)):
        scratch.start[i] = 0.0
        if is_held(state, i) and not is_isolated(terms, i):
            scratch.start[i] = state.held.quantities[i]
            mark_to_ledger(state, i, state.held.values[i], ledger)
    begin_forced(state)
    book_profits(state, ledger)
    last = ledger.shape[1] - 1
    ledger[r.LIQUIDATIONS, last] += 1.0
    mark_assets(state, ledger)
    if is_alone and not holds_options(state):
        liquidate_only_position(bar, t)
    elif terms.liquidation_mode == TAKEOVER:
        forfeit_pool(bar, t)
    elif terms.liquidation_mode == CLOSE:
        close_pool(bar, t)
    else:
        reduce_pool(bar, t)
    record_bad_debt(bar, t)
    drop_after_pool_failure(terms, state)


def mark_assets(state: AccountState, ledger: FloatArray) -> None:
    last = ledger.shape[1] - 1
    for c in range(len(state.held.amounts)):
        if state.held.amounts[c] != 0.0:
            change = state.held.prices[c] - state.priced[c]
            ledger[r.COLLATERAL_PNL, last] += state.held.amounts[c] * change
            state.priced[c] = state.held.prices[c]


def liquidate_only_position(bar: AccountBar, t: int) -> None:
    terms, state, quotes, ledger = bar.terms, bar.state, bar.quotes, bar.ledger
    for i in range(len(state.margin)):
        if is_held(state, i):
            rules, quote = share(pick_instrument(terms, i)), pick_quote(quotes, i)
            held, value = state.held.quantities[i], state.held.values[i]
            balances = Balances(state.wallet[r.CASH], (pick_position(state, i),))
            loss = 0.0
            if terms.liquidation_mode == TAKEOVER:
                ledger[r.TRADED, i] += abs(held) * abs(value)
                balances, loss = forfeit(rules, balances, value)
            while balances.positions[0].quantity != 0.0:
                if rules.full_below_health > 0.0 and terms.rules.level != 1.0:
                    closed = find_step(terms, state, bar.scratch, i)
                else:
                    x = quotes.multiplier[i]
                    closed = choose_reduction(rules, balances, value, abs(held), x)
                balances, cost, notional = close_contracts(rules, balances, value, closed, quote)
                loss += cost
                ledger[r.TRADED, i] += notional
                put_position(state, i, balances.positions[0])
                state.wallet[r.CASH] = balances.cash
                if is_held(state, i) and not is_pool_short(terms, state):
                    break
            state.wallet[r.CASH] = balances.cash
            put_position(state, i, balances.positions[0])
            ledger[r.LOSS, i] += loss
            note_liquidation(bar.log, t, i, value, state.held.quantities[i] - held, loss)


def record_bad_debt(bar: AccountBar, t: int) -> None:
    state, ledger = bar.state, bar.ledger
    if count_cross(bar.terms, state) > 0 or has_collateral_to_sell(state):
        return
    if state.wallet[r.CASH] < 0.0:
        debt = -state.wallet[r.CASH]
        state.wallet[r.CASH] = 0.0
        ledger[r.BAD_DEBT, ledger.shape[1] - 1] += debt
        note(bar.log, t, -1, DEBT, 1.0, 0.0, debt)


# --------------------------------------------------------------------------------- the modes


def forfeit_pool(bar: AccountBar, t: int) -> None:
    terms, state, ledger, log = bar.terms, bar.state, bar.ledger, bar.log
    lost, gross = forfeit_options(state)
    lost += state.wallet[r.CASH]
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
    state.wallet[r.CASH] = min(lost, 0.0)
    loss = max(lost, 0.0)
    end_forfeit(state, ledger, log, t, loss / gross if gross > 0.0 else 0.0)
    for i in range(len(state.margin)):
        if is_held(state, i) and not is_isolated(terms, i):
            value = state.held.values[i]
            notional = abs(state.held.quantities[i] * value)
            share = loss * (notional / gross) if gross > 0.0 else 0.0
            ledger[r.LOSS, i] += share
            ledger[r.TRADED, i] += notional
            note_liquidation(log, t, i, value, -state.held.quantities[i], share)
            put_position(state, i, Position(0.0, 0.0, 0.0, value))


def close_pool(bar: AccountBar, t: int) -> None:
    terms, state, scratch, ledger, log = bar.terms, bar.state, bar.scratch, bar.ledger, bar.log
    asked, gross = 0.0, 0.0
    for i in range(len(state.margin)):
        scratch.cost[i], scratch.taken[i] = 0.0, 0.0
        if is_held(state, i) and not is_isolated(terms, i):
            rules, quote = share(pick_instrument(terms, i)), pick_quote(bar.quotes, i)
            scratch.reach[i] = state.held.quantities[i]
            scratch.cost[i], scratch.taken[i] = close_part(rules, state, quote, i, scratch.reach[i])
            scratch.fee[i] = rules.liquidation_fee * scratch.taken[i]
            asked += scratch.fee[i]
            gross += scratch.taken[i]
            ledger[r.TRADED, i] += scratch.taken[i]
    asked_of_options, premiums = close_options_of_pool(terms, state, ledger)
    asked, gross = asked + asked_of_options, gross + premiums
    sell_collateral(bar, t, -compute_balance(terms, state))
    left = max(compute_balance(terms, state), 0.0) + compute_proceeds(terms, state)
    is_all = asked * (1.0 + TOLERANCE) < left
    for i in range(len(state.margin)):
        if scratch.taken[i] > 0.0:
            fee = scratch.fee[i] if is_all else left * (scratch.taken[i] / gross)
            state.wallet[r.CASH] -= fee
            loss = scratch.cost[i] + fee
            ledger[r.LOSS, i] += loss
            note_liquidation(log, t, i, state.marked[i], -scratch.reach[i], loss)
    paid = asked_of_options if is_all else left * (premiums / gross) if gross > 0.0 else 0.0
    end_close(state, ledger, log, t, asked_of_options, paid)
    sell_collateral(bar, t, -compute_balance(terms, state))
    if not is_all and left > 0.0:
        state.wallet[r.CASH] = 0.0  # the shares of the fee add up to all that was left


def reduce_pool(bar: AccountBar, t: int) -> None:
    terms, state = bar.terms, bar.state
    for _ in range(MOST_STEPS):
        if compute_pool(terms, state) <= 0.0:
            close_pool(bar, t)
            return
        i = choose_step(bar)
        if i < 0:
            close_pool(bar, t)
            return
        if i < len(state.margin):
            take_step(bar, t, i)
        else:
            take_option_step(bar, t, i - len(state.margin))
        if not is_pool_short(terms, state):
            return
    close_pool(bar, t)
