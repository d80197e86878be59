"""Groups of time for combinatorial cross-validation: cuts, splits, paths and the embargo."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest.base import BoolArray, IntArray, ParameterError, Place, Range, parse_duration
from backtest.engine import mark_ends
from backtest.validation.fold_spans import LEAST_TEST, LEAST_TRAIN, describe_bar

if TYPE_CHECKING:
    from backtest.market import Market, Markets

CALL = "bt.cross_validate"
MOST_GROUPS = 50
MOST_SPLITS = 20_000
MOST_EMBARGO = 0.25
"""Largest share of a group that an automatic embargo takes."""


class Groups(NamedTuple):
    """Groups of consecutive bars, cut where sampling periods end.

    ``edges`` of shape (N + 1,) are bars, ``samples`` of shape (N + 1,) the sampling periods that
    end before them. ``ends`` has 1 at the last bar of each sampling period.
    """

    edges: IntArray
    samples: IntArray

    @property
    def n(self) -> int:
        """Number of groups."""
        return len(self.edges) - 1

    def span(self, group: int) -> tuple[int, int]:
        """Return the first bar of a group, and the bar after its last."""
        return int(self.edges[group]), int(self.edges[group + 1])


def check_counts(groups: int, test_groups: int) -> tuple[int, int]:
    """Return the numbers of groups, and of those that a split is tested on."""
    n = int(
        Range(2, MOST_GROUPS).check("groups", groups, where=Place("groups", of=CALL), whole=True)
    )
    where = Place("test_groups", of=CALL)
    k = int(Range(1, n - 1).check("test_groups", test_groups, where=where, whole=True))
    if math.comb(n, k) > MOST_SPLITS:
        raise ParameterError(
            f"{n} groups, {k} of them for tests, have {math.comb(n, k):,} splits, more than "
            f"{MOST_SPLITS:,}",
            where=where,
            cure="give fewer groups, or fewer test groups: 10 and 2 have 45 splits",
        )
    return n, k


def split_groups(market: Market | Markets, n: int, sampling: str) -> Groups:
    """Cut a market into n groups of whole sampling periods that differ by one period at most.

    Raises
    ------
    ParameterError
        If a group would have under 200 bars, or no two sampling periods.
    """
    period = parse_duration(sampling, where=Place("sampling", of=CALL))
    closes = np.flatnonzero(mark_ends(market, period)) + 1  # type: ignore[arg-type] # its clock
    parts = np.array_split(np.arange(len(closes)), n)
    samples = np.array([0, *(int(part[-1]) + 1 if len(part) else 0 for part in parts)])
    edges = np.concatenate(([0], closes))[samples]
    least = int(np.diff(edges).min())
    if least < max(LEAST_TRAIN, LEAST_TEST) or int(np.diff(samples).min()) < 2:
        raise ParameterError(
            f"each group must have {LEAST_TRAIN} bars and two sampling periods or more, the "
            f"shortest of {n} has {least} bars",
            where=Place("groups", describe_bar(market, 0), of=CALL),
            cure="give fewer groups, or more data",
        )
    return Groups(edges.astype(np.int64), samples.astype(np.int64))


def list_splits(n: int, k: int) -> list[tuple[int, ...]]:
    """Return the test groups of each split, C(n, k) of them, in lexical order.

    Examples
    --------
    >>> list_splits(3, 2)
    [(0, 1), (0, 2), (1, 2)]
    """
    return list(itertools.combinations(range(n), k))


def list_paths(n: int, k: int) -> list[list[int]]:
    """Return the split from which each path takes each group: φ = k/n · C(n, k) paths.

    Path j takes group g from the j-th of the splits that are tested on g. So each path has each
    group once, and each test group of each split is in one path.

    Source: Lopez de Prado (2018), Advances in Financial Machine Learning, section 12.4.

    Examples
    --------
    >>> list_paths(3, 2)  # of the splits (0, 1), (0, 2), (1, 2)
    [[0, 0, 1], [1, 2, 2]]
    """
    splits = list_splits(n, k)
    tested = [[s for s, groups in enumerate(splits) if g in groups] for g in range(n)]
    return [list(path) for path in zip(*tested, strict=True)]


def find_embargoed(n: int, tested: Sequence[int]) -> BoolArray:
    """Return which train groups follow a test group directly, of shape (n,).

    Examples
    --------
    >>> find_embargoed(5, (1, 3)).tolist()
    [False, False, True, False, True]
    """
    found = np.zeros(n, dtype=np.bool_)
    for group in tested:
        if group + 1 < n and group + 1 not in tested:
            found[group + 1] = True
    return found


def check_embargo(embargo: int | str, groups: Groups, market: Market | Markets) -> int:
    """Return a given embargo in bars; it must leave at least 200 bars of each group."""
    where = Place("embargo", of=CALL)
    if isinstance(embargo, str):
        bars = -(-parse_duration(embargo, where=where) // market.interval)
    else:
        bars = int(Range(0, math.inf, "bars").check("embargo", embargo, where=where, whole=True))
    shortest = int(np.diff(groups.edges).min())
    if shortest - bars < LEAST_TRAIN:
        raise ParameterError(
            f"an embargo must leave {LEAST_TRAIN} bars of each group, got {bars:,} of "
            f"{shortest:,} bars",
            where=where,
            cure="give a shorter embargo, fewer groups, or 'auto'",
        )
    return bars
