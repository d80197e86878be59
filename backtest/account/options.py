"""Options: what is held, their marks and expiry, and their orders."""

from __future__ import annotations

import math

from backtest.account.events import Event
from backtest.account.money import Money
from backtest.account.records import AccountBar, AccountState, Terms, log_event
from backtest.core import FloatArray
from backtest.core.kernels import inlined, of_options
from backtest.core.structs import Structs
from backtest.core.units import TOLERANCE
from backtest.margin import compute_option_value, compute_price, fill_option, is_vega_small
from backtest.margin.option_values import NONE


@inlined
def holds_options(state: AccountState) -> bool:
    return count_options(state) > 0


@inlined
@of_options(returns=0)
def count_options(state: AccountState) -> int:
    count = 0
    for quantity in state.options.positions.quantities:
        if quantity != 0.0:
            count += 1
    return count


@of_options(returns=False)
def is_walking(terms: Terms, state: AccountState) -> bool:
    rules, is_any = terms.options.rules, False
    sees_longs = rules.counted != NONE or rules.rates.loan_value > 0.0 or terms.has_floor
    for k in range(len(state.options.targets)):
        held = state.options.positions.quantities[k]
        is_any = is_any or held < 0.0 or (held > 0.0 and sees_longs)
    return bool(is_any)


ENDLESS = 2**63 - 1
"""The latest time in ns."""


@of_options(returns=0.0)
def find_index(terms: Terms, k: int, values: FloatArray) -> float:
    """Return the price of the underlying of option k at some values u."""
    i, brackets = terms.options.instruments[k], terms.rules.brackets
    return compute_price(brackets.sizes[i], brackets.are_inverse[i], values[i])


@of_options(returns=None)
def price_options(terms: Terms, state: AccountState, values: FloatArray) -> None:
    """Write the marks of options at some values u of their underlyings."""
    own, instruments, last, index = state.options, terms.options.instruments, -1, 0.0
    indices, held, targets = own.positions.indices, own.positions.quantities, own.targets
    for k in range(len(own.targets)):
        if instruments[k] != last:
            last, index = instruments[k], find_index(terms, k, values)
        if index == indices[k]:
            continue
        indices[k] = index
        if held[k] != 0.0 or not math.isnan(targets[k]):
            fill_option(own.positions, terms.options.rules, k)
            own.positions.marks[k] = max(0.0, own.positions.values[k] + own.offsets[k])


@of_options(returns=None)
def open_options(bar: AccountBar, t: int) -> None:
    """Write what options start the bar from: market data, targets, and marks at the open."""
    own, data = bar.state.options, bar.feed.options
    for k in range(len(own.targets)):
        own.profits[k], own.fees[k], own.slippage[k] = 0.0, 0.0, 0.0
        own.losses[k], own.traded[k] = 0.0, 0.0
        own.targets[k] = data.targets[t, k]
        size = data.sizes[k]
        own.asks[k], own.bids[k] = size * data.asks[t, k], size * data.bids[t, k]
        own.has_quotes[k], own.half_spreads[k] = data.has_quotes[t, k], data.half_spreads[t, k]
        own.half_prices[k] = size * data.half_prices[t, k]
        positions, index = own.positions, find_index(bar.terms, k, bar.quotes.mark_open)
        positions.years[k], positions.bases[k] = data.years_open[t, k], data.bases_open[t, k]
        positions.volatilities[k], positions.rates[k] = data.volatilities_open[t, k], data.rates[k]
        quoted = size * data.marks_open[t, k]
        if data.expiry_bars[k] == t and data.are_inside[k] == 0:
            positions.years[k], positions.volatilities[k], positions.bases[k] = 0.0, 0.0, 1.0
            index, quoted = data.expiry_spots[k], math.nan
        restart(bar.terms, bar.state, k, index, quoted)


def restart(terms: Terms, state: AccountState, k: int, index: float, quoted: float) -> None:
    """Write values, marks and their offset anew, from the venue's mark or the model."""
    own, positions = state.options, state.options.positions
    own.positions.indices[k] = index
    if math.isnan(positions.years[k] + positions.volatilities[k] + positions.bases[k]):
        positions.years[k], positions.volatilities[k], positions.bases[k] = 0.0, 0.0, 1.0
        positions.values[k], positions.marks[k], own.offsets[k] = 0.0, 0.0, 0.0
        return
    if positions.quantities[k] != 0.0 or not math.isnan(own.targets[k]):
        fill_option(own.positions, terms.options.rules, k)
    value = compute_option_value(own.positions, k, 1.0, own.positions.volatilities[k])
    own.positions.values[k] = value
    own.offsets[k] = 0.0 if math.isnan(quoted) else quoted - value
    own.positions.marks[k] = value if math.isnan(quoted) else quoted


