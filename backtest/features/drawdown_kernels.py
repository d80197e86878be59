"""Kernel for running peaks, for many windows at once; see ``rolling_kernels``."""

from __future__ import annotations

import math

from backtest.base import FloatArray, IntArray

KERNELS = ("peak_lanes",)


def peak_lanes(
    values: FloatArray, windows: IntArray, queue: IntArray, depth: FloatArray, age: FloatArray
) -> None:
    """Write the fraction below the highest of the last values, and the bars since it.

    ``depth`` and ``age`` (n_bars, k) are NaN until a window is full. ``values`` (n_bars,) are
    positive. ``windows`` (k,) is in bars, at least 1; 0 means all bars. ``queue`` (n_bars,) is
    scratch space: the bars of a window that are higher than all after them, in order.

    Each bar enters and leaves the queue once. Source: Lemire (2006), Streaming Maximum-Minimum
    Filter Using No More than Three Comparisons per Element, Nordic J. Computing 13(4).
    """
    n, k = depth.shape
    for j in range(k):
        head, tail = 0, 0
        for t in range(n):
            while tail > head and values[queue[tail - 1]] <= values[t]:
                tail -= 1
            queue[tail] = t
            tail += 1
            if windows[j] > 0 and queue[head] <= t - windows[j]:
                head += 1
            is_full = t >= windows[j] - 1
            depth[t, j] = 1.0 - values[t] / values[queue[head]] if is_full else math.nan
            age[t, j] = t - queue[head] if is_full else math.nan
