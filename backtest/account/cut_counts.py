"""What each limit cut of the decisions, summed over a run: ``result.target_cuts()``.

A decision asks for a notional; limits cut it one after the other, and the market fills what they
leave. :func:`count_decisions` adds the decisions of a bar to ``scratch.cuts``, of shape (n + 1,
causes, sums): a row for each instrument, and the last one for an account of several.

====================  ============================================================================
word                  what it is, and its unit
====================  ============================================================================
notional_asked        what a decision asks for before all limits: notional by side
target                what the limits of leverage leave of it: notional by side
notional_filled       notional after the fill, by side, at the price of the order
cut                   what one limit took on the way from asked to filled: notional
cause                 the limit that cut: an index of :data:`CAUSES`
====================  ============================================================================
"""

from __future__ import annotations

import math
from typing import NamedTuple

from backtest.account import records as r
from backtest.account.order_limits import BAND_KEPT, BAND_OVERRULED
from backtest.account.orders import find_limit, truncate
from backtest.core import FloatArray
from backtest.core.kernels import inlined
from backtest.core.units import DAY, TOLERANCE

CAUSES = (
    "all",
    "min_leverage",
    "max_leverage",
    "max_gross_leverage",
    "band",
    "margin_share",
    "initial_margin",
    "venue_leverage",
    "wallet",
    "participation",
    "lot",
    "min_notional",
    "unfilled",
    "cap_over_band",
    "band_over_cap",
)
"""What may cut a target: all limits together, each limit, and two conflicts.

Limits stand in the order in which they cut, but for the common factor of all increases: it cuts
after the wallet, and counts with an order's own margin. It is the middle axis of ``Scratch.cuts``;
the constants below are its indices.
"""
ALL = CAUSES.index("all")
MIN_LEVERAGE = CAUSES.index("min_leverage")
MAX_LEVERAGE = CAUSES.index("max_leverage")
MAX_GROSS = CAUSES.index("max_gross_leverage")
BAND = CAUSES.index("band")
MARGIN_SHARE = CAUSES.index("margin_share")
INITIAL_MARGIN = CAUSES.index("initial_margin")
VENUE_LEVERAGE = CAUSES.index("venue_leverage")
WALLET = CAUSES.index("wallet")
PARTICIPATION = CAUSES.index("participation")
LOT = CAUSES.index("lot")
MIN_NOTIONAL = CAUSES.index("min_notional")
UNFILLED = CAUSES.index("unfilled")
CAP_OVER_BAND = CAUSES.index("cap_over_band")
BAND_OVER_CAP = CAUSES.index("band_over_cap")

N_SUMS = 7
COUNT, ASKED, HELD, CUT, DISTANCE, DAYS, NEXT_DAY = range(N_SUMS)
"""Sums over the decisions that a cause cut: the last axis of ``Scratch.cuts``.

How many; leverage asked for, held after, cut (signed) and cut (without sign); on how many days, and
the time in ns at which the next day begins.
"""
MIN_LEVERAGE_ROW = r.NUMBERS.index("min_leverage")
"""Column of the account's ``min_leverage`` in ``Terms.numbers``."""
LEAST_CUT = 1e-9
"""A limit counts if it cuts more than this part of a decision: less is rounding."""


class Decision(NamedTuple):
    """One decision that is counted.

    Notional by side as it was asked and after the fill, 1 / equity (which makes leverage of
    notional), and the time of the bar in ns.
    """

    notional_asked: float
    notional_filled: float
    inverse_equity: float
    time: float


def count_decisions(bar: r.AccountBar, t: int, equity: float) -> None:
    """Add the decisions of a bar, and what limits cut of them, to ``scratch.cuts``.

    Without equity there is no leverage to count in.
    """
    if not equity > 0.0:
        return
    time = 1.0 * bar.feed.time[t]
    for i in range(len(bar.state.positions)):
        if bar.scratch.plans[i].kind != r.NO_TARGET:
            count_decision(bar, equity, time, i)


