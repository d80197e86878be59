"""Options: what is held, their marks and expiry, and their orders.

An option k is a column of ``state.options``, whose ``positions`` are what margin is computed from.

====================  ============================================================================
word                  what it is, and its unit
====================  ============================================================================
index                 price of the underlying now
value                 price of one contract by the model, in the settlement currency
mark                  price at which it is valued: the venue's, or the model's
offset                mark less value at the open, kept on the way of the prices
premium               what a trade pays or gets: contracts times price
worsening             points of volatility by which a fill is worse than the mark
quantity_after        signed contracts that an order leads to
quantities_kept       what stays of the contracts held, after an order
quantities_added      what an order adds to them: needs margin, and is cut where there is none
====================  ============================================================================
"""

from __future__ import annotations

import math

from backtest.account.events import Event
from backtest.account.money import Money
from backtest.account.records import AccountBar, AccountState, Terms, log_costs, log_event
from backtest.core import FloatArray
from backtest.core.kernels import inlined, of_options
from backtest.core.structs import Structs
from backtest.core.units import TOLERANCE
from backtest.margin import compute_option_value, compute_price, fill_option, is_vega_small
from backtest.margin.option_values import NONE

# What is held.


@inlined
def holds_options(state: AccountState) -> bool:
    """Return whether any option is held."""
    return count_options(state) > 0


@inlined
@of_options(returns=0)
def count_options(state: AccountState) -> int:
    """Return how many options are held."""
    count = 0
    for quantity in state.options.positions.quantities:
        if quantity != 0.0:
            count += 1
    return count


@of_options(returns=False)
def must_value_options(terms: Terms, state: AccountState) -> bool:
    """Return whether options must be valued at each price on the way through a bar.

    They must where they change what backs the account or what it needs. Shorts always do, as they
    need margin. Longs do where their value, or a loan value of it, backs the account, or where a
    floor of the equity looks at it.
    """
    rules = terms.options.rules
    sees_longs = rules.counted != NONE or rules.rates.loan_value > 0.0 or terms.has_floor
    for k in range(len(state.options.targets)):
        quantity = state.options.positions.quantities[k]
        if quantity < 0.0 or (quantity > 0.0 and sees_longs):
            return True
    return False


ENDLESS = 2**63 - 1
"""The latest time in ns."""
EXPIRES_AT_OPEN, EXPIRES_INSIDE = range(2)
"""When in its bar an option expires: ``OptionFeed.are_inside``."""


# Marks.


@of_options(returns=0.0)
def find_index(terms: Terms, k: int, values: FloatArray) -> float:
    """Return the price of the underlying of option k at some contract values."""
    i = terms.options.instruments[k]
    brackets = terms.rules.brackets
    return compute_price(brackets.sizes[i], brackets.are_inverse[i], values[i])


@of_options(returns=None)
def price_options(terms: Terms, state: AccountState, values: FloatArray) -> None:
    """Write the index and the mark of each option, for given contract values of the instruments.

    ``values`` has shape (n instruments,). The index of an option is the price of its underlying,
    and the mark is the model's value plus the offset of the venue's mark from it at the open. Marks
    are computed only for options that are held or ordered, and whose index has moved.
    """
    option_state = state.options
    positions = option_state.positions
    instruments = terms.options.instruments
    last_instrument = -1
    index = 0.0
    for k in range(len(option_state.targets)):
        # Options of one underlying stand together, so its index is computed once.
        if instruments[k] != last_instrument:
            last_instrument = instruments[k]
            index = find_index(terms, k, values)
        if index == positions.indices[k]:
            continue
        positions.indices[k] = index

        # Writes the model value, which the mark starts from. NaN: no order is there.
        is_ordered = not math.isnan(option_state.targets[k])
        if positions.quantities[k] != 0.0 or is_ordered:
            fill_option(positions, terms.options.rules, k)
            positions.marks[k] = max(0.0, positions.values[k] + option_state.offsets[k])


@of_options(returns=None)
def open_options(bar: AccountBar, t: int) -> None:
    """Write what options start the bar from: market data, targets, and marks at the open."""
    for k in range(len(bar.state.options.targets)):
        read_orders(bar, t, k)
        read_marks(bar, t, k)


