"""The order of one position: its size within the limits, its price, its fees, and its fill.

The words are those of :mod:`.fills` and :mod:`.position`. As there, a rule that lanes of a sweep
call is free of branches on what differs between accounts. ``wanted`` are the signed contracts that
an order is to leave, ``quantity`` those that it leaves after rounding.
"""

from __future__ import annotations

import math

from backtest.account import position as p
from backtest.account.records import (
    Balances,
    CostRates,
    InstrumentRules,
    Position,
    Quote,
    Trade,
)
from backtest.core.kernels import cold, inlined
from backtest.core.units import TOLERANCE, Contracts, Notional, Rate, Value
from backtest.margin import compute_affordable, compute_setting

LARGEST_WORSENING = 0.99
"""The largest share of the price that slippage and impact may take."""
LOT_SLACK = 1e-6
"""Part of a lot or a tick by which a number may miss a whole one: float rounding."""


@inlined
def compute_order_fee(rules: InstrumentRules, quote: Quote) -> float:
    """Return the fixed fee of an order (4.7): that of the venue, and that of the date."""
    if not rules.has_order_fee:
        return 0.0
    return rules.order_fee + quote.order_fee


def compute_counted(
    rules: InstrumentRules, balances: Balances, quote: Quote, equity: float, held: Notional
) -> float:
    """Return the part of the equity, money, that may back an order of an isolated position (4.3).

    Where the venue counts only a share of unrealized profits (``profit_counts``), the rest is
    subtracted. ``held`` is the notional held on the side of the order. If it is negative, the order
    closes the position first: that makes its profit money, which counts in full.
    """
    if not rules.has_profit_share:
        return equity
    uncounted = p.compute_uncounted(rules, balances.position, quote.fill)
    return equity - (uncounted if held > 0.0 else 0.0)


@inlined
def is_outside(rules: InstrumentRules, equity: float, target: Notional, held: Notional) -> bool:
    """Return whether a target is outside of the band around what is held (4.2)."""
    width = rules.band * equity * (1.0 + TOLERANCE)
    # Closing has no band. Free of branches, as lanes call it.
    width = 0.0 if target == 0.0 else width
    return abs(target - held) > width


@inlined
def is_too_small(
    rules: InstrumentRules, contract_notional: float, target: Notional, held: Notional
) -> bool:
    """Return whether an order is under the minimum notional (4.5) for certain; False says nothing.

    A quick test before any limit has cut the order. Limits of leverage and margin only make it
    smaller, and rounding to lots makes it larger by at most one lot.
    """
    # A wallet, impact and volume may leave another size of the order.
    if rules.margin.is_isolated or rules.has_impact or rules.participation < math.inf:
        return False
    # An order that closes has no minimum, so more than a lot must be left.
    lot = rules.lot * contract_notional
    if not min(held, target) > 2.0 * lot:
        return False
    return abs(target - held) + lot < rules.min_notional * (1.0 - 2.0 * TOLERANCE)


@inlined
def find_limit(rules: InstrumentRules, quote: Quote) -> float:
    """Return the largest leverage that the account allows in the bar of a quote.

    That is ``max_leverage`` of the account, or the number of its date where it changes over time.
    """
    if rules.has_limits:
        return quote.limit
    return rules.max_leverage


@inlined
def compute_target(
    rules: InstrumentRules, quote: Quote, equity: float, leverage: float, signal: float
) -> float:
    """Return the target of a leverage and a signal: notional by side (4.1).

    A leverage of NaN gives NaN, but a signal of 0 always 0.
    """
    # Free of branches, as lanes call it. Comparisons leave NaN as it is, min and max would not.
    largest = find_limit(rules, quote)
    level = rules.min_leverage if leverage < rules.min_leverage else leverage
    level = largest if level > largest else level
    target = abs(signal) * level * equity
    return 0.0 if signal == 0.0 else target