@inlined
def count_decision(bar: r.AccountBar, equity: float, time: float, i: int) -> None:
    """Add one decision to ``scratch.cuts``: what each limit cut from asked to filled.

    Called after its order was filled, or left because of its band. The cuts add up to asked less
    filled, in the order in which they were made: each cuts what the one before it left. Notional is
    by side: positive on the side of the decision.
    """
    plan = bar.scratch.plans[i]
    notional_asked = compute_notional_asked(bar, equity, i)

    # Infinite and unknown leverage ask for no number. Staying flat is no decision.
    stays_flat = bar.state.positions[i].signal == 0.0 and plan.notional_held == 0.0
    if not notional_asked < math.inf or stays_flat:
        return

    is_kept = plan.kind == r.IN_BAND
    notional_filled = plan.notional_held
    if not is_kept:
        notional_filled = plan.quantity_filled * plan.contract_notional
    decision = Decision(
        notional_asked=notional_asked,
        notional_filled=notional_filled,
        inverse_equity=1.0 / equity,
        time=time,
    )

    # All limits together are counted also where nothing was cut.
    add_cut(bar.scratch, decision, i, ALL, cut=notional_asked - notional_filled)
    if is_kept:
        count_kept(bar, decision, equity, i)
    else:
        count_ordered(bar, decision, equity, i)


@inlined
def count_kept(bar: r.AccountBar, decision: Decision, equity: float, i: int) -> None:
    """Add what the limits of leverage cut of a decision, and then its band, which keeps a position.

    Nothing is ordered, so of its plan only ``target`` and ``notional_held`` are of this bar.
    """
    plan = bar.scratch.plans[i]
    count_leverage(bar, decision, equity, plan.target, i)
    count_cut(bar.scratch, decision, i, BAND, plan.target - plan.notional_held)


@inlined
def count_ordered(bar: r.AccountBar, decision: Decision, equity: float, i: int) -> None:
    """Add what the limits of leverage cut of a decision, the share of the equity, then the market.

    The share is ``margin_share``. After it come margin, wallet, volume, lots and the market.
    """
    scratch = bar.scratch
    plan = scratch.plans[i]
    # The gross cap made an order of a target inside its band. It cuts nothing: the order passes.
    if plan.cap_and_band == BAND_OVERRULED:
        add_cut(scratch, decision, i, CAP_OVER_BAND, cut=0.0)

    # The share came after the limits of leverage, and ``target`` is what it left.
    count_leverage(bar, decision, equity, plan.target + plan.cut_by_share, i)
    count_cut(scratch, decision, i, MARGIN_SHARE, plan.cut_by_share)
    count_order(bar, decision, i)


@inlined
def compute_notional_asked(bar: r.AccountBar, equity: float, i: int) -> float:
    """Return the notional that a decision asks for, before all limits (4.1)."""
    position = bar.state.positions[i]
    # Closing asks for 0, also of an unknown leverage: 0 times NaN would be NaN.
    if position.signal == 0.0:
        return 0.0
    overlay = bar.state.wallet.overlay
    return abs(position.signal) * position.leverage * equity * overlay


def count_leverage(
    bar: r.AccountBar, decision: Decision, equity: float, target: float, i: int
) -> None:
    """Add what the limits of leverage cut of a decision, from the notional asked to the target.

    Each cuts what the one before it left: ``min_leverage`` (a cut is negative where it raises),
    ``max_leverage``, and the cap of gross leverage, which is the rest. ``target`` is the notional
    that they left, money.
    """
    if decision.notional_asked == target:
        return

    scratch = bar.scratch
    position = bar.state.positions[i]
    overlay = bar.state.wallet.overlay
    signal_size = abs(position.signal)
    rules = r.by_reference(r.pick_instrument(bar.terms, i))
    min_leverage = bar.terms.numbers[i, MIN_LEVERAGE_ROW]
    max_leverage = find_limit(rules, bar.quotes.instruments[i])

    raised = max(position.leverage, min_leverage)
    capped = min(raised, max_leverage)
    after_min = signal_size * raised * equity * overlay
    after_max = signal_size * capped * equity * overlay

    count_cut(scratch, decision, i, MIN_LEVERAGE, decision.notional_asked - after_min)
    count_cut(scratch, decision, i, MAX_LEVERAGE, after_min - after_max)
    count_cut(scratch, decision, i, MAX_GROSS, after_max - target)


