"""The default sampler: explore evenly in bulk, then let a population improve in bulk.

Evaluation is nearly free here, so asking must be cheaper still: a batch is a few operations on
arrays. The search goes in rounds, each twice as long as the one before: an even exploration, then
the best of it as a population, which shrinks as the round goes on and so turns from exploring to
climbing. The next round starts anew, with a few of the best of all earlier ones among its members.
When three rounds in a row gain next to nothing, fourteen parts in fifteen of all evaluations, there
are no further questions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backtest.tune.samplers.even import EvenStream
from backtest.tune.samplers.grades import Grades, grade, join
from backtest.tune.samplers.grid import Grid, count_values
from backtest.tune.samplers.population import Population, read_axes
from backtest.tune.samplers.protocol import Sampler, Terms, no_points
from backtest.units import FloatArray

BATCH, SMALL_BATCH = 128, 64
FEW_TRIALS = 1024
"""Up to so many trials batches are small, for the sake of more generations."""
ROUND = 1280
"""Evaluations of the first round, per dimension."""
EXPLORED = 1024
"""Points that a round begins with, an eighth of the round at most."""
MEMBERS, LAST_MEMBERS, LEAST_MEMBERS = 0.5, 0.125, 4
"""Members at the beginning and at the end of a round, in batches; the rest of a batch climbs."""
KEPT = 4
"""Members of a round that take part in all later ones."""
QUIET_ROUNDS = 3
LEAST_GAIN = 1e-3
"""A round is quiet if the best gains less, in parts of its distance from the median point."""
FEW_SETS = 4096
"""A space of no more sets of parameters than this is asked for as a whole."""


def start_auto(terms: Terms) -> Sampler:
    """Return the default sampler; a grid of all sets where there are few."""
    number = math.prod(count_values(each) for each in terms.space.dimensions)
    is_small = number <= min(FEW_SETS, terms.trials or FEW_SETS)
    return Grid(terms) if is_small else Auto(terms)


class Round(NamedTuple):
    """A part of the search, in numbers of evaluations since the beginning of all.

    It explores from ``start`` to ``explored``, and ends at ``end``.
    """

    start: int
    explored: int
    end: float

    def members(self, done: int, n: int) -> int:
        """Return how many members the population has, of batches of n."""
        part = min((done - self.explored) / (self.end - self.explored), 1.0)
        return max(round(n * (MEMBERS + (LAST_MEMBERS - MEMBERS) * part)), LEAST_MEMBERS)


class Auto:
    """Explore evenly, then improve, in rounds that grow, until nothing more is gained."""

    def __init__(self, terms: Terms) -> None:
        child, stream = np.random.SeedSequence(terms.seed).spawn(2)
        self._rng = np.random.default_rng(child)
        self._stream = EvenStream(terms.n_dimensions, np.random.default_rng(stream))
        self._axes = read_axes(terms.space)
        self._trials = math.inf if terms.trials is None else float(terms.trials)
        is_short = self._trials <= FEW_TRIALS
        self._n = terms.size(SMALL_BATCH if is_short else BATCH, least=16)
        self._done = 0
        self._quiet = 0
        self._round = self._plan(ROUND * terms.n_dimensions)
        self._seen: list[tuple[FloatArray, Grades]] = []
        self._kept: list[tuple[FloatArray, Grades]] = []
        self._middle = math.nan
        self._best: Grades | None = None
        self._population: Population | None = None

    def ask(self) -> FloatArray:
        """Return the next points; none when enough rounds in a row were quiet."""
        if self._quiet == QUIET_ROUNDS:
            return no_points(len(self._axes.grain))
        if self._population is None:
            return self._stream.take(self._n)
        self._brood = self._population.breed(self._n, self._rng)
        return self._brood.cube

    def tell(self, cube: FloatArray, score: FloatArray, violation: FloatArray) -> None:
        """Take their scores."""
        grades = grade(score, violation)
        self._done += len(cube)
        if self._population is None:
            self._seen.append((cube, grades))
            if self._done >= self._round.explored:
                self._population = self._found()
            return
        members = self._round.members(self._done, self._n)
        self._population.select(self._brood, grades, members, self._rng)
        if self._done >= self._round.end:
            self._end_round(self._population)

    def _plan(self, length: int) -> Round:
        """Return the next round, which takes what is left if a longer one would not fit."""
        left = self._trials - self._done
        end = self._done + (left if left < 2 * length else length)
        explored = max(min(EXPLORED, int(end - self._done) // 8), self._n)
        return Round(self._done, self._done + explored, max(end, self._done + explored + 1))

    def _found(self) -> Population:
        """Return the best of what was explored, and of earlier rounds, as a population."""
        explored = join(*(grades for _, grades in self._seen))
        scores = explored.score[(explored.violation == 0.0) & np.isfinite(explored.score)]
        self._middle = float(np.median(scores)) if len(scores) else math.nan
        cubes, grades = zip(*self._seen, *self._kept, strict=True)
        cube, all_grades = np.concatenate(cubes), join(*grades)
        best = all_grades.sort()[: round(MEMBERS * self._n)]
        self._seen = []
        return Population(cube[best], all_grades.take(best), self._axes)

    def _end_round(self, population: Population) -> None:
        self._kept.append((population.cube[:KEPT], population.grades.take(slice(KEPT))))
        best = population.grades.take(slice(1))
        has_gained = self._best is None or is_gain(self._best, best, self._middle)
        self._quiet = 0 if has_gained else self._quiet + 1
        self._best, self._population = best, None
        self._round = self._plan(2 * (self._done - self._round.start))


def is_gain(before: Grades, after: Grades, middle: float) -> bool:
    """Tell whether the best of a round is worth more of the same.

    Parameters
    ----------
    before, after : Grades
        Of one point each.
    middle : float
        The score of a median point, NaN where none is known.
    """
    (old_violation,), (old_score,) = before.violation.tolist(), before.score.tolist()
    (violation,), (score,) = after.violation.tolist(), after.score.tolist()
    if violation > 0.0:
        return bool(violation < (1.0 - LEAST_GAIN) * old_violation)
    if old_violation > 0.0:
        return True
    spread = score - middle if math.isfinite(middle) else abs(score)
    return bool(score - old_score > LEAST_GAIN * spread)
