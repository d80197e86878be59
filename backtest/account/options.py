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
wanted                signed contracts that an order leads to
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

    Where they change what backs the account or what it needs: shorts always do; longs where their
    value counts, or a floor of the equity looks at it.
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
    """Write the marks of options at some contract values of their underlyings.

    Of those that are held or ordered. An index that has not moved needs nothing.
    """
    own = state.options
    instruments = terms.options.instruments
    last = -1
    index = 0.0
    for k in range(len(own.targets)):
        # Options of one underlying stand together, so its index is computed once.
        if instruments[k] != last:
            last = instruments[k]
            index = find_index(terms, k, values)
        if index == own.positions.indices[k]:
            continue
        own.positions.indices[k] = index

        if own.positions.quantities[k] != 0.0 or not math.isnan(own.targets[k]):
            fill_option(own.positions, terms.options.rules, k)
            own.positions.marks[k] = max(0.0, own.positions.values[k] + own.offsets[k])


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
    own = bar.state.options
    data = bar.feed.options
    own.profits[k] = 0.0
    own.fees[k] = 0.0
    own.slippage[k] = 0.0
    own.losses[k] = 0.0
    own.traded[k] = 0.0

    size = data.sizes[k]
    own.targets[k] = data.targets[t, k]
    own.asks[k] = size * data.asks[t, k]
    own.bids[k] = size * data.bids[t, k]
    own.has_quotes[k] = data.has_quotes[t, k]
    own.half_spreads[k] = data.half_spreads[t, k]
    own.half_prices[k] = size * data.half_prices[t, k]


def read_marks(bar: AccountBar, t: int, k: int) -> None:
    """Write what an option is valued from at the open, and its value and mark there."""
    data = bar.feed.options
    positions = bar.state.options.positions
    positions.years[k] = data.years_open[t, k]
    positions.bases[k] = data.bases_open[t, k]
    positions.volatilities[k] = data.volatilities_open[t, k]
    positions.rates[k] = data.rates[k]
    index = find_index(bar.terms, k, bar.quotes.mark_open)
    quoted = data.sizes[k] * data.marks_open[t, k]

    # What expires at this open is worth its payoff, at the price that it settles by.
    if data.expiry_bars[k] == t and data.are_inside[k] == 0:
        write_expired(bar.state, k)
        index = data.expiry_spots[k]
        quoted = math.nan
    value_option(bar.terms, bar.state, k, index, quoted)


def write_expired(state: AccountState, k: int) -> None:
    """Write an option without time, whose value is its payoff."""
    positions = state.options.positions
    positions.years[k] = 0.0
    positions.volatilities[k] = 0.0
    positions.bases[k] = 1.0


def value_option(terms: Terms, state: AccountState, k: int, index: float, quoted: float) -> None:
    """Write value, mark and offset of option k, at the price ``index`` of its underlying.

    ``quoted`` is the venue's mark of one contract, NaN if there is none: then the mark is the
    value by the model. The offset of the mark from that value stays until the next bar.
    """
    own = state.options
    positions = own.positions
    positions.indices[k] = index
    # Nothing is known of a contract that is not listed.
    if math.isnan(positions.years[k] + positions.volatilities[k] + positions.bases[k]):
        write_expired(state, k)
        positions.values[k] = 0.0
        positions.marks[k] = 0.0
        own.offsets[k] = 0.0
        return

    # Margin reads what is held or ordered in each scenario, too: this writes it.
    if positions.quantities[k] != 0.0 or not math.isnan(own.targets[k]):
        fill_option(positions, terms.options.rules, k)
    value = compute_option_value(positions, k, 1.0, positions.volatilities[k])
    positions.values[k] = value
    if math.isnan(quoted):
        own.offsets[k] = 0.0
        positions.marks[k] = value
    else:
        own.offsets[k] = quoted - value
        positions.marks[k] = quoted


