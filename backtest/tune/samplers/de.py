"""Differential evolution alone: one population, until its scores agree."""

from __future__ import annotations

import numpy as np

from backtest.base import FloatArray
from backtest.tune.samplers.population import Generation, Population, read_axes
from backtest.tune.samplers.protocol import Grades, SamplerTerms, grade, no_points
from backtest.tune.samplers.sobol_random import split_seed

MEMBERS = 128
CONVERGED = 1e-4
"""The search ends when the scores of the population differ by no more than this, relatively."""


class DifferentialEvolution:
    """Ask for one generation after another of a population, without restarts.

    Source: Zhang and Sanderson (2009), JADE, IEEE Trans. Evolutionary Computation 13(5).
    """

    def __init__(self, terms: SamplerTerms) -> None:
        stream, self._rng = split_seed(terms)
        self._axes = read_axes(terms.space)
        self._asked = stream.take(terms.size(MEMBERS, least=5))
        self._population: Population | None = None
        self._generation: Generation | None = None

    def ask(self) -> FloatArray:
        return self._asked

    def tell(self, cube: FloatArray, score: FloatArray, violation: FloatArray) -> None:
        grades, n = grade(score, violation), len(cube)
        if self._population is None or self._generation is None:
            self._population = Population(cube, grades, self._axes)
        else:
            self._population.select(self._generation, grades, n, self._rng)
        self._generation = self._population.breed(n, self._rng)
        is_done = has_converged(self._population.grades)
        self._asked = no_points(cube.shape[1]) if is_done else self._generation.cube


def has_converged(grades: Grades) -> bool:
    scores = grades.score
    if grades.violation.any() or not np.isfinite(scores).all():
        return False
    scale = max(float(np.abs(scores).max()), np.finfo(float).tiny)
    return float(np.std(scores / scale)) <= CONVERGED * abs(float(np.mean(scores / scale)))
