"""What limits the orders of a bar together, and how much each limit cut."""

from __future__ import annotations

import math
from typing import NamedTuple

from backtest import margin
from backtest.account import options
from backtest.account import records as r
from backtest.account.balance import compute_counted, compute_needed, value_at
from backtest.account.orders import find_limit, truncate
from backtest.account.position import compute_uncounted
from backtest.core.kernels import inlined
from backtest.core.units import DAY, TOLERANCE

BAND_SLACK = 0.1
"""Share of the cap by which bands may carry gross leverage over it."""


def classify_order(scratch: r.Scratch, i: int) -> int:
    plan = scratch.plans[i]
    return r.INCREASE if plan.target > max(plan.notional_held, 0.0) else r.REDUCE


def scale_targets(bar: r.AccountBar, equity: float) -> None:
    """Scale all targets so that gross notional stays within its cap; none remains infinite."""
    state, scratch, most = bar.state, bar.scratch, bar.terms.max_gross_leverage * equity
    wanted, rest = 0.0, 0.0
    for i in range(len(state.positions)):
        plan = scratch.plans[i]
        if plan.kind == r.IN_BAND:
            plan.target = most if plan.target == math.inf else plan.target
            wanted += plan.target
        elif r.is_held(state, i):
            rest += compute_notional(state, bar.quotes, i)
    if wanted > 0.0 and wanted + rest > most:
        factor = max(most - rest, 0.0) / wanted
        for i in range(len(state.positions)):
            scratch.plans[i].target *= factor


def narrow_bands(bar: r.AccountBar, equity: float) -> None:
    """Take positions out of their bands where these carry gross notional over its cap."""
    state, scratch, total = bar.state, bar.scratch, 0.0
    for i in range(len(state.positions)):
        plan = scratch.plans[i]
        if plan.kind in (r.REDUCE, r.INCREASE):
            total += plan.target
        elif r.is_held(state, i):
            total += compute_notional(state, bar.quotes, i)
    most = bar.terms.max_gross_leverage * equity * (1.0 + TOLERANCE)
    if total > most:
        for i in range(len(state.positions)):
            plan = scratch.plans[i]
            if plan.kind == r.IN_BAND and abs(plan.notional_held) > plan.target:
                plan.cap_and_band = BAND_KEPT
                if total > (1.0 + BAND_SLACK) * most:
                    plan.kind = classify_order(scratch, i)
                    plan.cap_and_band = BAND_OVERRULED


def compute_notional(state: r.AccountState, quotes: r.MarketBar, i: int) -> float:
    return float(abs(state.positions[i].quantity) * abs(quotes.instruments[i].fill))


CAUSES = (
    "all", "min_leverage", "max_leverage", "max_gross_leverage", "band", "margin_share",
    "initial_margin", "venue_leverage", "wallet", "participation", "lot", "min_notional",
    "unfilled", "cap_over_band", "band_over_cap",
)  # fmt: skip
(
    ALL, MIN_LEVERAGE, MAX_LEVERAGE, MAX_GROSS, BAND, MARGIN_SHARE, INITIAL_MARGIN,
    VENUE_LEVERAGE, WALLET, PARTICIPATION, LOT, MIN_NOTIONAL, UNFILLED, CAP_OVER_BAND,
    BAND_OVER_CAP,
) = range(15)  # fmt: skip
COUNT, ASKED, HELD, CUT, DISTANCE, DAYS, NEXT_DAY = range(7)
N_SUMS = 7
"""Sums of a cause, as leverage: the last axis of ``Scratch.cuts``."""
BAND_OVERRULED, BAND_KEPT = 1.0, 2.0
"""Values of ``cap_and_band``: taken out of its band, or kept though gross is over the cap."""
LEAST_LEVERAGE = r.NUMBERS.index("min_leverage")
LEAST = 1e-9
"""A limit binds if it moves a target by more than this share of it."""


class Decision(NamedTuple):
    """Notional as stated and after the fill, 1 / equity, and the time of the bar in ns."""

    stated: float
    reached: float
    inverse: float
    time: float


def cut_to_share(bar: r.AccountBar, equity: float, i: int) -> bool:
    """Cut the target of an increase to the margin that its share allows; return whether it is."""
    plan = bar.scratch.plans[i]
    rules = r.pick_instrument(bar.terms, i)
    if rules.margin_share == math.inf:
        return False
    most = margin.compute_largest_notional(
        r.pick_margin(bar.terms, i),
        rules.margin_share * (equity - plan.fee),
        plan.notional_held,
        rules.margin_share * plan.cost,
        bar.quotes.instruments[i].initial,
        plan.target,
    )
    reach = max(min(plan.target, most), plan.notional_held, 0.0)
    plan.cut_by_share = plan.target - reach
    plan.target = reach
    return bool(plan.cut_by_share > 0.0)


