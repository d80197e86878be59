"""The kernel that walks resampled paths through the rows of history."""

from __future__ import annotations

from backtest.core import FloatArray, IntArray
from backtest.core.kernels import kernel


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

    The arguments are those of :class:`backtest.risk.paths.RowTable`: ``phases`` of the bars,
    ``row_phases`` of the rows and -1, and ``weights`` of the variance after each row. ``numbers``
    are the mean length of a block, the first variance, omega and the largest variance.
    """
    block, now, omega, most = numbers[0], numbers[1], numbers[2], numbers[3]
    for path in range(len(rows)):
        row, ahead = -1, now
        for t in range(len(phases)):
            phase = phases[t]
            if t == 0 or uniforms[t, path, 0] * block < 1.0:
                rank = min(int(uniforms[t, path, 1] * counts[phase]), counts[phase] - 1)
                row = order[starts[phase] + rank]
            elif row_phases[row + 1] == phase:
                row += 1
            else:  # of the next phase, there is none after the last row
                row = order[starts[phase]]
            rows[path, t], variance[path, t] = row, ahead
            ahead = min(omega + weights[row] * ahead, most)
