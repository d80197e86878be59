"""The limits that the orders of a bar share.

The words are those of :mod:`.fills`, which calls this file in this order:

1. :func:`scale_targets` and :func:`narrow_bands`: the cap of gross leverage, on targets and then on
   what bands keep;
2. :func:`cut_to_share`: ``Account(margin_share=...)``, on one increase (4.3);
3. :func:`fit_increases`: the largest common factor of all increases at which the pool has its
   initial margin (4.3). The pool is what all cross positions share;
4. :func:`write_stages`: each order from its limits to its fill, in contracts. :mod:`.cut_counts`
   counts what each limit cut.

Numbers such as 4.3 are sections of ``docs/accounting.md``.

====================  ============================================================================
word                  what it is, and its unit
====================  ============================================================================
target                what the limits of leverage leave of a decision: notional by side
backing               money that may back the cross positions and their orders
margin_of_others      initial margin of cross positions that do not increase: money
common_factor         the part (0 to 1) of all increases that fills
room                  backing less costs and margins, if a factor of increases filled
====================  ============================================================================
"""

from __future__ import annotations

import math

from backtest import margin
from backtest.account import options
from backtest.account import records as r
from backtest.account.balance import compute_counted, compute_needed, value_at
from backtest.account.position import compute_uncounted
from backtest.core.kernels import inlined
from backtest.core.units import TOLERANCE

# The cap of gross leverage, on targets and bands.

BAND_SLACK = 0.1
"""Part of the cap by which bands may carry gross leverage over it."""
BAND_OVERRULED, BAND_KEPT = 1.0, 2.0
"""Values of ``cap_and_band``: the cap made an order of a band, or left it though gross is over."""


def classify_order(plan: r.OrderPlan) -> int:
    """Return INCREASE for an order that adds or flips, else REDUCE."""
    is_increase = plan.target > max(plan.notional_held, 0.0)
    return r.INCREASE if is_increase else r.REDUCE


def scale_targets(bar: r.AccountBar, equity: float) -> None:
    """Multiply all targets by one factor, so that gross notional stays within its cap.

    Called once all targets are written, and before bands: a plan with a target has the kind IN_BAND
    until its band is tested. An instrument without a target counts with what it holds, which is
    not scaled: where that is over the cap already, the factor is 0. No target is infinite after it.
    """
    state = bar.state
    cap = bar.terms.max_gross_leverage * equity

    sum_of_targets = 0.0
    held_without_target = 0.0
    for i in range(len(state.positions)):
        plan = bar.scratch.plans[i]
        has_target = plan.kind == r.IN_BAND
        if has_target:
            # Infinity has no share of a sum, so it counts as the whole cap.
            if plan.target == math.inf:
                plan.target = cap
            sum_of_targets += plan.target
        elif r.is_held(state, i):
            held_without_target += compute_notional(state, bar.quotes, i)

    # Plans without a target have 0 there, which stays 0.
    if sum_of_targets > 0.0 and sum_of_targets + held_without_target > cap:
        factor = max(cap - held_without_target, 0.0) / sum_of_targets
        for i in range(len(state.positions)):
            bar.scratch.plans[i].target *= factor


def narrow_bands(bar: r.AccountBar, equity: float) -> None:
    """Make orders of positions that bands keep above their targets, so that the cap holds.

    Within its band a position is left as it is, so bands may keep the gross notional over its cap.
    Where it is over by more than BAND_SLACK of the cap, these positions get orders: ``kind`` of
    their plans. Up to that, bands stand. ``cap_and_band`` says which: BAND_OVERRULED or BAND_KEPT.
    """
    gross = compute_gross_after_orders(bar)
    # Scaled targets add up to the cap, give or take rounding.
    cap = bar.terms.max_gross_leverage * equity * (1.0 + TOLERANCE)
    if not gross > cap:
        return

    is_overruled = gross > (1.0 + BAND_SLACK) * cap
    for i in range(len(bar.state.positions)):
        plan = bar.scratch.plans[i]
        is_above_target = abs(plan.notional_held) > plan.target
        if plan.kind != r.IN_BAND or not is_above_target:
            continue
        if is_overruled:
            plan.kind = classify_order(plan)
            plan.cap_and_band = BAND_OVERRULED
        else:
            plan.cap_and_band = BAND_KEPT