def count_over_cap(bar: r.AccountBar, gross: float) -> None:
    """Count a close above the cap of gross leverage, if bands had left it there.

    ``gross`` is the gross notional at the close: money. Written into ``scratch.cuts``, in the last
    row, that of the account, as no single position is over the cap.
    """
    cap = bar.terms.max_gross_leverage * bar.state.wallet.equity
    if gross > cap * (1.0 + TOLERANCE) and has_kept_band(bar.scratch):
        account_row = len(bar.scratch.cuts) - 1
        # An account of one instrument counts in the row of that, and leaves its own empty.
        row = account_row if account_row > 1 else 0
        bar.scratch.cuts[row, BAND_OVER_CAP, COUNT] += 1.0


def has_kept_band(scratch: r.Scratch) -> bool:
    """Return whether a band kept a position although gross was over the cap."""
    n_instruments = len(scratch.cuts) - 1
    for i in range(n_instruments):  # noqa: SIM110 - numba compiles no generators
        if scratch.plans[i].cap_and_band == BAND_KEPT:
            return True
    return False


def count_order(bar: r.AccountBar, decision: Decision, i: int) -> None:
    """Add what margin, wallet, volume, lots, minimum and the market cut of an order.

    All are notional by side, and each is what the limit before has left::

        target -> allowed by its own margin -> kept and added, after the wallet
               -> allowed, after the common factor of all increases
               -> rounded, after volume, lots and minimum -> filled

    Reductions are not cut by margin or wallet. An order that found no place (UNPLACED) adds
    nothing, and all that its margin would have let it add counts as UNFILLED.
    """
    scratch = bar.scratch
    plan = scratch.plans[i]
    notional_allowed = plan.quantity_allowed * plan.contract_notional
    notional_rounded = plan.quantity_rounded * plan.contract_notional

    # 4.3 Margin and wallet. The common factor cuts after the wallet, and counts as margin.
    if plan.kind == r.INCREASE:
        notional_after_wallet = plan.notional_kept + plan.notional_added
        count_margin(bar, decision, i, cut_by_factor=notional_after_wallet - notional_allowed)
        cut_by_wallet = plan.allowed_by_margin - notional_after_wallet
        count_cut(scratch, decision, i, WALLET, cut_by_wallet)
    elif plan.kind == r.UNPLACED:
        count_margin(bar, decision, i, cut_by_factor=0.0)
        cut_unplaced = plan.allowed_by_margin - notional_allowed
        count_cut(scratch, decision, i, UNFILLED, cut_unplaced)

    # 4.4 Participation in the volume, 4.5 lots and minimum, and what rests without a fill.
    if notional_allowed != notional_rounded:
        count_rounding(bar, decision, i)
    cut_unfilled = notional_rounded - decision.notional_filled
    count_cut(scratch, decision, i, UNFILLED, cut_unfilled)


@inlined
def count_margin(bar: r.AccountBar, decision: Decision, i: int, cut_by_factor: float) -> None:
    """Add what margin cut of an increase: its own margin, and the common factor.

    The cause is VENUE_LEVERAGE where the account sets one, else the brackets.
    """
    plan = bar.scratch.plans[i]
    cause = INITIAL_MARGIN
    if r.pick_margin(bar.terms, i).setting > 0.0:
        cause = VENUE_LEVERAGE
    cut_by_own_margin = plan.target - plan.allowed_by_margin
    count_cut(bar.scratch, decision, i, cause, cut_by_own_margin + cut_by_factor)


