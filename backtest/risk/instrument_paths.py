"""What draws the paths of one instrument."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from backtest import core
from backtest.market import Market
from backtest.risk.funding_process import MONTH, FundingChoice, make_process
from backtest.risk.path_bars import (
    MARKS,
    PRICES,
    PathBars,
    PathMarkets,
    append_bars,
    bound_extremes,
)
from backtest.risk.path_draws import BASIS, FUNDING, ROWS, Draws
from backtest.risk.path_drift import count_per_year
from backtest.risk.path_models import PathModel
from backtest.risk.path_rows import RowTable, plan_calendar

AT_ONCE = 64
"""Paths whose markets share arrays."""
FARTHEST = 230.0
"""The largest distance of a log price from today's: prices stay within 1e-100 to 1e100 of it."""
MOST_KEPT = 0.9999
"""The largest persistence of the basis, so that it comes back to its mean."""


class InstrumentPaths:
    """What draws one instrument of :class:`backtest.risk.paths.Paths`.

    ``past`` has all bars of the instrument until the end of ``history``, which has those that
    resampled rows repeat. ``horizon`` and ``every``, the time in which the phases of rows repeat,
    are in ns. ``basis`` is log mark over last at the end, and mean, persistence and deviation of
    its changes.
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
        """Return the bars of a block of paths."""
        history = self.history
        bars, n = draws.shape
        recent = history.volume[history.time > history.time[-1] - MONTH]
        volume = np.mean(recent)
        ratios = np.ones((4, 1, 1))
        residuals = self.process.residuals

        # Moves, the mark over the last price, and volume: of the rows of history that each bar
        # repeats, or of a parametric model, which repeats none.
        if self.table is not None:
            rows, variance = self.table.choose(draws.generator(ROWS).random((bars, n, 2)))
            drift = self.model.drift / count_per_year(history)
            logs = self.table.lay(rows, variance, drift)
            ratios = np.take(self.table.ratios, rows, axis=1)
            volume = volume * self.table.shares[rows]
        else:
            rows = np.full((n, bars), -1, np.int64)
            logs = self._walk(draws)
            residuals = np.sort(residuals)
            if history.has_mark:
                ratios = self._walk_basis(draws)

        # The log moves of each bar over its last close become log prices over the first one.
        close = np.cumsum(logs[3], axis=1)
        logs[:, :, 1:] += close[:, :-1]
        logs[3] = close
        prices = np.exp(np.clip(logs, -FARTHEST, FARTHEST, out=logs), out=logs)
        prices *= float(history.close[-1])

        last = bound_extremes(self.put_first(PRICES, prices, 1.0))
        marks = last
        if history.has_mark:
            marks = bound_extremes(self.put_first(MARKS, prices, ratios))

        uniforms = draws.generator(FUNDING).random((len(self.calendar.stamps), n))
        rates = self.process.walk(residuals, uniforms, self.process.draw_unknown(draws))
        volumes = np.broadcast_to(volume, (1, n, bars))
        return PathBars(
            prices=last,
            marks=marks,
            volume=self.put_first(("volume",), volumes, 1.0)[0],
            rows=np.pad(rows, ((0, 0), (1, 0)), constant_values=-1),
            rates=rates.T.copy(),
        )

    def _walk(self, draws: Draws) -> core.FloatArray:
        """Return the logs of a parametric model over the last close, (4, paths, bars)."""
        bars, n = draws.shape
        moves, highs, lows = self.model.walk(draws, count_per_year(self.history))
        logs = np.zeros((4, n, bars))
        logs[1] = highs.T
        logs[2] = lows.T
        logs[3] = moves.T
        return logs

    def _walk_basis(self, draws: Draws) -> core.FloatArray:
        """Return mark over last, which reverts to its mean, (4, paths, bars)."""
        now, mean, keep, spread = self.basis
        shocks = draws.normals(BASIS)
        basis = np.full((len(shocks) + 1, shocks.shape[1]), now)
        for t, shock in enumerate(shocks):
            basis[t + 1] = mean + keep * (basis[t] - mean) + spread * shock

        # At the open, the high, the low and the close: the extremes have what lies between.
        opens = basis[:-1].T
        closes = basis[1:].T
        middle = 0.5 * (opens + closes)
        return np.exp([opens, middle, middle, closes])

    def put_first(
        self, names: tuple[str, ...], values: core.FloatArray, by: float | core.FloatArray
    ) -> core.FloatArray:
        """Return values (k, paths, bars) times ``by`` with the last bar of history in front."""
        last = [getattr(self.history, name)[-1] for name in names]
        joined = np.empty((*values.shape[:2], values.shape[2] + 1))
        joined[:, :, 0] = np.array(last)[:, None]
        np.multiply(values, by, out=joined[:, :, 1:])
        return joined

    def market_of(self, bars: PathBars, k: int, before: Market, **changes: Any) -> Market:
        """Return path k of some bars behind history; ``changes`` are other fields."""
        ahead = {
            "volume": bars.volume[k, 1:],
            "time": self.calendar.time[1:],
            "funding_time": self.calendar.stamps,
            "funding_rate": bars.rates[k],
        }
        changes = {"columns": {}, "filled": {}, **changes}
        return append_bars(before, bars.prices[:, k, 1:], bars.marks[:, k, 1:], ahead, **changes)

    def list_markets(self, bars: PathBars, before: Market, **changes: Any) -> Iterator[PathMarkets]:
        """Yield all paths of some bars as :meth:`market_of` does, as rows of a few arrays.

        The next ones have the same memory.
        """
        whole = [values[:, 1:] for values in (*bars.prices, bars.volume)]
        later = dict(zip((*PRICES, "volume"), whole, strict=True))
        if before.has_mark:
            for name, values in zip(MARKS, bars.marks, strict=True):
                later[name] = values[:, 1:]
        later["funding_rate"] = bars.rates

        # History stands in front of all rows, and is written once.
        kept = {}
        for name, values in later.items():
            past = getattr(before, name)
            kept[name] = np.empty((AT_ONCE, len(past) + values.shape[1]))
            kept[name][:, : len(past)] = past

        for first in range(0, len(bars.volume), AT_ONCE):
            part = slice(first, first + AT_ONCE)
            rows = {}
            for name, values in later.items():
                own_rows = kept[name][: len(values[part])]
                own_rows[:, own_rows.shape[1] - values.shape[1] :] = values[part]
                own_rows.flags.writeable = False
                rows[name] = own_rows
            if not before.has_mark:
                for mark, price in zip(MARKS, PRICES, strict=True):
                    rows[mark] = rows[price]
            yield PathMarkets(self.market_of(bars.select(part), 0, before, **changes), rows)


def fit_basis(past: Market) -> tuple[float, float, float, float]:
    """Return log mark over last at the end, and mean, persistence and deviation of its changes."""
    basis = np.log(past.mark_close / past.close)
    mean = float(np.mean(basis))
    before = basis[:-1] - mean
    after = basis[1:] - mean

    square = float(before @ before)
    keep = 0.0
    if square > 0.0:
        keep = min(max(float(before @ after) / square, 0.0), MOST_KEPT)
    spread = 0.0
    if len(after) > 1:
        spread = float(np.std(after - keep * before))
    return float(basis[-1]), mean, keep, spread