@of_options(returns=None)
def value_options_at_close(bar: AccountBar, t: int) -> None:
    """Write market data and marks of options at the close, and forget the targets."""
    own = bar.state.options
    data = bar.feed.options
    for k in range(len(own.targets)):
        own.targets[k] = math.nan
        positions = own.positions
        positions.years[k] = data.years_close[t, k]
        positions.bases[k] = data.bases_close[t, k]
        positions.volatilities[k] = data.volatilities_close[t, k]

        index = find_index(bar.terms, k, bar.quotes.mark_close)
        quoted = data.sizes[k] * data.marks_close[t, k]
        value_option(bar.terms, bar.state, k, index, quoted)


@of_options(returns=None)
def book_profits(state: AccountState, ledger: Structs[Money]) -> None:
    """Enter the profit of options since they were last booked into the ledger."""
    own = state.options

    for k in range(len(own.targets)):
        held = own.positions.quantities[k]
        if held != 0.0:
            profit = held * (own.positions.marks[k] - own.priced[k])
            own.profits[k] += profit
            ledger[len(ledger) - 1].price_pnl += profit
        own.priced[k] = own.positions.marks[k]


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

    That is at its open, or inside of it: EXPIRES_AT_OPEN or EXPIRES_INSIDE. Only those that expire
    before a time, ``before``, UTC ns: ENDLESS takes all.
    """
    state = bar.state
    data = bar.feed.options
    for k in range(len(state.options.targets)):
        is_due = data.expiry_bars[k] == t and data.are_inside[k] == part
        if is_due and data.expiry_times[k] < before:
            state.options.targets[k] = math.nan
            if state.options.positions.quantities[k] != 0.0:
                settle(bar, t, k)


def settle(bar: AccountBar, t: int, k: int) -> None:
    """Pay off an option that expires, and its delivery fee; writes cash, ledger and log."""
    state = bar.state
    own = state.options
    quantity = own.positions.quantities[k]
    payoff = compute_payoff(bar, k)
    fee = abs(quantity) * compute_delivery_fee(bar, k, payoff)
    profit = quantity * (payoff - own.priced[k])
    own.profits[k] += profit
    own.fees[k] += fee
    of_account = bar.ledger[len(bar.ledger) - 1]
    of_account.price_pnl += profit
    of_account.fees += fee

    state.wallet.cash += quantity * payoff - fee
    release(state, k)
    owner = name_option(state, k)
    paid = abs(quantity) * payoff
    log_event(bar.log, t, owner, Event.EXPIRED, payoff, -quantity, paid)
    log_costs(bar.log, fee=fee, slippage=0.0, impact=0.0)


def compute_payoff(bar: AccountBar, k: int) -> float:
    """Return what a contract pays at its expiry, in the settlement currency."""
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
def name_option(state: AccountState, k: int) -> int:
    """Return the owner of an option in the log: after instruments and collateral."""
    return len(state.positions) + len(state.held.amounts) + k


# Prices and fees.


def price_by_volatility(
    terms: Terms, state: AccountState, k: int, side: float, worsening: float
) -> float:
    """Return the price of a fill that moves volatility against the side, by points of it.

    It is at least a tick from the mark, and never under 0.
    """
    positions = state.options.positions
    mark = positions.marks[k]
    tick = terms.options.ticks[k] * positions.sizes[k]

    # Where the value hardly depends on volatility, half of the quoted spread stands instead.
    half_price = state.options.half_prices[k]
    if not math.isnan(half_price) and is_vega_small(positions, k):
        price = mark + side * half_price
    else:
        moved = max(0.0, positions.volatilities[k] + side * worsening)
        price = mark + compute_option_value(positions, k, 1.0, moved) - positions.values[k]
    if side > 0.0:
        return float(max(price, mark + tick))
    return float(max(min(price, mark - tick), 0.0))


def compute_option_fee(terms: Terms, state: AccountState, k: int, price: float) -> float:
    """Return the fee of trading one contract at a price."""
    own = terms.options
    positions = state.options.positions
    index = 1.0 if positions.are_coin[k] else positions.indices[k]
    return cap_fee_of(own.fee_rates[k], own.fee_caps[k], index, price, positions.sizes[k])


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
    own = state.options
    for k in range(len(own.targets)):
        quantity_held = own.positions.quantities[k]
        own.quantities_kept[k] = quantity_held
        own.quantities_added[k] = 0.0

        # A target holds for one bar. An account that has ended closes what it holds.
        target = 0.0 if state.wallet.is_over != 0.0 else own.targets[k]
        own.targets[k] = math.nan

        # NaN leaves the option as it is.
        is_unchanged = math.isnan(target) or target == quantity_held
        if not is_unchanged and equity > 0.0:
            begin_option(bar, t, k, target)


def begin_option(bar: AccountBar, t: int, k: int, wanted: float) -> None:
    """Price the order of option k, and fill it at once if it reduces the position.

    ``wanted`` are signed contracts. What adds waits for margin: the quantities that it keeps and
    adds are written. Where nobody quotes its side, the order is dropped and logged.
    """
    state = bar.state
    own = state.options
    quantity = own.positions.quantities[k]
    side = 1.0 if wanted > quantity else -1.0
    own.prices[k] = price_option_order(bar, k, side)
    if math.isnan(own.prices[k]):
        owner = name_option(state, k)
        mark = own.positions.marks[k]
        log_event(bar.log, t, owner, Event.UNQUOTED, mark, quantity=0.0, amount=0.0)
        return

    if wanted * quantity >= 0.0 and abs(wanted) < abs(quantity):
        enter_option_trade(bar, t, k, wanted, Event.FILL)
        own.quantities_kept[k] = wanted
        return
    # What changes its sign closes first, and keeps nothing.
    own.quantities_kept[k] = quantity if wanted * quantity > 0.0 else 0.0
    own.quantities_added[k] = wanted - own.quantities_kept[k]


def price_option_order(bar: AccountBar, k: int, side: float) -> float:
    """Return the price of an order: the quote of its side, or a spread around the mark.

    NaN if the contract has expired, or nobody quotes the side.
    """
    own = bar.state.options
    if not own.positions.years[k] > 0.0:
        return math.nan
    if own.has_quotes[k] != 1:
        return price_by_volatility(bar.terms, bar.state, k, side, own.half_spreads[k])
    return float(own.asks[k] if side > 0.0 else own.bids[k])


def is_adding(state: AccountState, k: int) -> bool:
    """Return whether an order waits for margin: it adds, or closes what changes its sign."""
    own = state.options
    return bool(
        own.quantities_added[k] != 0.0 or own.quantities_kept[k] != own.positions.quantities[k]
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
    """Return the money that orders of options pay in any case, and the premiums that can be cut.

    In any case they pay all fees, and the price of what closes a short position. What can be cut
    is the price, with its fee, of options bought anew. Sales bring money, and pay only fees. Called
    after reductions have filled: what waits keeps ``quantities_kept`` of the contracts held, closes
    the others, and adds ``quantities_added``, positive for a purchase.
    """
    own = state.options
    fixed = 0.0
    premiums = 0.0
    for k in range(len(own.targets)):
        added = own.quantities_added[k]
        if added == 0.0:
            continue

        price = own.prices[k]
        fee = compute_option_fee(terms, state, k, price)
        # Contracts without sign: an order that changes the sign of a position closes it first.
        closed = abs(own.quantities_kept[k] - own.positions.quantities[k])
        is_purchase = added > 0.0
        if is_purchase:
            fixed += closed * (price + fee)
            premiums += added * (price + fee)
        else:
            sold = closed - added
            fixed += sold * fee

    return fixed, premiums


@of_options(returns=0.0)
def try_options(terms: Terms, state: AccountState, factor: float) -> float:
    """Write option positions as after a factor of all orders that add; return what these pay.

    Money: premiums and fees, negative where sales bring more. A trial for margin: cash and ledger
    stay as they are, and ``quantities_aside`` keeps what was held, for the caller to write back.
    """
    own = state.options
    outlay = 0.0
    for k in range(len(own.targets)):
        own.quantities_aside[k] = own.positions.quantities[k]
        if is_adding(state, k):
            wanted = own.quantities_kept[k] + factor * own.quantities_added[k]
            traded = wanted - own.positions.quantities[k]
            fee = compute_option_fee(terms, state, k, own.prices[k])
            outlay += traded * own.prices[k] + abs(traded) * fee
            own.positions.quantities[k] = wanted

    return outlay


@of_options(returns=None)
def add_options(bar: AccountBar, t: int, factor: float) -> None:
    """Fill the orders of options that add, times the common factor of all increases, 0 to 1.

    Called after all other orders have filled. Reads the quantities kept and added that
    :func:`begin_options` wrote and limits have cut; afterwards nothing is added.
    """
    own = bar.state.options
    for k in range(len(own.targets)):
        if not is_adding(bar.state, k):
            continue
        quantity = own.positions.quantities[k]
        wanted = own.quantities_kept[k] + factor * own.quantities_added[k]
        own.quantities_added[k] = 0.0
        # A smaller change is rounding of the factor.
        if abs(wanted - quantity) > TOLERANCE * abs(quantity):
            enter_option_trade(bar, t, k, wanted, Event.FILL)


@of_options(returns=None)
def stop_options(bar: AccountBar, t: int, event: int) -> None:
    """Close all options where a floor of the equity acts, and log it as an event.

    At a spread around the mark, or at the mark where none is known.
    """
    own = bar.state.options
    for k in range(len(own.targets)):
        quantity = own.positions.quantities[k]
        if quantity == 0.0:
            continue
        worsening = own.half_spreads[k]
        if math.isnan(worsening):
            worsening = 0.0

        side = -1.0 if quantity > 0.0 else 1.0
        own.prices[k] = price_by_volatility(bar.terms, bar.state, k, side, worsening)
        enter_option_trade(bar, t, k, 0.0, event)


# Fills.


def enter_option_trade(bar: AccountBar, t: int, k: int, wanted: float, kind: int) -> None:
    """Trade an option to some contracts at its price, and book premium, fee and slippage."""
    state = bar.state
    own = state.options
    price = own.prices[k]
    traded = wanted - own.positions.quantities[k]
    fee = abs(traded) * compute_option_fee(bar.terms, state, k, price)
    slippage = traded * (price - own.positions.marks[k])

    own.fees[k] += fee
    own.slippage[k] += slippage

    of_account = bar.ledger[len(bar.ledger) - 1]
    of_account.fees += fee
    of_account.slippage += slippage
    of_account.fills += 1.0 if traded != 0.0 else 0.0

    trade_option(state, bar.ledger, k, wanted, price)
    state.wallet.cash -= fee
    log_event(bar.log, t, name_option(state, k), kind, price, traded, abs(traded) * price)
    log_costs(bar.log, fee=fee, slippage=slippage, impact=0.0)


@of_options(returns=None)
def trade_option(
    state: AccountState, ledger: Structs[Money], k: int, wanted: float, price: float
) -> None:
    """Write position, cash, traded notional and average price after a trade of an option."""
    own = state.options
    quantity = own.positions.quantities[k]
    traded = wanted - quantity
    state.wallet.cash -= traded * price
    own.traded[k] += abs(traded) * price
    ledger[len(ledger) - 1].traded += abs(traded) * price
    own.positions.quantities[k] = wanted

    # The average price that was paid: a reduction keeps it, a flip starts anew.
    if wanted == 0.0:
        own.paid[k] = 0.0
    elif quantity * wanted <= 0.0:
        own.paid[k] = price
    elif abs(wanted) > abs(quantity):
        own.paid[k] += (price - own.paid[k]) * (traded / wanted)
