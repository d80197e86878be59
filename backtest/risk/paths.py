"""Paths: many possible continuations of a market or of several, drawn on demand."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backtest import core, engine
from backtest.core.one_thread import one_thread
from backtest.indicators import log_returns
from backtest.market import Market, Markets, as_given, as_markets
from backtest.risk import path_models as laws
from backtest.risk.funding_process import FITTED, FundingChoice, find_grid, read_funding
from backtest.risk.instrument_paths import InstrumentPaths
from backtest.risk.path_bars import PathBars
from backtest.risk.path_draws import Draws, KeptNumbers
from backtest.risk.path_drift import HISTORY, Drift, read_drift
from backtest.risk.path_models import PathModel
from backtest.venue import FundingTerms, Venue
from backtest.venue.funding import terms as find_terms

BLOCK = 256
"""The most paths that are drawn at once."""
BLOCK_BARS = 2**19
"""About the most bars of the paths that are drawn at once."""
KEPT_BARS = 2**21
"""Bars of blocks that are kept, of 80 bytes each."""
MODELS: dict[str, type[PathModel]] = {
    "filtered": laws.Filtered,
    "stationary": laws.Stationary,
    "gbm": laws.GBM,
}
SLACK = 1e-9
"""What a correlation matrix may lack to be positive semidefinite."""


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
        kinds = [type(model).__name__ for model in self.models.values()]
        self.kinds = ", ".join(dict.fromkeys(kinds))
        self.is_resampled = all(model.is_resampled for model in self.models.values())
        self.factor = np.zeros((len(self.names), 1))
        if not self.is_resampled:
            self.factor = factor_correlation(np.array(self.correlation))

        # Rows have the phases of all grids of funding at once.
        grids = [find_grid(past) for past in self.pasts.values()]
        intervals = [grid.every for grid in grids if grid is not None]
        every = math.lcm(self.markets.interval, *intervals)
        self.members = {}
        for name, market in self.markets.items():
            self.members[name] = InstrumentPaths(
                market,
                self.pasts[name],
                self.models[name],
                self.horizon,
                self.funding[name],
                every,
            )

        self.leader = self.members[self.names[0]]
        self.model = self.leader.model
        self.calendar = self.leader.calendar
        self.width = len(self.calendar.time)
        self.n_bars = self.width - 1
        self.time = core.utc_index(self.calendar.time)
        self.start = self.time[0]

        # A power of two of paths that has about as many bars.
        fitting = max(BLOCK_BARS / self.width, 1.0)
        self.block = min(BLOCK, max(1 << int(math.log2(fitting)), 2))
        self.most_kept = 1
        self.numbers: KeptNumbers | None = None
        self._kept: dict[str, dict[int, PathBars]] = {}
        self._kept_rates: dict[int, core.FloatArray] | None = None

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        begins = core.format_time(int(self.calendar.time[0]) + self.markets.interval)
        names = ""
        drawn = repr(self.model)
        if len(self.names) > 1:
            names = f" of {', '.join(self.names)}"
            drawn = self.kinds
        return (
            f"<Paths: {self.count} of {self.n_bars} bars{names} from {begins}, {drawn}, "
            f"seed {self.seed}>"
        )

    @core.checked
    def __getitem__(self, i: int) -> Any:
        if not -self.count <= i < self.count:
            raise IndexError(f"there are {self.count} paths, got {i}")
        number = i % self.count
        bars = self.draw_all(number, number + 1)
        return as_given(self.markets_of(bars, 0, number), self.history)

    def describe(self) -> dict[str, Any]:
        """Return what draws the paths, as plain data for a manifest."""
        spread = {}
        for name in self.names:
            closes = self.closes(0, min(self.count, self.block), name)
            moves = np.log(closes[:, -1] / closes[:, 0])
            spread[name] = float(np.sqrt(np.mean(moves**2)))

        funding = {}
        for name, choice in self.funding.items():
            funding[name] = choice.to_dict() if isinstance(choice, FundingTerms) else choice

        correlation = None
        if len(self.names) > 1 and not self.is_resampled:
            correlation = [list(row) for row in self.correlation]
        return {
            "model": {
                "name": self.kinds,
                "instruments": {name: model.to_dict() for name, model in self.models.items()},
            },
            "paths": self.count,
            "horizon": self.horizon,
            "seed": self.seed,
            "bridge": self.bridge,
            "drift": {name: model.drift for name, model in self.models.items()},
            "drift_of_history": self.drift_of_history,
            "spread": spread,
            "funding": funding,
            "funding_fit": {name: str(member.process) for name, member in self.members.items()},
            "correlation": correlation,
            "start": core.format_time(int(self.calendar.time[0]) + self.markets.interval),
            "history": self.markets.content_hash,
        }

    def draw_again(
        self,
        start: int,
        horizon: str,
        count: int,
        numbers: KeptNumbers | None = None,
    ) -> Paths:
        """Return paths of the same recipe from another close ``start``, ns.

        The model is fitted anew to the bars up to that close, as a forecast made there knew no
        others. ``numbers`` keep the random numbers of rows, which are the same from each close.
        """
        recipe = dict(self.recipe or {})
        model = recipe.get("model")
        if model is None or isinstance(model, PathModel):
            raise core.ParameterError(
                "a score needs paths whose model is fitted at each date, 'filtered' for example, "
                f"got {core.repr_plain(model):.60}"
            )

        recipe["bridge"] = self.bridge
        begins = core.utc_index(np.array([start]))[0]
        paths = simulate_paths(**recipe, start=begins, horizon=horizon, paths=count)
        paths.numbers = numbers
        return paths

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
        """Return the bars of paths ``first`` up to ``stop`` of an instrument, else of the first."""
        name = name or self.names[0]
        size = self.block

        # Paths are drawn in blocks, of which only a part may be asked for.
        parts = []
        first_block = first // size
        stop_block = math.ceil(stop / size)
        for number in range(first_block, stop_block):
            begin = number * size
            part = slice(max(first - begin, 0), min(stop - begin, size))
            block = self._draw_block(number, name)
            parts.append(block.select(part))

        if len(parts) == 1:
            return parts[0]

        # The last axis of all fields is the bars, the one before it the paths.
        joined = [np.concatenate(fields, axis=-2) for fields in zip(*parts, strict=True)]
        return PathBars(*joined)

    def keep_rates(self) -> None:
        """Keep the rates of funding of each block that is drawn, of the first instrument."""
        self._kept_rates = {}

    def draw_rates(self, count: int) -> core.FloatArray:
        """Return the rates of funding of the first paths of the first instrument, by path."""
        name = self.names[0]
        kept = self._kept_rates or {}
        rates = []
        for number in range(-(-count // self.block)):
            if number in kept:
                rates.append(kept[number])
            else:
                rates.append(self._draw_block(number, name).rates)
        return np.concatenate(rates)[:count]

    def _draw_block(self, number: int, name: str) -> PathBars:
        """Return a block of paths of an instrument, which is kept until there is no room for it.

        Writes into what is kept, the rates too where :meth:`keep_rates` asked for them. Blocks are
        a function of their number alone, so threads that draw the same one get equal ones.
        """
        kept = self._kept.setdefault(name, {})
        bars = kept.get(number)
        if bars is not None:
            return bars

        # How much of each common factor is in the moves of the instrument.
        loads = tuple(map(float, self.factor[self.names.index(name)]))
        shape = (self.n_bars, self.block)
        draws = Draws(self.seed, number, shape, self.bridge, loads, self.numbers)
        bars = self.members[name].draw(draws)

        if len(kept) >= self.most_kept:
            kept.clear()
        kept[number] = bars
        if self._kept_rates is not None and name == self.names[0]:
            self._kept_rates[number] = bars.rates
        return bars  # another thread may have cleared what is kept

    def closes(
        self,
        first: int = 0,
        stop: int | None = None,
        name: str | None = None,
    ) -> core.FloatArray:
        """Return last prices of an instrument at closes, of shape (paths, width)."""
        bars = self.draw(first, self.count if stop is None else stop, name)
        return np.asarray(bars.prices[3])

    def markets_of(
        self,
        bars: Mapping[str, PathBars],
        k: int,
        number: int,
        behind: int = 0,
    ) -> Markets:
        """Return path k of some bars, which is path ``number``, and up to ``behind`` before it."""
        first = max(self.markets.n_bars - 1 - behind, 0)
        markets = {}
        for name, member in self.members.items():
            before = member.history.slice(first, self.markets.n_bars)
            source = f"{self!r}[{number}]"
            if behind:
                source = f"{member.history.source} then {source}"
            markets[name] = member.market_of(bars[name], k, before, source=source)

        return Markets(markets, currency=self.markets.currency or None)


def factor_correlation(correlation: core.FloatArray) -> core.FloatArray:
    with one_thread():
        return decompose_correlation(np.asarray(correlation, dtype=np.float64))


def decompose_correlation(c: core.FloatArray) -> core.FloatArray:
    """Return the lower factor L of a correlation C = L L'; raises ParameterError if it is none."""
    is_symmetric = bool(np.isfinite(c).all() and np.allclose(c, c.T, atol=1e-12))
    is_matrix = is_symmetric and bool(np.allclose(np.diag(c), 1.0))
    if not is_matrix or float(np.linalg.eigvalsh(c).min()) < -SLACK:
        raise core.ParameterError(
            "correlation must be a symmetric matrix with ones on its diagonal and no negative "
            f"eigenvalue, got {np.round(c, 4).tolist()}"
        )

    # A root by the eigenvalues, as a correlation with one of 0 has no Cholesky factor.
    eigenvalues, eigenvectors = np.linalg.eigh(c)
    root = eigenvectors * np.sqrt(np.maximum(eigenvalues, 0.0))

    # R' of root' = Q R is lower, and a root too. Its diagonal is made positive, as Cholesky's is.
    _, upper = np.linalg.qr(root.T)
    lower = upper.T
    signs = np.where(np.diag(lower) < 0.0, -1.0, 1.0)

    # What is rounding becomes 0, and rows get the length 1 again.
    lower = np.where(np.abs(lower) > 1e-7, lower * signs, 0.0)
    lengths = np.linalg.norm(lower, axis=1, keepdims=True)
    return np.asarray(lower / lengths)


