"""What happened on each path, reduced from its bars so that memory does not grow with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from backtest.base.units import FloatArray, IntArray
from backtest.paths.paths_runner import PathLives

SHOWN = 2000
"""Paths whose equity is kept bar by bar, for the fan."""


class PathEvents(NamedTuple):
    """Events of paths, and what is left at some bars.

    ``liquidated``, ``ruined`` and ``called`` (n_paths,) are the bars of the first such event, the
    number of bars where there is none. ``move`` (3, n_paths) is ln(close / last close of history)
    at the close of those bars (the last close where there is none). ``wealth``, ``bad_debt`` and
    ``ends`` (n_horizons, n_paths) are wealth, debt and move at the end of each horizon. ``shown``
    (up to 2000, n_bars) is the wealth of the first paths. ``doomed`` (2, n_bars) sums close
    (relative) and wealth over the paths that are liquidated, by their weights, and ``doom`` is the
    sum of these.
    """

    liquidated: IntArray
    ruined: IntArray
    called: IntArray
    move: FloatArray
    wealth: FloatArray
    bad_debt: FloatArray
    ends: FloatArray
    shown: FloatArray
    doomed: FloatArray
    doom: float


def find_first(values: FloatArray) -> IntArray:
    """Return the first bar with a value that is not 0, or the number of bars; by path."""
    is_set = values != 0.0
    return np.asarray(np.where(is_set.any(axis=1), is_set.argmax(axis=1), values.shape[1]))


def reduce_lives(
    lives: Iterable[PathLives],
    bars: IntArray,
    last: float,
    force: float = 0.0,
    psi: float = 0.0,
) -> PathEvents:
    """Return the events of all paths.

    ``bars`` are the last ones of the horizons, ``last`` is the last close of history. Paths drawn
    by a tilted model have the weights ``exp(-force move + psi bars)``.
    """
    firsts: list[IntArray] = []
    rows: list[FloatArray] = []
    shown: list[FloatArray] = []
    doomed, doom = np.zeros((2, 1)), 0.0
    for each in lives:
        n = each.wealth.shape[1]
        found = np.array([find_first(x) for x in (each.liquidations, each.is_ruined, each.calls)])
        at = np.minimum(found, n - 1)
        move = np.log(np.take_along_axis(each.price, at.T, axis=1).T / last)
        debt = np.cumsum(each.bad_debt, axis=1)
        firsts.append(found)
        ends = np.log(each.price[:, bars].T / last)
        rows.append(np.concatenate([move, each.wealth[:, bars].T, debt[:, bars].T, ends]))
        if each.first < SHOWN:
            shown.append(each.wealth[: SHOWN - each.first])
        hit = found[0] < n
        weight = np.exp(-force * move[0, hit] + psi * (at[0, hit] + 1))
        both = np.array([weight @ (each.price[hit] / last), weight @ each.wealth[hit]])
        doomed, doom = doomed + both, doom + float(np.sum(weight))
    liquidated, ruined, called = np.concatenate(firsts, axis=1)
    kept, k = np.concatenate(rows, axis=1), len(bars)
    return PathEvents(
        liquidated=liquidated,
        ruined=ruined,
        called=called,
        move=kept[:3],
        wealth=kept[3 : 3 + k],
        bad_debt=kept[3 + k : 3 + 2 * k],
        ends=kept[3 + 2 * k :],
        shown=np.concatenate(shown),
        doomed=doomed,
        doom=doom,
    )
