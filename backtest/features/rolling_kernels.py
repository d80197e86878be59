"""Kernels for rolling and exponentially weighted moments, for many parameter values at once.

A window is the difference of two running sums. Each sum carries its rounding error in a second
float, some 32 digits together. So errors do not accumulate, and the variance of a window is exact
to the last digits. Sources: Knuth, The Art of Computer Programming 2, 4.2.2, theorem B (the error
of a sum); Dekker (1971), A floating-point technique for extending the available precision,
Numerische Mathematik 18 (of a product); Ogita, Rump and Oishi (2005), Accurate Sum and Dot Product,
SIAM J. Sci. Comput. 26(6).
"""

from __future__ import annotations

import math

from backtest.base import FloatArray, IntArray

KERNELS = ("add_up", "deviation_lanes", "ewma_lanes", "ewma_paths", "sharpe_lanes")
PLAIN_SECONDS = {
    "add_up": 1e-6, "deviation_lanes": 4e-6, "ewma_lanes": 3e-6, "ewma_paths": 1e-6,
    "sharpe_lanes": 5e-6,
}  # fmt: skip
BLOCK = 64
"""Bars per tile: long enough for fast loops, and short enough for all lanes to fit in a cache."""
FEW, AT_ONCE = 16, 8
"""With fewer columns than ``FEW``, roots are taken of ``AT_ONCE`` bars at a time."""
LEAST_DEVIATION = 1e-12
"""Standard deviation per bar below which the Sharpe ratio is NaN."""
SPLITTER = 134217729.0
"""2^27 + 1: splits a float into two halves of 26 bits."""


def ewma_lanes(
    squares: FloatArray, decay: FloatArray, scale: FloatArray, state: FloatArray, out: FloatArray
) -> None:
    """Write the roots of exponentially weighted means to ``out`` (n_bars, k).

    ``out[t]`` is sqrt(mean * scale[t]), NaN until two numbers count. ``squares`` (n_bars,) is
    averaged; its first value does not count. ``decay`` (k,) is the weight of a bar relative to the
    next one. ``state`` (3, k) is scratch space and must be zero.
    """
    weighted, weight, inverse = state[0], state[1], state[2]
    n, k = out.shape
    flat = out.reshape(n * k)
    moved, rooted = 1, k
    for t in range(1, n):
        if moved > 0:
            moved = advance_weights(decay, weight, inverse)
        if k >= FEW:
            for j in range(k):
                weighted[j] = decay[j] * weighted[j] + squares[t]
                out[t, j] = math.sqrt(weighted[j] * inverse[j] * scale[t])
            continue
        for j in range(k):
            weighted[j] = decay[j] * weighted[j] + squares[t]
            out[t, j] = weighted[j] * inverse[j] * scale[t]
        if t % AT_ONCE == 0 or t == n - 1:
            root_in_place(flat[rooted : (t + 1) * k])
            rooted = (t + 1) * k
    out[:2] = math.nan


def advance_weights(decay: FloatArray, weight: FloatArray, inverse: FloatArray) -> int:
    moved = 0
    for j in range(len(decay)):
        after = decay[j] * weight[j] + 1.0
        moved += after != weight[j]
        weight[j] = after
        inverse[j] = 1.0 / after
    return moved


def ewma_paths(
    squares: FloatArray, decay: float, scale: FloatArray, state: FloatArray, out: FloatArray
) -> None:
    """Write what :func:`ewma_lanes` writes along n paths to ``out`` (n, n_bars), but to its start.

    All paths have the same first bar. ``squares`` (n, n_bars - 1) are those of the others.
    ``state`` (1 + n_bars,) begins with the mean of squares and the sum of weights at that bar, and
    is scratch space for the rest.
    """
    weight, inverse = state[1], state[1:]
    for t in range(1, len(scale)):
        weight = decay * weight + 1.0
        inverse[t] = 1.0 / weight
    for k in range(len(out)):
        weighted = state[0]
        for t in range(1, len(scale)):
            weighted = decay * weighted + squares[k, t - 1]
            out[k, t] = weighted * inverse[t] * scale[t]
        root_in_place(out[k, 1:])


def root_in_place(numbers: FloatArray) -> None:
    for i in range(len(numbers)):
        numbers[i] = math.sqrt(numbers[i])


