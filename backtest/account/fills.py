"""Trades: the change of a position at a worsened price, with its fee and its margin."""

from __future__ import annotations

from backtest.account.account_records import Balances, InstrumentRules, Position, Quote, Trade
from backtest.account.balances import charge, compute_backing, make_balances
from backtest.account.orders import (
    LARGEST_WORSENING,
    compute_cost,
    compute_impact,
    compute_order_fee,
    round_price,
    round_quantity,
    round_worsening,
)
from backtest.account.position import compute_entry, compute_profit, is_valued_at_entry, worsen
from backtest.venue import compute_affordable, compute_setting


def fill(
    rules: InstrumentRules, balances: Balances, quote: Quote, wanted: float, fee: float
) -> Trade:
    held = balances.positions[0].quantity
    quantity = round_quantity(rules, held, quote, wanted)
    impact = 0.0
    if rules.has_impact is not None:
        impact = compute_impact(rules, quote, abs(quantity - held) * abs(quote.fill))
    return trade(rules, balances, quote.fill, quantity, rules.slippage, impact, fee, quote, True)


def stop_out(rules: InstrumentRules, balances: Balances, value: float, quote: Quote) -> Trade:
    return trade(rules, balances, value, 0.0, rules.slippage, 0.0, rules.taker, quote, True)


def trade(
    rules: InstrumentRules,
    balances: Balances,
    value: float,
    quantity: float,
    slippage: float,
    impact: float,
    fee_rate: float,
    quote: Quote,
    is_order: bool,
) -> Trade:
    position = balances.positions[0]
    change = quantity - position.quantity
    marked = value if change != 0.0 else position.value
    side = 1.0 if change > 0.0 else -1.0
    worsening = slippage + impact
    filled = worsen(rules, value, side, min(worsening, LARGEST_WORSENING))
    cost = change * (filled - value)
    impacted = cost * (impact / worsening) if impact > 0.0 else 0.0
    if rules.rounds_price is not None:
        filled = round_price(rules, filled, side) if is_order else filled
        cost = change * (filled - value)
    fee = fee_rate * abs(change) * abs(filled)
    if rules.has_order_fee is not None:
        fee += compute_order_fee(rules, quote) if change != 0.0 else 0.0
    entry = compute_entry(rules, position, quantity, filled)
    if rules.is_isolated is not None:
        cash, margin = move_margin(rules, balances, quantity, filled, quote.initial)
    else:
        cash, margin = balances.cash - change * filled, 0.0
    after = make_balances(cash, Position(quantity, entry, margin, marked))
    return Trade(
        balances=charge(rules, after, fee),
        price_pnl=position.quantity * (marked - position.value),
        fee=fee,
        slippage=cost - impacted,
        impact=impacted,
        quantity=change,
        value=filled,
    )


def move_margin(
    rules: InstrumentRules, balances: Balances, quantity: float, filled: float, multiplier: float
) -> tuple[float, float]:
    position = balances.positions[0]
    returned, posted, margin = split_margin(rules, position, quantity, filled, multiplier)
    return (balances.cash + returned) - posted, margin


def split_margin(
    rules: InstrumentRules, position: Position, quantity: float, filled: float, multiplier: float
) -> tuple[float, float, float]:
    held, margin = position.quantity, position.margin
    kept = min(abs(quantity), abs(held)) if held * quantity > 0.0 else 0.0
    share = 1.0 - kept / (abs(held) if held != 0.0 else 1.0)
    returned = share * (margin + compute_profit(position, filled))
    left = margin * (1.0 - share) if kept > 0.0 else 0.0
    is_closing = abs(held) > kept
    posted = (abs(quantity) - kept) * abs(filled)
    posted *= 1.0 / compute_setting(rules.margin, multiplier)
    return returned if is_closing else 0.0, posted, (left if is_closing else margin) + posted


def reduce_to_ratio(
    rules: InstrumentRules, balances: Balances, quote: Quote, ratio: float
) -> Trade:
    position, unit = balances.positions[0], abs(quote.fill)
    side = 1.0 if position.quantity > 0.0 else -1.0
    worsening = rules.slippage
    if rules.rounds_price is not None:
        worsening = round_worsening(rules, quote.fill, -side, worsening)
    cost = compute_cost(rules, -side, worsening)
    valued = abs(position.entry) if is_valued_at_entry(rules) else unit
    size = abs(position.quantity)
    spared = compute_backing(rules, balances, quote.fill) - cost * size * unit
    if rules.has_order_fee is not None:
        spared -= compute_order_fee(rules, quote)
    allowed = compute_affordable(
        rules.margin, size, valued, ratio * cost * unit, ratio * spared, quote.multiplier
    )
    done = fill(rules, balances, quote, side * max(allowed, 0.0), rules.fee)
    held = done.balances.positions[0]
    if rules.is_isolated is None or held.quantity == 0.0:
        return done
    freed = done.balances.cash - balances.cash
    kept = Position(held.quantity, held.entry, held.margin + freed, held.value)
    return Trade(
        balances=make_balances(balances.cash, kept),
        price_pnl=done.price_pnl,
        fee=done.fee,
        slippage=done.slippage,
        impact=done.impact,
        quantity=done.quantity,
        value=done.value,
    )
