"""Draw the bars of paths: prices by the model, then marks, volume and funding."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from backtest.base import FloatArray, IntArray, compile_module
from backtest.base.units import DAY
from backtest.market import Market
from backtest.risk import path_rows
from backtest.risk.path_funding import HISTORY, FundingProcess, PathCalendar, sum_settled
from backtest.risk.path_models import PathModel, count_per_year
from backtest.risk.path_numbers import BASIS, FUNDING, ROWS, Draws

RECENT = 30 * DAY
"""The time before the start whose mean volume holds for paths, ns."""
PRICES = ("open", "high", "low", "close")
MARKS = tuple(f"mark_{name}" for name in PRICES)


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
    columns: list[Any] = []
    for name, each in zip(PathBars._fields, zip(*parts, strict=True), strict=True):
        axis = 1 if name in ("prices", "marks") else 0
        columns.append(None if each[0] is None else np.concatenate(each, axis=axis))
    return PathBars(*columns)


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


class PathSource:
    """What draws the bars of one instrument."""

    def __init__(
        self, history: Market, model: PathModel, calendar: PathCalendar, funding: FundingProcess
    ) -> None:
        self.history, self.model, self.calendar, self.funding = history, model, calendar, funding
        recent = history.time > history.time[-1] - RECENT
        self.volume = float(np.mean(history.volume[recent]))
        self.rows = self.settled = self.basis = None
        if model.is_resampled:
            self.rows = tabulate_rows(history, model, calendar, self.volume)
            if calendar.grid is not None and funding.kind == HISTORY:
                orders = int(calendar.stamp_order.max(initial=0)) + 1
                self.settled = sum_settled(history, calendar.grid, orders)
        elif history.has_mark:
            self.basis = fit_basis(history)

    def draw(self, draws: Draws) -> PathBars:
        n, width = draws.shape[1], len(self.calendar.time)
        prices, marks = np.empty((2, 4, n, width))
        for j, (price, mark) in enumerate(zip(PRICES, MARKS, strict=True)):
            prices[j, :, 0] = getattr(self.history, price)[-1]
            marks[j, :, 0] = getattr(self.history, mark)[-1]
        volume = np.full((n, width), self.volume)
        volume[:, 0] = self.history.volume[-1]
        rows = None
        if self.rows is not None:
            rows = self.lay_rows(draws, self.rows, prices, marks, volume)
        else:
            self.walk(draws, prices)
            if self.basis is not None:
                self.lay_marks(draws, prices, marks)
        return PathBars(
            prices, marks if self.history.has_mark else None, volume, rows, self.rates(draws, rows)
        )

    def walk(self, draws: Draws, prices: FloatArray) -> None:
        moves, high, low = self.model.walk(draws, count_per_year(self.history))
        last = prices[3, 0, 0]
        close = last * np.exp(np.cumsum(moves, axis=0))
        begun = np.concatenate([np.full((1, close.shape[1]), last), close[:-1]])
        prices[0, :, 1:], prices[3, :, 1:] = begun.T, close.T
        prices[1, :, 1:] = np.maximum(begun * np.exp(high), np.maximum(begun, close)).T
        prices[2, :, 1:] = np.minimum(begun * np.exp(low), np.minimum(begun, close)).T

    def lay_marks(self, draws: Draws, prices: FloatArray, marks: FloatArray) -> None:
        assert self.basis is not None  # noqa: S101 - of parametric models with marks
        now, mean, keep, spread = self.basis
        z = draws.own_normals(BASIS)
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

    def lay_rows(
        self,
        draws: Draws,
        table: RowTable,
        prices: FloatArray,
        marks: FloatArray,
        volume: FloatArray,
    ) -> IntArray:
        calendar, model = self.calendar, self.model
        rows = np.full(volume.shape, -1, np.int64)
        kernels = compile_module(path_rows)
        made = draws.generator(ROWS, 0)  # the rows of all instruments
        uniforms = made.random((*draws.shape, 2))
        kernels.choose_rows(
            uniforms[:, :, 0], uniforms[:, :, 1], float(model.block),  # type: ignore[attr-defined] # resampled
            calendar.phases, table.starts, table.counts, calendar.row_phases, table.first, rows,
        )  # fmt: skip
        kernels.lay_rows(
            rows, table.moves, table.ratios, table.shares, table.growth, table.terms, prices,
            marks, volume,
        )  # fmt: skip
        return rows

    def rates(self, draws: Draws, rows: IntArray | None) -> FloatArray:
        calendar = self.calendar
        if self.settled is not None and rows is not None:
            return np.asarray(
                self.settled[calendar.stamp_order[None, :], rows[:, calendar.stamp_bar]]
            )
        own = replace(draws, shape=(len(calendar.stamps), draws.shape[1]))
        if self.rows is None:
            return self.funding.walk(self.funding.ranked, own.own_uniforms(FUNDING)).T.copy()
        common = own.generator(FUNDING, 0).random(own.shape)  # the times of all instruments
        return self.funding.walk(self.funding.residuals, common).T.copy()


def fit_basis(history: Market) -> tuple[float, float, float, float]:
    """Return log mark over last at the end, and mean, persistence and deviation of its changes."""
    basis = np.log(history.mark_close / history.close)
    mean = float(np.mean(basis))
    before, after = basis[:-1] - mean, basis[1:] - mean
    square = float(before @ before)
    keep = min(max(float(before @ after) / square, 0.0), 0.9999) if square > 0.0 else 0.0
    spread = float(np.std(after - keep * before)) if len(after) > 1 else 0.0
    return float(basis[-1]), mean, keep, spread
