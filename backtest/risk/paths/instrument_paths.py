"""One instrument of a set of paths: its calendar, its funding, and the bars drawn for it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from backtest.base import FloatArray, IntArray, check_shape
from backtest.market import Market
from backtest.market.settlements import DIVIDEND
from backtest.risk.paths.funding_process import (
    FundingChoice,
    FundingProcess,
    find_path_grid,
    make_process,
)
from backtest.risk.paths.path_calendar import PathCalendar, plan_calendar
from backtest.risk.paths.path_model import PathModel, WordArray
from backtest.risk.paths.path_writer import PathBars, PathSource, write_paths

PRICES = ("open", "high", "low", "close")
MARKS = tuple(f"mark_{name}" for name in PRICES)
EVENTS = ("funding_time", "funding_rate", "funding_mark", "funding_predicted")


@dataclass(frozen=True, eq=False, repr=False)
class InstrumentPaths:
    """What draws one instrument of :class:`backtest.Paths`.

    Parameters
    ----------
    history : Market
        The bars up to the start.
    model : PathModel
        Draws the bars after it.
    horizon : int
        Time after the last bar of history, ns.
    funding : str, float, FundingTerms or None
        As in :func:`backtest.simulate_paths`.
    every : int
        The time, in ns, in which the phases of resampled rows repeat; all instruments share it.
    loads : tuple of float
        How draws are joined with those of other instruments, see
        :func:`backtest.risk.paths.draw_kernels.draw_joint`.
    common_jump : float
        The probability that the jumps of a bar are those of the first of several instruments.
    """

    history: Market
    model: PathModel
    horizon: int
    funding: FundingChoice
    every: int
    loads: tuple[float, ...]
    common_jump: float

    @functools.cached_property
    def calendar(self) -> PathCalendar:
        grid = find_path_grid(self.history, self.funding)
        return plan_calendar(self.history, self.horizon, grid, self.every)

    @functools.cached_property
    def process(self) -> FundingProcess:
        return make_process(self.history, self.funding)

    @functools.cached_property
    def source(self) -> PathSource:
        own = PathSource.of(self.history, self.model, self.calendar, self.process, self.loads)
        if self.model.kernel == "walk_jumps":
            own.terms[3] = self.common_jump
        return own

    @functools.cached_property
    def n_settled(self) -> int:
        since = self.history.time[-1] - self.history.interval // 4
        return int(np.sum(self.history.funding_time >= since))

    def draw(self, keys: WordArray, mirrored: IntArray, bridge: int) -> PathBars:
        return write_paths(self.source, keys, mirrored, bridge)

    def market_of(self, bars: PathBars, k: int, source: str) -> Market:
        width = len(self.calendar.time)
        part = slice(k * width, (k + 1) * width)
        marks = bars.prices if bars.marks is None else bars.marks
        stamps, rates, settled, predicted = self.join_events(bars.rates[k])
        unpaid = {DIVIDEND: np.full(width, np.nan)}  # a run with dividends goes on with none
        return Market(
            **{name: bars.prices[j, part] for j, name in enumerate(PRICES)},
            **{name: marks[j, part] for j, name in enumerate(MARKS)},
            instrument=self.history.instrument,
            interval=self.history.interval,
            time=self.calendar.time,
            volume=bars.volume[part],
            has_mark=bars.marks is not None,
            funding_time=stamps,
            funding_rate=rates,
            funding_mark=settled,
            funding_predicted=predicted,
            columns=unpaid if DIVIDEND in self.history.columns else {},
            synthetic=True,
            sessions=self.history.sessions,
            decide=self.history.decide,
            filled={},
            source=source,
        )

    def join_events(self, rates: FloatArray) -> tuple[IntArray, FloatArray, FloatArray, FloatArray]:
        check_shape("rates", rates, np.shape(rates)[:1] or (-1,))
        history, unknown = self.history, np.full(len(rates), np.nan)
        kept = slice(len(history.funding_time) - self.n_settled, None)
        return (
            np.concatenate([history.funding_time[kept], self.calendar.stamps]),
            np.concatenate([history.funding_rate[kept], rates]),
            np.concatenate([history.funding_mark[kept], unknown]),
            np.concatenate([history.funding_predicted[kept], unknown]),
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
        fields = path.fields() | joined
        return Market(**fields, source=f"{self.history.source} then {path.source}")

    def put_at_end(self, joined: Market, bars: PathBars, k: int) -> Market:
        """Return a path with history in front, with path k of some bars in the place of its own.

        Only what is drawn differs. Nothing is checked again, since there are thousands of paths.
        """
        width = len(self.calendar.time)
        part = slice(k * width, (k + 1) * width)
        ends = {name: bars.prices[j, part] for j, name in enumerate(PRICES)}
        ends |= {"volume": bars.volume[part], "funding_rate": bars.rates[k]}
        if bars.marks is not None:
            ends |= {name: bars.marks[j, part] for j, name in enumerate(MARKS)}
        fields: dict[str, Any] = {**vars(joined), "facts": {}}
        for name, values in ends.items():
            whole = np.array(fields[name])
            whole[len(whole) - len(values) :] = values
            whole.flags.writeable = False
            fields[name] = whole
        if bars.marks is None:
            fields |= {mark: fields[name] for mark, name in zip(MARKS, PRICES, strict=True)}
        path = object.__new__(Market)
        vars(path).update(fields)
        return path
