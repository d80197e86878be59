"""Many accounts side by side: the bar loop of a sweep, over a block of 64 lanes.

The steps are those of a single run, called lane after lane in a loop without branches that matter,
so that the compiler turns it into vector arithmetic. :func:`pass_bar` takes all lanes through an
ordinary bar: what was carried pays funding and interest, the decision fills, the close is counted.
A lane to which anything else happens (a breach, a stop, a flow, the loss of everything) is left as
it was and then lives the bar again in :func:`live_lane`, with the very function of a single run.

The state of a block is one array, ``LANES`` numbers for each row named below, so that the compiler
sees that rows do not overlap. ``decide`` is the policy's formula over all lanes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from backtest.accounting import (
    Books,
    Quote,
    Rules,
    charge_interest,
    compute_backing,
    compute_equity,
    compute_requirement,
    compute_target,
    compute_value_of,
    fill,
    is_asking,
    is_failing,
    is_stopped,
    is_triggered,
    is_valued_at_entry,
    mark_to_market,
    pay_funding,
    size_order,
)
from backtest.bar import (
    Feed,
    Plan,
    State,
    is_flow_due,
    is_funding_due,
    live_bar,
    place,
    quote_bar,
)
from backtest.ledger import Ledger, Log
from backtest.margin import MarginRules, compute_highest_rate
from backtest.measures.tally import (
    FARTHEST,
    Clock,
    Exposure,
    Sample,
    add_decay,
    deepen,
    find_near,
    fold,
    grow_free,
    invert,
    is_deeper,
    is_near,
    is_wide,
    raise_peaks,
    take_sample,
)
from backtest.simulate import BROKEN, DONE, NEGATIVE, Seen, count_days, is_balanced

if TYPE_CHECKING:
    from backtest.units import FloatArray, IntArray

LANES = 64
"""Accounts in a block; a multiple of every vector length."""

RUN = 8
"""Lanes that are written at once where they have the same column: a vector."""

AT_ONCE = 32
"""Bars for which lanes' own columns are handed out at a time: they stay in the nearest cache."""

SLACK = 1.0 + 1e-9
"""Factor that stands for rounding, and for the tolerance of a requirement, in a quick look."""

ROOM = 1.1
"""What the bound of notionals is over the largest of them."""

KEPT = 0.9
"""What the bound of notionals keeps of itself each time: they may come back after a while."""

TINY = 1e-300
"""A rate that is no rate: with it, nothing left to back a position is never overlooked."""

FEW = 7
"""Lanes that trade in a bar up to which they are taken one by one."""

RAISED = 4
"""Why a block stopped, beside those of a single run: the policy raised an exception."""

ROWS = (
    "cash", "quantity", "entry", "margin", "target", "later", "step_left",
    "cash_before", "margin_before", "funding_before", "interest_before", "equity_before",
    "equity", "unit", "scale", "reserve", "peak", "low", "low_peak",
    "equity_sum", "fees", "slippage", "impact", "funding", "interest", "traded",
    "liquidations", "ruin",
    "sample_unit", "samples", "mean", "squares", "excess_mean", "excess_squares", "downside",
    "band", "min_leverage", "max_leverage",
    "price_pnl", "liquidation_loss", "flows", "top_up", "bad_debt", "stops", "calls",
    "first_liquidation", "near", "leverage_sum", "peak_leverage", "peak_needed", "peak_backing",
    "inverse", "decay_held", "decay_log", "decay_product",
    "ratio", "is_called", "unmet", "last_liquidation", "last_stop", "is_over", "is_ruined",
    "is_done",
    "lot", "min_notional", "fee", "taker", "slip", "impact_rate", "participation",
    "liquidation_fee", "liquidation_slippage", "step", "full_below", "stop_loss", "setting",
    "close_fee", "top_up_to", "first_unit", "bound",
)  # fmt: skip
"""The rows of a block; after them come the policy's parameters and its memory.

Booleans are 0 and 1, bars that never came -1. ``later`` says that the next bar is no ordinary one,
``step_left`` what the lane has still to do; ``is_done`` that the policy is not asked any more. The
rules stand last; band and leverages are always those of the lane. ``bound``, in the first lane's
cell, is what no lane's notional was over at the last close, so that one bracket's rate does for a
quick look at all.
"""

(
    CASH, QUANTITY, ENTRY, MARGIN, TARGET, LATER, STEP_LEFT,
    CASH_BEFORE, MARGIN_BEFORE, FUNDING_BEFORE, INTEREST_BEFORE, EQUITY_BEFORE,
    EQUITY, UNIT, SCALE, RESERVE, PEAK, LOW, LOW_PEAK,
    EQUITY_SUM, FEES, SLIPPAGE, IMPACT, FUNDING, INTEREST, TRADED,
    LIQUIDATIONS, RUIN,
    SAMPLE_UNIT, SAMPLES, MEAN, SQUARES, EXCESS_MEAN, EXCESS_SQUARES, DOWNSIDE,
    BAND, MIN_LEVERAGE, MAX_LEVERAGE,
    PRICE_PNL, LIQUIDATION_LOSS, FLOWS, TOP_UP, BAD_DEBT, STOPS, CALLS,
    FIRST_LIQUIDATION, NEAR, LEVERAGE_SUM, PEAK_LEVERAGE, PEAK_NEEDED, PEAK_BACKING,
    INVERSE, DECAY_HELD, DECAY_LOG, DECAY_PRODUCT,
    RATIO, IS_CALLED, UNMET, LAST_LIQUIDATION, LAST_STOP, IS_OVER, IS_RUINED, IS_DONE,
    LOT, MIN_NOTIONAL, FEE, TAKER, SLIP, IMPACT_RATE, PARTICIPATION,
    LIQUIDATION_FEE, LIQUIDATION_SLIPPAGE, STEP, FULL_BELOW, STOP_LOSS, SETTING,
    CLOSE_FEE, TOP_UP_TO, FIRST_UNIT, BOUND,
) = range(len(ROWS))  # fmt: skip


