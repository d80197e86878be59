"""Samplers that ignore scores: Sobol sequence, and uniform random points."""

from __future__ import annotations

import numpy as np
from scipy.stats import qmc

from backtest.base import FloatArray
from backtest.tune.samplers.protocol import SamplerTerms

BATCH = 1024
BLOCK = 1024
"""Points of the sequence drawn at once; a power of two keeps it balanced."""


class SobolStream:
    """Scrambled Sobol sequence, taken in pieces of any length.

    Source: Owen (1998), Scrambling Sobol' and Niederreiter-Xing points, J. Complexity 14(4); as in
    ``scipy.stats.qmc``.
    """

    def __init__(self, n_dimensions: int, rng: np.random.Generator) -> None:
        self._engine = qmc.Sobol(n_dimensions, rng=rng)
        self._kept = np.empty((0, n_dimensions))

    def take(self, n: int) -> FloatArray:
        """Return the next points, of shape (n, n_dimensions)."""
        missing = n - len(self._kept)
        drawn = [self._engine.random(BLOCK) for _ in range(-(-missing // BLOCK))]
        points = np.concatenate([self._kept, *drawn])
        self._kept = points[n:]
        return points[:n]


def split_seed(terms: SamplerTerms) -> tuple[SobolStream, np.random.Generator]:
    children = np.random.SeedSequence(terms.seed).spawn(2)
    stream, rng = (np.random.default_rng(child) for child in children)
    return SobolStream(terms.n_dimensions, stream), rng


class Sobol:
    def __init__(self, terms: SamplerTerms) -> None:
        self._stream = SobolStream(terms.n_dimensions, np.random.default_rng(terms.seed))
        self._n = terms.size(BATCH)

    def ask(self) -> FloatArray:
        return self._stream.take(self._n)

    def tell(self, cube: FloatArray, score: FloatArray, violation: FloatArray) -> None:
        """Ignore the scores."""


class Random:
    def __init__(self, terms: SamplerTerms) -> None:
        self._rng = np.random.default_rng(terms.seed)
        self._shape = (terms.size(BATCH), terms.n_dimensions)

    def ask(self) -> FloatArray:
        return self._rng.random(self._shape)

    def tell(self, cube: FloatArray, score: FloatArray, violation: FloatArray) -> None:
        """Ignore the scores."""
