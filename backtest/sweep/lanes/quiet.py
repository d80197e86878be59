"""Bars in which nothing is due but prices, funding and interest: payments, and looking for more.

Loops over lanes have no branch on what differs between lanes: ``select`` chooses between two values
that are both computed. Words are those of :mod:`.trades`; beside them:

====================  ==============================================================================
word                  what it is, and its unit
====================  ==============================================================================
largest_value         largest contract value of the bar, without sign: money per contract
largest_move          the most that a contract may lose in the bar from its open on
loss_bound            the same, with the margin that it needs there and the funding still to come
maintenance_rate      bound of the maintenance margin of all lanes, per unit of notional
rates_hold_to         notional up to which the margin rates are bounds
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
    NO_TABLE,
    OWN,
    PRICE,
    SLACK,
    TABLE,
    WORK,
    FillKind,
    GroupBits,
    LaneBits,
    Lanes,
    cell,
    held_cell,
    is_listed,
    make_kind,
    may_fill,
    quote_open,
    read_rules,
    select,
)

if TYPE_CHECKING:
    from backtest.account import InstrumentRules, Quote
    from backtest.core import FloatArray


ROUNDING = 1e-9
"""Share of the notional that allows for rounding in the bound of a loss."""


def begin_prices(terms: Terms, feed: MarketFeed, lanes: Lanes) -> None:
    """Write what stays the same in all bars of a chunk, before its first bar.

    Into the terms go the multipliers of margin, which never change for lanes. Into the prices goes
    the largest notional that the margin table allows at any equity. Into the positions of all lanes
    goes what their orders cost.

    Margin tables and fees may differ from those of the last chunk. So the stops and the margin
    rates, which follow from them, are marked as not written (``has_stops`` and ``has_bounds`` 0).
    """
    prices = lanes.prices
    brackets = terms.rules.brackets
    for i in range(len(lanes.signal)):
        brackets.multipliers[i] = feed.multiplier[0, i]
        brackets.initial_multipliers[i] = feed.initial[0, i]
        # With an equity without end, only the table is a limit.
        prices[PRICE.largest_notional, i] = compute_largest_notional(
            pick_margin(terms, i),
            equity=math.inf,
            held=0.0,
            cost=0.0,
            multiplier=feed.initial[0, i],
            enough=math.inf,
        )

        prices[PRICE.initial_multiplier, i] = feed.initial[0, i]
        lanes.has_stops[i] = 0
        write_costs(lanes, i)
    lanes.cursor[CURSOR.has_bounds] = 0


def write_costs(lanes: Lanes, i: int) -> None:
    """Write for all lanes a bound of what trading a unit of notional costs, without impact.

    It is the row ``cost`` of position i, and holds for the chunk: fees and slippage are the same in
    all of its bars.
    """
    kind = make_simple(is_isolated=False)
    for lane in range(LANES):
        rules = read_rules(lanes.numbers, kind, NO_TABLE, i, lane)
        # Slippage moves the price, and the fee is of the price moved.
        price_ratio = 1.0 + rules.slippage
        cost = (rules.slippage * price_ratio + rules.fee * price_ratio) * SLACK
        lanes.position[held_cell(i, HELD.cost, lane)] = cost


@inlined
def make_simple(is_isolated: bool) -> FillKind:
    """Return the kind of fills without rounding, impact and inverse contracts."""
    return make_kind(
        has_rounding=False,
        has_impact=False,
        is_inverse=False,
        is_isolated=is_isolated,
        is_only=False,
    )


def write_table(terms: Terms, feed: MarketFeed, lanes: Lanes, start: int, stop: int) -> None:
    """Write contract values of bars ``start`` to ``stop`` into the table that all blocks share.

    A contract value is money per contract. Orders fill at the open of last prices;
    positions are valued at marks. Beside open and close, a bar has the largest value without sign,
    and the largest move of the mark from the open, up or down: bounds of what it can bring.
    """
    table = lanes.table
    for t in range(start, stop):
        for i in range(len(lanes.signal)):
            fill = read_value(terms, feed.open, t, i)
            mark_open = read_value(terms, feed.mark_open, t, i)
            mark_low = read_value(terms, feed.mark_low, t, i)
            mark_high = read_value(terms, feed.mark_high, t, i)
            mark_close = read_value(terms, feed.mark_close, t, i)

            # The open and the close may lie outside of low and high.
            low = min(mark_open, mark_low, mark_close)
            high = max(mark_open, mark_high, mark_close)
            largest_value = max(abs(low), abs(high), abs(fill))
            largest_move = max(fill - low, high - fill)

            table[t, i, TABLE.open] = fill
            table[t, i, TABLE.close] = mark_close
            table[t, i, TABLE.largest_value] = largest_value
            table[t, i, TABLE.largest_move] = largest_move


def write_bar_prices(terms: Terms, feed: MarketFeed, lanes: Lanes, t: int) -> None:
    """Write the prices of bar t into ``lanes.prices``, with bounds of margin and losses in it.

    They come from the table of :func:`write_table`; :func:`begin_prices` must have been called for
    the chunk. An instrument that is not listed keeps its old prices: readers ask ``is_listed``
    first.
    """
    prices = lanes.prices
    table = lanes.table
    has_bounds = lanes.cursor[CURSOR.has_bounds] == 1
    for i in range(len(lanes.signal)):
        prices[PRICE.is_listed, i] = 0.0
        if not feed.span[i, 0] <= t < feed.span[i, 1]:
            continue
        prices[PRICE.is_listed, i] = 1.0

        value = table[t, i, TABLE.open]
        largest_value = table[t, i, TABLE.largest_value]
        prices[PRICE.open, i] = value
        prices[PRICE.contract_notional, i] = abs(value)
        prices[PRICE.close, i] = table[t, i, TABLE.close]
        prices[PRICE.largest_value, i] = largest_value
        prices[PRICE.largest_move, i] = table[t, i, TABLE.largest_move]

        # Margin rates are bounds up to a notional, and a higher price may carry a lane over it.
        largest_notional = lanes.largest_quantity[i] * largest_value
        if not has_bounds or largest_notional > prices[PRICE.rates_hold_to, i]:
            bound_rates(terms, lanes, i)

        # The bound of losses, without the funding that is due inside the bar: it is added when the
        # payments of the open are made (:func:`pay_settlement`).
        prices[PRICE.funding_due, i] = 0.0
        bound_moves(lanes, i)
    lanes.cursor[CURSOR.has_bounds] = 1


def write_before(terms: Terms, feed: MarketFeed, lanes: Lanes, t: int) -> None:
    """Write what a contract was worth at the close before bar t, at its open if it is the first."""
    t_before = max(t - 1, 0)
    for i in range(len(lanes.signal)):
        close_before = read_value(terms, feed.mark_close, t_before, i)
        if math.isnan(close_before):
            close_before = lanes.prices[PRICE.open, i]
        lanes.prices[PRICE.close_before, i] = close_before


def write_extra_prices(terms: Terms, feed: MarketFeed, lanes: Lanes, t: int) -> None:
    """Write the prices of bar t that only orders with impact and stops need, into ``lanes.prices``.

    Accounts with neither never read them, so they are not written with the other prices of a bar.
    """
    prices = lanes.prices
    t_before = max(t - 1, 0)
    for i in range(len(lanes.signal)):
        # What impact goes by. A fill at the open knows the volume of the bar before, not its own.
        prices[PRICE.volume, i] = feed.volume[t_before, i]
        prices[PRICE.sigma, i] = at_column(feed.sigma, t, i)
        prices[PRICE.adv, i] = at_column(feed.adv, t, i)

        # The range of last prices, which may reach a stop.
        prices[PRICE.last_low, i] = read_value(terms, feed.low, t, i)
        prices[PRICE.last_high, i] = read_value(terms, feed.high, t, i)

        # What the distances of stops are multiplied by.
        prices[PRICE.stop_scale, i] = at_column(feed.stop_scale, t, i)
        prices[PRICE.profit_scale, i] = at_column(feed.profit_scale, t, i)
        prices[PRICE.trail_scale, i] = at_column(feed.trail_scale, t, i)


def bound_moves(lanes: Lanes, i: int) -> None:
    """Write ``loss_bound``: what one contract can lose in the bar before its lane may fail.

    Money per contract: the largest move, the maintenance margin that must be left there, and the
    funding after the open.
    """
    prices = lanes.prices
    move = prices[PRICE.largest_move, i]
    needed = (prices[PRICE.maintenance_rate, i] + ROUNDING) * prices[PRICE.largest_value, i]
    prices[PRICE.loss_bound, i] = move + needed + prices[PRICE.funding_due, i]


def bound_rates(terms: Terms, lanes: Lanes, i: int) -> None:
    """Write rates of margin of instrument i that are bounds for the positions of all lanes.

    The rows ``maintenance_rate`` and ``initial_rate`` of the prices are the largest rates of the
    brackets up to the largest notional of any lane. They are bounds up to the row
    ``rates_hold_to``, money, where the next bracket begins.

    The factor SLACK, just over 1, moves each number to the safe side by more than rounding may:
    rates up, the notional down. At worst a lane is then simulated alone without need.
    """
    prices = lanes.prices
    largest_notional = lanes.largest_quantity[i] * prices[PRICE.largest_value, i] * SLACK
    maintenance_rate, maintenance_top = bound_maintenance(terms, largest_notional, i)
    initial_rate, initial_top = bound_initial(terms, largest_notional, i)
    prices[PRICE.rates_hold_to, i] = min(maintenance_top, initial_top) / SLACK
    prices[PRICE.maintenance_rate, i] = maintenance_rate * SLACK
    prices[PRICE.initial_rate, i] = initial_rate * SLACK


def bound_maintenance(terms: Terms, largest_notional: float, i: int) -> tuple[float, float]:
    """Return the largest maintenance rate of instrument i up to ``largest_notional``.

    Also returns up to which notional, money, it is a bound: the floor of the next bracket of the
    margin table, infinite if there is none. The rate of a bracket includes its multiplier and the
    fee of a close.
    """
    tables = terms.rules.brackets
    multiplier = tables.multipliers[i]
    fee = tables.close_fees[i]
    rate = scale_rate(tables.rates[i, 0], multiplier, fee)
    bracket = 1
    while bracket < tables.counts[i] and largest_notional > tables.floors[i, bracket]:
        rate = max(rate, scale_rate(tables.rates[i, bracket], multiplier, fee))
        bracket += 1

    # Without a bracket above, it holds for all notionals.
    if bracket == tables.counts[i]:
        return rate, math.inf
    return rate, tables.floors[i, bracket]


def bound_initial(terms: Terms, largest_notional: float, i: int) -> tuple[float, float]:
    """Return the largest initial margin rate of instrument i up to ``largest_notional``.

    Also returns up to which notional, money, it is a bound: the cap of the bracket that holds
    ``largest_notional``, infinite if it is the last one. The rate of a bracket is its multiplier /
    its leverage.
    """
    tables = terms.rules.brackets
    multiplier = tables.initial_multipliers[i]
    # A venue leverage that is set (0: none) holds in all brackets; the first allows the most.
    if tables.settings[i] > 0.0:
        leverage = min(tables.settings[i], tables.leverages[i, 0] / multiplier)
        return 1.0 / leverage, math.inf

    # A bracket begins where the one before it ends.
    rate = multiplier / tables.leverages[i, 0]
    bracket = 1
    while bracket < tables.counts[i] and largest_notional > tables.caps[i, bracket - 1]:
        rate = max(rate, multiplier / tables.leverages[i, bracket])
        bracket += 1

    # Without a bracket above, it holds for all notionals.
    if bracket == tables.counts[i]:
        return rate, math.inf
    return rate, tables.caps[i, bracket - 1]


# Payments.


def begin_payments(lanes: Lanes, n_instruments: int) -> None:
    """Copy cash and margins of all lanes aside before a bar pays anything, and start its sums at 0.

    The copies are the rows ``cash_before`` and ``margin_before``. A lane that is to be simulated
    alone in the bar begins from them (:func:`.rows.keep_lane`). The sums are ``funded``, the
    funding paid, and ``charged``, the interest. Called in bars that may pay, before the first
    payment.
    """
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
    for i in range(n_instruments):
        for lane in range(LANES):
            margin = position[held_cell(i, HELD.margin, lane)]
            position[held_cell(i, HELD.margin_before, lane)] = margin


def pay_lanes(terms: Terms, feed: MarketFeed, lanes: Lanes, t: int, is_open: int) -> None:
    """Pay the settlements of bar t: those at the open with ``is_open`` 1, those inside it with 0.

    Called twice in a bar, before and after the orders fill. At the open, those that come inside the
    bar are added to the bounds of losses. The cursor ``settlement`` stays at the first of the bar:
    lanes that pass it alone pay from there, and :func:`.loop.end_bar` moves it on.
    """
    k = lanes.cursor[CURSOR.settlement]
    while k < len(feed.funding_bar) and feed.funding_bar[k] == t:
        if is_listed(lanes, feed.funding_instrument[k]):
            pay_settlement(terms, feed, lanes, t, is_open, k)
        k += 1


def pay_settlement(
    terms: Terms, feed: MarketFeed, lanes: Lanes, t: int, is_open: int, k: int
) -> None:
    """Pay settlement k of the funding in all lanes (accounts), if it is due now in bar t.

    A bar pays funding twice: at its open (``is_open`` 1), and inside it, after the orders (0). At
    the open, a settlement that comes inside the bar is only added to the bound of losses. Funding
    is paid at the venue's price, or at the mark open where that is not known (NaN).
    """
    brackets = terms.rules.brackets
    i = feed.funding_instrument[k]
    rate = feed.funding_rate[k]
    price = feed.funding_price[k]
    if math.isnan(price):
        price = feed.mark_open[t, i]
    value = compute_value(brackets.sizes[i], brackets.are_inverse[i], price)

    if feed.funding_is_open[k] == is_open:
        pay_funding(lanes, brackets.are_isolated[i] != 0, value, rate, i)
    # At the open, a settlement inside the bar is a loss that is still to come.
    elif is_open == 1:
        lanes.prices[PRICE.funding_due, i] += abs(value * rate)
        bound_moves(lanes, i)


def pay_funding(lanes: Lanes, is_isolated: bool, value: float, rate: float, i: int) -> None:
    """Pay funding for position i in all lanes: from its margin if isolated, else from the cash.

    ``value`` is the contract value, money, and ``rate`` a fraction of it. What is paid is added to
    the row ``funded`` of the account; below 0 it is received.
    """
    account = lanes.account
    position = lanes.position
    if is_isolated:
        for lane in range(LANES):
            paid = compute_payment(position[held_cell(i, HELD.quantity, lane)], value, rate)
            position[held_cell(i, HELD.margin, lane)] -= paid
            account[cell(WORK.funded, lane)] += paid
        return

    for lane in range(LANES):
        paid = compute_payment(position[held_cell(i, HELD.quantity, lane)], value, rate)
        account[cell(WALLET.cash, lane)] -= paid
        account[cell(WORK.funded, lane)] += paid


def charge_lanes(terms: Terms, feed: MarketFeed, lanes: Lanes, t: int) -> None:
    """Charge the interest since the last open on the balance of each lane (account).

    The balance is the cash without the profit of positions, plus their posted margins: the row
    ``interest_base``, money. Over 0 it earns the rate of cash; under 0 it pays that of loans. The
    interest changes the cash, and is written as ``charged`` for the tally: what is paid is
    positive.
    """
    account = lanes.account
    position = lanes.position
    # The cash has paid the price of cross positions. That is added back, which leaves the cash
    # without their profit.
    for lane in range(LANES):
        account[cell(WORK.interest_base, lane)] = account[cell(WALLET.cash, lane)]
    for i in range(len(lanes.signal)):
        is_isolated = terms.rules.brackets.are_isolated[i] != 0
        for lane in range(LANES):
            margin = position[held_cell(i, HELD.margin, lane)]
            quantity = position[held_cell(i, HELD.quantity, lane)]
            price_paid = quantity * position[held_cell(i, HELD.entry, lane)]
            account[cell(WORK.interest_base, lane)] += select(is_isolated, margin, price_paid)

    # The rates that were known at the last close hold for the time since then.
    t_before = max(t - 1, 0)
    years = at(feed.years, t)
    borrow_rate = at(feed.borrow_rate, t_before)
    cash_rate = at(feed.cash_rate, t_before)
    for lane in range(LANES):
        interest_base = account[cell(WORK.interest_base, lane)]
        rate = select(interest_base > 0.0, cash_rate, borrow_rate)
        interest = -interest_base * rate * years
        account[cell(WORK.charged, lane)] = interest
        account[cell(WALLET.cash, lane)] -= interest


# Looking: who may trade, and who may fail.


def look(terms: Terms, lanes: Lanes, n_instruments: int) -> tuple[bool, LaneBits]:
    """Value all lanes (accounts) at the open, and find who may trade and who may fail in the bar.

    Returns whether any lane may trade, and as bits the lanes that may fail by what they hold.
    Writes their ``worth`` and ``spare``, whether a lane may trade each instrument (``has_order``, 0
    or 1), and the groups of lanes that may trade (cursor ``groups``). It is quicker than a plan of
    all orders, which only bars with an order need.
    """
    is_isolated = terms.rules.brackets.are_isolated[0] != 0
    if n_instruments > 1:
        return look_at_several(lanes, is_isolated, n_instruments)

    # The flag must be a constant in each call: then the compiler makes a loop over lanes without a
    # branch for either margin mode. ``look_at_one(lanes, make_simple(is_isolated))`` would branch.
    if is_isolated:
        has_order, lanes_failing = look_at_one(lanes, make_simple(is_isolated=True))
    else:
        has_order, lanes_failing = look_at_one(lanes, make_simple(is_isolated=False))

    # A target outside of its band makes no order in a bar that cannot fill one.
    has_order = has_order and may_fill(lanes, 0)
    lanes.has_order[0] = has_order
    return has_order, lanes_failing


def look_at_several(lanes: Lanes, is_isolated: bool, n_instruments: int) -> tuple[bool, LaneBits]:
    """Find which lanes may trade and which may fail, for accounts of several positions.

    Returns the answers of :func:`look`: whether any lane may trade, and the lanes that may fail by
    what they hold, as bits. Writes whether a lane may trade each instrument (``has_order``), and
    the groups of lanes in which one may (cursor ``groups``). Lanes are valued first, as a target
    depends on the equity at the open.
    """
    lanes_failing = value_lanes(lanes, is_isolated, n_instruments)
    groups = 0
    for i in range(n_instruments):
        groups_of_instrument = 0
        if may_fill(lanes, i):
            groups_of_instrument = find_groups(lanes, i)
        lanes.has_order[i] = groups_of_instrument != 0
        groups |= groups_of_instrument

    lanes.cursor[CURSOR.groups] = groups
    return groups != 0, lanes_failing


@inlined
def look_at_one(lanes: Lanes, kind: FillKind) -> tuple[bool, LaneBits]:
    """Find which lanes may trade and which may fail, for accounts of one position.

    Returns the answers of :func:`look`: whether any lane may trade, and the lanes that may fail by
    what they hold, those with no money to spare, as bits. A lane may trade if the target of its
    last decision is outside of the no-trade band. Writes ``worth`` and ``spare`` of each lane, and
    the groups of lanes in which one may trade (cursor ``groups``).
    """
    quote = quote_open(lanes.prices, 0)
    signal = lanes.signal[0]
    groups = 0
    may_any_fail = False
    for group in range(GROUPS):
        has_order = False
        for k in range(GROUP):
            lane = group * GROUP + k
            equity, spare = value_lane(lanes, kind, quote.fill, lane)
            may_any_fail |= not spare > 0.0  # a NaN fails too

            rules = read_rules(lanes.numbers, kind, NO_TABLE, 0, lane)
            quantity_held = lanes.position[held_cell(0, HELD.quantity, lane)]
            leverage_decided = lanes.position[held_cell(0, HELD.leverage, lane)]
            has_order |= is_out_of_band(
                rules, quote, equity, quantity_held, leverage_decided, signal
            )
        groups |= has_order << group  # as bits
    lanes.cursor[CURSOR.groups] = groups

    # Which lanes may fail is looked up only in the few bars in which one may.
    lanes_failing = 0
    if may_any_fail:
        lanes_failing = find_spent(lanes)
    return groups != 0, lanes_failing


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
    """Return what an account of one position is worth at the open, and what it can spare: money.

    Its worth is cash and position at the contract ``value`` of the open. It can spare what is left
    after the most that the position may lose in the bar, over the equity at which the account is
    ruined or too poor to order; -1 if an isolated position may lose its own margin. Both are also
    written, as rows of the account.
    """
    account = lanes.account
    position = lanes.position
    quantity = position[held_cell(0, HELD.quantity, lane)]
    cash = account[cell(WALLET.cash, lane)]

    # What the position adds to the cash: a cross one paid for its contracts, an isolated one not.
    backing = quantity * value
    if kind.is_isolated:
        profit = quantity * (value - position[held_cell(0, HELD.entry, lane)])
        backing = position[held_cell(0, HELD.margin, lane)] + profit
    worth = cash + backing

    loss = abs(quantity) * lanes.prices[PRICE.loss_bound, 0]
    spare: float = worth - account[cell(OWN.equity_floor, lane)] - loss
    if kind.is_isolated:
        # A lane in debt, whose cash is below 0, does not pass the bar with the others either.
        is_safe = ((loss < backing) | (quantity == 0.0)) & (cash >= 0.0)
        spare = select(is_safe, spare, -1.0)
    account[cell(WORK.spare, lane)] = spare
    account[cell(WORK.worth, lane)] = worth
    return worth, spare


def find_spent(lanes: Lanes) -> LaneBits:
    """Return the lanes that have no money to spare in this bar, as bits (bit k is lane k).

    It is the row ``spare`` of the account, written before. The comparison is negated, so that a NaN
    counts too.
    """
    spent = 0
    for lane in range(LANES):
        spent |= (not lanes.account[cell(WORK.spare, lane)] > 0.0) << lane
    return spent


def value_lanes(lanes: Lanes, is_isolated: bool, n_instruments: int) -> LaneBits:
    """Value accounts of several positions at the open; return the lanes that may fail in the bar.

    Writes ``worth``, what each account is worth at the open, and ``spare``, what is left of it
    after the most that all positions may lose in the bar: money. A lane with nothing to spare, or a
    NaN, may fail. The lanes are bits: bit k is lane k.
    """
    account = lanes.account
    # Cash backs cross positions, so their worth begins with it. Isolated ones have margins of their
    # own, and cash is added last (:func:`write_spare`).
    for lane in range(LANES):
        cash = account[cell(WALLET.cash, lane)]
        account[cell(WORK.worth, lane)] = select(is_isolated, 0.0, cash)
        account[cell(WORK.loss, lane)] = 0.0
        account[cell(WORK.spare, lane)] = math.inf

    for i in range(n_instruments):
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
    """Write and return the money that a lane can spare in the bar, from the sums of its positions.

    It is the worth at the open, less the most that the positions may lose, and less the equity at
    which the account is ruined or too poor to order.

    Called once a bar, after the last position. Until then the row ``worth`` of isolated positions
    lacks the cash, and the row ``spare`` is infinite, or -1 if one of them may lose its own margin.
    Both are written over here.
    """
    cash = account[cell(WALLET.cash, lane)]
    worth = account[cell(WORK.worth, lane)]
    if is_isolated:
        # The cash is added last, as in a run: so both are equal to the last bit.
        worth = cash + worth
        account[cell(WORK.worth, lane)] = worth

    loss = account[cell(WORK.loss, lane)]
    spare: float = worth - account[cell(OWN.equity_floor, lane)] - loss
    if is_isolated:
        # A debt, or a position that may fail, leaves -1: less than nothing, whatever the rest is.
        most_to_spare = account[cell(WORK.spare, lane)]
        most_to_spare = select(cash >= 0.0, most_to_spare, -1.0)
        spare = select(most_to_spare < spare, most_to_spare, spare)
    account[cell(WORK.spare, lane)] = spare
    return spare


def add_worth(lanes: Lanes, i: int) -> None:
    """Add what cross position i is worth, and may lose in the bar, to the sums of each lane.

    The sums are rows of the account, in money: ``worth``, which began with the cash, and ``loss``.
    A cross position was paid from the cash, so it is worth its contracts.
    """
    account = lanes.account
    value = lanes.prices[PRICE.open, i]
    loss_per_contract = lanes.prices[PRICE.loss_bound, i]
    for lane in range(LANES):
        quantity = lanes.position[held_cell(i, HELD.quantity, lane)]
        account[cell(WORK.worth, lane)] += quantity * value
        account[cell(WORK.loss, lane)] += abs(quantity) * loss_per_contract


def add_worth_isolated(lanes: Lanes, i: int) -> None:
    """Add what isolated position i is worth, and may lose in the bar, to the sums of each lane.

    The sums are rows of the account, in money: ``worth``, to which the cash is added last, and
    ``loss``. If a position may lose all that backs it, margin and profit, its lane can spare
    nothing: the row ``spare`` becomes -1.
    """
    account = lanes.account
    position = lanes.position
    value = lanes.prices[PRICE.open, i]
    loss_per_contract = lanes.prices[PRICE.loss_bound, i]
    for lane in range(LANES):
        quantity = position[held_cell(i, HELD.quantity, lane)]
        margin = position[held_cell(i, HELD.margin, lane)]
        profit = quantity * (value - position[held_cell(i, HELD.entry, lane)])
        worth = account[cell(WORK.worth, lane)]
        account[cell(WORK.worth, lane)] = worth + margin + profit

        loss = abs(quantity) * loss_per_contract
        account[cell(WORK.loss, lane)] += loss

        is_safe = (loss < margin + profit) | (quantity == 0.0)
        spare_before = account[cell(WORK.spare, lane)]
        account[cell(WORK.spare, lane)] = select(is_safe, spare_before, -1.0)


def find_groups(lanes: Lanes, i: int) -> GroupBits:
    """Return the groups of 32 lanes in which a lane wants to trade instrument i, as bits.

    Bit k is the group that begins at lane k * GROUP. A lane (account) wants to trade if the target
    of its last decision is outside of the no-trade band around what it holds. The row ``worth``,
    the equity at the open, must be written before (:func:`value_lanes`).
    """
    quote = quote_open(lanes.prices, i)
    # A target and its band depend on neither the margin table nor the margin mode.
    kind = make_simple(is_isolated=False)
    signal = lanes.signal[i]
    groups = 0
    for group in range(GROUPS):
        has_order = False
        for k in range(GROUP):
            lane = group * GROUP + k
            rules = read_rules(lanes.numbers, kind, NO_TABLE, i, lane)
            equity = lanes.account[cell(WORK.worth, lane)]
            quantity_held = lanes.position[held_cell(i, HELD.quantity, lane)]
            leverage_decided = lanes.position[held_cell(i, HELD.leverage, lane)]
            has_order |= is_out_of_band(
                rules, quote, equity, quantity_held, leverage_decided, signal
            )
        groups |= has_order << group
    return groups