@inlined
def compute_cost(rules: InstrumentRules, side: float, worsening: float) -> float:
    """Return what an order costs per unit of notional: the concession of the price and the fee."""
    if rules.margin.is_inverse:
        return (worsening + rules.fee) / (1.0 + side * worsening)
    return worsening + rules.fee * (1.0 + side * worsening)


def compute_outlay(rules: InstrumentRules, quote: Quote, fee_rate: float) -> float:
    """Return the money that an isolated order takes from the wallet per unit of notional (4.3).

    That is the margin that it posts, 1 / venue leverage, and its fee by rate.
    """
    return 1.0 / compute_setting(rules.margin, quote.initial) + fee_rate


def bound_fill_notional(
    rules: InstrumentRules, quote: Quote, side: float, worsening: float
) -> float:
    """Return the largest notional that one contract of an order may have at its fill: money.

    ``worsening``, a fraction, is how much worse than the quote the whole order would fill. If
    limits cut the order, its impact is smaller and it fills at a better price. For a sale of linear
    contracts, or a purchase of inverse ones, a better price is more notional a contract. So both
    prices are tried: with the impact of the whole order, and without any.
    """
    of_whole_order = abs(p.worsen(rules, quote.fill, side, worsening))
    if not rules.has_impact:
        return of_whole_order
    slippage = min(rules.slippage, worsening)
    without_impact = round_worsening(rules, quote.fill, side, slippage)
    return max(of_whole_order, abs(p.worsen(rules, quote.fill, side, without_impact)))


def compute_square_root_impact(factor: float, quote: Quote, notional: Notional) -> float:
    """Return the impact of a notional as a fraction of the price (4.6): Y sigma sqrt(N / volume).

    It is 0 until volatility and volume are known.
    """
    if not (quote.adv > 0.0 and quote.sigma > 0.0):
        return 0.0
    return factor * quote.sigma * math.sqrt(notional / quote.adv)


@inlined
def round_quantity(rules: InstrumentRules, held: float, quote: Quote, wanted: float) -> float:
    """Return the signed contracts after an order: ``wanted``, cut by volume, lots and minimum.

    ``held`` are the signed contracts before the order, ``wanted`` those that all other limits
    allow (accounting 4.4, 4.5). An order that is too small to trade leaves ``held``.

    Sweeps call this with 64 accounts side by side. So there is no ``if`` on what differs between
    accounts: each case is computed, and the one that holds is chosen, and ``&`` stands for ``and``.
    """
    # A venue without lots, minimum or volume limit. A change that is float rounding does not trade.
    change = abs(wanted - held)
    if not rules.has_rounding:
        is_noise = wanted != 0.0 and change <= TOLERANCE * abs(held)
        return held if is_noise else wanted + 0.0

    # 4.4 Participation: the largest change that volume allows, in whole lots.
    largest_change = math.inf
    whole_change = math.inf
    if rules.participation < math.inf:
        largest_change = rules.participation * quote.volume
        whole_change = truncate(rules, largest_change)
    by_volume = held + (whole_change if wanted > held else -whole_change)
    # Less than LOT_SLACK of a lot is float rounding of a closed position.
    by_volume = 0.0 if abs(by_volume) < LOT_SLACK * rules.lot else by_volume

    # 4.5 Lots: the contracts in whole lots, cut toward zero. Adding 0 makes 0 of -0.
    whole = truncate(rules, abs(wanted))
    by_lots = math.copysign(whole, wanted) + 0.0
    # Cutting to lots must not turn an order that adds into one that reduces: where what is held is
    # no whole number of lots, it stays.
    is_adding = (wanted * held > 0.0) & (abs(wanted) >= abs(held))
    by_lots = held if is_adding & (whole < abs(held)) else by_lots
    quantity = by_volume if change > largest_change else by_lots

    # 4.5 The minimum notional. An order under it, or one of float rounding alone, is skipped, but
    # an order that closes the position always fills.
    rounded_change = abs(quantity - held)
    is_noise = rounded_change <= max(LOT_SLACK * rules.lot, TOLERANCE * abs(held))
    is_small = rounded_change * abs(quote.fill) < rules.min_notional * (1.0 - TOLERANCE)
    is_skipped = (quantity != 0.0) & (is_noise | is_small)
    return held if (change == 0.0) | is_skipped else quantity


