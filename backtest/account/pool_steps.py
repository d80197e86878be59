"""Steps of a partial liquidation: which position is reduced next, and by how much."""

from __future__ import annotations

import math

from backtest.account.account_records import Balances, InstrumentRules, Position, Quote
from backtest.account.ledger import LIQUIDATED
from backtest.account.liquidation import choose_share, is_step_whole, repay_all
from backtest.account.option_liquidation import cap_fee, choose_option_step
from backtest.account.order_scaling import hide_others, show_others
from backtest.account.orders import LARGEST_WORSENING, compute_square_root_impact
from backtest.account.portfolio_balance import compute_excess, compute_needed, compute_pool
from backtest.account.portfolio_ledger import LOSS, TRADED, note
from backtest.account.portfolio_records import (
    BY_NAME,
    CASH,
    LARGEST_LOSS,
    LARGEST_NOTIONAL,
    LARGEST_REQUIREMENT,
    OPTIONS_LAST,
    AccountBar,
    AccountState,
    EventLog,
    Scratch,
    Terms,
    is_held,
    is_isolated,
    pick_instrument,
    pick_position,
    pick_quote,
    put_position,
    share,
)
from backtest.account.position import worsen
from backtest.base.units import TOLERANCE
from backtest.venue import (
    compute_collateral_value,
    compute_own_maintenance,
    compute_portfolio_requirement,
)


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
    state.wallet[CASH] += closed * filled
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
    position, cash = pick_position(state, i), state.wallet[CASH]
    before = compute_excess(terms, state)
    closed = find_step(terms, state, bar.scratch, i)
    rules = share(pick_instrument(terms, i))
    _, notional = close_part(rules, state, pick_quote(bar.quotes, i), i, closed)
    fee = cap_fee(rules.liquidation_fee * notional, compute_pool(terms, state))
    gain = compute_excess(terms, state) - fee - before
    put_position(state, i, position)
    state.wallet[CASH] = cash
    return gain, notional


def take_step(bar: AccountBar, t: int, i: int) -> None:
    terms, state, ledger = bar.terms, bar.state, bar.ledger
    closed = find_step(terms, state, bar.scratch, i)
    rules = share(pick_instrument(terms, i))
    cost, notional = close_part(rules, state, pick_quote(bar.quotes, i), i, closed)
    fee = cap_fee(rules.liquidation_fee * notional, compute_pool(terms, state))
    state.wallet[CASH] -= fee
    ledger[LOSS, i] += cost + fee
    ledger[TRADED, i] += notional
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
    if chosen >= 0 and terms.order == OPTIONS_LAST:
        return chosen
    k = choose_option_step(terms, state, scratch, TOLERANCE * needed, best)
    return len(state.margin) + k if k >= 0 else chosen


def rank(
    terms: Terms, state: AccountState, scratch: Scratch, i: int, gain: float, notional: float
) -> float:
    held = state.held
    if terms.order == LARGEST_LOSS:
        return float(-held.quantities[i] * (held.values[i] - held.entries[i]))
    if terms.order == LARGEST_REQUIREMENT:
        return compute_requirement_of_one(terms, state, scratch, i)
    if terms.order in (LARGEST_NOTIONAL, OPTIONS_LAST):
        return float(abs(held.quantities[i] * held.values[i]))
    if terms.order == BY_NAME:
        return float(-1.0 * terms.ranks[i])
    return gain / notional


def compute_requirement_of_one(
    terms: Terms, state: AccountState, scratch: Scratch, i: int
) -> float:
    hide_others(state, scratch, i, state.held.quantities[i])
    found = compute_portfolio_requirement(terms.rules, state.held)
    show_others(state, scratch)
    return found
