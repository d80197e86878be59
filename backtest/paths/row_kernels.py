"""Kernel that lays whole rows of history end to end, as resampled paths."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from backtest.paths.draw_kernels import draw_uniform, grow

if TYPE_CHECKING:
    from backtest.base.units import FloatArray, IntArray

KERNELS = ("choose_rows", "lay_rows")


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


def lay_rows(
    prices: FloatArray,
    marks: FloatArray,
    volume: FloatArray,
    rows: IntArray,
    width: int,
    moves: FloatArray,
    ratios: FloatArray,
    shares: FloatArray,
    terms: FloatArray,
) -> None:
    """Write the bars that repeat rows of history.

    ``moves`` (5, n_rows) are the logs of open, high, low and close over the last close, and the
    volatility of the row by which they are divided; ``ratios`` (4, n_rows) are mark over last, and
    ``shares`` (n_rows,) volume over its mean. ``terms`` are the mean volume, 1 if moves are scaled,
    and, per bar, mean log return, variance now, omega, alpha, gamma and beta.
    """
    is_scaled, mean = terms[1] != 0.0, terms[2]
    for p in range(len(prices[0]) // width):
        last, variance = prices[3, p * width], terms[3]
        for t in range(1, width):
            i = p * width + t
            row = rows[i]
            scale = math.sqrt(variance) / moves[4, row] if is_scaled else 1.0
            for k in range(4):
                prices[k, i] = last * grow(moves[k, row] * scale)
                marks[k, i] = prices[k, i] * ratios[k, row]
            marks[1, i] = max(marks[1, i], marks[0, i], marks[3, i])
            marks[2, i] = min(marks[2, i], marks[0, i], marks[3, i])
            volume[i] = terms[0] * shares[row]
            last = prices[3, i]
            surprise = moves[3, row] * scale - mean
            weight = terms[5] + (terms[6] if surprise < 0.0 else 0.0)
            variance = terms[4] + weight * surprise * surprise + terms[7] * variance
