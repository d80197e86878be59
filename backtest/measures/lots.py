"""Lots: what each trade opens and closes, first in first out."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from backtest.base import BoolArray, FloatArray, IntArray

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


class Pieces(NamedTuple):
    opened: IntArray
    closed: IntArray
    contracts: FloatArray


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


def match_first_in(turns: Turns) -> Pieces:
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
    return Pieces(columns[0].astype(np.int64), columns[1].astype(np.int64), columns[2])


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