def plan_order(bar: r.AccountBar, factor: float, i: int) -> None:
    """Write the steps of an order to its fill, in contracts, into its plan."""
    plan = bar.scratch.plans[i]
    state, quotes = bar.state, bar.quotes
    before, size = plan.notional_held, plan.target
    if plan.kind == r.INCREASE:
        size = plan.notional_kept + factor * plan.notional_added
        size = before if size <= before and before > 0.0 else size
    elif plan.kind == r.UNPLACED:
        size = before
    unit = abs(quotes.instruments[i].fill)
    plan.contract_notional = unit
    plan.quantity_held = before / unit
    plan.quantity_allowed = size / unit
    plan.quantity_filled = plan.side * state.positions[i].quantity
    plan.quantity_rounded = plan.quantity_filled
    if bar.terms.fill == r.RESTING and not math.isnan(plan.resting_quantity):
        plan.quantity_rounded = plan.side * plan.resting_quantity


def count_decisions(bar: r.AccountBar, t: int, equity: float) -> None:
    """Add the decisions of a bar, and what each limit took of them, to the cuts of the run."""
    terms, state, scratch = bar.terms, bar.state, bar.scratch
    inverse, time = 1.0 / equity if equity > 0.0 else 0.0, 1.0 * bar.feed.time[t]
    for i in range(len(state.positions)):
        plan = scratch.plans[i]
        position = state.positions[i]
        level, signal, is_kept = position.leverage, position.signal, plan.kind == r.IN_BAND
        over = 0.0 if is_kept else plan.cut_by_share
        reach = plan.target + over
        overlay, before = state.wallet.overlay, plan.notional_held
        stated = 0.0
        if signal != 0.0:
            stated = abs(signal) * level * equity * overlay
        is_counted = stated < math.inf and (signal != 0.0 or before != 0.0)
        if plan.kind == r.NO_TARGET or inverse == 0.0 or not is_counted:
            continue
        reached = before if is_kept else plan.quantity_filled * plan.contract_notional
        decision = Decision(stated, reached, inverse, time)
        add_cut(scratch, decision, i, ALL, stated - reached)
        if plan.cap_and_band == BAND_OVERRULED:
            add_cut(scratch, decision, i, CAP_OVER_BAND, 0.0)  # the band is overruled: no cut
        if stated != reach:
            level = max(level, terms.numbers[i, LEAST_LEVERAGE])
            raised = abs(signal) * level * equity * overlay
            most = find_limit(r.share(r.pick_instrument(terms, i)), bar.quotes.instruments[i])
            lowered = abs(signal) * min(level, most) * equity * overlay
            count_cut(scratch, decision, i, MIN_LEVERAGE, stated - raised)
            count_cut(scratch, decision, i, MAX_LEVERAGE, raised - lowered)
            count_cut(scratch, decision, i, MAX_GROSS, lowered - reach)
        if is_kept:
            count_cut(scratch, decision, i, BAND, reach - reached)
        else:
            count_cut(scratch, decision, i, MARGIN_SHARE, over)
            count_order(bar, decision, i)


def count_over_cap(bar: r.AccountBar, gross: float) -> None:
    """Count a close above the cap of gross leverage if bands had left it there at the fills."""
    scratch, n, is_left = bar.scratch, len(bar.scratch.cuts) - 1, False
    for i in range(n):
        is_left = is_left or scratch.plans[i].cap_and_band == BAND_KEPT
    most = bar.terms.max_gross_leverage * bar.state.wallet.equity
    if is_left and gross > most * (1.0 + TOLERANCE):
        scratch.cuts[n if n > 1 else 0, BAND_OVER_CAP, COUNT] += 1.0


def count_order(bar: r.AccountBar, decision: Decision, i: int) -> None:
    """Add what margin, wallet, volume, lots and minimum took of an order to the cuts."""
    plan = bar.scratch.plans[i]
    scratch = bar.scratch
    unit, reach, limited = plan.contract_notional, plan.target, plan.allowed_by_margin
    sized, planned = plan.quantity_allowed * unit, plan.quantity_rounded * unit
    if plan.kind in (r.INCREASE, r.UNPLACED):
        size = sized
        if plan.kind == r.INCREASE:
            size = plan.notional_kept + plan.notional_added
        of_margin = VENUE_LEVERAGE if r.pick_margin(bar.terms, i).setting > 0.0 else INITIAL_MARGIN
        taken = size - sized if plan.kind == r.INCREASE else 0.0
        count_cut(scratch, decision, i, of_margin, reach - limited + taken)
        rest = WALLET if plan.kind == r.INCREASE else UNFILLED
        count_cut(scratch, decision, i, rest, limited - size)
    if sized != planned:
        rules, volume = r.share(r.pick_instrument(bar.terms, i)), bar.quotes.instruments[i].volume
        held, part, left = plan.quantity_held, rules.participation * volume, plan.quantity_allowed
        if abs(left - held) > part:
            left = held + (part if left > held else -part)
        slow = plan.quantity_allowed - left
        whole = math.copysign(truncate(rules, abs(left)), left)
        dust = max(1e-6 * rules.lot, TOLERANCE * abs(held))
        is_small = abs(left - held) * unit < rules.min_notional
        is_small |= dust < abs(whole - held) and abs(whole - held) * unit < rules.min_notional
        is_skipped = is_small and abs(plan.quantity_rounded - held) <= dust
        count_cut(scratch, decision, i, PARTICIPATION, slow * unit)
        cause = MIN_NOTIONAL if is_skipped else LOT
        count_cut(scratch, decision, i, cause, sized - slow * unit - planned)
    count_cut(scratch, decision, i, UNFILLED, planned - decision.reached)


