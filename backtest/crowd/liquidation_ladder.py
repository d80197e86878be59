"""The ladder of liquidations: what is sold or bought at which price, and where a cascade ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import FloatArray
from backtest.base.units import TOLERANCE

if TYPE_CHECKING:
    from backtest.crowd.impact import ImpactCurve


class Ladder(NamedTuple):
    """One side of a crowd in the order of its liquidation.

    ``distance`` is the adverse move of each rung as a fraction of the price now, rising; longs fail
    on a fall, shorts on a rise. ``forced`` is the cumulative notional at the price now.
    """

    distance: FloatArray
    forced: FloatArray


class LadderEnd(NamedTuple):
    """The end of a one-sided cascade.

    ``move`` is the adverse move in all, a fraction of the price before; ``forced`` the notional
    liquidated and ``accounts`` the number of rungs. ``roots`` are all moves at which the market
    clears, the nearest first. ``reproduction`` is the notional forced by the impact of the rungs
    that the shock itself reaches, per unit of theirs; NaN if it reaches none.
    """

    move: float
    forced: float
    accounts: int
    roots: FloatArray
    reproduction: float


def build_ladder(
    liquidation: FloatArray, notional: FloatArray, price: float, *, is_long: bool
) -> Ladder:
    side = 1.0 if is_long else -1.0
    rows = (side * notional > 0.0) & ~np.isnan(liquidation)
    distance = side * (1.0 - liquidation[rows] / price)
    order = np.argsort(distance, kind="stable")
    return Ladder(distance[order], np.cumsum(np.abs(notional[rows][order])))


def sweep_ladder(ladder: Ladder, shock: float, curve: ImpactCurve) -> LadderEnd:
    """Return where a one-sided cascade ends.

    ``shock`` is the adverse move that starts it, a positive fraction. With k rungs liquidated the
    move is ``shock + fall(Q_k)``; the cascade ends at the first k whose next rung lies farther.
    """
    forced = np.concatenate(([0.0], ladder.forced))
    move = shock + curve.fall(forced)
    slack = TOLERANCE * (1.0 + np.abs(ladder.distance))
    is_reached = ladder.distance <= move[:-1] + slack  # the next rung, given those before
    ends = np.flatnonzero(~np.append(is_reached, False))
    held = np.append(True, ladder.distance <= move[1:] + slack)  # the last rung liquidated
    ends = ends[held[ends]]
    first = int(ends[0])
    return LadderEnd(
        move=float(move[first]),
        forced=float(forced[first]),
        accounts=first,
        roots=np.asarray(move[ends]),
        reproduction=measure_reproduction(ladder, forced, shock, curve),
    )


def measure_reproduction(
    ladder: Ladder, forced: FloatArray, shock: float, curve: ImpactCurve
) -> float:
    first = forced[np.searchsorted(ladder.distance, shock * (1.0 + TOLERANCE), side="right")]
    if first == 0.0:
        return np.nan
    reach = shock + float(curve.fall(first))
    both = forced[np.searchsorted(ladder.distance, reach * (1.0 + TOLERANCE), side="right")]
    return float((both - first) / first)


def tabulate_ladder(
    liquidation: FloatArray, notional: FloatArray, price: float, bins: int, span: float
) -> pd.DataFrame:
    edges = price * np.linspace(max(1.0 - span, 0.0), 1.0 + span, bins + 1)
    known = ~np.isnan(liquidation)
    found = {}
    for name, side in (("long", 1.0), ("short", -1.0)):
        rows = known & (side * notional > 0.0)
        weights = np.abs(notional[rows])
        found[name] = np.histogram(liquidation[rows], edges, weights=weights)[0]
    middle = 0.5 * (edges[:-1] + edges[1:])
    below = middle < price
    falling = np.cumsum(np.where(below, found["long"], 0.0)[::-1])[::-1]
    rising = np.cumsum(np.where(below, 0.0, found["short"]))
    cumulative = np.where(below, falling, rising)
    return pd.DataFrame({**found, "cumulative": cumulative}, index=pd.Index(middle, name="price"))
