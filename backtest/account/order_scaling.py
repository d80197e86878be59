"""The common factor of the increases of a bar: the largest that the initial margin allows.

The increases pass if the backing after all costs, and after the margins of isolated positions, is
at least the initial margin of the cross positions. With a factor f each increase is
``kept + f added``. Costs are linear in f, so the room that is left is concave (an
initial margin by brackets jumps up at the caps, and the room is then falling).
"""

from __future__ import annotations

import math

from backtest.account.portfolio_balance import value_at
from backtest.account.portfolio_records import (
    CASH,
    INCREASE,
    Book,
    Room,
    Scene,
    Terms,
    is_held,
    is_isolated,
    pick_instrument,
    pick_margin,
    pick_position,
    share,
)
from backtest.account.position import compute_profit
from backtest.venue.book_requirement import compute_book_backing, compute_book_initial
from backtest.venue.requirement import compute_initial, compute_largest_notional

MOST_TRIALS = 200
"""Trials of a factor; each halves what is left of the interval, or better."""
NARROW = 1e-16
"""Width of the interval, relative to 1, at which the search ends."""
GOLDEN = 0.3819660112501051
"""The smaller part of the golden section."""


def fit_increases(terms: Terms, book: Book, scene: Scene, room: Room) -> float:
    """Return the factor of all increases: 1, or the upper end of the passing interval, or 0."""
    value_at(book, scene.fill, scene.asset_fill)
    free = compute_book_backing(terms.rules, book.held, book.purse[CASH])
    free -= compute_all_uncounted(terms, book, room, -2)
    count, only = count_increases(room)
    fixed = 0.0
    if not terms.rules.has_scenarios:
        fixed = sum_other_initial(terms, book, scene, room)
        if count == 1 and not is_isolated(terms, only):
            return fit_single(terms, scene, room, free - fixed, only)
    if compute_room(terms, book, scene, room, free, fixed, 1.0) >= 0.0:
        return 1.0
    low, high = 0.0, 1.0
    if not compute_room(terms, book, scene, room, free, fixed, 0.0) >= 0.0:
        low = find_passing(terms, book, scene, room, free, fixed)
        if math.isnan(low):
            return 0.0
    return narrow(terms, book, scene, room, free, fixed, low, high)


def count_increases(room: Room) -> tuple[int, int]:
    """Return the number of increases, and the last of them."""
    count, only = 0, 0
    for i in range(len(room.kind)):
        if room.kind[i] == INCREASE:
            count, only = count + 1, i
    return count, only


def compute_all_uncounted(terms: Terms, book: Book, room: Room, turned: int) -> float:
    """Return the unrealized profit of cross positions at the last opens that backs no order.

    A position that is turned around realizes its profit first: ``turned``, or all increases on the
    other side if it is -2.
    """
    found = 0.0
    for i in range(len(book.margin)):
        if is_held(book, i) and not is_isolated(terms, i):
            rules = share(pick_instrument(terms, i))
            is_flip = room.kind[i] == INCREASE and room.before[i] < 0.0 and turned == -2
            if rules.has_profit_share is not None and not is_flip and i != turned:
                profit = compute_profit(pick_position(book, i), book.held.values[i])
                found += (1.0 - rules.profit_share) * max(profit, 0.0)
    return found


def sum_other_initial(terms: Terms, book: Book, scene: Scene, room: Room) -> float:
    """Return the initial margin by brackets of the cross positions that do not increase."""
    found = 0.0
    for i in range(len(book.margin)):
        if is_held(book, i) and not is_isolated(terms, i) and room.kind[i] != INCREASE:
            notional = abs(book.held.quantities[i]) * abs(scene.fill[i])
            found += compute_initial(pick_margin(terms, i), notional, scene.initial[i])
    return found


def fit_single(terms: Terms, scene: Scene, room: Room, free: float, i: int) -> float:
    """Return the factor of a single increase in cross margin, in closed form."""
    limit = compute_largest_notional(
        pick_margin(terms, i), free - room.fee[i], room.before[i], room.cost[i], scene.initial[i]
    )
    whole = room.kept[i] + room.added[i]
    if limit >= whole or room.added[i] == 0.0:
        return 1.0
    return float(max(limit - room.kept[i], 0.0) / room.added[i])


