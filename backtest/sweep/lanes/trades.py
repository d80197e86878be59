"""Bars in which lanes trade: first what each would hold and need, then the fills."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from backtest import account as a
from backtest.account import position as p
from backtest.account.money import WALLET
from backtest.account.orders import LARGEST_WORSENING, round_quantity, trade
from backtest.account.records import FLAGS, Balances, Trade
from backtest.core.kernels import inlined
from backtest.core.units import TOLERANCE
from backtest.margin import compute_setting
from backtest.sweep.lanes import rows as r
from backtest.sweep.lanes.quiet import bound_moves, bound_rates, find_spent
from backtest.sweep.lanes.rows import LANES, FillKind, Lanes, Table, cell, lowest, make_kind, spot

if TYPE_CHECKING:
    from backtest.core import FloatArray

ALL, SHRINKING, GROWING = range(3)
"""Which positions are filled."""
GROWTH = 1.5
"""Ratio of the bound of quantities to the largest one that exceeded the last bound."""

STOP_DISTANCE, PROFIT_DISTANCE, TRAIL_DISTANCE = (
    FLAGS.index(name) for name in ("is_stop_distance", "is_profit_distance", "is_trail_distance")
)


class LaneOrder(NamedTuple):
    wanted: float
    reach: float
    held: float
    size: float
    added: float
    is_asking: bool
    is_adding: bool


def plan_trades(terms: a.Terms, lanes: Lanes, n: int) -> tuple[bool, int]:
    """Write what lanes want to hold; return whether any trades, and as bits who may fail."""
    rare = find_capped(terms, lanes, n)
    lanes.found[r.REASON.capped] = rare
    while True:
        is_trading, is_over, is_any = plan_once(terms, lanes, n)
        if not is_over:
            return is_trading, rare | (find_spent(lanes) if is_any else 0)
        for i in range(n):
            bound_rates(terms, lanes, i)
            bound_moves(lanes, i)


def plan_once(terms: a.Terms, lanes: Lanes, n: int) -> tuple[bool, bool, bool]:
    """Plan trades after what is kept: each tests the sums so far.

    Return whether any lane trades, whether one passes the bound of quantities, and whether one may
    fail.
    """
    is_trading, is_over, is_any, is_first = False, False, False, True
    for i in range(n):
        if lanes.prices[r.PRICE.is_listed, i] != 0.0 and lanes.is_asking[i] == 0:
            add_held(lanes, terms.rules.brackets.are_isolated[i] != 0, is_first, i)
            is_first = False
    for i in range(n):
        if lanes.prices[r.PRICE.is_listed, i] != 0.0 and lanes.is_asking[i] != 0:
            some, more, found = plan_by_kind(terms, lanes, is_first, i)
            is_trading, is_over, is_any = is_trading or some, is_over or more, is_any or found
            is_first = False
    return is_trading, is_over, is_any


def make_table(terms: a.Terms, i: int) -> Table:
    tables = terms.rules.brackets
    return Table(1.0, tables.settings[i], tables.leverages[i, 0])


def plan_by_kind(terms: a.Terms, lanes: Lanes, is_first: bool, i: int) -> tuple[bool, bool, bool]:
    """Return the answers of :func:`plan` of code for the kind of fills of an instrument."""
    kind, table = lanes.kinds[i], make_table(terms, i)
    if len(lanes.signal) == 1 and kind < r.LINEAR:
        return plan_alone(lanes, kind, table)
    if kind == r.PLAIN:
        return plan(lanes, make_kind(False, False, False, False, False), table, is_first, i)
    if kind == r.LOTS:
        return plan(lanes, make_kind(True, False, False, False, False), table, is_first, i)
    if kind == r.LINEAR:
        return plan(lanes, make_kind(True, True, False, False, False), table, is_first, i)
    if kind == r.INVERTED:
        return plan(lanes, make_kind(True, True, True, False, False), table, is_first, i)
    if kind == r.ISOLATED:
        return plan(lanes, make_kind(True, True, False, True, False), table, is_first, i)
    return plan(lanes, make_kind(True, True, True, True, False), table, is_first, i)


def plan_alone(lanes: Lanes, kind: int, table: Table) -> tuple[bool, bool, bool]:
    """Return the answers of :func:`plan` of code for the kind of fills of a single position."""
    if kind == r.PLAIN:
        return plan(lanes, make_kind(False, False, False, False, True), table, True, 0)
    if kind == r.LOTS:
        return plan(lanes, make_kind(True, False, False, False, True), table, True, 0)
    if kind == r.ISOLATED:
        return plan(lanes, make_kind(True, True, False, True, True), table, True, 0)
    return plan(lanes, make_kind(True, True, True, True, True), table, True, 0)


@inlined
def plan(
    lanes: Lanes, kind: FillKind, table: Table, is_first: bool, i: int
) -> tuple[bool, bool, bool]:
    found, asking = 0, lanes.cursor[r.CURSOR.asking]
    while asking != 0:
        group = lowest(asking)
        asking &= asking - 1
        found |= plan_group(lanes, kind, table, is_first, group, i)
    is_over = r.has_bit(found, 1) and raise_most(lanes, i)
    return r.has_bit(found, 0), is_over, r.has_bit(found, 2)


@inlined
def plan_group(
    lanes: Lanes, kind: FillKind, table: Table, is_first: bool, group: int, i: int
) -> int:
    """Plan the trades of a group; return three answers of :func:`plan_once` as bits."""
    account, position, numbers = lanes.account, lanes.position, lanes.numbers
    quote, signal, limit = (
        r.quote_open(lanes.prices, i),
        lanes.signal[i],
        lanes.prices[r.PRICE.limit, i],
    )
    unit, reach_of_one = abs(quote.fill), lanes.prices[r.PRICE.reach, i]
    rate, most = lanes.prices[r.PRICE.initial_rate, i], lanes.most[i] * unit
    is_trading, is_over, is_any = False, False, False
    for k in range(r.GROUP):
        lane = group * r.GROUP + k
        rules = r.read_rules(numbers, kind, table, i, lane)
        quantity, worth = (
            position[spot(i, r.HELD.quantity, lane)],
            account[cell(r.WORK.worth, lane)],
        )
        if kind.is_alone and not kind.is_isolated:  # who trades at every bar was not looked at
            worth = account[cell(WALLET.cash, lane)] + quantity * quote.fill
        target = position[spot(i, r.HELD.target, lane)]
        order = size_lane(rules, quote, worth, quantity, target, signal, limit)
        after = round_quantity(rules, quantity, quote, order.wanted)
        reached, moved = abs(after) * unit, abs(after - quantity) * unit
        if kind.has_rounding:
            reached = max(order.size if order.is_adding else 0.0, reached)
            moved = max(abs(order.size - order.held) if order.is_adding else 0.0, moved)
        cost = position[spot(i, r.HELD.cost, lane)]
        if kind.has_impact:
            cost = bound_cost(rules, quote, order)
        cost *= moved
        lost = abs(after) * reach_of_one
        if kind.is_alone and not kind.is_isolated:
            lost = max(lost, abs(quantity) * reach_of_one)
        is_cut = order.is_adding & (rules.margin_share < math.inf)
        is_cut &= reached * rate > rules.margin_share * (worth - cost)
        is_cut |= order.is_asking & (order.reach == math.inf)
        lost = math.inf if is_cut else lost
        if kind.is_isolated:
            profit = quantity * (quote.fill - position[spot(i, r.HELD.entry, lane)])
            backing, grown = (
                position[spot(i, r.HELD.margin, lane)] + profit,
                abs(after) - abs(quantity),
            )
            is_cut = order.reach * r.SLACK > limit
            is_cut |= order.size * rate + cost > worth
            spare = spare_isolated(
                account, kind, rules, quote, order, backing, grown * unit, lost, cost, is_cut,
                is_first, lane,
            )  # fmt: skip
        else:
            initial = reached * rate
            spare = spare_pool(account, kind, order, worth, lost, cost, initial, is_first, lane)
        is_any |= not spare > 0.0
        account[cell(r.WORK.spare, lane)], account[cell(r.WORK.wanted, lane)] = spare, reached
        position[spot(i, r.HELD.want, lane)] = after
        is_trading |= after != quantity
        is_over |= reached > most
    return is_trading | (is_over << 1) | (is_any << 2)


@inlined
def spare_pool(
    account: FloatArray, kind: FillKind, order: LaneOrder, worth: float, lost: float, costs: float,
    initial: float, is_first: bool, lane: int,
) -> float:  # fmt: skip
    """Return a number over 0 if the lane can bear what all its positions so far may lose and cost.

    If one of them grows, their initial margin must be there. The sums so far are kept.
    """
    adding = 1.0 if order.is_adding else 0.0
    if not kind.is_alone:
        lost += 0.0 if is_first else account[cell(r.WORK.lost, lane)]
        costs += 0.0 if is_first else account[cell(r.WORK.costs, lane)]
        initial += 0.0 if is_first else account[cell(r.WORK.initial, lane)]
        adding += 0.0 if is_first else account[cell(r.WORK.adding, lane)]
        account[cell(r.WORK.lost, lane)], account[cell(r.WORK.costs, lane)] = lost, costs
        account[cell(r.WORK.initial, lane)], account[cell(r.WORK.adding, lane)] = initial, adding
    spare = worth - account[cell(r.OWN.line, lane)] - (lost + costs)
    free = worth - costs - initial
    return free if (adding > 0.0) & (not free >= spare) else spare


@inlined
def spare_isolated(
    account: FloatArray, kind: FillKind, rules: a.InstrumentRules, quote: a.Quote,
    order: LaneOrder, backing: float, grown: float, lost: float, cost: float, is_cut: bool,
    is_first: bool, lane: int,
) -> float:  # fmt: skip
    """Return a number over 0 if all positions so far bear what they may lose, and cash the costs.

    ``backing`` is that of the position before it grows by the notional ``grown``: one that shrinks
    keeps its ratio. The sums so far are kept.
    """
    worth, cash = account[cell(r.WORK.worth, lane)], account[cell(WALLET.cash, lane)]
    posted = 1.0 / compute_setting(rules.margin, quote.initial)
    least = backing + grown * posted - (1.0 + posted) * cost
    is_rare = (not lost < least) & (grown > 0.0)
    taken = r.SLACK * (1.0 + rules.slippage) * (posted + rules.fee) * order.added + cost
    taken = (taken if order.is_adding else 0.0) + cost
    is_rare |= order.is_adding & (is_cut | (order.held < 0.0))
    least = math.inf
    if not kind.is_alone:
        least = least if is_first else account[cell(r.WORK.spare, lane)]
        lost += 0.0 if is_first else account[cell(r.WORK.lost, lane)]
        cost += 0.0 if is_first else account[cell(r.WORK.costs, lane)]
        taken += 0.0 if is_first else account[cell(r.WORK.initial, lane)]
        account[cell(r.WORK.lost, lane)], account[cell(r.WORK.costs, lane)] = lost, cost
        account[cell(r.WORK.initial, lane)] = taken
    is_rare |= not taken <= cash
    spare = -1.0 if is_rare else worth - account[cell(r.OWN.line, lane)] - (lost + cost)
    return least if least < spare else spare


def raise_most(lanes: Lanes, i: int) -> bool:
    account, largest, asking = lanes.account, 0.0, lanes.cursor[r.CURSOR.asking]
    for lane in range(LANES):
        reached = account[cell(r.WORK.wanted, lane)] if r.has_bit(asking, lane // r.GROUP) else 0.0
        largest = max(largest, reached) if reached < math.inf else largest
    lanes.most[i] = max(lanes.most[i], GROWTH * largest / lanes.prices[r.PRICE.at_open, i])
    return largest > 0.0


@inlined
def trade_lane(rules: a.InstrumentRules, balances: Balances, quote: a.Quote, after: float) -> Trade:
    impact = 0.0
    if rules.has_impact:
        change = abs(after - balances.position.quantity)
        impact = a.compute_square_root_impact(rules.impact, quote, change * abs(quote.fill))
    return trade(rules, balances, quote.fill, after, rules.slippage, impact, rules.fee, quote, True)


@inlined
def size_lane(
    rules: a.InstrumentRules,
    quote: a.Quote,
    equity: float,
    quantity: float,
    target: float,
    signal: float,
    limit: float,
) -> LaneOrder:
    unit, side = abs(quote.fill), 1.0 if signal > 0.0 else -1.0
    held = quantity * (side * unit)
    reach = a.compute_target(rules, quote, equity, target, signal)
    is_asking = a.is_outside(rules, equity, reach, held) & (equity > 0.0)
    kept = max(held, 0.0)
    is_adding = is_asking & (reach > kept)
    allowed = limit
    if rules.margin.is_isolated:  # the notional as the limits of its order leave it, to the bit
        open_now = max(side * quantity, 0.0)
        allowed = side * (side * (open_now + (reach * (1.0 / unit) - open_now))) * unit
    added = max(min(reach, allowed) - kept, 0.0)
    size = kept + added if is_adding else reach
    is_kept = is_adding & (size <= held) & (held > 0.0)
    wanted = side * size * (1.0 / unit) + 0.0
    wanted = wanted if is_asking & (not is_kept) else quantity
    return LaneOrder(wanted, reach, held, size, added, is_asking, is_adding)


@inlined
def bound_cost(rules: a.InstrumentRules, quote: a.Quote, order: LaneOrder) -> float:
    worsening = rules.slippage
    if rules.has_impact:
        notional = abs(order.reach - order.held) if order.reach < math.inf else 0.0
        worsening += a.compute_square_root_impact(rules.impact, quote, notional)
        worsening = min(worsening, LARGEST_WORSENING)
    ratio = 1.0 + worsening
    if rules.margin.is_inverse:
        ratio = 1.0 / (1.0 - worsening)
    return (worsening * ratio + rules.fee * ratio) * r.SLACK


def add_held(lanes: Lanes, is_isolated: bool, is_first: bool, i: int) -> None:
    account, position, prices = lanes.account, lanes.position, lanes.prices
    reach, rate = (
        prices[r.PRICE.reach, i],
        prices[r.PRICE.initial_rate, i] * prices[r.PRICE.at_open, i],
    )
    rate = 0.0 if is_isolated else rate  # what cash must pay for, which is nothing here
    asking = lanes.cursor[r.CURSOR.asking]
    while asking != 0:
        group = lowest(asking)
        asking &= asking - 1
        for k in range(r.GROUP):
            lane = group * r.GROUP + k
            size = abs(position[spot(i, r.HELD.quantity, lane)])
            lost, initial = account[cell(r.WORK.lost, lane)], account[cell(r.WORK.initial, lane)]
            account[cell(r.WORK.costs, lane)] = 0.0
            account[cell(r.WORK.adding, lane)] = 0.0
            account[cell(r.WORK.spare, lane)] = math.inf
            account[cell(r.WORK.lost, lane)] = size * reach + (0.0 if is_first else lost)
            account[cell(r.WORK.initial, lane)] = size * rate + (0.0 if is_first else initial)


def find_capped(terms: a.Terms, lanes: Lanes, n: int) -> int:
    """Return as bits the lanes that want to hold more than the cap of gross leverage."""
    account, rare = lanes.account, 0
    most = terms.max_gross_leverage / r.SLACK
    if most == math.inf:
        return 0
    for lane in range(LANES):
        account[cell(r.WORK.wanted, lane)] = 0.0
    for i in range(n):
        if lanes.prices[r.PRICE.is_listed, i] != 0.0:
            add_wanted(lanes, i)
    for lane in range(LANES):
        is_rare = account[cell(r.WORK.wanted, lane)] > most * account[cell(r.WORK.worth, lane)]
        rare |= is_rare << lane
    return rare


def find_overruled(terms: a.Terms, lanes: Lanes, n: int) -> int:
    """Return as bits the lanes whose bands keep more than the cap of gross leverage lets them."""
    for i in range(n):
        if lanes.is_pending[i] == 1 and lanes.prices[r.PRICE.is_listed, i] != 0.0:
            return find_capped(terms, lanes, n)
    return 0


def add_wanted(lanes: Lanes, i: int) -> None:
    account, position, numbers = lanes.account, lanes.position, lanes.numbers
    quote, signal, is_open = (
        r.quote_open(lanes.prices, i),
        lanes.signal[i],
        lanes.is_pending[i] == 1,
    )
    kind, table = make_kind(False, False, False, False, False), Table(1.0, 1.0, 1.0)
    for lane in range(LANES):
        rules = r.read_rules(numbers, kind, table, i, lane)
        held = abs(position[spot(i, r.HELD.quantity, lane)]) * abs(quote.fill)
        equity, target = account[cell(r.WORK.worth, lane)], position[spot(i, r.HELD.target, lane)]
        reach = a.compute_target(rules, quote, equity, target, signal)
        account[cell(r.WORK.wanted, lane)] += reach if is_open & (reach > held) else held


def fill_trades(terms: a.Terms, lanes: Lanes, n: int) -> None:
    """Fill what is planned; of several isolated positions all that shrink, before those that grow.

    So wallets add up in the order of a run, and have its bits.
    """
    is_split = n > 1 and lanes.has_isolated
    for turn in range(2 if is_split else 1):
        for i in range(n):
            if lanes.is_asking[i] != 0:
                fill_by_kind(lanes, make_table(terms, i), SHRINKING + turn if is_split else ALL, i)


def fill_by_kind(lanes: Lanes, table: Table, turn: int, i: int) -> None:
    kind = lanes.kinds[i]
    if kind <= r.LOTS:
        fill_lanes(lanes, make_kind(False, False, False, False, False), table, turn, i)
    elif kind == r.LINEAR:
        fill_lanes(lanes, make_kind(False, True, False, False, False), table, turn, i)
    elif kind == r.INVERTED:
        fill_lanes(lanes, make_kind(False, True, True, False, False), table, turn, i)
    elif kind == r.ISOLATED:
        fill_lanes(lanes, make_kind(False, True, False, True, False), table, turn, i)
    else:
        fill_lanes(lanes, make_kind(False, True, True, True, False), table, turn, i)


@inlined
def fill_lanes(lanes: Lanes, kind: FillKind, table: Table, turn: int, i: int) -> None:
    account, position, numbers = lanes.account, lanes.position, lanes.numbers
    quote, asking = r.quote_open(lanes.prices, i), lanes.cursor[r.CURSOR.asking]
    while asking != 0:
        group = lowest(asking)
        asking &= asking - 1
        for k in range(r.GROUP):
            lane = group * r.GROUP + k
            rules = r.read_rules(numbers, kind, table, i, lane)
            quantity, entry = (
                position[spot(i, r.HELD.quantity, lane)],
                position[spot(i, r.HELD.entry, lane)],
            )
            margin, cash = 0.0, account[cell(WALLET.cash, lane)]
            want, room = position[spot(i, r.HELD.want, lane)], cash
            if kind.is_isolated:
                margin, room = position[spot(i, r.HELD.margin, lane)], max(cash, 0.0)
                is_growing = (want * quantity <= 0.0) | (abs(want) > abs(quantity))
                is_growing &= want != 0.0
                want = want if (turn == ALL) | (is_growing == (turn == GROWING)) else quantity
            own = a.Position(quantity, entry, margin, 0.0)
            done = trade_lane(rules, a.Balances(room, own), quote, want)
            after = done.balances.position
            if kind.is_isolated:
                account[cell(WALLET.cash, lane)] = cash + (done.balances.cash - room)
                position[spot(i, r.HELD.margin, lane)] = after.margin
            else:
                account[cell(WALLET.cash, lane)] = done.balances.cash
            account[cell(r.TALLY.fees, lane)] += done.fee
            account[cell(r.TALLY.slippage, lane)] += done.slippage
            if kind.has_impact:
                account[cell(r.TALLY.impact, lane)] += done.impact
            account[cell(r.TALLY.traded, lane)] += abs(done.quantity) * abs(done.value)
            account[cell(r.TALLY.fills, lane)] += 1.0 if done.quantity != 0.0 else 0.0
            is_new = quantity * after.quantity <= 0.0
            best = position[spot(i, r.HELD.best, lane)]
            position[spot(i, r.HELD.best, lane)] = after.entry if is_new else best
            position[spot(i, r.HELD.quantity, lane)] = after.quantity
            position[spot(i, r.HELD.entry, lane)] = after.entry


def find_exits(terms: a.Terms, lanes: Lanes, n: int, is_planned: bool) -> int:
    """Return lanes whose stops this bar may reach with what they hold, or with what they want."""
    position, prices, rare = lanes.position, lanes.prices, 0
    for i in range(n):
        if prices[r.PRICE.is_listed, i] == 0.0 or (is_planned and lanes.is_asking[i] == 0):
            continue
        if is_planned or lanes.moves_stops or lanes.is_known[i] == 0:
            write_stops(terms, lanes, is_planned, i)
        low = min(prices[r.PRICE.open, i], prices[r.PRICE.last_low, i])
        high = max(prices[r.PRICE.open, i], prices[r.PRICE.last_high, i])
        for lane in range(LANES):
            is_out = low <= position[spot(i, r.HELD.stop_low, lane)]
            is_out |= high >= position[spot(i, r.HELD.stop_high, lane)]
            rare |= is_out << lane
    return rare


def write_stops(terms: a.Terms, lanes: Lanes, is_planned: bool, i: int) -> None:
    """Write the u between which no stop of each lane acts, with what it holds or what it wants."""
    position, numbers, prices = lanes.position, lanes.numbers, lanes.prices
    quote, flags = r.quote_open(prices, i), terms.flags
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
    table = Table(terms.rules.brackets.sizes[i], 1.0, 1.0)
    asking = lanes.cursor[r.CURSOR.asking] if is_planned else r.ALL_GROUPS
    while asking != 0:
        group = lowest(asking)
        asking &= asking - 1
        for k in range(r.GROUP):
            lane = group * r.GROUP + k
            rules = r.read_rules(numbers, kind, table, i, lane)
            own = a.Position(
                position[spot(i, r.HELD.quantity, lane)],
                position[spot(i, r.HELD.entry, lane)],
                0.0,
                0.0,
            )
            best, want = position[spot(i, r.HELD.best, lane)], position[spot(i, r.HELD.want, lane)]
            after = trade_lane(rules, a.Balances(0.0, own), quote, want).balances.position
            best = after.entry if is_planned & (own.quantity * after.quantity <= 0.0) else best
            own = after if is_planned else own
            side, is_long, is_short = p.find_side(own), own.quantity > 0.0, own.quantity < 0.0
            held = a.Balances(0.0, own)
            stop = widen(p.find_nearest_stop(rules, held, quote, best, math.nan)[1], side)
            aim = widen(p.compute_target_price(rules, own, quote), -side)
            low, high = pick(is_long, stop, -math.inf), pick(is_short, stop, math.inf)
            low, high = max(low, pick(is_short, aim, low)), min(high, pick(is_long, aim, high))
            position[spot(i, r.HELD.stop_low, lane)] = low
            position[spot(i, r.HELD.stop_high, lane)] = high
    lanes.is_known[i] = 1


@inlined
def widen(stop: float, side: float) -> float:
    return stop + side * (2.0 * TOLERANCE) * abs(stop)


@inlined
def pick(is_there: bool, stop: float, other: float) -> float:
    return stop if is_there & (not math.isnan(stop)) else other


def follow_bests(lanes: Lanes, n: int) -> None:
    position = lanes.position
    for i in range(n):
        if lanes.prices[r.PRICE.is_listed, i] == 0.0:
            continue
        quote = r.quote_open(lanes.prices, i)
        for lane in range(LANES):
            own = a.Position(
                position[spot(i, r.HELD.quantity, lane)],
                position[spot(i, r.HELD.entry, lane)],
                0.0,
                0.0,
            )
            best = position[spot(i, r.HELD.best, lane)]
            position[spot(i, r.HELD.best, lane)] = a.follow_prices(best, own, quote)