def read_orders(bar: AccountBar, t: int, k: int) -> None:
    """Write the target of an option and the quotes that it trades at; empty its sums of the bar.

    The feed has prices per unit of the underlying, the state per contract.
    """
    option_state = bar.state.options
    option_feed = bar.feed.options
    option_state.profits[k] = 0.0
    option_state.fees[k] = 0.0
    option_state.slippage[k] = 0.0
    option_state.losses[k] = 0.0
    option_state.traded[k] = 0.0

    size = option_feed.sizes[k]
    option_state.targets[k] = option_feed.targets[t, k]
    option_state.asks[k] = size * option_feed.asks[t, k]
    option_state.bids[k] = size * option_feed.bids[t, k]
    option_state.has_quotes[k] = option_feed.has_quotes[t, k]
    option_state.half_spreads[k] = option_feed.half_spreads[t, k]
    option_state.half_prices[k] = size * option_feed.half_prices[t, k]


def read_marks(bar: AccountBar, t: int, k: int) -> None:
    """Value option k at the open of bar t: write what its price is computed from, value and mark.

    The feed has years to expiry, forward / index (``bases``), volatility and rate, and the venue's
    own mark, NaN if there is none. That mark is per unit of the underlying; the account has all
    prices per contract. An option that expires at this open is worth its payoff.
    """
    option_feed = bar.feed.options
    positions = bar.state.options.positions
    positions.years[k] = option_feed.years_open[t, k]
    positions.bases[k] = option_feed.bases_open[t, k]
    positions.volatilities[k] = option_feed.volatilities_open[t, k]
    positions.rates[k] = option_feed.rates[k]
    index = find_index(bar.terms, k, bar.quotes.mark_open)
    venue_mark = option_feed.sizes[k] * option_feed.marks_open[t, k]

    # An option that expires now is worth its payoff at the settlement price. A mark of the venue
    # would replace that, so it is dropped.
    if option_feed.expiry_bars[k] == t and option_feed.are_inside[k] == 0:
        write_expired(bar.state, k)
        index = option_feed.expiry_spots[k]
        venue_mark = math.nan
    value_option(bar.terms, bar.state, k, index, venue_mark)


def write_expired(state: AccountState, k: int) -> None:
    """Write an option without time, whose value is its payoff."""
    positions = state.options.positions
    positions.years[k] = 0.0
    positions.volatilities[k] = 0.0
    positions.bases[k] = 1.0


def value_option(
    terms: Terms, state: AccountState, k: int, index: float, venue_mark: float
) -> None:
    """Write value, mark and offset of option k, at the price ``index`` of its underlying.

    Years, volatility and basis of the option must be written before. ``venue_mark`` is the venue's
    own mark of one contract, NaN if there is none: then the mark is the value by the model. The
    offset, mark less value, is kept: marks on the way of the prices are the value there and it.
    """
    option_state = state.options
    positions = option_state.positions
    positions.indices[k] = index
    # One of them is NaN where the contract is not listed: it has no value.
    if math.isnan(positions.years[k] + positions.volatilities[k] + positions.bases[k]):
        write_expired(state, k)
        positions.values[k] = 0.0
        positions.marks[k] = 0.0
        option_state.offsets[k] = 0.0
        return

    # Margin also reads the values of what is held or ordered in each scenario of the rule: this
    # writes them.
    if positions.quantities[k] != 0.0 or not math.isnan(option_state.targets[k]):
        fill_option(positions, terms.options.rules, k)
    value = compute_option_value(positions, k, 1.0, positions.volatilities[k])
    positions.values[k] = value
    if math.isnan(venue_mark):
        option_state.offsets[k] = 0.0
        positions.marks[k] = value
    else:
        option_state.offsets[k] = venue_mark - value
        positions.marks[k] = venue_mark


