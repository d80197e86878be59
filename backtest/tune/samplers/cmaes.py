"""Sampler by CMA-ES of the package cmaes."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from backtest.base import FloatArray, ParameterError
from backtest.tune.samplers.protocol import Grades, SamplerTerms, grade
from backtest.tune.samplers.sobol_random import split_seed

BATCH = 128
MEMBERS = 16
"""Points of one strategy; several strategies run at once and share a batch."""
FIRST_STEP = 0.25


class Cmaes:
    """Runs several strategies at once, each restarted elsewhere when it has converged.

    The package uses only the order of points, which puts constraints first here.
    Source: Hansen (2016), The CMA evolution strategy: a tutorial, arXiv:1604.00772, as in
    ``cmaes.CMA``.
    """

    def __init__(self, terms: SamplerTerms) -> None:
        self._package = load_package()
        self._stream, self._rng = split_seed(terms)
        n = terms.size(BATCH, least=4)
        places = np.array_split(np.arange(n), max(n // MEMBERS, 1))
        self._groups = [(self._begin(len(mine)), mine) for mine in places]

    def ask(self) -> FloatArray:
        points = [strategy.ask() for strategy, mine in self._groups for _ in mine]
        return np.array(points)

    def tell(self, cube: FloatArray, score: FloatArray, violation: FloatArray) -> None:
        grades = grade(score, violation)
        for k, (strategy, mine) in enumerate(self._groups):
            strategy.tell(list(zip(cube[mine], count_down(grades.take(mine)), strict=True)))
            if strategy.should_stop():
                self._groups[k] = self._begin(len(mine)), mine

    def _begin(self, members: int) -> Any:
        (middle,) = self._stream.take(1)
        return self._package.CMA(
            mean=middle,
            sigma=FIRST_STEP,
            bounds=np.array([[0.0, 1.0]] * len(middle)),
            population_size=members,
            seed=int(self._rng.integers(2**32)),
        )


def load_package() -> Any:
    try:
        return import_module("cmaes")
    except ImportError as error:
        raise ParameterError(
            f"sampler 'cmaes' needs the package cmaes, which cannot be imported: {error}; "
            "pip install leverage-backtest[cmaes]"
        ) from error


def count_down(grades: Grades) -> list[float]:
    ranks: list[float] = (len(grades.score) - 1 - grades.rank()).tolist()
    return ranks
