"""Sampler that proposes points where a Gaussian process of the scores predicts the best.

It costs far more than an evaluation here, so it is fitted once per batch, to a limited number
of points, and used to rate random candidates. Each point of a batch weighs the mean against the
standard deviation differently, so that the batch is spread out.
Source: Berk, Gupta, Rana and Venkatesh (2020), Randomised Gaussian process upper confidence bound
for Bayesian optimisation, IJCAI.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import minimize
from scipy.special import ndtri
from threadpoolctl import ThreadpoolController

from backtest.base import FloatArray, IntArray
from backtest.tune.samplers.grid import canonicalize
from backtest.tune.samplers.population import move_a_little, read_axes
from backtest.tune.samplers.protocol import Grades, SamplerTerms, grade, join, no_points
from backtest.tune.samplers.sobol_random import split_seed

if TYPE_CHECKING:
    from backtest.sweep import Space


BATCH = 256
QUESTIONS, LEAST = 8, 8
"""Batches in all if trials are few, and the least batch size: the process needs data."""
CANDIDATES = 1024
"""Candidates, at least twice a batch; half of them even, half near the best points."""
LEADERS = 16
"""Best points near which candidates are drawn."""
CAUTION = 1.0
"""Mean of the exponential weights of the standard deviation."""
PROCESS_POINTS = 192
"""Points that the process is fitted to; the time grows with their cube."""
LEARNT_FROM = 64
"""Points that the length scales are fitted to."""
STEPS = 20
"""Iterations of the optimizer that fits them."""


class GaussianProcess:
    def __init__(self, terms: SamplerTerms) -> None:
        self._space, self._model = terms.space, Process(terms.seed)
        self._axes = read_axes(terms.space)
        self._stream, self._rng = split_seed(terms)
        few = BATCH if terms.trials is None else max(LEAST, terms.trials // QUESTIONS)
        self._n = terms.size(min(BATCH, few))
        self._cube = no_points(terms.n_dimensions)
        self._grades = Grades(np.empty(0), np.empty(0))
        self._asked: set[bytes] = set()
        # Matrices as small as these take ten times as long on two threads; and with one the bits
        # are the same on any number of cores.
        self._threads = ThreadpoolController()

    def ask(self) -> FloatArray:
        if len(self._cube) <= self._axes.grain.size:
            return self._keep_new(self._stream.take(max(CANDIDATES, self._n)))[: self._n]
        candidates = self._keep_new(self._propose())
        if len(candidates) <= self._n:
            return candidates
        chosen = self._choose_known()
        features = expand(self._space, self._cube[chosen])
        with self._threads.limit(limits=1):
            self._model.fit(features, to_normal(self._grades.take(chosen)))
            mean, deviation = self._model.predict(expand(self._space, candidates))
        return candidates[choose_spread(mean, deviation, self._n, self._rng)]

    def tell(self, cube: FloatArray, score: FloatArray, violation: FloatArray) -> None:
        self._cube = np.concatenate([self._cube, cube])
        self._grades = join(self._grades, grade(score, violation))
        self._asked.update(row.tobytes() for row in cube)

    def _propose(self) -> FloatArray:
        half = max(CANDIDATES // 2, self._n)
        best = self._cube[self._grades.sort()[:LEADERS]]
        near = move_a_little(best[np.arange(half) % len(best)], self._axes, self._rng)
        return np.concatenate([near, self._stream.take(half)])

    def _keep_new(self, cube: FloatArray) -> FloatArray:
        rows = {row.tobytes(): row for row in canonicalize(self._space, cube)}
        new = [row for name, row in rows.items() if name not in self._asked]
        return np.array(new) if new else cube[:0]

    def _choose_known(self) -> IntArray:
        order = self._grades.sort()
        best, rest = order[: PROCESS_POINTS // 2], order[PROCESS_POINTS // 2 :]
        return np.concatenate([best, self._rng.permutation(rest)[: PROCESS_POINTS - len(best)]])


def expand(space: Space, cube: FloatArray) -> FloatArray:
    columns = []
    for k, dimension in enumerate(space.dimensions):
        part = cube[:, k]
        count = len(dimension.options)
        place = np.minimum((part * count).astype(np.int64), max(count - 1, 0))
        columns.append(np.eye(count)[place] if count else part[:, None])
    return np.concatenate(columns, axis=1)


def to_normal(grades: Grades) -> FloatArray:
    """Return normally distributed targets of shape (n,) in the order of the grades."""
    targets: FloatArray = ndtri((grades.rank() + 0.5) / len(grades.score))
    return targets


def choose_spread(
    mean: FloatArray, deviation: FloatArray, n: int, rng: np.random.Generator
) -> IntArray:
    bounds = mean + rng.exponential(CAUTION, (n, 1)) * deviation
    places = np.empty(n, dtype=np.int64)
    for row, bound in enumerate(bounds):
        places[row] = np.argmax(bound)
        bounds[:, places[row]] = -np.inf
    return places


class Process:
    """Gaussian process with a Matern 5/2 kernel and noise; the kernel is seldom refitted.

    Source: Rasmussen and Williams (2006), Gaussian Processes for Machine Learning, algorithm 2.1.
    """

    def __init__(self, seed: int) -> None:
        from skopt import learning  # noqa: PLC0415 - takes a second to import

        self._regressor = learning.GaussianProcessRegressor
        self._kernels = learning.gaussian_process.kernels
        self._seed = seed % 2**32
        self._fits = 0
        self._kernel: Any = None
        self._model: Any = None

    def fit(self, features: FloatArray, target: FloatArray) -> None:
        self._fits += 1
        if self._fits & (self._fits - 1) == 0:
            step = -(-len(target) // LEARNT_FROM)
            self._kernel = self._learn_kernel(features[::step], target[::step])
        self._model = self._regress(features, target, self._kernel, None)

    def predict(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        model = self._model
        covariance = model.kernel_(features, model.X_train_)
        mean = covariance @ model.alpha_
        known = solve_triangular(model.L_, covariance.T, lower=True, check_finite=False)
        variance = model.kernel_.diag(features) - (known**2).sum(axis=0)
        return mean, np.sqrt(np.maximum(variance, 0.0))

    def _learn_kernel(self, features: FloatArray, target: FloatArray) -> Any:
        kernels = self._kernels
        scales = np.full(features.shape[1], 0.5)
        matern = kernels.Matern(scales, length_scale_bounds=(0.02, 10.0), nu=2.5)
        signal = kernels.ConstantKernel(1.0, (0.05, 20.0)) * matern
        noise = kernels.WhiteKernel(0.1, (1e-4, 1.0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a scale may be at its bound
            found = self._regress(features, target, signal + noise, descend)
        return found.kernel_.k1 + kernels.WhiteKernel(found.noise_)

    def _regress(
        self, features: FloatArray, target: FloatArray, kernel: Any, optimizer: Any
    ) -> Any:
        model = self._regressor(
            kernel, noise="gaussian", optimizer=optimizer, random_state=self._seed
        )
        return model.fit(features, target)


def descend(
    function: Callable[..., Any], start: FloatArray, bounds: Any
) -> tuple[FloatArray, float]:
    found = minimize(
        function, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": STEPS}
    )
    return found.x, float(found.fun)