def read_correlation(stated: Any, history: Markets) -> tuple[tuple[float, ...], ...]:
    """Return the correlations of the normal numbers, (n, n); by default those of log returns."""
    n = len(history)
    if n == 1:
        matrix = np.eye(1)
    elif stated is None:
        matrix = measure_correlation(history)
        np.fill_diagonal(matrix, 1.0)
    elif np.ndim(stated) == 0:
        # One number is the correlation of each pair.
        of_pairs = core.Real(-1.0, 1.0).check("correlation", stated)
        matrix = np.full((n, n), of_pairs)
        np.fill_diagonal(matrix, 1.0)
    else:
        core.check_shape("correlation", stated, (n, n))
        matrix = np.array(stated, dtype=np.float64)
    return tuple(tuple(map(float, row)) for row in matrix)


def measure_correlation(history: Markets) -> core.FloatArray:
    """Return the correlation of the latest log returns, 0 where one is not known."""
    returns = []
    for market in history.values():
        known = log_returns(market)[1:]
        returns.append(known[-laws.MOST_RETURNS :])
    if len(returns[0]) < 2:
        return np.eye(len(history))

    with np.errstate(all="ignore"):
        matrix = np.atleast_2d(np.corrcoef(returns))
    return np.where(np.isfinite(matrix), matrix, 0.0)


