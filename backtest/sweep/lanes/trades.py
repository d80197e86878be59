"""Bars in which lanes trade: first what each would hold and need, then the fills.

A lane is one account of a sweep. The bars that a few tests show to be harmless pass for all lanes
at once; a lane that may fail passes its bar alone, as a run does. So a test here may send a lane
alone without need, but never let one pass that fails.

Code over the lanes of a group has no branch on what differs between lanes: the compiler computes
them side by side. It computes both cases, chooses by ``select``, and joins conditions by ``&`` and
``|``. Flags of a :class:`.FillKind` are constants of each kind, so an ``if`` of them is free.

====================  ============================================================================
word                  what it is, and its unit
====================  ============================================================================
target                what the limits of leverage leave of a decision: notional by side
worth                 money of a lane that losses may use up: equity, or cash and position
lost                  bound of what the rest of the bar may cost what is held: money
cost                  bound of what the order costs: money
spare                 what is left of the worth; a lane that has none passes the bar alone
want                  signed contracts after the fill
initial               initial margin that positions need; of isolated ones, cash that they take
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
    OWN,
    PLAIN,
    PRICE,
    REASON,
    SLACK,
    TALLY,
    WORK,
    FillKind,
    Lanes,
    Table,
    cell,
    has_bit,
    is_listed,
    lowest,
    make_kind,
    may_fill,
    quote_open,
    read_rules,
    select,
    spot,
    sum_before,
)

if TYPE_CHECKING:
    from backtest.core import FloatArray

ALL, SHRINKING, GROWING = range(3)
"""Which positions are filled."""
GROWTH = 1.5
"""Ratio of the bound of quantities to the largest one that exceeded the last bound."""

STOP_DISTANCE = FLAGS.index("is_stop_distance")
PROFIT_DISTANCE = FLAGS.index("is_profit_distance")
TRAIL_DISTANCE = FLAGS.index("is_trail_distance")
"""Columns of ``Terms.flags``."""


class LaneOrder(NamedTuple):
    """The order of a lane: its worth, wanted contracts, notional by side, whether it asks and adds.

    ``size`` is the notional after it, ``added`` what it adds to what is held.
    """

    worth: float
    wanted: float
    target: float
    notional_held: float
    size: float
    added: float
    is_asking: bool
    is_adding: bool


class Stake(NamedTuple):
    """What a lane puts at stake by a position and its order: money, as in the table of words.

    ``reached`` is the largest notional of the position. Of an isolated one, ``backing`` is that
    before it grows by the notional ``grown``. ``is_cut``: margin or wallet may cut the order.
    """

    lost: float
    cost: float
    reached: float
    initial: float
    backing: float
    grown: float
    is_cut: bool


def plan_trades(terms: a.Terms, lanes: Lanes, n: int) -> tuple[bool, int]:
    """Write what each lane (account) wants to hold after its orders at the open.

    Return whether any lane trades, and as bits the lanes that may fail in the bar: they pass it
    alone. Margin rates are bounds for all quantities up to a largest one. A plan that goes beyond
    it raises it, and is made again with the bounds for the larger one.
    """
    rare = find_capped(terms, lanes, n)
    lanes.found[REASON.capped] = rare

    while True:
        is_trading, is_over, may_any_fail = plan_once(terms, lanes, n)
        if not is_over:
            break
        for i in range(n):
            bound_rates(terms, lanes, i)
            bound_moves(lanes, i)

    if may_any_fail:
        rare |= find_spent(lanes)
    return is_trading, rare


def plan_once(terms: a.Terms, lanes: Lanes, n: int) -> tuple[bool, bool, bool]:
    """Plan the trades of all instruments; return three answers about the lanes.

    These are whether any lane trades, whether one wants more than the bound of quantities, and
    whether one may fail. Losses, costs and margins of a lane are summed position by position: first
    of the positions that stay, then of those with an order. Each order tests the sums so far.
    """
    is_trading = False
    is_over = False
    may_any_fail = False
    is_first = True
    for i in range(n):
        if is_listed(lanes, i) and lanes.is_asking[i] == 0:
            add_held(lanes, terms.rules.brackets.are_isolated[i] != 0, is_first, i)
            is_first = False

    for i in range(n):
        if is_listed(lanes, i) and lanes.is_asking[i] != 0:
            trades, exceeds, may_fail = plan_by_kind(terms, lanes, is_first, i)
            is_trading = is_trading or trades
            is_over = is_over or exceeds
            may_any_fail = may_any_fail or may_fail
            is_first = False
    return is_trading, is_over, may_any_fail


def make_table(terms: a.Terms, i: int) -> Table:
    """Return the venue leverage of an instrument, and that of its first bracket."""
    tables = terms.rules.brackets
    return Table(size=1.0, setting=tables.settings[i], first_leverage=tables.leverages[i, 0])


def plan_by_kind(terms: a.Terms, lanes: Lanes, is_first: bool, i: int) -> tuple[bool, bool, bool]:
    """Plan the trades of an instrument by the code for its kind of fills.

    Return the three answers of :func:`plan_once`. Each kind is compiled of its own, as its flags
    are constants in it: so each call stands here by itself.
    """
    kind = lanes.kinds[i]
    table = make_table(terms, i)
    if len(lanes.signal) == 1 and kind < LINEAR:
        return plan_alone(lanes, kind, table)

    if kind == PLAIN:
        return plan(lanes, make_cross(has_rounding=False, is_alone=False), table, is_first, i)
    if kind == LOTS:
        return plan(lanes, make_cross(has_rounding=True, is_alone=False), table, is_first, i)
    if kind == LINEAR:
        return plan(lanes, make_full(is_inverse=False), table, is_first, i)
    if kind == INVERTED:
        return plan(lanes, make_full(is_inverse=True), table, is_first, i)
    if kind == ISOLATED:
        return plan(lanes, make_isolated(is_inverse=False, is_alone=False), table, is_first, i)
    return plan(lanes, make_isolated(is_inverse=True, is_alone=False), table, is_first, i)


def plan_alone(lanes: Lanes, kind: int, table: Table) -> tuple[bool, bool, bool]:
    """Plan the trades of the only position by the code for its kind of fills.

    Return the three answers of :func:`plan_once`. Alone, a position needs no sums.
    """
    if kind == PLAIN:
        return plan(lanes, make_cross(has_rounding=False, is_alone=True), table, True, 0)
    if kind == LOTS:
        return plan(lanes, make_cross(has_rounding=True, is_alone=True), table, True, 0)
    if kind == ISOLATED:
        return plan(lanes, make_isolated(is_inverse=False, is_alone=True), table, True, 0)
    return plan(lanes, make_isolated(is_inverse=True, is_alone=True), table, True, 0)


@inlined
def make_cross(has_rounding: bool, is_alone: bool) -> FillKind:
    """Return the kind of fills of linear cross positions without impact."""
    return make_kind(
        has_rounding=has_rounding,
        has_impact=False,
        is_inverse=False,
        is_isolated=False,
        is_alone=is_alone,
    )


@inlined
def make_full(is_inverse: bool) -> FillKind:
    """Return the kind of fills of cross positions with rounding and impact."""
    return make_kind(
        has_rounding=True,
        has_impact=True,
        is_inverse=is_inverse,
        is_isolated=False,
        is_alone=False,
    )


@inlined
def make_isolated(is_inverse: bool, is_alone: bool) -> FillKind:
    """Return the kind of fills of isolated positions, with rounding and impact."""
    return make_kind(
        has_rounding=True,
        has_impact=True,
        is_inverse=is_inverse,
        is_isolated=True,
        is_alone=is_alone,
    )


@inlined
def plan(
    lanes: Lanes, kind: FillKind, table: Table, is_first: bool, i: int
) -> tuple[bool, bool, bool]:
    """Plan the trades of an instrument in the groups of lanes in which one asks.

    Return the three answers of :func:`plan_once`. Groups are bits of the cursor ``asking``.
    """
    answers = 0
    # Group by group: the lowest bit that is left, which is then taken away.
    asking = lanes.cursor[CURSOR.asking]
    while asking != 0:
        group = lowest(asking)
        asking &= asking - 1
        answers |= plan_group(lanes, kind, table, is_first, group, i)

    is_over = has_bit(answers, 1) and raise_most(lanes, i)
    return has_bit(answers, 0), is_over, has_bit(answers, 2)


@inlined
def plan_group(
    lanes: Lanes, kind: FillKind, table: Table, is_first: bool, group: int, i: int
) -> int:
    """Plan the trades of a group of lanes; return the answers of :func:`plan_once` as bits.

    Writes for each lane the contracts that it wants to hold (``want``), the notional that it
    reaches (``wanted``), and what it can spare after all positions so far (``spare``): money. A
    lane whose spare is not over 0 may fail.
    """
    account = lanes.account
    position = lanes.position
    quote = quote_open(lanes.prices, i)
    largest_notional = lanes.most[i] * abs(quote.fill)
    is_trading = False
    is_over = False
    may_any_fail = False
    for k in range(GROUP):
        lane = group * GROUP + k
        rules = read_rules(lanes.numbers, kind, table, i, lane)
        quantity = position[spot(i, HELD.quantity, lane)]
        worth = account[cell(WORK.worth, lane)]

        # Who trades at every bar was not looked at before.
        if kind.is_alone and not kind.is_isolated:
            worth = account[cell(WALLET.cash, lane)] + quantity * quote.fill
        order = size_order(lanes, rules, quote, worth, i, lane)
        after = round_quantity(rules, quantity, quote, order.wanted)

        stake = measure_stake(lanes, kind, rules, quote, order, after, i, lane)
        if kind.is_isolated:
            spare = spare_isolated(account, kind, rules, quote, order, stake, is_first, lane)
        else:
            spare = spare_pool(account, kind, order, stake, is_first, lane)
        may_any_fail |= not spare > 0.0

        account[cell(WORK.spare, lane)] = spare
        account[cell(WORK.wanted, lane)] = stake.reached
        position[spot(i, HELD.want, lane)] = after
        is_trading |= after != quantity
        is_over |= stake.reached > largest_notional
    return is_trading | (is_over << 1) | (may_any_fail << 2)


@inlined
def size_order(
    lanes: Lanes, rules: a.InstrumentRules, quote: a.Quote, worth: float, i: int, lane: int
) -> LaneOrder:
    """Return the order of a lane, of what it holds and what it decided."""
    quantity = lanes.position[spot(i, HELD.quantity, lane)]
    leverage = lanes.position[spot(i, HELD.target, lane)]
    limit = lanes.prices[PRICE.limit, i]
    return size_lane(rules, quote, worth, quantity, leverage, lanes.signal[i], limit)


@inlined
def measure_stake(
    lanes: Lanes,
    kind: FillKind,
    rules: a.InstrumentRules,
    quote: a.Quote,
    order: LaneOrder,
    after: float,
    i: int,
    lane: int,
) -> Stake:
    """Return what a lane puts at stake by its position: bounds, in money.

    What it may lose in the bar, by what it holds or, if that is more, by what it wants to hold;
    what its order costs; and the initial margin that the position needs.
    """
    position = lanes.position
    quantity = position[spot(i, HELD.quantity, lane)]
    contract_notional = abs(quote.fill)
    reached = abs(after) * contract_notional
    moved = abs(after - quantity) * contract_notional
    # Lots and volume leave less of an order, but its limits are tested before them.
    if kind.has_rounding:
        reached_before = select(order.is_adding, order.size, 0.0)
        reached = max(reached_before, reached)
        size_moved = abs(order.size - order.notional_held)
        moved_before = select(order.is_adding, size_moved, 0.0)
        moved = max(moved_before, moved)

    cost_rate = position[spot(i, HELD.cost, lane)]
    if kind.has_impact:
        cost_rate = bound_cost(rules, quote, order)
    cost = cost_rate * moved
    loss_of_one = lanes.prices[PRICE.reach, i]
    lost = abs(after) * loss_of_one
    if kind.is_alone and not kind.is_isolated:
        lost = max(lost, abs(quantity) * loss_of_one)

    # A share of the equity may cut the order, and an infinite target is for a run to size.
    rate = lanes.prices[PRICE.initial_rate, i]
    is_rare = order.is_adding & (rules.margin_share < math.inf)
    is_rare &= reached * rate > rules.margin_share * (order.worth - cost)
    is_rare |= order.is_asking & (order.target == math.inf)
    lost = select(is_rare, math.inf, lost)
    if not kind.is_isolated:
        return Stake(
            lost=lost,
            cost=cost,
            reached=reached,
            initial=reached * rate,
            backing=0.0,
            grown=0.0,
            is_cut=False,
        )

    profit = quantity * (quote.fill - position[spot(i, HELD.entry, lane)])
    is_cut = order.target * SLACK > lanes.prices[PRICE.limit, i]
    is_cut |= order.size * rate + cost > order.worth
    return Stake(
        lost=lost,
        cost=cost,
        reached=reached,
        initial=0.0,
        backing=position[spot(i, HELD.margin, lane)] + profit,
        grown=(abs(after) - abs(quantity)) * contract_notional,
        is_cut=is_cut,
    )


@inlined
def spare_pool(
    account: FloatArray, kind: FillKind, order: LaneOrder, stake: Stake, is_first: bool, lane: int
) -> float:
    """Return what a lane can spare after the losses and costs of its cross positions so far.

    Money; a lane whose number is not over 0 may fail. If a position grows, the initial margin of
    all must be there too, so the smaller of the two numbers counts. With several positions, the
    sums so far are read, and written for the next one.
    """
    lost = stake.lost
    costs = stake.cost
    initial = stake.initial
    adding = select(order.is_adding, 1.0, 0.0)
    if not kind.is_alone:
        lost += sum_before(account, WORK.lost, is_first, lane)
        costs += sum_before(account, WORK.costs, is_first, lane)
        initial += sum_before(account, WORK.initial, is_first, lane)
        adding += sum_before(account, WORK.adding, is_first, lane)
        account[cell(WORK.lost, lane)] = lost
        account[cell(WORK.costs, lane)] = costs
        account[cell(WORK.initial, lane)] = initial
        account[cell(WORK.adding, lane)] = adding

    # The line is the equity at which the account is ruined, or too poor to order.
    spare = order.worth - account[cell(OWN.line, lane)] - (lost + costs)
    free = order.worth - costs - initial
    return select((adding > 0.0) & (not free >= spare), free, spare)


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
    """Return what a lane can spare after its isolated positions so far, -1 if one may fail.

    Money. Each position must bear its loss by its own margin, and the cash must pay for all orders.
    A position that shrinks keeps its margin ratio, so only one that grows is tested. With several
    positions, the sums so far are read, and written for the next one; the smallest number counts.
    """
    worth = account[cell(WORK.worth, lane)]
    cash = account[cell(WALLET.cash, lane)]
    lost = stake.lost
    cost = stake.cost

    # What grows must bear its loss by its own backing. A flip, or what is cut, is for a run.
    posted = 1.0 / compute_setting(rules.margin, quote.initial)
    backing = stake.backing + stake.grown * posted - (1.0 + posted) * cost
    is_rare = (not lost < backing) & (stake.grown > 0.0)
    is_rare |= order.is_adding & (stake.is_cut | (order.notional_held < 0.0))

    # The cash pays margin and fee of what is added, and the costs of the order.
    price_ratio = SLACK * (1.0 + rules.slippage)
    outlay = price_ratio * (posted + rules.fee) * order.added + cost
    paid = select(order.is_adding, outlay, 0.0) + cost

    least = math.inf
    if not kind.is_alone:
        least = select(is_first, math.inf, account[cell(WORK.spare, lane)])
        lost += sum_before(account, WORK.lost, is_first, lane)
        cost += sum_before(account, WORK.costs, is_first, lane)
        paid += sum_before(account, WORK.initial, is_first, lane)
        account[cell(WORK.lost, lane)] = lost
        account[cell(WORK.costs, lane)] = cost
        account[cell(WORK.initial, lane)] = paid

    is_rare |= not paid <= cash
    spare = worth - account[cell(OWN.line, lane)] - (lost + cost)
    spare = select(is_rare, -1.0, spare)
    return select(least < spare, least, spare)


def raise_most(lanes: Lanes, i: int) -> bool:
    """Raise the bound of quantities of instrument i to what lanes want; return whether it rose.

    By GROWTH more than needed, so that it is not raised at each bar. An infinite wish is left out:
    its lane passes the bar alone.
    """
    largest = 0.0
    asking = lanes.cursor[CURSOR.asking]
    for lane in range(LANES):
        wanted = lanes.account[cell(WORK.wanted, lane)]
        is_counted = has_bit(asking, lane // GROUP) & (wanted < math.inf)
        largest = max(largest, select(is_counted, wanted, 0.0))

    lanes.most[i] = max(lanes.most[i], GROWTH * largest / lanes.prices[PRICE.at_open, i])
    return largest > 0.0


@inlined
def trade_lane(rules: a.InstrumentRules, balances: Balances, quote: a.Quote, after: float) -> Trade:
    """Return the trade of a lane to some contracts at the open, as :func:`.orders.fill` does."""
    impact = 0.0
    if rules.has_impact:
        notional = abs(after - balances.position.quantity) * abs(quote.fill)
        impact = a.compute_square_root_impact(rules.impact, quote, notional)
    rates = CostRates(slippage=rules.slippage, impact=impact, fee=rules.fee)
    return trade(rules, balances, quote.fill, after, rates, quote, is_order=True)


@inlined
def size_lane(
    rules: a.InstrumentRules,
    quote: a.Quote,
    equity: float,
    quantity: float,
    leverage: float,
    signal: float,
    limit: float,
) -> LaneOrder:
    """Return the order of a lane that holds a quantity and decided a leverage on a signal.

    ``equity`` is its worth; ``limit`` is the notional that its margin table allows.
    """
    contract_notional = abs(quote.fill)
    side = select(signal > 0.0, 1.0, -1.0)
    notional_held = quantity * (side * contract_notional)
    target = a.compute_target(rules, quote, equity, leverage, signal)
    is_asking = a.is_outside(rules, equity, target, notional_held) & (equity > 0.0)
    notional_kept = max(notional_held, 0.0)  # a flip keeps nothing
    is_adding = is_asking & (target > notional_kept)

    # Isolated, the notional as the limits of its order leave it: to contracts and back, so that the
    # last bit is that of a run.
    allowed = limit
    if rules.margin.is_isolated:
        kept = max(side * quantity, 0.0)
        of_target = target * (1.0 / contract_notional)
        allowed = side * (side * (kept + (of_target - kept))) * contract_notional

    added = max(min(target, allowed) - notional_kept, 0.0)
    size = select(is_adding, notional_kept + added, target)
    # An increase that was cut to nothing never reduces.
    is_cut_off = is_adding & (size <= notional_held) & (notional_held > 0.0)
    wanted = side * size * (1.0 / contract_notional) + 0.0  # 0, never -0
    return LaneOrder(
        worth=equity,
        wanted=select(is_asking & (not is_cut_off), wanted, quantity),
        target=target,
        notional_held=notional_held,
        size=size,
        added=added,
        is_asking=is_asking,
        is_adding=is_adding,
    )


@inlined
def bound_cost(rules: a.InstrumentRules, quote: a.Quote, order: LaneOrder) -> float:
    """Return a bound of what an order costs per unit of notional: worsening and fee."""
    worsening = rules.slippage
    if rules.has_impact:
        # An infinite target passes the bar alone, whatever its order costs here.
        change = abs(order.target - order.notional_held)
        notional = select(order.target < math.inf, change, 0.0)
        worsening += a.compute_square_root_impact(rules.impact, quote, notional)
        worsening = min(worsening, LARGEST_WORSENING)

    price_ratio = 1.0 + worsening
    if rules.margin.is_inverse:
        price_ratio = 1.0 / (1.0 - worsening)
    return (worsening * price_ratio + rules.fee * price_ratio) * SLACK


def add_held(lanes: Lanes, is_isolated: bool, is_first: bool, i: int) -> None:
    """Add what a position without an order may lose and needs to the sums of each lane.

    With ``is_first`` the sums begin with it. A position that stays has no costs.
    """
    account = lanes.account
    loss_of_one = lanes.prices[PRICE.reach, i]
    initial_of_one = lanes.prices[PRICE.initial_rate, i] * lanes.prices[PRICE.at_open, i]
    # Of isolated positions the sum is what cash must pay for, which is nothing here.
    if is_isolated:
        initial_of_one = 0.0

    # Group by group: the lowest bit that is left, which is then taken away.
    asking = lanes.cursor[CURSOR.asking]
    while asking != 0:
        group = lowest(asking)
        asking &= asking - 1
        for k in range(GROUP):
            lane = group * GROUP + k
            size = abs(lanes.position[spot(i, HELD.quantity, lane)])
            lost = sum_before(account, WORK.lost, is_first, lane)
            initial = sum_before(account, WORK.initial, is_first, lane)

            account[cell(WORK.costs, lane)] = 0.0
            account[cell(WORK.adding, lane)] = 0.0
            account[cell(WORK.spare, lane)] = math.inf
            account[cell(WORK.lost, lane)] = size * loss_of_one + lost
            account[cell(WORK.initial, lane)] = size * initial_of_one + initial


# The cap of gross leverage.


def find_capped(terms: a.Terms, lanes: Lanes, n: int) -> int:
    """Return as bits the lanes that want more gross notional than the cap of gross leverage allows.

    A bound: of each position counts what is held or what is wanted, whichever is larger.
    """
    account = lanes.account
    cap = terms.max_gross_leverage / SLACK
    if cap == math.inf:
        return 0

    for lane in range(LANES):
        account[cell(WORK.wanted, lane)] = 0.0
    for i in range(n):
        if is_listed(lanes, i):
            add_wanted(lanes, i)

    rare = 0
    for lane in range(LANES):
        is_rare = account[cell(WORK.wanted, lane)] > cap * account[cell(WORK.worth, lane)]
        rare |= is_rare << lane
    return rare


def find_overruled(terms: a.Terms, lanes: Lanes, n: int) -> int:
    """Return as bits the lanes whose bands may keep more than the cap of gross leverage allows.

    Only where a decision waits to fill: without one, no band is tested.
    """
    for i in range(n):
        if may_fill(lanes, i):
            return find_capped(terms, lanes, n)
    return 0


def add_wanted(lanes: Lanes, i: int) -> None:
    """Add to each lane the notional that a position may have: the larger of held and target."""
    account = lanes.account
    position = lanes.position
    quote = quote_open(lanes.prices, i)
    is_pending = lanes.is_pending[i] == 1
    kind = make_cross(has_rounding=False, is_alone=False)
    table = Table(size=1.0, setting=1.0, first_leverage=1.0)
    for lane in range(LANES):
        rules = read_rules(lanes.numbers, kind, table, i, lane)
        notional_held = abs(position[spot(i, HELD.quantity, lane)]) * abs(quote.fill)

        equity = account[cell(WORK.worth, lane)]
        leverage = position[spot(i, HELD.target, lane)]
        target = a.compute_target(rules, quote, equity, leverage, lanes.signal[i])
        is_larger = is_pending & (target > notional_held)
        account[cell(WORK.wanted, lane)] += select(is_larger, target, notional_held)


# Fills.


def fill_trades(terms: a.Terms, lanes: Lanes, n: int) -> None:
    """Fill what is planned; of several isolated positions all that shrink, before those that grow.

    So wallets add up in the order of a run, and have its bits.
    """
    if not (n > 1 and lanes.has_isolated):
        fill_turn(terms, lanes, n, ALL)
        return
    fill_turn(terms, lanes, n, SHRINKING)
    fill_turn(terms, lanes, n, GROWING)


def fill_turn(terms: a.Terms, lanes: Lanes, n: int, turn: int) -> None:
    """Fill what is planned and belongs to a turn, instrument by instrument."""
    for i in range(n):
        if lanes.is_asking[i] != 0:
            fill_by_kind(lanes, make_table(terms, i), turn, i)


def fill_by_kind(lanes: Lanes, table: Table, turn: int, i: int) -> None:
    """Fill by code for the kind of fills of an instrument; what is planned is rounded already."""
    kind = lanes.kinds[i]
    if kind <= LOTS:
        fill_lanes(lanes, make_cross(has_rounding=False, is_alone=False), table, turn, i)
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
        is_alone=False,
    )


@inlined
def fill_lanes(lanes: Lanes, kind: FillKind, table: Table, turn: int, i: int) -> None:
    """Fill an instrument in the groups of lanes that ask."""
    quote = quote_open(lanes.prices, i)
    # Group by group: the lowest bit that is left, which is then taken away.
    asking = lanes.cursor[CURSOR.asking]
    while asking != 0:
        group = lowest(asking)
        asking &= asking - 1
        for k in range(GROUP):
            fill_lane(lanes, kind, table, quote, turn, i, group * GROUP + k)


@inlined
def fill_lane(
    lanes: Lanes, kind: FillKind, table: Table, quote: a.Quote, turn: int, i: int, lane: int
) -> None:
    """Trade a lane to what it wants; writes cash, position and tally.

    The wallet of an isolated position that owes money posts nothing, and keeps its debt.
    """
    account = lanes.account
    position = lanes.position
    rules = read_rules(lanes.numbers, kind, table, i, lane)
    quantity = position[spot(i, HELD.quantity, lane)]
    cash = account[cell(WALLET.cash, lane)]
    want = position[spot(i, HELD.want, lane)]
    margin = 0.0
    available = cash

    # An isolated position trades in the turn of those that shrink, or of those that grow.
    if kind.is_isolated:
        margin = position[spot(i, HELD.margin, lane)]
        available = max(cash, 0.0)
        is_growing = (want * quantity <= 0.0) | (abs(want) > abs(quantity))
        is_growing &= want != 0.0
        is_its_turn = (turn == ALL) | (is_growing == (turn == GROWING))
        want = select(is_its_turn, want, quantity)

    entry = position[spot(i, HELD.entry, lane)]
    held = a.Position(quantity, entry, margin, 0.0)
    done = trade_lane(rules, a.Balances(available, held), quote, want)
    after = done.balances.position
    if kind.is_isolated:
        account[cell(WALLET.cash, lane)] = cash + (done.balances.cash - available)
        position[spot(i, HELD.margin, lane)] = after.margin
    else:
        account[cell(WALLET.cash, lane)] = done.balances.cash

    account[cell(TALLY.fees, lane)] += done.fee
    account[cell(TALLY.slippage, lane)] += done.slippage
    if kind.has_impact:
        account[cell(TALLY.impact, lane)] += done.impact
    account[cell(TALLY.traded, lane)] += abs(done.quantity) * abs(done.value)
    account[cell(TALLY.fills, lane)] += select(done.quantity != 0.0, 1.0, 0.0)

    # What opens or flips starts its best price at the entry.
    is_new = quantity * after.quantity <= 0.0
    best = position[spot(i, HELD.best, lane)]
    position[spot(i, HELD.best, lane)] = select(is_new, after.entry, best)
    position[spot(i, HELD.quantity, lane)] = after.quantity
    position[spot(i, HELD.entry, lane)] = after.entry


# Stops.


def find_exits(terms: a.Terms, lanes: Lanes, n: int, is_planned: bool) -> int:
    """Return as bits the lanes whose stops the prices of this bar may reach: they pass it alone.

    With what they hold, or with ``is_planned`` with what they want to hold.
    """
    position = lanes.position
    prices = lanes.prices
    rare = 0
    for i in range(n):
        if not is_listed(lanes, i) or (is_planned and lanes.is_asking[i] == 0):
            continue
        if is_planned or lanes.moves_stops or lanes.is_known[i] == 0:
            write_stops(terms, lanes, is_planned, i)

        low = min(prices[PRICE.open, i], prices[PRICE.last_low, i])
        high = max(prices[PRICE.open, i], prices[PRICE.last_high, i])
        for lane in range(LANES):
            is_out = low <= position[spot(i, HELD.stop_low, lane)]
            is_out |= high >= position[spot(i, HELD.stop_high, lane)]
            rare |= is_out << lane
    return rare


def write_stops(terms: a.Terms, lanes: Lanes, is_planned: bool, i: int) -> None:
    """Write the contract values between which no stop of each lane acts.

    Of what each lane holds, or with ``is_planned`` of what the groups that ask want to hold.
    """
    flags = terms.flags
    kind = FillKind(
        has_rounding=True,
        has_impact=True,
        is_inverse=terms.rules.brackets.are_inverse[i],
        is_isolated=False,
        is_alone=False,
        is_stop_distance=flags[i, STOP_DISTANCE] != 0,
        is_profit_distance=flags[i, PROFIT_DISTANCE] != 0,
        is_trail_distance=flags[i, TRAIL_DISTANCE] != 0,
    )

    table = Table(size=terms.rules.brackets.sizes[i], setting=1.0, first_leverage=1.0)
    quote = quote_open(lanes.prices, i)
    # Group by group: the lowest bit that is left, which is then taken away.
    groups = lanes.cursor[CURSOR.asking] if is_planned else ALL_GROUPS
    while groups != 0:
        group = lowest(groups)
        groups &= groups - 1
        for k in range(GROUP):
            lane = group * GROUP + k
            rules = read_rules(lanes.numbers, kind, table, i, lane)
            write_stops_of_lane(lanes, rules, quote, is_planned, i, lane)
    lanes.is_known[i] = 1


@inlined
def write_stops_of_lane(
    lanes: Lanes, rules: a.InstrumentRules, quote: a.Quote, is_planned: bool, i: int, lane: int
) -> None:
    """Write the contract values between which no stop of a lane acts.

    Its stop is on one side of them, its take-profit on the other.
    """
    # The position tested. The best value of one that is opened or turned now is its entry.
    position = lanes.position
    held = pick_held(position, i, lane)
    want = position[spot(i, HELD.want, lane)]
    planned = trade_lane(rules, a.Balances(0.0, held), quote, want).balances.position
    is_new = is_planned & (held.quantity * planned.quantity <= 0.0)
    best_of_held = position[spot(i, HELD.best, lane)]
    best = select(is_new, planned.entry, best_of_held)
    tested = planned if is_planned else held

    # The stop of a long is below, its take-profit above; those of a short the other way round.
    side = p.find_side(tested)
    is_long = tested.quantity > 0.0
    is_short = tested.quantity < 0.0

    balances = a.Balances(0.0, tested)
    nearest = p.find_nearest_stop(rules, balances, quote, best, math.nan)[1]
    stop = widen(nearest, side)
    goal = widen(p.compute_target_price(rules, tested, quote), -side)

    low = pick(is_long, stop, -math.inf)
    high = pick(is_short, stop, math.inf)
    position[spot(i, HELD.stop_low, lane)] = max(low, pick(is_short, goal, low))
    position[spot(i, HELD.stop_high, lane)] = min(high, pick(is_long, goal, high))


@inlined
def pick_held(position: FloatArray, i: int, lane: int) -> a.Position:
    """Return what a lane holds of an instrument; prices need no margin of it."""
    quantity = position[spot(i, HELD.quantity, lane)]
    entry = position[spot(i, HELD.entry, lane)]
    return a.Position(quantity, entry, 0.0, 0.0)


@inlined
def widen(stop: float, side: float) -> float:
    """Return a stop moved towards prices by rounding, which counts against the trader."""
    return stop + side * (2.0 * TOLERANCE) * abs(stop)


@inlined
def pick(is_there: bool, stop: float, other: float) -> float:
    """Return a stop that is there, else another number."""
    return select(is_there & (not math.isnan(stop)), stop, other)


def follow_bests(lanes: Lanes, n: int) -> None:
    """Advance the best contract value of trailing stops in all lanes."""
    position = lanes.position
    for i in range(n):
        if not is_listed(lanes, i):
            continue
        quote = quote_open(lanes.prices, i)

        for lane in range(LANES):
            held = pick_held(position, i, lane)
            best = position[spot(i, HELD.best, lane)]
            position[spot(i, HELD.best, lane)] = a.follow_prices(best, held, quote)