def compute_room(
    terms: Terms,
    book: Book,
    scene: Scene,
    room: Room,
    free: float,
    fixed: float,
    factor: float,
) -> float:
    """Return what is left of the backing after the increases."""
    costs, taken, needed = 0.0, 0.0, fixed
    for i in range(len(book.margin)):
        if room.kind[i] == INCREASE:
            size = room.kept[i] + factor * room.added[i]
            if is_isolated(terms, i):
                taken += factor * room.added[i] * room.taken[i] - room.returned[i]
                continue
            costs += room.cost[i] * (size - room.before[i]) + room.fee[i]
            if not terms.rules.has_scenarios and size > 0.0:
                needed += compute_initial(pick_margin(terms, i), size, scene.initial[i])
    if terms.rules.has_scenarios:
        needed = try_initial(terms, book, scene, room, factor)
    return free - costs - taken - needed


def try_initial(terms: Terms, book: Book, scene: Scene, room: Room, factor: float) -> float:
    """Return the initial margin of the book with all increases scaled by a factor."""
    for i in range(len(book.margin)):
        room.start[i] = book.held.quantities[i]
        if room.kind[i] == INCREASE:
            size = room.kept[i] + factor * room.added[i]
            book.held.quantities[i] = room.side[i] * size / abs(scene.fill[i])
    needed = compute_book_initial(terms.rules, book.held)
    for i in range(len(book.margin)):
        book.held.quantities[i] = room.start[i]
    return needed


def find_passing(
    terms: Terms,
    book: Book,
    scene: Scene,
    room: Room,
    free: float,
    fixed: float,
) -> float:
    """Return a factor between 0 and 1 that passes though neither end does; NaN if none does.

    A golden section search for the highest point, as the room is concave.
    """
    low, high = 0.0, 1.0
    left, right = GOLDEN, 1.0 - GOLDEN
    of_left = compute_room(terms, book, scene, room, free, fixed, left)
    of_right = compute_room(terms, book, scene, room, free, fixed, right)
    for _ in range(80):
        if of_left >= 0.0 or of_right >= 0.0:
            return right if of_right >= 0.0 else left
        if of_left < of_right:
            low, left, of_left = left, right, of_right
            right = high - GOLDEN * (high - low)
            of_right = compute_room(terms, book, scene, room, free, fixed, right)
        else:
            high, right, of_right = right, left, of_left
            left = low + GOLDEN * (high - low)
            of_left = compute_room(terms, book, scene, room, free, fixed, left)
    return math.nan


def narrow(
    terms: Terms,
    book: Book,
    scene: Scene,
    room: Room,
    free: float,
    fixed: float,
    low: float,
    high: float,
) -> float:
    """Return the largest passing factor between one that passes and one that does not.

    The chord finds the end of a straight piece at once; halving makes progress everywhere else.
    """
    of_low = compute_room(terms, book, scene, room, free, fixed, low)
    of_high = compute_room(terms, book, scene, room, free, fixed, high)
    for trial in range(MOST_TRIALS):
        if not high - low > NARROW:
            break
        middle = low + 0.5 * (high - low)
        if trial % 2 == 0 and of_low > of_high:
            middle = low + (high - low) * (of_low / (of_low - of_high))
        if not low < middle < high:
            middle = low + 0.5 * (high - low)
        if not low < middle < high:
            break
        of_middle = compute_room(terms, book, scene, room, free, fixed, middle)
        if of_middle >= 0.0:
            low, of_low = middle, of_middle
        else:
            high, of_high = middle, of_middle
    return low


# ---------------------------------------------------------------------- an instrument alone


def compute_lone_rate(terms: Terms, book: Book, room: Room, i: int) -> float:
    """Return the initial margin of a unit of notional of instrument i alone, without collateral."""
    hide_others(book, room, i, room.side[i] / abs(book.held.values[i]))
    rate = compute_book_initial(terms.rules, book.held)
    show_others(book, room)
    return rate


def hide_others(book: Book, room: Room, i: int, quantity: float) -> None:
    """Leave a quantity of one instrument alone in the book, without collateral."""
    for j in range(len(book.margin)):
        room.hidden[j] = book.held.quantities[j]
        book.held.quantities[j] = quantity if j == i else 0.0
    for c in range(len(book.held.amounts)):
        room.kept_assets[c] = book.held.amounts[c]
        book.held.amounts[c] = 0.0


def show_others(book: Book, room: Room) -> None:
    """Bring back what :func:`hide_others` left out."""
    for j in range(len(book.margin)):
        book.held.quantities[j] = room.hidden[j]
    for c in range(len(book.held.amounts)):
        book.held.amounts[c] = room.kept_assets[c]