@of_options(returns=None)
def value_options_at_close(bar: AccountBar, t: int) -> None:
    """Write what options are valued from at the close of bar t, and their values and marks there.

    Years to expiry, forward / index (``bases``) and volatility come from the feed. The venue's own
    mark is used where the feed has one; it is per unit of the underlying there, per contract here.
    Targets are of one bar, so they are forgotten: NaN.
    """
    option_state = bar.state.options
    option_feed = bar.feed.options
    positions = option_state.positions
    for k in range(len(option_state.targets)):
        option_state.targets[k] = math.nan
        positions.years[k] = option_feed.years_close[t, k]
        positions.bases[k] = option_feed.bases_close[t, k]
        positions.volatilities[k] = option_feed.volatilities_close[t, k]

        index = find_index(bar.terms, k, bar.quotes.mark_close)
        venue_mark = option_feed.sizes[k] * option_feed.marks_close[t, k]
        value_option(bar.terms, bar.state, k, index, venue_mark)


@of_options(returns=None)
def book_profits(state: AccountState, ledger: Structs[Money]) -> None:
    """Enter the profit of options, from the marks last booked to those of now, into the ledger.

    ``priced`` has the mark up to which the profit of each option is booked. Profits of options
    count in the last row of the ledger, that of the account.
    """
    option_state = state.options
    positions = option_state.positions
    of_account = ledger[len(ledger) - 1]

    for k in range(len(option_state.targets)):
        quantity = positions.quantities[k]
        if quantity != 0.0:
            profit = quantity * (positions.marks[k] - option_state.priced[k])
            option_state.profits[k] += profit
            of_account.price_pnl += profit
        option_state.priced[k] = positions.marks[k]


# Expiry.


def cap_fee_of(rate: float, cap: float, index: float, price: float, size: float) -> float:
    """Return a fee per contract: its rate of the underlying, at most a share of the price.

    ``index`` is that of the underlying, 1 for contracts that settle in coins.
    """
    fee = rate * index * size
    largest = cap * price
    return largest if largest < fee else fee


@of_options(returns=None)
def expire_options(bar: AccountBar, t: int, part: int, before: int) -> None:
    """Settle the options that expire in a part of bar t, and drop their targets.

    ``part`` is EXPIRES_AT_OPEN (at the open of the bar) or EXPIRES_INSIDE (later in it). ``before``
    is a time, UTC ns: those that expire at or after it are left, for a later call in the same bar.
    ENDLESS takes all.
    """
    option_state = bar.state.options
    option_feed = bar.feed.options
    for k in range(len(option_state.targets)):
        is_of_part = option_feed.expiry_bars[k] == t and option_feed.are_inside[k] == part
        is_due = is_of_part and option_feed.expiry_times[k] < before
        if not is_due:
            continue

        # NaN: an order for what has expired does not fill any more.
        option_state.targets[k] = math.nan
        if option_state.positions.quantities[k] != 0.0:
            settle(bar, t, k)


def settle(bar: AccountBar, t: int, k: int) -> None:
    """Pay off option k at its expiry, less its delivery fee.

    Writes its position, cash, ledger and log. The profit booked is what the payoff is over
    ``priced``, the mark up to which its profit is in the ledger already.
    """
    state = bar.state
    option_state = state.options
    quantity = option_state.positions.quantities[k]
    payoff = compute_payoff(bar, k)
    fee = abs(quantity) * compute_delivery_fee(bar, k, payoff)
    profit = quantity * (payoff - option_state.priced[k])
    option_state.profits[k] += profit
    option_state.fees[k] += fee
    # The last row of the ledger is that of the account.
    of_account = bar.ledger[len(bar.ledger) - 1]
    of_account.price_pnl += profit
    of_account.fees += fee

    state.wallet.cash += quantity * payoff - fee
    release(state, k)
    owner = find_log_owner(state, k)
    paid_off = abs(quantity) * payoff
    log_event(bar.log, t, owner, Event.EXPIRED, payoff, -quantity, paid_off)
    log_costs(bar.log, fee=fee, slippage=0.0, impact=0.0)


def compute_payoff(bar: AccountBar, k: int) -> float:
    """Return what one contract of option k pays at its expiry, never negative.

    In the settlement currency: where that is the coin, the payoff in quotes is divided by the spot
    price. ``signs`` is 1 for a call, which pays above its strike, and -1 for a put.
    """
    positions = bar.state.options.positions
    spot = bar.feed.options.expiry_spots[k]
    in_the_money = max(0.0, positions.signs[k] * (spot - positions.strikes[k]))
    payoff = positions.sizes[k] * in_the_money
    if positions.are_coin[k]:
        payoff = payoff / spot
    return float(payoff)


