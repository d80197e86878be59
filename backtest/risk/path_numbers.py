"""The random numbers of paths, a block of paths at a time, by NumPy's Philox.

Arrays have a row per bar and a column per path, so that a longer horizon begins with the same bars.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from backtest.base import FloatArray, IntArray

Moves: TypeAlias = tuple[FloatArray, FloatArray, FloatArray]
"""Log moves of bars, and their highest and lowest log price over the open, (bars, paths)."""
NORMALS, EXTREMES, STUDENT, ROWS, BASIS, FUNDING, JUMPS, COMMON, PICKS, PARTS = range(10)
"""The kinds of random numbers: each has a generator of its own."""


@dataclass(frozen=True)
class Draws:
    """The random numbers of one instrument on one block of paths.

    ``shape`` counts bars and paths, ``loads`` is the row of the instrument in the factor of the
    correlation: with the probability of the first load, what is no normal move is that of the first
    instrument.
    """

    seed: int
    block: int
    shape: tuple[int, int]
    bridge: int = 1
    is_mirrored: bool = False
    instrument: int = 0
    loads: tuple[float, ...] = (1.0,)
    common_jump: float = 1.0

    def generator(self, kind: int, instrument: int, part: int = 0) -> np.random.Generator:
        key = np.array([self.seed, self.block], dtype=np.uint64)
        counter = np.array([0, instrument, part, kind], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))

    @property
    def halves(self) -> tuple[int, int]:
        """The shape of what is drawn: mirrored paths need no numbers of their own."""
        return (self.shape[0], self.shape[1] // 2) if self.is_mirrored else self.shape

    def repeat(self, values: Any, twins: Any) -> Any:
        """Return numbers for all paths, those of mirrored ones from ``twins``."""
        if not self.is_mirrored:
            return values
        return np.stack([values, twins], axis=-1).reshape(len(values), self.shape[1])

    def normals(self, kind: int, instrument: int, part: int = 0) -> FloatArray:
        z = self.generator(kind, instrument, part).standard_normal(self.halves)
        return np.asarray(self.repeat(z, -z))

    def uniforms(self, kind: int, instrument: int, part: int = 0) -> FloatArray:
        """Return numbers in (0, 1], the same for a path and its mirrored twin."""
        u = 1.0 - self.generator(kind, instrument, part).random(self.halves)
        return np.asarray(self.repeat(u, u))

    def pick(self, own: FloatArray, first: FloatArray, chance: float, kind: int) -> FloatArray:
        is_first = self.generator(kind, self.instrument).random(self.halves) < chance
        return np.where(self.repeat(is_first, is_first), first, own)

    @property
    def is_joined(self) -> bool:
        return self.instrument > 0 and self.loads[0] > 0.0

    def own_normals(self, kind: int, part: int = 0) -> FloatArray:
        own = self.normals(kind, self.instrument, part)
        if not self.is_joined:
            return own
        return self.pick(own, self.normals(kind, 0, part), self.loads[0], PICKS)

    def own_uniforms(self, kind: int) -> FloatArray:
        """Return numbers in [0, 1), u for a path and 1 - u for its mirrored twin."""
        u = [self.generator(kind, each).random(self.halves) for each in (self.instrument, 0)]
        own, first = (self.repeat(each, 1.0 - each) for each in u)
        return self.pick(own, first, self.loads[0], PICKS) if self.is_joined else own

    def joint_normals(self) -> FloatArray:
        """Return the normal numbers of bars, correlated with those of other instruments."""
        total = np.zeros(self.shape)
        for j, load in enumerate(self.loads):
            if load != 0.0:
                total += load * self.normals(NORMALS, j)
        return total

    def part_normals(self, part: int) -> FloatArray:
        return self.own_normals(PARTS, part)

    def student_scale(self, degrees: float) -> FloatArray:
        """Return what makes a normal number one of Student's t with unit variance."""
        chi = 2.0 * self.generator(STUDENT, 0).standard_gamma(0.5 * degrees, self.halves)
        return np.asarray(np.sqrt((degrees - 2.0) / self.repeat(chi, chi)))

    def waits(self, part: int) -> tuple[FloatArray, FloatArray]:
        """Return exponential numbers for the highest and for the lowest point of each bar."""
        pairs = []
        for instrument in (self.instrument, 0) if self.is_joined else (self.instrument,):
            made = self.generator(EXTREMES, instrument, part)
            up, down = np.moveaxis(made.standard_exponential((*self.halves, 2)), -1, 0)
            pairs.append((self.repeat(up, down), self.repeat(down, up)))
        if not self.is_joined:
            return pairs[0]
        (up, down), (first_up, first_down) = pairs
        return (
            self.pick(up, first_up, self.loads[0], PICKS),
            self.pick(down, first_down, self.loads[0], PICKS),
        )

    def extremes(
        self, moves: FloatArray, variance: FloatArray | float, rows: Any = ..., part: int = 0
    ) -> tuple[FloatArray, FloatArray]:
        """Return the highest and lowest points of Brownian bridges from 0 to ``moves``.

        P(M >= m) = exp(-2 m (m - x) / v) for m >= max(0, x). A bridge of several steps draws the
        prices between them. ``rows`` are the bars that ``moves`` are of.
        """
        if self.bridge == 1:
            up, down = (each[rows] for each in self.waits(32 * part))
            return find_top(moves, variance, up), -find_top(-moves, variance, down)
        steps = self.bridge
        share, deviation = variance / steps, np.sqrt(np.asarray(variance) / steps)
        normals = [self.own_normals(PARTS, 1000 + 32 * part + i)[rows] for i in range(steps)]
        mean = sum(normals) / steps
        at, high, low = np.zeros_like(moves), np.zeros_like(moves), np.zeros_like(moves)
        for i, z in enumerate(normals):
            move = moves / steps + deviation * (z - mean)
            up, down = (each[rows] for each in self.waits(32 * part + i))
            high = np.maximum(high, at + find_top(move, share, up))
            low = np.minimum(low, at - find_top(-move, share, down))
            at = at + move
        return high, low

    def jump_counts(self, rate: float, most: int) -> IntArray:
        """Return the jumps of each bar, by the quantiles of Poisson's distribution."""
        terms = np.cumsum([math.log(rate / k) if k and rate else 0.0 for k in range(most)])
        totals = np.cumsum(np.exp(terms - rate)) if rate else np.ones(1)
        return np.searchsorted(totals, self.jump_uniforms(0))

    def jump(self, i: int) -> tuple[FloatArray, FloatArray]:
        """Return a uniform number for the time, and a normal one for the size, of jump i."""
        own, first = (self.generator(JUMPS, k, 500 + i) for k in (self.instrument, 0))
        size = own.standard_normal(self.halves)
        size = self.repeat(size, size)
        if self.instrument:
            other = first.standard_normal(self.halves)
            size = self.pick(size, self.repeat(other, other), self.common_jump, COMMON)
        return self.jump_uniforms(1 + i), size

    def jump_uniforms(self, part: int) -> FloatArray:
        own = self.uniforms(JUMPS, self.instrument, part)
        if not self.instrument:
            return own
        return self.pick(own, self.uniforms(JUMPS, 0, part), self.common_jump, COMMON)


def find_top(move: FloatArray, variance: FloatArray | float, wait: FloatArray) -> FloatArray:
    """Return the highest point of a Brownian bridge from 0 to ``move``, by an exponential."""
    return np.asarray(0.5 * (move + np.sqrt(move * move + 2.0 * variance * wait)))