def count_cut(scratch: r.Scratch, decision: Decision, i: int, cause: int, cut: float) -> None:
    """Add a cut, in notional, unless it is rounding."""
    if abs(cut) > LEAST * max(decision.stated, abs(decision.reached)):
        add_cut(scratch, decision, i, cause, cut)


@inlined
def add_cut(scratch: r.Scratch, decision: Decision, i: int, cause: int, cut: float) -> None:
    """Add a cut, as leverage, to those of an instrument, and of several to the account's."""
    cuts, n = scratch.cuts, len(scratch.cuts) - 1
    for row in (i, n):
        if row == i or n > 1:
            cuts[row, cause, COUNT] += 1.0
            cuts[row, cause, ASKED] += decision.stated * decision.inverse
            cuts[row, cause, HELD] += decision.reached * decision.inverse
            cuts[row, cause, CUT] += cut * decision.inverse
            cuts[row, cause, DISTANCE] += abs(cut) * decision.inverse
            if decision.time >= cuts[row, cause, NEXT_DAY]:
                cuts[row, cause, DAYS] += 1.0
                cuts[row, cause, NEXT_DAY] = (math.floor(decision.time / DAY) + 1.0) * DAY


MOST_TRIALS = 200
"""Trials of a factor; each halves what is left of the interval, or better."""
NARROW = 1e-16
"""Width of the interval, relative to 1, at which the search ends."""
GOLDEN = 0.3819660112501051
"""The smaller part of the golden section."""


def fit_increases(bar: r.AccountBar) -> float:
    """Return the largest factor in [0, 1] of increases at which the pool has initial margin."""
    terms, state, quotes, scratch = bar.terms, bar.state, bar.quotes, bar.scratch
    values = quotes.open if terms.fill == r.RESTING else quotes.fill
    value_at(state, values, quotes.asset_fill)
    free = margin.compute_full_backing(terms.rules, state.held, state.wallet.cash)
    free -= compute_all_uncounted(bar, -2)
    count, only, fixed, is_whole = 0, 0, 0.0, is_joint(terms, state)
    for i in range(len(state.positions)):
        if scratch.plans[i].kind == r.INCREASE:
            count, only = count + 1, i
        elif not is_whole and r.is_held(state, i) and not r.is_isolated(terms, i):
            quote = quotes.instruments[i]
            notional = abs(state.positions[i].quantity) * abs(quote.fill)
            fixed += margin.compute_initial(r.pick_margin(terms, i), notional, quote.initial)
    if count == 1 and not is_whole and not r.is_isolated(terms, only):
        rules, initial = r.pick_margin(terms, only), quotes.instruments[only].initial
        plan = scratch.plans[only]
        before, cost = plan.notional_held, plan.cost
        rest = free - fixed - plan.fee
        kept, added = plan.notional_kept, plan.notional_added
        wanted = kept + added
        limit = margin.compute_largest_notional(rules, rest, before, cost, initial, wanted)
        if limit >= wanted or added == 0.0:
            return 1.0
        return float(max(limit - kept, 0.0) / added)
    if compute_room(bar, free, fixed, 1.0) >= 0.0:
        return 1.0
    low, high = 0.0, 1.0
    if not compute_room(bar, free, fixed, 0.0) >= 0.0:
        low = find_passing(bar, free, fixed)
        if math.isnan(low):
            return 0.0
    return narrow(bar, free, fixed, low, high)


def is_joint(terms: r.Terms, state: r.AccountState) -> bool:
    has_options = options.is_walking(terms, state) or options.is_adding_options(state)
    return terms.rules.has_scenarios or has_options


def compute_all_uncounted(bar: r.AccountBar, turned: int) -> float:
    """Return the profit of cross positions that backs no order, less those that turn."""
    terms, state, scratch, total = bar.terms, bar.state, bar.scratch, 0.0
    for i in range(len(state.positions)):
        plan = scratch.plans[i]
        if r.is_held(state, i) and not r.is_isolated(terms, i):
            rules = r.pick_instrument(terms, i)
            is_flip = plan.kind == r.INCREASE and plan.notional_held < 0.0 and turned == -2
            if not is_flip and i != turned:
                position, value = r.pick_position(state, i), state.positions[i].value
                total += compute_uncounted(rules, position, value)
    return total


