"""What limits took from the targets of decisions, counted where the orders are made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from backtest.account.orders import find_limit, tell_rounding
from backtest.account.portfolio_records import (
    INCREASE,
    KEPT,
    LEFT,
    NUMBERS,
    OVERLAY,
    RESTING,
    UNPLACED,
    AccountBar,
    Scratch,
    pick_instrument,
    pick_margin,
    pick_quote,
    share,
)
from backtest.base.units import DAY

if TYPE_CHECKING:
    from backtest.base import FloatArray

CAUSES = (
    "all", "min_leverage", "max_leverage", "max_gross_leverage", "band", "initial_margin",
    "venue_leverage", "wallet", "participation", "lot", "min_notional", "unfilled",
)  # fmt: skip
(
    ALL, MIN_LEVERAGE, MAX_LEVERAGE, MAX_GROSS, BAND, INITIAL_MARGIN,
    VENUE_LEVERAGE, WALLET, PARTICIPATION, LOT, MIN_NOTIONAL, UNFILLED,
) = range(12)  # fmt: skip
COUNT, ASKED, HELD, CUT, DISTANCE, DAYS, NEXT_DAY = range(7)
N_SUMS, N_STEPS = 7, 6
"""Sums of a cause, in turns of equity: the last axis of ``Scratch.cuts``."""
LIMITED, UNIT, START, SIZED, PLANNED, REACHED = range(6)
"""An order on its way to a fill: the last axis of ``Scratch.steps``.

The notional that its margin allows; the value of a contract, and contracts before, as the limits
leave them, in whole lots, and after the fill.
"""
LEAST_LEVERAGE = NUMBERS.index("min_leverage")
LEAST = 1e-9
"""A limit binds if it moves a target by more than this share of it."""


class Decision(NamedTuple):
    """Notional as stated and after the fill, 1 / equity, and the time of the bar in ns."""

    stated: float
    reached: float
    inverse: float
    time: float


def plan_order(bar: AccountBar, factor: float, i: int) -> None:
    """Write the contracts of an order as the limits leave them, at the price of its fill."""
    state, quotes, scratch = bar.state, bar.quotes, bar.scratch
    steps, before, size = scratch.steps, scratch.before[i], scratch.reach[i]
    if scratch.kind[i] == INCREASE:
        size = scratch.kept[i] + factor * scratch.added[i]
        size = before if size <= before and before > 0.0 else size
    elif scratch.kind[i] == UNPLACED:
        size = before
    unit = abs(quotes.fill[i])
    steps[i, UNIT], steps[i, START], steps[i, SIZED] = unit, before / unit, size / unit
    steps[i, REACHED] = scratch.side[i] * state.held.quantities[i]
    steps[i, PLANNED] = steps[i, REACHED]
    if bar.terms.fill == RESTING and not math.isnan(scratch.wanted[i]):
        steps[i, PLANNED] = scratch.side[i] * scratch.wanted[i]


def count_decisions(bar: AccountBar, t: int, equity: float) -> None:
    """Add the decisions of a bar, and what each limit took of them, to the cuts of the run."""
    terms, state, scratch = bar.terms, bar.state, bar.scratch
    inverse, time = 1.0 / equity if equity > 0.0 else 0.0, 1.0 * bar.feed.time[t]
    for i in range(len(state.margin)):
        level, signal, reach = state.leverage[i], state.signal[i], scratch.reach[i]
        is_kept = scratch.kind[i] == KEPT
        overlay, before = state.wallet[OVERLAY], scratch.before[i]
        stated = 0.0
        if signal != 0.0:
            stated = abs(signal) * level * equity * overlay
        is_counted = stated < math.inf and (signal != 0.0 or before != 0.0)
        if scratch.kind[i] == LEFT or inverse == 0.0 or not is_counted:
            continue
        reached = before if is_kept else scratch.steps[i, REACHED] * scratch.steps[i, UNIT]
        decision = Decision(stated, reached, inverse, time)
        add_cut(scratch, decision, i, ALL, stated - reached)
        if stated != reach:
            level = max(level, terms.numbers[LEAST_LEVERAGE, i])
            raised = abs(signal) * level * equity * overlay
            most = find_limit(share(pick_instrument(terms, i)), pick_quote(bar.quotes, i))
            lowered = abs(signal) * min(level, most) * equity * overlay
            count_cut(scratch, decision, i, MIN_LEVERAGE, stated - raised)
            count_cut(scratch, decision, i, MAX_LEVERAGE, raised - lowered)
            count_cut(scratch, decision, i, MAX_GROSS, lowered - reach)
        if is_kept:
            count_cut(scratch, decision, i, BAND, reach - reached)
        else:
            count_order(bar, decision, i)


def count_order(bar: AccountBar, decision: Decision, i: int) -> None:
    scratch, steps = bar.scratch, bar.scratch.steps
    unit, reach, limited = steps[i, UNIT], scratch.reach[i], steps[i, LIMITED]
    sized, planned = steps[i, SIZED] * unit, steps[i, PLANNED] * unit
    if scratch.kind[i] == INCREASE or scratch.kind[i] == UNPLACED:
        size = sized
        if scratch.kind[i] == INCREASE:
            size = scratch.kept[i] + scratch.added[i]
        margin = VENUE_LEVERAGE if pick_margin(bar.terms, i).setting > 0.0 else INITIAL_MARGIN
        taken = size - sized if scratch.kind[i] == INCREASE else 0.0
        count_cut(scratch, decision, i, margin, reach - limited + taken)
        rest = WALLET if scratch.kind[i] == INCREASE else UNFILLED
        count_cut(scratch, decision, i, rest, limited - size)
    if sized != planned:
        rules, volume = share(pick_instrument(bar.terms, i)), bar.quotes.volume[i]
        slow, cause = tell_rounding(
            rules, volume, unit, steps[i, START], steps[i, SIZED], steps[i, PLANNED]
        )
        count_cut(scratch, decision, i, PARTICIPATION, slow * unit)
        count_cut(scratch, decision, i, LOT + cause, sized - slow * unit - planned)
    count_cut(scratch, decision, i, UNFILLED, planned - decision.reached)


def count_cut(scratch: Scratch, decision: Decision, i: int, cause: int, cut: float) -> None:
    if abs(cut) > LEAST * max(decision.stated, abs(decision.reached)):
        add_cut(scratch, decision, i, cause, cut)


def add_cut(scratch: Scratch, decision: Decision, i: int, cause: int, cut: float) -> None:
    n = len(scratch.cuts) - 1
    add_to(scratch.cuts, decision, i, cause, cut)
    if n > 1:
        add_to(scratch.cuts, decision, n, cause, cut)


def add_to(cuts: FloatArray, decision: Decision, row: int, cause: int, cut: float) -> None:
    cuts[row, cause, COUNT] += 1.0
    cuts[row, cause, ASKED] += decision.stated * decision.inverse
    cuts[row, cause, HELD] += decision.reached * decision.inverse
    cuts[row, cause, CUT] += cut * decision.inverse
    cuts[row, cause, DISTANCE] += abs(cut) * decision.inverse
    if decision.time >= cuts[row, cause, NEXT_DAY]:
        cuts[row, cause, DAYS] += 1.0
        cuts[row, cause, NEXT_DAY] = (math.floor(decision.time / DAY) + 1.0) * DAY