def compute_gross_after_orders(bar: r.AccountBar) -> float:
    """Return the gross notional if all orders filled whole: money, without sign.

    An instrument with an order counts with its target, any other with what it holds.
    """
    gross = 0.0
    for i in range(len(bar.state.positions)):
        plan = bar.scratch.plans[i]
        if plan.kind in (r.REDUCE, r.INCREASE):
            gross += plan.target
        elif r.is_held(bar.state, i):
            gross += compute_notional(bar.state, bar.quotes, i)
    return gross


def compute_notional(state: r.AccountState, quotes: r.MarketBar, i: int) -> float:
    """Return the notional that instrument i holds, without sign, at ``quote.fill``."""
    return float(abs(state.positions[i].quantity) * abs(quotes.instruments[i].fill))


# An increase, and its share of the equity.


def cut_to_share(bar: r.AccountBar, equity: float, i: int) -> bool:
    """Cut the target of an increase so that its margin is at most a share of the equity (4.3).

    The share is ``Account(margin_share=...)``, of the equity after the costs of the order. Writes
    ``target`` of its plan, and ``cut_by_share``, the notional that was cut; returns whether any
    was. Never cuts below what is held: a position that prices carry over its share stays.
    """
    plan = bar.scratch.plans[i]
    share = r.pick_instrument(bar.terms, i).margin_share
    # No share was declared.
    if share == math.inf:
        return False

    # initial margin <= share * (equity - fixed fee - cost * notional added): this is the rule of
    # the largest notional, with equity and cost multiplied by the share.
    target = plan.target
    allowed_by_share = margin.compute_largest_notional(
        r.pick_margin(bar.terms, i),
        equity=share * (equity - plan.fee),
        held=plan.notional_held,
        cost=share * plan.cost,
        multiplier=bar.quotes.instruments[i].initial,
        enough=target,
    )
    cut_target = max(min(target, allowed_by_share), plan.notional_held, 0.0)
    plan.target = cut_target
    plan.cut_by_share = target - cut_target
    return bool(target - cut_target > 0.0)


# From the limits to the fill, in contracts.


def write_stages(bar: r.AccountBar, i: int, common_factor: float) -> None:
    """Write into the plan of an order how many contracts each stage left of it, for the report.

    The stages are: held before the order, allowed by margin and wallet, rounded to lots and volume,
    and filled. All are contracts by the side of the order. Called when market orders have filled,
    or limit orders are placed. A limit order has not filled then, so its ``quantity_filled`` is
    what is held now; if it fills later, the fill writes it again.
    """
    plan = bar.scratch.plans[i]
    contract_notional = abs(bar.quotes.instruments[i].fill)
    notional_allowed = compute_notional_allowed(plan, common_factor)
    plan.contract_notional = contract_notional
    plan.quantity_held = plan.notional_held / contract_notional
    plan.quantity_allowed = notional_allowed / contract_notional

    # What is held now is what a market order has filled, in whole lots.
    quantity_now = plan.side * bar.state.positions[i].quantity
    plan.quantity_filled = quantity_now
    plan.quantity_rounded = quantity_now

    # An order that rests has its rounded quantity in the plan: NaN if none rests.
    is_resting = not math.isnan(plan.resting_quantity)
    if bar.terms.fill == r.RESTING and is_resting:
        plan.quantity_rounded = plan.side * plan.resting_quantity


def compute_notional_allowed(plan: r.OrderPlan, common_factor: float) -> float:
    """Return the notional, by the side of the order, up to which margin and wallet let it trade.

    ``common_factor``, 0 to 1, is the part of all increases that the initial margin of the account
    allows. An UNPLACED order is an increase that cannot rest at a limit: it trades nothing.
    """
    if plan.kind == r.UNPLACED:
        return plan.notional_held
    # No limit of margin cuts what does not increase.
    if plan.kind != r.INCREASE:
        return plan.target

    # An increase that was cut to nothing never reduces.
    notional = plan.notional_kept + common_factor * plan.notional_added
    if notional <= plan.notional_held and plan.notional_held > 0.0:
        return plan.notional_held
    return notional


# The common factor: initial margin of all increases together.

MOST_TRIALS = 200
"""Trials of a factor; each halves what is left of the interval, or better."""
NARROW = 1e-16
"""Width of the interval, relative to 1, at which the search ends."""
GOLDEN = 0.3819660112501051
"""The smaller part of the golden section."""
GOLDEN_TRIALS = 80
"""Trials of a golden section: 0.618^80 of the interval, 2e-17, is left."""

