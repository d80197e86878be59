"""Roots of concave, piecewise linear functions."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise

from tests.oracle.numbers import ONE, ZERO

STRAIGHT = Decimal("1e-28")  # of the size of a function: its middle is on the chord
JUMP = Decimal("1e-20")  # after an edge

Function = Callable[[Decimal], Decimal]


def find_fall(test: Function, low: Decimal, high: Decimal) -> Decimal:
    """The one root of a concave function that is > 0 at low and <= 0 at high.

    The interval is halved until the function is straight on it; then the chord has the root.
    Concave and equal to its chord in the middle is equal to it everywhere.
    """
    at_low, at_high = test(low), test(high)
    while True:
        middle = (low + high) / 2
        at_middle = test(middle)
        size = abs(at_low) + abs(at_high) + abs(at_middle)
        is_straight = abs(at_middle - (at_low + at_high) / 2) <= STRAIGHT * size
        if is_straight or high - low < STRAIGHT:
            return low + (high - low) * at_low / (at_low - at_high)
        if at_middle > 0:
            low, at_low = middle, at_middle
        else:
            high, at_high = middle, at_middle


def largest_passing(test: Function, edges: Sequence[Decimal] = ()) -> Decimal | None:
    """The largest f of [0, 1] at which a function is >= 0, or None.

    It is concave between the edges, after which it may jump.
    """
    ends = sorted({ZERO, ONE, *(edge for edge in edges if 0 < edge < 1)})
    for left, right in reversed(list(pairwise(ends))):
        if test(right) >= 0:
            return right
        after = left + (right - left) * JUMP if left > 0 else left
        start = after if test(after) >= 0 else find_high(test, after, right)
        if start is not None:
            return find_fall(test, start, right) if test(start) > 0 else start
    return None


def find_high(test: Function, low: Decimal, high: Decimal) -> Decimal | None:
    """A place where a concave function is >= 0, though at no end, by thirds; None without one."""
    for _ in range(160):
        third = (high - low) / 3
        left, right = test(low + third), test(high - third)
        if max(left, right) >= 0:
            return low + third if left >= 0 else high - third
        at_low, at_high = test(low), test(high)
        size = abs(at_low) + abs(at_high)
        if abs(left - (2 * at_low + at_high) / 3) <= STRAIGHT * size:
            return None  # straight
        low, high = (low + third, high) if left < right else (low, high - third)
    return None


def find_signs(nets: Callable[[Decimal], Mapping[str, Decimal]]) -> list[Decimal]:
    """Where linear functions of [0, 1] change their signs."""
    first, last = nets(ZERO), nets(ONE)
    pairs = [(first.get(name, ZERO), last.get(name, ZERO)) for name in {**first, **last}]
    return [a / (a - b) for a, b in pairs if a * b < 0]
