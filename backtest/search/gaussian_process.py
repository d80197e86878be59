"""A sampler that fits a Gaussian process to the sets so far."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.special import ndtri

from backtest.core import FloatArray
from backtest.core.one_thread import one_thread
from backtest.search.points import SobolStream, canonicalize, grade, spread_levels
from backtest.sweep import Space

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
        n_dimensions = len(space.dimensions)
        self._space = space
        self._seed = seed % 2**32
        self._stream = SobolStream(n_dimensions, np.random.default_rng(seed))
        self._known = grade(np.empty((0, n_dimensions)), np.empty(0), np.empty(0))
        self._asked: set[bytes] = set()

    def ask(self) -> FloatArray:
        candidates = list(self._stream.take(DRAWS))
        if len(self._known.cube) >= FIRST_POINTS:
            candidates.insert(0, self._propose())
        for point in canonicalize(self._space, np.array(candidates)):
            if point.tobytes() not in self._asked:
                return np.asarray(point[None])
        return self._known.cube[:0]

    def tell(
        self,
        cube: FloatArray,
        score: FloatArray,
        violation: FloatArray,
    ) -> None:
        self._known = self._known.add(grade(cube, score, violation))
        self._asked.update(point.tobytes() for point in cube)

    def _propose(self) -> FloatArray:
        """Return the point at which a process fitted to known points promises most, (d,)."""
        from skopt import Optimizer, space  # noqa: PLC0415 - takes a second to import

        # The process is fitted to the best points and to the latest.
        n_known = len(self._known.cube)
        best = self._known.sort()[:LATEST]
        latest = np.arange(max(n_known - LATEST, 0), n_known)
        fitted = self._known.take(np.union1d(best, latest))

        # Only the order counts, so scores are those of a normal distribution.
        losses = -ndtri((fitted.rank() - 0.5) / len(fitted.cube))
        axes = []
        for dimension in self._space.dimensions:
            levels = spread_levels(dimension, len(dimension.options)).tolist()
            axes.append(space.Categorical(levels) if levels else space.Real(0.0, 1.0))
        optimizer = Optimizer(
            axes,
            "GP",
            random_state=(self._seed + n_known) % 2**32,
            n_initial_points=1,
            acq_func="LCB",
            acq_optimizer="sampling",
        )
        with one_thread(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.tell(fitted.cube.tolist(), losses.tolist())
            return np.array(optimizer.ask())