def compute_room(bar: r.AccountBar, free: float, fixed: float, factor: float) -> float:
    """Return what is free after the increases times a factor, concave in it."""
    terms, state, scratch = bar.terms, bar.state, bar.scratch
    costs, taken, needed = 0.0, 0.0, fixed
    is_whole = is_joint(terms, state)
    for i in range(len(state.positions)):
        plan = scratch.plans[i]
        if plan.kind == r.INCREASE:
            size = plan.notional_kept + factor * plan.notional_added
            if r.is_isolated(terms, i):
                taken += factor * plan.notional_added * plan.cost_of_balance - plan.returned_by_flip
                continue
            costs += plan.cost * (size - plan.notional_held) + plan.fee
            if not is_whole and size > 0.0:
                initial = bar.quotes.instruments[i].initial
                needed += margin.compute_initial(r.pick_margin(terms, i), size, initial)
    if is_whole:
        needed = try_initial(bar, factor)
    return free - costs - taken - needed


def try_initial(bar: r.AccountBar, factor: float) -> float:
    """Return the initial margin of the account with increases times a factor; restores it."""
    terms, state, scratch = bar.terms, bar.state, bar.scratch
    for i in range(len(state.positions)):
        plan = scratch.plans[i]
        position = state.positions[i]
        scratch.walk[i].quantity_aside = position.quantity
        if plan.kind == r.INCREASE:
            size = plan.notional_kept + factor * plan.notional_added
            position.quantity = plan.side * size / abs(bar.quotes.instruments[i].fill)
    outlay = options.try_options(terms, state, factor)
    needed = compute_needed(terms, state, True) + outlay
    needed += margin.compute_haircuts(terms.rules, state.held)
    if options.holds_options(state):
        needed -= compute_counted(terms, state)
    for i in range(len(state.positions)):
        state.positions[i].quantity = scratch.walk[i].quantity_aside
    for k in range(len(state.options.before)):
        state.options.positions.quantities[k] = state.options.before[k]
    return needed


def find_passing(bar: r.AccountBar, free: float, fixed: float) -> float:
    """Return any factor with room by golden section, as room is concave; NaN if there is none."""
    low, high = 0.0, 1.0
    left, right = GOLDEN, 1.0 - GOLDEN
    of_left = compute_room(bar, free, fixed, left)
    of_right = compute_room(bar, free, fixed, right)
    for _ in range(80):
        if of_left >= 0.0 or of_right >= 0.0:
            return right if of_right >= 0.0 else left
        if of_left < of_right:
            low, left, of_left = left, right, of_right
            right = high - GOLDEN * (high - low)
            of_right = compute_room(bar, free, fixed, right)
        else:
            high, right, of_right = right, left, of_left
            left = low + GOLDEN * (high - low)
            of_left = compute_room(bar, free, fixed, left)
    return math.nan


def narrow(bar: r.AccountBar, free: float, fixed: float, low: float, high: float) -> float:
    """Return the largest factor with room between one that passes and one that does not."""
    of_low = compute_room(bar, free, fixed, low)
    of_high = compute_room(bar, free, fixed, high)
    for trial in range(MOST_TRIALS):
        if not high - low > NARROW:
            break
        middle = low + 0.5 * (high - low)
        if trial % 2 == 0 and of_low > of_high:
            middle = low + (high - low) * (of_low / (of_low - of_high))
        if not low < middle < high:
            middle = low + 0.5 * (high - low)
        if not low < middle < high:
            break
        of_middle = compute_room(bar, free, fixed, middle)
        if of_middle >= 0.0:
            low, of_low = middle, of_middle
        else:
            high, of_high = middle, of_middle
    return low


def hide_others(state: r.AccountState, scratch: r.Scratch, i: int, quantity: float) -> None:
    """Write the account as some contracts of instrument i alone; keeps the rest in scratch."""
    for j in range(len(state.positions)):
        position = state.positions[j]
        scratch.walk[j].quantity_aside = position.quantity
        position.quantity = quantity if j == i else 0.0
    for c in range(len(state.held.amounts)):
        scratch.assets[c].amount_aside = state.held.amounts[c]
        state.held.amounts[c] = 0.0


def show_others(state: r.AccountState, scratch: r.Scratch) -> None:
    """Write back what :func:`hide_others` kept."""
    for j in range(len(state.positions)):
        state.positions[j].quantity = scratch.walk[j].quantity_aside
    for c in range(len(state.held.amounts)):
        state.held.amounts[c] = scratch.assets[c].amount_aside
