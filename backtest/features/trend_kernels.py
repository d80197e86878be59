"""The arithmetic of trends, for many parameter values side by side; see the other kernels."""

from __future__ import annotations

import math

from backtest.base.units import FloatArray, IntArray

KERNELS = ("momentum_lanes", "strength_lanes")
"""What is called from outside."""


def momentum_lanes(path: FloatArray, lookbacks: IntArray, out: FloatArray) -> None:
    """Fill in how far a path has come since so many bars ago.

    Parameters
    ----------
    path : array of shape (n_bars,)
        Log prices, net of what holding them has cost.
    lookbacks : array of shape (k,)
        Bars, at least 1.
    out : array of shape (n_bars, k)
        Where the moves go; NaN until a lookback is full.
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
    """Put moves in the place of the volatility, as parts of a full one of it, from -1 to 1.

    Parameters
    ----------
    path, lookbacks : arrays
        As in :func:`momentum_lanes`.
    root : array of shape (n_bars,)
        Root of the part of a year a bar takes.
    width : array of shape (k,)
        Root of the lookback, times the deviations of a full move.
    sigma : array of shape (n_bars, k)
        Volatility per sqrt(year); overwritten. NaN stays, and until a lookback is full.
    """
    n, k = sigma.shape
    for t in range(n):
        for j in range(k):
            start = t - lookbacks[j]
            move = path[t] - path[start] if start >= 0 else math.nan
            full = sigma[t, j] * root[t] * width[j]
            part = move / full if move != 0.0 else full * 0.0
            sigma[t, j] = 1.0 if part >= 1.0 else (-1.0 if part <= -1.0 else part)
