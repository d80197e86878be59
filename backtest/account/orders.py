"""The order of one position: its size within the limits, its price, its fees, and its fill."""

from __future__ import annotations

import math

from backtest.account import position as p
from backtest.account.records import Balances, InstrumentRules, Position, Quote, Trade
from backtest.core.kernels import cold, inlined
from backtest.core.units import TOLERANCE, Contracts, Notional, Rate, Value
from backtest.margin import compute_affordable, compute_setting

LARGEST_WORSENING = 0.99
"""The largest share of the price that slippage and impact may take."""


@inlined
def compute_order_fee(rules: InstrumentRules, quote: Quote) -> float:
    if not rules.has_order_fee:
        return 0.0
    return rules.order_fee + quote.order_fee


def compute_counted(
    rules: InstrumentRules, balances: Balances, quote: Quote, equity: float, held: Notional
) -> float:
    if not rules.has_profit_share:
        return equity
    uncounted = p.compute_uncounted(rules, balances.position, quote.fill)
    return equity - (uncounted if held > 0.0 else 0.0)


@inlined
def is_outside(rules: InstrumentRules, equity: float, reach: Notional, held: Notional) -> bool:
    width = rules.band * equity * (1.0 + TOLERANCE)
    width = 0.0 if reach == 0.0 else width
    return abs(reach - held) > width


@inlined
def is_too_small(rules: InstrumentRules, unit: float, reach: Notional, held: Notional) -> bool:
    """Return whether an order surely stays under the minimum notional, whatever limits it.

    ``unit`` is the notional of a contract. Limits leave less of an order, or a lot more. One that
    closes has no minimum, so more than a lot must be left.
    """
    lot = rules.lot * unit
    is_simple = not rules.margin.is_isolated and not rules.has_impact
    is_simple = is_simple and rules.participation == math.inf and min(held, reach) > 2.0 * lot
    return is_simple and abs(reach - held) + lot < rules.min_notional * (1.0 - 2.0 * TOLERANCE)


@inlined
def find_limit(rules: InstrumentRules, quote: Quote) -> float:
    if rules.has_limits:
        return quote.limit
    return rules.max_leverage


@inlined
def compute_target(
    rules: InstrumentRules, quote: Quote, equity: float, leverage: float, signal: float
) -> float:
    most = find_limit(rules, quote)
    level = rules.min_leverage if leverage < rules.min_leverage else leverage
    level = most if level > most else level  # NaN stays NaN
    reach = abs(signal) * level * equity
    return 0.0 if signal == 0.0 else reach


@inlined
def compute_cost(rules: InstrumentRules, side: float, worsening: float) -> float:
    """Return what an order costs per unit of notional: the concession of the price and the fee."""
    if rules.margin.is_inverse:
        return (worsening + rules.fee) / (1.0 + side * worsening)
    return worsening + rules.fee * (1.0 + side * worsening)


def bound_unit(rules: InstrumentRules, quote: Quote, side: float, worsening: float) -> float:
    """Return the most notional of a contract that an order has at its fill, however it is cut.

    ``worsening`` is that of the whole order. One that is cut has less impact, so a sale of linear
    contracts, or a purchase of inverse ones, has more notional by contract.
    """
    unit = abs(p.worsen(rules, quote.fill, side, worsening))
    if not rules.has_impact:
        return unit
    least = round_worsening(rules, quote.fill, side, min(rules.slippage, worsening))
    return max(unit, abs(p.worsen(rules, quote.fill, side, least)))


def compute_square_root_impact(factor: float, quote: Quote, notional: Notional) -> float:
    if not (quote.adv > 0.0 and quote.sigma > 0.0):
        return 0.0
    return factor * quote.sigma * math.sqrt(notional / quote.adv)


@inlined
def round_quantity(rules: InstrumentRules, held: float, quote: Quote, wanted: float) -> float:
    """Return the contracts to hold after participation, lots and minimum notional (4.4, 4.5)."""
    change = abs(wanted - held)
    if not rules.has_rounding:
        return held if wanted != 0.0 and change <= TOLERANCE * abs(held) else wanted + 0.0
    most, part = math.inf, math.inf
    if rules.participation < math.inf:
        most = rules.participation * quote.volume
        part = truncate(rules, most)
    limited = held + (part if wanted > held else -part)
    limited = 0.0 if abs(limited) < 1e-6 * rules.lot else limited
    whole = truncate(rules, abs(wanted))
    is_adding = (wanted * held > 0.0) & (abs(wanted) >= abs(held))
    rounded = math.copysign(whole, wanted) + 0.0  # no -0
    # less than a lot to add to an odd position is none
    rounded = held if is_adding & (whole < abs(held)) else rounded
    is_same = change == 0.0
    wanted = limited if change > most else rounded
    change = abs(wanted - held)
    is_dust = change <= max(1e-6 * rules.lot, TOLERANCE * abs(held))
    is_small = change * abs(quote.fill) < rules.min_notional * (1.0 - TOLERANCE)
    return held if is_same | ((wanted != 0.0) & (is_dust | is_small)) else wanted


