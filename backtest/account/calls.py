"""Margin calls, grace and top-ups, and margin that a policy moves."""

from __future__ import annotations

import math

from backtest.account import records as r
from backtest.account.balance import (
    compute_balance,
    compute_needed,
    compute_pool,
    compute_whole_pool,
    count_cross,
    enter_fill,
    pick_balances,
    value_at,
)
from backtest.account.fills import is_deciding, is_ending, trade_to
from backtest.account.ledger import (
    CALL_FAILED,
    CALL_MET,
    CALL_PARTLY_MET,
    CALLED,
    FILL,
    MARGIN_ADDED,
)
from backtest.account.ledger import TOP_UP as TOPPED_UP
from backtest.account.options import holds_options
from backtest.account.orders import (
    compute_cost,
    compute_order_fee,
    reduce_to_ratio,
    round_worsening,
)
from backtest.account.payments import compute_free
from backtest.account.position import add_margin, compute_profit, compute_requirement
from backtest.account.records import (
    AccountBar,
    AccountState,
    EventLog,
    MarketBar,
    Scratch,
    Terms,
    is_held,
    is_isolated,
    note,
    pick_instrument,
    pick_margin,
    pick_position,
    pick_quote,
    put_position,
    share,
)
from backtest.base.units import DAY, TOLERANCE
from backtest.venue import MarginRules, compute_haircuts, compute_setting

TRIALS = 200


def is_pool(terms: Terms, pool: int) -> bool:
    return pool == len(terms.ranks) or is_isolated(terms, pool)


def is_pool_held(terms: Terms, state: AccountState, pool: int) -> bool:
    if pool == len(state.margin):
        return count_cross(terms, state) > 0
    return is_held(state, pool)


def compute_pool_backing(terms: Terms, state: AccountState, pool: int) -> float:
    if pool == len(state.margin):
        return compute_pool(terms, state)
    profit = compute_profit(pick_position(state, pool), state.held.values[pool])
    return float(state.margin[pool] + profit)


def compute_pool_needed(terms: Terms, state: AccountState, quotes: MarketBar, pool: int) -> float:
    if pool == len(state.margin):
        return terms.rules.level * compute_needed(terms, state)
    rules = share(pick_instrument(terms, pool))
    value = state.held.values[pool]
    return compute_requirement(rules, pick_position(state, pool), value, quotes.multiplier[pool])


def compute_pool_ratio(terms: Terms, state: AccountState, quotes: MarketBar, pool: int) -> float:
    if not is_pool_held(terms, state, pool):
        return 0.0
    backing = compute_pool_backing(terms, state, pool)
    needed = compute_pool_needed(terms, state, quotes, pool)
    if needed == 0.0 and holds_options(state):
        return 0.0
    return needed / backing if backing > 0.0 else math.inf


def is_pool_under(terms: Terms, ratio: float) -> bool:
    return ratio < terms.margin_call * (1.0 - TOLERANCE)


def note_pool(log: EventLog, t: int, n: int, pool: int, kind: int, amount: float) -> None:
    note(log, t, -1 if pool == n else pool, kind, 1.0, 0.0, amount)


# ------------------------------------------------------------------------------------ top-ups


def answer_calls(bar: AccountBar, t: int) -> None:
    terms, state, quotes = bar.terms, bar.state, bar.quotes
    if terms.margin_call == 0.0:
        return
    n = len(state.margin)
    value_at(state, quotes.mark_open, quotes.asset_mark_open)
    for order in range(n + 1):
        pool = n if order == 0 else order - 1
        if is_pool(terms, pool) and state.is_called[pool] == 1:
            if terms.has_top_up:
                top_up_pool(bar, t, pool)
            state.is_called[pool] = 0