NO_ORDER = -1
"""No order realizes a profit: that of every position is tested."""
ALL_FLIPS = -2
"""The orders of all flips realize the profits of their positions."""


def fit_increases(bar: r.AccountBar) -> float:
    """Return the common factor, 0 to 1: the largest part of all increases that margin allows (4.3).

    A factor passes if the pool has its initial margin after all increases have added that part of
    what they want. The answer is 1 if they pass whole, and 0 if no factor passes. The caller
    multiplies what each increase adds by it. Values the account at ``quote.fill``, or at the open
    where orders rest.
    """
    terms = bar.terms
    state = bar.state
    values = bar.quotes.open if terms.fill == r.RESTING else bar.quotes.fill
    value_at(state, values, bar.quotes.asset_fill)

    # Profits that do not count back no order, unless the order realizes them.
    backing = margin.compute_full_backing(terms.rules, state.held, state.wallet.cash)
    backing -= sum_uncounted_profits(bar, ALL_FLIPS)

    # Margins of brackets add up, so those of others are summed once, and a single increase has a
    # closed form. Other requirements are of the account as a whole.
    margin_of_others = 0.0
    if not is_joint(terms, state):
        margin_of_others = sum_initial_of_others(bar)
        n_increases, last = count_increases(bar.scratch)
        if n_increases == 1 and not r.is_isolated(terms, last):
            return fit_single(bar, backing - margin_of_others, last)

    if compute_room(bar, backing, margin_of_others, factor=1.0) >= 0.0:
        return 1.0

    # No increase at all is the natural start. It may fail where some does not: a hedge that
    # increases frees margin.
    passing = 0.0
    if not compute_room(bar, backing, margin_of_others, factor=0.0) >= 0.0:
        passing = find_passing(bar, backing, margin_of_others)
        if math.isnan(passing):
            return 0.0
    return narrow(bar, backing, margin_of_others, passing=passing, failing=1.0)


def is_joint(terms: r.Terms, state: r.AccountState) -> bool:
    """Return whether margin is computed for the account as a whole, not summed over positions.

    It is under scenarios, and where options are held or ordered.
    """
    has_options = options.must_value_options(terms, state) or options.is_adding_options(state)
    return terms.rules.has_scenarios or has_options


def count_increases(scratch: r.Scratch) -> tuple[int, int]:
    """Return how many instruments increase, and the index of the last of them; 0 if none does."""
    n_increases = 0
    last = 0
    for i in range(len(scratch.plans)):
        if scratch.plans[i].kind == r.INCREASE:
            n_increases += 1
            last = i
    return n_increases, last


def sum_initial_of_others(bar: r.AccountBar) -> float:
    """Return the initial margin of the cross positions that do not increase: money.

    Each by its own brackets, at ``quote.fill``. Isolated positions have posted theirs.
    """
    total = 0.0
    for i in range(len(bar.state.positions)):
        if bar.scratch.plans[i].kind == r.INCREASE or not r.is_held(bar.state, i):
            continue

        if not r.is_isolated(bar.terms, i):
            notional = compute_notional(bar.state, bar.quotes, i)
            initial = bar.quotes.instruments[i].initial
            total += margin.compute_initial(r.pick_margin(bar.terms, i), notional, initial)
    return total


def fit_single(bar: r.AccountBar, backing: float, i: int) -> float:
    """Return the common factor of the only increase, in closed form (4.3)."""
    plan = bar.scratch.plans[i]
    notional_wanted = plan.notional_kept + plan.notional_added
    allowed_by_margin = margin.compute_largest_notional(
        r.pick_margin(bar.terms, i),
        equity=backing - plan.fee,
        held=plan.notional_held,
        cost=plan.cost,
        multiplier=bar.quotes.instruments[i].initial,
        enough=notional_wanted,
    )
    if allowed_by_margin >= notional_wanted or plan.notional_added == 0.0:
        return 1.0
    return float(max(allowed_by_margin - plan.notional_kept, 0.0) / plan.notional_added)


def sum_uncounted_profits(bar: r.AccountBar, realized: int) -> float:
    """Return the unrealized profit of cross positions that may not back orders: money (4.3).

    Some venues count only a share of it, ``profit_counts``. But an order that closes a position
    turns its profit into money, which counts in full. ``realized`` says which positions are closed
    like that: instrument ``realized``, all positions whose orders flip them (ALL_FLIPS), or none
    (NO_ORDER).
    """
    total = 0.0
    for i in range(len(bar.state.positions)):
        if not r.is_held(bar.state, i) or r.is_isolated(bar.terms, i):
            continue

        if not is_profit_realized(bar.scratch, i, realized):
            rules = r.pick_instrument(bar.terms, i)
            position = r.pick_position(bar.state, i)
            total += compute_uncounted(rules, position, bar.state.positions[i].value)
    return total


