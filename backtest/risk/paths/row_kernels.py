"""Kernel that lays whole rows of history end to end, as resampled paths."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from backtest.risk.paths.draw_kernels import NEAR, draw_uniform, grow, grow_near

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray

KERNELS = ("choose_rows", "expect_growth", "lay_rows")
PATHS = 8
"""Paths that are laid side by side, as a vector."""
LAST, VARIANCE, MOVES, LOGS, FACTORS = 0, 1, 2, 7, 11
"""Rows of the scratch space: the last close, the variance, five numbers of a row of history, the
log moves of open, high, low and close, and their exponentials."""
SCRATCH = 15 * PATHS


def choose_rows(
    rows: IntArray,
    keys: IntArray,
    since: IntArray,
    width: int,
    phases: IntArray,
    starts: IntArray,
    counts: IntArray,
    own: IntArray,
    first: IntArray,
    terms: FloatArray,
) -> None:
    """Write which row of history each bar repeats, in blocks.

    ``phases`` (width,) are those of the bars of a path. ``starts[f]`` lists the ``counts[f]`` rows
    of phase f, ``own`` (n_rows,) the phase of each row. ``terms`` are the mean length of a block
    and 1 if lengths vary, geometric, as in the stationary bootstrap, or 0 if all are the same. A
    block that runs over the end of history goes on at ``first`` (n_phases,), the first row of its
    phase, so that all rows are equally likely.
    """
    length, varies = terms[0], terms[1] != 0.0
    n_rows = len(own)
    for p in range(len(keys)):
        part, row, left = 0, -1, 0
        for t in range(1, width):
            while part + 1 < since.shape[1] and since[p, part + 1] <= t:
                part += 1
            key, phase = keys[p, part], phases[t]
            row += 1
            is_new = draw_uniform(key, t, 0) * length < 1.0 if varies else left == 0
            if t == 1 or is_new:
                chosen = int(draw_uniform(key, t, 1) * counts[phase])
                row, left = starts[phase, min(chosen, counts[phase] - 1)], int(length)
            elif row >= n_rows or own[row] != phase:
                row = first[phase]
            left -= 1
            rows[p * width + t] = row


def sum_cumulants(size: float, cumulants: tuple[float, float, float, float]) -> float:
    """Return the log of the mean of exp(size x), x the log move of a row drawn by itself."""
    first, second, third, fourth = cumulants
    rest = second / 2.0 + size * (third / 6.0 + size * (fourth / 24.0))
    return size * (first + size * rest)


def sum_ended(
    mass: FloatArray, variances: FloatArray, rows: IntArray, own: IntArray, phase: int
) -> tuple[float, float]:
    """Return the mass of the rows that no row of a phase follows, and the same times variance."""
    ended, weighted = 0.0, 0.0
    for row in rows:
        if row + 1 >= len(own) or own[row + 1] != phase:
            ended += mass[row]
            weighted += mass[row] * variances[row]
    return ended, weighted


def expect_growth(
    growth: FloatArray,
    mass: FloatArray,
    variances: FloatArray,
    moves: FloatArray,
    phases: IntArray,
    starts: IntArray,
    counts: IntArray,
    own: IntArray,
    first: IntArray,
    kind: FloatArray,
    terms: FloatArray,
) -> None:
    """Write the log growth per bar, (width,), that blocks of rows add to that of single rows.

    Rows of a block follow each other, and the mean of a product is not the product of the means.
    ``mass`` (2, n_rows) receives the share of the paths that are at a row, weighted by price, and
    ``variances`` (2, n_rows) their mean variance, as if all of them had it. ``moves`` (n_rows,) are
    log moves at a variance of 1. ``kind`` are the terms of :func:`choose_rows`, ``terms`` those of
    :func:`lay_rows`.
    """
    mean, left = terms[3], 0
    cumulants = (terms[8], terms[9], terms[10], terms[11])
    for t in range(1, len(phases)):
        now, before, phase, last_phase = t % 2, 1 - t % 2, phases[t], phases[t - 1]
        fresh = 1.0 / kind[0] if kind[1] != 0.0 else 0.0
        if t == 1 or (kind[1] == 0.0 and left == 0):
            fresh, left = 1.0, int(kind[0])
        left -= 1
        ended, ended_variance = 0.0, 0.0
        if fresh < 1.0:
            rows = starts[last_phase, : counts[last_phase]]
            ended, ended_variance = sum_ended(mass[before], variances[before], rows, own, phase)
        base, total, weighted = fresh / counts[phase], 0.0, 0.0
        for j in range(counts[phase]):
            row = starts[phase, j]
            share, variance = base, base * mean
            if fresh < 1.0 and row > 0 and own[row - 1] == last_phase:
                share += (1.0 - fresh) * mass[before, row - 1]
                variance += (1.0 - fresh) * mass[before, row - 1] * variances[before, row - 1]
            if row == first[phase]:
                share += (1.0 - fresh) * ended
                variance += (1.0 - fresh) * ended_variance
            variance = variance / share if share > 0.0 else mean
            size = math.sqrt(variance) if terms[1] != 0.0 else 1.0
            x = size * moves[row]
            weight = terms[5] + (terms[6] if x < 0.0 else 0.0)
            mass[now, row] = share * grow(x - sum_cumulants(size, cumulants))
            variances[now, row] = terms[4] + weight * x * x + terms[7] * variance
            total += mass[now, row]
            weighted += mass[now, row] * variances[now, row]
        growth[t] = math.log(total)
        mean = weighted / total
        for j in range(counts[phase]):
            mass[now, starts[phase, j]] /= total


def lay_rows(
    prices: FloatArray,
    marks: FloatArray,
    volume: FloatArray,
    rows: IntArray,
    width: int,
    history: FloatArray,
    growth: FloatArray,
    terms: FloatArray,
    lanes: FloatArray,
) -> None:
    """Write the bars that repeat rows of history, of some paths side by side.

    ``history`` (n_rows, 10) has the logs of open, high, low and close over the last close, the
    volatility of the row by which they are divided, mark over last of the four, and volume over its
    mean. ``growth`` (width,) is that of :func:`expect_growth`, which is taken out of the bars.
    ``terms`` are the mean volume, 1 if moves are scaled, and, per bar, growth of the expected
    price, variance now, omega, alpha, gamma, beta, and the first four cumulants of the log move of
    a row at a variance of 1. ``lanes`` (SCRATCH,) is scratch space.

    The last path fills the lanes of those that are missing, and is written again.
    """
    n_paths = len(prices[0]) // width
    for first in range(0, n_paths, PATHS):
        for j in range(PATHS):
            lanes[LAST * PATHS + j] = prices[3, min(first + j, n_paths - 1) * width]
            lanes[VARIANCE * PATHS + j] = terms[3]
        for t in range(1, width):
            for j in range(PATHS):
                row = history[np.uint64(rows[min(first + j, n_paths - 1) * width + t])]
                for k in range(5):
                    lanes[(MOVES + k) * PATHS + j] = row[k]
            if move_lanes(lanes, terms[2] - growth[t], terms):
                grow_lanes(lanes)
            for j in range(PATHS):
                bar = np.uint64(min(first + j, n_paths - 1) * width + t)
                row = history[np.uint64(rows[bar])]
                write_bar(prices, marks, bar, lanes, j, row)
                volume[bar] = terms[0] * row[9]


def move_lanes(lanes: FloatArray, drift: float, terms: FloatArray) -> bool:
    """Write the log moves of a bar, and their exponentials; return whether one is not near zero.

    The loop is one of vectors: it calls nothing and does not branch.
    """
    is_scaled, is_far = terms[1] != 0.0, False
    omega, alpha, gamma, beta = terms[4], terms[5], terms[6], terms[7]
    cumulants = (terms[8], terms[9], terms[10], terms[11])
    for j in range(PATHS):
        variance = lanes[VARIANCE * PATHS + j]
        size = math.sqrt(variance) if is_scaled else 1.0
        scale = size / lanes[(MOVES + 4) * PATHS + j]
        shift = drift - sum_cumulants(size, cumulants)
        for k in range(4):
            x = lanes[(MOVES + k) * PATHS + j] * scale + shift
            lanes[(LOGS + k) * PATHS + j] = x
            lanes[(FACTORS + k) * PATHS + j] = grow_near(x)
            is_far |= abs(x) > NEAR
        surprise = lanes[(MOVES + 3) * PATHS + j] * scale
        weight = alpha + (gamma if surprise < 0.0 else 0.0)
        lanes[VARIANCE * PATHS + j] = omega + weight * surprise * surprise + beta * variance
    return is_far


def grow_lanes(lanes: FloatArray) -> None:
    """Write the exponentials of the log moves of a bar, also of those far from zero."""
    for i in range(FACTORS * PATHS, (FACTORS + 4) * PATHS):
        lanes[i] = grow(lanes[i - 4 * PATHS])


def write_bar(
    prices: FloatArray, marks: FloatArray, i: np.uint64, lanes: FloatArray, j: int, row: FloatArray
) -> None:
    """Write the prices and marks of bar i, of path j of those side by side."""
    last = lanes[LAST * PATHS + j]
    open_ = last * lanes[FACTORS * PATHS + j]
    high = last * lanes[(FACTORS + 1) * PATHS + j]
    low = last * lanes[(FACTORS + 2) * PATHS + j]
    close = last * lanes[(FACTORS + 3) * PATHS + j]
    mark_open, mark_close = open_ * row[5], close * row[8]
    mark_high = max(high * row[6], mark_open, mark_close)
    mark_low = min(low * row[7], mark_open, mark_close)
    prices[0, i], prices[1, i], prices[2, i], prices[3, i] = open_, high, low, close
    marks[0, i], marks[1, i], marks[2, i], marks[3, i] = mark_open, mark_high, mark_low, mark_close
    lanes[LAST * PATHS + j] = close