def compute_delivery_fee(bar: AccountBar, k: int, payoff: float) -> float:
    """Return the fee of the expiry of one contract."""
    terms = bar.terms.options
    positions = bar.state.options.positions
    index = 1.0 if positions.are_coin[k] else bar.feed.options.expiry_spots[k]
    rate = terms.delivery_rates[k]
    return cap_fee_of(rate, terms.delivery_caps[k], index, payoff, positions.sizes[k])


def release(state: AccountState, k: int) -> None:
    """Write that an option is held no more."""
    state.options.positions.quantities[k] = 0.0
    state.options.paid[k] = 0.0


@of_options(returns=-1)
def find_log_owner(state: AccountState, k: int) -> int:
    """Return the owner of an option in the log: after instruments and collateral."""
    return len(state.positions) + len(state.held.amounts) + k


# Prices and fees.


def price_by_volatility(
    terms: Terms, state: AccountState, k: int, side: float, worsening: float
) -> float:
    """Return the price at which a contract of option k trades where nobody quotes it: money.

    That is the mark, moved against the trader: by what the model's value changes if the volatility
    rises by ``worsening`` for a purchase (``side`` 1), or falls by it for a sale (-1). A worsening
    of 0.01 is one point of volatility. The price is at least a tick from the mark, and never
    negative.
    """
    positions = state.options.positions
    mark = positions.marks[k]
    tick = terms.options.ticks[k] * positions.sizes[k]

    # Where the value hardly depends on volatility, half of the usual spread in price is taken.
    half_price = state.options.half_prices[k]
    if not math.isnan(half_price) and is_vega_small(positions, k):
        price = mark + side * half_price
    else:
        moved_volatility = max(0.0, positions.volatilities[k] + side * worsening)
        moved_value = compute_option_value(positions, k, 1.0, moved_volatility)
        price = mark + moved_value - positions.values[k]

    # At least a tick worse than the mark.
    if side > 0.0:
        return float(max(price, mark + tick))
    return float(max(min(price, mark - tick), 0.0))


def compute_option_fee(terms: Terms, state: AccountState, k: int, price: float) -> float:
    """Return the fee of trading one contract at a price."""
    fees = terms.options
    positions = state.options.positions
    index = 1.0 if positions.are_coin[k] else positions.indices[k]
    return cap_fee_of(fees.fee_rates[k], fees.fee_caps[k], index, price, positions.sizes[k])


# Orders.


@of_options(returns=None)
def begin_options(bar: AccountBar, t: int, equity: float) -> None:
    """Begin the orders of options: fill those that reduce, and write down those that add.

    Reductions fill at once, as they free margin. What adds waits for margin, which
    :func:`add_options` fills later: its order stands in ``quantities_kept``, the contracts held
    that stay, and ``quantities_added``, those to come. Signed contracts, as are targets. Without
    an order all that is held is kept.
    """
    state = bar.state
    option_state = state.options
    for k in range(len(option_state.targets)):
        quantity_held = option_state.positions.quantities[k]
        option_state.quantities_kept[k] = quantity_held
        option_state.quantities_added[k] = 0.0

        # A target holds for one bar. An account that has ended closes what it holds.
        target = 0.0 if state.wallet.is_over != 0.0 else option_state.targets[k]
        option_state.targets[k] = math.nan

        # NaN leaves the option as it is. An account without equity orders nothing.
        is_unchanged = math.isnan(target) or target == quantity_held
        if not is_unchanged and equity > 0.0:
            begin_option(bar, t, k, target)