@inlined
def is_profit_realized(scratch: r.Scratch, i: int, realized: int) -> bool:
    """Return whether an order turns the profit of position i into money, which counts in full.

    ``realized`` is the index of a position that is closed, or ALL_FLIPS for all positions whose
    orders flip them, or NO_ORDER.
    """
    if i == realized:
        return True
    # A flip is an increase on the other side than what is held.
    plan = scratch.plans[i]
    is_flip = plan.kind == r.INCREASE and plan.notional_held < 0.0
    return realized == ALL_FLIPS and is_flip


def compute_room(
    bar: r.AccountBar, backing: float, margin_of_others: float, factor: float
) -> float:
    """Return the money left if all increases added ``factor``, 0 to 1, of what they want.

    Left of the backing, after costs and initial margin; negative if the factor does not pass. It is
    concave in the factor, so the factors that pass are an interval. ``backing`` is money that may
    back orders. ``margin_of_others`` is the initial margin of cross positions that do not increase:
    it is read only where margins add up, not where the account is margined as a whole
    (:func:`is_joint`).
    """
    terms = bar.terms
    is_whole = is_joint(terms, bar.state)
    costs = 0.0
    paid_to_isolated = 0.0
    initial_margin = margin_of_others
    for i in range(len(bar.state.positions)):
        plan = bar.scratch.plans[i]
        if plan.kind != r.INCREASE:
            continue

        # An isolated increase takes margin and fee from the cash that backs the pool, and a flip
        # gives back what it closes.
        notional_added = factor * plan.notional_added
        if r.is_isolated(terms, i):
            paid_to_isolated += notional_added * plan.cost_of_balance - plan.returned_by_flip
            continue

        # A cross increase costs the worsening of its fill and its fees, and needs initial margin.
        notional = plan.notional_kept + notional_added
        costs += plan.cost * (notional - plan.notional_held) + plan.fee
        if not is_whole and notional > 0.0:
            initial = bar.quotes.instruments[i].initial
            initial_margin += margin.compute_initial(r.pick_margin(terms, i), notional, initial)

    if is_whole:
        initial_margin = try_initial(bar, factor)
    return backing - costs - paid_to_isolated - initial_margin


def try_initial(bar: r.AccountBar, factor: float) -> float:
    """Return the initial margin that the account would need after ``factor`` of all increases.

    Money. The caller compares it with a backing that has no haircuts and no options in it. So
    haircuts, which lower the backing, are added here, the value of options that backs the pool is
    subtracted, and what bought options cost is added. A trial: writes the quantities after the
    increases into the account, computes, and writes those before back.
    """
    terms = bar.terms
    state = bar.state
    write_increases(bar, factor)
    paid_for_options = options.try_options(terms, state, factor)

    needed = compute_needed(terms, state, is_initial=True) + paid_for_options
    needed += margin.compute_haircuts(terms.rules, state.held)
    if options.holds_options(state):
        needed -= compute_counted(terms, state)
    take_increases_back(state, bar.scratch)
    return needed


def write_increases(bar: r.AccountBar, factor: float) -> None:
    """Write the quantities after ``factor``, 0 to 1, of all increases into the account: a trial.

    ``quantity_aside`` of the walk keeps those before, for :func:`take_increases_back`, which must
    follow.
    """
    for i in range(len(bar.state.positions)):
        position = bar.state.positions[i]
        bar.scratch.walk[i].quantity_aside = position.quantity

        plan = bar.scratch.plans[i]
        if plan.kind == r.INCREASE:
            notional = plan.notional_kept + factor * plan.notional_added
            contract_notional = abs(bar.quotes.instruments[i].fill)
            position.quantity = plan.side * notional / contract_notional


def take_increases_back(state: r.AccountState, scratch: r.Scratch) -> None:
    """Write the quantities before a trial back, those of options too."""
    for i in range(len(state.positions)):
        state.positions[i].quantity = scratch.walk[i].quantity_aside
    for k in range(len(state.options.quantities_aside)):
        state.options.positions.quantities[k] = state.options.quantities_aside[k]


