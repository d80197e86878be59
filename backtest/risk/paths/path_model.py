"""The base class of path models, and what a model writes its bars on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from backtest.base import (
    DataError,
    FloatArray,
    Number,
    ParameterError,
    TimeLike,
    Value,
    call_later,
    checked,
    declared,
    format_percent,
)
from backtest.features import log_returns
from backtest.market import Market, bars_per_year

WordArray = npt.NDArray[np.uint64]

MOST_RETURNS = 20_000
"""Returns that a fit looks at, the latest ones."""
LEAST_RETURNS = 100
"""Returns that a fit needs."""


HISTORY = "history"
Drift = float | str
"""Growth of the expected price per year, or :data:`HISTORY`."""


@declared
class PathModel(Value):
    """Base of the models of paths: frozen values whose fields are parameters with units.

    ``fit`` estimates the parameters on a market. ``simulate`` draws paths that go on from the end
    of a market.
    """

    is_resampled: ClassVar[bool] = False
    """Whether bars repeat rows of history, with their mark prices, volumes and funding."""
    is_symmetric: ClassVar[bool] = True
    """Whether a path has a mirrored twin, drawn by the opposite normal numbers."""
    _simulate = staticmethod(call_later("backtest.risk.paths.simulate_paths", "simulate_paths"))

    @classmethod
    @checked
    def fit(cls, market: Market) -> Self:
        """Return the model with its parameters estimated on a market.

        Raises
        ------
        DataError
            If the market has too few bars, or its prices do not move.
        """
        raise NotImplementedError

    def with_drift(self, drift: Drift, market: Market) -> Self:
        """Return the model with a growth per year, or with that of a market."""
        return self.override(drift=read_drift(drift, market))

    @property
    def drift(self) -> float:
        """Growth of the expected price per year: after T years it is exp(drift T) times today's.

        A field of every model, 0 by default: the mean return of a few years is mostly noise.
        """
        raise NotImplementedError

    @property
    def kernel(self) -> str:
        """The name of the kernel in :mod:`backtest.risk.paths.path_kernels`."""
        raise NotImplementedError

    def terms(self, per_year: float) -> FloatArray:
        """Return the parameters per bar, as the kernel takes them; ``per_year`` counts bars."""
        raise NotImplementedError

    def simulate(
        self,
        market: Market,
        *,
        paths: int = 10_000,
        horizon: str = "30d",
        start: TimeLike = "now",
        seed: int = 0,
        **settings: Any,
    ) -> Any:
        """Return :class:`backtest.Paths` of this model that continue a market.

        See :func:`backtest.simulate_paths`, whose arguments these are.
        """
        return self._simulate(
            market, model=self, paths=paths, horizon=horizon, start=start, seed=seed, **settings
        )


def read_drift(drift: Drift, market: Market) -> float:
    """Return a growth per year; that of history is that of the mean simple return of its bars."""
    if drift == HISTORY:
        growth = float(np.mean(np.exp(log_returns(market)[1:])))
        return math.log(growth) * count_per_year(market)
    if isinstance(drift, str):
        raise ParameterError(f"drift must be a number per year or 'history', got {drift[:60]!r}")
    return float(Number().check("drift", drift))


def describe_drift(paths: Mapping[str, Any]) -> str:
    rates = paths["drift"] if isinstance(paths["drift"], Mapping) else {"": paths["drift"]}
    shown = {name: format_percent(rate, is_signed=True) for name, rate in rates.items()}
    if not any(rates.values()):
        return "no drift"
    each = [f"{name} {rate}".strip() for name, rate in shown.items()]
    text = shown[next(iter(shown))] if len(set(rates.values())) == 1 else ", ".join(each)
    return f"a drift {'of history, ' if paths['drift_of_history'] else 'of '}{text} per year"


def read_returns(market: Market, model: str) -> FloatArray:
    returns = log_returns(market)[1:][-MOST_RETURNS:]
    if len(returns) < LEAST_RETURNS or not float(np.std(returns)) > 0.0:
        found = f"{len(returns)}" if len(returns) < LEAST_RETURNS else "prices that do not move"
        raise DataError(
            f"a fit of {model} needs at least {LEAST_RETURNS} returns that vary, got {found} in "
            f"{market!r}; the model can be made from parameters"
        )
    return returns


def count_per_year(market: Market) -> float:
    """Return the bars per year of a market, the latest figure where it changes."""
    found = np.atleast_1d(bars_per_year(market))
    known = found[~np.isnan(found)]
    return float(known[-1]) if known.size else math.nan