HOLD, TRADE, LIVE = 0.0, 1.0, 2.0
"""What a lane has still to do in a bar: nothing, the fill it asks for, or all of it anew."""


class Kind(NamedTuple):
    """What a block needs, True or None as in :class:`backtest.accounting.Rules`.

    ``has_own_rules``: rules other than band and leverages differ between lanes; ``is_full``: all
    measures are counted, not only the core's; ``has_flows``: money comes from outside or waits in
    a reserve.
    """

    has_own_rules: bool | None
    is_full: bool | None
    has_flows: bool | None


class Place(NamedTuple):
    """Where a block stands: the next event and flow, and what all lanes share of the past.

    ``value`` is the u at which positions were last marked, ``free`` the risk-free return of the
    sample in progress, ``sample`` the number of samples taken, ``later`` how many lanes cannot live
    the next bar as an ordinary one.
    """

    event: int
    flow: int
    last_funding: float
    value: float
    signal: float
    free: float
    sample: int
    later: int


class Setup(NamedTuple):
    """What a block's accounts have in common.

    ``full`` and ``whole`` are the rules and the kind with nothing left out, for what is no
    ordinary bar.
    """

    rules: Rules
    kind: Kind
    full: Rules
    whole: Kind
    plan: Plan
    feed: Feed
    clock: Clock
    seen: Seen
    log: Log


class Sheets(NamedTuple):
    """The arrays of a block.

    ``block`` of shape (rows * LANES,) is its state; ``brackets`` the margin brackets for policies
    that ask for them; ``shared`` of shape (n_columns, n_bars) the columns all lanes share,
    ``distinct`` of shape (n_bars, n) those in which they differ, and ``places`` of shape (n_places,
    2) which of them go where, as :class:`backtest.columns.BlockColumns` has them, or none where
    they come lane by lane; ``own`` of shape (AT_ONCE, n_columns * LANES) is written with what lanes
    have of their own of the bars at hand, or is ``distinct`` itself; ``returns`` of shape
    (n_samples, LANES) with sampled returns as far as it reaches; ``flags`` with the lane at fault,
    and with whether the policy is still deciding (it raised).
    """

    block: FloatArray
    brackets: FloatArray
    shared: FloatArray
    distinct: FloatArray
    places: IntArray
    own: FloatArray
    returns: FloatArray
    flags: IntArray


class Carried(NamedTuple):
    """What an ordinary bar charges all lanes: one funding event at the open, and interest."""

    funding_value: float
    funding_rate: float
    years: float
    borrow_rate: float
    cash_rate: float
    short_rate: float


class Traded(NamedTuple):
    """One account after the fill of an ordinary bar, with the money of the fill."""

    books: Books
    price_pnl: float
    fee: float
    slippage: float
    impact: float
    amount: float
    is_odd: bool


def cell(row: int, i: int) -> int:
    """Return the index of a lane's number in a row."""
    return place(row * LANES + i)


# ------------------------------------------------------------------------------- ordinary bars


def read_own_rules(rules: Rules, kind: Kind, block: FloatArray, i: int) -> Rules:
    """Return the rules of one lane."""
    if kind.has_own_rules is None:
        return Rules(
            rules.is_inverse,
            rules.is_isolated,
            rules.has_stop,
            rules.has_impact,
            rules.has_interest,
            rules.has_rounding,
            rules.keeps_entry,
            rules.marks_entry,
            rules.margin,
            rules.lot,
            rules.min_notional,
            rules.fee,
            rules.taker,
            rules.slippage,
            rules.impact,
            rules.participation,
            rules.liquidation_mode,
            rules.liquidation_fee,
            rules.liquidation_slippage,
            rules.step,
            rules.full_below,
            rules.is_funded_by_wallet,
            rules.is_loan,
            block[cell(MIN_LEVERAGE, i)],
            block[cell(MAX_LEVERAGE, i)],
            block[cell(BAND, i)],
            rules.stop_loss,
            rules.top_up_to,
        )
    return Rules(
        rules.is_inverse,
        rules.is_isolated,
        rules.has_stop,
        rules.has_impact,
        rules.has_interest,
        rules.has_rounding,
        rules.keeps_entry,
        rules.marks_entry,
        read_own_margin(rules.margin, block, i),
        block[cell(LOT, i)],
        block[cell(MIN_NOTIONAL, i)],
        block[cell(FEE, i)],
        block[cell(TAKER, i)],
        block[cell(SLIP, i)],
        block[cell(IMPACT_RATE, i)],
        block[cell(PARTICIPATION, i)],
        rules.liquidation_mode,
        block[cell(LIQUIDATION_FEE, i)],
        block[cell(LIQUIDATION_SLIPPAGE, i)],
        block[cell(STEP, i)],
        block[cell(FULL_BELOW, i)],
        rules.is_funded_by_wallet,
        rules.is_loan,
        block[cell(MIN_LEVERAGE, i)],
        block[cell(MAX_LEVERAGE, i)],
        block[cell(BAND, i)],
        block[cell(STOP_LOSS, i)],
        block[cell(TOP_UP_TO, i)],
    )


def read_own_margin(margin: MarginRules, block: FloatArray, i: int) -> MarginRules:
    """Return the margin rules of one lane: the brackets are everyone's."""
    return MarginRules(
        margin.floors,
        margin.caps,
        margin.rates,
        margin.amounts,
        margin.leverages,
        block[cell(CLOSE_FEE, i)],
        block[cell(TAKER, i)],
        margin.size,
        block[cell(SETTING, i)],
        margin.is_inverse,
        margin.is_isolated,
        margin.is_valued_at_entry,
        margin.multiplier,
    )


def read_books(rules: Rules, block: FloatArray, value: float, i: int) -> Books:
    """Return what one lane owns, the position last marked at u ``value``."""
    entry, margin = 0.0, 0.0
    if rules.keeps_entry is not None:
        entry = block[cell(ENTRY, i)]
    if rules.is_isolated is not None:
        margin = block[cell(MARGIN, i)]
    return Books(block[cell(CASH, i)], block[cell(QUANTITY, i)], entry, margin, value)