def truncate(rules: InstrumentRules, size: Contracts) -> float:
    """Return a size cut to whole lots, where there are any."""
    if not rules.lot > 0.0:
        return size
    return floor(size * (1.0 / rules.lot) + LOT_SLACK) * rules.lot


def round_price(rules: InstrumentRules, value: Value, side: float) -> float:
    """Return the contract value of the price rounded to a tick against the side (accounting 4.6).

    A buyer pays the tick above, a seller gets the one below; the lowest price is one tick.
    """
    price = value * (1.0 / rules.margin.size)
    if rules.margin.is_inverse:
        price = -rules.margin.size / value
    ticks = price * (1.0 / rules.tick)
    # Free of branches, as lanes call it: 0 less the floor of the opposite is the ceiling.
    whole = floor(ticks + LOT_SLACK) if side < 0.0 else 0.0 - floor(LOT_SLACK - ticks)
    return p.compute_value_of(rules, max(whole, 1.0) * rules.tick)


def round_worsening(rules: InstrumentRules, value: Value, side: float, worsening: float) -> float:
    """Return by how much a fill is worse than a contract value after rounding to ticks: a fraction.

    ``worsening`` is that before rounding, ``side`` is 1 for a purchase, -1 for a sale. A venue
    without ticks leaves it as it is.
    """
    if not rules.rounds_price:
        return worsening
    filled = round_price(rules, p.worsen(rules, value, side, worsening), side)
    # The prices of inverse contracts are as the inverse of their values.
    price_ratio = filled / value
    if rules.margin.is_inverse:
        price_ratio = value / filled
    return abs(price_ratio - 1.0)


def floor(size: Contracts) -> float:
    """Return the largest whole number up to a size; infinity and NaN stay what they are."""
    return float(math.floor(size)) if math.isfinite(size) else size


@inlined
def fill(
    rules: InstrumentRules, balances: Balances, quote: Quote, wanted: Contracts, fee: Rate
) -> Trade:
    """Return the trade of a market order, from what is held to the ``wanted`` signed contracts.

    Volume, lots and minimum notional may leave another quantity (4.4, 4.5). It fills at
    ``quote.fill``, worsened by slippage and impact. ``fee`` is the rate of the fee. Writes nothing.
    """
    held = balances.position.quantity
    quantity = round_quantity(rules, held, quote, wanted)

    # Only what is filled moves the price.
    impact = 0.0
    if rules.has_impact:
        notional = abs(quantity - held) * abs(quote.fill)
        impact = compute_square_root_impact(rules.impact, quote, notional)

    rates = CostRates(slippage=rules.slippage, impact=impact, fee=fee)
    return trade(rules, balances, quote.fill, quantity, rates, quote, is_order=True)


