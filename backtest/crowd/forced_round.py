"""The rounds of a cascade: failing accounts, prices of forced trades, and payment of deficits."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest.base.units import TOLERANCE
from backtest.crowd.account_margin import choose_sizes, to_value, worsen_value
from backtest.crowd.forced_prices import (
    Pressure,
    Queue,
    decide_in_turn,
    find_triggers,
    order_accounts,
    trace_path,
)

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray
    from backtest.crowd.account_margin import ForcedRules
    from backtest.crowd.cascade_state import CascadeState
    from backtest.crowd.forced_prices import CascadeTerms


class Round(NamedTuple):
    mark: float
    price: float
    accounts: int
    long: float
    short: float
    insurance: float
    adl: float
    fees: float
    deficit: float
    fund_paid: float
    adl_paid: float
    haircuts: float
    unpaid: float
    off: float


class RoundOutcome(NamedTuple):
    flow: float
    level: float
    fresh: float
    long: float
    short: float
    adl: float
    fees: float
    deficit: float
    fund_paid: float
    adl_paid: float
    haircuts: float
    unpaid: float


def do_round(
    state: CascadeState,
    terms: CascadeTerms,
    rows: IntArray,
    mark: float,
    pressure: Pressure,
    number: int,
) -> RoundOutcome:
    value = float(to_value(terms.rules.margin, mark))
    rows = order_accounts(state, terms, rows)
    is_new = state.first_round[rows] == 0
    state.first_round[rows[is_new]] = number
    fresh = float(np.sum(np.abs(state.quantity[rows[is_new]]))) * terms.unit
    triggers = find_triggers(state, terms, rows, mark)
    sizes = size_closes(state, terms, rows, triggers)
    queue = Queue(triggers, sizes * terms.unit, state.quantity[rows], state.base[rows])
    lacks = find_uncovered(state, terms, queue, pressure)
    is_left = lacks > 0.0
    sold, bankrupt = rows[~is_left], rows[is_left]
    sizes, triggers = sizes[~is_left], triggers[~is_left]
    path = trace_path(terms, triggers, sizes * terms.unit, pressure.flow, pressure.level)
    state.last[sold] = triggers
    fees, gaps = close_in_market(state, terms.rules, sold, sizes, path.average, triggers)
    closed = deleverage(state, bankrupt, lacks[is_left], value, terms.adl)
    paid, haircuts, unpaid = cover_shortfall(state, gaps + closed.missing, value)
    state.recompute(rows)
    deficit = gaps + closed.shortfall
    state.deficit += deficit
    is_whole = terms.rules.mode != "partial" and len(sold) > 0
    return RoundOutcome(
        flow=float(np.sum(sizes)) * terms.unit,
        level=float(path.level[-1]) if is_whole else pressure.level,
        fresh=fresh,
        long=float(np.sum(sizes[sizes > 0.0])) * terms.unit,
        short=float(np.sum(-sizes[sizes < 0.0])) * terms.unit,
        adl=closed.quantity * terms.unit,
        fees=fees,
        deficit=deficit,
        fund_paid=paid,
        adl_paid=closed.shortfall - closed.missing,
        haircuts=haircuts,
        unpaid=unpaid,
    )


def size_closes(
    state: CascadeState, terms: CascadeTerms, rows: IntArray, triggers: FloatArray
) -> FloatArray:
    return choose_sizes(
        terms.rules,
        state.quantity[rows],
        state.base[rows],
        state.first_quantity[rows],
        np.asarray(to_value(terms.rules.margin, triggers)),
    )


def find_uncovered(
    state: CascadeState, terms: CascadeTerms, queue: Queue, pressure: Pressure
) -> FloatArray:
    nobody = np.zeros(len(queue.flows))
    if terms.adl is None:
        return nobody
    path = trace_path(terms, queue.triggers, queue.flows, pressure.flow, pressure.level)
    value = np.asarray(to_value(terms.rules.margin, path.before))
    left = queue.base + queue.quantity * worsen_value(terms.rules, value, -np.sign(queue.quantity))
    if not np.any(np.cumsum(np.maximum(-left, 0.0)) > state.fund):
        return nobody
    return decide_in_turn(terms, queue, pressure, state.fund)


def close_in_market(
    state: CascadeState,
    rules: ForcedRules,
    rows: IntArray,
    sizes: FloatArray,
    prices: FloatArray,
    triggers: FloatArray,
) -> tuple[float, float]:
    filled = worsen_value(rules, np.asarray(to_value(rules.margin, prices)), -np.sign(sizes))
    state.base[rows] += sizes * filled
    state.quantity[rows] -= sizes
    state.liquidity_base -= float(np.sum(sizes * filled))
    state.liquidity_quantity += float(np.sum(sizes))
    state.closed[rows] += np.abs(sizes)
    state.closed_money[rows] += np.abs(sizes) * filled
    value = np.asarray(to_value(rules.margin, triggers))
    left = np.maximum(state.base[rows] + state.quantity[rows] * value, 0.0)
    asked = rules.fee * np.abs(sizes * filled)
    fee = np.where(asked * (1.0 + TOLERANCE) >= left, left, asked)
    state.base[rows] -= fee
    fees = float(np.sum(fee))
    state.fees += fees
    return fees, take_what_is_left(state, rules, rows)


def take_what_is_left(state: CascadeState, rules: ForcedRules, rows: IntArray) -> float:
    flat = rows[state.quantity[rows] == 0.0]
    gaps = float(np.sum(np.maximum(-state.base[flat], 0.0)))
    if rules.mode == "takeover":
        state.fund_paid -= float(np.sum(np.maximum(state.base[flat], 0.0)))
        state.base[flat] = 0.0
    else:
        state.base[flat] = np.maximum(state.base[flat], 0.0)
    return gaps


def cover_shortfall(
    state: CascadeState, missing: float, value: float
) -> tuple[float, float, float]:
    paid = min(missing, max(state.fund, 0.0))
    state.fund_paid += paid
    rest = missing - paid
    if rest <= 0.0:
        return paid, 0.0, 0.0
    profit = np.maximum(state.equity(value) - state.first_equity, 0.0)
    total = float(np.sum(profit))
    share = min(1.0, rest / total) if total > 0.0 else 0.0
    cut = profit * share
    state.base -= cut
    state.haircut += cut
    state.recompute(cut > 0.0)
    haircuts = float(np.sum(cut))
    owed = rest - haircuts if share == 1.0 or total == 0.0 else 0.0
    state.unpaid += owed
    return paid, haircuts, owed


class Deleveraged(NamedTuple):
    quantity: float
    shortfall: float
    missing: float


def deleverage(
    state: CascadeState, rows: IntArray, lacks: FloatArray, value: float, adl: str | None
) -> Deleveraged:
    found = Deleveraged(0.0, 0.0, 0.0)
    for side in (1.0, -1.0):
        is_chosen = side * state.quantity[rows] > 0.0
        if is_chosen.any():
            lack = float(np.sum(lacks[is_chosen]))
            more = close_side(state, rows[is_chosen], rows, lack, value, adl)
            found = Deleveraged(*(one + other for one, other in zip(found, more, strict=True)))
    return found


def close_side(
    state: CascadeState,
    bankrupt: IntArray,
    left_out: IntArray,
    lack: float,
    value: float,
    adl: str | None,
) -> Deleveraged:
    quantity = state.quantity[bankrupt]
    total = float(np.sum(quantity))
    price = -float(np.sum(state.base[bankrupt])) / total
    state.closed[bankrupt] += np.abs(quantity)
    state.closed_money[bankrupt] -= np.sign(quantity) * state.base[bankrupt]
    state.base[bankrupt] = 0.0
    state.quantity[bankrupt] = 0.0
    others = np.flatnonzero(state.quantity * total < 0.0)
    others = np.setdiff1d(others, left_out, assume_unique=True)
    taken = (
        choose_queue(state, others, abs(total), value)
        if adl == "queue"
        else choose_pro_rata(state, others, abs(total))
    )
    missing = take_positions(state, others, taken * -np.sign(total), price)
    rest = total - float(np.sum(taken)) * np.sign(total)
    state.liquidity_quantity += rest
    state.liquidity_base -= rest * price
    return Deleveraged(abs(total), lack, missing)


def choose_queue(state: CascadeState, rows: IntArray, total: float, value: float) -> FloatArray:
    order = np.argsort(-rank_accounts(state, rows, value), kind="stable")
    size = np.abs(state.quantity[rows][order])
    before = np.cumsum(size) - size
    taken = np.empty(len(rows))
    taken[order] = np.clip(total - before, 0.0, size)
    return taken


def rank_accounts(state: CascadeState, rows: IntArray, value: float) -> FloatArray:
    quantity, entry = state.quantity[rows], state.entry[rows]
    gain = quantity * (value - entry) / np.abs(quantity * entry)
    equity = np.maximum(state.base[rows] + quantity * value, 1e-12 * np.abs(quantity * entry))
    leverage = np.abs(quantity * value) / equity
    return np.asarray(np.where(gain > 0.0, gain * leverage, gain / leverage))


def choose_pro_rata(state: CascadeState, rows: IntArray, total: float) -> FloatArray:
    size = np.abs(state.quantity[rows])
    held = float(np.sum(size))
    side = np.sign(state.quantity[rows[0]]) if len(rows) else 0.0
    everyone = held + max(side * state.liquidity_quantity, 0.0)
    return size * min(1.0, total / everyone) if everyone > 0.0 else size


def take_positions(state: CascadeState, rows: IntArray, taken: FloatArray, price: float) -> float:
    state.base[rows] += taken * price
    state.quantity[rows] -= taken
    size = np.abs(taken)
    state.deleveraged[rows] += size
    state.closed[rows] += size
    state.closed_money[rows] += size * price
    is_flat = state.quantity[rows] == 0.0
    missing = float(np.sum(np.maximum(-state.base[rows[is_flat]], 0.0)))
    state.base[rows[is_flat]] = np.maximum(state.base[rows[is_flat]], 0.0)
    state.recompute(rows[size > 0.0])
    return missing