def carry_bar(
    rules: Rules,
    kind: Kind,
    quote: Quote,
    carried: Carried,
    block: FloatArray,
    value: float,
    is_paying: bool,
) -> None:
    """Charge funding and interest to all lanes, keeping what they had for those that are odd."""
    for i in range(LANES):
        own = read_own_rules(rules, kind, block, i)
        books = read_books(rules, block, value, i)
        block[cell(CASH_BEFORE, i)] = books.cash
        block[cell(FUNDING_BEFORE, i)] = block[cell(FUNDING, i)]
        if rules.is_isolated is not None:
            block[cell(MARGIN_BEFORE, i)] = books.margin
        if rules.has_interest is not None:
            block[cell(EQUITY_BEFORE, i)] = compute_equity(rules, books, value)
        if is_paying:
            books, paid = pay_funding(own, books, carried.funding_value, carried.funding_rate)
            block[cell(FUNDING, i)] += paid
        if rules.has_interest is not None:
            block[cell(INTEREST_BEFORE, i)] = block[cell(INTEREST, i)]
            books, interest = charge_interest(
                own,
                books,
                quote,
                carried.years,
                carried.borrow_rate,
                carried.cash_rate,
                carried.short_rate,
            )
            block[cell(INTEREST, i)] += interest
        block[cell(CASH, i)] = books.cash
        if rules.is_isolated is not None:
            block[cell(MARGIN, i)] = books.margin


def uncarry_lane(rules: Rules, block: FloatArray, i: int) -> None:
    """Give one lane back what :func:`carry_bar` took."""
    block[cell(CASH, i)] = block[cell(CASH_BEFORE, i)]
    block[cell(FUNDING, i)] = block[cell(FUNDING_BEFORE, i)]
    if rules.is_isolated is not None:
        block[cell(MARGIN, i)] = block[cell(MARGIN_BEFORE, i)]
    if rules.has_interest is not None:
        block[cell(INTEREST, i)] = block[cell(INTEREST_BEFORE, i)]


def find_rare(
    rules: Rules,
    kind: Kind,
    quote: Quote,
    block: FloatArray,
    value: float,
    signal: float,
    rate: float,
) -> int:
    """Return the lanes that may do more in the bar than hold what they have, a bit for each.

    The quick look that every lane gets at every bar: it may find too many, never too few. A signal
    of 0 has a loop of its own, so that the other need not ask about it.
    """
    reach = find_reach(rate, quote.open, quote.mark_low, quote.mark_high)
    found = no_lanes()
    if signal == 0.0:
        for i in range(LANES):
            own = read_own_rules(rules, kind, block, i)
            books = read_books(rules, block, value, i)
            is_rare = is_endangered(own, books, quote, reach)
            found |= lane_bit(i, is_rare | (books.quantity != 0.0))
        return found
    for i in range(LANES):
        own = read_own_rules(rules, kind, block, i)
        books = read_books(rules, block, value, i)
        is_rare = is_asking(own, books, quote, block[cell(TARGET, i)], signal)
        found |= lane_bit(i, is_rare | is_endangered(own, books, quote, reach))
    return found


class Reach(NamedTuple):
    """How far prices go from a value, for the quick look whether a requirement may fail.

    ``loss`` is the most that a contract may lose on the way, long or short, and its margin there,
    with a slack that stands for rounding and for the tolerance of the requirement.
    """

    start: float
    loss: float


def find_reach(rate: float, start: float, low: float, high: float) -> Reach:
    """Return how far a low and a high are from a value, with margin at a rate."""
    widest = max(abs(low), abs(high))
    loss = max(start - low, high - start) + 1e-13 * max(abs(start), widest)
    return Reach(start, loss + rate * SLACK * widest)


class Most(NamedTuple):
    """The notional up to which a margin rate is the highest."""

    notional: float
    rate: float


def find_most(rules: Rules, block: FloatArray, quote: Quote, value: float) -> Most:
    """Return the highest rate of the brackets that lanes may be in during a bar or near its close.

    Their notionals were within the bound at u ``value``, and are at this close, or somebody is told
    that they are over it.
    """
    growth = FARTHEST
    if value != 0.0:
        growth = max(growth, max(abs(quote.mark_low), abs(quote.mark_high)) / abs(value))
    bound = block[cell(BOUND, 0)] * growth * SLACK
    return Most(bound, max(compute_highest_rate(rules.margin, bound, quote.multiplier), TINY))


def is_endangered(rules: Rules, books: Books, quote: Quote, reach: Reach) -> bool:
    """Tell whether the bar's extreme may trigger anything; False only where it does not."""
    if is_valued_at_entry(rules):
        return is_triggered(rules, books, quote)
    is_near_root = may_fail(rules, books, reach)
    if rules.has_stop is not None:
        is_long = books.quantity > 0.0
        is_near_root |= is_stopped(rules, books, quote.low if is_long else quote.high)
    return is_near_root


def may_fail(rules: Rules, books: Books, reach: Reach) -> bool:
    """Tell whether the requirement may fail within a reach; False only where it does not.

    It does not while what backs the position at the start is more than loss and margin.
    """
    return abs(books.quantity) * reach.loss > compute_backing(rules, books, reach.start)


def may_break(rules: Rules, books: Books, quote: Quote, most: Most) -> bool:
    """Tell whether the requirement may fail at the open or later; False only where it does not.

    Before a trade as after it, which may leave a notional of any size.
    """
    lowest, highest = min(quote.mark_open, quote.mark_low), max(quote.mark_open, quote.mark_high)
    extreme = lowest if books.quantity > 0.0 else highest
    if is_valued_at_entry(rules):
        return is_failing(rules, books, extreme, quote.multiplier)
    notional = abs(books.quantity) * abs(extreme)
    backing = compute_backing(rules, books, extreme)
    is_short = bool(backing < notional * (most.rate * SLACK))
    if len(rules.margin.floors) > 1:
        is_short |= not notional <= most.notional
    return is_short


def may_be_near(rules: Rules, books: Books, quote: Quote, reach: Reach) -> bool:
    """Tell whether the close may be near liquidation; False only where it is not."""
    if is_valued_at_entry(rules):
        return is_near(rules, books, quote)
    return may_fail(rules, books, reach)