def top_up_pool(bar: AccountBar, t: int, pool: int) -> None:
    terms, state, quotes, ledger, log = bar.terms, bar.state, bar.quotes, bar.ledger, bar.log
    n, missing, moved = len(state.margin), 0.0, 0.0
    if is_pool_held(terms, state, pool):
        needed = compute_pool_needed(terms, state, quotes, pool)
        missing = needed / terms.top_up_to - compute_pool_backing(terms, state, pool)
        moved = min(max(missing, 0.0), state.wallet[r.RESERVE])
    if not missing > 0.0:
        return
    state.wallet[r.RESERVE] -= moved
    ledger[r.TOP_UP, pool] += moved
    if pool == n:
        state.wallet[r.CASH] += moved
    else:
        put_position(state, pool, add_margin(pick_position(state, pool), moved))
    ratio = compute_pool_ratio(terms, state, quotes, pool)
    is_met = is_pool_under(terms, ratio)
    if moved != 0.0:
        note_pool(log, t, n, pool, TOPPED_UP, moved)
        state.ratio[pool] = ratio
        state.unmet[pool] = -1.0 if is_met else state.unmet[pool]
        if not is_met:
            note_pool(log, t, n, pool, CALL_PARTLY_MET, ratio)
    note_pool(log, t, n, pool, CALL_MET if is_met else CALL_FAILED, ratio)
    ledger[r.CALLS_MET if is_met else r.CALLS_FAILED, pool] += 1.0
    state.is_call_open[pool] = 0
    if is_met:
        state.called_at[pool] = math.nan


# -------------------------------------------------------------------------------------- grace


def is_pool_forced(terms: Terms, state: AccountState, pool: int) -> bool:
    return bool(terms.grace >= 0.0 and state.unmet[pool] >= terms.grace)


def force_reductions(bar: AccountBar, t: int) -> None:
    terms, state = bar.terms, bar.state
    n = len(state.margin)
    if terms.grace < 0.0:
        return
    is_due = is_pool_forced(terms, state, n) and count_cross(terms, state) > 0
    if is_due and state.wallet[r.POOL_FAILED] == 0.0:
        force_pool(bar, t)
    for i in range(n):
        is_due = is_isolated(terms, i) and is_held(state, i) and is_pool_forced(terms, state, i)
        if is_due and state.is_pending[i] == 1:
            force_isolated(bar, t, i)


def force_isolated(bar: AccountBar, t: int, i: int) -> None:
    terms, state = bar.terms, bar.state
    rules, quote = share(pick_instrument(terms, i)), pick_quote(bar.quotes, i)
    before = pick_balances(terms, state, i)
    done = reduce_to_ratio(rules, before, quote, terms.grace_ratio)
    is_reduced = done.quantity != 0.0
    if is_reduced:
        enter_fill(bar, t, i, FILL, before, done, 0)
        state.is_pending[i] = 0
    end_pool_grace(bar, t, i, is_reduced)


def force_pool(bar: AccountBar, t: int) -> None:
    terms, state, quotes = bar.terms, bar.state, bar.quotes
    n = len(state.margin)
    value_at(state, quotes.fill, quotes.asset_fill)
    factor = find_reduction(bar)
    before = 0
    for i in range(n):
        if is_held(state, i) and not is_isolated(terms, i):
            held = state.held.quantities[i]
            trade_to(bar, t, i, factor * held, False)
            if state.held.quantities[i] != held:
                before += 1
    if before > 0:
        for i in range(n):
            if not is_isolated(terms, i):
                state.is_pending[i] = 0
    end_pool_grace(bar, t, n, before > 0)


def find_reduction(bar: AccountBar) -> float:
    terms, state, scratch = bar.terms, bar.state, bar.scratch
    for i in range(len(state.margin)):
        scratch.start[i] = state.held.quantities[i]
        if is_held(state, i) and not is_isolated(terms, i):
            price_reduction(bar, i)
    low, high = 0.0, 1.0
    if spare(terms, state, scratch, 1.0) >= 0.0:
        return 1.0
    for _ in range(TRIALS):
        middle = low + 0.5 * (high - low)
        if not low < middle < high:
            break
        if spare(terms, state, scratch, middle) >= 0.0:
            low = middle
        else:
            high = middle
    return low


def price_reduction(bar: AccountBar, i: int) -> None:
    rules, quote = share(pick_instrument(bar.terms, i)), pick_quote(bar.quotes, i)
    side = -1.0 if bar.state.held.quantities[i] > 0.0 else 1.0
    worsening = rules.slippage
    if rules.rounds_price is not None:
        worsening = round_worsening(rules, quote.fill, side, worsening)
    bar.scratch.cost[i] = compute_cost(rules, side, worsening)
    bar.scratch.fee[i] = compute_order_fee(rules, quote)


def spare(terms: Terms, state: AccountState, scratch: Scratch, factor: float) -> float:
    backing = compute_whole_pool(terms, state)
    for i in range(len(state.margin)):
        if scratch.start[i] != 0.0 and not is_isolated(terms, i):
            notional = abs(scratch.start[i] * state.held.values[i])
            backing -= scratch.cost[i] * ((1.0 - factor) * notional) + scratch.fee[i]
            state.held.quantities[i] = factor * scratch.start[i]
    needed = terms.rules.level * compute_needed(terms, state)
    backing -= compute_haircuts(terms.rules, state.held)
    for i in range(len(state.margin)):
        state.held.quantities[i] = scratch.start[i]
    return terms.grace_ratio * backing - needed


