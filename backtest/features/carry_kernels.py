"""Kernels for funding, for many parameter values at once; see ``rolling_kernels``."""

from __future__ import annotations

from backtest.base import FloatArray, IntArray

KERNELS = ("average_lanes", "forecast_lanes")


def forecast_lanes(
    rates: FloatArray,
    years: FloatArray,
    bars: IntArray,
    decay: FloatArray,
    state: FloatArray,
    out: FloatArray,
) -> None:
    """Write weighted sums of funding rates over weighted sums of their periods to ``out``.

    ``rates`` and ``years`` (n_events,) hold the rate of each settlement and the time since the one
    before. ``bars`` (n_events,) is the bar at whose close each is known, in order. ``decay`` (k,)
    is the weight of a bar relative to the next one. ``state`` (3, k) is scratch space: zeros,
    zeros, and NaN. ``out`` (n_bars, k) is NaN until a settlement counts.
    """
    paid, time, known = state[0], state[1], state[2]
    n, k = out.shape
    event = 0
    for t in range(n):
        for j in range(k):
            paid[j] *= decay[j]
            time[j] *= decay[j]
        while event < len(bars) and bars[event] == t:
            for j in range(k):
                paid[j] += rates[event]
                time[j] += years[event]
                known[j] = paid[j] / time[j]
            event += 1
        for j in range(k):
            out[t, j] = known[j]


def average_lanes(values: FloatArray, group: IntArray, is_linear: bool, out: FloatArray) -> None:
    """Write the mean of the values of each bar's group so far to ``out`` (n_bars,).

    ``group`` (n_bars,) is the number of the group of each bar, in order. If ``is_linear``, the i-th
    value of a group has weight i, otherwise all weights are equal. A NaN lasts until its group
    ends.
    """
    total, weights, count = 0.0, 0.0, 0.0
    for t in range(len(values)):
        if t == 0 or group[t] != group[t - 1]:
            total, weights, count = 0.0, 0.0, 0.0
        count += 1.0
        weight = count if is_linear else 1.0
        total += weight * values[t]
        weights += weight
        out[t] = total / weights
