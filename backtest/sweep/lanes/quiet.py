"""Bars in which nothing is due but prices, funding and interest: payments, and looking for more."""

from __future__ import annotations

import math

from backtest.account import MarketFeed, Terms, compute_target, is_outside, pick_margin
from backtest.account.money import WALLET
from backtest.account.records import at, at_column, read_value
from backtest.core.kernels import inlined
from backtest.margin import compute_largest_notional, compute_payment, compute_value, scale_rate
from backtest.sweep.lanes import rows as r


def begin_prices(terms: Terms, feed: MarketFeed, lanes: r.Lanes) -> None:
    """Write what holds in a chunk of bars: limits, and what a unit traded costs without impact."""
    prices, brackets = lanes.prices, terms.rules.brackets
    kind, table = r.make_kind(False, False, False, False, False), r.Table(1.0, 1.0, 1.0)
    for i in range(len(lanes.signal)):
        brackets.multipliers[i] = feed.multiplier[0, i]
        brackets.initial_multipliers[i] = feed.initial[0, i]
        prices[r.PRICE.limit, i] = compute_largest_notional(
            pick_margin(terms, i), math.inf, 0.0, 0.0, feed.initial[0, i], math.inf
        )
        prices[r.PRICE.initial_x, i] = feed.initial[0, i]
        lanes.is_known[i] = 0
        for lane in range(r.LANES):
            rules = r.read_rules(lanes.numbers, kind, table, i, lane)
            ratio = 1.0 + rules.slippage
            cost = (rules.slippage * ratio + rules.fee * ratio) * r.SLACK
            lanes.position[r.spot(i, r.HELD.cost, lane)] = cost
    lanes.cursor[r.CURSOR.is_bound] = 0


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
            low, high = min(opened, low, close), max(opened, high, close)
            table[t, i, r.TABLE.open], table[t, i, r.TABLE.close] = value, close
            table[t, i, r.TABLE.widest] = max(abs(low), abs(high), abs(value))
            table[t, i, r.TABLE.far] = max(value - low, high - value)


def write_bar_prices(terms: Terms, feed: MarketFeed, lanes: r.Lanes, t: int) -> None:
    prices, table = lanes.prices, lanes.table
    is_bound = lanes.cursor[r.CURSOR.is_bound] == 1
    for i in range(len(lanes.signal)):
        is_listed = feed.span[i, 0] <= t < feed.span[i, 1]
        prices[r.PRICE.is_listed, i] = 1.0 if is_listed else 0.0
        if not is_listed:
            continue
        value, widest = table[t, i, r.TABLE.open], table[t, i, r.TABLE.widest]
        prices[r.PRICE.open, i], prices[r.PRICE.at_open, i] = value, abs(value)
        prices[r.PRICE.close, i] = table[t, i, r.TABLE.close]
        prices[r.PRICE.widest, i], prices[r.PRICE.far, i] = widest, table[t, i, r.TABLE.far]
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
        lanes.prices[r.PRICE.before, i] = (
            lanes.prices[r.PRICE.open, i] if math.isnan(before) else before
        )


def write_rest_of_prices(terms: Terms, feed: MarketFeed, lanes: r.Lanes, t: int) -> None:
    prices, last = lanes.prices, max(t - 1, 0)
    for i in range(len(lanes.signal)):
        prices[r.PRICE.last_low, i] = read_value(terms, feed.low, t, i)
        prices[r.PRICE.last_high, i] = read_value(terms, feed.high, t, i)
        prices[r.PRICE.volume, i] = feed.volume[last, i]
        prices[r.PRICE.sigma, i] = at_column(feed.sigma, t, i)
        prices[r.PRICE.adv, i] = at_column(feed.adv, t, i)
        prices[r.PRICE.stop_scale, i] = at_column(feed.stop_scale, t, i)
        prices[r.PRICE.profit_scale, i] = at_column(feed.profit_scale, t, i)
        prices[r.PRICE.trail_scale, i] = at_column(feed.trail_scale, t, i)


