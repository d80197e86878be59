"""Bars in which nothing is due but prices, funding and interest: payments, and looking for more.

Loops over lanes have no branch on what differs between lanes: ``select`` chooses between two values
that are both computed. Words are those of :mod:`.trades`; beside them:

====================  ==============================================================================
word                  what it is, and its unit
====================  ==============================================================================
widest                largest contract value of the bar, without sign: money per contract
far                   the most that a contract may lose in the bar from its open on
reach                 the same, with the margin that it needs there and the funding still to come
rate                  bound of the maintenance margin of all lanes, per unit of notional
top                   notional up to which the rates are bounds
====================  ==============================================================================
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backtest.account import MarketFeed, Terms, compute_target, is_outside, pick_margin
from backtest.account.money import WALLET
from backtest.account.records import at, at_column, read_value
from backtest.core.kernels import inlined
from backtest.margin import compute_largest_notional, compute_payment, compute_value, scale_rate
from backtest.sweep.lanes.rows import (
    CURSOR,
    GROUP,
    GROUPS,
    HELD,
    LANES,
    OWN,
    PRICE,
    SLACK,
    TABLE,
    WORK,
    FillKind,
    Lanes,
    Table,
    cell,
    is_listed,
    make_kind,
    may_fill,
    quote_open,
    read_rules,
    select,
    spot,
)

if TYPE_CHECKING:
    from backtest.account import InstrumentRules, Quote
    from backtest.core import FloatArray


ROUNDING = 1e-9
"""Share of the notional that allows for rounding in the bound of a loss."""


def begin_prices(terms: Terms, feed: MarketFeed, lanes: Lanes) -> None:
    """Write what holds in a chunk of bars: multipliers, the largest notional, and costs.

    Margins do not change within a chunk; the largest notional is what the margin table allows at
    any equity.
    """
    prices = lanes.prices
    brackets = terms.rules.brackets
    for i in range(len(lanes.signal)):
        brackets.multipliers[i] = feed.multiplier[0, i]
        brackets.initial_multipliers[i] = feed.initial[0, i]
        prices[PRICE.limit, i] = compute_largest_notional(
            pick_margin(terms, i),
            equity=math.inf,
            held=0.0,
            cost=0.0,
            multiplier=feed.initial[0, i],
            enough=math.inf,
        )

        prices[PRICE.initial_x, i] = feed.initial[0, i]
        lanes.is_known[i] = 0
        write_costs(lanes, i)
    lanes.cursor[CURSOR.is_bound] = 0


def write_costs(lanes: Lanes, i: int) -> None:
    """Write a bound of what a unit of notional costs without impact, of all lanes."""
    kind = make_simple(is_isolated=False)
    table = Table(size=1.0, setting=1.0, first_leverage=1.0)
    for lane in range(LANES):
        rules = read_rules(lanes.numbers, kind, table, i, lane)
        # Slippage moves the price, and the fee is of the price moved.
        price_ratio = 1.0 + rules.slippage
        cost = (rules.slippage * price_ratio + rules.fee * price_ratio) * SLACK
        lanes.position[spot(i, HELD.cost, lane)] = cost


@inlined
def make_simple(is_isolated: bool) -> FillKind:
    """Return the kind of fills without rounding, impact and inverse contracts."""
    return make_kind(
        has_rounding=False,
        has_impact=False,
        is_inverse=False,
        is_isolated=is_isolated,
        is_alone=False,
    )


def write_table(terms: Terms, feed: MarketFeed, lanes: Lanes, start: int, stop: int) -> None:
    """Write the prices of bars that all blocks share, in the settlement currency per contract."""
    table = lanes.table
    for t in range(start, stop):
        for i in range(len(lanes.signal)):
            value = read_value(terms, feed.open, t, i)
            opened = read_value(terms, feed.mark_open, t, i)
            low = read_value(terms, feed.mark_low, t, i)
            high = read_value(terms, feed.mark_high, t, i)
            close = read_value(terms, feed.mark_close, t, i)

            # The open and the close may lie outside of low and high.
            low = min(opened, low, close)
            high = max(opened, high, close)
            table[t, i, TABLE.open] = value
            table[t, i, TABLE.close] = close
            table[t, i, TABLE.widest] = max(abs(low), abs(high), abs(value))
            table[t, i, TABLE.far] = max(value - low, high - value)


def write_bar_prices(terms: Terms, feed: MarketFeed, lanes: Lanes, t: int) -> None:
    """Write the prices of bar t, and the bounds that hold in it."""
    prices = lanes.prices
    table = lanes.table
    is_bound = lanes.cursor[CURSOR.is_bound] == 1
    for i in range(len(lanes.signal)):
        prices[PRICE.is_listed, i] = 0.0
        if not feed.span[i, 0] <= t < feed.span[i, 1]:
            continue
        prices[PRICE.is_listed, i] = 1.0

        value = table[t, i, TABLE.open]
        widest = table[t, i, TABLE.widest]
        prices[PRICE.open, i] = value
        prices[PRICE.at_open, i] = abs(value)
        prices[PRICE.close, i] = table[t, i, TABLE.close]
        prices[PRICE.widest, i] = widest
        prices[PRICE.far, i] = table[t, i, TABLE.far]

        # Rates hold up to a notional: a wider price may carry a lane over it.
        largest_notional = lanes.most[i] * widest
        if not is_bound or largest_notional > prices[PRICE.top, i]:
            bound_rates(terms, lanes, i)
        prices[PRICE.due, i] = 0.0
        bound_moves(lanes, i)
    lanes.cursor[CURSOR.is_bound] = 1


def write_before(terms: Terms, feed: MarketFeed, lanes: Lanes, t: int) -> None:
    """Write what a contract was worth at the close before bar t, at its open if it is the first."""
    last = max(t - 1, 0)
    for i in range(len(lanes.signal)):
        before = read_value(terms, feed.mark_close, last, i)
        if math.isnan(before):
            before = lanes.prices[PRICE.open, i]
        lanes.prices[PRICE.before, i] = before


def write_rest_of_prices(terms: Terms, feed: MarketFeed, lanes: Lanes, t: int) -> None:
    """Write what only lanes with impact or stops read of bar t, into ``lanes.prices``."""
    prices = lanes.prices
    for i in range(len(lanes.signal)):
        # Impact: a fill at the open knows the volume of the bar before.
        prices[PRICE.volume, i] = feed.volume[max(t - 1, 0), i]
        prices[PRICE.sigma, i] = at_column(feed.sigma, t, i)
        prices[PRICE.adv, i] = at_column(feed.adv, t, i)

        # Stops: the range of last prices that may reach them, and the scales of their distances.
        prices[PRICE.last_low, i] = read_value(terms, feed.low, t, i)
        prices[PRICE.last_high, i] = read_value(terms, feed.high, t, i)
        prices[PRICE.stop_scale, i] = at_column(feed.stop_scale, t, i)
        prices[PRICE.profit_scale, i] = at_column(feed.profit_scale, t, i)
        prices[PRICE.trail_scale, i] = at_column(feed.trail_scale, t, i)


def bound_moves(lanes: Lanes, i: int) -> None:
    """Write a bound of what one contract can lose in the bar, with the margin that it needs then.

    Money per contract, and the funding after the open with it.
    """
    prices = lanes.prices
    needed = (prices[PRICE.rate, i] + ROUNDING) * prices[PRICE.widest, i]
    prices[PRICE.reach, i] = prices[PRICE.far, i] + needed + prices[PRICE.due, i]


def bound_rates(terms: Terms, lanes: Lanes, i: int) -> None:
    """Write bounds of the margin rates that hold for the notionals of all lanes.

    They are the largest rates of the brackets up to the largest notional, and hold up to the row
    ``top``: there the next bracket begins.
    """
    prices = lanes.prices
    most = lanes.most[i] * prices[PRICE.widest, i] * SLACK
    rate, top_of_rate = bound_maintenance(terms, most, i)
    initial, top_of_initial = bound_initial(terms, most, i)
    prices[PRICE.top, i] = min(top_of_rate, top_of_initial) / SLACK
    prices[PRICE.rate, i] = rate * SLACK
    prices[PRICE.initial_rate, i] = initial * SLACK


def bound_maintenance(terms: Terms, most: float, i: int) -> tuple[float, float]:
    """Return the largest maintenance rate up to a notional, and the notional up to which it holds.

    That is the floor of the first bracket that was not looked at.
    """
    tables = terms.rules.brackets
    multiplier = tables.multipliers[i]
    fee = tables.close_fees[i]
    rate = scale_rate(tables.rates[i, 0], multiplier, fee)
    k = 1
    while k < tables.counts[i] and most > tables.floors[i, k]:
        rate = max(rate, scale_rate(tables.rates[i, k], multiplier, fee))
        k += 1

    # In the last bracket it holds for all notionals.
    if k < tables.counts[i]:
        return rate, tables.floors[i, k]
    return rate, math.inf


def bound_initial(terms: Terms, most: float, i: int) -> tuple[float, float]:
    """Return the largest initial margin rate up to a notional, and the notional it holds up to.

    A venue leverage that is set holds for all notionals.
    """
    tables = terms.rules.brackets
    multiplier = tables.initial_multipliers[i]
    if tables.settings[i] > 0.0:
        return 1.0 / min(tables.settings[i], tables.leverages[i, 0] / multiplier), math.inf

    rate = multiplier / tables.leverages[i, 0]
    k = 1
    while k < tables.counts[i] and most > tables.caps[i, k - 1]:
        rate = max(rate, multiplier / tables.leverages[i, k])
        k += 1
    if k < tables.counts[i]:
        return rate, tables.caps[i, k - 1]
    return rate, math.inf


# Payments.


def begin_payments(lanes: Lanes, n: int) -> None:
    """Keep cash and margins from before the payments of a bar, and empty their sums."""
    account = lanes.account
    position = lanes.position
    for lane in range(LANES):
        account[cell(WORK.cash_before, lane)] = account[cell(WALLET.cash, lane)]
        account[cell(WORK.costs, lane)] = 0.0
        account[cell(WORK.funded, lane)] = 0.0
        account[cell(WORK.charged, lane)] = 0.0

    # Cross positions have no margin of their own.
    if not lanes.has_isolated:
        return
    for i in range(n):
        for lane in range(LANES):
            margin = position[spot(i, HELD.margin, lane)]
            position[spot(i, HELD.margin_before, lane)] = margin


def pay_lanes(terms: Terms, feed: MarketFeed, lanes: Lanes, t: int, is_open: int) -> None:
    """Pay the settlements at the open of bar t, and bound those after it; or pay those."""
    event = lanes.cursor[CURSOR.event]
    while event < len(feed.funding_bar) and feed.funding_bar[event] == t:
        if is_listed(lanes, feed.funding_instrument[event]):
            pay_settlement(terms, feed, lanes, t, is_open, event)
        event += 1


def pay_settlement(
    terms: Terms, feed: MarketFeed, lanes: Lanes, t: int, is_open: int, event: int
) -> None:
    """Pay a settlement of funding if it is due now: at the open of bar t (1), or inside it (0).

    One that is due inside the bar is added at the open to the bound of what a contract may lose.
    Funding is paid at the venue's price, or at the mark open where that is not known.
    """
    brackets = terms.rules.brackets
    i = feed.funding_instrument[event]
    rate = feed.funding_rate[event]
    price = feed.funding_price[event]
    if math.isnan(price):
        price = feed.mark_open[t, i]
    value = compute_value(brackets.sizes[i], brackets.are_inverse[i], price)

    if feed.funding_is_open[event] == is_open:
        pay_event(lanes, brackets.are_isolated[i] != 0, value, rate, i)
    elif is_open == 1:
        lanes.prices[PRICE.due, i] += abs(value * rate)
        bound_moves(lanes, i)


def pay_event(lanes: Lanes, is_isolated: bool, value: float, rate: float, i: int) -> None:
    """Pay the funding of a position in all lanes, from its margin or from the cash."""
    account = lanes.account
    position = lanes.position
    if is_isolated:
        for lane in range(LANES):
            paid = compute_payment(position[spot(i, HELD.quantity, lane)], value, rate)
            position[spot(i, HELD.margin, lane)] -= paid
            account[cell(WORK.funded, lane)] += paid
        return

    for lane in range(LANES):
        paid = compute_payment(position[spot(i, HELD.quantity, lane)], value, rate)
        account[cell(WALLET.cash, lane)] -= paid
        account[cell(WORK.funded, lane)] += paid


def charge_lanes(terms: Terms, feed: MarketFeed, lanes: Lanes, t: int) -> None:
    """Charge interest since the last open on the balance of all lanes (step 3 of a bar).

    On cash without the profit of positions, and on posted margins.
    """
    account = lanes.account
    position = lanes.position
    for lane in range(LANES):
        account[cell(WORK.base, lane)] = account[cell(WALLET.cash, lane)]
    for i in range(len(lanes.signal)):
        is_isolated = terms.rules.brackets.are_isolated[i] != 0
        for lane in range(LANES):
            margin = position[spot(i, HELD.margin, lane)]
            quantity = position[spot(i, HELD.quantity, lane)]
            price_paid = quantity * position[spot(i, HELD.entry, lane)]
            account[cell(WORK.base, lane)] += select(is_isolated, margin, price_paid)

    # The rates that were known at the last close hold for the time since then.
    last = max(t - 1, 0)
    years = at(feed.years, t)
    borrow_rate = at(feed.borrow_rate, last)
    cash_rate = at(feed.cash_rate, last)
    for lane in range(LANES):
        base = account[cell(WORK.base, lane)]
        rate = select(base > 0.0, cash_rate, borrow_rate)
        interest = -base * rate * years
        account[cell(WORK.charged, lane)] = interest
        account[cell(WALLET.cash, lane)] -= interest


# Looking: who may trade, and who may fail.


def look(terms: Terms, lanes: Lanes, n: int) -> tuple[bool, int]:
    """Value all lanes (accounts) at the open, before their orders.

    Return whether any lane may trade, and as bits the lanes that may fail in the bar by what they
    hold. Writes ``is_asking`` of each instrument.
    """
    is_isolated = terms.rules.brackets.are_isolated[0] != 0
    if n > 1:
        return look_at_several(lanes, is_isolated, n)
    # Of each kind code of its own, without a branch.
    if is_isolated:
        is_asking, rare = look_at_one(lanes, make_simple(is_isolated=True))
    else:
        is_asking, rare = look_at_one(lanes, make_simple(is_isolated=False))

    is_asking = is_asking and may_fill(lanes, 0)
    lanes.is_asking[0] = is_asking
    return is_asking, rare


def look_at_several(lanes: Lanes, is_isolated: bool, n: int) -> tuple[bool, int]:
    """Return the answers of :func:`look`, of several positions."""
    rare = value_lanes(lanes, is_isolated, n)
    asking = 0
    for i in range(n):
        groups = 0
        if may_fill(lanes, i):
            groups = find_groups(lanes, i)
        lanes.is_asking[i] = groups != 0
        asking |= groups

    lanes.cursor[CURSOR.asking] = asking
    return asking != 0, rare


@inlined
def look_at_one(lanes: Lanes, kind: FillKind) -> tuple[bool, int]:
    """Return the answers of :func:`look` for lanes of one position.

    Writes worth and spare of each lane, and into the cursor ``asking``, as bits, the groups of
    lanes in which a target is outside of its band.
    """
    quote = quote_open(lanes.prices, 0)
    table = Table(size=1.0, setting=1.0, first_leverage=1.0)
    signal = lanes.signal[0]
    asking = 0
    may_any_fail = False
    for group in range(GROUPS):
        is_asking = False
        for k in range(GROUP):
            lane = group * GROUP + k
            worth, spare = value_lane(lanes, kind, quote.fill, lane)
            may_any_fail |= not spare > 0.0

            rules = read_rules(lanes.numbers, kind, table, 0, lane)
            quantity = lanes.position[spot(0, HELD.quantity, lane)]
            leverage = lanes.position[spot(0, HELD.target, lane)]
            is_asking |= is_out_of_band(rules, quote, worth, quantity, leverage, signal)
        asking |= is_asking << group
    lanes.cursor[CURSOR.asking] = asking

    rare = 0
    if may_any_fail:
        rare = find_spent(lanes)
    return asking != 0, rare


@inlined
def is_out_of_band(
    rules: InstrumentRules,
    quote: Quote,
    equity: float,
    quantity: float,
    leverage: float,
    signal: float,
) -> bool:
    """Return whether a lane's target is so far from the quantity held that it makes an order."""
    side = select(signal > 0.0, 1.0, -1.0)
    notional_held = quantity * (side * abs(quote.fill))
    target = compute_target(rules, quote, equity, leverage, signal)
    return is_outside(rules, equity, target, notional_held)


