"""Exact numbers: of floats, of durations, of series by time, and the value of a contract."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

DIGITS = 40
ZERO = Decimal(0)
ONE = Decimal(1)
INFINITY = Decimal("Infinity")
TIE = Decimal("1e-12")  # §2: in favor of the event
LOT_TOLERANCE = Decimal("1e-6")  # §4.5, in lots
NOTHING_LEFT = Decimal("1e-9")  # §5: of the capital paid in
REMAINDER = Decimal("1e-9")  # a partial liquidation that leaves less closes whole
WORST = Decimal("0.99")  # slippage and impact together
DUST = Decimal("1e-18")  # of the capital at the start: no order
EXACT = Decimal("1e-28")  # the identity of §6
DAY = 86_400_000_000_000


def exact(number: float) -> Decimal:
    return Decimal(float(number))


def decimals(values: Iterable[float]) -> list[Decimal]:
    floats = values.tolist() if isinstance(values, np.ndarray) else values
    return [exact(value) for value in floats]


def nanoseconds(duration: str | int) -> int:
    """Return "60s" or "1d" in nanoseconds."""
    if isinstance(duration, str):
        return int(pd.Timedelta(duration.replace("d", "D")).as_unit("ns").value)
    return int(duration)


def stamps_of(series: pd.Series) -> list[int]:
    """Return the UTC index of a series in nanoseconds."""
    return [int(stamp) for stamp in pd.DatetimeIndex(series.index).as_unit("ns").asi8]


def per_name(setting: Any, name: str, default: Any = None) -> Any:
    """Return a setting of the account that may be given by instrument."""
    return setting.get(name, default) if isinstance(setting, Mapping) else setting


class AsOf:
    """A scalar or a series by UTC time, read as of a stamp: the last value at or before it."""

    def __init__(self, value: float | pd.Series) -> None:
        is_series = isinstance(value, pd.Series)
        self.stamps = stamps_of(value) if is_series else []
        self.values = decimals(value.to_numpy()) if is_series else [exact(value)]

    def __call__(self, stamp: int) -> Decimal:
        if not self.stamps:
            return self.values[0]
        position = bisect_right(self.stamps, stamp) - 1
        if position < 0:
            raise AssertionError(f"no value at or before {stamp}")
        return self.values[position]


@dataclass(frozen=True)
class Contract:
    """§1: what one contract is worth, and the way back."""

    is_linear: bool
    size: Decimal

    def value(self, price: Decimal) -> Decimal:
        """u(P): m·P, or -m/P."""
        return self.size * price if self.is_linear else -self.size / price

    def price(self, value: Decimal) -> Decimal:
        return value / self.size if self.is_linear else -self.size / value


# ---------------------------------------------------- roots of concave, piecewise linear functions
STRAIGHT = Decimal("1e-28")  # of the size of a function: its middle is on the chord
JUMP = Decimal("1e-20")  # after an edge
Function = Callable[[Decimal], Decimal]


def find_fall(test: Function, low: Decimal, high: Decimal) -> Decimal:
    """The one root of a concave function that is > 0 at low and <= 0 at high. The interval is
    halved until the function is straight on it; then the chord has the root. Concave and equal to
    its chord in the middle is equal to it everywhere."""
    at_low = test(low)
    at_high = test(high)
    while True:
        middle = (low + high) / 2
        at_middle = test(middle)
        size = abs(at_low) + abs(at_high) + abs(at_middle)
        is_straight = abs(at_middle - (at_low + at_high) / 2) <= STRAIGHT * size
        if is_straight or high - low < STRAIGHT:
            return low + (high - low) * at_low / (at_low - at_high)
        if at_middle > 0:
            low = middle
            at_low = at_middle
        else:
            high = middle
            at_high = at_middle


def largest_passing(test: Function, edges: Sequence[Decimal] = ()) -> Decimal | None:
    """The largest f of [0, 1] at which a function is >= 0, or None. It is concave between the
    edges, after which it may jump."""
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
        left = test(low + third)
        right = test(high - third)
        if max(left, right) >= 0:
            return low + third if left >= 0 else high - third
        at_low = test(low)
        at_high = test(high)
        size = abs(at_low) + abs(at_high)
        if abs(left - (2 * at_low + at_high) / 3) <= STRAIGHT * size:
            return None  # straight
        low, high = (low + third, high) if left < right else (low, high - third)
    return None


def find_signs(nets: Callable[[Decimal], Mapping[str, Decimal]]) -> list[Decimal]:
    """Where linear functions of [0, 1] change their signs."""
    first = nets(ZERO)
    last = nets(ONE)
    pairs = [(first.get(name, ZERO), last.get(name, ZERO)) for name in {**first, **last}]
    return [a / (a - b) for a, b in pairs if a * b < 0]


# ----------------------------------------------------------- linear programs by the simplex method
LEAST = Decimal("1e-26")  # that counts as over 0


class Program:
    """The least cost of columns, at least 0, whose rows are at most some amounts."""

    def __init__(self) -> None:
        self.amounts: dict[Any, Decimal] = {}
        self.costs: dict[Any, Decimal] = {}
        self.columns: list[tuple[dict[Any, Decimal], Decimal]] = []

    def limit(self, row: Any, amount: Decimal, cost: Decimal = ZERO) -> None:
        """A row that is at most an amount, with the cost of each unit that is left of it."""
        self.amounts[row], self.costs[row] = amount, cost

    def add(self, rows: dict[Any, Decimal], cost: Decimal) -> None:
        """A column; unknown rows are at most 0."""
        for row in rows:
            if row not in self.amounts:
                self.limit(row, ZERO)
        self.columns.append((rows, cost))

    def least(self) -> Decimal:
        rows = list(self.amounts)
        n = len(self.columns)
        m = len(rows)
        table = [
            [column.get(row, ZERO) for column, _ in self.columns]
            + [ONE if r == k else ZERO for k in range(m)]
            + [self.amounts[row]]
            for r, row in enumerate(rows)
        ]
        costs = [cost for _, cost in self.columns] + [self.costs[row] for row in rows] + [ZERO]
        for r, row in enumerate(rows):
            costs = subtract(costs, self.costs[row], table[r])
        least = -LEAST * (ONE + max(map(abs, costs)))
        basis = [n + r for r in range(m)]
        while (entering := next((c for c in range(n + m) if costs[c] < least), None)) is not None:
            leaving = choose_row(table, basis, entering)
            pivot = table[leaving][entering]
            table[leaving] = [x / pivot for x in table[leaving]]
            for r in range(m):
                if r != leaving:
                    table[r] = subtract(table[r], table[r][entering], table[leaving])
            costs = subtract(costs, costs[entering], table[leaving])
            basis[leaving] = entering
        return -costs[-1]


def subtract(row: list[Decimal], factor: Decimal, other: list[Decimal]) -> list[Decimal]:
    if not factor:
        return row
    # Most entries of a table are 0.
    return [a - factor * b if b else a for a, b in zip(row, other, strict=True)]


def choose_row(table: list[list[Decimal]], basis: list[int], entering: int) -> int:
    """The row that limits a column first, of equal ones that of the first basic column."""
    ratios = [
        (max(row[-1], ZERO) / row[entering], basis[r], r)
        for r, row in enumerate(table)
        if row[entering] > LEAST
    ]
    return min(ratios)[2]
