"""Samplers choose the points of the unit cube to evaluate next."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np

from backtest.core import FloatArray
from backtest.search.evolution import Auto, Chebyshev
from backtest.search.gaussian_process import GaussianProcess
from backtest.search.points import BULK, SobolStream, build_grid, count_values
from backtest.sweep import Space

MOST_POINTS = 4096
"""Points of a grid if the number of trials is not given."""


def make_sampler(
    name: str,
    space: Space,
    *,
    seed: int,
    trials: int | None = None,
    objectives: int = 1,
) -> Blind | Auto | Chebyshev | GaussianProcess:
    """Return a sampler; ``trials`` are those that will be evaluated, by which it plans.

    ``ask`` returns the next points, of shape (n, n_dimensions) in [0, 1]; n = 0 ends the search.
    ``tell`` takes their scores (n,), or (n, n_objectives) of several: larger for better points, NaN
    is worst; and by how much they break constraints (n,): 0 for none, inf for ruin or failure.
    """
    rng = np.random.default_rng(seed)
    n_dimensions = len(space.dimensions)
    if name == "gp":
        return GaussianProcess(space, seed)
    if name == "sobol":
        return Blind(SobolStream(n_dimensions, rng).take)
    if name == "random":
        return Blind(lambda n: rng.random((n, n_dimensions)))

    # A space of few sets is tried whole, in a random order.
    most = trials or MOST_POINTS
    n_sets = math.prod(count_values(dimension) for dimension in space.dimensions)
    if name == "grid" or n_sets <= min(MOST_POINTS, most):
        grid = rng.permutation(build_grid(space, most))
        pieces = (grid[k : k + BULK] for k in itertools.count(0, BULK))
        return Blind(lambda _: next(pieces))
    if objectives > 1:
        return Chebyshev(n_dimensions, seed, trials, objectives)
    return Auto(n_dimensions, seed, trials)


class Blind:
    """Draws points in batches, whatever their scores."""

    def __init__(self, draw: Callable[[int], FloatArray]) -> None:
        self.draw = draw

    def ask(self) -> FloatArray:
        return self.draw(BULK)

    def tell(self, *_: FloatArray) -> None:
        """Ignore the scores."""
