"""What lanes of several positions do at the opens: funding, and the fills of their decisions.

The fill of one instrument depends on no other while nothing is scaled: targets are computed from
the equity before anything fills. So each instrument is done for all lanes, and only the cash
follows the order of fills. A lane whose increases may have to be scaled is found by
:func:`backtest.sweep.books.book_lane_close.find_odd`, and passes the bar alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from backtest.account import InstrumentRules, Position, Quote
from backtest.account.account_records import Trade
from backtest.account.books import make_books
from backtest.account.fills import fill, split_margin
from backtest.account.orders import (
    LARGEST_WORSENING,
    compute_square_root_impact,
    compute_target,
    is_outside,
)
from backtest.account.portfolio_records import CASH, NUMBERS, BookFeed, Terms
from backtest.sweep.books.book_lane_rows import (
    ADV,
    BACKED,
    BAND,
    BASE,
    BEFORE,
    CLOSE,
    COSTS,
    ENTRY,
    FEE,
    FLOW,
    FUNDED,
    IMPACT,
    INITIAL_RATE,
    INITIAL_X,
    IS_ADDING,
    IS_INCREASE,
    IS_LISTED,
    IS_ODD,
    LAST_HIGH,
    LAST_LOW,
    LENT,
    LIMIT,
    MARGIN,
    MARK_OPEN,
    MARKED,
    MAX_LEVERAGE,
    MIN_LEVERAGE,
    NEXT_CASH,
    NEXT_ENTRY,
    NEXT_MARGIN,
    NEXT_MARKED,
    NEXT_QUANTITY,
    OPEN,
    PAID_INTEREST,
    POOL_WORTH,
    POSTED,
    PROFIT,
    PROFIT_SCALE,
    QUANTITY,
    RETURNED,
    SIGMA,
    SIZE,
    SLIPPAGE,
    STOP_SCALE,
    TAKEN,
    TARGET,
    TRADED,
    TRAIL_SCALE,
    VOLUME,
    WANTED,
    WORTH,
    BookSheets,
    spot,
    widen,
)
from backtest.sweep.lanes.lane_rows import cell
from backtest.sweep.lanes.quick_looks import SLACK
from backtest.venue import MarginRules
from backtest.venue.contract_value import compute_payment, compute_value
from backtest.venue.requirement import compute_setting

if TYPE_CHECKING:
    from backtest.base.units import FloatArray

(
    LOT, MIN_NOTIONAL, RATE_OF_FEE, RATE_OF_SLIPPAGE, RATE_OF_IMPACT, PARTICIPATION,
) = (
    NUMBERS.index(name)
    for name in ("lot", "min_notional", "fee", "slippage", "impact", "participation")
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
    impact: float
    participation: float
    setting: float
    first_leverage: float


class FillKind(NamedTuple):
    """What a kind of instrument has, each True or None; the fill is compiled for each kind."""

    has_rounding: bool | None
    has_impact: bool | None
    is_inverse: bool | None
    is_isolated: bool | None


NO_COSTS = Costs(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def read_costs(terms: Terms, i: int) -> Costs:
    """Return the rules of instrument i that all lanes share."""
    numbers, brackets = terms.numbers, terms.rules.brackets
    return Costs(
        lot=numbers[LOT, i],
        min_notional=numbers[MIN_NOTIONAL, i],
        fee=numbers[RATE_OF_FEE, i],
        slippage=numbers[RATE_OF_SLIPPAGE, i],
        impact=numbers[RATE_OF_IMPACT, i],
        participation=numbers[PARTICIPATION, i],
        setting=brackets.settings[i],
        first_leverage=brackets.leverages[i, 0],
    )


def read_rules(
    costs: Costs, position: FloatArray, kind: FillKind, i: int, lane: int
) -> InstrumentRules:
    """Return the rules of instrument i for one lane, without those that no lane here has."""
    return InstrumentRules(
        is_inverse=kind.is_inverse,
        is_isolated=kind.is_isolated,
        has_stop=None,
        has_impact=kind.has_impact,
        has_rounding=kind.has_rounding,
        keeps_entry=True,
        marks_entry=None,
        margin=MarginRules(
            floors=(0.0,),
            caps=(math.inf,),
            rates=(0.0,),
            amounts=(0.0,),
            leverages=(costs.first_leverage,),
            close_fee=0.0,
            taker=0.0,
            size=1.0,
            setting=costs.setting,
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
        impact=costs.impact,
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
    """Return what fills at the open of instrument i, and its stops, read of its bar."""
    value = prices[OPEN, i]
    return Quote(
        open=value,
        low=prices[LAST_LOW, i],
        high=prices[LAST_HIGH, i],
        mark_open=value,
        mark_low=value,
        mark_high=value,
        mark_close=value,
        multiplier=1.0,
        volume=prices[VOLUME, i],
        sigma=prices[SIGMA, i],
        adv=prices[ADV, i],
        initial=prices[INITIAL_X, i],
        limit=math.inf,
        order_fee=0.0,
        fill=value,
        stop_scale=prices[STOP_SCALE, i],
        profit_scale=prices[PROFIT_SCALE, i],
        trail_scale=prices[TRAIL_SCALE, i],
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
            row = QUANTITY if sheets.is_traded[i] == 0 else NEXT_QUANTITY
            if brackets.are_isolated[i]:
                pay_isolated(sheets, row, value, rate, i)
            else:
                pay_event(sheets, row, value, rate, i)
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


def pay_isolated(sheets: BookSheets, row: int, value: float, rate: float, i: int) -> None:
    """Pay one funding event from isolated margins; lanes that may fail after it are odd."""
    count = len(sheets.left_at)
    account, position = sheets.account, sheets.position
    low, high = widen(sheets.prices, i)
    entries = NEXT_ENTRY if row == NEXT_QUANTITY else ENTRY
    for lane in range(count):
        quantity = position[spot(i, row, lane)]
        paid = compute_payment(quantity, value, rate)
        margin = position[spot(i, NEXT_MARGIN, lane)] + (-paid)
        margin = margin if quantity != 0.0 else position[spot(i, NEXT_MARGIN, lane)]
        position[spot(i, NEXT_MARGIN, lane)] = margin
        position[spot(i, FUNDED, lane)] += paid
        least = margin - quantity * position[spot(i, entries, lane)]
        least += min(quantity * low, quantity * high)
        is_short = (not least > 0.0) & (quantity != 0.0)
        account[cell(IS_ODD, lane)] = 1.0 if is_short else account[cell(IS_ODD, lane)]


def charge_lanes(terms: Terms, feed: BookFeed, sheets: BookSheets, t: int) -> None:
    """Charge the interest since the previous open in all lanes, on the sum of their bases."""
    count, before, n = len(sheets.left_at), max(t - 1, 0), len(sheets.signal)
    account, is_loan = sheets.account, terms.is_loan
    years = feed.years[min(t, len(feed.years) - 1)]
    borrow = feed.borrow_rate[min(before, len(feed.borrow_rate) - 1)]
    rate = feed.cash_rate[min(before, len(feed.cash_rate) - 1)]
    short = feed.short_rate[min(before, len(feed.short_rate) - 1)]
    for lane in range(count):
        account[cell(BASE, lane)], account[cell(LENT, lane)] = account[cell(NEXT_CASH, lane)], 0.0
    for i in range(n):
        add_base(sheets, is_loan, bool(terms.rules.brackets.are_isolated[i]), i)
    for lane in range(count):
        base, lent = account[cell(BASE, lane)], account[cell(LENT, lane)]
        interest = -base * (rate if base > 0.0 else borrow) * years
        if is_loan:
            interest = interest + lent * short * years if lent > 0.0 else interest
        account[cell(PAID_INTEREST, lane)] = interest
        account[cell(NEXT_CASH, lane)] -= interest


def add_base(sheets: BookSheets, is_loan: bool, is_isolated: bool, i: int) -> None:
    """Add a position to what bears interest in all lanes, and a loan of contracts to ``lent``."""
    count, value = len(sheets.left_at), sheets.prices[MARK_OPEN, i]
    account, position = sheets.account, sheets.position
    for lane in range(count):
        quantity = position[spot(i, QUANTITY, lane)]
        entered = quantity * position[spot(i, ENTRY, lane)]
        if is_isolated:
            account[cell(BASE, lane)] += position[spot(i, NEXT_MARGIN, lane)]
            account[cell(BASE, lane)] -= entered if is_loan else 0.0
        elif not is_loan:
            account[cell(BASE, lane)] += entered
        if is_loan:
            is_short = quantity < 0.0
            account[cell(LENT, lane)] += abs(quantity * value) if is_short else 0.0


# -------------------------------------------------------------------------------------- fills


def is_any_asking(sheets: BookSheets, i: int) -> bool:
    """Return whether a decision of any lane may trade instrument i at its open."""
    count = len(sheets.left_at)
    account, position = sheets.account, sheets.position
    quote, signal = quote_open(sheets.prices, i), sheets.signal[i]
    scale = (1.0 if signal > 0.0 else -1.0) * abs(quote.fill)
    kind = FillKind(None, None, None, None)
    found = False
    for lane in range(count):
        rules = read_rules(NO_COSTS, position, kind, i, lane)
        equity = account[cell(WORTH, lane)]
        target = position[spot(i, TARGET, lane)]
        reach = compute_target(rules, quote, equity, target, signal)
        held = position[spot(i, QUANTITY, lane)] * scale
        found |= is_outside(rules, equity, reach, held)
    return found


def leave_asking(sheets: BookSheets, i: int) -> None:
    """Mark lanes odd whose decision may trade instrument i, which lanes do not fill."""
    count = len(sheets.left_at)
    account, position = sheets.account, sheets.position
    quote, signal = quote_open(sheets.prices, i), sheets.signal[i]
    scale = (1.0 if signal > 0.0 else -1.0) * abs(quote.fill)
    kind = FillKind(None, None, None, None)
    for lane in range(count):
        rules = read_rules(NO_COSTS, position, kind, i, lane)
        equity = account[cell(WORTH, lane)]
        reach = compute_target(rules, quote, equity, position[spot(i, TARGET, lane)], signal)
        held = position[spot(i, QUANTITY, lane)] * scale
        is_asking = is_outside(rules, equity, reach, held)
        account[cell(IS_ODD, lane)] = 1.0 if is_asking else account[cell(IS_ODD, lane)]


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
    kind, is_open = FillKind(None, None, None, None), sheets.is_pending[i] == 1
    for lane in range(count):
        rules = read_rules(NO_COSTS, position, kind, i, lane)
        equity = account[cell(WORTH, lane)]
        held = abs(position[spot(i, QUANTITY, lane)]) * abs(quote.fill)
        reach = compute_target(rules, quote, equity, position[spot(i, TARGET, lane)], signal)
        account[cell(WANTED, lane)] += reach if is_open & (reach > held) else held


class LaneOrder(NamedTuple):
    """The order of one lane: the contracts it targets, and notionals on its side.

    ``reach`` is the target, ``held`` the position and ``size`` what an increase leads to, of which
    ``added`` is new.
    """

    wanted: float
    reach: float
    held: float
    size: float
    added: float
    is_asking: bool
    is_adding: bool


def fill_lanes(costs: Costs, sheets: BookSheets, kind: FillKind, i: int) -> bool:
    """Fill the decisions for instrument i in all lanes; return whether a bound was exceeded."""
    count = len(sheets.left_at)
    account, position, prices = sheets.account, sheets.position, sheets.prices
    quote, signal, before = quote_open(prices, i), sheets.signal[i], prices[BEFORE, i]
    close, limit, most = prices[CLOSE, i], prices[LIMIT, i], sheets.reach[i] * abs(quote.fill)
    rate = prices[INITIAL_RATE, i]
    is_over = False
    for lane in range(count):
        rules = read_rules(costs, position, kind, i, lane)
        equity = account[cell(WORTH, lane)]
        quantity, target = position[spot(i, QUANTITY, lane)], position[spot(i, TARGET, lane)]
        order = size_lane(rules, quote, equity, quantity, target, signal, limit)
        margin, cash = 0.0, 0.0
        if kind.is_isolated is not None:  # the wallet is tested apart
            margin, cash = position[spot(i, NEXT_MARGIN, lane)], math.inf
        own = Position(quantity, position[spot(i, ENTRY, lane)], margin, before)
        done = fill(rules, make_books(cash, own), quote, order.wanted, rules.fee)
        if kind.is_isolated is None:
            bound_pool(account, rules, quote, order, done, lane)
        else:
            bound_isolated(account, rules, quote, order, equity, limit, rate, lane)
            move_lane_margin(position, rules, quote, own, done, i, lane)
        is_odd = order.is_asking & (order.reach == math.inf)
        account[cell(IS_ODD, lane)] = 1.0 if is_odd else account[cell(IS_ODD, lane)]
        reached = write_fill(position, rules, quote, order, done, close, i, lane)
        is_over |= reached > most
    return is_over


def size_lane(
    rules: InstrumentRules,
    quote: Quote,
    equity: float,
    quantity: float,
    target: float,
    signal: float,
    limit: float,
) -> LaneOrder:
    """Return the order of one lane, cut to the largest notional of the margin table alone."""
    unit, side = abs(quote.fill), 1.0 if signal > 0.0 else -1.0
    held = quantity * (side * unit)
    reach = compute_target(rules, quote, equity, target, signal)
    is_asking = is_outside(rules, equity, reach, held) & (equity > 0.0)
    kept = max(held, 0.0)
    is_adding = is_asking & (reach > kept)
    allowed = limit
    if rules.is_isolated is not None:
        allowed = round_as_isolated(side, unit, quantity, reach)
    added = max(min(reach, allowed) - kept, 0.0)
    size = kept + added if is_adding else reach
    is_kept = is_adding & (size <= held) & (held > 0.0)
    wanted = side * size * (1.0 / unit) + 0.0
    wanted = wanted if is_asking & (not is_kept) else quantity
    return LaneOrder(wanted, reach, held, size, added, is_asking, is_adding)


def bound_cost(rules: InstrumentRules, quote: Quote, order: LaneOrder) -> tuple[float, float]:
    """Return bounds of the worsened price and of the cost of an order, per unit of notional."""
    worsening = rules.slippage
    if rules.has_impact is not None:
        notional = max(order.reach - order.held, 0.0) if order.reach < math.inf else 0.0
        worsening += compute_square_root_impact(rules.impact, quote, notional)
        worsening = min(worsening, LARGEST_WORSENING)
    ratio = 1.0 + worsening
    if rules.is_inverse is not None:
        ratio = 1.0 / (1.0 - worsening)
    return ratio * SLACK, (worsening * ratio + rules.fee * ratio) * SLACK


def bound_pool(
    account: FloatArray,
    rules: InstrumentRules,
    quote: Quote,
    order: LaneOrder,
    done: Trade,
    lane: int,
) -> None:
    """Add a bound of what a cross order of one lane costs its pool."""
    _, cost = bound_cost(rules, quote, order)
    cost *= abs(order.size - order.held) if order.is_adding else 0.0
    paid = done.slippage + done.fee
    if rules.has_impact is not None:
        paid += done.impact
    account[cell(COSTS, lane)] += max(cost, paid)
    account[cell(IS_ADDING, lane)] = 1.0 if order.is_adding else account[cell(IS_ADDING, lane)]


def bound_isolated(
    account: FloatArray,
    rules: InstrumentRules,
    quote: Quote,
    order: LaneOrder,
    equity: float,
    limit: float,
    rate: float,
    lane: int,
) -> None:
    """Add a bound of what an isolated order takes from the balance; one that is cut is odd.

    ``limit`` is its largest notional, ``rate`` bounds its initial margin.
    """
    ratio, cost = bound_cost(rules, quote, order)
    taken = ratio * (1.0 / compute_setting(rules.margin, quote.initial)) + ratio * rules.fee
    account[cell(TAKEN, lane)] += taken * order.added if order.is_adding else 0.0
    needed = order.size * rate + cost * abs(order.size - order.held)
    is_cut = (order.reach > limit * (1.0 - CAUTION)) | (needed > equity * (1.0 - CAUTION))
    is_odd = order.is_adding & (is_cut | (order.held < 0.0))
    account[cell(IS_ODD, lane)] = 1.0 if is_odd else account[cell(IS_ODD, lane)]


def move_lane_margin(
    position: FloatArray,
    rules: InstrumentRules,
    quote: Quote,
    own: Position,
    done: Trade,
    i: int,
    lane: int,
) -> None:
    """Write what an isolated fill of one lane returns to the wallet, and the margin after it."""
    after = done.books.positions[0]
    returned, posted, _ = split_margin(rules, own, after.quantity, done.value, quote.initial)
    position[spot(i, RETURNED, lane)] = returned
    position[spot(i, POSTED, lane)] = posted
    position[spot(i, NEXT_MARGIN, lane)] = after.margin


def write_fill(
    position: FloatArray,
    rules: InstrumentRules,
    quote: Quote,
    order: LaneOrder,
    done: Trade,
    close: float,
    i: int,
    lane: int,
) -> float:
    """Write the fill of one lane; return the largest notional that it may have led to."""
    after = done.books.positions[0]
    size = abs(after.quantity) * abs(quote.fill)
    reached = max(order.size if order.is_adding else 0.0, size)
    position[spot(i, SIZE, lane)] = reached
    position[spot(i, NEXT_QUANTITY, lane)] = after.quantity
    position[spot(i, NEXT_ENTRY, lane)] = after.entry
    position[spot(i, IS_INCREASE, lane)] = 1.0 if order.is_adding else 0.0
    position[spot(i, FLOW, lane)] = done.quantity * done.value
    position[spot(i, FEE, lane)] = done.fee
    position[spot(i, SLIPPAGE, lane)] = done.slippage
    if rules.has_impact is not None:
        position[spot(i, IMPACT, lane)] = done.impact
    position[spot(i, TRADED, lane)] = abs(done.quantity) * abs(done.value)
    marked = position[spot(i, MARKED, lane)]
    position[spot(i, NEXT_MARKED, lane)] = after.value if done.quantity != 0.0 else marked
    pnl = after.quantity * (close - after.value)
    position[spot(i, PROFIT, lane)] = (0.0 + done.price_pnl) + pnl
    return reached


def round_as_isolated(side: float, unit: float, quantity: float, reach: float) -> float:
    """Return a target notional as :func:`backtest.account.orders.size_order` sizes it."""
    kept = max(side * quantity, 0.0)
    wanted = side * (kept + (reach * (1.0 / unit) - kept))
    return side * wanted * unit


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


def move_wallet(sheets: BookSheets, is_increase: bool, i: int) -> None:
    """Move margins between isolated positions and the cash of lanes; one that is empty is odd."""
    count = len(sheets.left_at)
    account, position = sheets.account, sheets.position
    wanted = 1.0 if is_increase else 0.0
    for lane in range(count):
        is_mine = position[spot(i, IS_INCREASE, lane)] == wanted
        cash = account[cell(NEXT_CASH, lane)]
        moved = (cash + position[spot(i, RETURNED, lane)]) - position[spot(i, POSTED, lane)]
        moved = cash + ((moved - position[spot(i, FEE, lane)]) - cash)
        moved = moved if is_mine else cash
        account[cell(NEXT_CASH, lane)] = moved
        account[cell(IS_ODD, lane)] = 1.0 if moved < 0.0 else account[cell(IS_ODD, lane)]


def move_all_cash(terms: Terms, sheets: BookSheets, n: int) -> None:
    """Take what the fills cost from the cash of lanes: reductions first, in the order given.

    Lanes whose isolated increases the balance may cut are odd.
    """
    for k in range(2):
        if k == 1 and sheets.has_isolated:
            find_cut(sheets)
        for i in range(n):
            if sheets.is_traded[i] == 0:
                continue
            if terms.rules.brackets.are_isolated[i]:
                move_wallet(sheets, k == 1, i)
            else:
                move_cash(sheets, k == 1, i)


def find_cut(sheets: BookSheets) -> None:
    """Mark lanes odd whose isolated increases may take more than the balance."""
    count = len(sheets.left_at)
    account = sheets.account
    for lane in range(count):
        taken = account[cell(TAKEN, lane)]
        is_cut = (taken > account[cell(NEXT_CASH, lane)] * (1.0 - CAUTION)) & (taken > 0.0)
        account[cell(IS_ODD, lane)] = 1.0 if is_cut else account[cell(IS_ODD, lane)]


def begin_lanes(sheets: BookSheets, n: int, has_funding: bool) -> None:
    """Empty the room of lanes for one bar."""
    count = len(sheets.left_at)
    account, position = sheets.account, sheets.position
    for lane in range(count):
        account[cell(NEXT_CASH, lane)] = account[cell(CASH, lane)]
        account[cell(IS_ODD, lane)] = 0.0
        account[cell(IS_ADDING, lane)] = 0.0
        account[cell(COSTS, lane)] = 0.0
        account[cell(TAKEN, lane)] = 0.0
    for i in range(n):
        sheets.is_traded[i] = 0
        if sheets.has_isolated:
            for lane in range(count):
                position[spot(i, NEXT_MARGIN, lane)] = position[spot(i, MARGIN, lane)]
        if has_funding:
            for lane in range(count):
                position[spot(i, FUNDED, lane)] = 0.0


def value_opens(terms: Terms, sheets: BookSheets, n: int) -> None:
    """Write the equity of lanes at the opens, and what of it backs isolated positions."""
    count = len(sheets.left_at)
    account, position, prices = sheets.account, sheets.position, sheets.prices
    for lane in range(count):
        account[cell(WORTH, lane)] = account[cell(NEXT_CASH, lane)]
        account[cell(BACKED, lane)] = 0.0
    for i in range(n):
        if prices[IS_LISTED, i] == 0.0:
            continue
        value = prices[OPEN, i]
        if terms.rules.brackets.are_isolated[i]:
            add_backing_at(sheets, value, i)
            continue
        for lane in range(count):
            account[cell(WORTH, lane)] += position[spot(i, QUANTITY, lane)] * value
    for lane in range(count):
        worth = account[cell(WORTH, lane)]
        account[cell(POOL_WORTH, lane)] = worth
        account[cell(WORTH, lane)] = worth + account[cell(BACKED, lane)]


def add_backing_at(sheets: BookSheets, value: float, i: int) -> None:
    """Add the backing of an isolated position at u to the sums of lanes."""
    count = len(sheets.left_at)
    account, position = sheets.account, sheets.position
    for lane in range(count):
        quantity, entry = position[spot(i, QUANTITY, lane)], position[spot(i, ENTRY, lane)]
        account[cell(BACKED, lane)] += position[spot(i, NEXT_MARGIN, lane)]
        account[cell(BACKED, lane)] += quantity * (value - entry)
