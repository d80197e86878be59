"""Paths: many possible continuations of a market or of several, drawn on demand."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from backtest.base import (
    DataError,
    FloatArray,
    Number,
    ParameterError,
    Range,
    TimeLike,
    checked,
    did_you_mean,
    format_time,
    parse_duration,
    pick_value,
    repr_plain,
    to_nanoseconds,
    utc_index,
)
from backtest.features import log_returns
from backtest.market import Market, Markets, as_given, as_markets
from backtest.risk.path_bars import InstrumentPaths, PathBars, PathCalendar, join_bars
from backtest.risk.path_funding import (
    FITTED,
    FundingChoice,
    FundingProcess,
    find_grid,
    find_period,
    read_funding,
)
from backtest.risk.path_models import (
    GBM,
    HISTORY,
    MOST_RETURNS,
    Draws,
    Drift,
    Filtered,
    Garch,
    Merton,
    PathModel,
    Stationary,
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


@dataclass(frozen=True, eq=False, repr=False)
class Paths:
    """Possible continuations of a market, or of several instruments drawn together.

    Path i depends on the models, the history, the seed and i alone: not on how many paths there
    are, nor in which threads they are drawn. Blocks of 256 paths (fewer of long ones) are drawn
    when asked for.

    Resampled models repeat the same rows of history in all instruments at once, with their mark
    prices, volumes and funding. Parametric models have correlated normal numbers. Path i of the
    first instrument is the same as alone, if its model is.

    ``history`` holds the bars up to the start, of several instruments those that all of them have:
    the first bar of every path is its last one. ``models`` draw the bars after it, by instrument,
    ``count`` paths of ``horizon`` ns. The other fields are arguments of
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
    common_jump: float = 1.0
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
        return {
            "model": {"name": kinds,
                      "instruments": {name: each.to_dict() for name, each in self.models.items()}},
            "paths": self.count,
            "horizon": self.horizon,
            "seed": self.seed,
            "bridge": self.bridge,
            "drift": {name: model.drift for name, model in self.models.items()},
            "drift_of_history": self.drift_of_history,
            "funding": {name: describe_choice(own.funding) for name, own in self.members.items()},
            "funding_fit": {name: own.describe() for name, own in self.processes.items()},
            "correlation": [list(row) for row in self.correlation] if is_joined else None,
            "common_jump": self.common_jump if is_joined else None,
            "start": format_time(int(self.calendar.time[0]) + self.markets.interval),
            "history": self.markets.content_hash,
        }  # fmt: skip

    @property
    def processes(self) -> dict[str, FundingProcess]:
        """What draws the settlements, by instrument."""
        return {name: each.process for name, each in self.members.items()}

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
        return join_bars(parts)

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
                instrument=i,
                loads=tuple(map(float, self.factor[i])),
                common_jump=self.common_jump,
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


def describe_choice(funding: FundingChoice) -> Any:
    return funding.to_dict() if isinstance(funding, FundingTerms) else funding


