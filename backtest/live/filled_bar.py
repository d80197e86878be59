"""What became of the decisions in the bar after the last close."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.account import ledger
from backtest.account.portfolio_ledger import RESTED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backtest.base import FloatArray, IntArray
    from backtest.policy import AccountView

CAPACITY = 4_096
"""Entries that the log of one bar may have."""
OWNER = 8
ORDERS = (ledger.FILL, ledger.TIME_STOPPED)
"""Kinds of entries that are orders to send: no venue knows ``max_holding``."""
FORCED = (*(kind for kind in ledger.STOP_KINDS if kind not in ORDERS), ledger.LIQUIDATED)


class Filled(NamedTuple):
    """The bar after the last close: its events, and the account at its close.

    ``cuts`` has, for each instrument, the leverage that was asked for and the amount that each
    limit took away from it; None where no decision reached a fill.
    """

    entries: FloatArray
    views: tuple[AccountView, ...]
    equity: float
    cuts: tuple[CutsOfOne | None, ...]

    def sum_fills(self, i: int) -> float:
        """Return the contracts that an instrument trades by order, or rests for."""
        return float(sum(self._find_orders(i)[:, 3].tolist()))

    def find_value(self, i: int) -> float:
        """Return the value u at which the order of an instrument fills, NaN without one."""
        rows = self._find_orders(i)
        traded = rows[rows[:, 3] != 0.0]
        return float(traded[-1, 2]) if len(traded) else float("nan")

    def sum_costs(self, i: int) -> dict[str, float]:
        """Return the costs of the order of an instrument."""
        rows = self._of(i)
        filled = rows[np.isin(rows[:, 1], ORDERS)]
        names = ("fee", "slippage", "impact")
        return {name: float(filled[:, 5 + k].sum()) for k, name in enumerate(names)}

    def is_forced(self, i: int) -> bool:
        """Return whether a stop or a liquidation acts on an instrument in this bar."""
        return bool(np.isin(self._of(i)[:, 1], FORCED).any())

    def _find_orders(self, i: int) -> FloatArray:
        """Return the fills of the decision; of a limit order what it rests for, filled or not."""
        rows = self._of(i)
        resting = np.flatnonzero(rows[:, 1] == RESTED)
        last = resting[0] if len(resting) else len(rows)
        at_market = np.flatnonzero(np.isin(rows[:last, 1], ORDERS))
        return np.asarray(rows[np.concatenate([at_market, resting])])

    def _of(self, i: int) -> FloatArray:
        rows = self.entries
        return rows if rows.shape[1] <= OWNER else rows[rows[:, OWNER] == i]


class CutsOfOne(NamedTuple):
    """The leverage asked for and held after the fill, and what each limit that bound took away."""

    asked: float
    held: float
    cuts: Mapping[str, float]


def pick_cuts(found: Any, whose: IntArray, t: int, n: int) -> tuple[CutsOfOne | None, ...]:
    """Return the cuts of the decisions that fill in bar t, by instrument."""
    picked: list[CutsOfOne | None] = [None] * n
    for row in np.flatnonzero(found.bar == t).tolist():
        own = {name: float(cut[row]) for name, cut in found.cuts.items() if cut[row] != 0.0}
        asked, held = float(found.asked[row]), float(found.held[row])
        picked[int(whose[row])] = CutsOfOne(asked, held, own)
    return tuple(picked)
