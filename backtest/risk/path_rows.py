"""Kernels that lay whole rows of history end to end, as resampled paths."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray

KERNELS = ("choose_rows", "expect_growth", "lay_rows")


def grow(x: float) -> float:
    """Return exp(x); by its series, to 1e-16, for the small moves of a bar, which is faster."""
    if abs(x) > 0.0625:
        return math.exp(x)
    even = x * x
    low = (1.0 + x) + even * (0.5 + x * (1.0 / 6.0))
    middle = (1.0 / 24.0 + x * (1.0 / 120.0)) + even * (1.0 / 720.0 + x * (1.0 / 5040.0))
    high = 1.0 / 40320.0 + x * (1.0 / 362880.0)
    fourth = even * even
    return low + fourth * (middle + fourth * high)


def choose_rows(
    begins: FloatArray,
    chosen: FloatArray,
    length: float,
    phases: IntArray,
    starts: IntArray,
    counts: IntArray,
    own: IntArray,
    first: IntArray,
    rows: IntArray,
) -> None:
    """Write which row of history each bar repeats, in blocks, to ``rows`` (n_paths, width).

    ``begins`` and ``chosen`` (width - 1, n_paths) are uniform: whether a block begins, and where.
    ``length`` is the mean of that of a block, which is geometric, as in the stationary bootstrap.
    ``phases`` (width,) are those of the bars of a path. ``starts[f]`` lists the ``counts[f]`` rows
    of phase f, ``own`` (n_rows,) the phase of each row. A block that runs over the end of history
    goes on at ``first`` (n_phases,), the first row of its phase, so that all rows are equally
    likely.
    """
    for p in range(rows.shape[0]):
        row = -1
        for t in range(1, rows.shape[1]):
            phase = phases[t]
            row += 1
            if t == 1 or begins[t - 1, p] * length < 1.0:
                row = starts[phase, min(int(chosen[t - 1, p] * counts[phase]), counts[phase] - 1)]
            elif row >= len(own) or own[row] != phase:
                row = first[phase]
            rows[p, t] = row


def sum_cumulants(size: float, terms: FloatArray) -> float:
    """Return the log of the mean of exp(size x), x the log move of a row drawn by itself."""
    rest: float = terms[8] / 2.0 + size * (terms[9] / 6.0 + size * (terms[10] / 24.0))
    growth: float = size * (terms[7] + size * rest)
    return growth


def sum_ended(
    mass: FloatArray, variances: FloatArray, rows: IntArray, own: IntArray, phase: int
) -> tuple[float, float]:
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
    length: float,
    terms: FloatArray,
) -> None:
    """Write the log growth per bar, (width,), that blocks of rows add to that of single rows.

    Rows of a block follow each other, and the mean of a product is not the product of the means.
    ``mass`` (2, n_rows) receives the share of the paths that are at a row, weighted by price, and
    ``variances`` (2, n_rows) their mean variance, as if all of them had it. ``moves`` (n_rows,) are
    log moves at a variance of 1. ``length`` is that of :func:`choose_rows`, ``terms`` are those of
    :func:`lay_rows`.
    """
    mean = terms[3]
    for t in range(1, len(phases)):
        now, before, phase, last_phase = t % 2, 1 - t % 2, phases[t], phases[t - 1]
        fresh = 1.0 / length if t > 1 else 1.0
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
            mass[now, row] = share * grow(x - sum_cumulants(size, terms))
            variances[now, row] = terms[4] + terms[5] * x * x + terms[6] * variance
            total += mass[now, row]
            weighted += mass[now, row] * variances[now, row]
        growth[t] = math.log(total)
        mean = weighted / total
        for j in range(counts[phase]):
            mass[now, starts[phase, j]] /= total


def lay_rows(
    rows: IntArray,
    moves: FloatArray,
    ratios: FloatArray,
    shares: FloatArray,
    growth: FloatArray,
    terms: FloatArray,
    prices: FloatArray,
    marks: FloatArray,
    volume: FloatArray,
) -> None:
    """Write the bars that repeat ``rows`` (n_paths, width) of history.

    ``moves`` (5, n_rows) are the logs of open, high, low and close over the last close, and the
    volatility of the row by which they are divided; ``ratios`` (4, n_rows) are mark over last, and
    ``shares`` (n_rows,) volume over its mean. ``growth`` (width,) is taken out of the bars.
    ``terms`` are the mean volume, 1 if moves are scaled, and, per bar, growth of the expected
    price, variance now, omega, alpha, beta, and the first four cumulants of the log move of
    a row at a variance of 1.
    """
    is_scaled = terms[1] != 0.0
    for p in range(rows.shape[0]):
        last, variance = prices[3, p, 0], terms[3]
        for t in range(1, rows.shape[1]):
            row = rows[p, t]
            size = math.sqrt(variance) if is_scaled else 1.0
            scale = size / moves[4, row]
            shift = terms[2] - growth[t] - sum_cumulants(size, terms)
            for k in range(4):
                prices[k, p, t] = last * grow(moves[k, row] * scale + shift)
                marks[k, p, t] = prices[k, p, t] * ratios[k, row]
            marks[1, p, t] = max(marks[1, p, t], marks[0, p, t], marks[3, p, t])
            marks[2, p, t] = min(marks[2, p, t], marks[0, p, t], marks[3, p, t])
            volume[p, t] = terms[0] * shares[row]
            last = prices[3, p, t]
            surprise = moves[3, row] * scale
            variance = terms[4] + terms[5] * surprise * surprise + terms[6] * variance
