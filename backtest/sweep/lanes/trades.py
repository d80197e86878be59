"""Bars in which lanes trade: first what each would hold and need, then the fills.

A lane is one account of a sweep. The bars that a few tests show to be harmless pass for all lanes
at once; a lane that may fail is simulated alone in its bar, as a run does. So a test here may send
a lane alone without need, but never let one pass that fails.

Code over the lanes of a group has no branch on what differs between lanes: the compiler computes
them side by side. It computes both cases, chooses by ``select``, and joins conditions by ``&`` and
``|``. Flags of a :class:`.FillKind` are constants of each kind, so an ``if`` of them is free.

====================  ============================================================================
word                  what it is, and its unit
====================  ============================================================================
alone                 lanes that are simulated alone in the bar, as bits: bit k is lane k
worth                 money of a lane that losses may use up: equity, or cash and position
loss                  bound of what the rest of the bar may cost what is held: money
cost                  bound of what the order costs: money
spare                 what is left of the worth; a lane that has none is simulated alone in the bar
committed             initial margin that positions need; of isolated ones, cash that orders take
target                what the limits of leverage leave of a decision: notional by side
notional_held         notional before the order, by side
notional_wanted       notional after the order, before lots and volume, by side
notional_after        the same after lots and volume, without sign
quantity_wanted       signed contracts after the order, before lots and volume
quantity_after        signed contracts after the fill
====================  ============================================================================
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from backtest import account as a
from backtest.account import position as p
from backtest.account.money import WALLET
from backtest.account.orders import LARGEST_WORSENING, round_quantity, trade
from backtest.account.records import FLAGS, Balances, CostRates, Trade
from backtest.core.kernels import inlined
from backtest.core.units import TOLERANCE
from backtest.margin import compute_setting
from backtest.sweep.lanes.quiet import bound_moves, bound_rates, find_spent
from backtest.sweep.lanes.rows import (
    ALL_GROUPS,
    CURSOR,
    GROUP,
    HELD,
    INVERTED,
    ISOLATED,
    LANES,
    LINEAR,
    LOTS,
    NO_TABLE,
    OWN,
    PLAIN,
    PRICE,
    REASON,
    SLACK,
    TALLY,
    WORK,
    FillKind,
    LaneBits,
    Lanes,
    Table,
    cell,
    drop_first,
    has_bit,
    held_cell,
    is_listed,
    make_kind,
    may_fill,
    pick_first,
    quote_open,
    read_once,
    read_rules,
    select,
    sum_before,
)

if TYPE_CHECKING:
    from backtest.core import FloatArray

ALL, SHRINKING, GROWING = range(3)
"""Turns of :func:`fill_trades`: which positions are filled in one."""
GROWTH = 1.5
"""Ratio of the bound of quantities to the largest one that exceeded the last bound."""

STOP_DISTANCE = FLAGS.index("is_stop_distance")
PROFIT_DISTANCE = FLAGS.index("is_profit_distance")
TRAIL_DISTANCE = FLAGS.index("is_trail_distance")
"""Columns of ``Terms.flags``."""


class PlanAnswers(NamedTuple):
    """What a plan found out about the lanes that it planned, each if it holds for any of them.

    ``is_trading``: a lane trades. ``exceeds_bound``: one wants more contracts than
    ``Lanes.largest_quantity``, up to which margin rates are bounds. ``may_fail``: one has nothing
    to spare after the losses and costs that the bar may bring.
    """

    is_trading: bool
    exceeds_bound: bool
    may_fail: bool


class LaneOrder(NamedTuple):
    """The order of a lane, in the words of this module.

    ``notional_added`` is what it adds to what is held. ``has_order``: the target is outside of its
    band. ``is_adding``: the order increases the position, or flips it.
    """

    worth: float
    quantity_wanted: float
    target: float
    notional_held: float
    notional_wanted: float
    notional_added: float
    has_order: bool
    is_adding: bool


class Stake(NamedTuple):
    """What a lane puts at stake by a position and its order: bounds, in money.

    ``notional_after`` is the largest notional of the position, ``initial`` the margin of a cross
    one. Of an isolated one, ``backing`` is that before it grows by ``notional_grown``, and with
    ``is_cut`` margin or wallet may cut its order.
    """

    loss: float
    cost: float
    notional_after: float
    initial: float
    backing: float
    notional_grown: float
    is_cut: bool


def plan_trades(terms: a.Terms, lanes: Lanes, n_instruments: int) -> tuple[bool, LaneBits]:
    """Plan the orders of all lanes at the open of a bar; nothing is traded yet.

    A lane is one account of a sweep, simulated side by side with others. A plan says how many
    contracts it will hold after its order, and bounds what the bar may cost it. A lane that may
    fail in the bar must be simulated alone in it, by the loop of a single run.

    Returns whether any lane trades, and the lanes to be simulated alone, as bits: those whose
    orders the cap of gross leverage may cut (also written into ``alone_for``), and those that may
    fail.
    """
    lanes_alone = find_capped(terms, lanes, n_instruments)
    lanes.alone_for[REASON.capped] = lanes_alone

    # Margin rates are bounds for all quantities up to a largest one. A plan that goes beyond it
    # has raised it, so the bounds are made for the larger one, and the plan is made again.
    answers = plan_once(terms, lanes, n_instruments)
    while answers.exceeds_bound:
        for i in range(n_instruments):
            bound_rates(terms, lanes, i)
            bound_moves(lanes, i)
        answers = plan_once(terms, lanes, n_instruments)

    if answers.may_fail:
        lanes_alone |= find_spent(lanes)
    return answers.is_trading, lanes_alone


def plan_once(terms: a.Terms, lanes: Lanes, n_instruments: int) -> PlanAnswers:
    """Plan the orders of all instruments once, in all lanes, and return what the plan found out.

    What a lane may lose, pay and need is summed position by position, in rows of its account. The
    first position begins these sums (``is_first``), the others add to them.
    """
    is_trading = False
    exceeds_bound = False
    may_fail = False
    is_first = True

    # Positions that stay are summed first: each order tests the sums so far.
    for i in range(n_instruments):
        if is_listed(lanes, i) and lanes.has_order[i] == 0:
            add_held(lanes, terms.rules.brackets.are_isolated[i] != 0, is_first, i)
            is_first = False

    for i in range(n_instruments):
        if is_listed(lanes, i) and lanes.has_order[i] != 0:
            answers = plan_by_kind(terms, lanes, is_first, i)
            is_trading = is_trading or answers.is_trading
            exceeds_bound = exceeds_bound or answers.exceeds_bound
            may_fail = may_fail or answers.may_fail
            is_first = False
    return PlanAnswers(is_trading=is_trading, exceeds_bound=exceeds_bound, may_fail=may_fail)


def make_table(terms: a.Terms, i: int) -> Table:
    """Return the venue leverage of an instrument, and that of its first bracket."""
    tables = terms.rules.brackets
    return Table(size=1.0, setting=tables.settings[i], first_leverage=tables.leverages[i, 0])


def plan_by_kind(terms: a.Terms, lanes: Lanes, is_first: bool, i: int) -> PlanAnswers:
    """Plan the orders of instrument i in all lanes, by the code for its kind of fills.

    A kind (``lanes.kinds[i]``) says which rules its orders need, such as lots, impact or isolated
    margin. Each call below hands over a kind as constants, so numba compiles each by itself,
    without branches for the rules that it does not need. ``is_first``: this position begins the
    sums of a lane over its positions.
    """
    kind = lanes.kinds[i]
    table = make_table(terms, i)
    # The kinds before LINEAR have code of their own for accounts of one position.
    if len(lanes.signal) == 1 and kind < LINEAR:
        return plan_only(lanes, kind, table)

    if kind == PLAIN:
        return plan(lanes, make_cross(has_rounding=False, is_only=False), table, is_first, i)
    if kind == LOTS:
        return plan(lanes, make_cross(has_rounding=True, is_only=False), table, is_first, i)
    if kind == LINEAR:
        return plan(lanes, make_full(is_inverse=False), table, is_first, i)
    if kind == INVERTED:
        return plan(lanes, make_full(is_inverse=True), table, is_first, i)
    if kind == ISOLATED:
        return plan(lanes, make_isolated(is_inverse=False, is_only=False), table, is_first, i)
    return plan(lanes, make_isolated(is_inverse=True, is_only=False), table, is_first, i)


def plan_only(lanes: Lanes, kind: int, table: Table) -> PlanAnswers:
    """Plan the orders of accounts that have one position, by the code for its kind of fills.

    ``kind`` is PLAIN, LOTS, ISOLATED or ISOLATED_INVERSE. Each call hands over its kind as
    constants, so numba compiles each by itself; with ``is_only`` there are no sums over positions.
    """
    if kind == PLAIN:
        return plan(lanes, make_cross(has_rounding=False, is_only=True), table, is_first=True, i=0)
    if kind == LOTS:
        return plan(lanes, make_cross(has_rounding=True, is_only=True), table, is_first=True, i=0)
    if kind == ISOLATED:
        return plan(lanes, make_isolated(is_inverse=False, is_only=True), table, is_first=True, i=0)
    return plan(lanes, make_isolated(is_inverse=True, is_only=True), table, is_first=True, i=0)


@inlined
def make_cross(has_rounding: bool, is_only: bool) -> FillKind:
    """Return the kind of fills of linear cross positions without impact."""
    return make_kind(
        has_rounding=has_rounding,
        has_impact=False,
        is_inverse=False,
        is_isolated=False,
        is_only=is_only,
    )


@inlined
def make_full(is_inverse: bool) -> FillKind:
    """Return the kind of fills of cross positions with rounding and impact."""
    return make_kind(
        has_rounding=True,
        has_impact=True,
        is_inverse=is_inverse,
        is_isolated=False,
        is_only=False,
    )


@inlined
def make_isolated(is_inverse: bool, is_only: bool) -> FillKind:
    """Return the kind of fills of isolated positions, with rounding and impact."""
    return make_kind(
        has_rounding=True,
        has_impact=True,
        is_inverse=is_inverse,
        is_isolated=True,
        is_only=is_only,
    )


@inlined
def plan(lanes: Lanes, kind: FillKind, table: Table, is_first: bool, i: int) -> PlanAnswers:
    """Plan the orders of instrument i, in each group of 32 lanes in which a lane may trade.

    ``kind`` and ``table`` have the rules that the lanes share. The groups are bits of the cursor
    ``groups``, written when the lanes were valued at the open. ``is_first``: this position begins
    the sums of a lane over its positions.

    Rates of margin are bounds only up to ``largest_quantity`` contracts. If a lane wants more, that
    quantity is raised here, and the answer ``exceeds_bound`` tells the caller to plan anew.
    """
    is_trading = False
    exceeds_bound = False
    may_fail = False
    arrays = read_once(lanes)

    groups = lanes.cursor[CURSOR.groups]
    while groups != 0:
        group = pick_first(groups)
        groups = drop_first(groups)
        answers = plan_group(arrays, kind, table, is_first, group, i)
        is_trading |= answers.is_trading
        exceeds_bound |= answers.exceeds_bound
        may_fail |= answers.may_fail

    if exceeds_bound:
        # No bound holds an infinite notional: a lane that wants one is simulated alone in the bar
        # instead.
        exceeds_bound = raise_largest_quantity(lanes, i)
    return PlanAnswers(is_trading=is_trading, exceeds_bound=exceeds_bound, may_fail=may_fail)


@inlined
def plan_group(
    lanes: Lanes, kind: FillKind, table: Table, is_first: bool, group: int, i: int
) -> PlanAnswers:
    """Plan the orders of a group of lanes (accounts) in instrument i; nothing is traded yet.

    Writes three numbers of each lane: ``quantity_after``, the contracts that it will hold;
    ``notional_after``, the largest notional that it has on the way there; and ``spare``, the money
    that is left after the worst of the bar. A lane with nothing to spare may fail. ``cell`` is the
    place of a row of the account, ``held_cell`` of a row of position i.

    ``is_first``: this position begins the sums of a lane over its positions. The sums and the spare
    of the positions before are read and written over, so positions are planned one after another.
    """
    account = lanes.account
    position = lanes.position
    quote = quote_open(lanes.prices, i)
    largest_notional = lanes.largest_quantity[i] * abs(quote.fill)
    is_trading = False
    exceeds_bound = False
    may_fail = False
    for k in range(GROUP):
        lane = group * GROUP + k
        rules = read_rules(lanes.numbers, kind, table, i, lane)
        quantity = position[held_cell(i, HELD.quantity, lane)]

        # The equity at the fill. An account of one cross position may come here without the look at
        # the open that writes the row ``worth``, so its equity is computed again.
        worth = account[cell(WORK.worth, lane)]
        if kind.is_only and not kind.is_isolated:
            worth = account[cell(WALLET.cash, lane)] + quantity * quote.fill
        order = size_order(lanes, rules, quote, worth, i, lane)
        quantity_after = round_quantity(rules, quantity, quote, order.quantity_wanted)

        # What the position may lose, cost and need: bounds, in money, that the lane must have.
        stake = measure_stake(lanes, kind, rules, quote, order, quantity_after, i, lane)
        if kind.is_isolated:
            spare = spare_isolated(account, kind, rules, quote, order, stake, is_first, lane)
        else:
            spare = spare_pool(account, kind, order, stake, is_first, lane)

        account[cell(WORK.spare, lane)] = spare
        account[cell(WORK.notional_after, lane)] = stake.notional_after
        position[held_cell(i, HELD.quantity_after, lane)] = quantity_after
        is_trading |= quantity_after != quantity
        exceeds_bound |= stake.notional_after > largest_notional
        may_fail |= not spare > 0.0  # a NaN fails too
    return PlanAnswers(is_trading=is_trading, exceeds_bound=exceeds_bound, may_fail=may_fail)


@inlined
def size_order(
    lanes: Lanes, rules: a.InstrumentRules, quote: a.Quote, worth: float, i: int, lane: int
) -> LaneOrder:
    """Return the order of a lane: from the leverage that it decided to the contracts that it wants.

    ``worth`` is the equity of the lane at the open: money. The order is cut to what the margin
    table allows, but not to what equity and wallet can pay: where these may cut it, the lane is
    simulated alone in this bar, by the loop of a single run.

    A notional is counted by side: positive on the side of the signal, so a position on the other
    side is negative. Products are formed as in a run (:mod:`backtest.account.orders`), so both have
    the same bits. ``select(condition, a, b)`` is ``a if condition else b`` without a branch.
    """
    quantity = lanes.position[held_cell(i, HELD.quantity, lane)]
    leverage = lanes.position[held_cell(i, HELD.leverage, lane)]
    signal = lanes.signal[i]
    contract_notional = abs(quote.fill)
    side = select(signal > 0.0, 1.0, -1.0)
    notional_held = quantity * (side * contract_notional)

    # A target outside of the no-trade band makes an order; without equity nothing fills.
    target = a.compute_target(rules, quote, worth, leverage, signal)
    has_order = a.is_outside(rules, worth, target, notional_held) & (worth > 0.0)
    notional_kept = max(notional_held, 0.0)  # a flip keeps nothing
    is_adding = has_order & (target > notional_kept)

    # The notional that limits allow. Of a cross order, that of its margin table. Of an isolated one
    # all that it asks for: where table or wallet may cut it, the lane is simulated alone in the bar
    # (``Stake.is_cut``).
    allowed = lanes.prices[PRICE.largest_notional, i]
    if rules.margin.is_isolated:
        allowed = convert_as_run(target, side * quantity, contract_notional)
    notional_added = max(min(target, allowed) - notional_kept, 0.0)
    notional_wanted = select(is_adding, notional_kept + notional_added, target)

    # An increase that the limits cut to nothing does not reduce: what is held stays.
    is_cut_to_nothing = is_adding & (notional_wanted <= notional_held) & (notional_held > 0.0)
    is_filling = has_order & (not is_cut_to_nothing)
    # Without a target, a short side gives -0; adding 0 makes it the 0 of a run.
    quantity_ordered = side * notional_wanted * (1.0 / contract_notional) + 0.0
    return LaneOrder(
        worth=worth,
        quantity_wanted=select(is_filling, quantity_ordered, quantity),
        target=target,
        notional_held=notional_held,
        notional_wanted=notional_wanted,
        notional_added=notional_added,
        has_order=has_order,
        is_adding=is_adding,
    )


@inlined
def convert_as_run(target: float, quantity_by_side: float, contract_notional: float) -> float:
    """Return a target notional after a conversion to contracts and back, as a run makes it.

    A run cuts an isolated order by its wallet in contracts. Where nothing is cut, as here, the
    conversion may still change the last bit of the target. ``quantity_by_side`` is what is held:
    positive on the side of the order.
    """
    quantity_kept = max(quantity_by_side, 0.0)  # a flip keeps nothing
    quantity_added = target * (1.0 / contract_notional) - quantity_kept
    return (quantity_kept + quantity_added) * contract_notional


class OrderNotional(NamedTuple):
    """Notional that a position has ``after`` its order, and that the order has ``moved``: bounds.

    Both are money, without sign.
    """

    after: float
    moved: float


@inlined
def bound_notional(
    kind: FillKind,
    order: LaneOrder,
    quantity: float,
    quantity_after: float,
    contract_notional: float,
) -> OrderNotional:
    """Return how large a position is after its order, and how much the order trades: notional.

    Lots and volume leave less of an order that adds. But a run tests its limits before them, so the
    larger of both counts. ``quantity`` and ``quantity_after`` are signed contracts before and after
    the order.
    """
    after = abs(quantity_after) * contract_notional
    moved = abs(quantity_after - quantity) * contract_notional
    if not kind.has_rounding:
        return OrderNotional(after=after, moved=moved)

    after_before_lots = select(order.is_adding, order.notional_wanted, 0.0)
    change = abs(order.notional_wanted - order.notional_held)
    moved_before_lots = select(order.is_adding, change, 0.0)
    return OrderNotional(after=max(after_before_lots, after), moved=max(moved_before_lots, moved))


@inlined
def measure_stake(
    lanes: Lanes,
    kind: FillKind,
    rules: a.InstrumentRules,
    quote: a.Quote,
    order: LaneOrder,
    quantity_after: float,
    i: int,
    lane: int,
) -> Stake:
    """Return what a lane may lose, pay and need for one position in this bar: bounds, in money.

    The position is that after its order, ``quantity_after`` signed contracts; ``order`` is the
    order before lots and volume cut it. A bound may be too high, never too low: at worst the lane
    is simulated alone without need. An infinite loss always sends it there.

    The loss is that of the rest of the bar. A cross position also needs initial margin, which its
    pool backs. An isolated one has a backing of its own, and its order may be cut by margin table
    or wallet.
    """
    position = lanes.position
    quantity = position[held_cell(i, HELD.quantity, lane)]
    contract_notional = abs(quote.fill)
    notional = bound_notional(kind, order, quantity, quantity_after, contract_notional)

    # The cost of the order. Per unit of notional, fee and slippage are the same in all bars of a
    # chunk (:func:`.quiet.write_costs`); impact grows with the order.
    cost_rate = position[held_cell(i, HELD.cost, lane)]
    if kind.has_impact:
        cost_rate = bound_cost(rules, quote, order)
    cost = cost_rate * notional.moved

    # What the position may lose in the bar after its order. An account of one cross position may
    # come here without a look at what it held before, so that counts too.
    loss_per_contract = lanes.prices[PRICE.loss_bound, i]
    loss = abs(quantity_after) * loss_per_contract
    if kind.is_only and not kind.is_isolated:
        loss = max(loss, abs(quantity) * loss_per_contract)

    # An order that lanes have no rule for gets an infinite loss, which no money can bear.
    initial = notional.after * lanes.prices[PRICE.initial_rate, i]
    loss = select(lacks_lane_rule(rules, order, initial, cost), math.inf, loss)
    if kind.is_isolated:
        profit = quantity * (quote.fill - position[held_cell(i, HELD.entry, lane)])
        return Stake(
            loss=loss,
            cost=cost,
            notional_after=notional.after,
            initial=0.0,
            backing=position[held_cell(i, HELD.margin, lane)] + profit,
            notional_grown=(abs(quantity_after) - abs(quantity)) * contract_notional,
            is_cut=may_be_cut(lanes, order, cost, i),
        )

    # The pool backs a cross position, so what only an isolated one has is 0 here.
    return Stake(
        loss=loss,
        cost=cost,
        notional_after=notional.after,
        initial=initial,
        backing=0.0,
        notional_grown=0.0,
        is_cut=False,
    )


@inlined
def may_be_cut(lanes: Lanes, order: LaneOrder, cost: float, i: int) -> bool:
    """Return whether margin table or wallet may cut the order of an isolated position.

    The table allows a largest notional. The wallet must post the initial margin and pay the
    ``cost``: money. SLACK, just over 1, allows for rounding.
    """
    initial_wanted = order.notional_wanted * lanes.prices[PRICE.initial_rate, i]
    is_over_table = order.target * SLACK > lanes.prices[PRICE.largest_notional, i]
    is_over_wallet = initial_wanted + cost > order.worth
    return bool(is_over_table | is_over_wallet)


@inlined
def lacks_lane_rule(
    rules: a.InstrumentRules, order: LaneOrder, initial: float, cost: float
) -> bool:
    """Return whether an order falls under a rule that lanes do not have, but the loop of a run.

    Two orders do: one with an infinite target, which only margin cuts; and one that adds while the
    initial margin of its position exceeds ``margin_share`` of the equity, the share that it may
    take (infinite: no limit). ``initial`` and ``cost`` are money.
    """
    is_over_share = order.is_adding & (rules.margin_share < math.inf)
    is_over_share &= initial > rules.margin_share * (order.worth - cost)
    return is_over_share | (order.has_order & (order.target == math.inf))


class LaneSums(NamedTuple):
    """What positions of a lane and their orders add up to, in the words of this module: money."""

    loss: float
    costs: float
    committed: float


@inlined
def add_to_sums(
    account: FloatArray, kind: FillKind, of_position: LaneSums, is_first: bool, lane: int
) -> LaneSums:
    """Add what one position may lose, pay and need to the sums of its lane, and return the sums.

    The sums are the rows ``loss``, ``costs`` and ``committed`` of the account: money. The first
    position of a bar begins them (``is_first``): what an earlier bar left there does not count. The
    only position of an account needs no rows: its sums are its own numbers.
    """
    if kind.is_only:
        return of_position
    sums = LaneSums(
        loss=of_position.loss + sum_before(account, WORK.loss, is_first, lane),
        costs=of_position.costs + sum_before(account, WORK.costs, is_first, lane),
        committed=of_position.committed + sum_before(account, WORK.committed, is_first, lane),
    )
    account[cell(WORK.loss, lane)] = sums.loss
    account[cell(WORK.costs, lane)] = sums.costs
    account[cell(WORK.committed, lane)] = sums.committed
    return sums


@inlined
def spare_pool(
    account: FloatArray, kind: FillKind, order: LaneOrder, stake: Stake, is_first: bool, lane: int
) -> float:
    """Return the money that a lane has left after the worst that its cross positions may bring.

    Cross positions share one pool, the equity ``order.worth`` at the open. ``stake`` bounds what
    this position may lose, pay and need; it is added to that of the positions before (``is_first``:
    there is none), whose sums are rows of the account. So positions come one after another.

    A lane with nothing left (0, less, or NaN) may fail in the bar.
    """
    of_position = LaneSums(loss=stake.loss, costs=stake.cost, committed=stake.initial)
    sums = add_to_sums(account, kind, of_position, is_first, lane)
    n_adding = select(order.is_adding, 1.0, 0.0)
    if not kind.is_only:
        n_adding += sum_before(account, WORK.n_adding, is_first, lane)
        account[cell(WORK.n_adding, lane)] = n_adding

    # The pool must survive the worst of the bar: no loss may take it down to the equity at which
    # the account is ruined or too poor to order.
    equity_floor = account[cell(OWN.equity_floor, lane)]
    spare_after_losses = order.worth - equity_floor - (sums.loss + sums.costs)

    # Where an order adds, the initial margin of all positions must be there too: the smaller of the
    # two counts. The comparison is negated so that a NaN counts too.
    spare_after_margin = order.worth - sums.costs - sums.committed
    is_margin_binding = (n_adding > 0.0) & (not spare_after_margin >= spare_after_losses)
    return select(is_margin_binding, spare_after_margin, spare_after_losses)


@inlined
def spare_isolated(
    account: FloatArray,
    kind: FillKind,
    rules: a.InstrumentRules,
    quote: a.Quote,
    order: LaneOrder,
    stake: Stake,
    is_first: bool,
    lane: int,
) -> float:
    """Return the money that a lane has left after the worst that its isolated positions may bring.

    It is -1 if a position may lose its own margin, or if the cash may not pay for the orders so
    far. Otherwise it is the equity, less all bounds of losses and costs, and less the equity at
    which the account is ruined or too poor to order. The smallest spare of all positions counts.

    ``stake`` bounds what this position may lose, pay and need. It is added to that of the positions
    before (``is_first``: there is none), whose sums are rows of the account. The row ``spare`` has
    the smallest spare so far; the caller writes the new one.
    """
    posted_rate = 1.0 / compute_setting(rules.margin, quote.initial)
    committed = bound_cash_taken(rules, order, stake, posted_rate)
    may_fail = may_fail_isolated(order, stake, posted_rate)

    # The smallest spare of the positions before: no limit at the first one.
    spare_before = math.inf
    if not kind.is_only:
        spare_before = select(is_first, math.inf, account[cell(WORK.spare, lane)])
    of_position = LaneSums(loss=stake.loss, costs=stake.cost, committed=committed)
    sums = add_to_sums(account, kind, of_position, is_first, lane)

    # The cash must pay for the orders of all positions so far; a NaN does not.
    may_fail |= not sums.committed <= account[cell(WALLET.cash, lane)]

    worth = account[cell(WORK.worth, lane)]
    equity_floor = account[cell(OWN.equity_floor, lane)]
    spare_after_losses = worth - equity_floor - (sums.loss + sums.costs)
    spare = select(may_fail, -1.0, spare_after_losses)
    return select(spare_before < spare, spare_before, spare)


@inlined
def bound_cash_taken(
    rules: a.InstrumentRules, order: LaneOrder, stake: Stake, posted_rate: float
) -> float:
    """Return a bound of the cash that the order of an isolated position takes: money.

    Every order pays its cost, fee and slippage (``stake.cost``). One that adds also posts margin,
    ``posted_rate`` of the notional added at the worst price. Its cost counts twice here: a bound
    may be too high, and then the lane is simulated alone without need.
    """
    price_ratio = SLACK * (1.0 + rules.slippage)
    outlay = price_ratio * (posted_rate + rules.fee) * order.notional_added + stake.cost
    return select(order.is_adding, outlay, 0.0) + stake.cost


@inlined
def may_fail_isolated(order: LaneOrder, stake: Stake, posted_rate: float) -> bool:
    """Return whether an isolated position may lose its own margin, or has an order not for lanes.

    A position that grows must bear its loss by what backs it then: with the margin that is added,
    less the cost of the order. One that shrinks keeps its ratio of margin, so it is not tested.
    Lanes do not fill a flip (what is held is on the other side), or an order that may be cut.
    """
    margin_added = stake.notional_grown * posted_rate
    backing_after = stake.backing + margin_added - (1.0 + posted_rate) * stake.cost
    may_fail = (not stake.loss < backing_after) & (stake.notional_grown > 0.0)
    return may_fail | (order.is_adding & (stake.is_cut | (order.notional_held < 0.0)))


def raise_largest_quantity(lanes: Lanes, i: int) -> bool:
    """Raise ``largest_quantity[i]``, a bound of the contracts of every lane, to what lanes plan.

    Rates of margin are bounds only for positions up to that quantity. It is raised after a plan in
    which a lane wants more, from the row ``notional_after`` of the lanes planned; and GROWTH times
    as far as needed, so that it is raised in few bars.

    Returns whether it was raised, so that a new plan is needed. An infinite notional does not
    count, as no bound holds it: its lane is simulated alone in the bar.
    """
    largest_notional = 0.0
    groups = lanes.cursor[CURSOR.groups]
    for lane in range(LANES):
        notional_after = lanes.account[cell(WORK.notional_after, lane)]
        is_planned = has_bit(groups, lane // GROUP)
        is_counted = is_planned & (notional_after < math.inf)
        largest_notional = max(largest_notional, select(is_counted, notional_after, 0.0))

    quantity = GROWTH * largest_notional / lanes.prices[PRICE.contract_notional, i]
    lanes.largest_quantity[i] = max(lanes.largest_quantity[i], quantity)
    return largest_notional > 0.0


@inlined
def trade_lane(
    rules: a.InstrumentRules, balances: Balances, quote: a.Quote, quantity_after: float
) -> Trade:
    """Return the trade of a lane to some contracts at the open, as :func:`.orders.fill` does."""
    impact = 0.0
    if rules.has_impact:
        notional = abs(quantity_after - balances.position.quantity) * abs(quote.fill)
        impact = a.compute_square_root_impact(rules.impact, quote, notional)
    rates = CostRates(slippage=rules.slippage, impact=impact, fee=rules.fee)
    return trade(rules, balances, quote.fill, quantity_after, rates, quote, is_order=True)


@inlined
def bound_cost(rules: a.InstrumentRules, quote: a.Quote, order: LaneOrder) -> float:
    """Return a bound of what an order costs per unit of notional: slippage, impact and fee.

    Slippage and impact move the price against the order (``worsening``, a fraction). The impact is
    that of the whole target, though lots and limits may leave less of the order. The factor SLACK,
    just over 1, keeps it a bound after rounding.
    """
    worsening = rules.slippage
    if rules.has_impact:
        # A lane with an infinite target is simulated alone in the bar, whatever its order costs
        # here: 0 keeps NaN out of the cost.
        change = abs(order.target - order.notional_held)
        notional = select(order.target < math.inf, change, 0.0)
        worsening += a.compute_square_root_impact(rules.impact, quote, notional)
        worsening = min(worsening, LARGEST_WORSENING)

    # The price of the fill over that of the quote. The value of an inverse contract is 1 / price.
    price_ratio = 1.0 + worsening
    if rules.margin.is_inverse:
        price_ratio = 1.0 / (1.0 - worsening)
    return (worsening * price_ratio + rules.fee * price_ratio) * SLACK


def add_held(lanes: Lanes, is_isolated: bool, is_first: bool, i: int) -> None:
    """Add a position that has no order in this bar to the sums of each lane (account).

    The sums are rows of the account, in money: ``loss`` bounds what the bar may cost the position,
    ``committed`` is the initial margin that a cross position needs. The first position begins them
    (``is_first``). Positions without an order are added before those with one, so the sums of
    orders (``costs``, ``n_adding``, ``spare``) start here.
    """
    account = lanes.account
    prices = lanes.prices
    loss_per_contract = prices[PRICE.loss_bound, i]
    # An isolated position has posted its margin: only orders take cash.
    initial_per_contract = 0.0
    if not is_isolated:
        initial_per_contract = prices[PRICE.initial_rate, i] * prices[PRICE.contract_notional, i]

    groups = lanes.cursor[CURSOR.groups]
    while groups != 0:
        group = pick_first(groups)
        groups = drop_first(groups)
        for k in range(GROUP):
            lane = group * GROUP + k
            contracts = abs(lanes.position[held_cell(i, HELD.quantity, lane)])
            loss_before = sum_before(account, WORK.loss, is_first, lane)
            committed_before = sum_before(account, WORK.committed, is_first, lane)

            account[cell(WORK.loss, lane)] = contracts * loss_per_contract + loss_before
            committed = contracts * initial_per_contract + committed_before
            account[cell(WORK.committed, lane)] = committed

            # No order is in the sums yet, and none has left less than the lane has.
            account[cell(WORK.costs, lane)] = 0.0
            account[cell(WORK.n_adding, lane)] = 0.0
            account[cell(WORK.spare, lane)] = math.inf


# The cap of gross leverage.


def find_capped(terms: a.Terms, lanes: Lanes, n_instruments: int) -> LaneBits:
    """Return the lanes whose gross leverage may exceed the account's cap in this bar, as bits.

    The loop of a run cuts their orders, for which lanes have no rule: so they are simulated alone.
    Of each position the larger of what is held and of the target counts. That bounds the gross
    notional, whichever orders fill. The row ``worth``, the equity at the open, must be written
    before.
    """
    account = lanes.account
    # SLACK, just over 1, lowers the cap, so that rounding never lets a lane pass that a run would
    # cut. An account without a cap has an infinite one.
    cap = terms.max_gross_leverage / SLACK
    if cap == math.inf:
        return 0

    for lane in range(LANES):
        account[cell(WORK.gross_bound, lane)] = 0.0
    for i in range(n_instruments):
        if is_listed(lanes, i):
            add_gross_bound(lanes, i)

    lanes_alone = 0
    for lane in range(LANES):
        gross_allowed = cap * account[cell(WORK.worth, lane)]
        may_be_capped = account[cell(WORK.gross_bound, lane)] > gross_allowed
        lanes_alone |= may_be_capped << lane
    return lanes_alone


def find_overruled(terms: a.Terms, lanes: Lanes, n_instruments: int) -> LaneBits:
    """Return the lanes whose no-trade bands may keep more than the cap of gross leverage allows.

    Only where a decision waits to fill: without one, no band is tested.
    """
    for i in range(n_instruments):
        if may_fill(lanes, i):
            return find_capped(terms, lanes, n_instruments)
    return 0


def add_gross_bound(lanes: Lanes, i: int) -> None:
    """Add the largest notional that position i may have in this bar to the sum of each lane.

    It is the larger of what is held and, if a decision waits to be filled (``is_pending``), of its
    target: money, without sign, in the row ``gross_bound``. The row ``worth``, the equity at the
    open, must be written before.
    """
    account = lanes.account
    position = lanes.position
    quote = quote_open(lanes.prices, i)
    contract_notional = abs(quote.fill)
    signal = lanes.signal[i]
    is_pending = lanes.is_pending[i] == 1

    # A target depends on neither rounding nor margin, so rules of the simplest kind give it.
    kind = make_cross(has_rounding=False, is_only=False)
    for lane in range(LANES):
        rules = read_rules(lanes.numbers, kind, NO_TABLE, i, lane)
        notional_held = abs(position[held_cell(i, HELD.quantity, lane)]) * contract_notional

        equity = account[cell(WORK.worth, lane)]
        leverage = position[held_cell(i, HELD.leverage, lane)]
        target = a.compute_target(rules, quote, equity, leverage, signal)
        is_larger = is_pending & (target > notional_held)
        account[cell(WORK.gross_bound, lane)] += select(is_larger, target, notional_held)


# Fills.


def fill_trades(terms: a.Terms, lanes: Lanes, n_instruments: int) -> None:
    """Fill what is planned, in one turn for all or, of several isolated positions, in two.

    Those that shrink fill before those that grow, as in a run: so the cash adds up in the same
    order, to the same bits.
    """
    is_one_turn = n_instruments == 1 or not lanes.has_isolated
    if is_one_turn:
        fill_turn(terms, lanes, n_instruments, ALL)
        return
    fill_turn(terms, lanes, n_instruments, SHRINKING)
    fill_turn(terms, lanes, n_instruments, GROWING)


def fill_turn(terms: a.Terms, lanes: Lanes, n_instruments: int, turn: int) -> None:
    """Fill what is planned and belongs to a turn, instrument by instrument."""
    for i in range(n_instruments):
        if lanes.has_order[i] != 0:
            fill_by_kind(lanes, make_table(terms, i), turn, i)


def fill_by_kind(lanes: Lanes, table: Table, turn: int, i: int) -> None:
    """Fill the planned orders of instrument i, by the code for its kind of fills.

    Each call below hands over a kind as constants, so numba compiles each by itself, without
    branches for rules that it does not need. Quantities were rounded to lots when they were
    planned, so LOTS fills as PLAIN does. ``turn`` says which lanes fill now: ALL, SHRINKING or
    GROWING.
    """
    kind = lanes.kinds[i]
    is_plain = kind <= LOTS  # PLAIN or LOTS, the first two kinds
    if is_plain:
        fill_lanes(lanes, make_cross(has_rounding=False, is_only=False), table, turn, i)
    elif kind == LINEAR:
        fill_lanes(lanes, make_rounded(is_inverse=False, is_isolated=False), table, turn, i)
    elif kind == INVERTED:
        fill_lanes(lanes, make_rounded(is_inverse=True, is_isolated=False), table, turn, i)
    elif kind == ISOLATED:
        fill_lanes(lanes, make_rounded(is_inverse=False, is_isolated=True), table, turn, i)
    else:
        fill_lanes(lanes, make_rounded(is_inverse=True, is_isolated=True), table, turn, i)


@inlined
def make_rounded(is_inverse: bool, is_isolated: bool) -> FillKind:
    """Return the kind of fills with impact, of quantities that are rounded already."""
    return make_kind(
        has_rounding=False,
        has_impact=True,
        is_inverse=is_inverse,
        is_isolated=is_isolated,
        is_only=False,
    )


@inlined
def fill_lanes(lanes: Lanes, kind: FillKind, table: Table, turn: int, i: int) -> None:
    """Fill the planned orders of instrument i, in the groups of lanes in which one may trade.

    The groups are bits of the cursor ``groups``. In them the lanes are filled whose turn it is:
    ALL, or those whose positions are SHRINKING or GROWING (:func:`fill_trades`).
    """
    quote = quote_open(lanes.prices, i)
    groups = lanes.cursor[CURSOR.groups]
    while groups != 0:
        group = pick_first(groups)
        groups = drop_first(groups)
        for k in range(GROUP):
            fill_lane(lanes, kind, table, quote, turn, i, group * GROUP + k)


@inlined
def fill_lane(
    lanes: Lanes, kind: FillKind, table: Table, quote: a.Quote, turn: int, i: int, lane: int
) -> None:
    """Trade one lane (account) to the quantity that was planned; writes cash, position and tally.

    A cross position pays its contracts from the cash and leaves its profit there. An isolated one
    has a margin of its own: the cash changes by what the trade moves between both.

    There is no branch on what differs between lanes, so that lanes are computed side by side: a
    lane whose ``turn`` it is not (see :func:`fill_trades`) trades to what it holds, which changes
    nothing. ``cell`` is the place of a row of the account, ``held_cell`` of a row of position i.
    """
    account = lanes.account
    position = lanes.position
    rules = read_rules(lanes.numbers, kind, table, i, lane)
    quantity = position[held_cell(i, HELD.quantity, lane)]
    entry = position[held_cell(i, HELD.entry, lane)]
    cash = account[cell(WALLET.cash, lane)]
    quantity_after = position[held_cell(i, HELD.quantity_after, lane)]

    # A cash below 0 posts no margin: an isolated position trades with none, and the debt stays.
    margin_posted = 0.0
    available = cash
    if kind.is_isolated:
        margin_posted = position[held_cell(i, HELD.margin, lane)]
        available = max(cash, 0.0)
        is_its_turn = is_in_turn(turn, quantity, quantity_after)
        quantity_after = select(is_its_turn, quantity_after, quantity)

    # The last field, the contract value at which it was marked, is not read by a trade.
    held = a.Position(quantity, entry, margin_posted, 0.0)
    done = trade_lane(rules, a.Balances(available, held), quote, quantity_after)
    held_after = done.balances.position

    # The cash: of an isolated position, changed by what its trade took from what was available.
    if kind.is_isolated:
        account[cell(WALLET.cash, lane)] = cash + (done.balances.cash - available)
        position[held_cell(i, HELD.margin, lane)] = held_after.margin
    else:
        account[cell(WALLET.cash, lane)] = done.balances.cash

    # The position. The best price of one that opens or flips, from which a stop trails, starts at
    # the entry.
    is_new = quantity * held_after.quantity <= 0.0
    best = position[held_cell(i, HELD.best, lane)]
    position[held_cell(i, HELD.best, lane)] = select(is_new, held_after.entry, best)
    position[held_cell(i, HELD.quantity, lane)] = held_after.quantity
    position[held_cell(i, HELD.entry, lane)] = held_after.entry

    count_fill(account, kind, done, lane)


@inlined
def count_fill(account: FloatArray, kind: FillKind, done: Trade, lane: int) -> None:
    """Add the costs and the notional of a trade, and the fill itself, to the tally of a lane."""
    account[cell(TALLY.fees, lane)] += done.fee
    account[cell(TALLY.slippage, lane)] += done.slippage
    if kind.has_impact:
        account[cell(TALLY.impact, lane)] += done.impact
    account[cell(TALLY.traded, lane)] += abs(done.quantity) * abs(done.value)
    account[cell(TALLY.fills, lane)] += select(done.quantity != 0.0, 1.0, 0.0)


@inlined
def is_in_turn(turn: int, quantity: float, quantity_after: float) -> bool:
    """Return whether a position fills in a turn: ALL, SHRINKING or GROWING. A flip grows."""
    is_growing = (quantity_after * quantity <= 0.0) | (abs(quantity_after) > abs(quantity))
    is_growing &= quantity_after != 0.0
    return (turn == ALL) | (is_growing == (turn == GROWING))


# Stops.


def find_exits(terms: a.Terms, lanes: Lanes, n_instruments: int, is_planned: bool) -> LaneBits:
    """Return the lanes whose stops or take-profits this bar may reach, as bits.

    Lanes have no rule for a stop that acts, so these are simulated alone in the bar, by the loop of
    a single run. No stop acts while the contract value stays between the rows ``stop_low`` and
    ``stop_high`` of a position (:func:`write_stops`).

    It is called twice in a bar: for the stops of what lanes hold, and, if any lane trades, with
    ``is_planned`` for those of what they will hold after their orders.
    """
    position = lanes.position
    prices = lanes.prices
    lanes_alone = 0
    for i in range(n_instruments):
        if not is_listed(lanes, i):
            continue
        # Without an order, what is planned is what is held, which the first call has tested.
        if is_planned and lanes.has_order[i] == 0:
            continue

        # Stops stay from bar to bar while the position does, unless they trail or have a scale by
        # bar (``moves_stops``). So they are written once (``has_stops`` 1), and for each plan.
        if is_planned or lanes.moves_stops or lanes.has_stops[i] == 0:
            write_stops(terms, lanes, is_planned, i)

        # The prices that a stop of this bar may see: its open, low and high.
        low = min(prices[PRICE.open, i], prices[PRICE.last_low, i])
        high = max(prices[PRICE.open, i], prices[PRICE.last_high, i])
        for lane in range(LANES):
            is_reached = low <= position[held_cell(i, HELD.stop_low, lane)]
            is_reached |= high >= position[held_cell(i, HELD.stop_high, lane)]
            lanes_alone |= is_reached << lane
    return lanes_alone


def write_stops(terms: a.Terms, lanes: Lanes, is_planned: bool, i: int) -> None:
    """Write for all lanes the contract values between which no stop of instrument i acts.

    They are the stops of what each lane holds or, with ``is_planned``, of what it will hold after
    its order; then only groups that trade are written. ``has_stops[i]`` becomes 1, so that stops
    that do not move are not computed again in each bar.
    """
    # The price of a stop depends on the entry, which the impact of the fill moves. It does not
    # depend on margin, so the leverages of the table below stand for any.
    flags = terms.flags
    kind = FillKind(
        has_rounding=True,
        has_impact=True,
        is_inverse=terms.rules.brackets.are_inverse[i],
        is_isolated=False,
        is_only=False,
        is_stop_distance=flags[i, STOP_DISTANCE] != 0,
        is_profit_distance=flags[i, PROFIT_DISTANCE] != 0,
        is_trail_distance=flags[i, TRAIL_DISTANCE] != 0,
    )

    table = Table(size=terms.rules.brackets.sizes[i], setting=1.0, first_leverage=1.0)
    quote = quote_open(lanes.prices, i)
    groups = lanes.cursor[CURSOR.groups] if is_planned else ALL_GROUPS
    while groups != 0:
        group = pick_first(groups)
        groups = drop_first(groups)
        for k in range(GROUP):
            lane = group * GROUP + k
            rules = read_rules(lanes.numbers, kind, table, i, lane)
            write_stops_of_lane(lanes, rules, quote, is_planned, i, lane)
    lanes.has_stops[i] = 1


@inlined
def write_stops_of_lane(
    lanes: Lanes, rules: a.InstrumentRules, quote: a.Quote, is_planned: bool, i: int, lane: int
) -> None:
    """Write the contract values between which no stop or take-profit of a lane acts.

    They are the rows ``stop_low`` and ``stop_high`` of its position in instrument i. Of a long, the
    stop is the low one and the take-profit the high one; of a short it is the other way round. A
    level that is not set is infinite. The position is the one that the lane holds or, with
    ``is_planned``, will hold after its order.
    """
    position = lanes.position
    followed = find_followed(position, rules, quote, is_planned, i, lane)
    tested = followed.position

    # Contract values of the nearest stop and of the take-profit, NaN if there is none. Neither
    # depends on the cash, which is 0 here; stops of the equity are not among the rules of lanes.
    cash = 0.0
    no_equity_stop = math.nan
    balances = a.Balances(cash, tested)
    _kind, nearest_stop = p.find_nearest_stop(rules, balances, quote, followed.best, no_equity_stop)
    price_of_profit = p.compute_target_price(rules, tested, quote)

    # Both are moved towards the prices by what rounding may be, so that none is missed: the stop
    # of a long (side 1) up, its take-profit down.
    side = p.find_side(tested)
    stop = move_inwards(nearest_stop, side)
    take_profit = move_inwards(price_of_profit, -side)

    # Long, short and neither are all computed, without a branch, and then chosen.
    is_long = tested.quantity > 0.0
    is_short = tested.quantity < 0.0
    low_unless_long = pick_level(is_short, take_profit, -math.inf)
    high_unless_long = pick_level(is_short, stop, math.inf)
    position[held_cell(i, HELD.stop_low, lane)] = pick_level(is_long, stop, low_unless_long)
    position[held_cell(i, HELD.stop_high, lane)] = pick_level(
        is_long, take_profit, high_unless_long
    )


class FollowedPosition(NamedTuple):
    """A position, and the best contract value since its entry, from which its stop trails."""

    position: a.Position
    best: float


@inlined
def find_followed(
    position: FloatArray,
    rules: a.InstrumentRules,
    quote: a.Quote,
    is_planned: bool,
    i: int,
    lane: int,
) -> FollowedPosition:
    """Return the position whose stops are tested: held or, with ``is_planned``, after the order.

    ``position`` are the rows of positions, by lane. A planned order fills at ``quote``; at what
    price does not depend on the cash, which is 0 here. A position that opens or flips has its entry
    as its best.
    """
    held = pick_held(position, i, lane)
    best = position[held_cell(i, HELD.best, lane)]
    quantity_after = position[held_cell(i, HELD.quantity_after, lane)]
    planned = trade_lane(rules, a.Balances(0.0, held), quote, quantity_after).balances.position

    is_new = is_planned & (held.quantity * planned.quantity <= 0.0)
    return FollowedPosition(
        position=planned if is_planned else held,
        best=select(is_new, planned.entry, best),
    )


@inlined
def pick_held(position: FloatArray, i: int, lane: int) -> a.Position:
    """Return what a lane holds of an instrument; prices need no margin of it."""
    quantity = position[held_cell(i, HELD.quantity, lane)]
    entry = position[held_cell(i, HELD.entry, lane)]
    return a.Position(quantity, entry, 0.0, 0.0)


@inlined
def move_inwards(level: float, side: float) -> float:
    """Return the level of a stop or take-profit, moved towards the prices by what rounding may be.

    ``side`` is the direction: 1 up, -1 down. A level that is reached too early only sends the lane
    through the bar alone; one that is missed would be wrong.
    """
    return level + side * (2.0 * TOLERANCE) * abs(level)


@inlined
def pick_level(is_there: bool, level: float, other: float) -> float:
    """Return the level of a stop if it is there and known, not NaN; else another number."""
    return select(is_there & (not math.isnan(level)), level, other)


def follow_bests(lanes: Lanes, n_instruments: int) -> None:
    """Advance the best price since entry, from which a trailing stop is measured, in all lanes.

    It is a contract value, the row ``best`` of a position: the highest since a long was opened, the
    lowest since a short was. Called after the orders of the bar have filled; low and high of the
    bar must be written before (:func:`.quiet.write_extra_prices`).
    """
    position = lanes.position
    for i in range(n_instruments):
        if not is_listed(lanes, i):
            continue
        quote = quote_open(lanes.prices, i)

        for lane in range(LANES):
            held = pick_held(position, i, lane)
            best = position[held_cell(i, HELD.best, lane)]
            position[held_cell(i, HELD.best, lane)] = a.follow_prices(best, held, quote)
