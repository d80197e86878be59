"""What happened on each path, reduced from its bars so that memory does not grow with them."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from backtest.base import FloatArray, IntArray

SHOWN = 2000
"""Paths whose equity is kept bar by bar, for the fan."""
OWN_BLOCK = 16
"""Paths drawn at once where each is prepared by itself."""
WARMUP = 2000
"""Bars of history in front of a path, for the columns of a policy."""


class PathLives(NamedTuple):
    """Outcomes of an account on some paths, for the bars after history.

    The fields of :data:`paths_loop.LIVED` have shape (n_paths, n_bars): wealth at
    closes, counts of liquidations and margin calls, bad debt, whether the account is ruined, and
    its nearness to a liquidation (0 unless asked for): the margin ratio, the largest of several.
    ``first`` is the number of the first path. ``closes`` (n, n_paths, n_bars) are last prices by
    instrument.
    """

    first: int
    wealth: FloatArray
    liquidations: FloatArray
    bad_debt: FloatArray
    calls: FloatArray
    is_ruined: FloatArray
    ratio: FloatArray
    closes: FloatArray


class Push(NamedTuple):
    """A direction of the log prices, (n,), and the strength by which a model is tilted along it.

    Paths of the tilted model have the weights ``exp(-force move + psi bars)``, ``move`` being the
    sum of log moves with the weights of ``direction``.
    """

    direction: FloatArray
    force: float = 0.0
    psi: float = 0.0

    def measure(self, closes: FloatArray, last: FloatArray) -> FloatArray:
        """Return the moves to some closes, of shape (n, ...), from the ``last`` of history."""
        weighed = zip(self.direction, closes, last, strict=True)
        moves = (weight * np.log(each / start) for weight, each, start in weighed)
        return np.asarray(functools.reduce(np.add, moves))


class PathEvents(NamedTuple):
    """Events of paths, and what is left at some bars.

    ``liquidated``, ``ruined`` and ``called`` (n_paths,) are the bars of the first such event, the
    number of bars where there is none. ``move`` (3, n_paths) is ln(close / last close of history)
    at the close of those bars (the last close where there is none), of several instruments the sum
    with their weights in the direction of a tilt. ``wealth``, ``bad_debt`` and
    ``ends`` (n_horizons, n_paths) are wealth, debt and move at the end of each horizon. ``shown``
    (up to 2000, n_bars) is the wealth of the first paths. ``doomed`` (2, n_bars) sums close
    (relative) and wealth over the paths that are liquidated, by their weights, and ``doom`` is the
    sum of these. ``push`` is the direction of moves, and the tilt of the model that drew the paths.
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
    push: Push


def find_first(values: FloatArray) -> IntArray:
    is_set = values != 0.0
    return np.asarray(np.where(is_set.any(axis=1), is_set.argmax(axis=1), values.shape[1]))


def reduce_lives(
    lives: Iterable[PathLives], bars: IntArray, last: FloatArray, push: Push
) -> PathEvents:
    firsts: list[IntArray] = []
    rows: list[FloatArray] = []
    shown: list[FloatArray] = []
    doomed, doom = np.zeros((2, 1)), 0.0
    for each in lives:
        n = each.wealth.shape[1]
        found = np.array([find_first(x) for x in (each.liquidations, each.is_ruined, each.calls)])
        at = np.minimum(found, n - 1)
        reached = np.take_along_axis(each.closes, at.T[None], axis=2)
        move = push.measure(reached, last).T
        debt = np.cumsum(each.bad_debt, axis=1)
        firsts.append(found)
        ends = push.measure(each.closes[:, :, bars], last).T
        rows.append(np.concatenate([move, each.wealth[:, bars].T, debt[:, bars].T, ends]))
        if each.first < SHOWN:
            shown.append(each.wealth[: SHOWN - each.first])
        hit = found[0] < n
        weight = np.exp(-push.force * move[0, hit] + push.psi * (at[0, hit] + 1))
        price = sum(
            closes[hit] / start / len(last) for closes, start in zip(each.closes, last, strict=True)
        )
        both = np.array([weight @ price, weight @ each.wealth[hit]])
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
        push=push,
    )
