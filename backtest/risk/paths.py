"""Paths: many possible continuations of a market or of several, drawn on demand."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import (
    DataError,
    FloatArray,
    IntArray,
    Number,
    ParameterError,
    Range,
    TimeLike,
    checked,
    compile_module,
    did_you_mean,
    format_duration,
    format_time,
    parse_duration,
    pick_value,
    repr_plain,
    to_nanoseconds,
    utc_index,
)
from backtest.base.units import DAY
from backtest.features import log_returns
from backtest.market import Market, Markets, as_given, as_markets
from backtest.risk import path_rows
from backtest.risk.path_funding import (
    FITTED,
    FundingChoice,
    FundingGrid,
    FundingProcess,
    find_grid,
    find_path_grid,
    find_period,
    make_process,
    read_funding,
)
from backtest.risk.path_models import (
    BASIS,
    FUNDING,
    GBM,
    HISTORY,
    MOST_RETURNS,
    ROWS,
    Draws,
    Drift,
    Filtered,
    Garch,
    Merton,
    PathModel,
    Stationary,
    count_per_year,
    read_drift,
)
from backtest.venue import FundingTerms

BLOCK, BLOCK_BARS = 256, 2**19
"""Paths that are drawn at once, and about the most bars of them."""
MODELS: dict[str, type[PathModel]] = {
    each.__name__.lower(): each for each in (Filtered, Stationary, GBM, Merton, Garch)
}
BRIDGES = (1, 4)
SLACK = 1e-9
"""What a correlation matrix may lack to be positive semidefinite."""
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

    ``prices`` and ``marks`` have the rows open, high, low, close and shape (4, n_paths, width);
    ``volume`` and ``rows``, of history, that resampled bars repeat (-1 for other models), have
    shape (n_paths, width), ``rates`` of funding (n_paths, n_stamps).
    """

    prices: FloatArray
    marks: FloatArray
    volume: FloatArray
    rows: IntArray
    rates: FloatArray

    def select(self, part: slice) -> PathBars:
        return PathBars(*[each[..., part, :] for each in self])  # type: ignore[arg-type] # by field


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
        _ = self.calendar, self.process, self.table

    # --------------------------------------------------------------------------- drawing

    def draw(self, draws: Draws) -> PathBars:
        n, width = draws.shape[1], len(self.calendar.time)
        prices, marks = np.empty((2, 4, n, width))
        for j, (price, mark) in enumerate(zip(PRICES, MARKS, strict=True)):
            prices[j, :, 0] = getattr(self.history, price)[-1]
            marks[j, :, 0] = getattr(self.history, mark)[-1]
        volume, rows = np.full((n, width), self.volume), np.full((n, width), -1, np.int64)
        volume[:, 0] = self.history.volume[-1]
        if self.table is not None:
            self.repeat_rows(draws, self.table, prices, marks, volume, rows)
        else:
            self.walk(draws, prices)
            if self.history.has_mark:
                self.lay_marks(draws, prices, marks)
        marks = marks if self.history.has_mark else prices
        return PathBars(prices, marks, volume, rows, self.draw_rates(draws))

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
        volume: FloatArray, rows: IntArray,
    ) -> None:  # fmt: skip
        """Write bars that repeat rows of history, the same ones of all instruments."""
        calendar, model = self.calendar, self.model
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

    def draw_rates(self, draws: Draws) -> FloatArray:
        process = self.process
        residuals = process.residuals if self.table is not None else np.sort(process.residuals)
        size = len(self.calendar.stamps), draws.shape[1]
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
        return Market(
            **dict(zip((*PRICES, *MARKS), (*bars.prices[:, k], *bars.marks[:, k]), strict=True)),
            **events,
            instrument=history.instrument,
            interval=history.interval,
            time=self.calendar.time,
            volume=bars.volume[k],
            has_mark=history.has_mark,
            columns={},
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

    def put_at_end(self, joined: Market, bars: PathBars) -> Iterator[Market]:
        """Yield a path with history in front, with each path of some bars in the place of its own.

        Only what is drawn differs, and is in the same arrays for all paths: there are thousands.
        """
        drawn = dict(zip((*PRICES, *MARKS), (*bars.prices, *bars.marks), strict=True))
        drawn |= {"volume": bars.volume, "funding_rate": bars.rates}
        fields, rooms = {**vars(joined)}, {}
        for name, values in drawn.items():
            whole = np.array(fields[name])
            rooms[name] = whole[len(whole) - values.shape[1] :]
            fields[name] = whole.view()
            fields[name].flags.writeable = False
        for k in range(len(bars.volume)):
            for name, values in drawn.items():
                rooms[name][:] = values[k]
            path = object.__new__(Market)
            vars(path).update(fields, facts={})
            yield path


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


# ------------------------------------------------------------------------------------------ paths


@dataclass(frozen=True, eq=False, repr=False)
class Paths:
    """Possible continuations of a market, or of several instruments drawn together.

    Path i depends on the models, the history, the seed and i alone. Blocks of 256 paths (fewer of
    long ones) are drawn when asked for. Resampled models repeat the same rows of history in all
    instruments at once. Path i of the first instrument is the same as alone, if its model is.

    The first bar of every path is the last one of ``history``; ``models`` draw those after it, by
    instrument, ``count`` paths of ``horizon`` ns. The other fields are arguments of
    :func:`backtest.simulate_paths`.
    """

    history: Market | Markets
    models: Mapping[str, PathModel]
    count: int
    horizon: int
    seed: int = 0
    bridge: int = 1
    funding: FundingChoice | Mapping[str, FundingChoice] = FITTED
    drift_of_history: bool = False
    correlation: tuple[tuple[float, ...], ...] = ((1.0,),)
    _kept: dict[Any, Any] = field(default_factory=dict, init=False)

    @functools.cached_property
    def markets(self) -> Markets:
        """The history by instrument."""
        return as_markets(self.history)

    @property
    def names(self) -> tuple[str, ...]:
        """The instruments."""
        return self.markets.names

    @functools.cached_property
    def members(self) -> dict[str, InstrumentPaths]:
        """What draws each instrument."""
        periods = [find_period(each, find_grid(each)) for each in self.markets.values()]
        return {
            name: InstrumentPaths(
                history=market,
                model=self.models[name],
                horizon=self.horizon,
                funding=pick_value(self.funding, name),
                every=math.lcm(*periods),
            )
            for name, market in self.markets.items()
        }

    @functools.cached_property
    def factor(self) -> FloatArray:
        """The lower Cholesky factor of the correlation, (n, n)."""
        if self.is_resampled:
            return np.zeros((len(self.names), 1))
        return factor_correlation(np.array(self.correlation))

    @property
    def leader(self) -> InstrumentPaths:
        """What draws the first instrument."""
        return self.members[self.names[0]]

    @property
    def model(self) -> PathModel:
        """The model of the first instrument."""
        return self.leader.model

    @property
    def calendar(self) -> PathCalendar:
        """The bars of every path, and the settlements of the first instrument."""
        return self.leader.calendar

    @property
    def is_resampled(self) -> bool:
        """Whether bars repeat rows of history."""
        return all(each.is_resampled for each in self.models.values())

    @property
    def width(self) -> int:
        """Bars of a path, the last one of history included."""
        return len(self.calendar.time)

    @property
    def n_bars(self) -> int:
        """Bars of a path after history."""
        return self.width - 1

    @property
    def time(self) -> pd.DatetimeIndex:
        """The opens of the bars of every path, UTC."""
        return utc_index(self.calendar.time)

    @property
    def start(self) -> pd.Timestamp:
        """The open of the last bar of history, at whose close policies decide first."""
        return self.time[0]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(self.count))

    def __repr__(self) -> str:
        begins = format_time(int(self.calendar.time[0]) + self.markets.interval)
        kinds = ", ".join(dict.fromkeys(type(each).__name__ for each in self.models.values()))
        names, drawn = f" of {', '.join(self.names)}", kinds
        if len(self.names) == 1:
            names, drawn = "", repr(self.model)
        return (
            f"<Paths: {self.count} of {self.n_bars} bars{names} from {begins}, {drawn}, "
            f"seed {self.seed}>"
        )

    @checked
    def __getitem__(self, i: int) -> Any:
        if not -self.count <= i < self.count:
            raise IndexError(f"there are {self.count} paths, got {i}")
        number = i % self.count
        path = self.markets_of(self.draw_all(number, number + 1), 0, number)
        return as_given(path, self.history)

    def describe(self) -> dict[str, Any]:
        """Return what draws the paths, as plain data for a manifest."""
        kinds = ", ".join(dict.fromkeys(type(each).__name__ for each in self.models.values()))
        is_joined = len(self.names) > 1 and not self.is_resampled
        funding = {name: own.funding for name, own in self.members.items()}
        return {
            "model": {"name": kinds,
                      "instruments": {name: each.to_dict() for name, each in self.models.items()}},
            "paths": self.count,
            "horizon": self.horizon,
            "seed": self.seed,
            "bridge": self.bridge,
            "drift": {name: model.drift for name, model in self.models.items()},
            "drift_of_history": self.drift_of_history,
            "funding": {
                name: each.to_dict() if isinstance(each, FundingTerms) else each
                for name, each in funding.items()
            },
            "funding_fit": {name: own.process.describe() for name, own in self.members.items()},
            "correlation": [list(row) for row in self.correlation] if is_joined else None,
            "start": format_time(int(self.calendar.time[0]) + self.markets.interval),
            "history": self.markets.content_hash,
        }  # fmt: skip

    def with_settings(self, **changes: Any) -> Paths:
        """Return the paths with other settings, such as ``count``, ``seed`` or ``bridge``."""
        return replace(self, **changes)

    def draw_all(self, first: int, stop: int) -> dict[str, PathBars]:
        """Return the bars of the paths from ``first`` up to ``stop``, by instrument."""
        return {name: self.draw(first, stop, name) for name in self.names}

    def draw(self, first: int, stop: int, name: str | None = None) -> PathBars:
        """Return the same of one instrument, by default the first."""
        size, parts = self.block, []
        for k in range(first // size, -(-stop // size)):
            whole = self.draw_block(k, name or self.names[0])
            parts.append(whole.select(slice(max(first - k * size, 0), min(stop - k * size, size))))
        return PathBars(*(np.concatenate(each, axis=-2) for each in zip(*parts, strict=True)))

    @property
    def block(self) -> int:
        """The number of paths that are drawn at once: 256, fewer of over 2,048 bars."""
        return min(BLOCK, max(1 << int(math.log2(max(BLOCK_BARS / self.width, 1.0))), 2))

    def draw_block(self, number: int, name: str) -> PathBars:
        """Return the bars of a block of paths of an instrument."""
        kept = self._kept.get(name)
        if kept is not None and kept[0] == number:
            found: PathBars = kept[1]
            return found
        i = self.names.index(name)
        found = self.members[name].draw(
            Draws(
                seed=self.seed,
                block=number,
                shape=(self.n_bars, self.block),
                bridge=self.bridge,
                loads=tuple(map(float, self.factor[i])),
            )
        )
        self._kept[name] = (number, found)
        return found

    def closes(
        self, first: int = 0, stop: int | None = None, name: str | None = None
    ) -> FloatArray:
        """Return last prices of an instrument at closes, of shape (paths, width)."""
        bars = self.draw(first, self.count if stop is None else stop, name)
        return np.asarray(bars.prices[3])

    def markets_of(self, bars: Mapping[str, PathBars], k: int, number: int) -> Markets:
        """Return path k of some bars by instrument; ``number`` names it."""
        source = f"{self!r}[{number}]"
        found = {name: each.market_of(bars[name], k, source) for name, each in self.members.items()}
        return Markets(found, currency=self.markets.currency or None)

    def join_history(self, path: Any, bars: int) -> Any:
        """Return a path with up to ``bars`` bars of history in front of its first one.

        Policies with columns need them to begin warm. The path may be a Market or Markets.
        """
        pairs = zip(self.members.items(), as_markets(path).values(), strict=True)
        joined = {name: each.join_history(market, bars) for (name, each), market in pairs}
        return as_given(Markets(joined, currency=self.markets.currency or None), path)


def factor_correlation(correlation: FloatArray) -> FloatArray:
    c = np.asarray(correlation, dtype=np.float64)
    is_matrix = bool(np.isfinite(c).all() and np.allclose(c, c.T, atol=1e-12))
    is_matrix = is_matrix and bool(np.allclose(np.diag(c), 1.0))
    if not is_matrix or float(np.linalg.eigvalsh(c).min()) < -SLACK:
        raise ParameterError(
            "correlation must be a symmetric matrix with ones on its diagonal and no negative "
            f"eigenvalue, got {np.round(c, 4).tolist()}"
        )
    size, axes = np.linalg.eigh(c)
    low = np.linalg.qr((axes * np.sqrt(np.maximum(size, 0.0))).T)[1].T
    low = np.where(np.abs(low) > 1e-7, low * np.where(np.diag(low) < 0.0, -1.0, 1.0), 0.0)
    return np.asarray(low / np.linalg.norm(low, axis=1, keepdims=True))


def read_correlation(given: Any, history: Markets) -> tuple[tuple[float, ...], ...]:
    """Return the correlations of the normal numbers, (n, n); by default those of log returns."""
    n = len(history)
    if given is None:
        returns = [log_returns(each)[1:][-MOST_RETURNS:] for each in history.values()]
        found = np.zeros((n, n))
        if len(returns[0]) > 1:
            with np.errstate(all="ignore"):
                found = np.atleast_2d(np.corrcoef(returns))
        found = np.where(np.isfinite(found), found, 0.0)
        np.fill_diagonal(found, 1.0)
    elif np.ndim(given) == 0:
        rho = Number(-1.0, 1.0).check("correlation", given)
        found = np.full((n, n), rho)
        np.fill_diagonal(found, 1.0)
    else:
        found = np.asarray(given, dtype=np.float64)
        if found.shape != (n, n):
            raise ParameterError(
                f"correlation of {n} instruments must have shape ({n}, {n}), got {found.shape}"
            )
    return tuple(tuple(map(float, row)) for row in found)


@checked
def simulate_paths(
    market: Market | Markets,
    model: Any = "filtered",
    *,
    paths: int = 10_000,
    horizon: str = "30d",
    start: TimeLike = "now",
    seed: int = 0,
    bridge: int = 1,
    funding: Any = FITTED,
    drift: Drift | None = None,
    correlation: float | FloatArray | None = None,
) -> Paths:
    """Return possible continuations of a market, or of several.

    Parameters
    ----------
    market : Market or Markets
        The history. Of several instruments, the bars that all of them have.
    model : str, PathModel or class
        ``"filtered"``, ``"stationary"``, ``"gbm"``, ``"merton"`` or ``"garch"``, or a class of
        :mod:`backtest.paths`, to fit; or a model with parameters.
    paths, seed : int
        Their number, and the seed of the random numbers.
    horizon : str
        How far they reach, for example ``"30d"``.
    start : str or Timestamp
        ``"now"``, or a time in UTC: only bars that have closed by then count as history.
    bridge : int
        Steps in which a parametric model draws the high and low of a bar. 1 is right where one
        barrier matters, 4 also for what reads high and low together (ranges).
    funding : str, float, FundingTerms, mapping or None
        ``"fitted"``: an autoregression of the settlements of history on the last one and their
        means of 1, 7 and 30 days, or on the last one alone with less than 180 days of settlements.
        FundingTerms, from ``bt.funding.terms``: the same, within the venue's cap. A number: the
        rate of every settlement, in [-0.1, 0.1]. None: no funding. A history without settlements
        has none, unless a number is given (then every 8 hours). Of several instruments, one for
        all, or a mapping by name.
    drift : float or str, optional
        Growth of the expected price per year, or ``"history"``. By default none: the mean price of
        all paths is today's (a model with parameters keeps its own drift).
    correlation : float or array of shape (n, n), optional
        Of the normal numbers of several instruments with parametric models; by default that of the
        log returns of history. Jumps are common to all. Resampled rows keep theirs.
    """
    markets = as_markets(market)
    count = int(Range(1, 10**9).check("paths", paths, whole=True))
    Range(0, 2**62).check("seed", seed, whole=True)
    if isinstance(bridge, bool) or bridge not in BRIDGES:
        raise ParameterError(f"bridge must be 1 or 4 steps, got {bridge!r}")
    span = parse_duration(horizon, "horizon")
    if markets.options:
        raise ParameterError(
            "simulated paths have no prices of options, got "
            f"{next(iter(markets.options))!r}; bt.stress answers for accounts that hold them"
        )
    history = select_history_of_all(markets, start)
    models = fit_models(model, history, drift)
    is_resampled = all(each.is_resampled for each in models.values())
    if correlation is not None and (len(history) == 1 or is_resampled):
        raise ParameterError(
            "correlation needs several instruments and a parametric model; rows have their own"
        )
    made = Paths(
        history=as_given(history, market),
        models=models,
        count=count,
        horizon=span,
        seed=int(seed),
        bridge=bridge,
        funding=read_fundings(funding, history),
        drift_of_history=drift == HISTORY,
        correlation=read_correlation(correlation, history),
    )
    _ = made.factor  # its errors belong here
    for each in made.members.values():
        each.prepare()
    return made


def select_history_of_all(markets: Markets, start: TimeLike) -> Markets:
    spans = zip(markets.names, markets.spans, strict=True)
    ended = [name for name, (_, stop) in spans if stop < markets.n_bars]
    if ended:
        raise DataError(
            f"paths begin at the end of all instruments, {', '.join(ended)} ended earlier; "
            "markets.select(...) leaves them out"
        )
    common = markets.slice(int(markets.spans[:, 0].max()), markets.n_bars)
    return Markets(
        {name: select_history(each, start) for name, each in common.items()},
        currency=markets.currency or None,
    )


def fit_models(model: Any, history: Markets, drift: Drift | None) -> dict[str, PathModel]:
    found = {name: choose_model(model, each, drift) for name, each in history.items()}
    if not any(each.is_resampled for each in found.values()):
        return found
    longest = max(each.block for each in found.values())  # type: ignore[attr-defined] # resampled
    return {name: replace(each, block=longest) for name, each in found.items()}  # type: ignore[call-arg]


def read_fundings(funding: Any, history: Markets) -> Any:
    if not isinstance(funding, Mapping):
        return read_funding(funding)
    if set(funding) != set(history.names):
        raise ParameterError(
            f"funding must be one for all or one for each of {', '.join(history.names)}, "
            f"got {', '.join(map(str, funding))}"
        )
    return {name: read_funding(each) for name, each in funding.items()}


def select_history(market: Market, start: TimeLike) -> Market:
    history = market
    if not (isinstance(start, str) and start == "now"):
        end = to_nanoseconds(start, "start")
        n = int((market.time + market.interval <= end).sum())
        if n < 2 or end > market.end:
            raise ParameterError(
                f"start must lie after two bars of the market, {format_time(market.start)} to "
                f"{format_time(market.end)}, got {format_time(end)}"
            )
        history = market.prefix(n)
    if history.n_bars < 2:
        raise DataError(f"paths need at least 2 bars of history, got {market!r}")
    return history


def choose_model(model: object, history: Market, drift: Drift | None) -> PathModel:
    if isinstance(model, PathModel):
        chosen = model
    elif isinstance(model, type) and issubclass(model, PathModel) and model in MODELS.values():
        chosen = model.fit(history)
    elif isinstance(model, str) and model.lower() in MODELS:
        chosen = MODELS[model.lower()].fit(history)
    else:
        raise ParameterError(
            f"model must be a model of bt.paths or one of {', '.join(MODELS)}, "
            f"got {repr_plain(model):.60}{did_you_mean(model, MODELS)}"
        )
    return chosen if drift is None else chosen.override(drift=read_drift(drift, history))