def add_up(returns: FloatArray, sums: FloatArray) -> None:
    """Write the running sums that :func:`window_moments` subtracts to ``sums`` (5, n_bars).

    The rows are the sum of the returns, its error, the sum of their squares, its error, and the
    number of equal returns up to this bar. The first of the ``returns`` (n_bars,) does not count.
    """
    total, total_low, square, square_low, run = 0.0, 0.0, 0.0, 0.0, 0.0
    sums[:, :1] = 0.0
    for t in range(1, len(returns)):
        total, lost = exact_sum(total, returns[t])
        total_low += lost
        added, added_low = exact_square(returns[t])
        square, lost = exact_sum(square, added)
        square_low += lost + added_low
        run = run + 1.0 if returns[t] == returns[t - 1] else 1.0
        sums[0, t], sums[1, t], sums[2, t] = total, total_low, square
        sums[3, t], sums[4, t] = square_low, run


def deviation_lanes(
    sums: FloatArray, windows: IntArray, root: FloatArray, tiles: FloatArray, out: FloatArray
) -> None:
    """Write rolling standard deviations times ``root`` (n_bars,) to ``out`` (n_bars, k).

    NaN until a window is full. ``sums`` comes from :func:`add_up`. ``windows`` (k,) is in returns,
    from 2 to 2^26. ``tiles`` (2, k, BLOCK) is scratch space.
    """
    n, k = out.shape
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        for j in range(k):
            variance = tiles[1, j]
            window_moments(sums, windows[j], start, stop, tiles[0, j], variance)
            for i in range(stop - start):
                variance[i] = math.sqrt(variance[i]) * root[start + i]
        transpose_tile(tiles[1], out, start, stop)


def sharpe_lanes(
    sums: FloatArray,
    windows: IntArray,
    root: FloatArray,
    tiles: FloatArray,
    ratio: FloatArray,
    error: FloatArray,
) -> None:
    n, k = ratio.shape
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        for j in range(k):
            mean, variance = tiles[0, j], tiles[1, j]
            window_moments(sums, windows[j], start, stop, mean, variance)
            share = 1.0 / windows[j]
            for i in range(stop - start):
                deviation = math.sqrt(variance[i])
                known = deviation if deviation >= LEAST_DEVIATION else math.nan
                sharpe = mean[i] / known
                mean[i] = root[start + i] * sharpe
                variance[i] = root[start + i] * math.sqrt((1.0 + 0.5 * sharpe * sharpe) * share)
        transpose_tile(tiles[0], ratio, start, stop)
        transpose_tile(tiles[1], error, start, stop)


def transpose_tile(tile: FloatArray, out: FloatArray, start: int, stop: int) -> None:
    """Copy a tile (k, BLOCK) into rows ``start`` to ``stop`` of ``out`` (n_bars, k)."""
    for i in range(stop - start):
        for j in range(out.shape[1]):
            out[start + i, j] = tile[j, i]


def window_moments(
    sums: FloatArray, window: int, start: int, stop: int, mean: FloatArray, variance: FloatArray
) -> None:
    first = min(max(start, window), stop)
    for i in range(first - start):
        mean[i], variance[i] = math.nan, math.nan
    if first == stop:
        return
    mean, variance = mean[first - start :], variance[first - start :]
    total, total_low, square, square_low = sums[0], sums[1], sums[2], sums[3]
    total_to, total_from = total[first:stop], total[first - window : stop - window]
    low_to, low_from = total_low[first:stop], total_low[first - window : stop - window]
    square_to, square_from = square[first:stop], square[first - window : stop - window]
    rest_to, rest_from = square_low[first:stop], square_low[first - window : stop - window]
    run = sums[4][first:stop]
    n = float(window)
    share, factor = 1.0 / n, 1.0 / (n * (n - 1.0))
    for i in range(stop - first):
        s, s_low = exact_sum(total_to[i], -total_from[i])
        s_low += low_to[i] - low_from[i]
        q, q_low = exact_sum(square_to[i], -square_from[i])
        q_low += rest_to[i] - rest_from[i]
        spread = scaled_variance(n, s, s_low, q, q_low)
        mean[i] = (s + s_low) * share
        variance[i] = spread * factor if spread > 0.0 and run[i] < n else 0.0


def scaled_variance(n: float, s: float, s_low: float, q: float, q_low: float) -> float:
    square, square_low = exact_square(s)
    high, low = split_bits(q)
    return (n * high - square) + n * low + (n * q_low - square_low - s_low * (2.0 * s + s_low))


def exact_sum(a: float, b: float) -> tuple[float, float]:
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def exact_square(a: float) -> tuple[float, float]:
    high, low = split_bits(a)
    square = a * a
    return square, ((high * high - square) + 2.0 * high * low) + low * low


def split_bits(a: float) -> tuple[float, float]:
    scaled = SPLITTER * a
    high = scaled - (scaled - a)
    return high, a - high
