"""What lanes of several positions do at the opens: funding, and the fills of their decisions.

The fill of one instrument depends on no other while nothing is scaled: targets are computed from
the equity before anything fills. So each instrument is done for all lanes, and only the cash
follows the order of fills. A lane whose increases may have to be scaled is found by
:func:`backtest.sweep.books.book_lane_close.find_odd`, and passes the bar alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from backtest.account import Books, InstrumentRules, Position, Quote
from backtest.account.books import make_books
from backtest.account.fills import fill
from backtest.account.orders import compute_target, is_outside
from backtest.account.portfolio_records import CASH, NUMBERS, BookFeed, Terms
from backtest.sweep.books.book_lane_rows import (
    BAND,
    BEFORE,
    CLOSE,
    COSTS,
    ENTRY,
    FEE,
    FLOW,
    FUNDED,
    IS_ADDING,
    IS_INCREASE,
    IS_LISTED,
    IS_ODD,
    LIMIT,
    MARKED,
    MAX_LEVERAGE,
    MIN_LEVERAGE,
    NEXT_CASH,
    NEXT_ENTRY,
    NEXT_MARKED,
    NEXT_QUANTITY,
    OPEN,
    PROFIT,
    QUANTITY,
    SIZE,
    SLIPPAGE,
    TARGET,
    TRADED,
    VOLUME,
    WANTED,
    WORTH,
    BookSheets,
    spot,
)
from backtest.sweep.lanes.lane_rows import cell
from backtest.sweep.lanes.quick_looks import SLACK
from backtest.venue import MarginRules
from backtest.venue.contract_value import compute_payment, compute_value

if TYPE_CHECKING:
    from backtest.base.units import FloatArray

(
    LOT, MIN_NOTIONAL, RATE_OF_FEE, RATE_OF_SLIPPAGE, PARTICIPATION,
) = (
    NUMBERS.index(name)
    for name in ("lot", "min_notional", "fee", "slippage", "participation")
)  # fmt: skip
CAUTION = 1e-9
"""Share of the cap of gross leverage that lanes leave for rounding."""
GROWTH = 1.5
"""Ratio of the bound of quantities to the largest one that exceeded the last bound."""


class Costs(NamedTuple):
    """The rules of an instrument that its fills read, and that all lanes share."""

    lot: float
    min_notional: float
    fee: float
    slippage: float
    participation: float


def read_costs(terms: Terms, i: int) -> Costs:
    """Return the rules of instrument i that all lanes share."""
    numbers = terms.numbers
    return Costs(
        lot=numbers[LOT, i],
        min_notional=numbers[MIN_NOTIONAL, i],
        fee=numbers[RATE_OF_FEE, i],
        slippage=numbers[RATE_OF_SLIPPAGE, i],
        participation=numbers[PARTICIPATION, i],
    )


def read_rules(
    costs: Costs, position: FloatArray, has_rounding: bool | None, i: int, lane: int
) -> InstrumentRules:
    """Return the rules of instrument i for one lane, without those that no lane here has."""
    return InstrumentRules(
        is_inverse=None,
        is_isolated=None,
        has_stop=None,
        has_impact=None,
        has_rounding=has_rounding,
        keeps_entry=True,
        marks_entry=None,
        margin=MarginRules(
            floors=(0.0,),
            caps=(math.inf,),
            rates=(0.0,),
            amounts=(0.0,),
            leverages=(1.0,),
            close_fee=0.0,
            taker=0.0,
            size=1.0,
            setting=0.0,
            is_inverse=False,
            is_isolated=False,
            is_valued_at_entry=False,
            multiplier=1.0,
            initial_multiplier=1.0,
        ),
        lot=costs.lot,
        min_notional=costs.min_notional,
        fee=costs.fee,
        taker=0.0,
        slippage=costs.slippage,
        impact=0.0,
        participation=costs.participation,
        liquidation_mode=0,
        liquidation_fee=0.0,
        liquidation_slippage=0.0,
        step=0.0,
        full_below=0.0,
        is_funded_by_wallet=False,
        min_leverage=position[spot(i, MIN_LEVERAGE, lane)],
        max_leverage=position[spot(i, MAX_LEVERAGE, lane)],
        band=position[spot(i, BAND, lane)],
        stop_loss=0.0,
        has_limits=None,
        rounds_price=None,
        tick=0.0,
        has_auto_margin=None,
        has_profit_share=None,
        has_order_fee=None,
        has_liquidation_impact=None,
        profit_share=1.0,
        order_fee=0.0,
        liquidation_impact=0.0,
        fills_late=None,
        fills_early=None,
        has_exits=None,
        take_profit=0.0,
        trailing_stop=0.0,
        equity_stop=0.0,
        is_stop_distance=None,
        is_profit_distance=None,
        is_trail_distance=None,
        full_below_health=0.0,
    )


def quote_open(prices: FloatArray, i: int) -> Quote:
    """Return what a fill at the open of instrument i reads of its bar."""
    value = prices[OPEN, i]
    return Quote(
        open=value,
        low=value,
        high=value,
        mark_open=value,
        mark_low=value,
        mark_high=value,
        mark_close=value,
        multiplier=1.0,
        volume=prices[VOLUME, i],
        sigma=0.0,
        adv=0.0,
        initial=1.0,
        limit=math.inf,
        order_fee=0.0,
        fill=value,
        stop_scale=0.0,
        profit_scale=0.0,
        trail_scale=0.0,
    )


# ------------------------------------------------------------------------------------ funding


def pay_lanes(
    terms: Terms, feed: BookFeed, sheets: BookSheets, event: int, t: int, is_open: int
) -> int:
    """Pay the bar's next funding events of one kind in all lanes; return the event after them."""
    while event < len(feed.funding_bar) and feed.funding_bar[event] == t:
        if feed.funding_is_open[event] != is_open:
            break
        i, brackets = feed.funding_instrument[event], terms.rules.brackets
        value = compute_value(brackets.sizes[i], brackets.are_inverse[i], feed.mark_open[t, i])
        if not math.isnan(feed.funding_price[event]):
            price = feed.funding_price[event]
            value = compute_value(brackets.sizes[i], brackets.are_inverse[i], price)
        rate = feed.funding_rate[event]
        if sheets.prices[IS_LISTED, i] != 0.0:
            pay_event(
                sheets, QUANTITY if sheets.is_traded[i] == 0 else NEXT_QUANTITY, value, rate, i
            )
        event += 1
    return event