def find_passing(bar: r.AccountBar, backing: float, margin_of_others: float) -> float:
    """Return any factor of the increases, 0 to 1, that has room; NaN if there is none.

    Room is the money that is left after ``factor`` of all increases (:func:`compute_room`): a
    factor passes where it is at least 0. Room is concave in the factor, so a golden section search
    goes towards its highest point, and ends at the first factor that passes. For ``backing`` and
    ``margin_of_others`` see :func:`compute_room`.
    """
    low = 0.0
    high = 1.0
    left = GOLDEN
    right = 1.0 - GOLDEN
    left_room = compute_room(bar, backing, margin_of_others, left)
    right_room = compute_room(bar, backing, margin_of_others, right)
    for _ in range(GOLDEN_TRIALS):
        if right_room >= 0.0:
            return right
        if left_room >= 0.0:
            return left

        # The highest room is not on the far side of the point that has less of it, so that part of
        # the interval is left out. The other point stays, and its room need not be computed again.
        if left_room < right_room:
            low = left
            left = right
            left_room = right_room
            right = high - GOLDEN * (high - low)
            right_room = compute_room(bar, backing, margin_of_others, right)
        else:
            high = right
            right = left
            right_room = left_room
            left = low + GOLDEN * (high - low)
            left_room = compute_room(bar, backing, margin_of_others, left)
    return math.nan


def narrow(
    bar: r.AccountBar, backing: float, margin_of_others: float, passing: float, failing: float
) -> float:
    """Return the largest factor of all increases that passes, between ``passing`` and ``failing``.

    A factor passes if money is left after that part of all increases (:func:`compute_room`, which
    says what ``backing`` and ``margin_of_others`` are). The interval is narrowed from both sides;
    its passing end is returned, so that the answer itself passes.
    """
    passing_room = compute_room(bar, backing, margin_of_others, passing)
    failing_room = compute_room(bar, backing, margin_of_others, failing)
    for trial in range(MOST_TRIALS):
        if not failing - passing > NARROW:
            break

        # By turns: where a straight line through both ends is 0, which is exact if the room is
        # linear in the factor; and the middle, so that the interval is halved.
        middle = passing + 0.5 * (failing - passing)
        if trial % 2 == 0 and passing_room > failing_room:
            part = passing_room / (passing_room - failing_room)
            on_line = passing + (failing - passing) * part
            if passing < on_line < failing:
                middle = on_line
        # No float lies between the two.
        if not passing < middle < failing:
            break

        room = compute_room(bar, backing, margin_of_others, middle)
        if room >= 0.0:
            passing = middle
            passing_room = room
        else:
            failing = middle
            failing_room = room
    return passing


# The margin of one instrument alone.


def compute_rate_alone(bar: r.AccountBar, i: int) -> float:
    """Return the initial margin per unit of notional of instrument i, if it were held alone.

    A trial: writes the account as if it held a notional of 1 on the side of the order and nothing
    else, computes its margin, with the haircut of a spot leg, and writes back what was held.
    """
    rules = bar.terms.rules
    held = bar.state.held
    # The signed contracts whose notional is 1.
    quantity = bar.scratch.plans[i].side / abs(bar.state.positions[i].value)

    hide_others(bar.state, bar.scratch, i, quantity)
    margin_rate = margin.compute_portfolio_requirement(rules, held, is_initial=True)
    margin_rate += margin.compute_haircuts(rules, held)
    show_others(bar.state, bar.scratch)
    return margin_rate


def hide_others(state: r.AccountState, scratch: r.Scratch, i: int, quantity: float) -> None:
    """Write the account as if it held ``quantity`` contracts of instrument i and nothing else.

    What it holds, positions and collateral, is put aside in the scratch (``quantity_aside`` and
    ``amount_aside``) until :func:`show_others`, which must follow. Options are not touched.
    """
    for j in range(len(state.positions)):
        position = state.positions[j]
        scratch.walk[j].quantity_aside = position.quantity
        position.quantity = quantity if j == i else 0.0
    for c in range(len(state.held.amounts)):
        scratch.assets[c].amount_aside = state.held.amounts[c]
        state.held.amounts[c] = 0.0


def show_others(state: r.AccountState, scratch: r.Scratch) -> None:
    """Write back the positions and collateral that :func:`hide_others` kept."""
    for j in range(len(state.positions)):
        state.positions[j].quantity = scratch.walk[j].quantity_aside
    for c in range(len(state.held.amounts)):
        state.held.amounts[c] = scratch.assets[c].amount_aside