def truncate(rules: InstrumentRules, size: Contracts) -> float:
    return floor(size * (1.0 / rules.lot) + 1e-6) * rules.lot if rules.lot > 0.0 else size


def round_price(rules: InstrumentRules, value: Value, side: float) -> float:
    """Return the value u of the price rounded to a tick against the side (accounting 4.6)."""
    price = value * (1.0 / rules.margin.size)
    if rules.margin.is_inverse:
        price = -rules.margin.size / value
    steps = price * (1.0 / rules.tick)
    whole = floor(steps + 1e-6) if side < 0.0 else 0.0 - floor(1e-6 - steps)
    return p.compute_value_of(rules, max(whole, 1.0) * rules.tick)


def round_worsening(rules: InstrumentRules, value: Value, side: float, worsening: float) -> float:
    """Return the worsening from u to the price of a fill, rounded if prices are, as a fraction."""
    if not rules.rounds_price:
        return worsening
    filled = round_price(rules, p.worsen(rules, value, side, worsening), side)
    return abs((value / filled if rules.margin.is_inverse else filled / value) - 1.0)


def floor(size: Contracts) -> float:
    return float(math.floor(size)) if math.isfinite(size) else size


@inlined
def fill(
    rules: InstrumentRules, balances: Balances, quote: Quote, wanted: Contracts, fee: Rate
) -> Trade:
    """Trade to a rounded quantity at the fill of the quote, worsened by slippage and impact."""
    held = balances.position.quantity
    quantity = round_quantity(rules, held, quote, wanted)
    impact = 0.0
    if rules.has_impact:
        size = abs(quantity - held) * abs(quote.fill)
        impact = compute_square_root_impact(rules.impact, quote, size)
    return trade(rules, balances, quote.fill, quantity, rules.slippage, impact, fee, quote, True)


@inlined
def trade(
    rules: InstrumentRules,
    balances: Balances,
    value: Value,
    quantity: Contracts,
    slippage: float,
    impact: float,
    fee_rate: Rate,
    quote: Quote,
    is_order: bool,
) -> Trade:
    """Trade to a quantity at u, worsened by slippage and impact; return what it did (4.6, 4.7)."""
    position = balances.position
    change = quantity - position.quantity
    marked = value if change != 0.0 else position.marked
    side = 1.0 if change > 0.0 else -1.0
    worsening = slippage + impact
    filled = p.worsen(rules, value, side, min(worsening, LARGEST_WORSENING))
    cost = change * (filled - value)
    impacted = cost * (impact / worsening) if impact > 0.0 else 0.0
    if rules.rounds_price:
        filled = round_price(rules, filled, side) if is_order else filled
        cost = change * (filled - value)
    fee = fee_rate * abs(change) * abs(filled)
    if rules.has_order_fee:
        fee += compute_order_fee(rules, quote) if change != 0.0 else 0.0
    entry = p.compute_entry(position, quantity, filled)
    if rules.margin.is_isolated:
        cash, margin = move_margin(rules, balances, quantity, filled, quote.initial)
    else:
        cash, margin = balances.cash - change * filled, 0.0
    after = Balances(cash, Position(quantity, entry, margin, marked))
    return Trade(
        balances=p.charge(rules, after, fee),
        price_pnl=position.quantity * (marked - position.marked),
        fee=fee,
        slippage=cost - impacted,
        impact=impacted,
        quantity=change,
        value=filled,
    )


def move_margin(
    rules: InstrumentRules,
    balances: Balances,
    quantity: Contracts,
    filled: Value,
    multiplier: float,
) -> tuple[float, float]:
    """Return the cash and the posted margin after an isolated trade filled at u (accounting 3)."""
    position = balances.position
    held, margin = position.quantity, position.margin
    kept = min(abs(quantity), abs(held)) if held * quantity > 0.0 else 0.0
    share = 1.0 - kept / (abs(held) if held != 0.0 else 1.0)
    returned = share * (margin + p.compute_profit(position, filled))
    left = margin * (1.0 - share) if kept > 0.0 else 0.0
    is_closing = abs(held) > kept
    posted = (abs(quantity) - kept) * abs(filled)
    posted *= 1.0 / compute_setting(rules.margin, multiplier)
    cash = (balances.cash + (returned if is_closing else 0.0)) - posted
    return cash, (left if is_closing else margin) + posted


@cold
def reduce_to_ratio(
    rules: InstrumentRules, balances: Balances, quote: Quote, ratio: float
) -> Trade:
    """Return the reduction that brings the margin ratio of an isolated position to a number."""
    position, unit = balances.position, abs(quote.fill)
    side = p.find_side(position)
    worsening = round_worsening(rules, quote.fill, -side, rules.slippage)
    cost = compute_cost(rules, -side, worsening)
    valued = abs(position.entry) if rules.margin.is_valued_at_entry else unit
    size = abs(position.quantity)
    spared = p.compute_backing(rules, balances, quote.fill) - cost * size * unit
    spared -= compute_order_fee(rules, quote)
    allowed = compute_affordable(
        rules.margin, size, valued, ratio * cost * unit, ratio * spared, quote.multiplier
    )
    return fill(rules, balances, quote, side * max(allowed, 0.0), rules.fee)
