"""Turn the decisions of a close into orders, and fill them at market.

:func:`fill_decisions` is step 5 of a bar. It takes section 4 of ``docs/accounting.md`` in this
order, and the order matters, as each step reads what the ones before it wrote:

1. targets: the notional that each decision asks for (4.1), bands around it (4.2), and the cap of
   the gross leverage over all;
2. reductions fill, because they free margin for the increases;
3. each increase is cut to its share of the equity, its own margin and its wallet (4.3);
4. isolated increases are cut to the balance that they share;
5. all increases are cut by one common factor to the initial margin of the account;
6. increases fill, in whole lots and as far as volume allows (4.4, 4.5).

:mod:`.limit_orders` takes the same steps for orders that rest at a limit. Steps hand over through
``bar.scratch.plans``, an :class:`.OrderPlan` for each instrument.

Sides. An order has a side: 1 if it leads to a long position, -1 to a short one. A quantity "by
side" is multiplied by the side, so one rule serves longs and shorts: it is positive if it lies on
the side of the order, negative if the order has to close it first: such an order is a flip.
Multiplied by the side again, it has its sign back.

====================  ============================================================================
word                  what it is, and its unit
====================  ============================================================================
target                what the decision asks for: notional by side, never negative
notional_held         notional before the order, by side
notional_kept         the part of an increase that is held already; 0 for a flip
notional_added        the part of an increase that the order adds to it
allowed_by_...        the notional that a rule allows at most, by side; in a plan, what it left of
                      the target: never less than is held
quantity              signed contracts, or by side where it says so
contract value        u(P) of section 1: money a contract, negative if inverse
contract_notional     its absolute value: notional of one contract, at the quote's fill
worsening             how much worse than the quote an order fills, as a fraction
fee_rate              the fee of an order, per unit of notional
fee                   the fixed fee of an order, money
cost                  worsening and fee together, per unit of notional
cost_of_balance       money that the balance pays per unit of notional added
returned_by_flip      money that the closing part of a flip gives back to the balance, less the
                      fixed fee of the order; minus that fee for an increase that is no flip
common_factor         the part (0 to 1) of all increases that initial margin allows
====================  ============================================================================

``plan.kind`` of an order: NO_TARGET (nothing was decided, or nothing can fill), IN_BAND (a target
so near to what is held that it makes no order), REDUCE (or close), INCREASE (or flip), UNPLACED (an
increase that cannot rest at a limit). :mod:`.quiet` asks before any limit has cut an order, and
uses two more: SMALL (surely under the minimum notional) and FILLS (else).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from backtest import margin
from backtest.account import balance, cut_counts, options, order_limits, orders
from backtest.account import records as r
from backtest.account.events import Event
from backtest.account.money import Wallet
from backtest.account.position import compute_backing, compute_profit, worsen
from backtest.core.kernels import inlined


class Target(NamedTuple):
    """What a decision asks for: a notional on the side of its order, 1 for long and -1 for short.

    ``is_there`` is False if it asks for nothing; then the others mean nothing. ``notional_held`` is
    what stands before the order, by side. The target, ``notional``, is never negative and may be
    infinite: all that margin allows.
    """

    is_there: bool
    side: float
    notional_held: float
    notional: float


def fill_decisions(bar: r.AccountBar, t: int, equity: float) -> None:
    """Fill the decisions of the last close at ``quote.fill`` (step 5 of a bar).

    ``equity`` is that before anything fills: all targets and limits start from it.
    """
    state = bar.state
    scratch = bar.scratch
    balance.value_at(state, bar.quotes.fill, bar.quotes.asset_fill)
    choose_orders(bar, equity)

    # Reductions and closings fill first, as they free margin for the increases.
    for i in range(len(state.positions)):
        if scratch.plans[i].kind == r.REDUCE:
            contract_notional = abs(bar.quotes.instruments[i].fill)
            quantity = compute_target_quantity(scratch.plans[i], contract_notional)
            trade_to(bar, t, i, quantity, is_increase=False)
    options.begin_options(bar, t, equity)

    common_factor = 1.0
    if has_order(scratch, r.INCREASE) or options.is_adding_options(state):
        common_factor = fill_increases(bar, t, equity)

    # What did not fill is not tried again: the next decision replaces it.
    for i in range(len(state.positions)):
        state.positions[i].is_pending = 0

    # Runs that report what limits cut have sums to add to, others none.
    if len(scratch.cuts) > 0:
        for i in range(len(state.positions)):
            order_limits.write_stages(bar, i, common_factor)
        cut_counts.count_decisions(bar, t, equity)


def fill_increases(bar: r.AccountBar, t: int, equity: float) -> float:
    """Cut the increases to what margin and balance allow, and fill them; return the common factor.

    That is the part, 0 to 1, of all increases that the initial margin of the account allows.
    Options that are bought or sold anew are cut by it too, and fill last. Called after the
    reductions have filled. Each cut works on what the one before it left in the plans.
    """
    state = bar.state
    scratch = bar.scratch
    cut_increases(bar, equity)
    cut_to_balance(bar)
    common_factor = order_limits.fit_increases(bar)

    # What the wallet owes when all is filled has two sources: losses of positions that were closed
    # under their margin, and fees. They are told apart here, as only fees are paid by margins.
    debt_of_closes = balance.compute_debt(state)
    for i in range(len(state.positions)):
        if scratch.plans[i].kind == r.INCREASE:
            debt_before_fill = balance.compute_debt(state)
            quantity = compute_increased_quantity(bar, i, common_factor)
            trade_to(bar, t, i, quantity, is_increase=True)
            # A flip whose increase was cut to nothing has closed its position.
            if not r.is_held(state, i):
                debt_of_closes += balance.compute_debt(state) - debt_before_fill

    # Isolated margins pay the fees that emptied the wallet, as section 3 of accounting says.
    balance.take_from_isolated(bar.terms, state, debt_of_closes)
    options.add_options(bar, t, common_factor)
    return common_factor


def has_order(scratch: r.Scratch, kind: int) -> bool:
    """Return whether the order of any instrument is of a kind."""
    for i in range(len(scratch.plans)):  # noqa: SIM110 - numba compiles no generators
        if scratch.plans[i].kind == kind:
            return True
    return False


def convert_to_contracts(side: float, notional: float, contract_notional: float) -> float:
    """Return a notional by side as signed contracts.

    A product with the inverse, as sweeps compute it: a quotient may differ in its last bit. Adding
    0 makes 0 of -0, which is what a sale down to nothing would be.
    """
    return float(side * notional * (1.0 / contract_notional) + 0.0)


def compute_target_quantity(plan: r.OrderPlan, contract_notional: float) -> float:
    """Return the target of an order in signed contracts."""
    return convert_to_contracts(plan.side, plan.target, contract_notional)


# Targets and bands: which decisions become orders.


def choose_orders(bar: r.AccountBar, equity: float) -> None:
    """Write side, target, notional held and kind of each order into its plan.

    First all targets, then the cap of gross leverage on them together, then the bands around what
    the cap left, then the cap again, where bands break it.
    """
    terms = bar.terms
    scratch = bar.scratch
    n_instruments = len(bar.state.positions)
    is_capped = terms.max_gross_leverage < math.inf

    # 4.1 Targets. The cap of gross leverage comes before all other limits.
    for i in range(n_instruments):
        write_target(bar, equity, i)
    if is_capped:
        order_limits.scale_targets(bar, equity)

    # 4.2 Bands: a target outside of its band becomes an order.
    for i in range(n_instruments):
        plan = scratch.plans[i]
        if plan.kind == r.IN_BAND:
            rules = r.pick_instrument(terms, i)
            if orders.is_outside(rules, equity, plan.target, plan.notional_held):
                plan.kind = order_limits.classify_order(plan)
    if is_capped:
        order_limits.narrow_bands(bar, equity)


@inlined
def is_deciding(state: r.AccountState, quotes: r.MarketBar, i: int) -> bool:
    """Return whether a decision waits for a fill that this bar can give."""
    is_waiting = state.positions[i].is_pending == 1 and state.wallet.is_ruined == 0.0
    return bool(is_waiting and quotes.instruments[i].is_listed == 1)


@inlined
def is_ending(state: r.AccountState, i: int) -> bool:
    """Return whether the instrument may only close: it or the account has ended."""
    return bool(state.positions[i].is_halted == 1 or state.wallet.is_over != 0.0)


def write_target(bar: r.AccountBar, equity: float, i: int) -> None:
    """Begin the plan of instrument i: write its kind, and for a decision its side and target.

    The target is notional on the side of the decision, never negative; ``notional_held`` is that
    before the order, by the same side. The kind says what follows:

    - NO_TARGET: nothing was decided, or nothing can fill;
    - REDUCE: the instrument or the account has ended, so the position closes;
    - IN_BAND: there is a target. The bands, tested later, may make an order of it.
    """
    state = bar.state
    plan = bar.scratch.plans[i]
    clear_plan(plan)
    if not is_deciding(state, bar.quotes, i):
        return
    # What has ended closes whatever was decided: its target stays 0.
    if is_ending(state, i):
        if r.is_held(state, i):
            plan.kind = r.REDUCE
        return

    # A decision is a leverage, or contracts (as in the hedge of an option). Contracts hold for one
    # bar, so they are forgotten: NaN.
    if math.isnan(plan.target_contracts):
        target = measure_target(bar, equity, i)
    else:
        target = measure_target_contracts(bar, i)
        plan.target_contracts = math.nan
    if not target.is_there:
        return

    plan.kind = r.IN_BAND
    plan.side = target.side
    plan.notional_held = target.notional_held
    plan.target = target.notional
    # An infinite leverage asks for all that margin allows, which depends on side and notional held.
    if target.notional == math.inf:
        plan.target = compute_largest_target(bar, equity, i)


@inlined
def clear_plan(plan: r.OrderPlan) -> None:
    """Write a plan without a target, in which nothing is added or cut yet."""
    plan.kind = r.NO_TARGET
    plan.target = 0.0
    plan.notional_added = 0.0
    plan.notional_kept = 0.0
    plan.cap_and_band = 0.0
    plan.cut_by_share = 0.0


@inlined
def measure_target(bar: r.AccountBar, equity: float, i: int) -> Target:
    """Return the target of the leverage that was decided for instrument i."""
    rules = r.pick_instrument(bar.terms, i)
    quote = bar.quotes.instruments[i]
    return measure_order(rules, bar.state.wallet, bar.state.positions[i], quote, equity)


@inlined
def measure_order(
    rules: r.InstrumentRules,
    wallet: Wallet,
    position: r.PositionState,
    quote: r.Quote,
    equity: float,
) -> Target:
    """Return what the leverage and signal of a position ask for, as notional by side (4.1).

    Leverage and signal were written into ``position`` at the last close, ``wallet.overlay``, which
    multiplies all targets, too. ``equity`` is that at the fill. No target (``is_there`` False) is
    an answer of its own: nothing is to change.
    """
    signal = position.signal
    overlay = wallet.overlay

    # A leverage of NaN leaves the position unchanged, but a signal of 0 always closes it (4.1).
    is_unknown = math.isnan(position.leverage) or math.isnan(overlay)
    if is_unknown and signal != 0.0:
        return Target(is_there=False, side=1.0, notional_held=0.0, notional=0.0)
    # An equity that cannot pay the fixed fee fills nothing (4.7); nor does a NaN.
    if not equity > orders.compute_order_fee(rules, quote):
        return Target(is_there=False, side=1.0, notional_held=0.0, notional=0.0)

    side = 1.0 if signal > 0.0 else -1.0
    notional_held = position.quantity * (side * abs(quote.fill))
    notional = orders.compute_target(rules, quote, equity, position.leverage, signal)
    # An overlay of 0 closes, whatever the target: infinity times 0 would be NaN.
    notional = notional * overlay if overlay > 0.0 else 0.0
    return Target(is_there=True, side=side, notional_held=notional_held, notional=notional)


def measure_target_contracts(bar: r.AccountBar, i: int) -> Target:
    """Return what a decision in contracts asks for, as notional by side.

    The signed contracts stand in ``target_contracts`` of the plan: somebody, as the hedge of an
    option, asked for them in place of a leverage.
    """
    target_contracts = bar.scratch.plans[i].target_contracts
    quantity_held = bar.state.positions[i].quantity
    contract_notional = abs(bar.quotes.instruments[i].fill)

    # Contracts of 0 close: the side is that of what is held, so that none flips.
    is_short = target_contracts < 0.0
    if target_contracts == 0.0:
        is_short = quantity_held < 0.0
    side = -1.0 if is_short else 1.0
    return Target(
        is_there=True,
        side=side,
        notional_held=quantity_held * (side * contract_notional),
        notional=abs(target_contracts) * contract_notional,
    )


def compute_largest_target(bar: r.AccountBar, equity: float, i: int) -> float:
    """Return the target of an infinite leverage: what margin allows, times the signal.

    Reads side and notional held of the plan, so these must be written before.
    """
    notional_held = bar.scratch.plans[i].notional_held
    signal_size = abs(bar.state.positions[i].signal)
    if r.is_isolated(bar.terms, i):
        allowed_by_margin = find_largest_isolated(bar, equity, i)
    else:
        allowed_by_margin = find_largest_cross(bar, i)

    # Infinity never reduces a position that is already over the limit (4.1).
    if signal_size == 1.0 and notional_held > allowed_by_margin:
        return notional_held
    return signal_size * allowed_by_margin


def find_largest_isolated(bar: r.AccountBar, equity: float, i: int) -> float:
    """Return the largest notional that the equity allows an isolated position (4.1): money.

    Before costs. Only the part of the equity that may back orders counts.
    """
    rules = r.by_reference(r.pick_instrument(bar.terms, i))
    balances = balance.pick_balances(bar.terms, bar.state, i)
    notional_held = bar.scratch.plans[i].notional_held
    quote = bar.quotes.instruments[i]
    backing = orders.compute_counted(rules, balances, quote, equity, notional_held)
    return find_largest_by_table(bar, i, backing)


def find_largest_cross(bar: r.AccountBar, i: int) -> float:
    """Return the notional that the pool of cross positions allows instrument i alone (4.1).

    As if no other position needed margin, and before costs: later limits test both.
    """
    backing = compute_backing_of_largest(bar, i)
    if not bar.terms.rules.has_scenarios:
        return find_largest_by_table(bar, i, backing)

    # Under scenarios the account has one requirement, and of the margin table only its cap holds:
    # the largest notional, whatever backs it.
    allowed_by_cap = find_largest_by_table(bar, i, backing=math.inf)
    # The scenario margin of a unit of notional, if it were all that the account holds.
    margin_rate = order_limits.compute_rate_alone(bar, i)
    # An instrument that needs no margin is limited by the cap alone.
    if not margin_rate > 0.0:
        return allowed_by_cap
    allowed_by_backing = max(backing, 0.0) / margin_rate
    return min(allowed_by_cap, allowed_by_backing)


def compute_backing_of_largest(bar: r.AccountBar, i: int) -> float:
    """Return the money of the pool that may back the largest order of cross instrument i.

    That is the backing of the pool, less unrealized profits that do not count for orders.
    """
    terms = bar.terms
    backing = balance.compute_pool(terms, bar.state)
    # The pool counts a spot leg less its haircut. The initial margin of the order has that haircut
    # too, so it is added here: else it would count twice.
    backing += margin.compute_haircut(terms.rules, bar.state.held, i)

    # Profits that do not count (`profit_counts`) back no order (4.3). An order that closes what is
    # held, or flips it, makes the profit of instrument i money, which does.
    is_adding = bar.scratch.plans[i].notional_held > 0.0
    realized = order_limits.NO_ORDER if is_adding else i
    return backing - order_limits.sum_uncounted_profits(bar, realized)


def find_largest_by_table(bar: r.AccountBar, i: int, backing: float) -> float:
    """Return the largest notional whose initial margin, by the margin table, is at most a backing.

    ``backing`` is money; infinite, the answer is the largest notional of the table.
    """
    rules = r.by_reference(r.pick_instrument(bar.terms, i))
    return margin.compute_largest_notional(
        rules.margin,
        equity=backing,
        held=0.0,
        cost=0.0,
        multiplier=bar.quotes.instruments[i].initial,
        enough=math.inf,
    )


# Increases: each by itself, then together.


def cut_increases(bar: r.AccountBar, equity: float) -> None:
    """Write into plans the costs of each increase, and what its own limits leave."""
    for i in range(len(bar.state.positions)):
        if bar.scratch.plans[i].kind == r.INCREASE:
            cut_increase(bar, equity, i)


def cut_increase(bar: r.AccountBar, equity: float, i: int) -> None:
    """Cut an increase to its own limits: its share of the equity, its margin, its wallet (4.3).

    In this order. Writes into its plan the costs first, as each limit is tested after costs, then
    the target that the share leaves, and then the notional that the order keeps and adds.
    """
    plan = bar.scratch.plans[i]
    price_order(bar, i)
    # A smaller target has less impact on the price, so its costs are written anew.
    is_cut = order_limits.cut_to_share(bar, equity, i)
    if is_cut:
        price_order(bar, i)

    # Margin and wallet: writes ``notional_kept`` and ``notional_added``.
    write_increase(bar, equity, i, cost=plan.cost)

    # Nothing is added. Unless it is a flip (held by side < 0), which closes in any case, no order
    # is sent: it has no fixed fee.
    if plan.notional_added == 0.0 and plan.notional_held >= 0.0:
        plan.fee = 0.0


def write_increase(bar: r.AccountBar, equity: float, i: int, cost: float) -> None:
    """Write how much an increase may add, within the limits of its margin and its wallet (4.3).

    Writes into its plan ``notional_kept``, what is held on its side already, ``notional_added``,
    and, for the report of cuts, ``allowed_by_margin``: what the first of the two limits left.
    Notionals are positive on the side of the order. ``cost``, a fraction, is what the order costs
    per unit of notional. Where margin allows nothing more, ``notional_added`` is 0.
    """
    plan = bar.scratch.plans[i]
    target = plan.target
    # A flip, which holds less than 0 by side, keeps nothing.
    notional_kept = max(plan.notional_held, 0.0)
    margin_limit = limit_by_margin(bar, equity, i, cost)

    # An increase never becomes a reduction: what it keeps stays, however little is allowed.
    notional = max(min(target, margin_limit), notional_kept)
    plan.notional_kept = notional_kept
    plan.notional_added = 0.0
    plan.allowed_by_margin = notional
    if notional <= notional_kept:
        return

    # A cross order is not tested against a wallet: its pool is tested later, with all increases.
    if r.is_isolated(bar.terms, i):
        notional = min(target, limit_by_wallet(bar, i, notional))
    plan.notional_added = max(notional - notional_kept, 0.0)


def price_order(bar: r.AccountBar, i: int) -> None:
    """Write what an order of the size of its target costs into its plan (4.6, 4.7).

    ``worsening`` is how much worse than the quote it fills, a fraction of the price, at most
    LARGEST_WORSENING. ``cost`` is worsening and fee per unit of notional, ``fee_rate`` the fee
    alone, ``fee`` the fixed fee of an order, money.
    """
    plan = bar.scratch.plans[i]
    rules = r.pick_instrument(bar.terms, i)
    quote = bar.quotes.instruments[i]

    # 4.6 Slippage, the impact of what is added, and rounding to ticks.
    worsening = rules.slippage
    if rules.has_impact:
        notional_added = max(plan.target - plan.notional_held, 0.0)
        worsening += orders.compute_square_root_impact(rules.impact, quote, notional_added)
    worsening = min(worsening, orders.LARGEST_WORSENING)
    if rules.rounds_price:
        worsening = orders.round_worsening(r.by_reference(rules), quote.fill, plan.side, worsening)
    plan.worsening = worsening

    # 4.7 The fee by rate, which the worsened price pays, and the fixed one.
    plan.cost = orders.compute_cost(rules, plan.side, worsening)
    plan.fee_rate = rules.fee
    plan.fee = orders.compute_order_fee(rules, quote)


def limit_by_margin(bar: r.AccountBar, equity: float, i: int, cost: float) -> float:
    """Return the notional by side up to which margin lets instrument i increase alone (4.3).

    An isolated position is backed by its own part of the equity, less the fixed fee. What backs a
    cross position is shared by the pool, and tested later by the common factor: here only the
    largest notional of its margin table limits it. ``cost`` is the money that adding a unit of
    notional costs. Where margin allows the target, the search ends early: then the answer is some
    notional of at least the target.
    """
    terms = bar.terms
    plan = bar.scratch.plans[i]
    quote = bar.quotes.instruments[i]

    backing = math.inf
    if r.is_isolated(terms, i):
        rules = r.by_reference(r.pick_instrument(terms, i))
        balances = balance.pick_balances(terms, bar.state, i)
        counted = orders.compute_counted(rules, balances, quote, equity, plan.notional_held)
        backing = counted - plan.fee

    return margin.compute_largest_notional(
        r.pick_margin(terms, i),
        equity=backing,
        held=plan.notional_held,
        cost=cost,
        multiplier=quote.initial,
        enough=plan.target,
    )


def limit_by_wallet(bar: r.AccountBar, i: int, notional: float) -> float:
    """Return the part of a notional that the wallet can pay for, in an isolated position (4.3).

    Contracts that are held on the side of the order are paid for already. Those that it adds are
    paid by the wallet: margin and fee, ``contract_cost`` each. In contracts::

        quantity_kept + min(notional / contract_notional - quantity_kept, wallet / contract_cost)

    Sweeps compute this for many accounts at once, and must give the same bits. So a quotient is
    written as a product with an inverse, as it is there.
    """
    plan = bar.scratch.plans[i]
    quote = bar.quotes.instruments[i]
    contract_notional = abs(quote.fill)

    # How much an order is cut decides at which price it fills: the dearest one is assumed.
    rules = r.by_reference(r.pick_instrument(bar.terms, i))
    dearest = orders.bound_fill_notional(rules, quote, plan.side, plan.worsening)
    contract_cost = dearest * orders.compute_outlay(rules, quote, plan.fee_rate)
    affordable = compute_wallet_of_order(bar, i) * (1.0 / contract_cost)

    quantity_kept = max(plan.side * bar.state.positions[i].quantity, 0.0)
    quantity_added = notional * (1.0 / contract_notional) - quantity_kept
    quantity = quantity_kept + min(quantity_added, max(affordable, 0.0))
    return float(quantity * contract_notional)


def compute_wallet_of_order(bar: r.AccountBar, i: int) -> float:
    """Return the money that an isolated order can post as margin, after its fixed fee (4.3).

    That is the available balance, and of a flip also what closing the opposite position gives back.
    """
    plan = bar.scratch.plans[i]
    balances = balance.pick_balances(bar.terms, bar.state, i)
    quantity_held = balances.position.quantity
    is_flip = plan.side * quantity_held < 0.0
    if not is_flip:
        return balances.cash - plan.fee

    # A flip closes first: its margin and profit return, less the fee of the close.
    rules = r.by_reference(r.pick_instrument(bar.terms, i))
    quote = bar.quotes.instruments[i]
    filled_value = worsen(rules, quote.fill, plan.side, plan.worsening)
    wallet: float = balances.cash + compute_backing(rules, balances, filled_value)
    wallet -= plan.fee_rate * abs(quantity_held) * abs(filled_value)
    return wallet - plan.fee


def cut_to_balance(bar: r.AccountBar) -> None:
    """Scale isolated increases and options bought by one factor, so that the balance pays for them.

    Reads what their own limits have left, and scales it: ``notional_added`` of plans, and
    ``quantities_added`` of options. The factor is available / payments, where that is under 1::

        available = max(max(balance - paid_first, 0) + returned_by_flips, 0)

    ``payments`` are margins, fees and premiums of what is scaled. ``paid_first`` is what is never
    scaled: fees of cross increases, and what closes short options. So an isolated order never cuts
    a cross one. ``returned_by_flips`` is margin and profit of the positions that flips close. All
    are money. Writes costs of the increases into their plans on the way.
    """
    terms = bar.terms
    state = bar.state
    # Cross increases alone need no balance: initial margin limits them.
    if not has_isolated_increase(terms, bar.scratch) and not options.is_adding_options(state):
        return

    paid_first, payments = options.sum_premiums(terms, state)
    returned_by_flips = 0.0
    for i in range(len(state.positions)):
        plan = bar.scratch.plans[i]
        if plan.kind != r.INCREASE:
            continue
        # Writes ``cost_of_balance``, which the fees are computed from.
        if not r.is_isolated(terms, i):
            write_cross_cost(bar, i)
            paid_first += compute_cross_fees(plan)
            continue

        # Writes ``cost_of_balance`` and ``returned_by_flip``.
        write_isolated_costs(bar, i)
        payments += plan.cost_of_balance * plan.notional_added
        # Of a flip whose increase was cut to nothing, the close fills in any case: a loss of it
        # must not cut the others.
        if plan.notional_added == 0.0:
            returned_by_flips += max(plan.returned_by_flip, 0.0)
        else:
            returned_by_flips += plan.returned_by_flip

    # A balance that owes money backs nothing, but does not lower what flips return. Flips at a loss
    # may return less than nothing.
    available = max(balance.compute_balance(terms, state) - paid_first, 0.0)
    available = max(available + returned_by_flips, 0.0)
    if payments > available:
        scale_isolated(bar, available / payments)


def write_cross_cost(bar: r.AccountBar, i: int) -> None:
    """Write into its plan what a cross increase takes from the balance, per unit of notional.

    That is ``cost_of_balance``, a fraction: its fee, and the whole price of a spot leg that is
    bought. A cross order posts no margin. Called after the worsening of its fill was written.
    """
    plan = bar.scratch.plans[i]
    rules = r.by_reference(r.pick_instrument(bar.terms, i))
    quote = bar.quotes.instruments[i]

    # Notional is valued at the quote, and paid at the worse price of the fill.
    filled_value = worsen(rules, quote.fill, plan.side, plan.worsening)
    price_ratio = abs(filled_value) / abs(quote.fill)
    plan.cost_of_balance = price_ratio * plan.fee_rate
    is_purchase = plan.side > 0.0
    if r.is_spot(bar.terms, i) and is_purchase:
        plan.cost_of_balance += price_ratio


def write_isolated_costs(bar: r.AccountBar, i: int) -> None:
    """Write into its plan what an isolated increase takes from the balance, and gives back to it.

    ``cost_of_balance`` is money per unit of notional added: margin and fee, at the dearest fill
    that it can have. ``returned_by_flip`` is money, less the fixed fee of the order: what closing
    the opposite position gives back, negative where it gives back less than that fee.
    """
    plan = bar.scratch.plans[i]
    rules = r.by_reference(r.pick_instrument(bar.terms, i))
    quote = bar.quotes.instruments[i]

    dearest = orders.bound_fill_notional(rules, quote, plan.side, plan.worsening)
    price_ratio = dearest / abs(quote.fill)
    plan.cost_of_balance = price_ratio * orders.compute_outlay(rules, quote, plan.fee_rate)

    # Only a flip gives money back. What its own limits cut to nothing is not sent, and pays no fee.
    is_flip = plan.notional_held < 0.0
    if not is_flip:
        is_sent = plan.notional_added != 0.0
        plan.returned_by_flip = -plan.fee if is_sent else 0.0
        return

    # It returns margin and profit of what it closes, less the fee of that, and its fixed fee.
    position = r.pick_position(bar.state, i)
    filled_value = worsen(rules, quote.fill, plan.side, plan.worsening)
    profit = compute_profit(position, filled_value)
    fee_of_closing = plan.fee_rate * abs(position.quantity) * abs(filled_value)
    plan.returned_by_flip = -plan.fee + (position.margin + profit - fee_of_closing)


def has_isolated_increase(terms: r.Terms, scratch: r.Scratch) -> bool:
    """Return whether an isolated position increases."""
    for i in range(len(scratch.plans)):
        if scratch.plans[i].kind == r.INCREASE and r.is_isolated(terms, i):
            return True
    return False


def compute_cross_fees(plan: r.OrderPlan) -> float:
    """Return the money that a cross increase takes, before the common factor."""
    notional_after = plan.notional_kept + plan.notional_added
    notional_traded = notional_after - plan.notional_held
    # An order that trades nothing is not sent, and pays no fixed fee.
    fixed_fee = plan.fee if notional_traded > 0.0 else 0.0
    return float(plan.cost_of_balance * notional_traded + fixed_fee)


def scale_isolated(bar: r.AccountBar, factor: float) -> None:
    """Multiply by a factor, 0 to 1, what isolated increases add and what of options is bought.

    Writes ``notional_added`` of plans, and ``quantities_added`` of options.
    """
    for i in range(len(bar.scratch.plans)):
        plan = bar.scratch.plans[i]
        if plan.kind == r.INCREASE and r.is_isolated(bar.terms, i):
            plan.notional_added *= factor

    # Options sold bring money, so they are not cut.
    options_added = bar.state.options.quantities_added
    for k in range(len(options_added)):
        if options_added[k] > 0.0:
            options_added[k] *= factor


def compute_increased_quantity(bar: r.AccountBar, i: int, common_factor: float) -> float:
    """Return the signed contracts after an increase, cut by the common factor.

    Where nothing is added, it is exactly the quantity held, so that nothing trades.
    """
    plan = bar.scratch.plans[i]
    notional = plan.notional_kept + common_factor * plan.notional_added
    if notional <= plan.notional_held and plan.notional_held > 0.0:
        return float(bar.state.positions[i].quantity)

    contract_notional = abs(bar.quotes.instruments[i].fill)
    return convert_to_contracts(plan.side, notional, contract_notional)


# Fills at market.


def trade_to(bar: r.AccountBar, t: int, i: int, quantity: float, is_increase: bool) -> None:
    """Trade instrument i at its quote until ``quantity`` signed contracts are held, and book it.

    The rounding to lots, the minimum notional and the volume may fill less, or nothing (accounting
    4.4, 4.5). Writes position, wallet, ledger and log. ``is_increase``: the order opens or adds, so
    an isolated position must have its whole margin after it. Returns at once if there is nothing
    to trade.
    """
    terms = bar.terms
    state = bar.state
    position = state.positions[i]
    if quantity == position.quantity:
        return

    rules = r.pick_instrument(terms, i)
    before = balance.pick_balances(terms, state, i)
    trade = orders.fill(rules, before, bar.quotes.instruments[i], quantity, rules.fee)
    balance.enter_fill(bar, t, i, Event.FILL, before, trade, stops=0)
    # A wallet that could not pay the whole fee left the rest to the margin just posted.
    if is_increase and r.is_isolated(terms, i):
        post_in_full(bar, before, trade, i)

    # The overlay of the last order, by which policies divide to see their position without it. An
    # order that was too small to fill changes nothing.
    if trade.quantity != 0.0:
        position.factor = state.wallet.overlay
    restart_if_opened(state, i, quantity_before=before.position.quantity)


def post_in_full(bar: r.AccountBar, before: r.Balances, trade: r.Trade, i: int) -> None:
    """Let the wallet, not the margin just posted, owe what it could not pay of an increase's fee.

    Where the wallet cannot pay the whole fee, the fill has taken the rest from the new margin. Here
    the margin becomes notional / venue leverage again, and the wallet goes below 0 by that rest.
    After all increases, :func:`.balance.take_from_isolated` must be called: it lets all isolated
    positions pay that debt. Writes margin and cash; ``before`` are the balances before the trade.
    """
    position = bar.state.positions[i]
    rules = r.by_reference(r.pick_instrument(bar.terms, i))
    initial = bar.quotes.instruments[i].initial

    # The margin that the trade alone posts, fees apart: so it is computed from before the trade.
    _, full_margin = orders.move_margin(rules, before, position.quantity, trade.value, initial)
    fee_from_margin = full_margin - position.margin
    bar.state.wallet.cash -= fee_from_margin
    position.margin = full_margin


def restart_if_opened(state: r.AccountState, i: int, quantity_before: float) -> None:
    """Restart best value and opening time of a position that a trade opened or closed.

    A flip opens a position too. The time is NaN until the walk of the bar stamps it.
    """
    position = state.positions[i]
    if quantity_before * position.quantity <= 0.0:
        position.best = position.entry
        position.opened = math.nan
