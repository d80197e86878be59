"""Random numbers of paths: one generator each kind, instrument and block, and Brownian extremes.

Blocks of paths have a row per bar and a column per path, so that a longer horizon begins with the
same bars. Their numbers are those of NumPy's Philox.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from backtest import core

Moves: TypeAlias = tuple[core.FloatArray, core.FloatArray, core.FloatArray]
"""Log moves of bars, and their highest and lowest log price over the open, (bars, paths)."""
# The kinds of random numbers: each has a generator of its own, whose number keeps its draws.
NORMALS = 0
EXTREMES = 1
ROWS = 3
BASIS = 4
FUNDING = 5
PARTS = 8
MOST_KEPT = 2**23
"""Numbers of rows that are kept for paths that draw the same ones again: 67 MB."""
FIRST_PART = 1000
"""The part of the first step of a bridge. A change of it would change all paths of bridges."""


KeptNumbers: TypeAlias = dict[tuple[int, int], core.FloatArray]
"""Uniform numbers of rows by block and paths of it, (bars, paths, 2), all of one seed."""


@dataclass(frozen=True)
class Draws:
    """The random numbers of one instrument on one block of paths.

    ``shape`` counts bars and paths, ``loads`` is the row of the instrument in the factor of the
    correlation. Moves are of the instrument; all other numbers are common to all. Numbers of rows
    are ``kept`` for other paths of the same seed, if that is given.
    """

    seed: int
    block: int
    shape: tuple[int, int]
    bridge: int = 1
    loads: tuple[float, ...] = (1.0,)
    kept: KeptNumbers | None = None

    def generator(
        self,
        kind: int,
        instrument: int = 0,
        part: int = 0,
    ) -> np.random.Generator:
        """Return the generator of one kind of numbers, from its beginning."""
        key = np.array([self.seed, self.block], dtype=np.uint64)
        counter = np.array([0, instrument, part, kind], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))

    def draw_rows(self) -> core.FloatArray:
        """Return the uniform numbers that choose rows, (bars, paths, 2).

        Numbers are drawn bar by bar, so those of fewer bars are the first of those of more. A draw
        is kept by its block for draws of fewer bars, as long as there is room.
        """
        n_bars, n_paths = self.shape
        kept = {} if self.kept is None else self.kept
        numbers = kept.get((self.block, n_paths))
        if numbers is not None and len(numbers) >= n_bars:
            return numbers[:n_bars]

        numbers = self.generator(ROWS).random((n_bars, n_paths, 2))
        size_kept = sum(known.size for known in kept.values())
        if size_kept + numbers.size <= MOST_KEPT:
            kept[self.block, n_paths] = numbers
        return numbers

    def normals(self, kind: int, part: int = 0) -> core.FloatArray:
        """Return standard normal numbers that all instruments share, (bars, paths)."""
        generator = self.generator(kind, part=part)
        return generator.standard_normal(self.shape)

    def joint_normals(self) -> core.FloatArray:
        """Return the instrument's own, correlated with those of the others, (bars, paths)."""
        total = np.zeros(self.shape)
        for instrument, load in enumerate(self.loads):
            if load != 0.0:
                generator = self.generator(NORMALS, instrument)
                total += load * generator.standard_normal(self.shape)
        return total

    def extremes(
        self,
        moves: core.FloatArray,
        variance: core.FloatArray | float,
    ) -> tuple[core.FloatArray, core.FloatArray]:
        """Return the highest and lowest points of Brownian bridges from 0 to ``moves``.

        A bridge to x with variance v reaches a highest point M with P(M >= m) = exp(-2 m (m - x) /
        v) for m >= max(0, x). A bridge of several steps draws the prices between them.
        """
        steps = self.bridge
        step_variance = variance / steps
        shocks = self._draw_shocks()
        mean_shock = sum(shocks) / steps

        price = np.zeros(self.shape)
        high = np.zeros(self.shape)
        low = np.zeros(self.shape)
        for i in range(steps):
            generator = self.generator(EXTREMES, part=i)
            waits = generator.standard_exponential((*self.shape, 2))
            shock = shocks[i] - mean_shock
            move = moves / steps + np.sqrt(step_variance) * shock

            top = find_top(move, step_variance, waits[..., 0])
            depth = find_top(-move, step_variance, waits[..., 1])
            high = np.maximum(high, price + top)
            low = np.minimum(low, price - depth)
            price = price + move
        return high, low

    def _draw_shocks(self) -> list[Any]:
        """Return the shocks of a bridge's steps; a single step has none."""
        if self.bridge == 1:
            return [0.0]
        parts = range(FIRST_PART, FIRST_PART + self.bridge)
        return [self.normals(PARTS, part) for part in parts]


def find_top(
    move: core.FloatArray,
    variance: core.FloatArray | float,
    wait: core.FloatArray,
) -> core.FloatArray:
    """Return the highest point of a Brownian bridge from 0 to ``move``, by an exponential.

    P(M >= m) = exp(-w) with w = 2 m (m - move) / variance, solved for m.
    """
    root = np.sqrt(move * move + 2.0 * variance * wait)
    return np.asarray(0.5 * (move + root))
