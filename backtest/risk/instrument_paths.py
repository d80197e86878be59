"""What draws the paths of one instrument."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from backtest import _compile, core
from backtest.market import Market
from backtest.risk import path_kernels
from backtest.risk.funding_process import MONTH, FundingChoice, make_process
from backtest.risk.path_bars import (
    MARKS,
    PRICES,
    PathBars,
    PathMarkets,
    append_bars,
)
from backtest.risk.path_draws import BASIS, FUNDING, Draws
from backtest.risk.path_drift import count_per_year
from backtest.risk.path_models import PathModel
from backtest.risk.path_rows import RowTable, plan_calendar

AT_ONCE = 128
"""Paths whose markets share arrays."""
MOST_KEPT = 0.9999
"""The largest persistence of the basis, so that it comes back to its mean."""


class Basis(NamedTuple):
    """The log of mark over last: that at the end of history, and a first-order autoregression.

    ``after - mean = keep (before - mean) + noise``, and ``spread`` is the deviation of the noise.
    """

    now: float
    mean: float
    keep: float
    spread: float


class InstrumentPaths:
    """What draws one instrument of :class:`backtest.risk.paths.Paths`.

    ``past`` has all bars of the instrument until the end of ``history``, which has those that
    resampled rows repeat. ``horizon`` and ``every``, the time in which the phases of rows repeat,
    are in ns.
    """

    def __init__(
        self,
        history: Market,
        past: Market,
        model: PathModel,
        horizon: int,
        funding: FundingChoice,
        every: int,
    ) -> None:
        self.history = history
        self.model = model
        self.funding = funding
        self.process = make_process(past, funding)
        self.calendar = plan_calendar(history, horizon, self.process.grid, every)
        self.table = RowTable(history, past, model, self.calendar) if model.is_resampled else None
        self.basis = fit_basis(past)

    def draw(self, draws: Draws) -> PathBars:
        """Return the bars of a block of paths, behind the last bar of history.

        A resampled model repeats rows of history: their moves, mark over last price and volume. A
        parametric one repeats none, which rows of -1 say.
        """
        history = self.history
        bars, n = draws.shape
        month = history.time > history.time[-1] - MONTH
        mean_volume = np.mean(history.volume[month])
        last_prices = [getattr(history, name)[-1] for name in PRICES]
        last_marks = [getattr(history, name)[-1] for name in MARKS]
        last = np.array([last_prices, last_marks])

        # The first column is the last bar of history.
        rows = np.full((n, bars + 1), -1, np.int64)
        volume = np.empty((n, bars + 1))
        volume[:, 0] = history.volume[-1]
        if self.table is None:
            volume[:, 1:] = mean_volume
            prices, marks = self._follow(draws, last)
        else:
            drift = self.model.drift / count_per_year(history)
            chosen, prices, marks = self.table.draw(
                draws.draw_rows(),
                drift,
                last,
                has_mark=history.has_mark,
            )
            rows[:, 1:] = chosen
            shares = self.table.shares[chosen]
            np.multiply(mean_volume, shares, out=volume[:, 1:])

        rates = self._draw_funding(draws)
        return PathBars(
            prices,
            marks,
            volume,
            rows,
            rates=rates.T.copy(),
        )

    def _draw_funding(self, draws: Draws) -> core.FloatArray:
        """Return the funding rates of a block of paths, (settlements, paths).

        With a parametric model the residuals are drawn from their sorted values.
        """
        residuals = self.process.residuals
        if self.table is None:
            residuals = np.sort(residuals)
        shape = (len(self.calendar.stamps), draws.shape[1])
        uniforms = draws.generator(FUNDING).random(shape)
        unknown = self.process.draw_unknown(draws)
        return self.process.walk(residuals, uniforms, unknown)

    def _follow(
        self,
        draws: Draws,
        last: core.FloatArray,
    ) -> tuple[core.FloatArray, core.FloatArray]:
        """Return prices and marks of a parametric model, (4, paths, bars + 1)."""
        logs = self._walk(draws)
        n, bars = logs.shape[1:]
        has_mark = self.history.has_mark
        prices = np.empty((4, n, bars + 1))
        marks = np.empty((4, 0, bars + 1))
        ratios = marks
        if has_mark:
            marks = np.empty((4, n, bars + 1))
            ratios = self._walk_basis(draws)

        kernels = _compile.compile_module(path_kernels)
        scratch = np.empty((8, bars))
        kernels.draw_moves(logs, ratios, last, prices, marks, scratch)
        return prices, marks if has_mark else prices

    def _walk(self, draws: Draws) -> core.FloatArray:
        """Return the logs of a parametric model over the last close, (4, paths, bars)."""
        bars, n = draws.shape
        per_year = count_per_year(self.history)
        moves, highs, lows = self.model.walk(draws, per_year)
        logs = np.zeros((4, n, bars))
        logs[1] = highs.T
        logs[2] = lows.T
        logs[3] = moves.T
        return logs

    def _walk_basis(self, draws: Draws) -> core.FloatArray:
        """Return mark over last, which reverts to its mean, (4, paths, bars)."""
        fit = self.basis
        shocks = draws.normals(BASIS)
        n_steps, n_paths = shocks.shape
        walk = np.full((n_steps + 1, n_paths), fit.now)
        for t, shock in enumerate(shocks):
            gap = walk[t] - fit.mean
            walk[t + 1] = fit.mean + fit.keep * gap + fit.spread * shock

        # At the open, the high, the low and the close: the extremes have what lies between.
        opens = walk[:-1].T
        closes = walk[1:].T
        middle = 0.5 * (opens + closes)
        return np.exp([opens, middle, middle, closes])

    def market_of(
        self,
        bars: PathBars,
        k: int,
        before: Market,
        **changes: Any,
    ) -> Market:
        """Return path k of some bars behind history; ``changes`` are other fields."""
        ahead = {
            "volume": bars.volume[k, 1:],
            "time": self.calendar.time[1:],
            "funding_time": self.calendar.stamps,
            "funding_rate": bars.rates[k],
        }
        changes = {"columns": {}, "filled": {}, **changes}
        return append_bars(
            before,
            bars.prices[:, k, 1:],
            bars.marks[:, k, 1:],
            ahead,
            **changes,
        )

    def list_markets(
        self,
        bars: PathBars,
        first_path: Market,
        memory: dict[str, core.FloatArray],
    ) -> Iterator[PathMarkets]:
        """Yield all paths of some bars as :meth:`market_of` makes them, :data:`AT_ONCE` together.

        ``first_path`` is one of these markets: the others differ from it in the fields of rows
        alone. ``memory`` holds an array of rows for each field, which has history in front. It is
        written here, and the next paths are written over these: what is yielded holds until then.
        """
        later = {}
        for name, values in zip(PRICES, bars.prices, strict=True):
            later[name] = values[:, 1:]
        later["volume"] = bars.volume[:, 1:]
        if first_path.has_mark:
            for name, values in zip(MARKS, bars.marks, strict=True):
                later[name] = values[:, 1:]
        later["funding_rate"] = bars.rates

        # History precedes all rows, and is written once.
        for name, values in later.items():
            of_first: core.FloatArray = getattr(first_path, name)
            n_past = len(of_first) - values.shape[1]
            past = of_first[:n_past]
            shape = (AT_ONCE, len(of_first))
            if name not in memory or not has_history(memory[name], past, shape):
                memory[name] = np.empty(shape)
                memory[name][:, :n_past] = past

        for first in range(0, len(bars.volume), AT_ONCE):
            part = slice(first, first + AT_ONCE)
            rows = {}
            for name, values in later.items():
                drawn = values[part]
                n_rows, n_drawn = drawn.shape
                own_rows = memory[name][:n_rows]
                n_past = own_rows.shape[1] - n_drawn
                own_rows[:, n_past:] = drawn

                # Policies get this view, and cannot write to the memory through it.
                own_rows.flags.writeable = False
                rows[name] = own_rows

            # Without marks of its own, an instrument is marked at its last prices.
            if not first_path.has_mark:
                for mark, price in zip(MARKS, PRICES, strict=True):
                    rows[mark] = rows[price]
            yield PathMarkets(first_path, rows)


def has_history(
    rows: core.FloatArray,
    past: core.FloatArray,
    shape: tuple[int, int],
) -> bool:
    """Return whether rows have a shape, and some history in front, of which all have the same."""
    if rows.shape != shape:
        return False
    return np.array_equal(rows[0, : len(past)], past, equal_nan=True)


def fit_basis(past: Market) -> Basis:
    """Return the basis of an instrument, fitted to all bars by least squares.

    ``keep`` is at least 0, and less than 1, so that the basis comes back to its mean.
    """
    basis = np.log(past.mark_close / past.close)
    mean = float(np.mean(basis))
    before = basis[:-1] - mean
    after = basis[1:] - mean

    square = float(before @ before)
    keep = 0.0
    if square > 0.0:
        slope = float(before @ after) / square
        keep = min(max(slope, 0.0), MOST_KEPT)
    spread = 0.0
    if len(after) > 1:
        noise = after - keep * before
        spread = float(np.std(noise))
    return Basis(float(basis[-1]), mean, keep, spread)