def begin_option(bar: AccountBar, t: int, k: int, quantity_after: float) -> None:
    """Price the order of option k, and fill it at once if it reduces the position.

    ``quantity_after`` are signed contracts. What adds waits for margin: the quantities that it
    keeps and adds are written. Where nobody quotes its side, the order is dropped and logged.
    """
    state = bar.state
    option_state = state.options
    quantity = option_state.positions.quantities[k]
    side = 1.0 if quantity_after > quantity else -1.0
    option_state.prices[k] = price_option_order(bar, k, side)
    if math.isnan(option_state.prices[k]):
        owner = find_log_owner(state, k)
        mark = option_state.positions.marks[k]
        log_event(bar.log, t, owner, Event.UNQUOTED, mark, quantity=0.0, amount=0.0)
        return

    if quantity_after * quantity >= 0.0 and abs(quantity_after) < abs(quantity):
        enter_option_trade(bar, t, k, quantity_after, Event.FILL)
        option_state.quantities_kept[k] = quantity_after
        return
    # What changes its sign closes first, and keeps nothing.
    option_state.quantities_kept[k] = quantity if quantity_after * quantity > 0.0 else 0.0
    option_state.quantities_added[k] = quantity_after - option_state.quantities_kept[k]


def price_option_order(bar: AccountBar, k: int, side: float) -> float:
    """Return the price of an order: the quote of its side, or a spread around the mark.

    NaN if the contract has expired, or nobody quotes the side.
    """
    option_state = bar.state.options
    if not option_state.positions.years[k] > 0.0:
        return math.nan
    if option_state.has_quotes[k] != 1:
        return price_by_volatility(bar.terms, bar.state, k, side, option_state.half_spreads[k])
    return float(option_state.asks[k] if side > 0.0 else option_state.bids[k])


def is_adding(state: AccountState, k: int) -> bool:
    """Return whether an order waits for margin: it adds, or closes what changes its sign."""
    option_state = state.options
    return bool(
        option_state.quantities_added[k] != 0.0
        or option_state.quantities_kept[k] != option_state.positions.quantities[k]
    )


@of_options(returns=False)
def is_adding_options(state: AccountState) -> bool:
    """Return whether any order of options waits for margin."""
    for k in range(len(state.options.targets)):  # noqa: SIM110 - numba compiles no generators
        if is_adding(state, k):
            return True
    return False


@of_options(returns=(0.0, 0.0))
def sum_premiums(terms: Terms, state: AccountState) -> tuple[float, float]:
    """Return the money that waiting orders of options must pay, and the part that can be cut.

    The second number is price and fee of contracts that are bought anew: the caller may scale them
    down. The first is what is due in any case: price and fee of closing shorts, and the fees of
    sales. Sales bring money, which is not counted.

    Called after reductions have filled. An order that still waits keeps ``quantities_kept`` of the
    contracts held, closes the others, and adds ``quantities_added``, positive for a purchase.
    """
    option_state = state.options
    paid_in_any_case = 0.0
    premiums = 0.0
    for k in range(len(option_state.targets)):
        added = option_state.quantities_added[k]
        if added == 0.0:
            continue

        price = option_state.prices[k]
        fee = compute_option_fee(terms, state, k, price)
        # Contracts without sign: an order that changes the sign of a position closes it first.
        closed = abs(option_state.quantities_kept[k] - option_state.positions.quantities[k])
        is_purchase = added > 0.0
        if is_purchase:
            paid_in_any_case += closed * (price + fee)
            premiums += added * (price + fee)
        else:
            sold = closed - added
            paid_in_any_case += sold * fee

    return paid_in_any_case, premiums


@of_options(returns=0.0)
def try_options(terms: Terms, state: AccountState, factor: float) -> float:
    """Write option positions as if orders filled a ``factor``, 0 to 1, of what they add; a trial.

    Returns the money that those orders would pay, premiums and fees; negative if sales bring more.
    Cash and ledger stay as they are. The caller asks for the margin of these positions, and must
    then write back ``quantities_aside``, where this function keeps what is held.
    """
    option_state = state.options
    outlay = 0.0
    for k in range(len(option_state.targets)):
        option_state.quantities_aside[k] = option_state.positions.quantities[k]
        if is_adding(state, k):
            quantity_after = (
                option_state.quantities_kept[k] + factor * option_state.quantities_added[k]
            )
            contracts_traded = quantity_after - option_state.positions.quantities[k]
            fee = compute_option_fee(terms, state, k, option_state.prices[k])
            outlay += contracts_traded * option_state.prices[k] + abs(contracts_traded) * fee
            option_state.positions.quantities[k] = quantity_after

    return outlay


