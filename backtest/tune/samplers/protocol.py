"""Interface and settings of samplers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

from backtest.base import Argument, FloatArray, ParameterError, Phrase

if TYPE_CHECKING:
    from backtest.sweep import Space

SamplerName = Literal["auto", "de", "cmaes", "tpe", "gp", "forest", "sobol", "random", "grid"]


class Sampler(Protocol):
    """Chooses points of the unit cube and learns from their scores."""

    def ask(self) -> FloatArray:
        """Return the next points, of shape (n, n_dimensions) in [0, 1]; n = 0 ends the search."""

    def tell(self, cube: FloatArray, score: FloatArray, violation: FloatArray) -> None:
        """Take the scores of the points that :meth:`ask` returned.

        ``score`` of shape (n,) is larger for better points; NaN is worst. ``violation`` of shape
        (n,) is by how much constraints are broken: 0 for none, inf for ruin or failure.
        """


class SamplerTerms(NamedTuple):
    """Settings of a sampler: space, seed, points in all (None for no limit), points at once."""

    space: Space
    seed: int
    trials: int | None = None
    batch: int | None = None

    @property
    def n_dimensions(self) -> int:
        """Number of axes of the cube."""
        return len(self.space.dimensions)

    def size(self, default: int, *, least: int = 1) -> int:
        """Return the batch size."""
        return max(least, default if self.batch is None else self.batch)


class Capped:
    """Limits a sampler to a number of points; the last batch is cut and its scores are not used."""

    def __init__(self, sampler: Sampler, trials: int, n_dimensions: int) -> None:
        self._sampler = sampler
        self._left = trials
        self._n_dimensions = n_dimensions

    def ask(self) -> FloatArray:
        """Return the next points; none after the last."""
        if self._left == 0:
            return no_points(self._n_dimensions)
        return self._sampler.ask()[: self._left]

    def tell(self, cube: FloatArray, score: FloatArray, violation: FloatArray) -> None:
        """Take their scores."""
        self._left -= len(cube)
        if self._left > 0:
            self._sampler.tell(cube, score, violation)


def no_points(n_dimensions: int) -> FloatArray:
    """Return the batch that ends a search, of shape (0, n_dimensions)."""
    return np.empty((0, n_dimensions))


def load_optional(package: str, *, sampler: str) -> Any:
    """Import an optional dependency."""
    try:
        return import_module(package)
    except ImportError as error:
        raise ParameterError(
            f"sampler {sampler!r} needs the package {package}, which cannot be imported: {error}",
            where="the sampler of a search",
            cure=Phrase(
                "pip install leverage-backtest[optuna], or choose {}", Argument("sampler", "auto")
            ),
        ) from error
