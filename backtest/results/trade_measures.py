"""Trades of an account in one instrument: round trips, or lots, with their costs and measures.

Values are u, those of one contract in the settlement currency. All trades end: what is open at the
end is closed by a last row of the fills, at the last mark and without costs.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backtest.core import BoolArray, FloatArray, IntArray

FLAT = 1e-10
"""The largest rest of a trade, as a fraction of it, that is rounding: the position is closed."""


class Turns(NamedTuple):
    """Trades split into what they close and what they open, arrays of shape (n_trades,)."""

    quantity: FloatArray
    before: FloatArray
    after: FloatArray
    closed: FloatArray
    opened: FloatArray

    @property
    def starts(self) -> BoolArray:
        found: BoolArray = (self.opened > 0.0) & ((self.before == 0.0) | (self.closed > 0.0))
        return found

    @property
    def shares(self) -> tuple[FloatArray, FloatArray]:
        size = np.abs(self.quantity)
        return self.closed / size, self.opened / size


def split_trades(quantity: FloatArray) -> Turns:
    after, held = np.empty(len(quantity)), 0.0
    for k, traded in enumerate(quantity.tolist()):
        total = held + traded
        held = 0.0 if abs(total) <= FLAT * max(abs(traded), abs(held)) else total
        after[k] = held
    before = np.concatenate(([0.0], after))[:-1]
    is_kept = before * after > 0.0
    change = np.abs(after) - np.abs(before)
    closed = np.where(is_kept, np.maximum(-change, 0.0), np.abs(before))
    opened = np.where(is_kept, np.maximum(change, 0.0), np.abs(after))
    return Turns(quantity, before, after, closed, opened)


def match_first_in(turns: Turns) -> tuple[IntArray, IntArray, FloatArray]:
    """Return the rows that opened and closed each lot, and its contracts, of shape (n_lots,)."""
    lots = deque[tuple[int, float]]()
    found: list[tuple[int, int, float]] = []
    is_whole = (turns.after == 0.0) | (turns.opened > 0.0)
    rows = zip(turns.closed.tolist(), turns.opened.tolist(), is_whole.tolist(), strict=True)
    for k, (closed, opened, closes_all) in enumerate(rows):
        rest = closed
        while lots and rest > 0.0:
            lot, left = lots.popleft()
            taken = left if closes_all or left <= rest * (1.0 + FLAT) else rest
            found.append((lot, k, taken))
            rest -= taken
            if taken < left:
                lots.appendleft((lot, left - taken))
        if opened > 0.0:
            lots.append((k, opened))
    columns = np.array(found, dtype=np.float64).reshape(-1, 3).T
    return columns[0].astype(np.int64), columns[1].astype(np.int64), columns[2]


TradeView: TypeAlias = Literal["trip", "fifo"]


class Fills(NamedTuple):
    """Fills of one instrument, arrays of shape (n_fills,), and the funding between them.

    ``costs`` are those of :data:`backtest.account.money.FILL_COSTS`, by name.
    """

    turns: Turns
    value: FloatArray
    costs: Mapping[str, FloatArray]
    loss: FloatArray
    funding: FloatArray
    rate: FloatArray


class TradeRows(NamedTuple):
    entry: IntArray
    exit: IntArray
    side: FloatArray
    quantity: FloatArray
    entry_value: FloatArray
    exit_value: FloatArray
    gain: FloatArray
    costs: Mapping[str, FloatArray]
    loss: FloatArray
    funding: FloatArray


def list_trades(fills: Fills, view: TradeView) -> TradeRows:
    return list_trips(fills) if view == "trip" else list_lots(fills)


def list_trips(fills: Fills) -> TradeRows:
    turns, starts = fills.turns, fills.turns.starts
    after = np.cumsum(starts) - 1
    before, n = after - starts, int(starts.sum())
    is_closing, closes, opens = turns.closed > 0.0, *turns.shares
    is_held = turns.before != 0.0

    def sum_parts(of_closing: FloatArray, of_opening: FloatArray) -> FloatArray:
        found = np.bincount(after, of_opening, n).astype(np.float64)
        found += np.bincount(before[is_held], of_closing[is_held], n)
        return found

    def sum_costs(cost: FloatArray) -> FloatArray:
        return sum_parts(cost * closes, cost * opens)

    nothing, last = np.zeros(len(after)), np.zeros(n, dtype=np.int64)
    last[before[is_closing]] = np.flatnonzero(is_closing)
    quantity, side = sum_parts(nothing, turns.opened), np.sign(turns.after[starts])
    paid = sum_parts(nothing, turns.opened * fills.value)
    received = sum_parts(turns.closed * fills.value, nothing)
    return TradeRows(
        entry=np.flatnonzero(starts),
        exit=last,
        side=side,
        quantity=quantity,
        entry_value=paid / quantity,
        exit_value=received / quantity,
        gain=side * (received - paid),
        costs={name: sum_costs(cost) for name, cost in fills.costs.items()},
        loss=sum_parts(fills.loss, nothing),
        funding=sum_parts(fills.funding, nothing),
    )


def list_lots(fills: Fills) -> TradeRows:
    turns = fills.turns
    entry, exit_, contracts = match_first_in(turns)
    part_in = contracts / np.abs(turns.quantity[entry])
    part_out = contracts / np.abs(turns.quantity[exit_])
    side, total = np.sign(turns.after[entry]), np.cumsum(fills.rate)

    def share(cost: FloatArray) -> FloatArray:
        return cost[entry] * part_in + cost[exit_] * part_out

    return TradeRows(
        entry=entry,
        exit=exit_,
        side=side,
        quantity=contracts,
        entry_value=fills.value[entry],
        exit_value=fills.value[exit_],
        gain=side * contracts * (fills.value[exit_] - fills.value[entry]),
        costs={name: share(cost) for name, cost in fills.costs.items()},
        loss=fills.loss[exit_] * part_out,
        funding=contracts * (total[exit_] - total[entry]),
    )


def measure_trades(profit: FloatArray, days: FloatArray) -> dict[str, float]:
    """Return the measures of closed trades, in the order in which they ended.

    ``profit`` (n_trades,) is after costs, in the settlement currency, ``days`` how long each was
    held.
    """
    wins, losses = profit[profit > 0.0], profit[profit < 0.0]
    lost = -float(losses.sum())
    return {
        "trades": float(len(profit)),
        "win_rate": len(wins) / len(profit) if len(profit) else math.nan,
        "profit_factor": float(wins.sum()) / lost if lost > 0.0 else math.nan,
        "expectancy": average(profit),
        "mean_win": average(wins),
        "mean_loss": average(losses),
        "best": float(profit.max()) if len(profit) else math.nan,
        "worst": float(profit.min()) if len(profit) else math.nan,
        "longest_losing_run": float(count_longest(profit)),
        "mean_days": average(days),
    }


def average(values: FloatArray) -> float:
    return float(values.mean()) if len(values) else math.nan


def count_longest(profit: FloatArray) -> int:
    ends = np.concatenate(([-1], np.flatnonzero(~(profit < 0.0)), [len(profit)]))
    return int(np.diff(ends).max()) - 1


def reduce_spans(
    values: FloatArray, first: IntArray, stop: IntArray, reduce: np.ufunc
) -> FloatArray:
    found = np.full(len(first), np.nan)
    level = np.frexp(np.maximum(stop - first, 0).astype(np.float64))[1] - 1
    table = values
    for k in range(int(level.max(initial=-1)) + 1):
        if k > 0:
            table = reduce(table[: -(2 ** (k - 1))], table[2 ** (k - 1) :])
        rows = level == k
        found[rows] = reduce(table[first[rows]], table[stop[rows] - 2**k])
    return found