def sort_lanes(
    rules: Rules,
    kind: Kind,
    quote: Quote,
    block: FloatArray,
    value: float,
    signal: float,
    is_carrying: bool,
) -> tuple[int, bool]:
    """Write what each lane has to do in the bar; return who trades, and whether any is odd."""
    asking, has_odd = no_lanes(), False
    for i in range(LANES):
        step = sort_lane(rules, kind, quote, block, value, signal, is_carrying, i)
        asking |= lane_bit(i, step == TRADE)
        has_odd |= step == LIVE
    return asking, has_odd


def sort_few(
    rules: Rules,
    kind: Kind,
    quote: Quote,
    block: FloatArray,
    value: float,
    signal: float,
    rare: int,
) -> tuple[int, bool]:
    """Do the same as :func:`sort_lanes` for some lanes, where the others hold what they have."""
    asking, has_odd = no_lanes(), False
    while rare != no_lanes():
        i = first_lane(rare)
        rare = without_first(rare)
        step = sort_lane(rules, kind, quote, block, value, signal, False, i)
        asking |= lane_bit(i, step == TRADE)
        has_odd |= step == LIVE
    return asking, has_odd


def sort_lane(
    rules: Rules,
    kind: Kind,
    quote: Quote,
    block: FloatArray,
    value: float,
    signal: float,
    is_carrying: bool,
    i: int,
) -> float:
    """Write and return what one lane has to do in the bar.

    It lives the bar in full when the extreme triggers something, when it has something left to do,
    and when interest takes the last it has.
    """
    own = read_own_rules(rules, kind, block, i)
    books = read_books(rules, block, value, i)
    is_alive = compute_equity(rules, books, quote.open) > 0.0
    is_moving = is_alive & is_asking(own, books, quote, block[cell(TARGET, i)], signal)
    is_odd = is_triggered(own, books, quote) | (block[cell(LATER, i)] != 0.0)
    if rules.has_interest is not None:
        is_lost = not compute_equity(rules, books, quote.mark_close) > 0.0
        is_odd |= is_carrying & is_lost & (block[cell(EQUITY_BEFORE, i)] > 0.0)
    step = TRADE if is_moving else (LIVE if is_odd else HOLD)
    block[cell(STEP_LEFT, i)] = step
    return step


def no_lanes() -> int:
    """Return no lanes, as bits."""
    return 0


def lane_bit(i: int, is_on: bool) -> int:
    """Return the bit of a lane where it is on."""
    return is_on << i


def first_lane(found: int) -> int:
    """Return the first of some lanes."""
    return (found & -found).bit_length() - 1


def without_first(found: int) -> int:
    """Return the lanes after the first of them."""
    return found & (found - 1)


def count_lanes(found: int) -> int:
    """Return how many lanes there are."""
    return found.bit_count()


class News(NamedTuple):
    """What a close may bring to some lane, each seldom, and left to a loop of its own.

    A new peak or fall, a new peak of exposure, being near the limit, a notional over the bound.
    """

    has_marks: bool
    has_exposure: bool
    has_near: bool
    is_over: bool


def close_lanes(
    rules: Rules,
    kind: Kind,
    quote: Quote,
    block: FloatArray,
    value: float,
    move: float,
    rate: float,
    has_rare: bool | None,
) -> News:
    """Count the close of all lanes; return what else there may be to count.

    Where some lanes did more than hold (``has_rare``), those have counted their own money.
    """
    has_marks, has_exposure, has_near, is_over = False, False, False, False
    lower, upper = find_near(rules, quote)
    reach = find_reach(rate, quote.mark_close, lower, upper)
    bound = block[cell(BOUND, 0)]
    for i in range(LANES):
        books = read_books(rules, block, value, i)
        equity = compute_equity(rules, books, quote.mark_close)
        block[cell(EQUITY_SUM, i)] += equity
        unit = compute_unit(kind, block, i, equity)
        peak = block[cell(PEAK, i)]
        has_marks |= unit > peak
        has_marks |= is_deeper(peak, block[cell(LOW, i)], block[cell(LOW_PEAK, i)], unit)
        if kind.is_full is not None:
            own = read_own_rules(rules, kind, block, i)
            pnl = mark_to_market(books, quote)[1]
            if has_rare is not None:
                pnl = 0.0 if block[cell(STEP_LEFT, i)] != HOLD else pnl
            block[cell(PRICE_PNL, i)] += pnl
            has_exposure |= count_more(own, quote, block, i, books, equity, value, move, rate)
            has_near |= may_be_near(own, books, quote, reach)
        if len(rules.margin.floors) > 1:
            is_over |= not abs(books.quantity) * abs(quote.mark_close) <= bound
    return News(has_marks, has_exposure | is_over, has_near | is_over, is_over)


def count_near(rules: Rules, kind: Kind, quote: Quote, block: FloatArray) -> None:
    """Count the closes that are near liquidation."""
    for i in range(LANES):
        own = read_own_rules(rules, kind, block, i)
        books = read_books(rules, block, quote.mark_close, i)
        block[cell(NEAR, i)] += 1.0 if is_near(own, books, quote) else 0.0


def trade_lane(
    rules: Rules, quote: Quote, books: Books, leverage: float, signal: float, most: Most
) -> Traded:
    """Fill one account's decision, which asks for a trade, at the open; take it to the close."""
    equity = compute_equity(rules, books, quote.open)
    reach = compute_target(rules, equity, leverage, signal)
    is_odd = (reach == math.inf) | may_break(rules, books, quote, most)
    side = 1.0 if signal > 0.0 else -1.0
    wanted = size_order(rules, books, quote, equity, side, reach)
    done = fill(rules, books, quote, wanted, rules.fee)
    is_odd |= may_break(rules, done.books, quote, most)
    if rules.has_stop is not None:
        is_odd |= is_stopped(rules, books, quote.open)
        last = quote.low if done.books.quantity > 0.0 else quote.high
        is_odd |= is_stopped(rules, done.books, last)
    is_odd |= not compute_equity(rules, done.books, quote.mark_close) > 0.0
    amount = abs(done.quantity) * abs(done.value)
    return Traded(done.books, done.price_pnl, done.fee, done.slippage, done.impact, amount, is_odd)


