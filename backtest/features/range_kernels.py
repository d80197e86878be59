"""Kernels for estimators that use open, high, low, and close, for many parameter values at once."""

from __future__ import annotations

import math

from backtest.base import FloatArray, IntArray
from backtest.features.rolling_kernels import exact_sum

KERNELS = ("add_up_all", "mean_lanes", "skipping_ewma_lanes", "yang_zhang_lanes")
PLAIN_SECONDS = {
    "add_up_all": 1e-6,
    "mean_lanes": 4e-6,
    "skipping_ewma_lanes": 4e-6,
    "yang_zhang_lanes": 2e-5,
}
ALPHA = 1.34
"""E[V_RS^2] / sigma^4 of a bar, the value that Yang and Zhang (2000) recommend."""


def add_up_all(values: FloatArray, sums: FloatArray) -> None:
    """Write running sums to ``sums`` (2, n_bars + 1): the sum before each bar, and its error."""
    total, low = 0.0, 0.0
    sums[:, :1] = 0.0
    for t in range(len(values)):
        total, lost = exact_sum(total, values[t])
        low += lost
        sums[0, t + 1], sums[1, t + 1] = total, low


def mean_lanes(sums: FloatArray, windows: IntArray, scale: FloatArray, out: FloatArray) -> None:
    """Write the roots of rolling means times ``scale`` (n_bars,) to ``out`` (n_bars, k).

    NaN until a window is full. ``sums`` comes from :func:`add_up_all`; ``windows`` (k,) is in bars.
    """
    n, k = out.shape
    for t in range(n):
        for j in range(k):
            first = t + 1 - windows[j]
            if first < 0:
                out[t, j] = math.nan
                continue
            total, lost = exact_sum(sums[0, t + 1], -sums[0, first])
            total += lost + (sums[1, t + 1] - sums[1, first])
            out[t, j] = math.sqrt(max(total, 0.0) / windows[j] * scale[t])


def skipping_ewma_lanes(
    values: FloatArray, decay: FloatArray, scale: FloatArray, state: FloatArray, out: FloatArray
) -> None:
    """Write the roots of weighted means times ``scale`` (n_bars,), without the NaN values.

    ``out`` (n_bars, k) is NaN until two of the ``values`` (n_bars,) are known. ``decay`` (k,) is
    the weight of a bar relative to the next one. ``state`` (2, k) is scratch space and must be
    zero.
    """
    weighted, weight = state[0], state[1]
    n, k = out.shape
    known = 0
    for t in range(n):
        is_known = values[t] == values[t]
        known += is_known
        for j in range(k):
            if is_known:
                weighted[j] = decay[j] * weighted[j] + values[t]
                weight[j] = decay[j] * weight[j] + 1.0
            out[t, j] = math.sqrt(weighted[j] / weight[j] * scale[t]) if known > 1 else math.nan


def yang_zhang_lanes(
    bars: FloatArray, decay: FloatArray, scale: FloatArray, state: FloatArray, out: FloatArray
) -> None:
    """Write exponentially weighted volatilities of Yang and Zhang to ``out`` (n_bars, k).

    ``bars`` (3, n_bars) holds the log returns from the previous close to the open, from open to
    close, and the variance of Rogers and Satchell; the first bar does not count. ``decay`` (k,) is
    the weight of a bar relative to the next one, ``scale`` (n_bars,) a factor of the variance.
    ``state`` (8, k) is scratch space and must be zero. NaN until two bars count.

    Weighted variances about a moving mean follow West (1979), Updating Mean and Variance Estimates,
    Communications of the ACM 22(9): nothing cancels, and no variance is negative. With W = sum w
    and P = W^2 - sum w^2 the variance is the sum of squares times W / P. As the half-life goes to
    0, both P and the sum of squares vanish. So the recursion is that of their ratio, which has a
    limit: the variance of the last two bars.
    """
    weight, square, pairs, inside = state[0], state[1], state[2], state[3]
    n_bars, k = out.shape
    out[:2] = math.nan
    for t in range(1, n_bars):
        for j in range(k):
            before = weight[j]
            rest = pairs[j] / before if before > 0.0 else 0.0
            weight[j] = decay[j] * before + 1.0
            square[j] = decay[j] * decay[j] * square[j] + 1.0
            grown = decay[j] * pairs[j] + 2.0 * before  # the pairs over the decay
            pairs[j] = decay[j] * grown
            for i in range(2):
                mean, variance = state[4 + i], state[6 + i]
                off = bars[i, t] - mean[j]
                mean[j] += off / weight[j]
                if before > 0.0:
                    spread = variance[j] * rest + before / weight[j] * off * off
                    variance[j] = spread * weight[j] / grown
            inside[j] = decay[j] * inside[j] + bars[2, t]
            if t > 1:
                out[t, j] = math.sqrt(scale[t] * combine_variances(state, j))


def combine_variances(state: FloatArray, j: int) -> float:
    """Return the variance of lane j: V_o + k V_c + (1 - k) V_rs.

    k = (alpha - 1) / (alpha + (n + 1) / (n - 1)) with n = W^2 / sum w^2, so n - 1 = P / sum w^2.
    """
    weight, square, pairs = state[0, j], state[1, j], state[2, j]
    k = (ALPHA - 1.0) * pairs / (ALPHA * pairs + (weight * weight + square))
    variance: float = state[6, j] + k * state[7, j] + (1.0 - k) * state[3, j] / weight
    return variance
