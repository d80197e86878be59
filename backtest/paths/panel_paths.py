"""Paths of several instruments, drawn together."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backtest.base.errors import ParameterError
from backtest.base.phrases import Place
from backtest.base.units import FloatArray, format_time
from backtest.market import Markets
from backtest.paths.funding_process import FITTED, FundingChoice, FundingProcess
from backtest.paths.path_calendar import PathCalendar, PathSpan, find_grid, find_period
from backtest.paths.path_model import PathModel
from backtest.paths.path_set import ALONE, Paths, describe_choice
from backtest.paths.path_writer import PathBars

SLACK = 1e-9
"""What a correlation matrix may lack to be positive semidefinite."""


def factor_correlation(correlation: FloatArray, *, where: str) -> FloatArray:
    """Return the lower Cholesky factor of a correlation matrix, which may be singular.

    Raises
    ------
    ParameterError
        If the matrix is not one of correlations.
    """
    c = np.asarray(correlation, dtype=np.float64)
    is_matrix = bool(np.isfinite(c).all() and np.allclose(c, c.T, atol=1e-12))
    is_matrix = is_matrix and bool(np.allclose(np.diag(c), 1.0))
    if not is_matrix or float(np.linalg.eigvalsh(c).min()) < -SLACK:
        raise ParameterError(
            "correlations must form a symmetric matrix with ones on its diagonal and no negative "
            f"eigenvalue, was {np.round(c, 4).tolist()}",
            where=where,
            cure="estimate all of them on the same returns, or give one number for all pairs",
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


def choose_funding(
    funding: FundingChoice | Mapping[str, FundingChoice], name: str
) -> FundingChoice:
    """Return how an instrument gets its funding, of one choice for all or one for each."""
    return funding[name] if isinstance(funding, Mapping) else funding


@dataclass(frozen=True, eq=False, repr=False)
class PanelPaths(PathSpan[Markets]):
    """Possible continuations of several markets; ``paths[i]`` is a :class:`backtest.Markets`.

    Resampled models repeat the same rows of history in all instruments at once, with their mark
    prices, volumes and funding. Parametric models have correlated normal numbers. Path i of the
    first instrument is path i of :class:`backtest.Paths` of it alone, for the same model.

    Parameters
    ----------
    history : Markets
        The bars that all instruments have, up to the start.
    models : mapping of str to PathModel
        The model of each instrument.
    correlation : tuple of tuple of float
        Of the normal numbers of parametric models, by instrument.
    common_jump : float
        The probability that the jumps of a bar are common to all instruments.
    count, horizon, seed, bridge, antithetic, drift_of_history
        As in :class:`backtest.Paths`.
    funding : as in :class:`backtest.Paths`, or a mapping by instrument
    """

    history: Markets
    models: Mapping[str, PathModel]
    count: int
    horizon: int
    seed: int = 0
    bridge: int = 1
    antithetic: bool = False
    funding: FundingChoice | Mapping[str, FundingChoice] = FITTED
    drift_of_history: bool = False
    correlation: tuple[tuple[float, ...], ...] = ()
    common_jump: float = 1.0

    @functools.cached_property
    def members(self) -> dict[str, Paths]:
        """The paths of each instrument, drawn by the same keys."""
        periods = [find_period(each, find_grid(each)) for each in self.history.values()]
        loads = self.list_loads()
        return {
            name: Paths(
                history=market,
                model=self.models[name],
                count=self.count,
                horizon=self.horizon,
                seed=self.seed,
                bridge=self.bridge,
                antithetic=self.antithetic,
                funding=choose_funding(self.funding, name),
                drift_of_history=self.drift_of_history,
                every=math.lcm(*periods),
                loads=own,
                common_jump=self.common_jump,
            )
            for (name, market), own in zip(self.history.items(), loads, strict=True)
        }

    @property
    def processes(self) -> dict[str, FundingProcess]:
        """What draws the settlements, by instrument."""
        return {name: each.process for name, each in self.members.items()}

    def list_loads(self) -> list[tuple[float, ...]]:
        """Return how the draws of each instrument are joined with those of the others."""
        n = len(self.history)
        if n == 1 or self.is_resampled:
            return [ALONE] * n
        low = factor_correlation(
            np.array(self.correlation), where=Place("correlation", of="bt.simulate_paths")
        )
        return [(float(i), *map(float, row)) for i, row in enumerate(low)]

    @property
    def names(self) -> tuple[str, ...]:
        """The instruments."""
        return self.history.names

    @property
    def leader(self) -> Paths:
        """The paths of the first instrument."""
        return self.members[self.names[0]]

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
    def can_tilt(self) -> bool:
        """Whether paths can be pushed towards a liquidation by tilting: not those of several."""
        return False

    @property
    def can_split(self) -> bool:
        """Whether paths can be restarted near a liquidation: not those of several."""
        return False

    def __repr__(self) -> str:
        start = format_time(int(self.calendar.time[0]) + self.history.interval)
        kinds = ", ".join(dict.fromkeys(type(each).__name__ for each in self.models.values()))
        return (
            f"<PanelPaths: {self.count} of {self.n_bars} bars of {', '.join(self.names)} from "
            f"{start}, {kinds}, seed {self.seed}>"
        )

    def __getitem__(self, i: int) -> Markets:
        """Return path i as markets: the last bar of history, and the bars drawn after it."""
        number = self.find_number(i)
        return self.markets_of(self.draw(number, number + 1), 0, number)

    def describe(self) -> dict[str, Any]:
        """Return what draws the paths, as plain data for a manifest."""
        each = {
            name: {"name": type(model).__name__, **model.to_dict()}
            for name, model in self.models.items()
        }
        kinds = ", ".join(dict.fromkeys(model["name"] for model in each.values()))
        is_joined = not self.is_resampled
        return {
            **self.leader.describe(),
            "model": {"name": kinds, "instruments": each},
            "funding": {name: describe_choice(each.funding) for name, each in self.members.items()},
            "funding_fit": {name: each.describe() for name, each in self.processes.items()},
            "drift": {name: model.drift for name, model in self.models.items()},
            "history": self.history.content_hash,
            "correlation": [list(row) for row in self.correlation] if is_joined else None,
            "common_jump": self.common_jump if is_joined else None,
        }

    def with_settings(self, **changes: Any) -> PanelPaths:
        """Return the paths with other settings, such as ``count``, ``seed`` or ``bridge``."""
        return replace(self, **changes)

    def draw(self, first: int, stop: int) -> dict[str, PathBars]:
        """Return the bars of the paths from ``first`` up to ``stop``, laid end to end, by name."""
        return {name: each.draw(first, stop) for name, each in self.members.items()}

    def markets_of(self, bars: Mapping[str, PathBars], k: int, number: int) -> Markets:
        """Return path k of some bars as markets; ``number`` names it."""
        found = {name: each.market_of(bars[name], k, number) for name, each in self.members.items()}
        return Markets(found, currency=self.history.currency or None)

    def join_history(self, path: Markets, bars: int) -> Markets:
        """Return a path with up to ``bars`` bars of history in front of its first one."""
        joined = {name: each.join_history(path[name], bars) for name, each in self.members.items()}
        return Markets(joined, currency=self.history.currency or None)
