"""What every sampler is: ask for points, tell their scores; and what it starts from."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

from backtest.base.errors import ParameterError
from backtest.base.units import FloatArray

if TYPE_CHECKING:
    from backtest.sweep.sets.space import Space

SamplerName = Literal["auto", "de", "cmaes", "tpe", "gp", "forest", "sobol", "random", "grid"]


class Sampler(Protocol):
    """Something that asks for points of the unit cube and learns from their scores."""

    def ask(self) -> FloatArray:
        """Return the next points.

        Returns
        -------
        FloatArray of shape (n, n_dimensions)
            In [0, 1]; none (n = 0) when everything was asked for, or nothing more is to be gained.
        """

    def tell(self, cube: FloatArray, score: FloatArray, violation: FloatArray) -> None:
        """Take the scores of the points that were asked for last.

        Parameters
        ----------
        cube : FloatArray of shape (n, n_dimensions)
            The points, as :meth:`ask` returned them.
        score : FloatArray of shape (n,)
            Larger is better; NaN is worst.
        violation : FloatArray of shape (n,)
            By how much constraints are broken: 0 for none, inf for ruin or failure.
        """


class Terms(NamedTuple):
    """What a sampler starts from: space, seed, points in all (None: no end), points at once."""

    space: Space
    seed: int
    trials: int | None = None
    batch: int | None = None

    @property
    def n_dimensions(self) -> int:
        """How many axes the cube has."""
        return len(self.space.dimensions)

    def size(self, default: int, *, least: int = 1) -> int:
        """Return how many points to ask for at once."""
        return max(least, default if self.batch is None else self.batch)


class Capped:
    """A sampler that asks for no more than a number of points.

    The last batch is cut where the number is reached. What became of it is not told on: no question
    follows that could profit.
    """

    def __init__(self, sampler: Sampler, trials: int, n_dimensions: int) -> None:
        self._sampler = sampler
        self._left = trials
        self._n_dimensions = n_dimensions

    def ask(self) -> FloatArray:
        """Return the next points, none when the number is reached."""
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
    """Import a package that is not installed with this one."""
    try:
        return import_module(package)
    except ImportError as error:
        raise ParameterError(
            f"sampler {sampler!r} needs the package {package}, which cannot be imported: {error}",
            where="the sampler of a search",
            cure="pip install leverage-backtest[optuna], or choose sampler='auto'",
        ) from error
