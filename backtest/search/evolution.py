"""Samplers that evolve: CMA-ES for one objective, and for several."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import cmaes
import numpy as np

from backtest.core import BoolArray, FloatArray, IntArray
from backtest.results.ranking import is_dominated
from backtest.search.points import Points, SobolStream, grade

STRATEGIES = 4
EXPLORED = 1024
"""Sobol points before anything else; an eighth of the trials at most."""
MEMBERS = 32
FEW_MEMBERS = 16
"""Points of one strategy and generation; several strategies share a batch."""
FEW_TRIALS = 1024
"""With at most so many trials, strategies have few members, so that there are more generations."""
BEST = 4096
"""Best points that are remembered, to begin strategies at: one of each generation."""
HILLS = 6
"""Hills that strategies begin at."""
NEAR = 0.05
FAR = 0.3
"""The least distance of two hills, log-uniform in this share of axes."""
SHORT = 0.02
LONG = 0.2
"""First steps of strategies around a hill, log-uniform."""
FIRST_STEP = 0.25
"""First steps of strategies elsewhere."""
AROUND = 0.75
"""Share of the strategies that begin at a hill."""
CONVERGED = 1e-7
"""A strategy ends when its members lie so close, as a share of every axis."""
FLAT = 1e-9
"""A strategy ends when its members differ by so little, as a share of the gain so far."""
PATIENCE = 32
"""The search ends when it is so many times as long as it was at its last gain."""
LEAST_GAIN = 1e-3
"""Least gain of the best score, as a share of its distance from the median score."""


class Evolution:
    """Sobol points, then several strategies at once; ``_begin`` returns a new one."""

    _begin: Callable[[], cmaes.CMA]

    def __init__(
        self,
        d: int,
        seed: int,
        trials: int | None,
        members: int,
    ) -> None:
        stream, rng = np.random.SeedSequence(seed).spawn(2)
        self._stream = SobolStream(d, np.random.default_rng(stream))
        self._rng = np.random.default_rng(rng)

        self._d = d
        self._members = members
        self._done = 0
        self._explored: float = EXPLORED
        if trials is not None:
            self._explored = min(EXPLORED, trials / 8)

        self._strategies: list[cmaes.CMA] = []
        self._asked = np.empty((0, d))

    def ask(self) -> FloatArray:
        """Return the next points to try in the unit cube, (STRATEGIES x members, d).

        They explore by the Sobol sequence first; later strategies propose as many points each.
        """
        if self._done < self._explored:
            return self._stream.take(STRATEGIES * self._members)

        # A strategy that has converged was dropped: another one begins in its place.
        while len(self._strategies) < STRATEGIES:
            self._strategies.append(self._begin())

        asked: list[FloatArray] = []
        for strategy in self._strategies:
            asked += [strategy.ask() for _ in range(self._members)]

        # They are kept for :meth:`tell`, with the second axis that _start adds to a single one.
        self._asked = np.array(asked)

        # Strategies have two dimensions at least; ``tell`` gives them back whole.
        return self._asked[:, : self._d]

    def _start(self, middle: FloatArray, step: float) -> cmaes.CMA:
        """Return a strategy that begins around a point."""
        mean = np.resize(middle, max(len(middle), 2))  # the package takes no single dimension
        return cmaes.CMA(
            mean=mean,
            sigma=step,
            bounds=np.array([[0.0, 1.0]] * len(mean)),
            population_size=self._members,
            seed=int(self._rng.integers(2**32)),
        )


class Standing(NamedTuple):
    """The best point of a search: by how much it breaks constraints, and its score."""

    violation: float
    score: float

    def gains_on(self, before: Standing, *, spread: float) -> bool:
        """Return whether it is better than one before by enough to go on for.

        ``spread`` is the distance of the best score from the median.
        """
        if self.violation > 0.0:
            return self.violation < (1.0 - LEAST_GAIN) * before.violation
        return before.violation > 0.0 or self.score - before.score > LEAST_GAIN * spread


class Auto(Evolution):
    """Sobol points, then CMA-ES: several strategies at once, each restarted when it has converged.

    A strategy ends on one hill, which on a rugged surface is often not the highest. So most begin
    at one of the best hills seen so far, with steps of all sizes, and the others anywhere.
    Source: Hansen (2009), Benchmarking a BI-population CMA-ES on the BBOB-2009 function testbed,
    GECCO (restarts of two kinds); as in ``cmaes.CMA``.
    """

    def __init__(
        self,
        d: int,
        seed: int,
        trials: int | None,
    ) -> None:
        members = MEMBERS
        if trials is not None and trials <= FEW_TRIALS:
            members = FEW_MEMBERS
        super().__init__(d, seed, trials, members)
        self._known = grade(self._asked, np.empty(0), np.empty(0))
        self._gained = 0
        self._median = math.nan
        self._best = Standing(violation=math.inf, score=-math.inf)

    def ask(self) -> FloatArray:
        """Return the next points to try; none once nothing was gained for long."""
        if self._done > PATIENCE * max(self._gained, EXPLORED):
            return self._known.cube[:0]
        return super().ask()

    def tell(
        self,
        cube: FloatArray,
        score: FloatArray,
        violation: FloatArray,
    ) -> None:
        """Learn what the points gave that :meth:`ask` returned last, in the order asked.

        Each strategy learns from its own points, and its best one is known from now on. Without
        strategies the points are those of the Sobol sequence: all are known, and the median of
        their scores is what later gains are measured by.
        """
        points = grade(cube, score, violation)
        self._done += len(cube)
        if self._strategies:
            best_of_each = self._teach_all(points)
            new = points.take(best_of_each)
        else:
            new = points
            is_feasible = (points.violation == 0.0) & np.isfinite(points.score)
            self._median = math.nan
            if is_feasible.any():
                self._median = float(np.median(points.score[is_feasible]))
        known = self._known.add(new)
        self._known = known.take(known.sort()[:BEST])

        # A gain that is large enough lets the search go on.
        best = Standing(float(self._known.violation[0]), float(self._known.score[0]))
        spread = abs(best.score)
        if math.isfinite(self._median):
            spread = best.score - self._median
        if best.gains_on(self._best, spread=spread):
            self._gained = self._done
            self._best = best

    def _teach_all(self, points: Points) -> IntArray:
        """Tell each strategy its points; return the places of the best of each."""
        strategies = list(self._strategies)  # some leave while they are told
        places = np.split(np.arange(len(points.cube)), len(strategies))
        best = []
        for strategy, asked in zip(strategies, places, strict=True):
            best.append(self._teach(strategy, asked, points))
        return np.array(best)

    def _teach(
        self,
        strategy: cmaes.CMA,
        asked: IntArray,
        points: Points,
    ) -> int:
        """Give a strategy the ranks of the points that it asked; return the best of them.

        A strategy that has converged is dropped: its points lie together, or score the same.
        """
        members = points.take(asked)
        losses = -members.rank()
        answers = zip(self._asked[asked], losses.tolist(), strict=True)
        strategy.tell(list(answers))

        # Flat, beside how far the best is over the median of all.
        best = float(members.score.max())
        worst = float(members.score.min())
        gain_over_median = abs(best - float(np.nan_to_num(self._median)))
        is_feasible = members.violation.max() == 0.0
        is_flat = is_feasible and best - worst <= FLAT * gain_over_median
        is_close = np.ptp(members.cube, axis=0).max() < CONVERGED
        if strategy.should_stop() or is_flat or is_close:
            self._strategies.remove(strategy)
        return int(asked[np.argmin(losses)])

    def _begin(self) -> cmaes.CMA:
        """Return a strategy at one of the best hills, or anywhere. Draws keep their order."""
        (anywhere,) = self._stream.take(1)
        if self._rng.random() >= AROUND:
            return self._start(anywhere, FIRST_STEP)

        distance = draw_between(NEAR, FAR, self._rng)
        hills = find_hills(self._known.cube, distance)
        hill = hills[min(int(self._rng.exponential()), len(hills) - 1)]
        return self._start(hill, draw_between(SHORT, LONG, self._rng))


def find_hills(cube: FloatArray, distance: float) -> list[FloatArray]:
    """Return the best points, of an array with the best first, that lie so far from each other."""
    hills: list[FloatArray] = []
    while len(cube) and len(hills) < HILLS:
        hill = cube[0]
        hills.append(hill)
        is_far = (np.abs(cube - hill) > distance).any(axis=1)
        cube = cube[is_far]
    return hills


def draw_between(low: float, high: float, rng: np.random.Generator) -> float:
    """Draw a number, log-uniform."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


