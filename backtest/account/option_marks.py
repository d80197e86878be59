"""Marks of options, their profit, and expiry."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backtest.account.portfolio_ledger import EXPIRED, FEES, PRICE_PNL, note
from backtest.account.portfolio_records import (
    CASH,
    AccountBar,
    AccountState,
    MarketBar,
    MarketFeed,
    Terms,
)
from backtest.venue import compute_option_value, compute_price, fill_option

if TYPE_CHECKING:
    from backtest.base import FloatArray

ENDLESS = 2**63 - 1
"""The latest time in ns."""


def is_needed(state: AccountState, k: int) -> bool:
    held = state.options.positions.quantities[k]
    return bool(held != 0.0 or not math.isnan(state.options.targets[k]))


def find_index(terms: Terms, k: int, values: FloatArray) -> float:
    i, brackets = terms.options.instruments[k], terms.rules.brackets
    return compute_price(brackets.sizes[i], brackets.are_inverse[i], values[i])


def price_options(terms: Terms, state: AccountState, values: FloatArray) -> None:
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


def open_options(
    terms: Terms, feed: MarketFeed, state: AccountState, quotes: MarketBar, t: int
) -> None:
    own, data = state.options, feed.options
    for k in range(len(own.targets)):
        own.profits[k], own.fees[k], own.slippage[k] = 0.0, 0.0, 0.0
        own.losses[k], own.traded[k] = 0.0, 0.0
        own.targets[k] = data.targets[t, k]
        size = data.sizes[k]
        own.asks[k], own.bids[k] = size * data.asks[t, k], size * data.bids[t, k]
        own.has_quotes[k], own.half_spreads[k] = data.has_quotes[t, k], data.half_spreads[t, k]
        own.half_prices[k] = size * data.half_prices[t, k]
        positions, index = own.positions, find_index(terms, k, quotes.mark_open)
        positions.years[k], positions.volatilities[k] = (
            data.years_open[t, k],
            data.volatilities_open[t, k],
        )
        positions.bases[k], positions.rates[k] = data.bases_open[t, k], data.rates[k]
        quoted = size * data.marks_open[t, k]
        if data.expiry_bars[k] == t and data.are_inside[k] == 0:
            positions.years[k], positions.volatilities[k], positions.bases[k] = 0.0, 0.0, 1.0
            index, quoted = data.expiry_spots[k], math.nan
        restart(terms, state, k, index, quoted)


def restart(terms: Terms, state: AccountState, k: int, index: float, quoted: float) -> None:
    own, positions = state.options, state.options.positions
    own.positions.indices[k] = index
    if math.isnan(positions.years[k] + positions.volatilities[k] + positions.bases[k]):
        positions.years[k], positions.volatilities[k], positions.bases[k] = 0.0, 0.0, 1.0
        positions.values[k], positions.marks[k], own.offsets[k] = 0.0, 0.0, 0.0
        return
    if is_needed(state, k):
        fill_option(own.positions, terms.options.rules, k)
    value = compute_option_value(own.positions, k, 1.0, own.positions.volatilities[k])
    own.positions.values[k] = value
    own.offsets[k] = 0.0 if math.isnan(quoted) else quoted - value
    own.positions.marks[k] = value if math.isnan(quoted) else quoted


def close_options(bar: AccountBar, t: int) -> None:
    own, data = bar.state.options, bar.feed.options
    for k in range(len(own.targets)):
        positions = own.positions
        positions.years[k], positions.volatilities[k] = (
            data.years_close[t, k],
            data.volatilities_close[t, k],
        )
        positions.bases[k] = data.bases_close[t, k]
        own.targets[k] = math.nan
        index = find_index(bar.terms, k, bar.quotes.mark_close)
        restart(bar.terms, bar.state, k, index, data.sizes[k] * data.marks_close[t, k])


def book_profits(state: AccountState, ledger: FloatArray) -> None:
    own = state.options
    for k in range(len(own.targets)):
        held = own.positions.quantities[k]
        if held != 0.0:
            profit = held * (own.positions.marks[k] - own.priced[k])
            own.profits[k] += profit
            ledger[PRICE_PNL, ledger.shape[1] - 1] += profit
        own.priced[k] = own.positions.marks[k]


def book_options(terms: Terms, state: AccountState, values: FloatArray, ledger: FloatArray) -> None:
    price_options(terms, state, values)
    book_profits(state, ledger)


def cap_fee_of(rate: float, cap: float, unit: float, price: float, size: float) -> float:
    fee, most = rate * unit * size, cap * price
    return most if most < fee else fee


def find_unit(state: AccountState, k: int) -> float:
    positions = state.options.positions
    return 1.0 if positions.are_coin[k] else float(positions.indices[k])


# ------------------------------------------------------------------------------------- expiry


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
    state, ledger = bar.state, bar.ledger
    own, own_terms, last = state.options, bar.terms.options, ledger.shape[1] - 1
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
    ledger[PRICE_PNL, last] += profit
    ledger[FEES, last] += fee
    state.wallet[CASH] += held * payoff - fee
    release(state, k)
    note(bar.log, t, name_option(state, k), EXPIRED, payoff, -held, abs(held) * payoff, fee)


def release(state: AccountState, k: int) -> None:
    state.options.positions.quantities[k] = 0.0
    state.options.paid[k] = 0.0


def name_option(state: AccountState, k: int) -> int:
    return len(state.margin) + len(state.held.amounts) + k