@of_options(returns=None)
def close_options(bar: AccountBar, t: int) -> None:
    """Write market data and marks of options at the close."""
    own, data = bar.state.options, bar.feed.options
    for k in range(len(own.targets)):
        positions = own.positions
        positions.years[k], positions.bases[k] = data.years_close[t, k], data.bases_close[t, k]
        positions.volatilities[k], own.targets[k] = data.volatilities_close[t, k], math.nan
        index = find_index(bar.terms, k, bar.quotes.mark_close)
        restart(bar.terms, bar.state, k, index, data.sizes[k] * data.marks_close[t, k])


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


def cap_fee_of(rate: float, cap: float, unit: float, price: float, size: float) -> float:
    """Return a fee per contract: its rate of the underlying, at most a share of the price."""
    fee, most = rate * unit * size, cap * price
    return most if most < fee else fee


@of_options(returns=None)
def expire_options(bar: AccountBar, t: int, is_inside: int, before: int) -> None:
    """Settle what expires at the open of the bar, or inside it, before a time in ns."""
    state = bar.state
    data = bar.feed.options
    for k in range(len(state.options.targets)):
        is_due = data.expiry_bars[k] == t and data.are_inside[k] == is_inside
        if is_due and data.expiry_times[k] < before:
            state.options.targets[k] = math.nan
            if state.options.positions.quantities[k] != 0.0:
                settle(bar, t, k)


def settle(bar: AccountBar, t: int, k: int) -> None:
    """Pay off an option that expires, and its delivery fee; writes cash, ledger and log."""
    state, ledger = bar.state, bar.ledger
    own, own_terms, last = state.options, bar.terms.options, len(ledger) - 1
    positions, spot = own.positions, bar.feed.options.expiry_spots[k]
    held, size = positions.quantities[k], positions.sizes[k]
    payoff = size * max(0.0, positions.signs[k] * (spot - positions.strikes[k]))
    unit = spot
    if positions.are_coin[k]:
        payoff, unit = payoff / spot, 1.0
    fee = abs(held) * cap_fee_of(
        own_terms.delivery_rates[k], own_terms.delivery_caps[k], unit, payoff, size
    )
    profit = held * (payoff - own.priced[k])
    own.profits[k] += profit
    own.fees[k] += fee
    ledger[last].price_pnl += profit
    ledger[last].fees += fee
    state.wallet.cash += held * payoff - fee
    release(state, k)
    log_event(
        bar.log, t, name_option(state, k), Event.EXPIRED, payoff, -held, abs(held) * payoff, fee
    )


def release(state: AccountState, k: int) -> None:
    """Write that an option is held no more."""
    state.options.positions.quantities[k] = 0.0
    state.options.paid[k] = 0.0


@of_options(returns=-1)
def name_option(state: AccountState, k: int) -> int:
    return len(state.positions) + len(state.held.amounts) + k


def price_by_volatility(terms: Terms, state: AccountState, k: int, side: float, h: float) -> float:
    """Return the price of a fill that moves volatility by h, at least a tick from the mark."""
    positions, tick = state.options.positions, terms.options.ticks[k]
    mark, tick = positions.marks[k], tick * positions.sizes[k]
    half = state.options.half_prices[k]
    if not math.isnan(half) and is_vega_small(positions, k):
        price = mark + side * half
    else:
        moved = max(0.0, positions.volatilities[k] + side * h)
        price = mark + compute_option_value(positions, k, 1.0, moved) - positions.values[k]
    if side > 0.0:
        return float(max(price, mark + tick))
    return float(max(min(price, mark - tick), 0.0))


def compute_option_fee(terms: Terms, state: AccountState, k: int, price: float) -> float:
    """Return the fee of trading one contract at a price."""
    own, positions = terms.options, state.options.positions
    unit = 1.0 if positions.are_coin[k] else positions.indices[k]
    return cap_fee_of(own.fee_rates[k], own.fee_caps[k], unit, price, positions.sizes[k])


@of_options(returns=None)
def begin_options(bar: AccountBar, t: int, equity: float) -> None:
    """Write the orders of options, and fill those that reduce a position."""
    state = bar.state
    own = state.options
    for k in range(len(own.targets)):
        held = own.positions.quantities[k]
        own.kept[k], own.added[k] = held, 0.0
        wanted = 0.0 if state.wallet.is_over != 0.0 else own.targets[k]
        own.targets[k] = math.nan
        if math.isnan(wanted) or wanted == held or not equity > 0.0:
            continue
        side, own.prices[k] = 1.0 if wanted > held else -1.0, math.nan
        if own.positions.years[k] > 0.0 and own.has_quotes[k] == 1:
            own.prices[k] = own.asks[k] if side > 0.0 else own.bids[k]
        elif own.positions.years[k] > 0.0:
            half = own.half_spreads[k]
            own.prices[k] = price_by_volatility(bar.terms, state, k, side, half)
        if math.isnan(own.prices[k]):
            owner, mark = name_option(state, k), own.positions.marks[k]
            log_event(bar.log, t, owner, Event.UNQUOTED, mark, 0.0, 0.0)
        elif wanted * held >= 0.0 and abs(wanted) < abs(held):
            enter_option_trade(bar, t, k, wanted, Event.FILL)
            own.kept[k] = wanted
        else:
            own.kept[k] = held if wanted * held > 0.0 else 0.0
            own.added[k] = wanted - own.kept[k]