def trade_lanes(
    rules: Rules,
    kind: Kind,
    quote: Quote,
    block: FloatArray,
    value: float,
    signal: float,
    most: Most,
) -> bool:
    """Take the lanes that ask for a trade through the bar; tell whether one of them is odd."""
    has_odd = False
    for i in range(LANES):
        has_odd |= trade_one(rules, kind, quote, block, i, value, signal, most)
    return has_odd


def trade_few(
    rules: Rules,
    kind: Kind,
    quote: Quote,
    block: FloatArray,
    value: float,
    signal: float,
    most: Most,
    asking: int,
) -> bool:
    """Do the same as :func:`trade_lanes`, lane by lane: quicker for a few."""
    has_odd = False
    while asking != no_lanes():
        i = first_lane(asking)
        asking = without_first(asking)
        has_odd |= trade_one(rules, kind, quote, block, i, value, signal, most)
    return has_odd


def trade_one(
    rules: Rules,
    kind: Kind,
    quote: Quote,
    block: FloatArray,
    i: int,
    value: float,
    signal: float,
    most: Most,
) -> bool:
    """Take one lane that asks for a trade through the bar; tell whether it is odd."""
    own = read_own_rules(rules, kind, block, i)
    books = read_books(rules, block, value, i)
    is_mine = block[cell(STEP_LEFT, i)] == TRADE
    done = trade_lane(own, quote, books, block[cell(TARGET, i)], signal, most)
    is_odd = is_mine & (done.is_odd | (block[cell(LATER, i)] != 0.0))
    if is_odd:
        block[cell(STEP_LEFT, i)] = LIVE
    if is_mine & (not is_odd):
        keep_books(rules, block, i, done.books)
        count_trade(rules, block, i, done)
        if kind.is_full is not None:
            block[cell(PRICE_PNL, i)] += done.price_pnl + mark_to_market(done.books, quote)[1]
    return bool(is_odd)


def keep_books(rules: Rules, block: FloatArray, i: int, books: Books) -> None:
    """Write what one lane owns, in the rows that the kind of account needs."""
    block[cell(CASH, i)] = books.cash
    block[cell(QUANTITY, i)] = books.quantity
    if rules.keeps_entry is not None:
        block[cell(ENTRY, i)] = books.entry
    if rules.is_isolated is not None:
        block[cell(MARGIN, i)] = books.margin


def count_trade(rules: Rules, block: FloatArray, i: int, done: Traded) -> None:
    """Add the costs of a fill to one lane."""
    block[cell(FEES, i)] += done.fee
    block[cell(SLIPPAGE, i)] += done.slippage
    if rules.has_impact is not None:
        block[cell(IMPACT, i)] += done.impact
    block[cell(TRADED, i)] += done.amount


def compute_unit(kind: Kind, block: FloatArray, i: int, equity: float) -> float:
    """Return the unit value of one lane: its wealth, flows aside; a dead account keeps its last."""
    if kind.has_flows is None:
        return equity
    kept: float = block[cell(UNIT, i)]
    grown: float = block[cell(SCALE, i)] * (equity + block[cell(RESERVE, i)])
    return kept if block[cell(LATER, i)] != 0.0 or block[cell(IS_RUINED, i)] != 0.0 else grown


def raise_bound(quote: Quote, block: FloatArray) -> None:
    """Set the bound of all lanes' notionals to a little over the largest."""
    most = 0.0
    for i in range(LANES):
        most = max(most, abs(block[cell(QUANTITY, i)]) * abs(quote.mark_close))
    block[cell(BOUND, 0)] = max(ROOM * most, KEPT * block[cell(BOUND, 0)])


def mark_lanes(rules: Rules, kind: Kind, quote: Quote, block: FloatArray) -> None:
    """Bring peaks and falls up to date at a close; a second time changes nothing."""
    for i in range(LANES):
        books = read_books(rules, block, quote.mark_close, i)
        equity = compute_equity(rules, books, quote.mark_close)
        mark_lane(block, i, compute_unit(kind, block, i, equity))


def mark_exposure(rules: Rules, kind: Kind, quote: Quote, block: FloatArray) -> None:
    """Bring the peaks of exposure up to date at a close; a second time changes nothing."""
    for i in range(LANES):
        books = read_books(rules, block, quote.mark_close, i)
        own = read_own_rules(rules, kind, block, i)
        peaks = raise_peaks(own, read_exposure(block, i), books, block[cell(INVERSE, i)], quote)
        block[cell(PEAK_LEVERAGE, i)] = peaks.peak_leverage
        block[cell(PEAK_NEEDED, i)] = peaks.peak_needed
        block[cell(PEAK_BACKING, i)] = peaks.peak_backing


def mark_lane(block: FloatArray, i: int, unit: float) -> None:
    """Bring peak and deepest fall of one lane up to date."""
    peak, low, low_peak = deepen(
        block[cell(PEAK, i)], block[cell(LOW, i)], block[cell(LOW_PEAK, i)], unit
    )
    block[cell(PEAK, i)] = peak
    block[cell(LOW, i)] = low
    block[cell(LOW_PEAK, i)] = low_peak


def count_more(
    rules: Rules,
    quote: Quote,
    block: FloatArray,
    i: int,
    books: Books,
    equity: float,
    value: float,
    move: float,
    rate: float,
) -> bool:
    """Add a close to the other measures of one lane; tell whether it may be at a new peak."""
    held, product = block[cell(DECAY_HELD, i)], block[cell(DECAY_PRODUCT, i)]
    base = block[cell(INVERSE, i)]
    held, product = add_decay(held, product, books.quantity, base, value, quote, move)
    block[cell(DECAY_HELD, i)] = held
    block[cell(DECAY_PRODUCT, i)] = product
    inverse = invert(equity)
    block[cell(INVERSE, i)] = inverse
    notional = abs(books.quantity) * abs(quote.mark_close)
    leverage = notional * inverse
    block[cell(LEVERAGE_SUM, i)] += leverage
    backing = compute_backing(rules, books, quote.mark_close)
    needed = rate * SLACK * notional
    if is_valued_at_entry(rules):
        needed = compute_requirement(rules, books, quote.mark_close, quote.multiplier)
    is_closer = needed * block[cell(PEAK_BACKING, i)] > block[cell(PEAK_NEEDED, i)] * backing
    return bool(is_closer | (leverage > block[cell(PEAK_LEVERAGE, i)]))


