"""Write the bars of paths: prices by the kernel of the model, then marks, volume and funding."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backtest.base.units import HOUR, FloatArray, IntArray, format_duration
from backtest.features.compiled import compile_module
from backtest.market import Market
from backtest.paths import path_kernels, row_kernels
from backtest.paths.path_calendar import PathCalendar, sum_settled
from backtest.paths.path_model import PathModel, WordArray, count_per_year
from backtest.venue.funding import FundingTerms, rate_of

RECENT = 30 * 24 * HOUR
"""The time before the start whose mean volume and funding hold for paths, ns."""
USUAL_INTEREST, USUAL_CLAMP = 1e-4, 5e-4
"""Interest per 8 hours, and clamp, of funding where no terms are given; those of most venues."""


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
    """History as rows to repeat; arrays as :mod:`backtest.paths.row_kernels` takes them."""

    moves: FloatArray
    ratios: FloatArray
    shares: FloatArray
    starts: IntArray
    counts: IntArray
    first: IntArray
    rates: FloatArray


class PathSource(NamedTuple):
    """What the bars of paths are drawn from.

    ``last`` (9,) is the last bar of history: prices, marks and volume. ``terms`` are those of the
    model's kernel. ``basis`` are the terms of the basis, None without mark prices; ``funding`` how
    it makes a rate; ``rate`` is used where there is no basis. ``loads`` join the draws of several
    instruments, see :func:`backtest.paths.draw_kernels.draw_joint`.
    """

    model: PathModel
    calendar: PathCalendar
    last: FloatArray
    has_mark: bool
    volume: float
    terms: FloatArray
    basis: FloatArray | None
    funding: FundingTerms
    rate: float
    rows: RowTable | None
    loads: FloatArray

    @classmethod
    def of(
        cls,
        history: Market,
        model: PathModel,
        calendar: PathCalendar,
        funding: FundingTerms | None,
        loads: tuple[float, ...],
    ) -> PathSource:
        """Return the source of paths that continue a market."""
        names = ("open", "high", "low", "close")
        last = [getattr(history, name)[-1] for name in names]
        last += [getattr(history, f"mark_{name}")[-1] for name in names]
        recent = history.time > history.time[-1] - RECENT
        settled = history.funding_time > history.end - RECENT
        rates = history.funding_rate[settled]
        return cls(
            model=model,
            calendar=calendar,
            last=np.array([*last, history.volume[-1]]),
            has_mark=history.has_mark,
            volume=float(np.mean(history.volume[recent])),
            terms=model.terms(count_per_year(history)),
            basis=fit_basis(history) if history.has_mark and not model.is_resampled else None,
            funding=funding or guess_terms(calendar),
            rate=float(np.mean(rates)) if rates.size else 0.0,
            rows=tabulate_rows(history, model, calendar) if model.is_resampled else None,
            loads=np.array(loads),
        )


def guess_terms(calendar: PathCalendar) -> FundingTerms:
    """Return usual terms of funding for the interval of a calendar."""
    every = 8 * HOUR if calendar.grid is None else calendar.grid.every
    interval = format_duration(every)
    return FundingTerms(interval, "8h", USUAL_INTEREST, USUAL_CLAMP, math.inf, "", "usual terms")


def fit_basis(history: Market) -> FloatArray:
    """Return the log of mark over last now, its mean, persistence, and deviation of its shocks."""
    basis = np.log(history.mark_close / history.close)
    mean = float(np.mean(basis))
    before, after = basis[:-1] - mean, basis[1:] - mean
    square = float(before @ before)
    keep = min(max(float(before @ after) / square, 0.0), 0.9999) if square > 0.0 else 0.0
    spread = float(np.std(after - keep * before)) if len(after) > 1 else 0.0
    return np.array([basis[-1], mean, keep, spread])


def tabulate_rows(history: Market, model: PathModel, calendar: PathCalendar) -> RowTable:
    """Return the bars of history as rows to repeat."""
    before = np.concatenate([[np.nan], history.close[:-1]])
    prices = (history.open, history.high, history.low, history.close)
    marks = (history.mark_open, history.mark_high, history.mark_low, history.mark_close)
    scale = model.volatilities(history) if hasattr(model, "volatilities") else np.ones(len(before))
    mean = float(np.mean(history.volume))
    own = calendar.row_phases
    n_phases = int(max(own.max(), calendar.phases.max())) + 1
    lists = [np.flatnonzero(own == phase) for phase in range(n_phases)]
    starts = np.zeros((n_phases, max(map(len, lists))), np.int64)
    for phase, rows in enumerate(lists):
        starts[phase, : len(rows)] = rows
    n_orders = int(calendar.stamp_order.max(initial=0)) + 1
    rates = np.zeros((1, history.n_bars))
    if calendar.grid is not None:
        rates = sum_settled(history, calendar.grid, n_orders)
    return RowTable(
        moves=np.array([*(np.log(each / before) for each in prices), scale]),
        ratios=np.array([mark / price for mark, price in zip(marks, prices, strict=True)]),
        shares=history.volume / mean if mean > 0.0 else np.zeros(history.n_bars),
        starts=starts,
        counts=np.array([len(rows) for rows in lists], np.int64),
        first=np.array([rows[0] if len(rows) else -1 for rows in lists], np.int64),
        rates=rates,
    )


def write_paths(
    source: PathSource, keys: WordArray, since: IntArray, mirrored: IntArray, steps: int
) -> PathBars:
    """Return the bars of the paths that some keys draw; see :mod:`backtest.paths.path_kernels`."""
    calendar, n_paths = source.calendar, len(keys)
    width = len(calendar.time)
    prices, marks = np.empty((4, n_paths * width)), np.empty((4, n_paths * width))
    volume, rows = np.empty(n_paths * width), np.empty(0, np.int64)
    prices[:, ::width] = source.last[:4, None]
    if source.has_mark:
        marks[:, ::width] = source.last[4:8, None]
    volume[::width] = source.last[8]
    rates = np.zeros((n_paths, len(calendar.stamps)))
    if source.rows is not None:
        rows = np.full(n_paths * width, -1, np.int64)
        write_rows(source, source.rows, prices, marks, volume, rows, keys, since)
        at = np.arange(n_paths)[:, None] * width + calendar.stamp_bar[None, :]
        rates = source.rows.rates[calendar.stamp_order[None, :], rows[at]]
        return PathBars(prices, marks if source.has_mark else None, volume, rows, rates)
    walk = getattr(compile_module(path_kernels), source.model.kernel)
    walk(prices, keys, since, mirrored, width, steps, source.terms, source.loads)
    volume.reshape(n_paths, width)[:, 1:] = source.volume
    if source.basis is None:
        rates[:] = source.rate
        return PathBars(prices, None, volume, rows, rates)
    basis = np.empty(n_paths * width)
    compile_module(path_kernels).lay_marks(
        prices, marks, keys, since, mirrored, width, source.basis, source.loads, basis
    )
    if len(calendar.stamps):
        rates = charge_basis(source, basis.reshape(n_paths, width))
    return PathBars(prices, marks, volume, rows, rates)


def write_rows(
    source: PathSource,
    table: RowTable,
    prices: FloatArray,
    marks: FloatArray,
    volume: FloatArray,
    rows: IntArray,
    keys: WordArray,
    since: IntArray,
) -> None:
    """Choose rows of history and write the bars that repeat them."""
    model, calendar = source.model, source.calendar
    width = len(calendar.time)
    kind = np.array([model.block, float(model.varies)])  # type: ignore[attr-defined] # resampled
    kernels = compile_module(row_kernels)
    kernels.choose_rows(
        rows, keys, since, width, calendar.phases, table.starts, table.counts,
        calendar.row_phases, table.first, kind,
    )  # fmt: skip
    terms = np.array([source.volume, float(model.is_scaled), *source.terms])  # type: ignore[attr-defined]
    kernels.lay_rows(
        prices, marks, volume, rows, width, table.moves, table.ratios, table.shares, terms
    )


def charge_basis(source: PathSource, basis: FloatArray) -> FloatArray:
    """Return the funding rates, (n_paths, n_stamps), of the mean basis between settlements.

    The premium is that of last over mark, ``exp(-basis) - 1``. A settlement in bar t averages the
    closes from the settlement before up to that of bar t - 1.
    """
    bar = source.calendar.stamp_bar
    sums = np.concatenate([np.zeros((len(basis), 1)), np.cumsum(np.expm1(-basis), axis=1)], axis=1)
    stop = np.maximum(bar, 1)
    first = np.concatenate([[0], np.minimum(stop[:-1], stop[1:] - 1)])
    mean = (sums[:, stop] - sums[:, first]) / (stop - first)
    return np.asarray(rate_of(source.funding, mean))