def factor_correlation(correlation: FloatArray) -> FloatArray:
    c = np.asarray(correlation, dtype=np.float64)
    is_matrix = bool(np.isfinite(c).all() and np.allclose(c, c.T, atol=1e-12))
    is_matrix = is_matrix and bool(np.allclose(np.diag(c), 1.0))
    if not is_matrix or float(np.linalg.eigvalsh(c).min()) < -SLACK:
        raise ParameterError(
            "correlation must be a symmetric matrix with ones on its diagonal and no negative "
            f"eigenvalue, got {np.round(c, 4).tolist()}"
        )
    n, low = len(c), np.zeros_like(c)
    for i in range(n):
        for j in range(i + 1):
            rest = float(c[i, j] - low[i, :j] @ low[j, :j])
            if i == j:
                low[i, i] = math.sqrt(rest) if rest > SLACK else 0.0
            elif low[j, j] > 0.0:
                low[i, j] = rest / low[j, j]
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
    common_jump: float | None = None,
) -> Paths:
    """Return possible continuations of a market, or of several.

    Parameters
    ----------
    market : Market or Markets
        The history: the model is fitted to it, and paths go on from its end. Of several
        instruments, the bars that all of them have.
    model : str, PathModel or class
        ``"filtered"``, ``"stationary"``, ``"gbm"``, ``"merton"`` or ``"garch"``, or a class of
        :mod:`backtest.paths`, to fit; or a model with parameters.
    paths : int
        Their number.
    horizon : str
        How far they reach, for example ``"30d"``.
    start : str or Timestamp
        ``"now"``: the end of the market. At a time in UTC, only bars that have closed by then
        count as history.
    seed : int
        Seed of the random numbers, at least 0.
    bridge : int
        Steps in which a parametric model draws the high and low of a bar. 1 is right where one
        barrier matters, 4 also for what reads high and low together (ranges).
    funding : str, float, FundingTerms, mapping or None
        ``"fitted"``: an autoregression of the settlements of history on the last one and their
        means of 1, 7 and 30 days, or on the last one alone where history has less than 180 days
        of settlements; it goes on from the settlements before the start. FundingTerms, from
        ``bt.funding.terms``: the same, within the venue's cap. ``"history"``: the settlements of
        the rows drawn, for resampled models. A number: the rate of every settlement, in [-0.1,
        0.1]. None: no funding. A history without settlements has none, unless a number is given
        (then every 8 hours). Of several instruments, one for all, or a mapping by name.
    drift : float or str, optional
        Growth of the expected price per year, or ``"history"`` for that of the history. By default
        none: the mean price of all paths is today's (a model with parameters keeps its own drift).
    correlation : float or array of shape (n, n), optional
        Of the normal numbers of several instruments with parametric models: one for all pairs, or a
        matrix; by default that of the log returns of history. Resampled rows keep theirs.
    common_jump : float, optional
        The probability that the jumps of a bar (their number, times and the quantiles of their
        sizes) are common to all instruments, for Merton; 1 by default.

    Returns
    -------
    Paths
        ``paths[i]`` is a Market, or Markets if ``market`` is: the last bar of history and those
        after it.

    Raises
    ------
    ParameterError
        If an argument is not allowed.
    DataError
        If the market is too short for the fit.
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
    check_joint(correlation, common_jump, history, is_resampled=is_resampled)
    made = Paths(
        history=as_given(history, market),
        models=models,
        count=count,
        horizon=span,
        seed=int(seed),
        bridge=bridge,
        funding=read_fundings(funding, history, is_resampled=is_resampled),
        drift_of_history=drift == HISTORY,
        correlation=read_correlation(correlation, history),
        common_jump=1.0 if common_jump is None else common_jump,
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


def read_fundings(
    funding: FundingChoice | Mapping[str, FundingChoice], history: Markets, *, is_resampled: bool
) -> FundingChoice | dict[str, FundingChoice]:
    if not isinstance(funding, Mapping):
        return read_funding(funding, is_resampled=is_resampled)
    if set(funding) != set(history.names):
        raise ParameterError(
            f"funding must be one for all or one for each of {', '.join(history.names)}, "
            f"got {', '.join(map(str, funding))}"
        )
    return {name: read_funding(each, is_resampled=is_resampled) for name, each in funding.items()}


def check_joint(
    correlation: object, common_jump: object, history: Markets, *, is_resampled: bool
) -> None:
    if common_jump is not None:
        Number(0.0, 1.0).check("common_jump", common_jump)
    for name, given in (("correlation", correlation), ("common_jump", common_jump)):
        if given is not None and len(history) == 1:
            raise ParameterError(f"{name} needs several instruments, got one")
        if given is not None and is_resampled:
            raise ParameterError(f"{name} needs a parametric model; resampled history has its own")


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
    return chosen if drift is None else chosen.with_drift(drift, history)
