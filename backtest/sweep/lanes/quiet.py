"""Bars in which nothing is due but prices, funding and interest: payments, and looking for more."""

from __future__ import annotations

import math

from backtest.account import MarketFeed, Terms, compute_target, is_outside, pick_margin
from backtest.account.money import WALLET
from backtest.account.records import at, at_column, read_value
from backtest.core import FloatArray
from backtest.core.kernels import inlined
from backtest.margin import compute_largest_notional, compute_payment, compute_value, scale_rate
from backtest.sweep.lanes import rows as r


def begin_prices(terms: Terms, feed: MarketFeed, lanes: r.Lanes) -> None:
    """Write what holds in a chunk of bars: multipliers, the largest notional, and costs.

    Margins do not change within a chunk; the largest notional is what the margin table allows at
    any equity.
    """
    prices = lanes.prices
    brackets = terms.rules.brackets
    for i in range(len(lanes.signal)):
        brackets.multipliers[i] = feed.multiplier[0, i]
        brackets.initial_multipliers[i] = feed.initial[0, i]
        prices[r.PRICE.limit, i] = compute_largest_notional(
            pick_margin(terms, i),
            equity=math.inf,
            held=0.0,
            cost=0.0,
            multiplier=feed.initial[0, i],
            enough=math.inf,
        )

        prices[r.PRICE.initial_x, i] = feed.initial[0, i]
        lanes.is_known[i] = 0
        write_costs(lanes, i)
    lanes.cursor[r.CURSOR.is_bound] = 0


def write_costs(lanes: r.Lanes, i: int) -> None:
    """Write a bound of what a unit of notional costs without impact, of all lanes."""
    kind = make_simple(is_isolated=False)
    table = r.Table(size=1.0, setting=1.0, first_leverage=1.0)
    for lane in range(r.LANES):
        rules = r.read_rules(lanes.numbers, kind, table, i, lane)
        ratio = 1.0 + rules.slippage
        cost = (rules.slippage * ratio + rules.fee * ratio) * r.SLACK
        lanes.position[r.spot(i, r.HELD.cost, lane)] = cost


@inlined
def make_simple(is_isolated: bool) -> r.FillKind:
    """Return the kind of fills without rounding, impact and inverse contracts."""
    return r.make_kind(
        has_rounding=False,
        has_impact=False,
        is_inverse=False,
        is_isolated=is_isolated,
        is_alone=False,
    )


def write_table(terms: Terms, feed: MarketFeed, lanes: r.Lanes, start: int, stop: int) -> None:
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
            table[t, i, r.TABLE.open] = value
            table[t, i, r.TABLE.close] = close
            table[t, i, r.TABLE.widest] = max(abs(low), abs(high), abs(value))
            table[t, i, r.TABLE.far] = max(value - low, high - value)


def write_bar_prices(terms: Terms, feed: MarketFeed, lanes: r.Lanes, t: int) -> None:
    """Write the prices of bar t, and the bounds that hold in it."""
    prices = lanes.prices
    table = lanes.table
    is_bound = lanes.cursor[r.CURSOR.is_bound] == 1
    for i in range(len(lanes.signal)):
        is_listed = feed.span[i, 0] <= t < feed.span[i, 1]
        prices[r.PRICE.is_listed, i] = 1.0 if is_listed else 0.0
        if not is_listed:
            continue

        value = table[t, i, r.TABLE.open]
        widest = table[t, i, r.TABLE.widest]
        prices[r.PRICE.open, i] = value
        prices[r.PRICE.at_open, i] = abs(value)
        prices[r.PRICE.close, i] = table[t, i, r.TABLE.close]
        prices[r.PRICE.widest, i] = widest
        prices[r.PRICE.far, i] = table[t, i, r.TABLE.far]

        # Rates hold up to a notional: a wider price may carry a lane over it.
        if not is_bound or lanes.most[i] * widest > prices[r.PRICE.top, i]:
            bound_rates(terms, lanes, i)
        prices[r.PRICE.due, i] = 0.0
        bound_moves(lanes, i)
    lanes.cursor[r.CURSOR.is_bound] = 1


def write_before(terms: Terms, feed: MarketFeed, lanes: r.Lanes, t: int) -> None:
    """Write what a contract was worth at the close before bar t, at its open if it is the first."""
    last = max(t - 1, 0)
    for i in range(len(lanes.signal)):
        before = read_value(terms, feed.mark_close, last, i)
        if math.isnan(before):
            before = lanes.prices[r.PRICE.open, i]
        lanes.prices[r.PRICE.before, i] = before


