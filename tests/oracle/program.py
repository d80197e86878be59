"""Linear programs by the simplex method, in decimals."""

from decimal import Decimal
from typing import Any

from tests.oracle.numbers import ONE, ZERO

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
        """The simplex method by Bland's rule, which does not cycle."""
        rows, n = list(self.amounts), len(self.columns)
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
    """A row less a multiple of another."""
    return [a - factor * b for a, b in zip(row, other, strict=True)] if factor else row


def choose_row(table: list[list[Decimal]], basis: list[int], entering: int) -> int:
    """The row that limits a column first, of equal ones that of the first basic column."""
    ratios = [
        (max(row[-1], ZERO) / row[entering], basis[r], r)
        for r, row in enumerate(table)
        if row[entering] > LEAST
    ]
    return min(ratios)[2]