def count_rounding(bar: r.AccountBar, decision: Decision, i: int) -> None:
    """Add what participation, lots and minimum notional cut of an order to ``scratch.cuts``.

    The fill rounds an order in one step. Its causes are told apart here: first what volume alone
    would leave; the rest is due to the minimum if the order was skipped, else to the lot.
    Quantities are contracts by side, cuts are notional.
    """
    plan = bar.scratch.plans[i]
    rules = r.by_reference(r.pick_instrument(bar.terms, i))

    # 4.4 Participation: what volume lets trade, towards what is allowed.
    largest_change = rules.participation * bar.quotes.instruments[i].volume
    quantity_tradable = plan.quantity_allowed
    if abs(plan.quantity_allowed - plan.quantity_held) > largest_change:
        if plan.quantity_allowed > plan.quantity_held:
            quantity_tradable = plan.quantity_held + largest_change
        else:
            quantity_tradable = plan.quantity_held - largest_change
    cut_by_volume = (plan.quantity_allowed - quantity_tradable) * plan.contract_notional
    count_cut(bar.scratch, decision, i, PARTICIPATION, cut_by_volume)

    # 4.5 A skipped order leaves what is held, but for rounding; else lots cut it.
    filled_change = abs(plan.quantity_rounded - plan.quantity_held)
    is_skipped = filled_change <= find_dust(rules, plan.quantity_held)
    cause = LOT
    if is_skipped and is_under_minimum(rules, plan, quantity_tradable):
        cause = MIN_NOTIONAL
    notional_allowed = plan.quantity_allowed * plan.contract_notional
    notional_rounded = plan.quantity_rounded * plan.contract_notional
    cut_by_rounding = notional_allowed - cut_by_volume - notional_rounded
    count_cut(bar.scratch, decision, i, cause, cut_by_rounding)


def is_under_minimum(rules: r.InstrumentRules, plan: r.OrderPlan, quantity: float) -> bool:
    """Return whether an order that was skipped was skipped for its minimum notional (4.5).

    ``quantity`` are the contracts by side that it leads to. It is under the minimum as it stands,
    or once it is cut to whole lots. Where whole lots leave nothing of it, the lot is what skipped
    it, not the minimum.
    """
    change = abs(quantity - plan.quantity_held)
    if change * plan.contract_notional < rules.min_notional:
        return True

    whole = math.copysign(truncate(rules, abs(quantity)), quantity)
    change_in_lots = abs(whole - plan.quantity_held)
    # Up to the dust a change is float rounding: nothing.
    is_left = find_dust(rules, plan.quantity_held) < change_in_lots
    is_small = change_in_lots * plan.contract_notional < rules.min_notional
    return bool(is_left and is_small)


def find_dust(rules: r.InstrumentRules, quantity: float) -> float:
    """Return the contracts up to which a change of a quantity is float rounding."""
    return float(max(1e-6 * rules.lot, TOLERANCE * abs(quantity)))


def count_cut(scratch: r.Scratch, decision: Decision, i: int, cause: int, cut: float) -> None:
    """Add a cut, in notional, to ``scratch.cuts``, unless it is float rounding."""
    larger = max(decision.notional_asked, abs(decision.notional_filled))
    if abs(cut) > LEAST_CUT * larger:
        add_cut(scratch, decision, i, cause, cut)


@inlined
def add_cut(scratch: r.Scratch, decision: Decision, i: int, cause: int, cut: float) -> None:
    """Add a cut to the row of its instrument, and to that of an account of several.

    ``scratch.cuts`` has one row more than instruments: the last one is the account's. An account of
    one instrument leaves it empty.
    """
    account_row = len(scratch.cuts) - 1
    add_to_row(scratch.cuts, decision, i, cause, cut)
    if account_row > 1:
        add_to_row(scratch.cuts, decision, account_row, cause, cut)


def add_to_row(cuts: FloatArray, decision: Decision, row: int, cause: int, cut: float) -> None:
    """Add a cut to the sums of a row of ``cuts`` and a cause, as leverage: notional / equity.

    ``cut`` is notional. A day counts once, however many decisions of it were cut.
    """
    sums = cuts[row, cause]
    sums[COUNT] += 1.0
    sums[ASKED] += decision.notional_asked * decision.inverse_equity
    sums[HELD] += decision.notional_filled * decision.inverse_equity
    sums[CUT] += cut * decision.inverse_equity
    sums[DISTANCE] += abs(cut) * decision.inverse_equity

    # NEXT_DAY is the time, ns, at which the day after the last one that was counted begins.
    if decision.time >= sums[NEXT_DAY]:
        sums[DAYS] += 1.0
        days_since_epoch = math.floor(decision.time / DAY)
        sums[NEXT_DAY] = (days_since_epoch + 1.0) * DAY
