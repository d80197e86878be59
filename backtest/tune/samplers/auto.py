"""The default sampler: explore evenly in bulk, let a population improve in bulk, and start again.

Evaluation is nearly free here, so asking must be cheaper still: a batch is a few operations on
arrays. The search goes in rounds. Each is an even exploration, then the best of it as a population,
which shrinks as the round goes on and so turns from exploring to climbing. A population ends on one
hill, and on a rugged surface that is often not the highest. So there are two kinds of rounds. One
begins anew over the whole space and takes no point of an earlier round along, or it would end on
the same hill. The other begins anew in a box around the best point so far, where a higher peak may
be. They come in turns of 1 and 1, 2 and 2, 4 and 4 and so on: a box around the wrong hill is
wasted, so the hills are looked for first. All rounds are of one length, doubled from time to time.
After a long time without a gain, 31 parts in 32 of all evaluations, there are no further questions.
Source: Hansen (2009), Benchmarking a BI-population CMA-ES on the BBOB-2009 function testbed, GECCO
(restarts of two kinds that share the evaluations).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backtest.base.units import FloatArray
from backtest.tune.samplers.feasibility import Grades, grade, join
from backtest.tune.samplers.grid import Grid, count_values
from backtest.tune.samplers.population import Population, read_axes
from backtest.tune.samplers.protocol import Sampler, Terms, no_points
from backtest.tune.samplers.sobol_random import EvenStream

BATCH, SMALL_BATCH = 128, 64
FEW_TRIALS = 1024
"""Up to so many trials batches are small, for the sake of more generations."""
ROUND = 1280
"""Evaluations of the first round, per dimension."""
EXPLORED = 1024
"""Points that a round begins with, an eighth of the round at most."""
MEMBERS, LAST_MEMBERS, LEAST_MEMBERS = 0.5, 0.125, 4
"""Members at the beginning and at the end of a round, in batches; the rest of a batch climbs."""
BOX = 0.05
"""How far a round around the best point begins from it, in parts of an axis on either side."""
GROWN = 16
"""After so many rounds they become twice as long."""
PATIENCE = 32
"""The search ends when all of it is so many times as long as it was at its last gain."""
LEAST_GAIN = 1e-3
"""The best has gained if by more than this, in parts of its distance from the median point."""
FEW_SETS = 4096
"""A space of no more sets of parameters than this is asked for as a whole."""
WHOLE_STEPS = 1.5
"""How many steps of a whole number a box reaches at least."""


def start_auto(terms: Terms) -> Sampler:
    """Return the default sampler; a grid of all sets where there are few."""
    number = math.prod(count_values(each) for each in terms.space.dimensions)
    is_small = number <= min(FEW_SETS, terms.trials or FEW_SETS)
    return Grid(terms) if is_small else Auto(terms)


class Round(NamedTuple):
    """A part of the search, in numbers of evaluations since the beginning of all.

    It explores from ``start`` to ``explored``, and ends at ``end``. It begins in the box from
    ``low`` to ``high``, of shape (n_dimensions,) each.
    """

    start: int
    explored: int
    end: float
    low: FloatArray
    high: FloatArray

    def members(self, done: int, n: int) -> int:
        """Return how many members the population has, of batches of n."""
        part = min((done - self.explored) / (self.end - self.explored), 1.0)
        return max(round(n * (MEMBERS + (LAST_MEMBERS - MEMBERS) * part)), LEAST_MEMBERS)


class Auto:
    """Explore evenly, then improve, in rounds that begin anew, until nothing more is gained."""

    def __init__(self, terms: Terms) -> None:
        child, stream = np.random.SeedSequence(terms.seed).spawn(2)
        self._rng = np.random.default_rng(child)
        self._stream = EvenStream(terms.n_dimensions, np.random.default_rng(stream))
        self._axes = read_axes(terms.space)
        self._trials = math.inf if terms.trials is None else float(terms.trials)
        is_short = self._trials <= FEW_TRIALS
        self._n = terms.size(SMALL_BATCH if is_short else BATCH, least=16)
        self._done = self._rounds = 0
        self._gained = math.inf
        self._seen: list[tuple[FloatArray, Grades]] = []
        self._middle = math.nan
        self._best: tuple[FloatArray, Grades] | None = None
        self._population: Population | None = None
        self._round = self._plan()

    def ask(self) -> FloatArray:
        """Return the next points; none when nothing was gained for long."""
        if self._done >= PATIENCE * self._gained:
            return no_points(len(self._axes.grain))
        if self._population is None:
            return self._round.low + (self._round.high - self._round.low) * self._stream.take(
                self._n
            )
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

    def _plan(self) -> Round:
        """Return the next round, which takes what is left if a longer one would not fit."""
        length = ROUND * len(self._axes.grain) * 2 ** (self._rounds // GROWN)
        left = self._trials - self._done
        end = self._done + (left if left < 2 * length else length)
        explored = max(min(EXPLORED, int(end - self._done) // 8), self._n)
        end = max(end, self._done + explored + 1)
        return Round(self._done, self._done + explored, end, *self._choose_box())

    def _choose_box(self) -> tuple[FloatArray, FloatArray]:
        """Return low and high of where the next round begins: everywhere, or near the best."""
        grain, is_unordered = self._axes
        if self._best is None or is_over_all(self._rounds):
            return np.zeros(len(grain)), np.ones(len(grain))
        reach = np.where(is_unordered, 1.0, np.maximum(BOX, WHOLE_STEPS * grain))
        best, _ = self._best
        return np.maximum(best - reach, 0.0), np.minimum(best + reach, 1.0)

    def _found(self) -> Population:
        """Return the best of what was explored as a population."""
        cubes, grades = zip(*self._seen, strict=True)
        cube, explored = np.concatenate(cubes), join(*grades)
        if is_over_all(self._rounds):
            scores = explored.score[(explored.violation == 0.0) & np.isfinite(explored.score)]
            self._middle = float(np.median(scores)) if len(scores) else math.nan
        best = explored.sort()[: round(MEMBERS * self._n)]
        self._seen = []
        return Population(cube[best], explored.take(best), self._axes)

    def _end_round(self, population: Population) -> None:
        point, grades = population.cube[0], population.grades.take(slice(1))
        if self._best is None or is_gain(self._best[1], grades, self._middle):
            self._gained = self._done
        if self._best is None or not self._best[1].matches(grades)[0]:
            self._best = point, grades
        self._population = None
        self._rounds += 1
        self._round = self._plan()


def is_over_all(rounds: int) -> bool:
    """Tell whether a round begins over the whole space, given how many came before it.

    Examples
    --------
    >>> "".join("all " if is_over_all(k) else "box " for k in range(8))
    'all box all all box box all all '
    """
    place = rounds + 2
    size: int = 2 ** (place.bit_length() - 2)  # of this turn
    return place < 3 * size


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