def write_rest_of_prices(terms: Terms, feed: MarketFeed, lanes: r.Lanes, t: int) -> None:
    """Write what only lanes with impact or stops read of bar t, into ``lanes.prices``."""
    prices = lanes.prices
    for i in range(len(lanes.signal)):
        # Impact: a fill at the open knows the volume of the bar before.
        prices[r.PRICE.volume, i] = feed.volume[max(t - 1, 0), i]
        prices[r.PRICE.sigma, i] = at_column(feed.sigma, t, i)
        prices[r.PRICE.adv, i] = at_column(feed.adv, t, i)

        # Stops: the range of last prices that may reach them, and the scales of their distances.
        prices[r.PRICE.last_low, i] = read_value(terms, feed.low, t, i)
        prices[r.PRICE.last_high, i] = read_value(terms, feed.high, t, i)
        prices[r.PRICE.stop_scale, i] = at_column(feed.stop_scale, t, i)
        prices[r.PRICE.profit_scale, i] = at_column(feed.profit_scale, t, i)
        prices[r.PRICE.trail_scale, i] = at_column(feed.trail_scale, t, i)


def bound_moves(lanes: r.Lanes, i: int) -> None:
    """Write a bound of what one contract can lose in the bar, with the margin that it needs then.

    Money per contract, and the funding after the open with it. 1e-9 allows for rounding.
    """
    prices = lanes.prices
    spare = (prices[r.PRICE.rate, i] + 1e-9) * prices[r.PRICE.widest, i]
    prices[r.PRICE.reach, i] = prices[r.PRICE.far, i] + spare + prices[r.PRICE.due, i]


def bound_rates(terms: Terms, lanes: r.Lanes, i: int) -> None:
    """Write bounds of the margin rates that hold for the notionals of all lanes.

    They are the largest rates of the brackets up to the largest notional, and hold up to the row
    ``top``: there the next bracket begins.
    """
    prices = lanes.prices
    most = lanes.most[i] * prices[r.PRICE.widest, i] * r.SLACK
    rate, top_of_rate = bound_maintenance(terms, most, i)
    initial, top_of_initial = bound_initial(terms, most, i)
    prices[r.PRICE.top, i] = min(top_of_rate, top_of_initial) / r.SLACK
    prices[r.PRICE.rate, i] = rate * r.SLACK
    prices[r.PRICE.initial_rate, i] = initial * r.SLACK


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


def begin_payments(lanes: r.Lanes, n: int) -> None:
    """Keep cash and margins from before the payments of a bar, and empty their sums."""
    account = lanes.account
    position = lanes.position
    for lane in range(r.LANES):
        account[r.cell(r.WORK.cash_before, lane)] = account[r.cell(WALLET.cash, lane)]
        account[r.cell(r.WORK.costs, lane)] = 0.0
        account[r.cell(r.WORK.funded, lane)] = 0.0
        account[r.cell(r.WORK.charged, lane)] = 0.0

    # Cross positions have no margin of their own.
    if not lanes.has_isolated:
        return
    for i in range(n):
        for lane in range(r.LANES):
            margin = position[r.spot(i, r.HELD.margin, lane)]
            position[r.spot(i, r.HELD.margin_before, lane)] = margin


def pay_lanes(terms: Terms, feed: MarketFeed, lanes: r.Lanes, t: int, is_open: int) -> None:
    """Pay the settlements at the open of bar t, and bound those after it; or pay those."""
    event = lanes.cursor[r.CURSOR.event]
    while event < len(feed.funding_bar) and feed.funding_bar[event] == t:
        if lanes.prices[r.PRICE.is_listed, feed.funding_instrument[event]] != 0.0:
            pay_settlement(terms, feed, lanes, t, is_open, event)
        event += 1


