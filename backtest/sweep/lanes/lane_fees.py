"""Fee tiers of lanes: each lane's own volume chooses its rates, from one UTC day to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from backtest.engine.bar_loop import DONE
from backtest.engine.fee_days import ROUNDING, WINDOW
from backtest.sweep.lanes.lane_loop import advance_block
from backtest.sweep.lanes.lane_rows import (
    FEE,
    LANES,
    TAKER,
    TRADED,
    BlockArrays,
    Cursor,
    Setup,
    cell,
)

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray


class LaneFees(NamedTuple):
    """The fee tiers of a block, and what its lanes have traded by day.

    ``day`` of shape (n_bars,) is the UTC day of each bar. ``tiers`` of shape (n_tiers, 3) has
    volume, taker and maker rate; ``first`` of shape (3, LANES) the taker and maker rates below the
    first tier and the maker share. ``past`` of shape (WINDOW, LANES) is what was traded on the days
    before the current one, a ring. ``now`` has the current day and the oldest row of the ring.
    ``begun`` and ``volume`` of shape (LANES,) are what the lanes had traded when the day began, and
    their volume of the days before it.
    """

    day: IntArray
    tiers: FloatArray
    first: FloatArray
    past: FloatArray
    now: IntArray
    begun: FloatArray
    volume: FloatArray


def advance_days(
    setup: Setup,
    arrays: BlockArrays,
    fees: LaneFees,
    live: Any,
    decide: Any,
    at: Cursor,
    start: int,
    stop: int,
) -> tuple[Cursor, int, int]:
    t, why = start, DONE
    while t < stop and why == DONE:
        begin_day(fees, arrays.block, t)
        end = find_day_end(fees.day, t, stop)
        at, t, why = advance_block(setup, arrays, live, decide, at, t, end)
    return at, t, why


def find_day_end(day: IntArray, t: int, stop: int) -> int:
    end = t + 1
    while end < stop and day[end] == day[t]:
        end += 1
    return end


def begin_day(fees: LaneFees, block: FloatArray, t: int) -> None:
    passed = min(fees.day[t] - fees.now[0], WINDOW + 1)
    if passed > 0:
        end_day(fees, block, passed)
        fees.now[0] = fees.day[t]
    for i in range(LANES):
        volume = fees.volume[i] * (1.0 + ROUNDING)
        taker, maker, share = fees.first[0, i], fees.first[1, i], fees.first[2, i]
        for k in range(len(fees.tiers)):
            if volume >= fees.tiers[k, 0]:
                taker, maker = fees.tiers[k, 1], fees.tiers[k, 2]
        block[cell(TAKER, i)] = taker
        block[cell(FEE, i)] = taker * (1.0 - share) + maker * share


def end_day(fees: LaneFees, block: FloatArray, passed: int) -> None:
    row = fees.now[1]
    for i in range(LANES):
        traded = block[cell(TRADED, i)]
        fees.past[row, i] = traded - fees.begun[i]
        fees.begun[i] = traded
    for k in range(1, passed):
        fees.past[(row + k) % WINDOW, :] = 0.0
    oldest = (row + passed) % WINDOW
    fees.now[1] = oldest
    fees.volume[:] = 0.0
    add_days(fees, oldest, WINDOW)
    add_days(fees, 0, oldest)


def add_days(fees: LaneFees, first: int, stop: int) -> None:
    for k in range(first, stop):
        for i in range(LANES):
            fees.volume[i] += fees.past[k, i]