def pay_event(sheets: BookSheets, row: int, value: float, rate: float, i: int) -> None:
    """Pay one funding event in all lanes; ``row`` has the quantities."""
    count = len(sheets.left_at)
    account, position = sheets.account, sheets.position
    for lane in range(count):
        paid = compute_payment(position[spot(i, row, lane)], value, rate)
        account[cell(NEXT_CASH, lane)] -= paid
        position[spot(i, FUNDED, lane)] += paid


# -------------------------------------------------------------------------------------- fills


def is_any_asking(sheets: BookSheets, i: int) -> bool:
    """Return whether a decision of any lane may trade instrument i at its open."""
    count = len(sheets.left_at)
    account, position = sheets.account, sheets.position
    quote, signal = quote_open(sheets.prices, i), sheets.signal[i]
    scale = (1.0 if signal > 0.0 else -1.0) * abs(quote.fill)
    nothing = Costs(0.0, 0.0, 0.0, 0.0, 0.0)
    found = False
    for lane in range(count):
        rules = read_rules(nothing, position, None, i, lane)
        equity = account[cell(WORTH, lane)]
        target = position[spot(i, TARGET, lane)]
        reach = compute_target(rules, quote, equity, target, signal)
        held = position[spot(i, QUANTITY, lane)] * scale
        found |= is_outside(rules, equity, reach, held)
    return found


def find_capped(terms: Terms, sheets: BookSheets) -> None:
    """Mark lanes for the fallback if the cap of gross leverage may scale their targets.

    It does not if positions and targets fit into it whichever of the two is larger.
    """
    count, most = len(sheets.left_at), terms.max_gross_leverage * (1.0 - CAUTION)
    account = sheets.account
    if most == math.inf:
        return
    for lane in range(count):
        account[cell(WANTED, lane)] = 0.0
    for i in range(len(sheets.signal)):
        if sheets.prices[IS_LISTED, i] != 0.0:
            add_wanted(sheets, i)
    for lane in range(count):
        is_capped = account[cell(WANTED, lane)] > most * account[cell(WORTH, lane)]
        account[cell(IS_ODD, lane)] = 1.0 if is_capped else account[cell(IS_ODD, lane)]


def add_wanted(sheets: BookSheets, i: int) -> None:
    """Add the larger of position and target of instrument i to the notional that lanes want."""
    count = len(sheets.left_at)
    account, position = sheets.account, sheets.position
    quote, signal = quote_open(sheets.prices, i), sheets.signal[i]
    nothing, is_open = Costs(0.0, 0.0, 0.0, 0.0, 0.0), sheets.is_pending[i] == 1
    for lane in range(count):
        rules = read_rules(nothing, position, None, i, lane)
        equity = account[cell(WORTH, lane)]
        held = abs(position[spot(i, QUANTITY, lane)]) * abs(quote.fill)
        reach = compute_target(rules, quote, equity, position[spot(i, TARGET, lane)], signal)
        account[cell(WANTED, lane)] += reach if is_open & (reach > held) else held