def bound_moves(lanes: r.Lanes, i: int) -> None:
    """Bound what a contract can lose and need in the bar, and pay of funding after the open."""
    prices = lanes.prices
    spare = (prices[r.PRICE.rate, i] + 1e-9) * prices[r.PRICE.widest, i]
    prices[r.PRICE.reach, i] = prices[r.PRICE.far, i] + spare + prices[r.PRICE.due, i]


def bound_rates(terms: Terms, lanes: r.Lanes, i: int) -> None:
    """Bound the margin rates of all notionals up to ``TOP``, which that of no lane exceeds."""
    prices, tables = lanes.prices, terms.rules.brackets
    most = lanes.most[i] * prices[r.PRICE.widest, i] * r.SLACK
    x, fee = tables.multipliers[i], tables.close_fees[i]
    rate, k, top = scale_rate(tables.rates[i, 0], x, fee), 1, math.inf
    while k < tables.counts[i] and most > tables.floors[i, k]:
        rate = max(rate, scale_rate(tables.rates[i, k], x, fee))
        k += 1
    if k < tables.counts[i]:
        top = tables.floors[i, k]
    x = tables.initial_multipliers[i]
    if tables.settings[i] > 0.0:
        initial = 1.0 / min(tables.settings[i], tables.leverages[i, 0] / x)
    else:
        initial, k = x / tables.leverages[i, 0], 1
        while k < tables.counts[i] and most > tables.caps[i, k - 1]:
            initial = max(initial, x / tables.leverages[i, k])
            k += 1
        if k < tables.counts[i]:
            top = min(top, tables.caps[i, k - 1])
    prices[r.PRICE.top, i] = top / r.SLACK
    prices[r.PRICE.rate, i] = rate * r.SLACK
    prices[r.PRICE.initial_rate, i] = initial * r.SLACK


def begin_payments(lanes: r.Lanes, n: int) -> None:
    account, position = lanes.account, lanes.position
    for lane in range(r.LANES):
        account[r.cell(r.WORK.cash_before, lane)] = account[r.cell(WALLET.cash, lane)]
        account[r.cell(r.WORK.costs, lane)] = 0.0
        account[r.cell(r.WORK.funded, lane)] = 0.0
        account[r.cell(r.WORK.charged, lane)] = 0.0
    for i in range(n if lanes.has_isolated else 0):
        for lane in range(r.LANES):
            position[r.spot(i, r.HELD.margin_before, lane)] = position[
                r.spot(i, r.HELD.margin, lane)
            ]


def pay_lanes(terms: Terms, feed: MarketFeed, lanes: r.Lanes, t: int, is_open: int) -> None:
    """Pay the settlements at the open of bar t, and bound those after it; or pay those."""
    event, brackets = lanes.cursor[r.CURSOR.event], terms.rules.brackets
    while event < len(feed.funding_bar) and feed.funding_bar[event] == t:
        i, rate = feed.funding_instrument[event], feed.funding_rate[event]
        if lanes.prices[r.PRICE.is_listed, i] != 0.0:
            price = feed.funding_price[event]
            price = feed.mark_open[t, i] if math.isnan(price) else price
            value = compute_value(brackets.sizes[i], brackets.are_inverse[i], price)
            if feed.funding_is_open[event] == is_open:
                pay_event(lanes, brackets.are_isolated[i] != 0, value, rate, i)
            elif is_open == 1:
                lanes.prices[r.PRICE.due, i] += abs(value * rate)
                bound_moves(lanes, i)
        event += 1


