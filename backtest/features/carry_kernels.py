"""The arithmetic of funding, for many parameter values side by side; see the other kernels."""

from __future__ import annotations

from backtest.base.units import FloatArray, IntArray

KERNELS = ("average_lanes", "forecast_lanes")
"""What is called from outside."""


def forecast_lanes(
    rates: FloatArray,
    years: FloatArray,
    bars: IntArray,
    decay: FloatArray,
    state: FloatArray,
    out: FloatArray,
) -> None:
    """Fill in weighted sums of funding rates over weighted sums of the time they were paid for.

    Parameters
    ----------
    rates, years : array of shape (n_events,)
        What each settlement took, and the time since the one before.
    bars : array of shape (n_events,)
        The bar at whose close each is known, in order.
    decay : array of shape (k,)
        Weight of a bar over that of the next.
    state : array of shape (3, k)
        Zeros, zeros and NaN; used up.
    out : array of shape (n_bars, k)
        Where the forecasts go; NaN until a settlement counts.
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
    """Fill in the mean of the values of each bar's group so far.

    Parameters
    ----------
    values : array of shape (n_bars,)
        What is averaged.
    group : array of shape (n_bars,)
        To which group a bar belongs; groups follow each other.
    is_linear : bool
        Whether the i-th value of a group weighs i, rather than all the same.
    out : array of shape (n_bars,)
        Where the means go; NaN from a NaN to the end of its group.
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
