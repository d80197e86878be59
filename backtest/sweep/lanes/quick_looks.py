"""The quick looks that every lane gets at every bar: they may find too many lanes, never too few.

They compare exactly, but for a slack that stands for rounding, and apply one rate to all lanes
where a requirement would walk the brackets: the highest of those that the largest notional may be
in. They ask the requirement whether such a rate bounds it; where none does, they compute it. What
they find is then examined as in a single run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from backtest.account.account_records import Books, InstrumentRules, Quote
from backtest.account.books import compute_backing, compute_equity, is_failing
from backtest.account.liquidation import is_triggered
from backtest.account.orders import is_asking
from backtest.account.position import find_adverse, has_rate_bound, is_stopped
from backtest.account.ruin import is_poor
from backtest.measures.tally import FARTHEST, is_near
from backtest.sweep.lanes.lane_rows import (
    BOUND,
    LANES,
    LINE,
    QUANTITY,
    TARGET,
    LaneBar,
    cell,
    lane_bit,
    no_lanes,
    read_books,
    read_own_instrument,
)
from backtest.venue.requirement import compute_highest_rate, has_one_rate

if TYPE_CHECKING:
    from backtest.base.units import FloatArray

SLACK = 1.0 + 1e-9
"""Factor that stands for rounding, and for the tolerance of a requirement, in a quick look."""

ROOM = 1.1
"""What the bound of notionals is over the largest of them."""

KEPT = 0.9
"""What the bound of notionals keeps of itself each time: they may come back after a while."""

TINY = 1e-300
"""A rate that is no rate: with it, nothing left to back a position is never overlooked."""


def find_rare(bar: LaneBar, block: FloatArray, rate: float) -> int:
    """Return the lanes that may do more in the bar than hold what they have, a bit for each.

    Every lane gets this look at every bar. A signal of 0 has a loop of its own, so that the other
    need not ask about it.
    """
    rules, quote = bar.rules.instrument, bar.quote
    reach = find_reach(rate, quote.open, quote.mark_low, quote.mark_high)
    found = no_lanes()
    if bar.signal == 0.0:
        for i in range(LANES):
            own = read_own_instrument(rules, bar.kind, block, i)
            books = read_books(rules, block, bar.value, i)
            is_rare = is_endangered(own, books, quote, reach, block[cell(LINE, i)])
            found |= lane_bit(i, is_rare | (books.positions[0].quantity != 0.0))
        return found
    for i in range(LANES):
        own = read_own_instrument(rules, bar.kind, block, i)
        books = read_books(rules, block, bar.value, i)
        is_rare = is_asking(own, books, quote, block[cell(TARGET, i)], bar.signal)
        is_rare |= is_endangered(own, books, quote, reach, block[cell(LINE, i)])
        found |= lane_bit(i, is_rare)
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


class RateBound(NamedTuple):
    """The highest margin rate of all notionals up to one."""

    notional: float
    rate: float


def find_rate_bound(
    rules: InstrumentRules, block: FloatArray, quote: Quote, value: float
) -> RateBound:
    """Return the highest rate of the brackets that lanes may be in during a bar or near its close.

    Their notionals were within the bound at u ``value``, and are at this close, or the caller
    learns that they are over it.
    """
    growth = FARTHEST
    if value != 0.0:
        growth = max(growth, max(abs(quote.mark_low), abs(quote.mark_high)) / abs(value))
    bound = block[cell(BOUND, 0)] * growth * SLACK
    return RateBound(bound, max(compute_highest_rate(rules.margin, bound, quote.multiplier), TINY))


def is_endangered(
    rules: InstrumentRules, books: Books, quote: Quote, reach: Reach, line: float
) -> bool:
    """Return whether the bar's extreme may trigger anything, or take the equity to a line of ruin.

    False only where it does not.
    """
    position = books.positions[0]
    lost = abs(position.quantity) * reach.loss
    is_near_root = lost > compute_equity(rules, books, reach.start) - line
    if not has_rate_bound(rules):
        return is_near_root | is_triggered(rules, books, quote)
    if rules.is_isolated is not None:
        is_near_root |= may_fail(rules, books, reach)
    if rules.has_stop is not None:
        is_near_root |= is_stopped(rules, position, find_adverse(position, quote.low, quote.high))
    return is_near_root


def may_fail(rules: InstrumentRules, books: Books, reach: Reach) -> bool:
    """Return whether the requirement may fail within a reach; False only where it does not.

    It does not while what backs the position at the start is more than loss and margin.
    """
    quantity = books.positions[0].quantity
    return abs(quantity) * reach.loss > compute_backing(rules, books, reach.start)


def may_break(rules: InstrumentRules, books: Books, quote: Quote, most: RateBound) -> bool:
    """Return whether the requirement may fail at the open or later; False only where it does not.

    Holds before a trade as after it, which may leave a notional of any size.
    """
    lowest, highest = min(quote.mark_open, quote.mark_low), max(quote.mark_open, quote.mark_high)
    extreme = find_adverse(books.positions[0], lowest, highest)
    if not has_rate_bound(rules):
        return is_failing(rules, books, extreme, quote.multiplier)
    notional = abs(books.positions[0].quantity) * abs(extreme)
    backing = compute_backing(rules, books, extreme)
    is_short = bool(backing < notional * (most.rate * SLACK))
    if not has_one_rate(rules.margin):
        is_short |= not notional <= most.notional
    return is_short


def may_be_near(rules: InstrumentRules, books: Books, quote: Quote, reach: Reach) -> bool:
    """Return whether the close may be near liquidation; False only where it is not."""
    if not has_rate_bound(rules):
        return is_near(rules, books, quote)
    return may_fail(rules, books, reach)


def may_be_poor(rules: InstrumentRules, books: Books, quote: Quote, equity: float) -> bool:
    """Return whether a flat account may be under the least order at a close; False only if not."""
    return is_poor(rules, quote, equity, SLACK) & (books.positions[0].quantity == 0.0)


def raise_bound(quote: Quote, block: FloatArray) -> None:
    """Set the bound of all lanes' notionals to a little over the largest."""
    most = 0.0
    for i in range(LANES):
        most = max(most, abs(block[cell(QUANTITY, i)]) * abs(quote.mark_close))
    block[cell(BOUND, 0)] = max(ROOM * most, KEPT * block[cell(BOUND, 0)])
