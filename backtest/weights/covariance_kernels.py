"""Kernels of allocation: exponentially weighted covariances, and weights of equal risk."""

from __future__ import annotations

import math

from backtest.base import FloatArray, IntArray

KERNELS = ("ewma_covariances", "equal_risk_lanes")
SWEEPS = 500
TOLERANCE = 1e-14


def ewma_covariances(
    returns: FloatArray,
    first: int,
    decay: float,
    at: IntArray,
    sums: FloatArray,
    out: FloatArray,
) -> None:
    """Write the weighted means of products of returns up to each bar ``at`` to ``out``.

    ``returns`` (n_bars, n) counts from bar ``first`` on; ``at`` (k,) is increasing, ``out`` has
    shape (k, n, n). ``decay`` is the weight of a bar relative to the next one. ``sums`` (n, n) is
    scratch space and must be zero.
    """
    n = returns.shape[1]
    weight, t = 0.0, first
    for k in range(len(at)):
        while t <= at[k]:
            weight = decay * weight + 1.0
            add_products(sums, returns[t], decay)
            t += 1
        for i in range(n):
            for j in range(n):
                out[k, i, j] = sums[i, j] / weight


def add_products(sums: FloatArray, row: FloatArray, decay: float) -> None:
    for i in range(len(row)):
        for j in range(len(row)):
            sums[i, j] = decay * sums[i, j] + row[i] * row[j]


def equal_risk_lanes(covariances: FloatArray, out: FloatArray) -> None:
    """Write the weights at which all contributions to the variance are equal to ``out`` (k, n).

    ``covariances`` (k, n, n) have positive diagonals. Each weight is solved for in turn, until none
    changes; weights are NaN where they do not settle.
    """
    n = out.shape[1]
    for k in range(len(out)):
        weights = out[k]
        for i in range(n):
            weights[i] = 1.0 / math.sqrt(covariances[k, i, i] * n)
        change, sweep = math.inf, 0
        while change > TOLERANCE and sweep < SWEEPS:
            change = solve_in_turn(covariances[k], weights)
            sweep += 1
        total = 0.0
        for i in range(n):
            total += weights[i]
        for i in range(n):
            weights[i] = weights[i] / total if change <= 1e-10 else math.nan


def solve_in_turn(covariance: FloatArray, weights: FloatArray) -> float:
    """Solve w_i (C w)_i = 1/n for each weight with the others fixed; return the largest change."""
    n = len(weights)
    largest = 0.0
    for i in range(n):
        others = 0.0
        for j in range(n):
            if j != i:
                others += covariance[i, j] * weights[j]
        own = covariance[i, i]
        root = (math.sqrt(others * others + 4.0 * own / n) - others) / (2.0 * own)
        largest = max(largest, abs(root - weights[i]) / root)
        weights[i] = root
    return largest