def choose_funding(venue: Any) -> Any:
    """Return the funding of paths at a venue: fitted, within its cap where a preset knows one.

    Of several instruments, by name.
    """
    if isinstance(venue, Mapping):
        return {name: choose_funding(single) for name, single in venue.items()}
    if not isinstance(venue, Venue) or not venue.preset_of_rules:
        return FITTED

    name, _, symbol = venue.preset_of_rules.rpartition(":")
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

    # The bars that all instruments have, all bars of each, and how funding is drawn.
    history = select_history(markets, start)
    pasts = cut_pasts(markets, history.end)
    funding_by_name = {}
    for name, choice in engine.give_each(funding, history, one="funding").items():
        funding_by_name[name] = read_funding(choice)

    # Models are fitted here, and all else that is fitted where paths are made. In one thread, as
    # sums of several threads have other bits.
    with one_thread():
        models = choose_models(model, pasts, drift)
        if correlation is not None:
            check_correlated(models)
        return Paths(
            history=as_given(history, market),
            pasts=pasts,
            models=models,
            count=count,
            horizon=span,
            seed=int(seed),
            bridge=bridge,
            funding=funding_by_name,
            drift_of_history=drift == HISTORY,
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


def cut_pasts(markets: Markets, end: int) -> dict[str, Market]:
    """Return the bars of each instrument that open before a time, ns."""
    pasts = {}
    for name, market in markets.items():
        n_bars = int((market.time < end).sum())
        pasts[name] = market.prefix(n_bars)
    return pasts


def check_correlated(models: Mapping[str, PathModel]) -> None:
    """Refuse a correlation where there is nothing to correlate, or rows have their own."""
    is_resampled = all(model.is_resampled for model in models.values())
    if len(models) == 1 or is_resampled:
        raise core.ParameterError(
            "correlation needs several instruments and a parametric model; rows have their own"
        )


def choose_models(
    model: Any,
    pasts: Mapping[str, Market],
    drift: Drift | None,
) -> dict[str, Any]:
    """Return the model of each instrument, fitted to its past unless it has parameters."""
    kind: Any = MODELS.get(model.lower()) if isinstance(model, str) else model
    if not isinstance(model, PathModel) and kind not in MODELS.values():
        raise core.ParameterError(
            f"model must be a model of bt.paths or one of {', '.join(MODELS)}, "
            f"got {core.repr_plain(model):.60}{core.did_you_mean(model, MODELS)}"
        )

    models: dict[str, Any] = {}
    for name, past in pasts.items():
        chosen: PathModel = model if isinstance(model, PathModel) else kind.fit(past)
        if drift is not None:
            chosen = chosen.override(drift=read_drift(drift, past))
        models[name] = chosen

    # Rows are repeated together, in the longest blocks of all.
    if all(chosen.is_resampled for chosen in models.values()):
        longest = max(chosen.block for chosen in models.values())
        models = {name: replace(chosen, block=longest) for name, chosen in models.items()}
    return models


def select_history(markets: Markets, start: core.TimeLike) -> Markets:
    """Return the bars that all instruments have, and that have closed by a start.

    The start is a time, or ``"now"``: the end of the data. Raises DataError if an instrument ended
    before the others, or they have under 2 bars in common.
    """
    spans = zip(markets.names, markets.spans, strict=True)
    ended = [name for name, (_, stop) in spans if stop < markets.n_bars]
    if ended:
        raise core.DataError(
            f"paths begin at the end of all instruments, {', '.join(ended)} ended earlier; "
            "markets.select(...) leaves them out"
        )

    last_listed = int(markets.spans[:, 0].max())
    common = markets.slice(last_listed, markets.n_bars)
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
    n_closed = int((common.time + common.interval <= end).sum())
    if n_closed < 2 or end > common.end:
        raise core.ParameterError(
            f"start must lie after two bars of the market, {core.format_time(common.start)} to "
            f"{core.format_time(common.end)}, got {core.format_time(end)}"
        )
    return common.prefix(n_closed)
