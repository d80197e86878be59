"""The bars at which weights are computed again, and the instruments that they cover."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import numpy as np

from backtest.base import BoolArray, FloatArray, IntArray
from backtest.market import Markets


class Segment(NamedTuple):
    members: IntArray
    first: int
    bars: IntArray


Solve: TypeAlias = Callable[[Segment], FloatArray]
"""Returns the weights of the members at each bar of a segment, of shape (n_fits, n_members)."""


def list_segments(markets: Markets, known: int, every: int) -> Iterator[Segment]:
    has_part = find_members(markets, known)
    is_new = np.any(has_part[:, 1:] != has_part[:, :-1], axis=0)
    starts = np.flatnonzero(np.concatenate([[True], is_new]))
    due = find_due(markets, every)
    for start, stop in zip(starts, [*starts[1:], markets.n_bars], strict=True):
        members = np.flatnonzero(has_part[:, start])
        if members.size:
            later = np.flatnonzero(due[start + 1 : stop]) + start + 1
            first = int(markets.spans[members, 0].max()) + 1
            yield Segment(members, first, np.concatenate([[start], later]))


def find_members(markets: Markets, known: int) -> BoolArray:
    """Return where an instrument can be traded and has ``known`` returns.

    The shape is (n_instruments, n_bars).
    """
    bars = np.arange(markets.n_bars)
    return markets.tradable() & (bars - markets.spans[:, :1] >= known)


def find_due(markets: Markets, every: int) -> BoolArray:
    """Return the bars at whose closes weights are made again, of shape (n_bars,)."""
    if markets.sessions:
        counted = np.arange(1, markets.n_bars + 1)
    else:
        counted = markets.time // markets.interval + 1
    return np.asarray(counted % every == 0)


def hold_weights(markets: Markets, segments: Iterator[Segment], solve: Solve) -> FloatArray:
    """Return weights of shape (n_bars, n_instruments), each held until the next; NaN before."""
    weights = np.full((markets.n_bars, len(markets)), np.nan)
    for segment in segments:
        rows = np.zeros((len(segment.bars), len(markets)))
        rows[:, segment.members] = solve(segment)
        weights[segment.bars] = rows
    return fill_forward(weights)


def fill_forward(rows: FloatArray) -> FloatArray:
    is_known = ~np.isnan(rows[:, 0])
    last = np.maximum.accumulate(np.where(is_known, np.arange(len(rows)), 0))
    return rows[last]