def is_adding(state: AccountState, k: int) -> bool:
    own = state.options
    return bool(own.added[k] != 0.0 or own.kept[k] != own.positions.quantities[k])


@of_options(returns=False)
def is_adding_options(state: AccountState) -> bool:
    is_any = False
    for k in range(len(state.options.targets)):
        is_any = is_any or is_adding(state, k)
    return bool(is_any)


@of_options(returns=(0.0, 0.0))
def sum_premiums(terms: Terms, state: AccountState) -> tuple[float, float]:
    """Return what orders pay in fees and closings, and the premiums that can be cut."""
    fixed, paid = 0.0, 0.0
    for k in range(len(state.options.targets)):
        own = state.options
        if own.added[k] != 0.0:
            fee = compute_option_fee(terms, state, k, own.prices[k])
            closed = abs(own.kept[k] - own.positions.quantities[k])
            if own.added[k] > 0.0:
                fixed += closed * (own.prices[k] + fee)
                paid += own.added[k] * (own.prices[k] + fee)
            else:
                fixed += (closed - own.added[k]) * fee
    return fixed, paid


@of_options(returns=0.0)
def try_options(terms: Terms, state: AccountState, factor: float) -> float:
    """Write positions as after orders times a factor; return what they pay."""
    own, outlay = state.options, 0.0
    for k in range(len(own.targets)):
        own.before[k] = own.positions.quantities[k]
        if is_adding(state, k):
            wanted = own.kept[k] + factor * own.added[k]
            traded, price = wanted - own.positions.quantities[k], own.prices[k]
            fee = compute_option_fee(terms, state, k, price)
            outlay += traded * price + abs(traded) * fee
            own.positions.quantities[k] = wanted
    return outlay


@of_options(returns=None)
def add_options(bar: AccountBar, t: int, factor: float) -> None:
    """Fill orders of options that add, times a factor."""
    own = bar.state.options
    for k in range(len(own.targets)):
        if is_adding(bar.state, k):
            held = own.positions.quantities[k]
            wanted = own.kept[k] + factor * own.added[k]
            own.added[k] = 0.0
            if abs(wanted - held) > TOLERANCE * abs(held):
                enter_option_trade(bar, t, k, wanted, Event.FILL)


@of_options(returns=None)
def stop_options(bar: AccountBar, t: int, event: int) -> None:
    """Close all options where a floor of the equity acts, and log it as an event."""
    own = bar.state.options
    for k in range(len(own.targets)):
        held, half = own.positions.quantities[k], own.half_spreads[k]
        if held != 0.0:
            half = 0.0 if math.isnan(half) else half
            side = -1.0 if held > 0.0 else 1.0
            own.prices[k] = price_by_volatility(bar.terms, bar.state, k, side, half)
            enter_option_trade(bar, t, k, 0.0, event)


def enter_option_trade(bar: AccountBar, t: int, k: int, wanted: float, kind: int) -> None:
    """Trade an option to some contracts at its price, and book premium, fee and slippage."""
    state, ledger = bar.state, bar.ledger
    own, last = state.options, len(ledger) - 1
    traded, price = wanted - own.positions.quantities[k], own.prices[k]
    fee = abs(traded) * compute_option_fee(bar.terms, state, k, price)
    worsening = traded * (price - own.positions.marks[k])
    own.fees[k] += fee
    own.slippage[k] += worsening
    ledger[last].fees += fee
    ledger[last].slippage += worsening
    ledger[last].fills += 1.0 if traded != 0.0 else 0.0
    trade_option(state, ledger, k, wanted, price)
    state.wallet.cash -= fee
    amount = abs(traded) * price
    log_event(bar.log, t, name_option(state, k), kind, price, traded, amount, fee, worsening)


@of_options(returns=None)
def trade_option(
    state: AccountState, ledger: Structs[Money], k: int, wanted: float, price: float
) -> None:
    """Write position, cash, traded notional and average price after a trade of an option."""
    own = state.options
    held = own.positions.quantities[k]
    traded = wanted - held
    state.wallet.cash -= traded * price
    own.traded[k] += abs(traded) * price
    ledger[len(ledger) - 1].traded += abs(traded) * price
    own.positions.quantities[k] = wanted
    if wanted == 0.0:
        own.paid[k] = 0.0
    elif held * wanted <= 0.0:
        own.paid[k] = price
    elif abs(wanted) > abs(held):
        own.paid[k] += (price - own.paid[k]) * (traded / wanted)