@of_options(returns=None)
def add_options(bar: AccountBar, t: int, factor: float) -> None:
    """Fill the orders of options that add, times the common factor of all increases, 0 to 1.

    Called after all other orders have filled. Reads the quantities kept and added that
    :func:`begin_options` wrote and limits have cut; afterwards nothing is added.
    """
    option_state = bar.state.options
    for k in range(len(option_state.targets)):
        if not is_adding(bar.state, k):
            continue
        quantity = option_state.positions.quantities[k]
        quantity_after = option_state.quantities_kept[k] + factor * option_state.quantities_added[k]
        option_state.quantities_added[k] = 0.0
        # A smaller change is rounding of the factor.
        if abs(quantity_after - quantity) > TOLERANCE * abs(quantity):
            enter_option_trade(bar, t, k, quantity_after, Event.FILL)


@of_options(returns=None)
def stop_options(bar: AccountBar, t: int, event: int) -> None:
    """Close all options because the equity has fallen to one of its floors; log them as ``event``.

    Each trades at its mark, moved by half the spread in volatility against the trader, or by a tick
    alone where the spread is not known. Writes positions, cash, ledger and log.
    """
    option_state = bar.state.options
    for k in range(len(option_state.targets)):
        quantity = option_state.positions.quantities[k]
        if quantity == 0.0:
            continue
        # NaN: the spread is unknown.
        worsening = option_state.half_spreads[k]
        if math.isnan(worsening):
            worsening = 0.0

        # The trade is at the price that stands in ``prices``.
        side = -1.0 if quantity > 0.0 else 1.0
        option_state.prices[k] = price_by_volatility(bar.terms, bar.state, k, side, worsening)
        enter_option_trade(bar, t, k, 0.0, event)


# Fills.


def enter_option_trade(bar: AccountBar, t: int, k: int, quantity_after: float, kind: int) -> None:
    """Trade option k to some signed contracts at its price, and book what that costs.

    The price, money per contract, stands in ``prices``. Writes position, cash (premium and fee),
    ledger and log, where ``kind`` is the event. Slippage is what the price is worse than the mark.
    """
    state = bar.state
    option_state = state.options
    price = option_state.prices[k]
    contracts_traded = quantity_after - option_state.positions.quantities[k]
    fee = abs(contracts_traded) * compute_option_fee(bar.terms, state, k, price)
    slippage = contracts_traded * (price - option_state.positions.marks[k])

    option_state.fees[k] += fee
    option_state.slippage[k] += slippage

    # Options count in the last row of the ledger, that of the account.
    of_account = bar.ledger[len(bar.ledger) - 1]
    of_account.fees += fee
    of_account.slippage += slippage
    of_account.fills += 1.0 if contracts_traded != 0.0 else 0.0

    trade_option(state, bar.ledger, k, quantity_after, price)
    state.wallet.cash -= fee
    log_event(
        bar.log,
        t,
        find_log_owner(state, k),
        kind,
        price,
        contracts_traded,
        abs(contracts_traded) * price,
    )
    log_costs(bar.log, fee=fee, slippage=slippage, impact=0.0)


@of_options(returns=None)
def trade_option(
    state: AccountState, ledger: Structs[Money], k: int, quantity_after: float, price: float
) -> None:
    """Write position, cash, premiums traded and average price after a trade of option k.

    The trade goes to ``quantity_after`` signed contracts, at ``price``, money per contract. Without
    its fee, which the caller charges. ``paid`` is the average price of what is held.
    """
    option_state = state.options
    quantity = option_state.positions.quantities[k]
    contracts_traded = quantity_after - quantity
    state.wallet.cash -= contracts_traded * price
    option_state.traded[k] += abs(contracts_traded) * price
    ledger[len(ledger) - 1].traded += abs(contracts_traded) * price  # the row of the account
    option_state.positions.quantities[k] = quantity_after

    # The average price that was paid: a reduction keeps it, a flip starts anew.
    if quantity_after == 0.0:
        option_state.paid[k] = 0.0
    elif quantity * quantity_after <= 0.0:
        option_state.paid[k] = price
    elif abs(quantity_after) > abs(quantity):
        option_state.paid[k] += (price - option_state.paid[k]) * (contracts_traded / quantity_after)
