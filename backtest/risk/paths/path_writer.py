"""Write the bars of paths: prices by the kernel of the model, then marks, volume and funding."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backtest.base import FloatArray, IntArray, compile_module
from backtest.base.units import DAY
from backtest.market import Market
from backtest.risk.paths import path_kernels, row_kernels
from backtest.risk.paths.funding_process import HISTORY, FundingProcess
from backtest.risk.paths.path_calendar import PathCalendar, sum_settled
from backtest.risk.paths.path_model import PathModel, WordArray, count_per_year

RECENT = 30 * DAY
"""The time before the start whose mean volume holds for paths, ns."""


class PathBars(NamedTuple):
    """The bars of some paths, laid end to end.

    ``prices`` and ``marks`` (None without mark prices) have the rows open, high, low, close and
    shape (4, n_paths * width); ``volume`` has shape (n_paths * width,), and so have ``rows``, of
    history, that resampled bars repeat (empty for other models). ``rates`` are the funding rates,
    of shape (n_paths, n_stamps).
    """

    prices: FloatArray
    marks: FloatArray | None
    volume: FloatArray
    rows: IntArray
    rates: FloatArray


class RowTable(NamedTuple):
    moves: FloatArray
    ratios: FloatArray
    shares: FloatArray
    starts: IntArray
    counts: IntArray
    first: IntArray
    rates: FloatArray
    residuals: FloatArray
    length: float
    terms: FloatArray
    growth: FloatArray


class PathSource(NamedTuple):
    model: PathModel
    calendar: PathCalendar
    last: FloatArray
    has_mark: bool
    volume: float
    terms: FloatArray
    basis: FloatArray | None
    funding: FundingProcess
    rows: RowTable | None
    loads: FloatArray

    @classmethod
    def of(
        cls,
        history: Market,
        model: PathModel,
        calendar: PathCalendar,
        funding: FundingProcess,
        loads: tuple[float, ...],
    ) -> PathSource:
        names = ("open", "high", "low", "close")
        last = [getattr(history, name)[-1] for name in names]
        last += [getattr(history, f"mark_{name}")[-1] for name in names]
        recent = history.time > history.time[-1] - RECENT
        terms = model.terms(count_per_year(history))
        volume = float(np.mean(history.volume[recent]))
        rows = None
        if model.is_resampled:
            numbers = np.concatenate([[volume], terms])
            rows = tabulate_rows(history, model, calendar, funding, numbers)
        return cls(
            model=model,
            calendar=calendar,
            last=np.array([*last, history.volume[-1]]),
            has_mark=history.has_mark,
            volume=volume,
            terms=terms,
            basis=fit_basis(history) if history.has_mark and not model.is_resampled else None,
            funding=funding,
            rows=rows,
            loads=np.array(loads),
        )


def fit_basis(history: Market) -> FloatArray:
    basis = np.log(history.mark_close / history.close)
    mean = float(np.mean(basis))
    before, after = basis[:-1] - mean, basis[1:] - mean
    square = float(before @ before)
    keep = min(max(float(before @ after) / square, 0.0), 0.9999) if square > 0.0 else 0.0
    spread = float(np.std(after - keep * before)) if len(after) > 1 else 0.0
    return np.array([basis[-1], mean, keep, spread])


def tabulate_rows(
    history: Market,
    model: PathModel,
    calendar: PathCalendar,
    funding: FundingProcess,
    terms: FloatArray,
) -> RowTable:
    before = np.concatenate([[np.nan], history.close[:-1]])
    prices = (history.open, history.high, history.low, history.close)
    marks = (history.mark_open, history.mark_high, history.mark_low, history.mark_close)
    scale = model.volatilities(history)  # type: ignore[attr-defined] # resampled
    mean = float(np.mean(history.volume))
    own = calendar.row_phases
    n_phases = int(max(own.max(), calendar.phases.max())) + 1
    lists = [np.flatnonzero(own == phase) for phase in range(n_phases)]
    starts = np.zeros((n_phases, max(map(len, lists))), np.int64)
    for phase, rows in enumerate(lists):
        starts[phase, : len(rows)] = rows
    n_orders = int(calendar.stamp_order.max(initial=0)) + 1
    rates = np.zeros((1, history.n_bars))
    if calendar.grid is not None and funding.kind == HISTORY:
        rates = sum_settled(history, calendar.grid, n_orders)
    moves = np.array([*(np.log(each / before) for each in prices), scale])
    single = moves[3] / scale
    is_scaled = bool(model.is_scaled)  # type: ignore[attr-defined] # resampled
    cumulants = find_cumulants(single[own >= 0], is_scaled=is_scaled)
    if is_scaled:  # the first bar has the variance of the model, whatever the scale of rows
        terms[2] /= float(np.mean(single[own >= 0] ** 2))
    table = RowTable(
        moves=moves,
        ratios=np.array([mark / price for mark, price in zip(marks, prices, strict=True)]),
        shares=history.volume / mean if mean > 0.0 else np.zeros(history.n_bars),
        starts=starts,
        counts=np.array([len(rows) for rows in lists], np.int64),
        first=np.array([rows[0] if len(rows) else -1 for rows in lists], np.int64),
        rates=rates,
        residuals=funding.tabulate_residuals(history),
        length=float(model.block),  # type: ignore[attr-defined] # resampled
        terms=np.array([terms[0], float(is_scaled), *terms[1:], *cumulants]),
        growth=np.zeros(len(calendar.time)),
    )
    states = np.zeros((2, 2, history.n_bars))
    compile_module(row_kernels).expect_growth(
        table.growth, states[0], states[1], single, calendar.phases, table.starts, table.counts,
        own, table.first, table.length, table.terms,
    )  # fmt: skip
    return table


def find_cumulants(moves: FloatArray, *, is_scaled: bool) -> FloatArray:
    if not is_scaled:
        return np.array([math.log(float(np.mean(np.exp(moves)))), 0.0, 0.0, 0.0])
    mean = float(np.mean(moves))
    second, third, fourth = (float(np.mean((moves - mean) ** k)) for k in (2, 3, 4))
    return np.array([mean, second, third, fourth - 3.0 * second * second])


def write_paths(source: PathSource, keys: WordArray, mirrored: IntArray, steps: int) -> PathBars:
    calendar, n_paths = source.calendar, len(keys)
    width = len(calendar.time)
    prices, marks = np.empty((4, n_paths * width)), np.empty((4, n_paths * width))
    volume, rows = np.empty(n_paths * width), np.empty(0, np.int64)
    prices[:, ::width] = source.last[:4, None]
    if source.has_mark:
        marks[:, ::width] = source.last[4:8, None]
    volume[::width] = source.last[8]
    if source.rows is not None:
        rows = np.full(n_paths * width, -1, np.int64)
        write_rows(source, source.rows, prices, marks, volume, rows, keys)
    else:
        kernels = compile_module(path_kernels)
        walk = getattr(kernels, source.model.kernel)
        walk(prices, keys, mirrored, width, steps, source.terms, source.loads)
        volume.reshape(n_paths, width)[:, 1:] = source.volume
        if source.basis is not None:
            kernels.lay_marks(prices, marks, keys, mirrored, width, source.basis, source.loads)
    rates = write_rates(source, rows, keys, mirrored)
    return PathBars(prices, marks if source.has_mark else None, volume, rows, rates)


def write_rates(
    source: PathSource, rows: IntArray, keys: WordArray, mirrored: IntArray
) -> FloatArray:
    """Return the funding rates of paths, (n_paths, n_stamps)."""
    calendar, funding, n_paths = source.calendar, source.funding, len(keys)
    if source.rows is not None and funding.kind == HISTORY:
        drawn = rows.reshape(n_paths, -1)[:, calendar.stamp_bar]
        return np.asarray(source.rows.rates[calendar.stamp_order[None, :], drawn])
    n_lags = len(funding.recent)
    rates = np.full((n_paths, n_lags + len(calendar.stamps)), np.nan)
    rates[:, :n_lags] = funding.recent
    if source.rows is not None:
        rates[:, n_lags:] = find_residuals(source.rows, rows.reshape(n_paths, -1), calendar)
    compile_module(path_kernels).walk_funding(
        rates, keys, mirrored, calendar.stamp_bar, funding.ranked,
        funding.terms, source.loads,
    )  # fmt: skip
    return rates[:, n_lags:].copy()


def find_residuals(table: RowTable, rows: IntArray, calendar: PathCalendar) -> FloatArray:
    bar = calendar.earned_bar
    known = np.where(bar > 0, rows[:, bar], rows[:, 1:2] - 1)
    order = np.minimum(calendar.earned_order, len(table.residuals) - 1)
    found = table.residuals[order[None, :], known]
    return np.where(order == calendar.earned_order, found, np.nan)


def write_rows(
    source: PathSource,
    table: RowTable,
    prices: FloatArray,
    marks: FloatArray,
    volume: FloatArray,
    rows: IntArray,
    keys: WordArray,
) -> None:
    calendar = source.calendar
    width = len(calendar.time)
    kernels = compile_module(row_kernels)
    kernels.choose_rows(
        rows, keys, width, table.length, calendar.phases, table.starts, table.counts,
        calendar.row_phases, table.first,
    )  # fmt: skip
    kernels.lay_rows(
        prices, marks, volume, rows, width, table.moves, table.ratios, table.shares, table.growth,
        table.terms,
    )  # fmt: skip
