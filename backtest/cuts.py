"""Where a market is cut to see whether columns look ahead: chosen by its content, not by chance.

A cut is a bar after which the market ends. Some are drawn evenly; the others come right before a
large move, where a column changes, or where a day ends: what looks ahead now and then does it there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import cycle
from typing import Literal, TypeAlias

import numpy as np

from backtest.market import Market
from backtest.units import DAY, FloatArray, IntArray

Kind: TypeAlias = Literal["any", "move", "change", "day"]

ORDER: tuple[Kind, ...] = ("any", "move", "change", "day", "any", "change", "move", "any")
"""What cuts are chosen by, in turn."""
SAMPLED = 4096
"""Places that are looked at to choose one: all of a short range, an even draw of a long one."""
LARGE = 0.01
"""The share of moves that count as large."""


class Places:
    """Draws the places of cuts, the same ones for the same market and columns.

    Parameters
    ----------
    market : Market
        Its closes seed the draws.
    columns : mapping of str to FloatArray of shape (n_bars,)
        What the policy observes on all of it.
    """

    def __init__(self, market: Market, columns: Mapping[str, FloatArray]) -> None:
        digest = hashlib.sha256(market.close.data).digest()
        self.rng = np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))
        self.market = market
        self.columns = cycle(columns.values())
        self.kinds = cycle(ORDER)

    def draw(self, low: int, high: int, kind: Kind | None = None) -> int:
        """Return a cut from low to high, both included, of the next kind where there is one.

        A cut c leaves the bars before c: its last row is c - 1, the next bar would be c.
        """
        if high <= low:
            return low
        kind = kind or next(self.kinds)
        cuts = self._list(low, high)
        found = self._find(kind, cuts)
        return int(self.rng.choice(found if len(found) else cuts))

    def _list(self, low: int, high: int) -> IntArray:
        if high - low < SAMPLED:
            return np.arange(low, high + 1)
        return self.rng.integers(low, high + 1, SAMPLED)

    def _find(self, kind: Kind, cuts: IntArray) -> IntArray:
        """Return those of some cuts that are of a kind."""
        if kind == "any":
            return cuts
        inner = cuts[(cuts > 1) & (cuts < self.market.n_bars)]
        if len(inner) == 0:
            return inner
        if kind == "move":
            close = self.market.close
            moves = np.abs(close[inner] / close[inner - 1] - 1.0)
            return inner[np.argsort(-moves, kind="stable")[: max(1, int(LARGE * len(inner)))]]
        if kind == "day":
            days = self.market.time // DAY
            return inner[days[inner] != days[inner - 1]]
        return self._find_changes(inner, next(self.columns))

    @staticmethod
    def _find_changes(cuts: IntArray, column: FloatArray) -> IntArray:
        """Return the cuts whose last row has another value than the row before it.

        Of a column with few values, those where it takes the rarer one.
        """
        now, before = column[cuts - 1], column[cuts - 2]
        changed = cuts[(now != before) & ~(np.isnan(now) & np.isnan(before))]
        values = column[changed - 1]
        rare = np.abs(values) > np.median(np.abs(column[cuts - 1]))
        return changed[rare] if 0 < rare.sum() < len(changed) else changed