def read_exposure(block: FloatArray, i: int) -> Exposure:
    """Return the exposure of one lane so far."""
    return Exposure(
        0,
        0.0,
        block[cell(PEAK_LEVERAGE, i)],
        block[cell(PEAK_NEEDED, i)],
        block[cell(PEAK_BACKING, i)],
    )


# ------------------------------------------------------------------------------- other bars


def live_lane(
    rules: Rules,
    kind: Kind,
    plan: Plan,
    feed: Feed,
    log: Log,
    block: FloatArray,
    at: Place,
    i: int,
    t: int,
) -> bool:
    """Take one lane through a bar as a single run would; tell whether its books balance."""
    own = read_own_rules(rules, kind, block, i)
    before = read_state(rules, kind, block, at, i, t)
    after, ledger, quote = live_bar(own, plan, feed, before, log, t)
    block[cell(STEP_LEFT, i)] = LIVE
    if not is_balanced(before, after, ledger, quote):
        return False
    keep_books(rules, block, i, after.books)
    keep_state(block, i, before, after, ledger, t)
    count_ledger(block, i, ledger)
    if after.is_ruined and block[cell(RUIN, i)] < 0.0:
        block[cell(RUIN, i)] = t
    if kind.is_full is not None:
        count_events(block, i, before, ledger, t)
    return True


def live_lanes(
    rules: Rules,
    kind: Kind,
    plan: Plan,
    feed: Feed,
    log: Log,
    block: FloatArray,
    at: Place,
    is_carrying: bool,
    is_ordinary: bool,
    t: int,
) -> int:
    """Take lanes through a bar as single runs would; return one that does not balance, or -1.

    In an ordinary bar those that are odd, after giving back what they were charged if
    ``is_carrying``; otherwise all.
    """
    for i in range(LANES):
        if is_ordinary and block[cell(STEP_LEFT, i)] != LIVE:
            continue
        if is_carrying:
            uncarry_lane(rules, block, i)
        if not live_lane(rules, kind, plan, feed, log, block, at, i, t):
            return i
    return -1


def read_state(rules: Rules, kind: Kind, block: FloatArray, at: Place, i: int, t: int) -> State:
    """Return the state of one lane before bar t."""
    books = read_books(rules, block, at.value, i)
    equity = compute_equity(rules, books, at.value)
    return State(
        books,
        equity,
        block[cell(RESERVE, i)],
        block[cell(TARGET, i)],
        at.signal,
        block[cell(RATIO, i)],
        block[cell(IS_CALLED, i)] != 0.0,
        block[cell(UNMET, i)],
        t - 1.0 - block[cell(LAST_LIQUIDATION, i)],
        t - 1.0 - block[cell(LAST_STOP, i)],
        block[cell(IS_OVER, i)] != 0.0,
        block[cell(IS_RUINED, i)] != 0.0,
        at.event,
        at.flow,
        at.last_funding,
        compute_unit(kind, block, i, equity),
        block[cell(PEAK, i)],
        block[cell(SCALE, i)],
    )


def keep_state(
    block: FloatArray, i: int, before: State, after: State, ledger: Ledger, t: int
) -> None:
    """Write the state of one lane after bar t, beside its books."""
    block[cell(RESERVE, i)] = after.reserve
    block[cell(RATIO, i)] = after.ratio
    block[cell(IS_CALLED, i)] = 1.0 if after.is_called else 0.0
    block[cell(UNMET, i)] = after.unmet
    if after.since == 0.0:
        block[cell(LAST_LIQUIDATION, i)] = t
    if after.since_stop == 0.0:
        block[cell(LAST_STOP, i)] = t
    block[cell(IS_OVER, i)] = 1.0 if after.is_over else 0.0
    block[cell(IS_RUINED, i)] = 1.0 if after.is_ruined else 0.0
    block[cell(IS_DONE, i)] = 1.0 if after.is_over or after.is_ruined else 0.0
    block[cell(SCALE, i)] = after.scale
    block[cell(UNIT, i)] = after.unit
    is_closing = after.is_over and after.books.quantity != 0.0
    # a run keeps the unit value where there was nothing before the bar, or nothing is left
    is_empty = not after.is_ruined and not after.equity + after.reserve > 0.0
    is_kept = not after.is_ruined and not before.equity + before.reserve + ledger.flows > 0.0
    block[cell(LATER, i)] = 1.0 if is_closing or is_empty or is_kept else 0.0


def count_ledger(block: FloatArray, i: int, ledger: Ledger) -> None:
    """Add the money of a bar to one lane."""
    block[cell(FEES, i)] += ledger.fees
    block[cell(SLIPPAGE, i)] += ledger.slippage
    block[cell(IMPACT, i)] += ledger.impact
    block[cell(FUNDING, i)] += ledger.funding
    block[cell(INTEREST, i)] += ledger.interest
    block[cell(TRADED, i)] += ledger.traded
    block[cell(LIQUIDATIONS, i)] += ledger.liquidations