@inlined
def value_lane(lanes: Lanes, kind: FillKind, value: float, lane: int) -> tuple[float, float]:
    """Write and return what a lane of one position is worth at some value, and what it can spare.

    Money: cash and position, and what is left after the most that it may lose in the bar; -1 for an
    isolated position that its own margin may not save. Free of branches on what differs by lane.
    """
    account = lanes.account
    position = lanes.position
    quantity = position[spot(0, HELD.quantity, lane)]
    cash = account[cell(WALLET.cash, lane)]
    backing = quantity * value
    lost = abs(quantity) * lanes.prices[PRICE.reach, 0]
    if kind.is_isolated:
        profit = quantity * (value - position[spot(0, HELD.entry, lane)])
        backing = position[spot(0, HELD.margin, lane)] + profit

    worth = cash + backing
    spare: float = worth - account[cell(OWN.line, lane)] - lost
    if kind.is_isolated:
        is_safe = ((lost < backing) | (quantity == 0.0)) & (cash >= 0.0)
        spare = select(is_safe, spare, -1.0)
    account[cell(WORK.spare, lane)] = spare
    account[cell(WORK.worth, lane)] = worth
    return worth, spare


def find_spent(lanes: Lanes) -> int:
    """Return as bits the lanes that may lose as much as they can spare."""
    rare = 0
    for lane in range(LANES):
        rare |= (not lanes.account[cell(WORK.spare, lane)] > 0.0) << lane
    return rare


