"""Paths: many possible continuations of a market or of several, drawn on demand."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from backtest import _compile, core, engine
from backtest.core.one_thread import one_thread
from backtest.core.units import DAY
from backtest.indicators import log_returns
from backtest.market import Market, Markets, as_given, as_markets, trust_fields
from backtest.risk import path_kernels
from backtest.risk import path_models as laws
from backtest.risk.path_models import FITTED, Drift, FundingChoice, PathModel
from backtest.venue import FundingTerms, Venue
from backtest.venue.funding import terms as find_terms

BLOCK, BLOCK_BARS = 256, 2**19
"""Paths that are drawn at once, and about the most bars of them."""
KEPT_BARS = 2**21
"""Bars of blocks that are kept, of 80 bytes each."""
AT_ONCE = 32
"""Paths whose markets share arrays."""
MODELS: dict[str, type[PathModel]] = {
    each.__name__.lower(): each for each in (laws.Filtered, laws.Stationary, laws.GBM)
}
SLACK = 1e-9
"""What a correlation matrix may lack to be positive semidefinite."""
WEEK = 7 * DAY
RECENT_WEEKS = 8
"""Weeks whose bars say when the sessions of a week are."""
PRICES = ("open", "high", "low", "close")
MARKS = tuple(f"mark_{name}" for name in PRICES)
LOG_STEP, LEAST_SHARE = 0.02, 1e-12
"""The distance of the log variances at which log means are tabulated, and the least variance, as a
share of the largest. The mean of exp(move) over rows is 1 to 1e-7, where bars are usual to 1e-9."""
FARTHEST = 230.0
"""The largest distance of a log price from today's: prices stay within 1e-100 to 1e100 of it."""


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
    history: Market, horizon: int, grid: laws.FundingGrid | None, every: int
) -> PathCalendar:
    """Return the calendar of ``horizon`` ns, with phases that repeat after ``every`` ns."""
    if history.end + horizon > np.iinfo(np.int64).max - 2 * WEEK:
        raise core.ParameterError(
            f"horizon must end before the year 2262, got {core.format_duration(horizon)}"
        )
    last = int(history.time[-1])
    if history.sessions:
        weeks = np.arange(last // WEEK, (last + horizon) // WEEK + 2, dtype=np.int64) * WEEK
        opens = (weeks[:, None] + find_week(history)[None, :]).ravel()
        time = np.concatenate([[last], opens[(opens > last) & (opens <= last + horizon)]])
    else:
        time = last + np.arange(0, horizon + 1, history.interval, dtype=np.int64)
    if len(time) < 2:
        raise core.ParameterError(
            f"horizon must be at least one bar of {core.format_duration(history.interval)}, "
            f"got {core.format_duration(horizon)}"
        )
    stamps = np.empty(0, np.int64)
    if grid is not None:
        stamps = grid.find(int(time[1]), int(time[-1]) + history.interval)
    n, anchor = every // history.interval, int(time[0])
    phases = (time - anchor) // history.interval % n
    row_phases = (history.time - anchor) // history.interval % n
    if history.sessions and history.interval <= DAY:  # -1 outside the week
        week = find_week(history)
        place = np.searchsorted(week, history.time % WEEK).clip(max=len(week) - 1)
        row_phases = np.where(week[place] == history.time % WEEK, place, -1)
        phases = np.searchsorted(week, time % WEEK).clip(max=len(week) - 1)
    row_phases[0] = -1  # its last close is not known
    missing = np.setdiff1d(phases[1:], row_phases)
    if len(missing):
        raise core.DataError(
            "history must have a bar for each phase of the funding interval or the week, "
            f"{len(missing)} have none in {history!r}"
        )
    return PathCalendar(time, stamps, phases, row_phases)


def find_week(history: Market) -> core.IntArray:
    """Return the times of the week at which bars open in at least half of the last weeks, ns."""
    if history.interval > DAY:
        return np.array([int(history.time[-1]) % WEEK], dtype=np.int64)
    recent = history.time[history.time > history.time[-1] - RECENT_WEEKS * WEEK]
    weeks = len(np.unique(recent // WEEK))
    found, counts = np.unique(recent % WEEK, return_counts=True)
    return np.asarray(found[counts >= 0.5 * weeks], dtype=np.int64)


class RowTable:
    """Rows of history, which resampled paths repeat.

    ``moves`` (4, n_rows) are the logs of open, high, low and close over the last close, over the
    volatility of their time; ``ratios`` (4, n_rows) are mark over last, and ``shares`` (n_rows,)
    volume over its mean. ``order`` lists the rows by phase, ``counts`` are those of each phase and
    ``starts`` their first places in the order. ``variance`` holds that of the first bar, omega,
    alpha, beta and the largest that a path may have. ``growth`` (width,) is the log growth per bar
    that blocks of rows add to that of single rows.
    """

    def __init__(self, history: Market, past: Market, model: Any, calendar: PathCalendar) -> None:
        self.block, self.calendar = float(model.block), calendar
        prices, marks = (
            np.array([getattr(history, each) for each in names]) for names in (PRICES, MARKS)
        )
        self.ratios, mean = marks / prices, float(np.mean(history.volume))
        self.shares = history.volume / mean if mean > 0.0 else np.zeros(history.n_bars)
        own = calendar.row_phases
        self.order: core.IntArray = np.argsort(own, kind="stable")
        self.counts = np.bincount(own[own >= 0])
        self.starts = int(np.sum(own < 0)) + np.cumsum(self.counts) - self.counts
        volatility, self.variance = model.scale(past)
        volatility = volatility[-history.n_bars :]
        before = np.concatenate([[np.nan], history.close[:-1]])
        self.moves = np.log(prices / before) / volatility
        if isinstance(model, laws.Filtered):  # the first bar has variance_now
            self.variance[0] /= float(np.mean(self.moves[3, own >= 0] ** 2))
            self.variance[4] = max(self.variance[4], self.variance[0])

    def choose(self, uniforms: core.FloatArray) -> tuple[core.IntArray, core.FloatArray]:
        """Return which row each bar repeats, and its variance, by uniform numbers (bars, paths, 2).

        Both have shape (paths, bars). Blocks have geometric lengths, as in the stationary
        bootstrap. A block that runs over the end of its rows goes on at the first row of its phase,
        so that all are equally likely.
        """
        now, omega, alpha, beta, most = self.variance
        shape = uniforms.shape[1::-1]
        rows, variance = np.empty(shape, np.int64), np.empty(shape)
        _compile.compile_module(path_kernels).repeat_rows(
            uniforms,
            self.calendar.phases[1:],
            np.append(self.calendar.row_phases, -1),
            self.order,
            self.counts,
            self.starts,
            alpha * self.moves[3] ** 2 + beta,
            np.array([self.block, now, omega, most]),
            rows,
            variance,
        )
        return rows, variance

    @functools.cached_property
    def log_means(self) -> tuple[int, core.FloatArray]:
        """Return the first node of a table of log means, and its cubics, (4, phases, nodes).

        Nodes are logs of the variance over :data:`LOG_STEP`. A cubic has the values and slopes of
        its ends (Hermite), so that 1, the only variance of rows that are not scaled, is exact.
        """
        now, omega, _, beta, most = self.variance
        least = min(now, omega / (1.0 - beta)) if beta < 1.0 else now
        lowest = math.log(max(least, LEAST_SHARE * most)) / LOG_STEP
        nodes = np.arange(math.floor(lowest), math.floor(math.log(most) / LOG_STEP) + 2)
        moves, starts = self.moves[3, self.order[self.starts[0] :]], self.starts - self.starts[0]
        values, slopes = np.empty((2, len(starts), len(nodes)))
        for j, node in enumerate(nodes.tolist()):
            sized = math.exp(0.5 * LOG_STEP * node) * moves
            largest = np.maximum.reduceat(sized, starts)
            weights = np.exp(sized - np.repeat(largest, self.counts))
            total = np.add.reduceat(weights, starts)
            values[:, j] = largest + np.log(total / self.counts)
            slopes[:, j] = 0.5 * LOG_STEP * np.add.reduceat(weights * sized, starts) / total
        (first, last), (up, down) = ((x[:, :-1], x[:, 1:]) for x in (values, slopes))
        rise = last - first
        return int(nodes[0]), np.array(
            [first, up, 3.0 * rise - 2.0 * up - down, up + down - 2.0 * rise]
        )

    def find_log_mean(
        self, variance: core.FloatArray, phase: int | core.IntArray
    ) -> core.FloatArray:
        """Return the log of the mean of exp(move) over the rows of a phase, given the variance."""
        first, cubics = self.log_means
        place = np.log(variance) * (1.0 / LOG_STEP) - first
        count = cubics.shape[2]
        node = np.clip(place.astype(np.int64), 0, count - 1)
        place -= node
        a, b, c, d = np.take(cubics.reshape(4, -1), phase * count + node, axis=1)
        return np.asarray(a + place * (b + place * (c + place * d)))

    @functools.cached_property
    def growth(self) -> core.FloatArray:
        """The mean of a product is not the product of the means: rows of a block are neighbors.

        It follows the share of the paths that are at each row, weighted by price, and their mean
        variance, as if all of them had it; those that begin a block apart from the others.
        """
        own, phases = np.append(self.calendar.row_phases, -1), self.calendar.phases
        mean, omega, alpha, beta, most = self.variance
        growth, before = np.zeros(len(phases)), np.zeros(0, np.int64)
        mass, variance = np.zeros((2, 0))
        places: dict[tuple[int, int] | None, core.IntArray] = {}
        for t, (last, phase) in enumerate(itertools.pairwise(phases.tolist()), 1):
            rows = self.order[self.starts[phase] :][: self.counts[phase]]
            fresh = 1.0 / self.block if t > 1 else 1.0
            step = (last, phase) if t > 1 else None
            if step not in places:
                goes = np.where(own[before + 1] == phase, before + 1, rows[0])
                places[step] = np.searchsorted(rows, goes)
            place, stays = places[step], (1.0 - fresh) * mass
            share, summed = (np.bincount(place, x, len(rows)) for x in (stays, stays * variance))
            older = np.divide(summed, share, out=np.full(len(rows), mean), where=share > 0.0)
            mass, total = np.zeros((2, len(rows)))
            for part, ahead in ((share, older), (fresh / len(rows), np.array([mean]))):
                moved = np.sqrt(ahead) * self.moves[3, rows]
                weight = part * np.exp(moved - self.find_log_mean(ahead, phase))
                mass += weight
                total += weight * np.minimum(omega + alpha * moved**2 + beta * ahead, most)
            variance = np.divide(total, mass, out=np.full(len(rows), mean), where=mass > 0.0)
            growth[t] = math.log(mass.sum())
            mean, mass, before = float(total.sum() / mass.sum()), mass / mass.sum(), rows
        return growth

    def lay(self, rows: core.IntArray, variance: core.FloatArray, drift: float) -> core.FloatArray:
        """Return the logs of open, high, low and close over the last close, (4, paths, bars)."""
        seen = variance if self.variance[2] > 0.0 else variance[:1]  # it is that of all paths
        means = self.find_log_mean(seen, self.calendar.phases[1:])
        logs = np.take(self.moves, rows, axis=1)
        logs *= np.sqrt(seen)
        logs += drift - self.growth[1:] - means
        return logs


class PathBars(NamedTuple):
    """The bars of some paths.

    ``prices`` and ``marks`` have the rows open, high, low, close and shape (4, n_paths, width);
    ``volume`` and ``rows``, of history, that resampled bars repeat (-1 for other models), have
    shape (n_paths, width), ``rates`` of funding (n_paths, n_stamps).
    """

    prices: core.FloatArray
    marks: core.FloatArray
    volume: core.FloatArray
    rows: core.IntArray
    rates: core.FloatArray

    def select(self, part: slice) -> PathBars:
        return PathBars(*[each[..., part, :] for each in self])  # type: ignore[arg-type] # by field


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
        self.history, self.model, self.funding = history, model, funding
        self.process = laws.make_process(past, funding)
        self.calendar = plan_calendar(history, horizon, self.process.grid, every)
        self.table = RowTable(history, past, model, self.calendar) if model.is_resampled else None
        basis = np.log(past.mark_close / past.close)
        mean = float(np.mean(basis))
        before, after = basis[:-1] - mean, basis[1:] - mean
        square = float(before @ before)
        keep = min(max(float(before @ after) / square, 0.0), 0.9999) if square > 0.0 else 0.0
        spread = float(np.std(after - keep * before)) if len(after) > 1 else 0.0
        self.basis = float(basis[-1]), mean, keep, spread

    def draw(self, draws: laws.Draws) -> PathBars:
        history, (bars, n) = self.history, draws.shape
        ratios = np.ones((4, 1, 1))
        volume = np.mean(history.volume[history.time > history.time[-1] - laws.MONTH])
        if self.table is not None:
            rows, variance = self.table.choose(draws.generator(laws.ROWS).random((bars, n, 2)))
            drift = self.model.drift / laws.count_per_year(history)
            logs = self.table.lay(rows, variance, drift)
            ratios = np.take(self.table.ratios, rows, axis=1)
            volume = volume * self.table.shares[rows]
        else:
            rows, logs = np.full((n, bars), -1, np.int64), np.zeros((4, n, bars))
            moves, highs, lows = self.model.walk(draws, laws.count_per_year(history))
            logs[3], logs[1], logs[2] = moves.T, highs.T, lows.T
            if history.has_mark:
                now, mean, keep, spread = self.basis
                z = draws.normals(laws.BASIS)
                basis = np.full((len(z) + 1, z.shape[1]), now)
                for t, shock in enumerate(z):
                    basis[t + 1] = mean + keep * (basis[t] - mean) + spread * shock
                middle = 0.5 * (basis[:-1] + basis[1:])
                ratios = np.exp([basis[:-1].T, middle.T, middle.T, basis[1:].T])
        close = np.cumsum(logs[3], axis=1)
        logs[:, :, 1:] += close[:, :-1]
        logs[3] = close
        process = self.process
        residuals = process.residuals if self.table is not None else np.sort(process.residuals)
        uniforms = draws.generator(laws.FUNDING).random((len(self.calendar.stamps), n))
        prices = np.exp(np.clip(logs, -FARTHEST, FARTHEST, out=logs), out=logs)
        prices *= float(history.close[-1])
        last = bound_extremes(self.put_first(PRICES, prices, 1.0))
        marks = bound_extremes(self.put_first(MARKS, prices, ratios)) if history.has_mark else last
        return PathBars(
            prices=last,
            marks=marks,
            volume=self.put_first(("volume",), np.broadcast_to(volume, (1, n, bars)), 1.0)[0],
            rows=np.pad(rows, ((0, 0), (1, 0)), constant_values=-1),
            rates=process.walk(residuals, uniforms, process.draw_unknown(draws)).T.copy(),
        )

    def put_first(
        self, names: tuple[str, ...], values: core.FloatArray, by: float | core.FloatArray
    ) -> core.FloatArray:
        """Return values (k, paths, bars) times ``by`` with the last bar of history in front."""
        found = np.empty((*values.shape[:2], values.shape[2] + 1))
        found[:, :, 0] = np.array([getattr(self.history, name)[-1] for name in names])[:, None]
        np.multiply(values, by, out=found[:, :, 1:])
        return found

    def market_of(self, bars: PathBars, k: int, before: Market, **changes: Any) -> Market:
        """Return path k of some bars behind history; ``changes`` are other fields."""
        ahead = {"volume": bars.volume[k, 1:], "time": self.calendar.time[1:]}
        ahead |= {"funding_time": self.calendar.stamps, "funding_rate": bars.rates[k]}
        changes = {"columns": {}, "filled": {}, **changes}
        return append_bars(before, bars.prices[:, k, 1:], bars.marks[:, k, 1:], ahead, **changes)

    def list_markets(self, bars: PathBars, before: Market, **changes: Any) -> Iterator[PathMarkets]:
        """Yield all paths of some bars as :meth:`market_of` does, as rows of a few arrays.

        The next ones have the same memory.
        """
        whole = [each[:, 1:] for each in (*bars.prices, bars.volume, *bars.marks)]
        later = dict(zip((*PRICES, "volume", *MARKS), whole, strict=True))
        later["funding_rate"] = bars.rates
        if not before.has_mark:
            later = {name: values for name, values in later.items() if name not in MARKS}
        kept = {}
        for name, values in later.items():
            past = getattr(before, name)
            kept[name] = np.empty((AT_ONCE, len(past) + values.shape[1]))
            kept[name][:, : len(past)] = past
        for at in range(0, len(bars.volume), AT_ONCE):
            part, rows = slice(at, at + AT_ONCE), {}
            for name, values in later.items():
                rows[name] = kept[name][: len(values[part])]
                rows[name][:, rows[name].shape[1] - values.shape[1] :] = values[part]
                rows[name].flags.writeable = False
            if not before.has_mark:
                rows |= {mark: rows[price] for mark, price in zip(MARKS, PRICES, strict=True)}
            yield PathMarkets(self.market_of(bars.select(part), 0, before, **changes), rows)


class PathMarkets(NamedTuple):
    """Some paths of an instrument; ``rows`` has the arrays of all, (k, n), by field."""

    first: Market
    rows: dict[str, core.FloatArray]

    def pick(self, k: int) -> Market:
        arrays = {name: each[k] for name, each in self.rows.items()}
        return trust_fields(vars(self.first) | arrays)

    def join(self) -> Market:
        """Return all paths as one market, with arrays of shape (n, k)."""
        arrays = {name: each.T for name, each in self.rows.items()}
        return trust_fields(vars(self.first) | arrays)


def append_bars(
    market: Market,
    prices: core.FloatArray,
    marks: core.FloatArray,
    ahead: Mapping[str, Any],
    **changes: Any,
) -> Market:
    """Return a market that goes on: prices and marks (4, n), and other arrays by field.

    Columns keep their last value; ``changes`` are other fields.
    """
    unknown = np.full(len(ahead["funding_time"]), np.nan)
    later = dict(zip((*PRICES, *MARKS), (*prices, *marks), strict=True)) | {"funding_mark": unknown}
    fields = market.fields() | {"synthetic": True}
    for name, values in {**later, **ahead}.items():
        fields[name] = np.concatenate([fields[name], values])
    fields["columns"] = {
        name: np.append(each, np.full(prices.shape[1], each[-1]))
        for name, each in market.columns.items()
    }
    return Market(**fields | changes)


def bound_extremes(prices: core.FloatArray) -> core.FloatArray:
    """Put the highs and lows of bars (4, ...) beyond their opens and closes, in place."""
    first, high, low, close = prices
    np.maximum(high, np.maximum(first, close), out=high)
    np.minimum(low, np.minimum(first, close), out=low)
    return prices


@dataclass(eq=False, repr=False)
class Paths:
    """Possible continuations of a market, or of several instruments drawn together.

    Path i depends on the models, the history, the seed and i alone. Blocks of 256 paths (fewer of
    over 2,048 bars) are drawn when asked for. Resampled models repeat the same rows of history in
    all instruments at once. Path i of the first instrument is the same as alone, if its model is.

    The first bar of every path is the last one of ``history``, the bars that all instruments have;
    ``pasts`` are all bars of each until then. ``models`` draw those after it, by instrument,
    ``count`` paths of ``horizon`` ns. ``recipe`` has what :func:`backtest.simulate_paths` was given
    besides their number, horizon and start; the other fields are arguments of it.

    Attributes
    ----------
    markets, names, members
        The history by instrument, the instruments, and what draws each.
    model, calendar
        The model, the bars and the settlements of the first instrument, the ``leader``.
    width, n_bars : int
        Bars of a path, with the last one of history and without it.
    time, start
        The opens of the bars of every path, UTC, and that of the last bar of history, at whose
        close policies decide first.
    kinds, is_resampled
        The names of the models, and whether bars repeat rows of history.
    factor : FloatArray of shape (n, n)
        The lower Cholesky factor of the correlation.
    """

    history: Market | Markets
    pasts: Mapping[str, Market]
    models: Mapping[str, PathModel]
    count: int
    horizon: int
    funding: Mapping[str, FundingChoice]
    seed: int
    bridge: int
    drift_of_history: bool
    correlation: tuple[tuple[float, ...], ...]
    recipe: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        self.markets = as_markets(self.history)
        self.names = self.markets.names
        self.kinds = ", ".join(dict.fromkeys(type(each).__name__ for each in self.models.values()))
        self.is_resampled = all(each.is_resampled for each in self.models.values())
        self.factor = np.zeros((len(self.names), 1))
        if not self.is_resampled:
            self.factor = factor_correlation(np.array(self.correlation))
        grids = [laws.find_grid(each) for each in self.pasts.values()]
        every = math.lcm(self.markets.interval, *(each.every for each in grids if each is not None))
        self.members = {
            name: InstrumentPaths(
                market,
                self.pasts[name],
                self.models[name],
                self.horizon,
                self.funding[name],
                every,
            )
            for name, market in self.markets.items()
        }
        self.leader = self.members[self.names[0]]
        self.model, self.calendar = self.leader.model, self.leader.calendar
        self.width = len(self.calendar.time)
        self.n_bars = self.width - 1
        self.time = core.utc_index(self.calendar.time)
        self.start = self.time[0]
        self.block = min(BLOCK, max(1 << int(math.log2(max(BLOCK_BARS / self.width, 1.0))), 2))
        self.most_kept = 1
        self._kept: dict[str, dict[int, PathBars]] = {}

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        begins = core.format_time(int(self.calendar.time[0]) + self.markets.interval)
        names = f" of {', '.join(self.names)}" if len(self.names) > 1 else ""
        drawn = self.kinds if names else repr(self.model)
        return (
            f"<Paths: {self.count} of {self.n_bars} bars{names} from {begins}, {drawn}, "
            f"seed {self.seed}>"
        )

    @core.checked
    def __getitem__(self, i: int) -> Any:
        if not -self.count <= i < self.count:
            raise IndexError(f"there are {self.count} paths, got {i}")
        number = i % self.count
        return as_given(self.markets_of(self.draw_all(number, number + 1), 0, number), self.history)

    def describe(self) -> dict[str, Any]:
        """Return what draws the paths, as plain data for a manifest."""
        is_joined = len(self.names) > 1 and not self.is_resampled
        closes = {name: self.closes(0, min(self.count, self.block), name) for name in self.names}
        return {
            "model": {"name": self.kinds,
                      "instruments": {name: each.to_dict() for name, each in self.models.items()}},
            "paths": self.count,
            "horizon": self.horizon,
            "seed": self.seed,
            "bridge": self.bridge,
            "drift": {name: model.drift for name, model in self.models.items()},
            "drift_of_history": self.drift_of_history,
            "spread": {name: float(np.sqrt(np.mean(np.log(ends[:, -1] / ends[:, 0]) ** 2)))
                       for name, ends in closes.items()},
            "funding": {
                name: each.to_dict() if isinstance(each, FundingTerms) else each
                for name, each in self.funding.items()
            },
            "funding_fit": {name: str(own.process) for name, own in self.members.items()},
            "correlation": [list(row) for row in self.correlation] if is_joined else None,
            "start": core.format_time(int(self.calendar.time[0]) + self.markets.interval),
            "history": self.markets.content_hash,
        }  # fmt: skip

    def draw_again(self, start: int, horizon: str, count: int) -> Paths:
        """Return paths from another close, ns: all that is fitted is fitted to the bars before."""
        recipe = dict(self.recipe or {})
        model = recipe.get("model")
        if model is None or isinstance(model, PathModel):
            raise core.ParameterError(
                "a score needs paths whose model is fitted at each date, 'filtered' for example, "
                f"got {core.repr_plain(model):.60}"
            )
        recipe["bridge"] = self.bridge
        return simulate_paths(**recipe, start=core.utc_index(np.array([start]))[0], horizon=horizon,
                              paths=count)  # fmt: skip

    @functools.cached_property
    def first_bars(self) -> dict[str, PathBars]:
        """The bars of the first path, which every account on these paths is set up on."""
        return self.draw_all(0, 1)

    def keep_all(self) -> None:
        """Keep all blocks that fit into about 170 MB, for accounts that are run again and again."""
        blocks = -(-self.count // self.block)
        room = KEPT_BARS // (self.block * self.width * len(self.names))
        self.most_kept = max(min(blocks, room), 1)

    def draw_all(self, first: int, stop: int) -> dict[str, PathBars]:
        """Return the bars of the paths from ``first`` up to ``stop``, by instrument."""
        return {name: self.draw(first, stop, name) for name in self.names}

    def draw(self, first: int, stop: int, name: str | None = None) -> PathBars:
        """Return the same of one instrument, by default the first."""
        name, size, parts = name or self.names[0], self.block, []
        for number in range(first // size, -(-stop // size)):
            kept = self._kept.setdefault(name, {})
            if number not in kept:
                loads = tuple(map(float, self.factor[self.names.index(name)]))
                draws = laws.Draws(self.seed, number, (self.n_bars, size), self.bridge, loads)
                bars = self.members[name].draw(draws)
                if len(kept) >= self.most_kept:
                    kept.clear()
                kept[number] = bars
            begin = number * size
            part = slice(max(first - begin, 0), min(stop - begin, size))
            parts.append(kept[number].select(part))
        if len(parts) == 1:
            return parts[0]
        return PathBars(*(np.concatenate(each, axis=-2) for each in zip(*parts, strict=True)))

    def closes(
        self, first: int = 0, stop: int | None = None, name: str | None = None
    ) -> core.FloatArray:
        """Return last prices of an instrument at closes, of shape (paths, width)."""
        bars = self.draw(first, self.count if stop is None else stop, name)
        return np.asarray(bars.prices[3])

    def markets_of(
        self, bars: Mapping[str, PathBars], k: int, number: int, behind: int = 0
    ) -> Markets:
        """Return path k of some bars, which is path ``number``, and up to ``behind`` before it."""
        first = max(self.markets.n_bars - 1 - behind, 0)
        found = {}
        for name, each in self.members.items():
            before = each.history.slice(first, self.markets.n_bars)
            source = f"{each.history.source} then " * bool(behind) + f"{self!r}[{number}]"
            found[name] = each.market_of(bars[name], k, before, source=source)
        return Markets(found, currency=self.markets.currency or None)


def factor_correlation(correlation: core.FloatArray) -> core.FloatArray:
    with one_thread():
        return decompose_correlation(np.asarray(correlation, dtype=np.float64))


def decompose_correlation(c: core.FloatArray) -> core.FloatArray:
    """Return the lower factor L of a correlation C = L L'; raises ParameterError if it is none."""
    is_matrix = bool(np.isfinite(c).all() and np.allclose(c, c.T, atol=1e-12))
    is_matrix = is_matrix and bool(np.allclose(np.diag(c), 1.0))
    if not is_matrix or float(np.linalg.eigvalsh(c).min()) < -SLACK:
        raise core.ParameterError(
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
        returns = [log_returns(each)[1:][-laws.MOST_RETURNS :] for each in history.values()]
        with np.errstate(all="ignore"):
            found = np.eye(n) if len(returns[0]) < 2 else np.atleast_2d(np.corrcoef(returns))
        found = np.where(np.isfinite(found), found, 0.0)
    elif np.ndim(given) == 0:
        found = np.full((n, n), core.Real(-1.0, 1.0).check("correlation", given))
    else:
        core.check_shape("correlation", given, (n, n))
        found = np.array(given, dtype=np.float64)
    if np.ndim(given) == 0:
        np.fill_diagonal(found, 1.0)
    return tuple(tuple(map(float, row)) for row in found)


def choose_funding(venue: Any) -> Any:
    """Return the funding of paths at a venue: fitted, within its cap where a preset knows one.

    Of several instruments, by name.
    """
    if isinstance(venue, Mapping):
        return {name: choose_funding(each) for name, each in venue.items()}
    if not isinstance(venue, Venue) or venue.in_force is None:
        return FITTED
    name, _, symbol = (venue.in_force.like or venue.in_force.preset).rpartition(":")
    capped = find_terms(name, symbol)
    if capped is None or math.isinf(capped.cap):
        return FITTED
    return capped


@core.checked
def simulate_paths(
    market: Market | Markets,
    model: Any = "filtered",
    *,
    paths: int = 10_000,
    horizon: str = "30d",
    start: core.TimeLike = "now",
    seed: int = 0,
    bridge: int = 1,
    funding: Any = FITTED,
    drift: Drift | None = None,
    correlation: float | core.FloatArray | None = None,
) -> Paths:
    """Return possible continuations of a market, or of several.

    Parameters
    ----------
    market : Market or Markets
        The history. Models, drift and funding of each instrument are fitted to all of its own
        past; rows that are repeated together and correlations are of the bars that all have, and a
        warning says from when.
    model : str, PathModel or class
        ``"filtered"``, ``"stationary"`` or ``"gbm"``, or a class of :mod:`backtest.paths`, to fit;
        or a model with parameters.
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
        Growth of the expected price per year, ``"history"``, or ``"shrunk"`` (that of history by
        James and Stein: none where it is within its standard error). By default none: the mean
        price of all paths is today's (a model with parameters keeps its own drift).
    correlation : float or array of shape (n, n), optional
        Of the normal numbers of several instruments with ``GBM``; by default that of the log
        returns of history. Resampled rows keep theirs.
    """
    markets = as_markets(market)
    count = int(core.Range(1, 10**9).check("paths", paths, whole=True))
    core.Range(0, 2**62).check("seed", seed, whole=True)
    if bridge not in {1, 4}:
        raise core.ParameterError(f"bridge must be 1 or 4 steps, got {bridge!r}")
    span = core.parse_duration(horizon, "horizon")
    if markets.options:
        raise core.ParameterError(
            "simulated paths have no prices of options, got "
            f"{next(iter(markets.options))!r}; use bt.stress for accounts that hold them"
        )
    history = select_history(markets, start)
    pasts = {
        name: each.prefix(int((each.time < history.end).sum())) for name, each in markets.items()
    }
    kind: Any = MODELS.get(model.lower()) if isinstance(model, str) else model
    if not isinstance(model, PathModel) and kind not in MODELS.values():
        raise core.ParameterError(
            f"model must be a model of bt.paths or one of {', '.join(MODELS)}, "
            f"got {core.repr_plain(model):.60}{core.did_you_mean(model, MODELS)}"
        )
    models: dict[str, Any] = {}
    for name, each in pasts.items():
        chosen: PathModel = model if isinstance(model, PathModel) else kind.fit(each)
        if drift is not None:
            chosen = chosen.override(drift=laws.read_drift(drift, each))
        models[name] = chosen
    is_resampled = all(each.is_resampled for each in models.values())
    if is_resampled:
        longest = max(each.block for each in models.values())
        models = {name: replace(each, block=longest) for name, each in models.items()}
    if correlation is not None and (len(history) == 1 or is_resampled):
        raise core.ParameterError(
            "correlation needs several instruments and a parametric model; rows have their own"
        )
    given = engine.give_each(funding, history, one="funding")
    return Paths(
        history=as_given(history, market),
        pasts=pasts,
        models=models,
        count=count,
        horizon=span,
        seed=int(seed),
        bridge=bridge,
        funding={name: laws.read_funding(each) for name, each in given.items()},
        drift_of_history=drift == laws.HISTORY,
        correlation=read_correlation(correlation, history),
        recipe={
            "market": market,
            "model": model,
            "seed": seed,
            "bridge": bridge,
            "funding": funding,
            "drift": drift,
            "correlation": correlation,
        },
    )


def select_history(markets: Markets, start: core.TimeLike) -> Markets:
    spans = zip(markets.names, markets.spans, strict=True)
    ended = [name for name, (_, stop) in spans if stop < markets.n_bars]
    if ended:
        raise core.DataError(
            f"paths begin at the end of all instruments, {', '.join(ended)} ended earlier; "
            "markets.select(...) leaves them out"
        )
    common = markets.slice(int(markets.spans[:, 0].max()), markets.n_bars)
    if common.n_bars < markets.n_bars:
        core.warn_caller(
            "what instruments have in common is that of the bars that all have, from "
            f"{core.format_time(common.start)} UTC on, {common.n_bars:,} of {markets.n_bars:,}: "
            "rows that are repeated together, and correlations"
        )
    if common.n_bars < 2:
        raise core.DataError(f"paths need at least 2 bars of history, got {markets!r}")
    if isinstance(start, str) and start == "now":
        return common
    end = core.to_nanoseconds(start, "start")
    n = int((common.time + common.interval <= end).sum())
    if n < 2 or end > common.end:
        raise core.ParameterError(
            f"start must lie after two bars of the market, {core.format_time(common.start)} to "
            f"{core.format_time(common.end)}, got {core.format_time(end)}"
        )
    return common.prefix(n)