def fill_lanes(costs: Costs, sheets: BookSheets, has_rounding: bool | None, i: int) -> bool:
    """Fill the decisions for instrument i in all lanes; return whether a bound was exceeded."""
    count = len(sheets.left_at)
    account, position, prices = sheets.account, sheets.position, sheets.prices
    quote, signal, before = quote_open(prices, i), sheets.signal[i], prices[BEFORE, i]
    unit, close, limit, most = abs(quote.fill), prices[CLOSE, i], prices[LIMIT, i], sheets.reach[i]
    side = 1.0 if signal > 0.0 else -1.0
    is_over = False
    for lane in range(count):
        rules = read_rules(costs, position, has_rounding, i, lane)
        equity = account[cell(WORTH, lane)]
        quantity = position[spot(i, QUANTITY, lane)]
        held = quantity * (side * unit)
        reach = compute_target(rules, quote, equity, position[spot(i, TARGET, lane)], signal)
        is_asking = is_outside(rules, equity, reach, held) & (equity > 0.0)
        kept = max(held, 0.0)
        is_adding = is_asking & (reach > kept)
        added = max(min(reach, limit) - kept, 0.0)
        size = kept + added if is_adding else reach
        is_kept = is_adding & (size <= held) & (held > 0.0)
        wanted = side * size * (1.0 / unit) + 0.0
        wanted = wanted if is_asking & (not is_kept) else quantity
        own = Position(quantity, position[spot(i, ENTRY, lane)], 0.0, before)
        done = fill(rules, make_books(0.0, own), quote, wanted, rules.fee)
        after: Books = done.books
        moved = after.positions[0]
        is_odd = is_asking & (reach == math.inf)
        account[cell(IS_ODD, lane)] = 1.0 if is_odd else account[cell(IS_ODD, lane)]
        account[cell(IS_ADDING, lane)] = 1.0 if is_adding else account[cell(IS_ADDING, lane)]
        cost = (rules.slippage + rules.fee * (1.0 + rules.slippage)) * SLACK
        cost *= abs(size - held) if is_adding else 0.0
        account[cell(COSTS, lane)] += max(cost, done.slippage + done.fee)
        reached = max(size if is_adding else 0.0, abs(moved.quantity) * unit)
        position[spot(i, SIZE, lane)] = reached
        is_over |= reached > most * unit
        position[spot(i, NEXT_QUANTITY, lane)] = moved.quantity
        position[spot(i, NEXT_ENTRY, lane)] = moved.entry
        position[spot(i, IS_INCREASE, lane)] = 1.0 if is_adding else 0.0
        position[spot(i, FLOW, lane)] = done.quantity * done.value
        position[spot(i, FEE, lane)] = done.fee
        position[spot(i, SLIPPAGE, lane)] = done.slippage
        position[spot(i, TRADED, lane)] = abs(done.quantity) * abs(done.value)
        marked = position[spot(i, MARKED, lane)]
        position[spot(i, NEXT_MARKED, lane)] = moved.value if done.quantity != 0.0 else marked
        pnl = moved.quantity * (close - moved.value)
        position[spot(i, PROFIT, lane)] = (0.0 + done.price_pnl) + pnl
    return is_over


def raise_reach(sheets: BookSheets, i: int) -> None:
    """Set the bound of the quantities of instrument i over the largest one after its fill."""
    count = len(sheets.left_at)
    position, unit, most = sheets.position, abs(sheets.prices[OPEN, i]), 0.0
    for lane in range(count):
        size = position[spot(i, SIZE, lane)]
        most = max(most, size) if size < math.inf else most
    sheets.reach[i] = max(sheets.reach[i], GROWTH * (most / unit))


def move_cash(sheets: BookSheets, is_increase: bool, i: int) -> None:
    """Take what the reductions, or the increases, of instrument i cost from the cash of lanes."""
    count = len(sheets.left_at)
    account, position = sheets.account, sheets.position
    wanted = 1.0 if is_increase else 0.0
    for lane in range(count):
        is_mine = position[spot(i, IS_INCREASE, lane)] == wanted
        flow = position[spot(i, FLOW, lane)] if is_mine else 0.0
        fee = position[spot(i, FEE, lane)] if is_mine else 0.0
        account[cell(NEXT_CASH, lane)] = (account[cell(NEXT_CASH, lane)] - flow) - fee


def move_all_cash(sheets: BookSheets, n: int) -> None:
    """Take what the fills cost from the cash of lanes: reductions first, in the order given."""
    for i in range(n):
        if sheets.is_traded[i] != 0:
            move_cash(sheets, False, i)
    for i in range(n):
        if sheets.is_traded[i] != 0:
            move_cash(sheets, True, i)


def begin_lanes(sheets: BookSheets, n: int, has_funding: bool) -> None:
    """Empty the room of lanes for one bar."""
    count = len(sheets.left_at)
    account, position = sheets.account, sheets.position
    for lane in range(count):
        account[cell(NEXT_CASH, lane)] = account[cell(CASH, lane)]
        account[cell(IS_ODD, lane)] = 0.0
        account[cell(IS_ADDING, lane)] = 0.0
        account[cell(COSTS, lane)] = 0.0
    for i in range(n):
        sheets.is_traded[i] = 0
        if has_funding:
            for lane in range(count):
                position[spot(i, FUNDED, lane)] = 0.0


def value_opens(sheets: BookSheets, n: int) -> None:
    """Write the equity of lanes at the opens."""
    count = len(sheets.left_at)
    account, position, prices = sheets.account, sheets.position, sheets.prices
    for lane in range(count):
        account[cell(WORTH, lane)] = account[cell(NEXT_CASH, lane)]
    for i in range(n):
        if prices[IS_LISTED, i] != 0.0:
            value = prices[OPEN, i]
            for lane in range(count):
                account[cell(WORTH, lane)] += position[spot(i, QUANTITY, lane)] * value