def pay_event(lanes: r.Lanes, is_isolated: bool, value: float, rate: float, i: int) -> None:
    account, position = lanes.account, lanes.position
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
    account, position, before = lanes.account, lanes.position, max(t - 1, 0)
    years = at(feed.years, t)
    borrow = at(feed.borrow_rate, before)
    lent_at = at(feed.cash_rate, before)
    for lane in range(r.LANES):
        account[r.cell(r.WORK.base, lane)] = account[r.cell(WALLET.cash, lane)]
    for i in range(len(lanes.signal)):
        is_isolated = terms.rules.brackets.are_isolated[i] != 0
        for lane in range(r.LANES):
            margin = position[r.spot(i, r.HELD.margin, lane)]
            entered = (
                position[r.spot(i, r.HELD.quantity, lane)] * position[r.spot(i, r.HELD.entry, lane)]
            )
            account[r.cell(r.WORK.base, lane)] += margin if is_isolated else entered
    for lane in range(r.LANES):
        base = account[r.cell(r.WORK.base, lane)]
        interest = -base * (lent_at if base > 0.0 else borrow) * years
        account[r.cell(r.WORK.charged, lane)] = interest
        account[r.cell(WALLET.cash, lane)] -= interest


def look(terms: Terms, lanes: r.Lanes, n: int) -> tuple[bool, int]:
    """Value all lanes at the open; return whether any may trade, and as bits who may fail."""
    if n > 1:
        rare, asking = value_lanes(lanes, terms.rules.brackets.are_isolated[0] != 0, n), 0
        for i in range(n):
            is_open = lanes.is_pending[i] == 1 and lanes.prices[r.PRICE.is_listed, i] != 0.0
            found = find_groups(lanes, i) if is_open else 0
            lanes.is_asking[i] = 1 if found != 0 else 0
            asking |= found
        lanes.cursor[r.CURSOR.asking] = asking
        return asking != 0, rare
    if terms.rules.brackets.are_isolated[0]:
        is_asking, rare = look_at_one(lanes, r.make_kind(False, False, False, True, False))
    else:
        is_asking, rare = look_at_one(lanes, r.make_kind(False, False, False, False, False))
    is_asking = is_asking and lanes.is_pending[0] == 1 and lanes.prices[r.PRICE.is_listed, 0] != 0.0
    lanes.is_asking[0] = 1 if is_asking else 0
    return is_asking, rare


@inlined
def look_at_one(lanes: r.Lanes, kind: r.FillKind) -> tuple[bool, int]:
    account, position, numbers = lanes.account, lanes.position, lanes.numbers
    quote, signal, asking, is_any = r.quote_open(lanes.prices, 0), lanes.signal[0], 0, False
    scale = (1.0 if signal > 0.0 else -1.0) * abs(quote.fill)
    reach_of_one = lanes.prices[r.PRICE.reach, 0]
    table = r.Table(1.0, 1.0, 1.0)
    for group in range(r.GROUPS):
        found = False
        for k in range(r.GROUP):
            lane = group * r.GROUP + k
            rules = r.read_rules(numbers, kind, table, 0, lane)
            quantity = position[r.spot(0, r.HELD.quantity, lane)]
            cash = account[r.cell(WALLET.cash, lane)]
            line, target = (
                account[r.cell(r.OWN.line, lane)],
                position[r.spot(0, r.HELD.target, lane)],
            )
            backing, lost = quantity * quote.fill, abs(quantity) * reach_of_one
            if kind.is_isolated:
                profit = quantity * (quote.fill - position[r.spot(0, r.HELD.entry, lane)])
                backing = position[r.spot(0, r.HELD.margin, lane)] + profit
            worth = cash + backing
            spare = worth - line - lost
            if kind.is_isolated:
                is_safe = ((lost < backing) | (quantity == 0.0)) & (cash >= 0.0)
                spare = spare if is_safe else -1.0
            reach = compute_target(rules, quote, worth, target, signal)
            found |= is_outside(rules, worth, reach, quantity * scale)
            is_any |= not spare > 0.0
            account[r.cell(r.WORK.spare, lane)] = spare
            account[r.cell(r.WORK.worth, lane)] = worth
        asking |= found << group
    lanes.cursor[r.CURSOR.asking] = asking
    return asking != 0, find_spent(lanes) if is_any else 0


def find_spent(lanes: r.Lanes) -> int:
    """Return as bits the lanes that may lose as much as they can spare."""
    rare = 0
    for lane in range(r.LANES):
        rare |= (not lanes.account[r.cell(r.WORK.spare, lane)] > 0.0) << lane
    return rare


