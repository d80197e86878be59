"""The default sampler: explore evenly, let a population climb, then climb the other hills too.

Evaluation is nearly free here, so proposing points must be cheaper still: a batch takes a few array
operations. A round explores a box with even points, then evolves the best of them as a population
that shrinks, and so turns from exploring to climbing. A population ends on one hill, which on a
rugged surface is often not the highest. So the search runs in cycles. A cycle begins with a round
over the whole space. Short rounds then climb the best hills that it has seen: the box around its
best point, around its best point outside that box, and so on. The last round of a cycle climbs the
best hill of all cycles once more. In every other cycle it is a reunion: its population begins with
the last members of all rounds so far that ended on this hill. They lie on different spikes of one
ridge, so half of the small moves run along lines through two members. The other cycles begin the
round with even points, as a reunion seldom leaves its hill. Some parameters do not matter on a hill
(a leverage limit that is never reached); a box spans all of their axes, or the same hill would be
climbed many times. The search ends after a long time without a gain: 31 parts in 32 of all
evaluations.
Source: Hansen (2009), Benchmarking a BI-population CMA-ES on the BBOB-2009 function testbed, GECCO
(restarts of two kinds that share the evaluations).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator
from typing import NamedTuple

import numpy as np

from backtest.base import BoolArray, FloatArray
from backtest.tune.samplers.grid import Grid, count_values
from backtest.tune.samplers.population import Population, read_axes
from backtest.tune.samplers.protocol import Grades, Sampler, SamplerTerms, grade, join, no_points
from backtest.tune.samplers.sobol_random import SobolStream

BATCH, SMALL_BATCH = 128, 64
FEW_TRIALS = 1024
"""With at most so many trials, batches are small, so that there are more generations."""
ROUND = 1280
"""Evaluations of the first round, per dimension."""
EXPLORED = 1024
"""Even points at the beginning of a round; an eighth of the round at most."""
MEMBERS, LAST_MEMBERS, LEAST_MEMBERS = 0.5, 0.125, 4
"""Members at the beginning and at the end of a round, in batches; the rest of a batch climbs."""
BOX = 0.05
"""Half the width of the box around a hill, as a share of an axis."""
HILLS, HILL_ROUND = 5, 0.25
"""Hills that are climbed in a cycle, and the length of those rounds, in rounds."""
ALONG = 0.5
"""Share of the small moves in a reunion that run along lines through two members."""
GROWN = 5
"""After so many cycles, rounds become twice as long."""
PATIENCE = 32
"""The search ends when it is so many times as long as it was at its last gain."""
LEAST_GAIN = 1e-3
"""Least gain of the best score, as a share of its distance from the median score."""
FEW_SETS = 4096
"""A space of at most so many sets is evaluated as a whole."""
WHOLE_STEPS = 1.5
"""Least reach of a box, in steps of a whole number."""


def start_auto(terms: SamplerTerms) -> Sampler:
    number = math.prod(count_values(each) for each in terms.space.dimensions)
    is_small = number <= min(FEW_SETS, terms.trials or FEW_SETS)
    return Grid(terms) if is_small else Auto(terms)


class Points(NamedTuple):
    """Points of shape (n, n_dimensions), and their grades."""

    cube: FloatArray
    grades: Grades


class Box(NamedTuple):
    """Lower and upper bounds, of shape (n_dimensions,) each."""

    low: FloatArray
    high: FloatArray

    def contains(self, cube: FloatArray) -> BoolArray:
        return np.asarray(((cube >= self.low) & (cube <= self.high)).all(axis=1))


Batches = Generator[FloatArray, Grades, None]
Round = Generator[FloatArray, Grades, Points]


class Auto:
    def __init__(self, terms: SamplerTerms) -> None:
        child, stream = np.random.SeedSequence(terms.seed).spawn(2)
        self._rng = np.random.default_rng(child)
        self._stream = SobolStream(terms.n_dimensions, np.random.default_rng(stream))
        self._axes = read_axes(terms.space)
        self._trials = math.inf if terms.trials is None else float(terms.trials)
        self._n = terms.size(SMALL_BATCH if self._trials <= FEW_TRIALS else BATCH, least=16)
        self._done = 0
        self._gained = math.inf
        self._middle = math.nan
        self._best: Points | None = None
        self._ends: list[Points] = []
        self._batches = self._search()
        self._asked = next(self._batches)

    def ask(self) -> FloatArray:
        return self._asked

    def tell(self, cube: FloatArray, score: FloatArray, violation: FloatArray) -> None:
        self._done += len(cube)
        self._asked = self._batches.send(grade(score, violation))
        if self._done >= PATIENCE * self._gained:
            self._asked = no_points(cube.shape[1])

    def _search(self) -> Batches:
        d = len(self._axes.grain)
        for cycle in itertools.count():
            length = ROUND * d * 2 ** (cycle // GROWN)
            points = yield from self._climb(Box(np.zeros(d), np.ones(d)), length)
            for _ in range(HILLS):
                if len(points.cube):
                    points = yield from self._climb_hill(points, HILL_ROUND * length)
            if self._best is not None and cycle % 2:
                yield from self._climb_hill(self._best, length, join_points(self._ends))
            elif self._best is not None:
                none = np.zeros(d, dtype=np.bool_)
                yield from self._climb(self._surround(self._best.cube[0], BOX, none), length)

    def _climb_hill(self, points: Points, length: float, known: Points | None = None) -> Round:
        top = points.grades.sort()[0]
        is_flat = yield from self._find_flat(points, top)
        yield from self._climb(self._surround(points.cube[top], BOX, is_flat), length, known)
        hill = self._surround(points.cube[top], 2.0 * BOX, is_flat)
        is_left = ~hill.contains(points.cube)
        return Points(points.cube[is_left], points.grades.take(is_left))

    def _climb(self, box: Box, length: float, known: Points | None = None) -> Round:
        left = self._trials - self._done
        length = left if left < 2.0 * length else length
        explored = self._done + max(min(EXPLORED, int(length) // 8), self._n)
        end = max(self._done + length, explored + 1)
        seen = []
        while self._done < explored:
            cube = box.low + (box.high - box.low) * self._stream.take(self._n)
            seen.append(Points(cube, (yield cube)))
        start = join_points(seen)
        if np.all(box.high - box.low == 1.0):
            self._middle = find_median(start.grades)
        if known is not None:
            is_inside = box.contains(known.cube)
            known = Points(known.cube[is_inside], known.grades.take(is_inside))
            start = drop_equals(join_points([start, known]))
        best = start.grades.sort()[: round(MEMBERS * self._n)]
        population = Population(
            start.cube[best],
            start.grades.take(best),
            self._axes,
            share_along=0.0 if known is None else ALONG,
        )
        while self._done < end:
            generation = population.breed(self._n, self._rng)
            seen.append(Points(generation.cube, (yield generation.cube)))
            part = min((self._done - explored) / (end - explored), 1.0)
            members = round(self._n * (MEMBERS + (LAST_MEMBERS - MEMBERS) * part))
            population.select(generation, seen[-1].grades, max(members, LEAST_MEMBERS), self._rng)
        self._ends.append(Points(population.cube, population.grades))
        self._note(Points(population.cube[:1], population.grades.take(slice(1))))
        return join_points(seen)

    def _find_flat(self, points: Points, top: int) -> Generator[FloatArray, Grades, BoolArray]:
        d = len(self._axes.grain)
        axis, step = np.arange(self._n) % d, np.arange(self._n) // d
        cube = np.repeat(points.cube[[top]], self._n, axis=0)
        cube[np.arange(self._n), axis] = step / max(step[-1], 1)
        grades = yield cube
        same = grades.equals(points.grades.take(slice(top, top + 1)))
        return np.bincount(axis, weights=same, minlength=d) * 2 >= np.bincount(axis, minlength=d)

    def _surround(self, point: FloatArray, reach: float, is_flat: BoolArray) -> Box:
        grain, is_unordered = self._axes
        wide = np.where(is_unordered | is_flat, 1.0, np.maximum(reach, WHOLE_STEPS * grain))
        return Box(np.maximum(point - wide, 0.0), np.minimum(point + wide, 1.0))

    def _note(self, top: Points) -> None:
        if self._best is None or is_gain(self._best.grades, top.grades, self._middle):
            self._gained = self._done
        if self._best is None or not self._best.grades.matches(top.grades)[0]:
            self._best = top


def find_median(grades: Grades) -> float:
    scores = grades.score[(grades.violation == 0.0) & np.isfinite(grades.score)]
    return float(np.median(scores)) if len(scores) else math.nan


def join_points(parts: list[Points]) -> Points:
    cubes, grades = zip(*parts, strict=True)
    return Points(np.concatenate(cubes), join(*grades))


def drop_equals(points: Points) -> Points:
    order = points.grades.sort()
    ordered = points.grades.take(order)
    is_new = np.append(True, ~ordered.take(slice(1, None)).equals(ordered.take(slice(-1))))
    order = order[is_new] if is_new.sum() >= LEAST_MEMBERS else order
    return Points(points.cube[order], points.grades.take(order))


def is_gain(before: Grades, after: Grades, middle: float) -> bool:
    (old_violation,), (old_score,) = before.violation.tolist(), before.score.tolist()
    (violation,), (score,) = after.violation.tolist(), after.score.tolist()
    if violation > 0.0:
        return bool(violation < (1.0 - LEAST_GAIN) * old_violation)
    if old_violation > 0.0:
        return True
    spread = score - middle if math.isfinite(middle) else abs(score)
    return bool(score - old_score > LEAST_GAIN * spread)
