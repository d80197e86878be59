"""The bars of paths of one instrument: their calendar, prices, marks, volume and funding."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from backtest.base import (
    DataError,
    FloatArray,
    IntArray,
    ParameterError,
    compile_module,
    format_duration,
)
from backtest.base.units import DAY
from backtest.market import Market
from backtest.market.tables import DIVIDEND
from backtest.risk import path_rows
from backtest.risk.path_funding import (
    HISTORY,
    FundingChoice,
    FundingGrid,
    FundingProcess,
    find_path_grid,
    make_process,
    sum_settled,
)
from backtest.risk.path_models import BASIS, FUNDING, ROWS, Draws, PathModel, count_per_year

WEEK = 7 * DAY
RECENT_WEEKS = 8
"""Weeks whose bars say when the sessions of a week are."""
LAST_TIME = int(np.iinfo(np.int64).max) - 2 * WEEK
MONTH = 30 * DAY
"""The time before the start whose mean volume holds for paths, ns."""
PRICES = ("open", "high", "low", "close")
MARKS = tuple(f"mark_{name}" for name in PRICES)
EVENTS = ("funding_time", "funding_rate", "funding_mark", "funding_predicted")


# --------------------------------------------------------------------------------------- calendar


class PathCalendar(NamedTuple):
    """The bars of a path, from the last one of history on, and their settlements.

    ``time`` (width,) are opens in ns. ``stamps`` (n_stamps,) are settlements, in ns, ``stamp_bar``
    the bar of the path that each falls into and ``stamp_order`` its place among those of the bar.
    ``phases`` (width,) are the phases of the bars, ``row_phases`` (n_rows,) those of the bars of
    history, -1 for a row that no bar may repeat.
    """

    time: IntArray
    stamps: IntArray
    stamp_bar: IntArray
    stamp_order: IntArray
    phases: IntArray
    row_phases: IntArray


def plan_calendar(
    history: Market, horizon: int, grid: FundingGrid | None, every: int
) -> PathCalendar:
    """Return the calendar of ``horizon`` ns, with phases that repeat after ``every`` ns."""
    if history.end + horizon > LAST_TIME:
        raise ParameterError(
            f"horizon must end before the year 2262, got {format_duration(horizon)}"
        )
    time = plan_bars(history, horizon)
    if len(time) < 2:
        raise ParameterError(
            f"horizon must be at least one bar of {format_duration(history.interval)}, "
            f"got {format_duration(horizon)}"
        )
    stamps = np.empty(0, np.int64)
    if grid is not None:
        stamps = grid.find(int(time[1]), int(time[-1]) + history.interval)
    bar = np.searchsorted(time, stamps, side="right") - 1
    order = np.arange(len(stamps)) - np.searchsorted(bar, bar)
    phases, row_phases = find_phases(history, time, every)
    row_phases[0] = -1  # its last close is not known
    missing = set(np.unique(phases[1:]).tolist()) - set(np.unique(row_phases).tolist())
    if missing:
        raise DataError(
            "history must have a bar for each phase of the funding interval or the week, "
            f"{len(missing)} have none in {history!r}"
        )
    return PathCalendar(time, stamps, bar, order, phases, row_phases)


def plan_bars(history: Market, horizon: int) -> IntArray:
    last = int(history.time[-1])
    if not history.sessions:
        n = horizon // history.interval
        return last + history.interval * np.arange(n + 1, dtype=np.int64)
    weeks = np.arange(last // WEEK, (last + horizon) // WEEK + 2, dtype=np.int64) * WEEK
    opens = (weeks[:, None] + find_week(history)[None, :]).ravel()
    ahead = opens[(opens > last) & (opens <= last + horizon)]
    return np.concatenate([[last], ahead]).astype(np.int64)


def find_week(history: Market) -> IntArray:
    """Return the times of the week at which bars open in at least half of the last weeks, ns."""
    if history.interval > DAY:
        return np.array([int(history.time[-1]) % WEEK], dtype=np.int64)
    recent = history.time[history.time > history.time[-1] - RECENT_WEEKS * WEEK]
    weeks = len(np.unique(recent // WEEK))
    found, counts = np.unique(recent % WEEK, return_counts=True)
    return np.asarray(found[counts >= 0.5 * weeks], dtype=np.int64)


def find_phases(history: Market, time: IntArray, every: int) -> tuple[IntArray, IntArray]:
    if history.sessions and history.interval <= DAY:
        known = {int(each): k for k, each in enumerate(find_week(history))}
        ahead, rows = (
            np.array([known.get(int(each) % WEEK, -1) for each in times], dtype=np.int64)
            for times in (time, history.time)
        )
        return np.maximum(ahead, 0), rows
    n, anchor = every // history.interval, int(time[0])
    return (time - anchor) // history.interval % n, (history.time - anchor) // history.interval % n


# ------------------------------------------------------------------------------------------- bars


class PathBars(NamedTuple):
    """The bars of some paths.

    ``prices`` and ``marks`` (None without mark prices) have the rows open, high, low, close and
    shape (4, n_paths, width); ``volume`` and ``rows``, of history, that resampled bars repeat (None
    for other models), have shape (n_paths, width), ``rates`` of funding (n_paths, n_stamps).
    """

    prices: FloatArray
    marks: FloatArray | None
    volume: FloatArray
    rows: IntArray | None
    rates: FloatArray

    def select(self, part: slice) -> PathBars:
        return PathBars(
            self.prices[:, part],
            None if self.marks is None else self.marks[:, part],
            self.volume[part],
            None if self.rows is None else self.rows[part],
            self.rates[part],
        )


def join_bars(parts: list[PathBars]) -> PathBars:
    if len(parts) == 1:
        return parts[0]
    columns = zip(*parts, strict=True)
    joined: list[Any] = [
        None if each[0] is None else np.concatenate(each, axis=axis)
        for axis, each in zip((1, 1, 0, 0, 0), columns, strict=True)
    ]
    return PathBars(*joined)


@dataclass(frozen=True, eq=False, repr=False)
class InstrumentPaths:
    """What draws one instrument of :class:`backtest.risk.paths.Paths`.

    ``horizon`` and ``every``, the time in which the phases of resampled rows repeat, are in ns;
    all instruments share them.
    """

    history: Market
    model: PathModel
    horizon: int
    funding: FundingChoice
    every: int

    @functools.cached_property
    def calendar(self) -> PathCalendar:
        grid = find_path_grid(self.history, self.funding)
        return plan_calendar(self.history, self.horizon, grid, self.every)

    @functools.cached_property
    def process(self) -> FundingProcess:
        return make_process(self.history, self.funding)

    @functools.cached_property
    def volume(self) -> float:
        return float(
            np.mean(self.history.volume[self.history.time > self.history.time[-1] - MONTH])
        )

    @functools.cached_property
    def table(self) -> RowTable | None:
        if not self.model.is_resampled:
            return None
        return tabulate_rows(self.history, self.model, self.calendar, self.volume)

    @functools.cached_property
    def settled(self) -> FloatArray | None:
        """The settlements of each bar of history, where paths repeat them."""
        if self.process.kind != HISTORY or self.process.grid is None:
            return None
        orders = int(self.calendar.stamp_order.max(initial=0)) + 1
        return sum_settled(self.history, self.process.grid, orders)

    @functools.cached_property
    def basis(self) -> tuple[float, float, float, float]:
        """Log mark over last at the end, and mean, persistence and deviation of its changes."""
        basis = np.log(self.history.mark_close / self.history.close)
        mean = float(np.mean(basis))
        before, after = basis[:-1] - mean, basis[1:] - mean
        square = float(before @ before)
        keep = min(max(float(before @ after) / square, 0.0), 0.9999) if square > 0.0 else 0.0
        spread = float(np.std(after - keep * before)) if len(after) > 1 else 0.0
        return float(basis[-1]), mean, keep, spread

    def prepare(self) -> None:
        """Fit what paths are drawn from: errors of its fit belong here."""
        _ = self.calendar, self.process, self.table, self.settled

    # --------------------------------------------------------------------------- drawing

    def draw(self, draws: Draws) -> PathBars:
        n, width = draws.shape[1], len(self.calendar.time)
        prices, marks = np.empty((2, 4, n, width))
        for j, (price, mark) in enumerate(zip(PRICES, MARKS, strict=True)):
            prices[j, :, 0] = getattr(self.history, price)[-1]
            marks[j, :, 0] = getattr(self.history, mark)[-1]
        volume = np.full((n, width), self.volume)
        volume[:, 0] = self.history.volume[-1]
        rows = None
        if self.table is not None:
            rows = self.repeat_rows(draws, self.table, prices, marks, volume)
        else:
            self.walk(draws, prices)
            if self.history.has_mark:
                self.lay_marks(draws, prices, marks)
        rates = self.draw_rates(draws, rows)
        return PathBars(prices, marks if self.history.has_mark else None, volume, rows, rates)

    def walk(self, draws: Draws, prices: FloatArray) -> None:
        moves, high, low = self.model.walk(draws, count_per_year(self.history))
        last = prices[3, 0, 0]
        close = last * np.exp(np.cumsum(moves, axis=0))
        begun = np.concatenate([np.full((1, close.shape[1]), last), close[:-1]])
        prices[0, :, 1:], prices[3, :, 1:] = begun.T, close.T
        prices[1, :, 1:] = np.maximum(begun * np.exp(high), np.maximum(begun, close)).T
        prices[2, :, 1:] = np.minimum(begun * np.exp(low), np.minimum(begun, close)).T

    def lay_marks(self, draws: Draws, prices: FloatArray, marks: FloatArray) -> None:
        now, mean, keep, spread = self.basis
        z = draws.normals(BASIS)
        basis = np.empty((len(z) + 1, z.shape[1]))
        basis[0] = now
        for t, shock in enumerate(z):
            basis[t + 1] = mean + keep * (basis[t] - mean) + spread * shock
        before, after = basis[:-1].T, basis[1:].T
        middle = np.exp(0.5 * (before + after))
        first, final = prices[0, :, 1:] * np.exp(before), prices[3, :, 1:] * np.exp(after)
        marks[0, :, 1:], marks[3, :, 1:] = first, final
        marks[1, :, 1:] = np.maximum(prices[1, :, 1:] * middle, np.maximum(first, final))
        marks[2, :, 1:] = np.minimum(prices[2, :, 1:] * middle, np.minimum(first, final))

    def repeat_rows(
        self, draws: Draws, table: RowTable, prices: FloatArray, marks: FloatArray,
        volume: FloatArray,
    ) -> IntArray:  # fmt: skip
        """Write bars that repeat rows of history, the same ones of all instruments."""
        calendar, model = self.calendar, self.model
        rows = np.full(volume.shape, -1, np.int64)
        kernels = compile_module(path_rows)
        uniforms = draws.generator(ROWS).random((*draws.shape, 2))
        kernels.choose_rows(
            uniforms[:, :, 0], uniforms[:, :, 1], float(model.block),  # type: ignore[attr-defined] # resampled
            calendar.phases, table.starts, table.counts, calendar.row_phases, table.first, rows,
        )  # fmt: skip
        kernels.lay_rows(
            rows, table.moves, table.ratios, table.shares, table.growth, table.terms, prices,
            marks, volume,
        )  # fmt: skip
        return rows

    def draw_rates(self, draws: Draws, rows: IntArray | None) -> FloatArray:
        calendar, process = self.calendar, self.process
        if self.settled is not None and rows is not None:
            return np.asarray(
                self.settled[calendar.stamp_order[None, :], rows[:, calendar.stamp_bar]]
            )
        residuals = process.residuals if self.table is not None else np.sort(process.residuals)
        size = len(calendar.stamps), draws.shape[1]
        return process.walk(residuals, draws.generator(FUNDING).random(size)).T.copy()

    # --------------------------------------------------------------------------- markets

    @functools.cached_property
    def n_settled(self) -> int:
        """Settlements of history that fall into the first bar of paths."""
        since = self.history.time[-1] - self.history.interval // 4
        return int(np.sum(self.history.funding_time >= since))

    def market_of(self, bars: PathBars, k: int, source: str) -> Market:
        """Return path k of some bars, with the settlements of its first bar."""
        history, rates = self.history, bars.rates[k]
        kept = slice(len(history.funding_time) - self.n_settled, None)
        ahead = (self.calendar.stamps, rates, *np.full((2, len(rates)), np.nan))
        events = {
            name: np.concatenate([getattr(history, name)[kept], later])
            for name, later in zip(EVENTS, ahead, strict=True)
        }
        marks = bars.prices if bars.marks is None else bars.marks
        unpaid = {DIVIDEND: np.full(len(self.calendar.time), np.nan)}  # paths have no dividends
        return Market(
            **dict(zip((*PRICES, *MARKS), (*bars.prices[:, k], *marks[:, k]), strict=True)),
            **events,
            instrument=history.instrument,
            interval=history.interval,
            time=self.calendar.time,
            volume=bars.volume[k],
            has_mark=bars.marks is not None,
            columns=unpaid if DIVIDEND in history.columns else {},
            synthetic=True,
            sessions=history.sessions,
            decide=history.decide,
            filled={},
            source=source,
        )

    def join_history(self, path: Market, bars: int) -> Market:
        first = max(self.history.n_bars - 1 - bars, 0)
        if first == self.history.n_bars - 1:
            return path
        before = self.history.slice(first, self.history.n_bars)
        cuts = dict.fromkeys(("time", *PRICES, "volume", *MARKS), 1)
        cuts |= dict.fromkeys(EVENTS, self.n_settled)
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(before, name), getattr(path, name)[cut:]])
            for name, cut in cuts.items()
        }
        joined["columns"] = {
            name: np.concatenate([before.columns[name], values[1:]])
            for name, values in path.columns.items()
        }
        source = f"{self.history.source} then {path.source}"
        return Market(**path.fields() | joined, source=source)

    def put_at_end(self, joined: Market, bars: PathBars, k: int) -> Market:
        """Return a path with history in front, with path k of some bars in the place of its own.

        Only what is drawn differs. Nothing is checked again, since there are thousands of paths.
        """
        marks = bars.prices if bars.marks is None else bars.marks
        ends = dict(zip((*PRICES, *MARKS), (*bars.prices[:, k], *marks[:, k]), strict=True))
        ends |= {"volume": bars.volume[k], "funding_rate": bars.rates[k]}
        fields: dict[str, Any] = {**vars(joined), "facts": {}}
        for name, values in ends.items():
            whole = np.array(fields[name])
            whole[len(whole) - len(values) :] = values
            whole.flags.writeable = False
            fields[name] = whole
        path = object.__new__(Market)
        vars(path).update(fields)
        return path


# --------------------------------------------------------------------------- rows of history


class RowTable(NamedTuple):
    """What the kernels of :mod:`backtest.risk.path_rows` read."""

    moves: FloatArray
    ratios: FloatArray
    shares: FloatArray
    starts: IntArray
    counts: IntArray
    first: IntArray
    growth: FloatArray
    terms: FloatArray


def tabulate_rows(history: Market, model: Any, calendar: PathCalendar, volume: float) -> RowTable:
    before = np.concatenate([[np.nan], history.close[:-1]])
    scale, own = model.volatilities(history), calendar.row_phases
    mean = float(np.mean(history.volume))
    lists = [
        np.flatnonzero(own == phase) for phase in range(max(own.max(), calendar.phases.max()) + 1)
    ]
    starts = np.zeros((len(lists), max(map(len, lists))), np.int64)
    for phase, rows in enumerate(lists):
        starts[phase, : len(rows)] = rows
    moves = np.array([*(np.log(getattr(history, each) / before) for each in PRICES), scale])
    single = moves[3] / scale
    cumulants = find_cumulants(single[own >= 0], is_scaled=model.is_scaled)
    now, *weights = model.weights
    if model.is_scaled:  # the first bar has the variance of the model, whatever the scale of rows
        now /= float(np.mean(single[own >= 0] ** 2))
    drift = model.drift / count_per_year(history)
    table = RowTable(
        moves=moves,
        ratios=np.array(
            [getattr(history, mark) / getattr(history, price)
             for mark, price in zip(MARKS, PRICES, strict=True)]
        ),
        shares=history.volume / mean if mean > 0.0 else np.zeros(history.n_bars),
        starts=starts,
        counts=np.array([len(rows) for rows in lists], np.int64),
        first=np.array([rows[0] if len(rows) else -1 for rows in lists], np.int64),
        growth=np.zeros(len(calendar.time)),
        terms=np.array([volume, float(model.is_scaled), drift, now, *weights, *cumulants]),
    )  # fmt: skip
    states = np.zeros((2, 2, history.n_bars))
    compile_module(path_rows).expect_growth(
        table.growth, states[0], states[1], single, calendar.phases, table.starts, table.counts,
        own, table.first, float(model.block), table.terms,
    )  # fmt: skip
    return table


def find_cumulants(moves: FloatArray, *, is_scaled: bool) -> FloatArray:
    if not is_scaled:
        return np.array([math.log(float(np.mean(np.exp(moves)))), 0.0, 0.0, 0.0])
    mean = float(np.mean(moves))
    second, third, fourth = (float(np.mean((moves - mean) ** k)) for k in (2, 3, 4))
    return np.array([mean, second, third, fourth - 3.0 * second * second])