def value_lanes(lanes: r.Lanes, is_isolated: bool, n: int) -> int:
    account = lanes.account
    for lane in range(r.LANES):
        account[r.cell(r.WORK.worth, lane)] = (
            0.0 if is_isolated else account[r.cell(WALLET.cash, lane)]
        )
        account[r.cell(r.WORK.lost, lane)] = 0.0
        account[r.cell(r.WORK.spare, lane)] = math.inf
    for i in range(n):
        if lanes.prices[r.PRICE.is_listed, i] != 0.0:
            if is_isolated:
                add_worth_isolated(lanes, i)
            else:
                add_worth(lanes, i)
    is_any = False
    for lane in range(r.LANES):
        lost, worth = account[r.cell(r.WORK.lost, lane)], account[r.cell(r.WORK.worth, lane)]
        if is_isolated:
            worth = account[r.cell(WALLET.cash, lane)] + worth
            account[r.cell(r.WORK.worth, lane)] = worth
        spare = worth - account[r.cell(r.OWN.line, lane)] - lost
        if is_isolated:
            least = account[r.cell(r.WORK.spare, lane)]
            least = least if account[r.cell(WALLET.cash, lane)] >= 0.0 else -1.0
            spare = least if least < spare else spare
        is_any |= not spare > 0.0
        account[r.cell(r.WORK.spare, lane)] = spare
    return find_spent(lanes) if is_any else 0


def add_worth(lanes: r.Lanes, i: int) -> None:
    account, position = lanes.account, lanes.position
    value, reach = lanes.prices[r.PRICE.open, i], lanes.prices[r.PRICE.reach, i]
    for lane in range(r.LANES):
        quantity = position[r.spot(i, r.HELD.quantity, lane)]
        account[r.cell(r.WORK.worth, lane)] += quantity * value
        account[r.cell(r.WORK.lost, lane)] += abs(quantity) * reach


def add_worth_isolated(lanes: r.Lanes, i: int) -> None:
    """Add what a position that stands alone is worth and may lose; it may not lose its backing."""
    account, position = lanes.account, lanes.position
    value, reach = lanes.prices[r.PRICE.open, i], lanes.prices[r.PRICE.reach, i]
    for lane in range(r.LANES):
        quantity = position[r.spot(i, r.HELD.quantity, lane)]
        profit = quantity * (value - position[r.spot(i, r.HELD.entry, lane)])
        backing, lost = position[r.spot(i, r.HELD.margin, lane)] + profit, abs(quantity) * reach
        before = account[r.cell(r.WORK.worth, lane)]
        account[r.cell(r.WORK.worth, lane)] = (
            before + position[r.spot(i, r.HELD.margin, lane)] + profit
        )
        account[r.cell(r.WORK.lost, lane)] += lost
        is_safe = (lost < backing) | (quantity == 0.0)
        least = account[r.cell(r.WORK.spare, lane)]
        account[r.cell(r.WORK.spare, lane)] = least if is_safe else -1.0


def find_groups(lanes: r.Lanes, i: int) -> int:
    """Return as bits the groups in which a lane wants to trade the instrument."""
    account, position, numbers = lanes.account, lanes.position, lanes.numbers
    quote, signal, asking = r.quote_open(lanes.prices, i), lanes.signal[i], 0
    scale = (1.0 if signal > 0.0 else -1.0) * abs(quote.fill)
    kind, table = r.make_kind(False, False, False, False, False), r.Table(1.0, 1.0, 1.0)
    for group in range(r.GROUPS):
        found = False
        for k in range(r.GROUP):
            lane = group * r.GROUP + k
            rules = r.read_rules(numbers, kind, table, i, lane)
            equity = account[r.cell(r.WORK.worth, lane)]
            target = position[r.spot(i, r.HELD.target, lane)]
            reach = compute_target(rules, quote, equity, target, signal)
            held = position[r.spot(i, r.HELD.quantity, lane)] * scale
            found |= is_outside(rules, equity, reach, held)
        asking |= found << group
    return asking
