"""When the bars and settlements of paths are, and which rows of history they may repeat."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backtest.base import DataError, FloatArray, IntArray, ParameterError, format_duration
from backtest.base.units import DAY, MINUTE
from backtest.market import Market, cadence

WEEK = 7 * DAY
RECENT_WEEKS = 8
"""Weeks whose bars say when the sessions of a week are."""
LAST_TIME = int(np.iinfo(np.int64).max) - 2 * WEEK


class FundingGrid(NamedTuple):
    """The settlements to come: every so many ns, at ``anchor`` plus multiples of it."""

    every: int
    anchor: int

    def find(self, start: int, end: int) -> IntArray:
        """Return the stamps from ``start`` up to but not including ``end``, ns."""
        first = -((self.anchor - start) // self.every)
        last = -((self.anchor - end) // self.every)
        return self.anchor + self.every * np.arange(first, last, dtype=np.int64)


class PathCalendar(NamedTuple):
    """The bars of a path, from the last one of history on, and their settlements.

    ``time`` (width,) are opens in ns. ``stamps`` (n_stamps,) are settlements, in ns, ``stamp_bar``
    the bar of the path that each falls into and ``stamp_order`` its place among those of the bar.
    ``phases`` (width,) are the phases of the bars, ``row_phases`` (n_rows,) those of the bars of
    history, -1 for a row that no bar may repeat. ``earned_bar`` is the last bar of the interval
    that each stamp settles, ``earned_order`` its place among those of that bar.
    """

    time: IntArray
    stamps: IntArray
    stamp_bar: IntArray
    stamp_order: IntArray
    earned_bar: IntArray
    earned_order: IntArray
    phases: IntArray
    row_phases: IntArray
    grid: FundingGrid | None


def plan_calendar(
    history: Market, horizon: int, grid: FundingGrid | None, every: int
) -> PathCalendar:
    """Return the calendar of paths that continue a market for a time in ns.

    ``grid`` holds the settlements of paths, None without any. Phases repeat after ``every`` ns.
    """
    check_end(history, horizon)
    time = plan_sessions(history, horizon) if history.sessions else plan_bars(history, horizon)
    stamps = np.empty(0, np.int64)
    if grid is not None and len(time) > 1:
        stamps = grid.find(int(time[1]), int(time[-1]) + history.interval)
    bar = np.searchsorted(time, stamps, side="right") - 1
    order = np.arange(len(stamps)) - np.searchsorted(bar, bar)
    earned, earned_order = find_last_bars(time, stamps)
    phases, row_phases = find_phases(history, time, every)
    row_phases[0] = -1  # its last close is not known
    missing = set(np.unique(phases[1:]).tolist()) - set(np.unique(row_phases).tolist())
    if missing:
        raise DataError(
            "history must have a bar for each phase of the funding interval or the week, "
            f"{len(missing)} have none in {history!r}"
        )
    return PathCalendar(
        time=time,
        stamps=stamps,
        stamp_bar=bar,
        stamp_order=order,
        earned_bar=earned,
        earned_order=earned_order,
        phases=phases,
        row_phases=row_phases,
        grid=grid,
    )


def check_end(history: Market, horizon: int) -> None:
    if history.end + horizon > LAST_TIME:
        raise ParameterError(
            f"horizon must end before the year 2262, got {format_duration(horizon)}"
        )


def find_last_bars(time: IntArray, stamps: IntArray) -> tuple[IntArray, IntArray]:
    bar = np.searchsorted(time, stamps, side="left") - 1
    return bar, np.arange(len(stamps)) - np.searchsorted(bar, bar)


def plan_bars(history: Market, horizon: int) -> IntArray:
    n = horizon // history.interval
    check_horizon(n, history, horizon)
    return int(history.time[-1]) + history.interval * np.arange(n + 1, dtype=np.int64)


def plan_sessions(history: Market, horizon: int) -> IntArray:
    last = int(history.time[-1])
    usual = find_week(history)
    weeks = np.arange(last // WEEK, (last + horizon) // WEEK + 2, dtype=np.int64) * WEEK
    opens = (weeks[:, None] + usual[None, :]).ravel()
    end = last + history.interval + horizon
    ahead = opens[(opens > last) & (opens + history.interval <= end)]
    check_horizon(len(ahead), history, horizon)
    return np.concatenate([[last], ahead]).astype(np.int64)


def find_week(history: Market) -> IntArray:
    """Return the times of the week at which bars open in at least half of the last weeks, ns."""
    if history.interval > DAY:
        return np.array([int(history.time[-1]) % WEEK], dtype=np.int64)
    recent = history.time[history.time > history.time[-1] - RECENT_WEEKS * WEEK]
    weeks = len(np.unique(recent // WEEK))
    found, counts = np.unique(recent % WEEK, return_counts=True)
    return np.asarray(found[counts >= 0.5 * weeks], dtype=np.int64)


def check_horizon(n_bars: int, history: Market, horizon: int) -> None:
    if n_bars < 1:
        raise ParameterError(
            f"horizon must be at least one bar of {format_duration(history.interval)}, "
            f"got {format_duration(horizon)}"
        )


def find_grid(history: Market) -> FundingGrid | None:
    if not history.funding_time.size:
        return None
    recent = history.funding_time[-100:]
    last = int(history.funding_time[-1])
    return FundingGrid(cadence(recent), (last + MINUTE // 2) // MINUTE * MINUTE)


def find_period(history: Market, grid: FundingGrid | None) -> int:
    """Return the time in ns between settlements that fall on the open of a bar."""
    return math.lcm(history.interval if grid is None else grid.every, history.interval)


def find_phases(history: Market, time: IntArray, every: int) -> tuple[IntArray, IntArray]:
    if history.sessions and history.interval <= DAY:
        usual = find_week(history)
        known = {int(each): k for k, each in enumerate(usual)}
        both = (
            [known.get(int(each) % WEEK, -1) for each in times] for times in (time, history.time)
        )
        ahead, rows = (np.array(each, dtype=np.int64) for each in both)
        return np.maximum(ahead, 0), rows
    n = every // history.interval
    anchor = int(time[0])
    return (time - anchor) // history.interval % n, (history.time - anchor) // history.interval % n


def sum_settled(history: Market, grid: FundingGrid, n_orders: int) -> FloatArray:
    """Return the rates that each bar of history settles on a grid, of shape (n_orders, n_bars)."""
    stamps = grid.find(int(history.time[0]), int(history.time[-1]) + history.interval)
    bar = np.searchsorted(history.time, stamps, side="right") - 1
    order = np.arange(len(stamps)) - np.searchsorted(bar, bar)
    snapped = (history.funding_time + MINUTE // 2) // MINUTE * MINUTE
    slot = np.searchsorted(stamps, snapped)
    kept = slot < len(stamps)
    sums = np.bincount(slot[kept], history.funding_rate[kept], minlength=len(stamps))
    rates = np.zeros((max(n_orders, 1), history.n_bars))
    used = order < len(rates)
    rates[order[used], bar[used]] = sums[used]
    return rates