def value_lanes(lanes: Lanes, is_isolated: bool, n: int) -> int:
    """Write worth and spare of lanes of several positions; return as bits the lanes that may fail.

    Worth is money at the open; spare is what is left after the most that all positions may lose.
    """
    account = lanes.account
    for lane in range(LANES):
        cash = account[cell(WALLET.cash, lane)]
        account[cell(WORK.worth, lane)] = select(is_isolated, 0.0, cash)
        account[cell(WORK.lost, lane)] = 0.0
        account[cell(WORK.spare, lane)] = math.inf

    for i in range(n):
        if not is_listed(lanes, i):
            continue
        if is_isolated:
            add_worth_isolated(lanes, i)
        else:
            add_worth(lanes, i)

    may_any_fail = False
    for lane in range(LANES):
        may_any_fail |= not write_spare(account, is_isolated, lane) > 0.0
    if may_any_fail:
        return find_spent(lanes)
    return 0


@inlined
def write_spare(account: FloatArray, is_isolated: bool, lane: int) -> float:
    """Write and return what a lane can spare, of the sums of its positions.

    Isolated positions are summed before the cash, as a run does: equal to the last bit.
    """
    cash = account[cell(WALLET.cash, lane)]
    worth = account[cell(WORK.worth, lane)]
    if is_isolated:
        worth = cash + worth
        account[cell(WORK.worth, lane)] = worth

    lost = account[cell(WORK.lost, lane)]
    spare: float = worth - account[cell(OWN.line, lane)] - lost
    if is_isolated:
        least = select(cash >= 0.0, account[cell(WORK.spare, lane)], -1.0)
        spare = select(least < spare, least, spare)
    account[cell(WORK.spare, lane)] = spare
    return spare


