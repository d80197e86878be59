"""What a run produced: a column of each quantity, and the ledger of events."""

from __future__ import annotations

from collections import Counter, defaultdict
from decimal import Context, Decimal, localcontext
from typing import Any, NamedTuple

from tests.oracle.numbers import DIGITS, ZERO

COSTS = (
    "fees", "slippage", "impact", "funding", "interest", "liquidation_loss", "conversion",
)  # fmt: skip
GAINS = ("price_pnl", "collateral_pnl", "flows", "bad_debt")
KIND_OF_COLUMN = {"fees": "fee"}  # the other ledger kinds are called like their column


class Event(NamedTuple):
    """One row of the ledger: its instrument ("" for the account); price None without a meaning."""

    bar: int
    kind: str
    instrument: str
    price: Decimal | None
    quantity: Decimal
    amount: Decimal


class Outcome:
    """Columns with one entry per bar, by name as attributes; of positions a tuple per bar.

    ``equity, cash, reserve, backing`` (M), ``requirement`` (level·R), ``margin_ratio``, ``traded``,
    the costs and gains, ``top_up, initial_margin, available, realized_pnl, unrealized_pnl,
    ruined, halted``, amounts of ``collateral``; of each position ``quantity, margin, entry`` (a
    price, None when flat), ``table`` and, of a position by itself, ``liquidation_price``.
    """

    def __init__(self, names: tuple[str, ...], capital: Decimal) -> None:
        self.names, self.capital = names, capital
        self.columns: dict[str, list[Any]] = defaultdict(list)
        self.events: list[Event] = []
        self.paths: Counter[str] = Counter()
        self.waits: list[Decimal] = []  # days from calls to liquidations

    def __getattr__(self, name: str) -> list[Any]:
        if name == "columns" or name not in self.columns:
            raise AttributeError(name)
        return self.columns[name]

    def alone(self) -> Outcome:
        """Return the outcome of one instrument, with numbers where there were tuples."""
        for name, rows in self.columns.items():
            if isinstance(rows[0], tuple) and name != "collateral":
                self.columns[name] = [row[0] for row in rows]
        return self

    def total(self, kind: str) -> Decimal:
        """Return the sum of the amounts of one kind of event."""
        with localcontext(Context(prec=DIGITS)):
            return sum((event.amount for event in self.of_kind(kind)), ZERO)

    def count(self, kind: str) -> int:
        """Return how many events of one kind there were."""
        return len(self.of_kind(kind))

    def of_kind(self, kind: str) -> list[Event]:
        """Return the events of one kind."""
        return [event for event in self.events if event.kind == kind]
