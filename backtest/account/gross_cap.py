"""The cap of gross leverage: one factor for all targets, and bands that it narrows."""

from __future__ import annotations

import math

from backtest.account.portfolio_records import (
    INCREASE,
    KEPT,
    REDUCE,
    AccountBar,
    AccountState,
    MarketBar,
    Scratch,
    is_held,
)
from backtest.base.units import TOLERANCE

BAND_SLACK = 0.1
"""Share of the cap by which bands may carry gross leverage over it."""


def tell_order(scratch: Scratch, i: int) -> int:
    return INCREASE if scratch.reach[i] > max(scratch.before[i], 0.0) else REDUCE


def scale_targets(bar: AccountBar, equity: float) -> None:
    most = bar.terms.max_gross_leverage * equity
    wanted, rest = sum_targets(bar.state, bar.quotes, bar.scratch, most)
    factor = compute_cap_factor(most, wanted, rest)
    if factor < 1.0:
        for i in range(len(bar.state.margin)):
            bar.scratch.reach[i] *= factor


def compute_cap_factor(most: float, wanted: float, rest: float) -> float:
    if wanted > 0.0 and wanted + rest > most:
        return max(most - rest, 0.0) / wanted
    return 1.0


def sum_targets(
    state: AccountState, quotes: MarketBar, scratch: Scratch, most: float
) -> tuple[float, float]:
    wanted, rest = 0.0, 0.0
    for i in range(len(state.margin)):
        if scratch.kind[i] == KEPT:
            scratch.reach[i] = most if scratch.reach[i] == math.inf else scratch.reach[i]
            wanted += scratch.reach[i]
        elif is_held(state, i):
            rest += compute_notional(state, quotes, i)
    return wanted, rest


def narrow_bands(bar: AccountBar, equity: float) -> None:
    state, scratch = bar.state, bar.scratch
    total = sum_orders(state, bar.quotes, scratch)
    if total > (1.0 + BAND_SLACK) * bar.terms.max_gross_leverage * equity * (1.0 + TOLERANCE):
        for i in range(len(state.margin)):
            if scratch.kind[i] == KEPT and abs(scratch.before[i]) > scratch.reach[i]:
                scratch.kind[i] = tell_order(scratch, i)


def sum_orders(state: AccountState, quotes: MarketBar, scratch: Scratch) -> float:
    total = 0.0
    for i in range(len(state.margin)):
        if scratch.kind[i] == REDUCE or scratch.kind[i] == INCREASE:
            total += scratch.reach[i]
        elif is_held(state, i):
            total += compute_notional(state, quotes, i)
    return float(total)


def compute_notional(state: AccountState, quotes: MarketBar, i: int) -> float:
    return float(abs(state.held.quantities[i]) * abs(quotes.fill[i]))
