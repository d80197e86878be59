"""Margin as a decision: the venue leverage of isolated positions, and the margin that it moves."""

from __future__ import annotations

import math

from backtest.account.ledger import MARGIN_ADDED
from backtest.account.portfolio_balance import compute_balance, value_at
from backtest.account.portfolio_ledger import MARGIN_REFUSED, MARGIN_RETURNED, note
from backtest.account.portfolio_orders import is_deciding, is_ending
from backtest.account.portfolio_payments import compute_free
from backtest.account.portfolio_records import (
    CASH,
    AccountBar,
    AccountState,
    Terms,
    is_held,
    is_isolated,
    pick_margin,
    pick_position,
)
from backtest.account.position import compute_profit
from backtest.base.units import TOLERANCE
from backtest.venue import MarginRules, compute_setting

ADDING, RETURNING = 1, 2
"""Bits of what was refused: to add margin, to return it."""


def write_settings(terms: Terms, state: AccountState) -> None:
    for i in range(len(state.setting)):
        if state.setting[i] > 0.0:
            terms.rules.brackets.settings[i] = state.setting[i]


def change_settings(bar: AccountBar, t: int) -> None:
    state, quotes, scratch = bar.state, bar.quotes, bar.scratch
    if not is_any_asked(state):
        return
    value_at(state, quotes.fill, quotes.asset_fill)
    for i in range(len(state.setting)):
        scratch.kind[i], scratch.reach[i] = 0, 0.0
        is_bound = is_ending(state, i) or not is_deciding(state, quotes, i)
        if state.asked[i] > 0.0 and is_isolated(bar.terms, i) and not is_bound:
            choose_setting(bar, i)
    for i in range(len(state.setting)):
        if scratch.reach[i] < 0.0:
            return_margin(bar, t, i)
    for i in range(len(state.setting)):
        if scratch.reach[i] > 0.0:
            add_from_balance(bar, t, i)


def is_any_asked(state: AccountState) -> bool:
    found = False
    for i in range(len(state.asked)):
        found = found or state.asked[i] > 0.0
    return bool(found)


def choose_setting(bar: AccountBar, i: int) -> None:
    terms, state, quotes, scratch = bar.terms, bar.state, bar.quotes, bar.scratch
    rules, asked = pick_margin(terms, i), state.asked[i]
    notional = abs(state.held.quantities[i]) * abs(quotes.fill[i])
    most = max(find_most(rules, notional, quotes.initial[i]), state.setting[i])
    setting = min(asked, most)
    scratch.kind[i] = 1 if setting != state.setting[i] else 0
    state.setting[i] = setting
    terms.rules.brackets.settings[i] = setting
    if is_held(state, i):
        entry = abs(state.held.quantities[i] * state.held.entries[i])
        wanted = entry / (asked if asked < math.inf else setting)
        moved = wanted - state.margin[i]
        scratch.reach[i] = moved if abs(moved) > TOLERANCE * entry else 0.0


def find_most(rules: MarginRules, notional: float, multiplier: float) -> float:
    most = rules.leverages[len(rules.caps) - 1] / multiplier
    for k in range(len(rules.caps)):
        if notional <= rules.caps[k]:
            most = max(most, rules.leverages[k] / multiplier)
    return most


def return_margin(bar: AccountBar, t: int, i: int) -> None:
    state, quotes = bar.state, bar.quotes
    position, value = pick_position(state, i), quotes.fill[i]
    setting = compute_setting(pick_margin(bar.terms, i), quotes.initial[i])
    needed = abs(position.quantity * value) / setting - compute_profit(position, value)
    needed = max(needed, abs(position.quantity * position.entry) / setting)
    moved = min(-bar.scratch.reach[i], max(position.margin - needed, 0.0))
    state.margin[i] -= moved
    state.wallet[CASH] += moved
    log_margin(bar, t, i, MARGIN_RETURNED, moved)


def add_from_balance(bar: AccountBar, t: int, i: int) -> None:
    terms, state = bar.terms, bar.state
    free = min(compute_free(terms, state), max(compute_balance(terms, state), 0.0))
    moved = min(bar.scratch.reach[i], free)
    state.margin[i] += moved
    state.wallet[CASH] -= moved
    log_margin(bar, t, i, MARGIN_ADDED, moved)


def log_margin(bar: AccountBar, t: int, i: int, kind: int, moved: float) -> None:
    state, quotes, scratch, log = bar.state, bar.quotes, bar.scratch, bar.log
    cause = ADDING if kind == MARGIN_ADDED else RETURNING
    refused = abs(scratch.reach[i]) - moved
    if moved > 0.0:
        note(log, t, i, kind, quotes.fill[i], 0.0, moved)
    if refused <= TOLERANCE * abs(scratch.reach[i]):
        state.refused[i] &= ~cause
    elif scratch.kind[i] == 1 and state.refused[i] & cause == 0:
        note(log, t, i, MARGIN_REFUSED, quotes.fill[i], 0.0, refused)
        state.refused[i] |= cause