def pay_settlement(
    terms: Terms, feed: MarketFeed, lanes: r.Lanes, t: int, is_open: int, event: int
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
        lanes.prices[r.PRICE.due, i] += abs(value * rate)
        bound_moves(lanes, i)


def pay_event(lanes: r.Lanes, is_isolated: bool, value: float, rate: float, i: int) -> None:
    """Pay the funding of a position in all lanes, from its margin or from the cash."""
    account = lanes.account
    position = lanes.position
    if is_isolated:
        for lane in range(r.LANES):
            paid = compute_payment(position[r.spot(i, r.HELD.quantity, lane)], value, rate)
            position[r.spot(i, r.HELD.margin, lane)] -= paid
            account[r.cell(r.WORK.funded, lane)] += paid
        return

    for lane in range(r.LANES):
        paid = compute_payment(position[r.spot(i, r.HELD.quantity, lane)], value, rate)
        account[r.cell(WALLET.cash, lane)] -= paid
        account[r.cell(r.WORK.funded, lane)] += paid


def charge_lanes(terms: Terms, feed: MarketFeed, lanes: r.Lanes, t: int) -> None:
    """Charge interest since the last open on the balance of all lanes (step 3 of a bar).

    On cash without the profit of positions, and on posted margins.
    """
    account = lanes.account
    position = lanes.position
    for lane in range(r.LANES):
        account[r.cell(r.WORK.base, lane)] = account[r.cell(WALLET.cash, lane)]
    for i in range(len(lanes.signal)):
        is_isolated = terms.rules.brackets.are_isolated[i] != 0
        for lane in range(r.LANES):
            margin = position[r.spot(i, r.HELD.margin, lane)]
            quantity = position[r.spot(i, r.HELD.quantity, lane)]
            price_paid = quantity * position[r.spot(i, r.HELD.entry, lane)]
            account[r.cell(r.WORK.base, lane)] += margin if is_isolated else price_paid

    before = max(t - 1, 0)
    years = at(feed.years, t)
    borrow_rate = at(feed.borrow_rate, before)
    cash_rate = at(feed.cash_rate, before)
    for lane in range(r.LANES):
        base = account[r.cell(r.WORK.base, lane)]
        interest = -base * (cash_rate if base > 0.0 else borrow_rate) * years
        account[r.cell(r.WORK.charged, lane)] = interest
        account[r.cell(WALLET.cash, lane)] -= interest


# Looking: who may trade, and who may fail.


def look(terms: Terms, lanes: r.Lanes, n: int) -> tuple[bool, int]:
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

    is_open = lanes.is_pending[0] == 1 and lanes.prices[r.PRICE.is_listed, 0] != 0.0
    is_asking = is_asking and is_open
    lanes.is_asking[0] = 1 if is_asking else 0
    return is_asking, rare


def look_at_several(lanes: r.Lanes, is_isolated: bool, n: int) -> tuple[bool, int]:
    """Return the answers of :func:`look`, of several positions."""
    rare = value_lanes(lanes, is_isolated, n)
    asking = 0
    for i in range(n):
        is_open = lanes.is_pending[i] == 1 and lanes.prices[r.PRICE.is_listed, i] != 0.0
        groups = find_groups(lanes, i) if is_open else 0
        lanes.is_asking[i] = 1 if groups != 0 else 0
        asking |= groups

    lanes.cursor[r.CURSOR.asking] = asking
    return asking != 0, rare


@inlined
def look_at_one(lanes: r.Lanes, kind: r.FillKind) -> tuple[bool, int]:
    """Return the answers of :func:`look` for lanes of one position.

    Writes worth and spare of each lane, and into the cursor ``asking``, as bits, the groups of
    lanes in which a target is outside of its band.
    """
    quote = r.quote_open(lanes.prices, 0)
    table = r.Table(size=1.0, setting=1.0, first_leverage=1.0)
    side = 1.0 if lanes.signal[0] > 0.0 else -1.0
    scale = side * abs(quote.fill)

    asking = 0
    is_any = False
    for group in range(r.GROUPS):
        is_asking = False
        for k in range(r.GROUP):
            lane = group * r.GROUP + k
            worth, spare = value_lane(lanes, kind, quote.fill, lane)
            is_any |= not spare > 0.0

            rules = r.read_rules(lanes.numbers, kind, table, 0, lane)
            leverage = lanes.position[r.spot(0, r.HELD.target, lane)]
            target = compute_target(rules, quote, worth, leverage, lanes.signal[0])
            held = lanes.position[r.spot(0, r.HELD.quantity, lane)] * scale
            is_asking |= is_outside(rules, worth, target, held)
        asking |= is_asking << group
    lanes.cursor[r.CURSOR.asking] = asking
    return asking != 0, find_spent(lanes) if is_any else 0


@inlined
def value_lane(lanes: r.Lanes, kind: r.FillKind, value: float, lane: int) -> tuple[float, float]:
    """Write and return what a lane of one position is worth at some value, and what it can spare.

    Money: cash and position, and what is left after the most that it may lose in the bar; -1 for an
    isolated position that its own margin may not save. Free of branches on what differs by lane.
    """
    account = lanes.account
    position = lanes.position
    quantity = position[r.spot(0, r.HELD.quantity, lane)]
    cash = account[r.cell(WALLET.cash, lane)]
    backing = quantity * value
    lost = abs(quantity) * lanes.prices[r.PRICE.reach, 0]
    if kind.is_isolated:
        profit = quantity * (value - position[r.spot(0, r.HELD.entry, lane)])
        backing = position[r.spot(0, r.HELD.margin, lane)] + profit

    worth = cash + backing
    spare: float = worth - account[r.cell(r.OWN.line, lane)] - lost
    if kind.is_isolated:
        is_safe = ((lost < backing) | (quantity == 0.0)) & (cash >= 0.0)
        spare = spare if is_safe else -1.0
    account[r.cell(r.WORK.spare, lane)] = spare
    account[r.cell(r.WORK.worth, lane)] = worth
    return worth, spare


def find_spent(lanes: r.Lanes) -> int:
    """Return as bits the lanes that may lose as much as they can spare."""
    rare = 0
    for lane in range(r.LANES):
        rare |= (not lanes.account[r.cell(r.WORK.spare, lane)] > 0.0) << lane
    return rare


def value_lanes(lanes: r.Lanes, is_isolated: bool, n: int) -> int:
    """Write worth and spare of lanes of several positions; return as bits the lanes that may fail.

    Worth is money at the open; spare is what is left after the most that all positions may lose.
    """
    account = lanes.account
    for lane in range(r.LANES):
        cash = account[r.cell(WALLET.cash, lane)]
        account[r.cell(r.WORK.worth, lane)] = 0.0 if is_isolated else cash
        account[r.cell(r.WORK.lost, lane)] = 0.0
        account[r.cell(r.WORK.spare, lane)] = math.inf

    for i in range(n):
        if lanes.prices[r.PRICE.is_listed, i] == 0.0:
            continue
        if is_isolated:
            add_worth_isolated(lanes, i)
        else:
            add_worth(lanes, i)

    is_any = False
    for lane in range(r.LANES):
        is_any |= not write_spare(account, is_isolated, lane) > 0.0
    return find_spent(lanes) if is_any else 0


@inlined
def write_spare(account: FloatArray, is_isolated: bool, lane: int) -> float:
    """Write and return what a lane can spare, of the sums of its positions.

    Isolated positions are summed before the cash, as a run does: equal to the last bit.
    """
    cash = account[r.cell(WALLET.cash, lane)]
    worth = account[r.cell(r.WORK.worth, lane)]
    if is_isolated:
        worth = cash + worth
        account[r.cell(r.WORK.worth, lane)] = worth

    lost = account[r.cell(r.WORK.lost, lane)]
    spare: float = worth - account[r.cell(r.OWN.line, lane)] - lost
    if is_isolated:
        least = account[r.cell(r.WORK.spare, lane)]
        least = least if cash >= 0.0 else -1.0
        spare = least if least < spare else spare
    account[r.cell(r.WORK.spare, lane)] = spare
    return spare


def add_worth(lanes: r.Lanes, i: int) -> None:
    """Add what a cross position is worth and may lose in the bar to the sums of all lanes."""
    account = lanes.account
    value = lanes.prices[r.PRICE.open, i]
    loss_of_one = lanes.prices[r.PRICE.reach, i]
    for lane in range(r.LANES):
        quantity = lanes.position[r.spot(i, r.HELD.quantity, lane)]
        account[r.cell(r.WORK.worth, lane)] += quantity * value
        account[r.cell(r.WORK.lost, lane)] += abs(quantity) * loss_of_one


def add_worth_isolated(lanes: r.Lanes, i: int) -> None:
    """Add what an isolated position is worth and may lose in the bar to the sums of all lanes.

    One that may lose all that backs it makes the spare of its lane -1: the lane passes alone.
    """
    account = lanes.account
    position = lanes.position
    value = lanes.prices[r.PRICE.open, i]
    loss_of_one = lanes.prices[r.PRICE.reach, i]
    for lane in range(r.LANES):
        quantity = position[r.spot(i, r.HELD.quantity, lane)]
        margin = position[r.spot(i, r.HELD.margin, lane)]
        profit = quantity * (value - position[r.spot(i, r.HELD.entry, lane)])
        lost = abs(quantity) * loss_of_one
        before = account[r.cell(r.WORK.worth, lane)]
        account[r.cell(r.WORK.worth, lane)] = before + margin + profit
        account[r.cell(r.WORK.lost, lane)] += lost

        is_safe = (lost < margin + profit) | (quantity == 0.0)
        least = account[r.cell(r.WORK.spare, lane)]
        account[r.cell(r.WORK.spare, lane)] = least if is_safe else -1.0


def find_groups(lanes: r.Lanes, i: int) -> int:
    """Return as bits the groups in which a lane wants to trade the instrument."""
    quote = r.quote_open(lanes.prices, i)
    kind = make_simple(is_isolated=False)
    table = r.Table(size=1.0, setting=1.0, first_leverage=1.0)
    side = 1.0 if lanes.signal[i] > 0.0 else -1.0
    scale = side * abs(quote.fill)

    asking = 0
    for group in range(r.GROUPS):
        is_asking = False
        for k in range(r.GROUP):
            lane = group * r.GROUP + k
            rules = r.read_rules(lanes.numbers, kind, table, i, lane)

            equity = lanes.account[r.cell(r.WORK.worth, lane)]
            leverage = lanes.position[r.spot(i, r.HELD.target, lane)]
            target = compute_target(rules, quote, equity, leverage, lanes.signal[i])
            held = lanes.position[r.spot(i, r.HELD.quantity, lane)] * scale
            is_asking |= is_outside(rules, equity, target, held)
        asking |= is_asking << group
    return asking
