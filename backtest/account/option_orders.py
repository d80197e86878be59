"""Orders of options: prices of fills, fees, and how much of each order fills."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backtest.account.ledger import EQUITY_STOPPED, FILL
from backtest.account.option_marks import cap_fee_of, find_unit, name_option
from backtest.account.portfolio_ledger import FEES, SLIPPAGE, TRADED, UNQUOTED, note
from backtest.account.portfolio_records import CASH, IS_OVER, AccountBar, AccountState, Terms
from backtest.base.units import TOLERANCE
from backtest.venue import compute_option_value, is_vega_small

if TYPE_CHECKING:
    from backtest.base import FloatArray


def price_by_volatility(terms: Terms, state: AccountState, k: int, side: float, h: float) -> float:
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


def price_fill(terms: Terms, state: AccountState, k: int, side: float) -> float:
    own = state.options
    if not own.positions.years[k] > 0.0:
        return math.nan
    if own.has_quotes[k] == 1:
        return float(own.asks[k] if side > 0.0 else own.bids[k])
    return price_by_volatility(terms, state, k, side, own.half_spreads[k])


def compute_option_fee(terms: Terms, state: AccountState, k: int, price: float) -> float:
    own, unit = terms.options, find_unit(state, k)
    size = state.options.positions.sizes[k]
    return cap_fee_of(own.fee_rates[k], own.fee_caps[k], unit, price, size)


# -------------------------------------------------------------------------------------- orders


def begin_options(bar: AccountBar, t: int, equity: float) -> None:
    state = bar.state
    own = state.options
    for k in range(len(own.targets)):
        held = own.positions.quantities[k]
        own.kept[k], own.added[k] = held, 0.0
        wanted = 0.0 if state.wallet[IS_OVER] != 0.0 else own.targets[k]
        own.targets[k] = math.nan
        if math.isnan(wanted) or wanted == held or not equity > 0.0:
            continue
        own.prices[k] = price_fill(bar.terms, state, k, 1.0 if wanted > held else -1.0)
        if math.isnan(own.prices[k]):
            note(bar.log, t, name_option(state, k), UNQUOTED, own.positions.marks[k], 0.0, 0.0)
        elif wanted * held >= 0.0 and abs(wanted) < abs(held):
            fill_option_order(bar, t, k, wanted)
            own.kept[k] = wanted
        else:
            own.kept[k] = held if wanted * held > 0.0 else 0.0
            own.added[k] = wanted - own.kept[k]


def is_adding(state: AccountState, k: int) -> bool:
    own = state.options
    return bool(own.added[k] != 0.0 or own.kept[k] != own.positions.quantities[k])


def is_adding_options(state: AccountState) -> bool:
    found = False
    for k in range(len(state.options.targets)):
        found = found or is_adding(state, k)
    return bool(found)


def compute_outlay(terms: Terms, state: AccountState, k: int, wanted: float) -> float:
    own = state.options
    traded, price = wanted - own.positions.quantities[k], own.prices[k]
    return float(traded * price + abs(traded) * compute_option_fee(terms, state, k, price))


def sum_premiums(terms: Terms, state: AccountState) -> tuple[float, float]:
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


def cut_premiums(state: AccountState, factor: float) -> None:
    own = state.options
    for k in range(len(own.targets)):
        if own.added[k] > 0.0:
            own.added[k] *= factor


def try_options(terms: Terms, state: AccountState, factor: float) -> float:
    own, outlay = state.options, 0.0
    for k in range(len(own.targets)):
        own.before[k] = own.positions.quantities[k]
        if is_adding(state, k):
            wanted = own.kept[k] + factor * own.added[k]
            outlay += compute_outlay(terms, state, k, wanted)
            own.positions.quantities[k] = wanted
    return outlay


def end_trial(state: AccountState) -> None:
    own = state.options
    for k in range(len(own.targets)):
        own.positions.quantities[k] = own.before[k]


def add_options(bar: AccountBar, t: int, factor: float) -> None:
    own = bar.state.options
    for k in range(len(own.targets)):
        if is_adding(bar.state, k):
            held = own.positions.quantities[k]
            wanted = own.kept[k] + factor * own.added[k]
            own.added[k] = 0.0
            if abs(wanted - held) > TOLERANCE * abs(held):
                fill_option_order(bar, t, k, wanted)


# --------------------------------------------------------------------------------------- fills


def fill_option_order(bar: AccountBar, t: int, k: int, wanted: float) -> None:
    enter_option_trade(bar, t, k, wanted, FILL)


def stop_options(bar: AccountBar, t: int) -> None:
    own = bar.state.options
    for k in range(len(own.targets)):
        held, half = own.positions.quantities[k], own.half_spreads[k]
        if held != 0.0:
            half = 0.0 if math.isnan(half) else half
            side = -1.0 if held > 0.0 else 1.0
            own.prices[k] = price_by_volatility(bar.terms, bar.state, k, side, half)
            enter_option_trade(bar, t, k, 0.0, EQUITY_STOPPED)


def enter_option_trade(bar: AccountBar, t: int, k: int, wanted: float, kind: int) -> None:
    state, ledger = bar.state, bar.ledger
    own, last = state.options, ledger.shape[1] - 1
    traded, price = wanted - own.positions.quantities[k], own.prices[k]
    fee = abs(traded) * compute_option_fee(bar.terms, state, k, price)
    worsening = traded * (price - own.positions.marks[k])
    own.fees[k] += fee
    own.slippage[k] += worsening
    ledger[FEES, last] += fee
    ledger[SLIPPAGE, last] += worsening
    trade_option(state, ledger, k, wanted, price)
    state.wallet[CASH] -= fee
    amount = abs(traded) * price
    note(bar.log, t, name_option(state, k), kind, price, traded, amount, fee, worsening)


def trade_option(
    state: AccountState, ledger: FloatArray, k: int, wanted: float, price: float
) -> None:
    own = state.options
    held = own.positions.quantities[k]
    traded = wanted - held
    state.wallet[CASH] -= traded * price
    own.traded[k] += abs(traded) * price
    ledger[TRADED, ledger.shape[1] - 1] += abs(traded) * price
    own.positions.quantities[k] = wanted
    if wanted == 0.0:
        own.paid[k] = 0.0
    elif held * wanted <= 0.0:
        own.paid[k] = price
    elif abs(wanted) > abs(held):
        own.paid[k] += (price - own.paid[k]) * (traded / wanted)
