"""What a run produced: a column of each quantity, and the ledger of events."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from decimal import Context, Decimal, localcontext
from typing import Any, NamedTuple

import pandas as pd

from tests.oracle.numbers import DAY, DIGITS, ZERO, Contract, decimals, exact, stamps_of

COSTS = (
    "fees", "slippage", "impact", "funding", "interest", "expense", "liquidation_loss",
    "conversion",
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
    the costs and gains, ``top_up, initial_margin, available, realized_pnl, unrealized_pnl, ruined,
    halted``, amounts of ``collateral``; of each position ``quantity, margin, entry`` (a price, None
    when flat), ``table`` and, of a position by itself, ``liquidation_price``."""

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
        with localcontext(Context(prec=DIGITS)):
            return sum((event.amount for event in self.of_kind(kind)), ZERO)

    def count(self, kind: str) -> int:
        return len(self.of_kind(kind))

    def of_kind(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.kind == kind]


class Settlement(NamedTuple):
    """One funding event of one instrument; price is None when the data has none of its own."""

    time: int
    rank: int  # of the instrument, in the order given
    rate: Decimal
    price: Decimal | None


def settlements_of(market: Any, rank: int, jitter: int) -> Iterator[tuple[int, bool, Settlement]]:
    """§2.2: the bar of each event, whether it belongs to its open by the jitter, and the event."""
    opens = [int(stamp) for stamp in market.time]
    length = int(market.interval)
    window = min(jitter, length // 4)
    rows = zip(market.funding_time, market.funding_rate, market.funding_mark, strict=True)
    for time, rate, mark in rows:
        stamp = int(time)
        price = None if math.isnan(mark) else exact(mark)
        following = bisect_left(opens, stamp - window)
        if following < len(opens) and opens[following] <= stamp + window:
            yield following, True, Settlement(stamp, rank, exact(rate), price)
        elif following > 0 and stamp < opens[following - 1] + length - window:
            yield following - 1, False, Settlement(stamp, rank, exact(rate), price)


def flows_by_bar(clock: Sequence[int], flows: pd.Series | None) -> list[list[Decimal]]:
    """§2.1: a flow happens at the first open at or after its stamp."""
    result: list[list[Decimal]] = [[] for _ in clock]
    if flows is not None:
        for stamp, amount in sorted(
            zip(stamps_of(flows), decimals(flows), strict=True), key=lambda row: row[0]
        ):
            bar = bisect_left(clock, stamp)
            if bar < len(clock) and stamp >= clock[0]:
                result[bar].append(+amount)
    return result


def impact_statistics(market: Any, contract: Contract, window: int) -> list[tuple | None]:
    """§4.6: daily sigma and daily notional volume of the window that ends at each bar. A window of
    n bars holds the n returns and the n volumes of these bars, so that the close before it is
    needed too. None until that is known, for one return alone, and where nothing traded."""
    length = window // int(market.interval)
    bars_per_day = Decimal(DAY) / int(market.interval)
    closes = decimals(market.close)
    logs = [close.ln() for close in closes]
    pairs = zip(decimals(market.volume), closes, strict=True)
    turnover = [volume * abs(contract.value(close)) for volume, close in pairs]
    result: list[tuple | None] = []
    for last in range(len(closes)):
        first = last - length + 1
        if first < 1 or length < 2 or sum(turnover[first : last + 1]) <= 0:
            result.append(None)
            continue
        moves = [logs[i] - logs[i - 1] for i in range(first, last + 1)]
        mean = sum(moves) / len(moves)
        variance = sum((move - mean) ** 2 for move in moves) / (len(moves) - 1)
        volume = sum(turnover[first : last + 1]) / length
        result.append((variance.sqrt() * bars_per_day.sqrt(), volume * bars_per_day))
    return result
