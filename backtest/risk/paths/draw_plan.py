"""What draws some paths: keys of random numbers, made of the seed and the number of a path."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backtest.base import IntArray
from backtest.risk.paths.path_model import WordArray

_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix_words(words: WordArray) -> WordArray:
    with np.errstate(over="ignore"):
        z = words + _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * _FIRST
        z = (z ^ (z >> np.uint64(27))) * _SECOND
        return np.asarray(z ^ (z >> np.uint64(31)))


def make_keys(seed: int, numbers: IntArray) -> WordArray:
    start = mix_words(np.array([seed % 2**64], dtype=np.uint64))
    return mix_words(mix_words(numbers.astype(np.uint64)) ^ start)


class DrawPlan(NamedTuple):
    keys: WordArray
    since: IntArray
    mirrored: IntArray

    def part(self, first: int, stop: int) -> DrawPlan:
        return DrawPlan(self.keys[first:stop], self.since[first:stop], self.mirrored[first:stop])
