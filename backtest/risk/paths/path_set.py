"""Paths: many possible continuations of a market or of several, drawn on demand."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from backtest.base import (
    FloatArray,
    IntArray,
    ParameterError,
    Viewable,
    checked,
    did_you_mean,
    format_time,
    pick_value,
    repr_plain,
    utc_index,
)
from backtest.market import Market, Markets, as_given, as_markets
from backtest.risk.paths.correlations import factor_correlation
from backtest.risk.paths.funding_process import FITTED, FundingChoice, FundingProcess
from backtest.risk.paths.instrument_paths import InstrumentPaths
from backtest.risk.paths.path_calendar import PathCalendar, find_grid, find_period
from backtest.risk.paths.path_model import PathModel, WordArray
from backtest.risk.paths.path_writer import PathBars
from backtest.venue import FundingTerms

ALONE = (0.0, 1.0)
"""The loads of an instrument whose draws are joined with no others."""
FIRST = np.uint64(0xBF58476D1CE4E5B9)
SECOND = np.uint64(0x94D049BB133111EB)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, eq=False, repr=False)
class Paths(Viewable):
    """Possible continuations of a market, or of several instruments drawn together.

    Path i depends on the models, the history, the seed and i alone: not on how many paths there
    are, nor in which blocks or threads they are drawn. Nothing is kept: paths are drawn when asked
    for. Two sets are equal if they draw the same paths.

    Resampled models repeat the same rows of history in all instruments at once, with their mark
    prices, volumes and funding. Parametric models have correlated normal numbers. Path i of the
    first instrument is the same as alone, if its model is.

    Parameters
    ----------
    history : Market or Markets
        The bars up to the start; of several instruments, those that all of them have. The first
        bar of every path is its last one. ``paths[i]`` is a Market or Markets, as this is.
    models : mapping of str to PathModel
        What draws the bars after it, by instrument.
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
    funding : str, float, FundingTerms or None, or a mapping of them by instrument
        ``"fitted"``, ``"history"``, a rate per settlement, terms with a cap, or none; see
        :func:`backtest.simulate_paths`.
    drift_of_history : bool
        Whether the drift of the models was estimated on history.
    correlation : tuple of tuple of float
        Of the normal numbers of parametric models, by instrument.
    common_jump : float
        The probability that the jumps of a bar are common to all instruments.
    """

    history: Market | Markets
    models: Mapping[str, PathModel]
    count: int
    horizon: int
    seed: int = 0
    bridge: int = 1
    antithetic: bool = False
    funding: FundingChoice | Mapping[str, FundingChoice] = FITTED
    drift_of_history: bool = False
    correlation: tuple[tuple[float, ...], ...] = ((1.0,),)
    common_jump: float = 1.0

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
                loads=loads,
                common_jump=self.common_jump,
            )
            for (name, market), loads in zip(self.markets.items(), self.list_loads(), strict=True)
        }

    def list_loads(self) -> list[tuple[float, ...]]:
        """Return how the draws of each instrument are joined with those of the others."""
        if self.is_resampled:
            return [ALONE] * len(self.names)
        return [(float(i), *map(float, row)) for i, row in enumerate(self.factor)]

    @functools.cached_property
    def factor(self) -> FloatArray:
        """The lower Cholesky factor of the correlation, (n, n)."""
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
    def is_symmetric(self) -> bool:
        """Whether paths have mirrored twins."""
        return all(each.is_symmetric for each in self.models.values())

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

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Paths):
            return NotImplemented
        mine, theirs = ([*each.markets.values()] for each in (self, other))
        return self.describe() == other.describe() and mine == theirs

    def __hash__(self) -> int:
        return hash((*self.markets.values(), self.seed, self.count, self.horizon))

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
        number = find_path_number(i, self.count)
        path = self.markets_of(self.draw_all(number, number + 1), 0, number)
        return as_given(path, self.history)

    def describe(self) -> dict[str, Any]:
        """Return what draws the paths, as plain data for a manifest."""
        return {
            "model": {},
            "paths": self.count,
            "horizon": self.horizon,
            "seed": self.seed,
            "bridge": self.bridge,
            "antithetic": self.antithetic,
            "drift_of_history": self.drift_of_history,
            "start": format_time(int(self.calendar.time[0]) + self.markets.interval),
            **(self.describe_each() if len(self.names) > 1 else self.describe_one()),
        }

    def describe_one(self) -> dict[str, Any]:
        """Return what draws the only instrument, whatever its name."""
        own = self.leader
        return {
            "model": describe_model(own.model),
            "funding": describe_choice(own.funding),
            "funding_fit": {own.history.instrument: own.process.describe()},
            "drift": own.model.drift,
            "history": own.history.content_hash,
        }

    def describe_each(self) -> dict[str, Any]:
        """Return what draws each of several instruments, and how they are joined."""
        each = {name: describe_model(model) for name, model in self.models.items()}
        kinds = ", ".join(dict.fromkeys(model["name"] for model in each.values()))
        is_joined = not self.is_resampled
        return {
            "model": {"name": kinds, "instruments": each},
            "funding": {name: describe_choice(each.funding) for name, each in self.members.items()},
            "funding_fit": {name: each.describe() for name, each in self.processes.items()},
            "drift": {name: model.drift for name, model in self.models.items()},
            "history": self.markets.content_hash,
            "correlation": [list(row) for row in self.correlation] if is_joined else None,
            "common_jump": self.common_jump if is_joined else None,
        }

    @property
    def processes(self) -> dict[str, FundingProcess]:
        """What draws the settlements, by instrument."""
        return {name: each.process for name, each in self.members.items()}

    @checked
    def with_settings(self, **changes: Any) -> Paths:
        """Return the paths with other settings, such as ``count``, ``seed`` or ``bridge``."""
        return replace(self, **changes)

    @checked
    def draw_all(self, first: int, stop: int) -> dict[str, PathBars]:
        """Return the bars of the paths from ``first`` up to ``stop``, by instrument."""
        return {name: self.draw(first, stop, name) for name in self.names}

    @checked
    def draw(self, first: int, stop: int, name: str | None = None) -> PathBars:
        """Return the bars of the paths from ``first`` up to ``stop``, laid end to end.

        They are those of one instrument, by default the first.
        """
        if name is not None and name not in self.members:
            raise ParameterError(
                f"name must be one of {', '.join(self.names)}, got {name!r}"
                + did_you_mean(name, self.names)
            )
        member = self.leader if name is None else self.members[name]
        numbers = np.arange(first, stop, dtype=np.int64)
        mirrored = numbers % 2 if self.antithetic else np.zeros_like(numbers)
        keys = make_keys(self.seed, numbers // 2 if self.antithetic else numbers)
        return member.draw(keys, mirrored, self.bridge)

    @checked
    def closes(
        self, first: int = 0, stop: int | None = None, name: str | None = None
    ) -> FloatArray:
        """Return last prices at closes, of shape (paths, width), of some or all paths.

        They are those of one instrument, by default the first.
        """
        bars = self.draw(first, self.count if stop is None else stop, name)
        return np.asarray(bars.prices[3].reshape(-1, self.width))

    @checked
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


def mix_words(words: WordArray) -> WordArray:
    """Return SplitMix64 of some words; see :mod:`backtest.risk.paths.draw_kernels`."""
    with np.errstate(over="ignore"):
        z = words + GOLDEN
        z = (z ^ (z >> np.uint64(30))) * FIRST
        z = (z ^ (z >> np.uint64(27))) * SECOND
        return np.asarray(z ^ (z >> np.uint64(31)))


def make_keys(seed: int, numbers: IntArray) -> WordArray:
    start = mix_words(np.array([seed % 2**64], dtype=np.uint64))
    return mix_words(mix_words(numbers.astype(np.uint64)) ^ start)


def describe_choice(funding: FundingChoice) -> Any:
    return funding.to_dict() if isinstance(funding, FundingTerms) else funding


def describe_model(model: PathModel) -> dict[str, Any]:
    return {"name": type(model).__name__, **model.to_dict()}


def check_paths(paths: object) -> Paths:
    if not isinstance(paths, Paths):
        raise ParameterError(
            f"paths must be those of bt.simulate_paths, got {repr_plain(paths):.60}"
        )
    return paths


def find_path_number(i: int, count: int) -> int:
    if not -count <= i < count:
        raise IndexError(f"there are {count} paths, got {i}")
    return i % count
