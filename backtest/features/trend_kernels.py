"""Kernels for trends, for many parameter values at once; see ``rolling_kernels``."""

from __future__ import annotations

import math

from backtest.base import FloatArray, IntArray

KERNELS = ("momentum_lanes", "strength_lanes")


def momentum_lanes(path: FloatArray, lookbacks: IntArray, out: FloatArray) -> None:
    """Write the change of a path over each lookback to ``out`` (n_bars, k).

    NaN until a lookback is full. ``path`` (n_bars,) holds log prices net of funding; ``lookbacks``
    (k,) is in bars, at least 1.
    """
    n, k = out.shape
    for t in range(n):
        for j in range(k):
            start = t - lookbacks[j]
            out[t, j] = path[t] - path[start] if start >= 0 else math.nan


def strength_lanes(
    path: FloatArray,
    lookbacks: IntArray,
    root: FloatArray,
    width: FloatArray,
    sigma: FloatArray,
) -> None:
    """Replace volatilities by moves, as a fraction of a full move, from -1 to 1.

    ``path`` and ``lookbacks`` as in :func:`momentum_lanes`. ``root`` (n_bars,) is the root of a bar
    in years. ``width`` (k,) is the root of the lookback times the deviations of a full move.
    ``sigma`` (n_bars, k), per sqrt(year), is overwritten; NaN stays, also until a lookback is full.
    """
    n, k = sigma.shape
    for t in range(n):
        for j in range(k):
            start = t - lookbacks[j]
            move = path[t] - path[start] if start >= 0 else math.nan
            full = sigma[t, j] * root[t] * width[j]
            part = move / full if move != 0.0 else full * 0.0
            sigma[t, j] = 1.0 if part >= 1.0 else (-1.0 if part <= -1.0 else part)
