"""The arithmetic of peaks, for many windows side by side; see the other kernels."""

from __future__ import annotations

import math

from backtest.base.units import FloatArray, IntArray

KERNELS = ("peak_lanes",)
"""What is called from outside."""


def peak_lanes(
    values: FloatArray, windows: IntArray, queue: IntArray, depth: FloatArray, age: FloatArray
) -> None:
    """Fill in how far values are below the highest of the last, and how long ago that was.

    Parameters
    ----------
    values : array of shape (n_bars,)
        Positive.
    windows : array of shape (k,)
        Bars in a window, at least 1; 0 means all.
    queue : array of shape (n_bars,)
        Room to work in: the bars of a window that are higher than all after them, in order.
    depth, age : array of shape (n_bars, k)
        Where the fraction below the peak, and the bars since it, go; NaN until a window is full.

    Notes
    -----
    Each bar enters the queue once and leaves it once. Source: Lemire (2006), Streaming Maximum-
    Minimum Filter Using No More than Three Comparisons per Element, Nordic J. Computing 13(4).
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
