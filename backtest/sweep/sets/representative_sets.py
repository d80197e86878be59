"""Choose the sets whose columns are checked for all: every word, and both ends of each number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from backtest.base import BoolArray
from backtest.sweep.sets.sets import Sets, count_sets

MOST_COMBINED = 32
"""Up to this many combinations of words are all chosen; of more, each word once."""
MOST_SETS = 96
"""Most sets that are chosen, as a search may reach new extremes again and again."""


class Extremes:
    def __init__(self) -> None:
        self._spans: dict[tuple[object, ...], tuple[float, float]] = {}
        self._count = 0

    def choose(self, sets: Sets, names: Sequence[str], left_out: BoolArray) -> int | None:
        votes = np.zeros(count_sets(sets), dtype=np.int64)
        for _, _, mask in self._list_new(sets, names):
            votes += mask
        votes[left_out] = 0
        if self._count >= MOST_SETS or not votes.any():
            return None
        self._count += 1
        return int(np.argmax(votes))

    def accept(self, sets: Sets, names: Sequence[str], row: int) -> None:
        for key, value, mask in list(self._list_new(sets, names)):
            if mask[row]:
                low, high = self._spans.get(key, (value, value))
                self._spans[key] = (min(low, value), max(high, value))

    def _list_new(
        self, sets: Sets, names: Sequence[str]
    ) -> Iterator[tuple[tuple[object, ...], float, BoolArray]]:
        here = [name for name in names if name in sets and "." not in name]
        numbers = [name for name in here if sets[name].dtype.kind not in "Ob"]
        for key, group in group_by_words(sets, [name for name in here if name not in numbers]):
            if key not in self._spans:
                yield key, 0.0, group
            for name in numbers:
                values = sets[name].astype(np.float64)
                for end in (values[group].min(), values[group].max()):
                    low, high = self._spans.get((*key, name), (np.inf, -np.inf))
                    if not low <= end <= high:
                        yield (*key, name), float(end), group & (values == end)


def list_corners(sets: Sets, names: Sequence[str]) -> Sets:
    here = [name for name in names if name in sets and "." not in name]
    numbers = [name for name in here if sets[name].dtype.kind not in "Ob"]
    groups = [group for _, group in group_by_words(sets, [n for n in here if n not in numbers])]
    firsts = np.repeat([int(np.argmax(group)) for group in groups], 2)
    corners = {name: values[firsts] for name, values in sets.items()}
    for name in numbers:
        values = sets[name]
        ends = [find_ends(values if varies(values[group]) else values[group]) for group in groups]
        corners[name] = np.array(ends, dtype=values.dtype).reshape(-1)
    return corners


def find_ends(values: np.ndarray) -> tuple[float, float]:
    return values.min(), values.max()


def varies(values: np.ndarray) -> bool:
    return bool((values != values[0]).any())


def group_by_words(
    sets: Sets, words: Sequence[str]
) -> Iterator[tuple[tuple[object, ...], BoolArray]]:
    everything = np.ones(count_sets(sets), dtype=np.bool_)
    if not words:
        yield (), everything
        return
    rows = list(zip(*(sets[name].tolist() for name in words), strict=True))
    found = dict.fromkeys(rows)
    if len(found) <= MOST_COMBINED:
        for each in found:
            yield (("", *each),), np.array([row == each for row in rows])
        return
    for name in words:
        for value in dict.fromkeys(sets[name].tolist()):
            yield ((name, value),), np.array([each == value for each in sets[name].tolist()])
