"""The kernels that walk resampled paths, and shares of them, through the rows of history."""

from __future__ import annotations

import math

from backtest.core import FloatArray, IntArray
from backtest.core.elementary import exp, log
from backtest.core.kernels import inlined, kernel

LOG_STEP = 0.02
"""The distance of the log variances at which log means are tabulated: the mean of exp(move) over
rows is 1 to 1e-7, where bars are usual to 1e-9."""
LEAST_DIVISOR = 1e-300
"""Below it a share of paths is none; it keeps a division by 0 out of vector instructions."""


@kernel
def repeat_rows(
    uniforms: FloatArray,
    phases: IntArray,
    row_phases: IntArray,
    order: IntArray,
    counts: IntArray,
    starts: IntArray,
    weights: FloatArray,
    numbers: FloatArray,
    rows: IntArray,
    variance: FloatArray,
) -> None:
    """Write the row that each bar repeats, and its variance, into arrays (paths, bars).

    The arguments are those of :class:`backtest.risk.path_rows.RowTable`: ``phases`` of the bars,
    ``row_phases`` of the rows and -1, and ``weights`` of the variance after each row. ``numbers``
    are the mean length of a block, the first variance, omega and the largest variance.
    """
    block = numbers[0]
    first_variance = numbers[1]
    omega = numbers[2]
    most = numbers[3]
    for path in range(len(rows)):
        row = -1
        ahead = first_variance
        for t in range(len(phases)):
            phase = phases[t]

            # A new block begins at any row of the phase. In a block, the next row follows; where
            # it is of another phase or of none, the block goes on at the first row of its own.
            if t == 0 or uniforms[t, path, 0] * block < 1.0:
                rank = min(int(uniforms[t, path, 1] * counts[phase]), counts[phase] - 1)
                row = order[starts[phase] + rank]
            elif row_phases[row + 1] == phase:
                row += 1
            else:
                row = order[starts[phase]]

            rows[path, t] = row
            variance[path, t] = ahead
            ahead = min(omega + weights[row] * ahead, most)


@kernel
def follow_blocks(
    phases: IntArray,
    moves: FloatArray,
    places: IntArray,
    next_phases: IntArray,
    next_places: IntArray,
    cubics: FloatArray,
    numbers: FloatArray,
    scratch: FloatArray,
    growth: FloatArray,
) -> None:
    """Write the log growth per bar that blocks of rows add to that of single rows.

    It follows the share of the paths that are at each row, weighted by price, and their mean
    variance, as if all of them had it; those that begin a block apart from the others. Each loop
    has one thought, so that it compiles to vector instructions.

    Rows are in their order by phase: ``moves`` are their log closes over the last close,
    ``next_phases`` and ``next_places`` the phase, and the place in the order, of the row after
    each. ``places`` (n_phases + 1,) are the first places of phases, and the end of the last one.
    ``cubics`` (4, phases, nodes) are log means, see ``RowTable.log_means``. ``numbers`` are the
    mean length of a block, the first variance, omega, alpha, beta, the largest variance, and the
    first node. ``scratch`` is space of (6, rows of a phase). ``growth`` has a number for each of
    ``phases``, the first of them the last bar of history.
    """
    block, mean = numbers[0], numbers[1]
    omega, alpha, beta, most = numbers[2], numbers[3], numbers[4], numbers[5]
    share, summed, older = scratch[0], scratch[1], scratch[2]
    log_means, mass, variance = scratch[3], scratch[4], scratch[5]
    for t in range(1, len(phases)):
        phase = phases[t]
        first = places[phase]
        n = places[phase + 1] - first
        share[:n] = 0.0
        summed[:n] = 0.0

        # Those that go on in their block are at the row after theirs. None is before the first bar.
        fresh = 1.0
        if t > 1:
            fresh = 1.0 / block
            last = places[phases[t - 1]]
            for k in range(places[phases[t - 1] + 1] - last):
                rank = 0  # of the first row, where the next one is of another phase
                if next_phases[last + k] == phase:
                    rank = next_places[last + k] - first
                stays = (1.0 - fresh) * mass[k]
                share[rank] += stays
                summed[rank] += stays * variance[k]

        divide(summed, share, n, mean, older)
        for k in range(n):
            log_means[k] = log(older[k])
        for k in range(n):
            log_means[k] = read_log_mean(cubics, phase, log_means[k], numbers[6])

        # Those that begin a block are all of one variance.
        begins = fresh / n
        root = math.sqrt(mean)
        log_mean = read_log_mean(cubics, phase, log(mean), numbers[6])
        for k in range(n):
            move = math.sqrt(older[k]) * moves[first + k]
            stayed = share[k] * exp(move - log_means[k])
            stayed_ahead = min(alpha * (move * move) + omega + beta * older[k], most)

            move = root * moves[first + k]
            begun = begins * exp(move - log_mean)
            begun_ahead = min(alpha * (move * move) + omega + beta * mean, most)

            mass[k] = stayed + begun
            summed[k] = stayed * stayed_ahead + begun * begun_ahead

        divide(summed, mass, n, mean, variance)
        whole = 0.0
        total = 0.0
        for k in range(n):
            whole += mass[k]
            total += summed[k]
        for k in range(n):
            mass[k] /= whole
        growth[t] = log(whole)
        mean = total / whole


@inlined
def divide(above: FloatArray, below: FloatArray, n: int, otherwise: float, out: FloatArray) -> None:
    """Write the first n quotients into ``out``, and ``otherwise`` where the divisor is 0."""
    for k in range(n):
        quotient = above[k] / max(below[k], LEAST_DIVISOR)
        out[k] = quotient if below[k] > 0.0 else otherwise


@inlined
def read_log_mean(cubics: FloatArray, phase: int, log_variance: float, first_node: float) -> float:
    """Return the log of the mean of exp(move) over the rows of a phase, given the log variance."""
    place = log_variance * (1.0 / LOG_STEP) - first_node
    node = min(max(int(place), 0), cubics.shape[2] - 1)
    x = place - node
    curve = cubics[2, phase, node] + x * cubics[3, phase, node]
    return float(cubics[0, phase, node] + x * (cubics[1, phase, node] + x * curve))
