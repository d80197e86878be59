"""Samplers choose the points of the unit cube to evaluate next.

A point that satisfies the constraints is better than one that does not. Of two that do, the one
with the higher score is better; of two that break them, the one that breaks them less. Only the
order counts, so constraints need no weights.
Source: Deb (2000), An efficient constraint handling method for genetic algorithms, Computer
Methods in Applied Mechanics and Engineering 186(2-4).
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import cmaes
import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc, rankdata

from backtest.core import FloatArray, IntArray
from backtest.core.one_thread import one_thread
from backtest.results.ranking import is_dominated
from backtest.sweep import Dimension, Space

BULK = 1024
"""Points of a batch where scores are ignored; a power of two keeps Sobol points balanced."""


def make_sampler(
    name: str, space: Space, *, seed: int, trials: int | None = None, objectives: int = 1
) -> Blind | Auto | Chebyshev | GaussianProcess:
    """Return a sampler; ``trials`` are those that will be evaluated, by which it plans.

    ``ask`` returns the next points, of shape (n, n_dimensions) in [0, 1]; n = 0 ends the search.
    ``tell`` takes their scores (n,), or (n, n_objectives) of several: larger for better points, NaN
    is worst; and by how much they break constraints (n,): 0 for none, inf for ruin or failure.
    """
    rng, d = np.random.default_rng(seed), len(space.dimensions)
    if name == "gp":
        return GaussianProcess(space, seed)
    if name in ("sobol", "random"):
        return Blind(SobolStream(d, rng).take if name == "sobol" else lambda n: rng.random((n, d)))
    number = math.prod(count_values(each) for each in space.dimensions)
    if name == "grid" or number <= min(MOST_POINTS, trials or MOST_POINTS):
        grid = rng.permutation(build_grid(space, trials or MOST_POINTS))
        pieces = (grid[k : k + BULK] for k in itertools.count(0, BULK))
        return Blind(lambda _: next(pieces))
    if objectives > 1:
        return Chebyshev(d, seed, trials, objectives)
    return Auto(d, seed, trials)


class Points(NamedTuple):
    """Points of shape (n, n_dimensions), with violations and scores of shape (n,)."""

    cube: FloatArray
    violation: FloatArray
    score: FloatArray

    def add(self, other: Points) -> Points:
        return Points(*map(np.concatenate, zip(self, other, strict=True)))

    def take(self, places: Any) -> Points:
        return Points(*(each[places] for each in self))

    def sort(self) -> IntArray:
        """Return the places of the points, of shape (n,), the best first."""
        return np.lexsort((-self.score, self.violation))

    def rank(self) -> FloatArray:
        """Return ranks of shape (n,), 1 for the worst; ties share their mean rank."""
        by_score = rankdata(self.score, "dense")
        return rankdata(by_score - len(by_score) * rankdata(self.violation, "dense"))


def grade(cube: FloatArray, score: FloatArray, violation: FloatArray) -> Points:
    broken = np.where(np.isnan(violation), np.inf, np.maximum(violation, 0.0))
    known = np.where(np.isnan(score), -np.inf, score)
    return Points(cube, broken, np.where(broken > 0.0, 0.0, known))


class SobolStream:
    """Scrambled Sobol sequence, taken in pieces of any length.

    Source: Owen (1998), Scrambling Sobol' and Niederreiter-Xing points, J. Complexity 14(4); as in
    ``scipy.stats.qmc``.
    """

    def __init__(self, n_dimensions: int, rng: np.random.Generator) -> None:
        self._engine = qmc.Sobol(n_dimensions, rng=rng)
        self._kept = np.empty((0, n_dimensions))

    def take(self, n: int) -> FloatArray:
        missing = n - len(self._kept)
        drawn = [self._engine.random(BULK) for _ in range(-(-missing // BULK))]
        points = np.concatenate([self._kept, *drawn])
        self._kept = points[n:]
        return points[:n]


class Blind:
    """Draws points in batches, whatever their scores."""

    def __init__(self, draw: Callable[[int], FloatArray]) -> None:
        self.draw = draw

    def ask(self) -> FloatArray:
        return self.draw(BULK)

    def tell(self, *_: FloatArray) -> None:
        """Ignore the scores."""


MOST_POINTS = 4096
"""Points of a grid if the number of trials is not given."""


def build_grid(space: Space, most: int) -> FloatArray:
    limits = [count_values(dimension) for dimension in space.dimensions]
    growing = [k for k, each in enumerate(space.dimensions) if not each.options]
    combinations = math.prod(len(each.options) or 1 for each in space.dimensions)
    share = max(int((most / combinations) ** (1.0 / max(len(growing), 1))), 1)
    levels = [int(min(share, limit)) if k in growing else int(limit)
              for k, limit in enumerate(limits)]  # fmt: skip
    while growing:
        for k in list(growing):
            product = math.prod(levels) // levels[k] * (levels[k] + 1)
            if levels[k] >= limits[k] or product > most:
                growing.remove(k)
            else:
                levels[k] += 1
    axes = [*map(spread_levels, space.dimensions, levels)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    if all(dimension.when is None for dimension in space.dimensions):
        return points
    _, first = np.unique(canonicalize(space, points), axis=0, return_index=True)
    return points[np.sort(first)]


def count_values(dimension: Dimension) -> float:
    if dimension.options:
        return len(dimension.options)
    if dimension.low == dimension.high:
        return 1
    return dimension.high - dimension.low + 1 if dimension.kind == "int" else math.inf


def spread_levels(dimension: Dimension, count: int) -> FloatArray:
    if dimension.options:
        return (np.arange(count) + 0.5) / count
    if count == 1:
        return np.full(1, 0.5)
    if count == count_values(dimension):
        return dimension.encode(dimension.low + np.arange(count))
    return np.unique(dimension.encode(dimension.decode(np.linspace(0.0, 1.0, count))))


def canonicalize(space: Space, cube: FloatArray) -> FloatArray:
    return np.nan_to_num(space.encode(space.decode(cube)), nan=0.5)


STRATEGIES = 4
EXPLORED = 1024
"""Sobol points before anything else; an eighth of the trials at most."""
MEMBERS, FEW_MEMBERS = 32, 16
"""Points of one strategy and generation; several strategies share a batch."""
FEW_TRIALS = 1024
"""With at most so many trials, strategies have few members, so that there are more generations."""
BEST = 4096
"""Best points that are remembered, to begin strategies at: one of each generation."""
HILLS, NEAR, FAR = 6, 0.05, 0.3
"""Hills that strategies begin at, and the least distance of two, log-uniform in a share of axes."""
SHORT, LONG, FIRST_STEP = 0.02, 0.2, 0.25
"""First steps of strategies around a hill, log-uniform, and of those elsewhere."""
AROUND = 0.75
"""Share of the strategies that begin at a hill."""
CONVERGED, FLAT = 1e-7, 1e-9
"""A strategy ends when its members stand so close, as a share of every axis, or gain so little."""
PATIENCE = 32
"""The search ends when it is so many times as long as it was at its last gain."""
LEAST_GAIN = 1e-3
"""Least gain of the best score, as a share of its distance from the median score."""


class Evolution:
    """Sobol points, then several strategies at once; ``_begin`` returns a new one."""

    _begin: Callable[[], cmaes.CMA]

    def __init__(self, d: int, seed: int, trials: int | None, members: int) -> None:
        stream, rng = np.random.SeedSequence(seed).spawn(2)
        self._stream = SobolStream(d, np.random.default_rng(stream))
        self._rng = np.random.default_rng(rng)
        self._d, self._members, self._done = d, members, 0
        self._explored = min(EXPLORED, math.inf if trials is None else trials / 8)
        self._strategies: list[cmaes.CMA] = []
        self._asked = np.empty((0, d))

    def ask(self) -> FloatArray:
        if self._done < self._explored:
            return self._stream.take(STRATEGIES * self._members)
        while len(self._strategies) < STRATEGIES:
            self._strategies.append(self._begin())
        asked = [each.ask() for each in self._strategies for _ in range(self._members)]
        self._asked = np.array(asked)
        return self._asked[:, : self._d]

    def _start(self, middle: FloatArray, step: float) -> cmaes.CMA:
        mean = np.resize(middle, max(len(middle), 2))  # the package takes no single dimension
        bounds, seed = np.array([[0.0, 1.0]] * len(mean)), int(self._rng.integers(2**32))
        return cmaes.CMA(
            mean=mean, sigma=step, bounds=bounds, population_size=self._members, seed=seed
        )


class Auto(Evolution):
    """Sobol points, then CMA-ES: several strategies at once, each restarted when it has converged.

    A strategy ends on one hill, which on a rugged surface is often not the highest. So most begin
    at one of the best hills seen so far, with steps of all sizes, and the others anywhere.
    Source: Hansen (2009), Benchmarking a BI-population CMA-ES on the BBOB-2009 function testbed,
    GECCO (restarts of two kinds); as in ``cmaes.CMA``.
    """

    def __init__(self, d: int, seed: int, trials: int | None) -> None:
        is_short = trials is not None and trials <= FEW_TRIALS
        super().__init__(d, seed, trials, FEW_MEMBERS if is_short else MEMBERS)
        self._known, self._gained = grade(self._asked, np.empty(0), np.empty(0)), 0
        self._median, self._best = math.nan, (math.inf, -math.inf)

    def ask(self) -> FloatArray:
        is_over = self._done > PATIENCE * max(self._gained, EXPLORED)
        return self._known.cube[:0] if is_over else super().ask()

    def tell(self, cube: FloatArray, score: FloatArray, violation: FloatArray) -> None:
        points = grade(cube, score, violation)
        self._done += len(cube)
        kept = np.arange(len(cube))
        if self._strategies:
            pairs = list(zip(self._strategies, np.split(kept, len(self._strategies)), strict=True))
            kept = np.array([self._teach(one, mine, points) for one, mine in pairs])
        else:
            ok = points.score[(points.violation == 0.0) & np.isfinite(points.score)]
            self._median = float(np.median(ok)) if len(ok) else math.nan
        known = self._known.add(points.take(kept))
        self._known = known.take(known.sort()[:BEST])
        broken, best = float(self._known.violation[0]), float(self._known.score[0])
        old_broken, old_best = self._best
        spread = best - self._median if math.isfinite(self._median) else abs(best)
        is_gain = old_broken > 0.0 or best - old_best > LEAST_GAIN * spread
        if broken > 0.0:
            is_gain = broken < (1.0 - LEAST_GAIN) * old_broken
        if is_gain:
            self._gained, self._best = self._done, (broken, best)

    def _teach(self, strategy: cmaes.CMA, mine: IntArray, points: Points) -> int:
        """Tell a strategy its grades, drop it if it has converged, return its best point."""
        own = points.take(mine)
        losses, best = -own.rank(), float(own.score.max())
        strategy.tell(list(zip(self._asked[mine], losses.tolist(), strict=True)))
        gap = FLAT * abs(best - float(np.nan_to_num(self._median)))
        is_flat = own.violation.max() == 0.0 and best - float(own.score.min()) <= gap
        if strategy.should_stop() or is_flat or np.ptp(own.cube, axis=0).max() < CONVERGED:
            self._strategies.remove(strategy)
        return int(mine[np.argmin(losses)])

    def _begin(self) -> cmaes.CMA:
        (middle,), step = self._stream.take(1), FIRST_STEP
        if self._rng.random() < AROUND:
            cube, reach = self._known.cube, draw_between(NEAR, FAR, self._rng)  # the best first
            hills: list[FloatArray] = []
            while len(cube) and len(hills) < HILLS:
                hills.append(cube[0])
                cube = cube[(np.abs(cube - cube[0]) > reach).any(axis=1)]
            middle = hills[min(int(self._rng.exponential()), len(hills) - 1)]
            step = draw_between(SHORT, LONG, self._rng)
        return self._start(middle, step)


def draw_between(low: float, high: float, rng: np.random.Generator) -> float:
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

    def __init__(self, d: int, seed: int, trials: int | None, objectives: int) -> None:
        super().__init__(d, seed, trials, FEW_MEMBERS)
        self._weights: dict[cmaes.CMA, FloatArray] = {}
        self._least, self._middle = math.inf, np.full(d, 0.5)
        self._cube, self._front = np.empty((0, d)), np.empty((0, objectives))

    def tell(self, cube: FloatArray, score: FloatArray, violation: FloatArray) -> None:
        self._done += len(cube)
        broken = np.where(np.isnan(score).any(axis=1), np.inf, np.nan_to_num(violation, nan=np.inf))
        least = int(np.argmin(broken))
        if broken[least] < self._least:
            self._least, self._middle = float(broken[least]), cube[least]
        everything = np.concatenate([self._front, score[broken == 0.0]])
        points = np.concatenate([self._cube, cube[broken == 0.0]])
        kept = ~is_dominated(everything)
        self._front, self._cube = everything[kept], points[kept]
        for k, one in enumerate(self._strategies):
            mine = slice(k * FEW_MEMBERS, (k + 1) * FEW_MEMBERS)
            joined = self._join(self._weights[one], score[mine])
            ranks = grade(cube[mine], joined, broken[mine]).rank()
            one.tell(list(zip(self._asked[mine], (-ranks).tolist(), strict=True)))
        self._strategies = [one for one in self._strategies if one.generation < GENERATIONS]
        self._weights = {one: self._weights[one] for one in self._strategies}

    def _begin(self) -> cmaes.CMA:
        weights = self._rng.dirichlet(np.ones(self._front.shape[1]))
        step, middle = draw_between(SHORT, LONG, self._rng), self._middle
        if len(self._front):
            middle = self._cube[np.argmax(self._join(weights, self._front))]
        strategy = self._start(middle, step)
        self._weights[strategy] = weights
        return strategy

    def _join(self, weights: FloatArray, scores: FloatArray) -> FloatArray:
        """Return one score for several under weights, 0 at the best of all objectives."""
        if not len(self._front):
            return np.zeros(len(scores))
        best, width = self._front.max(axis=0), np.ptp(self._front, axis=0)
        short = weights * (best - scores) / np.where(width > 0.0, width, 1.0)
        return np.asarray(-short.max(axis=1) - AUGMENTED * short.sum(axis=1))


FIRST_POINTS = 16
"""Sobol points before a process is fitted."""
LATEST = 96
"""The process is fitted to so many of the best points and of the latest; its time is cubic."""
DRAWS = 256
"""Sobol points that may stand in for a set that was asked for before."""


class GaussianProcess:
    """Asks for the point at which a Gaussian process hopes for most, one at a time.

    It takes about a second of thinking for each set, so it is for sets that take longer to run.
    Source: ``skopt.Optimizer`` with the lower confidence bound.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self._space, self._seed = space, seed % 2**32
        self._stream = SobolStream(len(space.dimensions), np.random.default_rng(seed))
        self._known = grade(np.empty((0, len(space.dimensions))), np.empty(0), np.empty(0))
        self._asked: set[bytes] = set()

    def ask(self) -> FloatArray:
        points = [] if len(self._known.cube) < FIRST_POINTS else [self._propose()]
        for point in canonicalize(self._space, np.array([*points, *self._stream.take(DRAWS)])):
            if point.tobytes() not in self._asked:
                return np.asarray(point[None])
        return self._known.cube[:0]

    def tell(self, cube: FloatArray, score: FloatArray, violation: FloatArray) -> None:
        self._known = self._known.add(grade(cube, score, violation))
        self._asked.update(point.tobytes() for point in cube)

    def _propose(self) -> FloatArray:
        from skopt import Optimizer, space  # noqa: PLC0415 - takes a second to import

        n = len(self._known.cube)
        best, latest = self._known.sort()[:LATEST], np.arange(max(n - LATEST, 0), n)
        some = self._known.take(np.union1d(best, latest))
        losses = -ndtri((some.rank() - 0.5) / len(some.cube))
        levels = [spread_levels(k, len(k.options)).tolist() for k in self._space.dimensions]
        axes = [space.Categorical(k) if k else space.Real(0.0, 1.0) for k in levels]
        terms = {"n_initial_points": 1, "acq_func": "LCB", "acq_optimizer": "sampling"}
        optimizer = Optimizer(axes, "GP", random_state=(self._seed + n) % 2**32, **terms)
        with one_thread(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.tell(some.cube.tolist(), losses.tolist())
            return np.array(optimizer.ask())
