"""Grid sampler: every combination of evenly spaced values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from backtest.base import FloatArray
from backtest.tune.samplers.protocol import SamplerTerms

if TYPE_CHECKING:
    from backtest.sweep import Dimension, Space

BATCH = 1024
MOST_POINTS = 4096
"""Points of a grid if the number of trials is not given."""


class Grid:
    def __init__(self, terms: SamplerTerms) -> None:
        points = build_grid(terms.space, terms.trials or MOST_POINTS)
        self._points = np.random.default_rng(terms.seed).permutation(points)
        self._n = terms.size(BATCH)
        self._done = 0

    def ask(self) -> FloatArray:
        return self._points[self._done : self._done + self._n]

    def tell(self, cube: FloatArray, score: FloatArray, violation: FloatArray) -> None:  # noqa: ARG002 - does not learn
        self._done += len(cube)


def build_grid(space: Space, most: int) -> FloatArray:
    """Return the finest grid of at most ``most`` points, of shape (n, n_dimensions)."""
    axes = [
        spread_levels(dimension, count)
        for dimension, count in zip(space.dimensions, count_levels(space, most), strict=True)
    ]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    if all(dimension.when is None for dimension in space.dimensions):
        return points
    _, first = np.unique(canonicalize(space, points), axis=0, return_index=True)
    return points[np.sort(first)]


def count_levels(space: Space, most: int) -> list[int]:
    limits = [count_values(dimension) for dimension in space.dimensions]
    growing = [k for k, each in enumerate(space.dimensions) if not each.options]
    combinations = math.prod(len(each.options) or 1 for each in space.dimensions)
    share = max(int((most / combinations) ** (1.0 / max(len(growing), 1))), 1)
    levels = [
        len(each.options) or int(min(share, limit))
        for each, limit in zip(space.dimensions, limits, strict=True)
    ]
    while growing:
        for k in list(growing):
            product = math.prod(levels) // levels[k] * (levels[k] + 1)
            if levels[k] >= limits[k] or product > most:
                growing.remove(k)
            else:
                levels[k] += 1
    return levels


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