GENERATIONS = 6
"""Generations of a strategy for one choice of weights."""
AUGMENTED = 0.05
"""Weight of the sum of all shortfalls beside the largest, so that no set on the frontier is beaten.
Knowles (2006)."""


class Chebyshev(Evolution):
    """Sobol points, then CMA-ES for several objectives, each strategy with weights of its own.

    A strategy begins at the known point that is best under its weights, drawn evenly from the
    simplex, and minimizes the largest weighted shortfall from the best of each objective, in units
    of the range of the frontier. Sources: Steuer and Choo (1983), Mathematical Programming 26(3);
    Knowles (2006), ParEGO, IEEE Transactions on Evolutionary Computation 10(1).
    """

    def __init__(
        self,
        d: int,
        seed: int,
        trials: int | None,
        objectives: int,
    ) -> None:
        super().__init__(d, seed, trials, FEW_MEMBERS)
        self._weights: dict[cmaes.CMA, FloatArray] = {}
        self._least_violation = math.inf
        self._least_violating = np.full(d, 0.5)
        self._frontier_points = np.empty((0, d))
        self._frontier_scores = np.empty((0, objectives))

    def tell(
        self,
        cube: FloatArray,
        score: FloatArray,
        violation: FloatArray,
    ) -> None:
        """Learn what the points gave that :meth:`ask` returned last, in the order asked.

        ``cube`` (n, d) are the points, ``score`` (n, n_objectives) what they scored, higher is
        better and NaN where it is unknown, and ``violation`` (n,) by how much they break the
        constraints. The frontier and its ranges move first, for strategies are graded by them.
        """
        self._done += len(cube)

        # A point without all scores counts as one that breaks the constraints without end.
        violated = np.nan_to_num(violation, nan=np.inf)
        violated[np.isnan(score).any(axis=1)] = np.inf

        self._note_least_violation(cube, violated)
        self._move_frontier(cube, score, violated == 0.0)
        self._teach_all(cube, score, violated)

        # A strategy that has had its generations makes room for one with other weights.
        unfinished = [one for one in self._strategies if one.generation < GENERATIONS]
        self._strategies = unfinished
        self._weights = {strategy: self._weights[strategy] for strategy in unfinished}

    def _note_least_violation(self, cube: FloatArray, violated: FloatArray) -> None:
        """Keep the point that breaks the constraints least, if it is the least of all so far.

        Strategies begin at it while the frontier is empty.
        """
        least = int(np.argmin(violated))
        if violated[least] < self._least_violation:
            self._least_violation = float(violated[least])
            self._least_violating = cube[least]

    def _move_frontier(self, cube: FloatArray, score: FloatArray, is_feasible: BoolArray) -> None:
        """Add feasible points to the frontier, and drop the points that another one dominates."""
        scores = np.concatenate([self._frontier_scores, score[is_feasible]])
        points = np.concatenate([self._frontier_points, cube[is_feasible]])
        is_on_frontier = ~is_dominated(scores)
        self._frontier_scores = scores[is_on_frontier]
        self._frontier_points = points[is_on_frontier]

    def _teach_all(self, cube: FloatArray, score: FloatArray, violated: FloatArray) -> None:
        """Tell each strategy how its points rank under its weights.

        ``ask`` lays out the points of the strategies one after another, ``FEW_MEMBERS`` of each.
        Without strategies the points are those of the Sobol sequence, and no one is told.
        """
        for k, strategy in enumerate(self._strategies):
            members = slice(k * FEW_MEMBERS, (k + 1) * FEW_MEMBERS)
            joined = self._join(self._weights[strategy], score[members])
            losses = -grade(cube[members], joined, violated[members]).rank()
            answers = zip(self._asked[members], losses.tolist(), strict=True)
            strategy.tell(list(answers))

    def _begin(self) -> cmaes.CMA:
        """Return a strategy that improves one mix of the objectives, with drawn weights.

        It begins at the point of the frontier that is the best for this mix.
        """
        n_objectives = self._frontier_scores.shape[1]
        weights = self._rng.dirichlet(np.ones(n_objectives))
        step = draw_between(SHORT, LONG, self._rng)
        middle = self._least_violating  # while no point keeps the constraints
        if len(self._frontier_scores):
            joined = self._join(weights, self._frontier_scores)
            middle = self._frontier_points[np.argmax(joined)]

        strategy = self._start(middle, step)
        self._weights[strategy] = weights
        return strategy

    def _join(self, weights: FloatArray, scores: FloatArray) -> FloatArray:
        """Return one score for several under weights, 0 at the best of all objectives."""
        if len(self._frontier_scores) == 0:
            return np.zeros(len(scores))
        best = self._frontier_scores.max(axis=0)
        width = np.ptp(self._frontier_scores, axis=0)
        shortfalls = weights * (best - scores) / np.where(width > 0.0, width, 1.0)
        return np.asarray(-shortfalls.max(axis=1) - AUGMENTED * shortfalls.sum(axis=1))