@inlined
def trade(
    rules: InstrumentRules,
    balances: Balances,
    value: Value,
    quantity: Contracts,
    rates: CostRates,
    quote: Quote,
    is_order: bool,
) -> Trade:
    """Return the trade to ``quantity`` signed contracts at a contract value; writes nothing.

    Slippage and impact of ``rates`` worsen the price (4.6); only orders (``is_order``) are rounded
    to ticks. Then fees are charged (4.7). A change of 0 does nothing and costs nothing. Lanes of a
    sweep (64 accounts side by side) call this, so it has no branch on what differs between
    accounts.
    """
    position = balances.position
    change = quantity - position.quantity
    marked = value if change != 0.0 else position.marked
    side = 1.0 if change > 0.0 else -1.0

    # 4.6 The price, and what it costs beyond the value: by impact its part, the rest is slippage.
    impact = rates.impact
    worsening = rates.slippage + impact
    filled = p.worsen(rules, value, side, min(worsening, LARGEST_WORSENING))
    price_cost = change * (filled - value)
    impact_cost = price_cost * (impact / worsening) if impact > 0.0 else 0.0
    if rules.rounds_price:
        filled = round_price(rules, filled, side) if is_order else filled
        price_cost = change * (filled - value)

    # 4.7 The fee by rate, and the fixed one.
    fee = rates.fee * abs(change) * abs(filled)
    if rules.has_order_fee:
        fee += compute_order_fee(rules, quote) if change != 0.0 else 0.0

    # What is left: cash pays for a cross position in full, for an isolated one its margin.
    entry = p.compute_entry(position, quantity, filled)
    if rules.margin.is_isolated:
        cash, margin = move_margin(rules, balances, quantity, filled, quote.initial)
    else:
        cash = balances.cash - change * filled
        margin = 0.0
    after = Balances(cash, Position(quantity, entry, margin, marked))
    return Trade(
        balances=p.charge(rules, after, fee),
        price_pnl=position.quantity * (marked - position.marked),
        fee=fee,
        slippage=price_cost - impact_cost,
        impact=impact_cost,
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
    """Return the cash and the posted margin after an isolated trade (accounting 3): money.

    The trade leads to ``quantity`` signed contracts, ``filled`` is the contract value at which it
    filled, ``multiplier`` that of initial margin. What closes returns its share of margin and
    profit to the cash; what opens posts its initial margin from it. Lanes of a sweep (64 accounts
    side by side) call this, so it has no branch on what differs between accounts: both parts are
    computed, and are 0 where nothing closes or opens.
    """
    position = balances.position
    held = position.quantity
    # Contracts, without sign, that the trade neither closes nor opens; a flip leaves none.
    size_left = min(abs(quantity), abs(held)) if held * quantity > 0.0 else 0.0

    # The part that closes. What it releases may be negative: a loss beyond its margin. Where
    # nothing is held, 1 stands in for a divisor of 0.
    is_closing = abs(held) > size_left
    closed_share = 1.0 - size_left / (abs(held) if held != 0.0 else 1.0)
    released = closed_share * (position.margin + p.compute_profit(position, filled))
    released = released if is_closing else 0.0
    margin_left = position.margin * (1.0 - closed_share) if size_left > 0.0 else 0.0
    margin_left = margin_left if is_closing else position.margin

    # The part that opens.
    margin_posted = (abs(quantity) - size_left) * abs(filled)
    margin_posted *= 1.0 / compute_setting(rules.margin, multiplier)
    return (balances.cash + released) - margin_posted, margin_left + margin_posted


@cold
def reduce_to_ratio(
    rules: InstrumentRules, balances: Balances, quote: Quote, ratio: float
) -> Trade:
    """Return the trade that reduces an isolated position until its margin ratio is ``ratio``.

    The ratio is maintenance margin / backing. The trade keeps the largest number q of contracts
    with::

        requirement(q) <= ratio * (backing_of_none + cost_of_one * q)

    ``backing_of_none`` is what backs the position after all of it is closed, fees paid. Each
    contract that is kept saves the cost of closing it, ``cost_of_one``. :func:`.compute_affordable`
    solves this for q, with both terms multiplied by the ratio. Writes nothing.
    """
    position = balances.position
    contract_notional = abs(quote.fill)
    side = p.find_side(position)
    size = abs(position.quantity)
    # The order is on the other side. Its cost per unit of notional: worsening and fee by rate.
    worsening = round_worsening(rules, quote.fill, -side, rules.slippage)
    cost = compute_cost(rules, -side, worsening)

    backing_now = p.compute_backing(rules, balances, quote.fill)
    backing_of_none = backing_now - cost * size * contract_notional
    backing_of_none -= compute_order_fee(rules, quote)
    # Some venues compute the requirement from the notional at the entry.
    valued_at = contract_notional
    if rules.margin.is_valued_at_entry:
        valued_at = abs(position.entry)
    size_kept = compute_affordable(
        rules.margin,
        size=size,
        value=valued_at,
        cost=ratio * cost * contract_notional,
        spared=ratio * backing_of_none,
        multiplier=quote.multiplier,
    )
    return fill(rules, balances, quote, side * max(size_kept, 0.0), rules.fee)