def count_events(block: FloatArray, i: int, before: State, ledger: Ledger, t: int) -> None:
    """Add the money of a bar to the other measures of one lane.

    The leverage decay of the bar is counted at its close, from 1 / equity before it: flows change
    that, and after a liquidation or stop it is 0, which counts nothing.
    """
    block[cell(PRICE_PNL, i)] += ledger.price_pnl
    block[cell(LIQUIDATION_LOSS, i)] += ledger.liquidation_loss
    block[cell(FLOWS, i)] += ledger.flows
    block[cell(TOP_UP, i)] += ledger.top_up
    block[cell(BAD_DEBT, i)] += ledger.bad_debt
    block[cell(STOPS, i)] += ledger.stops
    block[cell(CALLS, i)] += ledger.calls
    if ledger.liquidations > 0 and block[cell(FIRST_LIQUIDATION, i)] < 0.0:
        block[cell(FIRST_LIQUIDATION, i)] = t
    moved = ledger.flows + ledger.top_up
    if moved != 0.0:
        block[cell(INVERSE, i)] = invert(before.equity + moved)
    if ledger.liquidations + ledger.stops > 0:
        block[cell(INVERSE, i)] = 0.0


# ------------------------------------------------------------------------------- the loop


def find_carried(rules: Rules, feed: Feed, quote: Quote, event: int, t: int) -> Carried:
    """Return what bar t charges all lanes; the event, if one is due, is at the open."""
    value, rate = quote.mark_open, 0.0
    if is_funding_due(feed, event, t):
        rate = feed.funding_rate[event]
        if not math.isnan(feed.funding_price[event]):
            value = compute_value_of(rules, feed.funding_price[event])
    last = max(t - 1, 0)
    return Carried(
        value,
        rate,
        feed.years[min(t, len(feed.years) - 1)],
        feed.borrow_rate[min(last, len(feed.borrow_rate) - 1)],
        feed.cash_rate[min(last, len(feed.cash_rate) - 1)],
        feed.short_rate[min(last, len(feed.short_rate) - 1)],
    )


def is_charging(rules: Rules, carried: Carried) -> bool:
    """Tell whether a bar charges any interest."""
    if rules.has_interest is None:
        return False
    return carried.borrow_rate != 0.0 or carried.cash_rate != 0.0 or carried.short_rate != 0.0


def count_due(feed: Feed, event: int, t: int) -> int:
    """Return how many funding events belong to bar t."""
    n = 0
    while is_funding_due(feed, event + n, t):
        n += 1
    return n


def is_ordinary(plan: Plan, feed: Feed, at: Place, n_due: int, t: int) -> bool:
    """Tell whether bar t may be an ordinary one: no flow, and at most one event, at the open."""
    if t == 0 or plan.margin_call != 0.0 or is_flow_due(feed, at.flow, t):
        return False
    return n_due == 0 or (n_due == 1 and feed.funding_is_open[at.event] == 1)


def count_flows(feed: Feed, flow: int, t: int) -> int:
    """Return the flow after those of bar t."""
    while is_flow_due(feed, flow, t):
        flow += 1
    return flow


def take_samples(
    rules: Rules,
    kind: Kind,
    block: FloatArray,
    value: float,
    free: float,
    returns: FloatArray,
    k: int,
) -> None:
    """End a sample in all lanes; where returns are asked for, write them."""
    for i in range(LANES):
        equity = compute_equity(rules, read_books(rules, block, value, i), value)
        unit = compute_unit(kind, block, i, equity)
        sample = Sample(
            block[cell(SAMPLE_UNIT, i)],
            free,
            block[cell(SAMPLES, i)],
            block[cell(MEAN, i)],
            block[cell(SQUARES, i)],
            block[cell(EXCESS_MEAN, i)],
            block[cell(EXCESS_SQUARES, i)],
            block[cell(DOWNSIDE, i)],
        )
        after, change = take_sample(sample, unit)
        block[cell(SAMPLE_UNIT, i)] = after.unit
        block[cell(SAMPLES, i)] = after.n
        block[cell(MEAN, i)] = after.mean
        block[cell(SQUARES, i)] = after.squares
        block[cell(EXCESS_MEAN, i)] = after.excess_mean
        block[cell(EXCESS_SQUARES, i)] = after.excess_squares
        block[cell(DOWNSIDE, i)] = after.downside
        if k < len(returns):
            returns[k, i] = change


def fold_products(block: FloatArray) -> None:
    """Take the decay's products that have grown wide to their logarithms."""
    n_wide = 0
    for i in range(LANES):
        n_wide += 1 if is_wide(block[cell(DECAY_PRODUCT, i)]) else 0
    if n_wide > 0:
        for i in range(LANES):
            log, product = fold(block[cell(DECAY_LOG, i)], block[cell(DECAY_PRODUCT, i)])
            block[cell(DECAY_LOG, i)] = log
            block[cell(DECAY_PRODUCT, i)] = product


def write_equity(rules: Rules, kind: Kind, block: FloatArray, value: float) -> None:
    """Write equity and unit value of all lanes at u ``value``."""
    for i in range(LANES):
        equity = compute_equity(rules, read_books(rules, block, value, i), value)
        block[cell(UNIT, i)] = compute_unit(kind, block, i, equity)
        block[cell(EQUITY, i)] = equity


def pass_bar(setup: Setup, sheets: Sheets, live: Any, quote: Quote, at: Place, t: int) -> int:
    """Take all lanes through bar t; return one whose books do not balance, or -1."""
    rules, kind, block = setup.rules, setup.kind, sheets.block
    n_due = count_due(setup.feed, at.event, t)
    move = setup.clock.log_return[place(t)]
    most = find_most(rules, block, quote, at.value)
    fault, is_rare = -1, True
    if is_ordinary(setup.plan, setup.feed, at, n_due, t):
        carried = find_carried(rules, setup.feed, quote, at.event, t)
        is_carrying = n_due > 0 or is_charging(rules, carried)
        if is_carrying:
            carry_bar(rules, kind, quote, carried, block, at.value, n_due > 0)
        rare = find_rare(rules, kind, quote, block, at.value, at.signal, most.rate)
        is_rare = is_carrying or at.later > 0 or rare != no_lanes()
        if is_rare:
            fault = act(setup, sheets, live, quote, at, is_carrying, rare, most, t)
    else:
        fault = call_live(setup, block, live, at, False, False, t)
    if is_rare:
        news = close_lanes(rules, kind, quote, block, at.value, move, most.rate, True)
        for i in range(LANES):
            block[cell(STEP_LEFT, i)] = HOLD
    else:
        news = close_lanes(rules, kind, quote, block, at.value, move, most.rate, None)
    follow_up(rules, kind, quote, block, news)
    return fault