def add_worth(lanes: Lanes, i: int) -> None:
    """Add what a cross position is worth and may lose in the bar to the sums of all lanes."""
    account = lanes.account
    value = lanes.prices[PRICE.open, i]
    loss_of_one = lanes.prices[PRICE.reach, i]
    for lane in range(LANES):
        quantity = lanes.position[spot(i, HELD.quantity, lane)]
        account[cell(WORK.worth, lane)] += quantity * value
        account[cell(WORK.lost, lane)] += abs(quantity) * loss_of_one


def add_worth_isolated(lanes: Lanes, i: int) -> None:
    """Add what an isolated position is worth and may lose in the bar to the sums of all lanes.

    One that may lose all that backs it makes the spare of its lane -1: the lane passes alone.
    """
    account = lanes.account
    position = lanes.position
    value = lanes.prices[PRICE.open, i]
    loss_of_one = lanes.prices[PRICE.reach, i]
    for lane in range(LANES):
        quantity = position[spot(i, HELD.quantity, lane)]
        margin = position[spot(i, HELD.margin, lane)]
        profit = quantity * (value - position[spot(i, HELD.entry, lane)])
        worth = account[cell(WORK.worth, lane)]
        account[cell(WORK.worth, lane)] = worth + margin + profit

        lost = abs(quantity) * loss_of_one
        account[cell(WORK.lost, lane)] += lost

        is_safe = (lost < margin + profit) | (quantity == 0.0)
        least = account[cell(WORK.spare, lane)]
        account[cell(WORK.spare, lane)] = select(is_safe, least, -1.0)


def find_groups(lanes: Lanes, i: int) -> int:
    """Return as bits the groups in which a lane wants to trade the instrument."""
    quote = quote_open(lanes.prices, i)
    kind = make_simple(is_isolated=False)
    table = Table(size=1.0, setting=1.0, first_leverage=1.0)
    signal = lanes.signal[i]
    asking = 0
    for group in range(GROUPS):
        is_asking = False
        for k in range(GROUP):
            lane = group * GROUP + k
            rules = read_rules(lanes.numbers, kind, table, i, lane)
            equity = lanes.account[cell(WORK.worth, lane)]
            quantity = lanes.position[spot(i, HELD.quantity, lane)]
            leverage = lanes.position[spot(i, HELD.target, lane)]
            is_asking |= is_out_of_band(rules, quote, equity, quantity, leverage, signal)
        asking |= is_asking << group
    return asking