def end_pool_grace(bar: AccountBar, t: int, pool: int, is_reduced: bool) -> None:
    terms, state, quotes = bar.terms, bar.state, bar.quotes
    if state.is_call_open[pool] == 0:
        return
    value_at(state, quotes.fill, quotes.asset_fill)
    ratio = compute_pool_ratio(terms, state, quotes, pool)
    is_met = is_pool_under(terms, ratio) and not is_reduced
    note_pool(bar.log, t, len(state.margin), pool, CALL_MET if is_met else CALL_FAILED, ratio)
    bar.ledger[r.CALLS_MET if is_met else r.CALLS_FAILED, pool] += 1.0


# -------------------------------------------------------------------------------- at the close


def close_calls(bar: AccountBar, t: int, is_lost: bool) -> None:
    terms, state = bar.terms, bar.state
    n = len(state.margin)
    for pool in range(n + 1):
        if terms.margin_call != 0.0 and is_pool(terms, pool):
            ratio = compute_pool_ratio(terms, state, bar.quotes, pool)
            is_called, unmet = check_pool(terms, state, pool, ratio)
            end_pool_call(bar, t, pool, ratio, is_called, is_lost)
            state.is_called[pool] = 1 if is_called else 0
            state.ratio[pool], state.unmet[pool] = ratio, unmet
            if is_called:
                bar.ledger[r.CALLS, pool] += 1.0
                note_pool(bar.log, t, n, pool, CALLED, ratio)


def check_pool(terms: Terms, state: AccountState, pool: int, ratio: float) -> tuple[bool, float]:
    threshold = terms.margin_call * (1.0 - TOLERANCE)
    was_over = state.ratio[pool] >= threshold and not is_pool_forced(terms, state, pool)
    if ratio < threshold:
        return False, -1.0
    if not was_over:
        return True, 0.0
    return False, state.unmet[pool] + 1.0 if state.unmet[pool] >= 0.0 else -1.0


def end_pool_call(
    bar: AccountBar, t: int, pool: int, ratio: float, is_called: bool, is_lost: bool
) -> None:
    feed, state, ledger = bar.feed, bar.state, bar.ledger
    is_under, is_hit = is_pool_under(bar.terms, ratio), ledger[r.LIQUIDATIONS, pool] > 0.0
    is_answered = ledger[r.CALLS_MET, pool] + ledger[r.CALLS_FAILED, pool] > 0.0
    is_open = state.is_call_open[pool] == 1 and not is_answered
    called_at = math.nan if ledger[r.CALLS_MET, pool] > 0.0 else state.called_at[pool]
    is_failed = is_open and (is_hit or is_lost)
    is_met = is_open and is_under and not is_failed
    is_liquidated = is_hit and not math.isnan(called_at)
    if is_liquidated:
        ledger[r.LIQUIDATED_CALLS, pool] += 1.0
        ledger[r.CALL_DAYS, pool] += (feed.time[t] - called_at) / DAY
    if is_liquidated or is_under:
        called_at = math.nan
    if is_called:
        called_at = 1.0 * feed.time[t]
    if is_met or is_failed:
        note_pool(bar.log, t, len(state.margin), pool, CALL_MET if is_met else CALL_FAILED, ratio)
        ledger[r.CALLS_MET if is_met else r.CALLS_FAILED, pool] += 1.0
    is_left = is_open and not (is_failed or is_met)
    state.is_call_open[pool] = 1 if is_called or is_left else 0
    state.called_at[pool] = called_at


# ---------------------------------------------------------------------- margin that a policy moves

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
    state.wallet[r.CASH] += moved
    log_margin(bar, t, i, r.MARGIN_RETURNED, moved)


def add_from_balance(bar: AccountBar, t: int, i: int) -> None:
    terms, state = bar.terms, bar.state
    free = min(compute_free(terms, state), max(compute_balance(terms, state), 0.0))
    moved = min(bar.scratch.reach[i], free)
    state.margin[i] += moved
    state.wallet[r.CASH] -= moved
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
        note(log, t, i, r.MARGIN_REFUSED, quotes.fill[i], 0.0, refused)
        state.refused[i] |= cause
