"""Paths: many possible continuations of a market, drawn on demand."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from backtest.base.checked_calls import check_shape, checked
from backtest.base.errors import ParameterError
from backtest.base.units import FloatArray, IntArray, format_time
from backtest.market import Market
from backtest.market.tables.dividends import DIVIDEND
from backtest.paths.funding_process import (
    FITTED,
    FundingChoice,
    FundingProcess,
    find_path_grid,
    make_process,
)
from backtest.paths.path_calendar import PathCalendar, PathSpan, plan_calendar
from backtest.paths.path_model import PathModel, WordArray
from backtest.paths.path_writer import PathBars, PathSource, write_paths

_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
ALONE = (0.0, 1.0)
"""The loads of an instrument alone."""


def mix_words(words: WordArray) -> WordArray:
    """Return the SplitMix64 hash of each word."""
    with np.errstate(over="ignore"):
        z = words + _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * _FIRST
        z = (z ^ (z >> np.uint64(27))) * _SECOND
        return np.asarray(z ^ (z >> np.uint64(31)))


def make_keys(seed: int, numbers: IntArray) -> WordArray:
    """Return the key of each path: a hash of the seed and its number."""
    start = mix_words(np.array([seed % 2**64], dtype=np.uint64))
    return mix_words(mix_words(numbers.astype(np.uint64)) ^ start)


class DrawPlan(NamedTuple):
    """What draws some paths: keys and the bars they hold from, and whether normals are mirrored."""

    keys: WordArray
    since: IntArray
    mirrored: IntArray


@dataclass(frozen=True, eq=False, repr=False)
class Paths(PathSpan[Market]):
    """Possible continuations of a market; ``paths[i]`` is a :class:`backtest.Market`.

    Path i depends on the model, the history, the seed and i alone: not on how many paths there are,
    nor in which blocks or threads they are drawn. Nothing is kept: paths are drawn when asked for.

    Parameters
    ----------
    history : Market
        The bars up to the start. The first bar of every path is its last one.
    model : PathModel
        Draws the bars after it.
    count : int
        The number of paths.
    horizon : int
        Time after the last bar of history, ns.
    seed : int
        Of the random numbers.
    bridge : int
        Steps in which high and low of a bar are drawn, 1 or 4.
    antithetic : bool
        Whether path 2 k + 1 is the mirror image of path 2 k.
    funding : str, float, FundingTerms or None
        ``"fitted"``, ``"history"``, a rate per settlement, terms with a cap, or none; see
        :func:`backtest.simulate_paths`.
    drift_of_history : bool
        Whether the drift of the model was estimated on history.
    every : int, optional
        The time, in ns, in which the phases of resampled rows repeat, by default that between two
        settlements; several instruments share one.
    loads : tuple of float
        How draws are joined with those of other instruments, see
        :func:`backtest.paths.draw_kernels.draw_joint`.
    common_jump : float
        The probability that the jumps of a bar are those of the first of several instruments.
    """

    history: Market
    model: PathModel
    count: int
    horizon: int
    seed: int = 0
    bridge: int = 1
    antithetic: bool = False
    funding: FundingChoice = FITTED
    drift_of_history: bool = False
    every: int | None = None
    loads: tuple[float, ...] = ALONE
    common_jump: float = 1.0

    @functools.cached_property
    def calendar(self) -> PathCalendar:
        """The bars and settlements of every path."""
        grid = find_path_grid(self.history, self.funding)
        return plan_calendar(self.history, self.horizon, grid, self.every)

    @functools.cached_property
    def process(self) -> FundingProcess:
        """What draws the settlements."""
        return make_process(self.history, self.funding)

    @property
    def processes(self) -> dict[str, FundingProcess]:
        """What draws the settlements, by instrument."""
        return {self.history.instrument: self.process}

    @functools.cached_property
    def source(self) -> PathSource:
        """What bars are drawn from: history as rows, its basis, the parameters of the model."""
        own = PathSource.of(self.history, self.model, self.calendar, self.process, self.loads)
        if self.model.kernel == "walk_jumps":
            own.terms[3] = self.common_jump
        return own

    @property
    def is_resampled(self) -> bool:
        """Whether bars repeat rows of history."""
        return self.model.is_resampled

    @property
    def is_symmetric(self) -> bool:
        """Whether paths have mirrored twins."""
        return self.model.is_symmetric

    @property
    def can_tilt(self) -> bool:
        """Whether paths can be pushed towards a liquidation by exponential tilting."""
        return self.model.tilt(1e-9, 1.0) is not None

    @property
    def can_split(self) -> bool:
        """Whether paths can be restarted near a liquidation."""
        return True

    def __repr__(self) -> str:
        return (
            f"<Paths: {self.count} of {self.n_bars} bars from "
            f"{format_time(int(self.calendar.time[0]) + self.history.interval)}, {self.model!r}, "
            f"seed {self.seed}>"
        )

    def __getitem__(self, i: int) -> Market:
        """Return path i as a market: the last bar of history, and the bars drawn after it."""
        number = self.find_number(i)
        return self.market_of(self.draw(number, number + 1), 0, number)

    def describe(self) -> dict[str, Any]:
        """Return what draws the paths, as plain data for a manifest."""
        return {
            "model": {"name": type(self.model).__name__, **self.model.to_dict()},
            "paths": self.count,
            "horizon": self.horizon,
            "seed": self.seed,
            "bridge": self.bridge,
            "antithetic": self.antithetic,
            "funding": describe_choice(self.funding),
            "funding_fit": {name: each.describe() for name, each in self.processes.items()},
            "drift": self.model.drift,
            "drift_of_history": self.drift_of_history,
            "history": self.history.content_hash,
            "start": format_time(int(self.calendar.time[0]) + self.history.interval),
        }

    @checked
    def with_settings(self, **changes: Any) -> Paths:
        """Return the paths with other settings, such as ``count``, ``seed`` or ``bridge``."""
        return replace(self, **changes)

    @checked
    def plan(self, first: int, stop: int) -> DrawPlan:
        """Return what draws the paths from ``first`` up to ``stop``."""
        numbers = np.arange(first, stop, dtype=np.int64)
        mirrored = numbers % 2 if self.antithetic else np.zeros_like(numbers)
        keys = make_keys(self.seed, numbers // 2 if self.antithetic else numbers)
        return DrawPlan(keys[:, None], np.zeros((len(numbers), 1), np.int64), mirrored)

    @checked
    def draw(self, first: int, stop: int) -> PathBars:
        """Return the bars of the paths from ``first`` up to ``stop``, laid end to end."""
        return self.draw_plan(self.plan(first, stop))

    @checked
    def draw_plan(self, plan: DrawPlan) -> PathBars:
        """Return the bars of the paths that a plan draws, laid end to end."""
        return write_paths(self.source, plan.keys, plan.since, plan.mirrored, self.bridge)

    @checked
    def closes(self, first: int = 0, stop: int | None = None) -> FloatArray:
        """Return last prices at closes, of shape (paths, width), of some or all paths."""
        bars = self.draw(first, self.count if stop is None else stop)
        return np.asarray(bars.prices[3].reshape(-1, self.width))

    @checked
    def market_of(self, bars: PathBars, k: int, number: int) -> Market:
        """Return path k of some bars as a market; ``number`` names it."""
        part = slice(k * self.width, (k + 1) * self.width)
        marks = bars.prices if bars.marks is None else bars.marks
        calendar = self.calendar
        names = ("open", "high", "low", "close")
        last = {name: bars.prices[j, part] for j, name in enumerate(names)}
        mark = {f"mark_{name}": marks[j, part] for j, name in enumerate(names)}
        if bars.marks is None:
            mark = {f"mark_{name}": values for name, values in last.items()}
        stamps, rates, settled, predicted = self.join_events(bars.rates[k])
        unpaid = {DIVIDEND: np.full(self.width, np.nan)}  # a run with dividends goes on with none
        return Market(
            **last,
            **mark,
            instrument=self.history.instrument,
            interval=self.history.interval,
            time=calendar.time,
            volume=bars.volume[part],
            has_mark=bars.marks is not None,
            funding_time=stamps,
            funding_rate=rates,
            funding_mark=settled,
            funding_predicted=predicted,
            columns=unpaid if DIVIDEND in self.history.columns else {},
            synthetic=True,
            sessions=self.history.sessions,
            filled={},
            source=f"{self!r}[{number}]",
        )

    @checked
    def join_events(self, rates: FloatArray) -> tuple[IntArray, FloatArray, FloatArray, FloatArray]:
        """Return the settlements of a path with those of its first bar, which is of history."""
        check_shape("rates", rates, np.shape(rates)[:1] or (-1,), where="Paths.join_events")
        history, unknown = self.history, np.full(len(rates), np.nan)
        n = self.n_settled
        kept = slice(len(history.funding_time) - n, None)
        return (
            np.concatenate([history.funding_time[kept], self.calendar.stamps]),
            np.concatenate([history.funding_rate[kept], rates]),
            np.concatenate([history.funding_mark[kept], unknown]),
            np.concatenate([history.funding_predicted[kept], unknown]),
        )

    @functools.cached_property
    def n_settled(self) -> int:
        """The settlements of history that belong to its last bar."""
        since = self.history.time[-1] - self.history.interval // 4
        return int(np.sum(self.history.funding_time >= since))

    @checked
    def join_history(self, path: Market, bars: int) -> Market:
        """Return a path with up to ``bars`` bars of history in front of its first one.

        Policies with columns need them to begin warm.
        """
        first = max(self.history.n_bars - 1 - bars, 0)
        if first == self.history.n_bars - 1:
            return path
        before = self.history.slice(first, self.history.n_bars)
        names = (
            "time", "open", "high", "low", "close", "volume",
            "mark_open", "mark_high", "mark_low", "mark_close",
        )  # fmt: skip
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(before, name), getattr(path, name)[1:]]) for name in names
        }
        events = ("funding_time", "funding_rate", "funding_mark", "funding_predicted")
        joined |= {
            name: np.concatenate([getattr(before, name), getattr(path, name)[self.n_settled :]])
            for name in events
        }
        joined["columns"] = {
            name: np.concatenate([before.columns[name], values[1:]])
            for name, values in path.columns.items()
        }
        fields = path.fields() | joined
        return Market(**fields, source=f"{self.history.source} then {path.source}")


def describe_choice(funding: FundingChoice) -> Any:
    """Return how paths get their funding, as plain data."""
    return list(funding) if isinstance(funding, tuple) else funding


def check_paths(paths: object, *, where: str) -> Paths:
    """Return paths, or raise a ParameterError."""
    if not isinstance(paths, Paths):
        raise ParameterError(
            f"paths must be Paths, was {str(paths)[:60]!r}",
            where=where,
            cure="pass bt.simulate_paths(market, ...)",
        )
    return paths