def follow_up(rules: Rules, kind: Kind, quote: Quote, block: FloatArray, news: News) -> None:
    """Count what a close has brought to some lane."""
    if news.has_marks:
        mark_lanes(rules, kind, quote, block)
    if kind.is_full is not None:
        if news.has_exposure:
            mark_exposure(rules, kind, quote, block)
        if news.has_near:
            count_near(rules, kind, quote, block)
    if news.is_over:
        raise_bound(quote, block)


def act(
    setup: Setup,
    sheets: Sheets,
    live: Any,
    quote: Quote,
    at: Place,
    is_carrying: bool,
    rare: int,
    most: Most,
    t: int,
) -> int:
    """Fill what lanes ask for and live the bar of those that are odd; return a fault or -1."""
    rules, kind, block = setup.rules, setup.kind, sheets.block
    if is_carrying or at.later > 0 or count_lanes(rare) > FEW:
        asking, has_odd = sort_lanes(rules, kind, quote, block, at.value, at.signal, is_carrying)
    else:
        asking, has_odd = sort_few(rules, kind, quote, block, at.value, at.signal, rare)
    if count_lanes(asking) > FEW:
        has_odd |= trade_lanes(rules, kind, quote, block, at.value, at.signal, most)
    else:
        has_odd |= trade_few(rules, kind, quote, block, at.value, at.signal, most, asking)
    if has_odd:
        return call_live(setup, block, live, at, is_carrying, True, t)
    return -1


def count_later(block: FloatArray) -> int:
    """Return how many lanes cannot live the next bar as an ordinary one."""
    n = 0
    for i in range(LANES):
        n += 1 if block[cell(LATER, i)] != 0.0 else 0
    return n


def call_live(
    setup: Setup,
    block: FloatArray,
    live: Any,
    at: Place,
    is_carrying: bool,
    is_ordinary: bool,
    t: int,
) -> int:
    """Call :func:`live_lanes`, through its pointer."""
    fault: int = live(
        setup.full,
        setup.whole,
        setup.plan,
        setup.feed,
        setup.log,
        block,
        at,
        is_carrying,
        is_ordinary,
        t,
    )
    return fault


def close_bar_of_all(setup: Setup, sheets: Sheets, quote: Quote, at: Place, t: int) -> Place:
    """Sample returns where a sample ends; return where the block stands after bar t."""
    feed, clock = setup.feed, setup.clock
    if setup.kind.is_full is not None:
        fold_products(sheets.block)
    n_due = count_due(feed, at.event, t)
    last_funding = feed.funding_rate[at.event + n_due - 1] if n_due > 0 else at.last_funding
    free, sample = grow_free(at.free, clock.risk_free[place(t)]), at.sample
    value = quote.mark_close
    if clock.ends_sample[place(t)] != 0.0:
        take_samples(setup.rules, setup.kind, sheets.block, value, free, sheets.returns, sample)
        raise_bound(quote, sheets.block)
        free, sample = 0.0, sample + 1
    signal = feed.signal[min(t, len(feed.signal) - 1)]
    flow = count_flows(feed, at.flow, t)
    later = count_later(sheets.block) if setup.kind.has_flows is not None else at.later
    return Place(at.event + n_due, flow, last_funding, value, signal, free, sample, later)


def ask(setup: Setup, sheets: Sheets, decide: Any, quote: Quote, at: Place, t: int, k: int) -> int:
    """Ask the policy at the close of bar t, row k of its own columns; return how it went."""
    seen, flags = setup.seen, sheets.flags
    flags[0], flags[1] = -1, 1
    j = place(t)
    decide(
        sheets.block,
        sheets.brackets,
        sheets.shared,
        sheets.own,
        flags,
        seen.time[j],
        seen.open[j],
        seen.high[j],
        seen.low[j],
        seen.close[j],
        seen.mark[j],
        seen.volume[j],
        at.last_funding,
        count_days(seen, t),
        quote.mark_close,
        quote.multiplier,
        t,
        k,
    )
    if flags[1] != 0:
        return RAISED
    return NEGATIVE if flags[0] >= 0 else DONE


def hand_out(sheets: Sheets, t: int) -> None:
    """Write what lanes have of their own of the bars from t on."""
    n_bars = min(AT_ONCE, len(sheets.distinct) - t)
    for k in range(n_bars):
        for j in range(len(sheets.places)):
            value = sheets.distinct[place(t + k), place(sheets.places[place(j), 1])]
            write_run(sheets.own, k, sheets.places[place(j), 0], value)


def write_run(sheet: FloatArray, k: int, first: int, value: float) -> None:
    """Write a number into a run of cells of row k; compiled it may go on in the next row."""
    sheet[k, first : first + RUN] = value


def advance_block(
    setup: Setup, sheets: Sheets, live: Any, decide: Any, at: Place, start: int, stop: int
) -> tuple[Place, int, int]:
    """Take a block through bars ``start`` to ``stop``.

    Parameters
    ----------
    setup : Setup
        The rules, the market, the kind of account.
    sheets : Sheets
        The state, which is written, and the columns.
    live, decide : compiled functions
        :func:`live_lanes`, and the policy's formula over all lanes.
    at : Place
        Where the block stands before bar ``start``.

    Returns
    -------
    Place, bar reached, and why it stopped (as :func:`backtest.simulate.simulate`).
    """
    for t in range(start, stop):
        quote = quote_bar(setup.rules, setup.feed, t)
        fault = pass_bar(setup, sheets, live, quote, at, t)
        if fault >= 0:
            sheets.flags[0] = fault
            return at, t, BROKEN
        at = close_bar_of_all(setup, sheets, quote, at, t)
        k = t
        if len(sheets.places) > 0:
            k = (t - start) % AT_ONCE
            if k == 0:
                hand_out(sheets, t)
        why = ask(setup, sheets, decide, quote, at, t, k)
        if why != DONE:
            return at, t, why
    write_equity(setup.rules, setup.kind, sheets.block, at.value)
    return at, stop, DONE
