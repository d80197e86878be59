"""The bars of paths in time, and the rows of history that resampled paths repeat."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from backtest import _compile, core
from backtest.core.units import DAY
from backtest.market import Market
from backtest.risk import path_kernels
from backtest.risk.funding_process import FundingGrid
from backtest.risk.path_bars import MARKS, PRICES
from backtest.risk.path_kernels import LOG_STEP
from backtest.risk.path_models import Filtered

LEAST_SHARE = 1e-12
"""The least variance at which log means are tabulated, as a share of the largest."""
WEEK = 7 * DAY
RECENT_WEEKS = 8
"""Weeks whose bars say when the sessions of a week are."""


class PathCalendar(NamedTuple):
    """The bars of a path, from the last one of history on, and the stamps of settlements, in ns.

    ``phases`` (width,) are those of the bars, ``row_phases`` (n_rows,) those of the bars of
    history, -1 for a row that no bar may repeat.
    """

    time: core.IntArray
    stamps: core.IntArray
    phases: core.IntArray
    row_phases: core.IntArray


def plan_calendar(
    history: Market,
    horizon: int,
    grid: FundingGrid | None,
    every: int,
) -> PathCalendar:
    """Return the calendar of ``horizon`` ns, with phases that repeat after ``every`` ns."""
    if history.end + horizon > np.iinfo(np.int64).max - 2 * WEEK:
        raise core.ParameterError(
            f"horizon must end before the year 2262, got {core.format_duration(horizon)}"
        )
    time = list_opens(history, horizon)
    if len(time) < 2:
        raise core.ParameterError(
            f"horizon must be at least one bar of {core.format_duration(history.interval)}, "
            f"got {core.format_duration(horizon)}"
        )

    stamps = np.empty(0, np.int64)
    if grid is not None:
        stamps = grid.find(int(time[1]), int(time[-1]) + history.interval)

    if history.sessions and history.interval <= DAY:
        phases, row_phases = find_phases_of_week(history, time)
    else:
        n = every // history.interval
        anchor = int(time[0])
        phases = (time - anchor) // history.interval % n
        row_phases = (history.time - anchor) // history.interval % n
    row_phases[0] = -1  # its last close is not known

    missing = np.setdiff1d(phases[1:], row_phases)
    if len(missing):
        raise core.DataError(
            "history must have a bar for each phase of the funding interval or the week, "
            f"{len(missing)} have none in {history!r}"
        )
    return PathCalendar(time, stamps, phases, row_phases)


def list_opens(history: Market, horizon: int) -> core.IntArray:
    """Return the opens of the bars of a path, from the last one of history on, ns."""
    last = int(history.time[-1])
    if not history.sessions:
        steps = np.arange(0, horizon + 1, history.interval, dtype=np.int64)
        return last + steps

    # Of sessions, the opens of a week are repeated in each week that the path touches.
    end = last + horizon
    first_week = last // WEEK
    stop_week = end // WEEK + 2
    weeks = np.arange(first_week, stop_week, dtype=np.int64) * WEEK
    opens = (weeks[:, None] + find_week(history)).ravel()
    is_ahead = (opens > last) & (opens <= end)
    return np.concatenate([[last], opens[is_ahead]])


def find_phases_of_week(
    history: Market, time: core.IntArray
) -> tuple[core.IntArray, core.IntArray]:
    """Return the places in the week of the bars of a path, and of history, -1 outside of it."""
    week = find_week(history)
    last_place = len(week) - 1
    phases = np.searchsorted(week, time % WEEK).clip(max=last_place)

    times = history.time % WEEK
    place = np.searchsorted(week, times).clip(max=last_place)
    row_phases = np.where(week[place] == times, place, -1)
    return phases, row_phases


def find_week(history: Market) -> core.IntArray:
    """Return the times of the week at which bars open in at least half of the last weeks, ns.

    Bars of more than a day have one: that of the last bar.
    """
    time = history.time
    last = int(time[-1])
    if history.interval > DAY:
        return np.array([last % WEEK], dtype=np.int64)

    begin = last - RECENT_WEEKS * WEEK
    recent = time[time > begin]
    n_weeks = len(np.unique(recent // WEEK))
    times, counts = np.unique(recent % WEEK, return_counts=True)
    usual = times[counts >= 0.5 * n_weeks]
    return np.asarray(usual, dtype=np.int64)


class RowTable:
    """Rows of history, which resampled paths repeat.

    ``moves`` (4, n_rows) are the logs of open, high, low and close over the last close, over the
    volatility of their time; ``ratios`` (4, n_rows) are mark over last, and ``shares`` (n_rows,)
    volume over its mean. ``order`` lists the rows by phase, ``counts`` are those of each phase and
    ``starts`` their first places in the order. ``variance`` is what the variance of a path follows.
    ``growth`` (width,) is the log growth per bar
    that blocks of rows add to that of single rows.
    """

    def __init__(
        self,
        history: Market,
        past: Market,
        model: Any,
        calendar: PathCalendar,
    ) -> None:
        self.block = float(model.block)
        self.calendar = calendar

        # What a bar repeats of its row: the mark over the last price, and its share of volume.
        prices = np.array([getattr(history, name) for name in PRICES])
        marks = np.array([getattr(history, name) for name in MARKS])
        self.ratios = marks / prices
        mean_volume = float(np.mean(history.volume))
        self.shares = np.zeros(history.n_bars)
        if mean_volume > 0.0:
            self.shares = history.volume / mean_volume

        # Rows that no bar may repeat have phase -1, and come first in the order.
        phases = calendar.row_phases
        self.order: core.IntArray = np.argsort(phases, kind="stable")
        self.counts = np.bincount(phases[phases >= 0])
        n_unused = int(np.sum(phases < 0))
        self.starts = n_unused + np.cumsum(self.counts) - self.counts

        # Log moves over the close before, in units of the volatility that the model had then.
        volatility, self.variance = model.scale(past)
        volatility = volatility[-history.n_bars :]
        close_before = np.concatenate([[np.nan], history.close[:-1]])
        self.moves = np.log(prices / close_before) / volatility

        # The first bar of a path has the model's variance now, on average over all rows.
        if isinstance(model, Filtered):
            moves = self.moves[3, phases >= 0]
            now = self.variance.now / float(np.mean(moves**2))
            most = max(self.variance.most, now)
            self.variance = self.variance._replace(now=now, most=most)

    def choose(self, uniforms: core.FloatArray) -> tuple[core.IntArray, core.FloatArray]:
        """Return which row each bar repeats, and its variance, by uniform numbers (bars, paths, 2).

        Both have shape (paths, bars). Blocks have geometric lengths, as in the stationary
        bootstrap. A block that runs over the end of its rows goes on at the first row of its phase,
        so that all are equally likely.
        """
        n_bars, n_paths, _ = uniforms.shape
        rows = np.empty((n_paths, n_bars), np.int64)
        variance = np.empty((n_paths, n_bars))

        # What the variance of the bar before is multiplied by after each row.
        model = self.variance
        growth = model.alpha * self.moves[3] ** 2 + model.beta
        _compile.compile_module(path_kernels).repeat_rows(
            uniforms,
            self.calendar.phases[1:],
            np.append(self.calendar.row_phases, -1),
            self.order,
            self.counts,
            self.starts,
            growth,
            np.array([self.block, model.now, model.omega, model.most]),
            rows,
            variance,
        )
        return rows, variance

    @functools.cached_property
    def log_means(self) -> tuple[int, core.FloatArray]:
        """Return the first node of a table of log means, and its cubics, (4, phases, nodes).

        A log mean is the log of the mean of exp(move) over the rows of a phase, at a variance.
        Nodes are logs of the variance over :data:`LOG_STEP`, and whole numbers. A cubic has the
        values and slopes of its ends (Hermite), so that 1, the only variance of rows that are not
        scaled, is exact.
        """
        nodes = self._list_nodes()
        deviations = [math.exp(0.5 * LOG_STEP * node) for node in nodes.tolist()]

        # The rows that may be repeated, by phase, and where each phase begins among them.
        n_unused = self.starts[0]
        order = self.order[n_unused:]
        places = np.append(self.starts, len(self.order)) - n_unused

        # Values and slopes are written by the kernel.
        values = np.empty((len(self.starts), len(nodes)))
        slopes = np.empty_like(values)
        most_rows = int(self.counts.max())
        _compile.compile_module(path_kernels).tabulate_log_means(
            self.moves[3, order],
            places,
            np.array(deviations),
            np.empty((2, most_rows)),
            values,
            slopes,
        )

        # By the log of the deviation, and so half of it by the log of the variance: per node.
        slopes *= 0.5 * LOG_STEP

        # Coefficients of 1, x, x^2 and x^3 for x from 0 to 1 between two nodes.
        first = values[:, :-1]
        rise = values[:, 1:] - first
        slope_at_0 = slopes[:, :-1]
        slope_at_1 = slopes[:, 1:]
        square = 3.0 * rise - 2.0 * slope_at_0 - slope_at_1
        cube = slope_at_0 + slope_at_1 - 2.0 * rise
        cubics = np.array([first, slope_at_0, square, cube])
        return int(nodes[0]), cubics

    def _list_nodes(self) -> core.IntArray:
        """Return the nodes of the table, from the least variance of a path to beyond the most.

        After rows that do not move, the variance tends to omega / (1 - beta): it is never under the
        lesser of that and what it is now.
        """
        model = self.variance
        least = model.now
        if model.beta < 1.0:
            least = min(least, model.omega / (1.0 - model.beta))
        lowest = math.log(max(least, LEAST_SHARE * model.most)) / LOG_STEP
        highest = math.log(model.most) / LOG_STEP
        return np.arange(math.floor(lowest), math.floor(highest) + 2)

    @functools.cached_property
    def growth(self) -> core.FloatArray:
        """The log growth per bar that blocks of rows add to that of single rows, (bars + 1,).

        The mean of a product is not the product of the means: rows of a block are neighbors.

        :func:`backtest.risk.path_kernels.follow_blocks` says how it is found.
        """
        first_node, cubics = self.log_means

        # The rows that may be repeated, by phase, and where each phase begins among them.
        n_unused = self.starts[0]
        order = self.order[n_unused:]
        places = np.append(self.starts, len(self.order)) - n_unused

        # The row after each: its phase, and its place in the order. The last row has none.
        all_phases = np.append(self.calendar.row_phases, -1)
        next_phases = all_phases[order + 1]
        place_of_row = np.zeros(len(self.order) + 1, np.int64)
        place_of_row[order] = np.arange(len(order))
        next_places = place_of_row[order + 1]

        # Growth is written by the kernel.
        phases = self.calendar.phases
        growth = np.zeros(len(phases))
        numbers = [self.block, *self.variance, first_node]
        most_rows = int(self.counts.max())
        _compile.compile_module(path_kernels).follow_blocks(
            phases,
            self.moves[3, order],
            places,
            next_phases,
            next_places,
            cubics,
            np.array(numbers, dtype=np.float64),
            np.zeros((6, most_rows)),
            growth,
        )
        return growth

    def draw(
        self,
        uniforms: core.FloatArray,
        drift: float,
        last: core.FloatArray,
        *,
        has_mark: bool,
    ) -> tuple[core.IntArray, core.FloatArray, core.FloatArray]:
        """Return the rows that bars repeat, their prices and their marks, (4, paths, bars + 1).

        ``uniforms`` are those of :meth:`choose`, ``drift`` is that of a bar, and ``last`` (2, 4)
        the prices and marks of the last bar of history, with which paths begin.
        """
        rows, variance = self.choose(uniforms)
        n, bars = rows.shape
        prices = np.empty((4, n, bars + 1))
        marks = np.empty((4, n if has_mark else 0, bars + 1))
        first_node, cubics = self.log_means
        _compile.compile_module(path_kernels).draw_rows(
            rows,
            variance,
            self.moves,
            self.ratios,
            self.calendar.phases[1:],
            drift - self.growth[1:],
            cubics,
            float(first_node),
            last,
            prices,
            marks,
            np.empty((10, bars)),
        )
        return rows, prices, marks if has_mark else prices
