"""The prices at which failing accounts trade: one after the other along the way of the price."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest.venue import compute_value

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray
    from backtest.crowd.account_margin import ForcedRules
    from backtest.crowd.cascade_state import CascadeState
    from backtest.crowd.impact import ImpactCurve

LEAST_PRICE = 1e-6
"""The lowest price, as a share of that before the shock, to which impact can carry it."""


class CascadeTerms(NamedTuple):
    rules: ForcedRules
    curve: ImpactCurve
    start: float
    shocked: float
    unit: float
    adl: str | None
    decay: float
    is_jump: bool

    @property
    def losing_side(self) -> float:
        return 1.0 if self.shocked <= self.start else -1.0


class Pressure(NamedTuple):
    flow: float
    level: float


class Queue(NamedTuple):
    triggers: FloatArray
    flows: FloatArray
    quantity: FloatArray
    base: FloatArray


class Path(NamedTuple):
    level: FloatArray
    before: FloatArray
    average: FloatArray


def find_price(terms: CascadeTerms, fall: float) -> float:
    """Return the price under a fall by impact, a fraction of the start price, after the shock."""
    return max(terms.shocked - terms.start * fall, terms.start * LEAST_PRICE)


def order_accounts(state: CascadeState, terms: CascadeTerms, rows: IntArray) -> IntArray:
    is_other = np.sign(state.quantity[rows]) != terms.losing_side
    distance = -terms.losing_side * state.liquidation[rows]
    return rows[np.lexsort((np.where(is_other, 0.0, distance), is_other))]


def find_triggers(
    state: CascadeState, terms: CascadeTerms, rows: IntArray, mark: float
) -> FloatArray:
    if terms.is_jump:
        return np.full(len(rows), mark)
    low, high = min(terms.start, mark), max(terms.start, mark)
    found = np.clip(state.liquidation[rows], low, high)
    is_losing = np.sign(state.quantity[rows]) == terms.losing_side
    found = np.where(is_losing, found, terms.start)
    farther = np.minimum if terms.losing_side > 0.0 else np.maximum
    return np.asarray(farther(found, state.last[rows]))


def trace_path(
    terms: CascadeTerms, triggers: FloatArray, flows: FloatArray, pressure: float, level: float
) -> Path:
    after = pressure + np.cumsum(flows)
    before = after - flows
    fall = terms.start * terms.curve.fall(before)
    own = triggers + fall
    if terms.is_jump:
        levels = np.full(len(flows), terms.shocked)
    elif terms.losing_side > 0.0:
        levels = np.minimum(np.minimum.accumulate(np.clip(own, terms.shocked, terms.start)), level)
    else:
        levels = np.maximum(np.maximum.accumulate(np.clip(own, terms.start, terms.shocked)), level)
    least = terms.start * LEAST_PRICE
    average = terms.start * terms.curve.mean_falls(before, flows)
    return Path(levels, np.maximum(levels - fall, least), np.maximum(levels - average, least))


def decide_in_turn(
    terms: CascadeTerms, queue: Queue, pressure: Pressure, fund: float
) -> FloatArray:
    flow, level = pressure
    rules = terms.rules
    lacks = np.zeros(len(queue.flows))
    columns = zip(*(each.tolist() for each in queue), strict=True)
    for row, (trigger, size, quantity, base) in enumerate(columns):
        fall = terms.start * float(terms.curve.fall_of(flow))
        reached = find_level(terms, trigger + fall, level)
        price = max(reached - fall, terms.start * LEAST_PRICE)
        price *= 1.0 - math.copysign(rules.slippage, quantity)
        left = base + quantity * compute_value(rules.margin.size, rules.margin.is_inverse, price)
        if -left > max(fund, 0.0):
            lacks[row] = -left
            continue
        fund += left if rules.mode == "takeover" else min(left, 0.0)
        flow += size
        level = reached
    return lacks


def find_level(terms: CascadeTerms, own: float, level: float) -> float:
    if terms.is_jump:
        return terms.shocked
    if terms.losing_side > 0.0:
        return min(max(own, terms.shocked), terms.start, level)
    return max(min(own, terms.shocked), terms.start, level)
