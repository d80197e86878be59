"""What happened on each path, reduced from its bars so that memory does not grow with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from backtest.base import FloatArray, IntArray

SHOWN = 2000
"""Paths whose equity is kept bar by bar, for the fan."""


class PathLives(NamedTuple):
    """Outcomes of an account on some paths, for the bars after history.

    All have shape (n_paths, n_bars): wealth at closes, counts of liquidations and margin calls, bad
    debt, and whether the account is ruined. ``first`` is the number of the first path. ``closes``
    (n, n_paths, n_bars) are last prices by instrument.
    """

    first: int
    wealth: FloatArray
    liquidations: FloatArray
    bad_debt: FloatArray
    calls: FloatArray
    is_ruined: FloatArray
    closes: FloatArray


class PathEvents(NamedTuple):
    """Events of paths, and what is left at some bars.

    ``liquidated``, ``ruined`` and ``called`` (n_paths,) are the bars of the first such event, the
    number of bars where there is none. ``wealth`` and ``bad_debt`` (n_horizons, n_paths) are wealth
    and debt at the end of each horizon. ``shown`` (up to 2000, n_bars) is the wealth of the first
    paths. ``doomed`` (2, n_bars) sums close (relative) and wealth over the ``n_doomed`` paths that
    are liquidated.
    """

    liquidated: IntArray
    ruined: IntArray
    called: IntArray
    wealth: FloatArray
    bad_debt: FloatArray
    shown: FloatArray
    doomed: FloatArray
    n_doomed: int


def find_first(values: FloatArray) -> IntArray:
    is_set = values != 0.0
    return np.asarray(np.where(is_set.any(axis=1), is_set.argmax(axis=1), values.shape[1]))


def reduce_lives(lives: Iterable[PathLives], bars: IntArray, last: FloatArray) -> PathEvents:
    firsts: list[IntArray] = []
    rows: list[FloatArray] = []
    shown: list[FloatArray] = []
    doomed, n_doomed = np.zeros((2, 1)), 0
    for each in lives:
        found = np.array([find_first(x) for x in (each.liquidations, each.is_ruined, each.calls)])
        debt = np.cumsum(each.bad_debt, axis=1)
        firsts.append(found)
        rows.append(np.concatenate([each.wealth[:, bars].T, debt[:, bars].T]))
        if each.first < SHOWN:
            shown.append(each.wealth[: SHOWN - each.first])
        hit = found[0] < each.wealth.shape[1]
        price = sum(
            closes[hit] / start / len(last) for closes, start in zip(each.closes, last, strict=True)
        )
        doomed = doomed + np.array([np.sum(price, axis=0), np.sum(each.wealth[hit], axis=0)])
        n_doomed += int(np.sum(hit))
    liquidated, ruined, called = np.concatenate(firsts, axis=1)
    kept, k = np.concatenate(rows, axis=1), len(bars)
    return PathEvents(
        liquidated=liquidated,
        ruined=ruined,
        called=called,
        wealth=kept[:k],
        bad_debt=kept[k:],
        shown=np.concatenate(shown),
        doomed=doomed,
        n_doomed=n_doomed,
    )
